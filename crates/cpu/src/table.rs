//! Functions of 16-bit numbers as tables: there are only 65,536 arguments. A table is made by the kernels it stands
//! for, at their instruction set, so a looked-up result has the bits of a computed one. Looking up takes a load and a
//! store per element on any machine.

use std::sync::{PoisonError, RwLock};

use super::operand::{BLOCK, Compute, TASK};
use crate::simd::{Beside, Isa, prefetch};
use binade_tensor::DType;
use binade_tensor::op::Unary;

/// Number of 16-bit codes.
const CODES: usize = 1 << 16;

/// A value for each code.
pub type Table<T> = [T; CODES];

/// The tables made so far of one kind. They stay: 128 or 256 KiB each, for as many functions as a program uses.
pub struct Tables<T: 'static>(RwLock<Vec<(Key, &'static Table<T>)>>);

type Key = (Isa, Unary, DType);

/// Functions rounded to their argument's format, as codes.
pub static VALUES: Tables<u16> = Tables(RwLock::new(Vec::new()));
/// Derivatives in f32.
pub static SLOPES: Tables<f32> = Tables(RwLock::new(Vec::new()));

impl<T: bytemuck::Pod> Tables<T> {
    /// The table of `row` for arguments of `dtype`, if it is there or `n` elements are worth making it. `f(x, y)`
    /// computes a block: `y` are the table's elements of f32 arguments `x`.
    pub fn get(
        &self,
        isa: Isa,
        row: Unary,
        dtype: DType,
        n: usize,
        f: &dyn Fn(&[f32], &mut [T]),
    ) -> Option<&'static Table<T>> {
        let key = (isa, row, dtype);
        let find = |tables: &[(Key, &'static Table<T>)]| tables.iter().find(|t| t.0 == key).map(|t| t.1);
        let found = find(&self.0.read().unwrap_or_else(PoisonError::into_inner));
        if found.is_some() || n < TASK {
            return found;
        }
        let codes: Vec<u16> = (0..=u16::MAX).collect();
        let mut table = vec![T::zeroed(); CODES];
        let mut x = [0.0f32; BLOCK];
        for (block, y) in table.chunks_mut(BLOCK).enumerate() {
            f32::load(isa, dtype, bytemuck::cast_slice(&codes), block * BLOCK, 1, &mut x);
            f(&x, y);
        }
        let table: Box<Table<T>> = table.into_boxed_slice().try_into().ok()?;
        let mut tables = self.0.write().unwrap_or_else(PoisonError::into_inner);
        // Another thread may have been faster.
        Some(find(&tables).unwrap_or_else(|| {
            let table: &'static Table<T> = Box::leak(table);
            tables.push((key, table));
            table
        }))
    }
}

/// `y[i] = table[x[i]]`; pieces of `beside` are asked for with it. Neither gathers nor packed codes are faster than the
/// plain loop by more than a tenth where they are fast at all.
pub fn look_up<T: Copy>(table: &Table<T>, x: &[u16], y: &mut [T], beside: Option<Beside>) {
    for (i, (x, y)) in x.chunks(Beside::PIECE).zip(y.chunks_mut(Beside::PIECE)).enumerate() {
        prefetch::ask_to_read(x.as_ptr());
        prefetch::ask_to_write(y.as_ptr());
        if let Some(beside) = &beside {
            beside.ask(i);
        }
        x.iter().zip(y).for_each(|(&x, y)| *y = table[x as usize]);
    }
}
