//! `binade sample`: images or text, by what the folder holds.

mod images;
mod plain;
mod text;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use binade::cli::device::On;
use binade::cli::flags::{positive, whole};
use binade::cli::threads;
use binade::diffusion::ImagePipeline;
use binade::models::read_config;
use binade::train::{Precision, RunConfig};

use crate::train::PrecisionName;
use crate::train::given::Given;
use crate::train::job::Job;

#[derive(clap::Args)]
#[command(after_help = "Example: binade sample runs/gpt-1 --prompt ROMEO --tokens 20")]
pub struct Args {
    #[command(flatten)]
    common: Common,
    #[command(flatten)]
    text: Given<text::Args>,
    #[command(flatten)]
    images: Given<images::Args>,
}

/// Flags of images and of text.
#[derive(clap::Args)]
struct Common {
    /// A run's folder, a folder of a Stable Diffusion pipeline (model_index.json, unet, …), or one of GPT-2 as
    /// transformers writes it
    folder: PathBuf,
    /// What the image shall show, or the text that goes on
    #[arg(long, default_value = "")]
    prompt: String,
    /// Seed of all that is drawn
    #[arg(long, default_value_t = 0, value_parser = whole, allow_negative_numbers = true)]
    seed: u64,
    /// Precision of weights and arithmetic; a pipeline decodes images in f32 [default: fp32, or a run's first]
    #[arg(long, value_enum)]
    precision: Option<PrecisionName>,
    #[command(flatten)]
    on: On,
    /// Threads, at most one per core [default: one per core]
    #[arg(long, value_parser = positive::<usize>, allow_negative_numbers = true)]
    threads: Option<usize>,
}

impl Common {
    fn precision(&self) -> Result<Option<Precision>> {
        Ok(match self.precision {
            None => None,
            Some(PrecisionName::Fp32) => Some(Precision::Fp32),
            Some(PrecisionName::Fp16) => Some(Precision::Fp16),
            Some(PrecisionName::Bf16) => Some(Precision::Bf16),
            Some(PrecisionName::All) => bail!("--precision all is for training: a model draws or writes in one"),
        })
    }
}

/// Draws with the pipeline of a folder: one that is led by texts, or another.
fn draw(common: &Common, args: &images::Args, folder: &Path) -> Result<ExitCode> {
    if ImagePipeline::is_in(folder)? { plain::run(common, args, folder) } else { images::run(common, args, folder) }
}

pub fn run(args: &Args) -> Result<ExitCode> {
    threads::start(args.common.threads)?;
    args.common.on.run(|| sample(args))
}

fn sample(args: &Args) -> Result<ExitCode> {
    let Args { common, text, images } = args;
    let folder = &common.folder;
    if folder.join("model_index.json").exists() {
        if let Some(flag) = text.first() {
            bail!("{flag} is a flag for text, and {} is a pipeline that draws images", folder.display());
        }
        return draw(common, images.flags(), folder);
    }
    let config = read_config(folder)?;
    // What transformers writes has no such key.
    let opened = if config.get("made_from").is_some() {
        let run = RunConfig::read(folder)?;
        match Job::of(&run.name, &run.made_from).with_context(|| folder.display().to_string())? {
            Job::Gpt(options) => text::of_run(folder, &run, options.prepared()?, common.precision()?)?,
            Job::Diffusion(_) => {
                let at = plain::of_run(folder, &run, common.precision()?)?;
                return draw(common, images.flags(), &at);
            }
            other => {
                bail!("{}: a run of `train {}`, which neither writes nor draws", folder.display(), other.what())
            }
        }
    } else {
        text::of_folder(folder, common.precision()?, text.flags().tokenizer)?
    };
    if let Some(flag) = images.first() {
        bail!("{flag} is a flag for images, and {} is a model that writes text", folder.display());
    }
    text::run(&opened, common, text.flags())
}
