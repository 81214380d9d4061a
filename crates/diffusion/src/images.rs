//! [`ImagePipeline`]: a folder of a diffusion model without text, as diffusers writes it.

use std::path::{Path, PathBuf};

use binade_autograd::Var;
use binade_models::{AutoencoderKL, Keys};
use binade_tensor::DType;
use serde_json::{Map, Value, json};

use crate::network::{save_part, write_text};
use crate::pipeline::{json_of, part, scheduler_of};
use crate::{Condition, Denoiser, Error, Guidance, Result, Sampler, SchedulerConfig, VaePrecision};

/// A network that is led by nothing or by classes, the scheduler's settings, and an autoencoder where the network works
/// on latents.
pub struct ImagePipeline {
    /// The noise in images or latents.
    pub unet: Denoiser,
    /// Latents to images.
    pub vae: Option<AutoencoderKL>,
    /// Noise and sampler.
    pub scheduler: SchedulerConfig,
    /// Names of the classes, in order; the network's table has one row more, for no class.
    pub classes: Vec<String>,
}

impl ImagePipeline {
    /// Whether a folder holds one, by its `model_index.json`: it has neither texts nor their encoder.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn is_in(folder: &Path) -> Result<bool> {
        Ok(json_of(folder.join("model_index.json"))?.get("text_encoder").is_none())
    }

    /// Opens a folder with a `model_index.json` of a `DDPMPipeline`, a `DDIMPipeline` or an `LDMPipeline`. Parts are
    /// where [`part_folder`] says.
    ///
    /// # Errors
    /// Another pipeline, or parts of other classes; a file that is missing or is not what it should be; weights that do
    /// not fit.
    pub fn open(folder: &Path) -> Result<ImagePipeline> {
        let index = json_of(folder.join("model_index.json"))?;
        let mut keys = Keys::new("model_index.json", &index)?;
        let pipelines = ["DDPMPipeline", "DDIMPipeline", "LDMPipeline"].map(|name| json!(name));
        keys.only("_class_name", &pipelines);
        keys.only("unet", &[json!(["diffusers", "UNet2DModel"])]);
        let vae = ["vae", "vqvae"].into_iter().find(|name| index.get(name).is_some());
        keys.only(vae.unwrap_or("vae"), &[json!(["diffusers", "AutoencoderKL"])]);
        keys.harmless(&["_diffusers_version", "_name_or_path", "scheduler"]);
        let classes: Option<Map<String, Value>> = keys.optional("id2label");
        keys.finish()?;
        let unet = Denoiser::open(&part_folder(folder, "unet"))?;
        let pipeline = ImagePipeline {
            vae: vae.map(|name| part(&folder.join(name))).transpose()?,
            scheduler: scheduler_of(&part_folder(folder, "scheduler"))?,
            classes: names(classes.unwrap_or_default(), unet.labels()),
            unet,
        };
        if let Some(vae) = &pipeline.vae
            && vae.config().latent_channels != pipeline.unet.channels()
        {
            let (latent, own) = (vae.config().latent_channels, pipeline.unet.channels());
            let message = format!("latents have {latent} channels, and the network takes {own}");
            return Err(Error::File { path: folder.into(), message });
        }
        Ok(pipeline)
    }

    /// Writes the folder, from which diffusers makes the same parts.
    ///
    /// # Errors
    /// A file cannot be written.
    pub fn save(&self, folder: &Path) -> Result<()> {
        self.unet.save(&folder.join("unet"))?;
        write_text(&folder.join("scheduler/scheduler_config.json"), &self.scheduler.write())?;
        let mut index = json!({
            "_class_name": "DDIMPipeline",
            "_diffusers_version": "0.30.0",
            "scheduler": ["diffusers", self.scheduler.kind.class()],
            "unet": ["diffusers", "UNet2DModel"],
        });
        if let Some(vae) = &self.vae {
            save_part(vae, &folder.join("vae"))?;
            index["vae"] = json!(["diffusers", "AutoencoderKL"]);
        }
        if !self.classes.is_empty() {
            let named = self.classes.iter().enumerate().map(|(i, name)| (i.to_string(), json!(name)));
            index["id2label"] = Value::Object(named.collect());
        }
        // What makes it a pipeline's folder comes last.
        write_text(&folder.join("model_index.json"), &format!("{index:#}\n"))
    }

    /// The label of no class, if the network has a row for that.
    pub fn no_class(&self) -> Option<i64> {
        (!self.classes.is_empty()).then_some(self.classes.len() as i64)
    }

    /// The label of a class by its name or number.
    ///
    /// # Errors
    /// No such class; a network without a table of classes.
    pub fn label(&self, class: &str) -> Result<i64> {
        let Some(rows) = self.unet.labels() else {
            return Err(Error::Setting(format!("class {class:?}: the network has no table of classes")));
        };
        let found = self.classes.iter().position(|name| name == class);
        let number = || class.parse().ok().filter(|n: &usize| *n < rows);
        found.or_else(number).map(|n| n as i64).ok_or_else(|| {
            let names = if self.classes.is_empty() { format!("0 to {}", rows - 1) } else { self.classes.join(", ") };
            Error::Setting(format!("there is no class {class:?}; there are {names}"))
        })
    }

    /// What was drawn as images, in f32: latents are decoded.
    ///
    /// # Errors
    /// Shapes that do not fit.
    pub fn decode(&self, drawn: &Var, precision: VaePrecision) -> Result<(Var, Option<binade_amp::Blame>)> {
        self.vae.as_ref().map_or_else(|| Ok((drawn.clone(), None)), |vae| precision.decode(vae, drawn))
    }
}

/// The names of classes, if there is one for each row but the last.
fn names(named: Map<String, Value>, rows: Option<usize>) -> Vec<String> {
    let names = (0..named.len()).map_while(|i| Some(named.get(&i.to_string())?.as_str()?.to_string()));
    let names: Vec<String> = names.collect();
    if rows == Some(names.len() + 1) { names } else { Vec::new() }
}

/// Where a part of a pipeline is: in the folder of its name, or beside the index as in the first of such folders.
pub fn part_folder(folder: &Path, name: &str) -> PathBuf {
    let own = folder.join(name);
    if own.is_dir() { own } else { folder.to_path_buf() }
}

/// From noise `[N, C, h, w]` to images or latents of its shape in f32, under the scope's policy. `conditions` are what
/// leads the images, and what stands for nothing; guidance of 1 needs the first alone. `each` sees the number of
/// evaluations done and what there is after each.
///
/// # Errors
/// Shapes that do not fit; guidance away from nothing where there is nothing that stands for it.
pub fn draw(
    unet: &Denoiser,
    noise: &Var,
    conditions: [Condition<'_>; 2],
    sampler: &Sampler,
    guidance: Guidance,
    each: impl FnMut(usize, &Var) -> Result<()>,
) -> Result<Var> {
    let network = |x: &Var, time: f64| -> Result<Var> {
        let t = Var::full(time, &[1])?;
        if let [Condition::Nothing, Condition::Nothing] = conditions {
            return Ok(unet.forward(x, &t, Condition::Nothing)?.cast(DType::F32)?);
        }
        guidance.guided(x, |x, sides| {
            let all: Vec<Condition<'_>> = sides.iter().map(|&with| conditions[usize::from(!with)]).collect();
            let condition = Condition::joined(&all)?;
            let condition = match &condition {
                (_, None) => Condition::Nothing,
                (false, Some(labels)) => Condition::Labels(labels),
                (true, Some(text)) => Condition::Text(text),
            };
            Ok(unet.forward(x, &t, condition)?)
        })
    };
    sampler.run(noise, network, each)
}
