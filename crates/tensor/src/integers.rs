//! Integers that f64 does not hold. Kernels of the host that move and compare elements compute in f64, which is exact
//! up to 2⁵³; larger ones are replaced by their rank among all that are there, which is moved and compared as they are,
//! and put back afterwards.

use crate::op::{PadMode, Resample};
use crate::{Array, ArrayMut, Class, DType, Element, Op, Result, bf16, f16, format::f64_to_f32_odd};

/// Up to here f64 holds every integer.
const EXACT: u64 = 1 << f64::MANTISSA_DIGITS;

/// Whether f64 would not hold the integers that an operator moves or compares. Beside floats they are compared as
/// floats.
fn are_large(op: &Op, ins: &[&Array]) -> Result<bool> {
    let moved = || ins.iter().enumerate().filter(|(i, _)| op.moves(*i)).map(|(_, array)| array);
    if moved().any(|a| a.dtype().is_float()) {
        return Ok(false);
    }
    for array in moved().filter(|a| a.dtype() == DType::I64) {
        if array.to_vec::<i64>()?.iter().any(|v| v.unsigned_abs() > EXACT) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Runs an operator on ranks in place of integers, if it moves or compares some that f64 does not hold; false if there
/// are none, and nothing was run.
///
/// # Errors
/// As the operator.
pub fn run_by_rank(op: &Op, ins: &[&Array], outs: &mut [ArrayMut<'_>]) -> Result<bool> {
    if !are_large(op, ins)? {
        return Ok(false);
    }
    let device = ins[0].device();
    let places: Vec<usize> = (0..ins.len()).filter(|&i| op.moves(i)).collect();
    let values = |&i: &usize| ins[i].cast(DType::I64, Class::Workspace)?.to_vec::<i64>();
    let values = places.iter().map(values).collect::<Result<Vec<_>>>()?;
    let mut op = op.clone();
    let mut all: Vec<i64> = values.iter().flatten().copied().collect();
    if let Op::Resample(map) = &op {
        all.push(map.fill() as i64);
    }
    all.sort_unstable();
    all.dedup();
    let rank = |v: &i64| all.partition_point(|other| other < v) as i64;
    if let Op::Resample(Resample::Pad { mode: PadMode::Constant(value), .. }) = &mut op {
        *value = rank(&(*value as i64)) as f64;
    }
    let mut arrays: Vec<Array> = ins.iter().map(|a| (*a).clone()).collect();
    for (&i, values) in places.iter().zip(&values) {
        let ranks: Vec<i64> = values.iter().map(rank).collect();
        arrays[i] = Array::from_slice(device, &ranks, ins[i].shape(), Class::Workspace)?;
    }
    device.run(&op, &arrays.iter().collect::<Vec<_>>(), outs)?;
    if matches!(op, Op::ArgMax { .. }) || outs[0].array().dtype() != DType::I64 {
        return Ok(true);
    }
    // Outputs are dense and of their own memory: all of it is ranks.
    let n = outs[0].array().numel();
    let out = outs[0].array();
    let ranks = match outs[0].bytes() {
        Some(bytes) => bytemuck::cast_slice_mut::<u8, i64>(&mut bytes[..n * size_of::<i64>()]),
        None => {
            return Err(crate::Error::Unsupported {
                op: op.name(),
                backend: out.device().name().into(),
                dtype: DType::I64,
            });
        }
    };
    ranks.iter_mut().for_each(|v| *v = all[*v as usize]);
    Ok(true)
}

/// An element type as integers see it.
pub trait Integer: Element {
    /// The nearest value, ties to even; other integers saturate.
    fn from_integer(value: i64) -> Self;
    /// The integer, of floats without what follows the point.
    fn as_integer(self) -> i64;
}

macro_rules! integer {
    ($($t:ty, $from:expr, $to:expr;)*) => {$(
        impl Integer for $t {
            fn from_integer(value: i64) -> Self { ($from)(value) }
            fn as_integer(self) -> i64 { ($to)(self) }
        }
    )*};
}

integer! {
    f64, |v| v as f64, |v| v as i64;
    f32, |v| v as f32, |v| v as i64;
    f16, |v| f16::from_f32(f64_to_f32_odd(odd(v))), |v: f16| v.to_f32() as i64;
    bf16, |v| bf16::from_f32(f64_to_f32_odd(odd(v))), |v: bf16| v.to_f32() as i64;
    i64, |v| v, |v| v;
    u32, |v: i64| v.clamp(0, u32::MAX as i64) as u32, |v| v as i64;
    i8, |v: i64| v.clamp(i8::MIN as i64, i8::MAX as i64) as i8, |v| v as i64;
    bool, |v| v != 0, |v| v as i64;
}

/// The f64 towards zero, with its last bit set if it is not the integer itself: rounded again to fewer bits it is as if
/// rounded once.
fn odd(v: i64) -> f64 {
    let exact = v as i128;
    let mut near = v as f64;
    if near as i128 == exact {
        return near;
    }
    if (near as i128).abs() > exact.abs() {
        near = f64::from_bits(near.to_bits() - 1);
    }
    f64::from_bits(near.to_bits() | 1)
}
