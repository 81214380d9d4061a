//! Opcodes by the manual's semantics, and each kind of finding with its correct twin.

// Shifts and masks stand as in the manual's formulas.
#![allow(clippy::precedence)]

mod arithmetic;
mod bits;
mod common;
mod compare;
mod conversion;
mod copies;
mod faults;
mod hopper;
mod matrices;
mod memory;
mod parsing;
mod rare;
mod sums;
mod warps;
