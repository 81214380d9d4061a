//! `binade memory all`: every model at three sizes, planned and measured side by side.

use std::process::ExitCode;

use anyhow::{Result, ensure};
use binade::cli::known::{Choice, Model, Recipe, RuleName, Taken, measured, planned};
use binade::cli::memory::Bytes;
use binade::cli::output::{line, note};
use binade::plan::Scratch;
use binade::tensor::{Class, Device};
use binade::train::Precision;
use clap::ValueEnum;
use comfy_table::{CellAlignment, Table, presets};
use serde::Serialize;
use serde_json::json;

use super::{Args, fits};
use crate::train::PrecisionName;

/// A plan may be off by so much, in parts of what is measured.
const MOST: f64 = 0.05;

/// A model in one size and precision.
#[derive(Serialize)]
struct Row {
    model: String,
    batch: usize,
    precision: Precision,
    planned: Taken,
    /// Nothing where the machine has no room for it, or nobody asked.
    measured: Option<Taken>,
}

impl Row {
    /// How far the plan is off.
    fn off(&self) -> Option<f64> {
        let measured = self.measured?.total as f64;
        Some(self.planned.total as f64 / measured - 1.0)
    }

    /// The class that is furthest off, in parts of all that is measured, with its bytes.
    fn furthest(&self) -> Option<(Class, u64, u64)> {
        let measured = self.measured?;
        let both = Class::ALL.into_iter().zip(self.planned.classes.into_iter().zip(measured.classes));
        let (class, (planned, measured)) = both.max_by_key(|(_, (planned, measured))| planned.abs_diff(*measured))?;
        (planned != measured).then_some((class, planned, measured))
    }
}

/// A quarter, half and all of the usual batch; of a few samples that, twice and four times as many.
fn sizes(model: Model) -> [usize; 3] {
    match model.batch() {
        n if n >= 4 => [n / 4, n / 2, n],
        n => [n, 2 * n, 4 * n],
    }
}

pub fn run(args: &Args) -> Result<ExitCode> {
    ensure!(args.batch.is_none() && args.limit.is_none() && args.data.is_none(), "all has sizes of its own");
    let precisions = args.precision.map_or(Precision::ALL.to_vec(), PrecisionName::precisions);
    let rule = args.optimizer.first().copied().unwrap_or(RuleName::AdamW);
    let device = Device::cpu();
    let (first, scratch) = (Scratch::unmeasured(&device), Scratch::of(&device));
    let mut rows = Vec::new();
    for &model in Model::value_variants() {
        for (batch, &precision) in sizes(model).into_iter().flat_map(|n| precisions.iter().map(move |p| (n, p))) {
            let recipe = Recipe { precision, choice: Choice { rule, recompute: false }, stored: false };
            let mut row = Row {
                model: model.name(),
                batch,
                precision,
                planned: planned(model, &recipe, batch, &first)?.taken,
                measured: None,
            };
            if fits(row.planned.of_process()) && !args.fast {
                row.planned = planned(model, &recipe, batch, &scratch)?.taken;
                row.measured = args.measure.then(|| measured(model, &recipe, batch)).transpose()?;
            }
            if !args.json {
                note(said(&row));
            }
            rows.push(row);
        }
    }
    let bad = rows.iter().filter(|row| row.off().is_some_and(|off| off.abs() > MOST)).count();
    if args.json {
        line(serde_json::to_string_pretty(&json!({ "classes": Class::ALL.map(Class::name), "rows": rows }))?)?;
    } else {
        line(table(&rows))?;
        let measured: Vec<f64> = rows.iter().filter_map(Row::off).collect();
        if args.measure {
            let most = measured.iter().fold(0.0f64, |most, off| most.max(off.abs()));
            let (all, left_out) = (rows.len(), rows.len() - measured.len());
            line(format_args!(
                "{} of {all} measured, {left_out} are more than this machine has; the furthest plan is off by {:.2} %",
                measured.len(),
                100.0 * most
            ))?;
        }
    }
    Ok(if bad == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// A row as it comes.
fn said(row: &Row) -> String {
    let off = row.off().map_or("not measured".into(), |off| format!("{:+.2} %", 100.0 * off));
    format!("{} batch {} {}: {} ({off})", row.model, row.batch, row.precision.name(), Bytes(row.planned.total))
}

fn table(rows: &[Row]) -> Table {
    let mut table = Table::new();
    table.load_preset(presets::ASCII_MARKDOWN);
    table.set_header(["model", "batch", "precision", "planned", "measured", "off", "class that is furthest off"]);
    for row in rows {
        let bytes = |taken: Taken| Bytes(taken.total).to_string();
        let furthest = row
            .furthest()
            .map(|(class, planned, measured)| format!("{class}: {} / {}", Bytes(planned), Bytes(measured)));
        table.add_row([
            row.model.clone(),
            row.batch.to_string(),
            row.precision.name().into(),
            bytes(row.planned),
            row.measured.map_or("-".into(), bytes),
            row.off().map_or("-".into(), |off| format!("{:+.2} %", 100.0 * off)),
            furthest.unwrap_or_default(),
        ]);
    }
    for at in [1, 3, 4, 5] {
        if let Some(column) = table.column_mut(at) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    table
}
