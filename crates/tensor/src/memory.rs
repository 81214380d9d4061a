//! Byte accounting by class, and the host memory pool.
//!
//! Fresh pages cost a page fault each (about 0.25 µs per 4 KiB): a training step that allocates its activations anew
//! spends more time in the kernel than in elementwise operators. Freed buffers therefore stay, and come back warm:
//! small ones from a free list per size class, large ones from an arena (`arena.rs`) whose holes serve any size.

use std::alloc::{Layout, alloc_zeroed, dealloc};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex};

use crate::arena::{Arena, Place};

/// What a buffer is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Class {
    /// Parameters and buffers of a model.
    Weights,
    /// Gradients.
    Gradients,
    /// Optimiser state, f32 master weights included.
    Optimizer,
    /// Results of operators, input batches included.
    Activations,
    /// Copies in another dtype.
    Casts,
    /// Integer tensors: labels, token ids, argmax results.
    Indices,
    /// Scratch of kernels.
    Workspace,
}

impl Class {
    /// Every class, in the order reports use.
    pub const ALL: [Class; 7] = [
        Class::Weights,
        Class::Gradients,
        Class::Optimizer,
        Class::Activations,
        Class::Casts,
        Class::Indices,
        Class::Workspace,
    ];

    /// Lower-case name.
    pub const fn name(self) -> &'static str {
        match self {
            Class::Weights => "weights",
            Class::Gradients => "gradients",
            Class::Optimizer => "optimizer",
            Class::Activations => "activations",
            Class::Casts => "casts",
            Class::Indices => "indices",
            Class::Workspace => "workspace",
        }
    }

    /// Where a large buffer goes.
    const fn place(self) -> Place {
        match self {
            Class::Gradients | Class::Workspace => Place::Smallest,
            Class::Weights | Class::Optimizer | Class::Activations | Class::Casts | Class::Indices => Place::Lowest,
        }
    }
}

impl std::fmt::Display for Class {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(self.name())
    }
}

/// Live and peak bytes of a device, by [`Class`] (indexed `class as usize`), as asked for: without padding.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MemoryStats {
    /// Bytes in use now.
    pub live: [usize; 7],
    /// Largest number of bytes in use since the last reset.
    pub peak: [usize; 7],
    /// Largest sum over all classes since the last reset.
    pub peak_total: usize,
}

impl MemoryStats {
    /// Live bytes of a class.
    pub fn live(&self, class: Class) -> usize {
        self.live[class as usize]
    }

    /// Peak bytes of a class.
    pub fn peak(&self, class: Class) -> usize {
        self.peak[class as usize]
    }
}

/// Counters behind [`MemoryStats`].
#[derive(Debug, Default)]
pub struct Accounting {
    live: [AtomicUsize; 7],
    peak: [AtomicUsize; 7],
    total: AtomicUsize,
    peak_total: AtomicUsize,
}

impl Accounting {
    /// Adds a buffer.
    pub fn add(&self, class: Class, bytes: usize) {
        let live = self.live[class as usize].fetch_add(bytes, Relaxed) + bytes;
        self.peak[class as usize].fetch_max(live, Relaxed);
        let total = self.total.fetch_add(bytes, Relaxed) + bytes;
        self.peak_total.fetch_max(total, Relaxed);
    }

    /// Removes a buffer.
    pub fn remove(&self, class: Class, bytes: usize) {
        self.live[class as usize].fetch_sub(bytes, Relaxed);
        self.total.fetch_sub(bytes, Relaxed);
    }

    /// The counters now.
    pub fn stats(&self) -> MemoryStats {
        MemoryStats {
            live: std::array::from_fn(|i| self.live[i].load(Relaxed)),
            peak: std::array::from_fn(|i| self.peak[i].load(Relaxed)),
            peak_total: self.peak_total.load(Relaxed),
        }
    }

    /// Starts peaks anew from what is live.
    pub fn reset_peak(&self) {
        for (peak, live) in self.peak.iter().zip(&self.live) {
            peak.store(live.load(Relaxed), Relaxed);
        }
        self.peak_total.store(self.total.load(Relaxed), Relaxed);
    }
}

/// Alignment of every buffer: a cache line, and the widest vector register.
const ALIGN: usize = 64;
/// Buffers of at least so many bytes come from the arena.
const LARGE: usize = 256 << 10;
/// Size classes below it: four per power of two from 64 bytes up, so that padding stays below a quarter.
const CLASSES: usize = 4 * (LARGE.ilog2() as usize - 5) + 1;

/// Lists of small buffers per class. Each thread of a rayon pool looks first into its own: what it gave back is in its
/// core's caches, and what another core has written would have to come from there.
const LISTS: usize = 8;

/// This thread's list; from the ninth on threads share.
fn own_list() -> usize {
    rayon::current_thread_index().unwrap_or(0) % LISTS
}

/// A pool of host buffers with accounting. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct Pool(Arc<PoolInner>);

#[derive(Debug)]
struct PoolInner {
    accounting: Accounting,
    free: [[Mutex<Vec<Block>>; CLASSES]; LISTS],
    large: Mutex<Arena>,
    /// The allocation that will fail, counted from now on; 0 for none.
    failing: AtomicUsize,
}

impl Default for PoolInner {
    fn default() -> Self {
        PoolInner {
            accounting: Accounting::default(),
            free: std::array::from_fn(|_| std::array::from_fn(|_| Mutex::default())),
            large: Mutex::default(),
            failing: AtomicUsize::new(0),
        }
    }
}

/// Memory of one size class or of the arena, owned.
#[derive(Debug)]
struct Block(NonNull<u8>);

// SAFETY: a block is uniquely owned memory; the pointer is not shared.
unsafe impl Send for Block {}

/// (index of the size class, its bytes) for a request.
fn size_class(bytes: usize) -> (usize, usize) {
    let n = bytes.max(ALIGN);
    let log = usize::BITS as usize - 1 - (n - 1).leading_zeros() as usize; // 2^log < n <= 2^(log+1), or n = 64
    let base = 1usize << log;
    let quarter = base / 4;
    let steps = (n - base).div_ceil(quarter);
    ((log - 5) * 4 + steps, base + steps * quarter)
}

impl Pool {
    /// A buffer of at least `bytes` bytes, 64-byte aligned, initialised (to zero or to old data); `None` when the
    /// system has no memory left.
    pub fn alloc(&self, bytes: usize, class: Class) -> Option<HostBuffer> {
        // Several threads may ask at once, and one of them is the last.
        let counted = || self.0.failing.fetch_update(Relaxed, Relaxed, |n| n.checked_sub(1));
        if self.0.failing.load(Relaxed) > 0 && counted() == Ok(1) {
            return None;
        }
        let block =
            if bytes >= LARGE { Block(locked(&self.0.large).alloc(bytes, class.place())?) } else { self.small(bytes)? };
        self.0.accounting.add(class, bytes);
        Some(HostBuffer { block, bytes, class, pool: self.clone() })
    }

    fn small(&self, bytes: usize) -> Option<Block> {
        let (index, capacity) = size_class(bytes);
        let own = own_list();
        if let Some(warm) = (0..LISTS).find_map(|i| locked(&self.0.free[(own + i) % LISTS][index]).pop()) {
            return Some(warm);
        }
        let layout = Layout::from_size_align(capacity, ALIGN).ok()?;
        // SAFETY: the layout has non-zero size. Zeroed, so that every byte ever handed out is initialised.
        Some(Block(NonNull::new(unsafe { alloc_zeroed(layout) })?))
    }

    /// The allocation after `before` others fails, as if the system had no memory left, and those after it succeed. For
    /// tests of what happens then.
    pub fn fail_after(&self, before: usize) {
        self.0.failing.store(before + 1, Relaxed);
    }

    /// Whether an allocation that was to fail has not been made; from now on none is.
    pub fn stop_failing(&self) -> bool {
        self.0.failing.swap(0, Relaxed) > 0
    }

    /// The byte counters.
    pub fn accounting(&self) -> &Accounting {
        &self.0.accounting
    }

    /// Returns unused memory to the system: small buffers, and segments of large ones of which nothing is in use.
    pub fn trim(&self) {
        self.0.free_small();
        locked(&self.0.large).trim();
    }
}

impl PoolInner {
    fn free_small(&self) {
        for (index, list) in self.free.iter().flat_map(|lists| lists.iter().enumerate()) {
            locked(list).drain(..).for_each(|block| free(block, index));
        }
    }
}

/// Nothing that changes these lists panics half way, so that what a panicking thread leaves is whole.
fn locked<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(|e| e.into_inner())
}

fn free(block: Block, index: usize) {
    let (log, steps) = ((index.max(1) - 1) / 4 + 5, (index.max(1) - 1) % 4 + 1);
    let capacity = (1usize << log) + steps * ((1usize << log) / 4);
    // SAFETY: the block was allocated by `Pool::alloc` with the capacity of this index and the same alignment.
    unsafe { dealloc(block.0.as_ptr(), Layout::from_size_align_unchecked(capacity, ALIGN)) }
}

impl Drop for PoolInner {
    fn drop(&mut self) {
        self.free_small();
    }
}

/// A buffer of a [`Pool`]; returns to it when dropped.
#[derive(Debug)]
pub struct HostBuffer {
    block: Block,
    bytes: usize,
    class: Class,
    pool: Pool,
}

// SAFETY: shared access only reads the pointer; access to the bytes is guarded by the owning `Storage`.
unsafe impl Sync for HostBuffer {}

impl HostBuffer {
    /// Start of the bytes.
    pub fn as_ptr(&self) -> *mut u8 {
        self.block.0.as_ptr()
    }

    /// Usable bytes.
    pub fn len(&self) -> usize {
        self.bytes
    }

    /// Whether there are no usable bytes.
    pub fn is_empty(&self) -> bool {
        self.bytes == 0
    }

    /// What the buffer is for.
    pub fn class(&self) -> Class {
        self.class
    }

    /// The buffer as a slice of `T`, for scratch memory owned by one kernel.
    pub fn as_mut_slice<T: bytemuck::Pod>(&mut self) -> &mut [T] {
        let len = self.bytes / size_of::<T>();
        // SAFETY: the buffer is uniquely borrowed, initialised, 64-byte aligned and at least that long.
        unsafe { std::slice::from_raw_parts_mut(self.as_ptr().cast(), len) }
    }
}

impl Drop for HostBuffer {
    fn drop(&mut self) {
        self.pool.0.accounting.remove(self.class, self.bytes);
        let block = Block(self.block.0);
        if self.bytes >= LARGE {
            locked(&self.pool.0.large).free(block.0, self.bytes);
        } else {
            locked(&self.pool.0.free[own_list()][size_class(self.bytes).0]).push(block);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn size_classes_round_trip_and_waste_less_than_a_quarter() {
        for bytes in (0..5000).chain([LARGE / 2 + 1, LARGE - 1]) {
            let (index, capacity) = size_class(bytes);
            assert!(
                index < CLASSES && capacity >= bytes.max(ALIGN) && (bytes < 256 || capacity * 4 < bytes * 5 + 4),
                "{bytes} -> {capacity}"
            );
            let (log, steps) = ((index.max(1) - 1) / 4 + 5, (index.max(1) - 1) % 4 + 1);
            assert_eq!((1usize << log) + steps * ((1usize << log) / 4), capacity, "{bytes}");
        }
    }

    #[test]
    fn freed_buffers_come_back_and_are_accounted_by_class() {
        let pool = Pool::default();
        let a = pool.alloc(1000, Class::Activations).unwrap();
        let address = a.as_ptr();
        assert_eq!(address as usize % ALIGN, 0);
        assert_eq!(pool.accounting().stats().live(Class::Activations), 1000);
        drop(a);
        let b = pool.alloc(990, Class::Gradients).unwrap();
        assert_eq!(b.as_ptr(), address);
        let stats = pool.accounting().stats();
        assert_eq!(
            (stats.live(Class::Activations), stats.peak(Class::Activations), stats.live(Class::Gradients)),
            (0, 1000, 990)
        );
    }

    #[test]
    fn a_thread_takes_its_own_buffer_first_and_anothers_before_new_memory() {
        let (pool, threads) = (Pool::default(), rayon::ThreadPoolBuilder::new().num_threads(2).build().unwrap());
        let buffers = threads.broadcast(|_| Some(pool.alloc(1000, Class::Workspace).unwrap()));
        let addresses: Vec<usize> = buffers.iter().flatten().map(|b| b.as_ptr() as usize).collect();
        let buffers = Mutex::new(buffers);
        threads.broadcast(|thread| drop(buffers.lock().unwrap()[thread.index()].take()));
        let again = threads.broadcast(|_| pool.alloc(1000, Class::Workspace).unwrap());
        assert_eq!(again.iter().map(|b| b.as_ptr() as usize).collect::<Vec<_>>(), addresses);
        drop(again);
        let both = threads.install(|| [(); 2].map(|()| pool.alloc(1000, Class::Workspace).unwrap()));
        assert!(both.iter().all(|b| addresses.contains(&(b.as_ptr() as usize))));
    }
}
