//! `cargo xtask mutants [ARGS]`: mutation testing of the code that decides how training goes. `.cargo/mutants.toml`
//! names the files, the packages whose tests must notice, and the changes that are known to change nothing, each with
//! its reason. Takes hours: a part of it is `cargo xtask mutants --shard 1/20`, one file `--file
//! 'crates/amp/src/scaler.rs'`.

use std::ffi::OsString;
use std::path::Path;
use std::process::Command;

pub fn run(cargo: &Path, args: &[OsString]) -> Result<(), String> {
    let version = Command::new(cargo).args(["mutants", "--version"]).output();
    if !version.is_ok_and(|out| out.status.success()) {
        return Err("mutation testing needs cargo-mutants: cargo install --locked cargo-mutants".into());
    }
    let mut command = Command::new(cargo);
    command.arg("mutants").args(args).current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/.."));
    // Line tables of tests that run once cost more than they tell.
    command.env("CARGO_PROFILE_DEV_DEBUG", "0");
    let status = command.status().map_err(|e| format!("cannot start {}: {e}", cargo.display()))?;
    if status.success() { Ok(()) } else { Err("mutants survived or were not tried; see mutants.out".into()) }
}
