//! Multi-tensor passes.

use binade_tensor::{DType, DeviceMemory, Error, Findings, Outcome, Result, Update};
use bytemuck::{Pod, Zeroable};

use super::{MOST, Passed};
use crate::backend::Cuda;
use crate::memory::CudaMemory;
use crate::module::Module;
use crate::view::{View, code};

/// `Slot` of `update.cu`.
#[derive(Clone, Copy, Debug, Default, Pod, Zeroable)]
#[repr(C)]
struct Slot {
    param: u64,
    master: u64,
    grad: u64,
    state: [u64; 3],
    n: u32,
    chunk: u32,
    param_dtype: u32,
    grad_dtype: u32,
    first: u32,
    unused: u32,
}

/// `Update` of `update.cu`.
#[derive(Clone, Copy, Debug, Default, Pod, Zeroable)]
#[repr(C)]
struct Pass {
    fault: u64,
    slots: u64,
    scalars: u64,
    found: u64,
    count: u32,
    chunks: u32,
    kind: u32,
    last: u32,
    settings: [f32; 5],
    flags: u32,
}

/// Elements of a chunk.
const CHUNK: usize = 16 * 1024;
/// Blocks of a launch at most; each takes further chunks.
const BLOCKS: usize = 1 << 14;

const UNSCALE: u32 = 0;
const CENTRED: u32 = 1;
const MOVES: u32 = 2;
const NESTEROV: u32 = 4;

/// (number in kernels, settings, flags); `None` for a rule whose step depends on whole rows.
fn settings(update: &Update) -> Option<(u32, [f64; 5], u32)> {
    let flag = |on: bool, flag: u32| if on { flag } else { 0 };
    Some(match *update {
        Update::Adafactor { .. } => return None,
        Update::Unscale | Update::Norm => (UNSCALE, [0.0; 5], 0),
        Update::Scale => (1, [0.0; 5], 0),
        Update::Clamp => (2, [0.0; 5], 0),
        Update::Ema => (3, [0.0; 5], 0),
        Update::Adagrad { weight_decay, eps, initial } => (4, [weight_decay, eps, initial, 0.0, 0.0], 0),
        Update::RmsProp { alpha, eps, weight_decay, momentum, centered } => {
            let flags = flag(centered, CENTRED) | flag(momentum != 0.0, MOVES);
            (5, [alpha, 1.0 - alpha, eps, weight_decay, momentum], flags)
        }
        Update::Lion { betas, weight_decay } => {
            (6, [betas[0], 1.0 - betas[0], betas[1], 1.0 - betas[1], weight_decay], 0)
        }
        Update::Sgd { momentum, dampening, weight_decay, nesterov } => {
            let flags = flag(momentum != 0.0, MOVES) | flag(nesterov, NESTEROV);
            (7, [momentum, 1.0 - dampening, weight_decay, 0.0, 0.0], flags)
        }
        Update::Adam { betas, eps, weight_decay, decoupled } => {
            let settings = [1.0 - betas[0], betas[1], 1.0 - betas[1], eps, weight_decay];
            (8, settings, flag(decoupled, NESTEROV))
        }
    })
}

/// The pass on the device; `None` if there is no kernel for it.
pub(super) fn pass(cuda: &Cuda, update: &Update, scalars: &View, slots: &[Passed]) -> Result<Option<Outcome>> {
    let op = update.name();
    let Some((kind, settings, flags)) = settings(update) else { return Ok(None) };
    if slots.iter().any(|slot| slot.grad.numel() >= MOST) {
        return Ok(None);
    }
    let writes = matches!(update, Update::Unscale | Update::Scale | Update::Clamp);
    let gradients_only = writes || matches!(update, Update::Norm);
    if slots.iter().any(|slot| slot.writes_grad != writes || !gradients_only && slot.param.is_none()) {
        // The host says what is wrong.
        return Ok(None);
    }
    if scalars.dtype != DType::F32 || !scalars.layout.is_contiguous() || scalars.numel() == 0 {
        return Ok(None);
    }
    let p = Pass {
        fault: cuda.fault().address(),
        scalars: scalars.at(),
        kind,
        last: scalars.numel() as u32 - 1,
        settings: settings.map(|v| v as f32),
        flags,
        ..Pass::default()
    };
    let (records, chunks) = records(slots);
    // A word for what unscaling finds, or the sums of chunks and their sum.
    let finds = if matches!(update, Update::Unscale) { 1 } else { (chunks + 1) * usize::from(*update == Update::Norm) };
    let found = if finds > 0 { Some(cuda.scratch(8 * finds)?) } else { None };
    let at = found.as_ref().map_or(0, CudaMemory::address);
    if matches!(update, Update::Unscale) || finds > 0 && chunks == 0 {
        cuda.write(op, at, &vec![0; 8 * finds]);
    }
    match cuda.scratch(size_of_val(&records[..])) {
        Ok(list) => launch(cuda, update, Pass { found: at, ..p }, list.address(), (&records, chunks)),
        // Of what finds nothing no memory is needed: a pass before may have written, and this one must not fail then.
        Err(Error::OutOfMemory { .. }) if finds == 0 => {
            for slots in slots.chunks(cuda.reserve().size() / size_of::<Slot>()) {
                let (records, chunks) = self::records(slots);
                launch(cuda, update, p, cuda.reserve().address(), (&records, chunks));
            }
        }
        Err(error) => return Err(error),
    }
    Ok(Some(outcome(cuda, update, found, chunks)))
}

/// The slots that have elements, and how many chunks.
fn records(slots: &[Passed]) -> (Vec<Slot>, usize) {
    let mut records = Vec::with_capacity(slots.len());
    let mut chunks = 0;
    for slot in slots.iter().filter(|slot| slot.grad.numel() > 0) {
        let address = |view: &Option<View>| view.as_ref().map_or(0, View::at);
        let mut record = Slot {
            param: address(&slot.param),
            master: address(&slot.master),
            grad: slot.grad.at(),
            n: slot.grad.numel() as u32,
            chunk: chunks as u32,
            param_dtype: slot.param.as_ref().map_or(0, |view| code(view.dtype)),
            grad_dtype: code(slot.grad.dtype),
            first: slot.first.into(),
            ..Slot::default()
        };
        record.state.iter_mut().zip(&slot.state).for_each(|(to, view)| *to = view.at());
        chunks += slot.grad.numel().div_ceil(CHUNK);
        records.push(record);
    }
    (records, chunks)
}

/// Queues a pass over slots, with memory of the device for the list of them.
fn launch(cuda: &Cuda, update: &Update, p: Pass, list: u64, (records, chunks): (&[Slot], usize)) {
    if chunks == 0 {
        return;
    }
    let (op, blocks) = (update.name(), chunks.min(BLOCKS));
    cuda.write(op, list, bytemuck::cast_slice(records));
    let p = &Pass { slots: list, count: records.len() as u32, chunks: chunks as u32, ..p };
    let longest = records.iter().map(|record| record.n as usize).max().unwrap_or(0);
    let threads = longest.next_multiple_of(32).clamp(32, 256);
    match update {
        Update::Norm => {
            cuda.grid(op, (Module::Update, "squares"), [chunks.div_ceil(2), 1, 1], 32, p);
            cuda.grid(op, (Module::Update, "sum_of_squares"), [1, 1, 1], 32, p);
        }
        Update::Unscale | Update::Scale | Update::Clamp => {
            cuda.grid(op, (Module::Update, "scale"), [blocks, 1, 1], threads, p);
        }
        Update::Ema
        | Update::Adagrad { .. }
        | Update::RmsProp { .. }
        | Update::Lion { .. }
        | Update::Adafactor { .. }
        | Update::Sgd { .. }
        | Update::Adam { .. } => cuda.grid(op, (Module::Update, "optimise"), [blocks, 1, 1], threads, p),
    }
}

/// What the pass will have found, which comes with what is waited for next.
fn outcome(cuda: &Cuda, update: &Update, found: Option<CudaMemory>, chunks: usize) -> Outcome {
    let (cuda, op) = (cuda.clone(), update.name());
    let (norm, unscale) = (matches!(update, Update::Norm), matches!(update, Update::Unscale));
    let Some(found) = found else {
        return Outcome::later(move || cuda.wait().map(|()| Findings::default()));
    };
    let wanted = cuda.want(found, if norm { 8 * chunks as u64 } else { 0 });
    Outcome::later(move || {
        let word = cuda.get(op, &wanted)?;
        if unscale {
            return Ok(Findings { found_inf: u64::from_ne_bytes(word) != 0, norm: 0.0 });
        }
        let squares = f64::from_ne_bytes(word);
        Ok(Findings { found_inf: !squares.is_finite(), norm: squares.sqrt() })
    })
}
