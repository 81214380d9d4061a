//! [`Exception`]: operators and layers that a policy treats otherwise, by name.

use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError};

use binade_autograd::{Layers, Place};
use binade_tensor::Op;
use binade_tensor::samples::catalogue;
use serde::{Deserialize, Serialize};

use super::CastPolicy;
use crate::{Error, Result};

/// An exception to the table.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exception {
    /// Operators by name, a glob: `softmax`, `*_loss`, `*`.
    pub op: String,
    /// Layers by dotted path, a glob: `head`, `blocks.*.norm`, `*`. What a layer holds is part of it.
    pub layer: String,
    /// Their class.
    pub class: CastPolicy,
}

/// The operators that policies decide about.
static OPERATORS: LazyLock<Vec<&'static str>> = LazyLock::new(|| {
    let decided = |op: &Op| !op.is_conversion() && !matches!(op, Op::Backward(_));
    let mut names: Vec<&str> = catalogue().iter().filter(|op| decided(op)).map(Op::name).chain(["ctc_loss"]).collect();
    names.sort_unstable();
    names.dedup();
    names
});

fn glob(pattern: &str) -> Result<glob::Pattern> {
    glob::Pattern::new(pattern).map_err(|e| Error::Policy(format!("{pattern:?}: {e}")))
}

/// Fails for a malformed glob, and for one that no operator's name matches.
pub(super) fn check(op: &str, layer: &str) -> Result<()> {
    let (op_glob, _) = (glob(op)?, glob(layer)?);
    if OPERATORS.iter().any(|name| op_glob.matches(name)) {
        return Ok(());
    }
    // Methods that are no operators of their own.
    let method = match op {
        "linear" | "mm" | "bmm" | "addmm" | "einsum" => Some("matmul"),
        _ => None,
    };
    let hint = method
        .or_else(|| nearest(op, OPERATORS.iter().copied()))
        .map_or(String::new(), |name| format!("; did you mean {name:?}?"));
    Err(Error::Policy(format!("no operator is called {op:?}{hint}")))
}

/// The most similar word, if one is similar.
pub(super) fn nearest<'a>(word: &str, words: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let distance = |other: &str| if other.contains(word) && word.len() > 2 { 1 } else { edits(word, other) };
    let (distance, best) = words.map(|other| (distance(other), other)).min()?;
    (distance <= 1 + word.len() / 3).then_some(best)
}

/// Characters to insert, delete or replace.
fn edits(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], i + 1);
        for (j, y) in b.iter().enumerate() {
            let replaced = diagonal + usize::from(x != *y);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

/// An exception with its globs compiled.
#[derive(Debug)]
pub(super) struct Compiled {
    op: glob::Pattern,
    layer: glob::Pattern,
    pub class: CastPolicy,
}

impl Compiled {
    pub(super) fn new(e: &Exception) -> Option<Compiled> {
        Some(Compiled { op: glob(&e.op).ok()?, layer: glob(&e.layer).ok()?, class: e.class })
    }

    /// Whether it holds outside layers too, and needs no layer's name.
    pub(super) fn is_everywhere(&self) -> bool {
        self.layer.matches("")
    }

    pub(super) fn fits(&self, op: &Op, place: Option<&Place>) -> bool {
        let inside = || place.is_some_and(|place| place.names().iter().any(|name| holds(&self.layer, &name.path)));
        self.op.matches(op.name()) && (self.is_everywhere() || inside())
    }
}

/// Whether a glob names a layer or one that holds it.
fn holds(layer: &glob::Pattern, path: &str) -> bool {
    layer.matches(path) || path.match_indices('.').any(|(dot, _)| layer.matches(&path[..dot]))
}

/// The models whose layers ran under a policy. Two policies are equal whatever they met.
#[derive(Clone, Debug)]
pub(super) struct Met(Option<Arc<Mutex<Vec<Layers>>>>);

impl PartialEq for Met {
    fn eq(&self, _: &Met) -> bool {
        true
    }
}

impl Eq for Met {}

impl Met {
    pub(super) const NOTHING: Met = Met(None);

    /// Of a policy that asks for layers from now on.
    pub(super) fn fresh() -> Met {
        Met(Some(Arc::default()))
    }

    fn models(&self) -> Option<MutexGuard<'_, Vec<Layers>>> {
        self.0.as_ref().map(|models| models.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Notes the models of a layer.
    pub(super) fn note(&self, place: &Place) {
        let Some(mut models) = self.models() else { return };
        for name in place.names() {
            // Nearly always the same list; a model that was moved has an equal one.
            let known = models.iter().any(|known| Arc::ptr_eq(known, &name.model)) || models.contains(&name.model);
            if !known {
                models.push(name.model.clone());
            }
        }
    }

    /// Fails for an exception whose layer none of the models has.
    pub(super) fn check(&self, exceptions: &[Exception]) -> Result<()> {
        let Some(models) = self.models() else { return Ok(()) };
        let layers = || models.iter().flat_map(|model| model.iter().map(|layer| &**layer));
        for e in exceptions {
            let pattern = glob(&e.layer)?;
            if !pattern.matches("") && !layers().any(|layer| pattern.matches(layer)) {
                let hint = match nearest(&e.layer, layers()) {
                    Some(layer) => format!("; did you mean {layer:?}?"),
                    None => format!("; there are {:?}", layers().collect::<Vec<_>>()),
                };
                return Err(Error::Policy(format!("no layer is called {:?}{hint}", e.layer)));
            }
        }
        Ok(())
    }
}
