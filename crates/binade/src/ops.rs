//! `binade ops`: the page docs/ops.md, made from the registry.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::process::ExitCode;

use anyhow::Result;
use binade::tensor::op::{Bound, Numerics, Unary};
use binade::tensor::samples::catalogue;
use binade::tensor::{Array, Class, DType, Device, Op, run_one};

use binade::cli::output::line;
use binade::cli::threads;

#[derive(clap::Args)]
#[command(after_help = "Example: binade ops")]
pub struct Args {}

pub fn run(_args: &Args) -> Result<ExitCode> {
    threads::start(None)?;
    line(page()?.trim_end())?;
    Ok(ExitCode::SUCCESS)
}

fn page() -> Result<String> {
    let mut page = String::from(HEADER);
    let mut rows = BTreeMap::<&str, (String, String)>::new();
    let device = Device::cpu();
    for op in catalogue() {
        // Kernels of the backward pass have no name that users meet.
        if matches!(&op, Op::Backward(_)) || matches!(&op, Op::MatMul(product) if product.is_gradient()) {
            continue;
        }
        let sample = op
            .samples(&device, DType::F32)
            .into_iter()
            .find(|ins| ins.iter().all(|a| a.numel() > 1))
            .unwrap_or_default();
        let bound = if matches!(op, Op::View(_)) {
            "exact".into()
        } else {
            describe(op.bound(&sample.iter().collect::<Vec<_>>()))
        };
        rows.entry(op.name()).or_insert((class(op.numerics()).into(), bound));
    }
    for (name, (class, bound)) in rows {
        writeln!(page, "| `{name}` | {class} | {bound} |")?;
    }
    page.push_str(EXHAUSTIVE);
    let (mut worst, mut total) = (0.0f64, 0);
    for &row in Unary::ALL {
        let (e16, n16) = exhaustive(row, DType::F16)?;
        let (eb16, nb16) = exhaustive(row, DType::BF16)?;
        writeln!(page, "| `{}` | {e16:.4} | {n16} | {eb16:.4} | {nb16} |", row.name())?;
        worst = worst.max(e16).max(eb16);
        total += n16 + nb16;
    }
    writeln!(
        page,
        "\n{} functions, largest error {worst:.4} ulp, {total} results that are not correctly rounded.",
        Unary::ALL.len()
    )?;
    Ok(page)
}

fn class(numerics: Numerics) -> &'static str {
    match numerics {
        Numerics::Lower => "16 bit",
        Numerics::F32 | Numerics::F32Out => "f32",
        Numerics::Promote => "widest input",
        Numerics::Neutral => "as its inputs",
        Numerics::Banned => "refused",
    }
}

fn describe(bound: Bound) -> String {
    match bound {
        Bound::Ulps(0.0) => "exact".into(),
        Bound::Ulps(n) => format!("{n} ulp"),
        Bound::Gamma(n) => format!("{n}·u·Σ\\|terms\\| †"),
        Bound::Operand(n) => format!("{n}·u·max(\\|y\\|, \\|x\\|)"),
        Bound::Scale(n) => format!("{n}·u·max †"),
        Bound::Terms(n) => format!("{n}·u, first order †"),
    }
}

/// Largest error in ulp of the dtype, and how many of all 65,536 results are not the exact one rounded once.
fn exhaustive(row: Unary, dtype: DType) -> Result<(f64, usize)> {
    let device = Device::cpu();
    let codes: Vec<u8> = (0..=u16::MAX).flat_map(u16::to_ne_bytes).collect();
    let x = Array::from_bytes(&device, dtype, &codes, &[65536], Class::Activations)?;
    let format = dtype.format().ok_or_else(|| anyhow::anyhow!("{dtype} is no float dtype"))?;
    let reference = Device::reference();
    let there = Array::from_bytes(&reference, dtype, &device.download(&x)?, x.shape(), Class::Activations)?;
    let ours = run_one(&Op::Unary(row), &[&x], &device, dtype, Class::Activations)?.to_f64_vec()?;
    let exact = run_one(&Op::Unary(row), &[&there], &reference, DType::F64, Class::Activations)?.to_f64_vec()?;
    let (mut worst, mut wrong) = (0.0f64, 0);
    for (v, w) in ours.iter().zip(exact) {
        let rounded = format.round(w);
        if *v != rounded && !(v.is_nan() && rounded.is_nan()) {
            wrong += 1;
        }
        if v.is_finite() && w.is_finite() {
            worst = worst.max((v - w).abs() / format.ulp(w));
        }
    }
    Ok((worst, wrong))
}

const HEADER: &str = "# Operators

Made by `cargo xtask ops`; a test compares it with what the program prints.
Names are PyTorch's, and `Var` has a method for each.
[`Op`](../crates/tensor/src/op/mod.rs) has formula, shapes, dtypes and attributes.
Every operator runs on the CPU backend and on the f64 reference backend.
Each has a gradient unless its row in `crates/autograd/src/table/` says why not.
Gradients can be differentiated again.

*In autocast*: the dtype it computes and returns in inside an autocast region (PyTorch's CUDA lists).
*Error*: what the f32 computation may be off by before the one rounding to the output's dtype, with u = 2⁻²⁴.
† depends on the inputs' extents: the value is for the registry's first sample.
*First order*: so many roundings of each term, and what they change.
[`errors.rs`](../crates/tensor/src/reference/errors.rs) has the analysis.

| operator | in autocast | error |
|---|---|---|
";

const EXHAUSTIVE: &str = "
## Functions in 16 bit

Over all 65,536 inputs of each format: the largest error in units of the last place.
Beside it stands how many results are not correctly rounded.
Rounding itself may cost ½ unit; a result is correctly rounded if it is the exact value rounded once.
The exact value is that of f64.

| function | f16: error | not correctly rounded | bf16: error | not correctly rounded |
|---|---|---|---|---|
";
