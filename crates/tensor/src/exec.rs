//! [`run`]: the one way from an operator and its inputs to its outputs.

use smallvec::SmallVec;

use crate::{Array, ArrayMut, Arrays, Class, DType, Device, Error, Layout, Meta, Op, Result, profile};

/// An operator to run, and on what.
#[derive(Clone, Debug)]
pub struct Request<'a> {
    /// The operator.
    pub op: &'a Op,
    /// Its first inputs, which the caller has no more use for. The first output is written over one of them if the
    /// operator can do that ([`Op::may_overwrite`]). Such an input is all of its memory, in the output's layout, dtype
    /// and class, and nobody else has a share in it. The bits are the same.
    pub given: SmallVec<[Array; 2]>,
    /// The inputs after those.
    pub ins: &'a [&'a Array],
    /// Where all inputs are, and the outputs will be.
    pub device: &'a Device,
    /// The dtype of float outputs; [`Op::natural_dtype`] is what PyTorch would give outside autocast. Statistics and
    /// index outputs have dtypes of their own.
    pub want: DType,
    /// What the memory of the outputs is counted as.
    pub class: Class,
    /// The memory order of the first output; the operator's own by default.
    pub layout: Option<Layout>,
}

impl<'a> Request<'a> {
    /// An operator on inputs that stay as they are.
    pub fn new(op: &'a Op, ins: &'a [&'a Array], device: &'a Device, want: DType, class: Class) -> Request<'a> {
        Request { op, given: SmallVec::new(), ins, device, want, class, layout: None }
    }
}

/// Runs an operator and returns its outputs. Views share the input's storage and run nothing; all other outputs have
/// memory of their own, or that of an input that was given up.
///
/// # Errors
/// Shapes or dtypes the operator refuses; inputs of different devices; a layout that is not a dense one of the first
/// output's shape; out of memory.
pub fn run(request: Request<'_>) -> Result<Arrays> {
    let Request { op, mut given, ins: kept, device, want, class, layout } = request;
    // Looked at before the list of all inputs takes a share in each.
    let sole: SmallVec<[bool; 2]> = given.iter_mut().map(|array| array.is_sole()).collect();
    let ins: SmallVec<[&Array; 6]> = given.iter().chain(kept.iter().copied()).collect();
    if !device.rounds_as_it_reads(op) && ins.iter().any(|a| !a.is_written()) {
        let written = ins.iter().map(|a| a.written(Class::Casts)).collect::<Result<SmallVec<[Array; 6]>>>()?;
        let ins: SmallVec<[&Array; 6]> = written.iter().collect();
        return run(Request { layout, ..Request::new(op, &ins, device, want, class) });
    }
    let mut outs = outputs(op, &ins, device, want)?;
    if let Op::View(_) = op {
        return Ok(smallvec::smallvec![ins[0].with_layout(outs[0].layout)?]);
    }
    if let Some(wanted) = layout {
        let own = &mut outs[0].layout;
        if own.shape != wanted.shape || !wanted.is_dense() || wanted.offset != 0 {
            let expected = "expected a dense layout of the output's shape".into();
            return Err(Error::Shape { op: op.name(), expected, shapes: vec![own.shape, wanted.shape] });
        }
        *own = wanted;
    }
    let fits = |(i, array): (usize, &Array)| {
        let alike = array.meta() == outs[0] && array.is_whole() && array.storage().class() == class;
        sole[i] && alike && array.is_written() && array.dtype().is_float() && op.may_overwrite(i)
    };
    let over = given.iter().enumerate().position(fits);
    let mut arrays = Arrays::new();
    for (i, meta) in outs.iter().enumerate() {
        let class = if meta.dtype.is_float() || i > 0 { class } else { Class::Indices };
        arrays.push(match over {
            Some(at) if i == 0 => given[at].clone(),
            Some(_) | None => Array::room(device, *meta, class, op.name())?,
        });
    }
    let mut targets: SmallVec<[ArrayMut<'_>; 3]> = SmallVec::new();
    for array in &arrays {
        targets.push(ArrayMut::new(op.name(), array)?);
    }
    launch(op, &ins, device, &mut targets)?;
    drop(targets);
    Ok(arrays)
}

/// [`run`] for an operator on inputs that stay as they are, whose first output is all that is wanted.
///
/// # Errors
/// As [`run`].
pub fn run_one(op: &Op, ins: &[&Array], device: &Device, want: DType, class: Class) -> Result<Array> {
    Ok(run(Request::new(op, ins, device, want, class))?.swap_remove(0))
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
    let _span = profile::span(|| profile::What::Operator {
        op: Box::new(op.clone()),
        ins: ins.iter().map(|array| array.meta()).collect(),
        outs: outs.iter().map(|out| out.array().meta()).collect(),
    });
    device.run(op, ins, outs)
}
