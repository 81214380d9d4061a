//! [`Encoding`]: images as an autoencoder's latents, encoded once, and kept on the disk where that is asked for.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use binade::autograd::eval;
use binade::diffusion::VaePrecision;
use binade::models::{AnyModel, AutoencoderKL, read_config};
use binade::nn::{Module, read_safetensors, write_safetensors};
use binade::tensor::random::normal_pair;
use binade::tensor::{Array, Class, Device, Key};
use binade::train::{Batch, Data, Sample, SampleResult};
use binade::weights::LoadOptions;
use clap::ValueEnum;
use crc32fast::Hasher;
use serde::{Deserialize, Serialize};

use super::super::job::Use;
use super::super::pictures::Read;

/// The precision of an autoencoder, or how it is chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum VaeChoice {
    Fp32,
    Fp16,
    Bf16,
    /// The fastest whose latents and images are as those of f32, measured on the first images
    Auto,
}

/// The autoencoder of a folder: its own, that of a pipeline, or that of a run, in the first of its precisions.
pub fn open(folder: &Path) -> Result<AutoencoderKL> {
    let names = ["", "vae", "vqvae", "fp32", "bf16", "fp16"];
    let is_one = |at: &PathBuf| {
        read_config(at).is_ok_and(|config| config.get("_class_name").is_some_and(|class| class == "AutoencoderKL"))
    };
    let Some(at) = names.map(|name| folder.join(name)).into_iter().find(is_one) else {
        bail!("{}: no autoencoder: neither a folder of an AutoencoderKL nor a run of `train vae`", folder.display());
    };
    match AnyModel::open(&at, &LoadOptions::default())?.0 {
        AnyModel::AutoencoderKL(vae) => Ok(vae),
        _ => bail!("{}: no autoencoder", at.display()),
    }
}

/// How images are encoded.
pub struct Encoding<'a> {
    pub vae: &'a AutoencoderKL,
    pub choice: VaeChoice,
    /// Folder of latents that were encoded before.
    pub cache: Option<&'a Path>,
}

/// Images of an encoding: training and test images, and their shape.
pub struct Encoded {
    pub train: Arc<dyn Data>,
    pub test: Arc<dyn Data>,
    pub shape: [usize; 3],
    /// What it was encoded in, and images are decoded in.
    pub precision: VaePrecision,
}

/// Images that are encoded at once.
const AT_ONCE: usize = 32;

impl Encoding<'_> {
    /// Encodes all images, training images as they are and mirrored, or takes them from the folder. What overflows is
    /// done again in f32, and told.
    pub fn of(&self, images: &Read, used: &impl Use) -> Result<Encoded> {
        let precision = match self.choice {
            VaeChoice::Fp32 => VaePrecision::Fp32,
            VaeChoice::Fp16 => VaePrecision::Fp16,
            VaeChoice::Bf16 => VaePrecision::Bf16,
            VaeChoice::Auto => self.measured(images, used)?,
        };
        let train = self.latents(&*images.train, images.mirror, precision, used).context("training images")?;
        let test = self.latents(&*images.test, false, precision, used).context("test images")?;
        let (shape, n) = (train.shape, images.train.len());
        used.say(&format!("latents of {n} images, {}×{}×{}, in {}", shape[0], shape[1], shape[2], precision.name()));
        Ok(Encoded { train: Arc::new(train), test: Arc::new(test), shape, precision })
    }

    fn measured(&self, images: &Read, used: &impl Use) -> Result<VaePrecision> {
        let first: Vec<usize> = (0..images.train.len().min(8)).collect();
        let batch = Batch::of(&*images.train, &first, None)?.get("image")?;
        let (chosen, all) = eval(|| VaePrecision::measured(self.vae, &batch))?;
        for found in all {
            used.say(&format!(
                "autoencoder in {}: {:.3} s for {} images; latents off by {:.1e} deviations, images by {:.3} of 255",
                found.precision.name(),
                found.seconds,
                first.len(),
                found.latents,
                found.shades
            ));
        }
        used.say(&format!("autoencoder in {}", chosen.name()));
        Ok(chosen)
    }

    fn latents(&self, data: &dyn Data, mirror: bool, precision: VaePrecision, used: &impl Use) -> Result<Latents> {
        let sides = 1 + usize::from(mirror);
        let path = match self.cache {
            Some(folder) => {
                Some(folder.join(format!("latents-{:08x}.safetensors", self.key(data, mirror, precision)?)))
            }
            None => None,
        };
        let factor = self.vae.config().scaling_factor;
        let shift = self.vae.config().shift_factor.unwrap_or(0.0);
        if let Some(path) = path.as_deref().filter(|path| path.exists()) {
            let (tensors, _) = read_safetensors(path, Class::Workspace)?;
            let of = |name: &str| {
                let found = tensors.iter().find(|(found, _)| found == name);
                found.map(|(_, array)| array).with_context(|| format!("{}: no tensor {name:?}", path.display()))
            };
            let shape = of("mean")?.shape().to_vec();
            let (mean, deviation) = (of("mean")?.to_vec::<f32>()?, of("deviation")?.to_vec::<f32>()?);
            let classes = of("class")?.to_vec::<i64>()?;
            if shape.len() != 4 || shape[0] != sides * data.len() || classes.len() != data.len() {
                bail!("{}: latents of {shape:?} for {} images", path.display(), data.len());
            }
            let shape = [shape[1], shape[2], shape[3]];
            return Ok(Latents { mean, deviation, classes, shape, sides, factor, shift });
        }
        let (mut mean, mut deviation, mut classes, mut shape) = (Vec::new(), Vec::new(), Vec::new(), [0; 3]);
        let mut told = false;
        for side in 0..sides {
            let indices: Vec<usize> = (0..data.len()).collect();
            for indices in indices.chunks(AT_ONCE) {
                let batch = Batch::of(data, indices, None)?;
                let image = batch.get("image")?;
                let image = if side == 1 { image.flip(&[3])? } else { image };
                let (found, fault) = eval(|| precision.encode(self.vae, &image))?;
                if let (Some(fault), false) = (fault, told) {
                    used.say(&format!("autoencoder in {}: done again in f32, since {fault}", precision.name()));
                    told = true;
                }
                shape = std::array::from_fn(|d| found.mean.shape()[d + 1]);
                mean.extend(found.mean.array().to_vec::<f32>()?);
                deviation.extend((&found.logvar * 0.5)?.exp()?.array().to_vec::<f32>()?);
                if side == 0 {
                    classes.extend(batch.get("class")?.array().to_vec::<i64>()?);
                }
            }
        }
        if let Some(path) = &path {
            let (n, [c, h, w]) = (sides * data.len(), shape);
            let of = |values: &[f32]| Array::from_slice(&Device::cpu(), values, &[n, c, h, w], Class::Workspace);
            let labels = Array::from_slice(&Device::cpu(), &classes, &[classes.len()], Class::Workspace)?;
            let tensors = [("mean", of(&mean)?), ("deviation", of(&deviation)?), ("class", labels)];
            let tensors = tensors.map(|(name, array)| (name.to_string(), array));
            std::fs::create_dir_all(path.parent().unwrap_or(Path::new(".")))
                .with_context(|| path.display().to_string())?;
            write_safetensors(path, &tensors, HashMap::new())?;
        }
        Ok(Latents { mean, deviation, classes, shape, sides, factor, shift })
    }

    /// A checksum over weights, precision and images.
    fn key(&self, data: &dyn Data, mirror: bool, precision: VaePrecision) -> Result<u32> {
        let mut sum = Hasher::new();
        sum.update(precision.name().as_bytes());
        sum.update(&[u8::from(mirror)]);
        let mut add = |values: Vec<f64>| values.iter().for_each(|value| sum.update(&value.to_le_bytes()));
        for (_, param) in self.vae.named_parameters() {
            add(param.array().to_f64_vec()?);
        }
        for index in 0..data.len() {
            let batch = Batch::of(data, &[index], None)?;
            add(batch.get("image")?.array().to_f64_vec()?);
            add(batch.get("class")?.array().to_f64_vec()?);
        }
        Ok(sum.finalize())
    }
}

/// Normal distributions of images' latents, from which training draws, and of which evaluation has the mean; scaled as
/// they are diffused.
struct Latents {
    mean: Vec<f32>,
    deviation: Vec<f32>,
    classes: Vec<i64>,
    shape: [usize; 3],
    /// 2 where all images follow once more, mirrored.
    sides: usize,
    factor: f64,
    shift: f64,
}

impl Data for Latents {
    fn len(&self) -> usize {
        self.classes.len()
    }

    fn sample(&self, index: usize, key: Option<Key>) -> SampleResult {
        let size = self.shape.iter().product::<usize>();
        let mirrored = key.is_some_and(|key| key.stream("mirror").bits(index) & 1 == 1) && self.sides == 2;
        let from = (index + if mirrored { self.len() } else { 0 }) * size..;
        let (mean, deviation) = (&self.mean[from.clone()][..size], &self.deviation[from][..size]);
        let scaled = |z: f64| ((z - self.shift) * self.factor) as f32;
        let latent: Vec<f32> = match key {
            None => mean.iter().map(|&z| scaled(z.into())).collect(),
            Some(key) => {
                let of = Key { op: index as u32, ..key.stream("latent") };
                let normals = (0u32..).flat_map(|block| {
                    let [a, b, c, d] = of.block(block);
                    [normal_pair(a, b), normal_pair(c, d)].concat()
                });
                let drawn = mean.iter().zip(deviation).zip(normals);
                drawn.map(|((&mean, &deviation), n)| scaled(f64::from(mean) + f64::from(deviation) * n)).collect()
            }
        };
        Ok(Sample::new().with("image", latent, &self.shape).with("class", [self.classes[index]], &[]))
    }
}
