//! [`Var::backward`]: the gradients of a loss.

use std::collections::HashSet;
use std::sync::Arc;

use binade_tensor::{Array, Class};

use crate::gradients::copy;
use crate::node::Kind;
use crate::walk::{Found, Widen, seed, walk, zero};
use crate::{Error, Gradients, Result, Var};

/// What a backward pass does beyond the usual, for [`Var::backward_with`].
///
/// ```
/// # use binade_cpu as _;
/// use binade_autograd::{Backward, Var};
/// let x = Var::leaf(Var::from_slice(&[1.0f32, 2.0], &[2])?.array().clone());
/// let y = x.square()?;
/// // From an upstream gradient, as `y.backward(g)` in PyTorch.
/// let g = Var::from_slice(&[1.0f32, 10.0], &[2])?;
/// let gradients = y.backward_with(Backward { keep_graph: true, ..Backward::from(g.array()) })?;
/// assert_eq!(gradients.get(&x).unwrap().to_vec::<f32>()?, [2.0, 40.0]);
/// // The graph was kept for a second pass, as with `retain_graph=True`.
/// assert_eq!(y.sum(&[], false)?.backward()?.get(&x).unwrap().to_vec::<f32>()?, [2.0, 4.0]);
/// # Ok::<(), binade_autograd::Error>(())
/// ```
#[derive(Clone, Copy, Debug, Default)]
pub struct Backward<'a> {
    /// The gradient of the tensor itself, of its shape; 1 by default, which is for tensors of one element.
    pub gradient: Option<&'a Array>,
    /// Keeps saved values for another pass through the same graph.
    pub keep_graph: bool,
    /// Gives gradients that are only read: one that a cast rounded to 16 bit stays in 16 bit, where its f32 leaf would
    /// have it widened, and several leaves may share one array. The values are the same; an optimiser reads half the
    /// bytes.
    pub lean: bool,
}

impl<'a> From<&'a Array> for Backward<'a> {
    fn from(gradient: &'a Array) -> Backward<'a> {
        Backward { gradient: Some(gradient), ..Backward::default() }
    }
}

impl Var {
    /// Gradients of this one-element tensor with respect to every leaf. Saved values are released as they are used.
    ///
    /// # Errors
    /// Not one element; no leaf behind it; a saved value was changed in place or already released.
    pub fn backward(&self) -> Result<Gradients> {
        self.backward_with(Backward::default())
    }

    /// As [`Var::backward`], with options, or from a given gradient of this tensor: `y.backward_with(&gradient)`.
    ///
    /// # Errors
    /// As [`Var::backward`]; the gradient's shape differs.
    pub fn backward_with<'a>(&self, options: impl Into<Backward<'a>>) -> Result<Gradients> {
        leaves(self, options.into())
    }
}

/// The gradients of all leaves, each in the layout of its leaf, as an optimiser walks both together, and the changes
/// that wait for their step.
fn leaves(loss: &Var, options: Backward<'_>) -> Result<Gradients> {
    let mut result = Gradients::default();
    let device = loss.array().device();
    let widen = if options.lean { Widen::NotLeaves } else { Widen::Yes };
    let walked = walk::<Array>(loss, seed(loss, options.gradient)?, options.keep_graph, &HashSet::new(), widen)?;
    for Found { node, gradient, scale } in walked.found {
        let Kind::Leaf(leaf) = &node.kind else { continue };
        let gradient = gradient.map_or_else(|| zero(&node, device), Ok)?;
        let in_order = gradient.layout().same_order(&node.out.layout);
        let gradient = if in_order { gradient } else { gradient.contiguous(Class::Gradients)? };
        // Each leaf owns its gradient: `a + b` hands both operands the same array, and hooks may keep one.
        let shared = !options.lean && Arc::strong_count(gradient.storage()) > 1;
        result.found(leaf, if shared { copy(&gradient)? } else { gradient }, scale);
    }
    walked.changes.into_iter().for_each(|change| result.push_change(change));
    if result.is_empty() { Err(Error::NoGraph) } else { Ok(result) }
}
