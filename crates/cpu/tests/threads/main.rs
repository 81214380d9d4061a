//! Loops over threads, and threads that stay awake. The files of the library are compiled here again: nothing of them
//! is public, and a test of the library itself would compile all kernels again.

#![allow(dead_code)]

#[path = "../../src/awake.rs"]
mod awake;
#[path = "../../src/patience.rs"]
mod patience;
#[path = "../../src/tasks.rs"]
mod tasks;

mod of_awake;
mod of_tasks;
