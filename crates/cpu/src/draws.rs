//! Random numbers, dropout and stochastic rounding, and fills.

use super::operand::{Compute, Operand, elements, elements_mut, fill, fill_as, fill_with};
use crate::kernel::{In, Out};
use crate::simd::Isa;
use crate::simd::convert::{stochastic_bf16, stochastic_f16};
use binade_tensor::op::Distribution;
use binade_tensor::random::{below, normal_pair, uniform};
use binade_tensor::{DType, Key};

/// `bits(i)` for the flat *logical* position of every element of a block. The output is row-major, so it is `start +
/// i`.
fn draw<const N: usize>(key: Key, start: usize, n: usize, mut each: impl FnMut(usize, [u32; N])) {
    let mut i = 0;
    while i < n {
        let at = start + i;
        let block = key.block((at * N / 4) as u32);
        for slot in (at * N % 4) / N..4 / N {
            if i == n {
                break;
            }
            each(i, std::array::from_fn(|j| block[slot * N + j]));
            i += 1;
        }
    }
}

pub(super) fn dropout<C: Compute>(isa: Isa, p: f64, key: Key, x: &Operand<'_>, out: &mut Out<'_>) {
    // One threshold over 2³²: an element is dropped where its word is below it.
    let threshold = (p * 4294967296.0) as u64;
    let scale = C::from_f64(if p < 1.0 { 1.0 / (1.0 - p) } else { 0.0 });
    fill_with::<C, _>(
        isa,
        out,
        x.is_over(),
        || (),
        |(), start, old, y| {
            if x.is_over() {
                y.copy_from_slice(old);
            } else {
                x.load(isa, start, y);
            }
            draw::<1>(key, start, y.len(), |i, [bits]| {
                y[i] = if (bits as u64) < threshold { C::zero() } else { y[i] * scale }
            });
        },
    );
}

pub(super) fn stochastic_cast(isa: Isa, dtype: DType, key: Key, x: &Operand<'_>, out: &mut Out<'_>) {
    fill::<f32>(isa, out, |start, y| {
        x.load(isa, start, y);
        draw::<1>(key, start, y.len(), |i, [bits]| {
            y[i] = if dtype == DType::BF16 {
                stochastic_bf16(y[i], bits).to_f32()
            } else {
                stochastic_f16(y[i], bits).to_f32()
            };
        });
    });
}

pub(super) fn random(isa: Isa, distribution: Distribution, key: Key, out: &mut Out<'_>) {
    match distribution {
        Distribution::Uniform { low, high } => fill::<f64>(isa, out, |start, y| {
            draw::<1>(key, start, y.len(), |i, [bits]| y[i] = low + (high - low) * uniform(bits) as f64);
        }),
        // Two words per element, so that an element's value depends on its own block only.
        Distribution::Normal { mean, std } => fill::<f64>(isa, out, |start, y| {
            draw::<2>(key, start, y.len(), |i, [a, b]| y[i] = mean + std * normal_pair(a, b)[0]);
        }),
        Distribution::Integers { low, high } => fill_as::<i64>(out, |start, y| {
            draw::<2>(key, start, y.len(), |i, words| y[i] = Distribution::integer(low, high, words));
        }),
        Distribution::Permutation => {
            let values = elements_mut::<i64>(out.bytes());
            values.iter_mut().enumerate().for_each(|(i, v)| *v = i as i64);
            // Fisher and Yates, from the end.
            let n = values.len();
            draw::<2>(key, 0, n, |i, [a, b]| {
                let last = n - 1 - i;
                values.swap(last, below(a, b, last as u64 + 1) as usize);
            });
        }
    }
}

pub(super) fn constant(isa: Isa, value: f64, out: &mut Out<'_>) {
    /// The same N bytes in every element.
    fn same<const N: usize>(bytes: &[u8], out: &mut Out<'_>)
    where
        [u8; N]: bytemuck::Pod,
    {
        let Ok(element) = <[u8; N]>::try_from(bytes) else { return };
        fill_as::<[u8; N]>(out, |_, y| y.fill(element));
    }
    let dtype = out.array().dtype();
    let mut word = [0u64];
    let bytes = &mut bytemuck::cast_slice_mut(&mut word)[..dtype.size()];
    <f64 as Compute>::store(isa, &[value], bytes, dtype);
    match bytes.len() {
        1 => same::<1>(bytes, out),
        2 => same::<2>(bytes, out),
        4 => same::<4>(bytes, out),
        _ => same::<8>(bytes, out),
    }
}

/// From `start` on, or from so far behind the one element of `base`.
pub(super) fn range(start: i64, base: Option<In<'_>>, out: &mut Out<'_>) {
    let base = base.map_or(0, |base| elements::<i64>(base.bytes)[base.layout().offset]);
    let values = elements_mut::<i64>(out.bytes()).iter_mut();
    values.zip(0..).for_each(|(v, i)| *v = start.wrapping_add(base).wrapping_add(i));
}
