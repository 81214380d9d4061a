//! How fast weights of GPT-2 124M's size are loaded and saved, beside reading the file, and how much memory that takes.
//!
//!     cargo run --release -p binade-weights --example speed -- FOLDER

#![allow(clippy::print_stdout, reason = "an example prints")]

use std::io::Read;
use std::path::PathBuf;
use std::time::Instant;

use binade_cpu as _;
use binade_nn::{Init, Module, Param, Visitor, without_initial_values};
use binade_weights::{LoadOptions, SaveOptions, Source, Sources, Weights, load, save};

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

fn net() -> Result<Net, Box<dyn std::error::Error>> {
    let param = |rows: usize, columns: usize| Param::init(&[rows, columns], Init::Normal { mean: 0.0, std: 0.02 });
    let block = || {
        Ok::<Block, binade_nn::Error>(Block {
            c_attn: param(2304, 768)?,
            c_proj: param(768, 768)?,
            c_fc: param(3072, 768)?,
            mlp: param(768, 3072)?,
        })
    };
    let h = (0..12).map(|_| block()).collect::<Result<Vec<Block>, _>>()?;
    Ok(Net { wte: param(50257, 768)?, wpe: param(1024, 768)?, h })
}

/// Memory of the process that is no file's, in MiB: now, or the most so far with files.
fn mib(key: &str) -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix(key)).unwrap_or_default();
    line.trim().trim_end_matches(" kB").parse().unwrap_or(0) >> 10
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let folder = PathBuf::from(std::env::args().nth(1).ok_or("a folder, please")?);
    let transposed = |name: String| (name.clone(), Source::Transposed(name));
    let names = (0..12).flat_map(|i| ["c_attn", "c_proj", "c_fc", "mlp"].map(|part| format!("h.{i}.{part}")));
    let sources = Sources { sources: names.map(transposed).collect(), ignored: vec![] };
    let plain = Sources::default();
    for (what, sources) in [("as they are", &plain), ("transposed", &sources)] {
        let folder = folder.join(what.replace(' ', "-"));
        let model = without_initial_values(net)?;
        let start = Instant::now();
        save(&model, &folder, sources, &SaveOptions::default())?;
        println!(
            "{what}: saved in {:.3} s, {} MiB of the process's own",
            start.elapsed().as_secs_f64(),
            mib("RssAnon:")
        );
        drop(model);
        let file = folder.join("model.safetensors");
        for _ in 0..3 {
            let (start, mut buffer, mut bytes) = (Instant::now(), vec![0; 128 << 10], 0);
            let mut open = std::fs::File::open(&file)?;
            while let n @ 1.. = open.read(&mut buffer)? {
                bytes += n;
            }
            let cat = start.elapsed().as_secs_f64();
            let start = Instant::now();
            let model = without_initial_values(net)?;
            load(&model, &Weights::open(&file)?, sources, &LoadOptions::default())?;
            let loaded = start.elapsed().as_secs_f64();
            println!(
                "{what}: {} MiB read in {cat:.3} s, loaded in {loaded:.3} s, {} MiB of the process's own",
                bytes >> 20,
                mib("RssAnon:")
            );
        }
    }
    Ok(())
}
