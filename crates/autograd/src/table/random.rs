//! Random values, and values without inputs.

use binade_tensor::op::Distribution;
use binade_tensor::{Key, Op};
use smallvec::smallvec;

use super::row::{Row, Saves};
use super::{Context, Grads, none};
use crate::Result;
use crate::value::Value;

/// [`Op::Dropout`].
pub(super) struct Dropout {
    pub(super) p: f64,
    pub(super) key: Key,
}

impl Row for Dropout {
    fn saves(&self, _needs: &[bool]) -> Saves {
        Saves::NONE
    }

    fn gradients<V: Value>(&self, c: &mut Context<'_, V>, g: V) -> Result<Grads<V>> {
        Ok(smallvec![Some(c.run_over(Op::Dropout { p: self.p, key: self.key }, g, &[], c.dtype(0))?)])
    }
}

impl Row for Distribution {
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

/// [`Op::Fill`] and [`Op::Range`].
pub(super) struct Constant;

impl Row for Constant {
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
