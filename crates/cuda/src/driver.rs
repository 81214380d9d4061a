//! [`Driver`]: the few things that are asked of whatever runs kernels.

use std::fmt::Debug;

use binade_tensor::{Error, Result};

use crate::module::Module;

/// A device that runs PTX: NVIDIA's driver, or the interpreter. Commands take effect in the order in which they were
/// given; only [`Driver::read`] waits.
pub trait Driver: Debug + Send + Sync + 'static {
    /// Name for messages and reports: `cuda`, `cuda-interpreted`.
    fn name(&self) -> &str;

    /// The compute capability, 90 for 9.0: kernels are chosen by it.
    fn capability(&self) -> u32;

    /// Memory of at least one byte; its contents are arbitrary.
    ///
    /// # Errors
    /// [`Failure::OutOfMemory`]; the device failed.
    fn alloc(&self, bytes: usize) -> Result<u64, Failure>;

    /// Gives memory back, when all that is queued before has run.
    fn free(&self, address: u64);

    /// Whether freed memory is worth keeping for the next allocation of its size. An interpreter sees more errors
    /// without.
    fn keeps_memory(&self) -> bool;

    /// Copies host bytes to the device. They are read before it returns.
    ///
    /// # Errors
    /// The device failed.
    fn write(&self, to: u64, bytes: &[u8]) -> Result<(), Failure>;

    /// Copies device bytes to the host, each from its address, when all that is queued before has run: one wait for all
    /// of them, or for none.
    ///
    /// # Errors
    /// The device failed, now or since the last wait.
    fn read(&self, copies: &mut [(u64, &mut [u8])]) -> Result<(), Failure>;

    /// Whether all of some bytes have been written, as far as the device knows.
    fn is_written(&self, from: u64, bytes: usize) -> bool {
        let _ = (from, bytes);
        true
    }

    /// Queues a kernel.
    ///
    /// # Errors
    /// There is no such kernel, or it cannot be launched so; an interpreter also reports what the kernel did wrong.
    fn launch(&self, launch: &Launch<'_>) -> Result<(), Failure>;
}

/// A kernel and what it runs on.
#[derive(Clone, Copy, Debug)]
pub struct Launch<'a> {
    /// Where the kernel is.
    pub module: Module,
    /// Its name there.
    pub kernel: &'a str,
    /// Blocks.
    pub grid: [u32; 3],
    /// Threads of a block.
    pub block: [u32; 3],
    /// The one parameter, by value.
    pub parameter: &'a [u8],
}

/// What went wrong on a device.
#[derive(Clone, Debug, PartialEq)]
pub enum Failure {
    /// There is not so much memory.
    OutOfMemory,
    /// Anything else, in words.
    Device(String),
}

impl Failure {
    /// As the error of an operator.
    pub(crate) fn during(self, op: &'static str) -> Error {
        match self {
            Failure::OutOfMemory => {
                Error::Argument { op, message: "the device has no memory left for what the kernel needs".into() }
            }
            Failure::Device(what) => Error::Hazard { op, what },
        }
    }
}
