//! [`Language`]: predicting the next token of a text.

use std::path::Path;

use binade_autograd::Var;
use binade_nn::Layer;
use binade_tensor::op::CrossEntropy;

use crate::{Batch, Corpus, Made, Result, Splits, Task, TextUnit};

type Write<'a, M> = Box<dyn Fn(&M) -> Result<String> + 'a>;
type Export<'a, M> = Box<dyn Fn(&M, &Path) -> Result<()> + 'a>;

/// Predicting each next token of windows of a text, by cross-entropy; the model takes indices `[B, T]` and gives logits
/// `[B, T, vocabulary]`. Counts are of tokens.
pub struct Language<'a, M> {
    name: String,
    text_unit: TextUnit,
    write: Option<Write<'a, M>>,
    export: Option<Export<'a, M>>,
}

impl<'a, M> Language<'a, M> {
    /// The task on a text in windows of `context` tokens, of which a pass has `epoch`; evaluated are `evaluated` or, of
    /// a shorter text, fewer.
    ///
    /// # Errors
    /// As [`Corpus::splits`].
    pub fn new(corpus: &Corpus, context: usize, epoch: usize, evaluated: usize) -> Result<(Self, Splits)> {
        let splits = corpus.splits(context, epoch, evaluated)?;
        let (unit, per_token) = corpus.per_token(context, evaluated)?.unwrap_or(("token", 1.0));
        let text_unit = TextUnit { name: unit.into(), per_token };
        let name = format!("language of {}, {context} of context", corpus.name());
        Ok((Language { name, text_unit, write: None, export: None }, splits))
    }

    /// With a text that the model writes at the end of a run.
    #[must_use]
    pub fn writing(self, write: impl Fn(&M) -> Result<String> + 'a) -> Self {
        Language { write: Some(Box::new(write)), ..self }
    }

    /// With a form for other programs, as [`Task::export`].
    #[must_use]
    pub fn exporting(self, export: impl Fn(&M, &Path) -> Result<()> + 'a) -> Self {
        Language { export: Some(Box::new(export)), ..self }
    }
}

impl<M: Layer> Task<M> for Language<'_, M> {
    fn name(&self) -> String {
        self.name.clone()
    }

    fn loss(&self, model: &M, batch: &Batch) -> Result<(Var, f64)> {
        let (tokens, next) = (batch.get("tokens")?, batch.get("next")?);
        let logits = model.forward(&tokens)?;
        let vocabulary = logits.shape().last().copied().unwrap_or(1) as isize;
        let logits = logits.reshape(&[-1, vocabulary])?; // (B·T, vocabulary)
        let loss = logits.cross_entropy(&next.reshape(&[-1])?, CrossEntropy::default())?;
        Ok((loss, tokens.shape().numel() as f64))
    }

    fn unit(&self) -> &'static str {
        "tokens"
    }

    fn text_unit(&self) -> Option<TextUnit> {
        Some(self.text_unit.clone())
    }

    fn export(&self, model: &M, folder: &Path) -> Result<()> {
        self.export.as_ref().map_or(Ok(()), |export| export(model, folder))
    }

    fn samples(&self, model: &M) -> Result<Vec<Made>> {
        self.write.iter().map(|write| Ok(Made::Text(write(model)?))).collect()
    }
}
