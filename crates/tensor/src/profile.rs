//! Wall-clock time by operator and layer: [`start`], run something, [`stop`].

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crate::{Array, Op};

static ON: AtomicBool = AtomicBool::new(false);
static ROWS: Mutex<Option<Recorded>> = Mutex::new(None);

/// Who knows which layer runs on this thread: nobody below the crate of layers does.
pub type WhichLayer = fn() -> Arc<str>;

/// Calls and time by layer and name.
struct Recorded {
    layer: WhichLayer,
    rows: HashMap<(Arc<str>, String), (usize, Duration)>,
}

/// What one operator on one set of shapes took in one layer.
#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    /// Operator, and shape and dtype of its inputs.
    pub name: String,
    /// The layer's path; empty outside a model, or where nobody knows it.
    pub layer: Arc<str>,
    /// Calls.
    pub calls: usize,
    /// Sum of their times.
    pub time: Duration,
}

/// Begins to record, on all threads, with nothing recorded.
pub fn start() {
    start_by(|| Arc::from(""));
}

/// As [`start`], with rows of their own for each layer that is told: the scope's, for instance.
pub fn start_by(layer: WhichLayer) {
    *ROWS.lock().unwrap_or_else(|e| e.into_inner()) = Some(Recorded { layer, rows: HashMap::new() });
    ON.store(true, Relaxed);
}

/// Ends recording. Longest first.
pub fn stop() -> Vec<Row> {
    ON.store(false, Relaxed);
    let recorded = ROWS.lock().unwrap_or_else(|e| e.into_inner()).take();
    let rows = recorded.into_iter().flat_map(|recorded| recorded.rows);
    let mut rows: Vec<Row> = rows.map(|((layer, name), (calls, time))| Row { name, layer, calls, time }).collect();
    rows.sort_by(|a, b| b.time.cmp(&a.time).then_with(|| (&a.name, &a.layer).cmp(&(&b.name, &b.layer))));
    rows
}

/// Runs `f`, recording its time if recording is on.
pub(crate) fn timed<T>(op: &Op, ins: &[&Array], f: impl FnOnce() -> T) -> T {
    record(
        || {
            let shapes: Vec<String> = ins
                .iter()
                .map(|a| {
                    let order = if a.layout().is_contiguous() { "" } else { "*" };
                    format!("{}{:?}{order}", a.dtype(), &**a.shape())
                })
                .collect();
            format!("{} {}", op.name(), shapes.join(" "))
        },
        f,
    )
}

/// Runs `f`, recording its time under a name if recording is on.
pub fn record<T>(name: impl FnOnce() -> String, f: impl FnOnce() -> T) -> T {
    if !ON.load(Relaxed) {
        return f();
    }
    let start = Instant::now();
    let out = f();
    let time = start.elapsed();
    if let Some(recorded) = ROWS.lock().unwrap_or_else(|e| e.into_inner()).as_mut() {
        let row = recorded.rows.entry(((recorded.layer)(), name())).or_default();
        row.0 += 1;
        row.1 += time;
    }
    out
}
