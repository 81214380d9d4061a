//! [`Library`]: whose model it is.

use std::collections::BTreeSet;

use serde_json::Value;

/// Whose names and `config.json` a model has that several libraries know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Library {
    /// timm; torchvision has the same names.
    Timm,
    /// transformers.
    Transformers,
}

impl Library {
    /// Whose `config.json` it is.
    pub(crate) fn of(config: &Value) -> Library {
        if config.get("architecture").is_some() { Library::Timm } else { Library::Transformers }
    }

    /// Whose names these are, of which transformers' begin so; the model's own library's if there are none.
    pub(crate) fn storing(self, stored: &BTreeSet<String>, prefix: &str) -> Library {
        match stored.iter().any(|name| name.starts_with(prefix)) {
            _ if stored.is_empty() => self,
            true => Library::Transformers,
            false => Library::Timm,
        }
    }
}
