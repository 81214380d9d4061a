//! The tests that share a process: one program takes a fraction of the time to build that one for each file takes.

mod beside;
mod cli;
mod common;
mod data;
mod devices;
mod diffusion;
mod examples;
mod export;
mod fetch;
mod files;
mod foreign;
mod isa;
mod profile;
mod reports;
mod runs;
mod vision;
