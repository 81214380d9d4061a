//! Threads that do not sleep between the operators of a step.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

/// Polls without work after which a thread lets others have its core in between.
const PATIENCE: u32 = 1 << 10;

/// Runs `f` while the other threads of this thread's rayon pool look for work without going to sleep: waking one takes longer than many an
/// operator of a training step. Changes no result. Without effect on a thread that belongs to no pool, or to a pool of one thread.
pub fn awake<T>(f: impl FnOnce() -> T) -> T {
    struct Done(Arc<AtomicBool>);
    impl Drop for Done {
        fn drop(&mut self) {
            self.0.store(true, Relaxed);
        }
    }
    let Some(caller) = rayon::current_thread_index().filter(|_| rayon::current_num_threads() > 1) else { return f() };
    let done = Done(Arc::default());
    let flag = done.0.clone();
    rayon::spawn_broadcast(move |context| {
        let mut idle = 0;
        // The caller, should it come here while it waits for others, has its work to do.
        while context.index() != caller && !flag.load(Relaxed) {
            match rayon::yield_now() {
                Some(rayon::Yield::Executed) => idle = 0,
                Some(rayon::Yield::Idle) if idle < PATIENCE => {
                    idle += 1;
                    std::hint::spin_loop();
                }
                Some(rayon::Yield::Idle) | None => std::thread::yield_now(),
            }
        }
    });
    f()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_is_done_and_nested_calls_and_panics_leave_the_threads_free() {
        let sum = || -> u64 {
            use rayon::prelude::*;
            (0..100_000u64).into_par_iter().sum()
        };
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
}
