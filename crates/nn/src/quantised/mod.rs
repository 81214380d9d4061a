//! Weights of 8-bit integers, for inference: [`Param::quantise`] rounds a parameter, and [`Linear`], [`Conv2d`] and
//! [`Embedding`] compute with what it is then.

mod calibration;
mod histogram;

use std::any::TypeId;
use std::ops::ControlFlow;

use binade_autograd::{Var, scope};
use binade_tensor::op::{Binary, Conv2d as Geometry, LARGEST, Reduce, Unary};
use binade_tensor::{Array, Class, DType, Device, Dims, Layout, Meta, Op, Shape, run_one};

use crate::visitor::{Part, Visitor};
use crate::{Buffer, Conv2d, Embedding, Error, Linear, Module, Param, Result};

pub use calibration::Calibration;
pub use histogram::{Histogram, Threshold};

/// What the 8-bit integers of a parameter stand for, and how activations meet them.
#[derive(Clone, Debug)]
pub struct Quantised {
    /// f32, one for each index of the first dimension: the numbers are integers times these.
    pub scale: Buffer,
    /// What a layer does with its input.
    pub activations: Activations,
}

/// What a layer with 8-bit weights does with its input.
#[derive(Clone, Debug)]
pub enum Activations {
    /// Reads it as it is: only weights are integers. Convolutions compute with the numbers that the integers stand for.
    Float,
    /// Rounds it to multiples of its largest magnitude over 127, at each run.
    Dynamic,
    /// Rounds it to multiples of this scale (f32, a scalar), and at most 127 of them.
    Static(Buffer),
}

impl Quantised {
    /// The scale of an input, if it is rounded.
    fn own(&self, x: &Var) -> Result<Option<Var>> {
        let device = x.array().device();
        let run = |op: &Op, ins: &[&Array]| run_one(op, ins, device, DType::F32, Class::Workspace);
        Ok(match &self.activations {
            Activations::Float => None,
            Activations::Static(scale) => Some(scale.var()),
            Activations::Dynamic if x.array().numel() == 0 => {
                Some(Var::constant(run(&Op::Fill { value: 1.0, shape: Shape::SCALAR }, &[])?))
            }
            Activations::Dynamic => {
                let dims = Dims::all(x.shape().rank());
                let end = |kind| run(&Op::Reduce { kind, dims, keepdim: false }, &[x.array()]);
                let by = |value, array| run(&Op::Scalar { op: Binary::Div, value, reversed: false }, &[array]);
                let (most, least) = (by(LARGEST, &end(Reduce::Max)?)?, by(-LARGEST, &end(Reduce::Min)?)?);
                Some(Var::constant(run(&Op::Binary(Binary::Maximum), &[&most, &least])?))
            }
        })
    }

    /// `act(x @ weightᵀ + bias)`.
    pub(crate) fn linear(&self, weight: &Var, x: &Var, bias: Option<&Var>, act: Option<Unary>) -> Result<Var> {
        Ok(x.quantised_linear(weight, &self.scale.var(), self.own(x)?.as_ref(), bias, act)?)
    }

    /// `act(conv(x, weight) + bias)`.
    pub(crate) fn conv2d(
        &self,
        weight: &Var,
        x: &Var,
        bias: Option<&Var>,
        geometry: Geometry,
        act: Option<Unary>,
    ) -> Result<Var> {
        match self.own(x)? {
            Some(own) if geometry.groups == 1 => {
                Ok(x.quantised_conv2d(weight, &self.scale.var(), &own, bias, geometry, act)?)
            }
            Some(_) | None => {
                let weight = Var::constant(numbers(weight.array(), &self.scale.array())?);
                Ok(x.conv2d(&weight, bias, geometry, act)?)
            }
        }
    }

    /// Rows of the weight by index.
    pub(crate) fn rows(&self, weight: &Var, index: &Var) -> Result<Var> {
        let scales = self.scale.var().unsqueeze(1)?.embedding(index)?;
        Ok(weight.embedding(index)?.cast(DType::F32)?.mul(&scales)?)
    }

    pub(crate) fn deep(&self) -> Result<Quantised> {
        let activations = match &self.activations {
            Activations::Static(scale) => Activations::Static(scale.deep()?),
            other => other.clone(),
        };
        Ok(Quantised { scale: self.scale.deep()?, activations })
    }
}

/// The first dimension's extents beside ones: how scales meet a weight.
fn per_row(scale: &Array, rank: usize) -> Result<Array> {
    let mut shape = vec![1; rank];
    shape[0] = scale.numel();
    Ok(scale.with_layout(Layout::contiguous(Shape::new(&shape)?))?)
}

/// What integers stand for, in f32.
fn numbers(integers: &Array, scale: &Array) -> Result<Array> {
    let wide = integers.cast(DType::F32, Class::Workspace)?;
    let scale = per_row(scale, wide.shape().rank())?;
    Ok(run_one(&Op::Binary(Binary::Mul), &[&wide, &scale], wide.device(), DType::F32, Class::Weights)?)
}

/// Memory for integers of a shape in the order in which kernels read them: images' channels last.
fn room(device: &Device, shape: Shape) -> Result<Array> {
    let layout = if shape.rank() == 4 { Layout::channels_last(shape) } else { Layout::contiguous(shape) };
    let array = Array::alloc(device, Meta { dtype: DType::I8, layout }, Class::Weights);
    Ok(array.map_err(|error| error.during("quantise"))?)
}

/// The integers nearest to a weight's numbers over their row's largest magnitude / 127, and those scales.
fn nearest(values: &Array) -> Result<(Array, Array)> {
    let (shape, device) = (*values.shape(), values.device());
    let run = |op: &Op, ins: &[&Array]| run_one(op, ins, device, DType::F32, Class::Workspace);
    let dims = (2..shape.rank()).fold(Dims::one(1), Dims::with);
    let largest = run(&Op::Reduce { kind: Reduce::Norm { p: f64::INFINITY }, dims, keepdim: false }, &[values])?;
    let scale = run(&Op::Scalar { op: Binary::Div, value: LARGEST, reversed: false }, &[&largest])?;
    if scale.to_vec::<f32>()?.iter().any(|scale| !scale.is_finite()) {
        let message = "a weight has values that are not finite".into();
        return Err(Error::Config { layer: "quantise", message });
    }
    // A row of zeros has any scale.
    let zero = run(&Op::Fill { value: 0.0, shape: *scale.shape() }, &[])?;
    let one = run(&Op::Fill { value: 1.0, shape: *scale.shape() }, &[])?;
    let is_zero = run(&Op::Compare(binade_tensor::op::Compare::Eq), &[&scale, &zero])?;
    let scale = run_one(&Op::Where, &[&is_zero, &one, &scale], device, DType::F32, Class::Weights)?;
    let quotients = run(&Op::Binary(Binary::Div), &[values, &per_row(&scale, shape.rank())?])?;
    let rounded = run(&Op::Unary(Unary::Round), &[&quotients])?;
    let dense = rounded.cast(DType::I8, Class::Workspace)?;
    let integers = room(device, shape)?;
    integers.copy_from(&dense)?;
    Ok((integers, scale))
}

impl Param {
    /// Replaces its values, of at least two dimensions, by 8-bit integers and a scale for each index of the first
    /// dimension, and freezes it: gradients do not go through products with integers.
    ///
    /// # Errors
    /// It has fewer dimensions, or integers already; values that are not finite; a scale of activations that is not
    /// above 0; out of memory.
    pub fn quantise(&self, activations: Activations) -> Result<()> {
        let values = self.array();
        if values.shape().rank() < 2 || !values.dtype().is_float() {
            let message = format!("a weight of floats is rounded, not {} {:?}", values.dtype(), values.shape());
            return Err(Error::Config { layer: "quantise", message });
        }
        let (integers, scale) = nearest(&values.cast(DType::F32, Class::Workspace)?)?;
        self.set_quantised(integers, Quantised { scale: Buffer::new(scale), activations })
    }

    /// Room for the integers and scales of a file, which [`check_scales`] looks at when they are there.
    ///
    /// # Errors
    /// Out of memory.
    pub fn expect_quantised(&self, activations: Activations) -> Result<()> {
        let (shape, device) = (self.shape(), self.device());
        let integers = room(&device, shape)?;
        let scale = Array::full(&device, DType::F32, Shape::new(&shape[..1])?, 1.0, Class::Weights)?;
        self.set_quantised(integers, Quantised { scale: Buffer::new(scale), activations })
    }

    /// Replaces integers by the numbers that they stand for, in f32. It stays frozen.
    ///
    /// # Errors
    /// Out of memory.
    pub fn dequantise(&self) -> Result<()> {
        if let Some(quantised) = self.quantised() {
            self.set_floats(numbers(&self.array(), &quantised.scale.array())?);
        }
        Ok(())
    }
}

/// Layers whose weights may be integers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// [`Linear`]
    Linear,
    /// [`Conv2d`]
    Conv2d,
    /// [`Embedding`]
    Embedding,
}

/// A weight that may be integers, and where it is.
#[derive(Clone, Debug)]
pub struct Weight {
    /// The layer's dotted name.
    pub layer: String,
    /// What layer.
    pub kind: Kind,
    /// Its weight; perhaps of another layer too.
    pub param: Param,
}

/// The weights of a module that may be integers, in order of its fields, each once.
pub fn weights(module: &dyn Module) -> Vec<Weight> {
    let kinds = [
        (TypeId::of::<Linear>(), Kind::Linear),
        (TypeId::of::<Conv2d>(), Kind::Conv2d),
        (TypeId::of::<Embedding>(), Kind::Embedding),
    ];
    let (mut around, mut found): (Vec<Option<(String, Kind)>>, Vec<Weight>) = Default::default();
    module.walk(&mut Visitor::new(&mut |name, part| {
        match part {
            Part::Module(_, of) => {
                let kind = kinds.iter().find(|(id, _)| *id == of);
                around.push(kind.map(|(_, kind)| (name.to_string(), *kind)));
            }
            Part::End => drop(around.pop()),
            Part::Param(param) => {
                if let Some(Some((layer, kind))) = around.last()
                    && name.strip_suffix("weight").is_some_and(|rest| rest.trim_end_matches('.') == layer)
                    && found.iter().all(|weight| weight.param.id() != param.id())
                {
                    found.push(Weight { layer: layer.clone(), kind: *kind, param: param.clone() });
                }
            }
            Part::Buffer(_) | Part::Mode(_) => {}
        }
        ControlFlow::Continue(())
    }));
    found
}

/// Fails unless all scales of a module are finite numbers above 0.
///
/// # Errors
/// [`Error::Config`], with the tensor's name and the first wrong scale.
pub fn check_scales(module: &dyn Module) -> Result<()> {
    for Weight { layer, param, .. } in weights(module) {
        let Some(Quantised { scale, activations }) = param.quantised() else { continue };
        let own = if let Activations::Static(own) = activations { Some(own) } else { None };
        for (name, scale) in [("scale", Some(scale)), ("input_scale", own)] {
            let Some(scale) = scale else { continue };
            if let Some(bad) = scale.array().to_vec::<f32>()?.iter().find(|s| !(s.is_finite() && **s > 0.0)) {
                let message = format!("{layer}.weight_{name} must be finite and above 0, got {bad}");
                return Err(Error::Config { layer: "quantise", message });
            }
        }
    }
    Ok(())
}

/// Whether a module has weights of integers.
pub fn is_quantised(module: &dyn Module) -> bool {
    weights(module).iter().any(|weight| weight.param.quantised().is_some())
}

/// Runs `f` in evaluation, without gradients: what a quantised model is for.
pub fn inference<T>(f: impl FnOnce() -> T) -> T {
    scope::eval(f)
}
