//! [`Report`]: what a load found, all of it by name.

use std::fmt;

use binade_tensor::DType;

use crate::{FileDType, Loss};

/// What a load found.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Report {
    /// What was taken over, or would have been.
    pub loaded: Vec<Loaded>,
    /// What the model has and the file lacks: the model's name and shape, and the file's names that were looked for.
    pub missing: Vec<Missing>,
    /// What the file has and the model lacks: name and shape.
    pub unexpected: Vec<(String, Vec<usize>)>,
    /// What does not fit its place.
    pub mismatched: Vec<Misplaced>,
    /// Names under which the file has different values, and which are one tensor of the model.
    pub untied: Vec<[String; 2]>,
    /// What is wanted and cannot be read, with the reason.
    pub unreadable: Vec<(String, String)>,
    /// What the file has and was left out, as it is no part of any model: masks, position ids.
    pub ignored: Vec<String>,
}

/// A tensor that was taken over.
#[derive(Clone, Debug, PartialEq)]
pub struct Loaded {
    /// The model's name.
    pub name: String,
    /// Type in the file.
    pub from: FileDType,
    /// Dtype in the model.
    pub to: DType,
    /// Elements that are NaN.
    pub nan: u64,
    /// What is lost, where the model's dtype is narrower.
    pub loss: Option<Loss>,
    /// The largest finite magnitude, where the model's dtype is narrower.
    pub max_abs: Option<f64>,
}

/// A tensor that is not in the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Missing {
    /// The model's name.
    pub name: String,
    /// Extents in the model.
    pub shape: Vec<usize>,
    /// Names that the file would have for it, if they are others.
    pub stored: Vec<String>,
}

/// A tensor that does not fit its place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Misplaced {
    /// The file's name.
    pub name: String,
    /// What it is.
    pub found: String,
    /// What it should be.
    pub expected: String,
}

impl Report {
    /// Whether everything has its place and every place is filled.
    pub fn is_complete(&self) -> bool {
        self.missing.is_empty()
            && self.unexpected.is_empty()
            && self.mismatched.is_empty()
            && self.untied.is_empty()
            && self.unreadable.is_empty()
    }

    /// What was lost in narrower formats, and NaNs: one line for each tensor.
    pub fn losses(&self) -> Vec<String> {
        let nan = self.loaded.iter().filter(|l| l.nan > 0).map(|l| format!("NaN: {} of {}", l.nan, l.name));
        let lost = self.loaded.iter().filter_map(|l| {
            let loss = l.loss.filter(|loss| !loss.is_none())?;
            Some(format!("{}: {loss}, largest {:.4e}", l.name, l.max_abs.unwrap_or(0.0)))
        });
        nan.chain(lost).collect()
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut lines = Vec::new();
        for missing in &self.missing {
            let stored = match &missing.stored[..] {
                [] => String::new(),
                names => format!(", in the file {}", names.join(", ")),
            };
            lines.push(format!("missing: {} {:?}{stored}", missing.name, missing.shape));
        }
        lines.extend(self.unexpected.iter().map(|(name, shape)| format!("not in the model: {name} {shape:?}")));
        let misplaced = |m: &Misplaced| format!("does not fit: {} is {} and should be {}", m.name, m.found, m.expected);
        lines.extend(self.mismatched.iter().map(misplaced));
        let untied = |[a, b]: &[String; 2]| format!("untied: {a} and {b} differ, and are one tensor of the model");
        lines.extend(self.untied.iter().map(untied));
        lines.extend(self.unreadable.iter().map(|(name, why)| format!("cannot be read: {name} {why}")));
        if lines.is_empty() {
            lines = self.losses();
        }
        match &lines[..] {
            [] => f.write_str("all fits"),
            lines => write!(f, "the weights do not fit the model:\n  {}", lines.join("\n  ")),
        }
    }
}
