//! The command line. Around a run: `binade train`, `binade inspect`, `binade evaluate`, `binade watch`,
//! `binade compare`, `binade report`, `binade predict`, `binade sample`. Of models before they run: `binade summary`,
//! `binade memory`, `binade profile`. Of models' files: `binade weights`, `binade convert`, `binade export`,
//! `binade parity`. Of data: `binade data`. Of the machine and this program: `binade formats`, `binade doctor`,
//! `binade ops`, `binade completions`, `binade man`.

#![deny(clippy::print_stdout, clippy::print_stderr)]

mod compare;
mod convert;
mod data;
mod doctor;
mod evaluate;
mod export;
mod formats;
mod inspect;
mod memory;
mod ops;
mod parity;
mod predict;
mod profile;
mod report;
mod sample;
mod saved;
mod shell;
mod summary;
mod train;
mod watch;
mod weights;

use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand};

const EXIT_CODES: &str = "Exit codes: 0 done; 1 an error, or a check that found something; 2 a command line that \
                          cannot be read; 130 ended by Ctrl-C, a hangup or a termination signal, with a checkpoint";

/// Mixed precision deep learning.
#[derive(Parser)]
// A flag given twice has its last value: those of a file come first.
#[command(name = "binade", version, arg_required_else_help = true, args_override_self = true)]
#[command(after_help = EXIT_CODES)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Train a model in fp32, fp16 and bf16 and compare them
    Train(Box<train::Args>),
    /// Evaluate the models of a run on the test data
    Evaluate(evaluate::Args),
    /// Show a run while it is trained: curves, loss scale, speed, skipped steps
    Watch(watch::Args),
    /// Show results of runs side by side, and the settings that differ
    Compare(compare::Args),
    /// Write a page about runs: curves to look into, what was skipped and why, memory, settings
    Report(report::Args),
    /// Say where the time of training steps goes, by phase, operator and layer
    Profile(profile::Args),
    /// Say which classes a model finds in images
    Predict(predict::Args),
    /// Draw images or write text, with a run or another library's model
    Sample(Box<sample::Args>),
    /// List the data sets there are, check files that hold one, write samples of it
    Data(data::Args),
    /// Print the number formats, and what a number becomes in each
    Formats(formats::Args),
    /// Show a run's weights, activations and gradients against the range of each format
    Inspect(inspect::Args),
    /// Say what a training step takes, of each class and by recipe, before it is spent
    Memory(memory::Args),
    /// List a model's layers: shapes, parameters, dtypes, work and memory
    Summary(summary::Args),
    /// Describe this machine and the recommended precisions
    Doctor(doctor::Args),
    /// List the tensors of a file or folder, how large they are, and what formats would lose of them
    Weights(weights::Args),
    /// Write a model's folder in another dtype, under other names or in other shards
    Convert(convert::Args),
    /// Write a trained run or a model's folder for inference: in f32, f16, bf16, or with 8-bit weights
    Export(export::Args),
    /// Compute again what a library computed, and compare output, loss and every gradient
    Parity(parity::Args),
    /// Print the page of all operators: autocast class, error bound, rounding in 16 bit
    Ops(ops::Args),
    /// Print a script with which a shell completes commands and flags
    Completions(shell::CompletionsArgs),
    /// Write manual pages, one per command
    Man(shell::ManArgs),
}

fn main() -> ExitCode {
    binade::cli::main(|cli: Cli| match cli.command {
        Command::Train(args) => train::run(&args),
        Command::Evaluate(args) => evaluate::run(&args),
        Command::Watch(args) => watch::run(&args),
        Command::Compare(args) => compare::run(&args),
        Command::Report(args) => report::run(&args),
        Command::Profile(args) => profile::run(&args),
        Command::Predict(args) => predict::run(&args),
        Command::Sample(args) => sample::run(&args),
        Command::Data(args) => data::run(&args),
        Command::Formats(args) => formats::run(&args),
        Command::Inspect(args) => inspect::run(&args),
        Command::Memory(args) => memory::run(&args),
        Command::Summary(args) => summary::run(&args),
        Command::Doctor(args) => doctor::run(&args),
        Command::Weights(args) => weights::run(&args),
        Command::Convert(args) => convert::run(&args),
        Command::Export(args) => export::run(&args),
        Command::Parity(args) => parity::run(&args),
        Command::Ops(args) => ops::run(&args),
        Command::Completions(args) => shell::completions(&args, Cli::command()),
        Command::Man(args) => shell::man(&args, Cli::command()),
    })
}
