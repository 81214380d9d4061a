//! [`Rule`]: a policy as the choke point asks it.

use binade_autograd::{CastPlan, CastRule, Place, scope};
use binade_tensor::op::{Binary, NormKind, PadMode, Reduce, Resample, Unary};
use binade_tensor::{DType, Error as TensorError, Op};

use super::exceptions::{Compiled, Met};
use super::{CastPolicy, Policy, Table, eligible};

/// A policy with its globs compiled.
#[derive(Debug)]
pub(super) struct Rule {
    low: DType,
    table: Table,
    exceptions: Vec<Compiled>,
    met: Met,
    param: DType,
    f32_batch_norm: bool,
    f32_output: bool,
    wgrad_f32: bool,
    low_residual: bool,
}

impl Rule {
    /// `None` for a policy that leaves everything as it is.
    pub(super) fn new(policy: &Policy) -> Option<Rule> {
        // Parameters in 16 bit with computation in f32: every result is f32.
        let low = policy.compute.or(policy.param.is_half().then_some(DType::F32))?;
        let Policy { table, param, f32_batch_norm, output, wgrad_f32, low_residual, .. } = *policy;
        let exceptions = policy.exceptions.iter().filter_map(Compiled::new).collect();
        let (met, f32_output) = (policy.met.clone(), output == Some(DType::F32));
        Some(Rule { low, table, exceptions, met, param, f32_batch_norm, f32_output, wgrad_f32, low_residual })
    }

    /// Whether the policy can be carried out where `op` is: layers that it names must have names, parameters that it
    /// stores in 16 bit must be.
    fn check(&self, op: &Op, place: Option<&Place>) -> binade_tensor::Result<()> {
        let Some(place) = place else { return Ok(()) };
        let error = |message| Err(TensorError::Argument { op: op.name(), message });
        if self.exceptions.iter().any(|e| !e.is_everywhere()) {
            if place.names().is_empty() {
                return error(
                    "the policy has exceptions for layers, and this one's parameters have no name yet: call \
                     `assign_names` of the model"
                        .into(),
                );
            }
            self.met.note(place);
        }
        let Some(param) = scope::operand() else { return Ok(()) };
        let wanted = if param.batch_norm && self.f32_batch_norm { DType::F32 } else { self.param };
        if self.param.is_half() && eligible(param.dtype) && param.dtype != wanted {
            let found = param.dtype;
            return error(format!(
                "the policy stores parameters in {wanted}, and this one is {found}: make the model inside \
                 `Policy::build`"
            ));
        }
        Ok(())
    }
}

impl Table {
    /// The class of an operator.
    pub fn class(self, op: &Op, low: DType) -> CastPolicy {
        let torch = CastPolicy::from(op.numerics());
        let contraction = matches!(op, Op::Conv2d(..) | Op::ConvTranspose2d { .. } | Op::MatMul(_));
        // Paddle's bf16 black list is empty.
        let black = low == DType::F16
            && (matches!(torch, CastPolicy::F32 | CastPolicy::F32Out | CastPolicy::Banned) || black_in_paddle(op));
        match self {
            Table::Torch => torch,
            Table::TorchCpu => torch_cpu(op, torch),
            Table::PaddleO1 | Table::PaddleO2 | Table::PaddleOd if contraction => CastPolicy::Lower,
            Table::PaddleO1 if black => CastPolicy::F32,
            Table::PaddleO1 => CastPolicy::Neutral,
            Table::PaddleO2 if black => CastPolicy::F32,
            Table::PaddleOd => CastPolicy::F32,
            Table::PaddleO2 | Table::Uniform if keeps_its_dtype(op) => CastPolicy::Neutral,
            Table::PaddleO2 | Table::Uniform => CastPolicy::Lower,
        }
    }
}

/// What Paddle's black list has besides PyTorch's.
fn black_in_paddle(op: &Op) -> bool {
    matches!(op, Op::Unary(Unary::Square | Unary::Atanh) | Op::Reduce { kind: Reduce::Mean, .. })
}

/// Norms with statistics that are f32 in any case.
fn keeps_its_dtype(op: &Op) -> bool {
    matches!(op, Op::Norm(norm) if matches!(norm.kind, NormKind::Batch | NormKind::Fixed))
}

/// PyTorch's CPU lists, by the class in its CUDA lists: contractions are in both.
fn torch_cpu(op: &Op, cuda: CastPolicy) -> CastPolicy {
    let mirrors = matches!(op, Op::Resample(Resample::Pad { mode: PadMode::Reflect | PadMode::Replicate, .. }));
    if matches!(op, Op::Loss { .. } | Op::CrossEntropy(_)) || mirrors {
        CastPolicy::F32
    } else if matches!(op, Op::Cat { .. }) {
        CastPolicy::Promote
    } else if cuda == CastPolicy::Lower || matches!(op, Op::Custom(_)) {
        cuda
    } else {
        CastPolicy::Neutral
    }
}

impl CastRule for Rule {
    fn plan(&self, op: &Op, ins: &[DType]) -> binade_tensor::Result<CastPlan> {
        let low = self.low;
        let any = ins.iter().copied().any(eligible);
        let place = if self.exceptions.is_empty() && !self.param.is_half() { None } else { scope::place() };
        self.check(op, place.as_ref())?;
        let exception = self.exceptions.iter().rev().find(|e| e.fits(op, place.as_ref())).map(|e| e.class);
        let mixed_sum = matches!(op, Op::Binary(Binary::Add))
            && matches!(*ins, [a, b] if (a == low || b == low) && (a == DType::F32 || b == DType::F32));
        if self.low_residual && exception.is_none() && mixed_sum {
            return Ok(CastPlan { inputs: None, output: Some(low) });
        }
        // A loss takes the model's result.
        let loss = self.f32_output && matches!(op, Op::Loss { .. } | Op::CrossEntropy(_));
        let class = exception.unwrap_or_else(|| if loss { CastPolicy::F32 } else { self.table.class(op, low) });
        Ok(match class {
            CastPolicy::Lower if any && !ins.contains(&DType::F64) => CastPlan { inputs: Some(low), output: Some(low) },
            // Widening is exact: the kernel reads 16 bit, and only the result says f32.
            CastPolicy::F32 if any && !ins.contains(&DType::F64) => CastPlan { inputs: None, output: Some(DType::F32) },
            CastPolicy::F32Out if ins.first().copied().is_some_and(eligible) => {
                CastPlan { inputs: None, output: Some(DType::F32) }
            }
            CastPolicy::Promote => {
                if let Some(&odd) = ins.iter().find(|&&d| eligible(d) && d != low && d != DType::F32) {
                    return Err(TensorError::DType {
                        op: op.name(),
                        expected: format!(
                            "f32 and {low} tensors inside autocast to {low}; cast the {odd} tensor first"
                        ),
                        dtypes: ins.to_vec(),
                    });
                }
                let wide = ins.contains(&DType::F32);
                CastPlan { inputs: None, output: any.then_some(if wide { DType::F32 } else { low }) }
            }
            CastPolicy::Banned if any => {
                return Err(TensorError::Argument {
                    op: op.name(),
                    message: format!(
                        "unsafe inside autocast to {low}: its logarithms need f32; use \
                         binary_cross_entropy_with_logits, or disable autocast around it"
                    ),
                });
            }
            CastPolicy::Lower | CastPolicy::F32 | CastPolicy::F32Out | CastPolicy::Neutral | CastPolicy::Banned => {
                CastPlan::default()
            }
        })
    }

    fn wide_weight_gradients(&self) -> bool {
        self.wgrad_f32
    }
}
