//! Tests that count the memory of their process.

use std::sync::{Mutex, MutexGuard, PoisonError};

mod in_place;
mod saved;

/// Holds the others up, as all count the same memory.
fn alone() -> MutexGuard<'static, ()> {
    static MEMORY: Mutex<()> = Mutex::new(());
    MEMORY.lock().unwrap_or_else(PoisonError::into_inner)
}
