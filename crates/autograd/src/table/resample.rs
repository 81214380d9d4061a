//! Separable linear maps.

use binade_tensor::Op;
use binade_tensor::op::{Backward, PadMode, Resample, ResampleBackward};
use smallvec::smallvec;

use super::derivative::Derivative;
use super::row::{Row, Saves};
use super::{Context, Grads};
use crate::Result;
use crate::value::Value;

impl Row for Resample {
    fn saves(&self, _needs: &[bool]) -> Saves {
        Saves::NONE
    }

    fn gradients<V: Value>(&self, c: &mut Context<'_, V>, g: V) -> Result<Grads<V>> {
        let op = Op::Backward(Backward::Resample { map: *self, shape: *c.shape(0) });
        Ok(smallvec![Some(c.run(op, &[&g], c.dtype(0))?)])
    }
}

impl Derivative for ResampleBackward {
    /// The constant of a padding has no part in a gradient.
    fn adjoint<V: Value>(&self, c: &Context<'_, V>, g: &V) -> Result<Grads<V>> {
        let map = &self.map;
        let map = match *map {
            Resample::Pad { before, after, mode: PadMode::Constant(_) } => {
                Resample::Pad { before, after, mode: PadMode::Constant(0.0) }
            }
            map => map,
        };
        Ok(smallvec![Some(c.run(Op::Resample(map), &[g], c.dtype(0))?)])
    }
}
