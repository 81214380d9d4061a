//! The tests that share a process: one program takes a fraction of the time to build that one for each file takes.

mod allocations;
mod attention;
mod cast_when_read;
mod empties;
mod extents;
mod extremes;
mod functions;
mod integers;
mod joins;
mod large;
mod norms;
mod overwriting;
mod padding;
mod product_bits;
mod products;
mod properties;
mod ranged;
mod ranges;
mod registry;
mod resampling;
mod rounding;
