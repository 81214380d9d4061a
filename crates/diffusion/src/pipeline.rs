//! [`Pipeline`]: a folder of Stable Diffusion as diffusers writes it.

use std::path::{Path, PathBuf};

use binade_autograd::{Var, scope};
use binade_models::{AutoencoderKL, ClipText, Keys, Pretrained, UNet2DConditionModel};
use binade_nn::Layer;
use binade_weights::{LoadOptions, Weights, load};
use serde_json::{Value, json};

use crate::{Error, Guidance, Result, Sampler, SchedulerConfig, Tokenizer};

/// Text encoder, U-Net and autoencoder with their weights, the scheduler's settings, and the tokenizer where the folder
/// has one.
pub struct Pipeline {
    /// Tokens to features.
    pub text_encoder: ClipText,
    /// The noise in latents.
    pub unet: UNet2DConditionModel,
    /// Latents to images.
    pub vae: AutoencoderKL,
    /// Noise and sampler.
    pub scheduler: SchedulerConfig,
    /// Texts to tokens.
    pub tokenizer: Option<Tokenizer>,
}

/// The JSON of a file.
pub(crate) fn json_of(path: PathBuf) -> Result<Value> {
    let text =
        std::fs::read_to_string(&path).map_err(|e| Error::File { path: path.clone(), message: e.to_string() })?;
    serde_json::from_str(&text).map_err(|e| Error::File { path, message: e.to_string() })
}

/// A model with the weights of its folder, in f32.
pub(crate) fn part<M: Pretrained>(folder: &Path) -> Result<M> {
    let config = json_of(folder.join("config.json"))?;
    let at = |e: binade_models::Error| Error::File { path: folder.into(), message: e.to_string() };
    let model = scope::without_initial_values(|| M::from_config(&config)).map_err(at)?;
    let weights = Weights::open(folder)?;
    load(&model, &weights, &model.sources(&weights.names()), &LoadOptions::default())?;
    Ok(model)
}

/// The `scheduler_config.json` of a folder.
pub(crate) fn scheduler_of(folder: &Path) -> Result<SchedulerConfig> {
    let path = folder.join("scheduler_config.json");
    let text = std::fs::read_to_string(&path);
    let text = text.map_err(|e| Error::File { path: path.clone(), message: e.to_string() })?;
    SchedulerConfig::read(&text).map_err(|e| Error::File { path, message: e.to_string() })
}

impl Pipeline {
    /// Opens a folder with a `model_index.json`. Its safety checker and feature extractor are left out.
    ///
    /// # Errors
    /// Another pipeline, or parts of other classes; a file that is missing or is not what it should be; weights that do
    /// not fit.
    pub fn open(folder: &Path) -> Result<Pipeline> {
        let index = json_of(folder.join("model_index.json"))?;
        let mut keys = Keys::new("model_index.json", &index)?;
        keys.only("_class_name", &[json!("StableDiffusionPipeline")]);
        keys.only("text_encoder", &[json!(["transformers", "CLIPTextModel"])]);
        keys.only("unet", &[json!(["diffusers", "UNet2DConditionModel"])]);
        keys.only("vae", &[json!(["diffusers", "AutoencoderKL"])]);
        let tokenizer: Option<[Option<String>; 2]> = keys.optional("tokenizer");
        let scheduler: Option<[Option<String>; 2]> = keys.optional("scheduler");
        if scheduler.is_none() {
            keys.problem("scheduler is missing");
        }
        // They change no image.
        keys.harmless(&["_diffusers_version", "_name_or_path", "requires_safety_checker"]);
        keys.harmless(&["safety_checker", "feature_extractor", "image_encoder"]);
        keys.finish()?;
        Ok(Pipeline {
            scheduler: scheduler_of(&folder.join("scheduler"))?,
            tokenizer: tokenizer.map(|_| Tokenizer::open(&folder.join("tokenizer"))).transpose()?,
            text_encoder: part(&folder.join("text_encoder"))?,
            unet: part(&folder.join("unet"))?,
            vae: part(&folder.join("vae"))?,
        })
    }

    /// Features `[1, T, D]` of a text's tokens.
    ///
    /// # Errors
    /// More tokens than the encoder reads, or one that it lacks.
    pub fn encode(&self, tokens: &[i64]) -> Result<Var> {
        Ok(self.text_encoder.forward(&Var::from_slice(tokens, &[1, tokens.len()])?)?)
    }

    /// From noise `[N, C, h, w]` to latents. `text` and `without` are features `[1, T, D]` of what is wanted and of
    /// what the image is led away from; `each` sees the number of evaluations done and the latents after each.
    ///
    /// # Errors
    /// Shapes that do not fit.
    pub fn denoise(
        &self,
        noise: &Var,
        [text, without]: [&Var; 2],
        sampler: &Sampler,
        guidance: Guidance,
        each: impl FnMut(usize, &Var) -> Result<()>,
    ) -> Result<Var> {
        let n = noise.shape()[0];
        let network = |x: &Var, time: f64| -> Result<Var> {
            guidance.guided(x, |x, sides| {
                let features = sides.iter().map(|&with| if with { text } else { without });
                let several: Vec<Var> =
                    features.map(|f| f.expand(&[n, f.shape()[1], f.shape()[2]])).collect::<Result<_, _>>()?;
                let context = Var::cat(&several.iter().collect::<Vec<_>>(), 0)?;
                Ok(self.unet.forward(x, &Var::full(time, &[1])?, &context, None)?)
            })
        };
        sampler.run(noise, network, each)
    }

    /// Latents to images `[N, 3, H, W]` from −1 to 1, and a little beyond.
    ///
    /// # Errors
    /// Shapes that do not fit.
    pub fn decode(&self, latents: &Var) -> Result<Var> {
        Ok(self.vae.decode(&self.vae.unscaled(latents)?)?)
    }
}
