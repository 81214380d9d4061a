//! Checkpoints: one safetensors file per precision with the model, the training's state and everything the loop counts,
//! so that a resumed run continues bit for bit.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use binade_amp::{Step, StepOutcome, Training, TrainingState};
use binade_nn::{CHECKSUM, Module, StateDict, TensorFile, replace_file, state_dict};
use binade_tensor::{Array, Class};
use serde::{Deserialize, Serialize};

use crate::answers::Answers;
use crate::metrics::{self, Written};
use crate::progress::warn;
use crate::recipe::{Recipe, check_same};
use crate::record::METRICS;
use crate::{Config, Error, Precision, Result, Summary};

/// What the loop counts.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Progress {
    /// Epoch in progress, from 0.
    pub epoch: u64,
    /// Next batch of it.
    pub batch: usize,
    pub skipped: u64,
    /// Of the epoch in progress, the sum of losses times counts, and of the counts: of steps with a finite loss.
    pub loss_sum: f64,
    pub loss_count: f64,
    /// Counts of all steps (samples, tokens), in all and in the epoch in progress.
    pub count: f64,
    pub epoch_count: f64,
    /// Seconds of training in all, and in the epoch in progress.
    pub seconds: f64,
    pub epoch_seconds: f64,
    /// Of the last epoch; `None` too where no loss was finite.
    pub train_loss: Option<f64>,
    pub test_loss: Option<f64>,
    pub accuracy: Option<f64>,
    #[serde(default)]
    pub top5: Option<f64>,
    #[serde(default)]
    pub answers: Option<Answers>,
    /// Of the best epoch, what is lower the better ([`crate::BestBy`]).
    pub best: Option<f64>,
    /// Epochs since then.
    #[serde(default)]
    pub since_best: u64,
    pub saved_activation_bytes: usize,
    pub peak: crate::PeakBytes,
    /// The lines of `metrics.jsonl` that tell of all this.
    pub metrics: Written,
    /// Set when training is complete.
    pub summary: Option<Summary>,
}

impl Progress {
    /// Counts a step over so many batches.
    pub(crate) fn note(&mut self, step: &Step, batches: usize, seconds: f64) {
        self.batch += batches;
        self.skipped += (step.outcome == StepOutcome::Skipped) as u64;
        self.saved_activation_bytes = self.saved_activation_bytes.max(step.saved_bytes);
        (self.seconds, self.epoch_seconds) = (self.seconds + seconds, self.epoch_seconds + seconds);
        (self.count, self.epoch_count) = (self.count + step.count, self.epoch_count + step.count);
        if step.loss.is_finite() {
            self.loss_sum += step.loss * step.count;
            self.loss_count += step.count;
        }
    }

    /// Whether the epoch was better than all before it, of this measure that is lower the better.
    pub(crate) fn judge(&mut self, measure: f64) -> bool {
        let better = measure < self.best.unwrap_or(f64::INFINITY);
        if better {
            (self.best, self.since_best) = (Some(measure), 0);
        } else {
            self.since_best += 1;
        }
        better
    }

    /// Whether no epoch is left to train.
    pub(crate) fn at_end(&self, config: &Config) -> bool {
        self.epoch >= config.epochs || config.patience.is_some_and(|patience| self.since_best >= patience)
    }

    /// Ends an epoch.
    pub(crate) fn next_epoch(&mut self) {
        (self.epoch, self.batch) = (self.epoch + 1, 0);
        (self.loss_sum, self.loss_count, self.epoch_count, self.epoch_seconds) = (0.0, 0.0, 0.0, 0.0);
    }
}

/// The header that goes with the tensors.
#[derive(Serialize, Deserialize)]
struct Header {
    recipe: Recipe,
    progress: Progress,
    training: TrainingState,
}

const KEY: &str = "binade";
const MODEL: &str = "model.";

/// The checkpoint of a precision in a run folder.
pub(crate) fn path(folder: &Path, precision: Precision) -> PathBuf {
    folder.join(format!("checkpoint-{}.safetensors", precision.name()))
}

fn best(folder: &Path, precision: Precision) -> PathBuf {
    folder.join(format!("best-{}.safetensors", precision.name()))
}

/// What a file shall hold: tensors that go on changing, and texts beside them.
pub(crate) struct Contents {
    pub path: PathBuf,
    pub tensors: StateDict,
    pub metadata: HashMap<String, String>,
}

/// All that a run remembers.
pub(crate) fn contents(
    path: &Path,
    recipe: &Recipe,
    model: &dyn Module,
    training: &Training,
    progress: &Progress,
) -> Result<Contents> {
    let header = Header { recipe: recipe.clone(), progress: progress.clone(), training: training.state()? };
    let text = serde_json::to_string(&header).map_err(|e| Error::io(path)(e.into()))?;
    let mut tensors: Vec<_> =
        state_dict(model).into_iter().map(|(name, array)| (format!("{MODEL}{name}"), array)).collect();
    tensors.extend(header.training.tensors());
    Ok(Contents { path: path.into(), tensors, metadata: HashMap::from([(KEY.to_string(), text)]) })
}

/// The model's tensors for a file of their own, under their own names.
pub(crate) fn weights(folder: &Path, precision: Precision, model: &dyn Module) -> Contents {
    Contents { path: best(folder, precision), tensors: state_dict(model), metadata: HashMap::new() }
}

/// Keeps the checkpoint of this epoch beside the newest, if more than one shall be kept, and removes those of older
/// epochs.
pub(crate) fn keep(path: &Path, epoch: u64, last: usize) -> Result<()> {
    let of = |epoch: u64| path.with_extension(format!("epoch-{epoch}.safetensors"));
    if last > 1 {
        let kept = of(epoch);
        if kept.exists() {
            std::fs::remove_file(&kept).map_err(Error::io(&kept))?;
        }
        // The newest is replaced as a whole later on, never written to: two names of one file do.
        if std::fs::hard_link(path, &kept).is_err() {
            std::fs::copy(path, &kept).map_err(Error::io(&kept))?;
        }
    }
    let old = epoch.checked_sub(last as u64).map(of);
    match old.filter(|old| last > 1 && old.exists()) {
        Some(old) => std::fs::remove_file(&old).map_err(Error::io(&old)),
        None => Ok(()),
    }
}

/// What was loaded.
pub(crate) struct Loaded {
    progress: Progress,
    path: PathBuf,
    /// What is wrong with the newest checkpoint, if this is one before it.
    damaged: Option<Error>,
}

impl Loaded {
    /// What the loop counted; says so aloud if it was less than it might be.
    pub(crate) fn told(&self) -> Progress {
        if let Some(error) = &self.damaged {
            warn(&format!("{error}; in its place is the checkpoint after epoch {}", self.progress.epoch));
        }
        self.progress.clone()
    }

    /// As [`Loaded::told`], with the file in the place of a damaged one: a training that has ended writes no other.
    pub(crate) fn restored(self, newest: &Path) -> Result<Progress> {
        if self.damaged.is_some() {
            replace_by(newest, &self.path)?;
        }
        Ok(self.told())
    }
}

/// Puts a copy of a file in the place of another.
fn replace_by(path: &Path, from: &Path) -> Result<()> {
    let bytes = std::fs::read(from).map_err(Error::io(from))?;
    replace_file(path, |file| file.write_all(&bytes)).map_err(Error::io(path))
}

/// Restores model and training from the newest checkpoint that is whole, or from that of an epoch. The metrics beside
/// it must be those that it knows. The model may be overwritten on an error.
pub(crate) fn load(
    folder: &Path,
    after_epoch: Option<u64>,
    recipe: &Recipe,
    model: &dyn Module,
    training: &mut Training,
) -> Result<Loaded> {
    let (precision, newest) = (recipe.config.precision, path(folder, recipe.config.precision));
    let Whole { path, file, header, damaged } = match after_epoch {
        Some(epoch) => of_epoch(&newest, epoch)?,
        None => newest_whole(&newest)?,
    };
    let tensors = load_model(&path, &file, &header, recipe, model)?;
    let bad = |error: binade_amp::Error| Error::Checkpoint { path: path.clone(), message: error.to_string() };
    training.load(&header.training.with_tensors(&tensors).map_err(bad)?).map_err(bad)?;
    metrics::verify(&folder.join(METRICS), precision.name(), training.iteration, header.progress.metrics)?;
    Ok(Loaded { progress: header.progress, path, damaged })
}

/// Fails if the best weights of a precision are there and not whole: nothing would make them again.
pub(crate) fn check_best(folder: &Path, precision: Precision) -> Result<()> {
    let path = best(folder, precision);
    if !path.exists() {
        return Ok(());
    }
    let more = |error: Error| match error {
        Error::Checkpoint { path, message } => {
            Error::Checkpoint { path, message: format!("{message}; remove it to go on without these weights") }
        }
        other => other,
    };
    open(&path).map(drop).map_err(more)
}

/// Puts the checkpoints that were kept after an epoch in the place of the newest, and removes those of later epochs.
///
/// # Errors
/// A precision has a checkpoint, and none of that epoch that is whole: which there are. Nothing is changed then.
pub(crate) fn rewind(folder: &Path, precisions: &[Precision], epoch: u64) -> Result<()> {
    let begun = || precisions.iter().map(|&precision| path(folder, precision)).filter(|newest| newest.exists());
    begun().try_for_each(|newest| of_epoch(&newest, epoch).map(drop))?;
    for newest in begun() {
        for (number, own) in kept(&newest) {
            if number == epoch {
                replace_by(&newest, &own)?;
            } else if number > epoch {
                std::fs::remove_file(&own).map_err(Error::io(&own))?;
            }
        }
    }
    Ok(())
}

/// The checkpoint that was kept after an epoch.
fn of_epoch(newest: &Path, epoch: u64) -> Result<Whole> {
    let mut all = kept(newest);
    let Some(at) = all.iter().position(|(number, _)| *number == epoch) else {
        let there = all.iter().map(|(number, _)| number.to_string()).collect::<Vec<_>>();
        let there = if there.is_empty() { "none is kept".into() } else { format!("kept are {}", there.join(", ")) };
        let message = format!("no checkpoint of epoch {epoch} beside it, {there}; see --keep-last");
        return Err(Error::Checkpoint { path: newest.into(), message });
    };
    let (_, path) = all.swap_remove(at);
    let (file, header) = open_checkpoint(&path)?;
    Ok(Whole { path, file, header, damaged: None })
}

/// A checkpoint that is whole.
struct Whole {
    path: PathBuf,
    file: TensorFile,
    header: Header,
    /// What is wrong with the newest one, if this is another.
    damaged: Option<Error>,
}

/// The newest checkpoint that is whole, of those that are kept.
fn newest_whole(newest: &Path) -> Result<Whole> {
    let error = match open_checkpoint(newest) {
        Ok((file, header)) => return Ok(Whole { path: newest.into(), file, header, damaged: None }),
        Err(error) => error,
    };
    for (_, path) in kept(newest).into_iter().rev() {
        if let Ok((file, header)) = open_checkpoint(&path) {
            return Ok(Whole { path, file, header, damaged: Some(error) });
        }
    }
    Err(error)
}

/// The checkpoints of epochs that are kept beside the newest, in their order.
fn kept(newest: &Path) -> Vec<(u64, PathBuf)> {
    let (Some(folder), Some(stem)) = (newest.parent(), newest.file_stem().and_then(|stem| stem.to_str())) else {
        return Vec::new();
    };
    let epoch = |path: &Path| {
        let name = path.file_name()?.to_str()?;
        name.strip_prefix(stem)?.strip_prefix(".epoch-")?.strip_suffix(".safetensors")?.parse::<u64>().ok()
    };
    let paths = std::fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
    let mut kept: Vec<(u64, PathBuf)> = paths.filter_map(|path| Some((epoch(&path)?, path))).collect();
    kept.sort();
    kept
}

/// A file of tensors that is whole by its checksum.
fn open(path: &Path) -> Result<TensorFile> {
    let bad = |message: String| Error::Checkpoint { path: path.into(), message };
    let file = TensorFile::open(path).map_err(|e| match e {
        binade_nn::Error::Format { message, .. } => bad(format!("not a whole checkpoint ({message})")),
        other => other.into(),
    })?;
    if !file.metadata().contains_key(CHECKSUM) {
        return Err(bad(format!("its checksum ({CHECKSUM}) is missing: damaged, or written by another program")));
    }
    Ok(file)
}

fn open_checkpoint(path: &Path) -> Result<(TensorFile, Header)> {
    let bad = |message: String| Error::Checkpoint { path: path.into(), message };
    let file = open(path)?;
    let text = file.metadata().get(KEY);
    let text = text.ok_or_else(|| bad("a safetensors file, but no checkpoint of a training run".into()))?;
    let header = serde_json::from_str(text).map_err(|e| bad(format!("its header does not parse: {e}")))?;
    Ok((file, header))
}

/// Writes a checkpoint into a model, and gives all tensors that are not the model's.
fn load_model(
    path: &Path,
    file: &TensorFile,
    header: &Header,
    recipe: &Recipe,
    model: &dyn Module,
) -> Result<Vec<(String, Array)>> {
    let bad = |message: String| Error::Checkpoint { path: path.into(), message };
    check_same(path, &header.recipe, recipe)?;
    let (asked, done) = (recipe.config.epochs, header.progress.epoch);
    let finished = header.progress.summary.as_ref().is_some_and(|s| s.epochs == asked);
    if !finished && asked <= done {
        return Err(bad(format!("epochs = {asked} asked for, but {done} are trained already; ask for more")));
    }
    file.load(model, MODEL).map_err(|e| bad(e.to_string()))?;
    let others = file.names().iter().filter(|name| !name.starts_with(MODEL));
    // The optimiser and the averages take these arrays over.
    Ok(file.arrays(others, Class::Optimizer)?)
}
