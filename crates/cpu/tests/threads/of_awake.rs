//! Threads that stay awake.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::awake::*;
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
