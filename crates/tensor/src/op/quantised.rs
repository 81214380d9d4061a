//! Products with weights of 8-bit integers: `w[o, …]·scale[o]` are the numbers that they stand for. For inference; they
//! have no gradient.

use smallvec::smallvec;

use super::bound::{Bound, extent};
use super::check::{Check, Outs};
use super::conv::{Conv2d, convolved};
use super::family::Family;
use super::product::EPILOGUES;
use super::{Binary, Epilogue, Op, Unary};
use crate::samples::{Inputs, Sampler};
use crate::{Array, DType, Layout, Result, Shape};

/// The largest magnitude of a rounded activation, and of a weight of ours: the range is symmetric.
pub const LARGEST: f64 = 127.0;

/// Products per sum at most: sums of so many products of 8-bit integers fit 32 bits, whatever the integers.
const DEEPEST: usize = (1 << 17) - 1;

/// `act(x @ wᵀ·scale + bias)` with x `[…, k]`, w `[n, k]` (i8), scale and bias `[n]`.
///
/// Of `integer` ones x is rounded to the nearest integer multiples of its own scale, ties to even and at most
/// [`LARGEST`], NaN to 0; the sums of integers are exact. Else x stays as it is, and sums are accumulated in f32.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct QuantisedMatMul {
    /// Whether x is rounded to integers too. Then its scale, a scalar, comes after that of w.
    pub integer: bool,
    /// What is done to the result.
    pub epilogue: Epilogue,
}

/// `act(conv(x, w)·scale + bias)` with x `[N, C, H, W]`, w `[O, C, KH, KW]` (i8), scale `[O]`, the scale of x (a
/// scalar), bias `[O]`. x is rounded as that of an integer [`QuantisedMatMul`]. The output is channels-last in memory;
/// a weight is best so too.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct QuantisedConv2d {
    /// Geometry, of one group.
    pub conv: Conv2d,
    /// What is done to the result.
    pub epilogue: Epilogue,
}

/// Checks what both have in common: weights and scales, and a bias as the last input. `k` is the number of products in
/// a sum.
fn fits(check: &Check<'_>, integer: bool, bias: bool, k: usize) -> Result<()> {
    check.dtype(1, &[DType::I8])?;
    check.floats(0..1)?;
    check.floats(2..check.ins.len())?;
    let features = Shape::from_slice(&check.ins[1].shape()[..1]);
    if *check.ins[2].shape() != features || bias && check.ins.last().is_none_or(|b| *b.shape() != features) {
        return check.shape("one scale (and bias) for each output");
    }
    if integer && check.ins[3].shape().rank() != 0 {
        return check.shape("one scale of the activations, a scalar");
    }
    if integer && k > DEEPEST {
        return check.argument(format!("sums of {k} products may leave 32 bits; at most {DEEPEST} are taken"));
    }
    Ok(())
}

/// Roundings of a result: of integers the sum's own, else one of each product; then scales, bias.
fn bound(integer: bool, k: f64) -> Bound {
    Bound::Terms(if integer { 5.0 } else { k + 4.0 })
}

impl Sampler<'_> {
    /// Integers of 8 bits.
    fn integers(&self, dims: &[usize], stream: u64) -> Array {
        let wide = Op::Scalar { op: Binary::Mul, value: 60.0, reversed: false };
        self.one(&Op::Cast(DType::I8), &[&self.one(&wide, &[&self.x(dims, stream)])])
    }

    /// Scales, of which none is 0.
    fn scales(&self, dims: &[usize], stream: u64) -> Array {
        let add = Op::Scalar { op: Binary::Add, value: 0.01, reversed: false };
        self.one(&add, &[&self.one(&Op::Unary(Unary::Abs), &[&self.x(dims, stream)])])
    }
}

impl Family for QuantisedMatMul {
    fn name(&self) -> &'static str {
        "quantised_matmul"
    }

    fn outs(&self, check: &Check<'_>) -> Result<Outs> {
        let QuantisedMatMul { integer, epilogue } = *self;
        check.count(3 + integer as usize + epilogue.bias as usize)?;
        let (x, w) = (check.ins[0].shape(), check.ins[1].shape());
        let Some((&k, rows)) = x.split_last().filter(|(k, _)| w.rank() == 2 && **k == w[1]) else {
            return check.shape("x […, k] and a weight [n, k]");
        };
        fits(check, integer, epilogue.bias, k)?;
        Ok(smallvec![check.dense(Shape::from_slice(&[rows, &[w[0]]].concat()))])
    }

    fn bound(&self, ins: &[&Array]) -> Bound {
        bound(self.integer, if self.integer { 0.0 } else { extent(ins, 1, 1) })
    }

    fn natural_dtype(&self, ins: &[DType]) -> DType {
        ins[0]
    }

    fn samples(&self, s: &Sampler<'_>) -> Vec<Inputs> {
        // Of one row and of many; inner extents across the edges of words and vectors.
        let extents: [(&[usize], usize); 6] =
            [(&[1, 1], 1), (&[1, 70], 35), (&[3, 2, 64], 40), (&[0, 3], 2), (&[70, 33], 130), (&[2, 0], 3)];
        let inputs = |(x, n): &(&[usize], usize)| {
            let k = x[x.len() - 1];
            let mut inputs = vec![s.x(x, 1), s.integers(&[*n, k], 2), s.scales(&[*n], 3)];
            inputs.extend(self.integer.then(|| s.scales(&[], 4)));
            inputs.extend(self.epilogue.bias.then(|| s.x(&[*n], 5)));
            s.vary(inputs)
        };
        extents.iter().flat_map(inputs).collect()
    }
}

impl Family for QuantisedConv2d {
    fn name(&self) -> &'static str {
        "quantised_conv2d"
    }

    fn outs(&self, check: &Check<'_>) -> Result<Outs> {
        let QuantisedConv2d { conv, epilogue } = *self;
        check.count(4 + epilogue.bias as usize)?;
        if conv.groups != 1 {
            return check.argument(format!("is of one group of channels, got {}", conv.groups));
        }
        let shape = convolved(&check.of(&check.ins[..2]), &conv, false)?;
        fits(check, true, epilogue.bias, check.ins[1].shape()[1..].iter().product())?;
        Ok(smallvec![check.float(Layout::channels_last(shape))])
    }

    fn bound(&self, _ins: &[&Array]) -> Bound {
        bound(true, 0.0)
    }

    fn natural_dtype(&self, ins: &[DType]) -> DType {
        ins[0]
    }

    fn samples(&self, s: &Sampler<'_>) -> Vec<Inputs> {
        let inputs = |c: usize, o: usize| {
            let mut inputs = vec![s.x(&[2, c, 9, 8], 1), s.integers(&[o, c, 3, 2], 2), s.scales(&[o], 3)];
            inputs.push(s.scales(&[], 4));
            inputs.extend(self.epilogue.bias.then(|| s.x(&[o], 5)));
            s.vary(inputs)
        };
        [(3, 8), (16, 35)].iter().flat_map(|&(c, o)| inputs(c, o)).collect()
    }
}

pub(super) fn catalogue() -> Vec<Op> {
    let product = |integer: bool| EPILOGUES.map(|epilogue| Op::QuantisedMatMul(QuantisedMatMul { integer, epilogue }));
    let geometry = Conv2d { stride: [2, 1], padding: [1, 2], dilation: [1, 2], groups: 1 };
    let convs = [(Conv2d::default(), EPILOGUES[1]), (geometry, EPILOGUES[0]), (geometry, EPILOGUES[2])];
    let convs = convs.map(|(conv, epilogue)| Op::QuantisedConv2d(QuantisedConv2d { conv, epilogue }));
    [product(false).to_vec(), product(true).to_vec(), convs.to_vec()].concat()
}
