//! [`Remote`]: a backend whose memory host code cannot see and whose work runs as late as it may. What passes on it
//! passes on a GPU: nothing reads a result before it waits, nothing touches bytes that are elsewhere.
//!
//! For authors of backends it is also the smallest complete example of an asynchronous one: `memory.rs` is the pool,
//! `queue.rs` the commands, this file the [`Backend`]. The arithmetic is another device's, by default the reference's.
//!
//! ```
//! use binade_tensor::remote::Remote;
//! use binade_tensor::{Array, Class, DType, Device, Op, op::Unary, run_one};
//! let remote = Remote::new();
//! let device = Device::new(remote.clone());
//! let x = Array::from_slice(&device, &[1.0f32, 4.0], &[2], Class::Activations)?;
//! let y = run_one(&Op::Unary(Unary::Sqrt), &[&x], &device, DType::F32, Class::Activations)?;
//! assert_eq!(remote.counts().synchronisations, 0); // queued, not run
//! assert_eq!(y.to_vec::<f32>()?, [1.0, 2.0]);
//! assert_eq!((remote.counts().synchronisations, remote.counts().uploads), (1, 1));
//! # Ok::<(), binade_tensor::Error>(())
//! ```

mod memory;
mod queue;
#[cfg(test)]
mod tests;

use std::any::Any;
use std::ops::Sub;
use std::sync::{Arc, OnceLock};

use crate::update::{Grad, Slot, Update};
use crate::{
    Array, ArrayMut, Backend, BackendKind, Class, DType, Device, Error, Memory, MemoryStats, Op, Outcome, Result,
    Storage,
};
use memory::RemoteMemory;
use queue::{Command, Operand, Passed, Queue};

/// The backend. By name it is `remote`, and `remote-cpu` with the CPU's arithmetic. Clones are one device, so that a
/// test keeps a hold of it: see [`Remote::counts`].
///
/// - A command runs when somebody waits for it, in order; what nobody waits for does not run (until very many wait).
/// - An error of a kernel is reported by the next wait and names the operator. Commands behind it are dropped.
/// - Freed memory is given out again at once, while commands that use it are still queued.
/// - Every use of memory is checked: that it was not freed before, that it was written before it is read, that no
///   operator writes what it reads or writes twice, that views lie inside. What is wrong is [`Error::Hazard`].
#[derive(Clone, Debug)]
pub struct Remote(Arc<Queue>);

/// What a [`Remote`] was asked for. The difference of two counts is what lies between.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Times the host had to wait for work that had not run.
    pub synchronisations: usize,
    /// Copies from the host.
    pub uploads: usize,
    /// Their bytes.
    pub uploaded: usize,
    /// Copies to the host.
    pub downloads: usize,
    /// Their bytes.
    pub downloaded: usize,
    /// Operators queued.
    pub operators: usize,
    /// In-place passes queued.
    pub updates: usize,
    /// Allocations, refused ones included.
    pub allocations: usize,
}

impl Sub for Counts {
    type Output = Counts;

    fn sub(self, before: Counts) -> Counts {
        Counts {
            synchronisations: self.synchronisations - before.synchronisations,
            uploads: self.uploads - before.uploads,
            uploaded: self.uploaded - before.uploaded,
            downloads: self.downloads - before.downloads,
            downloaded: self.downloaded - before.downloaded,
            operators: self.operators - before.operators,
            updates: self.updates - before.updates,
            allocations: self.allocations - before.allocations,
        }
    }
}

impl Default for Remote {
    fn default() -> Remote {
        Remote::new()
    }
}

impl Remote {
    /// With the arithmetic of [`Device::reference`]: exact, and slow.
    pub fn new() -> Remote {
        Remote::over(&Device::reference())
    }

    /// With the arithmetic of a device whose memory is the host's: the same bits as there.
    pub fn over(device: &Device) -> Remote {
        Remote(Arc::new(Queue::new(device.clone())))
    }

    /// What it was asked for since it was made.
    pub fn counts(&self) -> Counts {
        self.0.counts()
    }

    /// Makes one allocation fail, the `n`-th from now on (1 is the next); 0 makes none fail.
    pub fn fail_allocation(&self, n: usize) {
        self.0.fail_allocation(n);
    }
}

/// One of each kind for all that open it by name.
fn shared(of: fn() -> Remote, kept: &OnceLock<Device>) -> Result<Device> {
    Ok(kept.get_or_init(|| Device::new(of())).clone())
}

crate::register_backend! {
    BackendKind {
        name: "remote",
        count: || 1,
        open: |_| {
            static DEVICE: OnceLock<Device> = OnceLock::new();
            shared(Remote::new, &DEVICE)
        },
    }
}

crate::register_backend! {
    BackendKind {
        name: "remote-cpu",
        count: || Device::kinds().filter(|kind| kind.name == "cpu").map(|kind| (kind.count)()).sum(),
        open: |_| {
            static DEVICE: OnceLock<Device> = OnceLock::new();
            shared(|| Remote::over(&Device::cpu()), &DEVICE)
        },
    }
}

impl Backend for Remote {
    fn name(&self) -> &str {
        "remote"
    }

    fn alloc(&self, dtype: DType, len: usize, class: Class) -> Result<Arc<Storage>> {
        let memory = RemoteMemory::new(&self.0, dtype, len * dtype.size(), class)?;
        Ok(Storage::new(Memory::Device(Box::new(memory)), class))
    }

    fn upload(&self, bytes: &[u8], to: &mut ArrayMut<'_>) -> Result<()> {
        let (array, to) = (to.array(), self.written("upload", to)?);
        if bytes.len() != array.numel() * array.dtype().size() || !array.layout().is_contiguous() {
            return Err(Error::Length { shape: *array.shape(), found: bytes.len() / array.dtype().size() });
        }
        self.0.push(Command::Upload { bytes: bytes.to_vec(), to });
        Ok(())
    }

    fn download(&self, from: &Array) -> Result<Vec<u8>> {
        let (bytes, from) = (Arc::new(OnceLock::new()), self.read("download", from)?);
        let ticket = self.0.push(Command::Download { from, bytes: bytes.clone() });
        self.0.wait(ticket)?;
        bytes.get().cloned().ok_or_else(|| self.not_run("download"))
    }

    fn run(&self, op: &Op, ins: &[&Array], outs: &mut [ArrayMut<'_>]) -> Result<()> {
        let mut operands = Vec::with_capacity(ins.len());
        for (at, array) in ins.iter().enumerate() {
            // Of what is written over an operand the one borrow is that for writing.
            let over = outs.first().is_some_and(|out| out.overwrites(op, at, array));
            operands.push(if over { self.operand(op.name(), array)? } else { self.read(op.name(), array)? });
        }
        let outs = outs.iter_mut().map(|out| self.written(op.name(), out)).collect::<Result<_>>()?;
        self.0.push(Command::Run { op: op.clone(), ins: operands, outs });
        Ok(())
    }

    fn rounds_as_it_reads(&self, op: &Op) -> bool {
        self.0.inner().rounds_as_it_reads(op)
    }

    fn begin_step(&self) -> Box<dyn Any> {
        self.0.inner().begin_step()
    }

    fn update(&self, update: &Update, scalars: &Array, slots: &mut [Slot<'_>]) -> Result<Outcome> {
        let name = update.name();
        slots.iter().try_for_each(|slot| slot.check(update))?;
        let scalars = self.read(name, scalars)?;
        let mut passed = Vec::with_capacity(slots.len());
        for slot in slots {
            let (grad, writes_grad) = match &mut slot.grad {
                Grad::Read(grad) => (self.read(name, grad)?, false),
                Grad::Write(grad) => (self.written(name, grad)?, true),
            };
            let lent = |array: &mut Option<ArrayMut<'_>>| array.as_mut().map(|a| self.written(name, a)).transpose();
            let (param, master) = (lent(&mut slot.param)?, lent(&mut slot.master)?);
            let state = slot.state.iter_mut().map(|state| self.written(name, state)).collect::<Result<_>>()?;
            passed.push(Passed { param, master, grad, writes_grad, state, first: slot.first });
        }
        let found = Arc::new(OnceLock::new());
        let command = Command::Update { update: update.clone(), scalars, slots: passed, found: found.clone() };
        let (ticket, remote) = (self.0.push(command), self.clone());
        Ok(Outcome::later(move || {
            remote.0.wait(ticket)?;
            found.get().copied().ok_or_else(|| remote.not_run(name))
        }))
    }

    fn memory(&self) -> MemoryStats {
        self.0.accounting().stats()
    }

    fn reset_peak_memory(&self) {
        self.0.accounting().reset_peak();
    }

    fn sync(&self) -> Result<()> {
        self.0.wait(u64::MAX)
    }
}

impl Remote {
    fn not_run(&self, op: &'static str) -> Error {
        Error::NotRun { op, backend: self.name().into() }
    }

    /// An array that is borrowed for the command alone.
    fn read(&self, op: &'static str, array: &Array) -> Result<Operand> {
        let _guard = array.storage().read(op)?;
        self.operand(op, array)
    }

    fn written(&self, op: &'static str, array: &mut ArrayMut<'_>) -> Result<Operand> {
        array.memory();
        self.operand(op, array.array())
    }

    fn operand(&self, op: &'static str, array: &Array) -> Result<Operand> {
        let elsewhere = || Error::Device { op, first: self.name().into(), second: array.device().name().into() };
        let Memory::Device(memory) = array.storage().memory() else { return Err(elsewhere()) };
        let memory = memory.as_any().downcast_ref::<RemoteMemory>().filter(|m| m.is_of(&self.0));
        Ok(memory.ok_or_else(elsewhere)?.operand(array.meta(), array.stored()))
    }
}
