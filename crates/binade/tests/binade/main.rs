//! The tests that share a process: one program takes a fraction of the time to build that one for each file takes.

mod beside;
mod cli;
mod devices;
mod diffusion;
mod export;
mod files;
mod foreign;
mod isa;
mod reports;
mod vision;
