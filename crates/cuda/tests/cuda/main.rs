//! The backend on the interpreter: every operator within its stated bound, bits beside the CPU's, what is reported
//! late.

use binade_cpu as _;

mod bits;
mod edges;
mod late;
mod mutants;
mod registry;
mod rows;
mod updates;
