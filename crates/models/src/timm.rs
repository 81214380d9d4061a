//! timm's `config.json`: an architecture's name that stands for extents, arguments that override them, and how images
//! are prepared.

use serde_json::{Map, Value, json};

use crate::{Error, Keys, Result};

/// What a `config.json` of timm says, in the order in which timm lets one value override another.
pub(crate) struct Timm {
    /// The name of the architecture.
    pub(crate) architecture: String,
    /// Its arguments: those given, the architecture's, those that follow from how it was trained.
    pub(crate) args: Keys,
    /// How it was trained and how its images are prepared; changes no number of the model.
    pub(crate) pretrained_cfg: Value,
}

impl Timm {
    /// Reads a configuration of an architecture of which `entry` knows the arguments.
    pub(crate) fn read(config: &Value, entry: impl Fn(&str) -> Option<Value>) -> Result<Timm> {
        let mut keys = Keys::new("timm's config.json", config)?;
        let architecture: String = keys.required("architecture");
        let given: Map<String, Value> = keys.or("model_args", Map::new());
        let cfg = keys.optional::<Map<String, Value>>("pretrained_cfg");
        let (classes, pool) = (keys.optional::<Value>("num_classes"), keys.optional::<Value>("global_pool"));
        keys.harmless(&["num_features", "label_names", "label_descriptions"]);
        let Some(own) = entry(&architecture) else {
            keys.problem(format!("architecture is {architecture:?}, which is not built"));
            return Err(keys.finish().err().unwrap_or_else(|| unknown(&architecture)));
        };
        // The old form has the keys of `pretrained_cfg` beside the architecture.
        let cfg = cfg.unwrap_or_else(|| PREPARATION.iter().filter_map(|key| keys.taken(key)).collect());
        keys.finish()?;
        let mut args = Map::new();
        let mut fill = |key: &str, value: Option<Value>| {
            if let Some(value) = value.filter(|value| !value.is_null()) {
                args.entry(key).or_insert(value);
            }
        };
        let size = |range: std::ops::Range<usize>| Some(Value::from(cfg.get("input_size")?.as_array()?.get(range)?));
        let trained_for = cfg.get("num_classes").filter(|n| n.as_i64().is_some_and(|n| n >= 0)).cloned();
        let nulls: Vec<&String> = given.iter().filter(|(_, value)| value.is_null()).map(|(key, _)| key).collect();
        given.iter().for_each(|(key, value)| fill(key, Some(value.clone())));
        // A null among the given arguments means the class's own default.
        let own = own.as_object().into_iter().flatten().filter(|(key, _)| !nulls.contains(key));
        let (fixed, own): (Vec<_>, Vec<_>) = own.partition(|(key, _)| !key.starts_with("default."));
        fixed.into_iter().for_each(|(key, value)| fill(key, Some(value.clone())));
        fill("num_classes", classes.or(trained_for));
        fill("in_chans", size(0..1).and_then(|channels| channels.get(0).cloned()));
        if cfg.get("fixed_input_size") == Some(&json!(true)) {
            fill("img_size", size(1..3));
        }
        fill("global_pool", cfg.get("global_pool").cloned().or(pool));
        for (key, value) in own {
            fill(key.trim_start_matches("default."), Some(value.clone()));
        }
        let args = Keys::new(&format!("{architecture} of timm"), &Value::Object(args))?;
        Ok(Timm { architecture, args, pretrained_cfg: Value::Object(cfg) })
    }
}

fn unknown(architecture: &str) -> Error {
    Error::Config { of: "timm's config.json".into(), problems: vec![format!("architecture is {architecture:?}")] }
}

/// Keys of `pretrained_cfg` that old files have beside the architecture.
const PREPARATION: [&str; 29] = [
    "tag",
    "custom_load",
    "input_size",
    "test_input_size",
    "min_input_size",
    "fixed_input_size",
    "interpolation",
    "crop_pct",
    "test_crop_pct",
    "crop_mode",
    "mean",
    "std",
    "pool_size",
    "first_conv",
    "classifier",
    "license",
    "origin_url",
    "paper_ids",
    "paper_name",
    "description",
    "notes",
    "source",
    "url",
    "file",
    "hf_hub_id",
    "hf_hub_filename",
    "has_weights",
    "state_dict",
    "norm_mean",
];

/// The arguments of one of our own models, whose `config.json` has timm's form, and how its images are prepared.
pub(crate) fn own(architecture: &str, config: &Value) -> Result<(Keys, Value)> {
    let Timm { args, pretrained_cfg, .. } = Timm::read(config, |name| (name == architecture).then(|| json!({})))?;
    Ok((args, pretrained_cfg))
}

/// The configuration that timm makes a model of these arguments of.
pub(crate) fn write(architecture: &str, args: Map<String, Value>, pretrained_cfg: &Value) -> Value {
    let mut config = json!({"architecture": architecture});
    for key in ["num_classes", "global_pool"] {
        if let Some(value) = args.get(key) {
            config[key] = value.clone();
        }
    }
    config["model_args"] = Value::Object(args);
    if pretrained_cfg.as_object().is_some_and(|cfg| !cfg.is_empty()) {
        config["pretrained_cfg"] = pretrained_cfg.clone();
    }
    config
}

/// The object of a JSON literal.
pub(crate) fn object(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(map) => map,
        _ => Map::new(),
    }
}
