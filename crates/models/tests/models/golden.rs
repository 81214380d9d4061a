//! Folders that transformers, timm and diffusers wrote, with what PyTorch and f64 computed: outputs, losses and
//! gradients of every parameter, in three precisions. Small ones are in `small`, others where `BINADE_GOLDEN` says.

use std::path::{Path, PathBuf};

use binade_amp::Policy;
use binade_autograd::scope;
use binade_cpu::Isa;
use binade_models::parity::{Case, Comparison, Computed, Distance, Region};
use binade_models::{AnyModel, read_config};
use binade_weights::{LoadOptions, Weights, load};

/// The small cases of this repository, and the golden ones.
fn folders() -> Vec<PathBuf> {
    let mut all = below(&small());
    assert!(all.len() >= 11, "small cases are missing: {all:?}");
    match std::env::var("BINADE_GOLDEN") {
        Ok(golden) => {
            let golden = below(&Path::new(&golden).join("models"));
            assert!(!golden.is_empty(), "no golden case of a model");
            all.extend(golden);
        }
        // Said aloud, so that nobody takes this for a pass.
        Err(_) => eprintln!("SKIPPED: BINADE_GOLDEN is not set, so no golden case is run, but small ones"),
    }
    all
}

fn small() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/small")
}

/// The folders of cases of one model.
fn below(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let mut all: Vec<PathBuf> = entries.filter(|path| path.join("config.json").exists()).collect();
    all.sort();
    all
}

/// With other initial values than the file's: what is not loaded shows.
fn model(config: &serde_json::Value, folder: &Path) -> AnyModel {
    let model = scope::with_key(7, 0, || AnyModel::from_config(config)).unwrap_or_else(|e| panic!("{e}"));
    let weights = Weights::open(folder).unwrap();
    let loaded = load(model.module(), &weights, &model.sources(&weights.names()), &LoadOptions::default());
    loaded.unwrap_or_else(|e| panic!("{}: {e}", folder.display()));
    model
}

fn compute(folder: &Path, model: &AnyModel, region: Region) -> (Case, Computed) {
    let case = Case::open(folder).unwrap();
    let stored = Weights::open(folder).unwrap().names();
    let policy = region.dtype().map_or(Policy::OFF, Policy::autocast);
    let computed = policy.run(|| case.compute(model, &stored)).unwrap();
    (case, computed)
}

/// All of it as bits.
fn bits(computed: Computed) -> Vec<(String, Vec<u64>)> {
    let Computed { out, loss, gradients } = computed;
    let named = [("out".into(), out), ("loss".into(), vec![loss])].into_iter().chain(gradients);
    named.map(|(name, values)| (name, values.into_iter().map(f64::to_bits).collect())).collect()
}

/// Cases of whose gradients nothing can be said in f16. Arguments of their last ReLU lie closer to 0 than PyTorch's own
/// f16 is to f64: two by a root mean square of 0.006 in one, five by 0.008 in the other. Chance decides which of them
/// pass, and one moves a bias's gradient by a tenth. In f32 none is on the other side.
const AT_A_KINK: [&str; 2] = ["resnet18_train", "resnet50_train"];

/// On tiles of AMX sums have another order, and the output of this case in f16 is 1.02 times as far from f64 as the
/// rule allows. So are two of nine runs of PyTorch itself with other roundings (`docs/models.md`). Vectors
/// pass.
const ON_TILES: &str = "resnet50_eval";

/// Takes the gradients of few numbers together: the error of one in 16 bit is that of a few roundings. On which side of
/// PyTorch's it falls differs from one instruction set to the next; the mean square of all of a case does not. Returns
/// what is wrong with it.
fn pooled(comparison: &mut Comparison, computed: &Computed) -> Option<String> {
    let few = |d: &Distance| computed.gradients.get(&d.name).is_some_and(|values| values.len() <= 64);
    let (small, rest): (Vec<_>, Vec<_>) = std::mem::take(&mut comparison.distances).into_iter().partition(few);
    comparison.distances = rest;
    let norm = |of: fn(&Distance) -> f64| small.iter().map(|d| of(d).powi(2)).sum::<f64>().sqrt();
    let (found, allowed) = (norm(|d| d.found), norm(|d| d.allowed));
    // A NaN is a failure.
    let fits = found <= allowed;
    (!fits).then(|| format!("all gradients of at most 64 numbers: {found:.2e} of {allowed:.2e}"))
}

#[test]
fn outputs_losses_and_gradients_are_those_of_the_library() {
    let mut failed = Vec::new();
    for folder in folders() {
        let model = model(&read_config(&folder).unwrap(), &folder);
        // Of tensors of a few numbers the error of 16 bit is chance.
        let regions = if folder.starts_with(small()) { &Region::ALL[..1] } else { &Region::ALL };
        for &region in regions {
            let (case, computed) = compute(&folder, &model, region);
            let mut comparison = case.compare(&computed, region).unwrap();
            if region == Region::F16 && folder.ends_with(ON_TILES) && Isa::detect().name() == "amx" {
                eprintln!("{}: the output in f16 is not compared on tiles", folder.display());
                continue;
            }
            if region == Region::F16 && AT_A_KINK.iter().any(|name| folder.ends_with(name)) {
                eprintln!("{}: gradients in f16 are not compared", folder.display());
                comparison.distances.retain(|distance| distance.name == "out");
            }
            let small = (region != Region::F32).then(|| pooled(&mut comparison, &computed)).flatten();
            let found = comparison.failures().into_iter().chain(small);
            failed.extend(found.map(|told| format!("{}: {told}", folder.display())));
        }
    }
    assert!(failed.is_empty(), "{}", failed.join("\n"));
}

#[test]
fn bits_are_the_same_for_any_number_of_threads_and_with_blocks_computed_again() {
    for folder in folders() {
        let config = read_config(&folder).unwrap();
        let run = |threads: usize, again: bool| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| bits(compute(&folder, &model(&config, &folder).recomputing(again), Region::BF16).1))
        };
        let once = run(1, false);
        for (threads, again) in [(2, false), (3, false), (2, true)] {
            assert!(run(threads, again) == once, "{}: {threads} threads, again: {again}", folder.display());
        }
    }
}

#[test]
fn configurations_are_read_as_they_were_written() {
    for folder in folders() {
        let read = read_config(&folder).unwrap();
        let first = model(&read, &folder);
        let written = first.to_config();
        let again = model(&written, &folder);
        assert_eq!(again.to_config(), written, "{}", folder.display());
        // And it is the same model: its tensors, and what it computes.
        let values = |model: &AnyModel| bits(compute(&folder, model, Region::F32).1);
        assert!(values(&again) == values(&first), "{}", folder.display());
        // diffusers writes every key that it knows.
        if read.get("_class_name").is_some() {
            for (key, value) in written.as_object().unwrap() {
                let wanted = &read[key];
                let same = wanted == value || wanted.as_f64().is_some() && wanted.as_f64() == value.as_f64();
                assert!(same, "{}: {key} is {value} and was {wanted}", folder.display());
            }
        }
    }
}
