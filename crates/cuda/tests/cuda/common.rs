//! What tests share: samples are made on the host, where that is a thousand times as fast, and moved as they lie.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use binade_cuda::{Driver, Failure, Interpreted, Launch};
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

/// An interpreter that has no memory for anything more, or starts no kernel, when it is told so.
#[derive(Clone, Debug, Default)]
pub struct Faulty {
    interpreter: Interpreted,
    pub full: Arc<AtomicBool>,
    pub refuses: Arc<AtomicBool>,
    /// How many kernels it was asked for.
    pub asked: Arc<AtomicUsize>,
}

impl Driver for Faulty {
    fn name(&self) -> &str {
        Driver::name(&self.interpreter)
    }
    fn capability(&self) -> u32 {
        self.interpreter.capability()
    }
    fn alloc(&self, bytes: usize) -> std::result::Result<u64, Failure> {
        if self.full.load(Ordering::Relaxed) { Err(Failure::OutOfMemory) } else { self.interpreter.alloc(bytes) }
    }
    fn free(&self, address: u64) {
        self.interpreter.free(address);
    }
    fn keeps_memory(&self) -> bool {
        self.interpreter.keeps_memory()
    }
    fn write(&self, to: u64, bytes: &[u8]) -> std::result::Result<(), Failure> {
        Driver::write(&self.interpreter, to, bytes)
    }
    fn read(&self, copies: &mut [(u64, &mut [u8])]) -> std::result::Result<(), Failure> {
        Driver::read(&self.interpreter, copies)
    }
    fn is_written(&self, from: u64, bytes: usize) -> bool {
        self.interpreter.is_written(from, bytes)
    }
    fn launch(&self, launch: &Launch<'_>) -> std::result::Result<(), Failure> {
        self.asked.fetch_add(1, Ordering::Relaxed);
        if self.refuses.load(Ordering::Relaxed) {
            return Err(Failure::Device("CUDA_ERROR_LAUNCH_FAILED".into()));
        }
        Driver::launch(&self.interpreter, launch)
    }
}
