//! [`Keys`]: a library's `config.json`, of which every key is used, known to be harmless, or refused.

use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use crate::transformer::Act;
use crate::{Error, Result};

/// Keys of any `config.json` of transformers that change no number of a model: versions, tokens, how it is called, how
/// text is generated.
const TRANSFORMERS: &[&str] = &[
    "_attn_implementation",
    "_attn_implementation_autoset",
    "_commit_hash",
    "_name_or_path",
    "_num_labels",
    "bad_words_ids",
    "begin_suppress_tokens",
    "bos_token_id",
    "decoder_start_token_id",
    "diversity_penalty",
    "do_sample",
    "dtype",
    "early_stopping",
    "encoder_no_repeat_ngram_size",
    "eos_token_id",
    "exponential_decay_length_penalty",
    "finetuning_task",
    "forced_bos_token_id",
    "forced_eos_token_id",
    "gradient_checkpointing",
    "label2id",
    "length_penalty",
    "max_length",
    "min_length",
    "no_repeat_ngram_size",
    "num_beam_groups",
    "num_beams",
    "num_return_sequences",
    "output_attentions",
    "output_hidden_states",
    "output_past",
    "output_scores",
    "pad_token_id",
    "prefix",
    "problem_type",
    "remove_invalid_values",
    "repetition_penalty",
    "return_dict",
    "return_dict_in_generate",
    "sep_token_id",
    "suppress_tokens",
    "task_specific_params",
    "temperature",
    "tf_legacy_loss",
    "tokenizer_class",
    "top_k",
    "top_p",
    "torch_dtype",
    "torchscript",
    "transformers_version",
    "typical_p",
    "use_bfloat16",
    "use_cache",
];

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

    /// The value of a key where null has a meaning of its own: the default where it is absent, `None` where it is null.
    pub fn nullable<T: DeserializeOwned>(&mut self, key: &str, default: T) -> Option<T> {
        if self.left.contains_key(key) { self.optional(key) } else { Some(default) }
    }

    /// The value of a key, or what the library takes where it is absent. What null would mean is not built.
    pub fn not_null<T: DeserializeOwned>(&mut self, key: &str, default: T) -> T {
        if self.left.get(key).is_some_and(Value::is_null) {
            self.problem(format!("{key} is null, which is not built"));
        }
        self.or(key, default)
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
            let built: Vec<String> = built.iter().chain([&Value::Null]).map(Value::to_string).collect();
            self.problem(format!("{key} is {value}, and only {} is built", built.join(" or ")));
        }
    }

    /// Leaves out keys that change nothing in the model: versions, tokens, where the file came from.
    pub fn harmless(&mut self, keys: &[&str]) {
        for key in keys {
            self.left.remove(*key);
        }
    }

    /// Leaves out what any `config.json` of transformers may have and that changes nothing. It must be of this type,
    /// and of one of these architectures.
    pub(crate) fn transformers(&mut self, model_type: &str, architectures: &[&str]) {
        self.only("model_type", &[model_type.into()]);
        self.only("architectures", &architectures.iter().map(|name| Value::from(vec![*name])).collect::<Vec<_>>());
        self.only("is_decoder", &[false.into()]);
        self.only("add_cross_attention", &[false.into()]);
        self.only("is_encoder_decoder", &[false.into()]);
        self.only("pruned_heads", &[Value::Object(Map::new())]);
        self.only("quantization_config", &[]);
        // Feed-forward layers in pieces: the same numbers.
        self.harmless(&["chunk_size_feed_forward", "cross_attention_hidden_size", "tie_encoder_decoder"]);
        self.harmless(TRANSFORMERS);
    }

    /// The number of classes of a `config.json` of transformers: as many as there are names of them, 2 without.
    pub(crate) fn labels(&mut self) -> usize {
        let given = self.optional("num_labels");
        let named = self.optional::<Map<String, Value>>("id2label").map(|names| names.len());
        named.or(given).unwrap_or(2)
    }

    /// A height and a width, which one number stands for where they are equal.
    pub(crate) fn pair(&mut self, key: &str, default: usize) -> [usize; 2] {
        match self.left.get(key) {
            Some(Value::Array(_)) => self.or(key, [default; 2]),
            _ => [self.or(key, default); 2],
        }
    }

    /// A key with its value, whatever that is.
    pub(crate) fn taken(&mut self, key: &str) -> Option<(String, Value)> {
        self.left.remove(key).map(|value| (key.to_string(), value))
    }

    /// The activation of a key.
    pub(crate) fn act(&mut self, key: &str, default: &str) -> Act {
        let name = self.or(key, default.to_string());
        Act::named(&name).unwrap_or_else(|| {
            self.problem(format!("{key} is {name:?}, which is not built"));
            Act::QuickGelu
        })
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
