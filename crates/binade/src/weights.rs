//! `binade weights`: the tensors of a file or folder, how large their values are, and what formats would lose of them.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use binade::cli::output::line;
use binade::cli::threads;
use binade::tensor::DType;
use binade::weights::{Entry, Range, Weights};
use serde_json::json;

#[derive(clap::Args)]
#[command(after_help = "Example: binade weights runs/digits-1/checkpoint-bf16.safetensors")]
pub struct Args {
    /// Safetensors file, index, file of torch.save, or a folder with one of them
    path: PathBuf,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// What is lost in these is told.
const FORMATS: [DType; 3] = [DType::F32, DType::F16, DType::BF16];

pub fn run(args: &Args) -> Result<ExitCode> {
    threads::start(None)?;
    let weights = Weights::open(&args.path)?;
    if args.json {
        let tensors: Vec<_> = weights
            .entries()
            .map(|entry| {
                let range = weights.range(&entry.name, &FORMATS);
                let mut told = json!({ "name": entry.name, "dtype": entry.dtype.name(), "shape": entry.shape });
                match range {
                    Ok(range) => told["range"] = json!(range),
                    Err(error) => told["error"] = json!(error.to_string()),
                }
                told
            })
            .collect();
        let files: Vec<_> = weights.files().map(|path| path.display().to_string()).collect();
        let all = json!({ "files": files, "metadata": weights.metadata(), "tensors": tensors });
        line(serde_json::to_string_pretty(&all)?)?;
        return Ok(ExitCode::SUCCESS);
    }
    print(&weights)?;
    Ok(ExitCode::SUCCESS)
}

fn print(weights: &Weights) -> Result<()> {
    use comfy_table::{CellAlignment, Table, presets};
    let mut table = Table::new();
    table.load_preset(presets::ASCII_MARKDOWN);
    table.set_header([
        "tensor",
        "dtype",
        "shape",
        "smallest",
        "largest",
        "min |x|",
        "NaN, inf",
        "f16 lost",
        "bf16 lost",
    ]);
    let mut unread = Vec::new();
    for entry in weights.entries() {
        match weights.range(&entry.name, &FORMATS) {
            Ok(range) => drop(table.add_row(row(entry, Some(&range)))),
            Err(error) => {
                unread.push(error.to_string());
                table.add_row(row(entry, None));
            }
        }
    }
    for column in table.column_iter_mut().skip(3) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    line(format_args!("{table}\n"))?;
    for error in unread {
        line(error)?;
    }
    let (count, elements) = (weights.entries().count(), weights.entries().map(Entry::numel).sum::<usize>());
    let files = weights.files().count();
    line(format_args!("{count} tensors, {elements} values, {files} file{}", if files == 1 { "" } else { "s" }))?;
    line("lost: values that overflow, become 0, become subnormal")?;
    Ok(())
}

fn row(entry: &Entry, range: Option<&Range>) -> Vec<String> {
    let mut cells = vec![entry.name.clone(), entry.dtype.to_string(), format!("{:?}", entry.shape)];
    let Some(range) = range else {
        cells.extend([const { String::new() }; 6]);
        return cells;
    };
    let lost = |dtype: DType| {
        let loss = range.losses.iter().find(|loss| loss.dtype == dtype && !loss.is_none());
        loss.map_or(String::new(), |loss| format!("{}, {}, {}", loss.overflow, loss.zero, loss.subnormal))
    };
    let special =
        if range.nan + range.infinite == 0 { String::new() } else { format!("{}, {}", range.nan, range.infinite) };
    let number = |value: f64| format!("{value:.3e}");
    cells.extend([number(range.min), number(range.max), number(range.min_abs), special]);
    cells.extend([lost(DType::F16), lost(DType::BF16)]);
    cells
}
