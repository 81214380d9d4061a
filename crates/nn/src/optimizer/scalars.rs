//! [`Scalars`]: the numbers of passes that change from step to step, in memory of the device that stays.

use binade_tensor::{Array, ArrayMut, Class, Device};

use crate::Result;

/// One array for each device that takes part. A step uploads its numbers at most once to each, and not where they are
/// those of the step before.
#[derive(Debug, Default)]
pub(super) struct Scalars(Vec<(Vec<f32>, Array)>);

/// Who goes on by itself has memory of its own.
impl Clone for Scalars {
    fn clone(&self) -> Scalars {
        Scalars::default()
    }
}

impl Scalars {
    /// `values` on a device.
    pub(super) fn on(&mut self, device: &Device, values: &[f64]) -> Result<Array> {
        let values: Vec<f32> = values.iter().map(|&v| v as f32).collect();
        let there = self.0.iter_mut().find(|(old, array)| array.device() == device && old.len() == values.len());
        let Some((old, array)) = there else {
            let array = Array::from_slice(device, &values, &[values.len()], Class::Optimizer)?;
            self.0.retain(|(_, other)| other.device() != device);
            self.0.push((values, array.clone()));
            return Ok(array);
        };
        // Bits: a factor that is NaN is no new number each time.
        if !old.iter().zip(&values).all(|(a, b)| a.to_bits() == b.to_bits()) {
            let bytes: Vec<u8> = values.iter().flat_map(|v| v.to_ne_bytes()).collect();
            device.upload(&bytes, &mut ArrayMut::new("scalars", array)?)?;
            *old = values;
        }
        Ok(array.clone())
    }
}
