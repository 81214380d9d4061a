//! `cargo xtask tidy`: the checks of `crates/tidy`. A crate apart, since a parser of Rust is more than other commands
//! need.

use std::path::Path;
use std::process::Command;

pub fn run(cargo: &Path, args: &[std::ffi::OsString]) -> Result<(), String> {
    if !args.is_empty() {
        return Err("usage: cargo xtask tidy".into());
    }
    let manifest = concat!(env!("CARGO_MANIFEST_DIR"), "/../Cargo.toml");
    let mut command = Command::new(cargo);
    command.args(["run", "--quiet", "--manifest-path", manifest, "--bin", "binade-tidy"]);
    let status = command.status().map_err(|e| format!("cannot start {}: {e}", cargo.display()))?;
    if status.success() { Ok(()) } else { Err("the source is not tidy".into()) }
}
