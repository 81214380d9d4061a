//! The tests that share a process: one program takes a fraction of the time to build that one for each file takes.

mod cache;
mod common;
mod configs;
mod cuda;
mod devices;
mod diffusion;
mod faults;
mod golden;
mod initial;
mod names;
mod preparation;
mod quantised;
mod structure;
mod tied;
mod training;
