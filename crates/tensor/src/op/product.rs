//! Matrix products with what is done to an operand before and to the result after.

use smallvec::smallvec;

use super::bound::{Bound, extent};
use super::check::{Check, Outs};
use super::family::{Family, Numerics};
use super::program::{Builder, Value};
use super::{Binary, Op, Saved, Unary};
use crate::samples::{Inputs, Sampler};
use crate::{Array, DType, Meta, Result, Shape};

/// What a contraction does with its accumulators before storing them.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Epilogue {
    /// A bias vector is the last input.
    pub bias: bool,
    /// Activation applied last.
    pub act: Option<Unary>,
}

impl Epilogue {
    /// The output, and the value before the activation where the activation's derivative needs it.
    pub(super) fn outs(&self, out: Meta) -> Outs {
        match self.act {
            Some(act) if act.saved() == Saved::Input => smallvec![out, out],
            Some(_) | None => smallvec![out],
        }
    }

    /// Bias and activation after a contraction, in primitives.
    pub(super) fn define(
        &self,
        b: &mut Builder,
        y: Value,
        bias: impl Fn(&mut Builder) -> Result<Value>,
    ) -> Result<Value> {
        let mut y = y;
        if self.bias {
            let bias = bias(b)?;
            y = b.binary(Binary::Add, y, bias)?;
        }
        match self.act {
            Some(act) => b.unary(act, y),
            None => Ok(y),
        }
    }
}

/// What is done to an operand of a contraction as it is packed: an activation, as [`Op::Unary`] of the operand in its
/// dtype would give it, that is never written.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Prologue {
    /// Which operand: 0 or 1.
    pub operand: usize,
    /// The activation.
    pub act: Unary,
}

/// A matrix product and what is fused with it.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct MatMul {
    /// What is done to an operand.
    pub prologue: Option<Prologue>,
    /// What is done to the result.
    pub epilogue: Epilogue,
    /// Whether the sums of the left operand's rows are a second output: the bias's gradient beside the weight's. Then
    /// operands are matrices, the left one has no prologue, and there is no epilogue.
    pub sums: bool,
}

impl MatMul {
    /// A product of the operands as they are.
    pub fn plain(epilogue: Epilogue) -> MatMul {
        MatMul { epilogue, ..MatMul::default() }
    }

    /// A product of an activation of the left operand.
    pub fn of_left(act: Unary, bias: bool) -> MatMul {
        let prologue = Some(Prologue { operand: 0, act });
        MatMul { prologue, epilogue: Epilogue { bias, act: None }, sums: false }
    }

    /// A product of the right operand, or an activation of it: the gradient of a linear layer's weight, whose input is
    /// an activation that was not kept.
    pub fn of_right(act: Option<Unary>, sums: bool) -> MatMul {
        MatMul { prologue: act.map(|act| Prologue { operand: 1, act }), sums, ..MatMul::default() }
    }

    /// The activation of an operand.
    pub fn act_of(&self, operand: usize) -> Option<Unary> {
        self.prologue.filter(|p| p.operand == operand).map(|p| p.act)
    }

    /// Whether it is one of the products that the backward pass alone has: with sums, or an activation of the right
    /// operand. Second order goes through their definition.
    pub fn is_gradient(&self) -> bool {
        self.sums || self.act_of(1).is_some()
    }
}

impl Family for MatMul {
    fn name(&self) -> &'static str {
        match (self.act_of(1), self.sums) {
            (Some(_), _) => "matmul_of_activation",
            (None, true) => "matmul_with_sums",
            (None, false) => "matmul",
        }
    }

    fn numerics(&self) -> Numerics {
        if self.is_gradient() { Numerics::Neutral } else { Numerics::Lower }
    }

    fn outs(&self, check: &Check<'_>) -> Result<Outs> {
        check.count(2 + self.epilogue.bias as usize)?;
        check.floats(0..check.ins.len())?;
        let mut outs = self.epilogue.outs(check.dense(shape(check, self.epilogue.bias)?));
        if self.prologue.is_some_and(|p| p.operand > 1) {
            return check.argument("a prologue is of operand 0 or 1".into());
        }
        if self.sums {
            if self.act_of(0).is_some() || self.epilogue != Epilogue::default() {
                return check.argument("sums are of a left operand as it is, and have no epilogue beside them".into());
            }
            if check.ins.iter().any(|x| x.shape().rank() != 2) {
                return check.shape("two matrices");
            }
            outs.push(check.dense(Shape::from_slice(&check.ins[0].shape()[..1])));
        }
        Ok(outs)
    }

    /// A product of each of the two sums' rounding, then bias. Sums of rows have as many terms, and fewer roundings.
    fn bound(&self, ins: &[&Array]) -> Bound {
        let k = extent(ins, 0, ins[0].shape().rank() - 1);
        let roundings = k + cuts(ins, k) + 2.0;
        // The prologue's activation is rounded to its operand's dtype.
        let activated = self.epilogue.act.is_some() || self.prologue.is_some();
        if activated { Bound::Terms(roundings) } else { Bound::Gamma(roundings) }
    }

    fn samples(&self, s: &Sampler<'_>) -> Vec<Inputs> {
        let shapes: [[&[usize]; 2]; 5] = [
            [&[1, 1], &[1, 1]],
            [&[130, 65], &[65, 33]],
            [&[2, 3, 7, 9], &[3, 9, 5]],
            [&[4, 0], &[0, 3]],
            [&[3, 17, 8], &[8, 16]],
        ];
        let with = |a: &[usize], b: &[usize]| {
            let bias = if self.epilogue.bias { vec![s.x(&b[b.len() - 1..], 3)] } else { vec![] };
            [vec![s.x(a, 1), s.x(b, 2)], bias].concat()
        };
        let matrices = |a: &[usize], b: &[usize]| a.len() == 2 && b.len() == 2;
        let shapes = shapes.iter().filter(|[a, b]| !self.sums || matrices(a, b));
        shapes.flat_map(|[a, b]| s.vary(with(a, b))).collect()
    }

    fn define(&self, b: &mut Builder) -> Result<Option<Value>> {
        if *self == MatMul::default() {
            return Ok(None);
        }
        let mut operands = [b.input(0), b.input(1)];
        if let Some(Prologue { operand, act }) = self.prologue {
            operands[operand] = b.unary(act, operands[operand])?;
        }
        let y = b.matmul(operands[0], operands[1])?;
        Ok(Some(self.epilogue.define(b, y, |b| Ok(b.input(2)))?))
    }
}

/// Roundings of a sum of k products beside one for each of them. Tensor cores may add 8 products of 16-bit operands at
/// a time. Each but the largest is cut to 24 bits below the largest's exponent, which changes it by u of that at most.
/// The sum is cut to f32, by 2·u.
pub(super) fn cuts(ins: &[&Array], k: f64) -> f64 {
    if is_aligned(&[ins[0].dtype(), ins[1].dtype()]) { 2.0 * (k / 8.0).ceil() } else { 0.0 }
}

/// Whether products of operands of these dtypes may be aligned by their exponents before they are added, as tensor
/// cores do.
fn is_aligned(dtypes: &[DType]) -> bool {
    dtypes.iter().take(2).all(|dtype| matches!(dtype, DType::F16 | DType::BF16))
}

/// The magnitude that an element of a product's input counts with in its bound. Where products are aligned, a subnormal
/// element has the exponent of the smallest normal number (MMA-Sim, arXiv 2511.10909): what is cut may be as large as
/// if it were that.
#[cfg(feature = "oracle")]
pub(crate) fn magnitude(dtypes: &[DType], operand: usize, v: f64) -> f64 {
    let format = dtypes[operand].format().filter(|_| operand < 2 && v != 0.0 && is_aligned(dtypes));
    format.map_or(v.abs(), |format| v.abs().max(format.min_normal()))
}

/// Shape of a product.
fn shape(check: &Check<'_>, bias: bool) -> Result<Shape> {
    let (a, b) = (check.ins[0].shape(), check.ins[1].shape());
    let (ra, rb) = (a.rank(), b.rank());
    if ra < 2 || rb < 2 || a[ra - 1] != b[rb - 2] {
        return check.shape("[…, m, k] and […, k, n]");
    }
    let batch = Shape::from_slice(&a[..ra - 2]).broadcast(&Shape::from_slice(&b[..rb - 2]));
    let Some(mut shape) = batch else {
        return check.shape("batch dimensions that broadcast");
    };
    shape.push(a[ra - 2]);
    shape.push(b[rb - 1]);
    if bias && **check.ins[2].shape() != [b[rb - 1]] {
        return check.shape("a bias [n]");
    }
    Ok(shape)
}

/// Epilogues of the catalogue's contractions.
pub(super) const EPILOGUES: [Epilogue; 4] = [
    Epilogue { bias: false, act: None },
    Epilogue { bias: true, act: None },
    Epilogue { bias: true, act: Some(Unary::Relu) },
    Epilogue { bias: false, act: Some(Unary::GeluTanh) },
];

pub(super) fn catalogue() -> Vec<Op> {
    let mut products: Vec<MatMul> = EPILOGUES.map(MatMul::plain).into();
    products.extend([(Unary::Gelu, true), (Unary::Silu, false)].map(|(act, bias)| MatMul::of_left(act, bias)));
    // An activation on both sides.
    products.push(MatMul { epilogue: EPILOGUES[2], ..MatMul::of_left(Unary::Tanh, true) });
    products.push(MatMul { epilogue: EPILOGUES[3], ..MatMul::of_left(Unary::Silu, false) });
    products.extend([Unary::Gelu, Unary::Silu, Unary::Abs].map(|act| MatMul::of_right(Some(act), act == Unary::Gelu)));
    products.push(MatMul::of_right(None, true));
    products.push(MatMul { epilogue: EPILOGUES[1], ..MatMul::of_right(Some(Unary::Relu), false) });
    products.into_iter().map(Op::MatMul).collect()
}
