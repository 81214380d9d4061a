//! `binade doctor`: this machine, and the precision the field recommends for it and for others.

use std::process::ExitCode;

use anyhow::Result;
use binade::amp::{Hardware, LossScale, Policy, Purpose};
use binade::cpu::simd::{Isa, vector_length};

use binade::cli::output::line;
use binade::cli::threads;

#[derive(clap::Args)]
pub struct Args {}

pub fn run(_: &Args) -> Result<ExitCode> {
    threads::start(None)?;
    let isa = Isa::detect();
    let length = vector_length(isa);
    let hint = "the environment variable BINADE_ISA chooses another level";
    line(format_args!("kernels   {}, {length} f32 at a time ({hint})", isa.name()))?;
    line(format_args!("threads   {}", rayon::current_num_threads()))?;
    line("cuda      none: this version has no CUDA backend\n")?;
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
