//! The kernels of every operator: a file per family says what is launched for it.

mod attention;
mod conv;
mod copy;
mod elementwise;
mod images;
mod index;
mod norm;
mod product;
mod random;
mod reduce;
mod softmax;
mod tensor;
mod tensor_conv;
mod update;
mod window;

use binade_tensor::op::{Backward, Scatter};
use binade_tensor::{Op, Outcome, Result, Update};

use crate::backend::Cuda;
use crate::view::View;

/// What a [`binade_tensor::Slot`] lends.
#[derive(Debug)]
pub(crate) struct Passed {
    pub(crate) param: Option<View>,
    pub(crate) master: Option<View>,
    pub(crate) grad: View,
    pub(crate) writes_grad: bool,
    pub(crate) state: Vec<View>,
    pub(crate) first: bool,
}

/// Elements that one launch may have: places are 32-bit numbers in kernels.
const MOST: usize = 1 << 31;
/// Blocks of a grid in its last two dimensions.
pub(crate) const MOST_BLOCKS: usize = 65_535;

/// Queues the kernels of an operator; false if there are none for it and these operands.
///
/// # Errors
/// No memory for what a kernel needs while it runs.
pub(crate) fn run(cuda: &Cuda, op: &Op, ins: &[View], outs: &[View]) -> Result<bool> {
    if ins.iter().chain(outs).any(|view| view.numel() >= MOST) {
        return Ok(false);
    }
    let (name, out) = (op.name(), &outs[0]);
    match op {
        Op::Unary(row) => elementwise::unary(cuda, name, *row, ins, out),
        Op::Binary(row) => elementwise::binary(cuda, name, *row, ins, out),
        Op::Scalar { op: row, value, reversed } => elementwise::scalar(cuda, name, *row, *value, *reversed, ins, out),
        Op::Ternary { op: row, value } => elementwise::ternary(cuda, name, *row, *value, None, ins, out),
        Op::Compare(row) => copy::compare(cuda, name, *row, ins, out),
        Op::Where => copy::select(cuda, name, ins, out),
        Op::Loss { loss, parameter, reduction } => {
            elementwise::loss(cuda, name, *loss, *parameter, *reduction, ins, out)
        }
        Op::Cat { dim } => copy::cat(cuda, name, *dim, ins, out),
        Op::Dropout { p, key } => random::dropout(cuda, name, *p, *key, &ins[0], out),
        Op::Random { distribution, key, .. } => random::random(cuda, name, *distribution, *key, out),
        Op::Fill { value, .. } => copy::fill(cuda, name, *value, out),
        Op::Range { start, .. } => copy::range(cuda, name, *start, ins.first(), out),
        Op::Cast(_) | Op::Copy => copy::cast(cuda, name, &ins[0], out),
        Op::StochasticCast { key, .. } => random::stochastic_cast(cuda, name, *key, &ins[0], out),
        Op::View(_) => Ok(true),
        Op::Backward(backward) => self::backward(cuda, name, backward, ins, outs),
        Op::Reduce { kind, dims, .. } => reduce::reduce(cuda, name, *kind, *dims, &ins[0], out),
        Op::Scan { kind, dim, reverse } => reduce::scan(cuda, name, *kind, *dim, *reverse, &ins[0], out),
        Op::ArgMax { dim, .. } => reduce::argmax(cuda, name, *dim, &ins[0], out),
        Op::Gather { dim } => index::gather(cuda, name, *dim, ins, out),
        Op::Scatter { kind, dim } => index::scatter(cuda, name, (*kind, *dim), Some(&ins[0]), &ins[1], &ins[2], out),
        Op::Embedding => index::embedding(cuda, name, ins, out),
        Op::MatMul(product) => product::matmul(cuda, name, product, ins, outs),
        Op::Softmax { dim, log } => softmax::softmax(cuda, name, *dim, *log, &ins[0], out),
        Op::CrossEntropy(loss) => softmax::cross_entropy(cuda, name, loss, ins, out),
        Op::Norm(norm) => norm::forward(cuda, name, norm, ins, outs),
        Op::Conv2d(conv, epilogue) => conv::forward(cuda, name, conv, *epilogue, ins, outs),
        Op::ConvTranspose2d { conv, bias, .. } => {
            conv::by_input(cuda, name, conv, &ins[..2], ins.get(2).filter(|_| *bias), out)
        }
        Op::Attention(attention) => attention::forward(cuda, name, attention, ins, outs),
        Op::Pool(pool) => window::pool(cuda, name, pool, &ins[0], out),
        Op::Resample(map) => window::resample(cuda, name, map, &ins[0], out),
        Op::QuantisedMatMul(product) => product::quantised(cuda, name, product, ins, outs),
        Op::QuantisedConv2d(conv) => conv::quantised(cuda, name, conv, ins, outs),
        Op::Sort { .. } | Op::Custom(_) => Ok(false),
    }
}

fn backward(cuda: &Cuda, name: &'static str, op: &Backward, ins: &[View], outs: &[View]) -> Result<bool> {
    let out = &outs[0];
    match op {
        Backward::Unary(row) => elementwise::unary_backward(cuda, name, *row, ins, out),
        Backward::Binary { op: row, rhs } => elementwise::binary_backward(cuda, name, *row, *rhs, ins, out),
        Backward::Scalar { op: row, value, reversed } => {
            elementwise::scalar_backward(cuda, name, *row, *value, *reversed, ins, out)
        }
        Backward::Ternary { op: row, value, operand } => {
            elementwise::ternary(cuda, name, *row, *value, Some(*operand), ins, out)
        }
        Backward::Loss { loss, parameter, reduction, target } => {
            elementwise::loss_backward(cuda, name, *loss, *parameter, *reduction, *target, ins, out)
        }
        Backward::Narrow { dim, start, .. } => copy::narrow_backward(cuda, name, *dim, *start, &ins[0], out),
        Backward::Reduce { kind, dims } => reduce::backward(cuda, name, *kind, *dims, ins, out),
        Backward::Gather { dim, .. } => index::scatter(cuda, name, (Scatter::Add, *dim), None, &ins[1], &ins[0], out),
        Backward::Embedding { rows } => index::embedding_backward(cuda, name, *rows, ins, out),
        Backward::Softmax { dim, log } => softmax::backward(cuda, name, *dim, *log, ins, out),
        Backward::CrossEntropy(loss) => softmax::cross_entropy_backward(cuda, name, loss, ins, out),
        Backward::Norm(norm) => norm::backward(cuda, name, norm, ins, outs),
        Backward::Renormalise(norm) => norm::again(cuda, name, norm, ins, outs),
        Backward::CumProd { dim } => window::cumprod_backward(cuda, name, *dim, ins, out),
        Backward::Conv2dInput { conv, .. } => conv::by_input(cuda, name, conv, ins, None, out),
        Backward::Conv2dWeight { conv, .. } => conv::by_weight(cuda, name, conv, ins, out),
        Backward::Depthwise { conv, .. } => conv::depthwise(cuda, name, conv, ins, outs),
        Backward::Pool { pool, .. } => window::pool_backward(cuda, name, pool, ins, out),
        Backward::PoolSelect { pool, .. } => window::pool_select(cuda, name, pool, ins, out),
        Backward::Resample { map, shape } => window::resample_backward(cuda, name, map, shape, &ins[0], out),
        Backward::Attention { attention, .. } => attention::backward(cuda, name, attention, ins, outs),
    }
}

/// Queues a pass; `None` if there is no kernel for it.
///
/// # Errors
/// As [`run`].
pub(crate) fn update(cuda: &Cuda, update: &Update, scalars: &View, slots: &[Passed]) -> Result<Option<Outcome>> {
    update::pass(cuda, update, scalars, slots)
}
