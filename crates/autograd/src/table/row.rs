//! [`Row`]: what the tape and the walk ask of an operator.

use binade_tensor::Op;

use super::{Context, Grads};
use crate::Result;
use crate::saved::Recipe;
use crate::value::Value;

/// An operator's row of the table. Beyond what is saved and the gradients, a row states only what is true of it.
pub(super) trait Row {
    /// Why it has no gradient; `None` if it has one.
    fn no_gradient(&self) -> Option<&'static str> {
        None
    }

    /// What the gradient needs, given which inputs need one.
    fn saves(&self, needs: &[bool]) -> Saves;

    /// How the first output is computed again, where one elementwise pass over saved values gives it: then whoever
    /// needs that output saves nothing. `inputs` is the number of inputs. `None` where nothing is gained.
    fn again(&self, inputs: usize) -> Option<Recipe> {
        let _ = inputs;
        None
    }

    /// The gradient of each input that needs one, in the input's dtype (of a cast perhaps a narrower one).
    ///
    /// `g`, the gradient of the first output, has elements.
    fn gradients<V: Value>(&self, c: &mut Context<'_, V>, g: V) -> Result<Grads<V>>;

    /// The dimension and first index of the part of the input that the output is, if it is one.
    fn part(&self) -> Option<(usize, usize)> {
        None
    }

    /// Whether the output is the input's memory in another layout.
    fn is_view(&self) -> bool {
        false
    }

    /// The rounding, if that is all the operator does.
    fn is_cast(&self) -> bool {
        false
    }

    /// Whether a 16-bit gradient of an f32 output is taken as it is: handed on, or widened as it is read.
    fn takes_narrow_gradient(&self, recorded: bool) -> bool {
        let _ = recorded;
        false
    }

    /// Whether the gradients take the argument of an activation in place of that input.
    fn takes_argument_of(&self, input: usize) -> bool {
        let _ = input;
        false
    }

    /// The operator without the activation it ends in: its result is the second output.
    fn before_activation(&self) -> Option<Op> {
        None
    }

    /// Whether the gradients are those of the definition in primitives, where there is one.
    fn through_definition(&self, recorded: bool) -> bool {
        let _ = recorded;
        false
    }

    /// Whether an input without a gradient has a gradient of zeros: the operator is a derivative, constant in it.
    fn is_derivative(&self) -> bool {
        false
    }
}

/// Which inputs and outputs the gradient needs, one bit each.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Saves {
    inputs: u16,
    outputs: u16,
}

impl Saves {
    pub(super) const NONE: Saves = Saves { inputs: 0, outputs: 0 };
    pub(super) const ALL_INPUTS: Saves = Saves { inputs: u16::MAX, outputs: 0 };

    pub(super) fn inputs(indices: &[usize]) -> Saves {
        Saves { inputs: indices.iter().map(|i| 1 << i).sum(), outputs: 0 }
    }

    pub(super) fn and_outputs(self, indices: &[usize]) -> Saves {
        Saves { outputs: indices.iter().map(|i| 1 << i).sum(), ..self }
    }

    /// Of a product of two inputs: each is saved for the other's gradient alone.
    pub(super) fn product(needs: &[bool]) -> Saves {
        match (needs[0], needs[1]) {
            (true, true) => Saves::inputs(&[0, 1]),
            (true, false) => Saves::inputs(&[1]),
            (false, true) => Saves::inputs(&[0]),
            (false, false) => Saves::NONE,
        }
    }

    pub(crate) fn input(self, i: usize) -> bool {
        i < 16 && self.inputs >> i & 1 == 1
    }

    pub(crate) fn output(self, i: usize) -> bool {
        i < 16 && self.outputs >> i & 1 == 1
    }
}
