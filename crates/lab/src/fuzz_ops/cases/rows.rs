//! Operators along rows: reductions, scans, places, softmax, norms.

use binade::tensor::op::*;
use binade::tensor::{Dims, Op, Result};

use super::{ACTIVATIONS, NUMEL, Operands, reduction, with_dim};
use crate::fuzz_ops::draw::{Range, Values};

pub(super) fn reduce(o: &mut Operands<'_>) -> Result<Op> {
    let correction = o.draw.pick(&[0.0, 1.0, 1.0]);
    let p = o.draw.pick(&[0.0, 1.0, 2.0, 2.0, 3.0, 3.5, 0.5, f64::INFINITY, f64::NEG_INFINITY]);
    let kind = o.draw.pick(&[
        Reduce::Sum,
        Reduce::Mean,
        Reduce::Max,
        Reduce::Min,
        Reduce::Var { correction },
        Reduce::Std { correction },
        Reduce::Prod,
        Reduce::LogSumExp,
        Reduce::Norm { p },
    ]);
    let (shape, dim) = with_dim(o)?;
    let mut dims = Dims::one(dim);
    for d in 0..shape.len() {
        if o.draw.one_in(3) {
            dims = dims.with(d);
        }
    }
    if o.draw.one_in(4) {
        dims = Dims::all(shape.len());
    }
    Ok(Op::Reduce { kind, dims, keepdim: o.draw.flip() })
}

pub(super) fn scan(o: &mut Operands<'_>) -> Result<Op> {
    let kind = o.draw.pick(&[Scan::Sum, Scan::Prod]);
    let rank = o.draw.within(1, 4);
    let dims = o.draw.shape_of_rank(rank, NUMEL);
    let dim = o.draw.below(rank);
    match kind {
        Scan::Sum => o.any(&dims)?,
        // What an infinity times a zero further on gives depends on the order of the factors: a product stays in range.
        Scan::Prod => {
            o.range = Range::Finite;
            let values =
                o.draw.pick(&[Values::Ordinary, Values::Positive, Values::Signs, Values::Unit, Values::Equal(1.0)]);
            o.of(&dims, values)?;
        }
    }
    Ok(Op::Scan { kind, dim, reverse: o.draw.flip() })
}

pub(super) fn gather(o: &mut Operands<'_>) -> Result<Op> {
    let (dims, dim) = with_dim(o)?;
    let mut at: Vec<usize> = dims.iter().map(|&n| if o.draw.flip() { n } else { o.draw.below(n + 1) }).collect();
    at[dim] = if dims[dim] == 0 { 0 } else { o.draw.extent(40) };
    o.index(&at, dims[dim])?;
    if o.draw.flip() {
        return Ok(Op::Gather { dim });
    }
    let from: Vec<usize> = at.iter().map(|&n| n + o.draw.below(3) / 2).collect();
    o.other(&from)?;
    Ok(Op::Scatter { kind: o.draw.pick(&[Scatter::Set, Scatter::Add]), dim })
}

pub(super) fn sort(o: &mut Operands<'_>) -> Result<Op> {
    let (dims, dim) = with_dim(o)?;
    if o.draw.one_in(3) {
        return Ok(Op::ArgMax { dim, keepdim: o.draw.flip() });
    }
    let length = if o.draw.flip() { dims[dim] } else { o.draw.below(dims[dim] + 1) };
    Ok(Op::Sort { dim, descending: o.draw.flip(), length })
}

pub(super) fn softmax(o: &mut Operands<'_>) -> Result<Op> {
    let (dims, dim) = with_dim(o)?;
    if o.draw.one_in(4) && dims.len() > 1 {
        let mut rows = dims.clone();
        let classes = rows.remove(1);
        o.index(&rows, classes)?;
        let smoothing = o.draw.pick(&[0.0, 0.0, 0.1, 1.0]);
        let ignore_index = o.draw.pick(&[-100, 0, 1]);
        return Ok(Op::CrossEntropy(CrossEntropy { smoothing, ignore_index, reduction: reduction(o) }));
    }
    Ok(Op::Softmax { dim, log: o.draw.flip() })
}

pub(super) fn norm(o: &mut Operands<'_>) -> Result<Op> {
    let groups = o.draw.within(1, 4);
    let per_group = o.draw.extent(24);
    let planes = o.draw.flip();
    let dims = if planes {
        let room = (NUMEL / (groups * per_group).max(1)).max(1);
        let (h, w) = (o.draw.extent(room.min(12)), o.draw.extent(room.min(17)));
        vec![o.draw.within(1, 3), groups * per_group, h, w]
    } else {
        let rank = o.draw.within(2, 4);
        o.draw.shape_of_rank(rank, NUMEL)
    };
    o.any(&dims)?;
    let trailing = o.draw.within(1, dims.len());
    let kind = if planes {
        o.draw.pick(&[NormKind::Group { groups }, NormKind::Batch, NormKind::Fixed])
    } else {
        o.draw.pick(&[NormKind::Layer { dims: trailing }, NormKind::Rms { dims: trailing }])
    };
    let act = o.draw.one_in(3).then(|| o.draw.pick(&ACTIVATIONS));
    let norm = Norm { kind, eps: o.draw.pick(&[1e-5, 1e-6, 1e-12, 0.0]), affine: o.draw.flip(), act };
    let weights = match kind {
        NormKind::Layer { dims: n } | NormKind::Rms { dims: n } => dims[dims.len() - n..].to_vec(),
        NormKind::Group { .. } | NormKind::Batch | NormKind::Fixed => vec![dims[1]],
    };
    for _ in 0..norm.weights() {
        o.other(&weights)?;
    }
    if kind == NormKind::Fixed {
        o.of(&weights, Values::Ordinary)?;
        o.of(&weights, Values::Positive)?;
    }
    Ok(Op::Norm(norm))
}
