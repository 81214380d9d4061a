//! [`Keys`]: a library's `config.json`, of which every key is used, known to be harmless, or refused.

use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use crate::{Error, Result};

/// The keys of a configuration that nobody has asked for yet. Problems are gathered, so that one error lists them all.
#[derive(Debug)]
pub struct Keys {
    of: String,
    left: Map<String, Value>,
    problems: Vec<String>,
}

impl Keys {
    /// The keys of a JSON object. `of` is what messages call it.
    ///
    /// # Errors
    /// It is no object.
    pub fn new(of: &str, config: &Value) -> Result<Keys> {
        match config {
            Value::Object(left) => Ok(Keys { of: of.into(), left: left.clone(), problems: Vec::new() }),
            other => Err(Error::Config { of: of.into(), problems: vec![format!("{other} is no JSON object")] }),
        }
    }

    /// The value of a key; `None` where it is absent or null.
    pub fn optional<T: DeserializeOwned>(&mut self, key: &str) -> Option<T> {
        let value = self.left.remove(key).filter(|value| !value.is_null())?;
        let told = value.to_string();
        serde_json::from_value(value).map_err(|error| self.problem(format!("{key} is {told}: {error}"))).ok()
    }

    /// The value of a key, or what the library takes where it is absent or null.
    pub fn or<T: DeserializeOwned>(&mut self, key: &str, default: T) -> T {
        self.optional(key).unwrap_or(default)
    }

    /// The value of a key that must be there. Where it is not, the problem is noted and a default stands for it until
    /// [`Keys::finish`].
    pub fn required<T: DeserializeOwned + Default>(&mut self, key: &str) -> T {
        if self.left.get(key).is_none_or(Value::is_null) {
            self.left.remove(key);
            self.problem(format!("{key} is missing"));
            return T::default();
        }
        self.or(key, T::default())
    }

    /// Refuses a key unless it is absent, null or has one of these values: what other values mean is not built.
    pub fn only(&mut self, key: &str, built: &[Value]) {
        if let Some(value) = self.left.remove(key).filter(|value| !value.is_null() && !built.contains(value)) {
            let built: Vec<String> = built.iter().map(Value::to_string).collect();
            self.problem(format!("{key} is {value}, and only {} is built", built.join(" or ")));
        }
    }

    /// Leaves out keys that change nothing in the model: versions, tokens, where the file came from.
    pub fn harmless(&mut self, keys: &[&str]) {
        for key in keys {
            self.left.remove(*key);
        }
    }

    /// Notes something that is wrong.
    pub fn problem(&mut self, problem: impl Into<String>) {
        self.problems.push(problem.into());
    }

    /// Ends the reading.
    ///
    /// # Errors
    /// Everything noted, and every key that nobody asked for, with its value.
    pub fn finish(mut self) -> Result<()> {
        let unknown = self.left.iter().map(|(key, value)| format!("{key} is {value}, which is not known"));
        self.problems.extend(unknown);
        if self.problems.is_empty() { Ok(()) } else { Err(Error::Config { of: self.of, problems: self.problems }) }
    }
}
