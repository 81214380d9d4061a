//! [`Saved`]: a model in a folder, of another library or of a run of `train`.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use binade::models::{self, AnyModel, Preparation, read_config};
use binade::nn::{load_state_dict, read_safetensors, without_initial_values};
use binade::tensor::{Array, Class};
use binade::train::{Filter, Precision, Resize, RunConfig, read_sealed};
use binade::weights::{LoadOptions, Report};
use serde_json::{Value, json};

/// The file of a run that says what its model is: `config`, and `preprocessor_config` where there is one.
pub const CARD: &str = "model.json";

/// The file in which transformers says how images are prepared.
pub const PREPROCESSOR: &str = "preprocessor_config.json";

/// A model with its weights, its `config.json`, and what it says of images.
pub struct Saved {
    pub model: AnyModel,
    pub config: Value,
    pub preprocessor: Option<Value>,
    /// What was found in the files of a library.
    pub report: Report,
}

/// Whether the folder is a run whose model can be opened.
pub fn is_run(folder: &Path) -> bool {
    folder.join(CARD).exists()
}

impl Saved {
    /// The model of a library's folder or of a run: of the first precision that has a checkpoint, and where averages of
    /// weights were kept, those.
    pub fn open(folder: &Path, options: &LoadOptions) -> Result<Saved> {
        if is_run(folder) {
            return Saved::of_run(folder).with_context(|| folder.display().to_string());
        }
        let config = read_config(folder)?;
        if config.get("precisions").is_some() {
            bail!("{}: a run without {CARD}: only runs of `train vision` have one", folder.display());
        }
        let (model, report) = AnyModel::open(folder, options)?;
        let path = folder.join(PREPROCESSOR);
        let preprocessor = if path.exists() { Some(read_json(&path)?) } else { None };
        Ok(Saved { model, config, preprocessor, report })
    }

    fn of_run(folder: &Path) -> Result<Saved> {
        let run = RunConfig::read(folder)?;
        let card: Value = read_sealed(&folder.join(CARD))?;
        let path = |p: Precision| folder.join(format!("checkpoint-{}.safetensors", p.name()));
        let Some(precision) = run.precisions.iter().copied().find(|&p| path(p).exists()) else {
            bail!("no checkpoint yet");
        };
        let config = card.get("config").cloned().with_context(|| format!("{CARD} has no config"))?;
        let model = without_initial_values(|| AnyModel::from_config(&config))?;
        let (tensors, _) = read_safetensors(&path(precision), Class::Weights)?;
        let mut weights = BTreeMap::<String, Array>::new();
        // Averages of the weights, where they were kept, take the place of what they are averages of.
        for prefix in ["model.", "ema."] {
            let own = tensors.iter().filter_map(|(name, a)| Some((name.strip_prefix(prefix)?.to_string(), a.clone())));
            weights.extend(own);
        }
        load_state_dict(model.module(), &weights.into_iter().collect::<Vec<_>>())?;
        let preprocessor = card.get("preprocessor_config").filter(|value| !value.is_null()).cloned();
        Ok(Saved { model, config, preprocessor, report: Report::default() })
    }

    /// The model of images into classes, what is done to an image before it, and the classes' names.
    pub fn classifier(&self) -> Result<(models::Classifier<'_>, Preparation, Vec<String>)> {
        let Some(classifier) = self.model.classifier() else { bail!("the model is none of images into classes") };
        ensure!(classifier.classes > 0, "the model has no head: it tells no classes apart");
        let preparation = match &self.preprocessor {
            Some(config) => Preparation::of_transformers(config)?,
            None if self.config.get("architecture").is_some() => {
                Preparation::of_timm(classifier.pretrained_cfg, classifier.size)?
            }
            None => bail!("{PREPROCESSOR} is missing, which says how images are prepared"),
        };
        let channels = classifier.channels;
        ensure!([1, 3, 4].contains(&channels), "images of {channels} channels, and files have 1, 3 or 4");
        let (mean, std) = (preparation.mean.len(), preparation.std.len());
        ensure!(mean == channels && std == channels, "{mean} means and {std} deviations for {channels} channels");
        Ok((classifier, preparation, names(&self.config, classifier.classes)))
    }

    /// A `config.json` of this model for a library, with what this one says of classes and of how images are prepared;
    /// for transformers the latter is a file of its own.
    pub fn described(&self, mut config: Value) -> Result<(Value, Option<Value>)> {
        let Some(classifier) = self.model.classifier() else { return Ok((config, None)) };
        if self.config.get("id2label").or(self.config.get("label_names")).is_some() {
            config = with_names(config, &names(&self.config, classifier.classes));
        }
        if self.preprocessor.is_none() && !classifier.pretrained_cfg.is_object() {
            return Ok((config, None));
        }
        let (_, preparation, _) = self.classifier()?;
        if config.get("architecture").is_some() {
            config["pretrained_cfg"] = preparation.to_timm(classifier.channels);
            return Ok((config, None));
        }
        Ok((config, Some(preparation.to_transformers()?)))
    }
}

/// Names of the classes, their numbers where the configuration has none.
fn names(config: &Value, classes: usize) -> Vec<String> {
    let text = |value: &Value| value.as_str().map(str::to_string);
    let of = |class: usize| -> Option<String> {
        if let Some(name) = config.get("id2label").and_then(|names| text(names.get(class.to_string())?)) {
            return Some(name);
        }
        let name = text(config.get("label_names")?.get(class)?)?;
        let described = config.get("label_descriptions").and_then(|all| text(all.get(&name)?));
        Some(described.unwrap_or(name))
    };
    (0..classes).map(|class| of(class).unwrap_or_else(|| class.to_string())).collect()
}

/// A `config.json` whose classes have these names.
pub fn with_names(mut config: Value, names: &[String]) -> Value {
    if config.get("architecture").is_some() {
        config["label_names"] = json!(names);
    } else {
        config["id2label"] = names.iter().enumerate().map(|(i, name)| (i.to_string(), json!(name))).collect();
        config["label2id"] = names.iter().enumerate().map(|(i, name)| (name.clone(), json!(i))).collect();
    }
    config
}

/// What an image goes through before its pixels are normalised.
pub fn resize(preparation: &Preparation) -> Resize {
    let filter = match preparation.filter {
        models::Filter::Nearest => Filter::Nearest,
        models::Filter::Bilinear => Filter::Bilinear,
        models::Filter::Bicubic => Filter::Bicubic,
        models::Filter::Lanczos => Filter::Lanczos,
    };
    Resize { size: preparation.size, shorter: preparation.shorter, filter }
}

fn read_json(path: &Path) -> Result<Value> {
    let text = std::fs::read_to_string(path).with_context(|| path.display().to_string())?;
    serde_json::from_str(&text).with_context(|| path.display().to_string())
}
