//! `cargo xtask CMD …` builds the `binade` binary in release mode and runs `binade CMD …`; `cargo xtask counts` is a command of its own.

mod counts;

use std::path::PathBuf;
use std::process::{Command, ExitCode};

fn main() -> ExitCode {
    let cargo = PathBuf::from(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    let mut args = std::env::args_os().skip(1).peekable();
    if args.next_if(|first| first == "counts").is_some() {
        let args: Vec<String> = args.map(|a| a.to_string_lossy().into_owned()).collect();
        return match counts::run(&cargo, &args) {
            Ok(()) => ExitCode::SUCCESS,
            Err(message) => {
                eprintln!("error: {message}");
                ExitCode::FAILURE
            }
        };
    }
    let mut command = Command::new(cargo);
    command.args(["run", "--quiet", "--release", "--package", "binade", "--features", "cli", "--"]).args(args);
    run(command)
}

/// This process becomes cargo, and cargo becomes `binade`: signals reach the program that saves its state, and its exit code is ours.
#[cfg(unix)]
fn run(mut command: Command) -> ExitCode {
    let error = std::os::unix::process::CommandExt::exec(&mut command);
    not_started(&command, &error)
}

/// Ctrl-C goes to all processes of the console: the child saves its state, so this one waits for it.
#[cfg(not(unix))]
fn run(mut command: Command) -> ExitCode {
    if let Err(e) = ctrlc::set_handler(|| {}) {
        eprintln!("warning: Ctrl-C will not save the run: {e}");
    }
    match command.status() {
        Ok(status) => ExitCode::from(status.code().map_or(1, |c| c as u8)),
        Err(e) => not_started(&command, &e),
    }
}

fn not_started(command: &Command, error: &std::io::Error) -> ExitCode {
    eprintln!("error: cannot start {}: {error}", command.get_program().display());
    ExitCode::FAILURE
}
