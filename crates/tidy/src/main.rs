//! `cargo xtask tidy`: what ARCHITECTURE.md says of the source, held by machine. Each check is a module with a test
//! that plants a fault; what is excepted stands with its reason in [`exceptions`].

#![deny(clippy::print_stdout, clippy::print_stderr)]

mod arrows;
mod comments;
mod counts;
mod exceptions;
mod host;
mod markdown;
mod names;
mod size;
mod source;
mod unrun;
mod wildcards;

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use source::{Finding, Tree};

/// A check: its name in the list of exceptions, and what it finds.
type Check = (&'static str, fn(&Tree) -> Vec<Finding>);

const CHECKS: [Check; 10] = [
    ("size", size::check),
    ("wildcards", wildcards::check),
    ("names", names::check),
    ("arrows", arrows::check),
    ("layers", arrows::check_layers),
    ("host", host::check),
    ("markdown", markdown::check),
    ("comments", comments::check),
    ("unrun", unrun::check),
    ("counts", counts::check),
];

fn main() -> ExitCode {
    let root =
        std::env::args_os().nth(1).map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../.."), PathBuf::from);
    let report = match Tree::read(&root) {
        Ok(tree) => report(&tree),
        Err(error) => vec![error],
    };
    let mut out = std::io::stderr().lock();
    // There is nowhere to say that this failed.
    let _ = report.iter().try_for_each(|line| writeln!(out, "{line}"));
    if report.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// A line for each finding that is not excepted, and for each exception that excepts nothing.
fn report(tree: &Tree) -> Vec<String> {
    CHECKS.iter().flat_map(|(name, check)| exceptions::apply(name, check(tree), exceptions::ALL)).collect()
}
