//! [`Update`]: in-place passes over many tensors at once, never recorded by autograd.

use std::fmt;

use crate::{Array, ArrayMut, DType, Error, Result, Shape};

/// A multi-tensor pass. Arithmetic is f32 (f64 for f64 parameters) whatever the storage.
///
/// Numbers that change from step to step come in the `scalars` array (f32, one dimension), so that the pass itself is
/// constant data. The last scalar of every pass that writes parameters is a factor of the gradients: 1/loss scale times
/// what clipping takes, so that neither needs a pass of its own.
#[derive(Clone, Debug, PartialEq)]
pub enum Update {
    /// `grad ← grad · scalars[0]`; the outcome says whether any product is not finite.
    Unscale,
    /// The outcome gives the Euclidean norm over all `grad · scalars[0]`, and whether it is finite, which it is if
    /// every product is. Products are in the computing type, their squares and the sum in f64. Nothing is written.
    Norm,
    /// `grad ← grad · scalars[0]`, without a check.
    Scale,
    /// `grad ← grad` limited to plus or minus `scalars[0]`; NaN stays.
    Clamp,
    /// Exponential moving average: `p ← p + scalars[0]·(grad − p)`, where the "gradient" is the value to follow.
    Ema,
    /// Adagrad (Duchi et al. 2011) as in PyTorch. Scalars: learning rate after its decay.
    ///
    /// `g ← grad + weight_decay·p`; `s ← s + g²`; `p ← p − lr·g/(√s + eps)`. State: `s`.
    Adagrad {
        /// L2 penalty.
        weight_decay: f64,
        /// Added to the denominator.
        eps: f64,
        /// First value of `s`.
        initial: f64,
    },
    /// RMSprop (Hinton 2012) as in PyTorch. Scalars: learning rate.
    ///
    /// `g ← grad + weight_decay·p`; `v ← αv + (1 − α)g²`; `a ← αa + (1 − α)g`; `d ← √(centered ? v − a² : v) + eps`;
    /// `b ← momentum·b + g/d`; `p ← p − lr·b`. State: `v`, then `b` if momentum is not 0 or centered, then `a` if
    /// centered.
    RmsProp {
        /// Decay of the averages.
        alpha: f64,
        /// Added to the denominator.
        eps: f64,
        /// L2 penalty.
        weight_decay: f64,
        /// Momentum factor.
        momentum: f64,
        /// Whether the mean gradient is subtracted.
        centered: bool,
    },
    /// Lion (Chen et al. 2023). Scalars: learning rate.
    ///
    /// `p ← p·(1 − lr·weight_decay) − lr·sign(β₁m + (1 − β₁)g)`; `m ← β₂m + (1 − β₂)g`. State: `m`.
    Lion {
        /// β₁ and β₂.
        betas: [f64; 2],
        /// Decoupled decay factor.
        weight_decay: f64,
    },
    /// Adafactor (Shazeer and Stern 2018) as in PyTorch 2.15. Scalars: learning rate, step.
    ///
    /// With β = 1 − stepᵇ (b = `decay`): of matrices the mean squares of rows and of columns are averaged and their
    /// outer product over the mean stands for `v`; of vectors `v` itself. `u ← g/√max(v, eps₁²)`; `p ← p·(1 −
    /// lr·weight_decay)`; `p ← p − max(eps₂, rms(p))·min(lr, 1/√step)·u/max(1, rms(u)/clip)`. State: rows and columns,
    /// or `v`.
    Adafactor {
        /// Exponent of the decay, below 0.
        decay: f64,
        /// Smallest root of `v`, and smallest scale of a parameter.
        eps: [f64; 2],
        /// Largest root mean square of an update.
        clip: f64,
        /// Decoupled decay factor.
        weight_decay: f64,
    },
    /// Stochastic gradient descent as in PyTorch. Scalars: learning rate.
    ///
    /// `g ← grad + weight_decay·p`; `b ← momentum·b + (1 − dampening)·g` (the first step sets `b ← g`);
    /// `p ← p − lr·(nesterov ? g + momentum·b : b)`. State: `b` if momentum is not 0.
    Sgd {
        /// Momentum factor.
        momentum: f64,
        /// Dampening of the gradient in the momentum buffer.
        dampening: f64,
        /// L2 penalty.
        weight_decay: f64,
        /// Nesterov's form.
        nesterov: bool,
    },
    /// Adam (Kingma and Ba 2015) and AdamW (Loshchilov and Hutter 2019). Scalars: learning rate, 1 − β₁ᵗ, √(1 − β₂ᵗ).
    ///
    /// `m ← m + (1 − β₁)(g − m)`; `v ← β₂v + (1 − β₂)g²`; `p ← p − lr/(1−β₁ᵗ) · m / (√v/√(1−β₂ᵗ) + eps)`. State: `m`,
    /// `v`.
    Adam {
        /// β₁ and β₂.
        betas: [f64; 2],
        /// Added to the denominator, in f32.
        eps: f64,
        /// Decay factor.
        weight_decay: f64,
        /// AdamW: `p ← p·(1 − lr·weight_decay)` first, instead of an L2 penalty in the gradient.
        decoupled: bool,
    },
}

impl Update {
    /// Name for messages.
    pub fn name(&self) -> &'static str {
        match self {
            Update::Unscale => "unscale",
            Update::Norm => "norm",
            Update::Scale => "scale",
            Update::Clamp => "clamp",
            Update::Ema => "ema",
            Update::Adagrad { .. } => "adagrad",
            Update::RmsProp { .. } => "rmsprop",
            Update::Lion { .. } => "lion",
            Update::Adafactor { .. } => "adafactor",
            Update::Sgd { .. } => "sgd",
            Update::Adam { decoupled: false, .. } => "adam",
            Update::Adam { decoupled: true, .. } => "adamw",
        }
    }

    /// Runs the pass over `slots`, on the device of `scalars`.
    ///
    /// # Errors
    /// As [`Slot::check`], before anything is written; [`Error::Device`] if a tensor is on another device; as
    /// [`crate::Backend::update`].
    pub fn run(&self, scalars: &Array, slots: &mut [Slot<'_>]) -> Result<Outcome> {
        for slot in slots.iter() {
            slot.check(self)?;
            self.check_device(scalars, slot.grad.array())?;
        }
        scalars.device().update(self, scalars, slots)
    }

    fn check_device(&self, a: &Array, b: &Array) -> Result<()> {
        if a.device() == b.device() {
            return Ok(());
        }
        let [first, second] = [a, b].map(|array| array.device().name().to_string());
        Err(Error::Device { op: self.name(), first, second })
    }

    /// Shapes of the state tensors of a parameter.
    pub fn states(&self, param: &Shape) -> Vec<Shape> {
        let count = match self {
            Update::Unscale | Update::Norm | Update::Scale | Update::Clamp | Update::Ema => 0,
            Update::Sgd { momentum, .. } => (*momentum != 0.0) as usize,
            Update::Adagrad { .. } | Update::Lion { .. } => 1,
            Update::RmsProp { centered: true, .. } => 3,
            Update::RmsProp { momentum, .. } => 1 + (*momentum != 0.0) as usize,
            Update::Adafactor { .. } if param.rank() >= 2 => {
                let last = param.rank() - 1;
                let (mut rows, mut columns) = (*param, *param);
                (rows[last], columns[last - 1]) = (1, 1);
                return vec![rows, columns];
            }
            Update::Adafactor { .. } => 1,
            Update::Adam { .. } => 2,
        };
        vec![*param; count]
    }
}

/// One parameter of a multi-tensor pass. All arrays are contiguous in the same order and of one shape.
#[derive(Debug)]
pub struct Slot<'a> {
    /// The parameter; absent where only gradients take part.
    pub param: Option<ArrayMut<'a>>,
    /// f32 copy of a 16-bit parameter; the parameter receives its rounded value.
    pub master: Option<ArrayMut<'a>>,
    /// The gradient.
    pub grad: Grad<'a>,
    /// Optimiser state, f32 (f64 for f64 parameters).
    pub state: Vec<ArrayMut<'a>>,
    /// Whether this is the first step of this parameter (its state holds arbitrary values).
    pub first: bool,
}

impl Slot<'_> {
    /// Whether a pass can be run on this slot. One that has passed this does not fail, unless another thread takes a
    /// tensor meanwhile.
    ///
    /// # Errors
    /// Arrays of other shapes than the gradient's, not in row-major order, of a dtype that is not computed in, on
    /// another device, or too few of them; a gradient that is being written.
    pub fn check(&self, update: &Update) -> Result<()> {
        let grad = self.grad.array();
        let shapes = update.states(grad.shape());
        let states = self.state.iter().zip(&shapes).map(|(s, shape)| (s.array(), shape));
        let others = self.param.iter().chain(&self.master).map(|a| (a.array(), grad.shape()));
        for (array, shape) in others.chain(states).chain([(grad, grad.shape())]) {
            update.check_device(array, grad)?;
            if array.shape() != shape || !array.layout().is_contiguous() {
                return Err(Error::Shape {
                    op: update.name(),
                    expected: "expected parameter, state and gradient of one shape in row-major order".into(),
                    shapes: vec![*array.shape(), *grad.shape()],
                });
            }
        }
        if self.state.len() < shapes.len() {
            return Err(Error::Argument {
                op: update.name(),
                message: format!("needs {} state tensors per parameter, got {}", shapes.len(), self.state.len()),
            });
        }
        let given: Vec<DType> = self.param.iter().map(|p| p.array().dtype()).chain([grad.dtype()]).collect();
        let computing = if given.contains(&DType::F64) { DType::F64 } else { DType::F32 };
        let kept: Vec<DType> = self.master.iter().chain(&self.state).map(|a| a.array().dtype()).collect();
        if !given.iter().all(|d| d.is_float()) || kept.iter().any(|&d| d != computing) {
            let expected = "floats, with master and state in f32, in f64 if one of them is".into();
            return Err(Error::DType { op: update.name(), expected, dtypes: given.into_iter().chain(kept).collect() });
        }
        match &self.grad {
            Grad::Read(grad) => grad.storage().read(update.name()).map(drop),
            Grad::Write(_) => Ok(()),
        }
    }
}

/// A gradient, read or changed in place.
#[derive(Debug)]
pub enum Grad<'a> {
    /// Only read.
    Read(&'a Array),
    /// Changed in place.
    Write(ArrayMut<'a>),
}

impl Grad<'_> {
    /// The gradient's array.
    pub fn array(&self) -> &Array {
        match self {
            Grad::Read(array) => array,
            Grad::Write(array) => array.array(),
        }
    }
}

/// What a pass will have found: a device may still be at work on it.
pub struct Outcome(State);

enum State {
    Ready(Findings),
    Later(Box<dyn FnOnce() -> Result<Findings> + Send>),
}

impl Outcome {
    /// Of a pass that is over.
    pub fn ready(findings: Findings) -> Outcome {
        Outcome(State::Ready(findings))
    }

    /// Of a pass that is queued; `wait` returns when it has run.
    pub fn later(wait: impl FnOnce() -> Result<Findings> + Send + 'static) -> Outcome {
        Outcome(State::Later(Box::new(wait)))
    }

    /// Waits until the pass has run.
    ///
    /// # Errors
    /// What an asynchronous device reports late, of this pass or of an operator before it.
    pub fn wait(self) -> Result<Findings> {
        match self.0 {
            State::Ready(findings) => Ok(findings),
            State::Later(wait) => wait(),
        }
    }
}

impl fmt::Debug for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            State::Ready(findings) => f.debug_tuple("Outcome").field(findings).finish(),
            State::Later(_) => f.write_str("Outcome(queued)"),
        }
    }
}

/// What a pass found.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Findings {
    /// A gradient held an infinity or a NaN.
    pub found_inf: bool,
    /// Euclidean norm of all gradients, for [`Update::Norm`].
    pub norm: f64,
}
