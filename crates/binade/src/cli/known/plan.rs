//! What training steps take: planned on a device that only counts, or measured.

use anyhow::{Result, ensure};
use serde::{Deserialize, Serialize};

use super::{Choice, Model, Ready, build};
use crate::amp::Training;
use crate::autograd::scope::{self, Stored};
use crate::nn::{Optimizer, without_initial_values};
use crate::plan::{Plan, Scratch};
use crate::tensor::{Class, DType, Device, MemoryStats};
use crate::train::{Precision, Recording};

/// Bytes of the steps: at the peak of each class and of all together, and between the passes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Taken {
    /// In the order of [`Class::ALL`].
    pub classes: [u64; 7],
    /// Of all together.
    pub total: u64,
    /// Between forward and backward.
    pub saved: u64,
}

impl Taken {
    /// What a device counted, and what a step kept.
    pub fn of(stats: MemoryStats, saved: usize) -> Taken {
        Taken {
            classes: Class::ALL.map(|class| stats.peak(class) as u64),
            total: stats.peak_total as u64,
            saved: saved as u64,
        }
    }

    /// With all that a process has beside the buffers of its device.
    pub fn of_process(&self) -> u64 {
        self.total.saturating_add(beside(self.total))
    }
}

/// Memory of a process beside so many bytes of buffers: the program, its stacks and tables, and holes between them.
pub fn beside(total: u64) -> u64 {
    (256 << 20) + total / 32
}

/// How a model is trained.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Recipe {
    /// Of operators.
    pub precision: Precision,
    /// Optimiser and recomputation.
    pub choice: Choice,
    /// Whether parameters are stored in the precision, with f32 masters in the optimiser.
    pub stored: bool,
}

impl Recipe {
    /// Runs with new parameters stored as the recipe has them.
    fn storing<T>(&self, f: impl FnOnce() -> T) -> T {
        let params = match self.precision {
            Precision::Fp16 if self.stored => DType::F16,
            Precision::Bf16 if self.stored => DType::BF16,
            _ => DType::F32,
        };
        scope::with_stored(Stored { params, batch_norm: DType::F32 }, f)
    }

    fn training(&self, optimizer: Optimizer) -> Result<Training> {
        let mut training = Training::new(optimizer, self.precision.policy(), self.precision.loss_scale())?;
        (training.clip, training.blame) = (Some(1.0), false);
        Ok(training)
    }
}

/// What is known before a step.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Planned {
    /// Its memory.
    pub taken: Taken,
    /// Floating-point operations.
    pub work: f64,
    /// Values of all parameters that are trained.
    pub parameters: usize,
}

/// Plans the second step of a model, whose first makes the optimiser's state: nothing is computed.
///
/// # Errors
/// The model cannot be built so, or an operator cannot be measured.
pub fn planned(model: Model, recipe: &Recipe, n: usize, scratch: &Scratch) -> Result<Planned> {
    let plan = Plan::new(scratch);
    let device = Device::new(plan.clone());
    scope::with_device(&device, || {
        let ready = recipe.storing(|| without_initial_values(|| build(model, recipe.choice, n, true)))?;
        let parameters = ready.params.iter().map(|(_, param)| param.array().numel()).sum();
        device.reset_peak_memory();
        let mut training = recipe.training(ready.optimizer)?;
        let _applied = training.step(|| (ready.loss)())?;
        let before = plan.work();
        let step = training.step(|| (ready.loss)())?;
        let (work, taken) = (plan.work() - before, Taken::of(device.memory(), step.saved_bytes));
        Ok(Planned { taken, work, parameters })
    })
}

/// Steps in which a scale comes to fit.
const TRIES: u64 = 50;

/// Steps a model on the scope's device until two steps were applied, and says what they took.
///
/// # Errors
/// There is not enough memory; the gradients are not finite at any scale.
pub fn measured(model: Model, recipe: &Recipe, n: usize) -> Result<Taken> {
    let device = scope::device()?;
    let Ready { optimizer, loss, .. } =
        recipe.storing(|| scope::with_key(7, 0, || build(model, recipe.choice, n, false)))?;
    device.reset_peak_memory();
    let mut training = recipe.training(optimizer)?;
    loop {
        // In f16 the first steps may lower the scale and nothing else: the optimiser's state is not there yet.
        let step = training.step(&loss)?;
        if training.step == 2 {
            return Ok(Taken::of(device.memory(), step.saved_bytes));
        }
        ensure!(training.iteration < TRIES, "{TRIES} steps were not finite but for {}", training.step);
    }
}

/// Records steps of a model on the scope's device, after two that make the optimiser's state.
///
/// # Errors
/// There is not enough memory.
pub fn profiled(model: Model, recipe: &Recipe, n: usize, steps: u64) -> Result<Recording> {
    let Ready { optimizer, loss, .. } =
        recipe.storing(|| scope::with_key(7, 0, || build(model, recipe.choice, n, false)))?;
    let mut training = recipe.training(optimizer)?;
    (0..2).try_for_each(|_| training.step(&loss).map(drop))?;
    let (done, recording) = Recording::of(recipe.precision.name(), || {
        (0..steps).try_for_each(|number| {
            let _running = Recording::step(number);
            training.step(&loss).map(drop)
        })
    });
    done?;
    Ok(recording)
}

/// The largest number of samples with which a need stays within a limit; 0 if one is too many.
///
/// # Errors
/// What cannot be planned; a need that does not grow with the batch.
pub fn largest_batch(limit: u64, needs: impl Fn(usize) -> Result<u64>) -> Result<usize> {
    let (mut fits, mut not) = (0, 1);
    while needs(not)? <= limit {
        ensure!(not < 1 << 24, "16 million samples need no more memory than one");
        (fits, not) = (not, 2 * not);
    }
    while not - fits > 1 {
        let middle = fits + (not - fits) / 2;
        match needs(middle)? {
            need if need <= limit => fits = middle,
            _ => not = middle,
        }
    }
    Ok(fits)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_largest_batch_is_the_last_that_fits() {
        let needs = |n: usize| Ok(100 + 7 * n as u64);
        assert_eq!(largest_batch(100, needs).unwrap(), 0);
        assert_eq!(largest_batch(107, needs).unwrap(), 1);
        assert_eq!(largest_batch(1000, needs).unwrap(), 128);
        assert_eq!(largest_batch(799, needs).unwrap(), 99);
        assert!(largest_batch(1000, |_| Ok(1)).is_err());
        assert!(largest_batch(1000, |_| anyhow::bail!("no")).is_err());
    }
}
