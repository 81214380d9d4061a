//! Everything that reads a file of the user's: whole files for it, and how it reads them.

use std::io::{Read, Write};
use std::path::Path;

use anyhow::{Context, Result};
use binade::cli::archive::unpack;
use binade::cli::config_file::expand;
use binade::nn::{Linear, TensorFile, read_safetensors, write_safetensors};
use binade::tensor::{Class, DType};
use binade::train::images::Dataset;
use binade::train::{
    Classify, Config, Corpus, Form, InMemory, Pixels, Precision, Recorded, RunConfig, Splits, Tokenizer, Trainer,
    Vocabulary, png, read_sealed, report,
};
use binade::weights::{LoadOptions, Sources, Weights, load};
use clap::{Arg, ArgAction, Command};
use serde_json::Value;

use super::forms::{self, Draw};

/// Files of a kind and their reader.
pub struct Loader {
    pub name: &'static str,
    /// Names and contents.
    pub whole: Vec<(String, Vec<u8>)>,
    /// Reads a file of a folder that has them all: false where it is refused.
    pub read: fn(folder: &Path, name: &str) -> bool,
    /// A change that no checksum shows.
    pub sealed: Option<fn(path: &Path, draw: &mut Draw) -> Result<()>>,
}

/// Of a kind whose files have no checksum.
fn plain(name: &'static str, whole: Vec<(String, Vec<u8>)>, read: fn(&Path, &str) -> bool) -> Loader {
    Loader { name, whole, read, sealed: None }
}

fn file(name: &str, bytes: impl Into<Vec<u8>>) -> (String, Vec<u8>) {
    (name.into(), bytes.into())
}

/// All of them; the files of a run are those of one that is trained here, in the folder.
pub fn all(folder: &Path) -> Result<Vec<Loader>> {
    let run = run(&folder.join("trained"))?;
    Ok(vec![
        plain("weights", forms::weights(), |folder, name| weights(&folder.join(name))),
        plain("cifar", cifar(), |folder, name| {
            let set = if name.contains("batch") { Dataset::Cifar10 } else { Dataset::Cifar100 };
            set.load(Some(folder)).is_ok()
        }),
        plain("idx", idx()?, |folder, _| Dataset::Mnist.load(Some(folder)).is_ok()),
        plain("images", images()?, |folder, name| {
            let read = Pixels::open(&folder.join(name)).and_then(|image| image.with_channels(3)).is_ok();
            let _form = Form::of(folder);
            read
        }),
        plain("text", vec![file("t.txt", "To be, or not to be: \u{e9}\u{1d11e}.\n".repeat(9))], |folder, name| {
            corpus(&folder.join(name), &Tokenizer::Characters)
        }),
        plain("tokens", tokens(), |folder, name| {
            corpus(&folder.join(name), &Tokenizer::Known(Vocabulary::Numbers { size: 40_000 }))
        }),
        plain("toml", vec![file("c.toml", TOML)], |folder, name| toml(&folder.join(name))),
        plain("archive", vec![file("a.tar.gz", archive()?)], |folder, name| {
            let to = folder.join("to");
            let unpacked = std::fs::create_dir_all(&to).is_ok()
                && unpack(&folder.join(name), &[("train.bin", 700), ("test.bin", 300)], &to).is_ok();
            // Whatever the archive says, nothing else is written.
            let mut below = std::fs::read_dir(&to).into_iter().flatten().flatten();
            assert!(below.all(|entry| entry.file_name() == "train.bin" || entry.file_name() == "test.bin"));
            unpacked
        }),
        plain("run", run.iter().filter(|(name, _)| name != CHECKPOINT).cloned().collect(), |folder, _| {
            let sealed = read_sealed::<Value>(&folder.join("model.json")).is_ok();
            let settings = RunConfig::read(folder).is_ok();
            let told = Recorded::open(folder).is_ok() && report(&[folder.to_path_buf()]).is_ok();
            sealed && settings && told
        }),
        Loader {
            name: "checkpoint",
            whole: run,
            read: |folder, _| {
                let task = Classify::new(3);
                let data = data();
                let Ok((data, config)) = data.and_then(|data| Ok((data, RunConfig::read(folder)?))) else {
                    return false;
                };
                Trainer::new(|| Linear::new(4, 3), &task, &data).evaluate(folder, &config).is_ok()
            },
            sealed: Some(resealed),
        },
    ])
}

/// Whether a file is read, by everything that reads weights.
fn weights(path: &Path) -> bool {
    if let Ok(file) = TensorFile::open(path) {
        let _arrays = file.arrays(file.names(), Class::Workspace);
    }
    let Ok(weights) = Weights::open(path) else { return false };
    for name in weights.names() {
        // Refused where they repeat what is not there.
        let _range = weights.range(&name, &[DType::F16, DType::BF16]);
    }
    if let Ok(layer) = Linear::new(3, 2) {
        let options = LoadOptions { strict: false, allow_overflow: true, allow_nan: true };
        let _report = load(&layer, &weights, &Sources::default(), &options);
    }
    true
}

fn cifar() -> Vec<(String, Vec<u8>)> {
    let images = |label: &[u8]| [label, &[7; 3072]].concat().repeat(2);
    vec![
        file("data_batch_1.bin", images(&[3])),
        file("test_batch.bin", images(&[9])),
        file("train.bin", images(&[19, 99])),
        file("test.bin", images(&[0, 0])),
    ]
}

/// Two images of 3 × 2 and their labels, and the same packed.
fn idx() -> Result<Vec<(String, Vec<u8>)>> {
    let images: Vec<u8> = [&[0, 0, 8, 3, 0, 0, 0, 2, 0, 0, 0, 3, 0, 0, 0, 2][..], &[200; 12]].concat();
    let labels = [0, 0, 8, 1, 0, 0, 0, 2, 4, 9];
    Ok(vec![
        file("train-images-idx3-ubyte", images.clone()),
        file("train-labels-idx1-ubyte", labels),
        file("t10k-images-idx3-ubyte.gz", packed(&images)?),
        file("t10k-labels-idx1-ubyte.gz", packed(&labels)?),
    ])
}

fn packed(bytes: &[u8]) -> Result<Vec<u8>> {
    let mut out = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    out.write_all(bytes)?;
    Ok(out.finish()?)
}

fn images() -> Result<Vec<(String, Vec<u8>)>> {
    let pixels: Vec<u8> = (0..9 * 7 * 4).map(|i| (i * 5) as u8).collect();
    Ok(vec![
        file("grey.png", png(9, 1, &pixels[..63])?),
        file("clear.png", png(9, 4, &pixels)?),
        file("colours.jpg", include_bytes!("../../../train/tests/images/colours.jpg")),
        file("progressive.jpg", include_bytes!("../../../train/tests/images/progressive.jpg")),
        file("cmyk.jpg", include_bytes!("../../../train/tests/images/cmyk.jpg")),
    ])
}

/// Tokens of nanoGPT, and of llm.c in 16 and in 32 bits.
fn tokens() -> Vec<(String, Vec<u8>)> {
    let tokens: Vec<u16> = (0..120).map(|i| i * 331 % 39_000).collect();
    let narrow: Vec<u8> = tokens.iter().flat_map(|token| token.to_le_bytes()).collect();
    let wide: Vec<u8> = tokens.iter().flat_map(|token| u32::from(*token).to_le_bytes()).collect();
    let header = |magic: u32, version: u32| -> Vec<u8> {
        let mut numbers = [0u32; 256];
        numbers[..3].copy_from_slice(&[magic, version, 120]);
        numbers.iter().flat_map(|number| number.to_le_bytes()).collect()
    };
    vec![
        file("n.bin", narrow.clone()),
        file("c.bin", [header(20_240_520, 1), narrow].concat()),
        file("d.bin", [header(20_240_801, 7), wide].concat()),
    ]
}

/// Whether a text is read, with its first and last window.
fn corpus(path: &Path, tokenizer: &Tokenizer) -> bool {
    let Ok(splits) = Corpus::open(path, tokenizer).and_then(|corpus| corpus.splits(4, 5, 2)) else { return false };
    [splits.train, splits.test].iter().all(|data| !data.is_empty() && data.sample(data.len() - 1, None).is_ok())
}

const TOML: &str = "# A run.\nlr = 1e-3\nepochs = 3\nbetas = [0.9, 0.95]\nkeep_best = true\nout = \"runs/a\"\n";

fn toml(path: &Path) -> bool {
    let flag = |name: &'static str| Arg::new(name).long(name);
    let train = Command::new("train").args([flag("config"), flag("lr"), flag("epochs"), flag("out")]);
    let train = train.arg(flag("betas").num_args(2)).arg(flag("keep-best").action(ArgAction::SetTrue));
    let line = ["binade", "train", "--config"].map(Into::into).into_iter().chain([path.into()]);
    expand(line, &Command::new("binade").subcommand(train)).is_ok()
}

fn archive() -> Result<Vec<u8>> {
    let mut tar = tar::Builder::new(Vec::new());
    for (name, size) in [("set/train.bin", 700), ("set/test.bin", 300), ("set/readme", 40)] {
        let mut header = tar::Header::new_gnu();
        header.set_size(size);
        header.set_mode(0o644);
        tar.append_data(&mut header, name, std::io::repeat(5).take(size))?;
    }
    packed(&tar.into_inner()?)
}

const CHECKPOINT: &str = "checkpoint-bf16.safetensors";

fn data() -> binade::train::Result<Splits> {
    let samples = |n: usize| InMemory::classes(vec![0.5; n * 4], &[4], &(0..n).map(|i| i % 3).collect::<Vec<_>>());
    Ok(Splits::new(samples(12)?, samples(6)?))
}

/// Trains for two epochs: the files of its folder.
fn run(folder: &Path) -> Result<Vec<(String, Vec<u8>)>> {
    let (task, data) = (Classify::new(3), data()?);
    let fit = Config { epochs: 2, batch_size: 6, ema: Some(0.9), keep_best: true, ..Config::default() };
    let config = RunConfig {
        precisions: vec![Precision::Bf16],
        fit,
        out: Some(folder.into()),
        quiet: true,
        ..RunConfig::default()
    };
    let trainer = Trainer::new(|| Linear::new(4, 3), &task, &data);
    trainer.with_file("model.json", serde_json::json!({ "classes": ["a", "b", "c"], "size": 4 })).run(&config)?;
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if path.is_file() && name != ".lock" && name != "report.html" {
            files.push((name, std::fs::read(&path).with_context(|| path.display().to_string())?));
        }
    }
    files.sort();
    Ok(files)
}

/// Changes the texts or the tensors of a checkpoint, whose checksum is right again.
fn resealed(path: &Path, draw: &mut Draw) -> Result<()> {
    let path = path.with_file_name(CHECKPOINT);
    let Ok((mut tensors, mut metadata)) = read_safetensors(&path, Class::Workspace) else { return Ok(()) };
    match draw.below(3) {
        0 => {
            tensors.remove(draw.below(tensors.len()));
        }
        1 => {
            let at = draw.below(tensors.len());
            tensors[at].0 = format!("optimizer9.{}", tensors[at].0);
        }
        _ => {
            for text in metadata.values_mut() {
                let (_, bytes) = forms::damaged(&[file("", text.as_bytes())], draw);
                *text = String::from_utf8_lossy(&bytes).into_owned();
            }
        }
    }
    Ok(write_safetensors(&path, &tensors, metadata)?)
}
