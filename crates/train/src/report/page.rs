//! The page: its head, its charts, and the order of its parts.

use maud::{DOCTYPE, Markup, PreEscaped, html};
use serde_json::json;

use super::chart::{Chart, short};
use super::{Series, charts, figures, parts};
use crate::Recorded;

const STYLE: [&str; 2] = [include_str!("uplot/uPlot.min.css"), include_str!("page.css")];
const SCRIPT: [&str; 2] = [include_str!("uplot/uPlot.iife.min.js"), include_str!("page.js")];

/// Points over which a curve is smoothed at first.
const SMOOTHED: f64 = 50.0;

pub fn page(runs: &[Recorded], series: &[Series<'_>]) -> Markup {
    let charts = charts(series);
    let title = runs.iter().map(|run| run.name.clone()).collect::<Vec<_>>().join(" · ");
    let most = charts.iter().filter(|c| c.smooth).flat_map(|c| &c.curves).map(|c| c.x.len()).max().unwrap_or(0);
    let smoothing = ((1.0 - SMOOTHED / most.max(1) as f64).clamp(0.0, 0.98) * 100.0).round() / 100.0;
    html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width,initial-scale=1";
                title { (title) " · binade" }
                @for style in STYLE { style { (PreEscaped(style)) } }
            }
            body {
                header {
                    h1 { (title) }
                    p class="soft" { (parts::subtitle(runs)) }
                }
                (controls(series, smoothing))
                main {
                    div class="grid" {
                        (parts::results(series))
                        @for chart in &charts { (drawn(chart, series)) }
                        (figures::memory(series))
                        @for one in series { (figures::memory_over_time(one)) }
                        @for run in runs { (figures::numbers(runs, run)) }
                        (parts::skipped(series))
                        @for one in series { (parts::classes(one)) (parts::confused(one)) (parts::made(one)) }
                        (parts::settings(runs))
                        (parts::starts(runs))
                    }
                }
                script id="data" type="application/json" { (PreEscaped(data(&charts, series, smoothing))) }
                @for script in SCRIPT { script { (PreEscaped(script)) } }
            }
        }
    }
}

/// What the script draws. A string in it must not end the element.
fn data(charts: &[Chart], series: &[Series<'_>], smoothing: f64) -> String {
    let series: Vec<_> = series.iter().map(|s| json!({ "name": s.name, "colour": s.colour, "dash": s.dash })).collect();
    json!({ "series": series, "charts": charts, "smoothing": smoothing }).to_string().replace('<', "\\u003c")
}

/// What every chart obeys: which curves, and how smooth.
fn controls(series: &[Series<'_>], smoothing: f64) -> Markup {
    html! {
        div class="bar" {
            @for (i, one) in series.iter().enumerate() {
                label {
                    input type="checkbox" checked data-series=(i);
                    " " i class="dot" style=(format!("background:{}", one.colour)) {} (one.name)
                }
            }
            label {
                "smoothing "
                input id="smoothing" type="range" min="0" max="0.99" step="0.01" value=(smoothing);
                " " output id="smoothed" for="smoothing" { (smoothing) }
            }
            noscript { "Without JavaScript there are no curves; the numbers below each chart are there." }
        }
    }
}

/// A place for a chart, what it shows in words, and in numbers.
fn drawn(chart: &Chart, series: &[Series<'_>]) -> Markup {
    let (title, unit, x) = (chart.title, chart.unit, chart.x);
    let told = || chart.curves.iter().filter_map(|curve| Some((&series[curve.of].name, curve.told?)));
    let words: Vec<String> = told()
        .map(|(name, t)| {
            let [first, last] = [t.first, t.last].map(|(at, y)| format!("{}{unit} at {x} {at}", short(y)));
            format!("{name} from {first} to {last}")
        })
        .collect();
    html! {
        figure class="card" id=(chart.id) {
            figcaption class="head" {
                h2 { (title) }
                span {
                    label { input class="log" type="checkbox" checked[chart.logarithmic]; " log" }
                    button class="whole" type="button" { "whole" }
                }
            }
            div class="frame" {
                div class="plot" tabindex="0" role="img" aria-label=(format!("{title}: {}", words.join("; "))) {}
                div class="tip" aria-live="polite" hidden {}
            }
            details {
                summary { "numbers" }
                div class="wide" {
                    table {
                        thead {
                            tr {
                                th {}
                                @for what in ["first", "lowest", "highest", "last"] { th scope="col" { (what) } }
                            }
                        }
                        @for (name, t) in told() {
                            tr {
                                th scope="row" { (name) }
                                @for (at, y) in [t.first, t.lowest, t.highest, t.last] {
                                    td { (short(y)) span class="soft" { " at " (at) } }
                                }
                            }
                        }
                    }
                }
            }
        }
    }
}
