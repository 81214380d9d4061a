//! Recorded cases: what another library computed with a model, and the rule that says how far from it a result may be.
//!
//! A case is a folder as the library writes it, with `case.safetensors` beside the weights: inputs (`in.*`), output,
//! loss and gradients in f64 (`ref.*`), and the library's own errors in each precision. `binade parity` and the tests
//! run them.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use binade_autograd::{Var, scope};
use binade_nn::{Layer, load_state_dict, state_dict};
use binade_tensor::op::{CrossEntropy, Reduction};
use binade_tensor::{Array, Class, DType, Key};
use binade_weights::{Source, Weights};
use serde_json::Value;

use crate::{AnyModel, Error, Result};

/// A precision under the name of the recorded errors: autocast to this dtype, or none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Region {
    /// No autocast.
    F32,
    /// Autocast to bf16.
    BF16,
    /// Autocast to f16.
    F16,
}

/// Tensors of `case.safetensors`, read as they are asked for, and its metadata.
pub struct Case {
    weights: Weights,
    autocast: Value,
}

/// What a model computed: gradients under the names and in the shapes of the file.
#[derive(Clone, Debug, PartialEq)]
pub struct Computed {
    /// The model's output.
    pub out: Vec<f64>,
    /// The scalar that the case names.
    pub loss: f64,
    /// Of every parameter.
    pub gradients: BTreeMap<String, Vec<f64>>,
}

/// How far a tensor is from f64's, and how far it may be: both relative to f64's norm.
#[derive(Clone, Debug)]
pub struct Distance {
    /// The precision.
    pub region: Region,
    /// `out`, `loss`, or a parameter of the file.
    pub name: String,
    /// The norm of the difference.
    pub found: f64,
    /// What it may be.
    pub allowed: f64,
    /// Squares of the difference's norm and of f64's.
    pub squares: [f64; 2],
}

/// A model's results beside the recorded ones.
#[derive(Clone, Debug, Default)]
pub struct Comparison {
    /// Of the output, of the loss in f32, and of every gradient.
    pub distances: Vec<Distance>,
    /// Gradients that only one side has.
    pub unmatched: Vec<String>,
}

impl Region {
    /// All, as they are compared.
    pub const ALL: [Region; 3] = [Region::F32, Region::BF16, Region::F16];

    /// As the recorded errors have it.
    pub fn name(self) -> &'static str {
        match self {
            Region::F32 => "f32",
            Region::BF16 => "bf16",
            Region::F16 => "f16",
        }
    }

    /// What autocast casts to.
    pub fn dtype(self) -> Option<DType> {
        match self {
            Region::F32 => None,
            Region::BF16 => Some(DType::BF16),
            Region::F16 => Some(DType::F16),
        }
    }
}

impl Distance {
    /// Whether it is as small as it must be.
    pub fn fits(&self) -> bool {
        // Not the negation of `>`: NaN is a failure.
        self.found <= self.allowed
    }
}

impl std::fmt::Display for Distance {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {:.2e} of {:.2e}", self.name, self.found, self.allowed)
    }
}

impl Comparison {
    /// A line for each tensor that is further away than it may be, and for each gradient that has no counterpart.
    pub fn failures(&self) -> Vec<String> {
        let beyond = self.distances.iter().filter(|distance| !distance.fits());
        let beyond = beyond.map(|distance| format!("{}: {distance}", distance.region.name()));
        self.unmatched.iter().cloned().chain(beyond).collect()
    }
}

/// Runs that are made of a case in 16 bit, besides its own, with [`nudged`] weights.
pub const NUDGES: u64 = 8;

/// Moves weights in f32 by a rounding at most, up or down by chance: the same model but for what no precision can tell.
///
/// In 16 bit two such models are as far from each other as either is from f64: an argument of a ReLU falls on the other
/// side of 0, and a sum of a few gradients has other roundings. The recorded errors are of one run of PyTorch 2.15.
/// It is within 1.5 times them in 1 of 9 other runs of `resnet18_train` in f16, and in 1 of 6 of `sd_vae` in bf16.
///
/// # Errors
/// Memory is full.
pub fn nudged(model: &AnyModel, seed: u64) -> Result<()> {
    let nudge = |(i, (name, array)): (usize, (String, Array))| -> binade_tensor::Result<(String, Array)> {
        if array.dtype() != DType::F32 {
            return Ok((name, array));
        }
        let key = Key::new(seed, i as u64).stream("nudge");
        let share = |i: usize| key.bits(i) as f64 / u32::MAX as f64 - 0.5;
        let moved = |(i, value): (usize, f32)| (value as f64 * (1.0 + 2e-7 * share(i))) as f32;
        let values: Vec<f32> = array.to_vec::<f32>()?.into_iter().enumerate().map(moved).collect();
        Ok((name, Array::from_slice(array.device(), &values, array.shape(), Class::Weights)?))
    };
    let tensors =
        state_dict(model.module()).into_iter().enumerate().map(nudge).collect::<binade_tensor::Result<Vec<_>>>();
    load_state_dict(model.module(), &tensors.map_err(binade_autograd::Error::from)?)?;
    Ok(())
}

fn wrong(what: String) -> Error {
    Error::Config { of: "case.safetensors".into(), problems: vec![what] }
}

fn square(values: impl Iterator<Item = f64>) -> f64 {
    values.map(|value| value * value).sum()
}

impl Case {
    /// The case of a folder.
    ///
    /// # Errors
    /// [`Error::Weights`]: there is none, or it cannot be read. [`Error::Config`]: its list of errors is no JSON.
    pub fn open(folder: &Path) -> Result<Case> {
        let weights = Weights::open(&folder.join("case.safetensors"))?;
        let autocast = match weights.metadata().get("autocast") {
            Some(text) => serde_json::from_str(text).map_err(|e| wrong(format!("autocast: {e}")))?,
            None => Value::Null,
        };
        Ok(Case { weights, autocast })
    }

    /// A value of the metadata.
    ///
    /// # Errors
    /// [`Error::Config`]: there is none.
    pub fn text(&self, key: &str) -> Result<&str> {
        let found = self.weights.metadata().get(key).map(String::as_str);
        found.ok_or_else(|| wrong(format!("its metadata has no {key}")))
    }

    /// A tensor as a constant of a graph, in the file's dtype.
    ///
    /// # Errors
    /// [`Error::Weights`]: it is not there.
    pub fn var(&self, name: &str) -> Result<Var> {
        Ok(Var::constant(self.weights.array(name, Class::Activations)?))
    }

    /// A tensor's values.
    ///
    /// # Errors
    /// As [`Case::var`].
    pub fn values(&self, name: &str) -> Result<Vec<f64>> {
        Ok(self.weights.array(name, Class::Workspace)?.to_f64_vec().map_err(binade_autograd::Error::from)?)
    }

    /// What a model computes of the case's inputs, in the mode of the case. `stored` are the names in its weights'
    /// files. The precision is the caller's: run this under its policy.
    ///
    /// # Errors
    /// The case lacks an input, or names a loss that this model has not; as its forward and backward passes.
    pub fn compute(&self, model: &AnyModel, stored: &BTreeSet<String>) -> Result<Computed> {
        // Running statistics follow a training run, and belong to the file.
        scope::with_training(self.text("mode")? == "train", || {
            let (out, loss) = self.out_and_loss(model)?;
            let gradients = loss.backward()?;
            let sources = model.sources(stored);
            let mut named = BTreeMap::new();
            for (name, param) in model.module().named_parameters() {
                if let Some(gradient) = gradients.by_id(param.id()) {
                    named.extend(as_stored(&sources.of(&name), gradient)?);
                }
            }
            let out = out.array().to_f64_vec().map_err(binade_autograd::Error::from)?;
            Ok(Computed { out, loss: loss.item()?, gradients: named })
        })
    }

    /// The distances of what a model computed in a precision.
    ///
    /// # Errors
    /// [`Error::Config`]: a tensor has another size than the recorded one, or its recorded error is missing.
    pub fn compare(&self, computed: &Computed, region: Region) -> Result<Comparison> {
        let mut wanted = BTreeMap::new();
        for name in self.weights.entries().filter_map(|entry| entry.name.strip_prefix("ref.grad.")) {
            wanted.insert(name, self.values(&format!("ref.grad.{name}"))?);
        }
        let largest = wanted.values().map(|values| square(values.iter().copied())).fold(0.0, f64::max).sqrt();
        let errors = &self.autocast[region.name()];
        let out = self.distance(region, "out", &errors["out"], [&computed.out, &self.values("ref.out")?], 0.0)?;
        let mut comparison = Comparison { distances: vec![out], unmatched: Vec::new() };
        if region == Region::F32 {
            let loss = [&[computed.loss][..], &self.values("ref.loss")?];
            comparison.distances.push(self.distance(region, "loss", &Value::Null, loss, 0.0)?);
        }
        for (name, gradient) in &computed.gradients {
            let Some(wanted) = wanted.remove(name.as_str()) else {
                comparison.unmatched.push(format!("{}: a gradient of {name}, which is not recorded", region.name()));
                continue;
            };
            let theirs = &errors["grads"][name];
            comparison.distances.push(self.distance(region, name, theirs, [gradient, &wanted], 1e-7 * largest)?);
        }
        let missing = wanted.into_keys().map(|name| format!("{}: no gradient of {name}", region.name()));
        comparison.unmatched.extend(missing);
        Ok(comparison)
    }

    /// The rule: in f32 the norm of the difference may be 1e-5 of the reference's, and of gradients `floor` besides, as
    /// one whose true value is 0 is rounding alone. In 16 bit it may be 1.5 times `theirs` as well, PyTorch's own.
    fn distance(
        &self,
        region: Region,
        name: &str,
        theirs: &Value,
        [ours, wanted]: [&[f64]; 2],
        floor: f64,
    ) -> Result<Distance> {
        if ours.len() != wanted.len() {
            return Err(wrong(format!("{name} has {} elements, recorded are {}", ours.len(), wanted.len())));
        }
        let theirs = match region {
            Region::F32 => 0.0,
            Region::BF16 | Region::F16 => {
                theirs.as_f64().ok_or_else(|| wrong(format!("no error of PyTorch's {name} in {}", region.name())))?
            }
        };
        let size = square(wanted.iter().copied());
        let difference = square(ours.iter().zip(wanted).map(|(a, b)| a - b));
        // What is 0 in f64 has no relative error: both are then in the tensor's own units.
        let unit = if size > 0.0 { size.sqrt() } else { 1.0 };
        Ok(Distance {
            region,
            name: name.into(),
            found: difference.sqrt() / unit,
            allowed: 1.5 * theirs + 1e-5 + floor / unit,
            squares: [difference, size],
        })
    }

    /// The model's output of the case's inputs, and the loss that the case names.
    fn out_and_loss(&self, model: &AnyModel) -> Result<(Var, Var)> {
        let labels = match self.weights.get("in.class_labels") {
            Some(_) => Some(self.var("in.class_labels")?),
            None => None,
        };
        let loss = self.text("loss")?;
        let unknown = || wrong(format!("no loss of this model is called {loss}"));
        let out = match model {
            AnyModel::Gpt(model) => model.forward(&self.var("in.input_ids")?)?,
            AnyModel::ClipText(model) => model.forward(&self.var("in.input_ids")?)?,
            AnyModel::UNet2DCondition(model) => {
                let text = self.var("in.encoder_hidden_states")?;
                model.forward(&self.var("in.sample")?, &self.var("in.timestep")?, &text, labels.as_ref())?
            }
            AnyModel::UNet2D(model) => {
                model.forward(&self.var("in.sample")?, &self.var("in.timestep")?, labels.as_ref())?
            }
            AnyModel::AutoencoderKL(model) => {
                if !loss.starts_with("mse_plus_1e-3_kl") {
                    return Err(unknown());
                }
                let x = self.var("in.x")?;
                let latent = model.encode(&x)?;
                let out = model.decode(&latent.mean)?;
                let kl = latent.kl()?.mean(&[0], false)?;
                return Ok((out.clone(), (&out.mse_loss(&x, Reduction::Mean)? + &(&kl * 1e-3)?)?));
            }
            _ => match model.classifier() {
                Some(classifier) => classifier.layer.forward(&self.var("in.x")?)?,
                None => return Err(unknown()),
            },
        };
        let loss = match loss {
            "mse" => out.mse_loss(&self.var("in.target")?, Reduction::Mean)?,
            "cross_entropy" => out.cross_entropy(&self.var("in.y")?, CrossEntropy::default())?,
            "next_token_cross_entropy" => {
                let ids = self.var("in.input_ids")?;
                let &[_, length, classes] = &out.shape()[..] else {
                    return Err(wrong(format!("no logits: {:?}", out.shape())));
                };
                let logits = out.narrow(1, 0, length - 1)?.reshape(&[-1, classes as isize])?;
                logits.cross_entropy(&ids.narrow(1, 1, length - 1)?.reshape(&[-1])?, CrossEntropy::default())?
            }
            _ => return Err(unknown()),
        };
        Ok((out, loss))
    }
}

/// A tensor of the model as the file has it: the reverse of loading.
fn as_stored(source: &Source, array: &Array) -> Result<Vec<(String, Vec<f64>)>> {
    let var = Var::constant(array.clone());
    let values = |var: &Var| var.array().to_f64_vec().map_err(binade_autograd::Error::from);
    Ok(match source {
        Source::Tensor(name) | Source::Reshaped(name, _) => vec![(name.clone(), values(&var)?)],
        Source::Transposed(name) => vec![(name.clone(), values(&var.transpose(0, 1)?)?)],
        Source::Parts(names) => {
            let values = values(&var)?;
            let parts = values.chunks(values.len().div_ceil(names.len()).max(1)).map(<[f64]>::to_vec);
            names.iter().cloned().zip(parts).collect()
        }
    })
}
