//! `binade export`: a trained run or a model's folder for inference: in f32, f16, bf16, or with 8-bit weights.

use std::any::Any;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result, anyhow, bail, ensure};
use binade::autograd::{Var, scope};
use binade::cli::output::{line, note};
use binade::cli::threads;
use binade::models::{AnyModel, GptConfig, Quantise, Rounding, is_quantised_folder};
use binade::nn::quantised::{Calibration, Threshold};
use binade::nn::{Layer, Module, load_state_dict, read_safetensors, replace_file};
use binade::tensor::{Array, Class, DType};
use binade::train::{Batch, Config, Precision, RunConfig, Score, Trainer, images_below};
use binade::weights::{LoadOptions, SaveOptions, Weights, save};
use serde_json::Value;

use crate::convert::copy_others;
use crate::predict::input;
use crate::saved::{PREPROCESSOR, Saved, is_run};
use crate::train::gpt;
use crate::train::job::{Job, Use};

#[derive(clap::Args)]
#[command(after_help = "Example: binade export runs/digits-1 --dtype int8 --to digits-int8")]
pub struct Args {
    /// Run folder, as `binade train` writes it, or a model's folder with config.json and weights
    from: PathBuf,
    /// What weights are stored as
    #[arg(long, value_enum)]
    dtype: To,
    /// Folder to write
    #[arg(long, value_name = "DIR")]
    to: PathBuf,
    /// Of a run, which model [default: the first that was trained]
    #[arg(long, value_enum)]
    precision: Option<Trained>,
    /// What calibrates: of a run its data, where they are not found by themselves; of a model's folder images in a
    /// folder, or a text
    #[arg(long, value_name = "PATH", conflicts_with_all = ["dynamic", "weight_only"])]
    calibrate: Option<PathBuf>,
    /// Where activations are cut off
    #[arg(long, value_enum, default_value = "min-max")]
    cut: Cut,
    /// Of `--cut percentile`, how many percent are kept
    #[arg(long, default_value_t = 99.99, value_name = "P", value_parser = percent, allow_negative_numbers = true)]
    percentile: f64,
    /// Round activations by their largest magnitude at each run, in place of calibrating; so are those of a model's
    /// folder without --calibrate
    #[arg(long)]
    dynamic: bool,
    /// Round weights alone
    #[arg(long, conflicts_with = "dynamic")]
    weight_only: bool,
    /// Layers that stay in f32, by dotted names with * and ?; more than once for several
    #[arg(long, value_name = "GLOB")]
    keep: Vec<String>,
    /// Write values that a narrower dtype makes infinite
    #[arg(long)]
    allow_overflow: bool,
}

#[derive(Clone, Copy, PartialEq, clap::ValueEnum)]
enum To {
    F32,
    F16,
    Bf16,
    Int8,
}

/// A precision that a run's model was trained in.
#[derive(Clone, Copy, clap::ValueEnum)]
enum Trained {
    Fp32,
    Fp16,
    Bf16,
}

impl From<Trained> for Precision {
    fn from(trained: Trained) -> Precision {
        match trained {
            Trained::Fp32 => Precision::Fp32,
            Trained::Fp16 => Precision::Fp16,
            Trained::Bf16 => Precision::Bf16,
        }
    }
}

#[derive(Clone, Copy, clap::ValueEnum)]
enum Cut {
    /// At the largest that was seen
    MinMax,
    /// At a percentile of what was seen
    Percentile,
    /// Where the rounded distribution is closest, by relative entropy
    Entropy,
}

fn percent(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(percent) if percent > 0.0 && percent <= 100.0 => Ok(percent),
        Ok(_) | Err(_) => Err("expected a number above 0 and at most 100".into()),
    }
}

/// Samples that calibrate, and that a model is evaluated with at a time.
const CALIBRATE: usize = 512;
const BATCH: usize = 64;

pub fn run(args: &Args) -> Result<ExitCode> {
    threads::start(None)?;
    let to = args.to.display();
    ensure!(!args.to.join("config.json").exists(), "{to} already holds a model: name another --to");
    if args.dtype != To::Int8 {
        let only = args.weight_only || args.dynamic || !args.keep.is_empty();
        ensure!(!only, "--weight-only, --dynamic and --keep are about --dtype int8");
    }
    let from = &args.from;
    ensure!(
        !is_quantised_folder(from),
        "{}: its weights have 8 bits already; export what it was made of",
        from.display()
    );
    match RunConfig::read(from) {
        Ok(config) => of_run(args, &config)?,
        // A model's folder has a config.json of another kind.
        Err(error) => match binade::models::read_config(from) {
            Ok(config) if config.get("precisions").is_none() => of_folder(args)?,
            Ok(_) | Err(_) => return Err(error.into()),
        },
    }
    let files = Weights::open(&args.to)?;
    let bytes: u64 = files.files().map(|file| std::fs::metadata(file).map_or(0, |m| m.len())).sum();
    line(format_args!("{to}: {:.2} MB of weights", bytes as f64 / 1e6))?;
    Ok(ExitCode::SUCCESS)
}

impl Args {
    fn threshold(&self) -> Threshold {
        match self.cut {
            Cut::MinMax => Threshold::MinMax,
            Cut::Percentile => Threshold::Percentile(self.percentile),
            Cut::Entropy => Threshold::Entropy,
        }
    }

    fn float(&self) -> Option<DType> {
        match self.dtype {
            To::F32 => Some(DType::F32),
            To::F16 => Some(DType::F16),
            To::Bf16 => Some(DType::BF16),
            To::Int8 => None,
        }
    }

    /// Writes the model in a float dtype, under its library's names.
    fn save_float(&self, model: &AnyModel, config: &Value, dtype: DType) -> Result<()> {
        let allow_overflow = self.allow_overflow;
        let options = SaveOptions { dtype: Some(dtype), allow_overflow, ..SaveOptions::default() };
        save(model.module(), &self.to, &model.sources(&Default::default()), &options)?
            .losses()
            .into_iter()
            .for_each(note);
        self.write("config.json", config)
    }

    /// Rounds the model's weights and writes it.
    fn save_quantised(&self, model: &AnyModel, config: &Value, rounding: Rounding) -> Result<()> {
        let done = model.quantise(&Quantise { rounding, keep: self.keep.clone() })?;
        model.save_quantised(&done, config, &self.to)?;
        let kept = if done.kept.is_empty() { String::new() } else { format!(", kept {}", done.kept.join(", ")) };
        line(format_args!("{} layers with 8-bit weights{kept}", done.layers.len()))?;
        Ok(())
    }

    fn write(&self, name: &str, value: &Value) -> Result<()> {
        let path = self.to.join(name);
        let text = format!("{value:#}\n");
        replace_file(&path, |file| file.write_all(text.as_bytes())).with_context(|| path.display().to_string())
    }
}

fn of_folder(args: &Args) -> Result<()> {
    let from = args.from.display();
    ensure!(args.precision.is_none(), "--precision is about a run, and {from} is a model's folder");
    let saved = Saved::open(&args.from, &LoadOptions::default())?;
    saved.report.losses().into_iter().for_each(note);
    match args.float() {
        Some(dtype) => args.save_float(&saved.model, &saved.config, dtype)?,
        None => {
            let saved = Saved { model: saved.model.folded()?, ..saved };
            let rounding = match &args.calibrate {
                _ if args.weight_only => Rounding::WeightOnly,
                Some(path) => Rounding::Static(calibrate_by(path, &saved, &args.from)?, args.threshold()),
                None => Rounding::Dynamic,
            };
            args.save_quantised(&saved.model, &saved.config, rounding)?;
        }
    }
    copy_others(&args.from, &args.to)
}

fn of_run(args: &Args, config: &RunConfig) -> Result<()> {
    let file = |p: Precision| args.from.join(format!("checkpoint-{}.safetensors", p.name()));
    let wanted = args.precision.map(Precision::from);
    let mut there = config.precisions.iter().copied().filter(|&p| wanted.is_none_or(|w| w == p) && file(p).exists());
    let Some(precision) = there.next() else {
        bail!("{}: no checkpoint{}", args.from.display(), wanted.map_or("".into(), |p| format!(" in {}", p.name())));
    };
    let job = Job::of(&config.name, &config.made_from).with_context(|| args.from.display().to_string())?;
    let job = job.with_data(args.calibrate.clone());
    job.run(Export { args, config, checkpoint: file(precision) })?;
    match &job {
        Job::Gpt(options) => gpt::write_vocabulary(&args.to, &options.prepared()?.vocabulary),
        Job::Vision(_) | Job::Diffusion(_) | Job::Vae(_) => Ok(()),
    }
}

/// Writes the model of a checkpoint, and tells how good it is.
struct Export<'a> {
    args: &'a Args,
    config: &'a RunConfig,
    checkpoint: PathBuf,
}

impl Use for Export<'_> {
    type Out = ();

    fn settings(&self) -> &Config {
        &self.config.fit
    }

    fn with<M: Module>(self, trainer: Trainer<'_, M>) -> Result<()> {
        let Export { args, checkpoint, .. } = self;
        let model = (trainer.build)()?;
        load_state_dict(&model, &weights(&checkpoint)?)?;
        let other = || anyhow!("this kind of model has no folder of its own; export takes classifiers and GPT");
        let model = AnyModel::of(&model as &dyn Any).ok_or_else(other)?;
        // A run of images knows its classes' names, and how images are prepared.
        let saved = is_run(&args.from).then(|| Saved::open(&args.from, &LoadOptions::default())).transpose()?;
        let config = saved.as_ref().map_or_else(|| model.to_config(), |saved| saved.config.clone());
        match args.float() {
            Some(dtype) => args.save_float(&model, &config, dtype)?,
            None => {
                let score = |model: &AnyModel| -> Result<Score> {
                    evaluate(&trainer, model.as_any().downcast_ref::<M>().ok_or_else(other)?)
                };
                let model = model.folded()?;
                let before = score(&model)?;
                let rounding = match (args.weight_only, args.dynamic) {
                    (true, _) => Rounding::WeightOnly,
                    (false, true) => Rounding::Dynamic,
                    (false, false) => Rounding::Static(calibrate(&trainer, &model)?, args.threshold()),
                };
                args.save_quantised(&model, &config, rounding)?;
                tell(before, score(&model)?)?;
            }
        }
        match saved.and_then(|saved| saved.preprocessor) {
            Some(preprocessor) => args.write(PREPROCESSOR, &preprocessor),
            None => Ok(()),
        }
    }
}

/// The model's tensors of a checkpoint; averages of weights, where they were kept, in the place of those.
fn weights(checkpoint: &Path) -> Result<Vec<(String, Array)>> {
    let (tensors, _) = read_safetensors(checkpoint, Class::Weights)?;
    let mut weights = BTreeMap::new();
    for prefix in ["model.", "ema."] {
        let of = |(name, array): &(String, Array)| Some((name.strip_prefix(prefix)?.to_string(), array.clone()));
        weights.extend(tensors.iter().filter_map(of));
    }
    Ok(weights.into_iter().collect())
}

/// How good the model is before and after.
fn tell(before: Score, after: Score) -> Result<()> {
    line(format_args!("test loss {:.4} in f32, {:.4} with 8-bit weights", before.loss, after.loss))?;
    if let (Some(a), Some(b)) = (before.right, after.right) {
        let [a, b] = [a, b].map(|right| 100.0 * right / before.count);
        line(format_args!("top-1 {a:.2} % in f32, {b:.2} % with 8-bit weights"))?;
    }
    Ok(())
}

/// What the layers of a model read of the first training samples, without augmentation.
fn calibrate<M: Module>(trainer: &Trainer<'_, M>, model: &AnyModel) -> Result<Calibration> {
    let own = model.as_any().downcast_ref::<M>().ok_or_else(|| anyhow!("another model"))?;
    let calibration = Calibration::new(model.module());
    let count = trainer.data.train.len().min(CALIBRATE);
    for first in (0..count).step_by(BATCH) {
        let samples: Vec<usize> = (first..count.min(first + BATCH)).collect();
        let batch = Batch::of(&*trainer.data.train, &samples, None)?;
        calibration.watch(|| trainer.task.loss(own, &batch).map(drop))?;
    }
    Ok(calibration)
}

/// What the layers of a model's folder read of the first images below a folder, or of the beginning of a text.
fn calibrate_by(path: &Path, saved: &Saved, from: &Path) -> Result<Calibration> {
    let calibration = Calibration::new(saved.model.module());
    if let AnyModel::Gpt(model) = &saved.model {
        let GptConfig { vocabulary, context, .. } = *model.config();
        let text = std::fs::read_to_string(path).with_context(|| format!("--calibrate: {}", path.display()))?;
        let tokens: Vec<i64> =
            gpt::vocabulary_of(from, vocabulary)?.encode(&text)?.into_iter().map(i64::from).collect();
        ensure!(!tokens.is_empty(), "--calibrate: {} is empty", path.display());
        for tokens in tokens.chunks(context).take(BATCH) {
            calibration.watch(|| model.forward(&Var::from_slice(tokens, &[1, tokens.len()])?).map(drop))?;
        }
        return Ok(calibration);
    }
    let (classifier, preparation, _) =
        saved.classifier().with_context(|| format!("--calibrate: {}", from.display()))?;
    let images = images_below(path)?;
    ensure!(!images.is_empty(), "--calibrate: no PNG or JPEG files in {}", path.display());
    for image in images.iter().take(CALIBRATE) {
        let x = input(image, &classifier, &preparation)?;
        calibration.watch(|| classifier.layer.forward(&x).map(drop))?;
    }
    Ok(calibration)
}

/// The whole test set.
fn evaluate<M: Module>(trainer: &Trainer<'_, M>, model: &M) -> Result<Score> {
    let test = &*trainer.data.test;
    let mut sum = Score { right: Some(0.0), ..Score::default() };
    for first in (0..test.len()).step_by(BATCH) {
        let samples: Vec<usize> = (first..test.len().min(first + BATCH)).collect();
        let batch = Batch::of(test, &samples, None)?;
        let score = scope::eval(|| trainer.task.evaluate(model, &batch))?;
        sum.loss += score.loss * score.count;
        sum.count += score.count;
        sum.right = sum.right.zip(score.right).map(|(a, b)| a + b);
    }
    sum.loss /= sum.count.max(1.0);
    Ok(sum)
}
