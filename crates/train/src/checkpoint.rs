//! Checkpoints: one safetensors file per precision with the model, the training's state and everything the loop counts,
//! so that a resumed run continues bit for bit.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use binade_amp::{Training, TrainingState};
use binade_nn::{CHECKSUM, Module, load_state_dict, read_safetensors, state_dict, write_safetensors};
use binade_tensor::{Array, Class};
use serde::{Deserialize, Serialize};

use crate::recipe::{Recipe, check_same};
use crate::{Error, Precision, Result, Summary};

/// What the loop counts.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Progress {
    /// Epoch in progress, from 0.
    pub epoch: u64,
    /// Next batch of it.
    pub batch: usize,
    pub skipped: u64,
    /// Of the epoch in progress, the sum of the samples' losses, and of how many: those of batches whose loss is
    /// finite.
    pub loss_sum: f64,
    pub loss_samples: u64,
    /// Seconds of training in all, and in the epoch in progress.
    pub seconds: f64,
    pub epoch_seconds: f64,
    pub saved_activation_bytes: usize,
    pub peak: crate::PeakBytes,
    /// Set when training is complete.
    pub summary: Option<Summary>,
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

pub(crate) fn save(
    path: &Path,
    recipe: &Recipe,
    model: &impl Module,
    training: &Training,
    progress: &Progress,
) -> Result<()> {
    let header = Header { recipe: recipe.clone(), progress: progress.clone(), training: training.state()? };
    let text = serde_json::to_string(&header).map_err(|e| Error::io(path)(e.into()))?;
    let mut tensors: Vec<_> =
        state_dict(model).into_iter().map(|(name, array)| (format!("{MODEL}{name}"), array)).collect();
    tensors.extend(header.training.tensors());
    Ok(write_safetensors(path, &tensors, HashMap::from([(KEY.to_string(), text)]))?)
}

/// Restores model and training; returns what the loop counted. The model may be overwritten on an error.
pub(crate) fn load(path: &Path, recipe: &Recipe, model: &impl Module, training: &mut Training) -> Result<Progress> {
    let (tensors, header) = load_model(path, recipe, model)?;
    let bad = |error: binade_amp::Error| Error::Checkpoint { path: path.into(), message: error.to_string() };
    training.load(&header.training.with_tensors(&tensors).map_err(bad)?).map_err(bad)?;
    Ok(header.progress)
}

fn load_model(path: &Path, recipe: &Recipe, model: &impl Module) -> Result<(Vec<(String, Array)>, Header)> {
    let bad = |message: String| Error::Checkpoint { path: path.into(), message };
    let (tensors, metadata) = read_safetensors(path, Class::Workspace).map_err(|e| match e {
        binade_nn::Error::Format { message, .. } => bad(format!("not a whole checkpoint ({message})")),
        other => other.into(),
    })?;
    let text =
        metadata.get(KEY).ok_or_else(|| bad("a safetensors file, but no checkpoint of a training run".into()))?;
    if !metadata.contains_key(CHECKSUM) {
        return Err(bad(format!("its checksum ({CHECKSUM}) is missing: damaged, or written by another program")));
    }
    let header: Header = serde_json::from_str(text).map_err(|e| bad(format!("its header does not parse: {e}")))?;
    check_same(path, &header.recipe, recipe)?;
    let (asked, done) = (recipe.config.epochs, header.progress.epoch);
    let finished = header.progress.summary.as_ref().is_some_and(|s| s.epochs == asked);
    if !finished && asked <= done {
        return Err(bad(format!("epochs = {asked} asked for, but {done} are trained already; ask for more")));
    }
    let (own, others): (Vec<_>, Vec<_>) = tensors.into_iter().partition(|(name, _)| name.starts_with(MODEL));
    let own: Vec<_> = own.into_iter().map(|(name, array)| (name[MODEL.len()..].to_string(), array)).collect();
    load_state_dict(model, &own).map_err(|e| bad(e.to_string()))?;
    Ok((others, header))
}
