//! Products with weights of 8-bit integers. Floats are multiplied by them as by any other dtype: [`gemm`] widens them.
//! Activations that are rounded to integers too are multiplied as words ([`crate::simd::words`]).

mod left;
mod product;

use super::epilogue::{KernelEpilogue, Target};
use super::gemm::{self, Matrix};
use super::operand::{Buffer, Compute, Operand, elements};
use super::values::Values;
use crate::kernel::{Context, In, Out};
use crate::simd::Isa;
use binade_tensor::op::{QuantisedConv2d, QuantisedMatMul};
use binade_tensor::{Class, Layout, Result, Shape};
use left::{Image, Patches, integers_of};
use product::multiply;

pub(super) fn matmul<C: Compute>(
    cx: Context<'_>,
    op: &QuantisedMatMul,
    ins: &[In<'_>],
    outs: &mut [Out<'_>],
) -> Result<()> {
    let QuantisedMatMul { integer, epilogue } = *op;
    let (shape, dtype) = (*outs[0].array().shape(), outs[0].array().dtype());
    let [n, k] = [ins[1].shape()[0], ins[1].shape()[1]];
    if shape.numel() == 0 {
        return Ok(());
    }
    let (isa, m) = (cx.isa, shape.numel() / n);
    let bias = epilogue.bias.then(|| ins[3 + integer as usize]);
    let own = if integer { one::<C>(isa, ins[3]) } else { C::from_f64(1.0) };
    let epilogue = KernelEpilogue::scaled(isa, epilogue.act, bias, scales(isa, ins[2], own));
    let out = &mut outs[0].bytes()[..shape.numel() * dtype.size()];
    let to = Target { epilogue: &epilogue, dtype, out, pre: &mut [] };
    if integer {
        let order: Vec<usize> = (0..ins[0].shape().rank()).collect();
        let x = Operand::new(ins[0], ins[0].shape(), &order);
        let rows = |first: usize, to: &mut [i8]| {
            integers_of::<C>(isa, &x, first * k, own, to, &mut Buffer::new());
        };
        let w = Dense::new(ins[1], &[0, 1]);
        return multiply(cx, [m, k, n], &rows, w.as_slice(), to);
    }
    // As a matrix of all rows, where they do not lie so.
    let flat = Shape::new(&[m, k])?;
    let copy;
    let guard;
    let (x, layout) = match ins[0].layout().reshape(&flat) {
        Some(layout) => (ins[0], layout),
        None => {
            copy = ins[0].contiguous(Class::Workspace)?;
            guard = copy.storage().read("quantised_matmul")?;
            (In::new("quantised_matmul", &copy, Some(&guard))?, Layout::contiguous(flat))
        }
    };
    let a = Matrix { values: Values::new(x), offset: layout.offset, strides: [layout.strides[0], layout.strides[1]] };
    let w = ins[1].layout();
    let b = Matrix { values: Values::new(ins[1]), offset: w.offset, strides: [w.strides[1], w.strides[0]] };
    gemm::one::<C>(cx, [m, k, n], &a, b, to)
}

pub(super) fn conv2d<C: Compute>(
    cx: Context<'_>,
    op: &QuantisedConv2d,
    ins: &[In<'_>],
    outs: &mut [Out<'_>],
) -> Result<()> {
    let QuantisedConv2d { conv, epilogue } = *op;
    let (shape, dtype) = (*outs[0].array().shape(), outs[0].array().dtype());
    if shape.numel() == 0 {
        return Ok(());
    }
    let own = one::<C>(cx.isa, ins[3]);
    let bias = epilogue.bias.then(|| ins[4]);
    let epilogue = KernelEpilogue::scaled(cx.isa, epilogue.act, bias, scales(cx.isa, ins[2], own));
    let image = Image::new::<C>(cx, ins[0], own)?;
    let patches =
        Patches { image: &image, conv, kernel: [ins[1].shape()[2], ins[1].shape()[3]], out: [shape[2], shape[3]] };
    let w = Dense::new(ins[1], &[0, 2, 3, 1]);
    let extents = [shape[0] * shape[2] * shape[3], ins[1].numel() / shape[1], shape[1]];
    let out = &mut outs[0].bytes()[..shape.numel() * dtype.size()];
    let to = Target { epilogue: &epilogue, dtype, out, pre: &mut [] };
    multiply(cx, extents, &|first, to| patches.rows(first, to), w.as_slice(), to)
}

/// The one element of a scalar.
fn one<C: Compute>(isa: Isa, array: In<'_>) -> C {
    let mut value = [C::zero()];
    Operand::new(array, array.shape(), &[]).load(isa, 0, &mut value);
    value[0]
}

/// The scales of the weight times that of the activations.
fn scales<C: Compute>(isa: Isa, array: In<'_>, own: C) -> Vec<C> {
    let mut values = vec![C::zero(); array.numel()];
    Operand::new(array, array.shape(), &[0]).load(isa, 0, &mut values);
    values.iter_mut().for_each(|v| *v *= own);
    values
}

/// A weight's integers in the order of the given dimensions.
enum Dense<'a> {
    Borrowed(&'a [i8]),
    Copied(Vec<i8>),
}

impl<'a> Dense<'a> {
    fn new(array: In<'a>, order: &[usize]) -> Dense<'a> {
        let operand = Operand::new(array, array.shape(), order);
        operand.dense::<i8>().map_or_else(
            || {
                let mut values = vec![0; array.numel()];
                let all = elements::<i8>(array.bytes);
                operand.runs(0, array.numel(), |from, stride, range| {
                    values[range].iter_mut().enumerate().for_each(|(i, v)| *v = all[from + i * stride]);
                });
                Dense::Copied(values)
            },
            Dense::Borrowed,
        )
    }

    fn as_slice(&self) -> &[i8] {
        match self {
            Dense::Borrowed(values) => values,
            Dense::Copied(values) => values,
        }
    }
}
