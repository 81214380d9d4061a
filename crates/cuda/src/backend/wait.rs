//! What the host waits for: one wait brings all of it.

use std::sync::{Arc, OnceLock, PoisonError, Weak};

use binade_tensor::{Backend, Error, Result};

use super::Cuda;
use crate::fault::Found;
use crate::memory::CudaMemory;

/// Eight bytes that kernels compute, and that come with whatever is waited for next: one wait serves all.
#[derive(Debug)]
pub(crate) struct Wanted {
    /// Lives until they are read.
    memory: CudaMemory,
    offset: u64,
    word: OnceLock<[u8; 8]>,
}

impl Cuda {
    /// Waits once and copies bytes to the host.
    fn fetch(&self, op: &'static str, copies: &mut [(u64, &mut [u8])]) -> Result<()> {
        self.state().counts.waits += 1;
        self.driver().read(copies).map_err(|failure| failure.during(op))
    }

    /// The bytes of a device's memory, when all that is queued before has run. Tells of no error but the copy's own.
    pub(crate) fn read(&self, op: &'static str, from: u64, bytes: usize) -> Result<Vec<u8>> {
        let mut to = vec![0; bytes];
        if bytes > 0 {
            self.fetch(op, &mut [(from, &mut to)])?;
        }
        Ok(to)
    }

    /// Eight bytes of a kernel's memory, for when somebody waits.
    pub(crate) fn want(&self, memory: CudaMemory, offset: u64) -> Arc<Wanted> {
        let wanted = Arc::new(Wanted { memory, offset, word: OnceLock::new() });
        let mut state = self.state();
        state.wanted.retain(|wanted| wanted.strong_count() > 0);
        state.wanted.push(Arc::downgrade(&wanted));
        wanted
    }

    /// What was wanted. Waits, unless somebody has since.
    ///
    /// # Errors
    /// As [`Cuda::wait`]; the wait that should have brought it failed, and has told why.
    pub(crate) fn get(&self, op: &'static str, wanted: &Wanted) -> Result<[u8; 8]> {
        if wanted.word.get().is_none() {
            self.wait()?;
        }
        // Nothing stands there if the wait that was to bring it failed.
        wanted.word.get().copied().ok_or_else(|| Error::NotRun { op, backend: self.name().into() })
    }

    /// Whether an error has been found that nobody was told yet. Waits.
    pub(crate) fn has_failed(&self) -> Result<bool> {
        if self.state().failure.is_some() {
            return Ok(true);
        }
        let mut found = Found::default();
        self.fetch("sync", &mut [(self.0.fault.address(), bytemuck::bytes_of_mut(&mut found))])?;
        Ok(found.is_set())
    }

    /// Waits, and reports the first error since the last wait.
    pub(crate) fn wait(&self) -> Result<()> {
        self.wait_for("sync", &mut [])
    }

    /// As [`Cuda::wait`], with a copy of some bytes. There is one wait for them, for what kernels found wrong, and for
    /// all that is wanted.
    pub(super) fn wait_for(&self, op: &'static str, bytes: &mut [(u64, &mut [u8])]) -> Result<()> {
        let _alone = self.0.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        let wanted = std::mem::take(&mut self.state().wanted);
        let wanted: Vec<Arc<Wanted>> = wanted.iter().filter_map(Weak::upgrade).collect();
        let (mut words, mut found) = (vec![[0; 8]; wanted.len()], Found::default());
        let mut copies = vec![(self.0.fault.address(), bytemuck::bytes_of_mut(&mut found))];
        copies.extend(wanted.iter().zip(&mut words).map(|(w, word)| (w.memory.address() + w.offset, &mut word[..])));
        copies.extend(bytes.iter_mut().map(|(from, to)| (*from, &mut **to)));
        let waited = self.fetch(op, &mut copies);
        let fault = self.0.fault.take(self.driver(), &found);
        let mut state = self.state();
        let (failure, of_kernel) = (state.failure.take(), std::mem::take(&mut state.of_kernel));
        drop(state);
        // What else the host noticed may have come of what the device found, never the other way round.
        if !of_kernel {
            fault?;
        }
        failure.map_or(waited, Err)?;
        for (wanted, word) in wanted.iter().zip(words) {
            // Nobody else has it: it was taken from the list.
            let _first = wanted.word.set(word);
        }
        Ok(())
    }
}
