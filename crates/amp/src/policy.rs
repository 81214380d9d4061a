//! [`Policy`]: which dtypes operators use, as a value. "Off" is one too.

mod exceptions;
mod rule;
mod text;

use std::sync::Arc;

use binade_autograd::scope::Stored;
use binade_autograd::{CastRule, Var, scope};
use binade_tensor::DType;
use binade_tensor::op::{Custom, Numerics};
use serde::{Deserialize, Serialize};

use crate::{Error, Result};
pub use exceptions::Exception;
use exceptions::Met;
use rule::Rule;

/// A table from operators to numeric classes. Operators state a fact about themselves
/// ([`Op::numerics`](binade_tensor::Op::numerics), which are PyTorch's CUDA lists); other systems judge some of them
/// differently.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Table {
    /// PyTorch 2.15, CUDA lists, for every device.
    #[default]
    Torch,
    /// PyTorch's CPU lists: norms, softmax, sums, exp and pow keep the dtype of their inputs; cat promotes; binary
    /// cross-entropy runs in f32.
    TorchCpu,
    /// Paddle's O1: convolutions, matmul and einsum in 16 bit; a black list in f32 (for f16 only); the rest follows its
    /// inputs.
    PaddleO1,
    /// Paddle's O2: everything in 16 bit but the black list.
    PaddleO2,
    /// Paddle's OD: convolutions, matmul and einsum in 16 bit, everything else in f32.
    PaddleOd,
    /// Everything in one dtype, batch norm's statistics apart: apex O2 and O3, jmp.
    Uniform,
}

/// What a policy does with an operator.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CastPolicy {
    /// 16-bit inputs and result.
    Lower,
    /// f32 result from f32 arithmetic on what is there.
    F32,
    /// As for f32, decided by the first input alone.
    F32Out,
    /// The widest dtype of the inputs.
    Promote,
    /// The dtype of the inputs.
    Neutral,
    /// An error.
    Banned,
}

impl From<Numerics> for CastPolicy {
    fn from(numerics: Numerics) -> CastPolicy {
        match numerics {
            Numerics::Lower => CastPolicy::Lower,
            Numerics::F32 => CastPolicy::F32,
            Numerics::F32Out => CastPolicy::F32Out,
            Numerics::Promote => CastPolicy::Promote,
            Numerics::Neutral => CastPolicy::Neutral,
            Numerics::Banned => CastPolicy::Banned,
        }
    }
}

/// Which dtypes operators use.
///
/// ```
/// # fn main() -> binade_amp::Result<()> {
/// use binade_amp::{CastPolicy, Policy};
/// use binade_tensor::DType;
/// // PyTorch's autocast, with the last layer in f32.
/// let policy = Policy::autocast(DType::F16).except("*", "head", CastPolicy::F32)?;
/// # let _ = policy;
/// // jmp's grammar.
/// assert_eq!(Policy::parse("p=f32,c=bf16,o=f32")?.compute(), Some(DType::BF16));
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    /// 16-bit dtype; `None` casts nothing.
    compute: Option<DType>,
    table: Table,
    /// The last that fits decides.
    exceptions: Vec<Exception>,
    /// What they met: shared by clones, so that a copy in a [`crate::Training`] tells what this one would.
    met: Met,
    /// Dtype parameters are stored in.
    param: DType,
    /// Whether batch norm's are f32 in any case.
    f32_batch_norm: bool,
    /// Dtype of the model's result; `None` leaves it.
    output: Option<DType>,
    /// Whether gradients of weights stay f32 from the product on.
    wgrad_f32: bool,
    /// Whether a sum with a 16-bit operand is 16-bit.
    low_residual: bool,
}

impl Default for Policy {
    fn default() -> Policy {
        Policy::OFF
    }
}

impl Policy {
    /// Operators run in the dtype of their inputs.
    pub const OFF: Policy = Policy {
        compute: None,
        table: Table::Torch,
        exceptions: Vec::new(),
        met: Met::NOTHING,
        param: DType::F32,
        f32_batch_norm: false,
        output: None,
        wgrad_f32: false,
        low_residual: false,
    };

    /// PyTorch's autocast with its CUDA lists (2.15), for every device. A dtype that is not a 16-bit float disables
    /// autocasting, as in PyTorch, where that is a warning.
    pub fn autocast(dtype: DType) -> Policy {
        Policy { compute: dtype.is_half().then_some(dtype), ..Policy::OFF }
    }

    /// Another table.
    #[must_use]
    pub fn with_table(self, table: Table) -> Policy {
        Policy { table, ..self }
    }

    /// PyTorch's autocast with its CPU lists.
    pub fn torch_cpu(dtype: DType) -> Policy {
        Policy::autocast(dtype).with_table(Table::TorchCpu)
    }

    /// NVIDIA apex' optimisation levels 0 to 3: f32; autocast; an f16 model with f32 batch norm, result and master
    /// weights; f16 throughout. Models for levels 2 and 3 are made with [`Policy::build`].
    ///
    /// # Errors
    /// [`Error::Policy`] for another level.
    pub fn apex(level: u32) -> Result<Policy> {
        let half = Policy::autocast(DType::F16);
        match level {
            0 => Ok(Policy::OFF),
            1 => Ok(half),
            2 => {
                let half = half.with_table(Table::Uniform);
                Ok(Policy { param: DType::F16, f32_batch_norm: true, output: Some(DType::F32), ..half })
            }
            3 => Ok(Policy { param: DType::F16, ..half.with_table(Table::Uniform) }),
            other => Err(Error::Policy(format!("apex has the levels O0 to O3, not O{other}"))),
        }
    }

    /// With an exception for the operators and layers that match two globs; a later exception wins over an earlier one.
    /// What a layer holds is part of it: `blocks.3` is the whole block.
    ///
    /// An operator belongs to the layer that runs it, by the structure of the model: the outermost module that runs
    /// ([`Layer::forward`](binade_nn::Layer::forward), [`within`](binade_nn::Module::within)). A part that runs by
    /// itself is known by the names of its parameters. They have names once an optimiser, a state dict or a list of
    /// parameters was made of the model. [`assign_names`](binade_nn::Module::assign_names) gives them too. A lone layer
    /// without names is refused.
    ///
    /// # Errors
    /// [`Error::Policy`]: a malformed glob, or one that no operator matches. A layer that no model has is an error of
    /// [`crate::Training::step`] and of [`Policy::check_layers`].
    pub fn except(self, op: &str, layer: &str, class: CastPolicy) -> Result<Policy> {
        exceptions::check(op, layer)?;
        Ok(self.excepting(op, layer, class))
    }

    /// As [`Policy::except`], for an operator of your own.
    ///
    /// # Errors
    /// [`Error::Policy`]: a malformed glob.
    pub fn except_custom(self, op: &Custom, layer: &str, class: CastPolicy) -> Result<Policy> {
        exceptions::check("*", layer)?;
        Ok(self.excepting(&glob::Pattern::escape(op.name()), layer, class))
    }

    fn excepting(mut self, op: &str, layer: &str, class: CastPolicy) -> Policy {
        self.exceptions.push(Exception { op: op.into(), layer: layer.into(), class });
        Policy { met: Met::fresh(), ..self }
    }

    /// Fails if an exception names a layer that no model has whose layers ran under this policy or a clone of it: after
    /// the first regions, a mistyped name. [`crate::Training`] asks at each step.
    ///
    /// # Errors
    /// [`Error::Policy`], with the layer meant if one is similar.
    pub fn check_layers(&self) -> Result<()> {
        self.met.check(&self.exceptions)
    }

    /// With gradients of weights kept in f32 from the product on. PyTorch rounds them to 16 bit first.
    #[must_use]
    pub fn with_f32_weight_gradients(self) -> Policy {
        Policy { wgrad_f32: true, ..self }
    }

    /// With a sum of an f32 and a 16-bit tensor in 16 bit, where autocast promotes it to f32: from its first addition
    /// on, the residual stream of a transformer is kept in half the bytes, and each addition rounds it. Sums of f32
    /// tensors (losses, embeddings) stay f32. An exception that names `add` decides first.
    #[must_use]
    pub fn with_low_residual(self) -> Policy {
        Policy { low_residual: true, ..self }
    }

    /// The 16-bit dtype, if any.
    pub fn compute(&self) -> Option<DType> {
        self.compute
    }

    /// The dtype parameters are stored in. Autocast's own is f32.
    pub fn param(&self) -> DType {
        self.param
    }

    /// The dtype of the model's result, where the policy fixes it.
    pub fn output(&self) -> Option<DType> {
        self.output
    }

    /// A model's result in the dtype the policy wants it in. Losses need no such cast: where the result is wanted in
    /// f32 they are computed and given in f32.
    ///
    /// # Errors
    /// Out of memory.
    pub fn cast_output(&self, result: &Var) -> Result<Var> {
        match self.output {
            Some(dtype) if eligible(result.dtype()) && result.dtype() != dtype => Ok(result.cast(dtype)?),
            Some(_) | None => Ok(result.clone()),
        }
    }

    /// Runs `f`, which makes a model, with new parameters in the dtypes this policy stores them in. Optimisers keep f32
    /// masters of 16-bit parameters. Under a policy that stores parameters in 16 bit, operators refuse others.
    pub fn build<T>(&self, f: impl FnOnce() -> T) -> T {
        scope::with_stored(
            Stored { params: self.param, batch_norm: if self.f32_batch_norm { DType::F32 } else { self.param } },
            f,
        )
    }

    /// Runs `f` under this policy on the current thread. Regions nest; the policy before is restored on panic too.
    pub fn run<T>(&self, f: impl FnOnce() -> T) -> T {
        let rule = Rule::new(self).map(|rule| Arc::new(rule) as Arc<dyn CastRule>);
        scope::with_cast_rule(rule, f)
    }
}

/// Runs `f` with contractions in `dtype` and range-critical operators in f32, as `torch.autocast`:
/// `autocast(DType::F16, || …)`. A dtype that is not a 16-bit float disables autocasting inside.
pub fn autocast<T>(dtype: DType, f: impl FnOnce() -> T) -> T {
    Policy::autocast(dtype).run(f)
}

/// Runs `f` under any policy; [`Policy::OFF`] inside a region disables it.
pub fn autocast_with<T>(policy: &Policy, f: impl FnOnce() -> T) -> T {
    policy.run(f)
}

/// Runs `f` on tensors brought to `dtype`, without autocast inside, if a region is in force; else on the tensors as
/// they are: PyTorch's `custom_fwd(cast_inputs=…)`. f64 and integers stay. The backward pass needs no counterpart: it
/// always runs in the dtypes of the forward pass, outside any region.
///
/// # Errors
/// Out of memory.
pub fn with_cast_inputs<T>(dtype: DType, ins: &[&Var], f: impl FnOnce(&[Var]) -> T) -> Result<T> {
    if !scope::is_casting() {
        return Ok(f(&ins.iter().map(|v| (*v).clone()).collect::<Vec<_>>()));
    }
    let cast = |v: &&Var| if eligible(v.dtype()) && v.dtype() != dtype { v.cast(dtype) } else { Ok((*v).clone()) };
    let ins = ins.iter().map(cast).collect::<Result<Vec<_>, _>>()?;
    Ok(Policy::OFF.run(|| f(&ins)))
}

/// Floats autocast may change: f64 stays.
fn eligible(dtype: DType) -> bool {
    dtype.is_float() && dtype != DType::F64
}
