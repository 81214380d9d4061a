//! The elements of an input as kernels read them: widened, and rounded first where a cast was left to whoever reads
//! ([`Array::cast_when_read`]).

use super::operand::{Compute, elements};
use crate::kernel::In;
use crate::simd::{Isa, Kernel, Lanes, Map1, Stored, dispatch, prefetch};
use binade_tensor::op::Backward;
use binade_tensor::{DType, Op, bf16, f16};

/// Whether kernels round operands whose cast was left to whoever reads ([`Array::cast_when_read`]): those
/// that pack what they read, once.
pub(crate) fn rounds_as_it_reads(op: &Op) -> bool {
    let product = matches!(op, Op::MatMul(product) if !product.is_gradient());
    let packs = product || matches!(op, Op::Conv2d(..) | Op::ConvTranspose2d { .. });
    let backward = matches!(op, Op::Backward(Backward::Conv2dInput { .. } | Backward::Depthwise { .. }));
    // A view reads nothing.
    packs || backward || matches!(op, Op::View(_))
}

/// All elements of a storage.
#[derive(Clone, Copy)]
pub struct Values<'a> {
    /// What they are.
    pub dtype: DType,
    /// What they are in memory.
    stored: DType,
    pub bytes: &'a [u8],
}

impl<'a> Values<'a> {
    pub fn new(array: In<'a>) -> Values<'a> {
        Values { dtype: array.dtype(), stored: array.stored(), bytes: array.bytes }
    }

    /// Elements that lie in memory in their dtype.
    pub fn written(dtype: DType, bytes: &'a [u8]) -> Values<'a> {
        Values { dtype, stored: dtype, bytes }
    }

    /// Whether nothing is left to round.
    pub fn is_written(&self) -> bool {
        self.dtype == self.stored
    }

    /// Bytes of an element in memory.
    pub fn size(&self) -> usize {
        self.stored.size()
    }

    /// Widens `to.len()` elements from `start` on, `stride` apart.
    pub fn load<C: Compute>(&self, isa: Isa, start: usize, stride: usize, to: &mut [C]) {
        if stride == 1 && !self.is_written() {
            return self.load_rows(isa, start, 0, [1, to.len()], to, to.len());
        }
        self.load_plainly(isa, start, stride, to);
    }

    /// [`Values::load`] of any type and stride.
    fn load_plainly<C: Compute>(&self, isa: Isa, start: usize, stride: usize, to: &mut [C]) {
        C::load(isa, self.stored, self.bytes, start, stride, to);
        if !self.is_written() {
            let mut codes = [0u16; 64];
            for part in to.chunks_mut(codes.len()) {
                let codes: &mut [u8] = bytemuck::cast_slice_mut(&mut codes[..part.len()]);
                C::store(isa, part, codes, self.dtype);
                C::load(isa, self.dtype, codes, 0, 1, part);
            }
        }
    }

    /// Widens `rows` rows of `columns` neighbours, `distance` apart in memory from `start` on, into rows `ld` apart.
    /// Rows to come are asked for.
    pub fn load_rows<C: Compute>(
        &self,
        isa: Isa,
        start: usize,
        distance: usize,
        [rows, columns]: [usize; 2],
        to: &mut [C],
        ld: usize,
    ) {
        C::load_rows(isa, self, start, distance, [rows, columns], to, ld);
    }
}

/// [`Values::load_rows`], for all types.
pub(super) fn load_each<C: Compute>(
    isa: Isa,
    values: &Values<'_>,
    start: usize,
    distance: usize,
    [rows, columns]: [usize; 2],
    to: &mut [C],
    ld: usize,
) {
    for i in 0..rows {
        values.load_plainly(isa, start + i * distance, 1, &mut to[i * ld..][..columns]);
    }
}

/// [`Values::load_rows`] in f32: float rows in vectors, all of them in one call.
pub(super) fn load_rows(
    isa: Isa,
    values: &Values<'_>,
    start: usize,
    distance: usize,
    extents: [usize; 2],
    to: &mut [f32],
    ld: usize,
) {
    let Values { dtype, stored, bytes } = *values;
    match (stored, dtype) {
        (DType::F32, DType::F32) => {
            dispatch(
                isa,
                Rows { from: &elements::<f32>(bytes)[start..], distance, extents, to, ld, rounding: Exactly },
            );
        }
        (DType::F16, DType::F16) => {
            dispatch(
                isa,
                Rows { from: &elements::<f16>(bytes)[start..], distance, extents, to, ld, rounding: Exactly },
            );
        }
        (DType::BF16, DType::BF16) => {
            dispatch(
                isa,
                Rows { from: &elements::<bf16>(bytes)[start..], distance, extents, to, ld, rounding: Exactly },
            );
        }
        (DType::I8, DType::I8) => {
            dispatch(isa, Rows { from: &elements::<i8>(bytes)[start..], distance, extents, to, ld, rounding: Exactly });
        }
        (DType::F32, DType::F16) => {
            dispatch(isa, Rows { from: &elements::<f32>(bytes)[start..], distance, extents, to, ld, rounding: ToF16 });
        }
        (DType::F32, DType::BF16) => {
            dispatch(isa, Rows { from: &elements::<f32>(bytes)[start..], distance, extents, to, ld, rounding: ToBf16 });
        }
        (DType::F32 | DType::F16 | DType::BF16 | DType::F64 | DType::I64 | DType::U32 | DType::I8 | DType::Bool, _) => {
            load_each(isa, values, start, distance, extents, to, ld);
        }
    }
}

/// Rows are asked for so many before they are read; of fewer rows, what follows in them so many bytes before.
const AHEAD: usize = 4;
const BYTES_AHEAD: usize = 4096;

struct Rows<'a, T, F> {
    from: &'a [T],
    distance: usize,
    extents: [usize; 2],
    to: &'a mut [f32],
    ld: usize,
    rounding: F,
}

impl<T: Stored<f32>, F: Map1> Kernel<f32> for Rows<'_, T, F> {
    type Output = ();
    #[inline(always)]
    fn run<L: Lanes<Elem = f32>>(self) {
        let Rows { from, distance, extents: [rows, columns], to, ld, rounding } = self;
        let body = columns - columns % L::N;
        let ahead = if rows > AHEAD { AHEAD * distance } else { BYTES_AHEAD / size_of::<T>() };
        for i in 0..rows {
            let (from, to) = (&from[i * distance..][..columns], &mut to[i * ld..][..columns]);
            for (x, y) in from[..body].chunks_exact(L::N).zip(to[..body].chunks_exact_mut(L::N)) {
                prefetch::ask_line(x.as_ptr().wrapping_add(ahead));
                rounding.eval(T::get::<L>(x)).store(y);
            }
            if body < columns {
                rounding.eval(T::get_part::<L>(&from[body..])).store_part(&mut to[body..]);
            }
        }
    }
}

/// Nothing to round.
#[derive(Clone, Copy)]
struct Exactly;

impl Map1 for Exactly {
    #[inline(always)]
    fn eval<L: Lanes>(self, x: L) -> L {
        x
    }
}

/// The nearest number of a 16-bit format, ties to even.
macro_rules! rounding {
    ($name:ident, $rounded:ident) => {
        #[derive(Clone, Copy)]
        struct $name;

        impl Map1 for $name {
            #[inline(always)]
            fn eval<L: Lanes>(self, x: L) -> L {
                x.$rounded()
            }
        }
    };
}

rounding!(ToF16, rounded_f16);
rounding!(ToBf16, rounded_bf16);
