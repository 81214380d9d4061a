//! Tests that ask for an interrupt, which stops every run of their process.

use std::sync::{Mutex, MutexGuard, PoisonError};

mod resume;
mod resumed_scale;

/// Holds the others up.
fn alone() -> MutexGuard<'static, ()> {
    static INTERRUPT: Mutex<()> = Mutex::new(());
    INTERRUPT.lock().unwrap_or_else(PoisonError::into_inner)
}
