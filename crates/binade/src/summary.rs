//! `binade summary`: the layers of a model with shapes, parameters, dtypes, work and memory.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context, Result, bail};
use binade::autograd::Var;
use binade::autograd::scope::{self, Event, Phase};
use binade::cli::flags::positive;
use binade::cli::known::{Choice, Model, RuleName, build};
use binade::cli::memory::Bytes;
use binade::cli::output::line;
use binade::cli::threads;
use binade::nn::{Module, Param, without_initial_values};
use binade::plan::{Plan, Scratch};
use binade::tensor::op::work;
use binade::tensor::{Class, Device, Op};
use binade::train::{Batch, Config, Precision, Trainer};
use clap::ValueEnum;
use comfy_table::{CellAlignment, Table, presets};
use serde::Serialize;
use serde_json::json;

use crate::train::job::{Job, Use};

#[derive(clap::Args)]
#[command(after_help = "Example: binade summary resnet50 --precision bf16 --depth 1")]
pub struct Args {
    /// A model by its name, or the folder of a run
    #[arg(value_name = "MODEL|RUN")]
    what: String,
    /// Samples of a batch [default: the model's, or the run's]
    #[arg(long, value_name = "N", value_parser = positive::<usize>, allow_negative_numbers = true)]
    batch: Option<usize>,
    /// Precision that dtypes and memory are those of
    #[arg(long, value_name = "PRECISION", default_value = "fp32", value_parser = precision)]
    precision: Precision,
    /// Layers within layers down to so many, the others as parts of these [default: all]
    #[arg(long, value_name = "N", value_parser = positive::<usize>, allow_negative_numbers = true)]
    depth: Option<usize>,
    /// Of a run: where its data are
    #[arg(long, value_name = "PATH")]
    data: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

fn precision(name: &str) -> Result<Precision, String> {
    Precision::ALL.into_iter().find(|p| p.name() == name).ok_or_else(|| "there are fp32, fp16, bf16".into())
}

/// A layer, with what runs in it and in no layer within it.
#[derive(Clone, Debug, Default, Serialize)]
struct Row {
    /// Path; empty outside all layers.
    layer: String,
    /// Extents of its last result.
    shape: Vec<usize>,
    /// Dtype of that.
    dtype: String,
    /// Values of its parameters.
    parameters: usize,
    /// Of them, those that are trained.
    trained: usize,
    /// Floating-point operations, forward and backward.
    forward_flop: f64,
    backward_flop: f64,
    /// Bytes of its results.
    result_bytes: u64,
    /// Bytes that are alive after it and were not before, less those that it gave back: what backward will want.
    kept_bytes: i64,
}

pub fn run(args: &Args) -> Result<ExitCode> {
    threads::start(None)?;
    let rows = match Model::from_str(&args.what, true) {
        Ok(model) => {
            let n = args.batch.unwrap_or(model.batch());
            planned(args, |device| {
                let choice = Choice { rule: RuleName::Sgd, recompute: false };
                let ready = without_initial_values(|| build(model, choice, n, true))?;
                seen(device, &ready.params, args.precision, &|| (ready.loss)())
            })?
        }
        Err(_) if Path::new(&args.what).is_dir() => of_run(args)?,
        Err(_) => bail!("{:?} is no folder, and no model; there are {}", args.what, crate::memory::names().join(", ")),
    };
    let rows = args.depth.map_or(rows.clone(), |depth| within(rows, depth));
    let sum = |of: &dyn Fn(&Row) -> f64| rows.iter().map(of).sum::<f64>();
    let (parameters, trained) = (sum(&|r| r.parameters as f64), sum(&|r| r.trained as f64));
    let (forward, backward) = (sum(&|r| r.forward_flop), sum(&|r| r.backward_flop));
    let kept: i64 = rows.iter().map(|row| row.kept_bytes).sum();
    if args.json {
        line(serde_json::to_string_pretty(&json!({
            "what": args.what, "precision": args.precision, "layers": rows, "parameters": parameters as u64,
            "trained": trained as u64, "forward_flop": forward, "backward_flop": backward, "kept_bytes": kept,
        }))?)?;
        return Ok(ExitCode::SUCCESS);
    }
    line(table(&rows))?;
    line(format_args!("{parameters} parameters, {trained} of them trained: {} in f32", Bytes(4 * parameters as u64)))?;
    let (forward, backward) = (forward / 1e9, backward / 1e9);
    line(format_args!(
        "{forward:.3} GFLOP forward and {backward:.3} backward, of products, convolutions and attention"
    ))?;
    line(format_args!("{} kept between the passes in {}", Bytes(kept.max(0) as u64), args.precision.name()))?;
    Ok(ExitCode::SUCCESS)
}

/// Runs on a device that only counts.
fn planned<T>(args: &Args, f: impl FnOnce(&Device) -> Result<T>) -> Result<T> {
    let device = Device::new(Plan::new(&Scratch::unmeasured(&Device::cpu())));
    scope::with_device(&device, || f(&device)).with_context(|| args.what.clone())
}

/// What an observer adds up.
#[derive(Default)]
struct Seen {
    rows: Vec<Row>,
    places: HashMap<String, usize>,
    /// Bytes that were alive after the operator before.
    alive: i64,
}

impl Seen {
    fn row(&mut self, layer: &str) -> &mut Row {
        let next = self.rows.len();
        let place = *self.places.entry(layer.into()).or_insert(next);
        if place == next {
            self.rows.push(Row { layer: layer.into(), ..Row::default() });
        }
        &mut self.rows[place]
    }

    fn see(&mut self, event: &Event<'_>, alive: i64) {
        let Some(out) = event.outs.first() else { return };
        let metas: Vec<_> = event.ins.iter().map(|array| array.meta()).collect();
        let flop = work(event.op, &metas, &out.meta());
        let grown = alive - std::mem::replace(&mut self.alive, alive);
        let row = self.row(event.path);
        if event.phase == Phase::Backward {
            row.backward_flop += flop;
            return;
        }
        row.forward_flop += flop;
        row.kept_bytes += grown;
        // A view is no memory, a cast no result.
        if !matches!(event.op, Op::View(_) | Op::Cast(_)) {
            (row.shape, row.dtype) = (out.shape().to_vec(), out.dtype().to_string());
            row.result_bytes += event.outs.iter().map(|out| (out.numel() * out.dtype().size()) as u64).sum::<u64>();
        }
    }
}

/// The layers in the order in which they run, and then those that do not.
fn seen(
    device: &Device,
    params: &[(String, Param)],
    precision: Precision,
    loss: &dyn Fn() -> Result<Var>,
) -> Result<Vec<Row>> {
    let alive = {
        let device = device.clone();
        move || -> i64 {
            let stats = device.memory();
            [Class::Activations, Class::Casts, Class::Indices].map(|class| stats.live(class) as i64).iter().sum()
        }
    };
    let seen = Arc::new(Mutex::new(Seen { alive: alive(), ..Seen::default() }));
    let sink = seen.clone();
    let observer: scope::Observer = Arc::new(move |event: &Event<'_>| {
        sink.lock().unwrap_or_else(PoisonError::into_inner).see(event, alive());
    });
    scope::run_in(&scope::capture().rehearsal(), || {
        scope::with_observer(observer, || -> Result<()> {
            let loss = precision.policy().run(loss)?;
            loss.backward()?;
            Ok(())
        })
    })?;
    let mut seen = std::mem::take(&mut *seen.lock().unwrap_or_else(PoisonError::into_inner));
    let mut counted = std::collections::HashSet::new();
    for (name, param) in params.iter().filter(|(_, param)| counted.insert(param.id())) {
        let n = param.array().numel();
        let row = seen.row(name.rsplit_once('.').map_or("", |(layer, _)| layer));
        row.parameters += n;
        row.trained += if param.is_trainable() { n } else { 0 };
    }
    Ok(seen.rows)
}

/// Layers down to a depth; what is within them is added up.
fn within(rows: Vec<Row>, depth: usize) -> Vec<Row> {
    let mut merged: Vec<Row> = Vec::new();
    for row in rows {
        let layer = row.layer.split('.').take(depth).collect::<Vec<_>>().join(".");
        let Some(into) = merged.iter_mut().find(|other| other.layer == layer) else {
            merged.push(Row { layer, ..row });
            continue;
        };
        if !row.shape.is_empty() {
            (into.shape, into.dtype) = (row.shape, row.dtype);
        }
        into.parameters += row.parameters;
        into.trained += row.trained;
        into.forward_flop += row.forward_flop;
        into.backward_flop += row.backward_flop;
        into.result_bytes += row.result_bytes;
        into.kept_bytes += row.kept_bytes;
    }
    merged
}

fn table(rows: &[Row]) -> Table {
    let mut table = Table::new();
    table.load_preset(presets::ASCII_MARKDOWN);
    table.set_header(["layer", "result", "dtype", "parameters", "MFLOP forward", "backward", "results", "kept"]);
    let bytes = |n: i64| format!("{}{}", if n < 0 { "-" } else { "" }, Bytes(n.unsigned_abs()));
    for row in rows {
        let layer = if row.layer.is_empty() { "(outside layers)" } else { &row.layer };
        let extents = row.shape.iter().map(usize::to_string).collect::<Vec<_>>().join("×");
        table.add_row([
            layer.into(),
            extents,
            row.dtype.clone(),
            row.parameters.to_string(),
            format!("{:.2}", row.forward_flop / 1e6),
            format!("{:.2}", row.backward_flop / 1e6),
            Bytes(row.result_bytes).to_string(),
            bytes(row.kept_bytes),
        ]);
    }
    table.column_iter_mut().skip(3).for_each(|column| column.set_cell_alignment(CellAlignment::Right));
    table
}

/// The model of a run on its first samples, with its data and its task.
fn of_run(args: &Args) -> Result<Vec<Row>> {
    let (config, job) = Job::of_run(Path::new(&args.what), args.data.clone())?;
    job.run(Look { args, config: config.fit })
}

struct Look<'a> {
    args: &'a Args,
    config: Config,
}

impl Use for Look<'_> {
    type Out = Vec<Row>;

    fn settings(&self) -> &Config {
        &self.config
    }

    fn with<M: Module>(self, trainer: Trainer<'_, M>) -> Result<Vec<Row>> {
        let n = self.args.batch.unwrap_or(self.config.batch_size).min(trainer.data.train.len());
        planned(self.args, |device| {
            let model = without_initial_values(&trainer.build)?;
            let batch = Batch::of(&*trainer.data.train, &(0..n).collect::<Vec<_>>(), None)?;
            seen(device, &model.named_parameters(), self.args.precision, &|| Ok(trainer.task.loss(&model, &batch)?.0))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layers_within_layers_are_added_up() {
        let row = |layer: &str, parameters: usize, kept_bytes: i64| Row {
            layer: layer.into(),
            shape: vec![parameters],
            parameters,
            kept_bytes,
            ..Row::default()
        };
        let rows = vec![row("", 0, 1), row("a.b", 2, 10), row("a.c.d", 3, -4), row("e", 5, 0)];
        let merged = within(rows, 1);
        let told: Vec<_> = merged.iter().map(|r| (r.layer.as_str(), r.parameters, r.kept_bytes)).collect();
        assert_eq!(told, [("", 0, 1), ("a", 5, 6), ("e", 5, 0)]);
        assert_eq!(merged[1].shape, [3]);
    }
}
