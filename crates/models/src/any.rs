//! [`AnyModel`]: the model that a folder of another library holds, whichever it is.

use std::any::Any;
use std::collections::BTreeSet;
use std::path::Path;

use binade_nn::{Layer, Module, without_initial_values};
use binade_weights::{LoadOptions, Report, Sources, Weights, load};
use serde_json::Value;

use crate::ldm::{self, is_ldm};
use crate::quantise;
use crate::{
    Airbench, AutoencoderKL, ClipText, Error, Gpt, Library, Pretrained, ResNet, ResNetConfig, Result, SmallCnn,
    UNet2DConditionModel, UNet2DModel, Vit, VitConfig,
};

/// A model that some library's `config.json` describes.
pub enum AnyModel {
    /// Ours, in a `config.json` of timm's form.
    SmallCnn(SmallCnn),
    /// Ours, too.
    Airbench(Airbench),
    /// torchvision's, timm's or transformers'.
    ResNet(ResNet),
    /// timm's or transformers'.
    Vit(Vit),
    /// transformers'.
    Gpt(Gpt),
    /// transformers'.
    ClipText(ClipText),
    /// diffusers'.
    UNet2DCondition(UNet2DConditionModel),
    /// diffusers'.
    UNet2D(UNet2DModel),
    /// diffusers'.
    AutoencoderKL(AutoencoderKL),
}

/// A model of images into classes.
#[derive(Clone, Copy)]
pub struct Classifier<'a> {
    /// `[N, C, H, W]` to logits `[N, classes]`.
    pub layer: &'a dyn Layer,
    /// Channels of an image.
    pub channels: usize,
    /// Height and width of an image, where nothing else is said.
    pub size: [usize; 2],
    /// Classes.
    pub classes: usize,
    /// The layer that tells classes apart, whose shape follows from their number.
    pub head: &'static str,
    /// How images are prepared, as timm says it; null if there is nothing.
    pub pretrained_cfg: &'a Value,
}

/// Whose names a model's files have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Names {
    /// transformers.
    Transformers,
    /// timm; torchvision has the same.
    Timm,
    /// diffusers.
    Diffusers,
    /// Single files of Stable Diffusion.
    Ldm,
}

impl Names {
    fn library(self) -> &'static str {
        match self {
            Names::Transformers => "transformers",
            Names::Timm => "timm",
            Names::Diffusers => "diffusers",
            Names::Ldm => "a single file of Stable Diffusion",
        }
    }
}

/// Whether a configuration is what the library makes of what was written of it.
fn same<C: PartialEq + std::fmt::Debug>(names: Names, config: &C, read: &C) -> Result<()> {
    if config == read {
        return Ok(());
    }
    let lines = |config: &C| format!("{config:#?}").lines().map(|l| l.trim().trim_end_matches(',').into()).collect();
    let (wanted, found): (Vec<String>, Vec<String>) = (lines(config), lines(read));
    let differs = wanted.iter().zip(&found).filter(|(wanted, found)| wanted != found);
    let problem =
        |(wanted, found): (&String, &String)| format!("{} has {found} where this model has {wanted}", names.library());
    Err(Error::Config { of: "config.json".into(), problems: differs.map(problem).collect() })
}

/// Runs an expression with the model inside, whichever it is.
macro_rules! each {
    ($any:expr, $model:ident => $value:expr) => {
        match $any {
            AnyModel::SmallCnn($model) => $value,
            AnyModel::Airbench($model) => $value,
            AnyModel::ResNet($model) => $value,
            AnyModel::Vit($model) => $value,
            AnyModel::Gpt($model) => $value,
            AnyModel::ClipText($model) => $value,
            AnyModel::UNet2DCondition($model) => $value,
            AnyModel::UNet2D($model) => $value,
            AnyModel::AutoencoderKL($model) => $value,
        }
    };
}

impl AnyModel {
    /// The model of a `config.json`: `_class_name` of diffusers, `model_type` or `architectures` of transformers,
    /// `architecture` of timm say which.
    ///
    /// # Errors
    /// [`Error::Config`]: a model that is not built, by the name that it has there; as [`Pretrained::from_config`].
    pub fn from_config(config: &Value) -> Result<AnyModel> {
        let text = |key: &str| config.get(key).and_then(Value::as_str);
        if let Some(class) = text("_class_name") {
            return match class {
                "UNet2DConditionModel" => Ok(AnyModel::UNet2DCondition(Pretrained::from_config(config)?)),
                "UNet2DModel" => Ok(AnyModel::UNet2D(Pretrained::from_config(config)?)),
                "AutoencoderKL" => Ok(AnyModel::AutoencoderKL(Pretrained::from_config(config)?)),
                other => Err(not_built("_class_name", other)),
            };
        }
        if let Some(architecture) = text("architecture") {
            return match architecture {
                SmallCnn::ARCHITECTURE => Ok(AnyModel::SmallCnn(Pretrained::from_config(config)?)),
                Airbench::ARCHITECTURE => Ok(AnyModel::Airbench(Pretrained::from_config(config)?)),
                name if name.starts_with("resnet") => Ok(AnyModel::ResNet(Pretrained::from_config(config)?)),
                name if ["vit", "deit", "eva_", "dino"].iter().any(|family| name.starts_with(family)) => {
                    Ok(AnyModel::Vit(Pretrained::from_config(config)?))
                }
                other => Err(not_built("architecture", other)),
            };
        }
        let class = config.get("architectures").and_then(|classes| classes.get(0)?.as_str());
        match text("model_type").or(class) {
            Some("resnet" | "ResNetForImageClassification") => Ok(AnyModel::ResNet(Pretrained::from_config(config)?)),
            Some("vit" | "ViTForImageClassification") => Ok(AnyModel::Vit(Pretrained::from_config(config)?)),
            Some("gpt2" | "GPT2LMHeadModel") => Ok(AnyModel::Gpt(Pretrained::from_config(config)?)),
            Some("clip_text_model" | "CLIPTextModel") => Ok(AnyModel::ClipText(Pretrained::from_config(config)?)),
            Some(other) => Err(not_built("model_type", other)),
            None => Err(Error::Config {
                of: "config.json".into(),
                problems: vec!["it has no _class_name, architecture, model_type or architectures".into()],
            }),
        }
    }

    /// The model of a folder with its weights, in f32: `config.json`, and files as [`Weights::open`] finds them. Of one
    /// that [`AnyModel::save_quantised`] wrote, weights are 8-bit integers.
    ///
    /// # Errors
    /// The configuration cannot be read, as [`AnyModel::from_config`], or the weights do not fit, as [`load`].
    pub fn open(folder: &Path, options: &LoadOptions) -> Result<(AnyModel, Report)> {
        let config = read_config(folder)?;
        if quantise::is_quantised(&config) {
            return quantise::open(folder, config, options);
        }
        let model = without_initial_values(|| AnyModel::from_config(&config))?;
        let weights = Weights::open(folder)?;
        let report = load(model.module(), &weights, &model.sources(&weights.names()), options)?;
        Ok((model, report))
    }

    /// What it is as a model of images into classes; `None` for the others.
    pub fn classifier(&self) -> Option<Classifier<'_>> {
        let of = |layer, channels, size, classes, head, cfg| {
            Some(Classifier { layer, channels, size, classes, head, pretrained_cfg: cfg })
        };
        match self {
            AnyModel::SmallCnn(model) => {
                let config = model.config();
                of(model, config.in_channels, [config.size; 2], config.classes, "f2", &config.pretrained_cfg)
            }
            AnyModel::Airbench(model) => {
                let config = model.config();
                of(model, config.in_channels, [config.size; 2], config.classes, "head", &config.pretrained_cfg)
            }
            AnyModel::ResNet(model) => {
                let config = model.config();
                of(model, config.in_channels, [224; 2], config.classes, "fc", &config.pretrained_cfg)
            }
            AnyModel::Vit(model) => {
                let config = model.config();
                of(model, config.in_channels, config.size, config.classes, "head", &config.pretrained_cfg)
            }
            AnyModel::Gpt(_)
            | AnyModel::ClipText(_)
            | AnyModel::UNet2DCondition(_)
            | AnyModel::UNet2D(_)
            | AnyModel::AutoencoderKL(_) => None,
        }
    }

    /// A model whose type is not known here, sharing its parameters; `None` if it is none of these.
    pub fn of(model: &dyn Any) -> Option<AnyModel> {
        fn is<M: Clone + 'static>(model: &dyn Any, wrap: fn(M) -> AnyModel) -> Option<AnyModel> {
            model.downcast_ref::<M>().cloned().map(wrap)
        }
        is(model, AnyModel::SmallCnn)
            .or_else(|| is(model, AnyModel::Airbench))
            .or_else(|| is(model, AnyModel::ResNet))
            .or_else(|| is(model, AnyModel::Vit))
            .or_else(|| is(model, AnyModel::Gpt))
            .or_else(|| is(model, AnyModel::ClipText))
            .or_else(|| is(model, AnyModel::UNet2DCondition))
            .or_else(|| is(model, AnyModel::UNet2D))
            .or_else(|| is(model, AnyModel::AutoencoderKL))
    }

    /// The model for who knows its type.
    pub fn as_any(&self) -> &dyn Any {
        each!(self, model => model)
    }

    /// For inference, with the norms of batches folded into the convolutions before them; other models than ResNets as
    /// they are.
    ///
    /// # Errors
    /// Out of memory.
    pub fn folded(self) -> Result<AnyModel> {
        Ok(if let AnyModel::ResNet(model) = self { AnyModel::ResNet(model.folded()?) } else { self })
    }

    /// Whether norms were folded.
    pub(crate) fn is_folded(&self) -> bool {
        matches!(self, AnyModel::ResNet(model) if model.is_folded())
    }

    /// The model for everything that asks for a module.
    pub fn module(&self) -> &dyn Module {
        each!(self, model => model)
    }

    /// Its `config.json`.
    pub fn to_config(&self) -> Value {
        each!(self, model => model.to_config())
    }

    /// Where its tensors are in a file that stores these names: [`Pretrained::sources`], or those of a single file of
    /// Stable Diffusion ([`is_ldm`]).
    pub fn sources(&self, stored: &BTreeSet<String>) -> Sources {
        let ldm = is_ldm(stored).then(|| ldm::sources(self, stored)).flatten();
        ldm.unwrap_or_else(|| each!(self, model => model.sources(stored)))
    }

    /// The `config.json` and the names of a library for this model. What norms of timm's vision transformers add to the
    /// variance is 1e-6, whatever it is here.
    ///
    /// # Errors
    /// [`Error::Config`]: that library has no such model, or its configuration cannot say all that this one does.
    pub fn named(&self, names: Names) -> Result<(Value, Sources)> {
        let own = |hints: &[&str]| self.sources(&hints.iter().map(|hint| hint.to_string()).collect());
        let library = match names {
            Names::Timm => Library::Timm,
            Names::Transformers | Names::Diffusers | Names::Ldm => Library::Transformers,
        };
        match (self, names) {
            // Names that begin as transformers' do, or some that do not.
            (AnyModel::ResNet(model), Names::Timm | Names::Transformers) => {
                let hint = if names == Names::Timm { "conv1" } else { "resnet." };
                let config = ResNetConfig { library, ..model.config().clone() };
                let written = config.write();
                let ResNetConfig { architecture, pretrained_cfg, zero_init, recompute, .. } = config.clone();
                let read = ResNetConfig::read(&written)?;
                let read = ResNetConfig { architecture, pretrained_cfg, zero_init, recompute, ..read };
                same(names, &config, &read)?;
                Ok((written, own(&[hint])))
            }
            (AnyModel::Vit(model), Names::Timm | Names::Transformers) => {
                let hint = if names == Names::Timm { "blocks" } else { "vit." };
                let config = VitConfig { library, ..model.config().clone() };
                let written = config.write();
                let VitConfig { architecture, pretrained_cfg, deviation, recompute, eps, .. } = config.clone();
                let read = VitConfig::read(&written)?;
                let read = VitConfig { architecture, pretrained_cfg, deviation, recompute, eps, ..read };
                same(names, &config, &read)?;
                Ok((written, own(&[hint])))
            }
            (AnyModel::Gpt(_) | AnyModel::ClipText(_), Names::Transformers)
            | (AnyModel::UNet2DCondition(_) | AnyModel::UNet2D(_) | AnyModel::AutoencoderKL(_), Names::Diffusers) => {
                Ok((self.to_config(), own(&[])))
            }
            (AnyModel::UNet2DCondition(_) | AnyModel::AutoencoderKL(_) | AnyModel::ClipText(_), Names::Ldm) => {
                Ok((self.to_config(), ldm::sources(self, &BTreeSet::new()).unwrap_or_default()))
            }
            _ => Err(Error::Config {
                of: "config.json".into(),
                problems: vec![format!("{} has no model of this kind", names.library())],
            }),
        }
    }

    /// With every block computed again for backward, or not.
    #[must_use]
    pub fn recomputing(self, recompute: bool) -> AnyModel {
        match self {
            // Without blocks.
            AnyModel::SmallCnn(_) | AnyModel::Airbench(_) => self,
            AnyModel::ResNet(model) => AnyModel::ResNet(model.recomputing(recompute)),
            AnyModel::Vit(model) => AnyModel::Vit(model.recomputing(recompute)),
            AnyModel::Gpt(model) => AnyModel::Gpt(model.recomputing(recompute)),
            AnyModel::ClipText(model) => AnyModel::ClipText(model.recomputing(recompute)),
            AnyModel::UNet2DCondition(model) => AnyModel::UNet2DCondition(model.recomputing(recompute)),
            AnyModel::UNet2D(model) => AnyModel::UNet2D(model.recomputing(recompute)),
            AnyModel::AutoencoderKL(model) => AnyModel::AutoencoderKL(model.recomputing(recompute)),
        }
    }
}

/// The `config.json` of a folder.
///
/// # Errors
/// It is not there, or no JSON.
pub fn read_config(folder: &Path) -> Result<Value> {
    let path = folder.join("config.json");
    let fail = |message: String| Error::Config { of: path.display().to_string(), problems: vec![message] };
    let text = std::fs::read_to_string(&path).map_err(|e| fail(e.to_string()))?;
    serde_json::from_str(&text).map_err(|e| fail(e.to_string()))
}

fn not_built(key: &str, found: &str) -> Error {
    Error::Config { of: "config.json".into(), problems: vec![format!("{key} is {found:?}, which is not built")] }
}
