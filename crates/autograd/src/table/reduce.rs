//! Reductions, running sums and products, softmax.

use binade_tensor::op::{Backward, Binary, Reduce as Kind, Resample, Scan as Running, View};
use binade_tensor::{Dims, Op};
use smallvec::smallvec;

use super::row::{Row, Saves};
use super::{Context, Grads, none};
use crate::Result;
use crate::value::Value;

/// [`Op::Reduce`].
pub(super) struct Reduce {
    pub(super) kind: Kind,
    pub(super) dims: Dims,
}

impl Row for Reduce {
    fn saves(&self, _needs: &[bool]) -> Saves {
        match self.kind {
            Kind::Sum | Kind::Mean => Saves::NONE,
            Kind::Max
            | Kind::Min
            | Kind::Var { .. }
            | Kind::Std { .. }
            | Kind::Prod
            | Kind::LogSumExp
            | Kind::Norm { .. } => Saves::inputs(&[0]).and_outputs(&[0]),
        }
    }

    fn gradients<V: Value>(&self, c: &mut Context<'_, V>, g: V) -> Result<Grads<V>> {
        let Reduce { kind, dims } = *self;
        let shape = c.shape(0);
        let kept = dims.reduce(shape, true);
        let g = c.view(&g, View::Reshape(kept))?;
        let grad = match kind {
            Kind::Sum => c.view(&c.cast(g, c.dtype(0))?, View::Expand(*shape))?,
            Kind::Mean => {
                let n = dims.count(shape) as f64;
                let share = c.run(Op::Scalar { op: Binary::Div, value: n, reversed: false }, &[&g], c.dtype(0))?;
                c.view(&share, View::Expand(*shape))?
            }
            Kind::Max
            | Kind::Min
            | Kind::Var { .. }
            | Kind::Std { .. }
            | Kind::Prod
            | Kind::LogSumExp
            | Kind::Norm { .. } => {
                let y = c.view(c.output(0)?, View::Reshape(kept))?;
                c.run(Op::Backward(Backward::Reduce { kind, dims }), &[&g, &y, c.input(0)?], c.dtype(0))?
            }
        };
        Ok(smallvec![Some(grad)])
    }
}

/// [`Op::ArgMax`].
pub(super) struct ArgMax;

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

/// [`Op::Scan`].
pub(super) struct Scan {
    pub(super) kind: Running,
    pub(super) dim: usize,
    pub(super) reverse: bool,
}

impl Row for Scan {
    fn saves(&self, _needs: &[bool]) -> Saves {
        match self.kind {
            Running::Sum => Saves::NONE,
            Running::Prod => Saves::inputs(&[0]),
        }
    }

    fn gradients<V: Value>(&self, c: &mut Context<'_, V>, g: V) -> Result<Grads<V>> {
        let Scan { kind, dim, reverse } = *self;
        let dx = match kind {
            Running::Sum => c.run(Op::Scan { kind, dim, reverse: !reverse }, &[&g], c.dtype(0))?,
            Running::Prod => {
                // The reverse product is the product of the reversed tensor.
                let turn = |v: &V| -> Result<V> {
                    if !reverse || v.shape().rank() == 0 {
                        return Ok(v.clone());
                    }
                    c.run(Op::Resample(Resample::Flip(Dims::one(dim))), &[v], v.dtype())
                };
                let op = Op::Backward(Backward::CumProd { dim });
                turn(&c.run(op, &[&turn(&g)?, &turn(c.input(0)?)?], c.dtype(0))?)?
            }
        };
        Ok(smallvec![Some(dx)])
    }
}

/// [`Op::Softmax`].
pub(super) struct Softmax {
    pub(super) dim: usize,
    pub(super) log: bool,
}

impl Row for Softmax {
    fn saves(&self, _needs: &[bool]) -> Saves {
        Saves::NONE.and_outputs(&[0])
    }

    fn gradients<V: Value>(&self, c: &mut Context<'_, V>, g: V) -> Result<Grads<V>> {
        let op = Op::Backward(Backward::Softmax { dim: self.dim, log: self.log });
        Ok(smallvec![Some(c.run(op, &[&g, c.output(0)?], c.dtype(0))?)])
    }
}
