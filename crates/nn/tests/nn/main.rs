//! The tests that share a process: one program takes a fraction of the time to build that one for each file takes.

mod devices;
mod formulas;
mod layers;
mod modules;
mod optimisers;
mod quantised;
mod restoring;
mod settings;
mod snapshots;
mod state;
mod steps;
