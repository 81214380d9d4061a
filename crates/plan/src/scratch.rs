//! [`Scratch`]: what operators of a device need while they run, each measured once.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use binade_tensor::op::Backward;
use binade_tensor::{Array, ArrayMut, Class, Device, Key, Layout, Meta, Op, Result, Shape};

/// Memory of [`Class::Workspace`] by operator, dtypes and layouts of its operands. What is not known yet is measured:
/// the operator runs once, on zeros, on the device, whose peaks start anew. A model's equal layers are measured as one.
/// Clones share what they know.
#[derive(Clone, Debug)]
pub struct Scratch {
    device: Device,
    /// `None` where nothing is measured.
    known: Option<Arc<Mutex<HashMap<String, usize>>>>,
}

impl Scratch {
    /// Of a device, with nothing known. How much it needs may depend on the threads that it is measured with.
    pub fn of(device: &Device) -> Scratch {
        Scratch { device: device.clone(), known: Some(Arc::default()) }
    }

    /// Of a device on which nothing runs: plans leave out what its kernels need beside buffers, and are made at once.
    /// For a first look, as an operator alone may be more than there is memory for.
    pub fn unmeasured(device: &Device) -> Scratch {
        Scratch { device: device.clone(), known: None }
    }

    pub(crate) fn device(&self) -> &Device {
        &self.device
    }

    /// Bytes that an operator needs beside operands and results like these.
    ///
    /// # Errors
    /// The operator cannot be run alone: out of memory, or it refuses zeros.
    pub(crate) fn of_op(&self, op: &Op, ins: &[&Array], outs: &[ArrayMut<'_>]) -> Result<usize> {
        // What only makes values needs no more than room for them, of which a plan may have more than there is.
        let Some(known) = self.known.as_ref().filter(|_| !ins.is_empty()) else { return Ok(0) };
        let op = without_key(op);
        let of = |array: &Array| (array.stored(), at_the_start(array.meta()));
        let operands: Vec<_> =
            ins.iter().map(|array| of(array)).chain(outs.iter().map(|out| of(out.array()))).collect();
        let key = format!("{op:?} {operands:?}");
        let known = || known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(&bytes) = known().get(&key) {
            return Ok(bytes);
        }
        let bytes = self.measure(&op, ins, outs)?;
        known().insert(key, bytes);
        Ok(bytes)
    }

    fn measure(&self, op: &Op, ins: &[&Array], outs: &[ArrayMut<'_>]) -> Result<usize> {
        let device = &self.device;
        let ins: Vec<Array> = ins.iter().map(|array| self.like(array)).collect::<Result<_>>()?;
        let alloc = |out: &ArrayMut<'_>| Array::alloc(device, at_the_start(out.array().meta()), Class::Activations);
        let outs: Vec<Array> = outs.iter().map(alloc).collect::<Result<_>>()?;
        let mut targets: Vec<_> = outs.iter().map(|out| ArrayMut::new(op.name(), out)).collect::<Result<_>>()?;
        device.reset_peak_memory();
        let before = device.memory().live(Class::Workspace);
        device.run(op, &ins.iter().collect::<Vec<_>>(), &mut targets)?;
        device.sync()?;
        Ok(device.memory().peak(Class::Workspace) - before)
    }

    /// Zeros in the layout of an array, with a cast left to whoever reads where it has one.
    fn like(&self, array: &Array) -> Result<Array> {
        let (device, stored, Meta { layout, .. }) = (&self.device, array.stored(), at_the_start(array.meta()));
        let line = Shape::new(&[layout.end()])?;
        let zeros = if stored.is_float() {
            Array::full(device, stored, line, 0.0, Class::Activations)?
        } else {
            Array::from_bytes(device, stored, &vec![0; layout.end() * stored.size()], &line, Class::Indices)?
        };
        let zeros = zeros.with_layout(layout)?;
        if array.is_written() { Ok(zeros) } else { zeros.cast_when_read(array.dtype(), Class::Casts) }
    }
}

/// Where an array begins in its memory makes no difference.
fn at_the_start(meta: Meta) -> Meta {
    Meta { layout: Layout { offset: 0, ..meta.layout }, ..meta }
}

/// An operator that draws, with a stream that is the same for all.
fn without_key(op: &Op) -> Op {
    let mut op = op.clone();
    if let Op::Attention(attention) | Op::Backward(Backward::Attention { attention, .. }) = &mut op {
        attention.key = Key::default();
    }
    if let Op::Dropout { key, .. } | Op::Random { key, .. } | Op::StochasticCast { key, .. } = &mut op {
        *key = Key::default();
    }
    op
}
