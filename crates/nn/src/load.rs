//! Loading state dicts into modules: strict, or what fits with a report.

use std::collections::{HashMap, HashSet};
use std::fmt;

use binade_tensor::{Array, ArrayMut, DType};

use crate::{Error, Module, Result, StateDict, state_dict};

/// What a load found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LoadReport {
    /// What was taken over.
    pub loaded: Vec<String>,
    /// What was not there.
    pub missing: Vec<String>,
    /// What was there and has no place.
    pub unexpected: Vec<String>,
    /// What does not fit its place.
    pub mismatched: Vec<Mismatch>,
}

/// Something that does not fit its place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mismatch {
    /// Its name.
    pub name: String,
    /// What it is.
    pub found: String,
    /// What it should be.
    pub expected: String,
}

impl Mismatch {
    /// Of an array's dtype or shape.
    pub(crate) fn of(name: String, found: &Array, dtype: DType, shape: &[usize]) -> Mismatch {
        let text = |dtype: DType, shape: &[usize]| format!("{dtype} {shape:?}");
        Mismatch { name, found: text(found.dtype(), found.shape()), expected: text(dtype, shape) }
    }
}

impl LoadReport {
    /// Whether everything had its place and every place was filled.
    pub fn is_complete(&self) -> bool {
        self.missing.is_empty() && self.unexpected.is_empty() && self.mismatched.is_empty()
    }
}

impl fmt::Display for LoadReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mismatched =
            self.mismatched.iter().map(|m| format!("{} is {} and should be {}", m.name, m.found, m.expected));
        let kinds = [
            ("it lacks", self.missing.clone()),
            ("it has besides", self.unexpected.clone()),
            ("of another kind:", mismatched.collect()),
        ];
        let told: Vec<String> = kinds
            .iter()
            .filter(|(_, names)| !names.is_empty())
            .map(|(what, names)| format!("{what} {}", list(names)))
            .collect();
        f.write_str(if told.is_empty() { "all fits" } else { "" })?;
        f.write_str(&told.join("; "))
    }
}

/// Names in a sentence: all of a few.
pub(crate) fn list(names: &[String]) -> String {
    match names {
        [] => "nothing".into(),
        names if names.len() > 10 => format!("{} and {} more", names[..8].join(", "), names.len() - 8),
        names => names.join(", "),
    }
}

/// Copies a state dict into a module. Every name must be there, and no other; dtypes may differ, and arrays may share
/// memory with the module. Nothing is written unless all can be.
///
/// # Errors
/// [`Error::Names`], [`Error::Shape`]; a tensor of the module is in use.
pub fn load_state_dict(module: &dyn Module, from: &[(String, Array)]) -> Result<()> {
    let (pairs, report) = pairs(module, from, |name| Some(name.into()));
    if !report.missing.is_empty() || !report.unexpected.is_empty() {
        return Err(Error::Names { missing: report.missing, unexpected: report.unexpected });
    }
    if let Some((name, to, from)) = pairs.iter().find(|(_, to, from)| to.shape() != from.shape()) {
        return Err(Error::Shape { name: name.clone(), found: from.shape().to_vec(), expected: to.shape().to_vec() });
    }
    write(pairs)
}

/// Copies what fits of a state dict into a module, and reports: PyTorch's `strict=False`. `rename` gives the module's
/// name for a name of the state dict, or `None` for what is left out without a word. What is of another shape is
/// reported and left as it is.
///
/// ```
/// # use binade_cpu as _;
/// # fn main() -> binade_nn::Result<()> {
/// use binade_nn::{Linear, load_matching, state_dict};
/// let (trained, model) = (Linear::new(4, 2)?, Linear::new(4, 2)?);
/// let saved = state_dict(&trained).into_iter().map(|(name, array)| (format!("encoder.{name}"), array));
/// let saved: Vec<_> = saved.collect();
/// let report = load_matching(&model, &saved, |name| name.strip_prefix("encoder.").map(str::to_string))?;
/// assert_eq!(report.loaded, ["weight", "bias"]);
/// # Ok(())
/// # }
/// ```
///
/// # Errors
/// A tensor of the module is in use. Nothing is written then.
pub fn load_matching(
    module: &dyn Module,
    from: &[(String, Array)],
    rename: impl Fn(&str) -> Option<String>,
) -> Result<LoadReport> {
    let (pairs, mut report) = pairs(module, from, rename);
    let (fitting, others): (Vec<_>, Vec<_>) = pairs.into_iter().partition(|(_, to, from)| to.shape() == from.shape());
    report.mismatched =
        others.into_iter().map(|(name, to, from)| Mismatch::of(name, &from, to.dtype(), to.shape())).collect();
    report.loaded = fitting.iter().map(|(name, _, _)| name.clone()).collect();
    write(fitting)?;
    Ok(report)
}

/// Whether names and shapes are those of a module's tensors, each once.
pub(crate) fn check<'a>(own: &StateDict, found: impl Iterator<Item = (&'a str, &'a [usize])>) -> Result<()> {
    let found: HashMap<&str, &[usize]> = found.collect();
    let known: HashSet<&str> = own.iter().map(|(name, _)| name.as_str()).collect();
    let missing: Vec<String> =
        own.iter().filter(|(name, _)| !found.contains_key(name.as_str())).map(|(name, _)| name.clone()).collect();
    let mut unexpected: Vec<String> = found.keys().filter(|n| !known.contains(*n)).map(|n| n.to_string()).collect();
    unexpected.sort();
    if !missing.is_empty() || !unexpected.is_empty() {
        return Err(Error::Names { missing, unexpected });
    }
    for (name, array) in own {
        let (found, expected) = (found[name.as_str()], array.shape().to_vec());
        if found != expected {
            return Err(Error::Shape { name: name.clone(), found: found.to_vec(), expected });
        }
    }
    Ok(())
}

/// A name, the module's tensor and the one for it.
type Pair = (String, Array, Array);

/// The tensors that belong together, and the names without a partner.
fn pairs(
    module: &dyn Module,
    from: &[(String, Array)],
    rename: impl Fn(&str) -> Option<String>,
) -> (Vec<Pair>, LoadReport) {
    let mut report = LoadReport::default();
    let own = state_dict(module);
    let known: HashSet<&str> = own.iter().map(|(name, _)| name.as_str()).collect();
    let mut given: HashMap<String, &Array> = HashMap::new();
    for (name, array) in from {
        let Some(place) = rename(name) else { continue };
        if !known.contains(place.as_str()) {
            report.unexpected.push(name.clone());
        } else if given.insert(place, array).is_some() {
            report.unexpected.push(format!("a second {name}"));
        }
    }
    let mut pairs = Vec::new();
    for (name, to) in &own {
        match given.get(name) {
            Some(&array) => pairs.push((name.clone(), to.clone(), array.clone())),
            None => report.missing.push(name.clone()),
        }
    }
    (pairs, report)
}

/// Writes every pair, or none if a tensor is in use.
fn write(pairs: Vec<Pair>) -> Result<()> {
    let written: HashSet<u64> = pairs.iter().map(|(_, to, _)| to.storage().id()).collect();
    let mut ready = Vec::with_capacity(pairs.len());
    for (_, to, from) in pairs {
        let is_itself = to.storage().id() == from.storage().id() && to.meta() == from.meta() && from.is_written();
        if is_itself {
            continue;
        }
        // Its values are those of before, also where another tensor is written over them first.
        let from = if written.contains(&from.storage().id()) { crate::copy(&from)? } else { from };
        drop(from.storage().read("load_state_dict")?);
        // What is in use shows here, before anything is written.
        drop(ArrayMut::new("load_state_dict", &to)?);
        ready.push((to, from));
    }
    ready.iter().try_for_each(|(to, from)| Ok(to.copy_from(from)?))
}
