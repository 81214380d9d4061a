//! Models with weights of 8-bit integers, and their folders: a `config.json` with `quantization_config`, and tensors
//! under the model's own names.

use std::path::Path;

use binade_nn::quantised::{Activations, Calibration, Kind, Threshold, check_scales, weights};
use binade_nn::{Buffer, without_initial_values};
use binade_tensor::{Array, Class, DType, Shape};
use binade_weights::{FileDType, LoadOptions, Report, SaveOptions, Sources, Weights, load, save};
use glob::Pattern;
use serde_json::{Value, json};

use crate::{AnyModel, Error, Keys, Result};

/// The key of a `config.json`, and the method that it names.
const KEY: &str = "quantization_config";
const METHOD: &str = "binade";

/// What becomes of the inputs of layers with 8-bit weights.
#[derive(Clone, Debug)]
pub enum Rounding {
    /// They stay as they are.
    WeightOnly,
    /// Each is rounded by its largest magnitude.
    Dynamic,
    /// They are rounded by what a model was seen to read.
    Static(Calibration, Threshold),
}

impl Rounding {
    fn name(&self) -> &'static str {
        match self {
            Rounding::WeightOnly => "float",
            Rounding::Dynamic => "dynamic",
            Rounding::Static(..) => "static",
        }
    }
}

/// How a model is quantised.
#[derive(Clone, Debug)]
pub struct Quantise {
    /// Inputs of layers.
    pub rounding: Rounding,
    /// Layers that stay as they are: patterns of their dotted names, with * and ?.
    pub keep: Vec<String>,
}

/// What was done.
#[derive(Clone, Debug, Default)]
pub struct Quantisation {
    /// Layers whose weights are integers now.
    pub layers: Vec<String>,
    /// Layers that stayed as they are.
    pub kept: Vec<String>,
    config: Value,
}

impl AnyModel {
    /// Rounds the weights of linear layers, convolutions and embeddings to 8-bit integers, in place. The model is for
    /// inference from then on. Fold norms before ([`AnyModel::folded`]), and calibrate what is folded.
    ///
    /// # Errors
    /// [`Error::Config`]: a model of another kind than image classifiers and GPT; a pattern that is no layer's name; a
    /// layer that the calibration has not seen. Weights that are not finite; out of memory.
    pub fn quantise(&self, how: &Quantise) -> Result<Quantisation> {
        let built = self.classifier().is_some() || matches!(self, AnyModel::Gpt(_));
        let weights = weights(self.module());
        let mut problems = Vec::new();
        if !built {
            problems.push("8-bit weights are built for image classifiers and GPT".to_string());
        }
        let names = || weights.iter().map(|weight| weight.layer.as_str()).collect::<Vec<_>>().join(", ");
        let mut keep = Vec::new();
        for pattern in &how.keep {
            match Pattern::new(pattern) {
                Ok(known) if weights.iter().any(|weight| known.matches(&weight.layer)) => keep.push(known),
                Ok(_) => problems.push(format!("{pattern} is the name of no layer: there are {}", names())),
                Err(error) => problems.push(format!("{pattern} is no pattern of names: {error}")),
            }
        }
        let mut done = Quantisation::default();
        let mut rounded = Vec::new();
        for weight in &weights {
            if keep.iter().any(|pattern| pattern.matches(&weight.layer)) {
                done.kept.push(weight.layer.clone());
                continue;
            }
            let activations = match (&how.rounding, weight.kind) {
                (Rounding::WeightOnly, _) | (_, Kind::Embedding) => Activations::Float,
                (Rounding::Dynamic, _) => Activations::Dynamic,
                (Rounding::Static(calibration, threshold), _) => match calibration.scale(&weight.param, *threshold) {
                    Some(scale) => Activations::Static(scalar(&weight.param.array(), scale as f32)?),
                    None => {
                        problems.push(format!("{}: calibration has seen no number that it read", weight.layer));
                        continue;
                    }
                },
            };
            done.layers.push(weight.layer.clone());
            rounded.push((&weight.layer, &weight.param, activations));
        }
        if !problems.is_empty() {
            return Err(Error::Config { of: "export".into(), problems });
        }
        for (layer, param, activations) in rounded {
            let told = |error| Error::Config { of: layer.clone(), problems: vec![format!("{error}")] };
            param.quantise(activations).map_err(|error: binade_nn::Error| told(error))?;
        }
        done.config = json!({
            "quant_method": METHOD, "bits": 8, "activations": how.rounding.name(), "norms_folded": self.is_folded(),
            "kept": done.kept,
        });
        Ok(done)
    }

    /// Writes a quantised model's folder, which [`AnyModel::open`] reads, with what else its `config.json` has.
    ///
    /// # Errors
    /// As [`save`]; the configuration cannot be written.
    pub fn save_quantised(&self, done: &Quantisation, config: &Value, folder: &Path) -> Result<Report> {
        let report = save(self.module(), folder, &Sources::default(), &SaveOptions::default())?;
        let mut config = config.clone();
        if let Value::Object(map) = &mut config {
            map.insert(KEY.into(), done.config.clone());
        }
        let path = folder.join("config.json");
        let written = binade_nn::replace_file(&path, |file| file.write_all(format!("{config:#}\n").as_bytes()));
        let fail = |e: std::io::Error| Error::Config { of: path.display().to_string(), problems: vec![e.to_string()] };
        written.map_err(fail)?;
        Ok(report)
    }
}

fn scalar(like: &Array, value: f32) -> Result<Buffer> {
    let array = Array::full(like.device(), DType::F32, Shape::SCALAR, value.into(), Class::Weights);
    Ok(Buffer::new(array.map_err(binade_nn::Error::from)?))
}

/// Whether a `config.json` is that of a quantised model of ours.
pub(crate) fn is_quantised(config: &Value) -> bool {
    config.get(KEY).is_some_and(|of| of.get("quant_method").and_then(Value::as_str) == Some(METHOD))
}

/// Whether a folder is that of a quantised model of ours.
pub fn is_quantised_folder(folder: &Path) -> bool {
    crate::read_config(folder).is_ok_and(|config| is_quantised(&config))
}

/// A quantised model of its folder.
pub(crate) fn open(folder: &Path, mut config: Value, options: &LoadOptions) -> Result<(AnyModel, Report)> {
    let how = config.as_object_mut().and_then(|map| map.remove(KEY)).unwrap_or_default();
    let mut keys = Keys::new(KEY, &how)?;
    keys.harmless(&["quant_method", "kept"]);
    keys.only("bits", &[8.into()]);
    let (name, folded) = (keys.required::<String>("activations"), keys.or("norms_folded", false));
    let activations = match name.as_str() {
        "float" => Activations::Float,
        "dynamic" => Activations::Dynamic,
        // Scales are there, or their lack is an error.
        "static" => Activations::Static(Buffer::new(
            Array::full(&binade_autograd::scope::device()?, DType::F32, Shape::SCALAR, 1.0, Class::Weights)
                .map_err(binade_nn::Error::from)?,
        )),
        other => {
            keys.problem(format!("activations is {other:?}: float, dynamic and static are known"));
            Activations::Float
        }
    };
    keys.finish()?;
    let model = without_initial_values(|| AnyModel::from_config(&config))?;
    let model = if folded { model.folded()? } else { model };
    let stored = Weights::open(folder)?;
    let weights = weights(model.module());
    for weight in &weights {
        if stored.get(&format!("{}.weight", weight.layer)).is_some_and(|entry| entry.dtype == FileDType::I8) {
            let own = match (&activations, weight.kind) {
                (_, Kind::Embedding) => Activations::Float,
                (Activations::Static(_), _) => Activations::Static(scalar(&weight.param.array(), 1.0)?),
                (other, _) => other.clone(),
            };
            weight.param.expect_quantised(own)?;
        }
    }
    let report = load(model.module(), &stored, &Sources::default(), options)?;
    check_scales(model.module())?;
    // Convolutions compute with numbers: they are made once.
    for weight in weights.iter().filter(|weight| weight.kind == Kind::Conv2d) {
        if let Some(Activations::Float) = weight.param.quantised().map(|quantised| quantised.activations) {
            weight.param.dequantise()?;
        }
    }
    Ok((model, report))
}
