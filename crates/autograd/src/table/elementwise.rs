//! Elementwise operators, and selection by a condition.

use binade_tensor::op::{
    Backward, Binary, BinaryBackward, Compare, Saved, Scalar, ScalarBackward, TernaryBackward, TernaryOp, Unary,
    UnaryBackward, Where,
};
use binade_tensor::{Op, Shape};
use smallvec::smallvec;

use super::derivative::Derivative;
use super::row::{Row, Saves};
use super::{Context, Grads, none};
use crate::Result;
use crate::saved::{Made, Recipe};
use crate::value::Value;

impl Row for Unary {
    fn saves(&self, _needs: &[bool]) -> Saves {
        match self.saved() {
            Saved::Input => Saves::inputs(&[0]),
            Saved::Output => Saves::NONE.and_outputs(&[0]),
            Saved::Nothing => Saves::NONE,
        }
    }

    fn again(&self, _inputs: usize) -> Option<Recipe> {
        let again = Recipe::new(Op::Unary(*self), smallvec![0], Made::Activation(*self));
        (self.saved() == Saved::Input).then_some(again)
    }

    fn gradients<V: Value>(&self, c: &mut Context<'_, V>, g: V) -> Result<Grads<V>> {
        Ok(smallvec![Some(c.before(*self, g, c.saved(0), c.saved(1), c.dtype(0))?)])
    }
}

impl Row for Binary {
    fn saves(&self, needs: &[bool]) -> Saves {
        match self {
            Binary::Add | Binary::Sub => Saves::NONE,
            Binary::Mul => Saves::product(needs),
            Binary::Div if !needs[1] => Saves::inputs(&[1]),
            // Slopes of a limited or powered value depend on both operands.
            _ => Saves::inputs(&[0, 1]),
        }
    }

    fn again(&self, _inputs: usize) -> Option<Recipe> {
        let op = Op::Binary(*self);
        match self {
            Binary::Add | Binary::Sub => Some(Recipe::new(op, smallvec![0, 1], Made::Sum)),
            Binary::Mul => Some(Recipe::new(op, smallvec![0, 1], Made::Pass)),
            _ => None,
        }
    }

    fn gradients<V: Value>(&self, c: &mut Context<'_, V>, g: V) -> Result<Grads<V>> {
        let partial = |i: usize, g: V| -> Result<V> {
            let rhs = i == 1;
            let (dtype, wide) = (g.dtype(), if g.shape() == c.shape(i) { c.dtype(i) } else { c.dtype(i).accum() });
            let product = match (self, rhs) {
                (Binary::Add, _) | (Binary::Sub, false) => g,
                (Binary::Sub, true) => c.run_over(Op::Unary(Unary::Neg), g, &[], dtype)?,
                (Binary::Mul, _) => c.run_over(Op::Binary(Binary::Mul), g, &[c.input(1 - i)?], wide)?,
                (Binary::Div, false) => c.run_over(Op::Binary(Binary::Div), g, &[c.input(1)?], wide)?,
                (Binary::Fmod, false) => g,
                _ => {
                    let op = Op::Backward(Backward::Binary { op: *self, rhs });
                    c.run_over(op, g, &[c.input(0)?, c.input(1)?], wide)?
                }
            };
            c.fit(product, i)
        };
        // The last operand has the gradient for itself, unless something else keeps it.
        Ok(match (c.needs[0], c.needs[1]) {
            (true, true) => smallvec![Some(partial(0, g.clone())?), Some(partial(1, g)?)],
            (true, false) => smallvec![Some(partial(0, g)?), None],
            (false, true) => smallvec![None, Some(partial(1, g)?)],
            (false, false) => smallvec![None, None],
        })
    }
}

impl Row for Scalar {
    fn saves(&self, _needs: &[bool]) -> Saves {
        match (self.op, self.reversed) {
            (Binary::Add | Binary::Sub | Binary::Mul, _) | (Binary::Div, false) => Saves::NONE,
            _ => Saves::inputs(&[0]),
        }
    }

    fn gradients<V: Value>(&self, c: &mut Context<'_, V>, g: V) -> Result<Grads<V>> {
        let Scalar { op, value, reversed } = *self;
        let want = c.dtype(0);
        Ok(smallvec![Some(match (op, reversed) {
            (Binary::Add, _) | (Binary::Sub, false) => c.cast(g, want)?,
            (Binary::Sub, true) => c.run_over(Op::Unary(Unary::Neg), g, &[], want)?,
            (Binary::Mul, _) | (Binary::Div, false) => {
                c.run_over(Op::Scalar { op, value, reversed: false }, g, &[], want)?
            }
            _ => c.run_over(Op::Backward(Backward::Scalar { op, value, reversed }), g, &[c.input(0)?], want)?,
        })])
    }
}

impl Row for TernaryOp {
    fn saves(&self, _needs: &[bool]) -> Saves {
        Saves::inputs(&[0, 1, 2])
    }

    fn gradients<V: Value>(&self, c: &mut Context<'_, V>, g: V) -> Result<Grads<V>> {
        let partial = |i: usize| {
            let op = Op::Backward(Backward::Ternary { op: self.op, value: self.value, operand: i });
            let wide = if g.shape() == c.shape(i) { c.dtype(i) } else { c.dtype(i).accum() };
            c.fit(c.run(op, &[&g, c.input(0)?, c.input(1)?, c.input(2)?], wide)?, i)
        };
        Ok(smallvec![c.when(0, || partial(0))?, c.when(1, || partial(1))?, c.when(2, || partial(2))?])
    }
}

impl Row for Where {
    fn saves(&self, _needs: &[bool]) -> Saves {
        Saves::inputs(&[0])
    }

    fn gradients<V: Value>(&self, c: &mut Context<'_, V>, g: V) -> Result<Grads<V>> {
        let zero = c.full(g.dtype(), Shape::SCALAR, 0.0)?;
        let pick = |i: usize| -> Result<V> {
            let (a, b) = if i == 1 { (&g, &zero) } else { (&zero, &g) };
            c.fit(c.run(Op::Where, &[c.input(0)?, a, b], g.dtype())?, i)
        };
        Ok(smallvec![None, c.when(1, || pick(1))?, c.when(2, || pick(2))?])
    }
}

impl Row for Compare {
    fn no_gradient(&self) -> Option<&'static str> {
        Some("a comparison is constant almost everywhere")
    }

    fn saves(&self, _needs: &[bool]) -> Saves {
        Saves::NONE
    }

    fn gradients<V: Value>(&self, c: &mut Context<'_, V>, _g: V) -> Result<Grads<V>> {
        none(self, c)
    }
}

impl Derivative for UnaryBackward {}

impl Derivative for BinaryBackward {}

impl Derivative for ScalarBackward {}

impl Derivative for TernaryBackward {}
