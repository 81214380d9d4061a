//! The one way to standard output and standard error: whoever reads may go away, and a disk may be full.

use std::fmt::{self, Display};
use std::io::{self, ErrorKind, Write};

/// Standard output took no more.
#[derive(Debug)]
pub struct Unwritten(io::Error);

impl Unwritten {
    /// Standard output failed so.
    pub fn new(error: io::Error) -> Unwritten {
        Unwritten(error)
    }

    /// Whether the reader has gone, as `head` does: no reason to say anything.
    pub fn is_unread(&self) -> bool {
        self.0.kind() == ErrorKind::BrokenPipe
    }
}

impl Display for Unwritten {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "standard output: {}", self.0)
    }
}

impl std::error::Error for Unwritten {}

/// Prints a text and a line break. The command ends where this fails.
pub fn line(text: impl Display) -> Result<(), Unwritten> {
    let mut out = io::stdout().lock();
    writeln!(out, "{text}").and_then(|()| out.flush()).map_err(Unwritten)
}

/// Prints a piece of a text that goes on.
pub fn piece(text: impl Display) -> Result<(), Unwritten> {
    let mut out = io::stdout().lock();
    write!(out, "{text}").and_then(|()| out.flush()).map_err(Unwritten)
}

/// As [`line()`], in commands whose exit code is a result too: they go on where nobody reads any more.
pub fn verdict_line(text: impl Display) -> Result<(), Unwritten> {
    line(text).or_else(|error| if error.is_unread() { Ok(()) } else { Err(error) })
}

/// Prints a line on standard error. There is nowhere to say that this failed.
pub fn note(text: impl Display) {
    let _ = writeln!(io::stderr(), "{text}");
}
