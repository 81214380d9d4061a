//! `--true-size`: one checked training step of models at the size that they are known by, beside its plan.

mod limit;
mod step;
mod table;
mod torch;

use std::process::{Command, ExitCode};

use anyhow::{Context, Result, ensure};
use binade::train::Precision;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::Args;
use binade::cli::known::{Choice, Model};
use binade::cli::memory::{Bytes, limit_address_space};
use binade::cli::output::{line, note};
use binade::cli::threads;
use step::{Measured, Planned};
use torch::Torch;

/// The models that are run where none is named.
const SUITE: [Model; 7] =
    [Model::Resnet50, Model::VitL16, Model::Gpt2, Model::Gpt2Medium, Model::SdUnet, Model::SdVae, Model::Gpt2Xl];

/// Flags of `--true-size` alone.
#[derive(clap::Args)]
pub struct Flags {
    /// Plan, run and check a training step of models at their true size, each in a process with a limit of its memory
    /// [default: resnet50, vit-l16, gpt2, gpt2-medium, sd-unet, sd-vae, gpt2-xl]
    #[arg(
        long,
        value_name = "MODEL",
        num_args = 0..,
        value_delimiter = ',',
        value_enum,
        conflicts_with_all = ["scaling", "sizes", "from", "profile", "json", "only", "n", "low_residual", "out"]
    )]
    true_size: Option<Vec<Model>>,
    /// Memory that a step with --true-size may take; the plan chooses optimiser and recomputation by it
    #[arg(long, value_name = "SIZE", default_value = "20GiB", value_parser = Bytes::parse, requires = "true_size")]
    limit: Bytes,
    /// What a process that was started for one step does
    #[arg(long, hide = true, value_parser = part, requires = "true_size")]
    part: Option<Part>,
}

impl Flags {
    pub fn is_asked_for(&self) -> bool {
        self.true_size.is_some()
    }
}

/// Plan a step, or do it in some way.
#[derive(Clone, Copy)]
enum Part {
    Plan,
    Step(Choice),
}

fn part(text: &str) -> Result<Part, String> {
    if text == "plan" {
        return Ok(Part::Plan);
    }
    serde_json::from_str(text).map(Part::Step).map_err(|error| error.to_string())
}

/// A model in a precision.
struct Row {
    model: Model,
    precision: Precision,
    planned: Planned,
    measured: Measured,
    torch: Option<Torch>,
}

pub fn run(args: &Args) -> Result<ExitCode> {
    let flags = &args.true_size;
    let asked = flags.true_size.clone().filter(|models| !models.is_empty());
    let models = asked.unwrap_or_else(|| SUITE.to_vec());
    if let (Some(part), [model], [precision]) = (flags.part, &models[..], &args.precision[..]) {
        return child(args, *model, *precision, part);
    }
    threads::start(Some(args.threads))?;
    let most = limit::gflops();
    note(format_args!("{most:.0} GFLOP/s of f32 are this machine's limit with {} threads", args.threads));
    let (mut rows, mut failed) = (Vec::new(), Vec::new());
    for &model in &models {
        for &precision in &args.precision {
            match both(args, model, precision) {
                Ok(row) => {
                    note(table::said(&row));
                    rows.push(row);
                }
                Err(error) => {
                    let told = format!("{} in {}: {error:#}", model.name(), precision.name());
                    note(&told);
                    failed.push(told);
                }
            }
        }
        if let (Some(python), Some(row)) = (&args.against, rows.iter_mut().find(|row| row.model == model)) {
            match torch::best(python, model, args, flags.limit) {
                Ok(torch) => row.torch = Some(torch),
                Err(error) => note(format_args!("{} by PyTorch: {error:#}", model.name())),
            }
        }
    }
    failed.extend(rows.iter().filter_map(table::amiss));
    if !rows.is_empty() {
        line(table::steps(&rows, most))?;
        line(table::memory(&rows))?;
    }
    failed.iter().for_each(note);
    Ok(if failed.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// What a process for one step does: the limit is set before there is anything else.
fn child(args: &Args, model: Model, precision: Precision, part: Part) -> Result<ExitCode> {
    limit_address_space(args.true_size.limit.0)?;
    threads::start(Some(args.threads))?;
    let json = match part {
        Part::Plan => serde_json::to_string(&step::plan(model, precision, args.true_size.limit.0)?)?,
        Part::Step(choice) => serde_json::to_string(&step::run(model, precision, choice, args.secs)?)?,
    };
    line(json)?;
    Ok(ExitCode::SUCCESS)
}

fn both(args: &Args, model: Model, precision: Precision) -> Result<Row> {
    let planned: Planned = ask(args, model, precision, "plan".into())?;
    let measured = ask(args, model, precision, json(&planned.choice)?)?;
    Ok(Row { model, precision, planned, measured, torch: None })
}

fn json(value: &impl Serialize) -> Result<String> {
    Ok(serde_json::to_string(value)?)
}

/// Starts this program for one part.
fn ask<T: DeserializeOwned>(args: &Args, model: Model, precision: Precision, part: String) -> Result<T> {
    let mut command = Command::new(std::env::current_exe().context("this program's path")?);
    command.args(["bench", "--true-size", &model.name(), "--precision", precision.name(), "--part", &part]);
    command.args(["--limit", &args.true_size.limit.0.to_string(), "--threads", &args.threads.to_string()]);
    command.args(["--secs", &args.secs.to_string()]);
    answer(command)
}

/// Runs a command, whose last line is JSON.
fn answer<T: DeserializeOwned>(mut command: Command) -> Result<T> {
    let program = command.get_program().to_string_lossy().into_owned();
    let out = command.output().with_context(|| format!("cannot start {program}"))?;
    let said = String::from_utf8_lossy(&out.stderr);
    let last = said.trim().lines().last().unwrap_or("it said nothing");
    ensure!(out.status.success(), "{} ({})", last.strip_prefix("error: ").unwrap_or(last), out.status);
    let printed = String::from_utf8_lossy(&out.stdout);
    serde_json::from_str(printed.trim().lines().last().unwrap_or_default())
        .with_context(|| format!("{program} printed {printed}"))
}
