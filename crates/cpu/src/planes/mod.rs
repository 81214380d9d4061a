//! Matrix products and convolutions on tiles ([`crate::simd::amx`]): operands are split into bf16 planes while they are
//! packed, so that f32 and f16 are multiplied exactly and summed in f32 like bf16. An operator with numbers that have
//! no such sum ([`crate::simd::planes`]) is left to the kernels in vectors, and so is one too small to be worth its
//! packing.

mod attention;
mod conv;
mod gemm;
mod over_pixels;
mod weight;

use crate::kernel::{Context, In, Out};
use std::sync::atomic::{AtomicU32, Ordering};

use smallvec::SmallVec;

use super::gemm::Fused;
use super::operand::{Operand, elements};
use super::tile;
use super::values::Values;
use crate::simd::amx::{DEEP, SIDE};
use crate::simd::planes::{Magnitudes, Seen};
use crate::simd::{Isa, planes};
use binade_tensor::memory::HostBuffer;
use binade_tensor::op::Backward;
use binade_tensor::{Class, DType, Error, Op, Result};

/// Planes of a dtype's numbers; `None` if tiles do not serve it.
fn planes_of(dtype: DType) -> Option<usize> {
    match dtype {
        DType::F32 => Some(3),
        DType::F16 => Some(2),
        DType::BF16 => Some(1),
        DType::F64 | DType::I64 | DType::U32 | DType::I8 | DType::Bool => None,
    }
}

/// Runs the operator on tiles, or returns false and leaves it, with whatever is in its outputs, to other kernels.
/// Whether it does depends on its operands alone.
pub(super) fn run(cx: Context<'_>, op: &Op, ins: &[In<'_>], outs: &mut [Out<'_>]) -> Result<bool> {
    let isa = cx.isa;
    let served = isa >= Isa::Amx
        && ins.len() >= 2
        && ins[..2].iter().all(|a| planes_of(a.dtype()).is_some())
        && outs.iter().all(|o| o.array().dtype() != DType::F64)
        && ins.iter().all(|a| a.dtype() != DType::F64)
        && outs[0].array().numel() > 0
        && ins.iter().all(|a| a.numel() > 0);
    if !served {
        return Ok(false);
    }
    let work = Work::new(cx, ins);
    // Tiles are for contractions.
    if let Op::MatMul(product) = op {
        return gemm::matmul(&work, Fused::from(product), ins, outs);
    }
    if let Op::Conv2d(conv, epilogue) = op {
        return conv::forward(&work, conv, *epilogue, ins, outs);
    }
    if let Op::ConvTranspose2d { conv, bias, .. } = op {
        let bias = bias.then(|| ins[2]);
        return conv::input_backward(&work, conv, &ins[..2], bias, &mut outs[0]);
    }
    if let Op::Backward(Backward::Conv2dInput { conv, .. }) = op {
        return conv::input_backward(&work, conv, ins, None, &mut outs[0]);
    }
    if let Op::Backward(Backward::Conv2dWeight { conv, .. }) = op {
        return over_pixels::weight_backward(&work, conv, ins, &mut outs[0]);
    }
    if let Op::Attention(attention) = op {
        return attention::forward(&work, attention, ins, outs);
    }
    if let Op::Backward(Backward::Attention { attention, .. }) = op {
        return attention::backward(&work, attention, ins, outs);
    }
    Ok(false)
}

/// What was met of one input so far.
struct Met {
    dtype: DType,
    least: AtomicU32,
    most: AtomicU32,
}

impl Met {
    /// Whether all numbers are sums of planes that the instructions take as they are. No infinities and NaN: planes of
    /// zero would make NaN of an infinity. No f32 numbers that round to bf16's infinity, or whose last plane may be
    /// subnormal, and no bf16 subnormals.
    fn is_exact(&self) -> bool {
        const TOO_LARGE: u32 = 0x7f7f_8000;
        let smallest = if self.dtype == DType::BF16 { 1 << 23 } else { 24 << 23 };
        self.least.load(Ordering::Relaxed) >= smallest && self.most.load(Ordering::Relaxed) < TOO_LARGE
    }

    /// All numbers are multiples of this power of two; `None` if they are zero.
    fn last_bit(&self) -> Option<i32> {
        let least = self.least.load(Ordering::Relaxed);
        let digits = match self.dtype {
            DType::BF16 => 7,
            DType::F16 => 10,
            DType::F32 | DType::F64 | DType::I64 | DType::U32 | DType::I8 | DType::Bool => 23,
        };
        (least != Magnitudes::NONE).then_some((least >> 23) as i32 - 127 - digits)
    }

    /// All numbers are smaller than this power of two.
    fn size(&self) -> i32 {
        (self.most.load(Ordering::Relaxed) >> 23) as i32 - 126
    }
}

/// What the parts of one operator share.
struct Work<'a> {
    cx: Context<'a>,
    met: SmallVec<[Met; 6]>,
}

impl<'a> Work<'a> {
    fn new(cx: Context<'a>, ins: &[In<'_>]) -> Work<'a> {
        let met =
            |a: &In<'_>| Met { dtype: a.dtype(), least: AtomicU32::new(Magnitudes::NONE), most: AtomicU32::new(0) };
        Work { cx, met: ins.iter().map(met).collect() }
    }

    /// Whether all numbers met may be multiplied on tiles; if not, the results are worth nothing.
    fn is_exact(&self) -> bool {
        self.met.iter().all(Met::is_exact)
    }

    /// Whether the sums of products of two inputs hold: nothing was refused, and no such sum can be below f32's normal
    /// range, where it would be flushed. None can overflow either, where planes of different signs would make NaN of an
    /// infinity.
    fn holds(&self, a: usize, b: usize) -> bool {
        // Sums are multiples of the product of the last bits.
        let last_bits = self.met[a].last_bit().zip(self.met[b].last_bit());
        self.is_exact() && last_bits.is_none_or(|(a, b)| a + b >= -126) && self.fits(&[a, b])
    }

    /// Whether sums of products of these inputs stay far from f32's largest number: 2²⁷ products of 2¹⁰⁰ do.
    fn fits(&self, inputs: &[usize]) -> bool {
        inputs.iter().map(|&i| self.met[i].size()).sum::<i32>() <= 100
    }

    /// Takes note of what was seen of input `which`.
    fn note(&self, which: usize, seen: &Seen) {
        let (met, Magnitudes { least, most }) = (&self.met[which], seen.magnitudes());
        // Most parts widen nothing, and then nothing is written.
        if least < met.least.load(Ordering::Relaxed) {
            met.least.fetch_min(least, Ordering::Relaxed);
        }
        if most > met.most.load(Ordering::Relaxed) {
            met.most.fetch_max(most, Ordering::Relaxed);
        }
    }

    /// Scratch memory for `n` halves of a pair.
    fn halves(&self, n: usize) -> Result<HostBuffer> {
        let bytes = 2 * n;
        self.cx.pool.alloc(bytes, Class::Workspace).ok_or(Error::OutOfMemory { op: "", bytes, class: Class::Workspace })
    }

    /// Splits `n` numbers from a flat position on.
    fn read_flat(
        &self,
        values: &Operand<'_>,
        start: usize,
        n: usize,
        distance: usize,
        to: &mut [u16],
        seen: &mut Seen,
    ) {
        let elements = values.values();
        values.runs(start, n, |from, stride, range| {
            let to = &mut to[range.start..];
            if stride > 0 || range.len() == 1 {
                return self.read(elements, from, stride, range.len(), distance, to, seen);
            }
            self.read(elements, from, 1, 1, distance, to, seen);
            for plane in to.chunks_mut(distance).take(planes_of(elements.dtype).unwrap_or(1)) {
                let value = plane[0];
                plane[..range.len()].fill(value);
            }
        });
    }

    /// Splits `n` numbers from `start` on, `stride` apart, into the planes of its dtype, `distance` apart in `to`.
    fn read(
        &self,
        values: Values<'_>,
        start: usize,
        stride: usize,
        n: usize,
        distance: usize,
        to: &mut [u16],
        seen: &mut Seen,
    ) {
        const BLOCK: usize = 512;
        let Values { dtype, bytes, .. } = values;
        let (count, in_place) = (planes_of(dtype).unwrap_or(1), values.is_written() && stride == 1);
        if dtype == DType::BF16 && in_place {
            let from = &elements::<binade_tensor::bf16>(bytes)[start..start + n];
            return planes::copy(self.cx.isa, bytemuck::cast_slice(from), &mut to[..n], seen);
        }
        if dtype == DType::F32 && in_place {
            let from = &elements::<f32>(bytes)[start..start + n];
            return planes::split(self.cx.isa, from, count, distance, to, seen);
        }
        let mut buffer = [0.0; BLOCK];
        for at in (0..n).step_by(BLOCK) {
            let part = &mut buffer[..BLOCK.min(n - at)];
            values.load(self.cx.isa, start + at * stride, stride, part);
            planes::split(self.cx.isa, part, count, distance, &mut to[at..], seen);
        }
    }
}

/// The distance of rows with `deep` places, a multiple of 32: an odd number of cache lines, so that the rows of a tile
/// do not meet in the same sets of the cache.
fn apart(deep: usize) -> usize {
    ((deep / DEEP) | 1) * DEEP
}

/// A tile of 16-bit numbers, aligned so that pairs can be moved as f32.
#[repr(align(64))]
struct Tile16([u16; SIDE * DEEP]);

/// Up to 16 rows `[i][l]` of 16-bit numbers as pairs along `l`: `to[l / 2][i][2]`, pairs `pair` apart. Rows that are
/// not there, and what lacks of a multiple of 32 numbers, are zeros.
fn pair_up(isa: Isa, from: &[u16], ld: usize, rows: usize, len: usize, to: &mut [u16], pair: usize) {
    let mut block = Tile16([0; SIDE * DEEP]);
    for at in (0..len).step_by(DEEP) {
        let part = DEEP.min(len - at);
        if rows == SIDE && part == DEEP {
            transpose(isa, &from[at..], ld, &mut to[at / 2 * pair..], pair);
            continue;
        }
        for i in 0..rows {
            block.0[i * DEEP..][..part].copy_from_slice(&from[i * ld + at..][..part]);
            block.0[i * DEEP + part..(i + 1) * DEEP].fill(0);
        }
        transpose(isa, &block.0, DEEP, &mut to[at / 2 * pair..], pair);
    }
}

/// `to[l·ld_to + 2i + r] = from[i·ld_from + 2l + r]` for `i, l < 16` and `r < 2`: pairs are moved like f32 numbers,
/// which moving leaves as they are. Distances are even, and both slices are aligned to pairs.
fn transpose(isa: Isa, from: &[u16], ld_from: usize, to: &mut [u16], ld_to: usize) {
    let even = to.len() & !1;
    let (from, to) = (bytemuck::cast_slice(&from[..from.len() & !1]), bytemuck::cast_slice_mut(&mut to[..even]));
    tile::transpose::<f32>(isa, from, ld_from / 2, SIDE, SIDE, to, ld_to / 2);
}

/// A scratch buffer as halves of pairs.
fn halves_of(buffer: &HostBuffer) -> &[u16] {
    // SAFETY: the buffer is aligned and every byte of it was initialised.
    unsafe { std::slice::from_raw_parts(buffer.as_ptr().cast(), buffer.len() / 2) }
}
