//! Elementwise operators and losses.

use binade_tensor::op::{Binary, Loss, Reduction, Saved, Ternary, Unary};
use binade_tensor::{Array, ArrayMut, Class, DType, Device, Layout, MAX_RANK, Op, Result, Shape};
use bytemuck::{Pod, Zeroable};

use crate::backend::Cuda;
use crate::module::Module;
use crate::view::{Operand, View, Walk};

/// `Elementwise` of `elementwise.cuh`.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub(crate) struct Elementwise {
    pub(crate) fault: u64,
    pub(crate) n: u32,
    pub(crate) rank: u32,
    pub(crate) extents: [u32; MAX_RANK],
    pub(crate) value: f64,
    pub(crate) factor: f64,
    pub(crate) out: Operand,
    pub(crate) ins: [Operand; 4],
}

/// The parameter of an elementwise kernel: `None` stands for an operand that is a number. Operands broadcast to the
/// output's shape, or to `shape` where the output is not walked with them.
pub(crate) fn parameter<const N: usize>(cuda: &Cuda, ins: [Option<&View>; N], out: &View) -> Option<Elementwise> {
    let mut layouts = [out.layout; 5];
    for (to, view) in layouts[1..].iter_mut().zip(ins) {
        *to = match view {
            Some(view) => view.layout.expand(out.shape())?,
            None => Layout { strides: zeros(out.shape()), ..out.layout },
        };
    }
    // Operands that are not there lie as the output does, and change nothing.
    let walk = Walk::new(layouts.each_ref());
    let mut p = Elementwise {
        fault: cuda.fault().address(),
        n: out.numel() as u32,
        rank: walk.rank(),
        extents: walk.extents(),
        value: 0.0,
        factor: 1.0,
        out: out.operand(&walk.strides[0]),
        ins: [Operand::default(); 4],
    };
    for (k, view) in ins.into_iter().enumerate() {
        if let Some(view) = view {
            p.ins[k] = view.operand(&walk.strides[k + 1]);
        }
    }
    Some(p)
}

fn zeros(shape: &Shape) -> Shape {
    let mut zeros = *shape;
    zeros.iter_mut().for_each(|stride| *stride = 0);
    zeros
}

/// Queues an elementwise kernel, if there is something to compute.
pub(crate) fn launch(cuda: &Cuda, op: &'static str, at: (Module, &str), p: Option<Elementwise>) -> Result<bool> {
    let Some(p) = p else { return Ok(false) };
    if p.n > 0 {
        cuda.over(op, at, p.n as usize, &p);
    }
    Ok(true)
}

/// Whether f32 results, rounded to 16 bit, need not be correctly rounded: then all codes are looked up.
fn is_looked_up(row: Unary, x: &View, out: &View) -> bool {
    out.dtype.is_half() && x.dtype == out.dtype && row.ulp() != 0.0 && row.ulp() != 0.5
}

/// The results of a row for all codes of a format, from the host, whose results are correctly rounded.
fn results(row: Unary, dtype: DType) -> Result<Vec<u8>> {
    let host = Device::open("cpu")?;
    let codes: Vec<u8> = (0..=u16::MAX).flat_map(u16::to_ne_bytes).collect();
    let x = Array::from_bytes(&host, dtype, &codes, &[1 << 16], Class::Workspace)?;
    let y = Array::alloc(&host, x.meta(), Class::Workspace)?;
    host.run(&Op::Unary(row), &[&x], &mut [ArrayMut::new(row.name(), &y)?])?;
    host.download(&y)
}

pub(super) fn unary(cuda: &Cuda, op: &'static str, row: Unary, ins: &[View], out: &View) -> Result<bool> {
    if out.numel() > 0 && is_looked_up(row, &ins[0], out) {
        let table = cuda.table((row as usize, out.dtype), || results(row, out.dtype))?;
        let mut p = parameter(cuda, [Some(&ins[0])], out);
        if let Some(p) = &mut p {
            p.ins[1].at = table;
        }
        return launch(cuda, op, (Module::Copy, "look_up"), p);
    }
    launch(cuda, op, (Module::Unary, &format!("{row:?}")), parameter(cuda, [Some(&ins[0])], out))
}

/// What `compute` leaves in f32, unrounded, and its activation into the first output; without an activation
/// `compute` writes there itself. A second output receives the value before the activation.
pub(super) fn activated(
    cuda: &Cuda,
    op: &'static str,
    act: Option<Unary>,
    outs: &[View],
    compute: impl FnOnce(&View) -> Result<bool>,
) -> Result<bool> {
    let Some(act) = act else { return compute(&outs[0]) };
    let layout = Layout { offset: 0, ..outs[0].layout };
    let scratch = cuda.scratch(size_of::<f32>() * layout.end())?;
    let before = View::line(scratch.address(), DType::F32, layout.shape).with_layout(layout);
    if !compute(&before)? {
        return Ok(false);
    }
    if let Some(saved) = outs.get(1).filter(|_| act.saved() == Saved::Input) {
        super::copy::cast(cuda, op, &before, saved)?;
    }
    unary(cuda, op, act, &[before], &outs[0])
}

pub(super) fn unary_backward(cuda: &Cuda, op: &'static str, row: Unary, ins: &[View], out: &View) -> Result<bool> {
    let p = parameter(cuda, [Some(&ins[0]), Some(&ins[1])], out);
    launch(cuda, op, (Module::Unary, &format!("{row:?}_backward")), p)
}

pub(super) fn binary(cuda: &Cuda, op: &'static str, row: Binary, ins: &[View], out: &View) -> Result<bool> {
    let p = parameter(cuda, [Some(&ins[0]), Some(&ins[1])], out);
    launch(cuda, op, (Module::Binary, &format!("{row:?}")), p)
}

/// With the number of an operator, as kernels compute with it.
fn with_scalar(p: Option<Elementwise>, value: f64) -> Option<Elementwise> {
    p.map(|p| Elementwise { value: f64::from(value as f32), ..p })
}

pub(super) fn scalar(
    cuda: &Cuda,
    op: &'static str,
    row: Binary,
    value: f64,
    reversed: bool,
    ins: &[View],
    out: &View,
) -> Result<bool> {
    let x = Some(&ins[0]);
    let operands = if reversed { [None, x] } else { [x, None] };
    launch(cuda, op, (Module::Binary, &format!("{row:?}")), with_scalar(parameter(cuda, operands, out), value))
}

pub(super) fn binary_backward(
    cuda: &Cuda,
    op: &'static str,
    row: Binary,
    rhs: bool,
    ins: &[View],
    out: &View,
) -> Result<bool> {
    let p = parameter(cuda, [Some(&ins[0]), Some(&ins[1]), Some(&ins[2])], out);
    launch(cuda, op, (Module::Binary, &slope(row, rhs)), p)
}

fn slope(row: Binary, rhs: bool) -> String {
    format!("{row:?}_{}_backward", if rhs { "right" } else { "left" })
}

pub(super) fn scalar_backward(
    cuda: &Cuda,
    op: &'static str,
    row: Binary,
    value: f64,
    reversed: bool,
    ins: &[View],
    out: &View,
) -> Result<bool> {
    let (g, x) = (Some(&ins[0]), Some(&ins[1]));
    let operands = if reversed { [g, None, x] } else { [g, x, None] };
    launch(cuda, op, (Module::Binary, &slope(row, reversed)), with_scalar(parameter(cuda, operands, out), value))
}

/// The function, or with `by` its derivative by an operand; the first input is then the gradient.
pub(super) fn ternary(
    cuda: &Cuda,
    op: &'static str,
    row: Ternary,
    value: f64,
    by: Option<usize>,
    ins: &[View],
    out: &View,
) -> Result<bool> {
    let (name, p) = match by {
        None => (format!("{row:?}"), parameter(cuda, [0, 1, 2].map(|i| Some(&ins[i])), out)),
        Some(by) => (format!("{row:?}_{by}_backward"), parameter(cuda, [0, 1, 2, 3].map(|i| Some(&ins[i])), out)),
    };
    launch(cuda, op, (Module::Ternary, &name), with_scalar(p, value))
}

/// The loss of no elements.
pub(super) fn loss_of_nothing(reduction: Reduction) -> f64 {
    if reduction == Reduction::Mean { f64::NAN } else { 0.0 }
}

pub(super) fn loss(
    cuda: &Cuda,
    op: &'static str,
    loss: Loss,
    parameter: f64,
    reduction: Reduction,
    ins: &[View],
    out: &View,
) -> Result<bool> {
    if reduction == Reduction::None {
        let p = with_scalar(self::parameter(cuda, [Some(&ins[0]), Some(&ins[1])], out), parameter);
        return launch(cuda, op, (Module::Loss, &format!("{loss:?}")), p);
    }
    /// Elements of a block, and threads that add it up.
    const BLOCK: usize = 1024;
    const THREADS: usize = 16;
    let n = ins[0].numel();
    if n == 0 {
        return super::copy::fill(cuda, op, loss_of_nothing(reduction), out);
    }
    let blocks = n.div_ceil(BLOCK);
    let sums = cuda.scratch(8 * blocks)?;
    // In row-major order of the operands' shape, whatever their memory order.
    let rows = View::line(sums.address(), DType::F32, *ins[0].shape());
    let p = with_scalar(self::parameter(cuda, [Some(&ins[0]), Some(&ins[1])], &rows), parameter);
    let Some(p) = p else { return Ok(false) };
    let threads = (blocks * THREADS).next_multiple_of(32).min(256);
    cuda.grid(op, (Module::Loss, &format!("{loss:?}_sums")), [(blocks * THREADS).div_ceil(threads), 1, 1], threads, &p);
    let divisor = if reduction == Reduction::Mean { n as f64 } else { 1.0 };
    super::reduce::total(cuda, op, sums.address(), blocks, divisor, out);
    Ok(true)
}

/// Inputs g (one element, or one per element without reduction), x, t.
pub(super) fn loss_backward(
    cuda: &Cuda,
    op: &'static str,
    loss: Loss,
    parameter: f64,
    reduction: Reduction,
    target: bool,
    ins: &[View],
    out: &View,
) -> Result<bool> {
    let factor = if reduction == Reduction::Mean { 1.0 / ins[1].numel() as f64 } else { 1.0 };
    let p = with_scalar(self::parameter(cuda, [0, 1, 2].map(|i| Some(&ins[i])), out), parameter);
    let p = p.map(|p| Elementwise { factor, ..p });
    let name = format!("{loss:?}_{}_backward", if target { "target" } else { "prediction" });
    launch(cuda, op, (Module::Loss, &name), p)
}
