//! [`train`]: one model in several precisions, compared: the run folder, its summary and its report.

use std::path::{Path, PathBuf};

use binade_autograd::scope;
use binade_nn::Layer;
use serde::{Deserialize, Serialize};

use crate::fit::{Output, has_checkpoint};
use crate::{Config, Error, Precision, Result, Splits, Summary, fit, interrupt, report, table};

/// Settings of [`train`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RunConfig {
    /// Name of the data set or task, for the folder and the report.
    pub name: String,
    /// Precisions, in order.
    pub precisions: Vec<Precision>,
    /// Settings common to all; its precision is ignored.
    pub fit: Config,
    /// Run folder; by default a new `runs/NAME-N`.
    #[serde(skip)]
    pub out: Option<PathBuf>,
    /// Continue the run in the folder (by default the newest of that name).
    #[serde(skip)]
    pub resume: bool,
    /// Print nothing.
    #[serde(skip)]
    pub quiet: bool,
}

impl Default for RunConfig {
    fn default() -> RunConfig {
        RunConfig {
            name: "run".into(),
            precisions: Precision::ALL.to_vec(),
            fit: Config::default(),
            out: None,
            resume: false,
            quiet: false,
        }
    }
}

/// What [`train`] made.
#[derive(Clone, Debug)]
pub struct Run {
    /// The run folder.
    pub folder: PathBuf,
    /// One summary per precision.
    pub summaries: Vec<Summary>,
}

/// Trains the model that `build` makes, from the same initial values in each precision in turn, and writes `config.json`,
/// `metrics.jsonl`, checkpoints, `summary.json` and `report.html` into the run folder.
///
/// # Errors
/// As [`fit`]; a folder that cannot be written or already holds a run, before any training.
pub fn train<M: Layer>(build: impl Fn() -> binade_nn::Result<M>, data: &Splits, config: &RunConfig) -> Result<Run> {
    interrupt::install();
    let folder = folder(config)?;
    let (mut summaries, mut numbers) = (Vec::new(), None);
    for &precision in &config.precisions {
        // A stream of its own, beside those of the iterations.
        let model = scope::with_key(config.fit.seed, u64::MAX, &build)?;
        let output = Output { folder: folder.clone(), resume: config.resume, quiet: config.quiet };
        summaries.push(fit(&model, data, &Config { precision, ..config.fit.clone() }, &output)?);
        write_json(&folder.join("summary.json"), &summaries)?;
        if numbers.is_none() {
            numbers = Some(fit::numbers(&model, data, &config.fit)?);
        }
    }
    let page = folder.join("report.html");
    let metrics = crate::metrics::read(&folder.join("metrics.jsonl"))?;
    std::fs::write(&page, report(&config.name, &summaries, &metrics, numbers.as_ref())).map_err(Error::io(&page))?;
    if !config.quiet {
        println!("\n{}\n\nreport: {}", table(&summaries), page.display());
    }
    Ok(Run { folder, summaries })
}

/// The run folder, made and found writable; `config.json` is in it.
fn folder(config: &RunConfig) -> Result<PathBuf> {
    let numbered = |n: u32| Path::new("runs").join(format!("{}-{n}", config.name));
    let next = (1..).find(|&n| !numbered(n).exists()).unwrap_or(1);
    let folder = match (&config.out, config.resume) {
        (Some(folder), _) => folder.clone(),
        (None, false) => numbered(next),
        (None, true) if next == 1 => {
            return Err(Error::Config(format!(
                "there is no run to resume in {}; name its folder with --out",
                Path::new("runs").display()
            )));
        }
        (None, true) => numbered(next - 1),
    };
    let settings = folder.join("config.json");
    if config.resume {
        if !settings.exists() {
            return Err(Error::Checkpoint { path: folder, message: "no run to resume: config.json is missing".into() });
        }
        return Ok(folder);
    }
    if settings.exists() || has_checkpoint(&folder) {
        return Err(Error::Config(format!(
            "{} already holds a run: continue it with --resume, or choose another --out",
            folder.display()
        )));
    }
    std::fs::create_dir_all(&folder).map_err(Error::io(&folder))?;
    write_json(&settings, config)?;
    Ok(folder)
}

fn write_json(path: &Path, value: &impl Serialize) -> Result<()> {
    let text = serde_json::to_string_pretty(value).map_err(|e| Error::io(path)(e.into()))?;
    let temporary = path.with_extension("partial");
    std::fs::write(&temporary, text + "\n").map_err(Error::io(&temporary))?;
    std::fs::rename(&temporary, path).map_err(Error::io(path))
}
