//! [`Policy`]: which dtypes operators use, as a value. "Off" is one too.

use std::sync::Arc;

use binade_autograd::{CastPlan, CastRule, Var, scope};
use binade_tensor::op::{Binary, NormKind, Numerics, PadMode, Resample};
use binade_tensor::{DType, Error as TensorError, Op};
use serde::{Deserialize, Serialize};

use crate::{Error, Result};

/// A table from operators to numeric classes. Operators state a fact about themselves ([`Op::numerics`], which are PyTorch's CUDA
/// lists); other systems judge some of them differently.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Table {
    /// PyTorch 2.15, CUDA lists, for every device.
    #[default]
    Torch,
    /// PyTorch's CPU lists: norms, softmax, sums, exp and pow keep the dtype of their inputs; cat promotes; binary cross-entropy
    /// runs in f32.
    TorchCpu,
    /// Paddle's O1: convolutions, matmul and einsum in 16 bit; a black list in f32 (for f16 only); the rest follows its inputs.
    PaddleO1,
    /// Paddle's O2: everything in 16 bit but the black list.
    PaddleO2,
    /// Paddle's OD: convolutions, matmul and einsum in 16 bit, everything else in f32.
    PaddleOd,
    /// Everything in one dtype, batch norm's statistics apart: apex O2 and O3, jmp.
    Uniform,
}

/// An exception to the table.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exception {
    /// Operators by name, a glob: `softmax`, `*_loss`, `*`.
    pub op: String,
    /// Layers by dotted path, a glob: `head`, `blocks.*.norm`, `*`.
    pub layer: String,
    /// Their class.
    pub class: Class,
}

/// What a policy does with an operator.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Class {
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

impl From<Numerics> for Class {
    fn from(numerics: Numerics) -> Class {
        match numerics {
            Numerics::Lower => Class::Lower,
            Numerics::F32 => Class::F32,
            Numerics::F32Out => Class::F32Out,
            Numerics::Promote => Class::Promote,
            Numerics::Neutral => Class::Neutral,
            Numerics::Banned => Class::Banned,
        }
    }
}

/// Which dtypes operators use.
///
/// ```
/// # fn main() -> binade_amp::Result<()> {
/// use binade_amp::{Class, Policy};
/// use binade_tensor::DType;
/// // PyTorch's autocast, with the last layer in f32.
/// let policy = Policy::autocast(DType::F16).except("*", "head", Class::F32)?;
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
    /// Dtype parameters should be stored in.
    param: DType,
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
        param: DType::F32,
        output: None,
        wgrad_f32: false,
        low_residual: false,
    };

    /// PyTorch's autocast with its CUDA lists (2.15), for every device. A dtype that is not a 16-bit float disables autocasting,
    /// as in PyTorch, where that is a warning.
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

    /// NVIDIA apex' optimisation levels 0 to 3: f32; autocast; an f16 model with f32 batch norm and master weights; f16 throughout.
    /// Levels 2 and 3 want f16 parameters ([`Policy::param`]).
    ///
    /// # Errors
    /// [`Error::Policy`] for another level.
    pub fn apex(level: u32) -> Result<Policy> {
        let half = Policy::autocast(DType::F16);
        match level {
            0 => Ok(Policy::OFF),
            1 => Ok(half),
            2 => Ok(Policy { param: DType::F16, output: Some(DType::F32), ..half.with_table(Table::Uniform) }),
            3 => Ok(Policy { param: DType::F16, ..half.with_table(Table::Uniform) }),
            other => Err(Error::Policy(format!("apex has the levels O0 to O3, not O{other}"))),
        }
    }

    /// jmp's strings: `p=f32,c=bf16,o=f32` for parameters, computation and output, or one dtype for all three. What is missing follows:
    /// parameters f32, computation as parameters, output as computation. `half` is f16.
    ///
    /// Also the names `off`, `torch:f16`, `torch-cpu:bf16`, `apex:O1`, `paddle-o1:f16`, `paddle-o2:…`, `paddle-od:…`. After any of them
    /// `,residual=low` is [`Policy::with_low_residual`].
    ///
    /// # Errors
    /// [`Error::Policy`]: an unknown key, dtype or name.
    pub fn parse(text: &str) -> Result<Policy> {
        if let Some(rest) = text.strip_suffix(",residual=low") {
            return Ok(Policy::parse(rest)?.with_low_residual());
        }
        let bad = |message: String| Error::Policy(format!("policy {text:?}: {message}"));
        let dtype = |name: &str| match name.trim() {
            "f32" | "float32" | "full" => Ok(DType::F32),
            "f16" | "float16" | "half" => Ok(DType::F16),
            "bf16" | "bfloat16" => Ok(DType::BF16),
            other => Err(bad(format!("unknown dtype {other:?}; expected f32, f16 or bf16"))),
        };
        if text == "off" {
            return Ok(Policy::OFF);
        }
        if let Some((name, setting)) = text.split_once(':') {
            let table = match name {
                "apex" => {
                    let level = setting.trim_start_matches(['O', 'o']).parse().map_err(|_| bad("expected O0 to O3".into()))?;
                    return Policy::apex(level);
                }
                "torch" => Table::Torch,
                "torch-cpu" => Table::TorchCpu,
                "paddle-o1" => Table::PaddleO1,
                "paddle-o2" => Table::PaddleO2,
                "paddle-od" => Table::PaddleOd,
                other => return Err(bad(format!("unknown name {other:?}"))),
            };
            return Ok(Policy::autocast(dtype(setting)?).with_table(table));
        }
        let (mut param, mut compute, mut output) = (None, None, None);
        if text.contains('=') {
            for part in text.split(',') {
                let (key, value) = part.split_once('=').ok_or_else(|| bad(format!("{part:?} is not KEY=DTYPE")))?;
                match key.trim() {
                    "p" | "params" => param = Some(dtype(value)?),
                    "c" | "compute" => compute = Some(dtype(value)?),
                    "o" | "output" => output = Some(dtype(value)?),
                    other => return Err(bad(format!("unknown key {other:?}; expected p, c or o"))),
                }
            }
        } else {
            (param, compute, output) = (Some(dtype(text)?), Some(dtype(text)?), Some(dtype(text)?));
        }
        let param = param.unwrap_or(DType::F32);
        let compute = compute.unwrap_or(param);
        Ok(Policy { param, output: Some(output.unwrap_or(compute)), ..Policy::autocast(compute).with_table(Table::Uniform) })
    }

    /// With an exception for the operators and layers that match two globs; a later exception wins over an earlier one.
    ///
    /// # Errors
    /// [`Error::Policy`]: a malformed glob.
    pub fn except(mut self, op: &str, layer: &str, class: Class) -> Result<Policy> {
        for glob in [op, layer] {
            glob::Pattern::new(glob).map_err(|e| Error::Policy(format!("{glob:?}: {e}")))?;
        }
        self.exceptions.push(Exception { op: op.into(), layer: layer.into(), class });
        Ok(self)
    }

    /// With gradients of weights kept in f32 from the product on. PyTorch rounds them to 16 bit first.
    #[must_use]
    pub fn with_f32_weight_gradients(self) -> Policy {
        Policy { wgrad_f32: true, ..self }
    }

    /// With a sum of an f32 and a 16-bit tensor in 16 bit, where autocast promotes it to f32: from its first addition on, the residual
    /// stream of a transformer is kept in half the bytes, and each addition rounds it. Sums of f32 tensors (losses, embeddings) stay
    /// f32. An exception that names `add` decides first.
    #[must_use]
    pub fn with_low_residual(self) -> Policy {
        Policy { low_residual: true, ..self }
    }

    /// The 16-bit dtype, if any.
    pub fn compute(&self) -> Option<DType> {
        self.compute
    }

    /// The dtype parameters should be stored in.
    pub fn param(&self) -> DType {
        self.param
    }

    /// The dtype of the model's result, where the policy fixes it.
    pub fn output(&self) -> Option<DType> {
        self.output
    }

    /// A model's result in the dtype the policy wants it in.
    ///
    /// # Errors
    /// Out of memory.
    pub fn cast_output(&self, result: &Var) -> Result<Var> {
        match self.output {
            Some(dtype) if eligible(result.dtype()) && result.dtype() != dtype => Ok(result.cast(dtype)?),
            Some(_) | None => Ok(result.clone()),
        }
    }

    /// Runs `f` under this policy on the current thread. Regions nest; the policy before is restored on panic too.
    pub fn run<T>(&self, f: impl FnOnce() -> T) -> T {
        let rule: Option<Arc<dyn CastRule>> = self.compute.map(|low| {
            let compile = |e: &Exception| Some((glob::Pattern::new(&e.op).ok()?, glob::Pattern::new(&e.layer).ok()?, e.class));
            let exceptions = self.exceptions.iter().filter_map(compile).collect();
            let Policy { table, wgrad_f32, low_residual, .. } = *self;
            Arc::new(Rule { low, table, exceptions, wgrad_f32, low_residual }) as Arc<dyn CastRule>
        });
        scope::with_cast_rule(rule, f)
    }
}

/// Runs `f` with contractions in `dtype` and range-critical operators in f32, as `torch.autocast`: `autocast(DType::F16, || …)`.
/// A dtype that is not a 16-bit float disables autocasting inside.
pub fn autocast<T>(dtype: DType, f: impl FnOnce() -> T) -> T {
    Policy::autocast(dtype).run(f)
}

/// Runs `f` under any policy; [`Policy::OFF`] inside a region disables it.
pub fn autocast_with<T>(policy: &Policy, f: impl FnOnce() -> T) -> T {
    policy.run(f)
}

/// Runs `f` on tensors brought to `dtype`, without autocast inside, if a region is in force; else on the tensors as they are: PyTorch's
/// `custom_fwd(cast_inputs=…)`. f64 and integers stay. The backward pass needs no counterpart: it always runs in the dtypes of the forward
/// pass, outside any region.
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

/// A policy with its globs compiled.
#[derive(Debug)]
struct Rule {
    low: DType,
    table: Table,
    exceptions: Vec<(glob::Pattern, glob::Pattern, Class)>,
    wgrad_f32: bool,
    low_residual: bool,
}

/// Floats autocast may change: f64 stays.
fn eligible(dtype: DType) -> bool {
    dtype.is_float() && dtype != DType::F64
}

impl Table {
    /// The class of an operator.
    pub fn class(self, op: &Op, low: DType) -> Class {
        let torch = Class::from(op.numerics());
        let contraction = matches!(op, Op::Conv2d(..) | Op::ConvTranspose2d { .. } | Op::MatMul(_) | Op::MatMulOf { .. });
        // Paddle's bf16 black list is empty.
        let black = low == DType::F16
            && (matches!(torch, Class::F32 | Class::F32Out | Class::Banned) || matches!(op.name(), "square" | "mean" | "atanh"));
        match self {
            Table::Torch => torch,
            Table::TorchCpu => match op {
                Op::Cat { .. } => Class::Promote,
                Op::Loss { .. } if torch == Class::Banned => Class::F32,
                Op::Loss { .. } | Op::CrossEntropy(_) => torch,
                Op::Resample(Resample::Pad { mode: PadMode::Reflect | PadMode::Replicate, .. }) => Class::F32,
                Op::MatMul(_) | Op::MatMulOf { .. } | Op::Conv2d(..) | Op::ConvTranspose2d { .. } | Op::Attention(_) => {
                    Class::Lower
                }
                Op::Custom(_) => torch,
                _ if op.name() == "prelu" => Class::Lower,
                _ => Class::Neutral,
            },
            Table::PaddleO1 | Table::PaddleO2 | Table::PaddleOd if contraction => Class::Lower,
            Table::PaddleO1 if black => Class::F32,
            Table::PaddleO1 => Class::Neutral,
            Table::PaddleO2 if black => Class::F32,
            Table::PaddleOd => Class::F32,
            Table::PaddleO2 | Table::Uniform => match op {
                Op::Norm(norm) if matches!(norm.kind, NormKind::Batch | NormKind::Fixed) => Class::Neutral,
                _ => Class::Lower,
            },
        }
    }
}

impl CastRule for Rule {
    fn plan(&self, op: &Op, ins: &[DType]) -> binade_tensor::Result<CastPlan> {
        let low = self.low;
        let any = ins.iter().copied().any(eligible);
        let exception = if self.exceptions.is_empty() {
            None
        } else {
            let path = scope::path();
            let fits = |e: &&(glob::Pattern, glob::Pattern, Class)| e.0.matches(op.name()) && e.1.matches(&path);
            self.exceptions.iter().rev().find(fits).map(|e| e.2)
        };
        let mixed_sum = matches!(op, Op::Binary(Binary::Add))
            && matches!(*ins, [a, b] if (a == low || b == low) && (a == DType::F32 || b == DType::F32));
        if self.low_residual && exception.is_none() && mixed_sum {
            return Ok(CastPlan { inputs: None, output: Some(low) });
        }
        let class = exception.unwrap_or_else(|| self.table.class(op, low));
        Ok(match class {
            Class::Lower if any && !ins.contains(&DType::F64) => CastPlan { inputs: Some(low), output: Some(low) },
            // Widening is exact: the kernel reads 16 bit, and only the result says f32.
            Class::F32 if any && !ins.contains(&DType::F64) => CastPlan { inputs: None, output: Some(DType::F32) },
            Class::F32Out if ins.first().copied().is_some_and(eligible) => CastPlan { inputs: None, output: Some(DType::F32) },
            Class::Promote => {
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
            Class::Banned if any => {
                return Err(TensorError::Argument {
                    op: op.name(),
                    message: format!(
                        "unsafe inside autocast to {low}: its logarithms need f32; use binary_cross_entropy_with_logits, or disable autocast around it"
                    ),
                });
            }
            Class::Lower | Class::F32 | Class::F32Out | Class::Neutral | Class::Banned => CastPlan::default(),
        })
    }

    fn wide_weight_gradients(&self) -> bool {
        self.wgrad_f32
    }
}
