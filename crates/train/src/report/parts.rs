//! The parts of the page that are tables, texts and images.

use base64::Engine;
use maud::{Markup, html};

use super::{SKIPPED, Series, newest, why};
use crate::Recorded;
use crate::confused;
use crate::gallery::Shown;
use crate::record;
use crate::summary::{Summary, bytes, result};

/// What the page is about, in a line.
pub fn subtitle(runs: &[Recorded]) -> Markup {
    let first = runs.iter().filter_map(|run| run.starts.first()).min_by_key(|start| start.at);
    let precisions = |run: &Recorded| run.config.precisions.iter().map(|p| p.name()).collect::<Vec<_>>().join(", ");
    html! {
        @if let [run] = runs { (run.config.name) " in " (precisions(run)) } @else { (runs.len()) " runs" }
        @if let Some(start) = first { ", started " (start.date()) ", Binade " (start.version) }
    }
}

/// What the runs came to.
pub fn results(series: &[Series<'_>]) -> Markup {
    let ended: Vec<(&Series<'_>, &Summary)> = series.iter().filter_map(|s| Some((s, s.summary?))).collect();
    let all: Vec<&Summary> = ended.iter().map(|(_, summary)| *summary).collect();
    let (what, of) = result(&all);
    let rate = |s: &Summary| format!("{:.0} {}/s", s.per_second, s.unit);
    html! {
        section class="card all" {
            h2 { "Results" }
            @if ended.len() < series.len() || series.is_empty() {
                p { (series.len() - ended.len()) " of " (series.len()) " trainings have not ended." }
            }
            @if !ended.is_empty() {
                div class="wide" {
                    table {
                        thead {
                            tr {
                                th scope="col" class="text" { "precision" }
                                @for head in ["epochs", "s/epoch", "speed", what, "final loss", "loss scale",
                                    "skipped", "saved activations"] { th scope="col" { (head) } }
                            }
                        }
                        @for (one, s) in &ended {
                            tr {
                                th scope="row" { (one.name) }
                                td { (s.epochs) }
                                td { (format!("{:.3}", s.seconds_per_epoch)) }
                                td { (rate(s)) }
                                td { (of(s).unwrap_or("–".into())) }
                                td { (format!("{:.5}", s.train_loss)) }
                                td { (s.loss_scale) }
                                td { (s.skipped_steps) }
                                td { (bytes(s.saved_activation_bytes)) }
                            }
                        }
                    }
                }
            }
        }
    }
}

/// Which steps were skipped, and why.
pub fn skipped(series: &[Series<'_>]) -> Markup {
    let all: usize = series.iter().map(|one| one.skipped.len()).sum();
    let rows = || series.iter().flat_map(|one| newest(&one.skipped).iter().map(move |step| (one, step)));
    html! {
        @if all > 0 {
            section class="card all" {
                h2 { "Skipped steps: " (all) }
                @if rows().count() < all { p class="soft" { "The newest " (SKIPPED) " of each." } }
                details open[all <= 20] {
                    summary { "which, and why" }
                    div class="wide" {
                        table {
                            thead {
                                tr {
                                    th scope="col" class="text" { "precision" }
                                    th scope="col" { "step" }
                                    th scope="col" { "loss scale" }
                                    th scope="col" class="text" { "the first value that is not finite" }
                                }
                            }
                            @for (one, step) in rows() {
                                tr {
                                    th scope="row" { (one.name) }
                                    td { (step.iteration) }
                                    td { (step.loss_scale) }
                                    td class="text" { (why(step)) }
                                }
                            }
                        }
                    }
                }
            }
        }
    }
}

/// Which classes were found for which.
pub fn classes(one: &Series<'_>) -> Markup {
    let Some((summary, answers)) = one.summary.and_then(|summary| Some((summary, summary.answers.as_ref()?))) else {
        return html! {};
    };
    let name = |class: usize| answers.names.get(class).cloned().unwrap_or_else(|| class.to_string());
    let recall = answers.recall();
    // What is right in blue, what is wrong in red, the more the stronger.
    let shade = |class: usize, found: usize, n: u64| {
        let all = answers.found[class].iter().sum::<u64>().max(1) as f64;
        let colour = if found == class { "0,114,178" } else { "213,94,0" };
        let share = n as f64 / all;
        format!("background:rgba({colour},{share:.2}){}", if share > 0.5 { ";color:#fff" } else { "" })
    };
    html! {
        section class="card" {
            h2 {
                "Classes, " (one.name)
                @if let Some(share) = summary.test_top5 { (format!(", top 5: {:.2} %", 100.0 * share)) }
            }
            div class="wide" {
                table class="confusion" {
                    caption class="soft" { "Rows: what images are. Columns: what was found." }
                    thead {
                        tr {
                            th {}
                            @for class in 0..answers.found.len() { th scope="col" { (name(class)) } }
                            th scope="col" { "recall" }
                        }
                    }
                    @for (class, row) in answers.found.iter().enumerate() {
                        tr {
                            th scope="row" { (name(class)) }
                            @for (found, &n) in row.iter().enumerate() {
                                td style=(shade(class, found, n)) { @if n == 0 { "·" } @else { (n) } }
                            }
                            td { (recall[class].map_or("–".into(), |r| format!("{:.1} %", 100.0 * r))) }
                        }
                    }
                }
            }
        }
    }
}

/// The images that the model was surest about, and wrong.
pub fn confused(one: &Series<'_>) -> Markup {
    let Some(answers) = one.summary.and_then(|summary| summary.answers.as_ref()) else { return html! {} };
    let name = |class: usize| answers.names.get(class).cloned().unwrap_or_else(|| class.to_string());
    let shown = confused::shown(&one.run.folder, one.precision, answers);
    let src =
        |bytes: &[u8]| format!("data:image/png;base64,{}", base64::engine::general_purpose::STANDARD.encode(bytes));
    html! {
        @if !shown.is_empty() {
            section class="card" {
                h2 { "Most confused images, " (one.name) }
                div class="shots" {
                    @for (image, bytes) in shown {
                        @let share = format!("{:.1} %", 100.0 * image.share);
                        @let what = format!("{}, found {} ({share})", name(image.class), name(image.found));
                        figure {
                            img alt=(what) src=(src(&bytes)) title=(format!("test image {}", image.sample));
                            figcaption { b { (name(image.class)) } ", found " (name(image.found)) br; (share) }
                        }
                    }
                }
            }
        }
    }
}

/// What the model made, at the end and after each epoch.
pub fn made(one: &Series<'_>) -> Markup {
    let part = |heading: &str, of: &dyn Fn(&Shown) -> bool| {
        let all: Vec<&Shown> = one.made.iter().filter(|shown| of(shown)).collect();
        html! {
            @if !all.is_empty() {
                section class="card" {
                    h2 { (heading) ", " (one.name) }
                    @for shown in all {
                        @if !shown.title.is_empty() { p { (shown.title) } }
                        @if let Some(text) = &shown.text { pre { (text) } } @else { (image(shown)) }
                    }
                }
            }
        }
    };
    html! {
        (part("What the model makes", &|shown| shown.at_end))
        (part("Made after each epoch", &|shown| !shown.at_end && shown.text.is_none()))
    }
}

/// A PNG file in the page.
fn image(shown: &Shown) -> Markup {
    let data = base64::engine::general_purpose::STANDARD.encode(&shown.bytes);
    let what = if shown.title.is_empty() { "what the model makes" } else { &shown.title };
    html! { img class="made" alt=(what) src=(format!("data:image/png;base64,{data}")); }
}

/// All settings; of several runs those first that differ.
pub fn settings(runs: &[Recorded]) -> Markup {
    let (differ, same) = record::settings(runs);
    let table = |rows: &[(String, Vec<Option<String>>)]| {
        html! {
            div class="wide" {
                table {
                    @if runs.len() > 1 {
                        thead {
                            tr {
                                th class="text" scope="col" { "setting" }
                                @for run in runs { th scope="col" class="text" { (run.name) } }
                            }
                        }
                    }
                    @for (name, values) in rows {
                        tr {
                            th scope="row" { (name) }
                            @for value in values { td class="text" { (value.as_deref().unwrap_or("–")) } }
                        }
                    }
                }
            }
        }
    };
    html! {
        section class="card all" {
            h2 { "Settings" }
            @if runs.len() > 1 {
                @if differ.is_empty() { p { "All runs have the same." } }
                @else { p { "What differs:" } (table(&differ)) }
                details { summary { "what all have" } (table(&same)) }
            } @else {
                details open { summary { "config.json" } (table(&same)) }
            }
        }
    }
}

/// When, where and how they were run.
pub fn starts(runs: &[Recorded]) -> Markup {
    html! {
        section class="card all" {
            h2 { "How it was run" }
            div class="wide" {
                table {
                    thead {
                        tr {
                            @for head in ["run", "started", "command", "machine", "threads", "device", "version"] {
                                th scope="col" class="text" { (head) }
                            }
                        }
                    }
                    @for (run, start) in runs.iter().flat_map(|run| run.starts.iter().map(move |start| (run, start))) {
                        tr {
                            th scope="row" { (run.name) }
                            td class="text" { (start.date()) }
                            td class="text" { code { (start.command.join(" ")) } }
                            td class="text" { (start.machine) }
                            td class="text" { (start.threads) }
                            td class="text" { (start.device) }
                            td class="text" { (start.version) }
                        }
                    }
                }
            }
        }
    }
}
