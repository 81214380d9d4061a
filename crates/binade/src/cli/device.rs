//! The device of a command.

use anyhow::{Context, Result, bail};

use crate::autograd::scope;
use crate::tensor::{Device, Error};

/// `--device NAME`.
#[derive(clap::Args, Clone, Debug, Default)]
pub struct On {
    /// Device: cpu, cuda, cuda:1, cuda-interpreted [default: what BINADE_DEVICE names, else cpu]
    #[arg(long, value_name = "NAME")]
    device: Option<String>,
    /// With --device cuda-interpreted: the compute capability whose kernels run, with the bits of its tensor cores: 75,
    /// 80, 86, 89, 90, 100, 120 [default: 80]
    #[arg(long, value_name = "N", requires = "device")]
    capability: Option<u32>,
}

impl On {
    /// Whether the command line names a device.
    pub fn is_given(&self) -> bool {
        self.device.is_some()
    }

    /// The device: that of the flag, or the scope's.
    ///
    /// # Errors
    /// There is no such device, or it does not open; the message says what to do.
    pub fn open(&self) -> Result<Device> {
        match (&self.device, self.capability) {
            (Some(name), None) => open(name).with_context(|| format!("--device {name}")),
            (Some(name), Some(capability)) => {
                open_as(name, capability).with_context(|| format!("--device {name} --capability {capability}"))
            }
            (None, _) => Ok(scope::device()?),
        }
    }

    /// Runs with the device as the scope's.
    ///
    /// # Errors
    /// As [`On::open`]; those of `run`.
    pub fn run<T>(&self, run: impl FnOnce() -> Result<T>) -> Result<T> {
        scope::with_device(&self.open()?, run)
    }
}

/// The interpreted device of a capability; any other has the one that it has.
fn open_as(name: &str, capability: u32) -> Result<Device> {
    if name != "cuda-interpreted" {
        bail!("--capability is of cuda-interpreted: any other device has the one that it has");
    }
    #[cfg(feature = "cuda-interpreted")]
    let opened = Ok(crate::cuda::open_interpreted(capability)?);
    #[cfg(not(feature = "cuda-interpreted"))]
    let (_, opened) = (capability, open(name));
    opened
}

/// A device by name, with advice where this program has no device of that kind.
fn open(name: &str) -> Result<Device> {
    let opened = Device::open(name);
    let kind = name.split(':').next().unwrap_or(name);
    let is_absent = match &opened {
        Err(Error::UnknownDevice { known, .. }) => !known.iter().any(|name| name.split(':').next() == Some(kind)),
        _ => false,
    };
    let advice = match kind {
        "cuda" if is_absent => "this program was built without NVIDIA's driver: build it with --features cuda",
        "cuda-interpreted" if is_absent => "build this program with --features cuda-interpreted",
        _ => return Ok(opened?),
    };
    opened.context(advice)
}
