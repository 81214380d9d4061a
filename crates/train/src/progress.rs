//! What a run says while it trains: the metrics file, which must be written, and lines and a bar, which need no reader.

use std::io::Write;

use binade_nn::Module;
use indicatif::{ProgressBar, ProgressStyle};

use crate::checkpoint::Progress;
use crate::fit::Output;
use crate::gallery::Whose;
use crate::metrics::{EpochMetrics, EvaluationMetrics, Lines, Metrics, Record, StepMetrics, Writer, Written};
use crate::record::METRICS;
use crate::tensorboard::Events;
use crate::{Config, Made, Result, TextUnit};

const BAR: &str = "{prefix} {bar:30} step {pos}/{len}  {msg}  {eta} left";

/// Prints a line. Training does not end where nobody reads, or where the output goes to a full disk: its results stand
/// in the run folder.
pub(crate) fn say(line: &str) {
    let _ = writeln!(std::io::stdout(), "{line}");
}

/// Says what nobody asked for and somebody must know, on standard error. There is nowhere to say that this failed.
pub(crate) fn warn(line: &str) {
    let _ = writeln!(std::io::stderr(), "{line}");
}

/// Metrics file, and progress on the terminal: a bar, or a line per epoch where there is no terminal.
pub(crate) struct Log {
    writer: Writer,
    events: Option<Events>,
    precision: &'static str,
    bar: ProgressBar,
    quiet: bool,
    verbose: bool,
    epochs: u64,
    unit: &'static str,
    text: Option<TextUnit>,
}

impl Log {
    pub(crate) fn open(
        output: &Output<'_>,
        (unit, text): (&'static str, Option<TextUnit>),
        config: &Config,
        iteration: u64,
        steps: u64,
    ) -> Result<Log> {
        let precision = config.precision.name();
        let writer = Writer::open(&output.folder.join(METRICS), precision, iteration)?;
        let events = config.tensorboard.then(|| Events::create(&output.folder, config.precision, iteration));
        let events = events.transpose()?;
        if iteration == 0 && writer.dropped > 0 && !output.quiet {
            say(&format!("{precision}: there is no checkpoint to go on from; it begins anew, without its old metrics"));
        }
        let bar = if output.quiet { ProgressBar::hidden() } else { ProgressBar::new(config.epochs * steps) };
        if let Ok(style) = ProgressStyle::with_template(BAR) {
            bar.set_style(style);
        }
        bar.set_prefix(precision);
        bar.set_position(iteration);
        // What was trained before took no time in this process.
        bar.reset_eta();
        let (quiet, verbose, epochs) = (output.quiet, output.verbose, config.epochs);
        Ok(Log { writer, events, precision, bar, quiet, verbose, epochs, unit, text })
    }

    /// Shows and writes the numbers.
    pub(crate) fn write(&mut self, at: &Progress, metrics: Metrics) -> Result<()> {
        match &metrics {
            Metrics::Step(step) => self.step(at, step),
            Metrics::Evaluation(numbers) => self.evaluation(numbers),
            Metrics::Epoch(epoch) => self.epoch(epoch),
        }
        if let Some(events) = &mut self.events {
            events.metrics(&metrics)?;
        }
        self.writer.write(&Record { precision: self.precision.into(), metrics })
    }

    /// How large the parameters are, for TensorBoard.
    pub(crate) fn weights(&mut self, iteration: u64, model: &dyn Module) -> Result<()> {
        self.events.as_mut().map_or(Ok(()), |events| events.weights(iteration, model))
    }

    /// What the model made, for TensorBoard.
    pub(crate) fn made(&mut self, iteration: u64, whose: Whose, made: &[Made]) -> Result<()> {
        self.events.as_mut().map_or(Ok(()), |events| events.made(iteration, whose, made))
    }

    /// Says why a run that lost its patience ends.
    pub(crate) fn end(&self, at: &Progress) {
        if at.epoch < self.epochs {
            let best = at.epoch - at.since_best;
            self.line(&format!("{} ends after epoch {}: none was better since epoch {best}", self.precision, at.epoch));
        }
        self.bar.finish_and_clear();
    }

    /// As [`Writer::written`].
    pub(crate) fn written(&self) -> Result<(Written, Lines)> {
        self.writer.written()
    }

    fn step(&self, at: &Progress, step: &StepMetrics) {
        if !self.bar.is_hidden() {
            self.bar.set_position(step.iteration + 1);
            self.bar.set_message(message(at, step.loss, self.epochs, self.unit));
        }
        if self.verbose {
            let norm = step.grad_norm.map_or("not finite".into(), |norm| format!("{norm:.4}"));
            let told = message(at, step.loss, self.epochs, self.unit);
            let (lr, scale) = (step.lr, step.loss_scale);
            self.line(&format!(
                "{} step {:>5}  {told}  gradient norm {norm}  lr {lr:.3e}  scale {scale}",
                self.precision, step.iteration
            ));
        }
        if let Some(blame) = &step.blame {
            self.line(&format!("{} step {} skipped: {blame}", self.precision, step.iteration));
        }
    }

    fn evaluation(&self, e: &EvaluationMetrics) {
        let results = self.results(e.test_loss, e.test_accuracy, e.test_perplexity, e.test_bits);
        self.line(&format!("{} step {:>5}  {results}", self.precision, e.iteration));
    }

    fn epoch(&self, e: &EpochMetrics) {
        let results = self.results(e.test_loss, e.test_accuracy, e.test_perplexity, e.test_bits);
        self.line(&format!(
            "{} epoch {:>3}/{}  train loss {:.4}  {results}  {:.2} s",
            self.precision, e.epoch, self.epochs, e.train_loss, e.seconds
        ));
    }

    fn results(&self, loss: f64, accuracy: Option<f64>, perplexity: Option<f64>, bits: Option<f64>) -> String {
        let accuracy = accuracy.map_or(String::new(), |a| format!("  test accuracy {:.2} %", 100.0 * a));
        let perplexity = perplexity.map_or(String::new(), |p| format!("  test perplexity {p:.3}"));
        let unit = self.text.as_ref().map_or("token", |text| &text.name);
        let bits = bits.map_or(String::new(), |bits| format!("  {bits:.4} bits per {unit}"));
        format!("test loss {loss:.4}{accuracy}{perplexity}{bits}")
    }

    /// A line above the bar.
    pub(crate) fn line(&self, line: &str) {
        if !self.quiet {
            self.bar.suspend(|| say(line));
        }
    }
}

/// Epoch, loss and speed after a step, in the epoch in progress.
fn message(at: &Progress, loss: Option<f64>, epochs: u64, unit: &str) -> String {
    let loss = loss.map_or("not finite".into(), |loss| format!("{loss:.4}"));
    let rate = at.epoch_count / at.epoch_seconds.max(f64::MIN_POSITIVE);
    format!("epoch {}/{epochs}  loss {loss}  {rate:.0} {unit}/s", at.epoch + 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use binade_amp::{Step, StepOutcome};

    fn step(count: f64) -> Step {
        Step {
            outcome: StepOutcome::Applied,
            loss: 0.25,
            count,
            grad_norm: 1.0,
            lr: 1e-3,
            loss_scale: 1.0,
            saved_bytes: 0,
            blame: None,
            unclaimed: Vec::new(),
        }
    }

    #[test]
    fn the_bar_says_epoch_loss_and_speed_and_labels_its_time() {
        let mut at = Progress { epoch: 2, ..Progress::default() };
        (0..2).for_each(|_| at.note(&step(320.0), 1, 0.25));
        assert_eq!(message(&at, Some(0.25), 12, "images"), "epoch 3/12  loss 0.2500  1280 images/s");
        assert_eq!(message(&at, None, 12, "images"), "epoch 3/12  loss not finite  1280 images/s");
        assert!(ProgressStyle::with_template(BAR).is_ok() && BAR.ends_with("{eta} left"));
    }
}
