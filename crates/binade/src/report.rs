//! `binade report`: a page about runs, made of what their folders hold.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result};
use binade::cli::output::line;
use binade::nn::replace_file;
use binade::train::{Recorded, csv, report};

#[derive(clap::Args)]
#[command(after_help = "Example: binade report runs/digits-1 runs/digits-2 --out both.html")]
pub struct Args {
    /// Run folders, as `binade train` writes them; a run may still be training
    #[arg(required = true, value_name = "RUN")]
    runs: Vec<PathBuf>,
    /// Where the page goes [default: report.html, in the run's folder or of several here]
    #[arg(long, value_name = "FILE.html")]
    out: Option<PathBuf>,
    /// Write the numbers of all steps, evaluations and epochs for spreadsheets, in place of a page
    #[arg(long, value_name = "FILE.csv", conflicts_with = "out")]
    csv: Option<PathBuf>,
}

pub fn run(args: &Args) -> Result<ExitCode> {
    if let Some(path) = &args.csv {
        let text = csv(&Recorded::open_all(&args.runs)?);
        replace_file(path, |file| file.write_all(text.as_bytes())).with_context(|| path.display().to_string())?;
        line(path.display())?;
        return Ok(ExitCode::SUCCESS);
    }
    let html = report(&args.runs)?;
    let usual = if let [run] = &args.runs[..] { run.join("report.html") } else { "report.html".into() };
    let page = args.out.clone().unwrap_or(usual);
    replace_file(&page, |file| file.write_all(html.as_bytes())).with_context(|| page.display().to_string())?;
    line(page.display())?;
    Ok(ExitCode::SUCCESS)
}
