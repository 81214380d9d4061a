//! [`Task`]: what a training is about, as a value: the loss over a batch, its evaluation, what the model makes.

use std::path::Path;
use std::sync::Arc;

use binade_autograd::Var;
use binade_nn::{Layer, Module};
use binade_tensor::op::{CrossEntropy, Reduction};

use crate::batch::Check;
use crate::data::{Numbers, Sample};
use crate::{Batch, Result};

/// What a model is trained to do. [`Classify`], [`Regress`] and [`crate::Language`] are three; yours says at least
/// its name and its loss.
pub trait Task<M: Module> {
    /// What it is, with all that decides what the loss means: a run is not resumed as another task.
    fn name(&self) -> String;

    /// The mean loss over a batch, and how many (samples, tokens) it is the mean of.
    ///
    /// # Errors
    /// Shapes that do not fit.
    fn loss(&self, model: &M, batch: &Batch) -> Result<(Var, f64)>;

    /// The batch in evaluation: by default its loss.
    ///
    /// # Errors
    /// As [`Task::loss`].
    fn evaluate(&self, model: &M, batch: &Batch) -> Result<Score> {
        let (loss, count) = self.loss(model, batch)?;
        Ok(Score { loss: loss.item()?, count, right: None })
    }

    /// What a sample must be, beside of the shapes of the others.
    fn check(&self) -> Check {
        Arc::new(|_| Ok(()))
    }

    /// What is counted, in the plural: of these there are so many in a second.
    fn unit(&self) -> &'static str {
        "samples"
    }

    /// Whether e to the loss is a number that people want: the perplexity of a language model.
    fn has_perplexity(&self) -> bool {
        false
    }

    /// What the model makes after an epoch, to be looked at while it is trained: images and texts become files in the
    /// run folder's `samples`, and images are in the report. Called as [`Task::samples`] is, for the parameters and for
    /// their averages, if there are any. It changes nothing of the training.
    ///
    /// # Errors
    /// The model fails.
    fn progress(&self, _model: &M) -> Result<Vec<Made>> {
        Ok(Vec::new())
    }

    /// Writes the trained model, with averages in the place of parameters where there are any, into a folder of the run
    /// that is named for the precision: in a form that other programs read.
    ///
    /// # Errors
    /// A file cannot be written.
    fn export(&self, _model: &M, _folder: &Path) -> Result<()> {
        Ok(())
    }

    /// What the model makes, for the end of a run and its report: text that it writes, images that it draws. Called in
    /// evaluation mode under the run's policy, with a random stream of its own.
    ///
    /// # Errors
    /// The model fails.
    fn samples(&self, _model: &M) -> Result<Vec<Made>> {
        Ok(Vec::new())
    }
}

/// A batch, or several, in evaluation.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Score {
    /// Mean loss.
    pub loss: f64,
    /// Of how many it is the mean.
    pub count: f64,
    /// How many of them were right; `None` where there is no right and wrong.
    pub right: Option<f64>,
}

/// Something that a model made.
#[derive(Clone, Debug, PartialEq)]
pub enum Made {
    /// Text.
    Text(String),
    /// An image, row by row, black 0.
    Image {
        /// Pixels of a row.
        width: usize,
        /// Bytes of a pixel: 1 for grey, 3 for RGB, 4 for RGBA.
        channels: usize,
        /// All pixels.
        pixels: Vec<u8>,
    },
}

/// Classification by cross-entropy: the first array of a sample is the input, the second its class, i64 from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Classify {
    /// Number of classes.
    pub classes: usize,
}

impl<M: Layer> Task<M> for Classify {
    fn name(&self) -> String {
        format!("classification in {} classes", self.classes)
    }

    fn loss(&self, model: &M, batch: &Batch) -> Result<(Var, f64)> {
        let logits = model.forward(&batch.at(0)?)?; // (N, classes)
        Ok((logits.cross_entropy(&batch.at(1)?, CrossEntropy::default())?, batch.len() as f64))
    }

    fn evaluate(&self, model: &M, batch: &Batch) -> Result<Score> {
        let (logits, wanted) = (model.forward(&batch.at(0)?)?, batch.at(1)?);
        let loss = logits.cross_entropy(&wanted, CrossEntropy::default())?.item()?;
        let found = logits.argmax(-1, false)?.array().to_vec::<i64>()?;
        let right = found.iter().zip(wanted.array().to_vec::<i64>()?).filter(|(a, b)| **a == *b).count();
        Ok(Score { loss, count: batch.len() as f64, right: Some(right as f64) })
    }

    fn check(&self) -> Check {
        let classes = self.classes;
        Arc::new(move |sample: &Sample| match sample.0.get(1).map(|values| &values.numbers) {
            Some(Numbers::I64(label)) if label.iter().all(|l| (0..classes as i64).contains(l)) => Ok(()),
            Some(Numbers::I64(label)) => {
                Err(format!("label {label:?} is none of its {classes} classes, which count from 0").into())
            }
            _ => Err("its second array is no label in i64".into()),
        })
    }

    fn unit(&self) -> &'static str {
        "images"
    }
}

/// Regression by the mean squared error: the first array of a sample is the input, the second what is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Regress;

impl<M: Layer> Task<M> for Regress {
    fn name(&self) -> String {
        "regression".into()
    }

    fn loss(&self, model: &M, batch: &Batch) -> Result<(Var, f64)> {
        Ok((model.forward(&batch.at(0)?)?.mse_loss(&batch.at(1)?, Reduction::Mean)?, batch.len() as f64))
    }
}
