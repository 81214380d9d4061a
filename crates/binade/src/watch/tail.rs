//! [`Lines`]: the numbers of a run as they are written; [`Tail`]: what they come to, thinned as it comes.

use std::fs::File;
use std::io::{BufRead, BufReader, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, Result};
use binade::train::{Metrics, Record, StepMetrics};

/// A curve has at most so many points; then every other one is dropped.
const POINTS: usize = 2000;

/// So many skipped steps are remembered.
const SKIPPED: usize = 20;

/// A curve that takes points for ever.
#[derive(Clone, Debug, Default)]
pub struct Curve {
    pub points: Vec<(f64, f64)>,
    /// One of so many points is kept.
    every: u64,
    seen: u64,
}

impl Curve {
    fn add(&mut self, x: f64, y: f64) {
        self.every = self.every.max(1);
        if y.is_finite() && self.seen.is_multiple_of(self.every) {
            self.points.push((x, y));
        }
        self.seen += 1;
        if self.points.len() == POINTS {
            self.every *= 2;
            self.points = self.points.iter().step_by(2).copied().collect();
        }
    }
}

/// What a precision has come to.
#[derive(Clone, Debug, Default)]
pub struct Series {
    pub precision: String,
    pub loss: Curve,
    /// As a power of two.
    pub scale: Curve,
    /// Steps per second, as they were seen to be written, or of whole epochs before.
    pub speed: Curve,
    pub step: Option<StepMetrics>,
    pub epoch: u64,
    pub seconds: f64,
    pub test_loss: Option<f64>,
    pub test_accuracy: Option<f64>,
    pub skipped: u64,
    /// Where the epoch before ended.
    epoch_end: u64,
    /// The first step of those that came with the last look, and when that was.
    looked: Option<(u64, Instant)>,
}

/// The lines of a run's numbers, read as far as they were written.
pub struct Lines {
    path: PathBuf,
    offset: u64,
}

/// What [`Lines::read`] finds.
pub enum News<'a> {
    /// A line, and what it says.
    Line(&'a str, Record),
    /// A run that was resumed has dropped lines, and all are read anew.
    Anew,
}

impl Lines {
    pub fn of(run: &Path) -> Lines {
        Lines { path: run.join("metrics.jsonl"), offset: 0 }
    }

    /// Reads what is new. A line that is still being written, or was cut off by a kill, is read when it is whole; one
    /// that is no record is left out.
    pub fn read(&mut self, mut take: impl FnMut(News<'_>) -> Result<()>) -> Result<()> {
        let told = || self.path.display().to_string();
        let file = match File::open(&self.path) {
            Ok(file) => file,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(error).with_context(told),
        };
        if file.metadata().with_context(told)?.len() < self.offset {
            self.offset = 0;
            take(News::Anew)?;
        }
        let mut reader = BufReader::new(file);
        reader.seek(SeekFrom::Start(self.offset)).with_context(|| self.path.display().to_string())?;
        let mut line = Vec::new();
        loop {
            line.clear();
            reader.read_until(b'\n', &mut line).with_context(|| self.path.display().to_string())?;
            if line.last() != Some(&b'\n') {
                return Ok(());
            }
            self.offset += line.len() as u64;
            if let Ok(text) = std::str::from_utf8(&line)
                && let Ok(record) = serde_json::from_str(text)
            {
                take(News::Line(text.trim_end(), record))?;
            }
        }
    }
}

/// What the lines come to.
pub struct Tail {
    lines: Lines,
    pub seen: Seen,
}

/// All precisions.
#[derive(Default)]
pub struct Seen {
    pub series: Vec<Series>,
    /// The newest steps that were skipped, with their precision.
    pub skipped: Vec<(String, StepMetrics)>,
}

impl Tail {
    pub fn new(run: &Path) -> Tail {
        Tail { lines: Lines::of(run), seen: Seen::default() }
    }

    /// Reads what is new: whether there was anything.
    pub fn look(&mut self) -> Result<bool> {
        let Tail { lines, seen } = self;
        let (mut new, first) = (false, lines.offset == 0);
        lines.read(|news| {
            match news {
                News::Anew => *seen = Seen::default(),
                News::Line(_, record) => seen.take(record),
            }
            new = true;
            Ok(())
        })?;
        let now = Instant::now();
        for series in &mut seen.series {
            series.measure(now, first);
        }
        Ok(new)
    }
}

impl Seen {
    fn take(&mut self, Record { precision, metrics }: Record) {
        let place = self.series.iter().position(|series| series.precision == precision).unwrap_or_else(|| {
            self.series.push(Series { precision: precision.clone(), ..Series::default() });
            self.series.len() - 1
        });
        let series = &mut self.series[place];
        match metrics {
            Metrics::Step(step) => {
                let x = step.iteration as f64;
                if let Some(loss) = step.loss {
                    series.loss.add(x, loss);
                }
                series.scale.add(x, step.loss_scale.log2());
                if step.skipped {
                    series.skipped += 1;
                    self.skipped.push((precision, step.clone()));
                    let much = self.skipped.len().saturating_sub(SKIPPED);
                    self.skipped.drain(..much);
                }
                series.step = Some(step);
            }
            Metrics::Evaluation(e) => (series.test_loss, series.test_accuracy) = (Some(e.test_loss), e.test_accuracy),
            Metrics::Epoch(e) => {
                (series.test_loss, series.test_accuracy) = (Some(e.test_loss), e.test_accuracy);
                (series.epoch, series.seconds) = (e.epoch, series.seconds + e.seconds);
                let steps = e.iteration.saturating_sub(std::mem::replace(&mut series.epoch_end, e.iteration));
                // While it is looked at, its speed is seen.
                if series.looked.is_none() {
                    series.speed.add(e.iteration as f64, steps as f64 / e.seconds);
                }
            }
        }
    }
}

impl Series {
    /// Adds how many steps came since the look before.
    fn measure(&mut self, now: Instant, first: bool) {
        let Some(step) = &self.step else { return };
        let at = step.iteration;
        match self.looked {
            Some((before, when)) if at > before => {
                let rate = (at - before) as f64 / now.duration_since(when).as_secs_f64();
                self.speed.add(at as f64, rate);
                self.looked = Some((at, now));
            }
            Some(_) => {}
            None if first => {}
            None => self.looked = Some((at, now)),
        }
        if first {
            self.looked = Some((at, now));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn line(precision: &str, iteration: u64, skipped: bool) -> String {
        format!(
            "{{\"precision\":\"{precision}\",\"kind\":\"step\",\"iteration\":{iteration},\"loss\":0.5,\"lr\":0.1,\
             \"grad_norm\":1.0,\"loss_scale\":1024.0,\"skipped\":{skipped}}}\n"
        )
    }

    #[test]
    fn whole_lines_are_taken_as_they_come_and_a_shorter_file_is_read_anew() {
        let folder = tempfile::tempdir().unwrap();
        let mut tail = Tail::new(folder.path());
        assert!(!tail.look().unwrap(), "no file yet");
        let path = folder.path().join("metrics.jsonl");
        let mut file = File::create(&path).unwrap();
        let torn = line("fp16", 1, true);
        write!(file, "{}{}", line("fp16", 0, false), &torn[..20]).unwrap();
        assert!(tail.look().unwrap());
        assert_eq!((tail.seen.series[0].loss.points.len(), tail.seen.skipped.len()), (1, 0));
        write!(file, "{}{}", &torn[20..], line("bf16", 0, false)).unwrap();
        assert!(tail.look().unwrap() && !tail.look().unwrap());
        assert_eq!(tail.seen.skipped.iter().map(|(p, s)| (p.as_str(), s.iteration)).collect::<Vec<_>>(), [("fp16", 1)]);
        assert_eq!(tail.seen.series.iter().map(|s| s.precision.as_str()).collect::<Vec<_>>(), ["fp16", "bf16"]);
        assert_eq!(tail.seen.series[0].scale.points, [(0.0, 10.0), (1.0, 10.0)]);
        std::fs::write(&path, line("fp16", 0, false)).unwrap();
        assert!(tail.look().unwrap());
        assert_eq!((tail.seen.series.len(), tail.seen.skipped.len()), (1, 0));
    }

    #[test]
    fn a_curve_stays_small_and_spans_all() {
        let mut curve = Curve::default();
        (0..1_000_000).for_each(|i| curve.add(i as f64, 1.0));
        assert!((POINTS / 2..=POINTS).contains(&curve.points.len()), "{}", curve.points.len());
        assert!(curve.points[0].0 == 0.0 && curve.points.last().unwrap().0 > 998_000.0);
    }
}
