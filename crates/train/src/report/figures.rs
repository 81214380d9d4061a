//! Memory by class, and numbers by exponent.

use binade_amp::preflight::{Range, Role};
use maud::{Markup, html};

use super::{COLOURS, Series};
use crate::summary::bytes;
use crate::{Metrics, PeakBytes, Record, Recorded};

/// One stacked bar for each series.
pub fn memory(series: &[Series<'_>]) -> Markup {
    let peaks: Vec<(&str, [(&str, usize); 7])> =
        series.iter().filter_map(|s| Some((s.name.as_str(), s.summary?.peak_bytes.classes()))).collect();
    let total = |classes: &[(&str, usize)]| classes.iter().map(|class| class.1).sum::<usize>();
    let largest = peaks.iter().map(|(_, classes)| total(classes)).max().unwrap_or(0).max(1);
    let names = PeakBytes::default().classes().map(|class| class.0);
    let share = |n: usize| format!("width:{:.3}%", 100.0 * n as f64 / largest as f64);
    html! {
        @if !peaks.is_empty() {
            section class="card" {
                h2 { "Peak memory by class" }
                @for (name, classes) in &peaks {
                    p { (name) ": " (bytes(total(classes))) }
                    div class="stack" aria-hidden="true" {
                        @for ((class, n), colour) in classes.iter().zip(COLOURS) {
                            div title=(format!("{class}: {}", bytes(*n)))
                                style=(format!("{};background:{colour}", share(*n))) {}
                        }
                    }
                }
                p class="legend" {
                    @for (name, colour) in names.iter().zip(COLOURS) {
                        span { i class="dot" style=(format!("background:{colour}")) {} (name) } " "
                    }
                }
                details {
                    summary { "numbers" }
                    div class="wide" {
                        table {
                            thead { tr { th {} @for (name, _) in &peaks { th scope="col" { (name) } } } }
                            @for (i, class) in names.iter().enumerate() {
                                tr {
                                    th scope="row" { (class) }
                                    @for (_, classes) in &peaks { td { (bytes(classes[i].1)) } }
                                }
                            }
                        }
                    }
                }
            }
        }
    }
}

/// So many columns are drawn at most; of more epochs each column has the largest of some.
const COLUMNS: usize = 160;

/// A stacked column for each epoch: what was in use at most while it was trained and evaluated.
pub fn memory_over_time(one: &Series<'_>) -> Markup {
    let of = |record: &Record| match &record.metrics {
        Metrics::Epoch(epoch) if record.precision == one.precision => Some((epoch.epoch, epoch.peak_bytes?)),
        Metrics::Epoch(_) | Metrics::Step(_) | Metrics::Evaluation(_) => None,
    };
    let epochs: Vec<(u64, PeakBytes)> = one.run.metrics.iter().filter_map(of).collect();
    if epochs.len() < 2 {
        return html! {};
    }
    let columns: Vec<(String, PeakBytes)> = epochs
        .chunks(epochs.len().div_ceil(COLUMNS))
        .map(|part| {
            let (first, last) = (part[0].0, part[part.len() - 1].0);
            let title = if first == last { format!("epoch {first}") } else { format!("epochs {first} to {last}") };
            (title, part.iter().fold(PeakBytes::default(), |most, (_, peak)| most.most(*peak)))
        })
        .collect();
    let total = |peak: &PeakBytes| peak.classes().iter().map(|class| class.1).sum::<usize>();
    let totals = || columns.iter().map(|(_, peak)| total(peak));
    let (least, largest) = (totals().min().unwrap_or(0), totals().max().unwrap_or(0).max(1));
    let (width, height, left) = (520.0, 150.0, 62.0);
    let step = (width - left - 4.0) / columns.len() as f64;
    let high = |n: usize| n as f64 / largest as f64 * (height - 12.0);
    let told = format!("{} to {} in {} epochs", bytes(least), bytes(largest), epochs.len());
    html! {
        section class="card" {
            h2 { "Memory by class and epoch, " (one.name) }
            svg viewBox=(format!("0 0 {width} {}", height + 20.0)) role="img" aria-label=(told) {
                @for (i, (title, peak)) in columns.iter().enumerate() {
                    @let classes = peak.classes();
                    @for (at, ((class, n), colour)) in classes.iter().zip(COLOURS).enumerate() {
                        @let below = classes[..=at].iter().map(|class| class.1).sum::<usize>();
                        @if *n > 0 {
                            rect x=(format!("{:.1}", left + i as f64 * step)) y=(format!("{:.1}", height - high(below)))
                                width=(format!("{:.1}", (step - 0.5).max(0.5))) height=(format!("{:.1}", high(*n)))
                                fill=(colour) { title { (format!("{title}, {class}: {}", bytes(*n))) } }
                        }
                    }
                }
                line class="axis" x1=(left) x2=(width - 4.0) y1=(height) y2=(height) {}
                text x=(left - 6.0) y="18" text-anchor="end" { (bytes(largest)) }
                text x=(left - 6.0) y=(height) text-anchor="end" { "0" }
                text x=(left) y=(height + 16.0) { "epoch " (epochs[0].0) }
                text x=(width - 4.0) y=(height + 16.0) text-anchor="end" { (epochs[epochs.len() - 1].0) }
            }
            p class="soft" { (told) ". Each class at its own peak; colours as above." }
        }
    }
}

/// Shares of weights, activations and gradients by exponent (Micikevicius et al. 2018, figure 3); shaded where f16
/// loses bits, and darker where it gives 0 or infinity.
pub fn numbers(runs: &[Recorded], run: &Recorded) -> Markup {
    let Some(numbers) = &run.numbers else { return html! {} };
    let roles = [(Role::Weight, "weights"), (Role::Activation, "activations"), (Role::Gradient, "gradients")];
    let totals: Vec<(Range, &str)> = roles.into_iter().map(|(role, name)| (numbers.total(role), name)).collect();
    let all = || totals.iter().flat_map(|(range, _)| range.exponents.keys().copied());
    let (low, high) = (all().min().unwrap_or(0).min(-30), all().max().unwrap_or(0).max(18));
    let (width, row, left) = (520.0, 84.0, 78.0);
    let step = (width - left - 8.0) / (high - low + 1) as f64;
    let x = |e: i32| format!("{:.1}", left + (e - low) as f64 * step);
    let wide = |n: i32| format!("{:.1}", n as f64 * step);
    let share = |range: &Range, n: u64| 100.0 * n as f64 / (range.count - range.zeros).max(1) as f64;
    // 2^-25 itself becomes 0; larger numbers of its binade do not.
    let shades = [(low, -26, "0.22"), (-25, -15, "0.1"), (16, high, "0.22")];
    let lost = |range: &Range| format!("{:.1} % → 0", share(range, range.f16.underflow));
    let words: Vec<String> = totals.iter().map(|(range, name)| format!("{name} {}", lost(range))).collect();
    let first = run.config.precisions.first().map_or("", |precision| precision.name());
    html! {
        section class="card" {
            h2 {
                "Numbers by exponent, against f16's range (one batch, " (first) ")"
                @if runs.len() > 1 { ", " (run.name) }
            }
            svg viewBox=(format!("0 0 {width} {}", 3.0 * row + 24.0)) role="img"
                aria-label=(format!("In f16: {}", words.join(", "))) {
                @for (from, to, opacity) in shades {
                    rect x=(x(from)) width=(wide(to - from + 1)) y="4" height=(3.0 * row) fill="#d55e00"
                        opacity=(opacity) {}
                }
                @for (i, (range, name)) in totals.iter().enumerate() {
                    @let floor = 4.0 + (i + 1) as f64 * row;
                    @let most = range.exponents.values().copied().max().unwrap_or(1).max(1) as f64;
                    @for (&e, &n) in &range.exponents {
                        @let high = n as f64 / most * (row - 12.0);
                        rect x=(x(e)) width=(format!("{:.1}", (step - 1.0).max(0.5))) y=(format!("{:.1}", floor - high))
                            height=(format!("{high:.1}")) fill=(COLOURS[i]) {
                            title { (format!("2^{e}: {:.2} %", share(range, n))) }
                        }
                    }
                    line class="axis" x1=(left) x2=(width - 8.0) y1=(floor) y2=(floor) {}
                    text x=(left - 6.0) y=(format!("{:.1}", floor - 34.0)) text-anchor="end" { (name) }
                    text x=(left - 6.0) y=(format!("{:.1}", floor - 20.0)) text-anchor="end" { (lost(range)) }
                }
                @for e in (low..=high).filter(|e| e % 8 == 0) {
                    text x=(format!("{:.1}", left + ((e - low) as f64 + 0.5) * step)) y=(3.0 * row + 20.0)
                        text-anchor="middle" { "2^" (e) }
                }
            }
        }
    }
}
