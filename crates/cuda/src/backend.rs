//! [`Cuda`]: the backend. What it has kernels for runs on the device; anything else by the host, and is counted.

mod wait;

use std::any::Any;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use binade_tensor::{
    Array, ArrayMut, Backend, Class, DType, Device, Error, Grad, Memory, MemoryStats, Op, Outcome, Result, Slot,
    Storage, Update,
};

use crate::driver::{Driver, Launch};
use crate::fault::Fault;
use crate::memory::{CudaMemory, Pool};
use crate::module::Module;
use crate::view::View;
use crate::{fallback, kernels};
use wait::Wanted;

/// A CUDA device. Clones are one device.
#[derive(Clone, Debug)]
pub struct Cuda(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    pool: Arc<Pool>,
    fault: Fault,
    /// For what must not fail where no memory is left.
    reserve: CudaMemory,
    state: Mutex<State>,
    /// Held while one thread waits: what it brings for another is there when that one waits in its turn.
    waiting: Mutex<()>,
    /// Results of functions for every 16-bit code, by function and format.
    tables: Mutex<BTreeMap<(usize, DType), Arc<CudaMemory>>>,
}

#[derive(Debug, Default)]
struct State {
    /// The first error since the last wait, which nothing that is queued behind it survives.
    failure: Option<Error>,
    /// Whether it is of a kernel that ran: those behind an index out of range do nothing, so it came before.
    of_kernel: bool,
    /// What the next wait brings along.
    wanted: Vec<Weak<Wanted>>,
    counts: Counts,
}

/// What a device was asked for since it was opened.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Operators and passes.
    pub operators: usize,
    /// Kernels launched.
    pub launches: usize,
    /// How often the host waited for the device.
    pub waits: usize,
    /// Copies to the device.
    pub uploads: usize,
    /// How often the driver was asked for memory that the pool did not have.
    pub allocations: usize,
    /// Operators and passes that the host ran, by name.
    pub fallbacks: BTreeMap<&'static str, usize>,
}

/// Bytes that are kept for what must not fail.
const RESERVE: usize = 16 << 10;

/// Devices that were opened by name.
static OPENED: Mutex<Vec<(Device, Cuda)>> = Mutex::new(Vec::new());

impl Cuda {
    /// The device of a driver.
    ///
    /// # Errors
    /// It has no memory.
    pub fn new(driver: impl Driver) -> Result<Cuda> {
        let pool = Arc::new(Pool::new(Box::new(driver)));
        let (fault, reserve) = (Fault::new(&pool)?, pool.alloc(RESERVE, Class::Workspace)?);
        let (state, waiting, tables) = Default::default();
        Ok(Cuda(Arc::new(Inner { pool, fault, reserve, state, waiting, tables })))
    }

    /// As a device that [`Cuda::of`] knows.
    pub(crate) fn into_opened(self) -> Device {
        let device = Device::new(self.clone());
        OPENED.lock().unwrap_or_else(PoisonError::into_inner).push((device.clone(), self));
        device
    }

    /// The backend of a device that was opened by its name.
    pub fn of(device: &Device) -> Option<Cuda> {
        let opened = OPENED.lock().unwrap_or_else(PoisonError::into_inner);
        opened.iter().find(|(known, _)| known == device).map(|(_, cuda)| cuda.clone())
    }

    /// The compute capability, 90 for 9.0, by which kernels are chosen.
    pub fn capability(&self) -> u32 {
        self.driver().capability()
    }

    /// What it was asked for so far.
    pub fn counts(&self) -> Counts {
        Counts { allocations: self.0.pool.allocations(), ..self.state().counts.clone() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn driver(&self) -> &dyn Driver {
        self.0.pool.driver()
    }

    /// Memory for a kernel while it runs: freed when the value is dropped, which may be before the kernel has run.
    pub(crate) fn scratch(&self, bytes: usize) -> Result<CudaMemory> {
        self.0.pool.alloc(bytes, Class::Workspace)
    }

    /// Memory that is always there, for whoever is launched next: commands take effect in order.
    pub(crate) fn reserve(&self) -> &CudaMemory {
        &self.0.reserve
    }

    /// Address of what tells kernels not to run.
    pub(crate) fn fault(&self) -> &Fault {
        &self.0.fault
    }

    /// Queues a kernel with threads in one dimension, unless something before it failed.
    pub(crate) fn launch(&self, op: &'static str, launch: Launch<'_>) {
        {
            let mut state = self.state();
            if state.failure.is_some() {
                return;
            }
            state.counts.launches += 1;
        }
        if let Err(failure) = self.driver().launch(&launch) {
            let mut state = self.state();
            state.of_kernel |= state.failure.is_none();
            state.failure.get_or_insert(failure.during(op));
        }
    }

    /// Queues a kernel over `n` elements.
    pub(crate) fn over<P: bytemuck::Pod>(&self, op: &'static str, at: (Module, &str), n: usize, parameter: &P) {
        /// Threads take further elements from here on.
        const BLOCKS: usize = 1 << 16;
        let block = n.next_multiple_of(32).clamp(32, 256);
        let grid = n.div_ceil(block).clamp(1, BLOCKS);
        self.grid(op, at, [grid, 1, 1], block, parameter);
    }

    /// Queues a kernel on a grid of blocks.
    pub(crate) fn grid<P: bytemuck::Pod>(
        &self,
        op: &'static str,
        (module, kernel): (Module, &str),
        grid: [usize; 3],
        block: usize,
        parameter: &P,
    ) {
        if grid[0] > i32::MAX as usize || grid[1].max(grid[2]) > kernels::MOST_BLOCKS {
            let message =
                format!("kernel {kernel} wants a grid of {grid:?} blocks, and CUDA has 2147483647 × 65535 × 65535");
            return self.fail(Error::Argument { op, message });
        }
        let parameter = bytemuck::bytes_of(parameter);
        let grid = grid.map(|n| n as u32);
        self.launch(op, Launch { module, kernel, grid, block: [block as u32, 1, 1], parameter });
    }

    /// Copies host bytes into memory of the device.
    pub(crate) fn write(&self, op: &'static str, to: u64, bytes: &[u8]) {
        if bytes.is_empty() {
            return;
        }
        self.state().counts.uploads += 1;
        if let Err(failure) = self.driver().write(to, bytes) {
            self.fail(failure.during(op));
        }
    }

    /// Notes an error that the next wait reports.
    pub(crate) fn fail(&self, error: Error) {
        self.state().failure.get_or_insert(error);
    }

    pub(crate) fn count_fallback(&self, op: &'static str) {
        *self.state().counts.fallbacks.entry(op).or_default() += 1;
    }

    /// A table of all 16-bit codes of a format, made once.
    pub(crate) fn table(&self, key: (usize, DType), make: impl FnOnce() -> Result<Vec<u8>>) -> Result<u64> {
        let mut tables = self.0.tables.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(table) = tables.get(&key) {
            return Ok(table.address());
        }
        let bytes = make()?;
        let memory = self.scratch(bytes.len())?;
        self.write("table", memory.address(), &bytes);
        Ok(tables.entry(key).or_insert(Arc::new(memory)).address())
    }

    fn memory_of<'a>(&self, op: &'static str, array: &'a Array) -> Result<&'a CudaMemory> {
        let elsewhere = || Error::Device { op, first: self.name().into(), second: array.device().name().into() };
        let Memory::Device(memory) = array.storage().memory() else { return Err(elsewhere()) };
        memory.as_any().downcast_ref::<CudaMemory>().filter(|m| m.is_of(&self.0.pool)).ok_or_else(elsewhere)
    }

    /// An array that is borrowed for the command alone.
    fn borrowed(&self, op: &'static str, array: &Array) -> Result<View> {
        let _guard = array.storage().read(op)?;
        self.view(op, array)
    }

    fn view(&self, op: &'static str, array: &Array) -> Result<View> {
        Ok(View::new(array, self.memory_of(op, array)?))
    }

    fn written(&self, op: &'static str, array: &mut ArrayMut<'_>) -> Result<View> {
        array.memory();
        self.view(op, array.array())
    }
}

impl Backend for Cuda {
    fn name(&self) -> &str {
        self.driver().name()
    }

    fn alloc(&self, dtype: DType, len: usize, class: Class) -> Result<Arc<Storage>> {
        if dtype == DType::F64 {
            return Err(Error::Unsupported { op: "alloc", backend: self.name().into(), dtype });
        }
        let memory = self.0.pool.alloc(len * dtype.size(), class)?;
        Ok(Storage::new(Memory::Device(Box::new(memory)), class))
    }

    fn upload(&self, bytes: &[u8], to: &mut ArrayMut<'_>) -> Result<()> {
        let (array, view) = (to.array(), self.written("upload", to)?);
        if bytes.len() != array.numel() * array.dtype().size() || !array.layout().is_contiguous() {
            return Err(Error::Length { shape: *array.shape(), found: bytes.len() / array.dtype().size() });
        }
        self.write("upload", view.at(), bytes);
        Ok(())
    }

    fn download(&self, from: &Array) -> Result<Vec<u8>> {
        let view = self.borrowed("download", from)?;
        let bytes = view.numel() * view.dtype.size();
        let written = bytes == 0 || self.driver().is_written(view.at(), bytes);
        let mut to = vec![0; if written { bytes } else { 0 }];
        self.wait_for("download", &mut [(view.at(), &mut to)])?;
        if !written {
            let what = format!("reads {:?} {} that was never written", view.shape(), view.dtype);
            return Err(Error::Hazard { op: "download", what });
        }
        Ok(to)
    }

    fn run(&self, op: &Op, ins: &[&Array], outs: &mut [ArrayMut<'_>]) -> Result<()> {
        self.state().counts.operators += 1;
        let mut views = Vec::with_capacity(ins.len());
        for (at, array) in ins.iter().enumerate() {
            // Of what is written over an operand the one borrow is that for writing.
            let over = outs.first().is_some_and(|out| out.overwrites(op, at, array));
            views.push(if over { self.view(op.name(), array)? } else { self.borrowed(op.name(), array)? });
        }
        let outs = outs.iter_mut().map(|out| self.written(op.name(), out)).collect::<Result<Vec<_>>>()?;
        if self.state().failure.is_some() {
            return Ok(());
        }
        if kernels::run(self, op, &views, &outs).map_err(|error| error.during(op.name()))? {
            return Ok(());
        }
        fallback::run(self, op, &views, &outs)
    }

    fn rounds_as_it_reads(&self, op: &Op) -> bool {
        // A view reads nothing.
        matches!(op, Op::View(_))
    }

    fn begin_step(&self) -> Box<dyn Any> {
        Box::new(())
    }

    fn update(&self, update: &Update, scalars: &Array, slots: &mut [Slot<'_>]) -> Result<Outcome> {
        let name = update.name();
        self.state().counts.operators += 1;
        slots.iter().try_for_each(|slot| slot.check(update))?;
        let scalars = self.borrowed(name, scalars)?;
        let mut views = Vec::with_capacity(slots.len());
        for slot in slots {
            let (grad, writes_grad) = match &mut slot.grad {
                Grad::Read(grad) => (self.borrowed(name, grad)?, false),
                Grad::Write(grad) => (self.written(name, grad)?, true),
            };
            let lent = |array: &mut Option<ArrayMut<'_>>| array.as_mut().map(|a| self.written(name, a)).transpose();
            let (param, master) = (lent(&mut slot.param)?, lent(&mut slot.master)?);
            let state = slot.state.iter_mut().map(|state| self.written(name, state)).collect::<Result<_>>()?;
            views.push(kernels::Passed { param, master, grad, writes_grad, state, first: slot.first });
        }
        if self.state().failure.is_some() {
            let (cuda, backend) = (self.clone(), self.name().to_string());
            return Ok(Outcome::later(move || {
                cuda.wait()?;
                Err(Error::NotRun { op: name, backend })
            }));
        }
        match kernels::update(self, update, &scalars, &views).map_err(|error| error.during(name))? {
            Some(outcome) => Ok(outcome),
            None => fallback::update(self, update, &scalars, &views),
        }
    }

    fn memory(&self) -> MemoryStats {
        self.0.pool.stats()
    }

    fn reset_peak_memory(&self) {
        self.0.pool.reset_peak();
    }

    fn sync(&self) -> Result<()> {
        self.wait()
    }
}
