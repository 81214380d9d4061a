//! What a kernel finds wrong: the first error stands on the device, and every kernel behind it looks there first.

use std::sync::{Arc, Mutex, PoisonError};

use binade_tensor::{Class, Error, Result};
use bytemuck::{Pod, Zeroable};

use crate::driver::Driver;
use crate::memory::{CudaMemory, Pool};

/// `Fault` of `common.cuh`.
#[derive(Clone, Copy, Debug, Default, Pod, Zeroable)]
#[repr(C)]
pub(crate) struct Found {
    set: u32,
    operation: u32,
    index: i64,
    size: u64,
}

impl Found {
    pub(crate) fn is_set(&self) -> bool {
        self.set != 0
    }
}

/// The place of a device's first error.
#[derive(Debug)]
pub(crate) struct Fault {
    memory: CudaMemory,
    /// What the operation that a kernel names stands for: the operator, and what is indexed.
    operations: Mutex<Vec<(&'static str, &'static str)>>,
}

impl Fault {
    pub(crate) fn new(pool: &Arc<Pool>) -> Result<Fault> {
        let fault = Fault { memory: pool.alloc(size_of::<Found>(), Class::Workspace)?, operations: Mutex::default() };
        fault.write(pool.driver())?;
        Ok(fault)
    }

    /// Where kernels look.
    pub(crate) fn address(&self) -> u64 {
        self.memory.address()
    }

    /// A number for an operator that checks an index of some `what`.
    pub(crate) fn operation(&self, op: &'static str, what: &'static str) -> u32 {
        let mut operations = self.operations.lock().unwrap_or_else(PoisonError::into_inner);
        let known = operations.iter().position(|&known| known == (op, what));
        known.unwrap_or_else(|| {
            operations.push((op, what));
            operations.len() - 1
        }) as u32
    }

    fn write(&self, driver: &dyn Driver) -> Result<()> {
        let nothing = bytemuck::bytes_of(&Found::zeroed()).to_vec();
        driver.write(self.address(), &nothing).map_err(|failure| failure.during("sync"))
    }

    /// Tells the first error, once, of what was read at [`Fault::address`].
    ///
    /// # Errors
    /// [`Error::IndexOutOfRange`].
    pub(crate) fn take(&self, driver: &dyn Driver, found: &Found) -> Result<()> {
        if !found.is_set() {
            return Ok(());
        }
        self.write(driver)?;
        let operations = self.operations.lock().unwrap_or_else(PoisonError::into_inner);
        let (op, what) = operations.get(found.operation as usize).copied().unwrap_or(("kernel", "elements"));
        Err(Error::IndexOutOfRange { op, index: found.index, size: found.size as usize, what })
    }
}
