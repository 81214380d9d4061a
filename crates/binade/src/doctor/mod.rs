//! `binade doctor`: this machine, and the precision the field recommends for it and for others; or a device, on which
//! every operator is run.

mod registry;
mod steps;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use binade::amp::{Hardware, LossScale, Policy, Purpose};
use binade::cpu::simd::{Isa, vector_length};

use binade::cli::device::On;
use binade::cli::flags::positive;
use binade::cli::output::{line, verdict_line};
use binade::cli::threads;
use binade::tensor::Device;
use serde_json::json;

#[derive(clap::Args)]
#[command(after_help = "Example: binade doctor")]
pub struct Args {
    #[command(flatten)]
    on: On,
    /// With --device: only operators whose names have this in them, and no training
    #[arg(long, value_name = "TEXT", requires = "device")]
    only: Option<String>,
    /// With --device: only the training steps
    #[arg(long, requires = "device", conflicts_with_all = ["only", "digests", "against"])]
    training: bool,
    /// With --device: samples of each operator and dtype at most [default: all]
    #[arg(long, value_name = "N", requires = "device", default_value_t = usize::MAX, hide_default_value = true,
          value_parser = positive::<usize>)]
    samples: usize,
    /// With --device: write a digest of each result's bits
    #[arg(long, value_name = "FILE", requires = "device")]
    digests: Option<PathBuf>,
    /// With --device: say which operators have other bits than those that --digests wrote on another device
    #[arg(long, value_name = "FILE", requires = "device")]
    against: Option<PathBuf>,
    /// Of this machine: print JSON
    #[arg(long, conflicts_with = "device")]
    json: bool,
}

/// Runs every operator on a device and compares it with f64, then trains beside the CPU.
fn examine(device: &Device, args: &Args) -> Result<ExitCode> {
    let capability = capability(device).map_or(String::new(), |n| format!(", capability {}.{}", n / 10, n % 10));
    verdict_line(format_args!("device    {}{capability}", device.name()))?;
    let mut sound = args.training || registry::run_all(device, args)?;
    if args.only.is_none() {
        verdict_line("training  two steps of each model")?;
        sound &= steps::run_all(device)?;
    }
    fallbacks(device)?;
    Ok(if sound { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// The compute capability of a device that has one, 90 for 9.0.
#[cfg(feature = "cuda-interpreted")]
fn capability(device: &Device) -> Option<u32> {
    binade::cuda::Cuda::of(device).map(|cuda| cuda.capability())
}

#[cfg(not(feature = "cuda-interpreted"))]
fn capability(_: &Device) -> Option<u32> {
    None
}

/// What the host ran for a device.
#[cfg(feature = "cuda-interpreted")]
fn fallbacks(device: &Device) -> Result<()> {
    let Some(cuda) = binade::cuda::Cuda::of(device) else { return Ok(()) };
    let counts = cuda.counts();
    let host: Vec<String> = counts.fallbacks.iter().map(|(name, n)| format!("{name} {n}")).collect();
    let host = if host.is_empty() { "nothing".to_string() } else { host.join(", ") };
    Ok(verdict_line(format_args!("kernels   {} launched; run by the host: {host}", counts.launches))?)
}

#[cfg(not(feature = "cuda-interpreted"))]
fn fallbacks(_: &Device) -> Result<()> {
    Ok(())
}

/// What runs on NVIDIA's devices, as far as this program knows them.
#[cfg(feature = "cuda-interpreted")]
fn cuda() -> Result<()> {
    let driver =
        if binade::cuda::HAS_DRIVER { "by NVIDIA's driver" } else { "interpreted: feature cuda adds the driver" };
    let host: Vec<String> = binade::cuda::ON_HOST.iter().map(|(name, why)| format!("{name} ({why})")).collect();
    line(format_args!("cuda      {driver}; run by the host: {}\n", host.join(", ")))?;
    Ok(())
}

#[cfg(not(feature = "cuda-interpreted"))]
fn cuda() -> Result<()> {
    line("cuda      none: features cuda and cuda-interpreted add it\n")?;
    Ok(())
}

pub fn run(args: &Args) -> Result<ExitCode> {
    threads::start(None)?;
    if args.on.is_given() {
        return examine(&args.on.open()?, args);
    }
    let isa = Isa::detect();
    let length = vector_length(isa);
    if args.json {
        let row = |(purpose, hardware): (Purpose, Hardware)| {
            let r = Policy::recommend(hardware, purpose);
            let purpose = if purpose == Purpose::Training { "training" } else { "inference" };
            json!({
                "purpose": purpose, "hardware": hardware.name(), "why": r.why,
                "dtype": r.policy.compute().map_or("f32".into(), |dtype| dtype.to_string()),
                "loss_scaling": r.loss_scale != LossScale::Off,
            })
        };
        let both = [Purpose::Training, Purpose::Inference].into_iter();
        let all = both.flat_map(|purpose| Hardware::ALL.into_iter().map(move |hardware| (purpose, hardware)));
        line(serde_json::to_string_pretty(&json!({
            "kernels": isa.name(), "f32_at_a_time": length, "threads": rayon::current_num_threads(),
            "devices": Device::names(), "recommended": all.map(row).collect::<Vec<_>>(),
        }))?)?;
        return Ok(ExitCode::SUCCESS);
    }
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
