//! The oracle: every operator by naive loops in f64 over row-major copies, rounded once into the output. Written from
//! the formulas, not from the kernels; slow, and used by tests only.

mod attention;
mod conv;
mod cross_entropy;
mod custom;
mod definition;
mod elementwise;
#[cfg(feature = "oracle")]
mod errors;
mod functions;
mod index;
mod loss;
mod norm;
#[cfg(feature = "oracle")]
mod padding;
mod pool;
mod product;
mod quantised;
mod random;
mod reduce;
mod resample;
mod scan;
mod shape;
mod softmax;
mod update;

pub(crate) use definition::Definition;

#[cfg(feature = "oracle")]
pub(crate) use errors::errors;
#[cfg(feature = "oracle")]
pub(crate) use padding::padding_meets_infinity;

use std::any::Any;
use std::sync::Arc;

use crate::integers::{Integer as _, run_by_rank};
use crate::memory::Pool;
use crate::op::Distribution;
use crate::update::Update;
use crate::{
    Array, ArrayMut, Backend, Class, DType, Element, Error, Findings, Layout, Memory, MemoryStats, Op, Outcome, Result,
    Slot, Storage,
};

/// The reference backend.
#[derive(Debug, Default)]
pub struct Reference {
    pool: Pool,
}

impl Reference {
    /// With a memory pool of its own.
    pub fn new() -> Reference {
        Reference::default()
    }
}

/// A row-major copy of a tensor in f64.
#[derive(Clone, Debug)]
pub(crate) struct Dense {
    pub shape: Vec<usize>,
    pub v: Vec<f64>,
}

impl Dense {
    fn zeros(shape: &[usize]) -> Dense {
        Dense { shape: shape.to_vec(), v: vec![0.0; shape.iter().product()] }
    }

    /// Flat position of an index; indices of broadcast dimensions count as 0, missing leading ones are dropped.
    fn flat(&self, index: &[usize]) -> usize {
        let lead = index.len() - self.shape.len();
        self.shape.iter().zip(&index[lead..]).fold(0, |flat, (&n, &i)| flat * n + if n == 1 { 0 } else { i })
    }

    fn at(&self, index: &[usize]) -> f64 {
        self.v[self.flat(index)]
    }

    /// All elements along a dimension of the index, whatever its own entry there.
    fn along(&self, index: &[usize], dim: usize) -> impl Iterator<Item = f64> + '_ {
        let d = dim - (index.len() - self.shape.len());
        let stride = self.shape[d + 1..].iter().product::<usize>().max(1);
        let first = self.flat(index) - if self.shape[d] == 1 { 0 } else { index[dim] * stride };
        self.v.get(first..).unwrap_or_default().iter().step_by(stride).take(self.shape[d]).copied()
    }

    fn set(&mut self, index: &[usize], value: f64) {
        let flat = self.flat(index);
        self.v[flat] = value;
    }

    /// Σ into an element.
    fn add(&mut self, index: &[usize], value: f64) {
        let flat = self.flat(index);
        self.v[flat] += value;
    }

    /// Σ of a row times a factor into the row at an index.
    fn add_row(&mut self, index: &[usize], factor: f64, row: impl Iterator<Item = f64>) {
        let flat = self.flat(index);
        self.v[flat..].iter_mut().zip(row).for_each(|(sum, v)| *sum += factor * v);
    }

    /// A tensor from a function of the index.
    fn from_fn(shape: &[usize], mut f: impl FnMut(&[usize]) -> f64) -> Dense {
        let mut out = Dense::zeros(shape);
        let mut index = vec![0; shape.len()];
        for v in &mut out.v {
            *v = f(&index);
            // The next index: the last dimension is the fastest, and one at its end starts again.
            for d in (0..shape.len()).rev() {
                index[d] += 1;
                if index[d] < shape[d] {
                    break;
                }
                index[d] = 0;
            }
        }
        out
    }
}

/// The index of a flat position.
fn unflatten(mut flat: usize, shape: &[usize]) -> Vec<usize> {
    let mut index = vec![0; shape.len()];
    for d in (0..shape.len()).rev() {
        index[d] = flat % shape[d];
        flat /= shape[d];
    }
    index
}

/// NaN is larger than any number; zeros are equal.
fn order(a: f64, b: f64) -> std::cmp::Ordering {
    (a.is_nan(), a).partial_cmp(&(b.is_nan(), b)).unwrap_or(std::cmp::Ordering::Equal)
}

/// Storage positions of all elements of a layout, in row-major order.
fn positions(layout: &Layout) -> impl Iterator<Item = usize> + '_ {
    let (mut index, mut at) = ([0; crate::MAX_RANK], layout.offset);
    (0..layout.numel()).map(move |_| {
        let here = at;
        for d in (0..layout.shape.rank()).rev() {
            index[d] += 1;
            at += layout.strides[d];
            if index[d] < layout.shape[d] {
                break;
            }
            at -= index[d] * layout.strides[d];
            index[d] = 0;
        }
        here
    })
}

/// The nearest number. Written out, a 16-bit type's own function would be called, which drops bits of an f64 before it
/// rounds.
fn rounded<T: Element>(v: f64) -> T {
    T::from_f64(v)
}

fn read(array: &Array, bytes: &[u8]) -> Dense {
    let places = positions(array.layout());
    let mut v: Vec<f64> =
        crate::with_element!(array.stored(), T => places.map(|at| element::<T>(bytes, at).as_f64()).collect());
    if !array.is_written() {
        crate::with_element!(array.dtype(), T => v.iter_mut().for_each(|v| *v = rounded::<T>(*v).as_f64()));
    }
    Dense { shape: array.shape().to_vec(), v }
}

/// The result of operators that make or convert integers, which f64 would round.
fn integers(op: &Op, ins: &[&Array]) -> Result<Option<Vec<i64>>> {
    let values = |array: &Array| -> Result<Vec<i64>> {
        let guard = array.storage().read(op.name())?;
        let bytes = guard.bytes().unwrap_or_default();
        let value = |at: usize| crate::with_element!(array.dtype(), T => element::<T>(bytes, at).as_integer());
        Ok(positions(array.layout()).map(value).collect())
    };
    if let Op::Range { start, length } = op {
        let base = ins.first().map(|base| values(base)).transpose()?.map_or(0, |base| base[0]);
        return Ok(Some((0..*length as i64).map(|i| start.wrapping_add(base).wrapping_add(i)).collect()));
    }
    if let Op::Random { distribution: distribution @ Distribution::Integers { .. }, shape, key } = op {
        return Ok(Some(random::integers(distribution, *key, shape.numel())));
    }
    if !matches!(op, Op::Cast(_) | Op::Copy) || ins[0].dtype().is_float() {
        return Ok(None);
    }
    values(ins[0]).map(Some)
}

fn write_integers(values: &[i64], out: &mut ArrayMut<'_>) {
    let (dtype, layout) = (out.array().dtype(), *out.array().layout());
    let Some(bytes) = out.bytes() else { return };
    for (at, &v) in positions(&layout).zip(values) {
        crate::with_element!(dtype, T => set(bytes, at, T::from_integer(v)));
    }
}

/// Element `at` of a tensor's bytes.
fn element<T: Element>(bytes: &[u8], at: usize) -> T {
    let bytes = &bytes[at * size_of::<T>()..][..size_of::<T>()];
    // SAFETY: bytes of one element; every bit pattern but bool's is a value, and bool storage only ever gets bools.
    unsafe { bytes.as_ptr().cast::<T>().read_unaligned() }
}

/// Writes element `at`.
fn set<T: Element>(bytes: &mut [u8], at: usize, value: T) {
    let bytes = &mut bytes[at * size_of::<T>()..][..size_of::<T>()];
    // SAFETY: bytes of one element.
    unsafe { bytes.as_mut_ptr().cast::<T>().write_unaligned(value) }
}

/// Rounds every value once into the output.
fn write(values: &Dense, out: &mut ArrayMut<'_>) {
    let array = out.array();
    let (dtype, layout) = (array.dtype(), *array.layout());
    let Some(bytes) = out.bytes() else { return };
    let places = positions(&layout).zip(&values.v);
    crate::with_element!(dtype, T => places.for_each(|(at, &v)| set(bytes, at, rounded::<T>(v))));
}

impl Backend for Reference {
    fn name(&self) -> &str {
        "reference"
    }

    fn alloc(&self, dtype: DType, len: usize, class: Class) -> Result<Arc<Storage>> {
        let bytes = len * dtype.size();
        let mut buffer = self.pool.alloc(bytes, class).ok_or(Error::OutOfMemory { op: "", bytes, class })?;
        buffer.as_mut_slice::<u8>().fill(0);
        Ok(Storage::new(Memory::Host(buffer), class))
    }

    fn upload(&self, bytes: &[u8], to: &mut ArrayMut<'_>) -> Result<()> {
        let at = to.array().layout().offset * to.array().dtype().size();
        if let Some(target) = to.bytes() {
            target[at..at + bytes.len()].copy_from_slice(bytes);
        }
        Ok(())
    }

    fn download(&self, from: &Array) -> Result<Vec<u8>> {
        let guard = from.storage().read("download")?;
        let at = from.layout().offset * from.dtype().size();
        Ok(guard.bytes().unwrap_or_default()[at..at + from.numel() * from.dtype().size()].to_vec())
    }

    fn run(&self, op: &Op, ins: &[&Array], outs: &mut [ArrayMut<'_>]) -> Result<()> {
        if run_by_rank(op, ins, outs)? {
            return Ok(());
        }
        if let Some(values) = integers(op, ins)? {
            write_integers(&values, &mut outs[0]);
            return Ok(());
        }
        let mut values = Vec::new();
        for (at, array) in ins.iter().enumerate() {
            if let Some(out) = outs.first_mut().filter(|out| out.overwrites(op, at, array)) {
                values.push(load(out));
                continue;
            }
            let guard = array.storage().read(op.name())?;
            values.push(read(array, guard.bytes().unwrap_or_default()));
        }
        let shapes: Vec<Vec<usize>> = outs.iter().map(|o| o.array().shape().to_vec()).collect();
        let results = op.family(|family| family.evaluate(&values, &shapes))?;
        for (result, out) in results.iter().zip(outs) {
            write(result, out);
        }
        Ok(())
    }

    fn rounds_as_it_reads(&self, _op: &Op) -> bool {
        false
    }

    fn begin_step(&self) -> Box<dyn Any> {
        Box::new(())
    }

    fn update(&self, update: &Update, scalars: &Array, slots: &mut [Slot<'_>]) -> Result<Outcome> {
        let scalars = scalars.to_f64_vec()?;
        let mut found = Findings::default();
        let mut squares = 0.0;
        for slot in slots {
            update::one(update, &scalars, slot, &mut found, &mut squares)?;
        }
        found.norm = squares.sqrt();
        found.found_inf |= matches!(update, Update::Norm) && !squares.is_finite();
        Ok(Outcome::ready(found))
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

fn load(array: &mut ArrayMut<'_>) -> Dense {
    let inner = array.array();
    let bytes = array.bytes().map(|b| b.to_vec()).unwrap_or_default();
    read(inner, &bytes)
}
