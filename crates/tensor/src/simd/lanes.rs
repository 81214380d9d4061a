//! [`Lanes`]: one or several numbers that are computed on together.

use std::ops::{Add, Div, Mul, Neg, Sub};

use half::{bf16, f16};

use super::amx::Segment;
use super::math;
use super::table::Tabled;
use super::wide::{Wide, Wide2};

/// A vector of `N` numbers. `f64` is a vector of one: the same formulas give the oracle.
pub trait Lanes:
    Copy + Add<Output = Self> + Sub<Output = Self> + Mul<Output = Self> + Div<Output = Self> + Neg<Output = Self>
{
    /// Type of one number.
    type Elem: Copy + Default;
    /// Result of a comparison.
    type Mask: Copy;
    /// Numbers per vector.
    const N: usize;
    /// The same number in every lane.
    fn splat(value: f64) -> Self;
    /// The same element in every lane.
    fn broadcast(value: Self::Elem) -> Self;
    /// `to[j·ld_to + i] = from[i·ld_from + j]` for `i, j < N`.
    #[inline(always)]
    fn transpose(from: &[Self::Elem], ld_from: usize, to: &mut [Self::Elem], ld_to: usize) {
        for i in 0..Self::N {
            for j in 0..Self::N {
                to[j * ld_to + i] = from[i * ld_from + j];
            }
        }
    }
    /// The first `N` elements.
    fn load(from: &[Self::Elem]) -> Self;
    /// Writes the first `N` elements.
    fn store(self, to: &mut [Self::Elem]);
    /// As [`Lanes::store`], past the caches where a whole vector can be written so. [`prefetch::settle`] must follow
    /// before anyone else reads what was written.
    ///
    /// [`prefetch::settle`]: super::prefetch::settle
    #[inline(always)]
    fn store_past(self, to: &mut [Self::Elem]) {
        self.store(to);
    }
    /// The elements there are, at most `N`, and zeros.
    #[inline(always)]
    fn load_part(from: &[Self::Elem]) -> Self {
        let mut pad = [Self::Elem::default(); 16];
        pad[..from.len()].copy_from_slice(from);
        Self::load(&pad[..Self::N])
    }
    /// Writes as many elements as there is room for, at most `N`.
    #[inline(always)]
    fn store_part(self, to: &mut [Self::Elem]) {
        let mut pad = [Self::Elem::default(); 16];
        self.store(&mut pad[..Self::N]);
        to.copy_from_slice(&pad[..to.len()]);
    }
    /// The first `N` numbers, widened exactly.
    fn load_f16(from: &[f16]) -> Self;
    /// Writes the first `N` numbers, rounded once to nearest even.
    fn store_f16(self, to: &mut [f16]);
    /// The first `N` numbers, widened exactly. A signalling NaN may stay one: whatever computes with it makes it quiet,
    /// and so does a store in 16 bit.
    fn load_bf16(from: &[bf16]) -> Self;
    /// As [`Lanes::store_f16`].
    fn store_bf16(self, to: &mut [bf16]);
    /// What a number stored in f16 is when it is loaded.
    fn rounded_f16(self) -> Self;
    /// The same in bf16.
    fn rounded_bf16(self) -> Self;
    /// `self · b + c`, fused where the instruction set has such an instruction, else rounded twice.
    fn mul_add(self, b: Self, c: Self) -> Self;
    /// Square root, correctly rounded.
    fn sqrt(self) -> Self;
    /// Absolute value.
    fn abs(self) -> Self;
    /// The larger; NaN wins; of zeros, the second operand.
    fn max(self, other: Self) -> Self;
    /// The smaller; NaN wins; of zeros, the second operand.
    fn min(self, other: Self) -> Self;
    /// `self < other`; false with NaN.
    fn lt(self, other: Self) -> Self::Mask;
    /// `self ≤ other`; false with NaN.
    fn le(self, other: Self) -> Self::Mask;
    /// `self = other`; false with NaN.
    fn eq(self, other: Self) -> Self::Mask;
    /// Lane by lane, one or the other.
    fn select(mask: Self::Mask, if_true: Self, if_false: Self) -> Self;
    /// 1, 0 or −1; zeros and NaN as they are.
    #[inline(always)]
    fn sign(self) -> Self {
        let zero = Self::splat(0.0);
        Self::select(zero.lt(self), Self::splat(1.0), Self::select(self.lt(zero), Self::splat(-1.0), self))
    }
    /// The value, for a formula whose result is not selected where `mask` holds. As a program, which is differentiated,
    /// it is `instead` there: the derivative of what was not selected may be infinite, and 0·∞ is NaN.
    #[inline(always)]
    fn unless(self, _mask: Self::Mask, _instead: f64) -> Self {
        self
    }
    /// Nearest integer, ties to even.
    fn round_ties_even(self) -> Self;
    /// Largest integer not above.
    fn floor(self) -> Self;
    /// `1/x`, correctly rounded.
    #[inline(always)]
    fn recip(self) -> Self {
        Self::splat(1.0) / self
    }
    /// `1/√x` from the exact root and quotient, ≤ 1 ulp; no approximate instruction.
    #[inline(always)]
    fn rsqrt(self) -> Self {
        Self::splat(1.0) / self.sqrt()
    }
    /// `eˣ`.
    fn exp(self) -> Self;
    /// `eˣ − 1`.
    fn exp_m1(self) -> Self;
    /// Natural logarithm.
    fn ln(self) -> Self;
    /// `ln(1 + x)`.
    fn ln_1p(self) -> Self;
    /// Hyperbolic tangent.
    fn tanh(self) -> Self;
    /// `1/(1 + e⁻ˣ)`.
    fn sigmoid(self) -> Self;
    /// Error function.
    fn erf(self) -> Self;
    /// `1 − erf(x)`, with relative accuracy in the tail.
    fn erfc(self) -> Self;
    /// `Φ(x) = ½·erfc(−x/√2)`, with relative accuracy in the tail.
    fn normal_cdf(self) -> Self;
    /// `φ(x) = e^(−x²/2)/√(2π)`.
    #[inline(always)]
    fn normal_density(self) -> Self {
        (self * self * Self::splat(-0.5)).exp() * Self::splat(0.398_942_280_401_432_7)
    }
    /// `x·Φ(x)`, and its limit −0 at −∞.
    #[inline(always)]
    fn gelu(self) -> Self {
        times_factor(self, self.normal_cdf())
    }
    /// `x` times [`Lanes::tanh_cdf`], and its limit −0 at −∞.
    #[inline(always)]
    fn gelu_tanh(self) -> Self {
        times_factor(self, self.tanh_cdf())
    }
    /// `x/(1 + e⁻ˣ)`, and its limit −0 at −∞.
    #[inline(always)]
    fn silu(self) -> Self {
        times_factor(self, self.sigmoid())
    }
    /// `x·tanh(ln(1 + eˣ))`, and its limit −0 at −∞.
    #[inline(always)]
    fn mish(self) -> Self {
        times_factor(self, mish_factor(self).0)
    }
    /// `Φ(x) + x·φ(x)`, the derivative of [`Lanes::gelu`].
    #[inline(always)]
    fn gelu_slope(self) -> Self {
        gelu_slope(self, self.normal_cdf(), self.normal_density())
    }
    /// `½(1 + tanh(√(2/π)(x + 0.044715x³)))`, with relative accuracy in the tail.
    fn tanh_cdf(self) -> Self;
    /// Lane by lane through f64, rounded once.
    fn wide(self, f: Wide) -> Self;
    /// As [`Lanes::wide`], of two arguments.
    fn wide2(self, other: Self, f: Wide2) -> Self;
    /// `acc[i][j] += Σ_segments Σ_l rows[i][segment.a + l·a_step] · b[segment.b + l·b_step + j·N..]`, each sum one
    /// chain of products in order.
    ///
    /// # Safety
    ///
    /// Every place of `rows` and `b` that is named here must be readable.
    #[inline(always)]
    unsafe fn accumulate<const MR: usize, const NV: usize>(
        acc: &mut [[Self; NV]; MR],
        rows: &[*const Self::Elem; MR],
        a_step: usize,
        b: *const Self::Elem,
        b_step: usize,
        segments: &[Segment],
    ) {
        // SAFETY: the caller's promise.
        unsafe { accumulate(acc, rows, a_step, b, b_step, segments) }
    }
    /// Smallest integer not below.
    #[inline(always)]
    fn ceil(self) -> Self {
        -(-self).floor()
    }
    /// The integer part.
    #[inline(always)]
    fn trunc(self) -> Self {
        Self::select(self.lt(Self::splat(0.0)), self.ceil(), self.floor())
    }
}

/// `x` times a factor that has underflowed far left, where the product with −∞ would be NaN.
#[inline(always)]
pub(crate) fn times_factor<L: Lanes>(x: L, factor: L) -> L {
    L::select(x.lt(L::splat(f64::from(f32::MIN))), L::splat(-0.0), x * factor)
}

/// tanh(ln(1 + E)) = n/(n + 2) with E = eˣ, n = E(E + 2), and its derivative. From 20 up the factor is 1.
#[inline(always)]
pub(crate) fn mish_factor<L: Lanes>(x: L) -> (L, L) {
    let (one, two) = (L::splat(1.0), L::splat(2.0));
    let e = x.min(L::splat(20.0)).exp();
    let n = e * (e + two);
    let d = n + two;
    let factor = L::select(x.lt(L::splat(20.0)), n / d, L::select(x.eq(x), one, x));
    (factor, L::splat(4.0) * e * (e + one) / d / d)
}

/// [`Lanes::gelu_slope`] from Φ(x) and φ(x), which vanishes long before x becomes infinite and the product NaN.
#[inline(always)]
pub(super) fn gelu_slope<L: Lanes>(x: L, cdf: L, density: L) -> L {
    L::select(x.abs().lt(L::splat(40.0)), x * density + cdf, cdf)
}

/// [`Lanes::accumulate`] for any extents.
///
/// # Safety
///
/// As there.
#[inline(always)]
pub(super) unsafe fn accumulate<L: Lanes, const MR: usize, const NV: usize>(
    acc: &mut [[L; NV]; MR],
    rows: &[*const L::Elem; MR],
    a_step: usize,
    b: *const L::Elem,
    b_step: usize,
    segments: &[Segment],
) {
    for segment in segments {
        // The addresses after the last elements are not read.
        let (mut at, mut b) = (segment.a, b.wrapping_add(segment.b));
        for _ in 0..segment.len {
            // No closure: it would not be inlined, and be compiled without the instruction set.
            let mut columns = [L::splat(0.0); NV];
            for (j, column) in columns.iter_mut().enumerate() {
                // SAFETY: the caller's promise.
                *column = unsafe { L::load(std::slice::from_raw_parts(b.add(j * L::N), L::N)) };
            }
            for (acc, row) in acc.iter_mut().zip(rows) {
                // SAFETY: the caller's promise.
                let x = L::broadcast(unsafe { *row.add(at) });
                for (acc, &column) in acc.iter_mut().zip(&columns) {
                    *acc = x.mul_add(column, *acc);
                }
            }
            at += a_step;
            b = b.wrapping_add(b_step);
        }
    }
}

/// Bits of √½, where [`F32Lanes::split`] cuts.
pub(super) const SQRT_HALF: u32 = 0x3f35_04f3;

/// What the f32 functions of [`math`] need beside [`Lanes`].
pub(super) trait F32Lanes: Lanes<Elem = f32> {
    /// `2ⁿ` for an integer `n` in −126..=127.
    fn pow2(self) -> Self;
    /// For a positive normal number: (m, e) with x = m·2ᵉ and m in [√½, √2).
    fn split(self) -> (Self, Self);
    /// The magnitude of `self` with the sign of `sign`.
    fn copysign(self, sign: Self) -> Self;
    /// `self` limited to `low..=high`; NaN stays.
    fn clamp(self, low: f64, high: f64) -> Self;
    /// `self · b + c` with one rounding at every level, for residuals that cancel.
    fn fused(self, b: Self, c: Self) -> Self;
    /// Lane by lane a function by its table where that reaches, and in general elsewhere; in general everywhere at
    /// levels without instructions to look it up.
    #[inline(always)]
    fn by_table<T: Tabled>(self) -> Self {
        T::general(self)
    }
    /// Whether one of two masks holds in every lane. A level where the general way takes no longer says no without
    /// looking.
    #[inline(always)]
    fn is_either_everywhere(_a: Self::Mask, _b: Self::Mask) -> bool {
        false
    }
    /// [`math::exp_general`], which is seldom needed where the above may be true.
    #[inline(always)]
    fn exp_general(self) -> Self {
        math::exp_general(self)
    }
    /// `self·2ⁿ` rounded once, for |self| in 2⁻²..2⁸ (any if n is 0) and an integer `n` in −170..=130.
    #[inline(always)]
    fn scale(self, n: Self) -> Self {
        // Two normal factors; the first product is exact, being far from subnormal.
        let half = (n * Self::splat(0.5)).round_ties_even();
        self * half.pow2() * (n - half).pow2()
    }
}

/// The operators and the functions of `math` for one f32 vector type.
macro_rules! f32_lanes {
    ($t:ident, $mask:ty, $n:literal, add $add:expr, sub $sub:expr, mul $mul:expr, div $div:expr, neg $neg:expr, { $($body:tt)* }) => {
        impl Add for $t { type Output = $t; #[inline(always)] fn add(self, o: $t) -> $t { ($add)(self, o) } }
        impl Sub for $t { type Output = $t; #[inline(always)] fn sub(self, o: $t) -> $t { ($sub)(self, o) } }
        impl Mul for $t { type Output = $t; #[inline(always)] fn mul(self, o: $t) -> $t { ($mul)(self, o) } }
        impl Div for $t { type Output = $t; #[inline(always)] fn div(self, o: $t) -> $t { ($div)(self, o) } }
        impl Neg for $t { type Output = $t; #[inline(always)] fn neg(self) -> $t { ($neg)(self) } }
        impl Lanes for $t {
            type Elem = f32;
            type Mask = $mask;
            const N: usize = $n;
            $($body)*
            #[inline(always)] fn exp(self) -> $t { math::exp(self) }
            #[inline(always)] fn exp_m1(self) -> $t { math::exp_m1(self) }
            #[inline(always)] fn ln(self) -> $t { math::ln(self) }
            #[inline(always)] fn ln_1p(self) -> $t { math::ln_1p(self) }
            #[inline(always)] fn tanh(self) -> $t { math::tanh(self) }
            #[inline(always)] fn sigmoid(self) -> $t { math::sigmoid(self) }
            #[inline(always)] fn erf(self) -> $t { math::erf(self) }
            #[inline(always)] fn erfc(self) -> $t { math::erfc(self) }
            #[inline(always)] fn normal_cdf(self) -> $t { math::normal_cdf(self) }
            #[inline(always)] fn normal_density(self) -> $t { math::normal_density(self) }
            #[inline(always)] fn gelu(self) -> $t { math::gelu(self) }
            #[inline(always)] fn gelu_tanh(self) -> $t { math::gelu_tanh(self) }
            #[inline(always)] fn silu(self) -> $t { math::silu(self) }
            #[inline(always)] fn mish(self) -> $t { math::mish(self) }
            #[inline(always)] fn gelu_slope(self) -> $t { math::gelu_slope(self) }
            #[inline(always)] fn tanh_cdf(self) -> $t { math::tanh_cdf(self) }
            fn wide(self, f: crate::simd::Wide) -> $t {
                let mut x = [0.0f32; $n];
                self.store(&mut x);
                x.iter_mut().for_each(|x| *x = f.eval(*x as f64) as f32);
                <$t>::load(&x)
            }
            fn wide2(self, other: $t, f: crate::simd::Wide2) -> $t {
                let (mut a, mut b) = ([0.0f32; $n], [0.0f32; $n]);
                self.store(&mut a);
                other.store(&mut b);
                a.iter_mut().zip(b).for_each(|(a, b)| *a = f.eval(*a as f64, b as f64) as f32);
                <$t>::load(&a)
            }
        }
    };
}

pub(super) use f32_lanes;
