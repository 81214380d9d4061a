//! Backward kernels, for second order.

use binade_tensor::Op;
use binade_tensor::op::{Backward, Conv2d, Epilogue, PadMode, PoolKind, Resample, View};
use smallvec::smallvec;

use super::row::{Row, Saves};
use super::{Context, Grads};
use crate::value::Value;
use crate::{Error, Result};

impl Row for Backward {
    /// The definition needs all inputs.
    fn saves(&self, _needs: &[bool]) -> Saves {
        Saves::ALL_INPUTS
    }

    /// Of kernels that are linear in each input: those of a convolution are each other's adjoints. The others go
    /// through their definition in primitives.
    fn gradients<V: Value>(&self, c: &mut Context<'_, V>, g: V) -> Result<Grads<V>> {
        let (c, g) = (&*c, &g);
        let plain = |conv: &Conv2d| Op::Conv2d(*conv, Epilogue::default());
        Ok(match self {
            Backward::Conv2dInput { conv, .. } => {
                let weight = Op::Backward(Backward::Conv2dWeight { conv: *conv, shape: *c.shape(1) });
                smallvec![
                    c.when(0, || c.run(plain(conv), &[g, c.input(1)?], c.dtype(0)))?,
                    c.when(1, || c.run(weight, &[c.input(0)?, g], c.dtype(1)))?
                ]
            }
            Backward::Conv2dWeight { conv, .. } => {
                let input = Op::Backward(Backward::Conv2dInput { conv: *conv, shape: *c.shape(1) });
                smallvec![
                    c.when(0, || c.run(plain(conv), &[c.input(1)?, g], c.dtype(0)))?,
                    c.when(1, || c.run(input, &[c.input(0)?, g], c.dtype(1)))?
                ]
            }
            Backward::Pool { pool, .. } if pool.kind == PoolKind::Avg => {
                smallvec![Some(c.run(Op::Pool(*pool), &[g], c.dtype(0))?)]
            }
            // Which element was largest does not change with x.
            Backward::Pool { pool, .. } => {
                let op = Op::Backward(Backward::PoolSelect { pool: *pool, shape: *c.shape(0) });
                smallvec![Some(c.run(op, &[g, c.input(1)?], c.dtype(0))?), None]
            }
            Backward::PoolSelect { pool, .. } => {
                let op = Op::Backward(Backward::Pool { pool: *pool, shape: *c.shape(0) });
                smallvec![Some(c.run(op, &[g, c.input(1)?], c.dtype(0))?), None]
            }
            // The constant of a padding has no part in a gradient.
            Backward::Resample { map, .. } => {
                let map = match *map {
                    Resample::Pad { before, after, mode: PadMode::Constant(_) } => {
                        Resample::Pad { before, after, mode: PadMode::Constant(0.0) }
                    }
                    map => map,
                };
                smallvec![Some(c.run(Op::Resample(map), &[g], c.dtype(0))?)]
            }
            Backward::Gather { dim, .. } => {
                smallvec![Some(c.run(Op::Gather { dim: *dim }, &[g, c.input(1)?], c.dtype(0))?), None]
            }
            Backward::Embedding { .. } => smallvec![Some(c.run(Op::Embedding, &[g, c.input(1)?], c.dtype(0))?), None],
            Backward::Narrow { dim, start, .. } => {
                smallvec![Some(c.view(g, View::Narrow { dim: *dim, start: *start, length: c.shape(0)[*dim] })?)]
            }
            Backward::Unary(_)
            | Backward::Binary { .. }
            | Backward::Scalar { .. }
            | Backward::Reduce { .. }
            | Backward::CumProd { .. }
            | Backward::Softmax { .. }
            | Backward::Depthwise { .. }
            | Backward::MatMulOf { .. }
            | Backward::Norm(_)
            | Backward::Renormalise(_)
            | Backward::CrossEntropy(_)
            | Backward::Loss { .. }
            | Backward::Ternary { .. }
            | Backward::Attention { .. } => {
                let reason = "it is differentiated through its definition, which needs all inputs";
                return Err(Error::NotDifferentiable { op: c.op.name(), path: c.path.clone(), reason });
            }
        })
    }

    fn through_definition(&self, _recorded: bool) -> bool {
        true
    }

    fn is_derivative(&self) -> bool {
        true
    }
}
