//! `binade sample` of a diffusion model without text: a folder of diffusers, or a run of `train diffusion`.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Result, bail, ensure};
use binade::autograd::{Var, eval, no_grad, scope};
use binade::cli::output::line;
use binade::diffusion::{Condition, Guidance, ImagePipeline, Sampler, draw};
use binade::tensor::Key;
use binade::train::{Precision, RunConfig};

use super::Common;
use super::images::{Args, decoded, merged, noise, write};

/// How far a class leads where nothing is said.
const GUIDANCE: f64 = 2.0;

/// The pipeline that a run has written: of this precision, or of the first that is trained.
pub fn of_run(folder: &Path, run: &RunConfig, precision: Option<Precision>) -> Result<PathBuf> {
    let asked = precision.map_or_else(|| run.precisions.clone(), |one| vec![one]);
    let folders = asked.iter().map(|precision| folder.join(precision.name()));
    let Some(found) = folders.into_iter().find(|at| at.join("model_index.json").exists()) else {
        let names: Vec<&str> = asked.iter().map(|precision| precision.name()).collect();
        bail!(
            "{}: no pipeline in {}: the run is not at its end, or of changes of low rank (see --lora)",
            folder.display(),
            names.join(" or ")
        );
    };
    Ok(found)
}

/// Draws with the pipeline of a folder. The network runs in the precision asked for.
pub fn run(common: &Common, args: &Args, folder: &Path) -> Result<ExitCode> {
    ensure!(common.prompt.is_empty(), "--prompt: {} is not led by a text; see --class", folder.display());
    let pipeline = ImagePipeline::open(folder)?;
    merged(&[("unet", &pipeline.unet)], args)?;
    let config = args.sampler.map_or(pipeline.scheduler.clone(), |kind| pipeline.scheduler.with_kind(kind));
    let sampler = Sampler::new(&config, args.steps, args.eta)?;
    let guidance = args.guidance.unwrap_or(if pipeline.no_class().is_some() { GUIDANCE } else { 1.0 });
    let guidance = Guidance::new(guidance, args.rescale)?;
    let halvings = pipeline.vae.as_ref().map_or(0, |vae| vae.config().block_out_channels.len() - 1);
    let policy = common.precision()?.unwrap_or(Precision::Fp32).policy();
    let key = Key::new(common.seed, 0).stream("noise");
    let images = no_grad(|| {
        eval(|| {
            scope::with_key(key.seed, key.iteration, || -> Result<Var> {
                let noise = noise(args, pipeline.unet.channels(), halvings, pipeline.unet.size())?;
                let labels = labels(&pipeline, args, noise.shape()[0])?;
                let labels = labels.each_ref().map(|l| l.as_ref().map_or(Condition::Nothing, Condition::Labels));
                let drawn = policy.run(|| draw(&pipeline.unet, &noise, labels, &sampler, guidance, |_, _| Ok(())))?;
                decoded(args, pipeline.decode(&drawn, args.vae_precision)?)
            })
        })
    })?;
    for (i, path) in write(&images, &args.out)?.iter().enumerate() {
        line(format_args!("image {}: {}", i + 1, path.display()))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// The classes of `n` images, and what stands for no class: those asked for in turn, else all that have names.
fn labels(pipeline: &ImagePipeline, args: &Args, n: usize) -> Result<[Option<Var>; 2]> {
    let named: Vec<i64> = match args.class.is_empty() {
        true => (0..pipeline.classes.len() as i64).collect(),
        false => args.class.iter().map(|class| pipeline.label(class)).collect::<Result<_, _>>()?,
    };
    if named.is_empty() && pipeline.unet.labels().is_none() {
        return Ok([None, None]);
    }
    ensure!(!named.is_empty(), "the network has classes without names: give --class, a number");
    let all: Vec<i64> = named.iter().copied().cycle().take(n).collect();
    let none = pipeline.no_class().map(|label| Var::from_slice(&vec![label; n], &[n])).transpose()?;
    Ok([Some(Var::from_slice(&all, &[n])?), none])
}
