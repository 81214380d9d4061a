//! Wall-clock time by operator: [`start`], run something, [`stop`].

use std::collections::HashMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

use crate::{Array, Op};

static ON: AtomicBool = AtomicBool::new(false);
static ROWS: Mutex<Option<HashMap<String, (usize, Duration)>>> = Mutex::new(None);

/// What one operator on one set of shapes took.
#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    /// Operator, and shape and dtype of its inputs.
    pub name: String,
    /// Calls.
    pub calls: usize,
    /// Sum of their times.
    pub time: Duration,
}

/// Begins to record, on all threads, with nothing recorded.
pub fn start() {
    *ROWS.lock().unwrap_or_else(|e| e.into_inner()) = Some(HashMap::new());
    ON.store(true, Relaxed);
}

/// Ends recording. Longest first.
pub fn stop() -> Vec<Row> {
    ON.store(false, Relaxed);
    let rows = ROWS.lock().unwrap_or_else(|e| e.into_inner()).take().unwrap_or_default();
    let mut rows: Vec<Row> = rows.into_iter().map(|(name, (calls, time))| Row { name, calls, time }).collect();
    rows.sort_by(|a, b| b.time.cmp(&a.time).then_with(|| a.name.cmp(&b.name)));
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
    if let Some(rows) = ROWS.lock().unwrap_or_else(|e| e.into_inner()).as_mut() {
        let row = rows.entry(name()).or_default();
        row.0 += 1;
        row.1 += time;
    }
    out
}
