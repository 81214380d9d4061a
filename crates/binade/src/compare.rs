//! `binade compare`: results of runs side by side, and the settings that differ.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use binade::cli::output::line;
use binade::train::{Metrics, Recorded, Setting, Summary, settings, table_of};
use comfy_table::{Table, presets};
use serde_json::{Value, json};

#[derive(clap::Args)]
#[command(after_help = "Example: binade compare runs/digits-1 runs/digits-2")]
pub struct Args {
    /// Run folders, as `binade train` writes them; a run may still be training
    #[arg(required = true, value_name = "RUN")]
    runs: Vec<PathBuf>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// A precision of a run.
struct Training<'a> {
    name: String,
    precision: &'static str,
    /// Once it has ended.
    summary: Option<&'a Summary>,
    /// Steps tried, and skipped ones.
    steps: u64,
    skipped: u64,
    /// The last loss on test data, and the share that was right.
    test_loss: Option<f64>,
    test_accuracy: Option<f64>,
}

pub fn run(args: &Args) -> Result<ExitCode> {
    let runs = Recorded::open_all(&args.runs)?;
    let trainings: Vec<Vec<Training<'_>>> = runs.iter().map(trainings).collect();
    let (differ, _) = settings(&runs);
    if args.json {
        line(serde_json::to_string_pretty(&json(&runs, &trainings, &differ))?)?;
        return Ok(ExitCode::SUCCESS);
    }
    let all = || trainings.iter().flatten();
    let ended: Vec<(&str, &Summary)> = all().filter_map(|t| Some((t.name.as_str(), t.summary?))).collect();
    if !ended.is_empty() {
        line(table_of(&ended))?;
    }
    for t in all().filter(|t| t.summary.is_none()) {
        let loss = t.test_loss.map_or(String::new(), |loss| format!(", test loss {loss:.4}"));
        let accuracy = t.test_accuracy.map_or(String::new(), |a| format!(", test accuracy {:.2} %", 100.0 * a));
        let Training { name, steps, skipped, .. } = t;
        line(format_args!("{name}: has not ended: {steps} steps, {skipped} skipped{loss}{accuracy}"))?;
    }
    if runs.len() > 1 {
        line(if differ.is_empty() {
            "\nno setting differs".into()
        } else {
            format!("\n{}", differing(&runs, &differ))
        })?;
    }
    Ok(ExitCode::SUCCESS)
}

fn trainings(run: &Recorded) -> Vec<Training<'_>> {
    let one = |precision: &'static str| {
        let summary = run.summaries.iter().find(|summary| summary.precision == precision);
        let name = format!("{} {precision}", run.name);
        let mut training =
            Training { name, precision, summary, steps: 0, skipped: 0, test_loss: None, test_accuracy: None };
        for record in run.metrics.iter().filter(|record| record.precision == precision) {
            match &record.metrics {
                Metrics::Step(step) => {
                    training.steps += 1;
                    training.skipped += u64::from(step.skipped);
                }
                Metrics::Evaluation(e) => {
                    (training.test_loss, training.test_accuracy) = (Some(e.test_loss), e.test_accuracy);
                }
                Metrics::Epoch(e) => {
                    (training.test_loss, training.test_accuracy) = (Some(e.test_loss), e.test_accuracy);
                }
            }
        }
        training.test_loss = training.test_loss.filter(|loss| loss.is_finite());
        training
    };
    run.config.precisions.iter().map(|precision| one(precision.name())).collect()
}

fn differing(runs: &[Recorded], rows: &[Setting]) -> Table {
    let mut table = Table::new();
    table.load_preset(presets::ASCII_MARKDOWN);
    table.set_header(std::iter::once("what differs").chain(runs.iter().map(|run| run.name.as_str())));
    for (name, values) in rows {
        let cells = values.iter().map(|value| value.as_deref().unwrap_or("-"));
        table.add_row(std::iter::once(name.as_str()).chain(cells));
    }
    table
}

fn json(runs: &[Recorded], trainings: &[Vec<Training<'_>>], differ: &[Setting]) -> Value {
    let training = |t: &Training<'_>| {
        json!({
            "precision": t.precision, "ended": t.summary.is_some(), "steps": t.steps, "skipped_steps": t.skipped,
            "test_loss": t.test_loss, "test_accuracy": t.test_accuracy, "summary": t.summary,
        })
    };
    let run = |(run, all): (&Recorded, &Vec<Training<'_>>)| {
        let settings: serde_json::Map<String, Value> =
            run.settings().into_iter().map(|(name, value)| (name, value.into())).collect();
        json!({
            "name": run.name, "folder": run.folder, "starts": run.starts, "settings": settings,
            "trainings": all.iter().map(training).collect::<Vec<_>>(),
        })
    };
    let runs: Vec<Value> = runs.iter().zip(trainings).map(run).collect();
    json!({ "runs": runs, "settings_that_differ": differ.iter().map(|(name, _)| name).collect::<Vec<_>>() })
}
