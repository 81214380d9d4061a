//! What the transformers of this crate share.

use std::sync::Arc;

use binade_autograd::Var;
use binade_nn::{Init, Layer, Linear, Module, Param, Result, Visitor, recomputed};
use binade_tensor::DType;
use binade_tensor::op::{Binary, Unary};

/// Activation of a hidden layer.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Act {
    /// An operator of its own.
    Unary(Unary),
    /// `x·σ(1.702·x)`, CLIP's approximation of GELU.
    QuickGelu,
}

/// Names of activations in configurations; of those of one function the first is written.
const ACTS: [(&str, Act); 10] = [
    ("gelu", Act::Unary(Unary::Gelu)),
    ("gelu_new", Act::Unary(Unary::GeluTanh)),
    ("gelu_pytorch_tanh", Act::Unary(Unary::GeluTanh)),
    ("gelu_fast", Act::Unary(Unary::GeluTanh)),
    ("gelu_tanh", Act::Unary(Unary::GeluTanh)),
    ("quick_gelu", Act::QuickGelu),
    ("relu", Act::Unary(Unary::Relu)),
    ("silu", Act::Unary(Unary::Silu)),
    ("swish", Act::Unary(Unary::Silu)),
    ("tanh", Act::Unary(Unary::Tanh)),
];

impl Act {
    /// The activation that transformers or timm calls so.
    pub fn named(name: &str) -> Option<Act> {
        ACTS.iter().find(|(known, _)| *known == name).map(|(_, act)| *act)
    }

    /// What transformers calls it; `None` for what it has no name for.
    pub fn name(self) -> Option<&'static str> {
        ACTS.iter().find(|(_, act)| *act == self).map(|(name, _)| *name)
    }

    /// What timm calls it.
    pub(crate) fn timm_name(self) -> Option<&'static str> {
        match self {
            Act::Unary(Unary::GeluTanh) => Some("gelu_tanh"),
            act => act.name(),
        }
    }

    /// `linear` of the activation of `x`, which is computed as the product reads it where it is an operator of its own.
    pub(crate) fn into_linear(self, x: &Var, linear: &Linear) -> Result<Var> {
        const SLOPE: f64 = 1.702;
        match self {
            Act::Unary(act) => linear.forward_of(act, x),
            // x·σ(a·x) is silu(a·x)/a: three operators, in f32 so that only the result is rounded.
            Act::QuickGelu => {
                let x = if x.dtype().is_half() { x.cast(DType::F32)? } else { x.clone() };
                let y = x.scalar(Binary::Mul, SLOPE, false)?.unary(Unary::Silu)?;
                linear.forward(&y.scalar(Binary::Mul, 1.0 / SLOPE, false)?)
            }
        }
    }
}

/// Two linear layers with an activation between, as ViT and CLIP name them.
#[derive(Clone, Module)]
pub(crate) struct Mlp {
    pub(crate) fc1: Linear,
    pub(crate) fc2: Linear,
    #[module(skip)]
    pub(crate) act: Act,
}

impl Layer for Mlp {
    /// `[…, D]` to the same shape.
    fn run(&self, x: &Var) -> Result<Var> {
        self.act.into_linear(&self.fc1.forward(x)?, &self.fc2)
    }
}

/// A linear layer whose weight is normal with mean 0, and whose bias, if it has one, is 0.
pub(crate) fn linear(inputs: usize, outputs: usize, bias: bool, std: f64) -> Result<Linear> {
    let bias = if bias { Some(Param::init(&[outputs], Init::Constant(0.0))?) } else { None };
    Ok(Linear { weight: Param::init(&[outputs, inputs], Init::Normal { mean: 0.0, std })?, bias })
}

/// A block's output; with `recompute` its inner values are not kept for backward but computed again.
pub(crate) fn through<L: Layer>(block: &Arc<L>, x: &Var, recompute: bool) -> Result<Var> {
    if recompute { recomputed(block, x) } else { block.forward(x) }
}

/// What is wrong with heads that shall divide features.
pub(crate) fn heads_problem(heads: usize, features: usize) -> Option<String> {
    let fits = heads > 0 && features > 0 && features.is_multiple_of(heads);
    (!fits).then(|| format!("{heads} heads do not divide {features} features"))
}
