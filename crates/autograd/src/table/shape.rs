//! What only moves elements, or rounds them.

use binade_tensor::op::{Backward, Cast, Cat, Copied, NarrowBackward, StochasticCast, View};
use binade_tensor::{Op, Shape};
use smallvec::smallvec;

use super::derivative::Derivative;
use super::row::{Row, Saves};
use super::{Context, Grads};
use crate::Result;
use crate::saved::{Made, Recipe};
use crate::value::Value;

impl Row for View {
    fn saves(&self, _needs: &[bool]) -> Saves {
        Saves::NONE
    }

    fn again(&self, _inputs: usize) -> Option<Recipe> {
        Some(Recipe::new(Op::View(*self), smallvec![0], Made::Pass))
    }

    fn gradients<V: Value>(&self, c: &mut Context<'_, V>, g: V) -> Result<Grads<V>> {
        Ok(smallvec![Some(match self {
            View::Permute(axes) => c.view(&g, View::Permute(inverse(axes)))?,
            View::Reshape(_) => {
                let g = if g.layout().reshape(c.shape(0)).is_some() { g } else { c.contiguous(&g)? };
                c.view(&g, View::Reshape(*c.shape(0)))?
            }
            View::Narrow { dim, start, .. } => {
                let op = Op::Backward(Backward::Narrow { dim: *dim, start: *start, shape: *c.shape(0) });
                c.run(op, &[&g], c.dtype(0))?
            }
            View::Expand(_) => c.fit(g, 0)?,
        })])
    }

    fn part(&self) -> Option<(usize, usize)> {
        match self {
            View::Narrow { dim, start, .. } => Some((*dim, *start)),
            View::Permute(_) | View::Reshape(_) | View::Expand(_) => None,
        }
    }

    fn is_view(&self) -> bool {
        true
    }

    fn takes_narrow_gradient(&self, _recorded: bool) -> bool {
        true
    }
}

/// The permutation that undoes another.
pub(crate) fn inverse(axes: &Shape) -> Shape {
    let mut inverse = *axes;
    axes.iter().enumerate().for_each(|(i, &a)| inverse[a] = i);
    inverse
}

/// Rounding has slope 1 on average: the gradient passes through. The walk widens what a wider tensor needs, once, after
/// it has added the gradients of all uses.
fn passed_on<V: Value>(c: &Context<'_, V>, g: V) -> Result<Grads<V>> {
    let widens = g.dtype().is_half() && !c.dtype(0).is_half();
    Ok(smallvec![Some(if widens { g } else { c.cast(g, c.dtype(0))? })])
}

impl Row for Cast {
    fn saves(&self, _needs: &[bool]) -> Saves {
        Saves::NONE
    }

    fn again(&self, _inputs: usize) -> Option<Recipe> {
        Some(Recipe::new(Op::Cast(self.0), smallvec![0], Made::Cast(self.0)))
    }

    fn gradients<V: Value>(&self, c: &mut Context<'_, V>, g: V) -> Result<Grads<V>> {
        passed_on(c, g)
    }

    fn is_cast(&self) -> bool {
        true
    }
}

impl Row for StochasticCast {
    fn saves(&self, _needs: &[bool]) -> Saves {
        Saves::NONE
    }

    fn gradients<V: Value>(&self, c: &mut Context<'_, V>, g: V) -> Result<Grads<V>> {
        passed_on(c, g)
    }
}

impl Row for Copied {
    fn saves(&self, _needs: &[bool]) -> Saves {
        Saves::NONE
    }

    fn again(&self, _inputs: usize) -> Option<Recipe> {
        Some(Recipe::new(Op::Copy, smallvec![0], Made::Pass))
    }

    fn gradients<V: Value>(&self, c: &mut Context<'_, V>, g: V) -> Result<Grads<V>> {
        passed_on(c, g)
    }
}

impl Row for Cat {
    fn saves(&self, _needs: &[bool]) -> Saves {
        Saves::NONE
    }

    fn gradients<V: Value>(&self, c: &mut Context<'_, V>, g: V) -> Result<Grads<V>> {
        let (dim, mut start) = (self.dim, 0);
        let mut grads = Grads::<V>::new();
        for i in 0..c.metas.len() {
            let length = c.shape(i)[dim];
            let part = || c.cast(c.view(&g, View::Narrow { dim, start, length })?, c.dtype(i));
            grads.push(c.when(i, part)?);
            start += length;
        }
        Ok(grads)
    }
}

impl Derivative for NarrowBackward {
    fn adjoint<V: Value>(&self, c: &Context<'_, V>, g: &V) -> Result<Grads<V>> {
        let NarrowBackward { dim, start, .. } = self;
        Ok(smallvec![Some(c.view(g, View::Narrow { dim: *dim, start: *start, length: c.shape(0)[*dim] })?)])
    }
}
