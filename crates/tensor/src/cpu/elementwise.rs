//! Elementwise kernels, casts, random numbers and fills.

use super::operand::{BLOCK, Buffer, Compute, Operand, fill, fill_with, memory_order};
use crate::op::{Binary, BinaryRow, BinaryVisitor, Compare, Distribution, Unary, UnaryRow, UnaryVisitor};
use crate::random::{below, normal_pair, uniform};
use crate::simd::convert::{f64_to_f32_odd, stochastic_bf16, stochastic_f16};
use crate::simd::{Isa, Kernel, Lanes, Map1, Map2, dispatch};
use crate::{Array, ArrayMut, DType, Key, MAX_RANK};

/// The inputs of an elementwise kernel in the memory order of its output.
pub(super) fn operands<'a>(ins: &[&Array], bytes: &[&'a [u8]], out: &Array) -> smallvec::SmallVec<[Operand<'a>; 3]> {
    let order: smallvec::SmallVec<[usize; MAX_RANK]> = memory_order(out.layout());
    ins.iter().zip(bytes).map(|(a, b)| Operand::new(a, b, out.shape(), &order)).collect()
}

fn map1<C: Compute, F: Map1 + Sync>(isa: Isa, f: F, x: &Operand<'_>, out: &mut ArrayMut<'_>) {
    fill_with(isa, out, Buffer::<C>::new, |buffer, start, y| {
        C::map1(isa, f, x.block_in(isa, start, y.len(), buffer), y);
    });
}

fn map2<C: Compute, F: Map2 + Sync>(isa: Isa, f: F, a: &Operand<'_>, b: &Operand<'_>, out: &mut ArrayMut<'_>) {
    let scratch = || (Buffer::<C>::new(), Buffer::<C>::new());
    fill_with(isa, out, scratch, |(pa, pb), start, y| {
        C::map2(isa, f, a.block_in(isa, start, y.len(), pa), b.block_in(isa, start, y.len(), pb), y);
    });
}

/// `f(x)` of a unary row.
struct Forward<'a, 'b, C>(Isa, Unary, &'a Operand<'a>, &'a mut ArrayMut<'b>, std::marker::PhantomData<C>);

#[derive(Clone, Copy)]
struct F<R>(R2<R>);
/// A row without a value: rows are only types.
type R2<R> = std::marker::PhantomData<fn() -> R>;

impl<R: UnaryRow> Map1 for F<R> {
    #[inline(always)]
    fn eval<L: Lanes>(self, x: L) -> L {
        R::f(x)
    }
}

impl<C: Compute> UnaryVisitor for Forward<'_, '_, C> {
    type Output = ();
    fn visit<R: UnaryRow>(self) {
        let Forward(isa, row, x, out, _) = self;
        let dtype = out.array().dtype();
        // One correctly rounded f32 operation rounds correctly to 16 bit as well (Figueroa 1995: 24 ≥ 2·11 + 2).
        if dtype.is_half() && C::DTYPE == DType::F32 && row.ulp() != 0.0 && row.ulp() != 0.5 {
            let window = (row.ulp() + 0.5).ceil() as u32;
            return fill_with(isa, out, Buffer::<C>::new, |buffer, start, y| {
                let x = x.block_in(isa, start, y.len(), buffer);
                C::map1(isa, F::<R>(R2::default()), x, y);
                settle_ties::<R>(isa, dtype, window, bytemuck::cast_slice(x), bytemuck::cast_slice_mut(y));
            });
        }
        map1::<C, _>(isa, F::<R>(R2::default()), x, out);
    }
}

pub(super) fn unary<C: Compute>(isa: Isa, row: Unary, x: &Operand<'_>, out: &mut ArrayMut<'_>) {
    row.visit(Forward::<C>(isa, row, x, out, std::marker::PhantomData));
}

/// Makes 16-bit results correctly rounded: an f32 result closer to the middle between two 16-bit numbers than its own error is
/// computed again in f64 and rounded to odd, so that the rounding to come sees which side it lies on (Ziv's strategy). About
/// one element in a thousand for f16, in ten thousand for bf16.
fn settle_ties<R: UnaryRow>(isa: Isa, dtype: DType, window: u32, x: &[f32], y: &mut [f32]) {
    if dtype == DType::BF16 { settle::<R, true>(isa, window, x, y) } else { settle::<R, false>(isa, window, x, y) }
}

/// Elements whose nearness is searched for together: the bits of a word.
const GROUP: usize = 32;

fn settle<R: UnaryRow, const BF16: bool>(isa: Isa, window: u32, x: &[f32], y: &mut [f32]) {
    let mut groups = [0u32; BLOCK / GROUP];
    dispatch(isa, Candidates::<BF16>(window, y, &mut groups));
    for ((&group, x), y) in groups.iter().zip(x.chunks(GROUP)).zip(y.chunks_mut(GROUP)) {
        let mut left = group;
        while left != 0 {
            let i = left.trailing_zeros() as usize;
            left &= left - 1;
            if near::<BF16>(y[i], window) != 0 && y[i].is_finite() {
                y[i] = f64_to_f32_odd(R::f::<f64>(x[i] as f64));
            }
        }
    }
}

/// 1 where [`near`] may be 1: the cheap part of its test, and all small numbers but 0.
#[inline(always)]
fn candidate<const BF16: bool>(y: f32, window: u32) -> u32 {
    let bits = y.to_bits() & 0x7fff_ffff;
    let (dropped, tie, small) = if BF16 { (0xffff, 0x8000, 1e-35f32) } else { (0x1fff, 0x1000, 6.103_515_6e-5) };
    let close = (bits.wrapping_add(window).wrapping_sub(tie) & dropped) <= 2 * window;
    (close | (bits.wrapping_sub(1) < small.to_bits() - 1)) as u32
}

/// 1 if an f32 number is within `window` ulp of a tie of bf16 or f16, else 0. Branch-free, so that a search is a vector loop.
#[inline(always)]
fn near<const BF16: bool>(y: f32, window: u32) -> u32 {
    let (a, bits) = (y.abs(), y.to_bits());
    // abs_diff(tie) ≤ window, as one wrapping comparison.
    let within = |low: u32, tie: u32, window: u32| (low.wrapping_add(window).wrapping_sub(tie) <= 2 * window) as u32;
    if BF16 {
        // Far below, where a factor of the result may be subnormal, its error is larger than stated.
        return within(bits & 0xffff, 0x8000, if a < 1e-35 { 256 } else { window });
    }
    let normal = within(bits & 0x1fff, 0x1000, window);
    // Below 2⁻¹⁴ f16 is subnormal, with steps of 2⁻²⁴; adding 2²³ rounds to whole steps.
    let steps = a * 16_777_216.0;
    let off = (steps - ((steps + 8_388_608.0) - 8_388_608.0)).abs();
    let subnormal = (off + steps * (window as f32 * f32::EPSILON) >= 0.5) as u32;
    if a >= 6.103_515_6e-5 { normal } else { subnormal }
}

/// Which numbers of each group may be near a tie.
struct Candidates<'a, const BF16: bool>(u32, &'a [f32], &'a mut [u32]);

impl<const BF16: bool> Kernel for Candidates<'_, BF16> {
    type Output = ();
    #[inline(always)]
    fn run<L: Lanes<Elem = f32>>(self) {
        let Candidates(window, y, groups) = self;
        for (group, y) in groups.iter_mut().zip(y.chunks(GROUP)) {
            *group = y.iter().enumerate().fold(0, |bits, (i, &y)| bits | candidate::<BF16>(y, window) << i);
        }
    }
}

/// Applies a unary row to a slice in place: the activation of an epilogue.
pub(super) fn activate<C: Compute>(isa: Isa, row: Unary, x: &[C], y: &mut [C]) {
    struct Slice<'a, C>(Isa, &'a [C], &'a mut [C]);
    impl<C: Compute> UnaryVisitor for Slice<'_, C> {
        type Output = ();
        fn visit<R: UnaryRow>(self) {
            C::map1(self.0, F::<R>(R2::default()), self.1, self.2);
        }
    }
    row.visit(Slice(isa, x, y));
}

/// `g · f'(saved)`.
struct Gradient<'a, 'b, C>(Isa, &'a Operand<'a>, &'a Operand<'a>, &'a mut ArrayMut<'b>, std::marker::PhantomData<C>);

#[derive(Clone, Copy)]
struct Df<R>(R2<R>);

impl<R: UnaryRow> Map2 for Df<R> {
    #[inline(always)]
    fn eval<L: Lanes>(self, g: L, saved: L) -> L {
        g * R::df(saved)
    }
}

impl<C: Compute> UnaryVisitor for Gradient<'_, '_, C> {
    type Output = ();
    fn visit<R: UnaryRow>(self) {
        map2::<C, _>(self.0, Df::<R>(R2::default()), self.1, self.2, self.3);
    }
}

pub(super) fn unary_backward<C: Compute>(isa: Isa, row: Unary, g: &Operand<'_>, saved: &Operand<'_>, out: &mut ArrayMut<'_>) {
    row.visit(Gradient::<C>(isa, g, saved, out, std::marker::PhantomData));
}

#[derive(Clone, Copy)]
struct F2<R>(R2<R>);

impl<R: BinaryRow> Map2 for F2<R> {
    #[inline(always)]
    fn eval<L: Lanes>(self, a: L, b: L) -> L {
        R::f(a, b)
    }
}

/// A binary row with one operand fixed.
#[derive(Clone, Copy)]
struct WithScalar<R> {
    row: R2<R>,
    value: f64,
    reversed: bool,
}

impl<R: BinaryRow> Map1 for WithScalar<R> {
    #[inline(always)]
    fn eval<L: Lanes>(self, x: L) -> L {
        let value = L::splat(self.value);
        if self.reversed { R::f(value, x) } else { R::f(x, value) }
    }
}

impl<R: BinaryRow> Map2 for WithScalar<R> {
    /// `g · ∂f/∂x`.
    #[inline(always)]
    fn eval<L: Lanes>(self, g: L, x: L) -> L {
        let value = L::splat(self.value);
        g * if self.reversed { R::db(value, x) } else { R::da(x, value) }
    }
}

/// Which kernel of a binary row to run.
pub(super) enum BinaryKernel<'a> {
    /// Inputs a, b.
    Forward(&'a Operand<'a>, &'a Operand<'a>),
    /// Inputs g, a, b; for the right operand or the left.
    Backward(&'a [Operand<'a>], bool),
    /// Input x.
    Scalar(&'a Operand<'a>, f64, bool),
    /// Inputs g, x.
    ScalarBackward(&'a Operand<'a>, &'a Operand<'a>, f64, bool),
}

struct RunBinary<'a, 'b, C>(Isa, BinaryKernel<'a>, &'a mut ArrayMut<'b>, std::marker::PhantomData<C>);

/// `g · factor`, the last step of a binary gradient.
#[derive(Clone, Copy)]
struct Da<R, const RHS: bool>(R2<R>);

impl<R: BinaryRow, const RHS: bool> Map2 for Da<R, RHS> {
    #[inline(always)]
    fn eval<L: Lanes>(self, a: L, b: L) -> L {
        if RHS { R::db(a, b) } else { R::da(a, b) }
    }
}

#[derive(Clone, Copy)]
struct Product;

impl Map2 for Product {
    #[inline(always)]
    fn eval<L: Lanes>(self, a: L, b: L) -> L {
        a * b
    }
}

impl<C: Compute> BinaryVisitor for RunBinary<'_, '_, C> {
    type Output = ();
    fn visit<R: BinaryRow>(self) {
        let RunBinary(isa, kernel, out, _) = self;
        match kernel {
            BinaryKernel::Forward(a, b) => map2::<C, _>(isa, F2::<R>(R2::default()), a, b, out),
            BinaryKernel::Scalar(x, value, reversed) => {
                map1::<C, _>(isa, WithScalar::<R> { row: R2::default(), value, reversed }, x, out)
            }
            BinaryKernel::ScalarBackward(g, x, value, reversed) => {
                map2::<C, _>(isa, WithScalar::<R> { row: R2::default(), value, reversed }, g, x, out)
            }
            BinaryKernel::Backward(ins, rhs) => {
                let scratch = || [(); 4].map(|()| Buffer::<C>::new());
                fill_with(isa, out, scratch, |[pg, pa, pb, factor], start, y| {
                    let n = y.len();
                    let (a, b, factor) =
                        (ins[1].block_in(isa, start, n, pa), ins[2].block_in(isa, start, n, pb), factor.first(n));
                    if rhs {
                        C::map2(isa, Da::<R, true>(R2::default()), a, b, factor);
                    } else {
                        C::map2(isa, Da::<R, false>(R2::default()), a, b, factor);
                    }
                    C::map2(isa, Product, ins[0].block_in(isa, start, n, pg), factor, y);
                });
            }
        }
    }
}

pub(super) fn binary<C: Compute>(isa: Isa, row: Binary, kernel: BinaryKernel<'_>, out: &mut ArrayMut<'_>) {
    row.visit(RunBinary::<C>(isa, kernel, out, std::marker::PhantomData));
}

pub(super) fn compare(isa: Isa, row: Compare, a: &Operand<'_>, b: &Operand<'_>, out: &mut ArrayMut<'_>) {
    // In f64, which holds every float and every index below 2⁵³ exactly.
    fill::<f64>(isa, out, |start, y| {
        let (mut pa, mut pb) = ([0.0; BLOCK], [0.0; BLOCK]);
        let (a, b) = (a.block::<f64>(isa, start, y.len(), &mut pa), b.block::<f64>(isa, start, y.len(), &mut pb));
        y.iter_mut().zip(a.iter().zip(b)).for_each(|(y, (a, b))| *y = row.holds(*a, *b) as u8 as f64);
    });
}

pub(super) fn select<C: Compute>(isa: Isa, ins: &[Operand<'_>], out: &mut ArrayMut<'_>) {
    fill::<C>(isa, out, |start, y| {
        let [mut pc, mut pa, mut pb] = [[C::zero(); BLOCK]; 3];
        let n = y.len();
        ins[0].load(isa, start, &mut pc[..n]);
        let (a, b) = (ins[1].block(isa, start, n, &mut pa), ins[2].block(isa, start, n, &mut pb));
        for i in 0..n {
            y[i] = if pc[i] != C::zero() { a[i] } else { b[i] };
        }
    });
}

/// Copies and casts: load in the computing type, store in the output's.
pub(super) fn cast<C: Compute>(isa: Isa, x: &Operand<'_>, out: &mut ArrayMut<'_>) {
    fill::<C>(isa, out, |start, y| x.load(isa, start, y));
}

/// `bits(i)` for the flat *logical* position of every element of a block. The output is row-major, so it is `start + i`.
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

pub(super) fn dropout<C: Compute>(isa: Isa, p: f64, key: Key, x: &Operand<'_>, out: &mut ArrayMut<'_>) {
    // One threshold over 2³²: an element is dropped where its word is below it.
    let threshold = (p * 4294967296.0) as u64;
    let scale = C::from_f64(if p < 1.0 { 1.0 / (1.0 - p) } else { 0.0 });
    fill::<C>(isa, out, |start, y| {
        x.load(isa, start, y);
        draw::<1>(key, start, y.len(), |i, [bits]| y[i] = if (bits as u64) < threshold { C::zero() } else { y[i] * scale });
    });
}

pub(super) fn stochastic_cast(isa: Isa, dtype: DType, key: Key, x: &Operand<'_>, out: &mut ArrayMut<'_>) {
    fill::<f32>(isa, out, |start, y| {
        x.load(isa, start, y);
        draw::<1>(key, start, y.len(), |i, [bits]| {
            y[i] = if dtype == DType::BF16 { stochastic_bf16(y[i], bits).to_f32() } else { stochastic_f16(y[i], bits).to_f32() };
        });
    });
}

pub(super) fn random(isa: Isa, distribution: Distribution, key: Key, out: &mut ArrayMut<'_>) {
    match distribution {
        Distribution::Uniform { low, high } => fill::<f64>(isa, out, |start, y| {
            draw::<1>(key, start, y.len(), |i, [bits]| y[i] = low + (high - low) * uniform(bits) as f64);
        }),
        // Two words per element, so that an element's value depends on its own block only.
        Distribution::Normal { mean, std } => fill::<f64>(isa, out, |start, y| {
            draw::<2>(key, start, y.len(), |i, [a, b]| y[i] = mean + std * normal_pair(a, b)[0]);
        }),
        Distribution::Permutation => {
            let Some(bytes) = out.bytes() else { return };
            let values = super::operand::elements_mut::<i64>(bytes);
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

pub(super) fn constant<C: Compute>(isa: Isa, value: f64, out: &mut ArrayMut<'_>) {
    fill::<C>(isa, out, |_, y| y.fill(C::from_f64(value)));
}

pub(super) fn range(start: i64, out: &mut ArrayMut<'_>) {
    let Some(bytes) = out.bytes() else { return };
    super::operand::elements_mut::<i64>(bytes).iter_mut().zip(start..).for_each(|(v, i)| *v = i);
}
