//! [`Update`]: in-place passes over many tensors at once, never recorded by autograd.

mod rules;

use std::fmt;

use crate::{Array, ArrayMut, DType, Error, Result, profile};

pub use rules::{Step, StepVisitor, Update};

impl Update {
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
        let _span = profile::span(|| profile::What::Update {
            name: self.name(),
            tensors: slots.len(),
            bytes: slots.iter().map(Slot::bytes).sum(),
        });
        scalars.device().update(self, scalars, slots)
    }

    fn check_device(&self, a: &Array, b: &Array) -> Result<()> {
        if a.device() == b.device() {
            return Ok(());
        }
        let [first, second] = [a, b].map(|array| array.device().name().to_string());
        Err(Error::Device { op: self.name(), first, second })
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
    /// Bytes of all its arrays.
    fn bytes(&self) -> u64 {
        let written = self.param.iter().chain(&self.master).chain(&self.state).map(ArrayMut::array);
        written.chain([self.grad.array()]).map(|array| (array.numel() * array.dtype().size()) as u64).sum()
    }

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
