//! Random cases: an operator with its attributes and operands that fit it, family by family.

use binade::tensor::op::*;
use binade::tensor::{Array, DType, Device, Dims, Op, Result};

use super::draw::{Draw, Range, Values, bools, floats, indices, shape};

/// One operator and its operands.
#[derive(Debug)]
pub struct Case {
    pub op: Op,
    pub ins: Vec<Array>,
    /// Whether gradients of gradients are taken too.
    pub twice: bool,
    /// How far values of the upstream gradient go.
    pub range: Range,
}

/// Elements of an operand: the naive reference must stay quick.
const NUMEL: usize = 3000;

/// Makes operands: those of one case mostly share a dtype.
struct Operands<'a> {
    draw: &'a mut Draw,
    device: &'a Device,
    dtype: DType,
    mixed: bool,
    /// How far values go.
    range: Range,
    ins: Vec<Array>,
}

impl Operands<'_> {
    /// An operand whose values have whatever the case looks for.
    fn any(&mut self, dims: &[usize]) -> Result<()> {
        let values = Values::draw(self.draw, self.range);
        self.of(dims, values)
    }

    fn of(&mut self, dims: &[usize], values: Values) -> Result<()> {
        let dtype = if self.mixed { self.draw.dtype() } else { self.dtype };
        self.ins.push(floats(self.draw, self.device, dtype, dims, values)?);
        Ok(())
    }

    /// A second operand: ordinary half of the time.
    fn other(&mut self, dims: &[usize]) -> Result<()> {
        if self.draw.flip() { self.of(dims, Values::Ordinary) } else { self.any(dims) }
    }

    fn index(&mut self, dims: &[usize], below: usize) -> Result<()> {
        self.ins.push(indices(self.draw, self.device, dims, below)?);
        Ok(())
    }

    fn mask(&mut self, dims: &[usize]) -> Result<()> {
        self.ins.push(bools(self.draw, self.device, dims)?);
        Ok(())
    }
}

impl Case {
    /// The case of these random numbers; its operands are on `device`.
    pub fn draw(draw: &mut Draw, device: &Device) -> Result<Case> {
        let (dtype, mixed) = (draw.dtype(), draw.one_in(3));
        let family = FAMILIES[draw.below(FAMILIES.len())];
        let mut operands = Operands { draw, device, dtype, mixed, range: Range::Whole, ins: Vec::new() };
        let op = family(&mut operands)?;
        let (ins, range) =
            (operands.ins, if operands.range == Range::Whole { Range::Products } else { operands.range });
        // Second order through large operands takes long and shows nothing new.
        let twice = draw.one_in(4) && ins.iter().map(Array::numel).sum::<usize>() < 1000;
        Ok(Case { op, ins, twice, range })
    }
}

type Family = fn(&mut Operands<'_>) -> Result<Op>;

/// Families with much code below them stand here more than once.
const FAMILIES: [Family; 26] = [
    unary,
    binary,
    binary,
    scalar,
    ternary,
    compare,
    selection,
    reduce,
    reduce,
    scan,
    gather,
    sort,
    matmul,
    matmul,
    matmul,
    conv2d,
    conv2d,
    conv_transpose2d,
    pool,
    softmax,
    norm,
    norm,
    losses,
    attention,
    attention,
    movement,
];

fn unary(o: &mut Operands<'_>) -> Result<Op> {
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

fn binary(o: &mut Operands<'_>) -> Result<Op> {
    pair(o)?;
    Ok(Op::Binary(o.draw.pick(Binary::ALL)))
}

fn scalar(o: &mut Operands<'_>) -> Result<Op> {
    let dims = o.draw.shape(4, NUMEL);
    o.any(&dims)?;
    let value = o.draw.pick(&[0.0, 1.0, -1.0, 2.0, 0.5, 3.0, -0.7, 1e-3, 1e4, 20.0]);
    Ok(Op::Scalar { op: o.draw.pick(Binary::ALL), value, reversed: o.draw.one_in(3) })
}

fn ternary(o: &mut Operands<'_>) -> Result<Op> {
    o.range = Range::Products;
    pair(o)?;
    let dims = if o.draw.flip() { o.ins[0].shape().to_vec() } else { vec![1] };
    o.other(&dims)?;
    Ok(Op::Ternary { op: o.draw.pick(Ternary::ALL), value: o.draw.pick(&[0.0, 1.0, -0.5, 2.0, 0.6]) })
}

fn compare(o: &mut Operands<'_>) -> Result<Op> {
    pair(o)?;
    Ok(Op::Compare(o.draw.pick(&Compare::ALL)))
}

fn selection(o: &mut Operands<'_>) -> Result<Op> {
    let whole = o.draw.shape(4, NUMEL);
    let [condition, a, b] = [0, 1, 2].map(|_| if o.draw.flip() { whole.clone() } else { o.draw.broadcasting(&whole) });
    o.mask(&condition)?;
    o.any(&a)?;
    o.other(&b)?;
    Ok(Op::Where)
}

/// An operand of at least one dimension, and one of its dimensions.
fn with_dim(o: &mut Operands<'_>) -> Result<(Vec<usize>, usize)> {
    let rank = o.draw.within(1, 4);
    let dims = o.draw.shape_of_rank(rank, NUMEL);
    o.any(&dims)?;
    let dim = o.draw.below(rank);
    Ok((dims, dim))
}

fn reduce(o: &mut Operands<'_>) -> Result<Op> {
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
    if matches!(kind, Reduce::Sum | Reduce::Mean) {
        o.range = Range::Products;
    }
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

fn scan(o: &mut Operands<'_>) -> Result<Op> {
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

fn gather(o: &mut Operands<'_>) -> Result<Op> {
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

fn sort(o: &mut Operands<'_>) -> Result<Op> {
    let (dims, dim) = with_dim(o)?;
    if o.draw.one_in(3) {
        return Ok(Op::ArgMax { dim, keepdim: o.draw.flip() });
    }
    let length = if o.draw.flip() { dims[dim] } else { o.draw.below(dims[dim] + 1) };
    Ok(Op::Sort { dim, descending: o.draw.flip(), length })
}

/// Activations that are fused with other operators: their slopes are small, as the bounds of the fused ones assume. All
/// functions, fused, are compared with their definition by tests of the registry.
const ACTIVATIONS: [Unary; 9] = [
    Unary::Relu,
    Unary::Gelu,
    Unary::GeluTanh,
    Unary::Silu,
    Unary::Mish,
    Unary::Tanh,
    Unary::Sigmoid,
    Unary::Hardswish,
    Unary::Softsign,
];

/// An activation as a contraction's epilogue.
fn epilogue(o: &mut Operands<'_>) -> Epilogue {
    let act = o.draw.one_in(3).then(|| o.draw.pick(&ACTIVATIONS));
    Epilogue { bias: o.draw.one_in(3), act }
}

fn matmul(o: &mut Operands<'_>) -> Result<Op> {
    o.range = Range::Products;
    // As many products as the reference does in some milliseconds.
    let [mut m, mut n] = [o.draw.extent(300), o.draw.extent(300)];
    let k = o.draw.extent(1100).min(400_000 / (m * n).max(1));
    if o.draw.one_in(6) {
        (m, n) = if o.draw.flip() { (1, n) } else { (m, 1) };
    }
    let batches = if o.draw.one_in(3) { o.draw.shape(2, 6) } else { vec![] };
    let (left, right) = match o.draw.below(3) {
        0 => (batches.clone(), vec![]),
        1 => (batches.clone(), o.draw.broadcasting(&batches)),
        _ => (batches.clone(), batches),
    };
    o.any(&[&left[..], &[m, k]].concat())?;
    o.other(&[&right[..], &[k, n]].concat())?;
    let epilogue = epilogue(o);
    if epilogue.bias {
        o.other(&[n])?;
    }
    match epilogue.act {
        Some(act) if o.draw.flip() => Ok(Op::MatMulOf { act, bias: epilogue.bias }),
        Some(_) | None => Ok(Op::MatMul(epilogue)),
    }
}

/// Geometry, and extents of images that a kernel of 1 to 5 taps fits.
fn geometry(o: &mut Operands<'_>, groups: usize) -> (Conv2d, [usize; 2], [usize; 2]) {
    let kernel = [o.draw.within(1, 5), o.draw.within(1, 5)];
    let conv = Conv2d {
        stride: [o.draw.within(1, 3), o.draw.within(1, 3)],
        padding: [o.draw.below(kernel[0]), o.draw.below(kernel[1])],
        dilation: [o.draw.pick(&[1, 1, 2, 3]), o.draw.pick(&[1, 1, 2, 3])],
        groups,
    };
    let usual = o.draw.one_in(3);
    let conv = if usual { Conv2d { stride: [1, 1], padding: [1, 1], dilation: [1, 1], groups } } else { conv };
    let kernel = if usual { [3, 3] } else { kernel };
    let size = [0, 1].map(|d| {
        let least = (conv.dilation[d] * (kernel[d] - 1) + 1).saturating_sub(2 * conv.padding[d]);
        least.max(1) + o.draw.pick(&[0, 1, 2, 3, 5, 7, 8, 15])
    });
    (conv, kernel, size)
}

/// Input and output channels per group, and groups.
fn channels(o: &mut Operands<'_>) -> [usize; 3] {
    match o.draw.below(4) {
        // Depthwise.
        0 => [1, 1, o.draw.extent(40).max(1)],
        1 => [o.draw.within(1, 4), o.draw.within(1, 4), o.draw.within(1, 4)],
        _ => [o.draw.extent(33), o.draw.extent(33), 1],
    }
}

fn conv2d(o: &mut Operands<'_>) -> Result<Op> {
    o.range = Range::Finite;
    let [inputs, outputs, groups] = channels(o);
    let (conv, kernel, size) = geometry(o, groups);
    let batch = o.draw.pick(&[0, 1, 1, 2, 3]);
    o.any(&[batch, inputs * groups, size[0], size[1]])?;
    o.other(&[outputs * groups, inputs, kernel[0], kernel[1]])?;
    let epilogue = epilogue(o);
    if epilogue.bias {
        o.other(&[outputs * groups])?;
    }
    Ok(Op::Conv2d(conv, epilogue))
}

fn conv_transpose2d(o: &mut Operands<'_>) -> Result<Op> {
    o.range = Range::Finite;
    let [inputs, outputs, groups] = channels(o);
    let (conv, kernel, _) = geometry(o, groups);
    let size = [o.draw.within(1, 9), o.draw.within(1, 9)];
    let batch = o.draw.within(1, 2);
    o.any(&[batch, inputs * groups, size[0], size[1]])?;
    o.other(&[inputs * groups, outputs, kernel[0], kernel[1]])?;
    let bias = o.draw.one_in(3);
    if bias {
        o.other(&[outputs * groups])?;
    }
    let output_padding = [0, 1].map(|d| o.draw.below(conv.stride[d].max(conv.dilation[d])));
    Ok(Op::ConvTranspose2d { conv, output_padding, bias })
}

fn pool(o: &mut Operands<'_>) -> Result<Op> {
    let (conv, kernel, size) = geometry(o, 1);
    let kind = o.draw.pick(&[PoolKind::Max, PoolKind::Avg]);
    if kind == PoolKind::Avg {
        o.range = Range::Products;
    }
    let channels = o.draw.extent(40);
    let batch = o.draw.pick(&[0, 1, 2]);
    o.any(&[batch, channels, size[0], size[1]])?;
    let padding = [0, 1].map(|d| conv.padding[d].min(kernel[d] / 2));
    let dilation = if kind == PoolKind::Max { conv.dilation } else { [1, 1] };
    let (ceil, count_padding) = (o.draw.flip(), o.draw.flip());
    Ok(Op::Pool(Pool { dilation, ceil, count_padding, ..Pool::new(kind, kernel, conv.stride, padding) }))
}

fn softmax(o: &mut Operands<'_>) -> Result<Op> {
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

fn reduction(o: &mut Operands<'_>) -> Reduction {
    o.draw.pick(&[Reduction::None, Reduction::Mean, Reduction::Sum])
}

fn norm(o: &mut Operands<'_>) -> Result<Op> {
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
    let norm = Norm { kind, eps: o.draw.pick(&[1e-5, 1e-6, 1e-12]), affine: o.draw.flip(), act };
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

fn losses(o: &mut Operands<'_>) -> Result<Op> {
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

fn attention(o: &mut Operands<'_>) -> Result<Op> {
    let dropout = o.draw.pick(&[0.0, 0.0, 0.0, 0.2]);
    // Whether a weight that vanished or was dropped meets its value is the kernel's own affair.
    o.range = Range::Finite;
    o.mixed = false;
    let heads = o.draw.pick(&[vec![], vec![2], vec![1, 2], vec![2, 4], vec![1, 1]].each_ref()).clone();
    let [t, s] = [o.draw.extent(140), o.draw.extent(140)];
    let room = 200_000 / (t * s * heads.iter().product::<usize>()).max(1);
    let [d, e] = [o.draw.extent(70).min(room.max(1)), o.draw.extent(70).min(room.max(1))];
    let e = if o.draw.flip() { d } else { e };
    let s = if o.draw.flip() { t } else { s };
    let mut shared = heads.clone();
    if let Some(last) = shared.last_mut() {
        *last /= o.draw.pick(&[1, 1, *last]);
    }
    let [q, k, v] = [[&heads[..], &[t, d]].concat(), [&shared[..], &[s, d]].concat(), [&shared[..], &[s, e]].concat()];
    o.any(&q)?;
    o.other(&k)?;
    o.other(&v)?;
    let mask = o.draw.one_in(3);
    if mask {
        let whole = [&heads[..], &[t, s]].concat();
        let dims = o.draw.broadcasting(&whole);
        if o.draw.flip() { o.mask(&dims)? } else { o.of(&dims, Values::Ordinary)? }
    }
    Ok(Op::Attention(Attention {
        causal: o.draw.one_in(3),
        scale: o.draw.one_in(4).then_some(0.3),
        mask,
        dropout,
        key: o.draw.key(),
    }))
}

/// What moves elements: concatenation, embeddings, views, resampling.
fn movement(o: &mut Operands<'_>) -> Result<Op> {
    match o.draw.below(4) {
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
    let mode = o.draw.pick(&[PadMode::Constant(1.5), PadMode::Reflect, PadMode::Replicate, PadMode::Circular]);
    let align_corners = o.draw.flip();
    let interpolation = o.draw.pick(&[
        Interpolation::Nearest,
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
        Resample::AdaptiveAvg { size },
    ])))
}
