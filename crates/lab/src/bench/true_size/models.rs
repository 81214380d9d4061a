//! The models at the size that they are known by, each with the batch and the loss of a training step.

use std::fmt;

use anyhow::Result;
use binade::autograd::{Var, eval};
use binade::models::{
    AutoencoderKL, AutoencoderKLConfig, ClipText, ClipTextConfig, Gpt, GptConfig, OneOrEach, ResNet, ResNetConfig,
    UNet2DConditionConfig, UNet2DConditionModel, Vit, VitConfig,
};
use binade::nn::{Adafactor, AdamW, Layer, Lion, Module, Optimizer, Param, Rule, Sgd};
use binade::tensor::op::{CrossEntropy, Reduction};
use clap::ValueEnum;
use serde::{Deserialize, Serialize};

use crate::bench::cases::{integers, normal};

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Model {
    /// 224 × 224, batch 32
    Resnet50,
    /// 224 × 224, batch 4
    VitL16,
    /// 124M, 1,024 tokens
    Gpt2,
    /// 355M, 1,024 tokens
    Gpt2Medium,
    /// Stable Diffusion 1.5, latents of 64 × 64, beside its frozen VAE and text encoder
    SdUnet,
    /// Stable Diffusion's autoencoder, 256 × 256
    SdVae,
    /// 1,558M, 1,024 tokens
    Gpt2Xl,
}

impl Model {
    pub const ALL: [Model; 7] =
        [Model::Resnet50, Model::VitL16, Model::Gpt2, Model::Gpt2Medium, Model::SdUnet, Model::SdVae, Model::Gpt2Xl];

    /// Name on the command line and in tables.
    pub fn name(self) -> &'static str {
        match self {
            Model::Resnet50 => "resnet50",
            Model::VitL16 => "vit-l16",
            Model::Gpt2 => "gpt2",
            Model::Gpt2Medium => "gpt2-medium",
            Model::SdUnet => "sd-unet",
            Model::SdVae => "sd-vae",
            Model::Gpt2Xl => "gpt2-xl",
        }
    }

    /// Whether PyTorch may like its images in another memory format.
    pub fn has_images(self) -> bool {
        matches!(self, Model::Resnet50 | Model::SdUnet | Model::SdVae)
    }
}

/// What is trained how: an optimiser, and whether blocks are computed again for backward.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Choice {
    pub rule: RuleName,
    pub recompute: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RuleName {
    AdamW,
    Lion,
    Adafactor,
    Sgd,
}

impl Choice {
    /// All there are, the best first: two states of each parameter, one, a row and a column, none. Time is given before
    /// states are.
    pub fn all() -> impl Iterator<Item = Choice> {
        let rules = [RuleName::AdamW, RuleName::Lion, RuleName::Adafactor, RuleName::Sgd];
        rules.into_iter().flat_map(|rule| [false, true].map(|recompute| Choice { rule, recompute }))
    }

    fn rule(self) -> Rule {
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

/// A model before its first step, on the scope's device.
pub struct Ready {
    pub optimizer: Optimizer,
    pub params: Vec<(String, Param)>,
    pub loss: Box<dyn Fn() -> Result<Var>>,
}

fn ready<M: Module + 'static>(model: M, choice: Choice, loss: impl Fn(&M) -> Result<Var> + 'static) -> Result<Ready> {
    let optimizer = Optimizer::new(&model, choice.rule())?;
    Ok(Ready { optimizer, params: model.named_parameters(), loss: Box::new(move || loss(&model)) })
}

/// Builds a model. Where it is only planned, nothing is encoded: the latents have their shape.
pub fn build(model: Model, choice: Choice, planned: bool) -> Result<Ready> {
    let Choice { recompute, .. } = choice;
    match model {
        Model::Resnet50 => {
            let config = ResNetConfig {
                blocks: vec![3, 4, 6, 3],
                bottleneck: true,
                // As torchvision has it: with zeros a block's other weights have no gradient in the first step.
                zero_init: false,
                recompute,
                ..ResNetConfig::resnet18()
            };
            let (x, t) = (normal(&[32, 3, 224, 224], 1)?, integers(&[32], 1000)?);
            ready(ResNet::new(&config)?, choice, move |m| classify(&m.forward(&x)?, &t))
        }
        Model::VitL16 => {
            let config = VitConfig { depth: 24, recompute, ..VitConfig::tiny() }.with_width(1024, 16);
            let (x, t) = (normal(&[4, 3, 224, 224], 1)?, integers(&[4], 1000)?);
            ready(Vit::new(&config)?, choice, move |m| classify(&m.forward(&x)?, &t))
        }
        Model::Gpt2 => gpt(12, 768, 12, choice),
        Model::Gpt2Medium => gpt(24, 1024, 16, choice),
        Model::Gpt2Xl => gpt(48, 1600, 25, choice),
        Model::SdUnet => stable_diffusion(choice, planned),
        Model::SdVae => {
            let x = normal(&[1, 3, 256, 256], 1)?;
            let vae = AutoencoderKL::new(&vae())?.recomputing(recompute);
            ready(vae, choice, move |m| {
                let found = m.encode(&x)?;
                let error = m.decode(&found.sample()?)?.mse_loss(&x, Reduction::Mean)?;
                Ok((&error + &(&found.kl()?.mean(&[], false)? * 1e-6)?)?)
            })
        }
    }
}

fn classify(y: &Var, target: &Var) -> Result<Var> {
    Ok(y.cross_entropy(target, CrossEntropy::default())?)
}

/// Without dropout, as GPT-2's are trained from the start.
fn gpt(depth: usize, features: usize, heads: usize, choice: Choice) -> Result<Ready> {
    let config = GptConfig {
        depth,
        features,
        heads,
        embedding_dropout: 0.0,
        attention_dropout: 0.0,
        residual_dropout: 0.0,
        recompute: choice.recompute,
        ..GptConfig::gpt2()
    };
    let (context, vocabulary) = (config.context, config.vocabulary);
    let tokens = |n: usize| integers(&[n], vocabulary as i64);
    let (x, t) = (tokens(context)?.reshape(&[1, context as isize])?, tokens(context)?);
    ready(Gpt::new(&config)?, choice, move |m| classify(&m.forward(&x)?.reshape(&[-1, vocabulary as isize])?, &t))
}

fn vae() -> AutoencoderKLConfig {
    AutoencoderKLConfig {
        block_out_channels: vec![128, 256, 512, 512],
        down_block_types: vec!["DownEncoderBlock2D".into(); 4],
        up_block_types: vec!["UpDecoderBlock2D".into(); 4],
        layers_per_block: 2,
        ..AutoencoderKLConfig::default()
    }
}

/// A latent and a text, encoded once by networks that stay, and noise that the U-Net is to find.
fn stable_diffusion(choice: Choice, planned: bool) -> Result<Ready> {
    let (vae, text) = (AutoencoderKL::new(&vae())?, ClipText::new(&ClipTextConfig::default())?);
    vae.parameters().iter().chain(&text.parameters()).for_each(|param| param.set_trainable(false));
    let (latent, words) = if planned {
        (normal(&[1, 4, 64, 64], 1)?, normal(&[1, 77, 768], 2)?)
    } else {
        let (image, tokens) = (normal(&[1, 3, 512, 512], 1)?, integers(&[1, 77], 49408)?);
        eval(|| -> Result<_> { Ok((vae.scaled(&vae.encode(&image)?.mean)?, text.forward(&tokens)?)) })?
    };
    let (noise, t) = (normal(&[1, 4, 64, 64], 3)?, integers(&[1], 1000)?);
    // In the middle of the schedule.
    let x = (&(&latent * 0.5f64.sqrt())? + &(&noise * 0.5f64.sqrt())?)?;
    let config = UNet2DConditionConfig { cross_attention_dim: OneOrEach::One(768), ..UNet2DConditionConfig::default() };
    let unet = UNet2DConditionModel::new(&config)?.recomputing(choice.recompute);
    let frozen = (vae, text);
    ready(unet, choice, move |m| {
        let _stay = &frozen;
        Ok(m.forward(&x, &t, &words, None)?.mse_loss(&noise, Reduction::Mean)?)
    })
}
