//! [`Ema`]: averages of parameters over steps.

use binade_tensor::{Array, ArrayMut, Class, DType, Grad, Slot, Update};

use crate::clip::scalars;
use crate::{Module, Param, Result};

/// Exponential moving averages of a module's parameters, f32 (f64 for f64) whatever the parameters' dtype. In 16 bit an average
/// with decay 0.999 would never move.
#[derive(Debug)]
pub struct Ema {
    decay: f64,
    steps: u64,
    averages: Vec<(Param, Array)>,
}

impl Ema {
    /// Starts at the current values.
    ///
    /// # Errors
    /// Out of memory.
    pub fn new(module: &impl Module, decay: f64) -> Result<Ema> {
        let mut averages = Vec::new();
        for param in module.parameters() {
            let array = param.array();
            let dtype = if array.dtype() == DType::F64 { DType::F64 } else { DType::F32 };
            let copy = Array::full(array.device(), dtype, *array.shape(), 0.0, Class::Optimizer)?;
            copy.copy_from(array)?;
            averages.push((param, copy));
        }
        Ok(Ema { decay, steps: 0, averages })
    }

    /// One step, after each applied optimiser step: `average ← d·average + (1 − d)·parameter` with
    /// d = min(decay, (1 + steps)/(10 + steps)), which lets the average follow at first (TensorFlow's warm-up).
    ///
    /// # Errors
    /// A tensor is in use.
    pub fn update(&mut self) -> Result<()> {
        let decay = self.decay.min((1 + self.steps) as f64 / (10 + self.steps) as f64);
        self.steps += 1;
        let Some((first, _)) = self.averages.first() else { return Ok(()) };
        let device = first.array().device().clone();
        let mut slots = Vec::with_capacity(self.averages.len());
        for (param, average) in &self.averages {
            slots.push(Slot {
                param: Some(ArrayMut::new("ema", average)?),
                master: None,
                grad: Grad::Read(param.array()),
                state: vec![],
                first: false,
            });
        }
        device.update(&Update::Ema, &scalars(&device, &[1.0 - decay, 1.0])?, &mut slots)?;
        Ok(())
    }

    /// Exchanges averages and parameters: call before an evaluation and again after it.
    ///
    /// # Errors
    /// A tensor is in use.
    pub fn swap(&mut self) -> Result<()> {
        for (param, average) in &mut self.averages {
            let array = param.array();
            let kept = Array::full(array.device(), average.dtype(), *array.shape(), 0.0, Class::Optimizer)?;
            kept.copy_from(array)?;
            array.copy_from(average)?;
            *average = kept;
        }
        Ok(())
    }

    /// Averages by parameter, in order of the module's parameters.
    pub fn averages(&self) -> impl Iterator<Item = (&Param, &Array)> {
        self.averages.iter().map(|(p, a)| (p, a))
    }

    /// Updates so far.
    pub fn steps(&self) -> u64 {
        self.steps
    }
}
