//! `binade convert`: a model of one library as a folder of another dtype, other names or other shards.

mod parts;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use anyhow::{Context, Result, bail, ensure};
use binade::cli::output::{line, note};
use binade::cli::threads;
use binade::models::{AnyModel, Names, is_quantised_folder};
use binade::tensor::DType;
use binade::weights::{LoadOptions, Report, SaveOptions, Sources, Weights, save};

use crate::saved::{PREPROCESSOR, Saved, is_run};

#[derive(Clone, clap::Args)]
#[command(after_help = "Example: binade convert runs/digits-1 --to digits")]
pub struct Args {
    /// Folder with config.json and weights; a run of `train vision`; a pipeline's folder; or a single file of Stable
    /// Diffusion 1
    from: PathBuf,
    /// Folder to write
    #[arg(long, value_name = "DIR")]
    to: PathBuf,
    /// Dtype of floating-point tensors in the files
    #[arg(long, value_enum, default_value = "f32")]
    dtype: Float,
    /// Whose names the files have [default: the folder's own]
    #[arg(long, value_enum)]
    names: Option<Library>,
    /// Most bytes of a file: 5GB, 500MB or a number
    #[arg(long, value_name = "SIZE", value_parser = size, default_value = "5GB")]
    max_shard_size: u64,
    /// Write values that a narrower dtype makes infinite
    #[arg(long)]
    allow_overflow: bool,
    /// Take over weights with NaNs
    #[arg(long)]
    allow_nan: bool,
    /// Python with the original library, which then loads what was written, strictly
    #[arg(long, value_name = "PYTHON")]
    python: Option<PathBuf>,
}

#[derive(Clone, Copy, clap::ValueEnum)]
enum Float {
    F32,
    F16,
    Bf16,
}

#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Library {
    Hf,
    Timm,
    Diffusers,
    Ldm,
}

impl Library {
    fn names(self) -> Names {
        match self {
            Library::Hf => Names::Transformers,
            Library::Timm => Names::Timm,
            Library::Diffusers => Names::Diffusers,
            Library::Ldm => Names::Ldm,
        }
    }
}

fn size(text: &str) -> Result<u64, String> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit = match &text[digits.len()..].to_ascii_uppercase()[..] {
        "" | "B" => 1,
        "KB" => 1000,
        "MB" => 1_000_000,
        "GB" => 1_000_000_000,
        "KIB" => 1 << 10,
        "MIB" => 1 << 20,
        "GIB" => 1 << 30,
        other => return Err(format!("{other} is no unit: KB, MB, GB, KiB, MiB or GiB")),
    };
    let count: Option<u64> = digits.trim().parse().ok().filter(|n| *n > 0);
    count.and_then(|n| n.checked_mul(unit)).ok_or_else(|| "expected a size, as 5GB".into())
}

pub fn run(args: &Args) -> Result<ExitCode> {
    threads::start(None)?;
    let same = |a: &Path, b: &Path| a.canonicalize().ok().zip(b.canonicalize().ok()).is_some_and(|(a, b)| a == b);
    ensure!(!same(&args.from, &args.to), "--to is the folder itself: name another");
    let written = if args.from.is_file() {
        parts::from_single_file(args)?
    } else if args.from.join("model_index.json").exists() {
        parts::pipeline(args)?
    } else {
        vec![one(args, &args.from, &args.to)?]
    };
    if let Some(python) = &args.python {
        written.iter().try_for_each(|folder| check(python, folder))?;
    }
    Ok(ExitCode::SUCCESS)
}

impl Args {
    fn load(&self) -> LoadOptions {
        LoadOptions { allow_nan: self.allow_nan, ..LoadOptions::default() }
    }

    fn save(&self, stem: &str) -> SaveOptions {
        let dtype = match self.dtype {
            Float::F32 => DType::F32,
            Float::F16 => DType::F16,
            Float::Bf16 => DType::BF16,
        };
        SaveOptions {
            dtype: Some(dtype),
            max_shard_size: self.max_shard_size,
            stem: stem.into(),
            allow_overflow: self.allow_overflow,
        }
    }
}

/// Converts the folder of one model.
fn one(args: &Args, from: &Path, to: &Path) -> Result<PathBuf> {
    ensure!(
        !is_quantised_folder(from),
        "{} has 8-bit weights: convert what it was made of, and export that",
        from.display()
    );
    let saved = Saved::open(from, &args.load())?;
    tell(&saved.report)?;
    let ((config, preprocessor), sources) = match args.names {
        Some(library) => {
            let (config, sources) = saved.model.named(library.names())?;
            (saved.described(config)?, sources)
        }
        None => {
            let stored = if is_run(from) { BTreeSet::new() } else { Weights::open(from)?.names() };
            ((saved.config.clone(), saved.preprocessor.clone()), saved.model.sources(&stored))
        }
    };
    write(args, &saved.model, &config, &sources, to)?;
    if !is_run(from) {
        copy_others(from, to)?;
    }
    if let Some(preprocessor) = preprocessor {
        write_text(&to.join(PREPROCESSOR), &format!("{preprocessor:#}\n"))?;
    }
    Ok(to.to_path_buf())
}

/// Writes weights and configuration.
fn write(args: &Args, model: &AnyModel, config: &serde_json::Value, sources: &Sources, to: &Path) -> Result<()> {
    let stem = if config.get("_class_name").is_some() { "diffusion_pytorch_model" } else { "model" };
    let report = save(model.module(), to, sources, &args.save(stem))?;
    tell(&report)?;
    write_text(&to.join("config.json"), &format!("{config:#}\n"))?;
    line(format_args!("{}: {} tensors", to.display(), report.loaded.len()))?;
    Ok(())
}

fn write_text(path: &Path, text: &str) -> Result<()> {
    binade::nn::replace_file(path, |file| file.write_all(text.as_bytes())).with_context(|| path.display().to_string())
}

/// What was lost, and what was left out.
fn tell(report: &Report) -> Result<()> {
    for loss in report.losses() {
        note(loss);
    }
    Ok(())
}

/// Copies what belongs to a model beside its weights: tokenizers, settings of generation and of images.
pub fn copy_others(from: &Path, to: &Path) -> Result<()> {
    for entry in std::fs::read_dir(from).with_context(|| from.display().to_string())? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let end = path.extension().unwrap_or_default().to_string_lossy().into_owned();
        let belongs = ["json", "txt", "model"].contains(&end.as_str()) && name != "config.json";
        if path.is_file() && belongs && !name.contains(".index.") {
            std::fs::copy(&path, to.join(&name)).with_context(|| path.display().to_string())?;
        }
    }
    Ok(())
}

/// Loads a folder with the library that its configuration names, strictly: what is missing or too much is an error.
const CHECK: &str = r#"
import json, sys
folder = sys.argv[1]
config = json.load(open(folder + "/config.json"))
if "_class_name" in config:
    import diffusers
    model, info = getattr(diffusers, config["_class_name"]).from_pretrained(folder, output_loading_info=True)
    wrong = {k: sorted(map(str, v)) for k, v in info.items() if v}
    assert not wrong, wrong
elif "architecture" in config:
    import timm
    from safetensors.torch import load_file
    names = ("num_classes", "in_chans", "global_pool")
    settings = {k: config[k] for k in names if k in config} | config.get("model_args", {})
    model = timm.create_model(config["architecture"], **settings)
    model.load_state_dict(load_file(folder + "/model.safetensors"), strict=True)
else:
    import transformers
    name = config["architectures"][0]
    model, info = getattr(transformers, name).from_pretrained(folder, output_loading_info=True)
    wrong = {k: sorted(map(str, v)) for k, v in info.items() if v}
    assert not wrong, wrong
library, count = type(model).__module__.split(".")[0], sum(p.numel() for p in model.parameters())
print(f"{folder}: loaded by {library}, {count} parameters")
"#;

fn check(python: &Path, folder: &Path) -> Result<()> {
    let out = Command::new(python).args(["-c", CHECK]).arg(folder).output();
    let out = out.with_context(|| format!("cannot start {}", python.display()))?;
    if !out.status.success() {
        let text = String::from_utf8_lossy(&out.stderr);
        bail!("{}: the original library does not load it:\n{}", folder.display(), text.trim_end());
    }
    line(String::from_utf8_lossy(&out.stdout).trim_end())?;
    Ok(())
}
