//! [`Recorded`]: what the folder of a run tells of it, whether it has ended or not; [`Start`]: when, where and how it
//! was started.

use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use binade_amp::preflight::Preflight;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::metrics::{self, Record};
use crate::{Error, Result, RunConfig, Summary, sealed};

/// The files of a run beside what it trains.
pub(crate) const STARTS: &str = "starts.json";
pub(crate) const NUMBERS: &str = "numbers.json";
pub(crate) const SUMMARY: &str = "summary.json";
pub(crate) const METRICS: &str = "metrics.jsonl";

/// A start of a run: the first one, or one that resumed it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Start {
    /// Seconds since 1970.
    pub at: u64,
    /// Version of Binade.
    pub version: String,
    /// The command line.
    pub command: Vec<String>,
    /// Processor and operating system.
    pub machine: String,
    /// Threads that operators run on.
    pub threads: usize,
    /// Device.
    pub device: String,
}

impl Start {
    /// This process, now.
    fn now(device: &str) -> Start {
        Start {
            at: SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs()),
            version: env!("CARGO_PKG_VERSION").into(),
            command: std::env::args_os().map(|arg| arg.to_string_lossy().into_owned()).collect(),
            machine: machine(),
            threads: rayon::current_num_threads(),
            device: device.into(),
        }
    }

    /// `2026-11-30 22:08 UTC`.
    pub fn date(&self) -> String {
        // Days since 1 March of the year 0, in eras of 400 years (Hinnant, "chrono-compatible low-level date
        // algorithms").
        let (days, minutes) = (self.at / 86_400 + 719_468, self.at % 86_400 / 60);
        let (era, day) = (days / 146_097, days % 146_097);
        let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
        let day = day - (365 * year + year / 4 - year / 100);
        let month = (5 * day + 2) / 153;
        let day = day - (153 * month + 2) / 5 + 1;
        let (year, month) = (year + era * 400 + month / 10, if month < 10 { month + 3 } else { month - 9 });
        format!("{year}-{month:02}-{day:02} {:02}:{:02} UTC", minutes / 60, minutes % 60)
    }
}

/// Processor and operating system, as far as the system names them.
fn machine() -> String {
    let (os, arch) = (std::env::consts::OS, std::env::consts::ARCH);
    let told = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let name = told.lines().find_map(|line| line.strip_prefix("model name")?.split_once(':'));
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let name = name.map_or_else(|| arch.to_string(), |(_, name)| name.trim().to_string());
    format!("{name}, {cores} cores, {os} {arch}")
}

#[derive(Default, Serialize, Deserialize)]
struct Starts {
    starts: Vec<Start>,
}

/// What earlier processes told; nothing where the file is damaged, on which no result depends.
fn starts(folder: &Path) -> Vec<Start> {
    sealed::read_sealed::<Starts>(&folder.join(STARTS)).unwrap_or_default().starts
}

/// Adds this process to those that started the run of a folder.
pub(crate) fn note_start(folder: &Path, device: &str) -> Result<()> {
    let mut starts = starts(folder);
    starts.push(Start::now(device));
    sealed::write(&folder.join(STARTS), &Starts { starts })
}

/// A run as its folder has it.
#[derive(Clone, Debug)]
pub struct Recorded {
    /// What it is called.
    pub name: String,
    /// The folder.
    pub folder: PathBuf,
    /// The settings.
    pub config: RunConfig,
    /// When and how it was started and resumed.
    pub starts: Vec<Start>,
    /// Of the precisions that have ended.
    pub summaries: Vec<Summary>,
    /// All numbers so far.
    pub metrics: Vec<Record>,
    /// What 16 bit would lose of the numbers of one step.
    pub numbers: Option<Preflight>,
}

impl Recorded {
    /// Reads the folder of a run.
    ///
    /// # Errors
    /// It holds no run, as [`RunConfig::read`]; another of its files is damaged.
    pub fn open(folder: &Path) -> Result<Recorded> {
        let config = RunConfig::read(folder)?;
        let path = folder.join(METRICS);
        let metrics = if path.exists() { metrics::read(&path)? } else { Vec::new() };
        let of = |path: &Path| path.file_name().map(|name| name.to_string_lossy().into_owned());
        // `.` and `..` have no name of their own.
        let name = of(folder).or_else(|| of(&folder.canonicalize().ok()?));
        Ok(Recorded {
            name: name.unwrap_or_else(|| config.name.clone()),
            config,
            metrics,
            starts: starts(folder),
            summaries: json(&folder.join(SUMMARY))?.unwrap_or_default(),
            numbers: json(&folder.join(NUMBERS))?,
            folder: folder.into(),
        })
    }

    /// Reads the folders of runs. A run is called as its folder, or by its whole path where others have that name.
    ///
    /// # Errors
    /// As [`Recorded::open`].
    pub fn open_all(folders: &[PathBuf]) -> Result<Vec<Recorded>> {
        let mut runs: Vec<Recorded> = folders.iter().map(|folder| Recorded::open(folder)).collect::<Result<_>>()?;
        let names: Vec<String> = runs.iter().map(|run| run.name.clone()).collect();
        for run in &mut runs {
            if names.iter().filter(|name| **name == run.name).count() > 1 {
                run.name = run.folder.display().to_string();
            }
        }
        Ok(runs)
    }

    /// Every setting by its path, as `fit.lr`.
    pub fn settings(&self) -> Vec<(String, String)> {
        let mut all = Vec::new();
        flatten("", &serde_json::to_value(&self.config).unwrap_or_default(), &mut all);
        // Each precision has its own.
        all.retain(|(name, _)| name != "fit.precision");
        all
    }
}

/// A setting, and its value in each run.
pub type Setting = (String, Vec<Option<String>>);

/// The settings that differ between runs, and those that do not.
pub fn settings(runs: &[Recorded]) -> (Vec<Setting>, Vec<Setting>) {
    let all: Vec<Vec<(String, String)>> = runs.iter().map(Recorded::settings).collect();
    let mut names: Vec<&String> = Vec::new();
    for (name, _) in all.iter().flatten() {
        if !names.contains(&name) {
            names.push(name);
        }
    }
    let value = |of: &[(String, String)], name: &str| of.iter().find(|(own, _)| own == name).map(|own| own.1.clone());
    let rows = names.into_iter().map(|name| (name.clone(), all.iter().map(|of| value(of, name)).collect()));
    rows.partition(|(_, values): &Setting| values.iter().any(|value| *value != values[0]))
}

/// A file that may be missing.
fn json<T: DeserializeOwned>(path: &Path) -> Result<Option<T>> {
    let text = match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(Error::io(path)(error)),
    };
    let bad = |error: serde_json::Error| Error::Checkpoint { path: path.into(), message: error.to_string() };
    serde_json::from_str(&text).map(Some).map_err(bad)
}

/// The entries of objects within objects.
fn flatten(name: &str, value: &Value, into: &mut Vec<(String, String)>) {
    match value {
        Value::Object(entries) => {
            for (key, value) in entries {
                flatten(&if name.is_empty() { key.clone() } else { format!("{name}.{key}") }, value, into);
            }
        }
        Value::Null => {}
        Value::String(text) => into.push((name.into(), text.clone())),
        other => into.push((name.into(), other.to_string())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_start_says_its_date() {
        let of = |at: u64| Start { at, ..Start::now("cpu") }.date();
        assert_eq!(of(0), "1970-01-01 00:00 UTC");
        assert_eq!(of(951_782_399), "2000-02-28 23:59 UTC");
        assert_eq!(of(951_782_400), "2000-02-29 00:00 UTC");
        assert_eq!(of(1_796_076_480), "2026-11-30 22:08 UTC");
        assert_eq!(of(4_107_542_400), "2100-03-01 00:00 UTC");
    }

    #[test]
    fn settings_within_settings_have_a_path() {
        let mut all = Vec::new();
        flatten("", &serde_json::json!({ "a": { "b": [1, 2], "c": null }, "d": "e" }), &mut all);
        assert_eq!(all, [("a.b".into(), "[1,2]".into()), ("d".into(), "e".into())]);
    }
}
