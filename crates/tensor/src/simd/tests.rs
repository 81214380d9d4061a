use half::{bf16, f16};

use super::convert::{self, Convert};
use super::*;
use crate::format::Format;

/// Distance of `found` from `exact` in ulp of f32 at `exact`.
fn ulps(found: f32, exact: f64) -> f64 {
    if exact.is_nan() {
        return if found.is_nan() { 0.0 } else { f64::INFINITY };
    }
    let rounded = exact as f32;
    if rounded == found || rounded.is_infinite() && found == f32::MAX.copysign(rounded) && exact.abs() < 2f64.powi(128) {
        return 0.0;
    }
    let ulp = 2f64.powi((libm::ilogb(exact).max(-126)) - 23);
    (found as f64 - exact).abs() / ulp
}

macro_rules! function {
    ($name:ident, $method:ident, $bound:literal) => {
        #[test]
        fn $name() {
            #[derive(Clone, Copy)]
            struct F;
            impl Map1 for F {
                #[inline(always)]
                fn eval<L: Lanes>(self, x: L) -> L {
                    x.$method()
                }
            }
            // Every 2,003rd code: all exponents, both signs, infinities and NaN codes among them.
            let mut x: Vec<f32> = (0..u32::MAX / 2003).map(|i| f32::from_bits(i * 2003)).collect();
            x.extend([0.0, -0.0, f32::INFINITY, f32::NEG_INFINITY, f32::NAN, f32::MAX, f32::MIN, f32::MIN_POSITIVE, 1.0, -1.0]);
            let mut y = vec![0.0; x.len()];
            for isa in Isa::available() {
                f32::map1(isa, F, &x, &mut y);
                let (mut worst, mut at) = (0.0, 0.0);
                for (&x, &y) in x.iter().zip(&y) {
                    let error = ulps(y, Lanes::$method(x as f64));
                    if !(error <= worst) {
                        (worst, at) = (error, x);
                    }
                }
                println!("{} {}: {worst:.3} ulp at {at:e}", stringify!($name), isa.name());
                assert!(worst <= $bound, "{isa:?}: {worst} ulp at {at:e}");
            }
        }
    };
}

function!(exp, exp, 1.0);
function!(exp_m1, exp_m1, 2.0);
function!(ln, ln, 1.0);
function!(ln_1p, ln_1p, 2.0);
function!(tanh, tanh, 2.0);
function!(sigmoid, sigmoid, 2.5);
function!(erf, erf, 1.5);
function!(erfc, erfc, 4.0);

#[test]
fn sixteen_bit_codes_survive_a_round_trip_at_every_level() {
    let codes: Vec<u16> = (0..=u16::MAX).collect();
    for isa in Isa::available() {
        let halves: Vec<f16> = codes.iter().map(|&c| f16::from_bits(c)).collect();
        let (mut wide, mut back) = (vec![0.0; 65536], vec![f16::ZERO; 65536]);
        f16::widen(isa, &halves, &mut wide);
        f16::narrow(isa, &wide, &mut back);
        for ((h, w), b) in halves.iter().zip(&wide).zip(&back) {
            assert!(
                h.is_nan() && w.is_nan() && b.is_nan() || h.to_f32().to_bits() == w.to_bits() && h.to_bits() == b.to_bits(),
                "{isa:?} {h:?}"
            );
        }
        let brains: Vec<bf16> = codes.iter().map(|&c| bf16::from_bits(c)).collect();
        let mut back = vec![bf16::ZERO; 65536];
        bf16::widen(isa, &brains, &mut wide);
        bf16::narrow(isa, &wide, &mut back);
        for ((h, w), b) in brains.iter().zip(&wide).zip(&back) {
            assert!(
                h.is_nan() && w.is_nan() && b.is_nan() || h.to_f32().to_bits() == w.to_bits() && h.to_bits() == b.to_bits(),
                "{isa:?} {h:?}"
            );
        }
    }
}

fn narrowing_agrees(codes: impl Iterator<Item = u32>) {
    let x: Vec<f32> = codes.map(f32::from_bits).collect();
    let mut expected: Option<(Vec<u16>, Vec<u16>)> = None;
    for isa in Isa::available() {
        let (mut h, mut b) = (vec![f16::ZERO; x.len()], vec![bf16::ZERO; x.len()]);
        f16::narrow(isa, &x, &mut h);
        bf16::narrow(isa, &x, &mut b);
        let bits = (h.iter().map(|v| v.to_bits()).collect(), b.iter().map(|v| v.to_bits()).collect());
        match &expected {
            None => {
                for i in 0..x.len() {
                    if x[i].is_nan() {
                        assert!(h[i].is_nan() && b[i].is_nan());
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
fn an_element_has_the_same_bits_wherever_it_stands() {
    #[derive(Clone, Copy)]
    struct Exp;
    impl Map1 for Exp {
        #[inline(always)]
        fn eval<L: Lanes>(self, x: L) -> L {
            x.exp()
        }
    }
    for isa in Isa::available() {
        for n in 0..40 {
            let (x, mut y) = (vec![0.3f32; n], vec![0.0; n]);
            f32::map1(isa, Exp, &x, &mut y);
            assert!(y.windows(2).all(|w| w[0].to_bits() == w[1].to_bits()));
        }
    }
}
