//! Elementwise functions of three tensors.

use super::extremes::{self, Formula};
use super::operand::{Buffer, Compute, Operand, fill_with};
use crate::kernel::Out;
use crate::simd::{Isa, Lanes, Map3, Number};
use binade_tensor::op::{Ternary, TernaryRow, TernaryVisitor};

#[derive(Clone, Copy)]
struct F<R>(std::marker::PhantomData<fn() -> R>, f64);

impl<R: TernaryRow> Map3 for F<R> {
    #[inline(always)]
    fn eval<L: Lanes>(self, x: L, a: L, b: L) -> L {
        R::f(x, a, b, L::splat(self.1))
    }
}

/// The derivative by operand `OPERAND`.
#[derive(Clone, Copy)]
struct D<R, const OPERAND: usize>(std::marker::PhantomData<fn() -> R>, f64);

impl<R: TernaryRow, const OPERAND: usize> Map3 for D<R, OPERAND> {
    #[inline(always)]
    fn eval<L: Lanes>(self, x: L, a: L, b: L) -> L {
        R::d(OPERAND, x, a, b, L::splat(self.1))
    }
}

/// The row, or a gradient times the derivative by an operand, element by element.
struct Again<'a, C, R> {
    row: std::marker::PhantomData<fn() -> R>,
    value: f64,
    by: Option<(usize, &'a [C])>,
    ins: [&'a [C]; 3],
}

impl<C: Compute, R: TernaryRow> Formula for Again<'_, C, R> {
    fn at<N: Number>(&self, i: usize) -> N {
        let [x, a, b] = self.ins;
        let [x, a, b] = [N::splat(x[i].as_f64()), N::splat(a[i].as_f64()), N::splat(b[i].as_f64())];
        let v = N::splat(self.value);
        match self.by {
            None => R::f(x, a, b, v),
            Some((operand, g)) => N::splat(g[i].as_f64()) * R::d(operand, x, a, b, v),
        }
    }
}

struct Run<'a, 'b, C> {
    isa: Isa,
    value: f64,
    /// The operand to differentiate by; the first input is then the gradient.
    by: Option<usize>,
    ins: &'a [Operand<'a>],
    out: &'a mut Out<'b>,
    computing: std::marker::PhantomData<C>,
}

impl<C: Compute> TernaryVisitor for Run<'_, '_, C> {
    type Output = ();
    fn visit<R: TernaryRow>(self) {
        let Run { isa, value, by, ins, out, .. } = self;
        let row = std::marker::PhantomData;
        let x = &ins[by.is_some() as usize..];
        let over = ins.iter().any(|x| x.is_over());
        let scratch = || [Buffer::<C>::new(), Buffer::new(), Buffer::new(), Buffer::new()];
        fill_with(isa, out, over, scratch, |[px, pa, pb, pg], start, old, y| {
            let n = y.len();
            let (a, b) = (x[1].block_in(isa, start, n, old, pa), x[2].block_in(isa, start, n, old, pb));
            let x = x[0].block_in(isa, start, n, old, px);
            match by {
                None => C::map3(isa, F::<R>(row, value), x, a, b, y),
                Some(0) => C::map3(isa, D::<R, 0>(row, value), x, a, b, y),
                Some(1) => C::map3(isa, D::<R, 1>(row, value), x, a, b, y),
                Some(_) => C::map3(isa, D::<R, 2>(row, value), x, a, b, y),
            }
            let value = C::from_f64(value).as_f64();
            let Some(by) = by else {
                return extremes::recompute([x, a, b], y, Again::<C, R> { row, value, by: None, ins: [x, a, b] });
            };
            let g = ins[0].block_in(isa, start, n, old, pg);
            y.iter_mut().zip(g).for_each(|(y, &g)| *y = g * *y);
            extremes::recompute([x, a, b], y, Again::<C, R> { row, value, by: Some((by, g)), ins: [x, a, b] });
        });
    }
}

pub(super) fn forward<C: Compute>(isa: Isa, row: Ternary, value: f64, ins: &[Operand<'_>], out: &mut Out<'_>) {
    row.visit(Run::<C> { isa, value, by: None, ins, out, computing: std::marker::PhantomData });
}

/// Inputs g, x, a, b.
pub(super) fn backward<C: Compute>(
    isa: Isa,
    row: Ternary,
    value: f64,
    by: usize,
    ins: &[Operand<'_>],
    out: &mut Out<'_>,
) {
    row.visit(Run::<C> { isa, value, by: Some(by), ins, out, computing: std::marker::PhantomData });
}
