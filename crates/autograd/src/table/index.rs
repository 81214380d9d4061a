//! Selection by index, and sorting.

use binade_tensor::op::{
    Backward, Compare, Embedding, EmbeddingBackward, Gather, GatherBackward, Scatter, ScatterOp, Sort, View,
};
use binade_tensor::{DType, Op, Shape};
use smallvec::smallvec;

use super::derivative::Derivative;
use super::row::{Row, Saves};
use super::{Context, Grads};
use crate::Result;
use crate::value::Value;

impl Row for Gather {
    fn saves(&self, _needs: &[bool]) -> Saves {
        Saves::inputs(&[1])
    }

    fn gradients<V: Value>(&self, c: &mut Context<'_, V>, g: V) -> Result<Grads<V>> {
        let op = Op::Backward(Backward::Gather { dim: self.dim, shape: *c.shape(0) });
        Ok(smallvec![Some(c.run(op, &[&g, c.input(1)?], c.dtype(0))?), None])
    }
}

impl Row for ScatterOp {
    fn saves(&self, _needs: &[bool]) -> Saves {
        Saves::inputs(&[1])
    }

    fn gradients<V: Value>(&self, c: &mut Context<'_, V>, g: V) -> Result<Grads<V>> {
        let index = c.input(1)?;
        let kept = || match self.kind {
            Scatter::Add => c.cast(g.clone(), c.dtype(0)),
            Scatter::Set => {
                let zeros = c.full(g.dtype(), *index.shape(), 0.0)?;
                c.run(Op::Scatter { kind: Scatter::Set, dim: self.dim }, &[&g, index, &zeros], c.dtype(0))
            }
        };
        Ok(smallvec![c.when(0, kept)?, None, c.when(2, || taken(self, c, &g, index))?])
    }
}

/// The gradient of src, of which only the part that the index covers was used.
fn taken<V: Value>(of: &ScatterOp, c: &Context<'_, V>, g: &V, index: &V) -> Result<V> {
    let dim = of.dim;
    let mut part = c.run(Op::Gather { dim }, &[g, index], c.dtype(2))?;
    if of.kind == Scatter::Set {
        // Of equal indices the last has won: where a place still holds its position.
        let length = index.shape().numel();
        let range = c.run(Op::Range { start: 0, length }, &[], DType::I64)?;
        let positions = c.view(&range, View::Reshape(*index.shape()))?;
        let nobody = c.full(DType::I64, *c.shape(0), -1.0)?;
        let set = Op::Scatter { kind: Scatter::Set, dim };
        let winners = c.run(set, &[&nobody, index, &positions], DType::I64)?;
        let winner = c.run(Op::Gather { dim }, &[&winners, index], DType::I64)?;
        let won = c.run(Op::Compare(Compare::Eq), &[&winner, &positions], DType::Bool)?;
        let zero = c.full(part.dtype(), Shape::SCALAR, 0.0)?;
        part = c.run(Op::Where, &[&won, &part, &zero], part.dtype())?;
    }
    for d in 0..index.shape().rank() {
        if part.shape()[d] != c.shape(2)[d] {
            let mut shape = *part.shape();
            shape[d] = c.shape(2)[d];
            part = c.run(Op::Backward(Backward::Narrow { dim: d, start: 0, shape }), &[&part], c.dtype(2))?;
        }
    }
    Ok(part)
}

impl Row for Sort {
    fn saves(&self, _needs: &[bool]) -> Saves {
        Saves::NONE.and_outputs(&[1])
    }

    fn gradients<V: Value>(&self, c: &mut Context<'_, V>, g: V) -> Result<Grads<V>> {
        let op = Op::Backward(Backward::Gather { dim: self.dim, shape: *c.shape(0) });
        Ok(smallvec![Some(c.run(op, &[&g, c.output(1)?], c.dtype(0))?)])
    }
}

impl Row for Embedding {
    fn saves(&self, _needs: &[bool]) -> Saves {
        Saves::inputs(&[1])
    }

    fn gradients<V: Value>(&self, c: &mut Context<'_, V>, g: V) -> Result<Grads<V>> {
        let op = Op::Backward(Backward::Embedding { rows: c.shape(0)[0] });
        Ok(smallvec![Some(c.run(op, &[&g, c.input(1)?], c.dtype(0))?), None])
    }
}

impl Derivative for GatherBackward {
    fn adjoint<V: Value>(&self, c: &Context<'_, V>, g: &V) -> Result<Grads<V>> {
        let dim = &self.dim;
        Ok(smallvec![Some(c.run(Op::Gather { dim: *dim }, &[g, c.input(1)?], c.dtype(0))?), None])
    }
}

impl Derivative for EmbeddingBackward {
    fn adjoint<V: Value>(&self, c: &Context<'_, V>, g: &V) -> Result<Grads<V>> {
        Ok(smallvec![Some(c.run(Op::Embedding, &[g, c.input(1)?], c.dtype(0))?), None])
    }
}
