//! The tests that share a process: one program takes a fraction of the time to build that one for each file takes.

mod common;
mod composed;
mod ctc;
mod devices;
mod draws;
mod einsum;
mod empties;
mod fused;
mod geometry;
mod gradient_flow;
mod gradients;
mod gradients_of_contractions;
mod recompute;
mod registry;
mod scales;
mod second_order;
mod selection;
mod singular;
mod tape;
mod walks;
