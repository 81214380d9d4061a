//! Hot kernels for `cargo xtask counts`, which starts this program again for each: callgrind counts the
//! backend's instructions inside [`counted`].

use std::hint::black_box;
use std::process::ExitCode;

use anyhow::Context;
use binade::cli::output::line;
use binade::tensor::op::{Backward, Conv2d, Epilogue, MatMul, Norm, NormKind};
use binade::tensor::{Array, ArrayMut, Class, DType, Device, Grad, Op, Result, Slot, Update, run_one};

#[derive(clap::Args)]
pub struct Args {
    /// The kernel; without one, the names of all are printed
    name: Option<String>,
}

pub fn run(args: &Args) -> anyhow::Result<ExitCode> {
    // This thread alone: others would be counted while they wait.
    rayon::ThreadPoolBuilder::new().num_threads(1).use_current_thread().build_global()?;
    let kernels = kernels()?;
    match &args.name {
        None => kernels.iter().try_for_each(|(name, _)| line(name))?,
        Some(wanted) => kernels.iter().find(|(name, _)| name == wanted).context("no such kernel")?.1()?,
    }
    Ok(ExitCode::SUCCESS)
}

/// What callgrind counted before is forgotten here.
#[inline(never)]
fn counted(run: &mut dyn FnMut() -> Result<()>) -> Result<()> {
    let done = run();
    // Not a tail call, which callgrind would not see return.
    black_box(&done);
    done
}

fn array(dims: &[usize], dtype: DType) -> Result<Array> {
    let values: Vec<f32> = (0..dims.iter().product()).map(|i: usize| (i % 251) as f32 / 125.0 - 1.0).collect();
    Array::from_slice(&Device::cpu(), &values, dims, Class::Activations)?.cast(dtype, Class::Activations)
}

/// Runs a kernel once uncounted, so that buffers and what is found out once are there, and once counted.
fn twice(mut run: impl FnMut() -> Result<()>) -> Result<()> {
    run()?;
    counted(&mut run)
}

fn operator(op: &Op, dtype: DType, ins: &[&[usize]]) -> Result<()> {
    let ins = ins.iter().map(|dims| array(dims, dtype)).collect::<Result<Vec<_>>>()?;
    let ins: Vec<&Array> = ins.iter().collect();
    twice(|| run_one(op, &ins, &Device::cpu(), dtype, Class::Activations).map(drop))
}

fn adamw() -> Result<()> {
    const N: usize = 40_000;
    let [param, grad, m, v] = [0; 4].map(|_| array(&[N], DType::F32));
    let (param, grad, m, v) = (param?, grad?, m?, v?);
    // v is a mean of squares.
    v.copy_from(&Array::full(&Device::cpu(), DType::F32, *v.shape(), 0.25, Class::Optimizer)?)?;
    let update = Update::Adam { betas: [0.9, 0.999], eps: 1e-8, weight_decay: 0.01, decoupled: true };
    let scalars = Array::from_slice(&Device::cpu(), &[1e-3f32, 0.5, 0.5, 1.0], &[4], Class::Workspace)?;
    twice(|| {
        let write = |array| ArrayMut::new("adamw", array);
        let state = vec![write(&m)?, write(&v)?];
        let slot = Slot { param: Some(write(&param)?), master: None, grad: Grad::Read(&grad), state, first: false };
        Device::cpu().update(&update, &scalars, &mut [slot]).map(drop)
    })
}

/// A name, and what runs under it.
type Named = (String, Box<dyn Fn() -> Result<()>>);

fn kernels() -> Result<Vec<Named>> {
    let mut all: Vec<Named> = Vec::new();
    let conv = Conv2d { padding: [1, 1], ..Conv2d::default() };
    let weight = Backward::Conv2dWeight { conv, shape: [40, 32, 3, 3].try_into()? };
    let norm = Norm { kind: NormKind::Layer { dims: 1 }, eps: 1e-5, affine: false, act: None };
    for dtype in [DType::F32, DType::F16, DType::BF16] {
        let mut add = |name: &str, op: Op, ins: &'static [&'static [usize]]| {
            all.push((format!("{name} {dtype}"), Box::new(move || operator(&op, dtype, ins))));
        };
        add("matmul", Op::MatMul(MatMul::default()), &[&[100, 150], &[150, 130]]);
        add("matmul of 2 rows", Op::MatMul(MatMul::default()), &[&[2, 300], &[300, 400]]);
        add("conv2d", Op::Conv2d(conv, Epilogue::default()), &[&[2, 32, 12, 12], &[40, 32, 3, 3]]);
        add("conv2d weight gradient", Op::Backward(weight.clone()), &[&[2, 40, 12, 12], &[2, 32, 12, 12]]);
        add("softmax", Op::Softmax { dim: 1, log: false }, &[&[40, 500]]);
        add("layer norm", Op::Norm(norm), &[&[40, 500]]);
    }
    all.push(("adamw f32".into(), Box::new(adamw)));
    Ok(all)
}
