//! [`Lanes`] in AVX and AVX-512 registers.

/// `unsafe { intrinsic }` for code that only runs where `dispatch` found the instruction set.
macro_rules! x {
    ($e:expr) => {
        // SAFETY: this type is used only in kernels that `dispatch` runs after detecting the instruction set; loads and
        // stores go through slices whose length is asserted, or are masked to it.
        unsafe { $e }
    };
}

mod v16;
mod v8;

use core::arch::x86_64::{__m256, __m512};

/// The half of a number that bf16 keeps.
const UPPER_HALF: i32 = -0x1_0000;

/// Eight f32 in an AVX register. Made and used only inside kernels dispatched to AVX2.
#[derive(Clone, Copy)]
#[repr(transparent)]
pub struct V8(__m256);

/// Sixteen f32 in an AVX-512 register. Made and used only inside kernels dispatched to AVX-512.
#[derive(Clone, Copy)]
#[repr(transparent)]
pub struct V16(__m512);
