//! The backend on the interpreter: every operator within its stated bound, bits beside the CPU's, what is reported
//! late. Samples are those of the catalogue, and those that cross the edges of the kernels' tiles.

use binade_cpu as _;

mod attention_cores;
mod bits;
mod common;
mod conv_cores;
mod edges;
mod empties;
mod extents;
mod fused;
mod headers;
mod integers;
mod late;
mod limits;
mod mutants;
mod norms;
mod overwriting;
mod registry;
mod rows;
mod specials;
mod tensor_cores;
mod updates;
