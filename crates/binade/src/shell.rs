//! `binade completions` and `binade man`: what shells and `man` know of the command line, written from itself.

use std::fs::create_dir_all;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result};
use binade::cli::output::{line, piece};
use clap::Command;
use clap_complete::Shell;

#[derive(clap::Args)]
#[command(after_help = "Example: binade completions bash")]
pub struct CompletionsArgs {
    /// Shell to complete for
    #[arg(value_enum)]
    shell: Shell,
}

#[derive(clap::Args)]
#[command(after_help = "Example: binade man pages")]
pub struct ManArgs {
    /// Folder for the pages, one per command
    folder: PathBuf,
}

pub fn completions(args: &CompletionsArgs, mut command: Command) -> Result<ExitCode> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut command, "binade", &mut script);
    piece(String::from_utf8(script)?)?;
    Ok(ExitCode::SUCCESS)
}

pub fn man(args: &ManArgs, command: Command) -> Result<ExitCode> {
    let folder = args.folder.display();
    create_dir_all(&args.folder).with_context(|| folder.to_string())?;
    clap_mangen::generate_to(command, &args.folder).with_context(|| folder.to_string())?;
    line(format_args!("man -l {}", args.folder.join("binade.1").display()))?;
    Ok(ExitCode::SUCCESS)
}
