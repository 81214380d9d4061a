//! [`fit`]: the training loop, a straight line. "No scaling" and "no autocast" are values, so there is no branch on
//! precision; what a batch, its loss and its evaluation are, the [`Task`] says.

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::time::Instant;

use binade_amp::{Blame, Policy, Step, StepOutcome, Training};
use binade_autograd::{eval, no_grad, scope};
use binade_nn::Module;
use binade_tensor::{Device, Key, profile};

use crate::answers::Answers;
use crate::batch::{Batches, epoch_order};
use crate::checkpoint::{self, Progress};
use crate::gallery::{self, Whose};
use crate::metrics::{EpochMetrics, EvaluationMetrics, Metrics, StepMetrics};
use crate::profile::{Profile, Recorder, Recording, write_trace};
use crate::progress::Log;
use crate::recipe::Recipe;
use crate::saving::Saver;
use crate::trainee::{Pair, Trainee};
use crate::{BestBy, Config, Error, Made, PeakBytes, Result, Score, Splits, Summary, Task, interrupt};

/// Where [`fit`] writes, and who is told.
#[derive(Default)]
pub struct Output<'a> {
    /// Run folder; it exists.
    pub folder: PathBuf,
    /// Continue from the checkpoint in the folder, if there is one.
    pub resume: bool,
    /// Print nothing.
    pub quiet: bool,
    /// Print a line for each step.
    pub verbose: bool,
    /// Called with the numbers of each step, evaluation and epoch.
    pub callbacks: Vec<Callback<'a>>,
    /// Steps to record.
    pub profile: Option<Profile>,
    /// What was recorded so far: one of each precision.
    pub recordings: Vec<Recording>,
}

/// Sees the numbers of a step, an evaluation or an epoch, and may change the training between steps:
/// [`binade_nn::Plateau::observe`]. `Break` ends the run there, with a checkpoint to resume from.
pub type Callback<'a> = Box<dyn FnMut(&Metrics, &mut Training) -> Result<ControlFlow<()>> + 'a>;

/// Trains `model` on `data` as `task` says, by the optimisers, the precision and the averages of `training`
/// ([`Config::training`] makes one). Evaluates after each epoch, writes `metrics.jsonl` and a checkpoint per epoch into
/// the run folder, and returns the summary and what the model made ([`Task::samples`]). With `resume` it continues bit
/// for bit where the checkpoint stands.
///
/// # Errors A checkpoint of another model, of another task, other data or other settings than these (but for epochs),
/// in any of which cases nothing is written. Bad settings, and shapes that do not fit the model. A sample that cannot
/// be had or is not what the task wants. More skipped steps in a row than [`binade_amp::LossScale::patience`] allows,
/// or a run of nothing else. Files that cannot be written, an interrupt.
pub fn fit<M: Module>(
    model: &M,
    task: &dyn Task<M>,
    data: &Splits,
    training: Training,
    config: &Config,
    output: &mut Output<'_>,
) -> Result<(Summary, Vec<Made>)> {
    fit_pair(&Pair { model, task }, data, training, config, output)
}

/// [`fit`], whichever model it is.
pub(crate) fn fit_pair(
    pair: &dyn Trainee,
    data: &Splits,
    training: Training,
    config: &Config,
    output: &mut Output<'_>,
) -> Result<(Summary, Vec<Made>)> {
    config.check(data)?;
    let device = pair.model().device().map_or_else(scope::device, Ok)?;
    scope::with_device(&device, || fit_on(&device, pair, data, training, config, output))
}

fn fit_on(
    device: &Device,
    pair: &dyn Trainee,
    data: &Splits,
    mut training: Training,
    config: &Config,
    output: &mut Output<'_>,
) -> Result<(Summary, Vec<Made>)> {
    let model = pair.model();
    let recipe = Recipe::new(config, &pair.name(), data)?;
    let path = checkpoint::path(&output.folder, config.precision);
    let mut at = Progress::default();
    if output.resume && path.exists() {
        at = checkpoint::load(&output.folder, None, &recipe, model, &mut training)?.restored(&path)?;
        // The end of fewer epochs, or of less patience, than are asked for now is none.
        let at_end = at.at_end(config);
        if let Some(summary) = at.summary.take().filter(|_| at_end) {
            return Ok((summary, made(pair, &mut training, config)?));
        }
    }
    let batches = config.batches(data.train.len());
    let steps = batches.div_ceil(config.accumulate) as u64;
    training.schedule = config.schedule_over(config.epochs * steps);
    training.detect_anomaly |= config.detect_anomaly;
    let folder = output.folder.clone();
    let mut saver = Saver::new(config, &folder);
    let mut log = Log::open(output, (pair.unit(), pair.text_unit()), config, training.iteration, steps)?;
    let (mut last_blame, mut recorder) = (None, recorder(output));
    if config.best_by != BestBy::Loss {
        // Told before the first epoch is spent.
        config.best_by.of(&evaluate(pair, data, 1, &mut training, config)?)?;
    }

    while !at.at_end(config) {
        device.reset_peak_memory();
        let mut samples = epoch(pair, data, config, at.epoch, at.batch)?;
        loop {
            recorder.before_step();
            let group = samples.next_group(config.accumulate)?;
            if group.is_empty() {
                break;
            }
            let (running, start) = (Recording::step(training.iteration), Instant::now());
            let tried = training.step_over(&group, |batch| pair.loss(batch));
            let step = tried.map_err(|error| ended(error, config, &at, training.iteration))?;
            saver.check()?;
            at.note(&step, group.len(), start.elapsed().as_secs_f64());
            drop(running);
            last_blame = step.blame.clone();
            let step = Metrics::Step(numbers(step, training.iteration - 1));
            let mut stop = tell(&mut log, output, &mut training, &at, step)?;
            if config.evaluate_every.is_some_and(|every| training.iteration.is_multiple_of(every)) {
                let score = evaluate(pair, data, data.test.len(), &mut training, config)?;
                let numbers = EvaluationMetrics::new(training.iteration, &score, pair.text_unit());
                stop |= tell(&mut log, output, &mut training, &at, Metrics::Evaluation(numbers))?;
            }
            let ends = stop || interrupt::requested();
            if recorder.after_step() || ends {
                recorded(&mut recorder, config, output, &log)?;
            }
            if ends {
                let lines;
                (at.metrics, lines) = log.written()?;
                at.peak = at.peak.most(device.memory().into());
                saver.save(&checkpoint::contents(&path, &recipe, model, &training, &at)?, lines, None)?;
                saver.wait()?;
                let folder = output.folder.clone();
                return Err(if stop { Error::Stopped { folder } } else { Error::Interrupted { folder } });
            }
        }
        if at.batch < batches {
            let message = format!("the data ended after batch {} of {batches}: Data::len is not what it was", at.batch);
            return Err(Error::Config(message));
        }
        // NaN where no loss was finite.
        let train_loss = at.loss_sum / at.loss_count;
        at.train_loss = Some(train_loss).filter(|l| l.is_finite());
        let score = evaluate(pair, data, data.test.len(), &mut training, config)?;
        let better = at.judge(config.best_by.of(&score)?);
        (at.accuracy, at.test_loss) =
            (score.right.map(|right| right / score.count), Some(score.loss).filter(|l| l.is_finite()));
        at.top5 = score.answers.as_ref().map(|answers| answers.among_five as f64 / score.count);
        at.answers = score.answers.clone().filter(|answers| !answers.found.is_empty());
        let (test, seconds) = (EvaluationMetrics::new(training.iteration, &score, pair.text_unit()), at.epoch_seconds);
        at.next_epoch();
        if at.at_end(config) && at.skipped == training.iteration {
            return Err(diverged(config, training.iteration - 1, at.skipped, last_blame.as_ref()));
        }
        let peak = PeakBytes::from(device.memory());
        at.peak = at.peak.most(peak);
        let numbers = EpochMetrics::new(at.epoch, train_loss, seconds, test, peak);
        let stop = tell(&mut log, output, &mut training, &at, Metrics::Epoch(numbers))?;
        let lines;
        (at.metrics, lines) = log.written()?;
        progress(pair, &mut training, config, (&output.folder, at.epoch), &mut log)?;
        if config.keep_best && better {
            averaged(&mut training, || saver.weights(model))??;
        }
        if !at.at_end(config) {
            saver.save(&checkpoint::contents(&path, &recipe, model, &training, &at)?, lines, Some(at.epoch))?;
            if stop {
                saver.wait()?;
                return Err(Error::Stopped { folder: output.folder.clone() });
            }
        }
    }
    recorded(&mut recorder, config, output, &log)?;
    log.end(&at);
    let summary = Summary {
        precision: config.precision.name().into(),
        epochs: at.epoch,
        seconds_per_epoch: at.seconds / at.epoch as f64,
        per_second: at.count / at.seconds,
        unit: pair.unit().into(),
        train_loss: at.train_loss.unwrap_or(f64::NAN),
        test_accuracy: at.accuracy,
        test_loss: at.test_loss,
        test_top5: at.top5,
        answers: at.answers.clone(),
        text: pair.text_unit(),
        loss_scale: training.scaler.loss_scale(),
        skipped_steps: at.skipped,
        peak_bytes: at.peak,
        saved_activation_bytes: at.saved_activation_bytes,
    };
    at.summary = Some(summary.clone());
    let (_, lines) = log.written()?;
    saver.save(&checkpoint::contents(&path, &recipe, model, &training, &at)?, lines, Some(at.epoch))?;
    saver.wait()?;
    let (policy, folder) = (training.policy.clone(), output.folder.join(config.precision.name()));
    averaged(&mut training, || aside(&policy, config, || pair.export(&folder)))??;
    Ok((summary, made(pair, &mut training, config)?))
}

/// The batches of an epoch from one of them on.
pub(crate) fn epoch(pair: &dyn Trainee, data: &Splits, config: &Config, epoch: u64, first: usize) -> Result<Batches> {
    let _phase = profile::phase("data");
    let mut order = epoch_order(data.train.len(), config.seed, epoch)?;
    order.truncate(config.batches(data.train.len()) * config.batch_size);
    let key = Some(Key::new(config.seed, epoch).stream("data"));
    let from = (data.train.clone(), pair.check());
    Batches::new("training", from, order, config.batch_size, first, key)
}

/// Writes and shows numbers, and calls back; true if the run shall end here.
fn tell(
    log: &mut Log,
    output: &mut Output<'_>,
    training: &mut Training,
    at: &Progress,
    metrics: Metrics,
) -> Result<bool> {
    let mut stop = false;
    for callback in &mut output.callbacks {
        stop |= callback(&metrics, training)?.is_break();
    }
    log.write(at, metrics)?;
    Ok(stop)
}

fn recorder(output: &Output<'_>) -> Recorder {
    output.profile.as_ref().map_or_else(Recorder::default, |profile| Recorder::new(profile.skip, profile.steps))
}

/// Ends, shows and writes a recording, if there is one.
fn recorded(recorder: &mut Recorder, config: &Config, output: &mut Output<'_>, log: &Log) -> Result<()> {
    let (Some(recording), Some(profile)) = (recorder.end(config.precision.name()), &output.profile) else {
        return Ok(());
    };
    log.line(&recording.tables(None));
    output.recordings.push(recording);
    write_trace(&profile.trace, &output.recordings)
}

fn numbers(step: Step, iteration: u64) -> StepMetrics {
    let Step { outcome, loss, grad_norm, lr, loss_scale, blame, .. } = step;
    let finite = |v: f64| v.is_finite().then_some(v);
    let (loss, grad_norm, skipped) = (finite(loss), finite(grad_norm), outcome == StepOutcome::Skipped);
    StepMetrics { iteration, loss, lr, grad_norm, loss_scale, skipped, blame: blame.map(Box::new) }
}

/// Mean loss and what was right on the first `samples` test samples, with the averages of the parameters where there
/// are any.
pub(crate) fn evaluate(
    pair: &dyn Trainee,
    data: &Splits,
    samples: usize,
    training: &mut Training,
    config: &Config,
) -> Result<Score> {
    let (policy, _phase) = (training.policy.clone(), profile::phase("evaluation"));
    let run = || -> Result<Score> {
        let (mut loss, mut count, mut right, mut answers) = (0.0, 0.0, None, None::<Answers>);
        let from = (data.test.clone(), pair.check());
        let order = (0..samples).collect();
        for batch in Batches::new("test", from, order, config.evaluation_batch, 0, None)? {
            let score = pair.evaluate(&batch?)?;
            (loss, count) = (loss + score.loss * score.count, count + score.count);
            right = score.right.map(|n| n + right.unwrap_or(0.0));
            match (&mut answers, score.answers) {
                (Some(all), Some(more)) => all.add(&more),
                (all, more) => *all = more,
            }
        }
        Ok(Score { loss: loss / count, count, right, answers })
    };
    averaged(training, || policy.run(|| eval(run)))?
}

/// What the model makes at the end.
fn made(pair: &dyn Trainee, training: &mut Training, config: &Config) -> Result<Vec<Made>> {
    let policy = training.policy.clone();
    averaged(training, || aside(&policy, config, || pair.samples()))?
}

/// Draws samples of the parameters and of their averages, and writes them beside the run.
fn progress(
    pair: &dyn Trainee,
    training: &mut Training,
    config: &Config,
    (folder, epoch): (&Path, u64),
    log: &mut Log,
) -> Result<()> {
    let (policy, iteration) = (training.policy.clone(), training.iteration);
    log.weights(iteration, pair.model())?;
    let mut draw = |whose| {
        let made = aside(&policy, config, || pair.progress())?;
        log.made(iteration, whose, &made)?;
        gallery::write(folder, config.precision, epoch, whose, &made)
    };
    draw(Whose::Raw)?;
    if training.ema.is_none() {
        return Ok(());
    }
    averaged(training, || draw(Whose::Averaged))?
}

/// In evaluation under the policy, with a stream of its own, so that it changes nothing.
fn aside<T>(policy: &Policy, config: &Config, f: impl FnOnce() -> Result<T>) -> Result<T> {
    let key = Key::new(config.seed, 0).stream("samples");
    scope::with_key(key.seed, key.iteration, || policy.run(|| eval(|| no_grad(f))))
}

/// Runs `f` with the averages in the place of the parameters, where there are any.
pub(crate) fn averaged<T>(training: &mut Training, f: impl FnOnce() -> T) -> Result<T> {
    match &mut training.ema {
        Some(ema) => Ok(ema.with_averages(f)?),
        None => Ok(f()),
    }
}

/// The error of a step, with what the run knows of it.
fn ended(error: Error, config: &Config, at: &Progress, iteration: u64) -> Error {
    match error {
        Error::Amp(binade_amp::Error::Stalled { steps, blame, .. }) => {
            diverged(config, iteration, steps.into(), blame.as_deref())
        }
        Error::Amp(binade_amp::Error::Anomaly { part, blame }) => {
            let (precision, epoch, batch) = (config.precision.name(), at.epoch + 1, at.batch + part + 1);
            Error::Anomaly { precision, step: iteration, epoch, batch, blame }
        }
        other => other,
    }
}

fn diverged(config: &Config, step: u64, skipped: u64, blame: Option<&Blame>) -> Error {
    let origin = blame.map_or_else(|| "the weights or the data".into(), Blame::to_string);
    Error::Diverged { precision: config.precision.name(), step, skipped, origin }
}
