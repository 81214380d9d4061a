//! The one way to standard output and standard error: whoever reads may go away, and a disk may be full.

use std::io::{ErrorKind, Write};

/// Prints a text and a line break. Where the reader has gone, the command goes on: its exit code is a result too.
pub fn line(text: &str) -> Result<(), String> {
    let mut out = std::io::stdout().lock();
    match writeln!(out, "{text}").and_then(|()| out.flush()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => Err(format!("standard output: {error}")),
        Ok(()) | Err(_) => Ok(()),
    }
}

/// Prints a line on standard error. There is nowhere to say that this failed.
pub fn note(text: &str) {
    let _ = writeln!(std::io::stderr(), "{text}");
}
