//! [`Row`]: what `--against` found for one case in one precision. The table, the JSON file and the picture are made of
//! rows.

use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context, Result, ensure};
use binade::nn::replace_file;
use comfy_table::Table;
use serde::{Deserialize, Serialize};

use super::memory::Memory;
use super::picture;
use super::timing::{median, quantile, round, sorted};
use binade::cli::output::line;

/// One case in one precision beside others.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Row {
    pub case: String,
    pub prec: String,
    pub threads: usize,
    /// Rounds in which every side ran once.
    pub rounds: usize,
    pub binade_ms: f64,
    /// The same case here, in f32.
    pub own_f32: Option<Beside>,
    /// PyTorch in f32.
    pub torch_f32: Option<Beside>,
    /// PyTorch's bf16 autocast; only beside training steps in 16 bit.
    pub torch_bf16: Option<Beside>,
    /// Of training steps.
    pub memory: Option<Memory>,
    /// Of PyTorch's step in f32.
    pub torch_f32_memory: Option<Memory>,
    /// Of PyTorch's step under bf16 autocast.
    pub torch_bf16_memory: Option<Memory>,
}

/// Another side's median time, and the quartiles of its time over ours, round by round: above 1 we are faster.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Beside {
    pub ms: f64,
    pub ratio: f64,
    pub p25: f64,
    pub p75: f64,
}

impl Beside {
    /// Times of both sides by round. A slow side may have run in the first rounds only.
    pub fn new(other: &[f64], here: &[f64]) -> Beside {
        let ratios = sorted(&other.iter().zip(here).map(|(o, h)| o / h).collect::<Vec<_>>());
        let [p25, ratio, p75] = [0.25, 0.5, 0.75].map(|q| round(quantile(&ratios, q)));
        Beside { ms: round(median(other)), ratio, p25, p75 }
    }

    fn quartiles(&self) -> String {
        format!("{:.2} ({:.2} to {:.2})", self.ratio, self.p25, self.p75)
    }
}

/// The rows of a file that [`publish`] wrote.
pub fn read(path: &Path) -> Result<Vec<Row>> {
    let text = std::fs::read_to_string(path).with_context(|| path.display().to_string())?;
    let rows: Vec<Row> =
        serde_json::from_str(&text).with_context(|| format!("{} is not what bench --out writes", path.display()))?;
    ensure!(!rows.is_empty(), "{} holds no measurement", path.display());
    Ok(rows)
}

/// Writes the file and the picture, and prints the tables.
pub fn publish(rows: &[Row], out: Option<&Path>, picture: Option<&Path>) -> Result<ExitCode> {
    let write = |path: &Path, text: String| {
        replace_file(path, |file| file.write_all(text.as_bytes())).with_context(|| path.display().to_string())
    };
    if let Some(path) = out {
        write(path, serde_json::to_string_pretty(rows)? + "\n")?;
    }
    if let Some(path) = picture {
        write(path, picture::svg(rows))?;
    }
    line(times(rows))?;
    if rows.iter().any(|r| r.memory.is_some()) {
        let heading = "Memory of a training step, MiB; peak: above the level after building the model";
        line(format_args!("{heading}\n{}", memory(rows)))?;
    }
    Ok(ExitCode::SUCCESS)
}

fn times(rows: &[Row]) -> Table {
    let mut table = Table::new();
    let autocast = rows.iter().any(|r| r.torch_bf16.is_some());
    let mut header = vec!["case", "precision", "here, ms", "against own f32", "PyTorch f32, ms", "against it"];
    if autocast {
        header.extend(["PyTorch bf16, ms", "against it"]);
    }
    table.set_header(header);
    for row in rows {
        let ms = |b: &Option<Beside>| b.map_or(String::new(), |b| format!("{:.2}", b.ms));
        let ratio = |b: &Option<Beside>| b.as_ref().map_or(String::new(), Beside::quartiles);
        let mut cells = vec![row.case.clone(), row.prec.clone(), format!("{:.2}", row.binade_ms)];
        cells.extend([ratio(&row.own_f32), ms(&row.torch_f32), ratio(&row.torch_f32)]);
        if autocast {
            cells.extend([ms(&row.torch_bf16), ratio(&row.torch_bf16)]);
        }
        table.add_row(cells);
    }
    table
}

fn memory(rows: &[Row]) -> Table {
    let mut table = Table::new();
    table.set_header(["case", "side", "saved", "of own f32", "peak", "of PyTorch f32"]);
    for (i, row) in rows.iter().enumerate() {
        let Some(here) = row.memory else { continue };
        let mut add = |side: &str, m: Memory, own: Option<Memory>, peer: Option<Memory>| {
            let part =
                |a: f64, b: Option<f64>| b.filter(|b| *b > 0.0).map_or(String::new(), |b| format!("{:.2}", a / b));
            table.add_row([
                row.case.clone(),
                side.into(),
                format!("{:.1}", m.saved_mib),
                part(m.saved_mib, own.map(|o| o.saved_mib)),
                format!("{:.1}", m.peak_mib),
                part(m.peak_mib, peer.map(|p| p.peak_mib)),
            ]);
        };
        let f32s = rows.iter().find(|r| r.case == row.case && r.prec == "fp32");
        add(&row.prec, here, f32s.and_then(|r| r.memory), row.torch_f32_memory);
        // PyTorch's own lines come once, after the last of ours.
        if rows.get(i + 1).is_none_or(|next| next.case != row.case) {
            for (side, m) in [("PyTorch fp32", row.torch_f32_memory), ("PyTorch bf16", row.torch_bf16_memory)] {
                if let Some(m) = m {
                    add(side, m, row.torch_f32_memory, row.torch_f32_memory);
                }
            }
        }
    }
    table
}
