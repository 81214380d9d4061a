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

#[cfg(test)]
mod tests {
    use super::*;
    use rayon::prelude::*;

    fn awake<T>(f: impl FnOnce() -> T) -> T {
        let _awake = Awake::begin();
        f()
    }

    fn sum() -> u64 {
        (0..100_000u64).into_par_iter().sum()
    }

    #[test]
    fn work_is_done_and_nested_calls_and_panics_leave_the_threads_free() {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(3).build().unwrap();
        for _ in 0..20 {
            assert_eq!(pool.install(|| awake(|| sum() + awake(sum))), 2 * 4_999_950_000);
        }
        let panic = pool.install(|| {
            std::panic::catch_unwind(|| {
                awake(|| {
                    if sum() > 0 {
                        panic!("on purpose")
                    }
                })
            })
        });
        assert!(panic.is_err());
        // All three threads take part again.
        let seen = pool.broadcast(|context| context.index());
        assert_eq!(seen, [0, 1, 2]);
        assert_eq!(awake(sum), 4_999_950_000, "outside any pool");
    }

    fn wait_for(flag: &AtomicBool) {
        while !flag.load(Ordering::SeqCst) {
            std::thread::yield_now();
        }
    }

    /// Whether a task gets done that `awake(f)` waits for, whose thread waits in its middle for a half that `threads -
    /// 1` others may take: from before `f` begins, or from then on.
    fn is_done(threads: usize, before: bool) -> bool {
        let [started, begun, taken] = [(); 3].map(|()| AtomicBool::new(false));
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.scope(|scope| {
            let (send, receive) = std::sync::mpsc::channel();
            let half = || {
                taken.store(true, Ordering::SeqCst);
                std::thread::sleep(Duration::from_millis(3));
            };
            let (started, begun, taken) = (&started, &begun, &taken);
            scope.spawn(move |_| {
                started.store(true, Ordering::SeqCst);
                if !before {
                    wait_for(begun);
                }
                rayon::join(|| wait_for(taken), half);
                let _ = send.send(());
            });
            wait_for(if before { taken } else { started });
            awake(|| {
                begun.store(true, Ordering::SeqCst);
                while !taken.load(Ordering::SeqCst) {
                    rayon::yield_now();
                }
                receive.recv_timeout(Duration::from_secs(5)).is_ok()
            })
        })
    }

    #[test]
    fn a_thread_in_the_middle_of_a_task_of_the_step_goes_on_with_it() {
        assert!(is_done(2, false));
    }

    #[test]
    fn a_thread_in_the_middle_of_a_task_that_the_step_waits_for_goes_on_with_it() {
        assert!(is_done(3, true));
    }
}
