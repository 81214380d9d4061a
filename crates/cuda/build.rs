//! Compresses the PTX of `kernels/`, so that a program has it a sixth as large. Needs no tool of CUDA.

use std::error::Error;
use std::fs::File;
use std::path::{Path, PathBuf};

use flate2::Compression;
use flate2::write::GzEncoder;

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed=kernels");
    let out = PathBuf::from(std::env::var_os("OUT_DIR").ok_or("cargo names no folder for what is built")?);
    for entry in std::fs::read_dir("kernels")? {
        let path = entry?.path();
        let Some(name) = path.file_name().and_then(|name| name.to_str()) else { continue };
        if Path::new(name).extension().is_some_and(|kind| kind == "ptx") {
            let mut encoder = GzEncoder::new(File::create(out.join(format!("{name}.gz")))?, Compression::default());
            std::io::copy(&mut File::open(&path)?, &mut encoder)?;
            encoder.finish()?;
        }
    }
    Ok(())
}
