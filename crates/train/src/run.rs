//! [`train`] and [`Trainer`]: one model in several precisions, compared: the run folder, its summary and its report.

use std::path::{Path, PathBuf};

use binade_amp::Training;
use binade_amp::preflight::{Preflight, preflight};
use binade_autograd::scope;
use binade_nn::{Module, replace_file};
use binade_tensor::Device;
use serde::{Deserialize, Serialize};

use crate::begin::{check_resumed, remove_partial_files_below, start};
use crate::fit::{Callback, Output, fit_pair};
use crate::lock::Lock;
use crate::progress::say;
use crate::recipe::{Recipe, check_same};
use crate::record::{NUMBERS, SUMMARY, note_start};
use crate::rehearsal::{Rehearsed, profile, rehearse};
use crate::trainee::{Begun, Fresh, Make, Pair, Trainee};
use crate::{
    Batch, Config, Error, Made, Precision, Profile, Recording, Result, Splits, Summary, Task, checkpoint, confused,
    gallery, interrupt, report, sealed, table,
};

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
    /// What the model and the task were made from, as far as their maker wants to read it again. A run is resumed with
    /// nothing else.
    #[serde(default, skip_serializing_if = "serde_json::Value::is_null")]
    pub made_from: serde_json::Value,
    /// Run folder; by default a new `runs/NAME-N`.
    #[serde(skip)]
    pub out: Option<PathBuf>,
    /// Continue the run in the folder (by default the newest of that name), which must have been started with these
    /// settings.
    #[serde(skip)]
    pub resume: bool,
    /// Of a run that is continued: begin with the checkpoints that were kept after this epoch.
    #[serde(skip)]
    pub after_epoch: Option<u64>,
    /// Print nothing.
    #[serde(skip)]
    pub quiet: bool,
    /// Print a line for each step.
    #[serde(skip)]
    pub verbose: bool,
    /// Steps of each precision to record, and where to.
    #[serde(skip)]
    pub profile: Option<Profile>,
}

impl Default for RunConfig {
    fn default() -> RunConfig {
        RunConfig {
            name: "run".into(),
            precisions: Precision::ALL.to_vec(),
            fit: Config::default(),
            made_from: serde_json::Value::Null,
            out: None,
            resume: false,
            after_epoch: None,
            quiet: false,
            verbose: false,
            profile: None,
        }
    }
}

impl RunConfig {
    /// The settings of the run in a folder, as its `config.json` has them.
    ///
    /// # Errors The folder holds no run. Its settings are not whole, or have one that is unknown, twice there or out of
    /// range. They are not as [`train`] wrote them: the file has a checksum.
    pub fn read(folder: &Path) -> Result<RunConfig> {
        let path = folder.join("config.json");
        let bad = |message: String| Error::Checkpoint { path: folder.into(), message };
        let text = std::fs::read_to_string(&path).map_err(|e| bad(format!("not a run folder: config.json: {e}")))?;
        let (object, whole) = sealed::open(&text);
        let config: RunConfig =
            serde_json::from_str(&object).map_err(|e| bad(format!("config.json has no settings of a run: {e}")))?;
        config.check().map_err(|e| bad(format!("config.json: {e}")))?;
        whole.map_err(|e| bad(format!("config.json: {e}; settings are changed by resuming with others")))?;
        Ok(config)
    }

    /// Fails where a setting is outside its domain. [`train`] asks before it does anything; asking before data are
    /// loaded saves the wait.
    ///
    /// # Errors
    /// The first such setting, with its value.
    pub fn check(&self) -> Result<()> {
        if self.precisions.is_empty() {
            return Err(Error::Config("precisions = []: there must be at least one".into()));
        }
        for (i, precision) in self.precisions.iter().enumerate() {
            if self.precisions[..i].contains(precision) {
                return Err(Error::Config(format!("precisions: {} is there twice", precision.name())));
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
    /// What the model of each precision made ([`Task::samples`]).
    pub made: Vec<Vec<Made>>,
}

/// Trains the model that `build` makes, from the same initial values in each precision in turn, and writes
/// `config.json`, `metrics.jsonl`, checkpoints, `summary.json` and `report.html` into the run folder.
///
/// A run is resumed with the settings, the data, the task and the model that it was started with. Only its number of
/// epochs, and what it reports and keeps, may differ; the number must be above what is trained already.
///
/// # Errors
/// As [`fit`](crate::fit); a folder that cannot be written or already holds a run, or a run of other settings than the
/// resumed one, before anything is trained or written.
pub fn train<M: Module>(
    build: impl Fn() -> binade_nn::Result<M>,
    task: &dyn Task<M>,
    data: &Splits,
    config: &RunConfig,
) -> Result<Run> {
    Trainer::new(build, task, data).run(config)
}

/// Makes a model.
pub type Build<'a, M> = Box<dyn Fn() -> binade_nn::Result<M> + 'a>;
type Start<'a, M> = Box<dyn Fn(&M, &Config) -> Result<Training> + 'a>;

/// What [`train`] trains, as values: the model, the task, the data, and where they are not the default's the optimisers
/// and whatever else a [`Training`] holds.
///
/// ```no_run
/// # use binade_cpu as _;
/// use binade_nn::{Linear, Optimizer, Sgd};
/// use binade_train::{Classify, InMemory, RunConfig, Splits, Trainer};
/// # fn main() -> binade_train::Result<()> {
/// let (train, test) = InMemory::classes(vec![0.5; 400], &[4], &[1; 100])?.split_at(80);
/// let data = Splits::new(train, test);
/// let task = Classify::new(2);
/// let trainer = Trainer::new(|| Linear::new(4, 2), &task, &data).with_training(|model, config| {
///     let rule = Sgd { lr: config.lr, momentum: 0.9, ..Sgd::default() };
///     config.training_with(model, Optimizer::new(model, rule)?)
/// });
/// trainer.run(&RunConfig::default())?;
/// # Ok(())
/// # }
/// ```
pub struct Trainer<'a, M: Module> {
    /// Makes the model.
    pub build: Build<'a, M>,
    /// What it is trained to do.
    pub task: &'a dyn Task<M>,
    /// On what.
    pub data: &'a Splits,
    start: Start<'a, M>,
    files: Vec<(String, serde_json::Value)>,
    callbacks: Vec<Callback<'a>>,
}

impl<'a, M: Module> Trainer<'a, M> {
    /// With the defaults of [`Config::training`], and nobody to tell.
    pub fn new(
        build: impl Fn() -> binade_nn::Result<M> + 'a,
        task: &'a dyn Task<M>,
        data: &'a Splits,
    ) -> Trainer<'a, M> {
        let start = Box::new(|model: &M, config: &Config| config.training(model));
        Trainer { build: Box::new(build), task, data, start, files: Vec::new(), callbacks: Vec::new() }
    }

    /// With a training of one's own before its first step: other optimisers, policies, loss scales.
    #[must_use]
    pub fn with_training(mut self, start: impl Fn(&M, &Config) -> Result<Training> + 'a) -> Trainer<'a, M> {
        self.start = Box::new(start);
        self
    }

    /// With a file of this name beside the run's `config.json`: a JSON object of what others need to know of the model,
    /// which [`read_sealed`](crate::read_sealed) reads.
    #[must_use]
    pub fn with_file(mut self, name: &str, object: serde_json::Value) -> Trainer<'a, M> {
        self.files.push((name.into(), object));
        self
    }

    /// A model before its first step.
    pub(crate) fn fresh(&self) -> binade_nn::Result<Box<dyn Fresh + '_>> {
        let pair = Pair { model: Box::new((self.build)()?), task: self.task };
        Ok(Box::new(Begun { pair, start: &self.start }))
    }

    /// With another callback.
    #[must_use]
    pub fn with_callback(mut self, callback: Callback<'a>) -> Trainer<'a, M> {
        self.callbacks.push(callback);
        self
    }

    /// Steps twice on another device, the first time to make the optimisers' state, and evaluates a batch there: a
    /// model of its own, in the precision of the settings. Nothing else is changed. On a device that only counts it
    /// tells what [`Trainer::run`] will take, and needs no [initial values](binade_nn::without_initial_values).
    ///
    /// # Errors
    /// As [`fit`](crate::fit), for the first samples.
    pub fn rehearse(&self, config: &Config, device: &Device) -> Result<Rehearsed> {
        rehearse(&|| self.fresh(), self.data, config, device)
    }

    /// Steps a model of its own on the training data, after a few steps that are unlike the rest, and says where their
    /// time goes: in the precision of the settings, on the scope's device. Nothing else is changed.
    ///
    /// # Errors
    /// As [`fit`](crate::fit), without files.
    pub fn profile(&self, config: &Config, steps: u64) -> Result<Recording> {
        profile(&|| self.fresh(), self.data, config, steps)
    }

    /// Trains, as [`train`].
    ///
    /// # Errors
    /// As [`train`].
    pub fn run(mut self, config: &RunConfig) -> Result<Run> {
        let callbacks = std::mem::take(&mut self.callbacks);
        run(&|| self.fresh(), self.data, &self.files, callbacks, config)
    }
}

/// [`Trainer::run`], whichever model it is.
fn run(
    make: Make<'_>,
    data: &Splits,
    files: &[(String, serde_json::Value)],
    callbacks: Vec<Callback<'_>>,
    config: &RunConfig,
) -> Result<Run> {
    interrupt::install();
    config.check()?;
    config.fit.check(data)?;
    // A stream of its own, beside those of the iterations.
    let build = || scope::with_key(config.fit.seed, u64::MAX, make);
    let (folder, _lock) = if config.resume {
        let folder = config.folder()?;
        config.check_resumed(&folder)?;
        let lock = Lock::acquire(&folder)?;
        let (fresh, after_epoch) = (build()?, config.after_epoch);
        let pair = fresh.trainee();
        check_resumed(&folder, config, &|config| {
            let mut training = fresh.training(config)?;
            let recipe = Recipe::new(config, &pair.name(), data)?;
            checkpoint::load(&folder, after_epoch, &recipe, pair.model(), &mut training).map(drop)
        })?;
        after_epoch.map_or(Ok(()), |epoch| checkpoint::rewind(&folder, &config.precisions, epoch))?;
        (folder, lock)
    } else {
        start(config)?
    };
    remove_partial_files_below(&folder)?;
    sealed::write(&folder.join("config.json"), config)?;
    for (name, object) in files {
        sealed::write(&folder.join(name), object)?;
    }
    note_start(&folder, scope::device()?.name())?;
    let (mut summaries, mut made) = (Vec::new(), Vec::new());
    let mut output = Output {
        folder: folder.clone(),
        resume: config.resume,
        quiet: config.quiet,
        verbose: config.verbose,
        callbacks,
        profile: config.profile.clone(),
        recordings: Vec::new(),
    };
    for &precision in &config.precisions {
        let (fresh, config) = (build()?, Config { precision, ..config.fit.clone() });
        let pair = fresh.trainee();
        let (summary, samples) = fit_pair(pair, data, fresh.training(&config)?, &config, &mut output)?;
        gallery::write_end(&folder, precision, &samples)?;
        if let Some(answers) = &summary.answers {
            confused::write(&folder, precision, answers, &*data.test)?;
        }
        if summaries.is_empty() {
            write_json(&folder.join(NUMBERS), &numbers(pair, data, &config)?)?;
        }
        summaries.push(summary);
        made.push(samples);
        write_json(&folder.join(SUMMARY), &summaries)?;
    }
    let (page, html) = (folder.join("report.html"), report(std::slice::from_ref(&folder))?);
    replace_file(&page, |file| file.write_all(html.as_bytes())).map_err(Error::io(&page))?;
    if !config.quiet {
        say(&format!("\n{}\n\nreport: {}", table(&summaries), page.display()));
    }
    Ok(Run { folder, summaries, made })
}

/// What the model's numbers would lose in 16 bit, on the first training samples.
fn numbers(pair: &dyn Trainee, data: &Splits, config: &Config) -> Result<Preflight> {
    let samples: Vec<usize> = (0..data.train.len().min(config.batch_size).min(64)).collect();
    let batch = Batch::of(&*data.train, &samples, None)?;
    scope::with_key(config.seed, 0, || preflight(pair.model(), || Ok(pair.loss(&batch)?.0)))
}

fn write_json(path: &Path, value: &impl Serialize) -> Result<()> {
    let text = serde_json::to_string_pretty(value).map_err(|e| Error::io(path)(e.into()))?;
    replace_file(path, |file| writeln!(file, "{text}")).map_err(Error::io(path))
}
