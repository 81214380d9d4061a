//! [`Lanes`]: one or several numbers that are computed on together.

use binade_tensor::number::Number;
use half::{bf16, f16};

use super::amx::Segment;
use super::math;
use super::table::Tabled;

/// A vector of `N` numbers: [`Number`] with memory. `f64` is a vector of one.
pub trait Lanes: Number {
    /// Type of one number.
    type Elem: Copy + Default;
    /// Numbers per vector.
    const N: usize;
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
    /// As [`Lanes::store`], past the caches where a whole vector can be written so. [`prefetch::fence`] must follow
    /// before anyone else reads what was written.
    ///
    /// [`prefetch::fence`]: super::prefetch::fence
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
    /// The first `N` integers.
    fn load_i8(from: &[i8]) -> Self;
    /// Writes the first `N` numbers, which are integers that fit.
    fn store_i8(self, to: &mut [i8]);
    /// What a number stored in f16 is when it is loaded.
    fn rounded_f16(self) -> Self;
    /// The same in bf16.
    fn rounded_bf16(self) -> Self;
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
    ($t:ident, $mask:ty, $n:literal, add $add:expr, sub $sub:expr, mul $mul:expr, div $div:expr, neg $neg:expr,
     { $($number:tt)* }, { $($lanes:tt)* }) => {
        impl Add for $t { type Output = $t; #[inline(always)] fn add(self, o: $t) -> $t { ($add)(self, o) } }
        impl Sub for $t { type Output = $t; #[inline(always)] fn sub(self, o: $t) -> $t { ($sub)(self, o) } }
        impl Mul for $t { type Output = $t; #[inline(always)] fn mul(self, o: $t) -> $t { ($mul)(self, o) } }
        impl Div for $t { type Output = $t; #[inline(always)] fn div(self, o: $t) -> $t { ($div)(self, o) } }
        impl Neg for $t { type Output = $t; #[inline(always)] fn neg(self) -> $t { ($neg)(self) } }
        impl Lanes for $t {
            type Elem = f32;
            const N: usize = $n;
            $($lanes)*
        }
        impl Number for $t {
            type Mask = $mask;
            $($number)*
            #[inline(always)] fn exp(self) -> $t { math::exp(self) }
            #[inline(always)] fn exp_m1(self) -> $t { math::exp_m1(self) }
            #[inline(always)] fn ln(self) -> $t { math::ln(self) }
            #[inline(always)] fn ln_1p(self) -> $t { math::ln_1p(self) }
            #[inline(always)] fn tanh(self) -> $t { math::tanh(self) }
            #[inline(always)] fn sigmoid(self) -> $t { math::sigmoid(self) }
            #[inline(always)] fn sigmoids(self) -> ($t, $t) { math::both(self, math::sigmoid(-self.abs())) }
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
            #[inline(always)] fn tanh_cdfs(self) -> ($t, $t) { math::both(self, math::tanh_cdf(-self.abs())) }
            fn wide(self, f: binade_tensor::number::Wide) -> $t {
                let mut x = [0.0f32; $n];
                self.store(&mut x);
                x.iter_mut().for_each(|x| *x = f.eval(*x as f64) as f32);
                <$t>::load(&x)
            }
            fn wide2(self, other: $t, f: binade_tensor::number::Wide2) -> $t {
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
