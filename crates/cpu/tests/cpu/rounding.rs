//! Conversions between f32, f64 and 16 bit: to nearest even, and stochastic.

use half::{bf16, f16};

use binade_cpu::simd::convert::{self, Convert};
use binade_cpu::simd::*;
use binade_tensor::format::Format;

#[test]
fn sixteen_bit_codes_survive_a_round_trip_at_every_level() {
    fn check<T: Convert + Stored<f32> + std::fmt::Debug>(
        isa: Isa,
        codes: &[T],
        to_f32: fn(T) -> f32,
        from_f32: fn(f32) -> T,
        bits: fn(T) -> u16,
    ) {
        let (mut wide, mut back) = (vec![0.0; codes.len()], vec![codes[0]; codes.len()]);
        T::widen(isa, codes, &mut wide);
        T::narrow(isa, &wide, &mut back);
        let mut in_registers = vec![0.0; codes.len() - 1];
        f32::map1(isa, Same, &codes[1..], &mut in_registers);
        // In registers a signalling NaN may stay one until something computes with it.
        let quiet = |x: f32| x.to_bits() | if x.is_nan() { 0x0040_0000 } else { 0 };
        assert!(in_registers.iter().zip(&wide[1..]).all(|(&a, b)| quiet(a) == b.to_bits()), "{isa:?}");
        // Stores from registers make it quiet.
        f32::map1(isa, Same, &codes[1..], &mut back[1..]);
        assert!(back[1..].iter().zip(&wide[1..]).all(|(&b, &w)| bits(b) == bits(from_f32(w))), "{isa:?}");
        T::narrow(isa, &wide, &mut back);
        for ((&c, w), &b) in codes.iter().zip(&wide).zip(&back) {
            // NaN codes too: `half` keeps sign and payload and sets the quiet bit, as the instructions do.
            assert_eq!(w.to_bits(), to_f32(c).to_bits(), "{isa:?} {c:?}");
            assert_eq!(bits(b), bits(from_f32(*w)), "{isa:?} {c:?}");
            assert!(w.is_nan() || bits(b) == bits(c), "{isa:?} {c:?}");
        }
    }
    for isa in Isa::available() {
        let all = || 0..=u16::MAX;
        check(isa, &all().map(f16::from_bits).collect::<Vec<_>>(), f16::to_f32, f16::from_f32, f16::to_bits);
        check(isa, &all().map(bf16::from_bits).collect::<Vec<_>>(), bf16::to_f32, bf16::from_f32, bf16::to_bits);
    }
}

/// The identity.
#[derive(Clone, Copy)]
struct Same;

impl Map1 for Same {
    #[inline(always)]
    fn eval<L: Lanes>(self, x: L) -> L {
        x
    }
}

#[derive(Clone, Copy)]
struct RoundedF16;

impl Map1 for RoundedF16 {
    #[inline(always)]
    fn eval<L: Lanes>(self, x: L) -> L {
        x.rounded_f16()
    }
}

#[derive(Clone, Copy)]
struct RoundedBf16;

impl Map1 for RoundedBf16 {
    #[inline(always)]
    fn eval<L: Lanes>(self, x: L) -> L {
        x.rounded_bf16()
    }
}

fn narrowing_agrees(codes: impl Iterator<Item = u32>) {
    let x: Vec<f32> = codes.map(f32::from_bits).collect();
    let mut expected: Option<(Vec<u16>, Vec<u16>)> = None;
    for isa in Isa::available() {
        let (mut h, mut b) = (vec![f16::ZERO; x.len()], vec![bf16::ZERO; x.len()]);
        f16::narrow(isa, &x, &mut h);
        bf16::narrow(isa, &x, &mut b);
        // In registers as by slices; a length that leaves a part of a vector.
        let (mut h2, mut b2) = (h.clone(), b.clone());
        f32::map1(isa, Same, &x[1..], &mut h2[1..]);
        f32::map1(isa, Same, &x[1..], &mut b2[1..]);
        assert!(h2.iter().zip(&h).all(|(a, b)| a.to_bits() == b.to_bits()), "f16, {isa:?}");
        assert!(b2.iter().zip(&b).all(|(a, b)| a.to_bits() == b.to_bits()), "bf16, {isa:?}");
        // As it would be loaded again.
        let (mut again, mut rounded) = (vec![0.0; x.len()], vec![0.0; x.len()]);
        f16::widen(isa, &h, &mut again);
        f32::map1(isa, RoundedF16, &x, &mut rounded);
        assert!(rounded.iter().zip(&again).all(|(a, b)| a.to_bits() == b.to_bits()), "f16 in a register, {isa:?}");
        bf16::widen(isa, &b, &mut again);
        f32::map1(isa, RoundedBf16, &x, &mut rounded);
        assert!(rounded.iter().zip(&again).all(|(a, b)| a.to_bits() == b.to_bits()), "bf16 in a register, {isa:?}");
        let bits = (h.iter().map(|v| v.to_bits()).collect(), b.iter().map(|v| v.to_bits()).collect());
        match &expected {
            None => {
                for i in 0..x.len() {
                    if x[i].is_nan() {
                        // Sign and high payload bits stay, the quiet bit is set.
                        let (sign, payload) = ((x[i].to_bits() >> 16) as u16, x[i].to_bits() & 0x7f_ffff);
                        assert_eq!(h[i].to_bits(), sign & 0x8000 | 0x7e00 | (payload >> 13) as u16);
                        assert_eq!(b[i].to_bits(), sign | 0x40);
                    } else {
                        assert_eq!(h[i].to_bits() as u64, Format::F16.encode(x[i] as f64), "{:e}", x[i]);
                        assert_eq!(b[i].to_bits() as u64, Format::BF16.encode(x[i] as f64), "{:e}", x[i]);
                    }
                }
                expected = Some(bits);
            }
            Some(expected) => assert!(*expected == bits, "{isa:?} differs from portable"),
        }
    }
}

#[test]
fn narrowing_rounds_to_nearest_even_on_a_sample_of_all_codes_and_at_every_tie() {
    narrowing_agrees((0..u32::MAX / 4099).map(|i| i * 4099));
    // Around every tie of both formats: the last kept bit even and odd, and the codes beside it.
    let ties = (0..=255u32).flat_map(|e| [0x1000u32, 0x3000, 0x8000, 0x18000, 0x7fffff, 0].map(|m| e << 23 | m));
    narrowing_agrees(ties.flat_map(|c| [c.saturating_sub(1), c, c + 1]).flat_map(|c| [c, c | 1 << 31]));
    narrowing_agrees(
        [65504.0f32, 65519.996, 65520.0, 65536.0, 2f32.powi(-25), f32::from_bits(0x3300_0001), 2f32.powi(-24)]
            .map(f32::to_bits)
            .into_iter(),
    );
}

/// All 2³² codes: `cargo test --release -p binade-tensor every_f32 -- --ignored`.
#[test]
#[ignore = "a sweep over 2^32 values takes minutes"]
fn narrowing_is_right_for_every_f32() {
    for high in 0..=0xfffu32 {
        narrowing_agrees((0..1 << 20).map(|low| high << 20 | low));
    }
}

#[test]
fn conversion_from_f64_through_odd_rounding_rounds_once() {
    // 1 + 2⁻¹¹ + 2⁻⁴⁰ is above the tie of f16; rounding to f32 first would lose the 2⁻⁴⁰ and round to even, down.
    let x = 1.0 + 2f64.powi(-11) + 2f64.powi(-40);
    assert_eq!(narrow_one(convert::f64_to_f32_odd(x)), f16::from_f32(1.0 + 2f32.powi(-10)));
    assert_eq!(narrow_one(x as f32), f16::ONE);
    assert_eq!(narrow_one(convert::f64_to_f32_odd(1e300)), f16::INFINITY);
    assert_eq!(convert::f64_to_f32_odd(-0.0).to_bits(), (-0.0f32).to_bits());
}

fn narrow_one(x: f32) -> f16 {
    let mut out = [f16::ZERO];
    f16::narrow(Isa::Portable, &[x], &mut out);
    out[0]
}

#[test]
fn stochastic_rounding_goes_up_for_exactly_its_share_of_all_noise_values() {
    for low in [0u32, 1, 2, 0x7fff, 0x8000, 0xfffe, 0xffff] {
        for high in [0x3f80u32, 0xbf81, 0x0001, 0x7f7f] {
            let x = f32::from_bits(high << 16 | low);
            let up = (0..=0xffffu32)
                .filter(|&noise| convert::stochastic_bf16(x, noise | 0xabcd_0000).to_bits() as u32 != high)
                .count();
            assert_eq!(up as u32, low, "{x:e}");
        }
    }
    // f16: 13 dropped bits in the normal range.
    let x = 1.0 + 2f32.powi(-10) * 0.25;
    assert_eq!((0..0x2000).filter(|&noise| convert::stochastic_f16(x, noise) != f16::ONE).count(), 0x2000 / 4);
    // A quarter of the smallest subnormal becomes it for a quarter of the noise.
    let tiny = 2f32.powi(-26);
    let up = (0..1024u32).filter(|&i| convert::stochastic_f16(tiny, i << 22) != f16::ZERO).count();
    assert_eq!(up, 256);
}

#[test]
fn stochastic_rounding_keeps_nan_infinity_and_representable_values() {
    for noise in [0, 1, 0x7fff, 0xffff, u32::MAX] {
        for bits in [0x7f80_0001u32, 0x7fff_ffff, 0xff80_0001, 0xffff_ffff, 0x7fc0_0000] {
            assert!(convert::stochastic_bf16(f32::from_bits(bits), noise).is_nan());
            assert!(convert::stochastic_f16(f32::from_bits(bits), noise).is_nan());
        }
        for x in [f32::INFINITY, f32::NEG_INFINITY, 0.0, -0.0, 1.0, -2.5, 2f32.powi(-24)] {
            assert_eq!(convert::stochastic_bf16(x, noise).to_f32().to_bits(), x.to_bits());
            assert_eq!(convert::stochastic_f16(x, noise).to_f32().to_bits(), x.to_bits());
        }
    }
}

#[test]
fn f64_is_rounded_to_sixteen_bit_once() {
    // Random f64 around the range of the formats, and beside every tie of f16 codes and a sample of bf16 codes.
    let mut x = vec![
        0.0,
        -0.0,
        f64::INFINITY,
        f64::NEG_INFINITY,
        f64::MAX,
        f64::MIN_POSITIVE,
        5e-324,
        65504.0,
        65520.0,
        3.39e38,
    ];
    let mut state = 1u64;
    for _ in 0..100_000 {
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        let exponent = 1023 - 150 + state % 300;
        x.push(f64::from_bits(exponent << 52 | state >> 12 | (state & 1) << 63));
    }
    let mut beside = |low: f64, high: f64| {
        let tie = (low + high) / 2.0;
        x.extend([tie, f64::from_bits(tie.to_bits() - 1), f64::from_bits(tie.to_bits() + 1), -tie]);
    };
    (0..0x7bff).for_each(|c| beside(f16::from_bits(c).to_f64(), f16::from_bits(c + 1).to_f64()));
    (0..0x7f7f).step_by(7).for_each(|c| beside(bf16::from_bits(c).to_f64(), bf16::from_bits(c + 1).to_f64()));
    for isa in Isa::available() {
        let (mut h, mut b) = (vec![f16::ZERO; x.len()], vec![bf16::ZERO; x.len()]);
        f16::narrow_f64(isa, &x, &mut h);
        bf16::narrow_f64(isa, &x, &mut b);
        for i in 0..x.len() {
            assert_eq!(h[i].to_bits() as u64, Format::F16.encode(x[i]), "{isa:?} {:e}", x[i]);
            assert_eq!(b[i].to_bits() as u64, Format::BF16.encode(x[i]), "{isa:?} {:e}", x[i]);
        }
        let mut back = vec![0.0; x.len()];
        f16::widen_f64(isa, &h, &mut back);
        assert!(h.iter().zip(&back).all(|(h, &w)| h.to_f64() == w));
        f16::narrow_f64(isa, &[f64::NAN], &mut h[..1]);
        assert!(h[0].is_nan());
    }
}

#[test]
fn stochastic_rounding_to_f16_goes_up_for_exactly_its_share_of_the_noise() {
    // (value, bits of noise used): normal, the smallest normal binade, and subnormals with a growing shift.
    for (x, bits) in [
        (1.000_3f32, 13),
        (-65503.2, 13),
        (6.1e-5, 14),
        (3.3e-5, 14),
        (1.7e-5, 15),
        (1e-6, 19),
        (5.99e-8, 23),
        (1e-8, 26),
    ] {
        let exponent = (x.abs().to_bits() >> 23) as i32 - 127;
        let unit = 2f64.powi(exponent.max(-14) - 10);
        let units = x.abs() as f64 / unit;
        let share = (units.fract() * 2f64.powi(bits)) as usize;
        assert_eq!(share as f64, units.fract() * 2f64.powi(bits), "{x:e} drops {bits} bits");
        let low = f16::from_f64(units.floor() * unit).to_bits();
        let mut up = 0;
        for noise in 0..1u32 << bits {
            let y = convert::stochastic_f16(x, noise | 0xf800_0000).to_bits() & 0x7fff;
            assert!(y == low || y == low + 1);
            up += (y != low) as usize;
        }
        assert_eq!(up, share, "{x:e}");
    }
}

#[test]
fn stochastic_slices_equal_the_scalar_at_every_level() {
    let x: Vec<f32> = (0..u32::MAX / 40_009).map(|i| f32::from_bits(i * 40_009)).collect();
    let noise: Vec<u32> = (0..x.len() as u32).map(|i| i.wrapping_mul(2_654_435_761)).collect();
    for isa in Isa::available() {
        let (mut h, mut b) = (vec![f16::ZERO; x.len()], vec![bf16::ZERO; x.len()]);
        f16::stochastic(isa, &x, &noise, &mut h);
        bf16::stochastic(isa, &x, &noise, &mut b);
        for i in 0..x.len() {
            assert_eq!(h[i].to_bits(), convert::stochastic_f16(x[i], noise[i]).to_bits(), "{isa:?} {:e}", x[i]);
            assert_eq!(b[i].to_bits(), convert::stochastic_bf16(x[i], noise[i]).to_bits(), "{isa:?} {:e}", x[i]);
        }
    }
}
