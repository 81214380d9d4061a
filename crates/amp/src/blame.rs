//! [`blame`]: which operator made the first value that is not finite, found by running the step again.
//!
//! Steps draw from counter-based streams, so a second run gives the same bits; a step that is not skipped pays nothing.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex};

use binade_autograd::scope::{self, Event, Phase};
use binade_autograd::{Backward, Var};
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
    /// A power of two times the present scale at which all gradients are finite: half of it if that fits, else the
    /// largest at which no operator's result overflows, from the magnitudes at a lower one. Results that a mask drops
    /// count there: a larger scale may fit too. `None` if there is none above 2⁻⁴⁰ of the scale, and where none is
    /// looked for: the operator is one of the forward pass, or scaling is off.
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
        self.fitting_scale.map_or(Ok(()), |scale| write!(f, "; a loss scale of {scale} fits"))
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

/// Follows values that are not finite from operator to operator.
#[derive(Default)]
pub(crate) struct Search {
    candidates: Vec<Candidate>,
    /// The candidate that spoilt a storage.
    spoilt: HashMap<u64, usize>,
}

/// A sum, or a largest element, of all elements; NaN if it cannot be had.
fn reduced(array: &Array, kind: Reduce) -> f64 {
    let op = Op::Reduce { kind, dims: Dims::all(array.shape().rank()), keepdim: false };
    let dtype = if array.dtype() == DType::F64 { DType::F64 } else { DType::F32 };
    let result = binade_tensor::run_one(&op, &[array], array.device(), dtype, Class::Workspace);
    result.and_then(|r| r.item()).unwrap_or(f64::NAN)
}

/// The largest magnitude: infinite or NaN if one element is.
fn largest(array: &Array) -> f64 {
    let (low, high) = (reduced(array, Reduce::Min), reduced(array, Reduce::Max));
    // Both are NaN if one element is, and NaN is not `>=`; `f64::max` would drop it.
    if high.abs() >= low.abs() { high.abs() } else { low.abs() }
}

fn finite(array: &Array) -> bool {
    if !array.dtype().is_float() || array.numel() == 0 {
        return true;
    }
    // A sum shows every infinity and NaN; only a sum of large finite numbers needs the closer look.
    if reduced(array, Reduce::Sum).is_finite() {
        return true;
    }
    largest(array).is_finite()
}

impl Search {
    pub(crate) fn see(&mut self, event: &Event<'_>) {
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
    pub(crate) fn first(&self) -> Option<&Blame> {
        self.candidates.iter().find(|c| c.spread || !c.absorbed).map(|c| &c.blame)
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
    binade_tensor::run(binade_tensor::Request::new(event.op, event.ins, device, DType::F32, Class::Workspace))
        .is_ok_and(|outs| finite(&outs[0]))
}

/// Runs a step again, the loss and its gradients at `scale`, and names the operator that made the first value that is
/// not finite; `None` if all are finite. The closure must do what the step did: under the same key and policy, from the
/// same weights. It runs once, and up to twice more to find the scale that fits.
///
/// Infinities that an operator absorbs (masked scores in a softmax) are no fault.
///
/// # Errors
/// The closure fails; out of memory.
pub fn blame<E: From<crate::Error>>(scale: f64, loss: impl Fn() -> Result<Var, E>) -> Result<Option<Blame>, E> {
    blame_again(Some(scale), None, &loss)
}

/// As [`blame`]; without a scale as a step without scaling is. `before` is the blame of the step before, if that was
/// skipped as well: if it is the same operator's once more, so is the scale that fits, and nothing is looked for again.
pub(crate) fn blame_again<E: From<crate::Error>>(
    scale: Option<f64>,
    before: Option<&Blame>,
    loss: &impl Fn() -> Result<Var, E>,
) -> Result<Option<Blame>, E> {
    let search = Arc::new(Mutex::new(Search::default()));
    let sink = search.clone();
    let observer: scope::Observer = Arc::new(move |event| sink.lock().unwrap_or_else(|e| e.into_inner()).see(event));
    let run = scope::with_observer(observer, || gradients(scale, loss))?;
    let found = std::mem::take(&mut *search.lock().unwrap_or_else(|e| e.into_inner()));
    let Some(mut blame) = found.first().cloned() else { return Ok(None) };
    // A gradient that the loss itself is made of is taken at the scale too.
    let mendable = blame.backward || run == Run::ProductNotFinite;
    if let Some(scale) = scale.filter(|_| mendable) {
        blame.fitting_scale = match before.filter(|b| b.same_fault(&blame)).map(|b| b.fitting_scale) {
            Some(None) => None,
            Some(Some(fits)) if fits < scale => Some(fits),
            Some(Some(_)) | None => fitting_scale(scale, blame.origin, loss)?,
        };
    }
    Ok(Some(blame))
}

impl Blame {
    fn same_fault(&self, other: &Blame) -> bool {
        let key = |b: &Blame| (b.op.clone(), b.layer.clone(), b.backward, b.dtype.clone(), b.origin);
        key(self) == key(other)
    }
}

/// How far a step came with finite values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Run {
    LossNotFinite,
    ProductNotFinite,
    GradientNotFinite,
    Finite,
}

/// The loss and, if it is finite, its gradients at a scale.
fn gradients<E: From<crate::Error>>(scale: Option<f64>, loss: &impl Fn() -> Result<Var, E>) -> Result<Run, E> {
    // Each attempt draws the same numbers, and changes nothing.
    scope::run_in(&scope::capture().rehearsal(), || {
        let loss = scope::with_loss_scale(scale.unwrap_or(1.0), loss)?;
        Ok(if finite(loss.array()) { backward(loss, scale)? } else { Run::LossNotFinite })
    })
}

fn backward(loss: Var, scale: Option<f64>) -> Result<Run> {
    let scaled = match scale {
        Some(scale) if loss.dtype().is_half() => (&loss.cast(DType::F32)? * scale)?,
        Some(scale) => (&loss * scale)?,
        None => loss,
    };
    if !finite(scaled.array()) {
        return Ok(Run::ProductNotFinite);
    }
    let upstream = Array::full(scaled.array().device(), scaled.dtype(), *scaled.shape(), 1.0, Class::Workspace)?;
    let grads = scaled.backward_with(Backward { lean: true, ..Backward::from(&upstream) })?;
    Ok(if grads.iter().all(|(_, g)| finite(g)) { Run::Finite } else { Run::GradientNotFinite })
}

/// How far below the scale a lower one is tried. What overflows f16 may be small 2⁻⁴⁰ below, and its predecessors 0:
/// the first look is nearer.
const PROBES: [i32; 2] = [-20, -40];

/// A scale below `scale` at which all gradients are finite, as [`Blame::fitting_scale`] says. Gradients are linear in
/// the scale: the magnitudes of one run at a low scale tell at which one the first of them overflows. Two runs at most.
fn fitting_scale<E: From<crate::Error>>(
    scale: f64,
    origin: Origin,
    loss: &impl Fn() -> Result<Var, E>,
) -> Result<Option<f64>, E> {
    // Only f16 has so little range that one look does not do.
    let probes = if origin == Origin::CastOverflow { &PROBES[..] } else { &PROBES[1..] };
    for &probe in probes {
        let low = scale * 2f64.powi(probe);
        if low < f32::MIN_POSITIVE as f64 {
            break;
        }
        let room = Arc::new(Mutex::new(f64::INFINITY));
        let sink = room.clone();
        let observer: scope::Observer = Arc::new(move |event: &Event<'_>| {
            if event.phase == Phase::Backward {
                let mut room = sink.lock().unwrap_or_else(|e| e.into_inner());
                *room = event.outs.iter().filter_map(headroom).fold(*room, f64::min);
            }
        });
        if scope::with_observer(observer, || gradients(Some(low), loss))? != Run::Finite {
            continue;
        }
        let room = *room.lock().unwrap_or_else(|e| e.into_inner());
        let half = scale / 2.0;
        let fits = (low * 2f64.powf(room.log2().floor())).clamp(low, half);
        if probe != probes[0] {
            return Ok(Some(fits));
        }
        // The last run allowed. Magnitudes of gradients that a mask drops count too, so that `fits` may be small: half
        // the scale fits most often.
        return Ok(Some(match gradients(Some(half), loss)? {
            Run::Finite => half,
            Run::LossNotFinite | Run::ProductNotFinite | Run::GradientNotFinite if fits < half => fits,
            Run::LossNotFinite | Run::ProductNotFinite | Run::GradientNotFinite => low,
        }));
    }
    Ok(None)
}

/// What the largest element may be multiplied by without overflowing.
fn headroom(array: &Array) -> Option<f64> {
    let limit = array.dtype().format()?.max_finite();
    // A hundredth less: 16-bit values at another scale are rounded otherwise.
    let room = if array.numel() == 0 { f64::INFINITY } else { 0.99 * limit / largest(array) };
    (room > 0.0 && room.is_finite()).then_some(room)
}
