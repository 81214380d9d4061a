//! `cargo xtask CMD …` builds the `binade` binary in release mode and runs `binade CMD …`; `cargo xtask counts` and
//! `cargo xtask mutants` are commands of their own.

#![deny(clippy::print_stdout, clippy::print_stderr)]

mod counts;
mod mutants;
mod output;

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::{Command, ExitCode};

/// Before the help of `binade`, which knows nothing of these.
const HELP: &str = "\
Usage: cargo xtask <COMMAND>

Commands of xtask:
  counts [--bless]  Count the instructions of hot kernels and compare them with xtask/counts.txt, or write that file
  mutants [ARGS]    Make small wrong changes to the training code and see which tests notice, for hours; ARGS are those of cargo-mutants

All other commands are those of the program binade, built in release mode:
";

fn main() -> ExitCode {
    let cargo = PathBuf::from(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    let args: Vec<OsString> = std::env::args_os().skip(1).collect();
    match args.split_first() {
        Some((first, rest)) if first == "counts" => return exit_code(counts::run(&cargo, rest)),
        Some((first, rest)) if first == "mutants" => return exit_code(mutants::run(&cargo, rest)),
        Some(_) | None => {}
    }
    let asks_for_help = |first: &OsString| ["--help", "-h", "help"].iter().any(|help| first == help);
    if (args.is_empty() || args.len() == 1 && asks_for_help(&args[0]))
        && let Err(message) = output::line(HELP)
    {
        return exit_code(Err(message));
    }
    let mut command = Command::new(cargo);
    command.args(["run", "--quiet", "--release", "--package", "binade", "--features", "cli", "--"]).args(args);
    run(command)
}

fn exit_code(result: Result<(), String>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            output::note(&format!("error: {message}"));
            ExitCode::FAILURE
        }
    }
}

/// This process becomes cargo, and cargo becomes `binade`: signals reach the program that saves its state, and its exit
/// code is ours.
#[cfg(unix)]
fn run(mut command: Command) -> ExitCode {
    let error = std::os::unix::process::CommandExt::exec(&mut command);
    not_started(&command, &error)
}

/// Ctrl-C goes to all processes of the console: the child saves its state, so this one waits for it.
#[cfg(not(unix))]
fn run(mut command: Command) -> ExitCode {
    if let Err(e) = ctrlc::set_handler(|| {}) {
        output::note(&format!("warning: Ctrl-C will not save the run: {e}"));
    }
    match command.status() {
        Ok(status) => ExitCode::from(status.code().map_or(1, |c| c as u8)),
        Err(e) => not_started(&command, &e),
    }
}

fn not_started(command: &Command, error: &std::io::Error) -> ExitCode {
    exit_code(Err(format!("cannot start {}: {error}", command.get_program().display())))
}
