//! Networks of diffusion, under diffusers' names.

mod attention;
mod autoencoder_kl;
mod blocks;
mod lora;
mod settings;
mod unet;
mod unet_2d;
mod unet_2d_condition;

pub use autoencoder_kl::{AutoencoderKL, AutoencoderKLConfig, DiagonalGaussian};
pub use settings::OneOrEach;
pub use unet_2d::{UNet2DConfig, UNet2DModel};
pub use unet_2d_condition::{UNet2DConditionConfig, UNet2DConditionModel};
