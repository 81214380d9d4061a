//! `binade profile`: where the time of training steps goes, by phase, operator and layer.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use binade::autograd::scope;
use binade::cli::device::On;
use binade::cli::flags::positive;
use binade::cli::known::{Choice, Model, Recipe, RuleName, profiled};
use binade::cli::output::line;
use binade::cli::threads;
use binade::nn::Module;
use binade::tensor::DType;
use binade::train::{Config, Limits, Precision, Recording, Trainer, write_trace};
use clap::ValueEnum;
use serde_json::json;

use crate::train::PrecisionName;
use crate::train::job::{Job, Use};

#[derive(clap::Args)]
#[command(after_help = "Example: binade profile small-cnn --precision bf16 --steps 3 --trace trace.json")]
pub struct Args {
    /// A model by its name, or the folder of a run
    #[arg(value_name = "MODEL|RUN")]
    what: String,
    /// Precision [default: all, or the run's]
    #[arg(long, value_enum)]
    precision: Option<PrecisionName>,
    /// Samples of a step [default: the model's, or the run's]
    #[arg(long, value_name = "N", value_parser = positive::<usize>, allow_negative_numbers = true)]
    batch: Option<usize>,
    /// How many steps are recorded, after a few that are not
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = positive::<u64>, allow_negative_numbers = true)]
    steps: u64,
    /// Write what ran when into a file that Perfetto and Chrome show
    #[arg(long, value_name = "TRACE.json")]
    trace: Option<PathBuf>,
    /// Of a run: where its data are
    #[arg(long, value_name = "PATH")]
    data: Option<PathBuf>,
    /// Threads, at most one per core [default: one per core]
    #[arg(long, value_parser = positive::<usize>, allow_negative_numbers = true)]
    threads: Option<usize>,
    #[command(flatten)]
    on: On,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub fn run(args: &Args) -> Result<ExitCode> {
    threads::start(args.threads)?;
    args.on.run(|| {
        let recordings = match Model::from_str(&args.what, true) {
            Ok(model) => of_model(args, model)?,
            Err(_) if Path::new(&args.what).is_dir() => of_run(args)?,
            Err(_) => {
                bail!("{:?} is no folder, and no model; there are {}", args.what, crate::memory::names().join(", "))
            }
        };
        if let Some(path) = &args.trace {
            write_trace(path, &recordings)?;
        }
        print(args, &recordings)?;
        Ok(ExitCode::SUCCESS)
    })
}

fn of_model(args: &Args, model: Model) -> Result<Vec<Recording>> {
    let precisions = args.precision.map_or(Precision::ALL.to_vec(), PrecisionName::precisions);
    let one = |precision: Precision| {
        let choice = Choice { rule: RuleName::AdamW, recompute: false };
        let recipe = Recipe { precision, choice, stored: false };
        profiled(model, &recipe, args.batch.unwrap_or(model.batch()), args.steps).context(precision.name())
    };
    precisions.into_iter().map(one).collect()
}

fn of_run(args: &Args) -> Result<Vec<Recording>> {
    let (config, job) = Job::of_run(Path::new(&args.what), args.data.clone())?;
    let precisions = args.precision.map_or(config.precisions, PrecisionName::precisions);
    let batch_size = args.batch.unwrap_or(config.fit.batch_size);
    job.run(Look { steps: args.steps, precisions, config: Config { batch_size, ..config.fit } })
}

/// Steps of a run in some precisions, on models of their own.
struct Look {
    steps: u64,
    precisions: Vec<Precision>,
    config: Config,
}

impl Use for Look {
    type Out = Vec<Recording>;

    fn settings(&self) -> &Config {
        &self.config
    }

    fn with<M: Module>(self, trainer: Trainer<'_, M>) -> Result<Vec<Recording>> {
        let one = |&precision: &Precision| trainer.profile(&Config { precision, ..self.config.clone() }, self.steps);
        Ok(self.precisions.iter().map(one).collect::<Result<_, _>>()?)
    }
}

fn print(args: &Args, recordings: &[Recording]) -> Result<()> {
    let device = scope::device()?;
    let limits = |recording: &Recording| {
        let half = [(Precision::Fp16, DType::F16), (Precision::Bf16, DType::BF16)];
        let dtype = half.into_iter().find(|(precision, _)| precision.name() == recording.name);
        Limits::measure(&device, dtype.map_or(DType::F32, |(_, dtype)| dtype))
    };
    let mut all = Vec::new();
    for recording in recordings {
        let limits = limits(recording)?;
        if args.json {
            all.push(json!({ "precision": recording.name, "limits": limits, "times": recording.times() }));
        } else {
            line(format_args!("{}\n", recording.tables(Some(&limits))))?;
        }
    }
    if args.json {
        line(serde_json::to_string_pretty(&json!({ "what": args.what, "device": device.name(), "recordings": all }))?)?;
    }
    if let Some(path) = args.trace.as_ref().filter(|_| !args.json) {
        line(format_args!("trace: {}, for https://ui.perfetto.dev or Chrome's about:tracing", path.display()))?;
    }
    Ok(())
}
