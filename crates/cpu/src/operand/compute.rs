//! The types that kernels compute in, and how elements of any other are read and written.

use super::super::values::{self, Values};
use crate::simd::convert::{Convert, f64_to_f32_odd};
use crate::simd::{Isa, Real};
use binade_tensor::{DType, Element, bf16, f16};

/// A type kernels compute in: f32, or f64 where an operand is f64.
pub trait Compute: Real {
    /// The nearest number to an integer.
    fn from_i32(value: i32) -> Self;
    /// Widens `to.len()` elements of `dtype` from `start` on, `stride` apart.
    fn load(isa: Isa, dtype: DType, bytes: &[u8], start: usize, stride: usize, to: &mut [Self]);
    /// As [`Values::load_rows`].
    fn load_rows(
        isa: Isa,
        values: &Values<'_>,
        start: usize,
        distance: usize,
        extents: [usize; 2],
        to: &mut [Self],
        ld: usize,
    );
    /// Rounds once to `dtype` and writes from `start` on.
    fn store(isa: Isa, from: &[Self], to: &mut [u8], dtype: DType);
}

/// `eˣ` of one number. Not that of the standard library, which is the system's: bits would depend on it.
pub fn exp<C: Compute>(x: C) -> C {
    C::from_f64(libm::exp(x.as_f64()))
}

/// `ln x` of one number, as [`exp`].
pub fn ln<C: Compute>(x: C) -> C {
    C::from_f64(libm::log(x.as_f64()))
}

/// The bytes of a host tensor as elements.
pub fn elements<T: Element>(bytes: &[u8]) -> &[T] {
    debug_assert!(bytes.as_ptr().cast::<T>().is_aligned());
    // SAFETY: storage is 64-byte aligned and initialised; every bit pattern but bool's is a value, and bool storage
    // only ever receives bools.
    unsafe { std::slice::from_raw_parts(bytes.as_ptr().cast(), bytes.len() / size_of::<T>()) }
}

/// As [`elements`], for writing.
pub fn elements_mut<T: Element>(bytes: &mut [u8]) -> &mut [T] {
    debug_assert!(bytes.as_ptr().cast::<T>().is_aligned());
    // SAFETY: as above.
    unsafe { std::slice::from_raw_parts_mut(bytes.as_mut_ptr().cast(), bytes.len() / size_of::<T>()) }
}

fn gather<T: Element, C>(bytes: &[u8], start: usize, stride: usize, to: &mut [C], f: impl Fn(T) -> C) {
    let from = &elements::<T>(bytes)[start..];
    to.iter_mut().enumerate().for_each(|(i, t)| *t = f(from[i * stride]));
}

impl Compute for f32 {
    fn from_i32(value: i32) -> f32 {
        value as f32
    }

    fn load_rows(
        isa: Isa,
        values: &Values<'_>,
        start: usize,
        distance: usize,
        extents: [usize; 2],
        to: &mut [f32],
        ld: usize,
    ) {
        values::load_rows(isa, values, start, distance, extents, to, ld);
    }

    fn load(isa: Isa, dtype: DType, bytes: &[u8], start: usize, stride: usize, to: &mut [f32]) {
        let n = to.len();
        match (dtype, stride) {
            (DType::F32, 1) => to.copy_from_slice(&elements::<f32>(bytes)[start..start + n]),
            (DType::F16, 1) => f16::widen(isa, &elements(bytes)[start..start + n], to),
            (DType::BF16, 1) => bf16::widen(isa, &elements(bytes)[start..start + n], to),
            (DType::F32, _) => gather(bytes, start, stride, to, |v: f32| v),
            (DType::F16, _) => gather(bytes, start, stride, to, f16::to_f32),
            (DType::BF16, _) => gather(bytes, start, stride, to, bf16::to_f32),
            (DType::F64, _) => gather(bytes, start, stride, to, |v: f64| v as f32),
            (DType::I64, _) => gather(bytes, start, stride, to, |v: i64| v as f32),
            (DType::U32, _) => gather(bytes, start, stride, to, |v: u32| v as f32),
            (DType::I8, _) => gather(bytes, start, stride, to, |v: i8| v as f32),
            (DType::Bool, _) => gather(bytes, start, stride, to, |v: bool| v as u8 as f32),
        }
    }

    fn store(isa: Isa, from: &[f32], to: &mut [u8], dtype: DType) {
        match dtype {
            DType::F32 => elements_mut::<f32>(to).copy_from_slice(from),
            DType::F16 => f16::narrow(isa, from, elements_mut(to)),
            DType::BF16 => bf16::narrow(isa, from, elements_mut(to)),
            DType::F64 => write(from, to, |v| v as f64),
            DType::I64 => write(from, to, |v| v as i64),
            DType::U32 => write(from, to, |v| v as u32),
            DType::I8 => write(from, to, |v| v as i8),
            DType::Bool => write(from, to, |v| v != 0.0),
        }
    }
}

impl Compute for f64 {
    fn from_i32(value: i32) -> f64 {
        value.into()
    }

    fn load_rows(
        isa: Isa,
        values: &Values<'_>,
        start: usize,
        distance: usize,
        extents: [usize; 2],
        to: &mut [f64],
        ld: usize,
    ) {
        values::load_each(isa, values, start, distance, extents, to, ld);
    }

    fn load(_isa: Isa, dtype: DType, bytes: &[u8], start: usize, stride: usize, to: &mut [f64]) {
        binade_tensor::with_element!(dtype, T => gather(bytes, start, stride, to, |v: T| v.as_f64()));
    }

    fn store(_isa: Isa, from: &[f64], to: &mut [u8], dtype: DType) {
        match dtype {
            DType::F64 => elements_mut::<f64>(to).copy_from_slice(from),
            DType::F32 => write(from, to, |v| v as f32),
            DType::F16 => write(from, to, |v| f16::from_f32(f64_to_f32_odd(v))),
            DType::BF16 => write(from, to, |v| bf16::from_f32(f64_to_f32_odd(v))),
            DType::I64 => write(from, to, |v| v as i64),
            DType::U32 => write(from, to, |v| v as u32),
            DType::I8 => write(from, to, |v| v as i8),
            DType::Bool => write(from, to, |v| v != 0.0),
        }
    }
}

fn write<C: Copy, T: Element>(from: &[C], to: &mut [u8], f: impl Fn(C) -> T) {
    elements_mut(to).iter_mut().zip(from).for_each(|(t, &v)| *t = f(v));
}

/// Whether kernels compute in f32.
pub const fn is_f32<C: Compute>() -> bool {
    matches!(C::DTYPE, DType::F32)
}

/// `f::<C, T>(…)` with the storage type T of a dtype, if kernels in C read and write it in place, else `None`. Where
/// one computes in f64 because an operand is of it, not all are of a 16-bit format.
macro_rules! in_storage {
    ($dtype:expr, $f:ident::<$c:ident>($($arg:expr),* $(,)?)) => {
        match $dtype {
            binade_tensor::DType::F16 if const { crate::operand::is_f32::<$c>() } => {
                $f::<$c, binade_tensor::f16>($($arg),*)
            }
            binade_tensor::DType::BF16 if const { crate::operand::is_f32::<$c>() } => {
                $f::<$c, binade_tensor::bf16>($($arg),*)
            }
            dtype if dtype == <$c as binade_tensor::Element>::DTYPE => $f::<$c, $c>($($arg),*),
            binade_tensor::DType::F16 | binade_tensor::DType::BF16 => None,
            binade_tensor::DType::F32 | binade_tensor::DType::F64 => None,
            binade_tensor::DType::I64 | binade_tensor::DType::U32 => None,
            binade_tensor::DType::I8 | binade_tensor::DType::Bool => None,
        }
    };
}
pub(crate) use in_storage;
