//! Normalisation by the statistics of groups of elements.

use smallvec::smallvec;

use super::bound::Bound;
use super::check::{Check, Outs};
use super::family::{Family, Numerics};
use super::program::{Builder, Value};
use super::{Backward, Binary, Op, Reduce, Unary};
use crate::samples::{Inputs, Sampler};
use crate::{Array, DType, Dims, Layout, Meta, Result, Shape};

/// A normalisation.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Norm {
    /// Which elements share statistics.
    pub kind: NormKind,
    /// Added to the variance, in f32.
    pub eps: f64,
    /// Whether weight and bias (RMS: weight only) are inputs.
    pub affine: bool,
    /// Activation applied last.
    pub act: Option<Unary>,
}

impl Norm {
    /// Number of weight inputs: none, a weight, or weight and bias.
    pub fn weights(&self) -> usize {
        match (self.affine, self.kind) {
            (false, _) => 0,
            (true, NormKind::Rms { .. }) => 1,
            (true, NormKind::Layer { .. } | NormKind::Group { .. } | NormKind::Batch | NormKind::Fixed) => 2,
        }
    }

    /// Number of weight inputs of the gradient: the bias is among them where an activation's argument is computed
    /// again.
    pub fn weights_of_gradient(&self) -> usize {
        if self.act.is_some() { self.weights() } else { self.affine as usize }
    }

    /// The name of the normalisation.
    pub fn name(&self) -> &'static str {
        match self.kind {
            NormKind::Layer { .. } => "layer_norm",
            NormKind::Rms { .. } => "rms_norm",
            NormKind::Group { .. } => "group_norm",
            NormKind::Batch | NormKind::Fixed => "batch_norm",
        }
    }
}

/// Which elements share statistics.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum NormKind {
    /// The last `dims` dimensions; weight and bias have their shape.
    Layer {
        /// Number of trailing dimensions.
        dims: usize,
    },
    /// The last `dims` dimensions divided by the root of their mean square: no mean is subtracted and there is no bias
    /// (Zhang and Sennrich 2019). The mean output is 0.
    Rms {
        /// Number of trailing dimensions.
        dims: usize,
    },
    /// Per sample, groups of channels (dimension 1); weight and bias `[C]`.
    Group {
        /// Number of groups.
        groups: usize,
    },
    /// Per channel (dimension 1), over batch and space; weight and bias `[C]`.
    Batch,
    /// Per channel with given mean and variance (f32 `[C]`): batch norm in evaluation. Only y is returned.
    Fixed,
}

impl Family for Norm {
    fn name(&self) -> &'static str {
        self.name()
    }

    fn numerics(&self) -> Numerics {
        match self.kind {
            NormKind::Layer { .. } | NormKind::Rms { .. } | NormKind::Group { .. } => Numerics::F32,
            NormKind::Batch | NormKind::Fixed => Numerics::Neutral,
        }
    }

    fn outs(&self, check: &Check<'_>) -> Result<Outs> {
        check.domain(
            self.eps >= 0.0 && (self.eps as f32).is_finite(),
            "eps",
            "at least 0 and finite in f32",
            self.eps,
        )?;
        let (norm, ins) = (self, check.ins);
        let given = matches!(norm.kind, NormKind::Fixed);
        check.count(1 + norm.weights() + 2 * given as usize)?;
        check.floats(0..ins.len())?;
        let groups = groups(check, norm, &ins[1..])?;
        let statistics = check.stats(Shape::from_slice(&[groups]));
        Ok(match norm.kind {
            NormKind::Layer { .. } | NormKind::Rms { .. } | NormKind::Group { .. } => {
                smallvec![check.like(0), statistics, statistics]
            }
            NormKind::Batch => smallvec![check.like(0), statistics, statistics, statistics],
            NormKind::Fixed => smallvec![check.like(0)],
        })
    }

    fn bound(&self, ins: &[&Array]) -> Bound {
        Bound::Terms(terms(self, ins))
    }

    fn samples(&self, s: &Sampler<'_>) -> Vec<Inputs> {
        let norm = self;
        let weights = norm_weights(norm);
        let affine = (0..norm.weights()).map(|i| s.x(&weights, 2 + i as u64)).collect();
        let given = if norm.kind == NormKind::Fixed { vec![s.x(&weights, 4), s.positive(&weights, 5)] } else { vec![] };
        s.vary([vec![s.x(&[3, 4, 5, 6], 1)], affine, given].concat())
    }

    fn define(&self, b: &mut Builder) -> Result<Option<Value>> {
        Ok(Some(normalise(b, self)?))
    }

    /// Weights may be wider than x.
    fn natural_dtype(&self, ins: &[DType]) -> DType {
        ins[0]
    }
}

/// Number of groups that have statistics, for inputs of these shapes.
fn groups(check: &Check<'_>, norm: &Norm, rest: &[Meta]) -> Result<usize> {
    let x = check.ins[0].shape();
    let (groups, weight) = match norm.kind {
        NormKind::Layer { dims } | NormKind::Rms { dims } => {
            if dims == 0 || dims > x.rank() {
                return check.shape(&format!("at least {} dimensions", dims.max(1)));
            }
            let lead = x.rank() - dims;
            (x[..lead].iter().product(), Shape::from_slice(&x[lead..]))
        }
        NormKind::Group { groups } => {
            if x.rank() < 2 || groups == 0 || !x[1].is_multiple_of(groups) {
                return check.shape(&format!("[N, C, …] with C a multiple of the {groups} groups"));
            }
            (x[0] * groups, Shape::from_slice(&x[1..2]))
        }
        NormKind::Batch | NormKind::Fixed => {
            if x.rank() < 2 {
                return check.shape("[N, C, …]");
            }
            if matches!(norm.kind, NormKind::Batch) && x[1] > 0 && x.numel() / x[1] == 1 {
                return check.argument(format!("training needs more than one value per channel, got {x:?}"));
            }
            (x[1], Shape::from_slice(&x[1..2]))
        }
    };
    if x.numel() == 0 && groups > 0 && norm.kind != NormKind::Fixed {
        return check.shape("at least one element per group");
    }
    if rest.iter().any(|m| *m.shape() != weight) {
        return check.shape(&format!("weights and statistics of shape {weight:?}"));
    }
    Ok(groups)
}

/// Roundings of a norm: of the elements that share statistics up to 256 in one chain, then of those sums, and of what
/// is done with them. Sums by weight have no longer chains.
fn terms(norm: &Norm, ins: &[&Array]) -> f64 {
    let shape = ins[0].shape();
    let members = match norm.kind {
        NormKind::Layer { dims } | NormKind::Rms { dims } => shape[shape.rank() - dims..].iter().product(),
        NormKind::Group { groups } => shape.numel() / (shape[0] * groups).max(1),
        NormKind::Batch | NormKind::Fixed => shape.numel() / shape[1].max(1),
    } as f64;
    16.0 + members.min(256.0) + members / 256.0
}

/// `act((x − mean)/√(var + eps)·weight + bias)`.
fn normalise(b: &mut Builder, norm: &Norm) -> Result<Value> {
    let x = b.input(0);
    let shape = b.shape(x);
    let rank = shape.rank();
    let (grouped, dims) = match norm.kind {
        NormKind::Layer { dims } | NormKind::Rms { dims } => (shape, (rank - dims..rank).fold(Dims::NONE, Dims::with)),
        NormKind::Group { groups } => {
            let inner: usize = shape[1..].iter().product::<usize>() / groups;
            (Shape::new(&[shape[0], groups, inner])?, Dims::one(2))
        }
        NormKind::Batch | NormKind::Fixed => (shape, (0..rank).filter(|&d| d != 1).fold(Dims::NONE, Dims::with)),
    };
    let values = b.reshape(x, grouped)?;
    let (mean, var) = if norm.kind == NormKind::Fixed {
        let at = 1 + norm.weights();
        (b.per_channel(b.input(at), rank)?, b.per_channel(b.input(at + 1), rank)?)
    } else if matches!(norm.kind, NormKind::Rms { .. }) {
        let square = b.unary(Unary::Square, values)?;
        (b.fill(0.0, Shape::SCALAR)?, b.reduce(Reduce::Mean, square, dims)?)
    } else {
        (b.reduce(Reduce::Mean, values, dims)?, b.reduce(Reduce::Var { correction: 0.0 }, values, dims)?)
    };
    let centred = b.binary(Binary::Sub, values, mean)?;
    let shifted = b.scalar(Binary::Add, var, norm.eps)?;
    let rstd = b.unary(Unary::Rsqrt, shifted)?;
    let hat = b.binary(Binary::Mul, centred, rstd)?;
    let mut y = b.reshape(hat, shape)?;
    if norm.affine {
        let vector = |b: &mut Builder, i: usize| match norm.kind {
            NormKind::Layer { .. } | NormKind::Rms { .. } => Ok(b.input(i)),
            NormKind::Group { .. } | NormKind::Batch | NormKind::Fixed => b.per_channel(b.input(i), rank),
        };
        let weight = vector(b, 1)?;
        y = b.binary(Binary::Mul, y, weight)?;
        if norm.weights() == 2 {
            let bias = vector(b, 2)?;
            y = b.binary(Binary::Add, y, bias)?;
        }
    }
    match norm.act {
        Some(act) => b.unary(act, y),
        None => Ok(y),
    }
}

/// Shape of the weights for samples of shape [3, 4, 5, 6].
fn norm_weights(norm: &Norm) -> Vec<usize> {
    match norm.kind {
        NormKind::Layer { dims } | NormKind::Rms { dims } => [3, 4, 5, 6][4 - dims..].to_vec(),
        NormKind::Group { .. } | NormKind::Batch | NormKind::Fixed => vec![4],
    }
}

/// [`Backward::Norm`].
#[derive(Clone, Copy, Debug)]
pub struct NormBackward(pub Norm);

impl Family for NormBackward {
    fn name(&self) -> &'static str {
        "norm_backward"
    }

    fn outs(&self, check: &Check<'_>) -> Result<Outs> {
        let (NormBackward(norm), ins) = (self, check.ins);
        check.count(4 + norm.weights_of_gradient())?;
        check.same_shape(0, 1)?;
        let (x, statistics) = ins[1..].split_at(1 + norm.weights_of_gradient());
        let groups = groups(&check.of(x), norm, &x[1..])?;
        if statistics.iter().any(|m| m.shape().numel() != groups) {
            return check.argument(format!("expected the statistics of {groups} groups"));
        }
        let dx = check.like(1);
        Ok(if norm.affine {
            let weight = Meta { dtype: ins[2].dtype, layout: Layout::contiguous(*ins[2].shape()) };
            std::iter::once(dx).chain(std::iter::repeat_n(weight, norm.weights())).collect()
        } else {
            smallvec![dx]
        })
    }

    fn bound(&self, ins: &[&Array]) -> Bound {
        Bound::Terms(terms(&self.0, ins))
    }

    fn samples(&self, s: &Sampler<'_>) -> Vec<Inputs> {
        let NormBackward(norm) = self;
        let input = s.x(&[3, 4, 5, 6], 1);
        let weights = norm_weights(norm);
        let affine: Vec<Array> = (0..norm.weights()).map(|i| s.x(&weights, 2 + i as u64)).collect();
        let statistics = if norm.kind == NormKind::Fixed {
            vec![s.x(&[4], 4), s.run(Op::Unary(Unary::Exp), &[&s.x(&[4], 5)]).remove(0)]
        } else {
            s.run(Op::Norm(*norm), &[&[&input], &affine.iter().collect::<Vec<_>>()[..]].concat())[1..3].to_vec()
        };
        vec![
            [
                vec![s.gradient(&input), input],
                affine.into_iter().take(norm.weights_of_gradient()).collect(),
                statistics,
            ]
            .concat(),
        ]
    }
}

/// [`Backward::Renormalise`].
#[derive(Clone, Copy, Debug)]
pub struct Renormalise(pub Norm);

impl Family for Renormalise {
    fn name(&self) -> &'static str {
        "renormalise"
    }

    fn outs(&self, check: &Check<'_>) -> Result<Outs> {
        let (Renormalise(norm), ins) = (self, check.ins);
        check.count(3 + norm.weights())?;
        check.floats(0..ins.len())?;
        let groups = groups(check, norm, &ins[1..1 + norm.weights()])?;
        let fits = |i: &Meta| i.layout.shape.numel() == groups;
        if norm.kind == NormKind::Fixed || !ins[1 + norm.weights()..].iter().all(fits) {
            return check.argument(format!("expected the mean and 1/deviation of {groups} groups"));
        }
        Ok(smallvec![check.like(0)])
    }

    fn bound(&self, _ins: &[&Array]) -> Bound {
        Bound::Terms(8.0)
    }

    fn samples(&self, s: &Sampler<'_>) -> Vec<Inputs> {
        let Renormalise(norm) = self;
        let input = s.x(&[3, 4, 5, 6], 1);
        let affine = (0..norm.weights()).map(|i| s.x(&norm_weights(norm), 2 + i as u64));
        let ins: Vec<Array> = std::iter::once(input).chain(affine).collect();
        let statistics = s.run(Op::Norm(*norm), &ins.iter().collect::<Vec<_>>())[1..3].to_vec();
        vec![[ins, statistics].concat()]
    }
}

pub(super) fn catalogue() -> Vec<Op> {
    let mut ops: Vec<Op> = Vec::new();
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
    ops
}
