//! Packs scikit-learn's `digits.csv.gz` into the embedded form: 65 bytes per image, then gzip.

use binade_cpu as _;
use std::io::{Read, Write};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let args: Vec<String> = std::env::args().collect();
    let [_, from, to] = args.as_slice() else { return Err("usage: pack_digits digits.csv.gz digits.bin.gz".into()) };
    let mut text = String::new();
    flate2::read::GzDecoder::new(std::fs::File::open(from)?).read_to_string(&mut text)?;
    let mut bytes = Vec::new();
    for line in text.lines() {
        for value in line.split(',') {
            bytes.push(value.trim().parse::<f64>()? as u8);
        }
    }
    let mut out = flate2::write::GzEncoder::new(std::fs::File::create(to)?, flate2::Compression::best());
    out.write_all(&bytes)?;
    out.finish()?;
    println!("{} images", bytes.len() / 65);
    Ok(())
}
