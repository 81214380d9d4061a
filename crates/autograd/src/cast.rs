//! [`CastRule`]: how a policy tells the choke point which dtypes to use.

use binade_tensor::{DType, Op};

/// The dtypes for one application of an operator.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CastPlan {
    /// Bring every eligible input (f32, f16, bf16) to this dtype. Only narrowing makes a copy; a wider kernel reads
    /// what is there.
    pub inputs: Option<DType>,
    /// Dtype of float outputs; `None` for the operator's natural one.
    pub output: Option<DType>,
}

/// Maps an operator's numeric class to dtypes. Implemented by policies.
pub trait CastRule: Send + Sync + std::fmt::Debug {
    /// The plan for `op` on inputs of these dtypes.
    ///
    /// # Errors
    /// The operator is banned, or the dtypes cannot be mixed.
    fn plan(&self, op: &Op, ins: &[DType]) -> binade_tensor::Result<CastPlan>;

    /// Whether the gradient of a leaf that is cast for an operator is in the leaf's dtype from the operator on.
    /// Otherwise it is rounded to 16 bit first.
    fn wide_weight_gradients(&self) -> bool;
}
