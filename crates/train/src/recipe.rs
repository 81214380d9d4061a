//! What a resumed run must have in common with the one that was started.

use std::path::Path;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::data::Values;
use crate::{Config, Error, Result, Splits};

/// Settings that a resumed run may change: how long it goes on, and what it reports and keeps. Threads and output are
/// no settings of a run. All else decides what its numbers mean, and must stay.
const MAY_DIFFER: [&str; 6] = ["epochs", "patience", "evaluate_every", "keep_last", "keep_best", "tensorboard"];

/// What the numbers of a checkpoint depend on, beside the model, whose parameters have names and shapes of their own.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Recipe {
    pub config: Config,
    task: String,
    training_samples: usize,
    test_samples: usize,
    /// Names, dtypes and shapes of a sample's arrays.
    arrays: Vec<String>,
}

impl Recipe {
    /// # Errors
    /// The first training sample cannot be had.
    pub(crate) fn new(config: &Config, task: &str, data: &Splits) -> Result<Recipe> {
        let first = crate::batch::read("training", &*data.train, 0, None)?;
        let of = |v: &Values| format!("{} {} {:?}", v.name, v.numbers.dtype(), v.shape);
        Ok(Recipe {
            config: config.clone(),
            task: task.into(),
            training_samples: data.train.len(),
            test_samples: data.test.len(),
            arrays: first.0.iter().map(of).collect(),
        })
    }
}

/// Fails where the settings asked for are not those that `path` was written with, and names both.
pub(crate) fn check_same(path: &Path, written: &impl Serialize, asked: &impl Serialize) -> Result<()> {
    let json = |value: Result<Value, serde_json::Error>| value.map_err(|e| Error::io(path)(e.into()));
    let (written, asked) = (json(serde_json::to_value(written))?, json(serde_json::to_value(asked))?);
    match difference("settings", &written, &asked) {
        None => Ok(()),
        Some(difference) => {
            let message = format!(
                "the run was started with {difference}; resume with the same settings or start another run with --out"
            );
            Err(Error::Checkpoint { path: path.into(), message })
        }
    }
}

/// The first setting that differs, in words.
fn difference(name: &str, written: &Value, asked: &Value) -> Option<String> {
    if let (Value::Object(written), Value::Object(asked)) = (written, asked) {
        let must_agree = written.iter().filter(|(name, _)| !MAY_DIFFER.contains(&name.as_str()));
        return must_agree
            .into_iter()
            .find_map(|(name, value)| difference(name, value, asked.get(name).unwrap_or(&Value::Null)));
    }
    (written != asked).then(|| format!("{name} = {written}, not {asked}"))
}
