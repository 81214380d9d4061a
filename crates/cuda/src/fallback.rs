//! What the device has no kernel for: copied to the host, run by its backend, copied back. By name, so that nobody
//! takes it for the device's work: [`Cuda::counts`] lists it.

use binade_tensor::{
    Array, ArrayMut, Class, DType, Device, Error, Findings, Grad, Layout, Meta, Op, Outcome, Result, Shape, Slot,
    Update,
};

use crate::backend::Cuda;
use crate::kernels::Passed;
use crate::view::View;

/// The CPU, by the crate that is linked.
fn host() -> Result<Device> {
    Device::open("cpu")
}

/// The layout without what lies in front of it.
fn without_offset(layout: &Layout) -> Layout {
    Layout { offset: 0, ..*layout }
}

/// A host array of a view's dtype and strides; its elements are arbitrary.
fn room(host: &Device, view: &View) -> Result<Array> {
    let span = Shape::new(&[without_offset(&view.layout).end()])?;
    let line = Array::alloc(host, Meta { dtype: view.dtype, layout: Layout::contiguous(span) }, Class::Workspace)?;
    line.with_layout(without_offset(&view.layout))
}

/// The bytes that a view reaches.
fn reach(view: &View) -> usize {
    without_offset(&view.layout).end() * view.dtype.size()
}

fn to_host(cuda: &Cuda, op: &'static str, host: &Device, view: &View) -> Result<Array> {
    let array = room(host, view)?;
    let mut bytes = cuda.read(op, view.at(), reach(view))?;
    if view.dtype == DType::Bool {
        // What lies between the elements of a view may be anything.
        bytes.iter_mut().for_each(|byte| *byte = u8::from(*byte != 0));
    }
    if let Some(to) = array.storage().write(op)?.bytes() {
        to[..bytes.len()].copy_from_slice(&bytes);
    }
    Ok(array)
}

/// Copies the elements of a dense array to the device.
fn to_device(cuda: &Cuda, op: &'static str, from: &Array, view: &View) -> Result<()> {
    let guard = from.storage().read(op)?;
    if let Some(bytes) = guard.bytes() {
        cuda.write(op, view.at(), &bytes[..reach(view)]);
    }
    Ok(())
}

pub(crate) fn run(cuda: &Cuda, op: &Op, ins: &[View], outs: &[View]) -> Result<()> {
    cuda.count_fallback(op.name());
    if cuda.has_failed()? {
        return Ok(());
    }
    let done = on_host(cuda, op, ins, outs);
    // What the shapes show was an error before; what values show is told late, as kernels tell it.
    if let Err(error) = done {
        cuda.fail(error);
    }
    Ok(())
}

fn on_host(cuda: &Cuda, op: &Op, ins: &[View], outs: &[View]) -> Result<()> {
    let (host, name) = (host()?, op.name());
    let ins = ins.iter().map(|view| to_host(cuda, name, &host, view)).collect::<Result<Vec<_>>>()?;
    let arrays = outs.iter().map(|view| room(&host, view)).collect::<Result<Vec<_>>>()?;
    let mut targets = arrays.iter().map(|array| ArrayMut::new(name, array)).collect::<Result<Vec<_>>>()?;
    host.run(op, &ins.iter().collect::<Vec<_>>(), &mut targets)?;
    drop(targets);
    arrays.iter().zip(outs).try_for_each(|(array, view)| to_device(cuda, name, array, view))
}

pub(crate) fn update(cuda: &Cuda, update: &Update, scalars: &View, slots: &[Passed]) -> Result<Outcome> {
    let name = update.name();
    cuda.count_fallback(name);
    let found = if cuda.has_failed()? {
        Err(Error::NotRun { op: name, backend: cuda.driver().name().into() })
    } else {
        pass(cuda, update, scalars, slots)
    };
    // An outcome may be dropped: what goes wrong shows at the next wait too.
    if let Err(error) = &found {
        cuda.fail(error.clone());
    }
    let cuda = cuda.clone();
    Ok(Outcome::later(move || {
        cuda.wait()?;
        found
    }))
}

/// Host copies of what a slot lends, and where they came from.
struct Copied {
    arrays: Vec<(Array, View)>,
    param: bool,
    master: bool,
    first: bool,
    grad: Array,
    writes_grad: bool,
}

fn pass(cuda: &Cuda, update: &Update, scalars: &View, slots: &[Passed]) -> Result<Findings> {
    let (host, name) = (host()?, update.name());
    let scalars = to_host(cuda, name, &host, scalars)?;
    let mut copies = Vec::with_capacity(slots.len());
    for slot in slots {
        let mut arrays = Vec::new();
        for view in slot.param.iter().chain(&slot.master) {
            arrays.push((to_host(cuda, name, &host, view)?, *view));
        }
        for view in &slot.state {
            // The state of a first step holds arbitrary values.
            let array = if slot.first { room(&host, view)? } else { to_host(cuda, name, &host, view)? };
            arrays.push((array, *view));
        }
        let grad = to_host(cuda, name, &host, &slot.grad)?;
        if slot.writes_grad {
            arrays.push((grad.clone(), slot.grad));
        }
        let (param, master) = (slot.param.is_some(), slot.master.is_some());
        copies.push(Copied { arrays, param, master, first: slot.first, grad, writes_grad: slot.writes_grad });
    }
    let mut lent = Vec::with_capacity(copies.len());
    for copy in &copies {
        let mut rest = copy.arrays.iter().map(|(array, _)| ArrayMut::new(name, array));
        let param = if copy.param { rest.next().transpose()? } else { None };
        let master = if copy.master { rest.next().transpose()? } else { None };
        let mut state = rest.collect::<Result<Vec<_>>>()?;
        let grad = match state.pop_if(|_| copy.writes_grad) {
            Some(grad) => Grad::Write(grad),
            None => Grad::Read(&copy.grad),
        };
        lent.push(Slot { param, master, grad, state, first: copy.first });
    }
    let findings = host.update(update, &scalars, &mut lent)?.wait()?;
    drop(lent);
    for (array, view) in copies.iter().flat_map(|copy| &copy.arrays) {
        to_device(cuda, name, array, view)?;
    }
    Ok(findings)
}
