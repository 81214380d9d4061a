//! [`Saved`]: what waits for the backward pass. A value that other saved values determine is not kept: [`Again`]
//! computes it from them.

use std::sync::{Arc, Mutex, PoisonError};

use binade_tensor::op::Unary;
use binade_tensor::{Array, Class, DType, Op, WeakArray, run_one};
use smallvec::SmallVec;

use crate::{Error, Result};

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

/// How a first output is computed again.
pub(crate) struct Recipe {
    pub(crate) op: Op,
    /// Inputs and outputs of the operator, numbered as saved values.
    pub(crate) operands: SmallVec<[usize; 5]>,
    pub(crate) made: Made,
    /// Whether what was computed first saw an operand before it was rounded.
    pub(crate) unrounded: bool,
}

impl Recipe {
    pub(crate) fn new(op: Op, operands: SmallVec<[usize; 5]>, made: Made) -> Recipe {
        Recipe { op, operands, made, unrounded: false }
    }
}

/// What a value made again is.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Made {
    /// One elementwise pass over its operands.
    Pass,
    /// A sum or difference, whose gradient saves neither operand.
    Sum,
    /// Its one operand, rounded.
    Cast(DType),
    /// That function of its one operand.
    Activation(Unary),
    /// A pass in f32 that rounds once at its end: to a narrower dtype as its f32 result would be rounded.
    RoundedOnce,
}

/// An operator and its saved operands, from which a value is computed again: once for all that need it, and not at all
/// while something else keeps it alive.
pub(crate) struct Again {
    op: Op,
    made: Made,
    ins: SmallVec<[Saved; 5]>,
    dtype: DType,
    /// The value that was, with its version, if the bits made again will be its.
    first: Option<(WeakArray, u64)>,
    value: Mutex<Option<Array>>,
    /// How many are made for it, one from the other.
    depth: usize,
    /// Whether it is a sum, or a sum is made for it.
    sums: bool,
}

/// In a long chain of elementwise operators every so manieth value is saved: making one again, and dropping it, goes
/// through the chain by recursion.
const DEEPEST: usize = 8;

impl Again {
    /// `None` where the value is better saved.
    pub(crate) fn new(recipe: Recipe, ins: SmallVec<[Saved; 5]>, value: &Array) -> Option<Arc<Again>> {
        let Recipe { op, made, unrounded, .. } = recipe;
        // Where the operator does not give the bits of `value` (a fused activation saw its argument before it was
        // rounded to 16 bit) they must not depend on who else keeps the value.
        let mut exact = !(unrounded && value.dtype().is_half());
        let (mut depth, mut sums) = (1, made == Made::Sum);
        for saved in &ins {
            if let Saved::Again(operand) = saved {
                depth = depth.max(operand.depth + 1);
                exact &= operand.first.is_some();
                sums |= operand.sums;
            }
        }
        let (dtype, first) = (value.dtype(), exact.then(|| (value.downgrade(), value.storage().version())));
        (depth <= DEEPEST)
            .then(|| Arc::new(Again { op, made, ins, dtype, first, value: Mutex::default(), depth, sums }))
    }

    /// Whether it is a sum, or a sum is made for it.
    pub(crate) fn sums(&self) -> bool {
        self.sums
    }

    fn get(&self, op: &'static str, path: &Arc<str>, keep: bool) -> Result<Array> {
        if let Some(array) = self.there(op, path)? {
            return Ok(array);
        }
        let array = match (self.made, &self.ins[..]) {
            (Made::Cast(dtype), [Saved::Again(wide)]) => wide.rounded(dtype, op, path)?,
            (Made::Pass | Made::Sum | Made::Cast(_) | Made::Activation(_) | Made::RoundedOnce, _) => {
                self.run(self.dtype, op, path, keep)?
            }
        };
        if !keep {
            *self.value.lock().unwrap_or_else(PoisonError::into_inner) = Some(array.clone());
        }
        Ok(array)
    }

    /// The function and its argument, where the value is an activation that would have to be computed.
    pub(crate) fn activation(&self, op: &'static str, path: &Arc<str>) -> Result<Option<(Unary, Array)>> {
        if let (Made::Activation(act), [argument @ Saved::Value(..)]) = (self.made, &self.ins[..])
            && self.there(op, path)?.is_none()
        {
            return Ok(Some((act, argument.get(op, path, false)?)));
        }
        Ok(None)
    }

    /// The value, if it need not be computed.
    fn there(&self, op: &'static str, path: &Arc<str>) -> Result<Option<Array>> {
        if let Some(made) = &*self.value.lock().unwrap_or_else(PoisonError::into_inner) {
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

    /// The value in a narrower dtype. What rounds once from f32 need not write its f32 result first.
    fn rounded(&self, dtype: DType, op: &'static str, path: &Arc<str>) -> Result<Array> {
        if let Some(array) = self.there(op, path)? {
            return Ok(array.cast(dtype, Class::Casts)?);
        }
        if self.made == Made::RoundedOnce && self.dtype == DType::F32 {
            return self.run(dtype, op, path, false);
        }
        Ok(self.get(op, path, true)?.cast(dtype, Class::Casts)?)
    }
}
