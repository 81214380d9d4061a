//! Kernels of rows with two operands, of comparisons and of choices.

use super::{R2, Slope, map1, map1_blocks, map2, map2_blocks, slope_recomputed};
use crate::extremes::{self, Formula};
use crate::kernel::Out;
use crate::operand::{BLOCK, Buffer, Compute, Operand, fill, fill_with};
use crate::simd::{Isa, Lanes, Map1, Map2, Map3, Number};
use binade_tensor::op::{Binary, BinaryRow, BinaryVisitor, Compare};

/// `f(a, b)` of a binary row, element by element.
struct ValueAgain<'a, C, R>(R2<R>, [&'a [C]; 2]);

impl<C: Compute, R: BinaryRow> Formula for ValueAgain<'_, C, R> {
    fn at<N: Number>(&self, i: usize) -> N {
        let [a, b] = self.1;
        R::f(N::splat(a[i].as_f64()), N::splat(b[i].as_f64()))
    }
}

/// A binary row block by block, where an element may need a wider range.
fn values_recomputed<C: Compute, R: BinaryRow>(isa: Isa, [a, b]: [&Operand<'_>; 2], out: &mut Out<'_>) {
    let scratch = || (Buffer::<C>::new(), Buffer::<C>::new());
    fill_with::<C, _>(isa, out, a.is_over() || b.is_over(), scratch, |(pa, pb), start, old, y| {
        let n = y.len();
        let (a, b) = (a.block_in(isa, start, n, old, pa), b.block_in(isa, start, n, old, pb));
        C::map2(isa, F2::<R>(R2::default()), a, b, y);
        extremes::recompute_small([a, b], y, ValueAgain::<C, R>(R2::default(), [a, b]));
    });
}

/// The same with one operand fixed.
struct ScalarAgain<'a, C, R>(WithScalar<R>, &'a [C]);

impl<C: Compute, R: BinaryRow> Formula for ScalarAgain<'_, C, R> {
    fn at<N: Number>(&self, i: usize) -> N {
        self.0.value_at(N::splat(self.1[i].as_f64()))
    }
}

/// As [`values_recomputed`], with one operand fixed.
fn scalar_recomputed<C: Compute, R: BinaryRow>(isa: Isa, f: WithScalar<R>, x: &Operand<'_>, out: &mut Out<'_>) {
    let all = extremes::is_extreme(C::from_f64(f.value));
    fill_with::<C, _>(isa, out, x.is_over(), Buffer::<C>::new, |buffer, start, old, y| {
        let x = x.block_in(isa, start, y.len(), old, buffer);
        C::map1(isa, f, x, y);
        let again = ScalarAgain::<C, R>(f, x);
        if all { extremes::recompute_all(y, again) } else { extremes::recompute_small([x], y, again) }
    });
}

/// Whether a row costs more than its operands' way from 16 bit and back by the cache: it has one kernel, in the type
/// that is computed in.
const fn is_costly<R: BinaryRow>() -> bool {
    matches!(R::ROW, Binary::Atan2 | Binary::Fmod | Binary::Pow)
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

impl<R: BinaryRow> WithScalar<R> {
    #[inline(always)]
    fn value_at<N: Number>(self, x: N) -> N {
        let value = N::splat(self.value);
        if self.reversed { R::f(value, x) } else { R::f(x, value) }
    }
}

impl<R: BinaryRow> Slope for WithScalar<R> {
    /// `∂f/∂x`.
    #[inline(always)]
    fn slope<N: Number>(self, x: N) -> N {
        let value = N::splat(self.value);
        if self.reversed { R::db(value, x) } else { R::da(x, value) }
    }
}

impl<R: BinaryRow> Map1 for WithScalar<R> {
    #[inline(always)]
    fn eval<L: Lanes>(self, x: L) -> L {
        self.value_at(x)
    }
}

impl<R: BinaryRow> Map2 for WithScalar<R> {
    #[inline(always)]
    fn eval<L: Lanes>(self, g: L, x: L) -> L {
        g * self.slope(x)
    }
}

/// Which kernel of a binary row to run.
pub(crate) enum BinaryKernel<'a> {
    /// Inputs a, b.
    Forward(&'a Operand<'a>, &'a Operand<'a>),
    /// Inputs g, a, b; for the right operand or the left.
    Backward(&'a [Operand<'a>], bool),
    /// Input x.
    Scalar(&'a Operand<'a>, f64, bool),
    /// Inputs g, x.
    ScalarBackward(&'a Operand<'a>, &'a Operand<'a>, f64, bool),
}

struct RunBinary<'a, 'b, C>(Isa, BinaryKernel<'a>, &'a mut Out<'b>, std::marker::PhantomData<C>);

/// `g · ∂f/∂a`, or by b.
#[derive(Clone, Copy)]
struct Da<R, const RHS: bool>(R2<R>);

impl<R: BinaryRow, const RHS: bool> Map3 for Da<R, RHS> {
    #[inline(always)]
    fn eval<L: Lanes>(self, g: L, a: L, b: L) -> L {
        g * if RHS { R::db(a, b) } else { R::da(a, b) }
    }
}

/// The same, element by element.
struct PartialAgain<'a, C, R>(R2<R>, bool, [&'a [C]; 3]);

impl<C: Compute, R: BinaryRow> Formula for PartialAgain<'_, C, R> {
    fn at<N: Number>(&self, i: usize) -> N {
        let [g, a, b] = self.2;
        let [g, a, b] = [N::splat(g[i].as_f64()), N::splat(a[i].as_f64()), N::splat(b[i].as_f64())];
        g * if self.1 { R::db(a, b) } else { R::da(a, b) }
    }
}

impl<C: Compute> BinaryVisitor for RunBinary<'_, '_, C> {
    type Output = ();
    fn visit<R: BinaryRow>(self) {
        let RunBinary(isa, kernel, out, _) = self;
        // Constants of the row: what it does not run is not compiled.
        match kernel {
            BinaryKernel::Forward(a, b) => {
                let f = F2::<R>(R2::default());
                if const { R::ROW.has_extreme_values() } {
                    values_recomputed::<C, R>(isa, [a, b], out);
                } else if const { is_costly::<R>() } {
                    map2_blocks::<C, _>(isa, f, a, b, out);
                } else {
                    map2::<C, _>(isa, f, a, b, out);
                }
            }
            BinaryKernel::Scalar(x, value, reversed) => {
                if const { R::ROW.has_extreme_values() } {
                    let f = WithScalar::<R> { row: R2::default(), value: C::from_f64(value).as_f64(), reversed };
                    return scalar_recomputed::<C, R>(isa, f, x, out);
                }
                let f = WithScalar::<R> { row: R2::default(), value, reversed };
                if const { is_costly::<R>() } {
                    map1_blocks::<C, _>(isa, f, x, out);
                } else {
                    map1::<C, _>(isa, f, x, out);
                }
            }
            BinaryKernel::ScalarBackward(g, x, value, reversed) => {
                // Also in f64 of the number as forward rounds it.
                let f = WithScalar::<R> { row: R2::default(), value: C::from_f64(value).as_f64(), reversed };
                if const { R::ROW.has_extreme_slopes() } {
                    slope_recomputed::<C, _>(isa, f, R::ROW.has_slopes_in_f64(), [g, x], out);
                } else if const { is_costly::<R>() } {
                    map2_blocks::<C, _>(isa, f, g, x, out);
                } else {
                    map2::<C, _>(isa, f, g, x, out);
                }
            }
            BinaryKernel::Backward(ins, rhs) => {
                let scratch = || [Buffer::<C>::new(), Buffer::new(), Buffer::new()];
                let over = ins.iter().any(|x| x.is_over());
                fill_with(isa, out, over, scratch, |[pg, pa, pb], start, old, y| {
                    let n = y.len();
                    let g = ins[0].block_in(isa, start, n, old, pg);
                    let (a, b) = (ins[1].block_in(isa, start, n, old, pa), ins[2].block_in(isa, start, n, old, pb));
                    if rhs {
                        C::map3(isa, Da::<R, true>(R2::default()), g, a, b, y);
                    } else {
                        C::map3(isa, Da::<R, false>(R2::default()), g, a, b, y);
                    }
                    let again = PartialAgain::<C, R>(R2::default(), rhs, [g, a, b]);
                    if const { R::ROW.has_slopes_in_f64() } {
                        extremes::recompute_all(y, again);
                    } else if const { R::ROW.has_extreme_slopes() } {
                        extremes::recompute([a, b], y, again);
                    }
                });
            }
        }
    }
}

pub(crate) fn binary<C: Compute>(isa: Isa, row: Binary, kernel: BinaryKernel<'_>, out: &mut Out<'_>) {
    row.visit(RunBinary::<C>(isa, kernel, out, std::marker::PhantomData));
}

pub(crate) fn compare(isa: Isa, row: Compare, a: &Operand<'_>, b: &Operand<'_>, out: &mut Out<'_>) {
    // In f64, which holds every float; integers beyond it come as ranks.
    fill::<f64>(isa, out, |start, y| {
        let (mut pa, mut pb) = ([0.0; BLOCK], [0.0; BLOCK]);
        let (a, b) = (a.block::<f64>(isa, start, y.len(), &mut pa), b.block::<f64>(isa, start, y.len(), &mut pb));
        y.iter_mut().zip(a.iter().zip(b)).for_each(|(y, (a, b))| *y = row.holds(*a, *b) as u8 as f64);
    });
}

pub(crate) fn select<C: Compute>(isa: Isa, ins: &[Operand<'_>], out: &mut Out<'_>) {
    let over = ins.iter().any(|x| x.is_over());
    let scratch = || [Buffer::<C>::new(), Buffer::new(), Buffer::new()];
    fill_with(isa, out, over, scratch, |[pc, pa, pb], start, old, y| {
        let n = y.len();
        let pc = ins[0].block_in(isa, start, n, old, pc);
        let (a, b) = (ins[1].block_in(isa, start, n, old, pa), ins[2].block_in(isa, start, n, old, pb));
        for i in 0..n {
            y[i] = if pc[i] != C::zero() { a[i] } else { b[i] };
        }
    });
}
