//! Pooling.

use binade_tensor::Op;
use binade_tensor::op::{Backward, Pool, PoolBackward, PoolKind, PoolSelect};
use smallvec::smallvec;

use super::derivative::Derivative;
use super::row::{Row, Saves};
use super::{Context, Grads};
use crate::Result;
use crate::value::Value;

impl Row for Pool {
    /// The gradient finds the largest again: an output that was only copied or flattened need not wait for it.
    fn saves(&self, _needs: &[bool]) -> Saves {
        if self.kind == PoolKind::Max { Saves::inputs(&[0]) } else { Saves::NONE }
    }

    fn gradients<V: Value>(&self, c: &mut Context<'_, V>, g: V) -> Result<Grads<V>> {
        let op = Op::Backward(Backward::Pool { pool: *self, shape: *c.shape(0) });
        Ok(smallvec![Some(match self.kind {
            PoolKind::Max => c.run(op, &[&g, c.input(0)?], c.dtype(0))?,
            PoolKind::Avg => c.run(op, &[&g], c.dtype(0))?,
        })])
    }
}

impl Derivative for PoolBackward {
    fn adjoint<V: Value>(&self, c: &Context<'_, V>, g: &V) -> Result<Grads<V>> {
        let pool = &self.pool;
        if pool.kind == PoolKind::Avg {
            return Ok(smallvec![Some(c.run(Op::Pool(*pool), &[g], c.dtype(0))?)]);
        }
        // Which element was largest does not change with x.
        let op = Op::Backward(Backward::PoolSelect { pool: *pool, shape: *c.shape(0) });
        Ok(smallvec![Some(c.run(op, &[g, c.input(1)?], c.dtype(0))?), None])
    }
}

impl Derivative for PoolSelect {
    fn adjoint<V: Value>(&self, c: &Context<'_, V>, g: &V) -> Result<Grads<V>> {
        let pool = &self.pool;
        let op = Op::Backward(Backward::Pool { pool: *pool, shape: *c.shape(0) });
        Ok(smallvec![Some(c.run(op, &[g, c.input(1)?], c.dtype(0))?), None])
    }
}
