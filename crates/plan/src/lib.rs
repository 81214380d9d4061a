//! [`Plan`]: a device that computes nothing and counts everything. A whole training step runs on it in the time that
//! its tape takes, of a model of any size: what it would take is known before memory is.
//!
//! The step is the real one, and so are its buffers: what [`Backend::memory`] says of this device is what the device it
//! stands for would say, class by class. What a kernel needs while it runs is looked up: each operator on operands of
//! one kind is run once, alone, on the device that is planned for ([`Scratch`]).
//!
//! ```
//! use binade_plan::{Plan, Scratch};
//! use binade_tensor::{Array, Backend, Class, DType, Device, Op, Shape, op::MatMul, run_one};
//! let plan = Plan::new(&Scratch::of(&Device::reference()));
//! let device = Device::new(plan.clone());
//! // 4 TiB, of which not a byte is there.
//! let x = Array::full(&device, DType::F32, Shape::new(&[1 << 40])?, 0.5, Class::Weights)?;
//! assert_eq!(plan.memory().live(Class::Weights), 4 << 40);
//! drop(x);
//! let a = Array::full(&device, DType::F32, Shape::new(&[2, 3])?, 0.5, Class::Activations)?;
//! let b = Array::full(&device, DType::F32, Shape::new(&[3, 4])?, 0.5, Class::Activations)?;
//! run_one(&Op::MatMul(MatMul::default()), &[&a, &b], &device, DType::F32, Class::Activations)?;
//! assert_eq!(plan.work(), (2 * 2 * 3 * 4) as f64);
//! # Ok::<(), binade_tensor::Error>(())
//! ```

#![cfg_attr(not(test), deny(clippy::print_stdout, clippy::print_stderr))]

mod scratch;

use std::any::Any;
use std::sync::{Arc, Mutex, PoisonError};

use binade_tensor::memory::Accounting;
use binade_tensor::op::work;
use binade_tensor::{
    Array, ArrayMut, Backend, Class, DType, DeviceMemory, Error, Findings, Memory, MemoryStats, Op, Outcome, Result,
    Slot, Storage, Update,
};

pub use scratch::Scratch;

/// The device. Every number on it is 0, no gradient is infinite, and nothing fails for want of memory. Clones are one
/// device, so that a hold of it can be kept: see [`Plan::work`].
#[derive(Clone, Debug)]
pub struct Plan(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    accounting: Arc<Accounting>,
    scratch: Scratch,
    work: Mutex<f64>,
}

impl Plan {
    /// With nothing on it, in the place of the device that `scratch` is of. Plans of one `scratch` share what it knows.
    pub fn new(scratch: &Scratch) -> Plan {
        Plan(Arc::new(Inner { accounting: Arc::default(), scratch: scratch.clone(), work: Mutex::default() }))
    }

    /// Floating-point operations of all products, convolutions and attentions so far, as [`work`] counts them.
    pub fn work(&self) -> f64 {
        *self.0.work.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// So many bytes, of which there are none.
#[derive(Debug)]
struct Planned {
    bytes: usize,
    class: Class,
    accounting: Arc<Accounting>,
}

impl DeviceMemory for Planned {
    fn as_any(&self) -> &dyn Any {
        self
    }

    fn size(&self) -> usize {
        self.bytes
    }
}

impl Drop for Planned {
    fn drop(&mut self) {
        self.accounting.remove(self.class, self.bytes);
    }
}

impl Backend for Plan {
    fn name(&self) -> &str {
        "plan"
    }

    fn alloc(&self, dtype: DType, len: usize, class: Class) -> Result<Arc<Storage>> {
        let none = Error::OutOfMemory { op: "", bytes: usize::MAX, class };
        let bytes = len.checked_mul(dtype.size()).ok_or(none)?;
        let accounting = self.0.accounting.clone();
        accounting.add(class, bytes);
        Ok(Storage::new(Memory::Device(Box::new(Planned { bytes, class, accounting })), class))
    }

    fn upload(&self, bytes: &[u8], to: &mut ArrayMut<'_>) -> Result<()> {
        let array = to.array();
        if bytes.len() != array.numel() * array.dtype().size() || !array.layout().is_contiguous() {
            return Err(Error::Length { shape: *array.shape(), found: bytes.len() / array.dtype().size() });
        }
        to.memory();
        Ok(())
    }

    fn download(&self, from: &Array) -> Result<Vec<u8>> {
        Ok(vec![0; from.numel() * from.dtype().size()])
    }

    fn run(&self, op: &Op, ins: &[&Array], outs: &mut [ArrayMut<'_>]) -> Result<()> {
        let Inner { accounting, scratch, work: done } = &*self.0;
        let scratch = scratch.of_op(op, ins, outs)?;
        accounting.add(Class::Workspace, scratch);
        accounting.remove(Class::Workspace, scratch);
        let metas: Vec<_> = ins.iter().map(|array| array.meta()).collect();
        if let Some(out) = outs.first() {
            *done.lock().unwrap_or_else(PoisonError::into_inner) += work(op, &metas, &out.array().meta());
        }
        for out in outs {
            out.memory();
        }
        Ok(())
    }

    fn rounds_as_it_reads(&self, op: &Op) -> bool {
        self.0.scratch.device().rounds_as_it_reads(op)
    }

    fn begin_step(&self) -> Box<dyn Any> {
        Box::new(())
    }

    fn update(&self, update: &Update, _scalars: &Array, slots: &mut [Slot<'_>]) -> Result<Outcome> {
        slots.iter().try_for_each(|slot| slot.check(update))?;
        Ok(Outcome::ready(Findings::default()))
    }

    fn memory(&self) -> MemoryStats {
        self.0.accounting.stats()
    }

    fn reset_peak_memory(&self) {
        self.0.accounting.reset_peak();
    }

    fn sync(&self) -> Result<()> {
        Ok(())
    }
}
