//! The program, by its arguments with spaces between them.

use std::path::Path;
use std::process::{Command, Output};

pub fn binade(args: &str, folder: &Path) -> Output {
    Command::new(env!("CARGO_BIN_EXE_binade")).args(args.split(' ')).current_dir(folder).output().unwrap()
}

/// What it prints where it succeeds.
pub fn done(args: &str, folder: &Path) -> String {
    let out = binade(args, folder);
    assert!(out.status.success(), "{args}: {}", String::from_utf8_lossy(&out.stderr));
    String::from_utf8_lossy(&out.stdout).into_owned()
}

/// What it says where it fails as at work, and not by its arguments.
pub fn refused(args: &str, folder: &Path) -> String {
    let out = binade(args, folder);
    assert_eq!(out.status.code(), Some(1), "{args}");
    String::from_utf8_lossy(&out.stderr).into_owned()
}
