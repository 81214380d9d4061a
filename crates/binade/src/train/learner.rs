//! [`Learner`]: a model of images into classes with what it begins with, whichever it is.

use std::path::Path;

use anyhow::{Context, Result};
use binade::models::{Preparation, Pretrained};
use binade::nn::{self, Layer, Module, Optimizer, load_matching, state_dict, without_initial_values};
use binade::tensor::Array;
use binade::train::images::ImageSet;
use binade::train::{Classify, Config, Splits, Trainer};
use binade::weights::LoadOptions;
use serde_json::{Value, json};

use super::job::Use;
use crate::saved::{CARD, Saved, with_names};

/// A trained model to begin with.
pub struct Start {
    pub saved: Saved,
    pub preparation: Preparation,
    /// The layer whose shape follows from the classes.
    head: &'static str,
    weights: Vec<(String, Array)>,
}

impl Start {
    /// The model of a library's folder or of a run.
    pub fn open(folder: &Path) -> Result<Start> {
        let saved = Saved::open(folder, &LoadOptions::default())?;
        let (classifier, preparation, _) = saved.classifier().with_context(|| folder.display().to_string())?;
        let (head, weights) = (classifier.head, state_dict(saved.model.module()));
        Ok(Start { preparation, head, weights, saved })
    }

    /// Channels of an image.
    pub fn channels(&self) -> usize {
        self.preparation.mean.len()
    }

    /// Takes all over that fits: everything but a head of other classes.
    fn put_into(&self, model: &dyn Module) -> nn::Result<()> {
        let report = load_matching(model, &self.weights, |name| Some(name.into()))?;
        let of_head = |name: &str| name.strip_prefix(self.head).is_some_and(|rest| rest.starts_with('.'));
        let foreign = report.mismatched.iter().any(|mismatch| !of_head(&mismatch.name));
        if foreign || !report.missing.is_empty() || !report.unexpected.is_empty() {
            return Err(nn::Error::Config { layer: "weights to begin with", message: report.to_string() });
        }
        Ok(())
    }
}

/// What is trained: on which images, how they are told apart, and what it begins with.
pub struct Learner<'a> {
    pub set: &'a ImageSet,
    pub task: &'a Classify,
    pub start: Option<&'a Start>,
    /// Whether everything but the head stays as it is.
    pub head_only: bool,
    /// How much faster biases of norms learn than all else, of airbench; they decay as much.
    pub norm_rate: f64,
}

impl Learner<'_> {
    /// Gives the model that `build` makes to who uses it.
    pub fn train<M: Layer + Pretrained, U: Use>(&self, build: impl Fn() -> nn::Result<M>, used: U) -> Result<U::Out> {
        let card = self.card(without_initial_values(&build)?.to_config());
        let data = Splits::new(self.set.train.clone(), self.set.test.clone());
        let build = || -> nn::Result<M> {
            let model = build()?;
            if let Some(start) = self.start {
                start.put_into(&model)?;
                if self.head_only {
                    only(&model, start.head);
                }
            }
            Ok(model)
        };
        // What does not fit is told before anything is written.
        if self.start.is_some() {
            build()?;
        }
        let trainer = Trainer::new(build, self.task, &data).with_file(CARD, card);
        used.with(trainer.with_training(|model, config: &Config| {
            if self.norm_rate == 1.0 {
                return config.training(model);
            }
            let optimizer = Optimizer::grouped(model, |name, _| {
                let factor = if name.starts_with("group") && name.ends_with(".bias") { self.norm_rate } else { 1.0 };
                config.optimizer.rule(config.lr * factor, config.weight_decay / factor)
            })?;
            config.training_with(model, optimizer)
        }))
    }

    /// What [`Saved::open`] needs to know of the model.
    fn card(&self, config: Value) -> Value {
        let config = with_names(config, &self.task.names);
        match self.start.and_then(|start| start.saved.preprocessor.as_ref()) {
            Some(preprocessor) => json!({ "config": config, "preprocessor_config": preprocessor }),
            None => json!({ "config": config }),
        }
    }
}

/// Leaves of a model only this layer to be trained; all others are as in evaluation.
fn only(model: &dyn Module, layer: &str) {
    model.eval();
    for (name, param) in model.named_parameters() {
        let inside = name.strip_prefix(layer).is_some_and(|rest| rest.starts_with('.'));
        param.set_trainable(inside && param.is_trainable());
    }
}
