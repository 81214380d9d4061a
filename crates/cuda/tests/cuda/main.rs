//! The backend on the interpreter: every operator within its stated bound, bits beside the CPU's, what is reported
//! late. Samples are those of the catalogue, and those that cross the edges of the kernels' tiles.

use binade_cpu as _;

mod bits;
mod common;
mod edges;
mod late;
mod mutants;
mod registry;
mod rows;
mod updates;
