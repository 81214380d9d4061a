//! Asynchronous copies: their operands.

use crate::code::{Address, Src};

/// `cp.async` and its groups.
#[derive(Debug)]
pub(crate) enum Copy {
    /// Bytes from global to shared memory; of the source `from` bytes are read, the rest is zero.
    Small { to: Address, from: Address, bytes: usize, read: Option<Src>, ignore: Option<crate::code::Predicate> },
    /// `cp.async.commit_group`.
    Commit,
    /// `cp.async.wait_group`: all but the last so many groups; `None` is `wait_all`.
    Wait(Option<u32>),
    /// `cp.async.bulk` and `cp.async.bulk.tensor`.
    Bulk(Box<Bulk>),
    /// `cp.async.bulk.commit_group`.
    BulkCommit,
    /// `cp.async.bulk.wait_group`.
    BulkWait(u32),
}

/// A bulk copy.
#[derive(Debug)]
pub(crate) struct Bulk {
    /// From shared to global memory.
    pub store: bool,
    /// The address in shared memory.
    pub shared: Address,
    /// The address in global memory with the number of bytes, or a tensor map with coordinates.
    pub global: Global,
    /// The mbarrier that counts the bytes of a load.
    pub barrier: Option<Address>,
}

/// The global side of a bulk copy.
#[derive(Debug)]
pub(crate) enum Global {
    Bytes(Address, Src),
    Tensor(Address, Vec<Src>),
}
