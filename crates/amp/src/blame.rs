//! [`blame`]: which operator made the first value that is not finite, found by running the step again.
//!
//! Steps draw from counter-based streams, so a second run gives the same bits; a step that is not skipped pays nothing.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex};

use binade_autograd::Var;
use binade_autograd::scope::{self, Event, Phase};
use binade_tensor::op::Reduce;
use binade_tensor::{Array, Class, DType, Dims, Op};
use serde::{Deserialize, Serialize};

use crate::Result;

/// How a value that is not finite came about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Origin {
    /// Finite in f32, but beyond the range of the dtype it was rounded to.
    CastOverflow,
    /// An infinity in f32 arithmetic: 1/0, exp(100).
    OpOverflow,
    /// NaN from finite operands: 0/0, log(−1).
    Invalid,
    /// No operator's doing: the data or the weights were not finite.
    Inherited,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Origin::CastOverflow => "beyond the range of its dtype",
            Origin::OpOverflow => "overflow in f32",
            Origin::Invalid => "an invalid operation",
            Origin::Inherited => "from an operand no operator spoilt: the input data or a weight is not finite",
        })
    }
}

/// An operand of the operator.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Operand {
    /// Dtype.
    pub dtype: String,
    /// Extents.
    pub shape: Vec<usize>,
    /// Largest finite magnitude.
    pub max_abs: f64,
}

/// The first operator whose result was not finite.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Blame {
    /// Operator.
    pub op: String,
    /// Path of its layer; empty outside a model.
    pub layer: String,
    /// Whether it computed a gradient.
    pub backward: bool,
    /// Dtype of the result.
    pub dtype: String,
    /// Index of the first element that is not finite.
    pub index: Vec<usize>,
    /// How it came about.
    pub origin: Origin,
    /// Elements of the result that are NaN, +∞ and −∞.
    pub counts: [usize; 3],
    /// The operands.
    pub operands: Vec<Operand>,
    /// The largest power of two times the present scale at which all gradients are finite; `None` if there is none above 2⁻⁴⁰
    /// of it.
    pub fitting_scale: Option<f64>,
}

impl fmt::Display for Blame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Blame { op, layer, dtype, index, origin, counts: [nan, up, down], .. } = self;
        write!(f, "{op}{}", if self.backward { " (backward)" } else { "" })?;
        if !layer.is_empty() {
            write!(f, " in {layer}")?;
        }
        write!(f, ": {dtype} result, element {index:?}, {origin}; {nan} NaN, {up} +inf, {down} -inf")?;
        for (i, operand) in self.operands.iter().enumerate() {
            let comma = if i == 0 { "; operands" } else { "," };
            write!(f, "{comma} {} {:?} up to {:.3e}", operand.dtype, operand.shape, operand.max_abs)?;
        }
        match self.fitting_scale {
            Some(scale) => write!(f, "; a loss scale of {scale} fits"),
            None if self.origin == Origin::Inherited => Ok(()),
            None => write!(f, "; no loss scale fits"),
        }
    }
}

/// A result that is not finite, and what became of it.
struct Candidate {
    blame: Blame,
    /// An operator's result was not finite because of it, or nothing used it.
    spread: bool,
    /// An operator's result was finite in spite of it: a masked score.
    absorbed: bool,
}

#[derive(Default)]
struct Search {
    candidates: Vec<Candidate>,
    /// The candidate that spoilt a storage.
    spoilt: HashMap<u64, usize>,
}

fn finite(array: &Array) -> bool {
    if !array.dtype().is_float() {
        return true;
    }
    // A sum shows every infinity and NaN; only a sum of large finite numbers needs the closer look.
    let sum = Op::Reduce { kind: Reduce::Sum, dims: Dims::all(array.shape().rank()), keepdim: false };
    let total = binade_tensor::run_one(&sum, &[array], array.device(), DType::F32, Class::Workspace);
    total.and_then(|t| t.item()).is_ok_and(f64::is_finite) || array.to_f64_vec().is_ok_and(|v| v.iter().all(|x| x.is_finite()))
}

impl Search {
    fn see(&mut self, event: &Event<'_>) {
        let bad = event.outs.iter().find(|out| !finite(out));
        let roots: Vec<usize> = event.ins.iter().filter_map(|a| self.spoilt.get(&a.storage().id()).copied()).collect();
        for &root in &roots {
            match bad {
                Some(_) => self.candidates[root].spread = true,
                None => self.candidates[root].absorbed = true,
            }
        }
        let Some(bad) = bad else { return };
        let root = roots.iter().min().copied().unwrap_or_else(|| {
            self.candidates.push(Candidate { blame: describe(event, bad), spread: false, absorbed: false });
            self.candidates.len() - 1
        });
        self.spoilt.extend(event.outs.iter().filter(|out| !finite(out)).map(|out| (out.storage().id(), root)));
    }

    /// The first whose harm was not undone.
    fn first(self) -> Option<Blame> {
        self.candidates.into_iter().find(|c| c.spread || !c.absorbed).map(|c| c.blame)
    }
}

fn describe(event: &Event<'_>, bad: &Array) -> Blame {
    let values = bad.to_f64_vec().unwrap_or_default();
    let first = values.iter().position(|x| !x.is_finite()).unwrap_or(0);
    let count = |f: fn(&f64) -> bool| values.iter().filter(|x| f(x)).count();
    let (mut index, mut rest) = (Vec::new(), first);
    for &extent in bad.shape().iter().rev() {
        index.insert(0, rest % extent);
        rest /= extent;
    }
    let origin = if !event.ins.iter().all(|a| finite(a)) {
        Origin::Inherited
    } else if values[first].is_nan() {
        Origin::Invalid
    } else if bad.dtype().is_half() && (matches!(event.op, Op::Cast(_)) || finite_in_f32(event)) {
        Origin::CastOverflow
    } else {
        Origin::OpOverflow
    };
    let operand = |a: &&Array| Operand {
        dtype: a.dtype().to_string(),
        shape: a.shape().to_vec(),
        max_abs: a.to_f64_vec().unwrap_or_default().iter().filter(|x| x.is_finite()).fold(0.0, |m, x| m.max(x.abs())),
    };
    Blame {
        op: event.op.name().into(),
        layer: event.path.into(),
        backward: event.phase == Phase::Backward,
        dtype: bad.dtype().to_string(),
        index,
        origin,
        counts: [count(|x| x.is_nan()), count(|x| *x == f64::INFINITY), count(|x| *x == f64::NEG_INFINITY)],
        operands: event.ins.iter().map(operand).collect(),
        fitting_scale: None,
    }
}

/// Whether the operator's first result is finite when it is stored in f32.
fn finite_in_f32(event: &Event<'_>) -> bool {
    let device = event.outs[0].device();
    binade_tensor::run(event.op, event.ins, device, DType::F32, Class::Workspace).is_ok_and(|outs| finite(&outs[0]))
}

/// Runs a step again, the loss and its gradients at `scale`, and names the operator that made the first value that is not finite; `None`
/// if all are finite. The closure must do what the step did: under the same key and policy, from the same weights.
///
/// Infinities that an operator absorbs (masked scores in a softmax) are no fault.
///
/// # Errors
/// The closure fails; out of memory.
pub fn blame<E: From<crate::Error>>(scale: f64, loss: impl Fn() -> Result<Var, E>) -> Result<Option<Blame>, E> {
    let gradients = |scale: f64| -> Result<bool, E> {
        // Each attempt draws the same numbers, and changes nothing.
        scope::run_in(&scope::capture().rehearsal(), || {
            let loss = loss()?;
            let upstream = Array::full(loss.array().device(), DType::F32, *loss.shape(), 1.0, Class::Workspace);
            let wide = if loss.dtype().is_half() { loss.cast(DType::F32) } else { Ok(loss.clone()) };
            let scaled = wide.and_then(|l| &l * scale);
            let grads = match (scaled, upstream) {
                (Ok(scaled), Ok(upstream)) => scaled.backward_lean(Some(&upstream)),
                (Err(error), _) => Err(error),
                (_, Err(error)) => Err(error.into()),
            };
            let grads = grads.map_err(crate::Error::from)?;
            Ok(grads.iter().all(|(_, g)| finite(g)))
        })
    };
    let search = Arc::new(Mutex::new(Search::default()));
    let sink = search.clone();
    let observer: scope::Observer = Arc::new(move |event| sink.lock().unwrap_or_else(|e| e.into_inner()).see(event));
    scope::with_observer(observer, || gradients(scale))?;
    let found = std::mem::take(&mut *search.lock().unwrap_or_else(|e| e.into_inner()));
    let Some(mut blame) = found.first() else { return Ok(None) };
    if blame.backward {
        for halvings in 1..=40 {
            let lower = scale * 0.5f64.powi(halvings);
            if gradients(lower)? {
                blame.fitting_scale = Some(lower);
                break;
            }
        }
    }
    Ok(Some(blame))
}
