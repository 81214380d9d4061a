//! [`Family`]: what an operator is, and [`Op`]'s answers, which are its family's.

use super::Op;
use super::bound::Bound;
use super::check::{Check, Outs};
use super::program::{Builder, Program, Value};
use crate::reference::Definition;
use crate::samples::{Inputs, Sampler};
use crate::{Array, DType, Device, Meta, Result, Shape};

/// How an operator behaves in 16 bit: a fact about it. Autocast policies map it to dtypes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Numerics {
    /// Fast and safe in 16 bit with f32 accumulation: contractions.
    Lower,
    /// Needs f32: range or cancellation.
    F32,
    /// Reads any dtype; its result needs f32 unless the caller asked for a dtype: sums, softmax.
    F32Out,
    /// All float inputs must be brought to the widest among them.
    Promote,
    /// Runs in the dtype its inputs have.
    Neutral,
    /// Unsafe in 16 bit: refused inside an autocast region.
    Banned,
}

/// An operator, as its family describes it. What has a default here is true of few operators.
pub(crate) trait Family: Definition {
    /// [`Op::name`].
    fn name(&self) -> &'static str;

    /// [`Op::numerics`]; not asked of kernels of the backward pass.
    fn numerics(&self) -> Numerics {
        Numerics::Neutral
    }

    /// [`Op::outs`]: every error of inputs and attributes comes from here.
    fn outs(&self, check: &Check<'_>) -> Result<Outs>;

    /// [`Op::bound`].
    fn bound(&self, ins: &[&Array]) -> Bound;

    /// [`Op::samples`].
    fn samples(&self, s: &Sampler<'_>) -> Vec<Inputs>;

    /// The first output in primitives, appended to a program; `None` for a primitive.
    fn define(&self, b: &mut Builder) -> Result<Option<Value>> {
        let _ = b;
        Ok(None)
    }

    /// [`Op::is_conversion`].
    fn is_conversion(&self) -> bool {
        false
    }

    /// [`Op::may_overwrite`].
    fn may_overwrite(&self, operand: usize) -> bool {
        let _ = operand;
        false
    }

    /// [`Op::moves`].
    fn moves(&self, input: usize) -> bool {
        let _ = input;
        false
    }

    /// [`Op::natural_dtype`].
    fn natural_dtype(&self, ins: &[DType]) -> DType {
        ins.iter().copied().filter(|d| d.is_float()).reduce(DType::promote).unwrap_or(DType::F32)
    }

    /// The operator with other extents where its attributes have some; `change` maps those that it has. For tests.
    #[cfg_attr(not(feature = "testing"), allow(dead_code))]
    fn with_extents(&self, change: &mut dyn FnMut(&Shape) -> Shape) -> Option<Op> {
        let _ = change;
        None
    }
}

impl Op {
    /// Answers with the operator's family.
    pub(crate) fn family<R>(&self, answer: impl FnOnce(&dyn Family) -> R) -> R {
        crate::with_family!(self, family => answer(family))
    }

    /// The operator's name in messages, reports and policies.
    pub fn name(&self) -> &'static str {
        self.family(|family| family.name())
    }

    /// How the operator behaves in 16 bit. The classes are those of PyTorch's CUDA autocast lists.
    pub fn numerics(&self) -> Numerics {
        // Kernels of the backward pass run in the dtypes of their gradients.
        let backward = matches!(self, Op::Backward(_));
        if backward { Numerics::Neutral } else { self.family(|family| family.numerics()) }
    }

    /// Shape, dtype and layout of every output for the given inputs. Float outputs have dtype `want`, statistics f32
    /// (f64 for f64), indices i64.
    ///
    /// # Errors
    /// [`Error::Shape`](crate::Error::Shape), [`Error::DType`](crate::Error::DType) or
    /// [`Error::Argument`](crate::Error::Argument), naming the operator, for inputs it does not take.
    pub fn outs(&self, ins: &[Meta], want: DType) -> Result<Outs> {
        self.family(|family| family.outs(&Check { op: family.name(), ins, want }))
    }

    /// The stated error bound for these inputs.
    pub fn bound(&self, ins: &[&Array]) -> Bound {
        self.family(|family| family.bound(ins))
    }

    /// Inputs on `device` whose floats have `dtype`: sizes across block and tile edges, views, one element, none.
    pub fn samples(&self, device: &Device, dtype: DType) -> Vec<Inputs> {
        self.family(|family| family.samples(&Sampler { device, dtype }))
    }

    /// The definition of a fused operator's first output in primitives, for inputs of these shapes; `None` for a
    /// primitive.
    ///
    /// # Errors
    /// Inputs the operator does not take.
    pub fn compose(&self, ins: &[Meta]) -> Result<Option<Program>> {
        // The checks and messages of the operator itself.
        self.outs(ins, ins.first().map_or(DType::F32, |m| m.dtype))?;
        let mut b = Builder::new(ins);
        let Some(out) = self.family(|family| family.define(&mut b))? else { return Ok(None) };
        Ok(Some(b.finish(&[out])))
    }

    /// Whether the output is the input itself, moved or rounded. Casts, copies and views mean what they say, whatever a
    /// policy says, and what they make of a parameter is still the parameter.
    pub fn is_conversion(&self) -> bool {
        self.family(|family| family.is_conversion())
    }

    /// Whether the one output may be written over operand `operand` where their layouts are the same: an element of it
    /// depends on no other element of that operand than the one in its place.
    pub fn may_overwrite(&self, operand: usize) -> bool {
        self.family(|family| family.may_overwrite(operand))
    }

    /// Whether the elements of an input are only moved or compared, whatever they are: then they may be integers, which
    /// stay exact.
    pub fn moves(&self, input: usize) -> bool {
        self.family(|family| family.moves(input))
    }

    /// The float dtype of the result outside autocast: that of the promoted inputs; of x for norms, whose weights may
    /// be wider; of the weight for embeddings; f32 where no input is a float.
    pub fn natural_dtype(&self, ins: &[DType]) -> DType {
        self.family(|family| family.natural_dtype(ins))
    }
}
