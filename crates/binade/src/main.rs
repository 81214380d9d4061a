//! The command line: `binade train`, `binade conform`, `binade formats`, `binade ops`, `binade replay`,
//! `binade inspect`, `binade classics`, `binade bench`, `binade doctor`.

#![deny(clippy::print_stdout, clippy::print_stderr)]

mod bench;
mod classics;
mod conform;
mod doctor;
mod flags;
mod formats;
mod fuzz_ops;
mod inspect;
mod ops;
mod output;
mod replay;
mod threads;
mod train;

use std::io::{self, Write};
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use output::Unwritten;

/// Mixed precision deep learning.
#[derive(Parser)]
#[command(name = "binade", version, arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Train the small CNN in fp32, fp16 and bf16 and compare them
    Train(train::Args),
    /// Run recorded cases of operators and report which disagree
    Conform(conform::Args),
    /// Print the number formats, and what a number becomes in each
    Formats(formats::Args),
    /// Train again what PyTorch trained and compare; or loss scales against recorded ones
    Replay(replay::Args),
    /// Show a run's weights, activations and gradients against the range of each format
    Inspect(inspect::Args),
    /// Show in miniature what the papers on mixed precision showed
    Classics(classics::Args),
    /// Measure kernels and training steps, beside PyTorch if asked
    Bench(bench::Args),
    /// Describe this machine and the recommended precisions
    Doctor(doctor::Args),
    /// Print the page of all operators: autocast class, error bound, rounding in 16 bit
    Ops(ops::Args),
    /// Run random operators on random operands and compare them with the reference
    FuzzOps(fuzz_ops::Args),
}

fn main() -> ExitCode {
    run().unwrap_or_else(|error| {
        if error.downcast_ref().is_some_and(Unwritten::is_unread) {
            return ExitCode::SUCCESS;
        }
        output::note(format_args!("error: {error:#}"));
        let interrupted = matches!(error.downcast_ref(), Some(binade::train::Error::Interrupted { .. }));
        ExitCode::from(if interrupted { 130 } else { 1 })
    })
}

fn run() -> anyhow::Result<ExitCode> {
    let command = match Cli::try_parse() {
        Ok(cli) => cli.command,
        Err(message) => {
            let printed = message.print().and_then(|()| io::stdout().flush());
            // Help and version are results; of an error, the exit code says enough.
            if !message.use_stderr() {
                printed.map_err(Unwritten::new)?;
            }
            return Ok(ExitCode::from(message.exit_code() as u8));
        }
    };
    match command {
        Command::Train(args) => train::run(&args),
        Command::Conform(args) => conform::run(&args),
        Command::Formats(args) => formats::run(&args),
        Command::Replay(args) => replay::run(&args),
        Command::Inspect(args) => inspect::run(&args),
        Command::Classics(args) => classics::run(&args),
        Command::Bench(args) => bench::run(args),
        Command::Doctor(args) => doctor::run(&args),
        Command::Ops(args) => ops::run(&args),
        Command::FuzzOps(args) => fuzz_ops::run(&args),
    }
}
