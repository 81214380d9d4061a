//! Operators by element, and those that move elements.

use binade::tensor::op::*;
use binade::tensor::{Class, DType, Dims, Op, Result};

use super::{NUMEL, Operands, reduction, with_dim};
use crate::fuzz_ops::draw::{Range, Values, shape};

pub(super) fn unary(o: &mut Operands<'_>) -> Result<Op> {
    let dims = o.draw.shape(4, NUMEL);
    o.any(&dims)?;
    Ok(match o.draw.below(8) {
        0 => Op::Dropout { p: o.draw.pick(&[0.0, 0.1, 0.5, 1.0]), key: o.draw.key() },
        1 => Op::Cast(o.draw.pick(&DType::FLOATS)),
        2 => Op::StochasticCast { dtype: o.draw.pick(&[DType::F16, DType::BF16]), key: o.draw.key() },
        _ => Op::Unary(o.draw.pick(Unary::ALL)),
    })
}

fn pair(o: &mut Operands<'_>) -> Result<()> {
    let whole = o.draw.shape(4, NUMEL);
    let (a, b) = match o.draw.below(4) {
        0 | 1 => (whole.clone(), whole),
        2 => (whole.clone(), o.draw.broadcasting(&whole)),
        _ => (o.draw.broadcasting(&whole), o.draw.broadcasting(&whole)),
    };
    o.any(&a)?;
    o.other(&b)
}

pub(super) fn binary(o: &mut Operands<'_>) -> Result<Op> {
    pair(o)?;
    Ok(Op::Binary(o.draw.pick(Binary::ALL)))
}

pub(super) fn scalar(o: &mut Operands<'_>) -> Result<Op> {
    let dims = o.draw.shape(4, NUMEL);
    o.any(&dims)?;
    let value = o.draw.pick(&[0.0, 1.0, -1.0, 2.0, 0.5, 3.0, -0.7, 1e-3, 1e4, 20.0]);
    Ok(Op::Scalar { op: o.draw.pick(Binary::ALL), value, reversed: o.draw.one_in(3) })
}

pub(super) fn ternary(o: &mut Operands<'_>) -> Result<Op> {
    o.range = Range::Products;
    pair(o)?;
    let dims = if o.draw.flip() { o.ins[0].shape().to_vec() } else { vec![1] };
    o.other(&dims)?;
    Ok(Op::Ternary { op: o.draw.pick(Ternary::ALL), value: o.draw.pick(&[0.0, 1.0, -0.5, 2.0, 0.6]) })
}

pub(super) fn compare(o: &mut Operands<'_>) -> Result<Op> {
    pair(o)?;
    Ok(Op::Compare(o.draw.pick(&Compare::ALL)))
}

pub(super) fn selection(o: &mut Operands<'_>) -> Result<Op> {
    let whole = o.draw.shape(4, NUMEL);
    let [condition, a, b] = [0, 1, 2].map(|_| if o.draw.flip() { whole.clone() } else { o.draw.broadcasting(&whole) });
    o.mask(&condition)?;
    o.any(&a)?;
    o.other(&b)?;
    Ok(Op::Where)
}

pub(super) fn losses(o: &mut Operands<'_>) -> Result<Op> {
    o.range = Range::Products;
    let loss = o.draw.pick(Loss::ALL);
    let dims = o.draw.shape(3, NUMEL);
    let sound = !o.draw.one_in(5);
    let (x, t) = match loss {
        Loss::Mse | Loss::L1 | Loss::SmoothL1 | Loss::Huber | Loss::KlDivLog => (None, None),
        Loss::BceWithLogits | Loss::KlDiv => (None, Some(Values::Unit)),
        Loss::Bce => (Some(Values::Unit), Some(Values::Unit)),
        Loss::PoissonNll => (None, Some(Values::Positive)),
        Loss::PoissonNllRate => (Some(Values::Positive), Some(Values::Positive)),
        Loss::HingeEmbedding | Loss::SoftMargin => (None, Some(Values::Signs)),
    };
    for values in [x, t] {
        match values.filter(|_| sound) {
            Some(values) => o.of(&dims, values)?,
            None => o.any(&dims)?,
        }
    }
    Ok(Op::Loss { loss, parameter: o.draw.pick(&[0.7, 1.0, 0.1]), reduction: reduction(o) })
}

/// What has no operands.
pub(super) fn creation(o: &mut Operands<'_>) -> Result<Op> {
    let (dims, key) = (o.draw.shape(3, NUMEL), o.draw.key());
    let flat = [dims.iter().product()];
    let (low, mean) = (o.draw.pick(&[-1.0, 0.0, 1e3]), o.draw.pick(&[0.0, -0.5, 1e4]));
    Ok(match o.draw.below(6) {
        0 => Op::Fill { value: o.draw.pick(&[0.0, 1.0, 0.1, -1e30, f64::INFINITY]), shape: shape(&dims)? },
        1 => Op::Range { start: o.draw.below(7) as i64 - 3, length: flat[0] },
        2 => {
            let distribution = Distribution::Uniform { low, high: low + o.draw.pick(&[1.0, 4.0, 0.01]) };
            Op::Random { distribution, shape: shape(&dims)?, key }
        }
        3 => {
            let distribution = Distribution::Normal { mean, std: o.draw.pick(&[1.0, 0.02, 3.0]) };
            Op::Random { distribution, shape: shape(&dims)?, key }
        }
        4 => {
            let (low, width) = (o.draw.pick(&[0, -7, -1 << 40]), o.draw.pick(&[1, 10, 1 << 41]));
            let distribution = Distribution::Integers { low, high: low + width };
            Op::Random { distribution, shape: shape(&dims)?, key }
        }
        _ => Op::Random { distribution: Distribution::Permutation, shape: shape(&flat)?, key },
    })
}

/// What moves elements: concatenation, embeddings, copies, views, resampling.
pub(super) fn movement(o: &mut Operands<'_>) -> Result<Op> {
    match o.draw.below(6) {
        0 => {
            let (rows, features) = (o.draw.extent(60), o.draw.extent(40));
            o.any(&[rows, features])?;
            let dims = if rows == 0 { vec![0] } else { o.draw.shape(3, 60) };
            o.index(&dims, rows)?;
            Ok(Op::Embedding)
        }
        1 => {
            let (mut dims, dim) = with_dim(o)?;
            for _ in 0..o.draw.below(4) {
                dims[dim] = o.draw.extent(12);
                o.any(&dims)?;
            }
            Ok(Op::Cat { dim })
        }
        2 => {
            let (dims, dim) = with_dim(o)?;
            let start = o.draw.below(dims[dim] + 1);
            let length = o.draw.below(dims[dim] - start + 1);
            let mut axes: Vec<usize> = (0..dims.len()).collect();
            axes.rotate_left(dim);
            let mut wide = dims.clone();
            wide.insert(0, o.draw.within(1, 3));
            let views =
                [View::Narrow { dim, start, length }, View::Permute(shape(&axes)?), View::Expand(shape(&wide)?)];
            Ok(Op::View(o.draw.pick(&views)))
        }
        3 => {
            let dims = o.draw.shape(4, NUMEL);
            o.any(&dims)?;
            if o.draw.flip() {
                return Ok(Op::Copy);
            }
            // Of dense memory, as a view must be.
            let dense = o.ins[0].contiguous(Class::Activations)?;
            o.ins = vec![dense];
            let merged = [&[dims.iter().take(2).product(), 1][..], &dims[dims.len().min(2)..]].concat();
            Ok(Op::View(View::Reshape(shape(&merged)?)))
        }
        _ => resample(o),
    }
}

fn resample(o: &mut Operands<'_>) -> Result<Op> {
    o.range = Range::Products;
    let rank = o.draw.within(3, 5);
    let mut dims = o.draw.shape_of_rank(rank, NUMEL / 8);
    dims.iter_mut().for_each(|n| *n = (*n).max(1));
    o.any(&dims)?;
    let mut size = [1; 3];
    for n in &mut size[..rank - 2] {
        *n = o.draw.within(1, 12);
    }
    let (mut scaled, scale) = ([1; 3], [(); 3].map(|()| o.draw.pick(&[0.5, 0.7, 1.0, 1.6, 2.0])));
    for (d, n) in scaled[..rank - 2].iter_mut().enumerate() {
        *n = ((dims[d + 2] as f64 * scale[d]) as usize).max(1);
    }
    let mode = o.draw.pick(&[PadMode::Constant(1.5), PadMode::Reflect, PadMode::Replicate, PadMode::Circular]);
    let align_corners = o.draw.flip();
    let interpolation = o.draw.pick(&[
        Interpolation::Nearest,
        Interpolation::NearestExact,
        Interpolation::Linear { align_corners },
        Interpolation::Cubic { align_corners },
    ]);
    let some = |o: &mut Operands<'_>| shape(&dims.iter().map(|&n| o.draw.below(n.min(4))).collect::<Vec<_>>());
    let (before, after) = (some(o)?, some(o)?);
    let mut flipped = Dims::NONE;
    for d in 0..rank {
        flipped = if o.draw.flip() { flipped.with(d) } else { flipped };
    }
    Ok(Op::Resample(o.draw.pick(&[
        Resample::Flip(flipped),
        Resample::Roll(before),
        Resample::Pad { before, after, mode },
        Resample::Interpolate { size, mode: interpolation, scale: None },
        Resample::Interpolate { size: scaled, mode: interpolation, scale: Some(scale) },
        Resample::AdaptiveAvg { size },
    ])))
}
