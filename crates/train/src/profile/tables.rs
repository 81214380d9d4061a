//! [`Recording::tables`]: where time went, by phase, operator and layer.

use std::collections::{BTreeMap, HashMap};

use binade_tensor::profile::What;
use comfy_table::{CellAlignment, Table, presets};
use serde::Serialize;

use super::own::{Own, own};
use super::{Limits, Recording};

/// Rows of a table; the others are added up in one.
const ROWS: usize = 20;

/// Time of what a row is about, in all steps.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Spent {
    /// Phase, operator or layer.
    pub name: String,
    /// The phase that an operator ran in: `forward`, `backward`, `update` …; of a layer and a phase, nothing.
    #[serde(skip_serializing_if = "str::is_empty")]
    pub phase: &'static str,
    /// The dtype of an operator's first operand.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub dtype: String,
    /// Calls.
    pub calls: usize,
    /// Seconds, without what ran within.
    pub seconds: f64,
    /// Of a layer, the part of them in the backward pass.
    pub backward: f64,
    /// Bytes of operands and results.
    pub bytes: u64,
    /// Floating-point operations.
    pub flop: f64,
}

impl Spent {
    fn add(&mut self, own: &Own<'_>) {
        let seconds = own.time.as_secs_f64();
        self.calls += 1;
        self.seconds += seconds;
        self.backward += if own.phase == "backward" { seconds } else { 0.0 };
        self.bytes += own.span.what.footprint();
        self.flop += own.span.what.work();
    }
}

/// Where the time of a [`Recording`] went.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Times {
    /// Steps.
    pub steps: usize,
    /// Seconds from the first to the last.
    pub seconds: f64,
    /// Phases with all that ran in them, in the order in which they first began.
    pub phases: Vec<Spent>,
    /// Operators and passes by phase and dtype, longest first.
    pub operators: Vec<Spent>,
    /// Layers without those within them, longest first.
    pub layers: Vec<Spent>,
}

impl Recording {
    /// Where the time went.
    pub fn times(&self) -> Times {
        let all = own(&self.spans);
        let begin = self.spans.iter().map(|span| span.start).min().unwrap_or_default();
        let end = self.spans.iter().map(|span| span.start + span.time).max().unwrap_or_default();
        let of = |computes: bool| all.iter().filter(move |own| own.span.what.computes() == computes);
        let mut order: Vec<&'static str> = Vec::new();
        let mut phases: BTreeMap<&'static str, Spent> = BTreeMap::new();
        for own in of(false).filter(|own| matches!(own.span.what, What::Phase(_))) {
            let name = own.span.what.name();
            let row = phases.entry(name).or_insert_with(|| {
                order.push(name);
                Spent { name: name.into(), ..Spent::default() }
            });
            (row.calls, row.seconds) = (row.calls + 1, row.seconds + own.span.time.as_secs_f64());
        }
        Times {
            steps: self.steps(),
            seconds: (end - begin).as_secs_f64(),
            phases: order.iter().filter_map(|name| phases.remove(name)).collect(),
            operators: added(of(true), |own| {
                let dtype = match &own.span.what {
                    What::Operator { ins, outs, .. } => ins.iter().chain(outs).next().map(|meta| meta.dtype),
                    What::Step(_) | What::Phase(_) | What::Update { .. } => None,
                };
                let dtype = dtype.map_or(String::new(), |dtype| dtype.to_string());
                (own.span.what.name().to_string(), own.phase, dtype)
            }),
            layers: added(of(true), |own| (own.span.layer.to_string(), "", String::new())),
        }
    }

    /// Where the time went, for a terminal; with the limits of the device, how near operators came to them.
    pub fn tables(&self, limits: Option<&Limits>) -> String {
        let times = self.times();
        let steps = times.steps.max(1) as f64;
        let ms = |seconds: f64| format!("{:.3}", seconds * 1e3 / steps);
        let share = |seconds: f64| format!("{:.1} %", 100.0 * seconds / times.seconds.max(f64::MIN_POSITIVE));
        let head = format!("{}: {} steps, {} ms each", self.name, times.steps, ms(times.seconds));
        let phases = times.phases.iter().map(|row| vec![row.name.clone(), ms(row.seconds), share(row.seconds)]);
        let operators = top(&times.operators).into_iter().map(|row| {
            let rate = |of: f64| if of > 0.0 { format!("{:.1}", of / 1e9 / row.seconds) } else { String::new() };
            let mut cells = vec![row.name.clone(), row.dtype.clone(), row.phase.into()];
            cells.push(format!("{:.1}", row.calls as f64 / steps));
            cells.extend([ms(row.seconds), share(row.seconds), rate(row.flop), rate(row.bytes as f64)]);
            let near = |limits: &Limits| {
                let part = limits.share(row.calls, row.flop, row.bytes, row.seconds);
                part.map_or(String::new(), |part| format!("{:.0} %", 100.0 * part))
            };
            cells.extend(limits.map(near));
            cells
        });
        let layers = top(&times.layers).into_iter().map(|row| {
            let name = if row.name.is_empty() { "(outside layers)".into() } else { row.name.clone() };
            vec![name, ms(row.seconds - row.backward), ms(row.backward), share(row.seconds)]
        });
        let mut columns = vec!["operator", "dtype", "phase", "calls", "ms a step", "share", "GFLOP/s", "GB/s"];
        columns.extend(limits.map(|_| "of limit"));
        let mut text = format!(
            "{head}\n{}\n\n{}\n\n{}",
            table(&["phase", "ms a step", "share"], phases, 1),
            table(&columns, operators, 3),
            table(&["layer", "other ms a step", "backward", "share"], layers, 1)
        );
        if let Some(Limits { gflops, gbytes }) = limits {
            text += &format!(
                "\nLimits are what this device reached: {gflops:.0} GFLOP/s in a large product, {gbytes:.1} GB/s in \
                 memory, which is none of what lies in caches."
            );
        }
        text
    }
}

/// Rows by a key, longest first.
fn added<'a, 'b: 'a>(
    all: impl Iterator<Item = &'a Own<'b>>,
    key: impl Fn(&Own<'_>) -> (String, &'static str, String),
) -> Vec<Spent> {
    let mut rows: HashMap<(String, &'static str, String), Spent> = HashMap::new();
    for own in all {
        rows.entry(key(own)).or_default().add(own);
    }
    let named =
        |((name, phase, dtype), spent): ((String, &'static str, String), Spent)| Spent { name, phase, dtype, ..spent };
    let mut rows: Vec<Spent> = rows.into_iter().map(named).collect();
    rows.sort_by(|a, b| b.seconds.total_cmp(&a.seconds).then_with(|| a.name.cmp(&b.name)));
    rows
}

/// The first rows, and one for all others.
fn top(rows: &[Spent]) -> Vec<Spent> {
    let (first, others) = rows.split_at(rows.len().min(ROWS));
    let mut first = first.to_vec();
    if !others.is_empty() {
        let sum = |of: &dyn Fn(&Spent) -> f64| others.iter().map(of).sum::<f64>();
        first.push(Spent {
            name: format!("({} others)", others.len()),
            calls: others.iter().map(|row| row.calls).sum(),
            seconds: sum(&|row| row.seconds),
            backward: sum(&|row| row.backward),
            ..Spent::default()
        });
    }
    first
}

/// With numbers after so many columns of text.
fn table(header: &[&str], rows: impl Iterator<Item = Vec<String>>, text: usize) -> Table {
    let mut table = Table::new();
    table.load_preset(presets::ASCII_MARKDOWN);
    table.set_header(header);
    for row in rows {
        table.add_row(row);
    }
    table.column_iter_mut().skip(text).for_each(|column| column.set_cell_alignment(CellAlignment::Right));
    table
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use binade_tensor::op::MatMul;
    use binade_tensor::profile::Span;
    use binade_tensor::{DType, Layout, Meta, Op, Shape};

    use super::*;

    fn at(what: What, layer: &str, from: u64, to: u64) -> Span {
        let (start, time) = (Duration::from_millis(from), Duration::from_millis(to - from));
        Span { what, layer: Arc::from(layer), start, time, thread: 0 }
    }

    fn product() -> What {
        let meta = |dims: &[usize]| Meta { dtype: DType::F32, layout: Layout::contiguous(Shape::new(dims).unwrap()) };
        let (ins, outs) = (vec![meta(&[4, 5]), meta(&[5, 6])], vec![meta(&[4, 6])]);
        What::Operator { op: Box::new(Op::MatMul(MatMul::default())), ins, outs }
    }

    #[test]
    fn time_within_is_its_own_and_operators_know_their_phase() {
        let update = What::Update { name: "adamw", tensors: 2, bytes: 64 };
        // As they end: what is within ends first.
        let spans = vec![
            at(product(), "a.b", 1, 3),
            at(What::Phase("forward"), "", 0, 5),
            at(product(), "a.b", 5, 9),
            at(What::Phase("backward"), "", 5, 10),
            at(update, "", 12, 13),
            at(What::Phase("update"), "", 10, 14),
            at(What::Step(7), "", 0, 20),
        ];
        let recording = Recording { name: "fp32".into(), spans };
        let times = recording.times();
        assert_eq!((times.steps, times.seconds), (1, 0.02));
        let told = |rows: &[Spent]| {
            rows.iter().map(|r| (r.name.clone(), r.phase, (r.seconds * 1e3).round())).collect::<Vec<_>>()
        };
        assert_eq!(
            told(&times.phases),
            [("forward".into(), "", 5.0), ("backward".into(), "", 5.0), ("update".into(), "", 4.0)]
        );
        let expected =
            [("matmul".into(), "backward", 4.0), ("matmul".into(), "forward", 2.0), ("adamw".into(), "update", 1.0)];
        assert_eq!(told(&times.operators), expected);
        assert_eq!((times.operators[0].flop, times.operators[0].bytes), (240.0, 4 * (20 + 30 + 24)));
        assert_eq!(told(&times.layers), [("a.b".into(), "", 6.0), (String::new(), "", 1.0)]);
        assert_eq!((times.layers[0].backward * 1e3).round(), 4.0);
        let own: Duration = own(&recording.spans).iter().map(|own| own.time).sum();
        assert_eq!(own, Duration::from_millis(20), "all time is somebody's, once");
    }

    #[test]
    fn the_tables_say_shares_rates_and_limits() {
        let spans = vec![at(product(), "a", 0, 1), at(What::Phase("forward"), "", 0, 1), at(What::Step(0), "", 0, 2)];
        let limits = Limits { gflops: 1.0, gbytes: 1.0 };
        let text = Recording { name: "bf16".into(), spans }.tables(Some(&limits));
        assert!(text.starts_with("bf16: 1 steps, 2.000 ms each"), "{text}");
        let row = text.lines().find(|line| line.starts_with("| matmul")).unwrap();
        let cells: Vec<&str> = row.split('|').map(str::trim).collect();
        assert_eq!(cells[1..10], ["matmul", "f32", "forward", "1.0", "1.000", "50.0 %", "0.0", "0.0", "0 %"]);
    }

    #[test]
    fn rows_beyond_the_first_are_one() {
        let rows: Vec<Spent> =
            (0..30).map(|i| Spent { name: i.to_string(), calls: 2, seconds: 1.0, ..Spent::default() }).collect();
        let top = top(&rows);
        assert_eq!((top.len(), top[ROWS].calls, top[ROWS].seconds), (ROWS + 1, 20, 10.0));
    }
}
