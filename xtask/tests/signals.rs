//! A signal to `cargo xtask` reaches the program that it runs.
#![cfg(unix)]

use std::io::{BufRead, BufReader, Read};
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Stdio};

/// A program in cargo's place that saves and ends as `binade` does.
const CARGO: &str = r#"#!/bin/sh
trap 'echo saved; exit 130' TERM
echo "ready: $*"
while :; do sleep 0.05; done
"#;

#[test]
fn a_termination_signal_reaches_the_program_and_its_exit_code_is_that_of_xtask() {
    let folder = tempfile::tempdir().unwrap();
    let cargo = folder.path().join("cargo");
    std::fs::write(&cargo, CARGO).unwrap();
    std::fs::set_permissions(&cargo, PermissionsExt::from_mode(0o755)).unwrap();
    let mut xtask = Command::new(env!("CARGO_BIN_EXE_xtask"))
        .args(["train", "--epochs", "2"])
        .env("CARGO", &cargo)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut out = BufReader::new(xtask.stdout.take().unwrap());
    let mut ready = String::new();
    out.read_line(&mut ready).unwrap();
    assert!(ready.starts_with("ready: run ") && ready.ends_with("-- train --epochs 2\n"), "{ready}");
    assert!(Command::new("kill").args(["-TERM", &xtask.id().to_string()]).status().unwrap().success());
    let mut rest = String::new();
    out.read_to_string(&mut rest).unwrap();
    assert_eq!((xtask.wait().unwrap().code(), rest.as_str()), (Some(130), "saved\n"));
}

#[test]
fn a_cargo_that_is_not_there_is_named() {
    let out = Command::new(env!("CARGO_BIN_EXE_xtask")).arg("doctor").env("CARGO", "/nowhere/cargo").output().unwrap();
    assert_eq!(out.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&out.stderr).contains("cannot start /nowhere/cargo"));
}
