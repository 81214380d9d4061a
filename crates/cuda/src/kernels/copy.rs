//! Copies, casts, fills, comparisons, selection, concatenation.

use binade_tensor::op::Compare;
use binade_tensor::{DType, Layout, Result, Shape, bf16, f16, format::f64_to_f32_odd};

use super::elementwise::{Elementwise, launch, parameter};
use crate::backend::Cuda;
use crate::memory::CudaMemory;
use crate::module::Module;
use crate::view::View;

fn of_size(what: &str, dtype: DType) -> String {
    format!("{what}_{}", dtype.size())
}

/// From any dtype to any other, or the same.
pub(super) fn cast(cuda: &Cuda, op: &'static str, x: &View, out: &View) -> Result<bool> {
    let p = parameter(cuda, [Some(x)], out);
    if x.dtype == out.dtype {
        launch(cuda, op, (Module::Copy, &of_size("copy", x.dtype)), p)
    } else if x.dtype.is_float() && out.dtype.is_float() {
        launch(cuda, op, (Module::Copy, "cast"), p)
    } else {
        launch(cuda, op, (Module::Copy, "convert"), p)
    }
}

/// The bits of a number in a dtype.
pub(super) fn bits(value: f64, dtype: DType) -> u64 {
    match dtype {
        DType::F64 => value.to_bits(),
        DType::F32 => u64::from((value as f32).to_bits()),
        DType::F16 => u64::from(f16::from_f32(f64_to_f32_odd(value)).to_bits()),
        DType::BF16 => u64::from(bf16::from_f32(f64_to_f32_odd(value)).to_bits()),
        DType::I64 => value as i64 as u64,
        DType::U32 => u64::from(value as u32),
        DType::I8 => value as i8 as u8 as u64,
        DType::Bool => u64::from(value != 0.0),
    }
}

pub(super) fn fill(cuda: &Cuda, op: &'static str, value: f64, out: &View) -> Result<bool> {
    let value = f64::from_bits(bits(value, out.dtype));
    let p = parameter(cuda, [], out).map(|p| Elementwise { value, ..p });
    launch(cuda, op, (Module::Copy, &of_size("fill", out.dtype)), p)
}

/// From `start` on, or from so far behind the one element of `base`.
pub(super) fn range(cuda: &Cuda, op: &'static str, start: i64, base: Option<&View>, out: &View) -> Result<bool> {
    let base =
        base.map(|base| base.with_layout(Layout { offset: base.layout.offset, ..Layout::contiguous(Shape::SCALAR) }));
    let p = parameter(cuda, [base.as_ref()], out).map(|p| Elementwise { value: f64::from_bits(start as u64), ..p });
    launch(cuda, op, (Module::Copy, "range"), p)
}

pub(super) fn compare(cuda: &Cuda, op: &'static str, row: Compare, ins: &[View], out: &View) -> Result<bool> {
    let p = parameter(cuda, [Some(&ins[0]), Some(&ins[1])], out);
    launch(cuda, op, (Module::Copy, &format!("{row:?}")), p)
}

pub(super) fn select(cuda: &Cuda, op: &'static str, ins: &[View], out: &View) -> Result<bool> {
    let p = parameter(cuda, [0, 1, 2].map(|i| Some(&ins[i])), out);
    let kernel = if out.dtype.is_float() { "where".into() } else { of_size("where", out.dtype) };
    launch(cuda, op, (Module::Copy, &kernel), p)
}

/// Each input copied to its part of the output.
pub(super) fn cat(cuda: &Cuda, op: &'static str, dim: usize, ins: &[View], out: &View) -> Result<bool> {
    let mut start = 0;
    for x in ins {
        let length = x.shape()[dim];
        cast(cuda, op, x, &out.with_layout(out.layout.narrow(dim, start, length)))?;
        start += length;
    }
    Ok(true)
}

/// The gradient in its part of the output, and zeros in the others.
pub(super) fn narrow_backward(
    cuda: &Cuda,
    op: &'static str,
    dim: usize,
    start: usize,
    g: &View,
    out: &View,
) -> Result<bool> {
    let (length, whole) = (g.shape()[dim], out.shape()[dim]);
    let part = |start: usize, length: usize| out.with_layout(out.layout.narrow(dim, start, length));
    fill(cuda, op, 0.0, &part(0, start))?;
    cast(cuda, op, g, &part(start, length))?;
    fill(cuda, op, 0.0, &part(start + length, whole - start - length))
}

/// The 8-bit integers nearest to multiples of `scale`, a scalar, one after the other in `out`.
pub(super) fn quantise(cuda: &Cuda, op: &'static str, x: &View, scale: &View, out: &View) -> Result<bool> {
    launch(cuda, op, (Module::Copy, "quantise"), parameter(cuda, [Some(x), Some(scale)], out))
}

/// A view, and what it has of memory that is given back with it.
pub(super) type Held = (View, Option<CudaMemory>);

/// Memory in which a view lies row-major: its own, or a copy.
pub(super) fn row_major(cuda: &Cuda, op: &'static str, view: &View) -> Result<Held> {
    if view.layout.is_contiguous() {
        return Ok((*view, None));
    }
    let dense = room(cuda, view)?;
    cast(cuda, op, view, &dense.0)?;
    Ok(dense)
}

/// Memory for what is computed where a view is not as a kernel writes it, to be copied there.
pub(super) fn room(cuda: &Cuda, view: &View) -> Result<Held> {
    let memory = cuda.scratch(view.numel() * view.dtype.size())?;
    Ok((View::line(memory.address(), view.dtype, *view.shape()), Some(memory)))
}
