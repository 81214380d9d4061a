//! What a resumed run must have in common with the one that was started.

use std::path::Path;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{Config, Error, Result, Splits, Target};

/// Settings that a resumed run may change: how long it goes on. Threads and output are no settings of a run. All else
/// decides what its numbers mean, and must stay.
const MAY_DIFFER: [&str; 1] = ["epochs"];

/// What the numbers of a checkpoint depend on, beside the model, whose parameters have names and shapes of their own.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Recipe {
    pub config: Config,
    training_samples: usize,
    test_samples: usize,
    input_shape: Vec<usize>,
    target: Target,
}

impl Recipe {
    pub(crate) fn new(config: &Config, data: &Splits) -> Recipe {
        Recipe {
            config: config.clone(),
            training_samples: data.train.len(),
            test_samples: data.test.len(),
            input_shape: data.train.input_shape(),
            target: data.train.target(),
        }
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
