//! A recorded run of a pipeline: latents after each step, and the image.

use std::path::Path;

use anyhow::{Context, Result, anyhow, bail};
use binade::autograd::{Var, eval};
use binade::diffusion::{Sampler, SchedulerConfig};
use binade::models::AnyModel;
use binade::models::parity::{Case, Distance, Region};
use binade::nn::Layer;
use binade::weights::LoadOptions;

use super::verdict::Verdict;

/// How far a value of the image, from −1 to 1, may be from the recorded one: 2 of 255.
const IMAGE: f64 = 2.0 * 2.0 / 255.0;
/// And a latent, relative to the largest of its step: a step adds up to what those before it have left.
const LATENT: f64 = 1e-3;

pub fn run(folder: &Path) -> Result<Verdict> {
    let case = Case::open(folder)?;
    let open =
        |part: &str| Ok::<AnyModel, anyhow::Error>(AnyModel::open(&folder.join(part), &LoadOptions::default())?.0);
    let parts = (open("text_encoder")?, open("unet")?, open("vae")?);
    let (AnyModel::ClipText(text), AnyModel::UNet2DCondition(unet), AnyModel::AutoencoderKL(vae)) = parts else {
        bail!(
            "text_encoder, unet and vae are of other classes than CLIPTextModel, UNet2DConditionModel, AutoencoderKL"
        );
    };
    let path = folder.join("scheduler/scheduler_config.json");
    let config = std::fs::read_to_string(&path).with_context(|| path.display().to_string())?;
    let config = SchedulerConfig::read(&config)?;
    let number = |key: &str| case.text(key)?.parse::<f64>().map_err(|e| anyhow!("{key} of the case: {e}"));
    let (steps, guidance) = (number("steps")? as usize, number("guidance")?);
    let sampler = Sampler::new(&config, steps, 0.0)?;
    eval(|| {
        let wanted = case.values("latents")?;
        let each = wanted.len() / steps.max(1);
        let mut verdict = Verdict::default();
        let context = [case.var("in.negative_ids")?, case.var("in.prompt_ids")?];
        let context = [text.forward(&context[0])?, text.forward(&context[1])?];
        let context = Var::cat(&[&context[0], &context[1]], 0)?;
        let network = |x: &Var, time: f64| -> Result<Var> {
            let out = unet.forward(&Var::cat(&[x, x], 0)?, &Var::from_slice(&[time as f32], &[1])?, &context, None)?;
            let n = x.shape()[0];
            let (without, with) = (out.narrow(0, 0, n)?, out.narrow(0, n, n)?);
            Ok((&without + &(&(&with - &without)? * guidance)?)?)
        };
        let latents = sampler.run(&case.var("in.latents")?, network, |step, latents| -> Result<()> {
            let wanted = wanted.get((step - 1) * each..step * each).unwrap_or_default();
            let largest = wanted.iter().fold(f64::MIN_POSITIVE, |most, w| most.max(w.abs()));
            verdict.distances.push(furthest(&format!("latents.{step}"), latents, wanted, largest, LATENT)?);
            Ok(())
        })?;
        let image = vae.decode(&vae.unscaled(&latents)?)?;
        verdict.distances.push(furthest("out", &image, &case.values("out")?, 1.0, IMAGE)?);
        verdict.passed = verdict.distances.iter().all(Distance::fits);
        Ok(verdict)
    })
}

/// The largest difference, in these units.
fn furthest(name: &str, ours: &Var, wanted: &[f64], unit: f64, allowed: f64) -> Result<Distance> {
    let ours = ours.array().to_f64_vec()?;
    if ours.len() != wanted.len() {
        bail!("{name} has {} elements, recorded are {}", ours.len(), wanted.len());
    }
    let differences = ours.iter().zip(wanted).map(|(a, b)| (a - b).abs() / unit);
    let found = differences.fold(0.0, |most: f64, d| if d.is_nan() { f64::INFINITY } else { most.max(d) });
    Ok(Distance { region: Region::F32, name: name.into(), found, allowed, squares: [found * found, 1.0] })
}
