//! The tests that share a process: one program takes a fraction of the time to build that one for each file takes.

mod allocations;
mod anomalies;
mod autocast;
mod blaming;
mod casts;
mod classes;
mod foreign;
mod groups;
mod names;
mod net;
mod observed;
mod owners;
mod parts;
mod pitfalls;
mod policies;
mod presets;
mod programs;
mod scaling;
mod skipping;
mod snapshots;
mod stays_in_f32;
mod stored;
mod streams;
mod structure;
mod training;
