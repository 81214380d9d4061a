//! The commands of a [`Remote`](super::Remote), and the machine that runs them when somebody waits.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use super::Counts;
use crate::memory::Accounting;
use crate::{Array, ArrayMut, Class, DType, Device, Error, Findings, Grad, Meta, Op, Result, Slot, Storage, Update};

/// So many commands may wait; then they are run, so that memory of a program that never waits does not grow.
const LIMIT: usize = 1 << 14;

/// Memory of the device. The arithmetic's device gave it, but only commands reach it.
#[derive(Debug)]
pub(super) struct Block {
    storage: Arc<Storage>,
    bytes: usize,
}

impl Block {
    /// Tells it from all others: a block lives as long as its device.
    fn key(self: &Arc<Block>) -> usize {
        Arc::as_ptr(self).addr()
    }
}

/// A view of a block that a command uses.
#[derive(Clone, Debug)]
pub(super) struct Operand {
    pub(super) block: Arc<Block>,
    pub(super) owner: u64,
    pub(super) size: usize,
    pub(super) meta: Meta,
    pub(super) stored: DType,
}

/// What a [`Slot`] lends.
#[derive(Debug)]
pub(super) struct Passed {
    pub(super) param: Option<Operand>,
    pub(super) master: Option<Operand>,
    pub(super) grad: Operand,
    pub(super) writes_grad: bool,
    pub(super) state: Vec<Operand>,
    pub(super) first: bool,
}

#[derive(Debug)]
pub(super) enum Command {
    Alloc { block: Arc<Block>, owner: u64, dtype: DType },
    Free { block: Arc<Block>, owner: u64 },
    Upload { bytes: Vec<u8>, to: Operand },
    Download { from: Operand, bytes: Arc<OnceLock<Vec<u8>>> },
    Run { op: Op, ins: Vec<Operand>, outs: Vec<Operand> },
    Update { update: Update, scalars: Operand, slots: Vec<Passed>, found: Arc<OnceLock<Findings>> },
}

/// The queue of one device.
#[derive(Debug)]
pub(super) struct Queue {
    /// Whose arithmetic and memory it is.
    inner: Device,
    accounting: Accounting,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    waiting: VecDeque<Command>,
    /// Commands pushed, and commands that have run.
    pushed: u64,
    run: u64,
    /// Blocks that are nobody's for the host, by size.
    free: HashMap<usize, Vec<Arc<Block>>>,
    /// Whose each block is for the commands that run now, by address.
    uses: HashMap<usize, Use>,
    /// The first error since the last wait.
    failure: Option<Error>,
    owners: u64,
    counts: Counts,
    /// Allocations until one fails; 0 for never.
    failing: usize,
}

#[derive(Debug)]
struct Use {
    owner: u64,
    written: bool,
}

impl Queue {
    pub(super) fn new(inner: Device) -> Queue {
        Queue { inner, accounting: Accounting::default(), state: Mutex::default() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn inner(&self) -> &Device {
        &self.inner
    }

    pub(super) fn accounting(&self) -> &Accounting {
        &self.accounting
    }

    pub(super) fn counts(&self) -> Counts {
        self.state().counts
    }

    pub(super) fn fail_allocation(&self, n: usize) {
        self.state().failing = n;
    }

    /// A block, perhaps one whose last use is still queued, and the number of its new owner.
    pub(super) fn alloc(&self, dtype: DType, bytes: usize, class: Class) -> Result<(Arc<Block>, u64)> {
        let mut state = self.state();
        state.counts.allocations += 1;
        if state.failing > 0 {
            state.failing -= 1;
            if state.failing == 0 {
                return Err(Error::OutOfMemory { op: "", bytes, class });
            }
        }
        let block = match state.free.get_mut(&bytes).and_then(Vec::pop) {
            Some(block) => block,
            None => Arc::new(Block { storage: self.inner.alloc(DType::I8, bytes, class)?, bytes }),
        };
        state.owners += 1;
        let owner = state.owners;
        self.enqueue(&mut state, Command::Alloc { block: block.clone(), owner, dtype });
        Ok((block, owner))
    }

    /// Queues a command and returns its ticket.
    pub(super) fn push(&self, command: Command) -> u64 {
        self.enqueue(&mut self.state(), command)
    }

    fn enqueue(&self, state: &mut State, command: Command) -> u64 {
        match &command {
            Command::Alloc { .. } => {}
            Command::Free { block, .. } => state.free.entry(block.bytes).or_default().push(block.clone()),
            Command::Upload { bytes, .. } => {
                state.counts.uploads += 1;
                state.counts.uploaded += bytes.len();
            }
            Command::Download { from, .. } => {
                state.counts.downloads += 1;
                state.counts.downloaded += from.meta.layout.numel() * from.stored.size();
            }
            Command::Run { .. } => state.counts.operators += 1,
            Command::Update { .. } => state.counts.updates += 1,
        }
        state.waiting.push_back(command);
        state.pushed += 1;
        if state.waiting.len() > LIMIT {
            state.run_until(state.pushed, &self.inner);
        }
        state.pushed
    }

    /// Runs what is queued up to a ticket.
    ///
    /// # Errors
    /// The first error since the last wait.
    pub(super) fn wait(&self, ticket: u64) -> Result<()> {
        let mut state = self.state();
        if state.run < ticket.min(state.pushed) {
            state.counts.synchronisations += 1;
            state.run_until(ticket, &self.inner);
        }
        state.failure.take().map_or(Ok(()), Err)
    }
}

impl State {
    fn run_until(&mut self, ticket: u64, inner: &Device) {
        while self.run < ticket
            && let Some(command) = self.waiting.pop_front()
        {
            self.run += 1;
            let result = match command {
                Command::Alloc { block, owner, dtype } => self.begin(&block, owner, dtype),
                Command::Free { block, owner } => self.end(&block, owner),
                // Nothing runs behind an error that nobody knows of.
                _ if self.failure.is_some() => Ok(()),
                Command::Upload { bytes, to } => self.upload(&bytes, &to, inner),
                Command::Download { from, bytes } => self.download(&from, &bytes, inner),
                Command::Run { op, ins, outs } => self.operator(&op, &ins, &outs, inner),
                Command::Update { update, scalars, slots, found } => {
                    self.update(&update, &scalars, &slots, &found, inner)
                }
            };
            if let Err(error) = result {
                self.failure.get_or_insert(error);
            }
        }
    }

    fn begin(&mut self, block: &Arc<Block>, owner: u64, dtype: DType) -> Result<()> {
        if let Some(other) = self.uses.insert(block.key(), Use { owner, written: false }) {
            let what = format!("memory is given to allocation {owner} while it is that of {}", other.owner);
            return Err(Error::Hazard { op: "alloc", what });
        }
        // What is read before it is written shows: floats are NaN. A byte of a boolean is 0 or 1.
        let poison = if dtype == DType::Bool { 0 } else { 0xFF };
        if let Some(bytes) = block.storage.write("alloc")?.bytes() {
            bytes.fill(poison);
        }
        Ok(())
    }

    fn end(&mut self, block: &Arc<Block>, owner: u64) -> Result<()> {
        match self.uses.remove(&block.key()) {
            Some(of) if of.owner == owner => Ok(()),
            _ => Err(Error::Hazard { op: "free", what: format!("memory of allocation {owner} is freed twice") }),
        }
    }

    /// Whether a command may use memory in that way; from a write on it may be read.
    fn check(&mut self, op: &'static str, operand: &Operand, access: Access) -> Result<()> {
        let hazard = |what: String| Err(Error::Hazard { op, what });
        let Operand { owner, size, meta, stored, .. } = operand;
        if meta.layout.end() * stored.size() > *size {
            return hazard(format!("a view of {} elements lies outside its {size} bytes", meta.layout.end()));
        }
        match self.uses.get_mut(&operand.block.key()) {
            Some(of) if of.owner == *owner => {
                if access.reads && !of.written && meta.layout.numel() > 0 {
                    return hazard(format!("reads {:?} {} that was never written", meta.layout.shape, meta.dtype));
                }
                of.written |= access.writes;
                Ok(())
            }
            Some(_) | None => hazard(format!("uses memory of allocation {owner} after it was freed")),
        }
    }

    fn upload(&mut self, bytes: &[u8], to: &Operand, inner: &Device) -> Result<()> {
        self.check("upload", to, Access::WRITE)?;
        let array = to.array(inner);
        inner.upload(bytes, &mut ArrayMut::new("upload", &array)?)
    }

    fn download(&mut self, from: &Operand, bytes: &OnceLock<Vec<u8>>, inner: &Device) -> Result<()> {
        self.check("download", from, Access::READ)?;
        // What was never set is set here.
        let _ = bytes.set(inner.download(&from.array(inner))?);
        Ok(())
    }

    fn operator(&mut self, op: &Op, ins: &[Operand], outs: &[Operand], inner: &Device) -> Result<()> {
        ins.iter().try_for_each(|operand| self.check(op.name(), operand, Access::READ))?;
        for (i, out) in outs.iter().enumerate() {
            self.check(op.name(), out, Access::WRITE)?;
            let again = |other: &&Operand| Arc::ptr_eq(&other.block, &out.block);
            let over = |(at, operand): (usize, &Operand)| {
                again(&operand) && !(outs.len() == 1 && op.may_overwrite(at) && operand.meta == out.meta)
            };
            if outs[..i].iter().any(|other| again(&other)) || ins.iter().enumerate().any(over) {
                let what = format!("writes memory of allocation {} that it also uses otherwise", out.owner);
                return Err(Error::Hazard { op: op.name(), what });
            }
        }
        let ins: Vec<Array> = ins.iter().map(|operand| operand.array(inner)).collect();
        let written = outs;
        let outs: Vec<Array> = outs.iter().map(|operand| operand.array(inner)).collect();
        let mut targets = outs.iter().map(|out| ArrayMut::new(op.name(), out)).collect::<Result<Vec<_>>>()?;
        let done = inner.run(op, &ins.iter().collect::<Vec<_>>(), &mut targets);
        done.inspect_err(|_| self.spoil(written)).map_err(|error| error.during(op.name()))
    }

    /// What a kernel that failed should have written cannot be read.
    fn spoil(&mut self, outs: &[Operand]) {
        for out in outs {
            if let Some(of) = self.uses.get_mut(&out.block.key()).filter(|of| of.owner == out.owner) {
                of.written = false;
            }
        }
    }

    fn update(
        &mut self,
        update: &Update,
        scalars: &Operand,
        slots: &[Passed],
        found: &OnceLock<Findings>,
        inner: &Device,
    ) -> Result<()> {
        let op = update.name();
        self.check(op, scalars, Access::READ)?;
        for slot in slots {
            self.check(op, &slot.grad, Access { reads: true, writes: slot.writes_grad })?;
            for operand in slot.param.iter().chain(&slot.master) {
                self.check(op, operand, Access { reads: true, writes: true })?;
            }
            // The state of a first step holds arbitrary values.
            slot.state
                .iter()
                .try_for_each(|operand| self.check(op, operand, Access { reads: !slot.first, writes: true }))?;
        }
        let arrays: Vec<Vec<Array>> =
            slots.iter().map(|slot| slot.operands().map(|operand| operand.array(inner)).collect()).collect();
        let mut lent = Vec::with_capacity(slots.len());
        for (slot, arrays) in slots.iter().zip(&arrays) {
            let mut arrays = arrays.iter();
            let mut next = |there: bool| {
                let array = if there { arrays.next() } else { None };
                array.map(|array| ArrayMut::new(op, array)).transpose()
            };
            let (param, master) = (next(slot.param.is_some())?, next(slot.master.is_some())?);
            let state = slot.state.iter().filter_map(|_| next(true).transpose()).collect::<Result<_>>()?;
            let Some(grad) = arrays.next() else { continue };
            let grad = if slot.writes_grad { Grad::Write(ArrayMut::new(op, grad)?) } else { Grad::Read(grad) };
            lent.push(Slot { param, master, grad, state, first: slot.first });
        }
        // What was never set is set here.
        let _ = found.set(inner.update(update, &scalars.array(inner), &mut lent)?.wait()?);
        Ok(())
    }
}

impl Passed {
    /// All operands, the gradient last.
    fn operands(&self) -> impl Iterator<Item = &Operand> {
        self.param.iter().chain(&self.master).chain(&self.state).chain([&self.grad])
    }
}

impl Operand {
    /// The array as the arithmetic's device sees it.
    fn array(&self, inner: &Device) -> Array {
        Array::assemble(self.meta, self.stored, self.block.storage.clone(), inner)
    }
}

/// How memory is used.
#[derive(Clone, Copy)]
struct Access {
    reads: bool,
    writes: bool,
}

impl Access {
    const READ: Access = Access { reads: true, writes: false };
    const WRITE: Access = Access { reads: false, writes: true };
}
