//! Folders that diffusers wrote, with what PyTorch and f64 computed: outputs, losses and gradients of every parameter,
//! in three precisions. They are where `BINADE_GOLDEN` says.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use binade_amp::Policy;
use binade_autograd::{Var, scope};
use binade_cpu as _;
use binade_models::{AutoencoderKL, Pretrained, UNet2DConditionModel, UNet2DModel};
use binade_nn::{Module, read_safetensors};
use binade_tensor::op::Reduction;
use binade_tensor::{Array, Class, DType};
use binade_weights::{LoadOptions, Sources, Weights, load};
use serde_json::Value;

/// A model of any of the three kinds, with the loss of its cases.
enum Model {
    UNet(UNet2DModel),
    Condition(UNet2DConditionModel),
    Autoencoder(AutoencoderKL),
}

struct Case {
    folder: PathBuf,
    tensors: BTreeMap<String, Array>,
    autocast: Value,
}

/// What a model computes: all of it f64.
struct Computed {
    out: Vec<f64>,
    loss: f64,
    gradients: BTreeMap<String, Vec<f64>>,
}

fn folders() -> Vec<PathBuf> {
    let Ok(golden) = std::env::var("BINADE_GOLDEN") else {
        // Said aloud, so that nobody takes this for a pass.
        eprintln!("SKIPPED: BINADE_GOLDEN is not set, so no golden case is run");
        return Vec::new();
    };
    let entries = std::fs::read_dir(Path::new(&golden).join("models")).unwrap();
    let mut all: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).filter(|p| model(p).is_some()).collect();
    all.sort();
    assert!(!all.is_empty(), "no golden case of a diffusion model in {golden}");
    all
}

fn config(folder: &Path) -> Option<Value> {
    serde_json::from_str(&std::fs::read_to_string(folder.join("config.json")).ok()?).ok()
}

fn model(folder: &Path) -> Option<Model> {
    let config = config(folder)?;
    scope::with_key(1, 0, || match config["_class_name"].as_str()? {
        "UNet2DModel" => Some(Model::UNet(UNet2DModel::from_config(&config).unwrap())),
        "UNet2DConditionModel" => Some(Model::Condition(UNet2DConditionModel::from_config(&config).unwrap())),
        "AutoencoderKL" => Some(Model::Autoencoder(AutoencoderKL::from_config(&config).unwrap())),
        _ => None,
    })
}

impl Case {
    fn read(folder: &Path) -> Case {
        let (tensors, metadata) = read_safetensors(&folder.join("case.safetensors"), Class::Workspace).unwrap();
        let autocast = serde_json::from_str(&metadata["autocast"]).unwrap();
        Case { folder: folder.into(), tensors: tensors.into_iter().collect(), autocast }
    }

    fn var(&self, name: &str) -> Var {
        Var::constant(self.tensors[name].clone())
    }

    fn optional(&self, name: &str) -> Option<Var> {
        self.tensors.get(name).map(|array| Var::constant(array.clone()))
    }

    fn values(&self, name: &str) -> Vec<f64> {
        self.tensors[name].to_f64_vec().unwrap()
    }

    /// PyTorch's own relative error of the output, or of a gradient, in a region.
    fn theirs(&self, region: &str, name: Option<&str>) -> f64 {
        let errors = &self.autocast[region];
        name.map_or(&errors["out"], |name| &errors["grads"][name]).as_f64().unwrap()
    }
}

impl Model {
    fn load(&self, folder: &Path) {
        let weights = Weights::open(folder).unwrap();
        let sources = self.sources(&weights.names());
        load(self.module(), &weights, &sources, &LoadOptions::default()).unwrap();
    }

    fn sources(&self, stored: &BTreeSet<String>) -> Sources {
        match self {
            Model::UNet(model) => model.sources(stored),
            Model::Condition(model) => model.sources(stored),
            Model::Autoencoder(model) => model.sources(stored),
        }
    }

    fn recomputing(self) -> Model {
        match self {
            Model::UNet(model) => Model::UNet(model.recomputing(true)),
            Model::Condition(model) => Model::Condition(model.recomputing(true)),
            Model::Autoencoder(model) => Model::Autoencoder(model.recomputing(true)),
        }
    }

    fn module(&self) -> &dyn Module {
        match self {
            Model::UNet(model) => model,
            Model::Condition(model) => model,
            Model::Autoencoder(model) => model,
        }
    }

    fn out_and_loss(&self, case: &Case) -> (Var, Var) {
        let labels = case.optional("in.class_labels");
        let out = match self {
            Model::UNet(model) => model.forward(&case.var("in.sample"), &case.var("in.timestep"), labels.as_ref()),
            Model::Condition(model) => {
                let text = case.var("in.encoder_hidden_states");
                model.forward(&case.var("in.sample"), &case.var("in.timestep"), &text, labels.as_ref())
            }
            Model::Autoencoder(model) => {
                let x = case.var("in.x");
                let latent = model.encode(&x).unwrap();
                let out = model.decode(&latent.mean).unwrap();
                let kl = latent.kl().unwrap().mean(&[0], false).unwrap();
                let loss = (&out.mse_loss(&x, Reduction::Mean).unwrap() + &(&kl * 1e-3).unwrap()).unwrap();
                return (out, loss);
            }
        };
        let out = out.unwrap();
        let loss = out.mse_loss(&case.var("in.target"), Reduction::Mean).unwrap();
        (out, loss)
    }

    fn compute(&self, case: &Case, policy: &Policy) -> Computed {
        policy.run(|| {
            let (out, loss) = self.out_and_loss(case);
            let gradients = loss.backward().unwrap();
            let of = |p: &binade_nn::Param| gradients.by_id(p.id()).unwrap().to_f64_vec().unwrap();
            // Under the names of the file.
            let sources = self.sources(&Weights::open(&case.folder).unwrap().names());
            let stored = |name: &str| sources.of(name).names()[0].clone();
            Computed {
                out: out.array().to_f64_vec().unwrap(),
                loss: loss.item().unwrap(),
                gradients: self.module().named_parameters().iter().map(|(name, p)| (stored(name), of(p))).collect(),
            }
        })
    }
}

fn norm(values: impl Iterator<Item = f64>) -> f64 {
    values.map(|v| v * v).sum::<f64>().sqrt()
}

fn difference(ours: &[f64], wanted: &[f64]) -> f64 {
    assert_eq!(ours.len(), wanted.len());
    norm(ours.iter().zip(wanted).map(|(a, b)| a - b))
}

/// What is further from f64 than it may be, with both numbers.
fn failures(case: &Case, ours: &Computed, region: &str) -> Vec<String> {
    let mut failures = Vec::new();
    let mut check = |what: &str, ours: &[f64], wanted: &[f64], theirs: f64, floor: f64| {
        let size = norm(wanted.iter().copied());
        // In 16 bit the error of a few numbers is that of a few draws: theirs may be the luckier ones.
        let times = if wanted.len() > 64 { 1.5 } else { 3.0 };
        let allowed = if region == "f32" { 1e-5 } else { times * theirs + 1e-5 } * size + floor;
        let found = difference(ours, wanted);
        if found.is_nan() || found > allowed {
            failures.push(format!("{what}: {:.3e} of {:.3e}, theirs {theirs:.3e}", found / size, allowed / size));
        }
    };
    check("out", &ours.out, &case.values("ref.out"), case.theirs(region, None), 0.0);
    if region == "f32" {
        check("loss", &[ours.loss], &case.values("ref.loss"), 0.0, 0.0);
    }
    let largest = ours.gradients.keys().map(|name| norm(case.values(&format!("ref.grad.{name}")).into_iter()));
    let floor = 1e-7 * largest.fold(0.0, f64::max);
    for (name, gradient) in &ours.gradients {
        let wanted = case.values(&format!("ref.grad.{name}"));
        check(name, gradient, &wanted, case.theirs(region, Some(name)), floor);
    }
    let known = case.tensors.keys().filter_map(|name| name.strip_prefix("ref.grad."));
    failures.extend(known.filter(|name| !ours.gradients.contains_key(*name)).map(|name| format!("{name} is missing")));
    failures
}

fn loaded(folder: &Path) -> Model {
    let model = model(folder).unwrap();
    model.load(folder);
    model
}

#[test]
fn outputs_losses_and_gradients_are_those_of_the_library() {
    let regions =
        [("f32", Policy::OFF), ("bf16", Policy::autocast(DType::BF16)), ("f16", Policy::autocast(DType::F16))];
    let mut failed = Vec::new();
    for folder in folders() {
        let (model, case) = (loaded(&folder), Case::read(&folder));
        for (region, policy) in &regions {
            let found = failures(&case, &model.compute(&case, policy), region);
            eprintln!("{} {region}: {} failures", folder.display(), found.len());
            failed.extend(found.into_iter().map(|f| format!("{} {region} {f}", case.folder.display())));
        }
    }
    assert!(failed.is_empty(), "{}", failed.join("\n"));
}

#[test]
fn bits_are_the_same_for_any_number_of_threads_and_with_blocks_computed_again() {
    for folder in folders() {
        let case = Case::read(&folder);
        let compute = |threads: usize, again: bool| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| {
                let model = loaded(&folder);
                let model = if again { model.recomputing() } else { model };
                let Computed { out, loss, gradients } = model.compute(&case, &Policy::autocast(DType::BF16));
                let bits = |v: Vec<f64>| v.into_iter().map(f64::to_bits).collect::<Vec<_>>();
                (bits(out), loss.to_bits(), gradients.into_iter().map(|(n, g)| (n, bits(g))).collect::<Vec<_>>())
            })
        };
        let once = compute(1, false);
        for (threads, again) in [(2, false), (3, false), (2, true)] {
            assert!(compute(threads, again) == once, "{}: {threads} threads, again: {again}", folder.display());
        }
    }
}

#[test]
fn configurations_are_written_as_they_are_read() {
    for folder in folders() {
        let config = config(&folder).unwrap();
        let (written, again) = match model(&folder).unwrap() {
            Model::UNet(model) => {
                (model.to_config(), UNet2DModel::from_config(&model.to_config()).unwrap().to_config())
            }
            Model::Condition(model) => {
                (model.to_config(), UNet2DConditionModel::from_config(&model.to_config()).unwrap().to_config())
            }
            Model::Autoencoder(model) => {
                (model.to_config(), AutoencoderKL::from_config(&model.to_config()).unwrap().to_config())
            }
        };
        assert_eq!(written, again);
        for (key, value) in written.as_object().unwrap() {
            let wanted = &config[key];
            let same = wanted == value || wanted.as_f64().is_some() && wanted.as_f64() == value.as_f64();
            assert!(same, "{}: {key} is {value} and was {wanted}", folder.display());
        }
    }
}
