//! Threads that do not sleep between the operators of a step.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use super::patience::Patience;

/// Time the other threads are given to come before the step begins.
const ARRIVAL: Duration = Duration::from_micros(300);

/// What an [`Awake`] shares with the threads.
#[derive(Default)]
struct Call {
    /// Whether the step has begun. A thread that comes later may come out of the middle of one of the step's own tasks.
    /// The step would wait for that task while the thread waits for the step.
    begun: AtomicBool,
    done: AtomicBool,
    arrived: AtomicUsize,
}

/// While it lives, the other threads of this thread's rayon pool look for work without going to sleep: waking one takes
/// longer than many an operator of a training step. Changes no result. Without effect on a thread that belongs to no
/// pool, or to a pool of one thread.
pub struct Awake(Arc<Call>);

impl Awake {
    pub fn begin() -> Awake {
        let awake = Awake(Arc::default());
        let others = rayon::current_num_threads() - 1;
        let Some(caller) = rayon::current_thread_index().filter(|_| others > 0) else { return awake };
        let call = awake.0.clone();
        rayon::spawn_broadcast(move |context| {
            // The caller, should it come here while it waits for others, has its work to do.
            if context.index() == caller || call.begun.load(Ordering::SeqCst) {
                return;
            }
            call.arrived.fetch_add(1, Ordering::SeqCst);
            look_for_work(&call);
        });
        let start = Instant::now();
        while awake.0.arrived.load(Ordering::SeqCst) < others && start.elapsed() < ARRIVAL {
            std::thread::yield_now();
        }
        awake.0.begun.store(true, Ordering::SeqCst);
        awake
    }
}

impl Drop for Awake {
    fn drop(&mut self) {
        self.0.done.store(true, Ordering::Relaxed);
    }
}

/// Until the step is done, or there was no work for as long as a thread has [`Patience`]: it may be in the middle of a
/// task of somebody else, who waits for it.
fn look_for_work(call: &Call) {
    let mut patience = Patience::new();
    while !call.done.load(Ordering::Relaxed) {
        match rayon::yield_now() {
            Some(rayon::Yield::Executed) => patience = Patience::new(),
            Some(rayon::Yield::Idle) if patience.lasts() => {}
            Some(rayon::Yield::Idle) | None => return,
        }
    }
}
