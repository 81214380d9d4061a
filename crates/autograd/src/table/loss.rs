//! Losses.

use binade_tensor::Op;
use binade_tensor::op::{Backward, LossBackward, LossOp};
use smallvec::smallvec;

use super::derivative::Derivative;
use super::row::{Row, Saves};
use super::{Context, Grads};
use crate::Result;
use crate::value::Value;

impl Row for LossOp {
    fn saves(&self, _needs: &[bool]) -> Saves {
        Saves::inputs(&[0, 1])
    }

    fn gradients<V: Value>(&self, c: &mut Context<'_, V>, g: V) -> Result<Grads<V>> {
        let LossOp { loss, parameter, reduction } = *self;
        let slope = |i: usize| {
            let op = Op::Backward(Backward::Loss { loss, parameter, reduction, target: i == 1 });
            c.run(op, &[&g, c.input(0)?, c.input(1)?], c.dtype(i))
        };
        Ok(smallvec![c.when(0, || slope(0))?, c.when(1, || slope(1))?])
    }
}

impl Derivative for LossBackward {}
