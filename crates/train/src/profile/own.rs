//! [`own`]: spans without what ran within them.

use std::time::Duration;

use binade_tensor::profile::{Span, What};

/// A span, the phase that it is in, and its time without that of the spans within it.
pub(super) struct Own<'a> {
    pub(super) span: &'a Span,
    /// Of a phase, its own name; empty outside all.
    pub(super) phase: &'static str,
    pub(super) time: Duration,
}

/// All spans in the order in which they began, thread by thread.
pub(super) fn own(spans: &[Span]) -> Vec<Own<'_>> {
    // Of two that begin at once, the longer holds the other, or the one that ended later.
    let mut sorted: Vec<&Span> = spans.iter().rev().collect();
    sorted.sort_by_key(|span| (span.thread, span.start, std::cmp::Reverse(span.time)));
    let mut all: Vec<Own<'_>> = Vec::with_capacity(sorted.len());
    let mut open: Vec<usize> = Vec::new();
    for span in sorted {
        while let Some(&last) = open.last() {
            let outer = all[last].span;
            if outer.thread == span.thread && span.start < outer.start + outer.time {
                break;
            }
            open.pop();
        }
        let outer = open.last().map(|&last| &mut all[last]);
        let around = outer.map_or("", |outer| {
            outer.time = outer.time.saturating_sub(span.time);
            outer.phase
        });
        let phase = match span.what {
            What::Phase(name) => name,
            What::Step(_) | What::Operator { .. } | What::Update { .. } => around,
        };
        open.push(all.len());
        all.push(Own { span, phase, time: span.time });
    }
    all
}
