//! `binade doctor`: this machine, and the precision the field recommends for it and for others.

use std::process::ExitCode;

use anyhow::Result;
use binade::amp::{Hardware, LossScale, Policy, Purpose};
use binade::cpu::simd::{Isa, vector_length};

use binade::cli::output::line;
use binade::cli::threads;
use binade::tensor::Device;

#[derive(clap::Args)]
pub struct Args {}

/// What runs on NVIDIA's devices, as far as this program knows them.
#[cfg(feature = "cuda-interpreted")]
fn cuda() -> Result<()> {
    let driver =
        if cfg!(feature = "cuda") { "by NVIDIA's driver" } else { "interpreted: feature cuda adds the driver" };
    let host: Vec<String> = binade::cuda::ON_HOST.iter().map(|(name, why)| format!("{name} ({why})")).collect();
    line(format_args!("cuda      {driver}; run by the host: {}\n", host.join(", ")))?;
    Ok(())
}

#[cfg(not(feature = "cuda-interpreted"))]
fn cuda() -> Result<()> {
    line("cuda      none: features cuda and cuda-interpreted add it\n")?;
    Ok(())
}

pub fn run(_: &Args) -> Result<ExitCode> {
    threads::start(None)?;
    let isa = Isa::detect();
    let length = vector_length(isa);
    let hint = "the environment variable BINADE_ISA chooses another level";
    line(format_args!("kernels   {}, {length} f32 at a time ({hint})", isa.name()))?;
    line(format_args!("threads   {}", rayon::current_num_threads()))?;
    line(format_args!("devices   {}", Device::names().join(", ")))?;
    cuda()?;
    for purpose in [Purpose::Training, Purpose::Inference] {
        line(if purpose == Purpose::Training { "training" } else { "inference" })?;
        for hardware in Hardware::ALL {
            let r = Policy::recommend(hardware, purpose);
            let dtype = r.policy.compute().map_or("f32".into(), |d| d.to_string());
            let scaling = if r.loss_scale == LossScale::Off { "" } else { " with dynamic loss scaling" };
            line(format_args!("  {:<26} {dtype}{scaling}: {}", hardware.name(), r.why))?;
        }
    }
    Ok(ExitCode::SUCCESS)
}
