//! The device of those who choose none.

use std::sync::OnceLock;

use binade_tensor::Device;

use crate::Result;

/// One for the whole process: the device that `BINADE_DEVICE` names, else the CPU.
pub(crate) fn default_device() -> Result<Device> {
    static DEFAULT: OnceLock<Device> = OnceLock::new();
    if let Some(device) = DEFAULT.get() {
        return Ok(device.clone());
    }
    let device = Device::open(std::env::var("BINADE_DEVICE").as_deref().unwrap_or("cpu"))?;
    Ok(DEFAULT.get_or_init(|| device).clone())
}
