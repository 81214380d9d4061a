//! Normalisation.

use binade_tensor::Op;
use binade_tensor::op::{Backward, Norm, NormBackward, NormKind, Renormalise};
use smallvec::{SmallVec, smallvec};

use super::derivative::Derivative;
use super::row::{Row, Saves};
use super::{Context, Grads};
use crate::Result;
use crate::saved::{Made, Recipe};
use crate::value::Value;

impl Row for Norm {
    /// x, weights (which live anyway) and statistics; an activation's argument is computed again from them.
    fn saves(&self, _needs: &[bool]) -> Saves {
        if self.kind == NormKind::Fixed { Saves::ALL_INPUTS } else { Saves::ALL_INPUTS.and_outputs(&[1, 2]) }
    }

    fn again(&self, inputs: usize) -> Option<Recipe> {
        Some(if self.kind == NormKind::Fixed {
            Recipe::new(Op::Norm(*self), (0..inputs).collect(), Made::Pass)
        } else {
            let operands = (0..inputs + 3).filter(|i| *i != inputs).collect();
            Recipe::new(Op::Backward(Backward::Renormalise(*self)), operands, Made::RoundedOnce)
        })
    }

    fn gradients<V: Value>(&self, c: &mut Context<'_, V>, g: V) -> Result<Grads<V>> {
        let mut ins: SmallVec<[&V; 6]> = smallvec![&g];
        for i in 0..=self.weights_of_gradient() {
            ins.push(c.input(i)?);
        }
        match self.kind {
            NormKind::Fixed => ins.extend([c.input(1 + self.weights())?, c.input(2 + self.weights())?]),
            NormKind::Layer { .. } | NormKind::Rms { .. } | NormKind::Group { .. } | NormKind::Batch => {
                ins.extend([c.output(1)?, c.output(2)?]);
            }
        }
        let outs = V::run_all(Op::Backward(Backward::Norm(*self)), &ins, c.device, c.dtype(0))?;
        let mut grads: Grads<V> = outs.into_iter().zip(&c.needs).map(|(a, need)| need.then_some(a)).collect();
        grads.resize(c.metas.len(), None);
        Ok(grads)
    }

    /// The kernel widens as it reads.
    fn takes_narrow_gradient(&self, recorded: bool) -> bool {
        !recorded
    }

    fn through_definition(&self, recorded: bool) -> bool {
        recorded
    }
}

impl Derivative for NormBackward {}

impl Derivative for Renormalise {}
