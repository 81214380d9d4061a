//! `cargo xtask ptx mutants [TEXT]` and `cargo xtask ptx speed`: programs of `crates/cuda` on the interpreter.
//! They need neither NVRTC nor a GPU.

use std::ffi::OsString;
use std::path::Path;
use std::process::Command;

const MANIFEST: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../Cargo.toml");

/// Whether faults that are put into kernels are flagged, each by the check that should see it. Of those whose module,
/// kernel or description has a text in it, if one is given.
pub fn mutants(cargo: &Path, args: &[OsString]) -> Result<(), String> {
    let mut command = Command::new(cargo);
    // With the features that all tests have, so that nothing is built twice.
    command.args(["test", "--quiet", "--manifest-path", MANIFEST, "--workspace", "--test", "cuda", "--"]);
    command.args(["--exact", "mutants::every_mutant_is_flagged_by_the_check_that_should_see_it"]);
    // Set at all, it asks for what is said of each.
    match args {
        [] => command.env("BINADE_MUTANTS", ""),
        [text] => command.env("BINADE_MUTANTS", text),
        _ => return Err("usage: cargo xtask ptx mutants [TEXT]".into()),
    };
    run(command, "mutants are not flagged")
}

/// How many instructions of lanes the interpreter executes in a second.
pub fn speed(cargo: &Path) -> Result<(), String> {
    let mut command = Command::new(cargo);
    command.args(["run", "--quiet", "--release", "--manifest-path", MANIFEST]);
    command.args(["--package", "binade-cuda", "--example", "interpreted_speed"]);
    run(command, "it failed")
}

fn run(mut command: Command, failed: &str) -> Result<(), String> {
    let status = command.status().map_err(|e| format!("cannot start {}: {e}", command.get_program().display()))?;
    if status.success() { Ok(()) } else { Err(failed.into()) }
}
