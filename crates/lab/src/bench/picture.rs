//! The picture of a comparison: speed and memory ratios by case, as SVG for light and dark pages.

use std::fmt::Write;

use super::row::{Beside, Row};

/// Apart for the colour-blind (Okabe and Ito).
const FP32: &str = "#0072b2";
const FP16: &str = "#d55e00";
const BF16: &str = "#009e73";
const AUTOCAST: &str = "#cc79a7";

const WIDTH: f64 = 860.0;
const LEFT: f64 = 205.0;
const RIGHT: f64 = 24.0;

/// `class` in place of `fill` and `stroke` where the colour follows the page.
const STYLE: &str = "text{fill:#1a1a1a}.soft{fill:#5f5f5f;font-size:12px}.grid{stroke:#dcdcdc}\
.one{stroke:#1a1a1a;stroke-width:1.5}\
.odd{fill:#000;opacity:.035}\
@media(prefers-color-scheme:dark){text{fill:#ececec}.soft{fill:#a8a8a8}.grid{stroke:#3d3d3d}.one{stroke:#ececec}\
.odd{fill:#fff;opacity:.05}}";

/// A kind of dot, with its line in the legend.
#[derive(Clone, Copy, PartialEq)]
struct Series {
    name: &'static str,
    colour: &'static str,
    hollow: bool,
}

const fn series(name: &'static str, colour: &'static str, hollow: bool) -> Series {
    Series { name, colour, hollow }
}

/// A value with its quartiles.
struct Dot {
    series: Series,
    value: f64,
    quartiles: Option<(f64, f64)>,
}

impl Dot {
    fn beside(series: Series, beside: Beside) -> Dot {
        Dot { series, value: beside.ratio, quartiles: Some((beside.p25, beside.p75)) }
    }
}

/// A case and its dots.
type Line = (String, Vec<Dot>);

/// From left to right, evenly in the number or in its logarithm.
struct Axis {
    low: f64,
    high: f64,
    logarithmic: bool,
    ticks: Vec<f64>,
}

impl Axis {
    /// Round the dots themselves: a whisker that leaves is cut.
    fn speed(lines: &[Line]) -> Axis {
        const TICKS: [f64; 12] = [0.25, 0.5, 0.75, 1.0, 1.25, 1.5, 2.0, 3.0, 4.0, 8.0, 16.0, 32.0];
        let values = || lines.iter().flat_map(|l| &l.1).map(|d| d.value);
        let (low, high) = (values().fold(0.8, f64::min) / 1.1, values().fold(1.25, f64::max) * 1.1);
        Axis { low, high, logarithmic: true, ticks: TICKS.into_iter().filter(|t| (low..=high).contains(t)).collect() }
    }

    fn memory(lines: &[Line]) -> Axis {
        let high = lines.iter().flat_map(|l| &l.1).fold(1.0, |m, d| d.value.max(m)) * 1.1;
        let ticks = (0..).map(|i| f64::from(i) * 0.25).take_while(|t| *t <= high).collect();
        Axis { low: 0.0, high, logarithmic: false, ticks }
    }

    fn x(&self, value: f64) -> f64 {
        let value = value.clamp(self.low, self.high);
        let part = if self.logarithmic {
            (value / self.low).ln() / (self.high / self.low).ln()
        } else {
            (value - self.low) / (self.high - self.low)
        };
        LEFT + part * (WIDTH - LEFT - RIGHT)
    }
}

/// The whole picture.
pub fn svg(rows: &[Row]) -> String {
    let (speed, memory) = (speed(rows), memory(rows));
    let mut body = String::new();
    let mut y = 0.0;
    if !speed.is_empty() {
        y = panel(
            &mut body,
            y,
            "Speed: right of the line is faster; whiskers are quartiles",
            &speed,
            &Axis::speed(&speed),
        );
    }
    if !memory.is_empty() {
        y = panel(&mut body, y, "Memory of a training step: left of the line is less", &memory, &Axis::memory(&memory));
    }
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {y}\" font-family=\"system-ui, sans-serif\" \
         font-size=\"13\">\n<style>{STYLE}</style>\n{body}</svg>\n"
    )
}

/// Lines of consecutive rows of the same case.
fn lines(rows: &[Row], dots: impl Fn(&Row) -> Vec<Dot>) -> Vec<Line> {
    let mut out: Vec<Line> = Vec::new();
    for row in rows {
        match out.last_mut() {
            Some((case, line)) if *case == row.case => line.extend(dots(row)),
            Some(_) | None => out.push((row.case.clone(), dots(row))),
        }
    }
    out.retain(|(_, dots)| !dots.is_empty());
    out
}

fn speed(rows: &[Row]) -> Vec<Line> {
    lines(rows, |row| {
        let (mine, peer) = match row.prec.as_str() {
            "fp32" => ((row.torch_f32, series("f32 against PyTorch's f32", FP32, false)), None),
            "fp16" => ((row.own_f32, series("fp16 against own f32", FP16, false)), None),
            _ => ((row.own_f32, series("bf16 against own f32", BF16, false)), row.torch_bf16),
        };
        let autocast = (peer, series("bf16 against PyTorch's bf16 autocast", AUTOCAST, true));
        [mine, autocast].into_iter().filter_map(|(beside, series)| Some(Dot::beside(series, beside?))).collect()
    })
}

fn memory(rows: &[Row]) -> Vec<Line> {
    lines(rows, |row| {
        let f32s = rows.iter().find(|r| r.case == row.case && r.prec == "fp32").and_then(|r| r.memory);
        let (peak, saved) = match row.prec.as_str() {
            "fp32" => (series("peak, fp32 / PyTorch's f32", FP32, false), None),
            "fp16" => (
                series("peak, fp16 / PyTorch's f32", FP16, false),
                Some(series("saved activations, fp16 / own f32", FP16, true)),
            ),
            _ => (
                series("peak, bf16 / PyTorch's f32", BF16, false),
                Some(series("saved activations, bf16 / own f32", BF16, true)),
            ),
        };
        let part = |a: f64, b: Option<f64>| b.filter(|b| *b > 0.0).map(|b| a / b);
        let Some(here) = row.memory else { return Vec::new() };
        let peak = part(here.peak_mib, row.torch_f32_memory.map(|m| m.peak_mib)).map(|v| (peak, v));
        let saved = saved.and_then(|s| Some((s, part(here.saved_mib, f32s.map(|m| m.saved_mib))?)));
        [peak, saved].into_iter().flatten().map(|(series, value)| Dot { series, value, quartiles: None }).collect()
    })
}

/// Draws a panel below `top` and gives its lower edge.
fn panel(svg: &mut String, top: f64, title: &str, lines: &[Line], axis: &Axis) -> f64 {
    const GAP: f64 = 7.0;
    let mut kinds: Vec<Series> = Vec::new();
    for dot in lines.iter().flat_map(|l| &l.1) {
        if !kinds.contains(&dot.series) {
            kinds.push(dot.series);
        }
    }
    kinds.sort_by_key(|kind| kind.hollow);
    let _ = writeln!(svg, "<text x=\"12\" y=\"{}\" font-weight=\"600\" font-size=\"15\">{title}</text>", top + 24.0);
    let (mut x, mut y) = (12.0, top + 46.0);
    for kind in &kinds {
        // About 7 units a letter; the legend goes on in a new line where it would leave the picture.
        let length = 32.0 + 7.0 * kind.name.len() as f64;
        if x + length > WIDTH {
            (x, y) = (12.0, y + 20.0);
        }
        circle(svg, x + 6.0, y - 4.5, *kind, "");
        let _ = writeln!(svg, "<text x=\"{}\" y=\"{y}\">{}</text>", x + 16.0, kind.name);
        x += length;
    }
    let first = y + 14.0;
    let height = GAP * kinds.len() as f64 + 8.0;
    let last = first + height * lines.len() as f64;
    for i in (1..lines.len()).step_by(2) {
        let _ = writeln!(
            svg,
            "<rect class=\"odd\" x=\"0\" width=\"{WIDTH}\" y=\"{}\" height=\"{height}\"/>",
            first + i as f64 * height
        );
    }
    for &tick in &axis.ticks {
        let (x, class) = (axis.x(tick), if tick == 1.0 { "one" } else { "grid" });
        let _ = writeln!(svg, "<line class=\"{class}\" x1=\"{x:.1}\" x2=\"{x:.1}\" y1=\"{first}\" y2=\"{last}\"/>");
        let _ = writeln!(
            svg,
            "<text class=\"soft\" x=\"{x:.1}\" y=\"{}\" text-anchor=\"middle\">{tick}</text>",
            last + 16.0
        );
    }
    for (i, (name, dots)) in lines.iter().enumerate() {
        let centre = first + (i as f64 + 0.5) * height;
        let _ = writeln!(svg, "<text x=\"{}\" y=\"{}\" text-anchor=\"end\">{name}</text>", LEFT - 14.0, centre + 4.5);
        for dot in dots {
            // Each kind at its own height, so that whiskers do not cover each other.
            let place = kinds.iter().position(|k| *k == dot.series).unwrap_or(0) as f64;
            let y = centre + GAP * (place - (kinds.len() - 1) as f64 / 2.0);
            if let Some((low, high)) = dot.quartiles {
                let (a, b, colour) = (axis.x(low), axis.x(high), dot.series.colour);
                let _ = writeln!(
                    svg,
                    "<line x1=\"{a:.1}\" x2=\"{b:.1}\" y1=\"{y:.1}\" y2=\"{y:.1}\" stroke=\"{colour}\" \
                     stroke-width=\"2\"/>"
                );
            }
            circle(
                svg,
                axis.x(dot.value),
                y,
                dot.series,
                &format!("<title>{name}, {}: {:.2}</title>", dot.series.name, dot.value),
            );
        }
    }
    last + 34.0
}

fn circle(svg: &mut String, x: f64, y: f64, Series { colour, hollow, .. }: Series, inside: &str) {
    let fill = if hollow { "none" } else { colour };
    let _ = writeln!(
        svg,
        "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"3.6\" fill=\"{fill}\" stroke=\"{colour}\" \
         stroke-width=\"1.8\">{inside}</circle>"
    );
}
