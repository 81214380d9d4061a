//! Normalisations. An activation is a kernel of its own, on f32 that is not rounded in between.

use binade_tensor::op::{Norm as Kind, NormKind, Saved};
use binade_tensor::{DType, Layout, Result, Shape};
use bytemuck::{Pod, Zeroable};

use super::{copy, elementwise};
use crate::backend::Cuda;
use crate::memory::CudaMemory;
use crate::module::Module;
use crate::rows::{Axes, Axis, RowOperand, Rows, grid, rows};
use crate::view::View;

/// `Norm` of `norm.cu`.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
struct Norm {
    fault: u64,
    centred: u32,
    statistics: u32,
    eps: f64,
    rows: Rows,
    x: RowOperand,
    g: RowOperand,
    y: RowOperand,
    weight: RowOperand,
    bias: RowOperand,
    mean: RowOperand,
    rstd: RowOperand,
    var: RowOperand,
    units: RowOperand,
}

/// Statistics of the rows, or of others.
const OWN: u32 = 0;
const FIXED: u32 = 1;

/// Operands of tensors' shape, then weights, then statistics.
const TENSORS: usize = 3;
const WEIGHTS: usize = 2;
const STATISTICS: usize = 4;
const ALL: usize = TENSORS + WEIGHTS + STATISTICS;

/// What a norm reads and writes; views of a kind have one shape.
#[derive(Clone, Copy)]
struct Operands<'a> {
    tensors: [Option<&'a View>; TENSORS],
    weights: [Option<&'a View>; WEIGHTS],
    statistics: [Option<&'a View>; STATISTICS],
}

impl<'a> Operands<'a> {
    fn views(&self) -> [Option<&'a View>; ALL] {
        let [x, g, y] = self.tensors;
        let [weight, bias] = self.weights;
        let [mean, rstd, var, units] = self.statistics;
        [x, g, y, weight, bias, mean, rstd, var, units]
    }

    /// A step along a dimension of the tensors, of weights and of statistics.
    fn axis(&self, extent: usize, [tensor, weight, statistic]: [&dyn Fn(&View) -> usize; 3]) -> Axis<ALL> {
        let of = |views: &[Option<&View>], step: &dyn Fn(&View) -> usize| -> Vec<usize> {
            views.iter().map(|view| view.map_or(0, step)).collect()
        };
        let steps = [of(&self.tensors, tensor), of(&self.weights, weight), of(&self.statistics, statistic)].concat();
        Axis { extent, strides: std::array::from_fn(|k| steps[k]) }
    }
}

/// The dimensions that number the sets with statistics, and those within a set, which also are (weights, others): by
/// either the kernels of rows are called.
struct Walks {
    groups: Axes<ALL>,
    members: Axes<ALL>,
    weights: Axes<ALL>,
    others: Axes<ALL>,
}

/// How a norm's operands are walked; `None` where a vector of statistics or weights is no line.
fn walks(norm: &Kind, operands: &Operands<'_>) -> Option<Walks> {
    let shape = *operands.tensors.iter().flatten().next()?.shape();
    let none = |_: &View| 0;
    let tensor = |d: usize| move |view: &View| view.layout.strides[d];
    // Statistics are vectors, weights too or of the shape of trailing dimensions.
    let line = |view: &View, step: usize| view.layout.strides.first().copied().unwrap_or(0) * step;
    let mut walks = Walks { groups: Axes::new(), members: Axes::new(), weights: Axes::new(), others: Axes::new() };
    match norm.kind {
        NormKind::Layer { dims } | NormKind::Rms { dims } => {
            let lead = shape.rank() - dims;
            for d in 0..lead {
                let below: usize = shape[d + 1..lead].iter().product();
                walks.groups.push(operands.axis(shape[d], [&tensor(d), &none, &|view| line(view, below)]));
            }
            for d in lead..shape.rank() {
                let weight = move |view: &View| view.layout.strides[d - lead];
                walks.members.push(operands.axis(shape[d], [&tensor(d), &weight, &none]));
            }
            walks.weights = walks.members.clone();
            walks.others = walks.groups.clone();
        }
        NormKind::Group { groups } => {
            let per_group = shape[1] / groups.max(1);
            let samples = operands.axis(shape[0], [&tensor(0), &none, &|view| line(view, groups)]);
            let group = operands.axis(
                groups,
                [&|view| per_group * view.layout.strides[1], &|view| line(view, per_group), &|view| line(view, 1)],
            );
            let channel = operands.axis(per_group, [&tensor(1), &|view| line(view, 1), &none]);
            let space = (2..shape.rank()).map(|d| operands.axis(shape[d], [&tensor(d), &none, &none]));
            let space: Axes<ALL> = space.collect();
            walks.groups.extend([samples, group]);
            walks.members.push(channel);
            walks.members.extend(space.iter().copied());
            walks.weights.extend([group, channel]);
            walks.others.push(samples);
            walks.others.extend(space);
        }
        NormKind::Batch | NormKind::Fixed => {
            let channel = operands.axis(shape[1], [&tensor(1), &|view| line(view, 1), &|view| line(view, 1)]);
            walks.groups.push(channel);
            walks.weights.push(channel);
            for d in (0..shape.rank()).filter(|&d| d != 1) {
                let axis = operands.axis(shape[d], [&tensor(d), &none, &none]);
                walks.members.push(axis);
                walks.others.push(axis);
            }
        }
    }
    Some(walks)
}

fn parameter(
    cuda: &Cuda,
    norm: &Kind,
    statistics: u32,
    operands: &Operands<'_>,
    outer: &Axes<ALL>,
    inner: &Axes<ALL>,
) -> Option<Norm> {
    let (rows, [x, g, y, weight, bias, mean, rstd, var, units]) = rows(operands.views(), outer, inner)?;
    let centred = !matches!(norm.kind, NormKind::Rms { .. });
    let fault = cuda.fault().address();
    Some(Norm {
        fault,
        centred: centred.into(),
        statistics,
        eps: norm.eps,
        rows,
        x,
        g,
        y,
        weight,
        bias,
        mean,
        rstd,
        var,
        units,
    })
}

/// f32 memory that lies as an output does.
fn unrounded(cuda: &Cuda, of: &View) -> Result<(View, CudaMemory)> {
    let layout = Layout { offset: 0, ..of.layout };
    let memory = cuda.scratch(4 * layout.end())?;
    Ok((View::line(memory.address(), DType::F32, layout.shape).with_layout(layout), memory))
}

fn launch(cuda: &Cuda, op: &'static str, kernel: &str, p: &Norm) {
    let (blocks, threads) = grid(p.rows.rows as usize);
    cuda.grid(op, (Module::Norm, kernel), blocks, threads, p);
}

/// Runs a kernel over the sets that have statistics.
fn over_sets(
    cuda: &Cuda,
    op: &'static str,
    kernel: &str,
    norm: &Kind,
    statistics: u32,
    operands: &Operands<'_>,
) -> Result<bool> {
    let Some(walks) = walks(norm, operands) else { return Ok(false) };
    let Some(p) = parameter(cuda, norm, statistics, operands, &walks.groups, &walks.members) else { return Ok(false) };
    launch(cuda, op, kernel, &p);
    Ok(true)
}

/// The value into `y`, with the activation behind it.
fn normalise_and_activate(
    cuda: &Cuda,
    op: &'static str,
    norm: &Kind,
    statistics: u32,
    operands: &Operands<'_>,
    out: &View,
) -> Result<bool> {
    let Some(act) = norm.act else { return over_sets(cuda, op, "normalise", norm, statistics, operands) };
    let (before, _memory) = unrounded(cuda, out)?;
    let mut operands = *operands;
    operands.tensors[2] = Some(&before);
    Ok(over_sets(cuda, op, "normalise", norm, statistics, &operands)?
        && elementwise::unary(cuda, op, act, std::slice::from_ref(&before), out)?)
}

/// 1/deviation of given variances, in f32.
fn deviations(cuda: &Cuda, op: &'static str, norm: &Kind, var: &View) -> Result<Option<(View, CudaMemory)>> {
    let (rstd, memory) = unrounded(cuda, var)?;
    let operands = Operands {
        tensors: [None; TENSORS],
        weights: [None; WEIGHTS],
        statistics: [None, Some(&rstd), Some(var), None],
    };
    let line = |view: &View| view.layout.strides[0];
    let rows = Axes::from_slice(&[operands.axis(var.numel(), [&line, &line, &line])]);
    let Some(p) = parameter(cuda, norm, FIXED, &operands, &rows, &Axes::new()) else { return Ok(None) };
    cuda.over(op, (Module::Norm, "deviations"), var.numel(), &p);
    Ok(Some((rstd, memory)))
}

/// What a norm reads instead where f32 may not hold some 1/deviation: numbers and statistics in units in which it does.
struct InUnits {
    x: View,
    mean: View,
    rstd: View,
    _memory: [CudaMemory; 2],
}

impl InUnits {
    /// `None` where each 1/deviation is held: with eps, but for the smallest. Also where no kernel walks the operands.
    fn of(cuda: &Cuda, op: &'static str, norm: &Kind, x: &View, [mean, rstd]: [&View; 2]) -> Result<Option<InUnits>> {
        if norm.kind == NormKind::Fixed || (1.0 / norm.eps.sqrt()) as f32 <= f32::MAX {
            return Ok(None);
        }
        // `Set` of `norm.cu`.
        let sets = Layout::contiguous(Shape::new(&[rstd.numel(), 3])?);
        let _memory = [cuda.scratch(4 * sets.numel())?, cuda.scratch(4 * x.numel())?];
        let all = View::line(_memory[0].address(), DType::F32, sets.shape);
        let [own_mean, own_rstd] = [0, 1].map(|i| all.with_layout(sets.narrow(1, i, 1)));
        let own = View::line(_memory[1].address(), DType::F32, *x.shape());
        let statistics = [Some(mean), Some(rstd), None, Some(&own_mean)];
        let operands = Operands { tensors: [Some(x), None, Some(&own)], weights: [None; WEIGHTS], statistics };
        let done = over_sets(cuda, op, "in_units", norm, OWN, &operands)?;
        Ok(done.then_some(InUnits { x: own, mean: own_mean, rstd: own_rstd, _memory }))
    }

    /// The gradient by x of that by the numbers in their units.
    fn back(&self, cuda: &Cuda, op: &'static str, norm: &Kind, [from, to]: [&View; 2]) -> Result<bool> {
        let statistics = [None, None, None, Some(&self.mean)];
        let operands = Operands { tensors: [None, Some(from), Some(to)], weights: [None; WEIGHTS], statistics };
        over_sets(cuda, op, "over_units", norm, OWN, &operands)
    }
}

/// Inputs x, then weights, then mean and variance of fixed statistics. Outputs y and the statistics.
pub(super) fn forward(cuda: &Cuda, op: &'static str, norm: &Kind, ins: &[View], outs: &[View]) -> Result<bool> {
    let x = &ins[0];
    if x.numel() == 0 {
        return of_nothing(cuda, op, norm, &outs[1..]);
    }
    let at = 1 + norm.weights();
    let fixed = if norm.kind == NormKind::Fixed { deviations(cuda, op, norm, &ins[at + 1])? } else { None };
    let (statistics, given) = match norm.kind {
        NormKind::Fixed => (FIXED, [Some(&ins[at]), fixed.as_ref().map(|(rstd, _)| rstd), None, None]),
        NormKind::Layer { .. } | NormKind::Rms { .. } | NormKind::Group { .. } | NormKind::Batch => {
            (OWN, [Some(&outs[1]), Some(&outs[2]), outs.get(3), None])
        }
    };
    let operands =
        Operands { tensors: [Some(x), None, Some(&outs[0])], weights: weights(norm, &ins[1..]), statistics: given };
    if statistics == FIXED {
        return normalise_and_activate(cuda, op, norm, FIXED, &operands, &outs[0]);
    }
    if !over_sets(cuda, op, "statistics", norm, OWN, &operands)? {
        return Ok(false);
    }
    normalise_again(cuda, op, norm, x, operands.weights, [&outs[1], &outs[2]], &outs[0])
}

/// y from x and its statistics.
fn normalise_again(
    cuda: &Cuda,
    op: &'static str,
    norm: &Kind,
    x: &View,
    weights: [Option<&View>; WEIGHTS],
    [mean, rstd]: [&View; 2],
    out: &View,
) -> Result<bool> {
    let own = InUnits::of(cuda, op, norm, x, [mean, rstd])?;
    let (x, mean, rstd) = own.as_ref().map_or((x, mean, rstd), |own| (&own.x, &own.mean, &own.rstd));
    let statistics = [Some(mean), Some(rstd), None, None];
    let operands = Operands { tensors: [Some(x), None, Some(out)], weights, statistics };
    normalise_and_activate(cuda, op, norm, OWN, &operands, out)
}

/// Statistics of no elements: the mean that is subtracted of RMS norm is 0, all others are NaN.
fn of_nothing(cuda: &Cuda, op: &'static str, norm: &Kind, statistics: &[View]) -> Result<bool> {
    let centred = !matches!(norm.kind, NormKind::Rms { .. });
    for (i, view) in statistics.iter().enumerate() {
        copy::fill(cuda, op, if i == 0 && !centred { 0.0 } else { f64::NAN }, view)?;
    }
    Ok(true)
}

fn zeros(cuda: &Cuda, op: &'static str, views: &[View]) -> Result<bool> {
    views.iter().try_fold(true, |_, view| copy::fill(cuda, op, 0.0, view))
}

/// Weight and bias among operands that begin with them.
fn weights<'a>(norm: &Kind, ins: &'a [View]) -> [Option<&'a View>; WEIGHTS] {
    [0, 1].map(|i| ins.get(i).filter(|_| i < norm.weights()))
}

/// Inputs x, weights, mean, rstd.
pub(super) fn again(cuda: &Cuda, op: &'static str, norm: &Kind, ins: &[View], outs: &[View]) -> Result<bool> {
    let (x, at) = (&ins[0], 1 + norm.weights());
    if x.numel() == 0 {
        return Ok(true);
    }
    normalise_again(cuda, op, norm, x, weights(norm, &ins[1..]), [&ins[at], &ins[at + 1]], &outs[0])
}

/// Inputs g, x, weight if affine, bias if there is one and an activation, then mean and rstd (variance where fixed).
/// Outputs dx, and dweight and dbias if affine.
pub(super) fn backward(cuda: &Cuda, op: &'static str, norm: &Kind, ins: &[View], outs: &[View]) -> Result<bool> {
    let (g, x) = (&ins[0], &ins[1]);
    if x.numel() == 0 {
        // No element has a part in the gradients of weights.
        return zeros(cuda, op, &outs[1..]);
    }
    let at = 2 + norm.weights_of_gradient();
    let statistics = if norm.kind == NormKind::Fixed { FIXED } else { OWN };
    let fixed = if norm.kind == NormKind::Fixed { deviations(cuda, op, norm, &ins[at + 1])? } else { None };
    let rstd = fixed.as_ref().map_or(&ins[at + 1], |(rstd, _)| rstd);
    let own = InUnits::of(cuda, op, norm, x, [&ins[at], rstd])?;
    let (x, mean, rstd) = own.as_ref().map_or((x, &ins[at], rstd), |own| (&own.x, &own.mean, &own.rstd));
    let given = [Some(mean), Some(rstd), None, None];
    let weight = ins.get(2).filter(|_| norm.affine);
    let bias = ins.get(3).filter(|_| norm.weights_of_gradient() == 2);
    let mut memory = Vec::new();
    let mut g = *g;
    if let Some(act) = norm.act {
        // The gradient in front of the activation, from its argument again.
        let (before, of_before) = unrounded(cuda, &outs[0])?;
        let operands = Operands { tensors: [Some(x), None, Some(&before)], weights: [weight, bias], statistics: given };
        if !over_sets(cuda, op, "normalise", norm, statistics, &operands)? {
            return Ok(false);
        }
        let mut saved = before;
        memory.push(of_before);
        if act.saved() == Saved::Output {
            let (after, of_after) = unrounded(cuda, &outs[0])?;
            elementwise::unary(cuda, op, act, &[before], &after)?;
            saved = after;
            memory.push(of_after);
        }
        let (inner, of_inner) = unrounded(cuda, &outs[0])?;
        elementwise::unary_backward(cuda, op, act, &[g, saved], &inner)?;
        g = inner;
        memory.push(of_inner);
    }
    let in_units = own.as_ref().map(|_| unrounded(cuda, &outs[0])).transpose()?;
    let dx = in_units.as_ref().map_or(&outs[0], |(dx, _)| dx);
    let operands = Operands { tensors: [Some(x), Some(&g), Some(dx)], weights: [weight, None], statistics: given };
    if !over_sets(cuda, op, "norm_backward", norm, statistics, &operands)?
        || own.as_ref().map_or(Ok(false), |own| Ok(!own.back(cuda, op, norm, [dx, &outs[0]])?))?
    {
        return Ok(false);
    }
    if norm.affine {
        let operands =
            Operands { tensors: [Some(x), Some(&g), None], weights: [outs.get(1), outs.get(2)], statistics: given };
        let Some(walks) = walks(norm, &operands) else { return Ok(false) };
        let Some(p) = parameter(cuda, norm, statistics, &operands, &walks.weights, &walks.others) else {
            return Ok(false);
        };
        launch(cuda, op, "norm_weights", &p);
    }
    drop(memory);
    Ok(true)
}
