//! [`OptimizerChoice`]: an optimiser by name, with the settings that are its own.

use binade_nn::{Adafactor, Adam, AdamW, Lion, RmsProp, Rule, Sgd};
use serde::{Deserialize, Serialize};

/// An optimiser with what it has beside learning rate and weight decay, which all of them have.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "name", rename_all = "lowercase", deny_unknown_fields)]
pub enum OptimizerChoice {
    /// Adam with decoupled weight decay.
    AdamW {
        /// Decay of the moments.
        betas: [f64; 2],
    },
    /// Adam, whose weight decay is an L2 penalty.
    Adam {
        /// Decay of the moments.
        betas: [f64; 2],
    },
    /// Stochastic gradient descent, whose weight decay is an L2 penalty.
    Sgd {
        /// Momentum factor.
        momentum: f64,
        /// Nesterov's form.
        nesterov: bool,
    },
    /// The sign of a momentum, with one state per parameter.
    Lion {
        /// Decay of the momentum in the update, and of the momentum kept.
        betas: [f64; 2],
    },
    /// RMSprop, whose weight decay is an L2 penalty.
    RmsProp {
        /// Momentum factor.
        momentum: f64,
    },
    /// Second moments of matrices as rows and columns; the learning rate is relative to a parameter's size.
    Adafactor {},
}

impl Default for OptimizerChoice {
    /// AdamW as PyTorch has it.
    fn default() -> OptimizerChoice {
        OptimizerChoice::AdamW { betas: AdamW::default().betas }
    }
}

impl OptimizerChoice {
    /// Names of all.
    pub const NAMES: [&str; 6] = ["adamw", "adam", "sgd", "lion", "rmsprop", "adafactor"];

    /// The optimiser of a name, with the settings that are usual for it: momentum 0.9 in Nesterov's form for SGD.
    pub fn named(name: &str) -> Option<OptimizerChoice> {
        Some(match name {
            "adamw" => OptimizerChoice::default(),
            "adam" => OptimizerChoice::Adam { betas: Adam::default().betas },
            "sgd" => OptimizerChoice::Sgd { momentum: 0.9, nesterov: true },
            "lion" => OptimizerChoice::Lion { betas: Lion::default().betas },
            "rmsprop" => OptimizerChoice::RmsProp { momentum: 0.0 },
            "adafactor" => OptimizerChoice::Adafactor {},
            _ => return None,
        })
    }

    /// Its name.
    pub fn name(&self) -> &'static str {
        match self {
            OptimizerChoice::AdamW { .. } => "adamw",
            OptimizerChoice::Adam { .. } => "adam",
            OptimizerChoice::Sgd { .. } => "sgd",
            OptimizerChoice::Lion { .. } => "lion",
            OptimizerChoice::RmsProp { .. } => "rmsprop",
            OptimizerChoice::Adafactor {} => "adafactor",
        }
    }

    /// The betas, where it has any.
    pub fn betas_mut(&mut self) -> Option<&mut [f64; 2]> {
        match self {
            OptimizerChoice::AdamW { betas } | OptimizerChoice::Adam { betas } | OptimizerChoice::Lion { betas } => {
                Some(betas)
            }
            OptimizerChoice::Sgd { .. } | OptimizerChoice::RmsProp { .. } | OptimizerChoice::Adafactor {} => None,
        }
    }

    /// The momentum, where it has one.
    pub fn momentum_mut(&mut self) -> Option<&mut f64> {
        match self {
            OptimizerChoice::Sgd { momentum, .. } | OptimizerChoice::RmsProp { momentum } => Some(momentum),
            OptimizerChoice::AdamW { .. }
            | OptimizerChoice::Adam { .. }
            | OptimizerChoice::Lion { .. }
            | OptimizerChoice::Adafactor {} => None,
        }
    }

    /// Its rule with a learning rate and a weight decay.
    pub fn rule(&self, lr: f64, weight_decay: f64) -> Rule {
        match *self {
            OptimizerChoice::AdamW { betas } => AdamW { lr, betas, weight_decay, ..AdamW::default() }.into(),
            OptimizerChoice::Adam { betas } => Adam { lr, betas, weight_decay, ..Adam::default() }.into(),
            OptimizerChoice::Sgd { momentum, nesterov } => {
                Sgd { lr, momentum, nesterov, weight_decay, ..Sgd::default() }.into()
            }
            OptimizerChoice::Lion { betas } => Lion { lr, betas, weight_decay }.into(),
            OptimizerChoice::RmsProp { momentum } => {
                RmsProp { lr, momentum, weight_decay, ..RmsProp::default() }.into()
            }
            OptimizerChoice::Adafactor {} => Adafactor { lr, weight_decay, ..Adafactor::default() }.into(),
        }
    }
}
