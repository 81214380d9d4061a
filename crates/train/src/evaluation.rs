//! [`Trainer::evaluate`]: the models of a run on the test data, once more.

use std::path::Path;

use binade_autograd::scope;
use binade_nn::{Module, without_initial_values};
use serde::{Deserialize, Serialize};

use crate::fit::evaluate;
use crate::metrics::EvaluationMetrics;
use crate::recipe::Recipe;
use crate::trainee::Make;
use crate::{Answers, Config, Precision, Result, RunConfig, Splits, Trainer, checkpoint};

/// What the model of a checkpoint does on the test data.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Evaluated {
    /// The precision it was trained and is evaluated in.
    pub precision: Precision,
    /// Epochs that it was trained for.
    pub epochs: u64,
    /// The numbers.
    #[serde(flatten)]
    pub metrics: EvaluationMetrics,
    /// Share of test samples whose class was among the five most likely; absent where there are no classes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub test_top5: Option<f64>,
    /// Which classes were found for which, of at most 100.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub answers: Option<Answers>,
}

impl<M: Module> Trainer<'_, M> {
    /// Evaluates the model of each checkpoint in the folder of a run that was started with these settings: in its own
    /// precision, with its averages where they were kept. Nothing is written.
    ///
    /// # Errors
    /// A checkpoint that is damaged, or of another model, task, data or settings. Samples that cannot be had.
    pub fn evaluate(&self, folder: &Path, config: &RunConfig) -> Result<Vec<Evaluated>> {
        evaluate_all(&|| self.fresh(), self.data, folder, config)
    }
}

fn evaluate_all(make: Make<'_>, data: &Splits, folder: &Path, config: &RunConfig) -> Result<Vec<Evaluated>> {
    config.check_resumed(folder)?;
    config.fit.check(data)?;
    let there = config.precisions.iter().filter(|&&precision| checkpoint::path(folder, precision).exists());
    there.map(|&precision| evaluate_in(make, data, folder, &Config { precision, ..config.fit.clone() })).collect()
}

fn evaluate_in(make: Make<'_>, data: &Splits, folder: &Path, config: &Config) -> Result<Evaluated> {
    let fresh = without_initial_values(make)?;
    let pair = fresh.trainee();
    let device = pair.model().device().map_or_else(scope::device, Ok)?;
    scope::with_device(&device, || {
        let mut training = fresh.training(config)?;
        let recipe = Recipe::new(config, &pair.name(), data)?;
        let at = checkpoint::load(folder, None, &recipe, pair.model(), &mut training)?.told();
        let score = evaluate(pair, data, data.test.len(), &mut training, config)?;
        let test_top5 = score.answers.as_ref().map(|answers| answers.among_five as f64 / score.count);
        let metrics = EvaluationMetrics::new(training.iteration, &score, pair.text_unit());
        let answers = score.answers.filter(|answers| !answers.found.is_empty());
        Ok(Evaluated { precision: config.precision, epochs: at.epoch, metrics, test_top5, answers })
    })
}
