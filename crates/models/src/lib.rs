//! Reference networks for mixed precision training.

#![cfg_attr(not(test), deny(clippy::print_stdout, clippy::print_stderr))]

mod gpt;
mod resnet;
mod small_cnn;
mod transformer;
mod unet;
mod vit;

pub use gpt::{Gpt, GptConfig};
pub use resnet::{ResNet, ResNetConfig};
pub use small_cnn::{SmallCnn, SmallCnnConfig};
pub use transformer::Block;
pub use unet::{UNet, UNetConfig};
pub use vit::{Vit, VitConfig};
