//! Models by name, at the size that they are known by, each with the batch and the loss of a training step; and what
//! such a step takes, planned.

mod build;
mod plan;

use std::fmt;

use clap::ValueEnum;
use serde::{Deserialize, Serialize};

use crate::nn::{Adafactor, AdamW, Lion, Rule, Sgd};

pub use build::{Ready, build, integers, normal};
pub use plan::{Planned, Recipe, Taken, beside, largest_batch, measured, planned, profiled};

/// A model by its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Model {
    /// Images of 8 × 8, batch 64
    SmallCnn,
    /// Images of 32 × 32, batch 1,024
    Airbench,
    /// 224 × 224, batch 32
    Resnet18,
    /// 224 × 224, batch 32
    Resnet34,
    /// 224 × 224, batch 32
    Resnet50,
    /// 224 × 224, batch 4
    VitTiny,
    /// 224 × 224, batch 4
    VitSmall,
    /// 224 × 224, batch 4
    VitBase,
    /// 224 × 224, batch 4
    VitL16,
    /// 124M, 1,024 tokens
    Gpt2,
    /// 355M, 1,024 tokens
    Gpt2Medium,
    /// 774M, 1,024 tokens
    Gpt2Large,
    /// 1,558M, 1,024 tokens
    Gpt2Xl,
    /// Of 1.0 billion parameters, 1,024 tokens
    Gpt1b,
    /// Stable Diffusion's text encoder, 77 tokens
    ClipText,
    /// Diffusion on images of 32 × 32, batch 8
    Unet,
    /// diffusers' UNet2DModel on images of 32 × 32, batch 8
    Unet2d,
    /// Stable Diffusion 1.5, latents of 64 × 64, beside its frozen VAE and text encoder
    SdUnet,
    /// Stable Diffusion's autoencoder, 256 × 256
    SdVae,
}

impl Model {
    /// Name on the command line and in tables.
    pub fn name(self) -> String {
        self.to_possible_value().map_or_else(String::new, |value| value.get_name().into())
    }

    /// Samples of a step, where nothing else is said.
    pub fn batch(self) -> usize {
        match self {
            Model::SmallCnn => 64,
            Model::Airbench => 1024,
            Model::Resnet18 | Model::Resnet34 | Model::Resnet50 => 32,
            Model::VitTiny | Model::VitSmall | Model::VitBase | Model::VitL16 => 4,
            Model::Gpt2 | Model::Gpt2Medium | Model::Gpt2Large | Model::Gpt2Xl | Model::Gpt1b => 1,
            Model::ClipText | Model::SdUnet | Model::SdVae => 1,
            Model::Unet | Model::Unet2d => 8,
        }
    }

    /// Whether its blocks can be computed again for backward.
    pub fn recomputes(self) -> bool {
        !matches!(self, Model::SmallCnn | Model::Airbench | Model::Unet)
    }
}

/// What is trained how: an optimiser, and whether blocks are computed again for backward.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Choice {
    /// The optimiser.
    pub rule: RuleName,
    /// Whether blocks are computed again.
    pub recompute: bool,
}

/// An optimiser, by what it keeps of a parameter: two states, one, a row and a column, a momentum.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[value(rename_all = "lowercase")]
pub enum RuleName {
    /// Two states of each value
    AdamW,
    /// One
    Lion,
    /// A row and a column of each matrix
    Adafactor,
    /// One, the momentum
    Sgd,
}

impl Choice {
    /// All there are, the best first: two states of each parameter, one, a row and a column, none. Time is given before
    /// states are.
    pub fn all() -> impl Iterator<Item = Choice> {
        let rules = [RuleName::AdamW, RuleName::Lion, RuleName::Adafactor, RuleName::Sgd];
        rules.into_iter().flat_map(|rule| [false, true].map(|recompute| Choice { rule, recompute }))
    }

    /// The optimiser with its settings.
    pub fn rule(self) -> Rule {
        match self.rule {
            RuleName::AdamW => AdamW { lr: 1e-4, ..AdamW::default() }.into(),
            RuleName::Lion => Lion { lr: 1e-5, ..Lion::default() }.into(),
            RuleName::Adafactor => Adafactor::default().into(),
            RuleName::Sgd => Sgd::default().into(),
        }
    }
}

impl fmt::Display for Choice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.rule {
            RuleName::AdamW => "AdamW",
            RuleName::Lion => "Lion",
            RuleName::Adafactor => "Adafactor",
            RuleName::Sgd => "SGD",
        })?;
        f.write_str(if self.recompute { ", blocks again" } else { "" })
    }
}
