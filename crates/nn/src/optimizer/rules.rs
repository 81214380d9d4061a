//! The optimisers' settings. Defaults are PyTorch's (Lion: the paper's).

use binade_tensor::Update;

use crate::{Error, Result};

/// A learning rate and an update rule: what every optimiser's settings become.
#[derive(Clone, Debug, PartialEq)]
pub struct Rule {
    /// Learning rate before the schedule.
    pub lr: f64,
    /// The pass.
    pub update: Update,
    /// The learning rate is divided by 1 + steps·lr_decay.
    pub lr_decay: f64,
}

impl Rule {
    fn new(lr: f64, update: Update) -> Rule {
        Rule { lr, update, lr_decay: 0.0 }
    }

    /// Fails unless every setting lies in PyTorch's domain (Lion: the paper's) and fits f32, in which steps are
    /// computed.
    ///
    /// # Errors
    /// [`Error::Setting`]; [`Error::Config`] for a pass that is no rule.
    pub fn check(&self) -> Result<()> {
        let of = self.update.name();
        let fits = |v: f64| (v as f32).is_finite();
        let at_least =
            |low: f64, allowed, what, found: f64| Error::unless(found >= low && fits(found), of, what, allowed, found);
        let positive = |what, found| at_least(0.0, "at least 0 and finite in f32", what, found);
        let betas = |betas: &[f64; 2]| {
            betas.iter().zip(["first beta", "second beta"]).try_for_each(|(&beta, what)| {
                Error::unless((0.0..1.0).contains(&beta), of, what, "at least 0 and below 1", beta)
            })
        };
        positive("learning rate", self.lr)?;
        positive("decay of the learning rate", self.lr_decay)?;
        match self.update {
            Update::Sgd { momentum, dampening, weight_decay, nesterov } => {
                positive("momentum", momentum)?;
                positive("weight decay", weight_decay)?;
                Error::unless(fits(dampening), of, "dampening", "finite in f32", dampening)?;
                let allowed = "above 0 with Nesterov's form";
                Error::unless(!nesterov || momentum > 0.0, of, "momentum", allowed, momentum)?;
                Error::unless(!nesterov || dampening == 0.0, of, "dampening", "0 with Nesterov's form", dampening)
            }
            Update::Adam { betas: both, eps, weight_decay, decoupled: _ } => {
                betas(&both)?;
                positive("eps", eps)?;
                positive("weight decay", weight_decay)
            }
            Update::Adagrad { weight_decay, eps, initial } => {
                positive("weight decay", weight_decay)?;
                positive("eps", eps)?;
                positive("first value of the sum", initial)
            }
            Update::RmsProp { alpha, eps, weight_decay, momentum, centered: _ } => {
                Error::unless((0.0..=1.0).contains(&alpha), of, "alpha", "from 0 to 1", alpha)?;
                positive("eps", eps)?;
                positive("weight decay", weight_decay)?;
                positive("momentum", momentum)
            }
            Update::Lion { betas: both, weight_decay } => {
                betas(&both)?;
                positive("weight decay", weight_decay)
            }
            Update::Adafactor { decay, eps: [first, second], clip, weight_decay } => {
                Error::unless(
                    decay <= 0.0 && fits(decay),
                    of,
                    "exponent of the decay",
                    "at most 0 and finite in f32",
                    decay,
                )?;
                positive("first eps", first)?;
                positive("second eps", second)?;
                at_least(1.0, "at least 1 and finite in f32", "largest update", clip)?;
                positive("weight decay", weight_decay)
            }
            Update::Unscale | Update::Norm | Update::Scale | Update::Clamp | Update::Ema => {
                Err(Error::Config { layer: "optimizer", message: format!("{of} updates no parameters") })
            }
        }
    }
}

/// Stochastic gradient descent; fields as PyTorch's arguments.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sgd {
    /// Learning rate.
    pub lr: f64,
    /// Momentum factor.
    pub momentum: f64,
    /// Dampening of the gradient in the momentum buffer.
    pub dampening: f64,
    /// L2 penalty.
    pub weight_decay: f64,
    /// Nesterov's form.
    pub nesterov: bool,
}

impl Default for Sgd {
    fn default() -> Sgd {
        Sgd { lr: 1e-3, momentum: 0.0, dampening: 0.0, weight_decay: 0.0, nesterov: false }
    }
}

/// Adam with an L2 penalty.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Adam {
    /// Learning rate.
    pub lr: f64,
    /// Decay of the moments.
    pub betas: [f64; 2],
    /// Added to the denominator.
    pub eps: f64,
    /// L2 penalty.
    pub weight_decay: f64,
}

impl Default for Adam {
    fn default() -> Adam {
        Adam { lr: 1e-3, betas: [0.9, 0.999], eps: 1e-8, weight_decay: 0.0 }
    }
}

/// Adam with decoupled weight decay.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AdamW {
    /// Learning rate.
    pub lr: f64,
    /// Decay of the moments.
    pub betas: [f64; 2],
    /// Added to the denominator.
    pub eps: f64,
    /// Decoupled weight decay.
    pub weight_decay: f64,
}

impl Default for AdamW {
    fn default() -> AdamW {
        AdamW { lr: 1e-3, betas: [0.9, 0.999], eps: 1e-8, weight_decay: 1e-2 }
    }
}

impl From<Sgd> for Rule {
    fn from(o: Sgd) -> Rule {
        let Sgd { lr, momentum, dampening, weight_decay, nesterov } = o;
        Rule::new(lr, Update::Sgd { momentum, dampening, weight_decay, nesterov })
    }
}

impl From<Adam> for Rule {
    fn from(o: Adam) -> Rule {
        Rule::new(o.lr, Update::Adam { betas: o.betas, eps: o.eps, weight_decay: o.weight_decay, decoupled: false })
    }
}

impl From<AdamW> for Rule {
    fn from(o: AdamW) -> Rule {
        Rule::new(o.lr, Update::Adam { betas: o.betas, eps: o.eps, weight_decay: o.weight_decay, decoupled: true })
    }
}

/// Adagrad: steps shrink with the sum of squared gradients.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Adagrad {
    /// Learning rate.
    pub lr: f64,
    /// The learning rate is divided by 1 + steps·lr_decay.
    pub lr_decay: f64,
    /// L2 penalty.
    pub weight_decay: f64,
    /// First value of the sum.
    pub initial_accumulator: f64,
    /// Added to the denominator.
    pub eps: f64,
}

impl Default for Adagrad {
    fn default() -> Adagrad {
        Adagrad { lr: 1e-2, lr_decay: 0.0, weight_decay: 0.0, initial_accumulator: 0.0, eps: 1e-10 }
    }
}

impl From<Adagrad> for Rule {
    fn from(o: Adagrad) -> Rule {
        let update = Update::Adagrad { weight_decay: o.weight_decay, eps: o.eps, initial: o.initial_accumulator };
        Rule { lr_decay: o.lr_decay, ..Rule::new(o.lr, update) }
    }
}

/// RMSprop: gradients divided by their running root mean square.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RmsProp {
    /// Learning rate.
    pub lr: f64,
    /// Decay of the averages.
    pub alpha: f64,
    /// Added to the denominator.
    pub eps: f64,
    /// L2 penalty.
    pub weight_decay: f64,
    /// Momentum factor.
    pub momentum: f64,
    /// Whether the mean gradient is subtracted.
    pub centered: bool,
}

impl Default for RmsProp {
    fn default() -> RmsProp {
        RmsProp { lr: 1e-2, alpha: 0.99, eps: 1e-8, weight_decay: 0.0, momentum: 0.0, centered: false }
    }
}

impl From<RmsProp> for Rule {
    fn from(o: RmsProp) -> Rule {
        let RmsProp { lr, alpha, eps, weight_decay, momentum, centered } = o;
        Rule::new(lr, Update::RmsProp { alpha, eps, weight_decay, momentum, centered })
    }
}

/// Lion: the sign of a momentum; one state per parameter.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Lion {
    /// Learning rate: 3 to 10 times below AdamW's.
    pub lr: f64,
    /// Decay of the momentum in the update, and of the momentum kept.
    pub betas: [f64; 2],
    /// Decoupled weight decay: 3 to 10 times AdamW's.
    pub weight_decay: f64,
}

impl Default for Lion {
    fn default() -> Lion {
        Lion { lr: 1e-4, betas: [0.9, 0.99], weight_decay: 0.0 }
    }
}

impl From<Lion> for Rule {
    fn from(o: Lion) -> Rule {
        Rule::new(o.lr, Update::Lion { betas: o.betas, weight_decay: o.weight_decay })
    }
}

/// Adafactor: second moments of matrices as rows and columns, no first moment.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Adafactor {
    /// Learning rate relative to the size of the parameter.
    pub lr: f64,
    /// Exponent of the decay of second moments.
    pub beta2_decay: f64,
    /// Smallest root of a second moment, and smallest scale of a parameter.
    pub eps: [f64; 2],
    /// Largest root mean square of an update.
    pub clip: f64,
    /// Decoupled weight decay.
    pub weight_decay: f64,
}

impl Default for Adafactor {
    fn default() -> Adafactor {
        Adafactor { lr: 1e-2, beta2_decay: -0.8, eps: [f32::EPSILON as f64, 1e-3], clip: 1.0, weight_decay: 0.0 }
    }
}

impl From<Adafactor> for Rule {
    fn from(o: Adafactor) -> Rule {
        Rule::new(
            o.lr,
            Update::Adafactor { decay: o.beta2_decay, eps: o.eps, clip: o.clip, weight_decay: o.weight_decay },
        )
    }
}
