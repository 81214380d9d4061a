//! Reductions, and the index of the largest element.

use binade_tensor::Op;
use binade_tensor::op::{ArgMax, Backward, Binary, Reduce, ReduceBackward, ReduceOp, View};
use smallvec::smallvec;

use super::derivative::Derivative;
use super::row::{Row, Saves};
use super::{Context, Grads, none};
use crate::Result;
use crate::value::Value;

impl Row for ReduceOp {
    fn saves(&self, _needs: &[bool]) -> Saves {
        match self.kind {
            Reduce::Sum | Reduce::Mean => Saves::NONE,
            Reduce::Max
            | Reduce::Min
            | Reduce::Var { .. }
            | Reduce::Std { .. }
            | Reduce::Prod
            | Reduce::LogSumExp
            | Reduce::Norm { .. } => Saves::inputs(&[0]).and_outputs(&[0]),
        }
    }

    fn gradients<V: Value>(&self, c: &mut Context<'_, V>, g: V) -> Result<Grads<V>> {
        let ReduceOp { kind, dims, .. } = *self;
        let shape = c.shape(0);
        let kept = dims.reduce(shape, true);
        let g = c.view(&g, View::Reshape(kept))?;
        let grad = match kind {
            Reduce::Sum => c.view(&c.cast(g, c.dtype(0))?, View::Expand(*shape))?,
            Reduce::Mean => {
                let n = dims.count(shape) as f64;
                let share = c.run(Op::Scalar { op: Binary::Div, value: n, reversed: false }, &[&g], c.dtype(0))?;
                c.view(&share, View::Expand(*shape))?
            }
            Reduce::Max
            | Reduce::Min
            | Reduce::Var { .. }
            | Reduce::Std { .. }
            | Reduce::Prod
            | Reduce::LogSumExp
            | Reduce::Norm { .. } => {
                let y = c.view(c.output(0)?, View::Reshape(kept))?;
                c.run(Op::Backward(Backward::Reduce { kind, dims }), &[&g, &y, c.input(0)?], c.dtype(0))?
            }
        };
        Ok(smallvec![Some(grad)])
    }
}

impl Row for ArgMax {
    fn no_gradient(&self) -> Option<&'static str> {
        Some("an index is not a differentiable value")
    }

    fn saves(&self, _needs: &[bool]) -> Saves {
        Saves::NONE
    }

    fn gradients<V: Value>(&self, c: &mut Context<'_, V>, _g: V) -> Result<Grads<V>> {
        none(self, c)
    }
}

impl Derivative for ReduceBackward {}
