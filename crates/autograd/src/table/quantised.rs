//! Products with weights of 8-bit integers. What they read may have a history, so that they are recorded, and say by
//! name that no gradient goes through them.

use binade_tensor::op::{QuantisedConv2d, QuantisedMatMul};

use super::row::{Row, Saves};
use super::{Context, Grads};
use crate::value::Value;
use crate::{Error, Result};

impl Row for QuantisedMatMul {
    fn saves(&self, _needs: &[bool]) -> Saves {
        Saves::NONE
    }

    fn gradients<V: Value>(&self, c: &mut Context<'_, V>, _g: V) -> Result<Grads<V>> {
        refused(c)
    }
}

impl Row for QuantisedConv2d {
    fn saves(&self, _needs: &[bool]) -> Saves {
        Saves::NONE
    }

    fn gradients<V: Value>(&self, c: &mut Context<'_, V>, _g: V) -> Result<Grads<V>> {
        refused(c)
    }
}

fn refused<V: Value>(c: &Context<'_, V>) -> Result<Grads<V>> {
    let reason = "a product with 8-bit weights is for inference; train the model that it was made of";
    Err(Error::NotDifferentiable { op: c.op.name(), path: c.path.clone(), reason })
}
