//! [`report`]: a page with curves, memory bars and the table; self-contained SVG, light and dark.

use std::fmt::Write;

use base64::Engine;
use binade_amp::preflight::{Preflight, Role};

use crate::metrics::{Metrics, Record};
use crate::picture::png;
use crate::summary::{Summary, bytes, result};
use crate::{Made, Picture};

/// Colours of the precisions, apart for the colour-blind (Okabe and Ito), and of the byte classes.
const SERIES: [&str; 3] = ["#0072b2", "#d55e00", "#009e73"];
const CLASSES: [&str; 7] = ["#0072b2", "#56b4e9", "#009e73", "#d55e00", "#e69f00", "#cc79a7", "#999999"];

const STYLE: &str = "
:root{--ink:#1a1a1a;--soft:#6b6b6b;--line:#d9d9d9;--page:#fff;--card:#fafafa;color-scheme:light dark}
@media(prefers-color-scheme:dark){:root{--ink:#ececec;--soft:#a0a0a0;--line:#3d3d3d;--page:#161616;--card:#1f1f1f}}
*{box-sizing:border-box}body{font:15px/1.5 system-ui,sans-serif;color:var(--ink);background:var(--page);
max-width:1080px;margin:2rem auto;padding:0 1rem}
h1{font-size:1.5rem;overflow-wrap:anywhere}h2{font-size:1rem;margin:0 0 .3rem}
.grid{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(460px,100%),1fr));gap:1rem}
.card{min-width:0;background:var(--card);border:1px solid var(--line);border-radius:8px;padding:1rem}
svg{width:100%;height:auto;display:block}svg text{fill:var(--soft);font-size:11px}
.axis{stroke:var(--line);stroke-width:1}.legend span{margin-right:1.2em;white-space:nowrap}
.legend i{display:inline-block;width:.8em;height:.8em;border-radius:2px;margin-right:.4em;vertical-align:-1px}
img.made{width:100%;height:auto;image-rendering:pixelated}
.wide,pre{overflow-x:auto}table{border-collapse:collapse;width:100%}
th,td{text-align:right;padding:.3rem .7rem;border-bottom:1px solid var(--line)}
th:first-child,td:first-child{text-align:left}
table.confusion{display:block;overflow-x:auto;font-size:12px}.confusion th,.confusion td{padding:.1rem .3rem}";

/// The page for a run: `made` by each precision's model at the end, and after its `epochs`, PNG files with titles.
pub fn report(
    name: &str,
    summaries: &[Summary],
    metrics: &[Record],
    numbers: Option<&Preflight>,
    made: &[(String, Vec<Made>)],
    epochs: &[(String, Vec<Picture>)],
) -> String {
    let of = |precision: &str, f: &dyn Fn(&Metrics) -> Option<(f64, f64)>| -> Vec<(f64, f64)> {
        metrics.iter().filter(|r| r.precision == precision).filter_map(|r| f(&r.metrics)).collect()
    };
    let curves = |f: &dyn Fn(&Metrics) -> Option<(f64, f64)>| -> Vec<Vec<(f64, f64)>> {
        summaries.iter().map(|s| of(&s.precision, f)).collect()
    };
    let loss = curves(&|m| match m {
        Metrics::Step(s) => Some((s.iteration as f64, s.loss?)),
        Metrics::Evaluation(_) | Metrics::Epoch(_) => None,
    });
    let accuracy = curves(&|m| match m {
        Metrics::Epoch(e) => Some((e.epoch as f64, 100.0 * e.test_accuracy?)),
        Metrics::Step(_) | Metrics::Evaluation(_) => None,
    });
    let test_loss = curves(&|m| match m {
        Metrics::Evaluation(e) => Some((e.iteration as f64, e.test_loss)),
        Metrics::Epoch(e) => Some((e.iteration as f64, e.test_loss)),
        Metrics::Step(_) => None,
    });
    let scale = curves(&|m| match m {
        Metrics::Step(s) => Some((s.iteration as f64, s.loss_scale.log2())),
        Metrics::Evaluation(_) | Metrics::Epoch(_) => None,
    });
    let mut page = String::new();
    let title = escape(name);
    let _ = write!(
        page,
        "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><meta name=\"viewport\" \
         content=\"width=device-width,initial-scale=1\"><title>{title} · binade</title>\
         <style>{STYLE}</style><h1>{title}: one model, {} precision{}</h1>",
        summaries.len(),
        if summaries.len() == 1 { "" } else { "s" }
    );
    let _ = write!(
        page,
        "<p class=\"legend\">{}</p><div class=\"grid\">",
        legend(summaries.iter().map(|s| s.precision.as_str()), &SERIES)
    );
    let mut card = |heading: &str, body: String| {
        let _ = write!(page, "<div class=\"card\"><h2>{heading}</h2>{body}</div>");
    };
    card(
        "Training loss by step",
        chart(&loss.iter().map(|c| smooth(c)).collect::<Vec<_>>(), Some(&loss), &|v| format!("{v:.3}")),
    );
    if accuracy.iter().any(|c| !c.is_empty()) {
        card("Test accuracy by epoch, %", chart(&accuracy, None, &|v| format!("{v:.1}")));
    } else {
        card("Test loss by step", chart(&test_loss, None, &|v| format!("{v:.3}")));
    }
    card("Loss scale by step (1 = no scaling)", chart(&scale, None, &|v| format!("2^{v:.0}")));
    card("Peak memory by class", bars(summaries));
    if let Some(numbers) = numbers {
        card(
            &format!("Numbers by exponent, against f16's range (one batch, {})", summaries[0].precision),
            exponents(numbers),
        );
    }
    for summary in summaries {
        if let Some(answers) = &summary.answers {
            let top5 = summary.test_top5.map_or(String::new(), |share| format!(", top 5: {:.2} %", 100.0 * share));
            card(&format!("Classes, {}{top5}", escape(&summary.precision)), answers.html(escape));
        }
    }
    for (precision, made) in made.iter().filter(|(_, made)| !made.is_empty()) {
        let shown: String = made.iter().map(shown).collect();
        card(&format!("What the model makes, {}", escape(precision)), shown);
    }
    for (precision, images) in epochs.iter().filter(|(_, images)| !images.is_empty()) {
        let shown = |picture: &Picture| format!("<p>{}</p>{}", escape(&picture.title), image(&picture.png, ""));
        card(&format!("Made after each epoch, {}", escape(precision)), images.iter().map(shown).collect());
    }
    page.push_str("</div><div class=\"card wide\" style=\"margin-top:1rem\">");
    page.push_str(&summary_table(summaries));
    page.push_str("</div></html>\n");
    page
}

/// Shares of weights, activations and gradients by exponent (Micikevicius et al. 2018, figure 3); shaded where f16
/// loses bits, and darker where it gives 0 or infinity.
fn exponents(numbers: &Preflight) -> String {
    let roles = [(Role::Weight, "weights"), (Role::Activation, "activations"), (Role::Gradient, "gradients")];
    let totals = roles.map(|(role, name)| (numbers.total(role), name));
    let all = || totals.iter().flat_map(|(r, _)| r.exponents.keys().copied());
    let (low, high) = (all().min().unwrap_or(0).min(-30), all().max().unwrap_or(0).max(18));
    let (width, row, left) = (520.0, 84.0, 78.0);
    let step = (width - left - 8.0) / (high - low + 1) as f64;
    let x = |e: i32| left + (e - low) as f64 * step;
    let mut svg = format!("<svg viewBox=\"0 0 {width} {}\" role=\"img\">", 3.0 * row + 24.0);
    // 2^-25 itself becomes 0; larger numbers of its binade do not.
    for (from, to, opacity) in [(low, -26, 0.22), (-25, -15, 0.1), (16, high, 0.22)] {
        let _ = write!(
            svg,
            "<rect x=\"{:.1}\" width=\"{:.1}\" y=\"4\" height=\"{:.1}\" fill=\"#d55e00\" opacity=\"{opacity}\"/>",
            x(from),
            (to - from + 1) as f64 * step,
            3.0 * row
        );
    }
    for (i, (range, name)) in totals.iter().enumerate() {
        let floor = 4.0 + (i + 1) as f64 * row;
        let most = range.exponents.values().copied().max().unwrap_or(1).max(1) as f64;
        for (&e, &n) in &range.exponents {
            let h = n as f64 / most * (row - 12.0);
            let share = 100.0 * n as f64 / (range.count - range.zeros).max(1) as f64;
            let _ = write!(
                svg,
                "<rect x=\"{:.1}\" width=\"{:.1}\" y=\"{:.1}\" height=\"{h:.1}\" fill=\"{}\"><title>2^{e}: {share:.2} \
                 %</title></rect>",
                x(e) + 0.5,
                (step - 1.0).max(0.5),
                floor - h,
                SERIES[i]
            );
        }
        let lost = 100.0 * range.f16.underflow as f64 / (range.count - range.zeros).max(1) as f64;
        let _ = write!(
            svg,
            "<line class=\"axis\" x1=\"{left}\" x2=\"{}\" y1=\"{floor}\" y2=\"{floor}\"/><text x=\"{}\" y=\"{:.1}\" \
             text-anchor=\"end\">{name}</text><text x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">{lost:.1} % → 0</text>",
            width - 8.0,
            left - 6.0,
            floor - 34.0,
            left - 6.0,
            floor - 20.0
        );
    }
    for e in (low..=high).filter(|e| e % 8 == 0) {
        let _ = write!(
            svg,
            "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\">2^{e}</text>",
            x(e) + step / 2.0,
            3.0 * row + 20.0
        );
    }
    svg + "</svg>"
}

/// Text as it is, an image as a PNG in the page.
fn shown(made: &Made) -> String {
    match made {
        Made::Text(text) => format!("<pre>{}</pre>", escape(text)),
        Made::Image { width, channels, pixels } => match png(*width, *channels, pixels) {
            Ok(bytes) => {
                let height = pixels.len() / (width * channels).max(1);
                image(&bytes, &format!("width=\"{width}\" height=\"{height}\" "))
            }
            Err(error) => format!("<pre>{}</pre>", escape(&error.to_string())),
        },
    }
}

/// A PNG file in the page.
fn image(bytes: &[u8], extents: &str) -> String {
    let data = base64::engine::general_purpose::STANDARD.encode(bytes);
    format!("<img class=\"made\" {extents}alt=\"\" src=\"data:image/png;base64,{data}\">")
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

fn legend<'a>(names: impl Iterator<Item = &'a str>, colours: &[&str]) -> String {
    names
        .zip(colours.iter().cycle())
        .map(|(n, c)| format!("<span><i style=\"background:{c}\"></i>{}</span>", escape(n)))
        .collect()
}

/// Exponential moving average, started at the first value.
fn smooth(curve: &[(f64, f64)]) -> Vec<(f64, f64)> {
    let keep = 1.0 - 1.0 / (curve.len() as f64 / 50.0).max(1.0);
    let mut mean = curve.first().map_or(0.0, |p| p.1);
    let step = |&(x, y): &(f64, f64)| {
        mean = keep * mean + (1.0 - keep) * y;
        (x, mean)
    };
    curve.iter().map(step).collect()
}

/// A line chart; `faint` curves lie behind.
fn chart(curves: &[Vec<(f64, f64)>], faint: Option<&[Vec<(f64, f64)>]>, label: &dyn Fn(f64) -> String) -> String {
    let (width, height, left, bottom) = (520.0, 260.0, 52.0, 26.0);
    let all: Vec<(f64, f64)> =
        curves.iter().chain(faint.into_iter().flatten()).flatten().copied().filter(|p| p.1.is_finite()).collect();
    let range = |f: &dyn Fn(&(f64, f64)) -> f64| {
        let (low, high) = all.iter().map(f).fold((f64::INFINITY, f64::NEG_INFINITY), |(a, b), v| (a.min(v), b.max(v)));
        if low.is_finite() { (low, if high > low { high } else { low + 1.0 }) } else { (0.0, 1.0) }
    };
    let (x, y) = (range(&|p| p.0), range(&|p| p.1));
    let at = |p: &(f64, f64)| {
        (
            left + (p.0 - x.0) / (x.1 - x.0) * (width - left - 8.0),
            8.0 + (y.1 - p.1) / (y.1 - y.0) * (height - bottom - 16.0),
        )
    };
    let mut svg = format!("<svg viewBox=\"0 0 {width} {height}\" role=\"img\">");
    for v in ticks(y) {
        let (_, py) = at(&(x.0, v));
        let _ = write!(
            svg,
            "<line class=\"axis\" x1=\"{left}\" x2=\"{}\" y1=\"{py:.1}\" y2=\"{py:.1}\"/><text x=\"{}\" y=\"{:.1}\" \
             text-anchor=\"end\">{}</text>",
            width - 8.0,
            left - 6.0,
            py + 4.0,
            label(v)
        );
    }
    for v in ticks(x) {
        let (px, _) = at(&(v, y.0));
        let _ = write!(svg, "<text x=\"{px:.1}\" y=\"{}\" text-anchor=\"middle\">{v}</text>", height - 6.0);
    }
    let mut line = |curve: &[(f64, f64)], colour: &str, style: &str| {
        let points: String = thin(curve).map(at).fold(String::new(), |s, (px, py)| s + &format!("{px:.1},{py:.1} "));
        let _ = write!(svg, "<polyline fill=\"none\" stroke=\"{colour}\" {style} points=\"{points}\"/>");
    };
    for (curve, colour) in faint.unwrap_or_default().iter().zip(SERIES.iter().cycle()) {
        line(curve, colour, "stroke-width=\"1\" opacity=\"0.22\"");
    }
    for (curve, colour) in curves.iter().zip(SERIES.iter().cycle()) {
        line(curve, colour, "stroke-width=\"2\" stroke-linejoin=\"round\"");
    }
    svg + "</svg>"
}

/// At most about 600 points: more cannot be seen.
fn thin(curve: &[(f64, f64)]) -> impl Iterator<Item = &(f64, f64)> {
    curve.iter().step_by((curve.len() / 600).max(1)).filter(|p| p.1.is_finite())
}

/// Four to eight round numbers in a range.
fn ticks((low, high): (f64, f64)) -> Vec<f64> {
    let rough = (high - low) / 5.0;
    let power = 10f64.powf(rough.log10().floor());
    let step = [1.0, 2.0, 5.0, 10.0].into_iter().map(|m| m * power).find(|s| *s >= rough).unwrap_or(power);
    let first = (low / step).ceil() as i64;
    (first..=(high / step).floor() as i64).map(|i| ((i as f64 * step) * 1e9).round() / 1e9).collect()
}

/// One stacked bar per precision.
fn bars(summaries: &[Summary]) -> String {
    let total = |s: &Summary| s.peak_bytes.classes().iter().map(|c| c.1).sum::<usize>();
    let largest = summaries.iter().map(total).max().unwrap_or(1).max(1) as f64;
    let height = 44.0 * summaries.len() as f64 + 8.0;
    let mut svg = format!("<svg viewBox=\"0 0 520 {height}\" role=\"img\">");
    for (i, s) in summaries.iter().enumerate() {
        let y = 44.0 * i as f64 + 8.0;
        let mut x = 52.0;
        let _ = write!(svg, "<text x=\"46\" y=\"{}\" text-anchor=\"end\">{}</text>", y + 18.0, escape(&s.precision));
        for ((name, n), colour) in s.peak_bytes.classes().iter().zip(CLASSES) {
            let w = *n as f64 / largest * 380.0;
            let _ = write!(
                svg,
                "<rect x=\"{x:.1}\" y=\"{y}\" width=\"{w:.1}\" height=\"28\" fill=\"{colour}\"><title>{name}: \
                 {}</title></rect>",
                bytes(*n)
            );
            x += w;
        }
        let _ = write!(svg, "<text x=\"{:.1}\" y=\"{}\">{}</text>", x + 6.0, y + 18.0, bytes(total(s)));
    }
    let names = crate::PeakBytes::default().classes();
    svg + "</svg><p class=\"legend\">" + &legend(names.iter().map(|c| c.0), &CLASSES) + "</p>"
}

fn summary_table(summaries: &[Summary]) -> String {
    let (result, of) = result(summaries);
    let unit = summaries.first().map_or("samples", |s| &s.unit);
    let mut html = format!(
        "<table><tr><th>precision</th><th>s/epoch</th><th>{unit}/s</th><th>{result}</th>\
         <th>final loss</th><th>loss scale</th><th>skipped</th><th>saved activations</th></tr>",
    );
    for s in summaries {
        let result = of(s).unwrap_or("–".into());
        let _ = write!(
            html,
            "<tr><td>{}</td><td>{:.3}</td><td>{:.0}</td><td>{result}</td><td>{:.5}</td><td>{}</td><td>{}</td>\
             <td>{}</td></tr>",
            escape(&s.precision),
            s.seconds_per_epoch,
            s.per_second,
            s.train_loss,
            s.loss_scale,
            s.skipped_steps,
            bytes(s.saved_activation_bytes)
        );
    }
    html + "</table>"
}

#[cfg(test)]
mod tests {
    use super::report;

    /// 460 px for two columns, and less where there is less.
    #[test]
    fn no_card_asks_for_more_than_the_page_has() {
        let page = report("run", &[], &[], None, &[], &[]);
        let columns = page.split("minmax(").skip(1).map(|rest| rest.split(',').next().unwrap());
        assert!(columns.clone().count() > 0 && columns.clone().all(|least| least.starts_with("min(")), "{page}");
        assert!(page.contains("width=device-width,initial-scale=1"));
    }
}
