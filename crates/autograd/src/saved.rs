//! [`Saved`]: what waits for the backward pass. A value that other saved values determine is not kept: [`Again`]
//! computes it from them.

use std::sync::{Arc, Mutex, PoisonError};

use binade_tensor::op::{Backward, Binary, Unary};
use binade_tensor::{Array, Class, DType, Op, WeakArray, run_one};
use smallvec::SmallVec;

use crate::{Error, Result, Var};

/// A value kept for the backward pass, with the version it must still have.
#[derive(Clone)]
pub(crate) enum Saved {
    /// The value itself.
    Value(Array, u64),
    /// A cast of a leaf: kept as the leaf, which lives anyway, and rounded again by who reads it.
    Recast(Array, u64, DType),
    /// A value of one elementwise pass over others that are saved anyway.
    Again(Arc<Again>),
}

impl Saved {
    pub(crate) fn value(array: &Array) -> Saved {
        Saved::Value(array.clone(), array.storage().version())
    }

    pub(crate) fn recast(leaf: &Array, dtype: DType) -> Saved {
        Saved::Recast(leaf.clone(), leaf.storage().version(), dtype)
    }

    /// The value, for the gradient of `op`. With `keep` it will be asked for again.
    pub(crate) fn get(&self, op: &'static str, path: &Arc<str>, keep: bool) -> Result<Array> {
        let (array, saved) = match self {
            Saved::Value(array, version) | Saved::Recast(array, version, _) => (array, *version),
            Saved::Again(again) => return again.get(op, path, keep),
        };
        check_version(array, saved, op, path)?;
        match self {
            Saved::Recast(_, _, dtype) => {
                if let Some(cached) = array.storage().derived(*dtype, array.layout()) {
                    return Ok(cached);
                }
                Ok(array.cast_when_read(*dtype, Class::Casts)?)
            }
            Saved::Value(..) | Saved::Again(_) => Ok(array.clone()),
        }
    }
}

pub(crate) fn check_version(array: &Array, saved: u64, op: &'static str, path: &Arc<str>) -> Result<()> {
    match array.storage().version() {
        found if found != saved => Err(Error::Changed { op, path: path.clone(), saved, found }),
        _ => Ok(()),
    }
}

/// What is kept in place of a sum or difference, if that is fewer bytes: its narrower operand, where the wider one was
/// saved as a value by who used it before. So a residual stream in f32, to which branches in 16 bit are added, is saved
/// at every other branch. No sum is made from a sum that is made: a chain of them would keep one value from far back
/// and all sums on the way at once.
pub(crate) fn addends(ins: &[&Var], sum: &Array) -> Option<SmallVec<[Saved; 5]>> {
    let [a, b] = ins else { return None };
    let (wide, narrow) = if a.dtype().size() > b.dtype().size() { (a, b) } else { (b, a) };
    let fewer = wide.dtype() == sum.dtype() && narrow.dtype().size() < sum.dtype().size();
    if !fewer || wide.shape() != sum.shape() || narrow.shape() != sum.shape() {
        return None;
    }
    let kept = matches!(wide.saved(), Saved::Value(..)) && wide.node().is_some_and(|node| node.is_kept());
    let taken = kept
        && match narrow.saved() {
            // A part of something larger would keep all of it.
            Saved::Value(array, _) => array.is_whole(),
            Saved::Recast(..) => true,
            Saved::Again(again) => !again.sums,
        };
    taken.then(|| ins.iter().map(|var| var.saved()).collect())
}

/// An operator and its saved operands, from which a value is computed again: once for all that need it, and not at all
/// while something else keeps it alive.
pub(crate) struct Again {
    op: Op,
    ins: SmallVec<[Saved; 5]>,
    dtype: DType,
    /// The value that was, with its version, if the bits made again will be its.
    first: Option<(WeakArray, u64)>,
    made: Mutex<Option<Array>>,
    /// How many are made for it, one from the other.
    depth: usize,
    /// Whether it is a sum, or a sum is made for it.
    sums: bool,
}

/// In a long chain of elementwise operators every so manieth value is saved: making one again, and dropping it, goes
/// through the chain by recursion.
const DEEPEST: usize = 8;

impl Again {
    /// `exact` says that the operator gives the bits of `value`. Where it does not (a fused activation saw its argument
    /// before it was rounded to 16 bit) they must not depend on who else keeps the value. `None` where the value is
    /// better saved.
    pub(crate) fn new(op: Op, ins: SmallVec<[Saved; 5]>, value: &Array, exact: bool) -> Option<Arc<Again>> {
        let (mut depth, mut exact, mut sums) = (1, exact, matches!(op, Op::Binary(Binary::Add | Binary::Sub)));
        for saved in &ins {
            if let Saved::Again(operand) = saved {
                depth = depth.max(operand.depth + 1);
                exact &= operand.first.is_some();
                sums |= operand.sums;
            }
        }
        let first = exact.then(|| (value.downgrade(), value.storage().version()));
        (depth <= DEEPEST)
            .then(|| Arc::new(Again { op, ins, dtype: value.dtype(), first, made: Mutex::new(None), depth, sums }))
    }

    fn get(&self, op: &'static str, path: &Arc<str>, keep: bool) -> Result<Array> {
        if let Some(array) = self.there(op, path)? {
            return Ok(array);
        }
        let array = match (&self.op, &self.ins[..]) {
            (Op::Cast(dtype), [Saved::Again(wide)]) => wide.rounded(*dtype, op, path)?,
            _ => self.run(self.dtype, op, path, keep)?,
        };
        if !keep {
            *self.made.lock().unwrap_or_else(PoisonError::into_inner) = Some(array.clone());
        }
        Ok(array)
    }

    /// The function and its argument, where the value is an activation that would have to be computed.
    pub(crate) fn activation(&self, op: &'static str, path: &Arc<str>) -> Result<Option<(Unary, Array)>> {
        match (&self.op, &self.ins[..]) {
            (Op::Unary(act), [argument @ Saved::Value(..)]) if self.there(op, path)?.is_none() => {
                Ok(Some((*act, argument.get(op, path, false)?)))
            }
            _ => Ok(None),
        }
    }

    /// The value, if it need not be computed.
    fn there(&self, op: &'static str, path: &Arc<str>) -> Result<Option<Array>> {
        if let Some(made) = &*self.made.lock().unwrap_or_else(PoisonError::into_inner) {
            return Ok(Some(made.clone()));
        }
        let Some((first, version)) = &self.first else { return Ok(None) };
        let Some(array) = first.upgrade() else { return Ok(None) };
        check_version(&array, *version, op, path)?;
        Ok(Some(array))
    }

    fn run(&self, want: DType, op: &'static str, path: &Arc<str>, keep: bool) -> Result<Array> {
        let ins = self.ins.iter().map(|saved| saved.get(op, path, keep)).collect::<Result<SmallVec<[Array; 5]>>>()?;
        let refs: SmallVec<[&Array; 5]> = ins.iter().collect();
        Ok(run_one(&self.op, &refs, ins[0].device(), want, Class::Activations)?)
    }

    /// The value in a narrower dtype. A norm rounds once from f32, as its f32 result would be rounded, which need not
    /// be written.
    fn rounded(&self, dtype: DType, op: &'static str, path: &Arc<str>) -> Result<Array> {
        match (self.there(op, path)?, &self.op) {
            (None, Op::Backward(Backward::Renormalise(_))) if self.dtype == DType::F32 => {
                self.run(dtype, op, path, false)
            }
            (Some(array), _) => Ok(array.cast(dtype, Class::Casts)?),
            (None, _) => Ok(self.get(op, path, true)?.cast(dtype, Class::Casts)?),
        }
    }
}
