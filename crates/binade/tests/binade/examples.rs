//! Every command's help ends with an example, and it runs.

use std::path::Path;
use std::process::{Command, Output};

fn binade(args: &[&str], folder: &Path) -> Output {
    Command::new(env!("CARGO_BIN_EXE_binade")).args(args).current_dir(folder).output().unwrap()
}

fn help(command: &[&str], folder: &Path) -> String {
    String::from_utf8_lossy(&binade(&[command, &["--help"]].concat(), folder).stdout).into_owned()
}

/// Commands that a help lists.
fn listed(help: &str) -> Vec<String> {
    let Some((_, list)) = help.split_once("\nCommands:\n") else { return Vec::new() };
    let rows = list.lines().take_while(|line| line.starts_with("  "));
    // A description that goes on in the next line begins further right.
    let names = rows.filter_map(|row| row.strip_prefix("  ").filter(|row| !row.starts_with(' ')));
    names.filter_map(|row| row.split(' ').next()).filter(|name| *name != "help").map(String::from).collect()
}

fn run(line: &str, folder: &Path) {
    let out = binade(&line.split(' ').collect::<Vec<_>>(), folder);
    assert!(out.status.success(), "binade {line}: {}", String::from_utf8_lossy(&out.stderr));
}

/// Commands whose examples other tests run: the cases of `parity` are recorded there, data sets are fetched from
/// servers of their own, and the others take long.
const ELSEWHERE: [&str; 8] = [
    "parity ",
    "summary ",
    "memory ",
    "data mnist ",
    "data fashion-mnist ",
    "data cifar10 ",
    "data cifar100 ",
    "data tiny-shakespeare ",
];

/// What examples are about: runs, and files beside them.
fn prepare(at: &Path) {
    for run_folder in ["runs/digits-1", "runs/digits-2"] {
        run(&format!("train --epochs 1 --batch-size 200 --precision bf16 --quiet --out {run_folder}"), at);
    }
    run("train gpt --n-layer 1 --max-iters 2 --eval-iters 1 --precision fp32 --quiet --out runs/gpt-1", at);
    std::fs::write(at.join("plays.txt"), "Enter two gentlemen.\n".repeat(20)).unwrap();
}

#[test]
fn every_help_has_an_example_that_runs() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    prepare(at);
    let mut commands: Vec<Vec<String>> = listed(&help(&[], at)).into_iter().map(|name| vec![name]).collect();
    assert!(commands.len() > 20, "{commands:?}");
    let mut examples = Vec::new();
    while let Some(command) = commands.pop() {
        let words: Vec<&str> = command.iter().map(String::as_str).collect();
        let help = help(&words, at);
        commands.extend(listed(&help).into_iter().map(|name| [command.clone(), vec![name]].concat()));
        let own: Vec<String> =
            help.lines().filter_map(|line| line.trim().strip_prefix("Example: binade ")).map(String::from).collect();
        assert!(!own.is_empty(), "{words:?} has no example: {help}");
        for example in own {
            assert!(example.starts_with(&words.join(" ")), "{words:?}: {example}");
            examples.push(example);
        }
    }
    // Some read what another one writes.
    examples.sort_by_key(|example| !example.starts_with("data show digits"));
    for example in examples {
        if !ELSEWHERE.iter().any(|command| example.starts_with(command)) {
            run(&example, at);
        }
    }
}
