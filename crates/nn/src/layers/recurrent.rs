//! LSTM and GRU, with PyTorch's names, gate order and initial values.

use binade_autograd::Var;
use binade_tensor::{Array, Class, DType, Shape};

use crate::{Error, Init, Module, Param, Result, Visitor};

/// What a recurrent network computes in each step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Cell {
    Lstm,
    Gru,
}

impl Cell {
    const fn gates(self) -> usize {
        match self {
            Cell::Lstm => 4,
            Cell::Gru => 3,
        }
    }
}

/// Weights of one layer in one direction.
#[derive(Clone, Module)]
struct Weights {
    /// `[gates·H, in]`
    input: Param,
    /// `[gates·H, H]`
    hidden: Param,
    input_bias: Param,
    hidden_bias: Param,
}

/// A stack of recurrent layers. Parameters are named `weight_ih_l0`, `weight_hh_l0`, `bias_ih_l0`, `bias_hh_l0`, with
/// the layer's number and `_reverse` for the second direction.
#[derive(Clone)]
struct Stack {
    cell: Cell,
    hidden: usize,
    batch_first: bool,
    directions: usize,
    layers: Vec<Weights>,
}

/// Long short-term memory (Hochreiter and Schmidhuber 1997); gates in the order input, forget, cell, output.
#[derive(Clone)]
pub struct Lstm(Stack);

/// Gated recurrent unit (Cho et al. 2014) as in PyTorch: the reset gate acts on the product with the hidden state;
/// gates in the order reset, update, new.
#[derive(Clone)]
pub struct Gru(Stack);

/// Settings of a recurrent network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Recurrent {
    /// Number of layers, each reading the one before.
    pub layers: usize,
    /// Whether a second stack reads from the end; outputs are concatenated.
    pub bidirectional: bool,
    /// Input and output as `[B, T, …]` instead of `[T, B, …]`.
    pub batch_first: bool,
}

impl Default for Recurrent {
    fn default() -> Recurrent {
        Recurrent { layers: 1, bidirectional: false, batch_first: false }
    }
}

impl Stack {
    fn new(cell: Cell, inputs: usize, hidden: usize, settings: Recurrent) -> Result<Stack> {
        if hidden == 0 || settings.layers == 0 {
            let message = format!("needs at least one unit and one layer, got {hidden} and {}", settings.layers);
            return Err(Error::Config { layer: "recurrent", message });
        }
        let directions = 1 + settings.bidirectional as usize;
        let bound = 1.0 / (hidden as f64).sqrt();
        let init = Init::Uniform { low: -bound, high: bound };
        let rows = cell.gates() * hidden;
        let mut layers = Vec::new();
        for layer in 0..settings.layers {
            let width = if layer == 0 { inputs } else { hidden * directions };
            for _ in 0..directions {
                layers.push(Weights {
                    input: Param::init(&[rows, width], init)?,
                    hidden: Param::init(&[rows, hidden], init)?,
                    input_bias: Param::init(&[rows], init)?,
                    hidden_bias: Param::init(&[rows], init)?,
                });
            }
        }
        Ok(Stack { cell, hidden, batch_first: settings.batch_first, directions, layers })
    }

    /// (outputs, last hidden states `[layers·directions, B, H]`, last cell states).
    fn forward(&self, x: &Var, start: Option<(&Var, Option<&Var>)>) -> Result<(Var, Var, Option<Var>)> {
        if x.shape().rank() != 3 {
            let message = format!("expected three dimensions (time, batch, features), got {:?}", x.shape());
            return Err(Error::Config { layer: "recurrent", message });
        }
        let mut x = if self.batch_first { x.transpose(0, 1)? } else { x.clone() };
        let (t, batch) = (x.shape()[0], x.shape()[1]);
        if t == 0 {
            return Err(Error::Config {
                layer: "recurrent",
                message: "a sequence of no steps has no last state".into(),
            });
        }
        let zeros = |width: usize| -> Result<Var> {
            // The state is f32: sums over many steps in 16 bit lose what each step adds.
            let dtype = if x.dtype() == DType::F64 { DType::F64 } else { DType::F32 };
            let shape = Shape::new(&[batch, width])?;
            Ok(Var::constant(Array::full(x.array().device(), dtype, shape, 0.0, Class::Activations)?))
        };
        let zero = zeros(self.hidden)?;
        let pick = |v: Option<&Var>, i: usize| -> Result<Var> {
            match v {
                Some(v) => Ok(v.narrow(0, i, 1)?.squeeze(0)?),
                None => Ok(zero.clone()),
            }
        };
        let (mut last_h, mut last_c) = (Vec::new(), Vec::new());
        for (layer, weights) in self.layers.chunks(self.directions).enumerate() {
            let mut outputs = Vec::new();
            for (direction, w) in weights.iter().enumerate() {
                let index = layer * self.directions + direction;
                let mut h = pick(start.map(|s| s.0), index)?;
                let mut c = pick(start.and_then(|s| s.1), index)?;
                // The products with the inputs of all steps at once.
                let gates = x.linear(&w.input.var(), Some(&w.input_bias.var()), None)?;
                let (weight, bias) = (w.hidden.var(), w.hidden_bias.var());
                let mut steps = vec![None; t];
                for step in 0..t {
                    let at = if direction == 0 { step } else { t - 1 - step };
                    let from_input = gates.narrow(0, at, 1)?.squeeze(0)?;
                    let from_hidden = h.linear(&weight, Some(&bias), None)?;
                    (h, c) = self.step(&from_input, &from_hidden, &h, &c)?;
                    steps[at] = Some(h.clone());
                }
                let steps: Vec<&Var> = steps.iter().flatten().collect();
                outputs.push(Var::stack(&steps, 0)?);
                last_h.push(h);
                last_c.push(c);
            }
            x = if let [one] = &outputs[..] { one.clone() } else { Var::cat(&outputs.iter().collect::<Vec<_>>(), -1)? };
        }
        let all = |v: &[Var]| Var::stack(&v.iter().collect::<Vec<_>>(), 0);
        let cells = if self.cell == Cell::Lstm { Some(all(&last_c)?) } else { None };
        let y = if self.batch_first { x.transpose(0, 1)? } else { x };
        Ok((y, all(&last_h)?, cells))
    }

    /// One step: `(h, c)` afterwards.
    fn step(&self, a: &Var, b: &Var, h: &Var, c: &Var) -> Result<(Var, Var)> {
        let gate = |v: &Var, i: usize| v.narrow(-1, i * self.hidden, self.hidden);
        Ok(match self.cell {
            Cell::Lstm => {
                let sum = a.add(b)?;
                let (input, forget) = (gate(&sum, 0)?.sigmoid()?, gate(&sum, 1)?.sigmoid()?);
                let (new, output) = (gate(&sum, 2)?.tanh()?, gate(&sum, 3)?.sigmoid()?);
                let c = c.mul(&forget)?.add(&input.mul(&new)?)?;
                (c.tanh()?.mul(&output)?, c)
            }
            Cell::Gru => {
                let reset = gate(a, 0)?.add(&gate(b, 0)?)?.sigmoid()?;
                let update = gate(a, 1)?.add(&gate(b, 1)?)?.sigmoid()?;
                let new = gate(a, 2)?.add(&reset.mul(&gate(b, 2)?)?)?.tanh()?;
                // (1 − z)·n + z·h
                (h.sub(&new)?.mul(&update)?.add(&new)?, c.clone())
            }
        })
    }

    fn copy_with(&self, visitor: &Visitor<'_>) -> Stack {
        Stack { layers: self.layers.iter().map(|w| w.copy_with(visitor)).collect(), ..*self }
    }

    fn visit(&self, visitor: &mut Visitor<'_>) {
        for (i, w) in self.layers.iter().enumerate() {
            let suffix = if i % self.directions == 1 { "_reverse" } else { "" };
            let layer = i / self.directions;
            let named = [
                ("weight_ih", &w.input),
                ("weight_hh", &w.hidden),
                ("bias_ih", &w.input_bias),
                ("bias_hh", &w.hidden_bias),
            ];
            for (kind, param) in named {
                visitor.field(format_args!("{kind}_l{layer}{suffix}"), param);
            }
        }
    }
}

impl Module for Lstm {
    fn visit(&self, visitor: &mut Visitor<'_>) {
        self.0.visit(visitor);
    }

    fn copy_with(&self, visitor: &Visitor<'_>) -> Lstm {
        Lstm(self.0.copy_with(visitor))
    }
}

impl Module for Gru {
    fn visit(&self, visitor: &mut Visitor<'_>) {
        self.0.visit(visitor);
    }

    fn copy_with(&self, visitor: &Visitor<'_>) -> Gru {
        Gru(self.0.copy_with(visitor))
    }
}

impl Lstm {
    /// For inputs of `inputs` features and `hidden` units.
    ///
    /// # Errors
    /// No units or layers; the shape is too large.
    pub fn new(inputs: usize, hidden: usize, settings: Recurrent) -> Result<Lstm> {
        Ok(Lstm(Stack::new(Cell::Lstm, inputs, hidden, settings)?))
    }

    /// Outputs `[T, B, directions·H]` and the last hidden and cell states `[layers·directions, B, H]`, for x `[T, B,
    /// in]` and optional first states of that shape (zeros else). States are f32 inside autocast.
    ///
    /// # Errors
    /// Shapes do not fit; no steps.
    pub fn forward(&self, x: &Var, start: Option<(&Var, &Var)>) -> Result<(Var, Var, Var)> {
        let (y, h, c) = self.within(|| self.0.forward(x, start.map(|(h, c)| (h, Some(c)))))?;
        let c = c.unwrap_or_else(|| h.clone());
        Ok((y, h, c))
    }
}

impl Gru {
    /// For inputs of `inputs` features and `hidden` units.
    ///
    /// # Errors
    /// No units or layers; the shape is too large.
    pub fn new(inputs: usize, hidden: usize, settings: Recurrent) -> Result<Gru> {
        Ok(Gru(Stack::new(Cell::Gru, inputs, hidden, settings)?))
    }

    /// Outputs `[T, B, directions·H]` and the last hidden states `[layers·directions, B, H]`, for x `[T, B, in]` and
    /// optional first states (zeros else).
    ///
    /// # Errors
    /// Shapes do not fit; no steps.
    pub fn forward(&self, x: &Var, start: Option<&Var>) -> Result<(Var, Var)> {
        let (y, h, _) = self.within(|| self.0.forward(x, start.map(|h| (h, None))))?;
        Ok((y, h))
    }
}
