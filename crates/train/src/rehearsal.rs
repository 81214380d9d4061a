//! [`Rehearsed`]: what two steps take, told without training anything; and what some steps spend their time with.

use binade_amp::Training;
use binade_autograd::{eval, scope};
use binade_nn::{Module, StateDict, state_dict};
use binade_tensor::Device;

use crate::fit::{averaged, epoch};
use crate::profile::{Recorder, Recording, UNLIKE_THE_REST};
use crate::trainee::Make;
use crate::{Batch, Config, Data, Result, Splits};

/// What [`crate::Trainer::rehearse`] found beside what the device counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rehearsed {
    /// Bytes kept between forward and backward.
    pub saved_bytes: usize,
    /// Values that are trained.
    pub parameters: usize,
    /// Bytes of a checkpoint's tensors: what is copied while one is written beside the training.
    pub checkpoint_bytes: usize,
}

/// [`Trainer::rehearse`], whichever model it is.
pub(crate) fn rehearse(make: Make<'_>, data: &Splits, config: &Config, device: &Device) -> Result<Rehearsed> {
    let first = |from: &dyn Data, n: usize, at: usize| {
        Batch::of(from, &(at * n..(at + 1) * n).map(|i| i % from.len()).collect::<Vec<_>>(), None)
    };
    let rehearsed = || -> Result<Rehearsed> {
        config.check(data)?;
        let fresh = make()?;
        let mut saved_bytes = 0;
        let (pair, mut training) = (fresh.trainee(), fresh.training(config)?);
        // A group ends with its epoch.
        let together = config.accumulate.min(config.batches(data.train.len()).max(1));
        for _ in 0..2 {
            let parts: Vec<Batch> = (0..together)
                .map(|part| first(&*data.train, config.batch_size.min(data.train.len()), part))
                .collect::<Result<_>>()?;
            saved_bytes = training.step_over(&parts, |batch| pair.loss(batch))?.saved_bytes;
        }
        let batch = first(&*data.test, config.evaluation_batch.min(data.test.len()), 0)?;
        let policy = training.policy.clone();
        averaged(&mut training, || policy.run(|| eval(|| pair.evaluate(&batch))))??;
        let checkpoint_bytes = remembered(pair.model(), &training)?;
        Ok(Rehearsed { saved_bytes, parameters: pair.model().parameter_count(), checkpoint_bytes })
    };
    scope::with_device(device, || scope::with_key(config.seed, u64::MAX, rehearsed))
}

/// Bytes of all tensors that a checkpoint holds.
fn remembered(model: &dyn Module, training: &Training) -> Result<usize> {
    let bytes = |dict: &StateDict| dict.iter().map(|(_, array)| array.numel() * array.dtype().size()).sum::<usize>();
    let averages = training.ema.as_ref().map_or(0, |ema| bytes(&ema.state_dict().tensors));
    let states = training.optimizers.iter().map(|own| Ok(bytes(&own.state_dict()?.tensors)));
    Ok(bytes(&state_dict(model)) + averages + states.sum::<Result<usize>>()?)
}

/// [`Trainer::profile`], whichever model it is.
pub(crate) fn profile(make: Make<'_>, data: &Splits, config: &Config, steps: u64) -> Result<Recording> {
    config.check(data)?;
    let fresh = scope::with_key(config.seed, u64::MAX, make)?;
    let (pair, mut training) = (fresh.trainee(), fresh.training(config)?);
    let device = pair.model().device().map_or_else(scope::device, Ok)?;
    let mut recorder = Recorder::new(UNLIKE_THE_REST, steps.max(1));
    scope::with_device(&device, || {
        let mut number = 0;
        loop {
            let mut samples = epoch(pair, data, config, number, 0)?;
            number += 1;
            loop {
                recorder.before_step();
                let group = samples.next_group(config.accumulate)?;
                if group.is_empty() {
                    break;
                }
                let running = Recording::step(training.iteration);
                let _skipped_too = training.step_over(&group, |batch| pair.loss(batch))?;
                drop(running);
                if recorder.after_step()
                    && let Some(recording) = recorder.end(config.precision.name())
                {
                    return Ok(recording);
                }
            }
        }
    })
}
