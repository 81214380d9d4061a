//! Models before their first step, on the scope's device.

use anyhow::Result;

use super::{Choice, Model};
use crate::autograd::{Var, eval, scope};
use crate::models::{
    Airbench, AirbenchConfig, AutoencoderKL, AutoencoderKLConfig, ClipText, ClipTextConfig, Gpt, GptConfig, OneOrEach,
    ResNet, ResNetConfig, SmallCnn, SmallCnnConfig, UNet, UNet2DConditionConfig, UNet2DConditionModel, UNet2DConfig,
    UNet2DModel, UNetConfig, Vit, VitConfig,
};
use crate::nn::{Layer, Module, Optimizer, Param};
use crate::tensor::op::{CrossEntropy, Distribution, Reduction};
use crate::tensor::{Array, Class};

/// Normal numbers from a stream of their own.
pub fn normal(dims: &[usize], seed: u64) -> Result<Var> {
    Ok(scope::with_key(seed, 0, || Var::random(Distribution::Normal { mean: 0.0, std: 1.0 }, dims))?)
}

/// Numbers from 0, all below a number.
pub fn integers(dims: &[usize], below: i64) -> Result<Var> {
    let values: Vec<i64> = (0..dims.iter().product::<usize>() as i64).map(|i| i * 7919 % 104_729 % below).collect();
    Ok(Var::constant(Array::from_slice(&scope::device()?, &values, dims, Class::Indices)?))
}

/// A model before its first step, on the scope's device.
pub struct Ready {
    /// Of all parameters.
    pub optimizer: Optimizer,
    /// With their names.
    pub params: Vec<(String, Param)>,
    /// The loss over its batch.
    pub loss: Box<dyn Fn() -> Result<Var>>,
}

fn ready<M: Module + 'static>(model: M, choice: Choice, loss: impl Fn(&M) -> Result<Var> + 'static) -> Result<Ready> {
    let optimizer = Optimizer::new(&model, choice.rule())?;
    Ok(Ready { optimizer, params: model.named_parameters(), loss: Box::new(move || loss(&model)) })
}

/// Builds a model with a batch of so many samples. Where it is only planned, nothing is encoded: the latents have their
/// shape.
///
/// # Errors
/// There is not enough memory.
pub fn build(model: Model, choice: Choice, n: usize, planned: bool) -> Result<Ready> {
    let Choice { recompute, .. } = choice;
    let images = |channels: usize, size: usize, classes: i64| -> Result<(Var, Var)> {
        Ok((normal(&[n, channels, size, size], 1)?, integers(&[n], classes)?))
    };
    match model {
        Model::SmallCnn => {
            let (x, t) = images(1, 8, 10)?;
            ready(SmallCnn::new(&SmallCnnConfig::default())?, choice, move |m| classify(&m.forward(&x)?, &t))
        }
        Model::Airbench => {
            let (x, t) = images(3, 32, 10)?;
            ready(Airbench::new(&AirbenchConfig::default())?, choice, move |m| classify(&m.forward(&x)?, &t))
        }
        Model::Resnet18 | Model::Resnet34 | Model::Resnet50 => {
            let blocks = if model == Model::Resnet18 { vec![2, 2, 2, 2] } else { vec![3, 4, 6, 3] };
            let config = ResNetConfig {
                blocks,
                bottleneck: model == Model::Resnet50,
                // As torchvision has it: with zeros a block's other weights have no gradient in the first step.
                zero_init: false,
                recompute,
                ..ResNetConfig::resnet18()
            };
            let (x, t) = images(3, 224, 1000)?;
            ready(ResNet::new(&config)?, choice, move |m| classify(&m.forward(&x)?, &t))
        }
        Model::VitTiny => vit(12, 192, 3, n, choice),
        Model::VitSmall => vit(12, 384, 6, n, choice),
        Model::VitBase => vit(12, 768, 12, n, choice),
        Model::VitL16 => vit(24, 1024, 16, n, choice),
        Model::Gpt2 => gpt(12, 768, 12, n, choice),
        Model::Gpt2Medium => gpt(24, 1024, 16, n, choice),
        Model::Gpt2Large => gpt(36, 1280, 20, n, choice),
        Model::Gpt2Xl => gpt(48, 1600, 25, n, choice),
        Model::Gpt1b => gpt(24, 1792, 28, n, choice),
        Model::ClipText => {
            let config = ClipTextConfig { recompute, ..ClipTextConfig::default() };
            let tokens = integers(&[n, config.context], config.vocabulary as i64)?;
            ready(ClipText::new(&config)?, choice, move |m| Ok(m.forward(&tokens)?.square()?.mean(&[], false)?))
        }
        Model::Unet => {
            let (x, y) = (normal(&[n, 3, 32, 32], 1)?, normal(&[n, 3, 32, 32], 2)?);
            let t = integers(&[n], 1000)?;
            let model = UNet::new(&UNetConfig::default())?;
            ready(model, choice, move |m| Ok(m.forward(&x, &t)?.mse_loss(&y, Reduction::Mean)?))
        }
        Model::Unet2d => {
            let (x, y) = (normal(&[n, 3, 32, 32], 1)?, normal(&[n, 3, 32, 32], 2)?);
            let t = integers(&[n], 1000)?;
            let model = UNet2DModel::new(&UNet2DConfig::default())?.recomputing(recompute);
            ready(model, choice, move |m| Ok(m.forward(&x, &t, None)?.mse_loss(&y, Reduction::Mean)?))
        }
        Model::SdUnet => stable_diffusion(choice, n, planned),
        Model::SdVae => {
            let x = normal(&[n, 3, 256, 256], 1)?;
            let vae = AutoencoderKL::new(&vae())?.recomputing(recompute);
            ready(vae, choice, move |m| {
                let found = m.encode(&x)?;
                let error = m.decode(&found.sample()?)?.mse_loss(&x, Reduction::Mean)?;
                Ok((&error + &(&found.kl()?.mean(&[], false)? * 1e-6)?)?)
            })
        }
    }
}

fn vit(depth: usize, features: usize, heads: usize, n: usize, choice: Choice) -> Result<Ready> {
    let config = VitConfig { depth, recompute: choice.recompute, ..VitConfig::tiny() }.with_width(features, heads);
    let (x, t) = (normal(&[n, 3, 224, 224], 1)?, integers(&[n], 1000)?);
    ready(Vit::new(&config)?, choice, move |m| classify(&m.forward(&x)?, &t))
}

fn classify(y: &Var, target: &Var) -> Result<Var> {
    Ok(y.cross_entropy(target, CrossEntropy::default())?)
}

/// Without dropout, as GPT-2's are trained from the start.
fn gpt(depth: usize, features: usize, heads: usize, n: usize, choice: Choice) -> Result<Ready> {
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
    let tokens = || integers(&[n * context], vocabulary as i64);
    let (x, t) = (tokens()?.reshape(&[n as isize, context as isize])?, tokens()?);
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
fn stable_diffusion(choice: Choice, n: usize, planned: bool) -> Result<Ready> {
    let (vae, text) = (AutoencoderKL::new(&vae())?, ClipText::new(&ClipTextConfig::default())?);
    vae.parameters().iter().chain(&text.parameters()).for_each(|param| param.set_trainable(false));
    let (latent, words) = if planned {
        (normal(&[n, 4, 64, 64], 1)?, normal(&[n, 77, 768], 2)?)
    } else {
        let (image, tokens) = (normal(&[n, 3, 512, 512], 1)?, integers(&[n, 77], 49408)?);
        eval(|| -> Result<_> { Ok((vae.scaled(&vae.encode(&image)?.mean)?, text.forward(&tokens)?)) })?
    };
    let (noise, t) = (normal(&[n, 4, 64, 64], 3)?, integers(&[n], 1000)?);
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
