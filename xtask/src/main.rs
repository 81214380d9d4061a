//! `cargo xtask CMD …` builds the `binade` binary in release mode and runs `binade CMD …`.

use std::process::{Command, ExitCode};

fn main() -> ExitCode {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command
        .args(["run", "--quiet", "--release", "--package", "binade", "--features", "cli", "--"])
        .args(std::env::args_os().skip(1));
    // Ctrl-C goes to the whole foreground group: the child saves its state, so this process waits for it.
    if let Err(e) = ctrlc::set_handler(|| {}) {
        eprintln!("warning: Ctrl-C will not save the run: {e}");
    }
    match command.status() {
        Ok(status) => ExitCode::from(status.code().map_or(1, |c| c as u8)),
        Err(e) => {
            eprintln!("error: cannot start cargo: {e}");
            ExitCode::FAILURE
        }
    }
}
