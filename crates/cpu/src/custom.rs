//! Runs users' operators: inputs widened, outputs rounded once.

use super::operand::{Compute, Operand};
use super::rows::write;
use crate::kernel::{In, Out};
use crate::simd::Isa;
use binade_tensor::op::{Custom, CustomView};
use binade_tensor::{DType, Error, Result};

pub(super) fn run<C: Compute>(isa: Isa, op: &Custom, ins: &[In<'_>], outs: &mut [Out<'_>]) -> Result<()> {
    let wide = |&array: &In<'_>| {
        let order: Vec<usize> = (0..array.shape().rank()).collect();
        let mut values = vec![C::zero(); array.numel()];
        Operand::new(array, array.shape(), &order).load(isa, 0, &mut values);
        values
    };
    let values: Vec<Vec<C>> = ins.iter().map(wide).collect();
    let mut results: Vec<Vec<C>> = outs.iter().map(|o| vec![C::zero(); o.array().numel()]).collect();
    if C::DTYPE == DType::F64 {
        call::<C, f64>(ins, &values, &mut results, |ins, outs| op.define(ins, outs))?;
    } else {
        call::<C, f32>(ins, &values, &mut results, |ins, outs| op.run(ins, outs))?;
    }
    for (result, out) in results.iter().zip(outs) {
        if result.len() != out.array().numel() {
            let message = format!("its kernel returned {} elements for shape {:?}", result.len(), out.array().shape());
            return Err(Error::Argument { op: op.name(), message });
        }
        write(isa, result, out);
    }
    Ok(())
}

/// With the slices as the type T, which C is.
fn call<C: Compute, T: bytemuck::Pod>(
    ins: &[In<'_>],
    values: &[Vec<C>],
    results: &mut [Vec<C>],
    run: impl FnOnce(&[CustomView<'_, T>], &mut [Vec<T>]) -> Result<()>,
) -> Result<()> {
    let views: Vec<CustomView<'_, T>> =
        ins.iter().zip(values).map(|(a, v)| CustomView { shape: a.shape(), values: bytemuck::cast_slice(v) }).collect();
    let mut outs: Vec<Vec<T>> = results.iter().map(|r| bytemuck::cast_slice::<C, T>(r).to_vec()).collect();
    run(&views, &mut outs)?;
    for (result, out) in results.iter_mut().zip(&outs) {
        *result = bytemuck::cast_slice::<T, C>(out).to_vec();
    }
    Ok(())
}
