//! [`Scalars`]: the numbers of passes that change from step to step, in memory of the device that stays.

use binade_tensor::{Array, ArrayMut, Class, Device, Op, Shape};

use crate::Result;

/// So many numbers that are others than in the step before are written by the device itself, and more uploaded.
const FEW: usize = 4;

/// One array for each device that takes part. A step writes what is another number than in the step before; it uploads
/// at most once to each.
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
        let changed: Vec<usize> = (0..values.len()).filter(|&i| old[i].to_bits() != values[i].to_bits()).collect();
        if changed.len() > FEW {
            let bytes: Vec<u8> = values.iter().flat_map(|v| v.to_ne_bytes()).collect();
            device.upload(&bytes, &mut ArrayMut::new("scalars", array)?)?;
        } else {
            for &i in &changed {
                let fill = Op::Fill { value: values[i].into(), shape: Shape::new(&[1])? };
                let number = array.with_layout(array.layout().narrow(0, i, 1))?;
                device.run(&fill, &[], &mut [ArrayMut::new("scalars", &number)?])?;
                old[i] = values[i];
            }
        }
        *old = values;
        Ok(array.clone())
    }
}
