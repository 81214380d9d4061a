//! [`Cpu`]: memory from a pool, and the kernel of every operator.

use crate::kernel::{Context, In, Out};
use std::any::Any;
use std::sync::Arc;

use binade_tensor::memory::Pool;
use binade_tensor::op::{Backward, MatMul, PoolKind, Prologue, Scatter, Unary};
use binade_tensor::{
    Array, ArrayMut, Backend, Class, DType, Error, Memory, MemoryStats, Op, Outcome, Result, Slot, Storage, Update,
};
use smallvec::SmallVec;

use crate::awake::Awake;
use crate::elementwise::{self, BinaryKernel, operands};
use crate::gemm::{self, Fused};
use crate::operand::{Compute, elements};
use crate::simd::Isa;
use crate::{
    attention, conv, custom, draws, gather, index, loss, norm, planes, pool, quantised, reduce, resample, softmax,
    ternary, update, values,
};

/// The CPU. Kernels run on the rayon thread pool of the thread that calls, which is the global one unless another was
/// installed.
#[derive(Debug)]
pub struct Cpu {
    isa: Isa,
    pool: Pool,
}

impl Default for Cpu {
    fn default() -> Cpu {
        Cpu::new()
    }
}

impl Cpu {
    /// A CPU with a memory pool of its own, on the best instruction set (see [`Isa::detect`]).
    pub fn new() -> Cpu {
        Cpu::with_isa(Isa::detect())
    }

    /// A CPU restricted to an instruction set, which must be among [`Isa::available`]; otherwise the best is used.
    pub fn with_isa(isa: Isa) -> Cpu {
        let isa = if Isa::available().contains(&isa) { isa } else { Isa::detect() };
        Cpu { isa, pool: Pool::default() }
    }

    /// Where its memory comes from.
    pub fn pool(&self) -> &Pool {
        &self.pool
    }

    /// The instruction set in use.
    pub fn isa(&self) -> Isa {
        self.isa
    }
}

impl Backend for Cpu {
    fn name(&self) -> &str {
        "cpu"
    }

    fn alloc(&self, dtype: DType, len: usize, class: Class) -> Result<Arc<Storage>> {
        let bytes = len * dtype.size();
        let mut buffer = self.pool.alloc(bytes, class).ok_or(Error::OutOfMemory { op: "", bytes, class })?;
        if dtype == DType::Bool {
            // Bytes of an older tensor need not be booleans.
            buffer.as_mut_slice::<u8>().fill(0);
        }
        Ok(Storage::new(Memory::Host(buffer), class))
    }

    fn upload(&self, bytes: &[u8], to: &mut ArrayMut<'_>) -> Result<()> {
        let array = to.array();
        let at = array.layout().offset * array.dtype().size();
        match to.bytes() {
            Some(target) if target.len() >= at + bytes.len() => target[at..at + bytes.len()].copy_from_slice(bytes),
            Some(_) | None => {
                return Err(Error::Length { shape: *array.shape(), found: bytes.len() / array.dtype().size() });
            }
        }
        Ok(())
    }

    fn download(&self, from: &Array) -> Result<Vec<u8>> {
        let guard = from.storage().read("download")?;
        let size = from.dtype().size();
        let at = from.layout().offset * size;
        Ok(host(&guard, "download", from.dtype())?[at..at + from.numel() * size].to_vec())
    }

    fn run(&self, op: &Op, ins: &[&Array], outs: &mut [ArrayMut<'_>]) -> Result<()> {
        if binade_tensor::integers::run_by_rank(op, ins, outs)? {
            return Ok(());
        }
        let mut guards: SmallVec<[_; 6]> = SmallVec::new();
        for (at, array) in ins.iter().enumerate() {
            let over = outs.first().is_some_and(|out| out.overwrites(op, at, array));
            guards.push(if over { None } else { Some(array.storage().read(op.name())?) });
        }
        let inputs = guards.iter().zip(ins).map(|(guard, array)| In::new(op.name(), array, guard.as_ref()));
        let inputs: SmallVec<[In<'_>; 6]> = inputs.collect::<Result<_>>()?;
        let outputs = outs.iter_mut().map(|out| Out::new(op.name(), out));
        let mut outputs: SmallVec<[Out<'_>; 3]> = outputs.collect::<Result<_>>()?;
        self.run_on(op, &inputs, &mut outputs).map_err(|error| error.during(op.name()))
    }

    fn rounds_as_it_reads(&self, op: &Op) -> bool {
        values::rounds_as_it_reads(op)
    }

    fn begin_step(&self) -> Box<dyn Any> {
        Box::new(Awake::begin())
    }

    fn update(&self, update: &Update, scalars: &Array, slots: &mut [Slot<'_>]) -> Result<Outcome> {
        let guard = scalars.storage().read(update.name())?;
        let (first, count) = (scalars.layout().offset, scalars.numel());
        let scalars = &elements(host(&guard, update.name(), scalars.dtype())?)[first..first + count];
        update::update(self.isa, update, scalars, slots).map_err(|error| error.during(update.name()))
    }

    fn memory(&self) -> MemoryStats {
        self.pool.accounting().stats()
    }

    fn reset_peak_memory(&self) {
        self.pool.accounting().reset_peak();
    }

    fn sync(&self) -> Result<()> {
        Ok(())
    }
}

fn host<'a>(guard: &'a binade_tensor::ReadGuard<'_>, op: &'static str, dtype: DType) -> Result<&'a [u8]> {
    guard.bytes().ok_or_else(|| Error::Unsupported { op, backend: "cpu".into(), dtype })
}

impl Cpu {
    /// Runs an operator on what was borrowed, in the type that its operands need.
    pub(crate) fn run_on(&self, op: &Op, ins: &[In<'_>], outs: &mut [Out<'_>]) -> Result<()> {
        // Integers that are moved go through f64 as well: larger ones than it holds come as ranks.
        let wide = |dtype| dtype == DType::F64;
        let moves = |(i, a): (usize, &In<'_>)| !a.dtype().is_float() && op.moves(i);
        if ins.iter().any(|a| wide(a.dtype()))
            || outs.iter().any(|o| wide(o.array().dtype()))
            || ins.iter().enumerate().any(moves)
        {
            self.run_in::<f64>(op, ins, outs)
        } else if planes::run(self.context(), op, ins, outs)? {
            Ok(())
        } else {
            self.run_in::<f32>(op, ins, outs)
        }
    }

    fn context(&self) -> Context<'_> {
        Context { isa: self.isa, pool: &self.pool }
    }

    /// Runs in the computing type C.
    fn run_in<C: Compute>(&self, op: &Op, ins: &[In<'_>], outs: &mut [Out<'_>]) -> Result<()> {
        let (cx, isa) = (self.context(), self.isa);
        let empty = |i: usize| ins[i].numel() == 0;
        match op {
            Op::Unary(row) => elementwise::unary::<C>(isa, *row, &operands(ins, outs[0].array())[0], &mut outs[0]),
            Op::Binary(row) => {
                let x = operands(ins, outs[0].array());
                elementwise::binary::<C>(isa, *row, BinaryKernel::Forward(&x[0], &x[1]), &mut outs[0]);
            }
            Op::Scalar { op, value, reversed } => {
                let x = operands(ins, outs[0].array());
                elementwise::binary::<C>(isa, *op, BinaryKernel::Scalar(&x[0], *value, *reversed), &mut outs[0]);
            }
            Op::Compare(row) => {
                let x = operands(ins, outs[0].array());
                elementwise::compare(isa, *row, &x[0], &x[1], &mut outs[0]);
            }
            Op::Where => elementwise::select::<C>(isa, &operands(ins, outs[0].array()), &mut outs[0]),
            Op::Reduce { kind, dims, .. } => reduce::reduce::<C>(isa, *kind, *dims, ins[0], &mut outs[0]),
            Op::Scan { kind, dim, reverse } => {
                gather::scan::<C>(cx, *kind, *dim, *reverse, ins[0], &mut outs[0])?;
            }
            Op::Gather { dim } => gather::gather::<C>(cx, *dim, ins, &mut outs[0])?,
            Op::Scatter { kind, dim } => {
                let part = |i: usize| ins[i];
                gather::scatter::<C>(cx, *kind, *dim, Some(part(0)), part(1), part(2), &mut outs[0])?;
            }
            Op::Sort { dim, descending, .. } => gather::sort::<C>(cx, *dim, *descending, ins[0], outs)?,
            Op::ArgMax { dim, .. } => reduce::argmax(isa, *dim, ins[0], &mut outs[0]),
            Op::MatMul(product) => {
                if let Some(Prologue { operand, act }) = product.prologue
                    && !gemm::packs_of::<C>(ins, operand)
                {
                    let plain = Op::MatMul(MatMul { prologue: None, ..*product });
                    return self.activate_and::<C>(&plain, act, operand, ins, outs);
                }
                gemm::matmul::<C>(cx, Fused::from(product), ins, outs)?;
            }
            Op::Conv2d(conv, _) if empty(0) => self.convolve_nothing(op, conv.groups, false, ins, outs)?,
            Op::ConvTranspose2d { conv, .. } if empty(0) => self.convolve_nothing(op, conv.groups, true, ins, outs)?,
            Op::Attention(attention) if (0..3).any(empty) => self.attend_nothing(attention, ins, outs)?,
            Op::Conv2d(conv, epilogue) => conv::forward::<C>(cx, conv, *epilogue, ins, outs)?,
            Op::ConvTranspose2d { conv, bias, .. } => {
                let bias = bias.then(|| ins[2]);
                conv::input_backward::<C>(cx, conv, &ins[..2], bias, &mut outs[0])?;
            }
            Op::QuantisedMatMul(product) => quantised::matmul::<C>(cx, product, ins, outs)?,
            Op::QuantisedConv2d(product) => quantised::conv2d::<C>(cx, product, ins, outs)?,
            Op::Pool(window) => pool::forward::<C>(cx, window, ins[0], &mut outs[0])?,
            Op::Softmax { dim, log } => softmax::softmax::<C>(cx, *dim, *log, ins[0], &mut outs[0])?,
            Op::Norm(norm) => norm::forward::<C>(cx, norm, ins, outs)?,
            Op::CrossEntropy(loss) => softmax::cross_entropy::<C>(isa, loss, ins, &mut outs[0])?,
            Op::Loss { loss, parameter, reduction } => {
                loss::forward::<C>(isa, *loss, *parameter, *reduction, ins, &mut outs[0]);
            }
            Op::Ternary { op, value } => {
                ternary::forward::<C>(isa, *op, *value, &operands(ins, outs[0].array()), &mut outs[0]);
            }
            Op::Resample(map) => resample::forward::<C>(cx, map, ins[0], &mut outs[0])?,
            Op::Attention(attention) => attention::forward::<C>(cx, attention, ins, outs)?,
            Op::Embedding => index::embedding::<C>(cx, ins, &mut outs[0])?,
            Op::Cat { dim } => index::cat::<C>(cx, *dim, ins, &mut outs[0])?,
            Op::Dropout { p, key } => {
                draws::dropout::<C>(isa, *p, *key, &operands(ins, outs[0].array())[0], &mut outs[0])
            }
            Op::Random { distribution, key, .. } => draws::random(isa, *distribution, *key, &mut outs[0]),
            Op::Fill { value, .. } => draws::constant(isa, *value, &mut outs[0]),
            Op::Range { start, .. } => draws::range(*start, ins.first().copied(), &mut outs[0]),
            Op::Cast(_) | Op::Copy if !ins[0].dtype().is_float() => {
                elementwise::cast_integers(&operands(ins, outs[0].array())[0], &mut outs[0]);
            }
            Op::Cast(_) | Op::Copy => elementwise::cast::<C>(isa, &operands(ins, outs[0].array())[0], &mut outs[0]),
            Op::StochasticCast { dtype, key } => {
                draws::stochastic_cast(isa, *dtype, *key, &operands(ins, outs[0].array())[0], &mut outs[0]);
            }
            Op::View(_) => {}
            Op::Custom(op) => custom::run::<C>(isa, op, ins, outs)?,
            Op::Backward(backward) => return self.backward_in::<C>(backward, ins, outs),
        }
        Ok(())
    }

    /// A product of an activation of operand `at` that is written first.
    fn activate_and<C: Compute>(
        &self,
        product: &Op,
        act: Unary,
        at: usize,
        ins: &[In<'_>],
        outs: &mut [Out<'_>],
    ) -> Result<()> {
        let meta = Op::Unary(act).outs(&[ins[at].meta()], ins[at].dtype())?[0];
        let activated = Array::alloc(ins[at].device(), meta, Class::Workspace)?;
        let x = operands(&ins[at..=at], &activated);
        let mut to = ArrayMut::new(product.name(), &activated)?;
        elementwise::unary::<C>(self.isa, act, &x[0], &mut Out::new(product.name(), &mut to)?);
        drop(to);
        let guard = activated.storage().read(product.name())?;
        let mut ins: SmallVec<[In<'_>; 6]> = ins.iter().copied().collect();
        ins[at] = In::new(product.name(), &activated, Some(&guard))?;
        self.run_on(product, &ins, outs)
    }

    fn backward_in<C: Compute>(&self, op: &Backward, ins: &[In<'_>], outs: &mut [Out<'_>]) -> Result<()> {
        let (cx, isa) = (self.context(), self.isa);
        let empty = |i: usize| ins[i].numel() == 0;
        match op {
            Backward::Conv2dInput { conv, .. } if empty(0) => {
                self.convolve_nothing(&Op::Backward(op.clone()), conv.groups, true, ins, outs)?;
            }
            Backward::Attention { attention, .. } if (0..4).any(empty) => {
                self.attend_nothing_backward(attention, ins, outs)?
            }
            Backward::Unary(row) => {
                let x = operands(ins, outs[0].array());
                elementwise::unary_backward::<C>(isa, *row, &x[0], &x[1], &mut outs[0]);
            }
            Backward::Binary { op, rhs } => {
                let x = operands(ins, outs[0].array());
                elementwise::binary::<C>(isa, *op, BinaryKernel::Backward(&x, *rhs), &mut outs[0]);
            }
            Backward::Scalar { op, value, reversed } => {
                let x = operands(ins, outs[0].array());
                elementwise::binary::<C>(
                    isa,
                    *op,
                    BinaryKernel::ScalarBackward(&x[0], &x[1], *value, *reversed),
                    &mut outs[0],
                );
            }
            Backward::Reduce { kind, dims } => reduce::backward::<C>(cx, *kind, *dims, ins, &mut outs[0])?,
            Backward::CumProd { dim } => gather::cumprod_backward::<C>(cx, *dim, ins, &mut outs[0])?,
            Backward::Gather { dim, .. } => {
                let part = |i: usize| ins[i];
                gather::scatter::<C>(cx, Scatter::Add, *dim, None, part(1), part(0), &mut outs[0])?;
            }
            Backward::Conv2dInput { conv, .. } => conv::input_backward::<C>(cx, conv, ins, None, &mut outs[0])?,
            Backward::Conv2dWeight { conv, .. } => conv::weight_backward::<C>(cx, conv, ins, &mut outs[0])?,
            Backward::Depthwise { conv, .. } => conv::depthwise_backward::<C>(cx, conv, ins, outs)?,
            Backward::Pool { pool, .. } => {
                debug_assert_eq!(ins.len(), if pool.kind == PoolKind::Max { 2 } else { 1 });
                pool::backward::<C>(cx, pool, ins, &mut outs[0])?;
            }
            Backward::PoolSelect { pool, .. } => pool::select::<C>(cx, pool, ins, &mut outs[0])?,
            Backward::Softmax { dim, log } => softmax::backward::<C>(cx, *dim, *log, ins, &mut outs[0])?,
            Backward::Norm(norm) => norm::backward::<C>(cx, norm, ins, outs)?,
            Backward::Renormalise(norm) => norm::again::<C>(cx, norm, ins, outs)?,
            Backward::CrossEntropy(loss) => softmax::cross_entropy_backward::<C>(cx, loss, ins, &mut outs[0])?,
            Backward::Loss { loss, parameter, reduction, target } => {
                loss::backward::<C>(isa, *loss, *parameter, *reduction, *target, ins, &mut outs[0]);
            }
            Backward::Ternary { op, value, operand } => {
                ternary::backward::<C>(isa, *op, *value, *operand, &operands(ins, outs[0].array()), &mut outs[0]);
            }
            Backward::Resample { map, shape } => {
                resample::backward::<C>(cx, map, shape, ins[0], &mut outs[0])?;
            }
            Backward::Attention { attention, .. } => attention::backward::<C>(cx, attention, ins, outs)?,
            Backward::Embedding { .. } => index::embedding_backward::<C>(cx, ins, &mut outs[0])?,
            Backward::Narrow { dim, start, .. } => index::narrow_backward::<C>(cx, *dim, *start, ins[0], &mut outs[0])?,
        }
        Ok(())
    }
}
