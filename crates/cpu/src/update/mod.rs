//! Multi-tensor passes. The blocks of all tensors are one list of tasks, so that many small tensors cost no more than a
//! large one. It is cut by size alone, so that results do not depend on the number of threads. Here are those over
//! gradients, and what all share; the optimisers are in [`steps`] and, where a step depends on whole rows,
//! [`adafactor`].

mod adafactor;
mod steps;

use rayon::prelude::*;

use super::operand::{BLOCK, Compute, TASK, elements};
use super::tasks::Tasks as _;
use crate::simd::{Isa, Kernel, Lanes, dispatch};
use binade_tensor::update::{Findings, Grad, Outcome, Slot, Update};
use binade_tensor::{Array, DType, Error, ReadGuard, Result};

pub(super) fn update(isa: Isa, update: &Update, scalars: &[f32], slots: &mut [Slot<'_>]) -> Result<Outcome> {
    for slot in slots.iter() {
        slot.check(update)?;
    }
    let is_wide = |slot: &&mut Slot<'_>| {
        slot.param.iter().map(|p| p.array()).chain([slot.grad.array()]).any(|array| array.dtype() == DType::F64)
    };
    let (wide, others): (Vec<_>, Vec<_>) = slots.iter_mut().partition(is_wide);
    let parts = [pass::<f32>(isa, update, scalars, others)?, pass::<f64>(isa, update, scalars, wide)?];
    let squares = parts[0].squares + parts[1].squares;
    let found_inf = parts[0].found_inf || parts[1].found_inf;
    Ok(Outcome::ready(Findings { found_inf, norm: squares.sqrt() }))
}

/// What a pass over some of the slots found.
#[derive(Default)]
struct Found {
    found_inf: bool,
    squares: f64,
}

/// A pass in the computing type C.
fn pass<C: Compute>(isa: Isa, update: &Update, scalars: &[f32], slots: Vec<&mut Slot<'_>>) -> Result<Found> {
    if slots.is_empty() {
        return Ok(Found::default());
    }
    let Some((&last, _)) = scalars.split_last() else {
        return Err(Error::Argument { op: update.name(), message: "needs its scalars".into() });
    };
    let factor = C::from_f64(last as f64);
    if matches!(update, Update::Unscale | Update::Scale | Update::Clamp) {
        return in_place(isa, update, factor, slots);
    }
    if matches!(update, Update::Norm) {
        return norm(isa, factor, slots);
    }
    if matches!(update, Update::Adafactor { .. }) {
        slots.into_iter().try_for_each(|slot| adafactor::step::<C>(isa, update, scalars, slot))?;
    } else {
        let scalars: Vec<C> = scalars.iter().map(|&s| C::from_f64(s as f64)).collect();
        steps::steps(isa, update, &scalars, slots)?;
    }
    Ok(Found::default())
}

fn host(update: &Update, dtype: DType) -> Error {
    Error::Unsupported { op: update.name(), backend: "cpu".into(), dtype }
}

/// The gradient of a slot was given for reading where it is written, or the other way round.
fn access(update: &Update) -> Error {
    let message = "the gradient must be writable for unscale, scale and clamp, readable else".into();
    Error::Argument { op: update.name(), message }
}

/// Runs the tasks, on this thread if all of them together are small, and returns what they return in order.
fn each<T: Send, R: Send>(elements: usize, tasks: Vec<T>, f: impl Fn(T) -> R + Sync + Send) -> Vec<R> {
    if elements <= TASK { tasks.into_iter().map(f).collect() } else { tasks.into_par_iter().list(f) }
}

/// Multiplies or limits gradients.
fn in_place<C: Compute>(isa: Isa, update: &Update, factor: C, slots: Vec<&mut Slot<'_>>) -> Result<Found> {
    let clamp = matches!(update, Update::Clamp);
    let (mut tasks, mut elements) = (Vec::new(), 0);
    for slot in slots {
        let Grad::Write(grad) = &mut slot.grad else { return Err(access(update)) };
        let array = grad.array();
        let dtype = array.dtype();
        let bytes = window_mut(array, grad.bytes().ok_or_else(|| host(update, dtype))?);
        elements += array.numel();
        tasks.extend(bytes.chunks_mut(TASK * dtype.size()).map(|chunk| (dtype, chunk)));
    }
    let bad = each(elements, tasks, |(dtype, chunk)| {
        let mut bad = false;
        let mut buffer = [C::zero(); BLOCK];
        for block in chunk.chunks_mut(BLOCK * dtype.size()) {
            let values = &mut buffer[..block.len() / dtype.size()];
            C::load(isa, dtype, block, 0, 1, values);
            for v in values.iter_mut() {
                *v = match clamp {
                    true if *v > factor => factor,
                    true if *v < -factor => -factor,
                    true => *v,
                    false => *v * factor,
                };
                // After the product: a scale below 1 can make it overflow. What was not finite stays so.
                bad |= !v.is_finite();
            }
            C::store(isa, values, block, dtype);
        }
        bad
    });
    Ok(Found { found_inf: bad.contains(&true), squares: 0.0 })
}

/// `Σ (x·factor)²` in f64, in 16 interleaved partial sums. The product is rounded to C as the optimiser will see it.
struct Squares<'a, C>(C, &'a [C]);

impl<C: Compute> Kernel<f32> for Squares<'_, C> {
    type Output = f64;
    #[inline(always)]
    fn run<L: Lanes<Elem = f32>>(self) -> f64 {
        let Squares(factor, x) = self;
        // Squares in f64: an f32 gradient of 1e20 must not overflow the norm.
        let square = |x: C| {
            let v = (x * factor).as_f64();
            v * v
        };
        let mut sums = [0.0; 16];
        let groups = x.chunks_exact(16);
        let rest = groups.remainder();
        for group in groups {
            for i in 0..16 {
                sums[i] += square(group[i]);
            }
        }
        sums.iter_mut().zip(rest).for_each(|(sum, &x)| *sum += square(x));
        sums.iter().sum()
    }
}

/// Gradients' bytes, for as long as they are borrowed.
fn read<'a>(update: &Update, slots: &[&mut Slot<'a>]) -> Result<Vec<(&'a Array, ReadGuard<'a>)>> {
    let guard = |slot: &&mut Slot<'a>| match &slot.grad {
        Grad::Read(grad) => Ok((*grad, grad.storage().read(update.name())?)),
        Grad::Write(_) => Err(access(update)),
    };
    slots.iter().map(guard).collect()
}

fn norm<C: Compute>(isa: Isa, factor: C, slots: Vec<&mut Slot<'_>>) -> Result<Found> {
    let update = &Update::Norm;
    let grads = read(update, &slots)?;
    let (mut tasks, mut elements) = (Vec::new(), 0);
    for (array, guard) in &grads {
        let dtype = array.dtype();
        let bytes = window(array, guard.bytes().ok_or_else(|| host(update, dtype))?);
        elements += array.numel();
        tasks.extend(bytes.chunks(TASK * dtype.size()).map(|chunk| (dtype, chunk)));
    }
    let squares: f64 = each(elements, tasks, |(dtype, chunk)| {
        let mut buffer = [C::zero(); BLOCK];
        let blocks = chunk.chunks(BLOCK * dtype.size());
        blocks.map(|block| dispatch(isa, Squares(factor, values(isa, dtype, block, &mut buffer)))).sum::<f64>()
    })
    .into_iter()
    .sum();
    // A sum of finite squares of f32 numbers does not overflow in f64.
    Ok(Found { found_inf: !squares.is_finite(), squares })
}

/// The elements of a block: as they are, or widened into the buffer.
fn values<'a, C: Compute>(isa: Isa, dtype: DType, bytes: &'a [u8], buffer: &'a mut [C; BLOCK]) -> &'a [C] {
    if dtype == C::DTYPE {
        return elements(bytes);
    }
    let buffer = &mut buffer[..bytes.len() / dtype.size()];
    C::load(isa, dtype, bytes, 0, 1, buffer);
    buffer
}

/// The bytes of the elements of a contiguous array.
fn window<'a>(array: &Array, bytes: &'a [u8]) -> &'a [u8] {
    let (size, offset) = (array.dtype().size(), array.layout().offset);
    &bytes[offset * size..(offset + array.numel()) * size]
}

fn window_mut<'a>(array: &Array, bytes: &'a mut [u8]) -> &'a mut [u8] {
    let (size, offset) = (array.dtype().size(), array.layout().offset);
    &mut bytes[offset * size..(offset + array.numel()) * size]
}
