//! Parallel loops of kernels.
//!
//! An operator of a training step takes some tens of microseconds, and waking a thread of the pool as long again.
//! rayon's own loops let the thread that began one sleep as soon as it waits a little for another to end. These do not;
//! and each thread begins with the same part of a loop, of which its core's caches may still hold what the loop before
//! wrote.

use std::convert::Infallible;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use rayon::iter::plumbing::{Producer, ProducerCallback};
use rayon::prelude::*;

use super::patience::Patience;

/// Pieces of a loop per thread at most: what threads that are done take from the others.
const PIECES: usize = 16;
/// Time a thread that found nothing left to do stays.
const STAY: Duration = Duration::from_micros(100);

/// Loops over the items of an indexed parallel iterator, on the threads of this thread's rayon pool.
pub(crate) trait Tasks: IndexedParallelIterator {
    /// Calls `f` with each item.
    fn each(self, f: impl Fn(Self::Item) + Sync) {
        self.each_with(|| (), |(), item| f(item));
    }

    /// As [`Tasks::each`], with something that each thread makes once.
    fn each_with<S>(self, init: impl Fn() -> S + Sync, f: impl Fn(&mut S, Self::Item) + Sync) {
        let Ok(()) = run(self, &init, &|state: &mut S, item: Self::Item| {
            f(state, item);
            Ok::<(), Infallible>(())
        });
    }

    /// Calls `f` with each item, or fewer if one fails, whose error is returned.
    fn try_each<E: Send>(self, f: impl Fn(Self::Item) -> Result<(), E> + Sync) -> Result<(), E> {
        run(self, &|| (), &|(): &mut (), item: Self::Item| f(item))
    }

    /// What `f` returns for each item, in order.
    fn list<R: Send>(self, f: impl Fn(Self::Item) -> R + Sync) -> Vec<R> {
        self.list_with(|| (), |(), item| f(item))
    }

    /// As [`Tasks::list`], with something that each thread makes once.
    fn list_with<S, R: Send>(self, init: impl Fn() -> S + Sync, f: impl Fn(&mut S, Self::Item) -> R + Sync) -> Vec<R> {
        let mut results = Vec::new();
        results.resize_with(self.len(), || None);
        results.par_iter_mut().zip(self).each_with(init, |state, (to, item)| *to = Some(f(state, item)));
        results.into_iter().flatten().collect()
    }
}

impl<I: IndexedParallelIterator> Tasks for I {}

/// What a loop does with an item. Of a closure behind a pointer there would be a second copy, to be called by value.
trait Work<T, S, E>: Sync {
    fn on(&self, state: &mut S, item: T) -> Result<(), E>;
}

impl<T, S, E, F: Fn(&mut S, T) -> Result<(), E> + Sync> Work<T, S, E> for F {
    fn on(&self, state: &mut S, item: T) -> Result<(), E> {
        self(state, item)
    }
}

/// What a thread does with the pieces that it claims.
trait Claims: Sync {
    fn work(&self, claimed: &mut dyn Iterator<Item = usize>);
}

impl<F: Fn(&mut dyn Iterator<Item = usize>) + Sync> Claims for F {
    fn work(&self, claimed: &mut dyn Iterator<Item = usize>) {
        self(claimed);
    }
}

fn run<I: IndexedParallelIterator, S, E: Send>(
    items: I,
    init: &(dyn Fn() -> S + Sync),
    f: &dyn Work<I::Item, S, E>,
) -> Result<(), E> {
    let len = items.len();
    items.with_producer(Loop { len, init, f })
}

/// The items are long enough to be worked on through a pointer: loops over items of one type are one function.
struct Loop<'a, T, S, E> {
    len: usize,
    init: &'a (dyn Fn() -> S + Sync),
    f: &'a dyn Work<T, S, E>,
}

impl<T, S, E: Send> ProducerCallback<T> for Loop<'_, T, S, E> {
    type Output = Result<(), E>;

    fn callback<P: Producer<Item = T>>(self, items: P) -> Result<(), E> {
        let Loop { len, init, f } = self;
        let threads = rayon::current_num_threads();
        let count = (len / items.min_len().max(1)).min(threads * PIECES);
        if threads == 1 || count < 2 {
            let mut state = init();
            return items.into_iter().try_for_each(|item| f.on(&mut state, item));
        }
        let pieces = cut(items, len, count);
        let failure = Mutex::new(None);
        let failed = AtomicBool::new(false);
        let shares = Shares::new(count, threads.min(count));
        shares.run(&|claimed: &mut dyn Iterator<Item = usize>| {
            let mut state = None;
            for i in claimed {
                let piece = pieces[i].lock().unwrap_or_else(|e| e.into_inner()).take();
                for item in piece.into_iter().flat_map(P::into_iter).take_while(|_| !failed.load(Ordering::Relaxed)) {
                    if let Err(error) = f.on(state.get_or_insert_with(init), item) {
                        failed.store(true, Ordering::Relaxed);
                        *failure.lock().unwrap_or_else(|e| e.into_inner()) = Some(error);
                    }
                }
            }
        });
        failure.into_inner().unwrap_or_else(|e| e.into_inner()).map_or(Ok(()), Err)
    }
}

/// `count` pieces of about equal length.
fn cut<P: Producer>(items: P, len: usize, count: usize) -> Vec<Mutex<Option<P>>> {
    let mut pieces = Vec::with_capacity(count);
    let mut rest = items;
    for i in 1..count {
        let (piece, others) = rest.split_at(len * i / count - len * (i - 1) / count);
        pieces.push(Mutex::new(Some(piece)));
        rest = others;
    }
    pieces.push(Mutex::new(Some(rest)));
    pieces
}

/// The pieces of a loop, by the thread that begins with them.
struct Shares {
    count: usize,
    /// The next piece of each share.
    next: Vec<Next>,
    /// Pieces that are not done.
    left: AtomicUsize,
}

/// In a cache line of its own, and the one that is fetched beside it.
#[repr(align(128))]
struct Next(AtomicUsize);

/// A piece that is being worked on: done when this is dropped, by a panic too.
struct Claimed<'a>(&'a Shares, usize);

impl Drop for Claimed<'_> {
    fn drop(&mut self) {
        self.0.left.fetch_sub(1, Ordering::Release);
    }
}

impl Shares {
    fn new(count: usize, shares: usize) -> Shares {
        let next = (0..shares).map(|i| Next(AtomicUsize::new(count * i / shares))).collect();
        Shares { count, next, left: AtomicUsize::new(count) }
    }

    /// Calls `work` with pieces to be done, on all threads that come.
    fn run(&self, work: &dyn Claims) {
        let part = || {
            let mut claimed = None;
            work.work(&mut std::iter::from_fn(|| {
                // The piece before is done.
                drop(claimed.take());
                claimed = self.claim();
                claimed.as_ref().map(|c: &Claimed<'_>| c.1)
            }));
        };
        rayon::scope(|scope| {
            for _ in 1..self.next.len() {
                scope.spawn(|_| {
                    part();
                    self.stay();
                });
            }
            part();
            self.wait();
        });
    }

    /// A piece of this thread's share, or, where that is done, of the following ones.
    fn claim(&self) -> Option<Claimed<'_>> {
        let shares = self.next.len();
        let own = rayon::current_thread_index().unwrap_or(0);
        (0..shares).map(|i| (own + i) % shares).find_map(|share| {
            let (next, end) = (&self.next[share].0, self.count * (share + 1) / shares);
            if next.load(Ordering::Relaxed) >= end {
                return None;
            }
            let piece = next.fetch_add(1, Ordering::Relaxed);
            (piece < end).then(|| Claimed(self, piece))
        })
    }

    /// Waits a little for the others, without other work: this thread would sleep, and the next loop begins when this
    /// one ends.
    fn stay(&self) {
        let start = Instant::now();
        while self.left.load(Ordering::Acquire) > 0 && start.elapsed() < STAY {
            std::hint::spin_loop();
        }
    }

    /// Does other work of the pool until all pieces are done, or for as long as a thread has [`Patience`]: then it
    /// sleeps until they are.
    fn wait(&self) {
        let mut patience = Patience::new();
        while self.left.load(Ordering::Acquire) > 0 {
            match rayon::yield_now() {
                Some(rayon::Yield::Executed) => patience.worked(),
                Some(rayon::Yield::Idle) if patience.lasts() => {}
                Some(rayon::Yield::Idle) | None => return,
            }
        }
    }
}
