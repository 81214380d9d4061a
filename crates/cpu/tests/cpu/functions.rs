//! Functions: their errors in ulp, their values at the edges, and the same bits wherever an element stands.

use binade_cpu::simd::*;

/// Distance of `found` from `exact` in ulp of f32 at `exact`.
fn ulps(found: f32, exact: f64) -> f64 {
    if exact.is_nan() {
        return if found.is_nan() { 0.0 } else { f64::INFINITY };
    }
    let rounded = exact as f32;
    if rounded == found || rounded.is_infinite() && found == f32::MAX.copysign(rounded) && exact.abs() < 2f64.powi(128)
    {
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

/// One row per function: its bound in ulp, checked at every level on a sample of all exponents, and on demand on all
/// f32.
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
                let (error, x) = worst(isa, maps::$method, Number::$method, (0..=u32::MAX).step_by(2003));
                println!("{} {}: {error:.3} ulp at {x:e}", stringify!($method), isa.name());
                assert!(error <= $bound, "{isa:?}: {error} ulp at {x:e}");
            }
        })*

        /// All 2³² arguments: `cargo test --release -p binade-cpu --test simd functions_meet -- --ignored --nocapture`.
        #[test]
        #[ignore = "a sweep of every function over 2^32 values takes a quarter of an hour"]
        fn functions_meet_their_bounds_for_every_f32() {
            for isa in Isa::available() {
                $(
                    let mut all = (0.0, 0.0);
                    for high in 0..=0xfffu32 {
                        let codes = (0..1 << 20).map(|low| high << 20 | low);
                        let found = worst(isa, maps::$method, Number::$method, codes);
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
    gelu_tanh 5.0;
    silu 3.5;
    mish 6.0;
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

/// Largest errors at `codes`: of GELU in ulp; of its derivative in units roundoff of 1.
fn gelu_errors(isa: Isa, codes: impl Iterator<Item = u32>) -> [f64; 2] {
    let x: Vec<f32> = codes.map(f32::from_bits).collect();
    let (mut y, mut slope) = (vec![0.0; x.len()], vec![0.0; x.len()]);
    f32::map1(isa, Gelu, &x, &mut y);
    f32::map1(isa, GeluSlope, &x, &mut slope);
    let mut worst = [0.0f64; 2];
    for ((&x, &y), &slope) in x.iter().zip(&y).zip(&slope) {
        let (exact, exact_slope) = ((x as f64).gelu(), (x as f64).gelu_slope());
        if x.is_finite() && exact != 0.0 {
            worst[0] = worst[0].max((y as f64 - exact).abs() / 2f64.powi(libm::ilogb(exact).max(-126) - 23));
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
                let value = f32::from_bits(found);
                assert_eq!(found, expected.to_bits(), "{}({:e}) is {value:e}", stringify!($method), $x);
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
specials!(exp_m1_at_its_edges, exp_m1, 0.0 => 0.0, -0.0 => -0.0, INF => INF, -INF => -1.0, TINIEST => TINIEST,
    -TINIEST => -TINIEST, f32::MAX => INF);
specials!(ln_at_its_edges, ln, 0.0 => -INF, -0.0 => -INF, 1.0 => 0.0, INF => INF, -1.0 => f32::NAN, -INF => f32::NAN,
    -TINIEST => f32::NAN,
    TINIEST => -103.278_93);
specials!(ln_1p_at_its_edges, ln_1p, 0.0 => 0.0, -0.0 => -0.0, -1.0 => -INF, INF => INF, -1.000_000_1 => f32::NAN,
    -INF => f32::NAN,
    TINIEST => TINIEST, -TINIEST => -TINIEST, f32::MAX => 88.722_84);
specials!(tanh_at_its_edges, tanh, 0.0 => 0.0, -0.0 => -0.0, INF => 1.0, -INF => -1.0, TINIEST => TINIEST,
    -TINIEST => -TINIEST, f32::MAX => 1.0);
specials!(sigmoid_at_its_edges, sigmoid, 0.0 => 0.5, -0.0 => 0.5, INF => 1.0, -INF => 0.0, f32::MAX => 1.0,
    -103.972_08 => TINIEST, -103.972_09 => 0.0);
specials!(erf_at_its_edges, erf, 0.0 => 0.0, -0.0 => -0.0, INF => 1.0, -INF => -1.0, f32::MAX => 1.0,
    TINIEST => TINIEST);
specials!(erfc_at_its_edges, erfc, 0.0 => 1.0, -0.0 => 1.0, INF => 0.0, -INF => 2.0, f32::MAX => 0.0, -f32::MAX => 2.0);
specials!(floor_at_its_edges, floor, 0.0 => 0.0, -0.0 => -0.0, 0.5 => 0.0, -0.5 => -1.0, -TINIEST => -1.0,
    8_388_607.5 => 8_388_607.0,
    -8_388_607.5 => -8_388_608.0, 3e9 => 3e9, INF => INF, -INF => -INF);
specials!(round_at_its_edges, round_ties_even, 0.5 => 0.0, -0.5 => -0.0, 1.5 => 2.0, 2.5 => 2.0, -2.5 => -2.0,
    4_194_304.5 => 4_194_304.0,
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
        for (a, b, larger, smaller) in
            [(1.0, 2.0, 2.0, 1.0), (2.0, 1.0, 2.0, 1.0), (-INF, 3.0, 3.0, -INF), (INF, 3.0, INF, 3.0)]
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
