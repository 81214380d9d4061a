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

/// Before those of the program.
#[test]
fn the_help_names_the_commands_of_xtask_itself() {
    for args in [&[][..], &["--help"], &["help"]] {
        let out = Command::new(env!("CARGO_BIN_EXE_xtask")).args(args).env("CARGO", "/bin/echo").output().unwrap();
        let printed = String::from_utf8_lossy(&out.stdout).into_owned();
        let program = printed.lines().last().unwrap();
        assert!(
            printed.contains("\n  mutants ") && program.starts_with("run ") && program.contains("--bin binade --"),
            "{printed}"
        );
    }
    let out =
        Command::new(env!("CARGO_BIN_EXE_xtask")).args(["train", "--help"]).env("CARGO", "/bin/echo").output().unwrap();
    assert!(!String::from_utf8_lossy(&out.stdout).contains("mutants"));
}

#[test]
fn tools_of_development_are_commands_of_the_lab() {
    for (command, program) in [("bench", "binade-lab"), ("counts", "binade-lab"), ("train", "binade")] {
        let out = Command::new(env!("CARGO_BIN_EXE_xtask")).arg(command).env("CARGO", "/bin/echo").output().unwrap();
        let printed = String::from_utf8_lossy(&out.stdout).into_owned();
        assert!(printed.ends_with(&format!("--bin {program} -- {command}\n")), "{printed}");
    }
}

#[cfg(target_os = "linux")]
#[test]
fn output_that_cannot_be_written_is_an_error_and_no_panic() {
    let full = std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
    let out = Command::new(env!("CARGO_BIN_EXE_xtask")).arg("--help").stdout(full).output().unwrap();
    assert_eq!(out.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&out.stderr).starts_with("error: standard output: No space left"));
}
