//! What tests share: samples are made on the host, where that is a thousand times as fast, and moved as they lie.

use binade_tensor::samples::catalogue;
use binade_tensor::{Array, Arrays, Class, DType, Device, Layout, Op, Request, Result, Shape, run};

/// The catalogue without what the device refuses by name.
pub fn operators() -> impl Iterator<Item = Op> {
    catalogue().into_iter().filter(|op| *op != Op::Cast(DType::F64))
}

/// An array of the host on a device, with its strides and what lies between the elements.
pub fn there(device: &Device, array: &Array) -> Result<Array> {
    let whole = Layout::contiguous(Shape::new(&[array.layout().end()])?);
    array.with_layout(whole)?.to(device)?.with_layout(*array.layout())
}

/// [`there`] of each.
pub fn all_there(device: &Device, arrays: &[Array]) -> Result<Vec<Array>> {
    arrays.iter().map(|array| there(device, array)).collect()
}

/// The outputs of an operator.
pub fn outs(op: &Op, ins: &[Array], device: &Device, want: DType) -> Result<Arrays> {
    run(Request::new(op, &ins.iter().collect::<Vec<_>>(), device, want, Class::Activations))
}

/// The elements as bits, of which all NaN are one.
pub fn bits(array: &Array) -> Result<Vec<u64>> {
    let one = |v: f64| if v.is_nan() { u64::MAX } else { v.to_bits() };
    Ok(array.to(&Device::cpu())?.to_f64_vec()?.into_iter().map(one).collect())
}
