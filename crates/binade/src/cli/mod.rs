//! What Binade's programs share: how they begin and end, values of flags, threads, memory, output. Feature `cli`.

pub mod archive;
pub mod config_file;
pub mod device;
#[cfg(feature = "fetch")]
pub mod fetch;
pub mod flags;
pub mod known;
pub mod memory;
pub mod output;
pub mod threads;

use std::io::{self, Write};
use std::process::ExitCode;

use anyhow::Result;
use clap::Parser;

use output::Unwritten;

/// Reads the command line, runs the program, and says what went wrong. The exit code is 2 for a command line that
/// cannot be read, 130 for a run that a signal ended and 1 for other errors.
pub fn main<C: Parser>(run: impl FnOnce(C) -> Result<ExitCode>) -> ExitCode {
    parsed(run).unwrap_or_else(|error| {
        if error.downcast_ref().is_some_and(Unwritten::is_unread) {
            return ExitCode::SUCCESS;
        }
        output::note(format_args!("error: {error:#}"));
        let interrupted = matches!(error.downcast_ref(), Some(crate::train::Error::Interrupted { .. }));
        ExitCode::from(if interrupted { 130 } else { 1 })
    })
}

fn parsed<C: Parser>(run: impl FnOnce(C) -> Result<ExitCode>) -> Result<ExitCode> {
    match C::try_parse_from(config_file::expand(std::env::args_os(), &C::command())?) {
        Ok(cli) => run(cli),
        Err(message) => {
            let printed = message.print().and_then(|()| io::stdout().flush());
            // Help and version are results; of an error, the exit code says enough.
            if !message.use_stderr() {
                printed.map_err(Unwritten::new)?;
            }
            Ok(ExitCode::from(message.exit_code() as u8))
        }
    }
}
