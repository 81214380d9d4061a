//! [`trace`]: recordings as trace events, the JSON that Perfetto and Chrome's `about:tracing` read ("Trace Event
//! Format", Google, 2016).

use binade_tensor::Meta;
use binade_tensor::profile::{Span, What};
use serde_json::{Map, Value, json};

use super::Recording;

/// A process for each recording, in which phases hold what ran in them; times in microseconds.
pub fn trace(recordings: &[Recording]) -> String {
    let mut events = Vec::new();
    for (process, recording) in recordings.iter().enumerate() {
        events.push(json!({
            "name": "process_name", "ph": "M", "pid": process, "tid": 0, "args": { "name": recording.name },
        }));
        events.extend(recording.spans.iter().map(|span| event(process, span)));
    }
    // An event a line: the file can be searched.
    let lines = events.iter().map(Value::to_string).collect::<Vec<_>>().join(",\n");
    format!("{{\"displayTimeUnit\":\"ms\",\"traceEvents\":[\n{lines}\n]}}\n")
}

fn event(process: usize, span: &Span) -> Value {
    let micros = |time: std::time::Duration| time.as_nanos() as f64 / 1e3;
    let (name, kind) = match &span.what {
        What::Step(_) => (span.what.to_string(), "step"),
        What::Phase(name) => ((*name).into(), "phase"),
        What::Operator { op, .. } => (op.name().into(), "operator"),
        What::Update { name, .. } => ((*name).into(), "update"),
    };
    json!({
        "name": name, "cat": kind, "ph": "X", "ts": micros(span.start), "dur": micros(span.time), "pid": process,
        "tid": span.thread, "args": args(span),
    })
}

fn args(span: &Span) -> Value {
    let mut args = Map::new();
    let mut put = |name: &str, value: Value| args.insert(name.into(), value);
    if !span.layer.is_empty() {
        put("layer", json!(*span.layer));
    }
    match &span.what {
        What::Step(_) | What::Phase(_) => return args.into(),
        What::Operator { ins, outs, .. } => {
            put("inputs", json!(ins.iter().map(array).collect::<Vec<_>>()));
            put("outputs", json!(outs.iter().map(array).collect::<Vec<_>>()));
        }
        What::Update { tensors, .. } => {
            put("tensors", json!(tensors));
        }
    }
    put("bytes", json!(span.what.footprint()));
    let work = span.what.work();
    if work > 0.0 {
        put("flop", json!(work));
    }
    args.into()
}

/// Dtype, extents, and where memory is in another order the strides: `f32[64, 8]`.
fn array(meta: &Meta) -> String {
    let order = if meta.layout.is_contiguous() { String::new() } else { format!(" by {:?}", meta.layout.strides) };
    format!("{}{:?}{order}", meta.dtype, meta.shape())
}
