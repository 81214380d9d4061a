//! [`run`]: the one way from an operator and its inputs to its outputs.

use smallvec::SmallVec;

use crate::{Array, ArrayMut, Arrays, Class, DType, Device, Error, Meta, Op, Result, integers};

/// Runs `op` on `ins` and returns its outputs, freshly allocated in `class`. Views share the input's storage and run
/// nothing.
///
/// `want` is the dtype of float outputs; [`Op::natural_dtype`] is what PyTorch would give outside autocast. Statistics
/// and index outputs have dtypes of their own.
///
/// # Errors
/// Shapes or dtypes the operator refuses, inputs of different devices, out of memory.
pub fn run(op: &Op, ins: &[&Array], device: &Device, want: DType, class: Class) -> Result<Arrays> {
    run_with(op, ins, device, want, class, &|_| Ok(()))
}

/// What the outputs will be.
fn outputs(op: &Op, ins: &[&Array], device: &Device, want: DType) -> Result<SmallVec<[Meta; 1]>> {
    for array in ins {
        if array.device() != device {
            return Err(Error::Device {
                op: op.name(),
                first: device.name().into(),
                second: array.device().name().into(),
            });
        }
    }
    let metas: SmallVec<[_; 6]> = ins.iter().map(|a| a.meta()).collect();
    let outs = op.outs(&metas, want)?;
    outs.iter().try_for_each(|out| out.shape().check())?;
    Ok(outs)
}

/// Runs the kernel, unless there is nothing to compute; an index is checked even so.
fn launch(op: &Op, ins: &[&Array], device: &Device, outs: &mut [ArrayMut<'_>]) -> Result<()> {
    let empty = |array: &Array| array.numel() == 0;
    let index = |array: &Array| matches!(array.dtype(), DType::I64 | DType::U32);
    if outs.iter().all(|out| empty(out.array())) && ins.iter().all(|a| empty(a) || !index(a)) {
        return Ok(());
    }
    if integers::are_large(op, ins)? {
        return integers::run_by_rank(op, ins, device, outs);
    }
    crate::profile::timed(op, ins, || device.run(op, ins, outs))
}

/// [`run`], with the outputs' layouts as `lay_out` changes them.
fn run_with(
    op: &Op,
    ins: &[&Array],
    device: &Device,
    want: DType,
    class: Class,
    lay_out: &dyn Fn(&mut [Meta]) -> Result<()>,
) -> Result<Arrays> {
    if !device.rounds_as_it_reads(op) && ins.iter().any(|a| !a.is_written()) {
        let written = ins.iter().map(|a| a.written(Class::Casts)).collect::<Result<SmallVec<[Array; 6]>>>()?;
        let ins: SmallVec<[&Array; 6]> = written.iter().collect();
        return run_with(op, &ins, device, want, class, lay_out);
    }
    let mut outs = outputs(op, ins, device, want)?;
    if let Op::View(_) = op {
        return Ok(smallvec::smallvec![ins[0].with_layout(outs[0].layout)?]);
    }
    lay_out(&mut outs)?;
    let mut arrays = Arrays::new();
    for (i, meta) in outs.iter().enumerate() {
        let class = if meta.dtype.is_float() || i > 0 { class } else { Class::Indices };
        arrays.push(Array::alloc(device, *meta, class).map_err(|error| error.during(op.name()))?);
    }
    {
        let mut targets: SmallVec<[ArrayMut<'_>; 3]> = SmallVec::new();
        for array in &arrays {
            targets.push(ArrayMut::new(op.name(), array)?);
        }
        launch(op, ins, device, &mut targets)?;
    }
    Ok(arrays)
}

/// [`run`] for an operator whose first output is all that is wanted, with that output in the memory order of `meta`.
///
/// # Errors
/// As [`run`]; `meta` is not a dense layout of the output's shape.
pub fn run_laid_out(op: &Op, ins: &[&Array], device: &Device, meta: Meta, class: Class) -> Result<Array> {
    let mut outs = run_with(op, ins, device, meta.dtype, class, &|outs| {
        let (layout, wanted) = (&mut outs[0].layout, meta.layout);
        if layout.shape != wanted.shape || !wanted.is_dense() || wanted.offset != 0 {
            let expected = "expected a dense layout of the output's shape".into();
            return Err(Error::Shape { op: op.name(), expected, shapes: vec![layout.shape, wanted.shape] });
        }
        *layout = wanted;
        Ok(())
    })?;
    Ok(outs.swap_remove(0))
}

/// [`run`] for an operator whose first output is all that is wanted.
///
/// # Errors
/// As [`run`].
pub fn run_one(op: &Op, ins: &[&Array], device: &Device, want: DType, class: Class) -> Result<Array> {
    let mut outs = run(op, ins, device, want, class)?;
    Ok(outs.swap_remove(0))
}

/// [`run_one`] on the inputs `given`, which the caller has no more use for, and `kept`, in this order. The output is
/// written over a given input if the operator can do that ([`Op::may_overwrite`]), the input is all of its memory and
/// in the output's layout, dtype and class, and nobody else has a share in it. The bits are the same.
///
/// # Errors
/// As [`run`].
pub fn run_over(
    op: &Op,
    mut given: SmallVec<[Array; 2]>,
    kept: &[&Array],
    device: &Device,
    want: DType,
    class: Class,
) -> Result<Array> {
    let sole: SmallVec<[bool; 2]> = given.iter_mut().map(|array| array.is_sole()).collect();
    let ins: SmallVec<[&Array; 6]> = given.iter().chain(kept.iter().copied()).collect();
    if ins.iter().any(|array| !array.is_written()) {
        return run_one(op, &ins, device, want, class);
    }
    let outs = outputs(op, &ins, device, want)?;
    let fits = |(i, array): (usize, &Array)| {
        let alike = array.meta() == outs[0] && array.is_whole() && array.storage().class() == class;
        sole[i] && alike && array.dtype().is_float() && op.may_overwrite(i)
    };
    let Some(at) = given.iter().enumerate().position(fits) else { return run_one(op, &ins, device, want, class) };
    let mut target = [ArrayMut::new(op.name(), &given[at])?];
    launch(op, &ins, device, &mut target)?;
    drop(target);
    drop(ins);
    Ok(given.swap_remove(at))
}
