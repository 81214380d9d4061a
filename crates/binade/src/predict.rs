//! `binade predict`: which classes a model finds in images.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result, ensure};
use binade::autograd::{Var, eval, no_grad};
use binade::cli::device::On;
use binade::cli::flags::positive;
use binade::cli::output::{note, verdict_line};
use binade::cli::threads;
use binade::models::{Classifier, Preparation};
use binade::train::{Pixels, Precision};
use binade::weights::LoadOptions;
use clap::ValueEnum;
use serde_json::{Value, json};

use super::saved::{Saved, resize};

#[derive(clap::Args)]
#[command(after_help = "Example: binade predict runs/digits-1 shown/000000-4.png")]
pub struct Args {
    /// Folder of torchvision's, timm's or transformers' ResNet or ViT, or a run of `train vision`
    folder: PathBuf,
    /// PNG and JPEG files
    #[arg(required = true)]
    images: Vec<PathBuf>,
    /// Classes to show of each image
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = positive::<usize>, allow_negative_numbers = true)]
    top: usize,
    /// Precision of the model
    #[arg(long, value_enum, default_value = "fp32")]
    precision: One,
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    on: On,
    /// Threads, at most one per core [default: one per core]
    #[arg(long, value_parser = positive::<usize>, allow_negative_numbers = true)]
    threads: Option<usize>,
}

#[derive(Clone, Copy, ValueEnum)]
enum One {
    Fp32,
    Fp16,
    Bf16,
}

impl From<One> for Precision {
    fn from(one: One) -> Precision {
        match one {
            One::Fp32 => Precision::Fp32,
            One::Fp16 => Precision::Fp16,
            One::Bf16 => Precision::Bf16,
        }
    }
}

pub fn run(args: &Args) -> Result<ExitCode> {
    threads::start(args.threads)?;
    args.on.run(|| predict(args))
}

fn predict(args: &Args) -> Result<ExitCode> {
    let saved = Saved::open(&args.folder, &LoadOptions::default())?;
    let (classifier, preparation, names) = saved.classifier().with_context(|| args.folder.display().to_string())?;
    let policy = Precision::from(args.precision).policy();
    let (mut all, mut failed) = (Vec::new(), false);
    for path in &args.images {
        let found = no_grad(|| eval(|| policy.run(|| found(path, &classifier, &preparation))));
        match found {
            Ok(probabilities) => {
                let best = best(&probabilities, args.top);
                if args.json {
                    all.push(told(path, &best, &names));
                } else {
                    let shown = best.iter().map(|(class, p)| format!("{} {:.2} %", names[*class], 100.0 * p));
                    verdict_line(format_args!("{}: {}", path.display(), shown.collect::<Vec<_>>().join(", ")))?;
                }
            }
            Err(error) => {
                failed = true;
                if args.json {
                    all.push(json!({ "image": path.display().to_string(), "error": format!("{error:#}") }));
                }
                note(format_args!("error: {error:#}"));
            }
        }
    }
    if args.json {
        verdict_line(serde_json::to_string_pretty(&all)?)?;
    }
    Ok(ExitCode::from(failed as u8))
}

fn told(path: &Path, best: &[(usize, f64)], names: &[String]) -> Value {
    let of = |(class, p): &(usize, f64)| json!({ "class": class, "name": names[*class], "probability": p });
    json!({ "image": path.display().to_string(), "classes": best.iter().map(of).collect::<Vec<_>>() })
}

/// An image as a model wants it.
pub fn input(path: &Path, classifier: &Classifier<'_>, preparation: &Preparation) -> Result<Var> {
    let image = Pixels::open(path)?.with_channels(classifier.channels)?.prepared(&resize(preparation));
    let plane = (image.height * image.width).max(1);
    let normalised = image.planes().into_iter().enumerate().map(|(i, pixel)| {
        let c = i / plane;
        (pixel as f32 / 255.0 - preparation.mean[c] as f32) / preparation.std[c] as f32
    });
    let normalised = normalised.collect::<Vec<f32>>();
    Ok(Var::from_slice(&normalised, &[1, image.channels, image.height, image.width])?)
}

/// The probability of each class in an image.
fn found(path: &Path, classifier: &Classifier<'_>, preparation: &Preparation) -> Result<Vec<f64>> {
    let x = input(path, classifier, preparation)?;
    let logits = classifier.layer.forward(&x)?.array().to_f64_vec()?;
    let largest = logits.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let sum: f64 = logits.iter().map(|l| (l - largest).exp()).sum();
    ensure!(sum.is_finite(), "{}: the model gives no numbers for it", path.display());
    Ok(logits.iter().map(|l| (l - largest).exp() / sum).collect())
}

/// The most likely classes, with their probabilities.
fn best(probabilities: &[f64], top: usize) -> Vec<(usize, f64)> {
    let mut all: Vec<(usize, f64)> = probabilities.iter().copied().enumerate().collect();
    all.sort_by(|a, b| b.1.total_cmp(&a.1));
    all.truncate(top);
    all
}
