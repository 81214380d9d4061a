//! Reference networks for mixed precision training.

#![cfg_attr(not(test), deny(clippy::print_stdout, clippy::print_stderr))]

mod error;
mod gpt;
mod keys;
mod pretrained;
mod resnet;
mod small_cnn;
mod transformer;
mod unet;
mod vit;

pub use error::{Error, Result};
pub use gpt::{Gpt, GptConfig};
pub use keys::Keys;
pub use pretrained::Pretrained;
pub use resnet::{ResNet, ResNetConfig};
pub use small_cnn::{SmallCnn, SmallCnnConfig};
pub use transformer::Block;
pub use unet::{UNet, UNetConfig};
pub use vit::{Vit, VitConfig};
