//! [`VaePrecision`]: an autoencoder in 16 bit, and again in f32 where that overflows.

use std::time::Instant;

use binade_amp::{Blame, Policy, blame};
use binade_autograd::{Var, no_grad};
use binade_models::{AutoencoderKL, DiagonalGaussian};
use binade_tensor::DType;
use serde::{Deserialize, Serialize};

use crate::{Error, Result};

/// In what precision an autoencoder runs whose weights are f32.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum VaePrecision {
    /// f32.
    #[default]
    Fp32,
    /// f16 under autocast.
    Fp16,
    /// bf16 under autocast.
    Bf16,
}

/// What a precision was measured at, beside f32.
#[derive(Clone, Debug, PartialEq)]
pub struct Measured {
    /// Which.
    pub precision: VaePrecision,
    /// Seconds to encode and decode.
    pub seconds: f64,
    /// Root of the mean squared difference of latents from those of f32, over their deviation.
    pub latents: f64,
    /// The same of decoded images, in shades of 255; infinite where it overflowed.
    pub shades: f64,
}

/// Most that latents may differ by in a precision that is chosen by measuring: a hundredth of their deviation.
const LATENTS: f64 = 0.01;
/// Most that decoded images may differ by there: half a shade of 255.
const SHADES: f64 = 0.5;

impl VaePrecision {
    /// All of them.
    pub const ALL: [VaePrecision; 3] = [VaePrecision::Fp32, VaePrecision::Fp16, VaePrecision::Bf16];

    /// Its name on the command line.
    pub const fn name(self) -> &'static str {
        match self {
            VaePrecision::Fp32 => "fp32",
            VaePrecision::Fp16 => "fp16",
            VaePrecision::Bf16 => "bf16",
        }
    }

    fn policy(self) -> Policy {
        match self {
            VaePrecision::Fp32 => Policy::OFF,
            VaePrecision::Fp16 => Policy::autocast(DType::F16),
            VaePrecision::Bf16 => Policy::autocast(DType::BF16),
        }
    }

    /// Runs `f` in this precision without gradients. Where a result is not finite it runs again in f32: then the
    /// operator and the layer at fault come with it.
    fn run<T>(self, f: impl Fn() -> Result<T>, shown: impl Fn(&T) -> Result<Var>) -> Result<(T, Option<Blame>)> {
        no_grad(|| {
            let first = self.policy().run(&f)?;
            let total = |value: &T| Ok::<_, Error>(shown(value)?.cast(DType::F32)?.sum(&[], false)?);
            if self == VaePrecision::Fp32 || total(&first)?.item()?.is_finite() {
                return Ok((first, None));
            }
            // Under the policy that overflowed, to find where.
            let fault = self.policy().run(|| blame(1.0, || total(&f()?)))?;
            Ok((Policy::OFF.run(&f)?, fault))
        })
    }

    /// [`AutoencoderKL::encode`] of images `[N, C, H, W]` in this precision, or in f32 and with the fault where that
    /// overflows.
    ///
    /// # Errors
    /// Shapes that do not fit.
    pub fn encode(self, vae: &AutoencoderKL, images: &Var) -> Result<(DiagonalGaussian, Option<Blame>)> {
        self.run(|| Ok(vae.encode(images)?), |found| Ok((&found.mean + &found.logvar)?))
    }

    /// [`AutoencoderKL::decode`] of latents as they are diffused, to f32 images, in this precision, or in f32 if that
    /// overflows, with the fault.
    ///
    /// # Errors
    /// Shapes that do not fit.
    pub fn decode(self, vae: &AutoencoderKL, latents: &Var) -> Result<(Var, Option<Blame>)> {
        let z = vae.unscaled(latents)?;
        let (image, fault) = self.run(|| Ok(vae.decode(&z)?), |image| Ok(image.clone()))?;
        Ok((image.cast(DType::F32)?, fault))
    }

    /// The fastest precision that does what f32 does to these images, with what each was measured at. Latents may
    /// differ by a hundredth of their deviation, and what becomes of them by half a shade of 255.
    ///
    /// # Errors
    /// Shapes that do not fit.
    pub fn measured(vae: &AutoencoderKL, images: &Var) -> Result<(VaePrecision, Vec<Measured>)> {
        let pass = |precision: VaePrecision| -> Result<(f64, Vec<f64>, Vec<f64>)> {
            let (mut best, mut found) = (f64::INFINITY, None);
            // The first of two pays for memory and casts.
            for _ in 0..2 {
                let start = Instant::now();
                let both = no_grad(|| {
                    precision.policy().run(|| -> Result<_> {
                        let latents = vae.encode(images)?.mean;
                        let back = vae.decode(&latents)?;
                        Ok((latents.array().to_f64_vec()?, back.array().to_f64_vec()?))
                    })
                })?;
                (best, found) = (best.min(start.elapsed().as_secs_f64()), Some(both));
            }
            let (latents, images) = found.unwrap_or_default();
            Ok((best, latents, images))
        };
        let (seconds, latents, back) = pass(VaePrecision::Fp32)?;
        let deviation = rms(&latents, &vec![mean(&latents); latents.len()]);
        let mut all = vec![Measured { precision: VaePrecision::Fp32, seconds, latents: 0.0, shades: 0.0 }];
        for precision in [VaePrecision::Fp16, VaePrecision::Bf16] {
            let (seconds, found, image) = pass(precision)?;
            let finite = |difference: f64| if difference.is_finite() { difference } else { f64::INFINITY };
            // Images are from −1 to 1: 255 shades are 2.
            let (latents, shades) = (finite(rms(&found, &latents) / deviation), finite(rms(&image, &back) * 127.5));
            all.push(Measured { precision, seconds, latents, shades });
        }
        let fits = all.iter().filter(|m| m.latents <= LATENTS && m.shades <= SHADES);
        let fastest = fits.min_by(|a, b| a.seconds.total_cmp(&b.seconds)).map_or(VaePrecision::Fp32, |m| m.precision);
        Ok((fastest, all))
    }
}

fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len().max(1) as f64
}

fn rms(a: &[f64], b: &[f64]) -> f64 {
    (a.iter().zip(b).map(|(a, b)| (a - b).powi(2)).sum::<f64>() / a.len().max(1) as f64).sqrt()
}
