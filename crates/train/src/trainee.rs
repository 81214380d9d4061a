//! [`Trainee`]: a model with its task, whichever they are. What takes one is compiled once, not for every model.

use std::ops::Deref;
use std::path::Path;

use binade_amp::Training;
use binade_autograd::Var;
use binade_nn::Module;

use crate::batch::Check;
use crate::task::{Made, Score, TextUnit};
use crate::{Batch, Config, Result, Task};

/// A model and what it is trained to do: [`Task`] without the model's type.
pub(crate) trait Trainee {
    fn model(&self) -> &dyn Module;
    fn name(&self) -> String;
    fn loss(&self, batch: &Batch) -> Result<(Var, f64)>;
    fn evaluate(&self, batch: &Batch) -> Result<Score>;
    fn check(&self) -> Check;
    fn unit(&self) -> &'static str;
    fn text_unit(&self) -> Option<TextUnit>;
    fn progress(&self) -> Result<Vec<Made>>;
    fn export(&self, folder: &Path) -> Result<()>;
    fn samples(&self) -> Result<Vec<Made>>;
}

/// A model that is had or borrowed, and its task.
pub(crate) struct Pair<'a, M: Module, P: Deref<Target = M>> {
    pub(crate) model: P,
    pub(crate) task: &'a dyn Task<M>,
}

impl<M: Module, P: Deref<Target = M>> Trainee for Pair<'_, M, P> {
    fn model(&self) -> &dyn Module {
        &*self.model
    }

    fn name(&self) -> String {
        self.task.name()
    }

    fn loss(&self, batch: &Batch) -> Result<(Var, f64)> {
        self.task.loss(&self.model, batch)
    }

    fn evaluate(&self, batch: &Batch) -> Result<Score> {
        self.task.evaluate(&self.model, batch)
    }

    fn check(&self) -> Check {
        self.task.check()
    }

    fn unit(&self) -> &'static str {
        self.task.unit()
    }

    fn text_unit(&self) -> Option<TextUnit> {
        self.task.text_unit()
    }

    fn progress(&self) -> Result<Vec<Made>> {
        self.task.progress(&self.model)
    }

    fn export(&self, folder: &Path) -> Result<()> {
        self.task.export(&self.model, folder)
    }

    fn samples(&self) -> Result<Vec<Made>> {
        self.task.samples(&self.model)
    }
}

/// A model that was made to be trained, with the training that it begins with.
pub(crate) trait Fresh {
    fn trainee(&self) -> &dyn Trainee;
    fn training(&self, config: &Config) -> Result<Training>;
}

/// A model with what [`crate::Trainer::with_training`] gave.
pub(crate) struct Begun<'a, M: Module> {
    pub(crate) pair: Pair<'a, M, Box<M>>,
    pub(crate) start: &'a dyn Fn(&M, &Config) -> Result<Training>,
}

impl<M: Module> Fresh for Begun<'_, M> {
    fn trainee(&self) -> &dyn Trainee {
        &self.pair
    }

    fn training(&self, config: &Config) -> Result<Training> {
        (self.start)(&self.pair.model, config)
    }
}

/// Makes a [`Fresh`] one.
pub(crate) type Make<'a> = &'a dyn Fn() -> binade_nn::Result<Box<dyn Fresh + 'a>>;
