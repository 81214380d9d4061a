//! `cargo xtask COMMAND …` builds a program of the workspace in release mode and runs it: the tools of `crates/lab`, or
//! `binade` itself. Those of [`OWN`] are commands of this program. Where `BINADE_PROGRAMS` names a folder with both,
//! they are run as they are, and nothing is built.

#![deny(clippy::print_stdout, clippy::print_stderr)]

mod gpu_pack;
mod mutants;
mod output;
mod ptx;
mod tidy;

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

/// Commands of `crates/lab`, as its own help lists them.
const LAB: [(&str, &str); 9] = [
    ("bench", "Measure kernels and training steps, beside PyTorch if asked"),
    ("classics", "Show in miniature what the papers on mixed precision showed"),
    ("conform", "Run recorded cases of operators and report which disagree"),
    ("counts", "Count the instructions of hot kernels and compare them with those on file"),
    ("fuzz-files", "Read damaged files of every kind: none may crash, hang or fill the memory"),
    ("fuzz-ops", "Run random operators on random operands and compare them with the reference"),
    ("replay", "Train again what PyTorch trained and compare; or loss scales against recorded ones"),
    ("soak", "Train for long with poisoned samples and dying workers: memory must stay the same"),
    ("torture", "Kill, damage and hinder trainings: each must resume with the same final bits or say what is wrong"),
];

/// Commands of this program.
const OWN: [(&str, &str); 4] = [
    ("gpu-pack", "Write a folder that tries everything on a machine with a GPU and no toolchain"),
    (
        "mutants",
        "Make small wrong changes to the training code and see which tests notice, for hours; flags are cargo-mutants'",
    ),
    (
        "ptx",
        "Compile the kernels of crates/cuda with NVRTC, or --check that what is there is what they give; \
         mutants: break them and see who notices; speed: of the interpreter",
    ),
    ("tidy", "Check the source and the texts for what the compiler does not"),
];

fn main() -> ExitCode {
    let cargo = PathBuf::from(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    let args: Vec<OsString> = std::env::args_os().skip(1).collect();
    let first = args.first().and_then(|first| first.to_str());
    match first {
        Some("gpu-pack") => return exit_code(gpu_pack::run(&cargo, &args[1..])),
        Some("mutants") => return exit_code(mutants::run(&cargo, &args[1..])),
        Some("ptx") => return exit_code(ptx::run(&cargo, &args[1..])),
        Some("tidy") => return exit_code(tidy::run(&cargo, &args[1..])),
        _ => {}
    }
    let asks_for_help = args.len() <= 1 && matches!(first, None | Some("--help" | "-h" | "help"));
    if asks_for_help && let Err(message) = output::line(&help()) {
        return exit_code(Err(message));
    }
    let program = if LAB.iter().any(|(command, _)| first == Some(command)) { "binade-lab" } else { "binade" };
    let mut command = match std::env::var_os("BINADE_PROGRAMS") {
        Some(built) => Command::new(PathBuf::from(built).join(program)),
        None => {
            // It runs the other program, which lies beside its own.
            if first == Some("torture")
                && let Err(message) = build(&cargo, "binade")
            {
                return exit_code(Err(message));
            }
            let fetches = first == Some("data") && args.iter().any(|arg| arg == "--to");
            built_and_run(&cargo, program, fetches)
        }
    };
    command.args(args);
    run(command)
}

/// Chosen from the whole workspace, so that both programs are built on the same crates with the same features. HTTP is
/// built for what fetches alone.
fn built_and_run(cargo: &Path, program: &str, fetches: bool) -> Command {
    let manifest = concat!(env!("CARGO_MANIFEST_DIR"), "/../Cargo.toml");
    let mut command = Command::new(cargo);
    command.args(["run", "--quiet", "--release", "--manifest-path", manifest, "--bin", program]);
    if fetches {
        command.args(["--features", "binade/fetch"]);
    }
    command.arg("--");
    command
}

fn build(cargo: &Path, program: &str) -> Result<(), String> {
    let manifest = concat!(env!("CARGO_MANIFEST_DIR"), "/../Cargo.toml");
    let args = ["build", "--quiet", "--release", "--manifest-path", manifest, "--bin", program];
    let status =
        Command::new(cargo).args(args).status().map_err(|e| format!("cannot start {}: {e}", cargo.display()))?;
    if status.success() { Ok(()) } else { Err(format!("{program} does not build")) }
}

/// Before the help of `binade`, which knows nothing of these.
fn help() -> String {
    let list = |commands: &[(&str, &str)]| -> String {
        commands.iter().map(|(name, what)| format!("  {name:<8}  {what}\n")).collect()
    };
    format!(
        "Usage: cargo xtask <COMMAND>\n\nCommands of xtask:\n{}\nTools of crates/lab, built in release mode:\n{}\n\
         All other commands are those of the program binade, built in release mode:\n",
        list(&OWN),
        list(&LAB)
    )
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

/// This process becomes cargo, and cargo becomes the program: signals reach the program that saves its state, and its
/// exit code is ours.
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
