//! The cases: what runs, how it is checked, and what it counts as.

use anyhow::{Result, bail, ensure};
use binade::amp::Policy;
use binade::autograd::Var;
use binade::tensor::{Class, DType};
use binade::train::Precision;
use serde_json::Value;

pub use binade::cli::known::{integers, normal};

use super::generate;
use super::kernels::{self, CONVOLUTIONS};
use super::steps::{self, Size};
use super::tape;

/// Groups of cases, each but the last as in `torch_bench.py`.
pub const GROUPS: [&str; 11] =
    ["gemm", "skinny", "conv", "micro", "tape", "cnn", "resnet18", "vit", "gpt", "unet", "generate"];

/// The groups that are a training step.
pub const NETWORKS: [&str; 5] = ["cnn", "resnet18", "vit", "gpt", "unet"];

/// One measurement.
pub struct Case {
    /// As in `torch_bench.py`.
    pub name: String,
    /// One run.
    pub run: Box<dyn FnMut() -> Result<()>>,
    /// Fails if the result is wrong.
    pub check: Box<dyn Fn() -> Result<()>>,
    /// Floating-point operations of one run; 0 where not stated.
    pub flops: f64,
    /// What a run does per second: unit and count.
    pub rate: Option<(&'static str, f64)>,
    /// More fields of the JSON line, given the median time of a run in ms.
    pub extra: Box<dyn Fn(f64) -> Vec<(&'static str, Value)>>,
}

type Build = Box<dyn FnOnce() -> Result<Case>>;

/// The measurements of a group, in the order of `torch_bench.py`, each built when it is its turn.
pub fn cases(group: &str, precision: Precision, size: Size) -> Result<Vec<Build>> {
    let mut out: Vec<Build> = Vec::new();
    match group {
        "gemm" => {
            for extent in [512, 1024, 2048] {
                out.push(Box::new(move || kernels::gemm(extent, precision)));
            }
        }
        "skinny" => {
            for rows in [1, 2, 4, 8] {
                out.push(Box::new(move || kernels::skinny(rows, precision)));
            }
        }
        "conv" => {
            for shape in CONVOLUTIONS {
                for backward in [false, true] {
                    out.push(Box::new(move || kernels::convolution(shape, backward, precision, size.batch)));
                }
            }
        }
        "micro" => {
            for kind in ["softmax", "gelu", "layernorm", "batchnorm"] {
                for backward in [false, true] {
                    out.push(Box::new(move || kernels::micro(kind, backward, precision)));
                }
            }
        }
        "tape" => {
            for backward in [false, true] {
                out.push(Box::new(move || tape::adds(backward, precision)));
            }
        }
        "generate" => out.push(Box::new(move || generate::token(precision, size.batch))),
        name if NETWORKS.contains(&name) => {
            let name = group.to_string();
            out.push(Box::new(move || steps::training(&name, precision, size)));
        }
        other => bail!("no case {other}; there are {}", GROUPS.join(", ")),
    }
    Ok(out)
}

pub fn dtype(precision: Precision) -> DType {
    match precision {
        Precision::Fp32 => DType::F32,
        Precision::Fp16 => DType::F16,
        Precision::Bf16 => DType::BF16,
    }
}

pub fn policy(precision: Precision) -> Policy {
    precision.policy()
}

/// Largest difference, as a part of the largest value, that a result in this precision may have.
pub fn tolerance(precision: Precision) -> f64 {
    match precision {
        Precision::Fp32 => 1e-5,
        Precision::Fp16 => 2f64.powi(-10),
        Precision::Bf16 => 2f64.powi(-7),
    }
}

pub fn compare(found: &Var, exact: &Var, tolerance: f64) -> Result<()> {
    let (found, exact) = (found.array().to_f64_vec()?, exact.array().to_f64_vec()?);
    let largest = exact.iter().fold(0.0f64, |m, v| m.max(v.abs()));
    let worst = found
        .iter()
        .zip(&exact)
        .fold(0.0f64, |m, (a, b)| m.max(if a.is_finite() { (a - b).abs() } else { f64::INFINITY }));
    ensure!(
        worst <= tolerance * largest,
        "off by {:.2e} of the largest value, allowed {tolerance:.2e}",
        worst / largest
    );
    Ok(())
}

pub fn f64s(x: &Var) -> Result<Var> {
    Ok(Var::leaf(x.array().cast(DType::F64, Class::Activations)?))
}

pub fn nothing() -> Box<dyn Fn(f64) -> Vec<(&'static str, Value)>> {
    Box::new(|_| Vec::new())
}
