//! Memory of a device: blocks that are given out again as soon as they are freed, since commands run in order.

use std::any::Any;
use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use binade_tensor::memory::Accounting;
use binade_tensor::{Class, DeviceMemory, Error, MemoryStats, Result};

use crate::driver::{Driver, Failure};

/// The pool of one device.
#[derive(Debug)]
pub(crate) struct Pool {
    driver: Box<dyn Driver>,
    accounting: Accounting,
    /// Freed blocks by their size.
    free: Mutex<HashMap<usize, Vec<u64>>>,
    /// How often the device itself was asked for memory.
    allocations: AtomicUsize,
}

/// Blocks have sizes of four to a power of two: little is lost, and much fits again.
fn rounded(bytes: usize) -> usize {
    let n = bytes.max(256);
    let step = (1 << n.ilog2()) / 4;
    n.next_multiple_of(step)
}

impl Pool {
    pub(crate) fn new(driver: Box<dyn Driver>) -> Pool {
        Pool { driver, accounting: Accounting::default(), free: Mutex::default(), allocations: AtomicUsize::new(0) }
    }

    pub(crate) fn driver(&self) -> &dyn Driver {
        &*self.driver
    }

    pub(crate) fn allocations(&self) -> usize {
        self.allocations.load(Ordering::Relaxed)
    }

    /// Asks the device.
    fn fresh(&self, block: usize) -> Result<u64, Failure> {
        self.allocations.fetch_add(1, Ordering::Relaxed);
        self.driver.alloc(block)
    }

    fn free(&self) -> MutexGuard<'_, HashMap<usize, Vec<u64>>> {
        self.free.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn stats(&self) -> MemoryStats {
        self.accounting.stats()
    }

    pub(crate) fn reset_peak(&self) {
        self.accounting.reset_peak();
    }

    /// Memory for `bytes` bytes.
    ///
    /// # Errors
    /// Out of memory, also after all that was kept was given back; the device failed.
    pub(crate) fn alloc(self: &Arc<Pool>, bytes: usize, class: Class) -> Result<CudaMemory> {
        let block = if self.driver.keeps_memory() { rounded(bytes) } else { bytes.max(1) };
        let kept = self.free().get_mut(&block).and_then(Vec::pop);
        let address = match kept {
            Some(address) => Ok(address),
            None => self.fresh(block).or_else(|failure| {
                self.trim();
                if failure == Failure::OutOfMemory { self.fresh(block) } else { Err(failure) }
            }),
        };
        let address = address.map_err(|failure| match failure {
            Failure::OutOfMemory => Error::OutOfMemory { op: "", bytes, class },
            Failure::Device(_) => failure.during("alloc"),
        })?;
        self.accounting.add(class, bytes);
        Ok(CudaMemory { pool: self.clone(), address, bytes, block, class })
    }

    /// Gives back to the device what nobody uses.
    pub(crate) fn trim(&self) {
        let kept = std::mem::take(&mut *self.free());
        kept.into_values().flatten().for_each(|address| self.driver.free(address));
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.trim();
    }
}

/// A block while it is one storage's, or a kernel's scratch.
#[derive(Debug)]
pub(crate) struct CudaMemory {
    pool: Arc<Pool>,
    address: u64,
    bytes: usize,
    /// Size of the block that they lie in.
    block: usize,
    class: Class,
}

impl CudaMemory {
    pub(crate) fn address(&self) -> u64 {
        self.address
    }

    pub(crate) fn is_of(&self, pool: &Arc<Pool>) -> bool {
        Arc::ptr_eq(&self.pool, pool)
    }
}

impl DeviceMemory for CudaMemory {
    fn as_any(&self) -> &dyn Any {
        self
    }

    fn size(&self) -> usize {
        self.bytes
    }
}

impl Drop for CudaMemory {
    fn drop(&mut self) {
        self.pool.accounting.remove(self.class, self.bytes);
        if self.pool.driver.keeps_memory() {
            self.pool.free().entry(self.block).or_default().push(self.address);
        } else {
            self.pool.driver.free(self.address);
        }
    }
}
