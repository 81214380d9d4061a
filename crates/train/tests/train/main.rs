//! The tests that share a process: one program takes a fraction of the time to build that one for each file takes.

mod augment;
mod counting;
mod ends;
mod files;
mod folder;
mod kept;
mod pixels;
mod runs;
mod samples;
mod saving;
mod settings;
mod tasks;
mod text;
