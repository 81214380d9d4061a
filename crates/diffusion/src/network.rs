//! [`Denoiser`]: the network of a pipeline, whichever class it is of.

use std::path::Path;

use binade_autograd::Var;
use binade_models::{Pretrained, UNet2DConditionModel, UNet2DModel};
use binade_nn::{Module, Visitor, replace_file};
use binade_weights::{SaveOptions, Sources, save};
use serde_json::Value;

use crate::pipeline::{json_of, part};
use crate::{Error, Result};

/// What the network is told beside the image and the time.
#[derive(Clone, Copy)]
pub enum Condition<'a> {
    /// Nothing.
    Nothing,
    /// Classes, `[N]`.
    Labels(&'a Var),
    /// Features of texts, `[N, T, D]`.
    Text(&'a Var),
}

impl Condition<'_> {
    /// Those of several batches for all of them together.
    ///
    /// # Errors
    /// Conditions of several kinds; shapes that do not fit.
    pub(crate) fn joined(all: &[Condition<'_>]) -> Result<(bool, Option<Var>)> {
        let (mut labels, mut texts) = (Vec::new(), Vec::new());
        for condition in all {
            match condition {
                Condition::Nothing => {}
                Condition::Labels(var) => labels.push(*var),
                Condition::Text(var) => texts.push(*var),
            }
        }
        match (labels.len(), texts.len()) {
            (0, 0) => Ok((false, None)),
            (n, 0) if n == all.len() => Ok((false, Some(Var::cat(&labels, 0)?))),
            (0, n) if n == all.len() => Ok((true, Some(Var::cat(&texts, 0)?))),
            _ => Err(Error::Setting("this guidance needs the condition and one that stands for none".into())),
        }
    }
}

/// A network that finds the noise in images: diffusers' `UNet2DModel` or `UNet2DConditionModel`, under its names.
#[derive(Clone, Module)]
pub struct Denoiser {
    #[module(flatten)]
    plain: Option<UNet2DModel>,
    #[module(flatten)]
    text: Option<UNet2DConditionModel>,
}

impl From<UNet2DModel> for Denoiser {
    fn from(model: UNet2DModel) -> Denoiser {
        Denoiser { plain: Some(model), text: None }
    }
}

impl From<UNet2DConditionModel> for Denoiser {
    fn from(model: UNet2DConditionModel) -> Denoiser {
        Denoiser { plain: None, text: Some(model) }
    }
}

impl Denoiser {
    /// The network of a folder with its weights, in f32.
    ///
    /// # Errors
    /// Another class; a file that is missing or is not what it should be; weights that do not fit.
    pub fn open(folder: &Path) -> Result<Denoiser> {
        let path = folder.join("config.json");
        match json_of(path.clone())?.get("_class_name").and_then(Value::as_str) {
            Some("UNet2DModel") => Ok(part::<UNet2DModel>(folder)?.into()),
            Some("UNet2DConditionModel") => Ok(part::<UNet2DConditionModel>(folder)?.into()),
            other => {
                let found = other.unwrap_or("nothing");
                let message = format!("_class_name is {found}, and only UNet2DModel or UNet2DConditionModel is built");
                Err(Error::File { path, message })
            }
        }
    }

    /// Writes `config.json` and `diffusion_pytorch_model.safetensors`, from which diffusers makes the same. Changes of
    /// low rank are no part of it.
    ///
    /// # Errors
    /// A file cannot be written.
    pub fn save(&self, folder: &Path) -> Result<()> {
        match (&self.plain, &self.text) {
            (Some(model), _) => save_part(model, folder),
            (_, Some(model)) => save_part(model, folder),
            (None, None) => Ok(()),
        }
    }

    /// Images `[N, C, H, W]` and times `[N]`, or one, to what is predicted `[N, C, H, W]`.
    ///
    /// # Errors
    /// Shapes that do not fit; a condition of another kind than the network has.
    pub fn forward(&self, x: &Var, t: &Var, condition: Condition<'_>) -> binade_nn::Result<Var> {
        let wrong = |message: &str| binade_nn::Error::Config { layer: "UNet", message: message.into() };
        self.within(|| match (&self.plain, &self.text, condition) {
            (Some(model), _, Condition::Nothing) => model.forward(x, t, None),
            (Some(model), _, Condition::Labels(labels)) => model.forward(x, t, Some(labels)),
            (_, Some(model), Condition::Text(text)) => model.forward(x, t, text, None),
            (Some(_), _, Condition::Text(_)) => Err(wrong("it takes no text")),
            (_, _, _) => Err(wrong("it is led by a text, and none is given")),
        })
    }

    /// Whether it is led by a text.
    pub fn takes_text(&self) -> bool {
        self.text.is_some()
    }

    /// Rows of its table of classes, if it has one: the last is for no class at all, where `Pipeline`s of this crate
    /// wrote it.
    pub fn labels(&self) -> Option<usize> {
        self.plain.as_ref().and_then(|model| model.config().num_class_embeds)
    }

    /// Channels of the image.
    pub fn channels(&self) -> usize {
        let text = self.text.as_ref().map(|model| model.config().in_channels);
        self.plain.as_ref().map(|model| model.config().in_channels).or(text).unwrap_or(0)
    }

    /// Height and width that it was made for, where its configuration says.
    pub fn size(&self) -> Option<[usize; 2]> {
        let text = self.text.as_ref().map(|model| &model.config().sample_size);
        let size = self.plain.as_ref().map(|model| &model.config().sample_size).or(text)?;
        let number = |value: &Value| value.as_u64().map(|n| n as usize);
        match size {
            Value::Array(both) if both.len() == 2 => Some([number(&both[0])?, number(&both[1])?]),
            one => number(one).map(|n| [n, n]),
        }
    }

    /// With changes of low rank beside attention's matrices; all else is frozen.
    ///
    /// # Errors
    /// A rank of 0 or beyond a matrix's extents; no attention.
    pub fn with_lora(self, rank: usize, alpha: f64) -> Result<Denoiser> {
        Ok(Denoiser {
            plain: self.plain.map(|model| model.with_lora(rank, alpha)).transpose()?,
            text: self.text.map(|model| model.with_lora(rank, alpha)).transpose()?,
        })
    }

    /// Whether blocks are run again in backward instead of keeping what they compute.
    #[must_use]
    pub fn recomputing(self, recompute: bool) -> Denoiser {
        Denoiser {
            plain: self.plain.map(|model| model.recomputing(recompute)),
            text: self.text.map(|model| model.recomputing(recompute)),
        }
    }
}

/// Writes a part of a pipeline: its `config.json` and its weights.
///
/// # Errors
/// A file cannot be written.
pub fn save_part<M: Pretrained>(model: &M, folder: &Path) -> Result<()> {
    let options = SaveOptions { stem: "diffusion_pytorch_model".into(), ..SaveOptions::default() };
    save(model, folder, &Sources::default(), &options)?;
    write_text(&folder.join("config.json"), &format!("{:#}\n", model.to_config()))
}

/// Writes a text file, which is replaced as a whole.
pub(crate) fn write_text(path: &Path, text: &str) -> Result<()> {
    let at = |e: std::io::Error| Error::File { path: path.into(), message: e.to_string() };
    path.parent().map_or(Ok(()), std::fs::create_dir_all).map_err(at)?;
    replace_file(path, |file| file.write_all(text.as_bytes())).map_err(at)
}
