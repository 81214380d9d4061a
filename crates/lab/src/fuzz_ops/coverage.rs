//! Which operators of the registry the cases reach: by themselves, with second order, and on the way back.

use std::collections::{BTreeMap, BTreeSet};

use binade::tensor::Op;
use binade::tensor::op::Backward;
use binade::tensor::samples::catalogue;

use super::cases::of_inference;

/// What an operator is counted under: its name, and that of the function where one kernel has many.
fn label(op: &Op) -> String {
    let name = op.name();
    if matches!(op, Op::Scalar { .. }) {
        return format!("{name} with a number");
    }
    if matches!(op, Op::MatMul(product) if product.act_of(0).is_some()) {
        return format!("{name} of an activation");
    }
    let Op::Backward(backward) = op else { return name.into() };
    let function = if let Backward::Unary(row) = backward {
        row.name()
    } else if let Backward::Binary { op, .. } | Backward::Scalar { op, .. } = backward {
        op.name()
    } else if let Backward::Ternary { op, .. } = backward {
        op.name()
    } else if let Backward::Loss { loss, .. } = backward {
        loss.name()
    } else if let Backward::Reduce { kind, dims } = backward {
        Op::Reduce { kind: *kind, dims: *dims, keepdim: false }.name()
    } else {
        return name.into();
    };
    format!("{name} of {function}")
}

/// Whether the backward pass alone has it.
fn of_backward(op: &Op) -> bool {
    matches!(op, Op::Backward(_)) || matches!(op, Op::MatMul(product) if product.is_gradient())
}

/// Counts by operator.
#[derive(Default)]
pub struct Coverage {
    /// Cases of an operator, and those whose second order is taken.
    cases: BTreeMap<String, [u64; 2]>,
    /// Operators that ran, whatever the case.
    ran: BTreeSet<String>,
}

impl Coverage {
    /// A case was drawn.
    pub fn drawn(&mut self, op: &Op, twice: bool) {
        let count = self.cases.entry(label(op)).or_default();
        count[0] += 1;
        count[1] += twice as u64;
    }

    /// An operator ran.
    pub fn ran(&mut self, op: &Op) {
        self.ran.insert(label(op));
    }

    /// Operators of the registry of which there was no case, and those of which none went to second order.
    fn not_drawn(&self) -> [Vec<String>; 2] {
        let drawn = |op: &&Op| !of_backward(op) && !matches!(op, Op::Custom(_));
        let none = |i: usize| move |label: &String| self.cases.get(label).is_none_or(|c| c[i] == 0);
        let of = |ops: &mut dyn Iterator<Item = &Op>| ops.map(label).collect::<BTreeSet<String>>();
        let ops = catalogue();
        let all = of(&mut ops.iter().filter(drawn));
        let differentiable = of(&mut ops.iter().filter(drawn).filter(|op| !of_inference(op)));
        [all.into_iter().filter(none(0)).collect(), differentiable.into_iter().filter(none(1)).collect()]
    }

    /// Kernels of the backward pass that never ran.
    fn not_run(&self) -> Vec<String> {
        let all: BTreeSet<String> = catalogue().iter().filter(|op| of_backward(op)).map(label).collect();
        all.into_iter().filter(|label| !self.ran.contains(label)).collect()
    }

    /// Whether every operator was drawn, with second order too.
    pub fn is_whole(&self) -> bool {
        self.not_drawn().iter().all(Vec::is_empty)
    }

    /// One line on each: what was reached, and what was not.
    pub fn lines(&self) -> Vec<String> {
        let [never, once] = self.not_drawn();
        let mut lines = vec![
            line("operators drawn", self.cases.len(), &never),
            line("with second order", self.cases.values().filter(|c| c[1] > 0).count(), &once),
        ];
        if !self.ran.is_empty() {
            let all = self.ran.len();
            lines.push(line("operators and kernels of gradients run", all, &self.not_run()));
        }
        lines
    }
}

fn line(what: &str, reached: usize, missing: &[String]) -> String {
    let missing = if missing.is_empty() { String::new() } else { format!("; never: {}", missing.join(", ")) };
    format!("{reached} {what}{missing}")
}
