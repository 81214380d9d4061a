//! [`Pretrained`]: a model that another library's folder describes.

use std::collections::BTreeSet;

use binade_nn::Module;
use binade_weights::Sources;
use serde_json::Value;

use crate::Result;

/// A model of another library: its `config.json`, and the names in its files.
pub trait Pretrained: Module + Sized {
    /// The model of a `config.json`, with the library's initial values.
    ///
    /// # Errors
    /// [`Error::Config`](crate::Error::Config): every key that is missing, not built or not known, by name and value.
    fn from_config(config: &Value) -> Result<Self>;

    /// The `config.json` from which the library makes this model.
    fn to_config(&self) -> Value;

    /// Where this model's tensors are in a file that stores these names: the library's own, or another's.
    fn sources(&self, stored: &BTreeSet<String>) -> Sources;
}
