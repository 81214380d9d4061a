//! What `watch` shows: curves of loss, loss scale and speed, and the newest skipped steps.

use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Style};
use ratatui::symbols::Marker;
use ratatui::text::{Line, Span};
use ratatui::widgets::{Axis, Block, Chart, Dataset, GraphType, Paragraph, Wrap};

use super::tail::{Curve, Seen, Series};

const COLOURS: [Color; 3] = [Color::Cyan, Color::Yellow, Color::Green];

/// Draws the state of a run of so many epochs.
pub fn draw(frame: &mut Frame<'_>, name: &str, epochs: u64, seen: &Seen) {
    let lines: Vec<Line<'_>> =
        seen.series.iter().enumerate().map(|(i, series)| coloured(i, series, told(series, epochs))).collect();
    let skipped = (seen.skipped.len().min(6) + 2) as u16;
    let [head, loss, below, foot] = Layout::vertical([
        Constraint::Length(lines.len().max(1) as u16 + 2),
        Constraint::Min(8),
        Constraint::Min(8),
        Constraint::Length(if seen.skipped.is_empty() { 0 } else { skipped }),
    ])
    .areas(frame.area());
    let title = format!(" {name}: q ends watching ");
    frame.render_widget(Paragraph::new(lines).block(Block::bordered().title(title)), head);
    let [scale, speed] = Layout::horizontal([Constraint::Fill(1), Constraint::Fill(1)]).areas(below);
    chart(frame, loss, " training loss ", seen, |series| &series.loss, |y| format!("{y:.3}"));
    chart(frame, scale, " loss scale ", seen, |series| &series.scale, |y| format!("2^{y:.0}"));
    chart(frame, speed, " steps per second ", seen, |series| &series.speed, |y| format!("{y:.1}"));
    let newest = seen.skipped.iter().rev().take(6).map(|(precision, step)| {
        let why = step.blame.as_ref().map_or_else(|| "a gradient is not finite".into(), |blame| blame.to_string());
        Line::from(format!("{precision} step {}: {why}", step.iteration))
    });
    let newest = Paragraph::new(newest.collect::<Vec<_>>()).wrap(Wrap { trim: true });
    frame.render_widget(newest.block(Block::bordered().title(" skipped ")), foot);
}

/// What a precision has come to, in a line: what matters least comes last, where a narrow screen ends.
pub fn told(series: &Series, epochs: u64) -> String {
    let Some(step) = &series.step else { return String::new() };
    let loss = step.loss.map_or("not finite".into(), |loss| format!("{loss:.4}"));
    let epoch = (series.epoch + 1).min(epochs);
    let mut text = format!("  epoch {epoch}/{epochs}  step {}  loss {loss}", step.iteration + 1);
    text += &series.test_loss.map_or(String::new(), |loss| format!("  test {loss:.4}"));
    text += &series.test_accuracy.map_or(String::new(), |share| format!(", {:.2} %", 100.0 * share));
    text += &format!("  scale {}  skipped {}", step.loss_scale, series.skipped);
    text += &series.speed.points.last().map_or(String::new(), |(_, rate)| format!("  {rate:.1} steps/s"));
    text + &format!("  lr {:.2e}", step.lr)
}

fn coloured(i: usize, series: &Series, text: String) -> Line<'static> {
    let name = Span::styled(series.precision.clone(), Style::default().fg(COLOURS[i % COLOURS.len()]));
    Line::from(vec![name, Span::raw(text)])
}

fn chart(
    frame: &mut Frame<'_>,
    area: Rect,
    title: &str,
    seen: &Seen,
    of: impl Fn(&Series) -> &Curve,
    label: impl Fn(f64) -> String,
) {
    let all = || seen.series.iter().flat_map(|series| &of(series).points);
    let range = |of: fn(&(f64, f64)) -> f64| {
        let (low, high) = all().map(of).fold((f64::INFINITY, f64::NEG_INFINITY), |(a, b), v| (a.min(v), b.max(v)));
        match (low.is_finite(), high > low) {
            (true, true) => [low, high],
            (true, false) => [low - 1.0, low + 1.0],
            (false, _) => [0.0, 1.0],
        }
    };
    let (x, y) = (range(|p| p.0), range(|p| p.1));
    let curves = seen.series.iter().enumerate().map(|(i, series)| {
        let style = Style::default().fg(COLOURS[i % COLOURS.len()]);
        Dataset::default().marker(Marker::Braille).graph_type(GraphType::Line).style(style).data(&of(series).points)
    });
    let steps = [x[0].max(0.0), x[1]].map(|x| format!("{x:.0}"));
    let chart = Chart::new(curves.collect())
        .block(Block::bordered().title(title.to_string()))
        .x_axis(Axis::default().bounds(x).labels(steps))
        .y_axis(Axis::default().bounds(y).labels(y.map(label)));
    frame.render_widget(chart, area);
}
