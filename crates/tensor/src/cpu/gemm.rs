//! Matrix products: 16-bit operands are widened once (cost n², not n³) and multiplied in f32 by `matrixmultiply`; bias and
//! activation are applied to each block of rows before its one rounding.

use rayon::prelude::*;

use super::elementwise::activate;
use super::operand::{BLOCK, Compute, Operand};
use crate::memory::{HostBuffer, Pool};
use crate::op::{Epilogue, Saved};
use crate::simd::{Isa, Lanes, Map2};
use crate::{Array, ArrayMut, Class, Error, Layout, Result, Shape};

/// Rows of the product per task: fixed, so that the split does not depend on the number of threads.
pub(super) const ROWS: usize = 128;

/// A dense matrix product in a computing type.
pub trait Gemm: Compute {
    /// `c ← beta·c + a·b`; strides are (row, column), c is row-major with row stride `ldc`.
    #[allow(clippy::many_single_char_names)]
    fn gemm(
        m: usize,
        k: usize,
        n: usize,
        a: &[Self],
        sa: [usize; 2],
        b: &[Self],
        sb: [usize; 2],
        beta: Self,
        c: &mut [Self],
        ldc: usize,
    );
}

/// Storage index of the last element of a matrix, plus one.
fn end(rows: usize, columns: usize, s: [usize; 2]) -> usize {
    if rows * columns == 0 { 0 } else { (rows - 1) * s[0] + (columns - 1) * s[1] + 1 }
}

macro_rules! gemm {
    ($t:ty, $f:path) => {
        impl Gemm for $t {
            fn gemm(
                m: usize,
                k: usize,
                n: usize,
                a: &[$t],
                sa: [usize; 2],
                b: &[$t],
                sb: [usize; 2],
                beta: $t,
                c: &mut [$t],
                ldc: usize,
            ) {
                assert!(a.len() >= end(m, k, sa) && b.len() >= end(k, n, sb) && c.len() >= end(m, n, [ldc, 1]));
                // SAFETY: all three matrices lie inside their slices (asserted); c is borrowed mutably.
                unsafe {
                    $f(
                        m,
                        k,
                        n,
                        1.0,
                        a.as_ptr(),
                        sa[0] as isize,
                        sa[1] as isize,
                        b.as_ptr(),
                        sb[0] as isize,
                        sb[1] as isize,
                        beta,
                        c.as_mut_ptr(),
                        ldc as isize,
                        1,
                    );
                }
            }
        }
    };
}
gemm!(f32, matrixmultiply::sgemm);
gemm!(f64, matrixmultiply::dgemm);

/// An operand of a contraction as a slice of the computing type with its own strides: borrowed, or widened in memory order.
pub(super) enum Panel<'a, C> {
    Borrowed(&'a [C]),
    Widened(HostBuffer),
}

impl<C: Compute> Panel<'_, C> {
    pub(super) fn as_slice(&self) -> &[C] {
        match self {
            Panel::Borrowed(slice) => slice,
            Panel::Widened(buffer) => {
                // SAFETY: the buffer was allocated for elements of C, is aligned and initialised.
                unsafe { std::slice::from_raw_parts(buffer.as_ptr().cast(), buffer.len() / size_of::<C>()) }
            }
        }
    }
}

/// The elements of `array` in the computing type and their layout: as they lie if they need no conversion, else dense.
pub(super) fn panel<'a, C: Compute>(isa: Isa, pool: &Pool, array: &Array, bytes: &'a [u8]) -> Result<(Panel<'a, C>, Layout)> {
    if array.dtype() == C::DTYPE {
        return Ok((Panel::Borrowed(super::operand::elements(bytes)), *array.layout()));
    }
    let layout = array.layout().like(*array.shape());
    let mut buffer = workspace::<C>(pool, array.numel())?;
    let operand = Operand::new(array, bytes, array.shape(), &super::operand::memory_order(&layout));
    let n = array.numel();
    buffer.as_mut_slice::<C>()[..n]
        .par_chunks_mut(16 * BLOCK)
        .enumerate()
        .for_each(|(i, part)| operand.load(isa, i * 16 * BLOCK, part));
    Ok((Panel::Widened(buffer), layout))
}

/// Scratch memory for `n` elements.
pub(super) fn workspace<C: Compute>(pool: &Pool, n: usize) -> Result<HostBuffer> {
    let bytes = n * size_of::<C>();
    pool.alloc(bytes, Class::Workspace).ok_or(Error::OutOfMemory { bytes, class: Class::Workspace })
}

#[derive(Clone, Copy)]
struct Add;

impl Map2 for Add {
    #[inline(always)]
    fn eval<L: Lanes>(self, a: L, b: L) -> L {
        a + b
    }
}

/// The epilogue of a contraction on whole rows of the output.
pub(super) struct Finish<C> {
    isa: Isa,
    epilogue: Epilogue,
    bias: Vec<C>,
}

impl<C: Compute> Finish<C> {
    pub(super) fn new(isa: Isa, epilogue: Epilogue, ins: &[&Array], bytes: &[&[u8]]) -> Finish<C> {
        let mut bias = vec![C::zero(); if epilogue.bias { ins[2].numel() } else { 0 }];
        if epilogue.bias {
            Operand::new(ins[2], bytes[2], ins[2].shape(), &[0]).load(isa, 0, &mut bias);
        }
        Finish { isa, epilogue, bias }
    }

    /// Adds the bias to rows of length `n`, stores the value before the activation if asked, applies the activation and
    /// stores the result. `out` and `pre` are the bytes of these rows.
    pub(super) fn rows(&self, acc: &mut [C], n: usize, out: &mut [u8], pre: &mut [u8], dtype: crate::DType) {
        let isa = self.isa;
        let mut buffer = vec![C::zero(); n];
        for (i, row) in acc.chunks_mut(n).enumerate() {
            let bytes = i * n * dtype.size()..(i + 1) * n * dtype.size();
            if self.epilogue.bias {
                C::map2(isa, Add, row, &self.bias, &mut buffer);
                row.copy_from_slice(&buffer);
            }
            if let Some(act) = self.epilogue.act {
                if act.saved() == Saved::Input {
                    C::store(isa, row, &mut pre[bytes.clone()], dtype);
                }
                activate(isa, act, row, &mut buffer);
                C::store(isa, &buffer, &mut out[bytes], dtype);
            } else {
                C::store(isa, row, &mut out[bytes], dtype);
            }
        }
    }
}

/// Splits the bytes of the output, and of the value before the activation if there is one, into parts of `size` bytes.
pub(super) fn output_parts<'a>(out: &'a mut [u8], pre: Option<&'a mut [u8]>, size: usize) -> Vec<(&'a mut [u8], &'a mut [u8])> {
    let pre: Vec<&mut [u8]> = pre.map_or_else(Vec::new, |p| p.chunks_mut(size).collect());
    let mut pre = pre.into_iter();
    out.chunks_mut(size).map(|o| (o, pre.next().unwrap_or_default())).collect()
}

pub(super) fn matmul<C: Gemm>(
    isa: Isa,
    pool: &Pool,
    epilogue: Epilogue,
    ins: &[&Array],
    bytes: &[&[u8]],
    outs: &mut [ArrayMut<'_>],
) -> Result<()> {
    let shape = *outs[0].array().shape();
    let dtype = outs[0].array().dtype();
    let rank = shape.rank();
    let (m, n) = (shape[rank - 2], shape[rank - 1]);
    let k = ins[0].shape()[ins[0].shape().rank() - 1];
    if shape.numel() == 0 {
        return Ok(());
    }
    let (a, la) = panel::<C>(isa, pool, ins[0], bytes[0])?;
    let (b, lb) = panel::<C>(isa, pool, ins[1], bytes[1])?;
    let finish = Finish::<C>::new(isa, epilogue, ins, bytes);
    let batch = Shape::from_slice(&shape[..rank - 2]);
    let offsets = |layout: &Layout| -> Vec<usize> {
        let r = layout.shape.rank();
        let head = Layout {
            shape: Shape::from_slice(&layout.shape[..r - 2]),
            strides: Shape::from_slice(&layout.strides[..r - 2]),
            offset: layout.offset,
        };
        // The batch dimensions were checked to broadcast.
        head.expand(&batch).map_or_else(Vec::new, |l| indices(&l))
    };
    let (oa, ob) = (offsets(&la), offsets(&lb));
    let stride = |l: &Layout| [l.strides[l.shape.rank() - 2], l.strides[l.shape.rank() - 1]];
    let (sa, sb) = (stride(&la), stride(&lb));
    let (a, b) = (a.as_slice(), b.as_slice());
    let (first, rest) = outs.split_at_mut(1);
    let (Some(out), pre) = (first[0].bytes(), rest.first_mut().and_then(ArrayMut::bytes)) else { return Ok(()) };
    let total = shape.numel() * dtype.size();
    // Parts are blocks of rows of one matrix of the batch.
    let matrix = m * n * dtype.size();
    let part = ROWS.min(m) * n * dtype.size();
    let mut parts: Vec<(usize, usize, &mut [u8], &mut [u8])> = Vec::new();
    for (i, (out, pre)) in output_parts(&mut out[..total], pre.map(|p| &mut p[..total]), matrix).into_iter().enumerate() {
        let pre = if pre.is_empty() { None } else { Some(pre) };
        parts.extend(output_parts(out, pre, part).into_iter().enumerate().map(|(j, (o, p))| (i, j * ROWS, o, p)));
    }
    let work = |(i, row, out, pre): (usize, usize, &mut [u8], &mut [u8])| {
        let rows = out.len() / (n * dtype.size());
        let mut acc = vec![C::zero(); rows * n];
        if k > 0 {
            C::gemm(rows, k, n, &a[oa[i] + row * sa[0]..], sa, &b[ob[i]..], sb, C::zero(), &mut acc, n);
        }
        finish.rows(&mut acc, n, out, pre, dtype);
    };
    if shape.numel() * k < 32 * 1024 {
        parts.into_iter().for_each(work);
    } else {
        parts.into_par_iter().for_each(work);
    }
    Ok(())
}

/// Storage index of every element of a layout, in row-major order.
fn indices(layout: &Layout) -> Vec<usize> {
    let mut out = vec![layout.offset];
    for d in 0..layout.shape.rank() {
        out = out.iter().flat_map(|&base| (0..layout.shape[d]).map(move |i| base + i * layout.strides[d])).collect();
    }
    out
}
