//! An activation of an operand, of whose results the planes are made: computed where the operand is f32, looked up
//! where it has 16 bit.

use super::PANELS;
use crate::elementwise::{activate, value_table};
use crate::planes::Work;
use crate::simd::Isa;
use crate::simd::amx::SIDE;
use crate::simd::planes::Seen;
use crate::table::{Table, look_up};
use crate::values::Values;
use binade_tensor::op::Unary;
use binade_tensor::{Array, DType};

/// An activation of an operand, computed as the operand is read.
#[derive(Clone, Copy)]
pub(super) enum Act {
    Computed(Unary),
    LookedUp(&'static Table<u16>),
}

impl Act {
    /// `None` where there is no such way with the bits of [`binade_tensor::Op::Unary`].
    pub(super) fn new(isa: Isa, row: Unary, x: &Array) -> Option<Act> {
        let dtype = x.dtype();
        if !x.is_written() {
            None
        } else if dtype == DType::F32 {
            Some(Act::Computed(row))
        } else if dtype.is_half() {
            value_table(isa, row, dtype, x.numel()).map(Act::LookedUp)
        } else {
            None
        }
    }

    /// `n` numbers, split into planes.
    pub(super) fn read(
        self,
        work: &Work<'_>,
        values: Values<'_>,
        [start, stride, n]: [usize; 3],
        distance: usize,
        to: &mut [u16],
        seen: &mut Seen,
    ) {
        // As much as is read of a row at a time: more would be cleared in vain.
        const PART: usize = PANELS * SIDE;
        for at in (0..n).step_by(PART) {
            let (part, first, to) = (PART.min(n - at), start + at * stride, &mut to[at..]);
            match self {
                Act::Computed(row) => {
                    let (mut x, mut y) = ([0.0f32; PART], [0.0f32; PART]);
                    let x = if stride == 1 {
                        &bytemuck::cast_slice(values.bytes)[first..first + part]
                    } else {
                        values.load(work.cx.isa, first, stride, &mut x[..part]);
                        &x[..part]
                    };
                    activate(work.cx.isa, row, x, &mut y[..part]);
                    work.read(
                        Values::written(values.dtype, bytemuck::cast_slice(&y[..part])),
                        0,
                        1,
                        part,
                        distance,
                        to,
                        seen,
                    );
                }
                Act::LookedUp(table) => {
                    let (mut codes, mut results) = ([0; PART], [0; PART]);
                    let from = &bytemuck::cast_slice::<u8, u16>(values.bytes)[first..];
                    let codes = if stride == 1 {
                        &from[..part]
                    } else {
                        codes[..part].iter_mut().zip(from.iter().step_by(stride)).for_each(|(code, &x)| *code = x);
                        &codes[..part]
                    };
                    look_up(table, codes, &mut results[..part], None);
                    work.read(
                        Values::written(values.dtype, bytemuck::cast_slice(&results[..part])),
                        0,
                        1,
                        part,
                        distance,
                        to,
                        seen,
                    );
                }
            }
        }
    }
}
