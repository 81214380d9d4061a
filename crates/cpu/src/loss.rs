//! Elementwise losses and their gradients.

use crate::kernel::{In, Out};
use rayon::prelude::*;

use super::extremes::{self, Formula};
use super::operand::{BLOCK, Compute, Operand, TASK, fill};
use super::rows::write;
use super::tasks::Tasks as _;
use crate::simd::{First, Isa, Lanes, Map2, Number};
use binade_tensor::op::{Loss, LossRow, LossVisitor, Reduction};

/// `f`, or the derivative by the prediction or the target times `factor`.
#[derive(Clone, Copy)]
struct Part<R, const PART: u8> {
    row: std::marker::PhantomData<fn() -> R>,
    parameter: f64,
    factor: f64,
}

impl<R: LossRow, const PART: u8> Map2 for Part<R, PART> {
    #[inline(always)]
    fn eval<L: Lanes>(self, x: L, t: L) -> L {
        let p = L::splat(self.parameter);
        match PART {
            0 => R::f(x, t, p),
            1 => R::dx(x, t, p) * L::splat(self.factor),
            _ => R::dt(x, t, p) * L::splat(self.factor),
        }
    }
}

/// `f`, or the gradient, element by element.
struct Again<'a, C, R> {
    row: std::marker::PhantomData<fn() -> R>,
    parameter: f64,
    /// The gradient and its factor, and whether it is by the target.
    by: Option<(&'a [C], f64, bool)>,
    ins: [&'a [C]; 2],
}

impl<C: Compute, R: LossRow> Formula for Again<'_, C, R> {
    fn at<N: Number>(&self, i: usize) -> N {
        let [x, t] = self.ins;
        let [x, t, p] = [N::splat(x[i].as_f64()), N::splat(t[i].as_f64()), N::splat(self.parameter)];
        match self.by {
            None => R::f(x, t, p),
            Some((g, factor, target)) => {
                let slope = if target { R::dt(x, t, p) } else { R::dx(x, t, p) };
                N::splat(g[i].as_f64()) * N::splat(factor) * slope
            }
        }
    }
}

struct Forward<'a, 'b, C>(Isa, f64, Reduction, &'a [Operand<'a>], usize, &'a mut Out<'b>, std::marker::PhantomData<C>);

impl<C: Compute> LossVisitor for Forward<'_, '_, C> {
    type Output = ();
    fn visit<R: LossRow>(self) {
        let Forward(isa, parameter, reduction, ins, n, out, _) = self;
        let (x, t) = (&ins[0], &ins[1]);
        let formula = Part::<R, 0> { row: std::marker::PhantomData, parameter, factor: 1.0 };
        let each: &(dyn Fn(usize, &mut [C]) + Sync) = &|start, y| {
            let [mut px, mut pt] = [[C::zero(); BLOCK]; 2];
            let (x, t) = (x.block(isa, start, y.len(), &mut px), t.block(isa, start, y.len(), &mut pt));
            C::map2(isa, formula, x, t, y);
            extremes::recompute([], y, Again::<C, R> { row: formula.row, parameter, by: None, ins: [x, t] });
        };
        if reduction == Reduction::None {
            return fill::<C>(isa, out, each);
        }
        // Losses beyond the computing type may have a mean that is not, or another's sign.
        let in_f64 = |start: usize, n: usize| -> f64 {
            let [mut px, mut pt] = [[C::zero(); BLOCK]; 2];
            let (x, t) = (x.block(isa, start, n, &mut px), t.block(isa, start, n, &mut pt));
            let each = Again::<C, R> { row: formula.row, parameter, by: None, ins: [x, t] };
            (0..n).map(|i| extremes::in_f64(&each, i)).sum()
        };
        // Blocks in the computing type, added in f64 in order within a fixed task, and the tasks in order.
        let parts: Vec<f64> = (0..n.div_ceil(TASK)).into_par_iter().list(|task| {
            let mut block = [C::zero(); BLOCK];
            let mut total = 0.0;
            for start in (task * TASK..n.min((task + 1) * TASK)).step_by(BLOCK) {
                let part = &mut block[..BLOCK.min(n - start)];
                each(start, part);
                let sum = C::sum(isa, First, part, C::zero()).as_f64();
                total += if sum.is_finite() { sum } else { in_f64(start, part.len()) };
            }
            total
        });
        let total: f64 = parts.iter().sum();
        write(isa, &[if reduction == Reduction::Mean { total / n as f64 } else { total }], out);
    }
}

pub(super) fn forward<C: Compute>(
    isa: Isa,
    loss: Loss,
    parameter: f64,
    reduction: Reduction,
    ins: &[In<'_>],
    out: &mut Out<'_>,
) {
    let (shape, parameter) = (*ins[0].shape(), C::from_f64(parameter).as_f64());
    let operands = if reduction == Reduction::None {
        super::elementwise::operands(ins, out.array())
    } else {
        let order: Vec<usize> = (0..shape.rank()).collect();
        ins.iter().map(|&x| Operand::new(x, &shape, &order)).collect()
    };
    loss.visit(Forward::<C>(isa, parameter, reduction, &operands, shape.numel(), out, std::marker::PhantomData));
}

struct Backward<'a, 'b, C>(Isa, f64, f64, bool, &'a [Operand<'a>], &'a mut Out<'b>, std::marker::PhantomData<C>);

#[derive(Clone, Copy)]
struct Product;

impl Map2 for Product {
    #[inline(always)]
    fn eval<L: Lanes>(self, a: L, b: L) -> L {
        a * b
    }
}

impl<C: Compute> LossVisitor for Backward<'_, '_, C> {
    type Output = ();
    fn visit<R: LossRow>(self) {
        let Backward(isa, parameter, factor, target, ins, out, _) = self;
        let row = std::marker::PhantomData;
        fill::<C>(isa, out, |start, y| {
            let n = y.len();
            let [mut pg, mut px, mut pt, mut slope] = [[C::zero(); BLOCK]; 4];
            let (x, t) = (ins[1].block(isa, start, n, &mut px), ins[2].block(isa, start, n, &mut pt));
            if target {
                C::map2(isa, Part::<R, 2> { row, parameter, factor }, x, t, &mut slope[..n]);
            } else {
                C::map2(isa, Part::<R, 1> { row, parameter, factor }, x, t, &mut slope[..n]);
            }
            let g = ins[0].block(isa, start, n, &mut pg);
            C::map2(isa, Product, g, &slope[..n], y);
            let again = Again::<C, R> { row, parameter, by: Some((g, factor, target)), ins: [x, t] };
            extremes::recompute([], y, again);
        });
    }
}

/// Inputs g (one element, or one per element without reduction), x, t.
pub(super) fn backward<C: Compute>(
    isa: Isa,
    loss: Loss,
    parameter: f64,
    reduction: Reduction,
    target: bool,
    ins: &[In<'_>],
    out: &mut Out<'_>,
) {
    let operands = super::elementwise::operands(ins, out.array());
    let factor = if reduction == Reduction::Mean { 1.0 / ins[1].numel() as f64 } else { 1.0 };
    let parameter = C::from_f64(parameter).as_f64();
    loss.visit(Backward::<C>(isa, parameter, factor, target, &operands, out, std::marker::PhantomData));
}
