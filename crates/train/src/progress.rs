//! What a run says while it trains: the metrics file, which must be written, and lines and a bar, which need no reader.

use std::io::Write;

use indicatif::{ProgressBar, ProgressStyle};

use crate::checkpoint::Progress;
use crate::fit::Output;
use crate::metrics::{EpochMetrics, Metrics, Record, StepMetrics, Writer};
use crate::{Config, Result};

const BAR: &str = "{prefix} {bar:30} step {pos}/{len}  {msg}  {eta} left";

/// Prints a line. Training does not end where nobody reads, or where the output goes to a full disk: its results stand
/// in the run folder.
pub(crate) fn say(line: &str) {
    let _ = writeln!(std::io::stdout(), "{line}");
}

/// Metrics file, and progress on the terminal: a bar, or a line per epoch where there is no terminal.
pub(crate) struct Log {
    writer: Writer,
    precision: &'static str,
    bar: ProgressBar,
    quiet: bool,
    epochs: u64,
    batch_size: usize,
}

impl Log {
    pub(crate) fn open(output: &Output, config: &Config, iteration: u64, batches: usize) -> Result<Log> {
        let precision = config.precision.name();
        let writer = Writer::open(&output.folder.join("metrics.jsonl"), precision, iteration)?;
        let total = config.epochs * batches as u64;
        let bar = if output.quiet { ProgressBar::hidden() } else { ProgressBar::new(total) };
        if let Ok(style) = ProgressStyle::with_template(BAR) {
            bar.set_style(style);
        }
        bar.set_prefix(precision);
        bar.set_position(iteration);
        // What was trained before took no time in this process.
        bar.reset_eta();
        Ok(Log { writer, precision, bar, quiet: output.quiet, epochs: config.epochs, batch_size: config.batch_size })
    }

    pub(crate) fn step(&mut self, at: &Progress, step: StepMetrics) -> Result<()> {
        if !self.bar.is_hidden() {
            self.bar.set_position(step.iteration + 1);
            self.bar.set_message(message(at, step.loss, self.epochs, self.batch_size));
        }
        if let Some(blame) = step.blame.as_ref().filter(|_| !self.quiet) {
            let line = format!("{} step {} skipped: {blame}", self.precision, step.iteration);
            self.bar.suspend(|| say(&line));
        }
        self.writer.write(&Record { precision: self.precision.into(), metrics: Metrics::Step(step) })
    }

    pub(crate) fn epoch(&mut self, epoch: EpochMetrics) -> Result<()> {
        let accuracy = epoch.test_accuracy.map_or(String::new(), |a| format!("  test accuracy {:.2} %", 100.0 * a));
        let line = format!(
            "{} epoch {:>3}/{}  train loss {:.4}  test loss {:.4}{accuracy}  {:.2} s",
            self.precision, epoch.epoch, self.epochs, epoch.train_loss, epoch.test_loss, epoch.seconds
        );
        if !self.quiet {
            self.bar.suspend(|| say(&line));
        }
        if epoch.epoch == self.epochs {
            self.bar.finish_and_clear();
        }
        self.writer.write(&Record { precision: self.precision.into(), metrics: Metrics::Epoch(epoch) })
    }
}

/// Epoch, loss and speed after a step, in the epoch in progress.
fn message(at: &Progress, loss: Option<f64>, epochs: u64, batch_size: usize) -> String {
    let loss = loss.map_or("not finite".into(), |loss| format!("{loss:.4}"));
    let rate = (at.batch * batch_size) as f64 / at.epoch_seconds.max(f64::MIN_POSITIVE);
    format!("epoch {}/{epochs}  loss {loss}  {rate:.0} images/s", at.epoch + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bar_says_epoch_loss_and_speed_and_labels_its_time() {
        let at = Progress { epoch: 2, batch: 10, epoch_seconds: 0.5, ..Progress::default() };
        assert_eq!(message(&at, Some(0.25), 12, 64), "epoch 3/12  loss 0.2500  1280 images/s");
        assert_eq!(message(&at, None, 12, 64), "epoch 3/12  loss not finite  1280 images/s");
        assert!(ProgressStyle::with_template(BAR).is_ok() && BAR.ends_with("{eta} left"));
    }
}
