//! [`Task`]: what a training is about, as a value: the loss over a batch, its evaluation, what the model makes.

use std::path::Path;
use std::sync::Arc;

use binade_autograd::Var;
use binade_nn::{Layer, Module};
use binade_tensor::op::{CrossEntropy, PadMode, Reduction};
use serde::{Deserialize, Serialize};

use crate::answers::Answers;
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
        Ok(Score { loss: loss.item()?, count, ..Score::default() })
    }

    /// What a sample must be, beside of the shapes of the others.
    fn check(&self) -> Check {
        Arc::new(|_| Ok(()))
    }

    /// What is counted, in the plural: of these there are so many in a second.
    fn unit(&self) -> &'static str {
        "samples"
    }

    /// Of a language model, what its bits are told per; its loss is in nats per token. Perplexity is shown then too.
    fn text_unit(&self) -> Option<TextUnit> {
        None
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

/// What a text is measured in: characters, bytes, or the tokens themselves.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TextUnit {
    /// One of them.
    pub name: String,
    /// How many a token is on the mean.
    pub per_token: f64,
}

impl TextUnit {
    /// Bits per unit of a loss in nats per token.
    pub fn bits(&self, loss: f64) -> f64 {
        loss / std::f64::consts::LN_2 / self.per_token
    }
}

/// A batch, or several, in evaluation.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Score {
    /// Mean loss.
    pub loss: f64,
    /// Of how many it is the mean.
    pub count: f64,
    /// How many of them were right; `None` where there is no right and wrong.
    pub right: Option<f64>,
    /// Of classes, which were found for which.
    pub answers: Option<Answers>,
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

/// The array of a sample with the class of another image that is mixed in, and that with the first's share.
pub(crate) const OTHER: &str = "other";
pub(crate) const SHARE: &str = "share";

/// Of which images an answer in evaluation is the mean.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Views {
    /// The image.
    #[default]
    One,
    /// The image and its mirror image.
    Mirrored,
    /// Those, and both moved by one pixel up and left, and down and right, at half the weight (Jordan, 2024).
    Moved,
}

/// Classification by cross-entropy: the first array of a sample is the input, the second its class, i64 from 0. Where
/// training images are mixed ([`crate::Augment`]), each class counts by its share.
#[derive(Clone, Debug, PartialEq)]
pub struct Classify {
    /// Number of classes.
    pub classes: usize,
    /// Their names, for reports; may be left out.
    pub names: Vec<String>,
    /// Part of the label that is spread over all classes in training (Szegedy et al., 2016).
    pub smoothing: f64,
    /// Of which images an answer in evaluation is the mean.
    pub views: Views,
}

impl Classify {
    /// In so many classes, with nothing further.
    pub const fn new(classes: usize) -> Classify {
        Classify { classes, names: Vec::new(), smoothing: 0.0, views: Views::One }
    }
}

impl Views {
    /// The logits for images `[N, C, H, W]`.
    fn answer(self, model: &impl Layer, images: &Var) -> Result<Var> {
        let both = |images: &Var| -> Result<Var> {
            Ok((&(&model.forward(images)? * 0.5)? + &(&model.forward(&images.flip(&[-1])?)? * 0.5)?)?)
        };
        match self {
            Views::One => Ok(model.forward(images)?),
            Views::Mirrored => both(images),
            Views::Moved => {
                let [h, w] = [images.shape()[2], images.shape()[3]];
                let wider = images.pad(&[1; 4], PadMode::Reflect)?;
                let moved = |at: usize| both(&wider.narrow(2, at, h)?.narrow(3, at, w)?);
                let moved = (&(&moved(0)? * 0.25)? + &(&moved(2)? * 0.25)?)?;
                Ok((&(&both(images)? * 0.5)? + &moved)?)
            }
        }
    }
}

impl<M: Layer> Task<M> for Classify {
    fn name(&self) -> String {
        let smoothing =
            if self.smoothing == 0.0 { String::new() } else { format!(", labels {} smoothed", self.smoothing) };
        format!("classification in {} classes{smoothing}", self.classes)
    }

    fn loss(&self, model: &M, batch: &Batch) -> Result<(Var, f64)> {
        let logits = model.forward(&batch.at(0)?)?; // (N, classes)
        let (class, count) = (batch.at(1)?, batch.len() as f64);
        let loss = CrossEntropy { smoothing: self.smoothing, ..CrossEntropy::default() };
        let (Some(other), Some(share)) = (batch.find(OTHER), batch.find(SHARE)) else {
            return Ok((logits.cross_entropy(&class, loss)?, count));
        };
        let each = CrossEntropy { reduction: Reduction::None, ..loss };
        let (first, second) = (logits.cross_entropy(&class, each)?, logits.cross_entropy(&other, each)?); // (N)
        let mixed = (&second + &(&share * &(&first - &second)?)?)?;
        Ok((mixed.mean(&[0], false)?, count))
    }

    fn evaluate(&self, model: &M, batch: &Batch) -> Result<Score> {
        let (logits, wanted) = (self.views.answer(model, &batch.at(0)?)?, batch.at(1)?);
        let loss = logits.cross_entropy(&wanted, CrossEntropy::default())?.item()?;
        let (logits, wanted) = (logits.array().to_f64_vec()?, wanted.array().to_vec::<i64>()?);
        let mut answers = Answers::new(self.classes, &self.names);
        let each = logits.chunks(self.classes.max(1)).zip(wanted);
        let right = each.filter(|(logits, class)| answers.count(logits, *class as usize)).count();
        Ok(Score { loss, count: batch.len() as f64, right: Some(right as f64), answers: Some(answers) })
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
