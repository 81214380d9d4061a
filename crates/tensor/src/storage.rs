//! [`Storage`]: the memory behind tensors, with identity, version, run-time borrows and derived values.

use std::any::Any;
use std::sync::atomic::{AtomicIsize, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use crate::memory::HostBuffer;
use crate::{Array, Class, DType, Error, Result};

/// Memory shared by all views of a tensor.
///
/// The version counts writes: a value saved for the backward pass, or derived from the storage, is valid only while the
/// version stands. Access is borrowed at run time (any number of readers or one writer), so that two threads can never
/// race on the same bytes: the second gets an error.
#[derive(Debug)]
pub struct Storage {
    id: u64,
    version: AtomicU64,
    memory: Memory,
    class: Class,
    /// Readers, or -1 for a writer.
    borrows: AtomicIsize,
    derived: Mutex<Vec<Derived>>,
}

/// Where the bytes are.
#[derive(Debug)]
pub enum Memory {
    /// Host memory.
    Host(HostBuffer),
    /// Memory of another device, known to its backend only.
    Device(Box<dyn DeviceMemory>),
}

/// Memory of a device that is not the host.
pub trait DeviceMemory: Any + Send + Sync + std::fmt::Debug {
    /// For the backend to get its own type back.
    fn as_any(&self) -> &dyn Any;

    /// Length in bytes, as it was asked for.
    fn size(&self) -> usize;
}

/// A value computed from a storage and valid for one version of it: a cast, a packed panel.
#[derive(Debug, Clone)]
struct Derived {
    dtype: DType,
    version: u64,
    /// Layout of the view that was cast, so that two views do not share an entry.
    layout: crate::Layout,
    /// `None` where it was asked for and not made.
    value: Option<Array>,
}

impl Derived {
    fn is(&self, version: u64, dtype: DType, layout: &crate::Layout) -> bool {
        self.version == version && self.dtype == dtype && self.layout == *layout
    }
}

static NEXT_ID: AtomicU64 = AtomicU64::new(1);

impl Storage {
    /// A new storage with a fresh identity.
    pub fn new(memory: Memory, class: Class) -> Arc<Storage> {
        Arc::new(Storage {
            id: NEXT_ID.fetch_add(1, Ordering::Relaxed),
            version: AtomicU64::new(0),
            memory,
            class,
            borrows: AtomicIsize::new(0),
            derived: Mutex::new(Vec::new()),
        })
    }

    /// Identity, never used again by another storage of this process.
    pub fn id(&self) -> u64 {
        self.id
    }

    /// Number of writes so far.
    pub fn version(&self) -> u64 {
        self.version.load(Ordering::Acquire)
    }

    /// What the bytes are for.
    pub fn class(&self) -> Class {
        self.class
    }

    /// Where the bytes are.
    pub fn memory(&self) -> &Memory {
        &self.memory
    }

    /// Length in bytes.
    pub fn size(&self) -> usize {
        match &self.memory {
            Memory::Host(buffer) => buffer.len(),
            Memory::Device(memory) => memory.size(),
        }
    }

    /// Borrows for reading.
    ///
    /// # Errors
    /// [`Error::InUse`] while the storage is being written.
    pub fn read(&self, op: &'static str) -> Result<ReadGuard<'_>> {
        let take = |n: isize| (n >= 0).then_some(n + 1);
        match self.borrows.fetch_update(Ordering::Acquire, Ordering::Relaxed, take) {
            Ok(_) => Ok(ReadGuard(self)),
            Err(_) => Err(Error::InUse { op }),
        }
    }

    /// Borrows for writing.
    ///
    /// # Errors
    /// [`Error::InUse`] while the storage is read or written elsewhere.
    pub fn write(&self, op: &'static str) -> Result<WriteGuard<'_>> {
        match self.borrows.compare_exchange(0, -1, Ordering::Acquire, Ordering::Relaxed) {
            Ok(_) => Ok(WriteGuard { storage: self, written: false }),
            Err(_) => Err(Error::InUse { op }),
        }
    }

    /// The value cached for (`dtype`, `layout`) at the present version.
    pub fn derived(&self, dtype: DType, layout: &crate::Layout) -> Option<Array> {
        let version = self.version();
        let derived = self.derived.lock().unwrap_or_else(|e| e.into_inner());
        derived.iter().find(|d| d.is(version, dtype, layout)).and_then(|d| d.value.clone())
    }

    /// Whether a value for (`dtype`, `layout`) was not asked for at the present version so far; from now on it was.
    pub fn is_new(&self, dtype: DType, layout: &crate::Layout) -> bool {
        let version = self.version();
        let mut derived = self.derived.lock().unwrap_or_else(|e| e.into_inner());
        let new = !derived.iter().any(|d| d.is(version, dtype, layout));
        if new {
            derived.push(Derived { dtype, version, layout: *layout, value: None });
        }
        new
    }

    /// Caches `value` for (`dtype`, `layout`) at the present version; values of older versions are dropped.
    pub fn set_derived(&self, dtype: DType, layout: crate::Layout, value: Array) {
        let version = self.version();
        let mut derived = self.derived.lock().unwrap_or_else(|e| e.into_inner());
        derived.retain(|d| d.version == version && !d.is(version, dtype, &layout));
        derived.push(Derived { dtype, version, layout, value: Some(value) });
    }

    /// Drops all cached values.
    pub fn clear_derived(&self) {
        self.derived.lock().unwrap_or_else(|e| e.into_inner()).clear();
    }

    pub(crate) fn host(&self) -> Option<&HostBuffer> {
        match &self.memory {
            Memory::Host(buffer) => Some(buffer),
            Memory::Device(_) => None,
        }
    }
}

/// A read borrow of a [`Storage`].
#[derive(Debug)]
pub struct ReadGuard<'a>(&'a Storage);

impl ReadGuard<'_> {
    /// The bytes of a host storage.
    pub fn bytes(&self) -> Option<&[u8]> {
        let buffer = self.0.host()?;
        // SAFETY: initialised memory of that length; no writer exists while this guard lives.
        Some(unsafe { std::slice::from_raw_parts(buffer.as_ptr(), buffer.len()) })
    }
}

impl Drop for ReadGuard<'_> {
    fn drop(&mut self) {
        self.0.borrows.fetch_sub(1, Ordering::Release);
    }
}

/// The write borrow of a [`Storage`]. The version rises when it ends, unless nobody asked for the memory.
#[derive(Debug)]
pub struct WriteGuard<'a> {
    storage: &'a Storage,
    written: bool,
}

impl WriteGuard<'_> {
    /// The memory, for a backend that is about to write to it.
    pub fn memory(&mut self) -> &Memory {
        self.written = true;
        &self.storage.memory
    }

    /// The bytes of a host storage.
    pub fn bytes(&mut self) -> Option<&mut [u8]> {
        self.written = true;
        let buffer = self.storage.host()?;
        // SAFETY: initialised memory of that length; this guard is the only borrow.
        Some(unsafe { std::slice::from_raw_parts_mut(buffer.as_ptr(), buffer.len()) })
    }
}

impl Drop for WriteGuard<'_> {
    fn drop(&mut self) {
        let storage = self.storage;
        if self.written {
            storage.version.fetch_add(1, Ordering::AcqRel);
            storage.derived.lock().unwrap_or_else(|e| e.into_inner()).clear();
        }
        storage.borrows.store(0, Ordering::Release);
    }
}
