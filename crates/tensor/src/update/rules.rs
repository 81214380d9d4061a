//! The passes: what they do, what they need, and the step of an optimiser on one element. A rule is all here, but for
//! its settings (`binade-nn`) and the reference's.

use crate::{Float, Shape};

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

/// An optimiser's step on one element, which depends on that element alone. Its numbers are in the computing type.
pub trait Step<C, const STATES: usize>: Copy + Sync {
    /// The parameter and its states after the step; at the `first` one they hold arbitrary values before it.
    fn step(&self, first: bool, p: C, g: C, state: [C; STATES]) -> (C, [C; STATES]);
}

/// Code generic over the step, run by [`Update::visit`].
pub trait StepVisitor<C> {
    /// Result.
    type Output;
    /// Runs for a step.
    fn visit<const STATES: usize>(self, step: impl Step<C, STATES>) -> Self::Output;
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

    /// The numbers of a step, counted from 1, at a learning rate; the last is the factor of the gradients.
    pub fn scalars(&self, lr: f64, step: u64, grad_factor: f64) -> Vec<f64> {
        match self {
            Update::Adam { betas, .. } => {
                let correction = |b: f64| 1.0 - b.powf(step as f64);
                vec![lr, correction(betas[0]), correction(betas[1]).sqrt(), grad_factor]
            }
            Update::Adafactor { .. } => vec![lr, step as f64, grad_factor],
            Update::Adagrad { .. } | Update::Sgd { .. } | Update::RmsProp { .. } | Update::Lion { .. } => {
                vec![lr, grad_factor]
            }
            Update::Unscale | Update::Norm | Update::Scale | Update::Clamp | Update::Ema => vec![lr, grad_factor],
        }
    }

    /// Runs `visitor` with the step on one element; `None` for a pass whose results depend on others too, or that
    /// writes no parameters.
    #[inline(always)]
    pub fn visit<C: Float, V: StepVisitor<C>>(&self, scalars: &[C], visitor: V) -> Option<V::Output> {
        let c = <C as crate::Element>::from_f64;
        let lr = scalars[0];
        Some(match *self {
            Update::Unscale | Update::Norm | Update::Scale | Update::Clamp | Update::Adafactor { .. } => return None,
            Update::Ema => visitor.visit(Ema(lr)),
            Update::Adagrad { weight_decay, eps, initial } => {
                visitor.visit(Adagrad { lr, decay: c(weight_decay), eps: c(eps), initial: c(initial) })
            }
            Update::RmsProp { alpha, eps, weight_decay, momentum, centered } => {
                let [a, b, eps, decay, mu] = [alpha, 1.0 - alpha, eps, weight_decay, momentum].map(c);
                let step = RmsProp { lr, a, b, eps, decay, mu, centered, moves: momentum != 0.0 };
                match (centered, step.moves) {
                    (true, _) => visitor.visit::<3>(step),
                    (false, true) => visitor.visit::<2>(step),
                    (false, false) => visitor.visit::<1>(step),
                }
            }
            Update::Lion { betas, weight_decay } => {
                let [b1, c1, b2, c2] = [betas[0], 1.0 - betas[0], betas[1], 1.0 - betas[1]].map(c);
                visitor.visit(Lion { lr, b1, c1, b2, c2, shrink: C::one() - lr * c(weight_decay) })
            }
            Update::Sgd { momentum, dampening, weight_decay, nesterov } => {
                let [mu, damp, decay] = [momentum, 1.0 - dampening, weight_decay].map(c);
                let step = Sgd { lr, mu, damp, decay, nesterov };
                if momentum != 0.0 { visitor.visit::<1>(step) } else { visitor.visit::<0>(step) }
            }
            Update::Adam { betas, eps, weight_decay, decoupled } => {
                let (c1, root) = (scalars[1], scalars[2]);
                let [one_minus_b1, b2, one_minus_b2, eps, decay] =
                    [1.0 - betas[0], betas[1], 1.0 - betas[1], eps, weight_decay].map(c);
                let shrink = if decoupled { C::one() - lr * decay } else { C::one() };
                let l2 = if decoupled { C::zero() } else { decay };
                visitor.visit(Adam { step: lr / c1, root, one_minus_b1, b2, one_minus_b2, eps, shrink, l2 })
            }
        })
    }
}

#[derive(Clone, Copy)]
struct Ema<C>(C);

impl<C: Float> Step<C, 0> for Ema<C> {
    #[inline(always)]
    fn step(&self, _first: bool, p: C, g: C, state: [C; 0]) -> (C, [C; 0]) {
        (p + self.0 * (g - p), state)
    }
}

#[derive(Clone, Copy)]
struct Adagrad<C> {
    lr: C,
    decay: C,
    eps: C,
    initial: C,
}

impl<C: Float> Step<C, 1> for Adagrad<C> {
    #[inline(always)]
    fn step(&self, first: bool, p: C, g: C, [m]: [C; 1]) -> (C, [C; 1]) {
        let d = g + self.decay * p;
        let m = if first { self.initial } else { m } + d * d;
        (p - self.lr * d / (m.sqrt() + self.eps), [m])
    }
}

#[derive(Clone, Copy)]
struct RmsProp<C> {
    lr: C,
    a: C,
    b: C,
    eps: C,
    decay: C,
    mu: C,
    centered: bool,
    /// Whether there is momentum.
    moves: bool,
}

impl<C: Float, const STATES: usize> Step<C, STATES> for RmsProp<C> {
    #[inline(always)]
    fn step(&self, first: bool, p: C, g: C, state: [C; STATES]) -> (C, [C; STATES]) {
        let before = |v: C| if first { C::zero() } else { v };
        let mut after = state;
        let d = g + self.decay * p;
        let mut square = self.a * before(state[0]) + self.b * d * d;
        after[0] = square;
        if self.centered && STATES > 2 {
            after[2] = self.a * before(state[2]) + self.b * d;
            square = square - after[2] * after[2];
        }
        let mut u = d / (square.sqrt() + self.eps);
        if self.moves && STATES > 1 {
            u = self.mu * before(state[1]) + u;
            after[1] = u;
        }
        (p - self.lr * u, after)
    }
}

#[derive(Clone, Copy)]
struct Lion<C> {
    lr: C,
    b1: C,
    c1: C,
    b2: C,
    c2: C,
    shrink: C,
}

impl<C: Float> Step<C, 1> for Lion<C> {
    #[inline(always)]
    fn step(&self, first: bool, p: C, g: C, [m]: [C; 1]) -> (C, [C; 1]) {
        let m = if first { C::zero() } else { m };
        let u = self.b1 * m + self.c1 * g;
        let sign = if u > C::zero() {
            C::one()
        } else if u < C::zero() {
            -C::one()
        } else {
            u
        };
        (p * self.shrink - self.lr * sign, [self.b2 * m + self.c2 * g])
    }
}

#[derive(Clone, Copy)]
struct Sgd<C> {
    lr: C,
    mu: C,
    damp: C,
    decay: C,
    nesterov: bool,
}

impl<C: Float, const STATES: usize> Step<C, STATES> for Sgd<C> {
    #[inline(always)]
    fn step(&self, first: bool, p: C, g: C, state: [C; STATES]) -> (C, [C; STATES]) {
        let mut after = state;
        let mut d = g + self.decay * p;
        if STATES > 0 {
            let m = if first { d } else { self.mu * state[0] + self.damp * d };
            after[0] = m;
            d = if self.nesterov { d + self.mu * m } else { m };
        }
        (p - self.lr * d, after)
    }
}

#[derive(Clone, Copy)]
struct Adam<C> {
    step: C,
    root: C,
    one_minus_b1: C,
    b2: C,
    one_minus_b2: C,
    eps: C,
    shrink: C,
    l2: C,
}

impl<C: Float> Step<C, 2> for Adam<C> {
    #[inline(always)]
    fn step(&self, first: bool, p: C, g: C, [m, v]: [C; 2]) -> (C, [C; 2]) {
        let (m, v) = if first { (C::zero(), C::zero()) } else { (m, v) };
        let w = p * self.shrink;
        let d = g + self.l2 * w;
        let m = m + self.one_minus_b1 * (d - m);
        let v = self.b2 * v + self.one_minus_b2 * d * d;
        (w - self.step * m / (v.sqrt() / self.root + self.eps), [m, v])
    }
}
