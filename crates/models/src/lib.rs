//! Reference networks for mixed precision training.

#![cfg_attr(not(test), deny(clippy::print_stdout, clippy::print_stderr))]

mod airbench;
mod any;
mod clip;
mod diffusion;
mod error;
mod gpt;
mod keys;
mod ldm;
mod library;
pub mod parity;
mod preparation;
mod pretrained;
mod quantise;
mod resnet;
mod small_cnn;
mod timm;
mod transformer;
mod unet;
mod vit;

pub use airbench::{Airbench, AirbenchConfig, whitening};
pub use any::{AnyModel, Classifier, Names, read_config};
pub use clip::{ClipText, ClipTextConfig};
pub use diffusion::{
    AutoencoderKL, AutoencoderKLConfig, DiagonalGaussian, OneOrEach, UNet2DConditionConfig, UNet2DConditionModel,
    UNet2DConfig, UNet2DModel,
};
pub use error::{Error, Result};
pub use gpt::{Gpt, GptCache, GptConfig, Sampling, Writer};
pub use keys::Keys;
pub use ldm::is_ldm;
pub use library::Library;
pub use preparation::{Filter, Preparation};
pub use pretrained::Pretrained;
pub use quantise::{Quantisation, Quantise, Rounding, is_quantised_folder};
pub use resnet::{ResNet, ResNetConfig, Stem};
pub use small_cnn::{SmallCnn, SmallCnnConfig};
pub use transformer::Act;
pub use unet::{UNet, UNetConfig};
pub use vit::{Pool, Vit, VitConfig};
