//! `binade evaluate`: the models of a run on the test data.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Result, ensure};
use binade::cli::device::On;
use binade::cli::output::line;
use binade::cli::threads;
use binade::nn::Module;
use binade::train::{Config, Evaluated, RunConfig, Trainer};
use comfy_table::{CellAlignment, Table, presets};

use crate::train::job::{Job, Use};

#[derive(clap::Args)]
#[command(after_help = "Example: binade evaluate runs/digits-1")]
pub struct Args {
    /// Run folder, as `binade train` writes it
    run: PathBuf,
    /// Folder with the data set's files, or the text; what is embedded needs none
    #[arg(long, value_name = "PATH")]
    data: Option<PathBuf>,
    /// Print JSON, with which classes were found for which
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    on: On,
}

pub fn run(args: &Args) -> Result<ExitCode> {
    threads::start(None)?;
    args.on.run(|| evaluate(args))
}

fn evaluate(args: &Args) -> Result<ExitCode> {
    let (config, job) = Job::of_run(&args.run, args.data.clone())?;
    let all = job.run(Evaluate { folder: args.run.clone(), config })?;
    ensure!(!all.is_empty(), "{}: no checkpoint yet", args.run.display());
    if args.json {
        line(serde_json::to_string_pretty(&all)?)?;
    } else {
        line(table(&all))?;
    }
    Ok(ExitCode::SUCCESS)
}

struct Evaluate {
    folder: PathBuf,
    config: RunConfig,
}

impl Use for Evaluate {
    type Out = Vec<Evaluated>;

    fn settings(&self) -> &Config {
        &self.config.fit
    }

    fn with<M: Module>(self, trainer: Trainer<'_, M>) -> Result<Vec<Evaluated>> {
        Ok(trainer.evaluate(&self.folder, &self.config)?)
    }
}

/// One column per precision, and of the numbers those that the task has.
fn table(all: &[Evaluated]) -> Table {
    let mut table = Table::new();
    table.load_preset(presets::ASCII_MARKDOWN);
    table.set_header(std::iter::once("precision").chain(all.iter().map(|one| one.precision.name())));
    let mut row = |name: &str, of: &dyn Fn(&Evaluated) -> Option<String>| {
        let cells: Vec<Option<String>> = all.iter().map(of).collect();
        if cells.iter().any(Option::is_some) {
            let cells = cells.into_iter().map(|cell| cell.unwrap_or("-".into()));
            table.add_row(std::iter::once(name.to_string()).chain(cells));
        }
    };
    let percent = |share: f64| format!("{:.2} %", 100.0 * share);
    row("epochs", &|one| Some(one.epochs.to_string()));
    row("test loss", &|one| Some(format!("{:.5}", one.metrics.test_loss)));
    row("test accuracy", &|one| one.metrics.test_accuracy.map(percent));
    row("test top-5", &|one| one.test_top5.map(percent));
    row("test perplexity", &|one| one.metrics.test_perplexity.map(|p| format!("{p:.3}")));
    row("test bits", &|one| one.metrics.test_bits.map(|bits| format!("{bits:.4}")));
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table
}
