//! `binade inspect`: a run's weights, activations and gradients against the range of each format.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Result, bail};
use binade::amp::preflight::{Preflight, Range, Role, preflight};
use binade::amp::{Census, census};
use binade::autograd::Var;
use binade::nn::{Module, load_state_dict, read_safetensors};
use binade::tensor::Class;
use binade::train::{Batch, Config, Precision, Trainer};

use binade::cli::output::line;
use binade::cli::threads;

use crate::train::job::{Job, Use};

#[derive(clap::Args)]
#[command(after_help = "Example: binade inspect runs/digits-1")]
pub struct Args {
    /// Run folder, as `binade train` writes it
    run: PathBuf,
    /// Folder with the data set's files, or the text; digits and the embedded text need none
    #[arg(long, value_name = "PATH")]
    data: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub fn run(args: &Args) -> Result<ExitCode> {
    threads::start(None)?;
    let (config, job) = Job::of_run(&args.run, args.data.clone())?;
    let file = |p: Precision| args.run.join(format!("checkpoint-{}.safetensors", p.name()));
    let Some(precision) = config.precisions.iter().copied().find(|&p| file(p).exists()) else {
        bail!("{}: no checkpoint yet", args.run.display());
    };
    let samples = config.fit.batch_size;
    let (found, counted) = job.run(Look { checkpoint: file(precision), settings: config.fit })?;
    if args.json {
        line(serde_json::to_string_pretty(&serde_json::json!({ "preflight": found, "census": counted }))?)?;
    } else {
        let name = job.name();
        line(format_args!("{name} after training in {}, one batch of {samples}, in f32\n", precision.name()))?;
        print(&found)?;
        print_census(&found, &counted)?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Looks at a step of the model of a checkpoint.
struct Look {
    checkpoint: PathBuf,
    settings: Config,
}

impl Use for Look {
    type Out = (Preflight, Census);

    fn settings(&self) -> &Config {
        &self.settings
    }

    fn with<M: Module>(self, trainer: Trainer<'_, M>) -> Result<(Preflight, Census)> {
        let model = (trainer.build)()?;
        let (tensors, _) = read_safetensors(&self.checkpoint, Class::Weights)?;
        let weights: Vec<_> =
            tensors.into_iter().filter_map(|(n, a)| Some((n.strip_prefix("model.")?.to_string(), a))).collect();
        load_state_dict(&model, &weights)?;
        let samples: Vec<usize> = (0..trainer.data.train.len().min(self.settings.batch_size)).collect();
        let batch = Batch::of(&*trainer.data.train, &samples, None)?;
        let loss = || -> binade::train::Result<Var> { Ok(trainer.task.loss(&model, &batch)?.0) };
        let found = preflight(&model, loss)?;
        let counted = census(&found.policy(), loss)?;
        Ok((found, counted))
    }
}

fn percent(n: u64, range: &Range) -> String {
    format!("{:.2}", 100.0 * n as f64 / (range.count - range.zeros).max(1) as f64)
}

fn print(found: &Preflight) -> Result<()> {
    use comfy_table::{CellAlignment, Table, presets};
    let mut table = Table::new();
    table.load_preset(presets::ASCII_MARKDOWN);
    table.set_header([
        "layer",
        "numbers of",
        "smallest",
        "largest",
        "f16 headroom",
        "f16 % zero",
        "% subnormal",
        "% overflow",
        "bf16 % zero",
        "% overflow",
    ]);
    for row in &found.rows {
        let r = &row.range;
        let what = if row.op.is_empty() { row.role.to_string() } else { format!("{} ({})", row.op, row.role) };
        table.add_row([
            row.layer.clone(),
            what,
            format!("{:.1e}", r.min_abs),
            format!("{:.1e}", r.max_abs),
            format!("{:.1}", r.f16_headroom()),
            percent(r.f16.underflow, r),
            percent(r.f16.subnormal, r),
            percent(r.f16.overflow, r),
            percent(r.bf16.underflow, r),
            percent(r.bf16.overflow, r),
        ]);
    }
    for column in table.column_iter_mut().skip(2) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    line(format_args!("{table}\n"))?;
    for role in [Role::Weight, Role::Activation, Role::Gradient] {
        histogram(role, &found.total(role))?;
    }
    let scale = found.loss_scale.map_or(String::new(), |s| format!(", loss scale {s}"));
    line(format_args!("recommended: {}{scale}: {}", found.recommended, found.why))?;
    Ok(())
}

fn print_census(found: &Preflight, census: &Census) -> Result<()> {
    let what = "operators by dtype of their result, forward and backward";
    line(format_args!("\none step under autocast to {}: {what}", found.recommended))?;
    for (op, by) in &census.operators {
        let counts: Vec<String> = by.iter().map(|(dtype, n)| format!("{n} {dtype}")).collect();
        line(format_args!("  {op:<24} {}", counts.join(", ")))?;
    }
    let casts: u64 = census.casts.values().map(|(n, _)| n).sum();
    line(format_args!("  {casts} casts wrote {:.1} KiB", census.cast_bytes() as f64 / 1024.0))?;
    for (layer, op) in &census.wide_contractions {
        line(format_args!("  {op} in {layer:?} ran in f32"))?;
    }
    Ok(())
}

/// Exponents in fours, with the edges of f16 (Micikevicius et al. 2018, figure 3).
fn histogram(role: Role, range: &Range) -> Result<()> {
    let numbers = (range.count - range.zeros).max(1) as f64;
    let zeros = 100.0 * range.zeros as f64 / range.count.max(1) as f64;
    line(format_args!("{role}s by exponent ({zeros:.1} % are zero)"))?;
    let mut fours = std::collections::BTreeMap::<i32, u64>::new();
    range.exponents.iter().for_each(|(e, n)| *fours.entry(e.div_euclid(4) * 4).or_default() += n);
    for (&e, &n) in &fours {
        let share = n as f64 / numbers;
        let place = match e {
            e if e + 3 < -25 => "0 in f16",
            e if e + 3 < -14 => "subnormal in f16",
            e if e > 15 => "infinite in f16",
            _ => "",
        };
        let (exponents, bar) = (format!("2^{e}..{}", e + 3), "█".repeat((share * 40.0).ceil() as usize));
        line(format_args!("{exponents:>12}  {bar:<40} {:>6.2} %  {place}", 100.0 * share))?;
    }
    line("")?;
    Ok(())
}
