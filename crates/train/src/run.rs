//! [`train`]: one model in several precisions, compared: the run folder, its summary and its report.

use std::path::{Path, PathBuf};

use binade_autograd::scope;
use binade_nn::{Layer, remove_partial_files, replace_file};
use serde::{Deserialize, Serialize};

use crate::fit::Output;
use crate::lock::Lock;
use crate::progress::say;
use crate::recipe::{Recipe, check_same};
use crate::{Config, Error, Precision, Result, Splits, Summary, checkpoint, fit, interrupt, report, table};

/// Settings of [`train`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RunConfig {
    /// Name of the data set or task, for the folder and the report.
    pub name: String,
    /// Precisions, in order: at least one, none twice.
    pub precisions: Vec<Precision>,
    /// Settings common to all; its precision is ignored.
    pub fit: Config,
    /// Run folder; by default a new `runs/NAME-N`.
    #[serde(skip)]
    pub out: Option<PathBuf>,
    /// Continue the run in the folder (by default the newest of that name), which must have been started with these
    /// settings.
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

impl RunConfig {
    /// The settings of the run in a folder, as its `config.json` has them.
    ///
    /// # Errors
    /// The folder holds no run, or its settings are not whole, or have one that is unknown, twice there or out of
    /// range.
    pub fn read(folder: &Path) -> Result<RunConfig> {
        let path = folder.join("config.json");
        let bad = |message: String| Error::Checkpoint { path: folder.into(), message };
        let text = std::fs::read_to_string(&path).map_err(|e| bad(format!("not a run folder: config.json: {e}")))?;
        let config: RunConfig =
            serde_json::from_str(&text).map_err(|e| bad(format!("config.json has no settings of a run: {e}")))?;
        config.check().map_err(|e| bad(format!("config.json: {e}")))?;
        Ok(config)
    }

    /// What can be told without the data.
    fn check(&self) -> Result<()> {
        let fail = |message: String| Err(Error::Config(message));
        if self.precisions.is_empty() {
            return fail("precisions = []: there must be at least one".into());
        }
        for (i, precision) in self.precisions.iter().enumerate() {
            if self.precisions[..i].contains(precision) {
                return fail(format!("precisions: {} is there twice", precision.name()));
            }
        }
        self.fit.check_settings()
    }

    /// The run folder that [`train`] makes or continues.
    ///
    /// # Errors
    /// There is no run to continue.
    pub fn folder(&self) -> Result<PathBuf> {
        let numbered = |n: u32| Path::new("runs").join(format!("{}-{n}", self.name));
        let next = (1..).find(|&n| !numbered(n).exists()).unwrap_or(1);
        match (&self.out, self.resume) {
            (Some(folder), _) => Ok(folder.clone()),
            (None, false) => Ok(numbered(next)),
            (None, true) if next == 1 => Err(Error::Config(format!(
                "there is no run to resume in {}; name its folder with --out",
                Path::new("runs").display()
            ))),
            (None, true) => Ok(numbered(next - 1)),
        }
    }

    /// Whether the run in the folder was started with these settings. [`train`] asks before it writes; asking before
    /// large data are loaded saves the wait.
    ///
    /// # Errors
    /// The first setting that differs, with both values; no run in the folder.
    pub fn check_resumed(&self, folder: &Path) -> Result<()> {
        let written = RunConfig::read(folder)?;
        // Of no meaning here: each precision has its own.
        let fit = Config { precision: self.fit.precision, ..written.fit.clone() };
        check_same(&folder.join("config.json"), &RunConfig { fit, ..written }, self)
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

/// Trains the model that `build` makes, from the same initial values in each precision in turn, and writes
/// `config.json`, `metrics.jsonl`, checkpoints, `summary.json` and `report.html` into the run folder.
///
/// A run is resumed with the settings, the data and the model that it was started with. Only its number of epochs may
/// differ; it must be above what is trained already.
///
/// # Errors
/// As [`fit`]; a folder that cannot be written or already holds a run, or a run of other settings than the resumed one,
/// before anything is trained or written.
pub fn train<M: Layer>(build: impl Fn() -> binade_nn::Result<M>, data: &Splits, config: &RunConfig) -> Result<Run> {
    interrupt::install();
    config.check()?;
    config.fit.check(data)?;
    // A stream of its own, beside those of the iterations.
    let build = || scope::with_key(config.fit.seed, u64::MAX, &build);
    let (folder, _lock) = if config.resume {
        let folder = config.folder()?;
        config.check_resumed(&folder)?;
        let lock = Lock::acquire(&folder)?;
        check_resumed(&folder, &build()?, data, config)?;
        (folder, lock)
    } else {
        start(config)?
    };
    remove_partial_files(&folder).map_err(Error::io(&folder))?;
    write_json(&folder.join("config.json"), config)?;
    let (mut summaries, mut numbers) = (Vec::new(), None);
    for &precision in &config.precisions {
        let model = build()?;
        let output = Output { folder: folder.clone(), resume: config.resume, quiet: config.quiet };
        summaries.push(fit(&model, data, &Config { precision, ..config.fit.clone() }, &output)?);
        write_json(&folder.join("summary.json"), &summaries)?;
        if numbers.is_none() {
            numbers = Some(fit::numbers(&model, data, &config.fit)?);
        }
    }
    let page = folder.join("report.html");
    let metrics = crate::metrics::read(&folder.join("metrics.jsonl"))?;
    let html = report(&config.name, &summaries, &metrics, numbers.as_ref());
    replace_file(&page, |file| file.write_all(html.as_bytes())).map_err(Error::io(&page))?;
    if !config.quiet {
        say(&format!("\n{}\n\nreport: {}", table(&summaries), page.display()));
    }
    Ok(Run { folder, summaries })
}

/// A folder for a new run, which is this process's.
fn start(config: &RunConfig) -> Result<(PathBuf, Lock)> {
    let folder = match &config.out {
        Some(folder) => std::fs::create_dir_all(folder).map_err(Error::io(folder)).map(|()| folder.clone()),
        None => numbered(config),
    }?;
    let lock = Lock::acquire(&folder)?;
    if folder.join("config.json").exists() || Precision::ALL.iter().any(|&p| checkpoint::path(&folder, p).exists()) {
        return Err(Error::Config(format!(
            "{} already holds a run: continue it with --resume, or choose another --out",
            folder.display()
        )));
    }
    Ok((folder, lock))
}

/// Makes the folder with the next number.
fn numbered(config: &RunConfig) -> Result<PathBuf> {
    loop {
        let folder = config.folder()?;
        folder.parent().map_or(Ok(()), std::fs::create_dir_all).map_err(Error::io(&folder))?;
        match std::fs::create_dir(&folder) {
            // Another process has taken the number meanwhile.
            Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => {}
            made => return made.map_err(Error::io(&folder)).map(|()| folder),
        }
    }
}

/// Whether the run in the folder, and every checkpoint in it, is one of these settings, these data and this model.
fn check_resumed(folder: &Path, model: &impl Layer, data: &Splits, config: &RunConfig) -> Result<()> {
    config.check_resumed(folder)?;
    for &precision in &config.precisions {
        let path = checkpoint::path(folder, precision);
        if path.exists() {
            let config = Config { precision, ..config.fit.clone() };
            checkpoint::load(&path, &Recipe::new(&config, data), model, &mut fit::start(model, &config)?)?;
        }
    }
    let metrics = folder.join("metrics.jsonl");
    if metrics.exists() {
        crate::metrics::read(&metrics)?;
    }
    Ok(())
}

fn write_json(path: &Path, value: &impl Serialize) -> Result<()> {
    let text = serde_json::to_string_pretty(value).map_err(|e| Error::io(path)(e.into()))?;
    replace_file(path, |file| writeln!(file, "{text}")).map_err(Error::io(path))
}
