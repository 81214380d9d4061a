//! [`report`]: one page about a run or several, made of what their folders hold; it needs no other file and no network.

mod chart;
mod figures;
mod page;
mod parts;

use std::path::PathBuf;

use crate::gallery::{self, Shown};
use crate::metrics::Metrics;
use crate::record::Recorded;
use crate::{Error, Result, StepMetrics, Summary};
use chart::{Chart, Curve, Marks};

/// Colours apart for the colour-blind, on white and on black (Okabe and Ito).
pub(crate) const COLOURS: [&str; 7] = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#999999"];

/// So many skipped steps of a series are shown, the newest.
const SKIPPED: usize = 200;

/// The page about the runs in these folders, whether they have ended or not.
///
/// # Errors
/// No folder; one that holds no run, or files of a run that are damaged.
pub fn report(folders: &[PathBuf]) -> Result<String> {
    if folders.is_empty() {
        return Err(Error::Config("a report is of one run at least, and none is named".into()));
    }
    let runs = Recorded::open_all(folders)?;
    Ok(page::page(&runs, &series(&runs)).into_string())
}

/// A precision of a run: what is drawn in one colour.
pub(crate) struct Series<'a> {
    pub run: &'a Recorded,
    pub name: String,
    pub precision: &'static str,
    pub colour: &'static str,
    /// Lengths of dashes, where colours are used up.
    pub dash: Option<[u32; 2]>,
    /// Once it has ended.
    pub summary: Option<&'a Summary>,
    /// What the model made, after each epoch and at the end.
    pub made: Vec<Shown>,
    pub skipped: Vec<&'a StepMetrics>,
}

fn series(runs: &[Recorded]) -> Vec<Series<'_>> {
    let all = runs.iter().flat_map(|run| run.config.precisions.iter().map(move |p| (run, p.name())));
    let begun = all.filter(|(run, precision)| run.metrics.iter().any(|record| record.precision == *precision));
    let mut series: Vec<Series<'_>> = begun.map(|(run, precision)| one(run, precision)).collect();
    for (i, series) in series.iter_mut().enumerate() {
        series.colour = COLOURS[i % COLOURS.len()];
        series.dash = [None, Some([10, 4]), Some([3, 3])][i / COLOURS.len() % 3];
        if runs.len() > 1 {
            series.name = format!("{} {}", series.run.name, series.precision);
        }
    }
    series
}

fn one<'a>(run: &'a Recorded, precision: &'static str) -> Series<'a> {
    let of = run.metrics.iter().filter(|record| record.precision == precision);
    let steps = of.filter_map(|record| if let Metrics::Step(step) = &record.metrics { Some(step) } else { None });
    Series {
        run,
        precision,
        name: precision.into(),
        colour: COLOURS[0],
        dash: None,
        summary: run.summaries.iter().find(|summary| summary.precision == precision),
        made: gallery::shown(&run.folder, precision),
        skipped: steps.filter(|step| step.skipped).collect(),
    }
}

/// The charts that have something to show.
pub(crate) fn charts(series: &[Series<'_>]) -> Vec<Chart> {
    let (step, epoch) = ("step", "epoch");
    let chart = |id, title, x, curves: Vec<Curve>| {
        let (unit, base, logarithmic, smooth, stepped) = ("", 10, false, false, false);
        Chart { id, title, x, unit, base, logarithmic, smooth, stepped, curves }
    };
    let of_steps = |f: fn(&StepMetrics) -> Option<f64>| {
        curves(series, |m| if let Metrics::Step(s) = m { Some((s.iteration, f(s)?)) } else { None })
    };
    let test_loss = curves(series, |metrics| match metrics {
        Metrics::Evaluation(e) => Some((e.iteration, e.test_loss)),
        Metrics::Epoch(e) => Some((e.iteration, e.test_loss)),
        Metrics::Step(_) => None,
    });
    let accuracy = curves(series, |metrics| match metrics {
        Metrics::Epoch(e) => Some((e.epoch, 100.0 * e.test_accuracy?)),
        Metrics::Step(_) | Metrics::Evaluation(_) => None,
    });
    let mut scale = of_steps(|step| Some(step.loss_scale));
    for curve in &mut scale {
        curve.marks = marks(&series[curve.of].skipped);
    }
    let all = [
        Chart { smooth: true, ..chart("loss", "Training loss by step", step, of_steps(|step| step.loss)) },
        chart("test-loss", "Test loss by step", step, test_loss),
        Chart { unit: " %", ..chart("accuracy", "Test accuracy by epoch, %", epoch, accuracy) },
        chart("lr", "Learning rate by step", step, of_steps(|step| Some(step.lr))),
        Chart {
            smooth: true,
            ..chart("norm", "Gradient norm by step, before clipping", step, of_steps(|s| s.grad_norm))
        },
        Chart {
            base: 2,
            logarithmic: true,
            stepped: true,
            ..chart("scale", "Loss scale by step (1 = no scaling); dots: skipped", step, scale)
        },
        chart("speed", "Steps per second by epoch", epoch, series.iter().enumerate().filter_map(speed).collect()),
    ];
    all.into_iter().filter(|chart| !chart.curves.is_empty()).collect()
}

/// A curve of each series that has finite points.
fn curves(series: &[Series<'_>], of: impl Fn(&Metrics) -> Option<(u64, f64)>) -> Vec<Curve> {
    let one = |(i, series): (usize, &Series<'_>)| {
        let records = series.run.metrics.iter().filter(|record| record.precision == series.precision);
        let mut points: Vec<_> = records.filter_map(|r| of(&r.metrics)).filter(|(_, y)| y.is_finite()).collect();
        // An evaluation at the end of an epoch is told twice.
        points.dedup_by_key(|(x, _)| *x);
        (!points.is_empty()).then(|| Curve::new(i, &points))
    };
    series.iter().enumerate().filter_map(one).collect()
}

/// Steps per second of the epochs: iterations over the seconds of training.
fn speed((i, series): (usize, &Series<'_>)) -> Option<Curve> {
    let (mut points, mut before) = (Vec::new(), 0);
    for record in series.run.metrics.iter().filter(|record| record.precision == series.precision) {
        let Metrics::Epoch(epoch) = &record.metrics else { continue };
        let rate = epoch.iteration.saturating_sub(before) as f64 / epoch.seconds;
        before = epoch.iteration;
        points.extend(Some((epoch.epoch, rate)).filter(|_| rate.is_finite()));
    }
    (!points.is_empty()).then(|| Curve::new(i, &points))
}

/// The newest skipped steps.
fn marks(skipped: &[&StepMetrics]) -> Option<Marks> {
    if skipped.is_empty() {
        return None;
    }
    let mut marks = Marks::default();
    for step in newest(skipped) {
        marks.x.push(step.iteration);
        marks.y.push(step.loss_scale);
        marks.why.push(why(step));
    }
    Some(marks)
}

pub(crate) fn newest<'a, 's>(skipped: &'s [&'a StepMetrics]) -> &'s [&'a StepMetrics] {
    &skipped[skipped.len().saturating_sub(SKIPPED)..]
}

/// Why a step was skipped, in words.
pub(crate) fn why(step: &StepMetrics) -> String {
    step.blame.as_ref().map_or_else(|| "a gradient is not finite".into(), |blame| blame.to_string())
}

#[cfg(test)]
mod tests {
    use super::report;

    #[test]
    fn a_report_of_nothing_is_an_error() {
        assert!(report(&[]).unwrap_err().to_string().contains("none is named"));
    }
}
