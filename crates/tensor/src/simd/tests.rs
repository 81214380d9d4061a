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

/// Largest error of `f` against `oracle` over `codes` at one level, and where.
fn worst<F: Map1>(isa: Isa, f: F, oracle: fn(f64) -> f64, codes: impl Iterator<Item = u32>) -> (f64, f32) {
    let x: Vec<f32> = codes.map(f32::from_bits).collect();
    let mut y = vec![0.0; x.len()];
    f32::map1(isa, f, &x, &mut y);
    let mut worst = (0.0, 0.0);
    for (&x, &y) in x.iter().zip(&y) {
        let error = ulps(y, oracle(x as f64));
        if error > worst.0 || error.is_nan() {
            worst = (error, x);
        }
    }
    worst
}

/// One row per function: its bound in ulp, checked at every level on a sample of all exponents, and on demand on all f32.
macro_rules! functions {
    ($($method:ident $bound:literal;)*) => {
        mod maps {
            $(#[allow(non_camel_case_types)]
            #[derive(Clone, Copy)]
            pub struct $method;
            impl super::Map1 for $method {
                #[inline(always)]
                fn eval<L: super::Lanes>(self, x: L) -> L {
                    x.$method()
                }
            })*
        }

        $(#[test]
        fn $method() {
            for isa in Isa::available() {
                // Every 2,003rd code: both signs, infinities and NaN codes among them.
                let (error, x) = worst(isa, maps::$method, Lanes::$method, (0..=u32::MAX).step_by(2003));
                println!("{} {}: {error:.3} ulp at {x:e}", stringify!($method), isa.name());
                assert!(error <= $bound, "{isa:?}: {error} ulp at {x:e}");
            }
        })*

        /// All 2³² arguments: `cargo test --release -p binade-tensor functions_meet -- --ignored --nocapture`.
        #[test]
        #[ignore = "a sweep of every function over 2^32 values takes a quarter of an hour"]
        fn functions_meet_their_bounds_for_every_f32() {
            for isa in Isa::available() {
                $(
                    let mut all = (0.0, 0.0);
                    for high in 0..=0xfffu32 {
                        let found = worst(isa, maps::$method, Lanes::$method, (0..1 << 20).map(|low| high << 20 | low));
                        if found.0 > all.0 || found.0.is_nan() {
                            all = found;
                        }
                    }
                    println!("{} {}: {:.3} ulp at {:e}", stringify!($method), isa.name(), all.0, all.1);
                    assert!(all.0 <= $bound, "{} {isa:?}: {} ulp at {:e}", stringify!($method), all.0, all.1);
                )*
            }
        }
    };
}

functions! {
    exp 1.1;
    exp_m1 1.5;
    ln 1.0;
    ln_1p 1.5;
    tanh 1.5;
    sigmoid 1.5;
    erf 1.5;
    erfc 4.0;
    normal_cdf 4.0;
    normal_density 2.0;
    tanh_cdf 4.0;
}

/// GELU and its derivative, as maps.
#[derive(Clone, Copy)]
struct Gelu;

impl Map1 for Gelu {
    #[inline(always)]
    fn eval<L: Lanes>(self, x: L) -> L {
        x.gelu()
    }
}

#[derive(Clone, Copy)]
struct GeluSlope;

impl Map1 for GeluSlope {
    #[inline(always)]
    fn eval<L: Lanes>(self, x: L) -> L {
        x.gelu_slope()
    }
}

/// Largest errors at `codes`: of GELU in ulp, without the |x|·2⁻¹⁴⁹ of a subnormal factor; of its derivative in units roundoff of 1.
fn gelu_errors(isa: Isa, codes: impl Iterator<Item = u32>) -> [f64; 2] {
    let x: Vec<f32> = codes.map(f32::from_bits).collect();
    let (mut y, mut slope) = (vec![0.0; x.len()], vec![0.0; x.len()]);
    f32::map1(isa, Gelu, &x, &mut y);
    f32::map1(isa, GeluSlope, &x, &mut slope);
    let mut worst = [0.0f64; 2];
    for ((&x, &y), &slope) in x.iter().zip(&y).zip(&slope) {
        let (exact, exact_slope) = ((x as f64).gelu(), (x as f64).gelu_slope());
        if x.is_finite() && exact != 0.0 {
            let subnormal = if x < -12.8 { x.abs() as f64 * 2f64.powi(-149) } else { 0.0 };
            worst[0] = worst[0].max(((y as f64 - exact).abs() - subnormal) / 2f64.powi(libm::ilogb(exact).max(-126) - 23));
        } else {
            assert!(y.to_bits() == (exact as f32).to_bits() || y.is_nan() && x.is_nan(), "{isa:?} {x:e}");
        }
        assert_eq!(slope.is_nan(), x.is_nan(), "{isa:?} {x:e}");
        worst[1] = worst[1].max((slope as f64 - exact_slope).abs() * 2f64.powi(24));
    }
    worst
}

#[test]
fn gelu_and_its_derivative_at_every_level() {
    for isa in Isa::available() {
        // All exponents, and more closely where the result is neither nearly x/2 nor 0 nor x.
        let active = (0x3d00_0000..0x4180_0000).step_by(331).flat_map(|c| [c, c | 1 << 31]);
        let [error, slope] = gelu_errors(isa, (0..=u32::MAX).step_by(2003).chain(active));
        println!("gelu {}: {error:.3} ulp, its derivative {slope:.3} units", isa.name());
        assert!(error <= 5.0 && slope <= 4.0, "{isa:?}: {error} ulp, {slope} units");
    }
}

/// Every argument with 2⁻⁵ ≤ |x| < 16: `cargo test --release -p binade-tensor every_active -- --ignored --nocapture`.
#[test]
#[ignore = "a sweep over 150 million values takes minutes"]
fn gelu_and_its_derivative_for_every_active_f32() {
    for isa in Isa::available() {
        let mut worst = [0.0f64; 2];
        for start in (0x3d00_0000..0x4180_0000u32).step_by(1 << 20) {
            for sign in [0, 1 << 31] {
                let found = gelu_errors(isa, (start..start + (1 << 20)).map(|c| c | sign));
                worst = [worst[0].max(found[0]), worst[1].max(found[1])];
            }
        }
        println!("gelu {}: {:.3} ulp, its derivative {:.3} units", isa.name(), worst[0], worst[1]);
        assert!(worst[0] <= 5.0 && worst[1] <= 4.0, "{isa:?}: {worst:?}");
    }
}

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

/// Every level's result for `x`, as bits.
fn at_every_level<F: Map1>(f: F, x: f32) -> Vec<u32> {
    Isa::available()
        .into_iter()
        .map(|isa| {
            let mut y = [0.0];
            f32::map1(isa, f, &[x], &mut y);
            if y[0].is_nan() { f32::NAN.to_bits() } else { y[0].to_bits() }
        })
        .collect()
}

macro_rules! specials {
    ($name:ident, $method:ident, $($x:expr => $y:expr),* $(,)?) => {
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
            $(for found in at_every_level(F, $x) {
                let expected: f32 = $y;
                assert_eq!(found, expected.to_bits(), "{}({:e}) is {:e}", stringify!($method), $x, f32::from_bits(found));
            })*
            assert!(at_every_level(F, f32::NAN).iter().all(|&y| f32::from_bits(y).is_nan()));
        }
    };
}

const INF: f32 = f32::INFINITY;
const TINIEST: f32 = f32::from_bits(1);

specials!(exp_at_its_edges, exp, 0.0 => 1.0, -0.0 => 1.0, INF => INF, -INF => 0.0, f32::MAX => INF, -f32::MAX => 0.0,
    // The last argument with a finite result and the next; the last with a nonzero result and the next.
    88.722_83 => f32::from_bits(0x7f7f_ff84), 88.722_84 => INF, -103.972_08 => TINIEST, -103.972_09 => 0.0);
specials!(exp_m1_at_its_edges, exp_m1, 0.0 => 0.0, -0.0 => -0.0, INF => INF, -INF => -1.0, TINIEST => TINIEST, -TINIEST => -TINIEST, f32::MAX => INF);
specials!(ln_at_its_edges, ln, 0.0 => -INF, -0.0 => -INF, 1.0 => 0.0, INF => INF, -1.0 => f32::NAN, -INF => f32::NAN, -TINIEST => f32::NAN,
    TINIEST => -103.278_93);
specials!(ln_1p_at_its_edges, ln_1p, 0.0 => 0.0, -0.0 => -0.0, -1.0 => -INF, INF => INF, -1.000_000_1 => f32::NAN, -INF => f32::NAN,
    TINIEST => TINIEST, -TINIEST => -TINIEST, f32::MAX => 88.722_84);
specials!(tanh_at_its_edges, tanh, 0.0 => 0.0, -0.0 => -0.0, INF => 1.0, -INF => -1.0, TINIEST => TINIEST, -TINIEST => -TINIEST, f32::MAX => 1.0);
specials!(sigmoid_at_its_edges, sigmoid, 0.0 => 0.5, -0.0 => 0.5, INF => 1.0, -INF => 0.0, f32::MAX => 1.0, -103.972_08 => TINIEST, -103.972_09 => 0.0);
specials!(erf_at_its_edges, erf, 0.0 => 0.0, -0.0 => -0.0, INF => 1.0, -INF => -1.0, f32::MAX => 1.0, TINIEST => TINIEST);
specials!(erfc_at_its_edges, erfc, 0.0 => 1.0, -0.0 => 1.0, INF => 0.0, -INF => 2.0, f32::MAX => 0.0, -f32::MAX => 2.0);
specials!(floor_at_its_edges, floor, 0.0 => 0.0, -0.0 => -0.0, 0.5 => 0.0, -0.5 => -1.0, -TINIEST => -1.0, 8_388_607.5 => 8_388_607.0,
    -8_388_607.5 => -8_388_608.0, 3e9 => 3e9, INF => INF, -INF => -INF);
specials!(round_at_its_edges, round_ties_even, 0.5 => 0.0, -0.5 => -0.0, 1.5 => 2.0, 2.5 => 2.0, -2.5 => -2.0, 4_194_304.5 => 4_194_304.0,
    8_388_607.5 => 8_388_608.0, 3e9 => 3e9, INF => INF, -INF => -INF, -0.0 => -0.0);
specials!(recip_at_its_edges, recip, 0.0 => INF, -0.0 => -INF, INF => 0.0, -INF => -0.0, 3.0 => 1.0 / 3.0);
specials!(rsqrt_at_its_edges, rsqrt, 0.0 => INF, INF => 0.0, -1.0 => f32::NAN, 4.0 => 0.5, TINIEST => 2.671_373_8e22);

#[test]
fn maximum_and_minimum_pass_nan_on_from_either_side() {
    #[derive(Clone, Copy)]
    struct F(bool);
    impl Map2 for F {
        #[inline(always)]
        fn eval<L: Lanes>(self, a: L, b: L) -> L {
            if self.0 { a.max(b) } else { a.min(b) }
        }
    }
    for isa in Isa::available() {
        for (a, b, larger, smaller) in [(1.0, 2.0, 2.0, 1.0), (2.0, 1.0, 2.0, 1.0), (-INF, 3.0, 3.0, -INF), (INF, 3.0, INF, 3.0)]
        {
            let (mut max, mut min) = ([0.0f32], [0.0f32]);
            f32::map2(isa, F(true), &[a], &[b], &mut max);
            f32::map2(isa, F(false), &[a], &[b], &mut min);
            assert_eq!((max[0], min[0]), (larger, smaller), "{isa:?}");
        }
        for (a, b) in [(f32::NAN, 1.0), (1.0, f32::NAN), (f32::NAN, INF), (-INF, f32::NAN)] {
            for which in [true, false] {
                let mut y = [0.0];
                f32::map2(isa, F(which), &[a], &[b], &mut y);
                assert!(y[0].is_nan(), "{isa:?} {a} {b}");
            }
        }
    }
}

#[test]
fn f64_is_rounded_to_sixteen_bit_once() {
    // Random f64 around the range of the formats, and beside every tie of f16 codes and a sample of bf16 codes.
    let mut x = vec![0.0, -0.0, f64::INFINITY, f64::NEG_INFINITY, f64::MAX, f64::MIN_POSITIVE, 5e-324, 65504.0, 65520.0, 3.39e38];
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
    for (x, bits) in
        [(1.000_3f32, 13), (-65503.2, 13), (6.1e-5, 14), (3.3e-5, 14), (1.7e-5, 15), (1e-6, 19), (5.99e-8, 23), (1e-8, 26)]
    {
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
