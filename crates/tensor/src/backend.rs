//! [`Backend`]: what a device must be able to do, and [`Device`], the handle tensors keep to one.

use std::any::Any;
use std::sync::{Arc, OnceLock};

use crate::update::{Outcome, Slot, Update};
use crate::{Array, Class, DType, MemoryStats, Op, Result, Storage};

/// A device. Object-safe, few methods, none optional.
///
/// A device may be asynchronous: [`Backend::upload`], [`Backend::run`] and [`Backend::update`] return when their work
/// is queued. These rules make that safe, and [`crate::remote::Remote`] is a backend that holds callers to them:
/// - Commands take effect in the order in which they were given. A borrow of a [`Storage`] therefore ends when the
///   command is queued, and memory that is dropped may be given out again at once.
/// - Only [`Backend::download`], [`Backend::sync`] and [`Outcome::wait`] wait.
/// - What a kernel finds wrong (an index out of range, an illegal access) is reported by the next call that waits,
///   with the operator's name. Commands that were queued behind it do not run. What shapes, dtypes and devices show is
///   an error of the call itself, as is memory that cannot be had.
/// - Its memory is [`crate::Memory::Device`]. Host code sees it only through uploads and downloads.
pub trait Backend: Send + Sync + std::fmt::Debug {
    /// Name for messages and reports: `cpu`, `reference`.
    fn name(&self) -> &str;

    /// Storage for `len` elements; its contents are arbitrary but initialised.
    ///
    /// # Errors
    /// Out of memory.
    fn alloc(&self, dtype: DType, len: usize, class: Class) -> Result<Arc<Storage>>;

    /// Copies host bytes (native endianness) into the elements of `to`, which is contiguous. They are read before it
    /// returns.
    ///
    /// # Errors
    /// The storage is in use, or the device fails.
    fn upload(&self, bytes: &[u8], to: &mut ArrayMut<'_>) -> Result<()>;

    /// The bytes of a contiguous array, when all that is queued before has run.
    ///
    /// # Errors
    /// The storage is being written, or the device fails, or has failed since the last wait.
    fn download(&self, from: &Array) -> Result<Vec<u8>>;

    /// Runs one operator. Shapes, dtypes and layouts of `outs` are those [`Op::outs`] gave (another dense layout is
    /// allowed); inputs may have any strides and any mixture of float dtypes: kernels widen while they load and round
    /// once while they store. Inputs of operators for which [`Backend::rounds_as_it_reads`] may be casts that
    /// were left to whoever reads.
    ///
    /// The only output may be one of the inputs, where [`ArrayMut::overwrites`] says so; its storage is then borrowed
    /// for writing alone.
    ///
    /// # Errors
    /// Values that the operator refuses (an index out of range), storage in use, device failures.
    fn run(&self, op: &Op, ins: &[&Array], outs: &mut [ArrayMut<'_>]) -> Result<()>;

    /// Whether [`Backend::run`] of this operator takes inputs whose cast was left to whoever reads
    /// ([`Array::cast_when_read`]), and rounds them as it does. For other operators [`crate::run`] makes the cast
    /// first.
    fn rounds_as_it_reads(&self, op: &Op) -> bool;

    /// Tells that a step of many operators begins, which ends when the value is dropped. What a backend prepares for
    /// it, as threads that do not sleep between operators, changes no result.
    fn begin_step(&self) -> Box<dyn Any>;

    /// Runs one multi-tensor in-place pass over `slots`; never recorded by autograd. `scalars` holds the numbers that
    /// change from step to step, in the order [`Update`] documents.
    ///
    /// # Errors
    /// As for [`Backend::run`].
    fn update(&self, update: &Update, scalars: &Array, slots: &mut [Slot<'_>]) -> Result<Outcome>;

    /// Bytes in use and peaks, by class.
    fn memory(&self) -> MemoryStats;

    /// Starts the peaks of [`Backend::memory`] anew.
    fn reset_peak_memory(&self);

    /// Waits for all queued work and returns the first error it met.
    ///
    /// # Errors
    /// A deferred error of an earlier call.
    fn sync(&self) -> Result<()>;
}

/// A writable array: holds the write borrow of its storage while it lives.
#[derive(Debug)]
pub struct ArrayMut<'a> {
    array: &'a Array,
    guard: crate::storage::WriteGuard<'a>,
}

impl<'a> ArrayMut<'a> {
    /// Borrows `array` for writing.
    ///
    /// # Errors
    /// [`crate::Error::InUse`] while others use the storage; [`crate::Error::DType`] if the elements in memory are of
    /// another type; [`crate::Error::Argument`] if they do not fill a stretch of it, each place once, as kernels write.
    pub fn new(op: &'static str, array: &'a Array) -> Result<ArrayMut<'a>> {
        if !array.is_written() {
            let expected = "an output that is no cast of another array".into();
            return Err(crate::Error::DType { op, expected, dtypes: vec![array.dtype(), array.stored()] });
        }
        if !array.layout().is_dense() {
            let (shape, strides) = (array.shape(), array.layout().strides);
            let message =
                format!("a view of shape {shape:?} and strides {strides:?} has gaps and cannot be written to");
            return Err(crate::Error::Argument { op, message });
        }
        Ok(ArrayMut { array, guard: array.storage().write(op)? })
    }

    /// The array, for shape, dtype and layout.
    pub fn array(&self) -> &'a Array {
        self.array
    }

    /// Whether this memory is an input's too.
    pub fn is_over(&self, input: &Array) -> bool {
        Arc::ptr_eq(self.array.storage(), input.storage())
    }

    /// Whether `op`, whose output this is, writes it over operand `at` and reads that from here: a borrow for reading
    /// cannot be had.
    pub fn overwrites(&self, op: &Op, at: usize, input: &Array) -> bool {
        self.is_over(input) && op.may_overwrite(at) && self.array.meta() == input.meta()
    }

    /// The memory, for a backend that is about to write to it: the version rises.
    pub fn memory(&mut self) -> &crate::Memory {
        self.guard.memory()
    }

    /// All bytes of a host storage, to be written to: the version rises.
    pub fn bytes(&mut self) -> Option<&mut [u8]> {
        self.guard.bytes()
    }
}

/// A handle to a [`Backend`]. Equal when it is the same device.
#[derive(Clone)]
pub struct Device(Arc<dyn Backend>);

impl Device {
    /// A device from its backend.
    pub fn new(backend: impl Backend + 'static) -> Device {
        Device(Arc::new(backend))
    }

    /// The oracle: naive loops in f64, rounded once. For tests.
    pub fn reference() -> Device {
        static REFERENCE: OnceLock<Device> = OnceLock::new();
        REFERENCE.get_or_init(|| Device::new(crate::reference::Reference::new())).clone()
    }
}

impl std::ops::Deref for Device {
    type Target = dyn Backend;
    fn deref(&self) -> &Self::Target {
        &*self.0
    }
}

impl PartialEq for Device {
    fn eq(&self, other: &Device) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl std::fmt::Debug for Device {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}
