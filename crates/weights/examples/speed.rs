//! How fast weights of GPT-2 124M's size are loaded and saved, beside reading the file, and how much memory that takes;
//! the same of a checkpoint with AdamW's state.
//!
//!     cargo run --release -p binade-weights --example speed -- FOLDER

#![allow(clippy::print_stdout, reason = "an example prints")]

use std::collections::HashMap;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use binade_cpu as _;
use binade_nn::{
    AdamW, Init, Module, Optimizer, OptimizerState, Param, ParamState, TensorFile, Visitor, state_dict,
    without_initial_values, write_safetensors,
};
use binade_tensor::{Array, Class, DType, Device};
use binade_weights::{LoadOptions, SaveOptions, Source, Sources, Weights, load, save};

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

#[derive(Clone, Module)]
struct Net {
    wte: Param,
    wpe: Param,
    h: Vec<Block>,
}

#[derive(Clone, Module)]
struct Block {
    c_attn: Param,
    c_proj: Param,
    c_fc: Param,
    mlp: Param,
}

fn net() -> Result<Net> {
    let param = |rows: usize, columns: usize| Param::init(&[rows, columns], Init::Normal { mean: 0.0, std: 0.02 });
    let block = || {
        Ok::<Block, binade_nn::Error>(Block {
            c_attn: param(2304, 768)?,
            c_proj: param(768, 768)?,
            c_fc: param(3072, 768)?,
            mlp: param(768, 3072)?,
        })
    };
    let h = (0..12).map(|_| block()).collect::<std::result::Result<Vec<Block>, _>>()?;
    Ok(Net { wte: param(50257, 768)?, wpe: param(1024, 768)?, h })
}

/// Memory of the process that is no file's, in bytes; 0 where the system does not tell.
fn anonymous() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).unwrap_or_default();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap_or(0) << 10
}

/// Runs a function, with its time and the most memory that the process had meanwhile.
fn watched<T>(f: impl FnOnce() -> Result<T>) -> Result<(T, f64, u64)> {
    let (done, most) = (AtomicBool::new(false), AtomicU64::new(anonymous()));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Relaxed) {
                most.fetch_max(anonymous(), Relaxed);
                std::thread::sleep(Duration::from_millis(1));
            }
        });
        let start = Instant::now();
        let result = f();
        let seconds = start.elapsed().as_secs_f64();
        most.fetch_max(anonymous(), Relaxed);
        done.store(true, Relaxed);
        Ok((result?, seconds, most.load(Relaxed)))
    })
}

/// What `cat FILE >/dev/null` takes, of a file that the system has in memory.
fn read(file: &Path) -> Result<(u64, f64)> {
    let (start, mut buffer, mut bytes) = (Instant::now(), vec![0; 128 << 10], 0);
    let mut open = std::fs::File::open(file)?;
    while let n @ 1.. = open.read(&mut buffer)? {
        bytes += n as u64;
    }
    Ok((bytes, start.elapsed().as_secs_f64()))
}

/// A line of what was done to so many bytes.
fn say(what: &str, bytes: u64, seconds: f64, most: u64) {
    let (mib, ratio) = (bytes >> 20, most as f64 / bytes as f64);
    println!(
        "{what}: {mib} MiB in {seconds:.3} s, {} MiB of the process's own at most, {ratio:.3} of them",
        most >> 20
    );
}

fn main() -> Result<()> {
    let folder = PathBuf::from(std::env::args().nth(1).ok_or("a folder, please")?);
    let transposed = |name: String| (name.clone(), Source::Transposed(name));
    let names = (0..12).flat_map(|i| ["c_attn", "c_proj", "c_fc", "mlp"].map(|part| format!("h.{i}.{part}")));
    let sources = Sources { sources: names.map(transposed).collect(), ignored: vec![] };
    for (what, sources) in [("as they are", &Sources::default()), ("transposed", &sources)] {
        let folder = folder.join(what.replace(' ', "-"));
        let model = net()?;
        let bytes = 4 * model.parameter_count() as u64;
        let (_, seconds, most) = watched(|| Ok(save(&model, &folder, sources, &SaveOptions::default())?))?;
        say(&format!("saved {what}"), bytes, seconds, most);
        drop(model);
        let file = folder.join("model.safetensors");
        for _ in 0..3 {
            let (_, cat) = read(&file)?;
            let loading = || {
                let model = without_initial_values(|| net().map_err(|error| error.to_string()))?;
                load(&model, &Weights::open(&file)?, sources, &LoadOptions::default())?;
                Ok(model)
            };
            let (_model, seconds, most) = watched(loading)?;
            say(&format!("loaded {what}, {:.2} times as long as cat", seconds / cat), bytes, seconds, most);
        }
    }
    checkpoint(&folder.join("checkpoint.safetensors"))
}

/// A model with two moments of each parameter, written and read as a run does.
fn checkpoint(path: &Path) -> Result<()> {
    let model = net()?;
    let params = model.named_parameters();
    let moment = |i: usize| -> Result<Vec<(String, Array)>> {
        let of = |(name, param): &(String, Param)| -> Result<(String, Array)> {
            let shape = *param.array().shape();
            Ok((format!("{name}.{i}"), Array::full(&Device::cpu(), DType::F32, shape, 0.5, Class::Optimizer)?))
        };
        params.iter().map(of).collect()
    };
    let state: Vec<(String, Array)> = [moment(0)?, moment(1)?].concat();
    let weights = state_dict(&model).into_iter().map(|(name, array)| (format!("model.{name}"), array));
    let tensors: Vec<(String, Array)> = weights.chain(state).collect();
    let bytes = 12 * model.parameter_count() as u64;
    let (_, seconds, most) = watched(|| Ok(write_safetensors(path, &tensors, HashMap::new())?))?;
    say("checkpoint written", bytes, seconds, most);
    drop((tensors, model, params));
    let (_, cat) = read(path)?;
    let reading = || {
        let model = without_initial_values(|| net().map_err(|error| error.to_string()))?;
        let mut optimizer = Optimizer::new(&model, AdamW::default())?;
        let file = TensorFile::open(path)?;
        let state = file.names().iter().filter(|name| !name.starts_with("model.")).cloned().collect::<Vec<_>>();
        let tensors = file.arrays(&state, Class::Optimizer)?;
        let one = |(name, _): (String, Param)| ParamState { name, rule: "adamw".into(), steps: 1 };
        let params = model.named_parameters().into_iter().map(one).collect();
        optimizer.load_state_dict(&OptimizerState { params, lr_factor: 1.0, tensors })?;
        file.load(&model, "model.")?;
        Ok((model, optimizer))
    };
    let (_both, seconds, most) = watched(reading)?;
    say(&format!("checkpoint read, {:.2} times as long as cat", seconds / cat), bytes, seconds, most);
    Ok(())
}
