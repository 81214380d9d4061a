//! Loops over threads.

use std::sync::atomic::{AtomicUsize, Ordering};

use rayon::prelude::*;

use crate::tasks::*;

fn pool(threads: usize) -> rayon::ThreadPool {
    rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap()
}

#[test]
fn every_item_is_met_once_for_any_number_of_threads_and_items() {
    for threads in [1, 2, 3, 8] {
        pool(threads).install(|| {
            for n in [0, 1, 2, 3, 7, 8, 100, 1001] {
                let mut met = vec![0; n];
                met.par_iter_mut().each(|m| *m += 1);
                assert!(met.iter().all(|&m| m == 1), "{n} on {threads}");
                let list = (0..n).into_par_iter().with_min_len(3).list_with(Vec::new, |seen, i| {
                    seen.push(i);
                    2 * i
                });
                assert!(list.into_iter().eq((0..n).map(|i| 2 * i)), "{n} on {threads}");
            }
        });
    }
    (0..10).into_par_iter().each(|i| assert!(i < 10, "outside any pool"));
}

#[test]
fn an_error_ends_the_loop_and_a_panic_goes_through_it() {
    let met = AtomicUsize::new(0);
    for threads in [1, 3] {
        pool(threads).install(|| {
            let result = (0..100_000).into_par_iter().try_each(|i| {
                met.fetch_add(1, Ordering::Relaxed);
                if i == 5 { Err(i) } else { Ok(()) }
            });
            assert_eq!(result, Err(5));
            assert!(met.load(Ordering::Relaxed) < 100_000);
            for bad in [0, 99] {
                let panic = std::panic::catch_unwind(|| {
                    (0..100).into_par_iter().each(|i| {
                        if i == bad {
                            panic!("on purpose")
                        }
                    })
                });
                assert!(panic.is_err());
            }
            assert_eq!((0..100).into_par_iter().list(|i| i).len(), 100, "the threads are free again");
        });
    }
}

#[test]
fn loops_inside_loops_end() {
    pool(3).install(|| {
        let sums =
            (0..50).into_par_iter().list(|i| (0..50).into_par_iter().list(|j: usize| i * j).into_iter().sum::<usize>());
        assert!(sums.into_iter().eq((0..50).map(|i| i * 1225)));
    });
}
