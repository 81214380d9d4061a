//! What runs when: [`start`], run something, [`stop`]. Operators and updates are recorded with their operands, and
//! whoever runs them may name the [`phase`]s around them. While nobody records, each costs the look at one flag.

use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::op::work;
use crate::{Meta, Op};

static ON: AtomicBool = AtomicBool::new(false);
static RECORDED: Mutex<Option<Recorded>> = Mutex::new(None);

/// Who knows which layer runs on this thread: nobody below the crate of layers does.
pub type WhichLayer = fn() -> Arc<str>;

/// All that was seen since the start.
struct Recorded {
    layer: WhichLayer,
    began: Instant,
    spans: Vec<Span>,
}

/// Something that ran, and when. On a device that queues its work, an operator's time is that of queueing it.
#[derive(Clone, Debug, PartialEq)]
pub struct Span {
    /// What ran.
    pub what: What,
    /// The layer's path; empty outside a model, or where nobody knows it.
    pub layer: Arc<str>,
    /// When it began, from the start of the recording.
    pub start: Duration,
    /// How long it took, with all that ran within it on the same thread.
    pub time: Duration,
    /// A number of the thread, from 0 in the order in which threads were first recorded.
    pub thread: u32,
}

/// What a [`Span`] is of.
#[derive(Clone, Debug, PartialEq)]
pub enum What {
    /// A training step, by its number.
    Step(u64),
    /// Something within which others run: `forward`.
    Phase(&'static str),
    /// An operator.
    Operator {
        /// With its attributes.
        op: Box<Op>,
        /// Its operands.
        ins: Vec<Meta>,
        /// Its results.
        outs: Vec<Meta>,
    },
    /// A pass over many tensors: an optimiser's step, a norm.
    Update {
        /// Its name.
        name: &'static str,
        /// Tensors whose gradients it reads.
        tensors: usize,
        /// Bytes of all that it is given.
        bytes: u64,
    },
}

impl What {
    /// The name of the phase, the operator or the pass.
    pub fn name(&self) -> &'static str {
        match self {
            What::Step(_) => "step",
            What::Phase(name) => name,
            What::Operator { op, .. } => op.name(),
            What::Update { name, .. } => name,
        }
    }

    /// Bytes of its operands and results, each element once however often it is read; none of a step or phase.
    pub fn footprint(&self) -> u64 {
        match self {
            What::Step(_) | What::Phase(_) => 0,
            What::Operator { ins, outs, .. } => ins.iter().chain(outs).map(bytes).sum(),
            What::Update { bytes, .. } => *bytes,
        }
    }

    /// Whether it is an operator or a pass, which compute, and no part of a step, in which they run.
    pub fn computes(&self) -> bool {
        matches!(self, What::Operator { .. } | What::Update { .. })
    }

    /// Floating-point operations of a product, a convolution or attention, as [`work`] counts them.
    pub fn work(&self) -> f64 {
        match self {
            What::Operator { op, ins, outs } => outs.first().map_or(0.0, |out| work(op, ins, out)),
            What::Step(_) | What::Phase(_) | What::Update { .. } => 0.0,
        }
    }
}

/// Name and operands: `matmul f32[64, 8] f32[8, 4]*`, where the asterisk says that memory is in another order.
impl fmt::Display for What {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())?;
        match self {
            What::Step(number) => write!(f, " {number}"),
            What::Phase(_) => Ok(()),
            What::Operator { ins, .. } => ins.iter().try_for_each(|meta| {
                let order = if meta.layout.is_contiguous() { "" } else { "*" };
                write!(f, " {}{:?}{order}", meta.dtype, meta.shape())
            }),
            What::Update { tensors, .. } => write!(f, " of {tensors} tensors"),
        }
    }
}

/// Bytes of an array's memory; a dimension that repeats the same elements is none.
fn bytes(meta: &Meta) -> u64 {
    let layout = &meta.layout;
    let extents = layout.shape.iter().zip(layout.strides.iter()).filter(|(_, stride)| **stride > 0);
    extents.map(|(extent, _)| *extent as u64).product::<u64>() * meta.dtype.size() as u64
}

/// Begins to record, on all threads, with nothing recorded.
pub fn start() {
    start_by(|| Arc::from(""));
}

/// As [`start`], with the layer of each span: the scope's, for instance.
pub fn start_by(layer: WhichLayer) {
    let recorded = Recorded { layer, began: Instant::now(), spans: Vec::new() };
    *RECORDED.lock().unwrap_or_else(PoisonError::into_inner) = Some(recorded);
    ON.store(true, Relaxed);
}

/// Ends recording. What ended first comes first; what has not ended is left out.
pub fn stop() -> Vec<Span> {
    ON.store(false, Relaxed);
    RECORDED.lock().unwrap_or_else(PoisonError::into_inner).take().map_or_else(Vec::new, |recorded| recorded.spans)
}

/// Something that runs, until it is dropped.
#[must_use = "a span ends where it is dropped"]
pub struct Running(Option<(What, Arc<str>, Instant)>);

/// Begins a phase, if recording is on.
pub fn phase(name: &'static str) -> Running {
    span(|| What::Phase(name))
}

/// Begins a span, if recording is on; else nothing is asked.
pub fn span(what: impl FnOnce() -> What) -> Running {
    if !ON.load(Relaxed) {
        return Running(None);
    }
    let layer = RECORDED.lock().unwrap_or_else(PoisonError::into_inner).as_ref().map(|recorded| recorded.layer);
    Running(layer.map(|layer| (what(), layer(), Instant::now())))
}

impl Drop for Running {
    fn drop(&mut self) {
        let Some((what, layer, began)) = self.0.take() else { return };
        let time = began.elapsed();
        if let Some(recorded) = RECORDED.lock().unwrap_or_else(PoisonError::into_inner).as_mut() {
            // What began in a recording before this one is none of its spans.
            if let Some(start) = began.checked_duration_since(recorded.began) {
                recorded.spans.push(Span { what, layer, start, time, thread: thread() });
            }
        }
    }
}

/// The number of this thread.
fn thread() -> u32 {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    thread_local!(static OWN: u32 = NEXT.fetch_add(1, Relaxed));
    OWN.with(|own| *own)
}

/// What one operator on one set of shapes, or one pass, took in one layer.
#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    /// Operator, and shape and dtype of its inputs.
    pub name: String,
    /// The layer's path.
    pub layer: Arc<str>,
    /// Calls.
    pub calls: usize,
    /// Sum of their times.
    pub time: Duration,
}

/// Operators and passes added up by layer and operands, longest first.
pub fn rows(spans: &[Span]) -> Vec<Row> {
    let mut added = HashMap::<(Arc<str>, String), (usize, Duration)>::new();
    for span in spans.iter().filter(|span| span.what.computes()) {
        let row = added.entry((span.layer.clone(), span.what.to_string())).or_default();
        *row = (row.0 + 1, row.1 + span.time);
    }
    let row = |((layer, name), (calls, time))| Row { name, layer, calls, time };
    let mut rows: Vec<Row> = added.into_iter().map(row).collect();
    rows.sort_by(|a, b| b.time.cmp(&a.time).then_with(|| (&a.name, &a.layer).cmp(&(&b.name, &b.layer))));
    rows
}
