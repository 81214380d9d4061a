//! Random values, and values without inputs.

use binade_tensor::Op;
use binade_tensor::op::{Dropout, Fill, Random, Range};
use smallvec::smallvec;

use super::row::{Row, Saves};
use super::{Context, Grads, none};
use crate::Result;
use crate::value::Value;

impl Row for Dropout {
    fn saves(&self, _needs: &[bool]) -> Saves {
        Saves::NONE
    }

    fn gradients<V: Value>(&self, c: &mut Context<'_, V>, g: V) -> Result<Grads<V>> {
        Ok(smallvec![Some(c.run_over(Op::Dropout { p: self.p, key: self.key }, g, &[], c.dtype(0))?)])
    }
}

impl Row for Random {
    fn no_gradient(&self) -> Option<&'static str> {
        Some("random values depend on no input")
    }

    fn saves(&self, _needs: &[bool]) -> Saves {
        Saves::NONE
    }

    fn gradients<V: Value>(&self, c: &mut Context<'_, V>, _g: V) -> Result<Grads<V>> {
        none(self, c)
    }
}

impl Row for Fill {
    fn no_gradient(&self) -> Option<&'static str> {
        Some("a constant depends on no input")
    }

    fn saves(&self, _needs: &[bool]) -> Saves {
        Saves::NONE
    }

    fn gradients<V: Value>(&self, c: &mut Context<'_, V>, _g: V) -> Result<Grads<V>> {
        none(self, c)
    }
}

impl Row for Range {
    fn no_gradient(&self) -> Option<&'static str> {
        Some("a constant depends on no input")
    }

    fn saves(&self, _needs: &[bool]) -> Saves {
        Saves::NONE
    }

    fn gradients<V: Value>(&self, c: &mut Context<'_, V>, _g: V) -> Result<Grads<V>> {
        none(self, c)
    }
}
