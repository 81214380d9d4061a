//! `metrics.jsonl`: one JSON object per line, for every step and every epoch. JSON has no NaN and no infinities:
//! numbers that are not finite are `null` in the file.

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};

use binade_amp::Blame;
use binade_nn::replace_file;
use crc32fast::Hasher;
use serde::{Deserialize, Deserializer, Serialize};

use crate::{Error, PeakBytes, Result, Score, TextUnit};

/// One optimiser step.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StepMetrics {
    /// Iterations before this one, skipped ones included.
    pub iteration: u64,
    /// Loss before scaling; absent when not finite.
    pub loss: Option<f64>,
    /// Learning rate.
    pub lr: f64,
    /// Norm of the unscaled gradients before clipping; absent when not finite.
    pub grad_norm: Option<f64>,
    /// Scale the loss was multiplied by.
    pub loss_scale: f64,
    /// Whether the step was skipped.
    pub skipped: bool,
    /// Of a skipped step, the operator whose result was the first that was not finite.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub blame: Option<Box<Blame>>,
}

/// One epoch.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct EpochMetrics {
    /// Epoch, from 1.
    pub epoch: u64,
    /// Iterations at its end.
    pub iteration: u64,
    /// Mean of the epoch's losses over its samples, those of batches with a finite loss; NaN if there were none.
    #[serde(deserialize_with = "null_is_nan")]
    pub train_loss: f64,
    /// Mean loss on the test samples. Read from a file, NaN stands for an infinity too.
    #[serde(deserialize_with = "null_is_nan")]
    pub test_loss: f64,
    /// Share of test samples classified right; absent for regression.
    pub test_accuracy: Option<f64>,
    /// Seconds of training, without evaluation.
    pub seconds: f64,
    /// Largest numbers of bytes in use at once, by class, evaluation included; nothing in older files.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub peak_bytes: Option<PeakBytes>,
    /// e to the test loss, of a language model.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub test_perplexity: Option<f64>,
    /// Bits per character, byte or token on the test samples, of a language model.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub test_bits: Option<f64>,
}

impl EpochMetrics {
    pub(crate) fn new(
        epoch: u64,
        train_loss: f64,
        seconds: f64,
        test: EvaluationMetrics,
        peak: PeakBytes,
    ) -> EpochMetrics {
        let peak_bytes = Some(peak);
        let EvaluationMetrics { iteration, test_loss, test_accuracy, test_perplexity, test_bits } = test;
        EpochMetrics {
            epoch,
            iteration,
            train_loss,
            test_loss,
            test_accuracy,
            seconds,
            peak_bytes,
            test_perplexity,
            test_bits,
        }
    }
}

/// One evaluation within an epoch.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct EvaluationMetrics {
    /// Iterations before it.
    pub iteration: u64,
    /// Mean loss on the test samples. Read from a file, NaN stands for an infinity too.
    #[serde(deserialize_with = "null_is_nan")]
    pub test_loss: f64,
    /// Share of test samples classified right; absent where there is no right and wrong.
    pub test_accuracy: Option<f64>,
    /// e to the test loss, of a language model.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub test_perplexity: Option<f64>,
    /// Bits per character, byte or token on the test samples, of a language model.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub test_bits: Option<f64>,
}

impl EvaluationMetrics {
    pub(crate) fn new(iteration: u64, score: &Score, text: Option<TextUnit>) -> EvaluationMetrics {
        let &Score { loss, count, right, .. } = score;
        // Beyond all numbers is no number to write.
        let finite = |number: f64| Some(number).filter(|n| n.is_finite());
        let (test_perplexity, test_bits) =
            (text.as_ref().and_then(|_| finite(loss.exp())), text.and_then(|text| finite(text.bits(loss))));
        let test_accuracy = right.map(|right| right / count);
        EvaluationMetrics { iteration, test_loss: loss, test_accuracy, test_perplexity, test_bits }
    }
}

/// Reads the `null` that a number which is not finite is written as.
pub(crate) fn null_is_nan<'de, D: Deserializer<'de>>(from: D) -> Result<f64, D::Error> {
    Ok(Option::deserialize(from)?.unwrap_or(f64::NAN))
}

/// A line of `metrics.jsonl`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// `fp32`, `fp16` or `bf16`.
    pub precision: String,
    /// The numbers.
    #[serde(flatten)]
    pub metrics: Metrics,
}

/// Numbers of a step, an evaluation or an epoch.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Metrics {
    /// A step.
    Step(StepMetrics),
    /// An evaluation within an epoch.
    Evaluation(EvaluationMetrics),
    /// An epoch.
    Epoch(EpochMetrics),
}

impl Metrics {
    fn iteration(&self) -> u64 {
        match self {
            Metrics::Step(step) => step.iteration,
            // Both come after their last iteration.
            Metrics::Evaluation(evaluation) => evaluation.iteration.saturating_sub(1),
            Metrics::Epoch(epoch) => epoch.iteration.saturating_sub(1),
        }
    }
}

/// What a checkpoint knows of its precision's lines: how many were written before it, and a CRC-32 over them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Written {
    lines: u64,
    crc32: u32,
}

/// Adds lines up to a [`Written`].
#[derive(Clone, Default)]
struct Sum {
    lines: u64,
    hasher: Hasher,
}

impl Sum {
    fn add(&mut self, line: &str) {
        self.lines += 1;
        self.hasher.update(line.as_bytes());
        self.hasher.update(b"\n");
    }

    fn written(&self) -> Written {
        Written { lines: self.lines, crc32: self.hasher.clone().finalize() }
    }
}

/// Appends records to the file.
pub(crate) struct Writer {
    file: std::fs::File,
    path: PathBuf,
    sum: Sum,
    /// Lines that were dropped when it was opened.
    pub(crate) dropped: usize,
}

impl Writer {
    /// Opens the file for a precision that continues at `iteration`: later lines of that precision, and a torn last
    /// line, are dropped. All others stay as they are.
    pub(crate) fn open(path: &Path, precision: &str, iteration: u64) -> Result<Writer> {
        let (mut sum, mut dropped, mut failed) = (Sum::default(), 0, None);
        let written = replace_file(path, |file| {
            let kept = each_line(path, &mut |line, record| {
                let own = record.precision == precision;
                if own && record.metrics.iteration() >= iteration {
                    dropped += 1;
                    return Ok(());
                }
                if own {
                    sum.add(line);
                }
                writeln!(file, "{line}").map_err(Error::io(path))
            });
            kept.map_err(|error| {
                failed = Some(error);
                std::io::Error::other("lines that cannot be kept")
            })
        });
        failed.map_or(Ok(()), Err)?;
        written.map_err(Error::io(path))?;
        let file = std::fs::OpenOptions::new().append(true).open(path).map_err(Error::io(path))?;
        Ok(Writer { file, path: path.into(), sum, dropped })
    }

    pub(crate) fn write(&mut self, record: &Record) -> Result<()> {
        let line = serde_json::to_string(record).map_err(|e| Error::io(&self.path)(e.into()))?;
        self.sum.add(&line);
        self.file.write_all(format!("{line}\n").as_bytes()).map_err(Error::io(&self.path))
    }

    /// What was written of this precision, and the file, to be synced before the checkpoint that knows of it.
    pub(crate) fn written(&self) -> Result<(Written, Lines)> {
        let file = self.file.try_clone().map_err(Error::io(&self.path))?;
        Ok((self.sum.written(), Lines { file, path: self.path.clone() }))
    }
}

/// The file, for a thread that waits until its lines are on the disk.
pub(crate) struct Lines {
    file: std::fs::File,
    path: PathBuf,
}

impl Lines {
    pub(crate) fn sync(&self) -> Result<()> {
        self.file.sync_data().map_err(Error::io(&self.path))
    }
}

/// Fails unless the file has, of this precision before `iteration`, the lines that its checkpoint knows.
pub(crate) fn verify(path: &Path, precision: &str, iteration: u64, expected: Written) -> Result<()> {
    let mut sum = Sum::default();
    each_line(path, &mut |line, record| {
        if record.precision == precision && record.metrics.iteration() < iteration {
            sum.add(line);
        }
        Ok(())
    })?;
    let found = sum.written();
    if found == expected {
        return Ok(());
    }
    let message = format!(
        "damaged, or changed since it was written: the checkpoint of {precision} at step {iteration} knows {} lines \
         with the checksum {:08x}, here are {} with {:08x}",
        expected.lines, expected.crc32, found.lines, found.crc32
    );
    Err(Error::Checkpoint { path: path.into(), message })
}

/// All records of a file. A last line that does not parse was cut off by a kill and is left out; any other is an error.
///
/// # Errors
/// The file cannot be read; a line in the middle is no record.
pub fn read(path: &Path) -> Result<Vec<Record>> {
    let file = std::fs::File::open(path).map_err(Error::io(path))?;
    let mut records = Vec::new();
    parse(file, path, &mut |_, record| {
        records.push(record);
        Ok(())
    })?;
    Ok(records)
}

/// Shows the precision of each record; none of a file that is not there.
///
/// # Errors
/// As [`read`], and what `see` says.
pub(crate) fn each_precision(path: &Path, see: impl Fn(&str) -> Result<()>) -> Result<()> {
    each_line(path, &mut |_, record| see(&record.precision))
}

/// What is done with a line and what it says.
type See<'a> = &'a mut dyn FnMut(&str, Record) -> Result<()>;

/// Shows all lines that are records in turn; none of a file that is not there. Long runs have more lines than are to be
/// held at once.
fn each_line(path: &Path, see: See<'_>) -> Result<()> {
    match std::fs::File::open(path) {
        Ok(file) => parse(file, path, see),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(()),
        Err(e) => Err(Error::io(path)(e)),
    }
}

fn parse(file: std::fs::File, path: &Path, see: See<'_>) -> Result<()> {
    let (mut file, mut line, mut number) = (BufReader::new(file), String::new(), 0);
    let mut torn: Option<usize> = None;
    loop {
        line.clear();
        if file.read_line(&mut line).map_err(Error::io(path))? == 0 {
            return Ok(());
        }
        if let Some(line) = torn {
            return Err(Error::Data {
                path: path.into(),
                expected: "one JSON record per line".into(),
                found: format!("something else in line {line}"),
            });
        }
        number += 1;
        let line = line.strip_suffix('\n').unwrap_or(&line);
        match serde_json::from_str(line) {
            Ok(record) => see(line, record)?,
            Err(_) => torn = Some(number),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn step(precision: &str, iteration: u64) -> Record {
        let metrics = StepMetrics {
            iteration,
            loss: Some(1.5),
            lr: 0.1,
            grad_norm: None,
            loss_scale: 1.0,
            skipped: false,
            blame: None,
        };
        Record { precision: precision.into(), metrics: Metrics::Step(metrics) }
    }

    #[test]
    fn reopening_drops_later_lines_of_that_precision_and_a_torn_end() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("metrics.jsonl");
        let mut writer = Writer::open(&path, "fp32", 0).unwrap();
        for record in [step("fp32", 0), step("fp16", 0), step("fp16", 1), step("fp16", 2)] {
            writer.write(&record).unwrap();
        }
        std::fs::OpenOptions::new().append(true).open(&path).unwrap().write_all(b"{\"precision\":\"fp1").unwrap();
        assert_eq!(Writer::open(&path, "fp16", 1).unwrap().dropped, 2);
        assert_eq!(read(&path).unwrap(), [step("fp32", 0), step("fp16", 0)]);
    }

    #[test]
    fn a_file_that_is_no_text_is_not_overwritten() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("metrics.jsonl");
        std::fs::write(&path, b"\xff\n").unwrap();
        assert!(matches!(Writer::open(&path, "fp32", 0), Err(Error::Io { .. })));
        assert_eq!(std::fs::read(&path).unwrap(), b"\xff\n");
    }
}
