//! `binade sample` of a pipeline's folder: images.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result, bail, ensure};
use binade::amp::Blame;
use binade::autograd::{Var, eval, no_grad, scope};
use binade::cli::flags::positive;
use binade::cli::output::{line, note};
use binade::diffusion::{Guidance, Kind, Pipeline, Sampler, VaePrecision, merge_lora};
use binade::nn::{Module, read_safetensors};
use binade::tensor::{Class, Key};
use binade::train::Precision;

use super::Common;

/// Flags of images alone.
#[derive(clap::Args, Clone, Debug)]
#[group(id = "of images")]
#[command(next_help_heading = "Images")]
pub struct Args {
    /// What it shall not show
    #[arg(long, default_value = "")]
    negative: String,
    /// Tokens instead of the prompt, for folders without a tokenizer
    #[arg(long, value_delimiter = ',', value_name = "ID", conflicts_with = "prompt")]
    prompt_ids: Option<Vec<i64>>,
    /// Tokens instead of what it shall not show
    #[arg(long, value_delimiter = ',', value_name = "ID", conflicts_with = "negative")]
    negative_ids: Option<Vec<i64>>,
    /// Steps, from 1 to as many as the schedule has times
    #[arg(long, default_value_t = 50, value_parser = positive::<usize>, allow_negative_numbers = true)]
    pub steps: usize,
    /// How far the prompt, or a class, leads: 1 is without guidance [default: 7.5; 2 for classes]
    #[arg(long, allow_hyphen_values = true)]
    pub guidance: Option<f64>,
    /// Class to draw, by name or number, of networks that have some; of several images each in turn [default: all]
    #[arg(long, value_delimiter = ',', value_name = "CLASS")]
    pub class: Vec<String>,
    /// Changes of low rank to the network: pytorch_lora_weights.safetensors, or its folder
    #[arg(long, value_name = "PATH")]
    pub lora: Vec<PathBuf>,
    /// How much of them
    #[arg(long, default_value_t = 1.0, allow_hyphen_values = true)]
    pub lora_scale: f64,
    /// Precision in which latents become images; what overflows is done again in fp32
    #[arg(long, value_parser = vae_precision, default_value = "fp32")]
    pub vae_precision: VaePrecision,
    /// How much of the guided noise gets the deviation of the conditional one, from 0 to 1
    #[arg(long, default_value_t = 0.0, allow_hyphen_values = true)]
    pub rescale: f64,
    /// Share of new noise in DDIM's steps, from 0 to 1
    #[arg(long, default_value_t = 0.0, allow_hyphen_values = true)]
    pub eta: f64,
    /// Sampler: ddpm, ddim, euler-a, heun or dpm++2m [default: the folder's]
    #[arg(long, value_parser = sampler)]
    pub sampler: Option<Kind>,
    /// Noise to start from: a safetensors file with one tensor [N, C, h, w], or one named latents or in.latents
    #[arg(long, value_name = "FILE")]
    latents: Option<PathBuf>,
    /// Height and width of the image in pixels, where noise is drawn [default: what the U-Net was made for]
    #[arg(long, value_name = "N", value_parser = positive::<usize>, allow_negative_numbers = true)]
    size: Option<usize>,
    /// Images
    #[arg(long, default_value_t = 1, value_parser = positive::<usize>, allow_negative_numbers = true)]
    images: usize,
    /// Image file; several images get numbers
    #[arg(long, value_name = "FILE", default_value = "sample.png")]
    pub out: PathBuf,
}

fn vae_precision(name: &str) -> Result<VaePrecision, String> {
    let found = VaePrecision::ALL.into_iter().find(|precision| precision.name() == name);
    found.ok_or_else(|| format!("expected one of {}", VaePrecision::ALL.map(VaePrecision::name).join(", ")))
}

fn sampler(name: &str) -> Result<Kind, String> {
    let names: Vec<&str> = Kind::ALL.iter().map(|kind| kind.name()).collect();
    let found = Kind::ALL.into_iter().find(|kind| kind.name() == name);
    found.ok_or_else(|| format!("expected one of {}", names.join(", ")))
}

/// Draws with the pipeline of a folder; of its parts, text encoder and U-Net run in the precision asked for.
pub fn run(common: &Common, args: &Args, folder: &Path) -> Result<ExitCode> {
    let guidance = Guidance::new(args.guidance.unwrap_or(7.5), args.rescale)?;
    ensure!(args.class.is_empty(), "--class: {} is led by a text; see --prompt", common.folder.display());
    let pipeline = Pipeline::open(folder)?;
    merged(&[("unet", &pipeline.unet), ("text_encoder", &pipeline.text_encoder)], args)?;
    let config = args.sampler.map_or(pipeline.scheduler.clone(), |kind| pipeline.scheduler.with_kind(kind));
    let sampler = Sampler::new(&config, args.steps, args.eta)?;
    let tokens = |ids: &Option<Vec<i64>>, text: &str, what: &str| tokens(&pipeline, ids.as_deref(), text, what);
    let (wanted, unwanted) =
        (tokens(&args.prompt_ids, &common.prompt, "prompt")?, tokens(&args.negative_ids, &args.negative, "negative")?);
    let key = Key::new(common.seed, 0).stream("noise");
    let halvings = pipeline.vae.config().block_out_channels.len() - 1;
    let unet = pipeline.unet.config();
    let own = unet.sample_size.as_u64().map(|n| [n as usize; 2]);
    let images = no_grad(|| {
        eval(|| {
            scope::with_key(key.seed, key.iteration, || -> Result<Var> {
                let noise = noise(args, unet.in_channels, halvings, own)?;
                let policy = common.precision()?.unwrap_or(Precision::Fp32).policy();
                let latents = policy.run(|| -> Result<Var> {
                    let (text, without) = (pipeline.encode(&wanted)?, pipeline.encode(&unwanted)?);
                    Ok(pipeline.denoise(&noise, [&text, &without], &sampler, guidance, |_, _| Ok(()))?)
                })?;
                decoded(args, args.vae_precision.decode(&pipeline.vae, &latents)?)
            })
        })
    })?;
    for (i, path) in write(&images, &args.out)?.iter().enumerate() {
        line(format_args!("image {}: {}", i + 1, path.display()))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// The tokens of a text, or those given.
fn tokens(pipeline: &Pipeline, ids: Option<&[i64]>, text: &str, what: &str) -> Result<Vec<i64>> {
    if let Some(ids) = ids {
        return Ok(ids.to_vec());
    }
    let Some(tokenizer) = &pipeline.tokenizer else {
        bail!("the folder has no tokenizer: give --{what}-ids instead of --{what}");
    };
    let tokens = tokenizer.encode(text)?;
    if !tokens.cut.is_empty() {
        note(format_args!("{what}: longer than {} tokens, cut before {:?}", tokenizer.length, tokens.cut));
    }
    Ok(tokens.ids)
}

/// Adds the changes of low rank that are asked for to the weights of the models.
pub fn merged(models: &[(&str, &dyn Module)], args: &Args) -> Result<()> {
    for path in &args.lora {
        let layers = merge_lora(models, path, args.lora_scale)?;
        note(format_args!("{}: changes of {layers} layers", path.display()));
    }
    Ok(())
}

/// Images from latents, with a word where they overflowed.
pub fn decoded(args: &Args, (image, fault): (Var, Option<Blame>)) -> Result<Var> {
    if let Some(fault) = fault {
        note(format_args!("autoencoder in {}: done again in fp32, since {fault}", args.vae_precision.name()));
    }
    Ok(image)
}

/// The noise of the file, or new noise, of images that are halved so often and were `own` pixels high and wide then.
pub fn noise(args: &Args, channels: usize, halvings: usize, own: Option<[usize; 2]>) -> Result<Var> {
    if let Some(path) = &args.latents {
        let (tensors, _) = read_safetensors(path, Class::Activations)?;
        let named = tensors.iter().find(|(name, _)| name == "latents" || name == "in.latents");
        let found = named.or(tensors.first().filter(|_| tensors.len() == 1));
        let Some((_, array)) = found.filter(|(_, a)| a.shape().rank() == 4 && a.shape()[1] == channels) else {
            bail!("{}: expected one tensor [N, {channels}, h, w], or one named latents", path.display());
        };
        return Ok(Var::constant(array.clone()));
    }
    let [h, w] = match args.size {
        Some(size) => {
            ensure!(size.is_multiple_of(1 << halvings), "--size {size} is no multiple of {}", 1 << halvings);
            [size >> halvings; 2]
        }
        None => own.context("the U-Net does not say what size it was made for: give --size")?,
    };
    Ok(Var::normal(0.0, 1.0, &[args.images, channels, h, w])?)
}

/// Writes images `[N, C, H, W]` from −1 to 1 as PNG, grey, in colour or with opacity, and returns their paths.
pub fn write(images: &Var, out: &Path) -> Result<Vec<PathBuf>> {
    let [n, c, h, w] = std::array::from_fn(|d| images.shape()[d]);
    let values = images.array().to_f64_vec()?;
    ensure!([1, 3, 4].contains(&c), "images have 1, 3 or 4 channels, and these have {c}");
    let pixel = |image: usize, at: usize, channel: usize| {
        let value = values[(image * c + channel) * h * w + at];
        ((value / 2.0 + 0.5).clamp(0.0, 1.0) * 255.0).round_ties_even() as u8
    };
    let mut paths = Vec::new();
    for image in 0..n {
        let path = if n == 1 { out.to_path_buf() } else { numbered(out, image + 1) };
        let pixels: Vec<u8> = (0..h * w).flat_map(|at| (0..c).map(move |channel| pixel(image, at, channel))).collect();
        binade::train::write_png(&path, w, c, &pixels)?;
        paths.push(path);
    }
    Ok(paths)
}

fn numbered(out: &Path, number: usize) -> PathBuf {
    let stem = out.file_stem().map_or_else(|| "sample".into(), |stem| stem.to_string_lossy().into_owned());
    out.with_file_name(format!("{stem}-{number}.png"))
}
