//! [`Policy`]: maps numeric classes to dtypes. A value; "off" is one too.

use std::sync::Arc;

use binade_autograd::{CastPlan, CastRule, scope};
use binade_tensor::op::Numerics;
use binade_tensor::{DType, Error as TensorError, Op};

/// Which dtypes operators use.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Policy {
    /// Operators run in the dtype of their inputs.
    #[default]
    Off,
    /// PyTorch's autocast with its CUDA lists (2.15), for every device.
    Autocast(DType),
}

impl Policy {
    /// Runs `f` under this policy on the current thread. Regions nest; the policy before is restored on panic too.
    pub fn run<T>(self, f: impl FnOnce() -> T) -> T {
        let rule: Option<Arc<dyn CastRule>> = match self {
            Policy::Off => None,
            Policy::Autocast(_) => Some(Arc::new(self)),
        };
        scope::with_cast_rule(rule, f)
    }
}

/// Runs `f` with contractions in `dtype` and range-critical operators in f32, as `torch.autocast`: `autocast(DType::F16, || …)`.
///
/// A dtype that is not a 16-bit float disables autocasting inside, as in PyTorch, where that is a warning.
pub fn autocast<T>(dtype: DType, f: impl FnOnce() -> T) -> T {
    autocast_with(if dtype.is_half() { Policy::Autocast(dtype) } else { Policy::Off }, f)
}

/// Runs `f` under any policy; [`Policy::Off`] inside a region disables it.
pub fn autocast_with<T>(policy: Policy, f: impl FnOnce() -> T) -> T {
    policy.run(f)
}

/// Floats autocast may change: f64 stays.
fn eligible(dtype: DType) -> bool {
    dtype.is_float() && dtype != DType::F64
}

impl CastRule for Policy {
    fn plan(&self, op: &Op, ins: &[DType]) -> binade_tensor::Result<CastPlan> {
        let Policy::Autocast(low) = *self else { return Ok(CastPlan::default()) };
        let any = ins.iter().copied().any(eligible);
        Ok(match op.numerics() {
            Numerics::Lower if any && !ins.contains(&DType::F64) => CastPlan { inputs: Some(low), output: Some(low) },
            // Widening is exact: the kernel reads 16 bit, and only the result says f32.
            Numerics::F32 if any && !ins.contains(&DType::F64) => CastPlan { inputs: None, output: Some(DType::F32) },
            Numerics::F32Out if ins.first().copied().is_some_and(eligible) => CastPlan { inputs: None, output: Some(DType::F32) },
            Numerics::Promote => {
                if let Some(&odd) = ins.iter().find(|&&d| eligible(d) && d != low && d != DType::F32) {
                    return Err(TensorError::DType {
                        op: op.name(),
                        expected: format!("f32 and {low} tensors inside autocast to {low}; cast the {odd} tensor first"),
                        dtypes: ins.to_vec(),
                    });
                }
                let wide = ins.contains(&DType::F32);
                CastPlan { inputs: None, output: any.then_some(if wide { DType::F32 } else { low }) }
            }
            Numerics::Banned if any => {
                return Err(TensorError::Argument {
                    op: op.name(),
                    message: format!(
                        "unsafe inside autocast to {low}: its logarithms need f32; use binary_cross_entropy_with_logits, or disable autocast around it"
                    ),
                });
            }
            Numerics::Lower | Numerics::F32 | Numerics::F32Out | Numerics::Neutral | Numerics::Banned => CastPlan::default(),
        })
    }
}
