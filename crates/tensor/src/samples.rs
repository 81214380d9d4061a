//! Samples of every operator: what the registry's checks run on. An operator without samples does not compile.

use crate::op::*;
use crate::{Array, Class, DType, Device, Dims, Key, Layout, Op, Shape, run_one};

/// Inputs for one run of an operator.
pub type Inputs = Vec<Array>;

/// Operators with their attributes, each family and row at least once.
pub fn catalogue() -> Vec<Op> {
    let shape = |dims: &[usize]| Shape::from_slice(dims);
    let key = Key { seed: 3, iteration: 1 << 33, op: 7 };
    let mut ops: Vec<Op> = Vec::new();
    ops.extend(Unary::ALL.iter().flat_map(|&row| [Op::Unary(row), Op::Backward(Backward::Unary(row))]));
    for &op in Binary::ALL {
        ops.push(Op::Binary(op));
        ops.extend([false, true].map(|rhs| Op::Backward(Backward::Binary { op, rhs })));
        for reversed in [false, true] {
            ops.push(Op::Scalar { op, value: 1.75, reversed });
            ops.push(Op::Backward(Backward::Scalar { op, value: 1.75, reversed }));
        }
    }
    for &op in Ternary::ALL {
        ops.push(Op::Ternary { op, value: 0.6 });
        ops.extend([0, 1, 2].map(|operand| Op::Backward(Backward::Ternary { op, value: 0.6, operand })));
    }
    ops.extend(Compare::ALL.map(Op::Compare));
    ops.push(Op::Where);
    for dims in [Dims::all(3), Dims::one(0), Dims::one(1), Dims::one(2), Dims::one(0).with(2), Dims::one(0).with(1)] {
        let norms = [0.0, 1.0, 2.0, 3.5, f64::INFINITY, f64::NEG_INFINITY].map(|p| Reduce::Norm { p });
        let plain = [Reduce::Sum, Reduce::Mean, Reduce::Max, Reduce::Min, Reduce::Prod, Reduce::LogSumExp];
        let spread = [Reduce::Var { correction: 1.0 }, Reduce::Std { correction: 1.0 }];
        for kind in plain.into_iter().chain(spread).chain(norms) {
            ops.push(Op::Reduce { kind, dims, keepdim: dims.contains(2) });
            ops.push(Op::Backward(Backward::Reduce { kind, dims }));
        }
    }
    for dim in [0, 1, 2] {
        for kind in [Scan::Sum, Scan::Prod] {
            ops.extend([false, true].map(|reverse| Op::Scan { kind, dim, reverse }));
        }
        ops.push(Op::Backward(Backward::CumProd { dim }));
        ops.extend([Op::Gather { dim }, Op::Backward(Backward::Gather { dim, shape: shape(&[3, 4, 5]) })]);
        ops.extend([Scatter::Set, Scatter::Add].map(|kind| Op::Scatter { kind, dim }));
        ops.push(Op::Sort { dim, descending: dim == 1, length: 3 });
    }
    ops.extend([0, 1, 2].map(|dim| Op::ArgMax { dim, keepdim: dim == 1 }));
    let epilogues = [
        Epilogue::default(),
        Epilogue { bias: true, act: None },
        Epilogue { bias: true, act: Some(Unary::Relu) },
        Epilogue { bias: false, act: Some(Unary::GeluTanh) },
    ];
    ops.extend(epilogues.map(Op::MatMul));
    ops.extend([(Unary::Gelu, true), (Unary::Silu, false)].map(|(act, bias)| Op::MatMulOf { act, bias }));
    for conv in [
        Conv2d { padding: [1, 1], ..Conv2d::default() },
        Conv2d { stride: [2, 1], padding: [0, 2], ..Conv2d::default() },
        Conv2d { groups: 2, dilation: [1, 2], padding: [2, 2], ..Conv2d::default() },
        Conv2d { groups: 4, stride: [2, 2], padding: [1, 0], ..Conv2d::default() },
    ] {
        ops.extend(epilogues.map(|e| Op::Conv2d(conv, e)));
        let output_padding = if conv.stride[0] == 2 { [1, 0] } else { [0, 0] };
        ops.extend([false, true].map(|bias| Op::ConvTranspose2d { conv, output_padding, bias }));
        ops.push(Op::Backward(Backward::Conv2dInput { conv, shape: shape(&[3, 4, 9, 8]) }));
        ops.push(Op::Backward(Backward::Conv2dWeight { conv, shape: shape(&[8, 4 / conv.groups, 3, 2]) }));
    }
    let depthwise = Conv2d { groups: 21, padding: [1, 1], ..Conv2d::default() };
    ops.extend(epilogues.map(|e| Op::Conv2d(depthwise, e)));
    for conv in [depthwise, Conv2d { groups: 4, stride: [2, 1], padding: [1, 0], dilation: [1, 2] }] {
        ops.extend([false, true].map(|bias| Op::Backward(Backward::Depthwise { conv, bias })));
    }
    let acts = [Unary::Gelu, Unary::Silu, Unary::Abs]
        .map(|act| Backward::MatMulOf { act: Some(act), sums: act == Unary::Gelu });
    ops.extend(
        [acts.as_slice(), &[Backward::MatMulOf { act: None, sums: true }]].concat().into_iter().map(Op::Backward),
    );
    for kind in [PoolKind::Max, PoolKind::Avg] {
        for pool in [
            Pool::new(kind, [2, 2], [2, 2], [0, 0]),
            Pool::new(kind, [3, 2], [1, 2], [1, 1]),
            Pool { ceil: true, count_padding: false, ..Pool::new(kind, [2, 3], [2, 3], [1, 1]) },
            Pool { divisor: std::num::NonZeroUsize::new(5), ..Pool::new(kind, [3, 2], [2, 2], [1, 1]) },
            Pool {
                dilation: if kind == PoolKind::Max { [2, 3] } else { [1, 1] },
                ..Pool::new(kind, [3, 2], [2, 1], [1, 0])
            },
        ] {
            ops.extend([Op::Pool(pool), Op::Backward(Backward::Pool { pool, shape: shape(&[3, 4, 9, 8]) })]);
            if kind == PoolKind::Max {
                let y = [3, 4, pool.windows(0, 9).unwrap_or(0), pool.windows(1, 8).unwrap_or(0)];
                ops.push(Op::Backward(Backward::PoolSelect { pool, shape: shape(&y) }));
            }
        }
    }
    for (dim, log) in [(0, false), (1, true), (2, false), (2, true)] {
        ops.extend([Op::Softmax { dim, log }, Op::Backward(Backward::Softmax { dim, log })]);
    }
    for kind in [
        NormKind::Layer { dims: 1 },
        NormKind::Layer { dims: 2 },
        NormKind::Rms { dims: 1 },
        NormKind::Group { groups: 2 },
        NormKind::Batch,
        NormKind::Fixed,
    ] {
        for affine in [false, true] {
            let norm = Norm { kind, eps: 1e-5, affine, act: None };
            ops.extend([Op::Norm(norm), Op::Backward(Backward::Norm(norm))]);
            let activated = Norm { act: Some(if affine { Unary::Silu } else { Unary::Relu }), ..norm };
            ops.extend([Op::Norm(activated), Op::Backward(Backward::Norm(activated))]);
            if kind != NormKind::Fixed {
                ops.extend([norm, activated].map(|norm| Op::Backward(Backward::Renormalise(norm))));
            }
        }
    }
    for reduction in [Reduction::None, Reduction::Mean, Reduction::Sum] {
        let loss = CrossEntropy { smoothing: 0.1, ignore_index: 1, reduction };
        ops.extend([Op::CrossEntropy(loss), Op::Backward(Backward::CrossEntropy(loss))]);
        for &loss in Loss::ALL {
            let parameter = 0.7;
            ops.push(Op::Loss { loss, parameter, reduction });
            ops.extend([false, true].map(|target| Op::Backward(Backward::Loss { loss, parameter, reduction, target })));
        }
    }
    let plain = Attention::default();
    let dropping = Attention { mask: true, dropout: 0.25, key, ..plain };
    for attention in
        [plain, Attention { causal: true, scale: Some(0.2), ..plain }, Attention { mask: true, ..plain }, dropping]
    {
        ops.push(Op::Attention(attention));
        ops.extend([false, true].map(|joined| Op::Backward(Backward::Attention { attention, joined })));
    }
    ops.extend([Op::Embedding, Op::Backward(Backward::Embedding { rows: 11 }), Op::Cat { dim: 0 }, Op::Cat { dim: 1 }]);
    for map in maps() {
        ops.extend([Op::Resample(map), Op::Backward(Backward::Resample { map, shape: shape(&[2, 3, 9, 8]) })]);
    }
    ops.push(Op::Dropout { p: 0.3, key });
    for distribution in [
        Distribution::Uniform { low: -1.0, high: 3.0 },
        Distribution::Normal { mean: 0.5, std: 2.0 },
        Distribution::Permutation,
    ] {
        ops.push(Op::Random { distribution, shape: shape(&[1031]), key });
    }
    ops.push(Op::Fill { value: 0.1, shape: shape(&[3, 5]) });
    ops.push(Op::Range { start: -3, length: 1031 });
    ops.extend(DType::FLOATS.map(Op::Cast));
    ops.extend([DType::F16, DType::BF16].map(|dtype| Op::StochasticCast { dtype, key }));
    ops.extend([
        Op::Copy,
        Op::View(View::Permute(shape(&[2, 0, 1]))),
        Op::Backward(Backward::Narrow { dim: 1, start: 2, shape: shape(&[3, 9, 5]) }),
    ]);
    ops
}

/// Normal values in `dtype`, the same on every device.
fn values(device: &Device, dtype: DType, dims: &[usize], stream: u64) -> Array {
    let op = Op::Random {
        distribution: Distribution::Normal { mean: 0.25, std: 1.0 },
        shape: Shape::from_slice(dims),
        key: Key::new(11, stream),
    };
    // The samples are small; a device without room for them cannot be tested.
    run_one(&op, &[], device, dtype, Class::Activations).expect("samples fit in memory")
}

/// Copies of the values in other layouts: transposed in memory, and with a gap between rows.
fn layouts(array: &Array) -> Vec<Array> {
    let rank = array.shape().rank();
    let mut out = vec![array.clone()];
    if rank >= 2 {
        let order: Vec<usize> = if rank == 4 { vec![0, 2, 3, 1] } else { (0..rank).rev().collect() };
        for layout in [Layout::with_order(*array.shape(), &order), gaps(array.shape())] {
            let dense = array.contiguous(Class::Workspace).and_then(|dense| array.device().download(&dense));
            out.extend(dense.and_then(|bytes| laid_out(array.device(), array.dtype(), layout, &bytes)));
        }
    }
    out
}

/// Rows two elements longer than needed.
fn gaps(shape: &Shape) -> Layout {
    let mut wide = *shape;
    let last = wide.len() - 1;
    wide[last] += 2;
    Layout { shape: *shape, strides: wide.row_major(), offset: 0 }
}

/// An array of any strides with the elements whose bytes are given in row-major order; gaps are zeros.
pub(crate) fn laid_out(device: &Device, dtype: DType, layout: Layout, bytes: &[u8]) -> crate::Result<Array> {
    let (size, shape) = (dtype.size(), layout.shape);
    let mut memory = vec![0; layout.end() * size];
    for (flat, value) in bytes.chunks(size).enumerate() {
        let step = |(at, rest): (usize, usize), d: usize| (at + rest % shape[d] * layout.strides[d], rest / shape[d]);
        let (at, _) = (0..shape.rank()).rev().fold((layout.offset, flat), step);
        memory[at * size..(at + 1) * size].copy_from_slice(value);
    }
    let whole = Array::from_bytes(device, dtype, &memory, &[layout.end()], Class::Activations)?;
    whole.with_layout(layout)
}

impl Op {
    /// Inputs on `device` whose floats have `dtype`: sizes across block and tile edges, views, one element, none.
    pub fn samples(&self, device: &Device, dtype: DType) -> Vec<Inputs> {
        let x = |dims: &[usize], stream: u64| values(device, dtype, dims, stream);
        let index = |dims: &[usize], below: i64| {
            let n: usize = dims.iter().product();
            let v: Vec<i64> = (0..n as i64).map(|i| (i * 7 + 3) % below).collect();
            Array::from_slice(device, &v, dims, Class::Indices).expect("samples fit in memory")
        };
        let positive = |dims: &[usize], stream: u64| {
            run_one(&Op::Unary(Unary::Square), &[&x(dims, stream)], device, dtype, Class::Activations)
                .expect("samples fit in memory")
        };
        let vary = |inputs: Inputs| -> Vec<Inputs> {
            layouts(&inputs[0]).into_iter().map(|first| [&[first], &inputs[1..]].concat()).collect()
        };
        let sizes: [&[usize]; 7] = [&[], &[0], &[1], &[17], &[1031], &[3, 130], &[2, 3, 65]];
        match self {
            Op::Unary(row) if positive_domain(*row) => sizes.iter().map(|s| vec![positive(s, 1)]).collect(),
            Op::Unary(_)
            | Op::Scalar { .. }
            | Op::Dropout { .. }
            | Op::Cast(_)
            | Op::StochasticCast { .. }
            | Op::Copy => sizes.iter().flat_map(|s| vary(vec![x(s, 1)])).collect(),
            Op::Binary(_) | Op::Compare(_) => {
                let pairs: [[&[usize]; 2]; 5] =
                    [[&[17], &[17]], [&[4, 1, 9], &[3, 1]], [&[0, 3], &[3]], [&[], &[]], [&[2, 3, 130], &[130]]];
                pairs.iter().flat_map(|[a, b]| vary(vec![x(a, 1), x(b, 2)])).collect()
            }
            Op::Where => {
                let mask = |dims: &[usize]| {
                    run_one(&Op::Compare(Compare::Gt), &[&x(dims, 3), &x(dims, 4)], device, dtype, Class::Activations)
                };
                vec![vec![mask(&[5, 7]).expect("samples fit in memory"), x(&[5, 7], 1), x(&[7], 2)]]
            }
            Op::Reduce { .. } | Op::Softmax { .. } | Op::ArgMax { .. } => {
                [&[2, 3, 5][..], &[1, 1, 1], &[3, 40, 130], &[300, 2, 9]]
                    .iter()
                    .flat_map(|s| vary(vec![x(s, 1)]))
                    .collect()
            }
            Op::MatMul(epilogue) => {
                let shapes: [[&[usize]; 2]; 5] = [
                    [&[1, 1], &[1, 1]],
                    [&[130, 65], &[65, 33]],
                    [&[2, 3, 7, 9], &[3, 9, 5]],
                    [&[4, 0], &[0, 3]],
                    [&[3, 17, 8], &[8, 16]],
                ];
                let with = |a: &[usize], b: &[usize]| {
                    [vec![x(a, 1), x(b, 2)], if epilogue.bias { vec![x(&b[b.len() - 1..], 3)] } else { vec![] }]
                        .concat()
                };
                shapes.iter().flat_map(|[a, b]| vary(with(a, b))).collect()
            }
            Op::MatMulOf { bias, .. } => Op::MatMul(Epilogue { bias: *bias, act: None }).samples(device, dtype),
            Op::Conv2d(conv, epilogue) => {
                // More groups than there are channels otherwise: a depthwise one.
                let (inputs, outputs, width) = if conv.groups > 4 { (conv.groups, conv.groups, 3) } else { (4, 8, 2) };
                let bias = if epilogue.bias { vec![x(&[outputs], 3)] } else { vec![] };
                vary([vec![x(&[3, inputs, 9, 8], 1), x(&[outputs, inputs / conv.groups, 3, width], 2)], bias].concat())
            }
            Op::ConvTranspose2d { conv, bias, .. } => {
                let bias = if *bias { vec![x(&[8], 3)] } else { vec![] };
                vary([vec![x(&[2, 4, 5, 6], 1), x(&[4, 8 / conv.groups, 3, 2], 2)], bias].concat())
            }
            Op::Pool(_) => vary(vec![x(&[3, 4, 9, 8], 1)]),
            Op::Norm(norm) => {
                let weights = norm_weights(norm);
                let affine = (0..norm.weights()).map(|i| x(&weights, 2 + i as u64)).collect();
                let given =
                    if norm.kind == NormKind::Fixed { vec![x(&weights, 4), positive(&weights, 5)] } else { vec![] };
                vary([vec![x(&[3, 4, 5, 6], 1)], affine, given].concat())
            }
            Op::Scan { .. } | Op::Sort { .. } => {
                [&[3, 4, 5][..], &[9, 5, 3], &[3, 70, 7]].iter().flat_map(|s| vary(vec![x(s, 1)])).collect()
            }
            Op::Gather { dim } => vary(vec![x(&[3, 4, 5], 1), index(&[2, 4, 5], [3, 4, 5][*dim])]),
            Op::Scatter { dim, .. } => {
                vary(vec![x(&[3, 4, 5], 1), index(&[2, 4, 5], [3, 4, 5][*dim]), x(&[3, 4, 6], 2)])
            }
            Op::CrossEntropy(_) => vec![vec![x(&[5, 7], 1), index(&[5], 7)], vec![x(&[2, 7, 3], 1), index(&[2, 3], 7)]],
            Op::Loss { loss, .. } => {
                [&[5, 7][..], &[3000], &[]].iter().flat_map(|s| vary(loss_inputs(*loss, x(s, 1), x(s, 2)))).collect()
            }
            Op::Ternary { .. } => {
                [vec![x(&[4, 1, 9], 1), x(&[3, 9], 2), x(&[1], 3)], vec![x(&[1031], 1), x(&[1031], 2), x(&[1031], 3)]]
                    .into_iter()
                    .flat_map(vary)
                    .collect()
            }
            Op::Resample(_) => vary(vec![x(&[2, 3, 9, 8], 1)]),
            Op::Attention(Attention { mask: false, .. }) => {
                let cross = vec![x(&[1, 4, 5, 3], 1), x(&[1, 2, 67, 3], 2), x(&[1, 2, 67, 2], 3)];
                [vary(vec![x(&[2, 70, 16], 1), x(&[2, 70, 16], 2), x(&[2, 70, 8], 3)]), vec![cross]].concat()
            }
            Op::Attention(_) => {
                let seen = run_one(
                    &Op::Compare(Compare::Lt),
                    &[&x(&[70, 66], 4), &x(&[1], 5)],
                    device,
                    dtype,
                    Class::Activations,
                );
                let [q, k, v] = [x(&[2, 4, 70, 8], 1), x(&[2, 2, 66, 8], 2), x(&[2, 2, 66, 4], 3)];
                let bias = vec![q.clone(), k.clone(), v.clone(), x(&[2, 1, 70, 66], 4)];
                // Each row sees at least its first key.
                seen.map(|seen| vec![vec![q, k, v, first_column(&seen)], bias.clone()]).unwrap_or(vec![bias])
            }
            Op::Embedding => vec![vec![x(&[11, 5], 1), index(&[4, 6], 11)], vec![x(&[11, 5], 1), index(&[0], 11)]],
            Op::Cat { dim } => {
                let other: &[usize] = if *dim == 0 { &[2, 4, 5] } else { &[3, 1, 5] };
                vary(vec![x(&[3, 4, 5], 1), x(other, 2)])
            }
            Op::Random { .. } | Op::Fill { .. } | Op::Range { .. } => vec![vec![]],
            Op::View(_) => vec![],
            Op::Custom(custom) => custom.samples(device, dtype).expect("samples fit in memory"),
            Op::Backward(backward) => backward_samples(backward, device, dtype, &x, &index),
        }
    }
}

/// A bool matrix with its first column true.
fn first_column(mask: &Array) -> Array {
    let columns = mask.shape()[1];
    let values: Vec<bool> = (0..mask.numel())
        .zip(mask.to_f64_vec().expect("on the host"))
        .map(|(i, v)| i % columns == 0 || v != 0.0)
        .collect();
    Array::from_slice(mask.device(), &values, mask.shape(), Class::Indices).expect("samples fit in memory")
}

/// Predictions and targets in the domain of a loss.
fn loss_inputs(loss: Loss, x: Array, t: Array) -> Inputs {
    let run = |op: Op, x: &Array| {
        run_one(&op, &[x], x.device(), x.dtype(), Class::Activations).expect("samples fit in memory")
    };
    let unit = |x: &Array| run(Op::Unary(Unary::Sigmoid), x);
    match loss {
        Loss::Mse | Loss::L1 | Loss::SmoothL1 | Loss::Huber | Loss::KlDivLog => vec![x, t],
        Loss::BceWithLogits | Loss::KlDiv => vec![x, unit(&t)],
        Loss::Bce => vec![unit(&x), unit(&t)],
        Loss::PoissonNll => vec![x, run(Op::Unary(Unary::Square), &t)],
        Loss::PoissonNllRate => vec![run(Op::Unary(Unary::Square), &x), run(Op::Unary(Unary::Square), &t)],
        Loss::HingeEmbedding | Loss::SoftMargin => vec![x, run(Op::Unary(Unary::Sign), &t)],
    }
}

/// The maps of the catalogue, for [2, 3, 9, 8].
fn maps() -> Vec<Resample> {
    let shape = |dims: [usize; 4]| Shape::from_slice(&dims);
    let interpolate = |size: [usize; 3], mode| Resample::Interpolate { size, mode, scale: None };
    let mut maps = vec![
        Resample::Flip(Dims::one(1).with(3)),
        Resample::Roll(shape([1, 0, 2, 5])),
        Resample::AdaptiveAvg { size: [1, 1, 1] },
        Resample::AdaptiveAvg { size: [4, 3, 1] },
        Resample::AdaptiveAvg { size: [11, 8, 1] },
        interpolate([18, 16, 1], Interpolation::Nearest),
        interpolate([5, 13, 1], Interpolation::Nearest),
        interpolate([5, 13, 1], Interpolation::NearestExact),
    ];
    maps.extend(
        [PadMode::Constant(1.5), PadMode::Reflect, PadMode::Replicate, PadMode::Circular].map(|mode| Resample::Pad {
            before: shape([0, 1, 0, 2]),
            after: shape([0, 0, 3, 1]),
            mode,
        }),
    );
    for align_corners in [false, true] {
        for size in [[18, 16, 1], [4, 11, 1], [1, 1, 1]] {
            maps.push(interpolate(size, Interpolation::Linear { align_corners }));
            maps.push(interpolate(size, Interpolation::Cubic { align_corners }));
        }
    }
    maps
}

/// Queries, keys and values of one shape: heads in order, and inside positions.
fn attention_to_itself(x: &dyn Fn(&[usize], u64) -> Array) -> Vec<Inputs> {
    let inside = |i| {
        let x = x(&[2, 20, 3, 8], i);
        x.with_layout(x.layout().transpose(1, 2)).expect("a view of it")
    };
    vec![[1, 2, 3].map(|i| x(&[2, 3, 20, 8], i)).into(), [1, 2, 3].map(inside).into()]
}

/// Whether a function wants positive arguments (arcosh: mostly above 1).
fn positive_domain(row: Unary) -> bool {
    matches!(row, Unary::Sqrt | Unary::Rsqrt | Unary::Log | Unary::Log2 | Unary::Log10 | Unary::Log1p | Unary::Acosh)
}

/// Shape of the weights for samples of shape [3, 4, 5, 6].
fn norm_weights(norm: &Norm) -> Vec<usize> {
    match norm.kind {
        NormKind::Layer { dims } | NormKind::Rms { dims } => [3, 4, 5, 6][4 - dims..].to_vec(),
        NormKind::Group { .. } | NormKind::Batch | NormKind::Fixed => vec![4],
    }
}

/// Inputs of backward kernels: consistent with a forward run where the kernel needs its results.
fn backward_samples(
    backward: &Backward,
    device: &Device,
    dtype: DType,
    x: &dyn Fn(&[usize], u64) -> Array,
    index: &dyn Fn(&[usize], i64) -> Array,
) -> Vec<Inputs> {
    let forward = |op: Op, ins: &[&Array]| {
        crate::run(crate::Request::new(&op, ins, device, dtype, Class::Activations)).expect("samples fit in memory")
    };
    let gradient = |of: &Array| x(of.shape(), 9);
    match backward {
        Backward::Unary(row) => {
            let normal = x(&[1031], 1);
            let input = match row {
                row if positive_domain(*row) => forward(Op::Unary(Unary::Square), &[&normal]).remove(0),
                Unary::Asin | Unary::Acos | Unary::Atanh | Unary::Erfinv => {
                    forward(Op::Unary(Unary::Sin), &[&normal]).remove(0)
                }
                _ => normal,
            };
            let saved =
                if row.saved() == Saved::Output { forward(Op::Unary(*row), &[&input]).remove(0) } else { input };
            vec![vec![x(&[1031], 9), saved]]
        }
        Backward::Binary { .. } => vec![vec![x(&[4, 3, 9], 9), x(&[4, 1, 9], 1), x(&[3, 1], 2)]],
        Backward::Scalar { .. } => vec![vec![x(&[130], 9), x(&[130], 1)]],
        Backward::Reduce { kind, dims } => {
            let input = x(&[3, 4, 5], 1);
            let y = forward(Op::Reduce { kind: *kind, dims: *dims, keepdim: true }, &[&input]).remove(0);
            vec![vec![gradient(&y), y, input]]
        }
        Backward::CumProd { .. } => vec![vec![x(&[3, 4, 5], 9), x(&[3, 4, 5], 1)]],
        Backward::Gather { dim, shape } => vec![vec![x(&[2, 4, 5], 9), index(&[2, 4, 5], shape[*dim] as i64)]],
        Backward::Conv2dInput { conv, shape } => {
            let w = x(&[8, 4 / conv.groups, 3, 2], 2);
            let y = forward(Op::Conv2d(*conv, Epilogue::default()), &[&x(shape, 1), &w]).remove(0);
            vec![vec![gradient(&y), w]]
        }
        Backward::Conv2dWeight { conv, shape } => {
            let input = x(&[3, 4, 9, 8], 1);
            let y = forward(Op::Conv2d(*conv, Epilogue::default()), &[&input, &x(shape, 2)]).remove(0);
            vec![vec![gradient(&y), input]]
        }
        Backward::Depthwise { conv, .. } => {
            let (input, w) = (x(&[3, conv.groups, 9, 8], 1), x(&[conv.groups, 1, 3, 3], 2));
            let y = forward(Op::Conv2d(*conv, Epilogue::default()), &[&input, &w]).remove(0);
            vec![vec![gradient(&y), input, w]]
        }
        Backward::Pool { pool, shape } => {
            let input = x(shape, 1);
            let y = forward(Op::Pool(*pool), &[&input]).remove(0);
            vec![if pool.kind == PoolKind::Max { vec![gradient(&y), input] } else { vec![gradient(&y)] }]
        }
        Backward::PoolSelect { .. } => vec![vec![x(&[3, 4, 9, 8], 9), x(&[3, 4, 9, 8], 1)]],
        Backward::Softmax { dim, log } => {
            let y = forward(Op::Softmax { dim: *dim, log: *log }, &[&x(&[3, 40, 13], 1)]).remove(0);
            vec![vec![gradient(&y), y]]
        }
        Backward::Norm(norm) => {
            let input = x(&[3, 4, 5, 6], 1);
            let weights = norm_weights(norm);
            let affine: Vec<Array> = (0..norm.weights()).map(|i| x(&weights, 2 + i as u64)).collect();
            let statistics = if norm.kind == NormKind::Fixed {
                vec![x(&[4], 4), forward(Op::Unary(Unary::Exp), &[&x(&[4], 5)]).remove(0)]
            } else {
                forward(Op::Norm(*norm), &[&[&input], &affine.iter().collect::<Vec<_>>()[..]].concat())[1..3].to_vec()
            };
            vec![
                [
                    vec![gradient(&input), input],
                    affine.into_iter().take(norm.weights_of_gradient()).collect(),
                    statistics,
                ]
                .concat(),
            ]
        }
        Backward::MatMulOf { sums, .. } => {
            let mut samples = Op::MatMul(Epilogue::default()).samples(device, dtype);
            samples.retain(|ins| !sums || ins[0].shape().rank() == 2 && ins[1].shape().rank() == 2);
            samples
        }
        Backward::Renormalise(norm) => {
            let input = x(&[3, 4, 5, 6], 1);
            let affine = (0..norm.weights()).map(|i| x(&norm_weights(norm), 2 + i as u64));
            let ins: Vec<Array> = std::iter::once(input).chain(affine).collect();
            let statistics = forward(Op::Norm(*norm), &ins.iter().collect::<Vec<_>>())[1..3].to_vec();
            vec![[ins, statistics].concat()]
        }
        Backward::CrossEntropy(loss) => {
            let rows: &[usize] = if loss.reduction == Reduction::None { &[5] } else { &[] };
            vec![vec![x(rows, 9), x(&[5, 7], 1), index(&[5], 7)]]
        }
        Backward::Loss { loss, reduction, .. } => {
            let rows: &[usize] = if *reduction == Reduction::None { &[5, 7] } else { &[] };
            vec![[vec![x(rows, 9)], loss_inputs(*loss, x(&[5, 7], 1), x(&[5, 7], 2))].concat()]
        }
        Backward::Ternary { .. } => vec![vec![x(&[4, 3, 9], 9), x(&[4, 1, 9], 1), x(&[3, 9], 2), x(&[1], 3)]],
        Backward::Resample { map, shape } => {
            let y = map.shape(shape).expect("the catalogue's maps fit");
            vec![vec![x(&y, 9)]]
        }
        Backward::Attention { attention, joined } => Op::Attention(*attention)
            .samples(device, dtype)
            .into_iter()
            .chain(attention_to_itself(x).into_iter().filter(|_| !attention.mask))
            .filter(|ins| !joined || ins[1..3].iter().all(|a| a.shape() == ins[0].shape()))
            .map(|mut ins| {
                let mut outs = forward(Op::Attention(*attention), &ins.iter().collect::<Vec<_>>());
                let mask = ins.split_off(3);
                let (lse, out) = (outs.remove(1), outs.remove(0));
                [vec![gradient(&out)], ins, vec![out, lse], mask].concat()
            })
            .collect(),
        Backward::Embedding { rows } => vec![vec![x(&[4, 6, 70], 9), index(&[4, 6], *rows as i64)]],
        Backward::Narrow { .. } => vec![vec![x(&[3, 4, 5], 9)]],
    }
}
