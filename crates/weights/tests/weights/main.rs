//! The tests that share a process: one program takes a fraction of the time to build that one for each file takes.

mod bad_files;
mod common;
mod loading;
mod reading;
mod saving;
