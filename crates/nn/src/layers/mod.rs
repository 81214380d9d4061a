//! Layers without statistics. Each `new` uses PyTorch's default initial values, drawn from the scope's stream.

mod activation;
mod conv;
mod dropout;
mod recurrent;

use std::sync::Arc;

use binade_autograd::Var;
use binade_tensor::op::{Conv2d as Geometry, Unary};
use binade_tensor::{Array, Class};

use crate::{Init, Module, Param, Result, Visitor};

pub use activation::{Celu, Elu, Glu, Hardtanh, LeakyRelu, PRelu, Softmax, Softplus, SwiGlu};
pub use conv::{Conv1d, Conv3d, ConvTranspose1d, ConvTranspose2d};
pub use dropout::{Dropout, DropoutChannels};
pub use recurrent::{Gru, Lstm, Recurrent};

/// A module of one input and one output, for [`Sequential`] and generic loops. [`Layer::run`] is written, and
/// [`Layer::forward`] called, as PyTorch's `forward` and `__call__`.
pub trait Layer: Module + CopyLayer + Send + Sync {
    /// Computes the output for `x`, when [`Layer::forward`] has entered this layer.
    ///
    /// # Errors
    /// Shapes do not fit.
    fn run(&self, x: &Var) -> Result<Var>;

    /// The output for `x`. Operators inside belong to this layer ([`Module::within`]).
    ///
    /// # Errors
    /// Shapes do not fit.
    fn forward(&self, x: &Var) -> Result<Var> {
        self.enter().run(|| self.run(x))
    }
}

/// [`Module::copy_with`] of a layer of a type known at run time. All layers are.
pub trait CopyLayer {
    /// The copy.
    fn copy_layer(&self, visitor: &Visitor<'_>) -> Box<dyn Layer>;
}

impl<L: Layer> CopyLayer for L {
    fn copy_layer(&self, visitor: &Visitor<'_>) -> Box<dyn Layer> {
        Box::new(self.copy_with(visitor))
    }
}

/// `x @ weightᵀ + bias`: `[…, in]` to `[…, out]`.
#[derive(Clone, Module)]
pub struct Linear {
    /// `[out, in]`
    pub weight: Param,
    /// `[out]`
    pub bias: Option<Param>,
}

impl Linear {
    /// With bias.
    ///
    /// # Errors
    /// The shape is too large.
    pub fn new(inputs: usize, outputs: usize) -> Result<Linear> {
        let bias = Some(Param::init(&[outputs], Init::default_bias(inputs))?);
        Ok(Linear { bias, ..Linear::without_bias(inputs, outputs)? })
    }

    /// Without bias.
    ///
    /// # Errors
    /// The shape is too large.
    pub fn without_bias(inputs: usize, outputs: usize) -> Result<Linear> {
        Ok(Linear { weight: Param::init(&[outputs, inputs], Init::default_weight())?, bias: None })
    }

    /// With the activation fused into the product: one rounding, one pass over memory.
    ///
    /// # Errors
    /// Shapes do not fit.
    pub fn forward_act(&self, x: &Var, act: Unary) -> Result<Var> {
        self.within(|| product(&self.weight, self.bias.as_ref(), x, Some(act)))
    }

    /// Of an activation of x, which is not written ([`Var::linear_of`]).
    ///
    /// # Errors
    /// Shapes do not fit.
    pub fn forward_of(&self, act: Unary, x: &Var) -> Result<Var> {
        let bias = self.bias.as_ref().map(Param::var);
        self.within(|| match self.weight.quantised() {
            Some(_) => product(&self.weight, self.bias.as_ref(), &x.unary(act)?, None),
            None => Ok(x.linear_of(act, &self.weight.var(), bias.as_ref())?),
        })
    }
}

impl Layer for Linear {
    fn run(&self, x: &Var) -> Result<Var> {
        product(&self.weight, self.bias.as_ref(), x, None)
    }
}

/// `act(x @ weightᵀ + bias)`, whatever numbers the weight is stored in.
fn product(weight: &Param, bias: Option<&Param>, x: &Var, act: Option<Unary>) -> Result<Var> {
    let (var, bias) = (weight.var(), bias.map(Param::var));
    match weight.quantised() {
        Some(quantised) => quantised.linear(&var, x, bias.as_ref(), act),
        None => Ok(x.linear(&var, bias.as_ref(), act)?),
    }
}

/// 2-d convolution of `[N, C, H, W]`.
#[derive(Clone, Module)]
pub struct Conv2d {
    /// `[out, in/groups, KH, KW]`
    pub weight: Param,
    /// `[out]`
    pub bias: Option<Param>,
    /// Stride, padding, dilation, groups.
    pub geometry: Geometry,
}

impl Conv2d {
    /// A square kernel with bias, stride 1, no padding; see [`Conv2d::with`].
    ///
    /// # Errors
    /// The shape is too large.
    pub fn new(inputs: usize, outputs: usize, kernel: usize) -> Result<Conv2d> {
        Conv2d::with(inputs, outputs, [kernel, kernel], Geometry::default(), true)
    }

    /// A square kernel with bias, whose padding keeps the size at stride 1.
    ///
    /// # Errors
    /// The shape is too large.
    pub fn same(inputs: usize, outputs: usize, kernel: usize) -> Result<Conv2d> {
        Conv2d::with(
            inputs,
            outputs,
            [kernel, kernel],
            Geometry { padding: [kernel / 2; 2], ..Geometry::default() },
            true,
        )
    }

    /// Every setting.
    ///
    /// # Errors
    /// Channels that the groups do not divide; the shape is too large.
    pub fn with(inputs: usize, outputs: usize, kernel: [usize; 2], geometry: Geometry, bias: bool) -> Result<Conv2d> {
        if geometry.groups == 0 || !inputs.is_multiple_of(geometry.groups) || !outputs.is_multiple_of(geometry.groups) {
            let message =
                format!("{} groups must divide {inputs} input and {outputs} output channels", geometry.groups);
            return Err(crate::Error::Config { layer: "Conv2d", message });
        }
        let per_group = inputs / geometry.groups;
        let weight = Param::init(&[outputs, per_group, kernel[0], kernel[1]], Init::default_weight())?;
        let fan_in = per_group * kernel[0] * kernel[1];
        let bias = if bias { Some(Param::init(&[outputs], Init::default_bias(fan_in))?) } else { None };
        Ok(Conv2d { weight, bias, geometry })
    }

    /// With the activation fused into the convolution.
    ///
    /// # Errors
    /// Shapes do not fit.
    pub fn forward_act(&self, x: &Var, act: Unary) -> Result<Var> {
        self.within(|| self.convolve(x, Some(act)))
    }

    fn convolve(&self, x: &Var, act: Option<Unary>) -> Result<Var> {
        let (weight, bias) = (self.weight.var(), self.bias.as_ref().map(Param::var));
        match self.weight.quantised() {
            Some(quantised) => quantised.conv2d(&weight, x, bias.as_ref(), self.geometry, act),
            None => Ok(x.conv2d(&weight, bias.as_ref(), self.geometry, act)?),
        }
    }
}

impl Layer for Conv2d {
    fn run(&self, x: &Var) -> Result<Var> {
        self.convolve(x, None)
    }
}

/// Rows of a table by index.
#[derive(Clone, Module)]
pub struct Embedding {
    /// `[rows, features]`
    pub weight: Param,
    /// A row without a gradient (PyTorch's `padding_idx`).
    #[module(skip)]
    pub padding: Option<usize>,
}

impl Embedding {
    /// Standard normal values, as PyTorch.
    ///
    /// # Errors
    /// The shape is too large.
    pub fn new(rows: usize, features: usize) -> Result<Embedding> {
        let weight = Param::init(&[rows, features], Init::Normal { mean: 0.0, std: 1.0 })?;
        Ok(Embedding { weight, padding: None })
    }

    /// With a row that is 0 at first and has no gradient: for indices that fill up short sequences.
    ///
    /// # Errors
    /// The table has no such row; out of memory.
    pub fn with_padding(self, row: usize) -> Result<Embedding> {
        let values = Var::constant(self.weight.array().clone()).narrow(0, row, 1)?;
        let array = values.array();
        let zeros = Array::full(array.device(), array.dtype(), *array.shape(), 0.0, Class::Workspace)?;
        array.copy_from(&zeros)?;
        Ok(Embedding { padding: Some(row), ..self })
    }

    /// `x @ weightᵀ`: the scores of the rows, for a head that is the table.
    ///
    /// # Errors
    /// Shapes do not fit.
    pub fn scores(&self, x: &Var) -> Result<Var> {
        self.within(|| product(&self.weight, None, x, None))
    }
}

impl Layer for Embedding {
    /// `index` (i64 or u32) of any shape.
    fn run(&self, index: &Var) -> Result<Var> {
        let weight = self.weight.var();
        Ok(match (self.weight.quantised(), self.padding) {
            (Some(quantised), _) => quantised.rows(&weight, index)?,
            (None, None) => weight.embedding(index)?,
            (None, Some(row)) => weight.embedding_padded(index, row)?,
        })
    }
}

/// A layer whose inner values are not kept for backward but computed again ([`binade_autograd::checkpoint`]): the
/// memory of its input instead of everything between, for the time of a second forward pass. The gradients are the
/// same, bit for bit.
#[derive(Clone, Module)]
pub struct Checkpointed<L: Module> {
    // Shared with the second run, which is that of the same layer.
    #[module(flatten)]
    layer: Arc<L>,
}

impl<L: Layer> Checkpointed<L> {
    /// Around a layer, which keeps its path and the names of its parameters.
    pub fn new(layer: L) -> Checkpointed<L> {
        Checkpointed { layer: Arc::new(layer) }
    }
}

impl<L: Layer> Layer for Checkpointed<L> {
    fn run(&self, x: &Var) -> Result<Var> {
        recomputed(&self.layer, x)
    }
}

/// The output of a layer whose inner values are not kept for backward but computed again: [`Checkpointed`] for who
/// decides it at each run.
///
/// # Errors
/// Shapes do not fit.
pub fn recomputed<L: Layer>(layer: &Arc<L>, x: &Var) -> Result<Var> {
    let layer = layer.clone();
    let run = move |x: &[Var]| {
        layer.forward(&x[0]).map_err(|error| match error {
            crate::Error::Autograd(error) => error,
            other => binade_autograd::Error::Recompute { message: other.to_string() },
        })
    };
    Ok(binade_autograd::checkpoint(run, &[x])?)
}

/// The input.
#[derive(Clone, Module)]
pub struct Identity;

impl Layer for Identity {
    fn run(&self, x: &Var) -> Result<Var> {
        Ok(x.clone())
    }
}

/// An elementwise function as a layer.
#[derive(Clone, Module)]
pub struct Activation(pub Unary);

impl Layer for Activation {
    fn run(&self, x: &Var) -> Result<Var> {
        Ok(binade_autograd::apply(binade_tensor::Op::Unary(self.0), &[x])?)
    }
}

/// Max pooling with a square window and equal stride.
#[derive(Clone, Module)]
pub struct MaxPool2d {
    /// Extent and step of the window.
    pub kernel: usize,
}

impl Layer for MaxPool2d {
    fn run(&self, x: &Var) -> Result<Var> {
        Ok(x.max_pool2d([self.kernel; 2], [self.kernel; 2], [0, 0])?)
    }
}

/// `[N, …]` to `[N, features]`.
#[derive(Clone, Module)]
pub struct Flatten;

impl Layer for Flatten {
    fn run(&self, x: &Var) -> Result<Var> {
        Ok(x.flatten(1)?)
    }
}

/// Layers one after the other, named 0, 1, 2, …
#[derive(Clone, Default)]
pub struct Sequential(Vec<Arc<dyn Layer>>);

impl Sequential {
    /// No layers.
    pub fn new() -> Sequential {
        Sequential::default()
    }

    /// With one more layer at the end.
    #[must_use]
    pub fn then(mut self, layer: impl Layer + 'static) -> Sequential {
        self.0.push(Arc::new(layer));
        self
    }
}

impl Module for Sequential {
    fn visit(&self, visitor: &mut Visitor<'_>) {
        self.0.visit(visitor);
    }

    fn copy_with(&self, visitor: &Visitor<'_>) -> Sequential {
        Sequential(self.0.copy_with(visitor))
    }
}

impl Layer for Sequential {
    fn run(&self, x: &Var) -> Result<Var> {
        self.0.iter().try_fold(x.clone(), |x, layer| layer.forward(&x))
    }
}
