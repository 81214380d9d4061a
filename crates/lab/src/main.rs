//! The tools that Binade is developed with. `cargo xtask` builds and runs them, and gives them their names.

#![deny(clippy::print_stdout, clippy::print_stderr)]

mod bench;
mod classics;
mod conform;
mod counted;
mod counts;
mod fuzz_files;
mod fuzz_ops;
mod replay;
mod soak;
mod torture;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// The tools that Binade is developed with.
#[derive(Parser)]
#[command(name = "binade-lab", bin_name = "cargo xtask", arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Measure kernels and training steps, beside PyTorch if asked
    Bench(Box<bench::Args>),
    /// Show in miniature what the papers on mixed precision showed
    Classics(classics::Args),
    /// Run recorded cases of operators and report which disagree
    Conform(conform::Args),
    /// Run one kernel for `counts`, or print the names of all
    #[command(hide = true)]
    Counted(counted::Args),
    /// Count the instructions of hot kernels and compare them with those on file
    Counts(counts::Args),
    /// Read damaged files of every kind: none may crash, hang or fill the memory
    FuzzFiles(fuzz_files::Args),
    /// Run random operators on random operands and compare them with the reference
    FuzzOps(fuzz_ops::Args),
    /// Train again what PyTorch trained and compare; or loss scales against recorded ones
    Replay(replay::Args),
    /// Train for long with poisoned samples and dying workers: memory must stay the same
    Soak(soak::Args),
    /// Kill, damage and hinder trainings: each must resume with the same final bits or say what is wrong
    Torture(torture::Args),
}

fn main() -> ExitCode {
    binade::cli::main(|cli: Cli| match cli.command {
        Command::Bench(args) => bench::run(*args),
        Command::Classics(args) => classics::run(&args),
        Command::Conform(args) => conform::run(&args),
        Command::Counted(args) => counted::run(&args),
        Command::Counts(args) => counts::run(&args),
        Command::FuzzFiles(args) => fuzz_files::run(&args),
        Command::FuzzOps(args) => fuzz_ops::run(&args),
        Command::Replay(args) => replay::run(&args),
        Command::Soak(args) => soak::run(&args),
        Command::Torture(args) => torture::run(&args),
    })
}
