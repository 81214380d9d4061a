//! A folder of a model with its case, and the rule that it is held to.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use binade_amp::Policy;
use binade_autograd::{Var, scope};
use binade_models::{ClipText, Gpt, Pretrained, ResNet, Vit};
use binade_nn::{Layer, Module, read_safetensors};
use binade_tensor::op::{CrossEntropy, Reduction};
use binade_tensor::{Array, Class};
use binade_weights::{LoadOptions, Source, Weights, load};
use serde_json::Value;

/// Which model a `config.json` is of.
#[derive(Clone, Copy)]
pub enum Kind {
    Gpt,
    ResNet,
    Vit,
    ClipText,
}

/// A model of any of the kinds.
pub enum Model {
    Gpt(Gpt),
    ResNet(ResNet),
    Vit(Vit),
    ClipText(ClipText),
}

/// What a model computes: all of it f64. Gradients under the names of the file.
pub struct Computed {
    pub out: Vec<f64>,
    pub loss: f64,
    pub gradients: BTreeMap<String, Vec<f64>>,
}

pub struct Case {
    pub folder: PathBuf,
    config: Value,
    weights: Weights,
    tensors: BTreeMap<String, Array>,
    metadata: BTreeMap<String, String>,
    autocast: Value,
}

impl Kind {
    pub fn of(folder: &Path) -> Option<Kind> {
        let text = std::fs::read_to_string(folder.join("config.json")).ok()?;
        Kind::named(&serde_json::from_str(&text).ok()?)
    }

    fn named(config: &Value) -> Option<Kind> {
        let name = config.get("model_type").or(config.get("architecture"))?.as_str()?;
        Some(match name {
            "gpt2" => Kind::Gpt,
            "clip_text_model" => Kind::ClipText,
            "vit" => Kind::Vit,
            "resnet" => Kind::ResNet,
            _ if name.starts_with("resnet") => Kind::ResNet,
            _ => Kind::Vit,
        })
    }

    fn model(self, config: &Value) -> binade_models::Result<Model> {
        // Other values than the file's: what is not loaded shows.
        scope::with_key(7, 0, || {
            Ok(match self {
                Kind::Gpt => Model::Gpt(Gpt::from_config(config)?),
                Kind::ResNet => Model::ResNet(ResNet::from_config(config)?),
                Kind::Vit => Model::Vit(Vit::from_config(config)?),
                Kind::ClipText => Model::ClipText(ClipText::from_config(config)?),
            })
        })
    }
}

/// Runs an expression with the model inside, whichever it is.
macro_rules! each {
    ($model:expr, $inner:ident => $value:expr) => {
        match $model {
            Model::Gpt($inner) => $value,
            Model::ResNet($inner) => $value,
            Model::Vit($inner) => $value,
            Model::ClipText($inner) => $value,
        }
    };
}

/// A tensor of the model in the file's shape, as values by the file's names; the reverse of loading.
fn stored(source: &Source, array: &Array) -> Vec<(String, Vec<f64>)> {
    let values = |v: &Var| v.array().to_f64_vec().unwrap();
    let var = Var::constant(array.clone());
    match source {
        Source::Tensor(name) | Source::Reshaped(name, _) => vec![(name.clone(), values(&var))],
        Source::Transposed(name) => vec![(name.clone(), values(&var.transpose(0, 1).unwrap()))],
        Source::Parts(names) => {
            let values = values(&var);
            let parts = values.chunks(values.len() / names.len()).map(<[f64]>::to_vec);
            names.iter().cloned().zip(parts).collect()
        }
    }
}

impl Model {
    pub fn recomputing(self) -> Model {
        match self {
            Model::Gpt(model) => Model::Gpt(model.recomputing(true)),
            Model::ResNet(model) => Model::ResNet(model.recomputing(true)),
            Model::Vit(model) => Model::Vit(model.recomputing(true)),
            Model::ClipText(model) => Model::ClipText(model.recomputing(true)),
        }
    }

    pub fn config(&self) -> Value {
        each!(self, model => model.to_config())
    }

    /// A new model of the configuration that this one writes.
    pub fn rebuilt(&self) -> Model {
        let config = self.config();
        Kind::named(&config).unwrap().model(&config).unwrap()
    }

    /// Takes over the files' tensors, all of them.
    pub fn load(&self, case: &Case) {
        let sources = each!(self, model => model.sources(&case.weights.names()));
        let loaded = each!(self, model => load(model, &case.weights, &sources, &LoadOptions::default()));
        loaded.unwrap_or_else(|e| panic!("{e}"));
    }

    fn loss(&self, out: &Var, case: &Case) -> Var {
        match case.metadata["loss"].as_str() {
            "mse" => out.mse_loss(&case.var("in.target"), Reduction::Mean).unwrap(),
            "cross_entropy" => out.cross_entropy(&case.var("in.y"), CrossEntropy::default()).unwrap(),
            "next_token_cross_entropy" => {
                let ids = case.var("in.input_ids");
                let (t, classes) = (ids.shape()[1], out.shape()[2]);
                let logits = out.narrow(1, 0, t - 1).unwrap().reshape(&[-1, classes as isize]).unwrap();
                let targets = ids.narrow(1, 1, t - 1).unwrap().reshape(&[-1]).unwrap();
                logits.cross_entropy(&targets, CrossEntropy::default()).unwrap()
            }
            other => panic!("no loss is called {other}"),
        }
    }

    pub fn compute(&self, case: &Case, policy: &Policy) -> Computed {
        let input = if case.tensors.contains_key("in.x") { "in.x" } else { "in.input_ids" };
        let run = || {
            let out = each!(self, model => model.forward(&case.var(input))).unwrap();
            let loss = self.loss(&out, case);
            let gradients = loss.backward().unwrap();
            let sources = each!(self, model => model.sources(&case.weights.names()));
            let of = |(name, param): &(String, binade_nn::Param)| {
                stored(&sources.of(name), gradients.by_id(param.id()).unwrap())
            };
            let params = each!(self, model => model.named_parameters());
            Computed {
                out: out.array().to_f64_vec().unwrap(),
                loss: loss.item().unwrap(),
                gradients: params.iter().flat_map(of).collect(),
            }
        };
        scope::with_training(case.metadata["mode"] == "train", || policy.run(run))
    }
}

impl Computed {
    /// All of it as bits.
    pub fn bits(self) -> (Vec<u64>, u64, BTreeMap<String, Vec<u64>>) {
        let bits = |v: Vec<f64>| v.into_iter().map(f64::to_bits).collect::<Vec<_>>();
        let gradients = self.gradients.into_iter().map(|(name, g)| (name, bits(g))).collect();
        (bits(self.out), self.loss.to_bits(), gradients)
    }
}

fn norm(values: impl Iterator<Item = f64>) -> f64 {
    values.map(|v| v * v).sum::<f64>().sqrt()
}

impl Case {
    pub fn read(folder: &Path) -> Case {
        let text = std::fs::read_to_string(folder.join("config.json")).unwrap();
        let (tensors, metadata) = read_safetensors(&folder.join("case.safetensors"), Class::Workspace).unwrap();
        Case {
            folder: folder.into(),
            config: serde_json::from_str(&text).unwrap(),
            weights: Weights::open(folder).unwrap_or_else(|e| panic!("{e}")),
            tensors: tensors.into_iter().collect(),
            autocast: serde_json::from_str(&metadata["autocast"]).unwrap(),
            metadata: metadata.into_iter().collect(),
        }
    }

    /// Its model with its weights.
    pub fn model(&self) -> Model {
        let kind = Kind::named(&self.config).unwrap();
        let model = kind.model(&self.config).unwrap_or_else(|e| panic!("{}: {e}", self.folder.display()));
        model.load(self);
        model
    }

    fn var(&self, name: &str) -> Var {
        Var::constant(self.tensors[name].clone())
    }

    fn values(&self, name: &str) -> Vec<f64> {
        self.tensors[name].to_f64_vec().unwrap()
    }

    /// PyTorch's own relative error of the output, or of a gradient, in a region.
    fn theirs(&self, region: &str, name: Option<&str>) -> f64 {
        let errors = &self.autocast[region];
        name.map_or(&errors["out"], |name| &errors["grads"][name]).as_f64().unwrap()
    }

    /// What is further from f64 than it may be, with both numbers.
    pub fn failures(&self, ours: &Computed, region: &str) -> Vec<String> {
        let mut failures = Vec::new();
        let mut check = |what: &str, ours: &[f64], wanted: &[f64], theirs: f64, floor: f64| {
            assert_eq!(ours.len(), wanted.len(), "{what}");
            let size = norm(wanted.iter().copied());
            let allowed = if region == "f32" { 1e-5 } else { 1.5 * theirs + 1e-5 } * size + floor;
            let found = norm(ours.iter().zip(wanted).map(|(a, b)| a - b));
            // A NaN is a failure.
            if found.is_nan() || found > allowed {
                failures.push(format!("{what}: {:.3e} of {:.3e}, theirs {theirs:.3e}", found / size, allowed / size));
            }
        };
        check("out", &ours.out, &self.values("ref.out"), self.theirs(region, None), 0.0);
        if region == "f32" {
            check("loss", &[ours.loss], &self.values("ref.loss"), 0.0, 0.0);
        }
        let wanted = |name: &str| self.values(&format!("ref.grad.{name}"));
        let largest = ours.gradients.keys().map(|name| norm(wanted(name).into_iter())).fold(0.0, f64::max);
        for (name, gradient) in &ours.gradients {
            check(name, gradient, &wanted(name), self.theirs(region, Some(name)), 1e-7 * largest);
        }
        let known = self.tensors.keys().filter_map(|name| name.strip_prefix("ref.grad."));
        let missing = known.filter(|name| !ours.gradients.contains_key(*name));
        failures.extend(missing.map(|name| format!("{name} is missing")));
        failures
    }
}
