//! `binade memory`: what a training step takes, of each class and by recipe, before it is spent.

mod all;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result, bail, ensure};
use binade::cli::flags::positive;
use binade::cli::known::{self, Choice, Model, Planned, Recipe, RuleName, Taken, largest_batch};
use binade::cli::memory::{Bytes, room};
use binade::cli::output::{line, note};
use binade::cli::threads;
use binade::nn::{Module, without_initial_values};
use binade::plan::{Plan, Scratch};
use binade::tensor::{Backend, Class, Device};
use binade::train::{Config, Precision, Trainer};
use clap::ValueEnum;
use comfy_table::{CellAlignment, Table, presets};
use serde::Serialize;
use serde_json::json;

use crate::train::PrecisionName;
use crate::train::job::{Job, Use};

#[derive(clap::Args)]
#[command(after_help = "Example: binade memory vit-tiny --precision bf16 --limit 2GiB")]
pub struct Args {
    /// A model by its name, or the folder of a run; all: every model at three sizes
    #[arg(value_name = "MODEL|RUN|all")]
    what: String,
    /// Samples of a step [default: the model's, or the run's]
    #[arg(long, value_name = "N", value_parser = positive::<usize>, allow_negative_numbers = true)]
    batch: Option<usize>,
    /// Precision [default: all, or the run's]
    #[arg(long, value_enum)]
    precision: Option<PrecisionName>,
    /// Optimisers, with commas [default: adamw; a run has its own]
    #[arg(long, value_enum, value_delimiter = ',')]
    optimizer: Vec<RuleName>,
    /// Say the largest batch of each recipe that fits
    #[arg(long, value_name = "SIZE", value_parser = Bytes::parse)]
    limit: Option<Bytes>,
    /// Take two steps by each recipe too, and say beside the plan what they took
    #[arg(long)]
    measure: bool,
    /// Leave out what kernels need beside buffers, which is measured operator by operator
    #[arg(long, conflicts_with = "measure")]
    fast: bool,
    /// Of a run: where its data are
    #[arg(long, value_name = "PATH")]
    data: Option<PathBuf>,
    /// Threads, at most one per core [default: one per core]
    #[arg(long, value_parser = positive::<usize>, allow_negative_numbers = true)]
    threads: Option<usize>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// A recipe with what it takes.
#[derive(Serialize)]
struct Row {
    recipe: String,
    precision: Precision,
    batch: usize,
    planned: Planned,
    #[serde(skip_serializing_if = "Option::is_none")]
    measured: Option<Taken>,
    #[serde(skip_serializing_if = "Option::is_none")]
    largest_batch: Option<usize>,
}

pub fn run(args: &Args) -> Result<ExitCode> {
    threads::start(args.threads)?;
    if args.what == "all" {
        return all::run(args);
    }
    let model = Model::from_str(&args.what, true);
    let rows = match model {
        Ok(model) => of_model(args, model)?,
        Err(_) if Path::new(&args.what).is_dir() => of_run(args)?,
        Err(_) => bail!("{:?} is no folder, and no model; there are {}", args.what, names().join(", ")),
    };
    if args.json {
        line(serde_json::to_string_pretty(
            &json!({ "what": args.what, "classes": Class::ALL.map(Class::name), "rows": rows }),
        )?)?;
    } else {
        print(args, &rows)?;
    }
    Ok(ExitCode::SUCCESS)
}

/// The names of all models.
pub fn names() -> Vec<String> {
    Model::value_variants().iter().map(|model| model.name()).collect()
}

/// All recipes of a model by its name.
fn of_model(args: &Args, model: Model) -> Result<Vec<Row>> {
    let n = args.batch.unwrap_or(model.batch());
    let precisions = args.precision.map_or(Precision::ALL.to_vec(), PrecisionName::precisions);
    let rules = if args.optimizer.is_empty() { vec![RuleName::AdamW] } else { args.optimizer.clone() };
    let device = Device::cpu();
    let (first, scratch) = (Scratch::unmeasured(&device), Scratch::of(&device));
    let mut rows = Vec::new();
    for precision in precisions {
        for recipe in recipes(model, precision, &rules) {
            let planned = |n: usize, scratch: &Scratch| known::planned(model, &recipe, n, scratch);
            let row = row(args, precision, n, &described(&recipe), (&first, &scratch), &planned)?;
            let measured = args.measure.then(|| measure(&row, || known::measured(model, &recipe, n))).transpose()?;
            rows.push(Row { measured, ..row });
        }
    }
    Ok(rows)
}

fn recipes(model: Model, precision: Precision, rules: &[RuleName]) -> Vec<Recipe> {
    let mut all = Vec::new();
    for &rule in rules {
        for recompute in [false, true].into_iter().filter(|again| !again || model.recomputes()) {
            all.push(Recipe { precision, choice: Choice { rule, recompute }, stored: false });
        }
        if precision != Precision::Fp32 {
            all.push(Recipe { precision, choice: Choice { rule, recompute: false }, stored: true });
        }
    }
    all
}

fn described(recipe: &Recipe) -> String {
    let stored = if recipe.stored { ", stored in 16 bit" } else { "" };
    format!("{} {}{stored}", recipe.precision.name(), recipe.choice)
}

/// Plans a recipe, at first without what kernels need: that is measured where it fits.
fn row(
    args: &Args,
    precision: Precision,
    batch: usize,
    recipe: &str,
    (first, scratch): (&Scratch, &Scratch),
    plan: &dyn Fn(usize, &Scratch) -> Result<Planned>,
) -> Result<Row> {
    let mut planned = plan(batch, first).with_context(|| recipe.to_string())?;
    if !args.fast {
        if fits(planned.taken.of_process()) {
            planned = plan(batch, scratch).with_context(|| recipe.to_string())?;
        } else {
            note(format_args!("{recipe}: more than this machine has, so that its kernels are not measured"));
        }
    }
    // By the difference of what is measured to what is not, as what kernels need grows with the batch too.
    let largest = |limit: Bytes| {
        let unmeasured = plan(batch, first)?.taken.total;
        let share = planned.taken.total as f64 / unmeasured as f64;
        largest_batch(limit.0, |n| Ok((plan(n, first)?.taken.of_process() as f64 * share) as u64))
    };
    let largest_batch = args.limit.map(largest).transpose()?;
    Ok(Row { recipe: recipe.into(), precision, batch, planned, measured: None, largest_batch })
}

fn fits(bytes: u64) -> bool {
    room().is_none_or(|room| bytes <= room.bytes)
}

fn measure(row: &Row, run: impl FnOnce() -> Result<Taken>) -> Result<Taken> {
    let needs = row.planned.taken.of_process();
    ensure!(fits(needs), "{}: a step needs {}, which this machine does not have", row.recipe, Bytes(needs));
    run().with_context(|| row.recipe.clone())
}

/// A run with its own settings, in each of its precisions.
fn of_run(args: &Args) -> Result<Vec<Row>> {
    let folder = Path::new(&args.what);
    ensure!(args.optimizer.is_empty(), "--optimizer: a run has its own");
    let (config, job) = Job::of_run(folder, args.data.clone())?;
    let precisions = args.precision.map_or(config.precisions.clone(), PrecisionName::precisions);
    job.run(Rehearse { args, precisions, config: config.fit })
}

struct Rehearse<'a> {
    args: &'a Args,
    precisions: Vec<Precision>,
    config: Config,
}

impl Use for Rehearse<'_> {
    type Out = Vec<Row>;

    fn settings(&self) -> &Config {
        &self.config
    }

    fn with<M: Module>(self, trainer: Trainer<'_, M>) -> Result<Vec<Row>> {
        let Rehearse { args, precisions, config } = self;
        let device = Device::cpu();
        let (first, scratch) = (Scratch::unmeasured(&device), Scratch::of(&device));
        let batch = args.batch.unwrap_or(config.batch_size);
        let mut rows = Vec::new();
        for precision in precisions {
            let with = |batch_size: usize| Config { precision, batch_size, ..config.clone() };
            let planned = |n: usize, scratch: &Scratch| -> Result<Planned> {
                let plan = Plan::new(scratch);
                let rehearsed = without_initial_values(|| trainer.rehearse(&with(n), &Device::new(plan.clone())))?;
                Ok(Planned {
                    taken: Taken::of(plan.memory(), rehearsed.saved_bytes),
                    work: plan.work(),
                    parameters: rehearsed.parameters,
                })
            };
            let recipe = format!("{} {}", precision.name(), config.optimizer.name());
            let row = row(args, precision, batch, &recipe, (&first, &scratch), &planned)?;
            let on_cpu = || {
                let device = Device::cpu();
                device.reset_peak_memory();
                let rehearsed = trainer.rehearse(&with(batch), &device)?;
                Ok(Taken::of(device.memory(), rehearsed.saved_bytes))
            };
            let measured = args.measure.then(|| measure(&row, on_cpu)).transpose()?;
            rows.push(Row { measured, ..row });
        }
        Ok(rows)
    }
}

fn print(args: &Args, rows: &[Row]) -> Result<()> {
    let mut table = Table::new();
    table.load_preset(presets::ASCII_MARKDOWN);
    let mut header: Vec<String> = vec!["recipe".into()];
    header.extend(Class::ALL.map(|class| class.name().to_string()));
    header.extend(["all at once", "between the passes"].map(String::from));
    header.extend(args.limit.map(|limit| format!("largest batch in {limit}")));
    table.set_header(header);
    for row in rows {
        let bytes = |of: &dyn Fn(&Taken) -> u64| match &row.measured {
            None => Bytes(of(&row.planned.taken)).to_string(),
            Some(measured) => both(of(&row.planned.taken), of(measured)),
        };
        let mut cells = vec![row.recipe.clone()];
        cells.extend((0..Class::ALL.len()).map(|i| bytes(&|taken| taken.classes[i])));
        cells.extend([bytes(&|taken| taken.total), bytes(&|taken| taken.saved)]);
        cells.extend(row.largest_batch.map(|n| if n == 0 { "none".into() } else { n.to_string() }));
        table.add_row(cells);
    }
    table.column_iter_mut().skip(1).for_each(|column| column.set_cell_alignment(CellAlignment::Right));
    if let Some(Row { planned, batch, .. }) = rows.first() {
        let work = planned.work / 1e9;
        line(format_args!("{}: {} parameters, batch {batch}, {work:.1} GFLOP a step", args.what, planned.parameters))?;
    }
    line(&table)?;
    let what = if args.measure { "planned, then measured where it differs" } else { "planned" };
    line(format_args!(
        "Each class at its own peak ({what}); these are not at the same time. A process has {} beside.",
        {
            let most = rows.iter().map(|row| row.planned.taken.total).max().unwrap_or(0);
            Bytes(known::beside(most))
        }
    ))?;
    if rows.iter().any(|row| row.recipe.ends_with("stored in 16 bit")) {
        line("Parameters that are stored in 16 bit have f32 masters, which are counted with the optimizer.")?;
    }
    Ok(())
}

/// A plan beside a measurement, and how far it is off where that can be seen.
fn both(planned: u64, measured: u64) -> String {
    let [p, m] = [planned, measured].map(|n| Bytes(n).to_string());
    if p == m {
        return m;
    }
    let off = 100.0 * (planned as f64 - measured as f64) / (measured as f64).max(1.0);
    format!("{p} / {m} ({off:+.1} %)")
}
