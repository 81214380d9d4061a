//! The tools as `cargo xtask` runs them.

use std::io::Write;
use std::path::Path;
use std::process::{Command, Output, Stdio};

fn command(args: &[&str], folder: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_binade-lab"));
    command.args(args).current_dir(folder);
    command
}

fn lab(args: &[&str], folder: &Path) -> Output {
    command(args, folder).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn error(args: &[&str], folder: &Path, code: i32) -> String {
    let out = lab(args, folder);
    assert_eq!(out.status.code(), Some(code), "{args:?}: {}", text(&out.stderr));
    text(&out.stderr)
}

fn in_repository(path: &str) -> String {
    std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(path)).unwrap()
}

/// Every command of README's table for developers is one of these, or of xtask itself.
#[test]
fn the_commands_of_the_readme_exist() {
    let readme = in_repository("README.md");
    let (_, section) = readme.split_once("\n### To develop Binade\n").unwrap();
    let (section, _) = section.split_once("\n#").unwrap();
    let rows: Vec<&str> = section.lines().filter_map(|l| l.strip_prefix("| `cargo xtask ")).collect();
    assert!(rows.len() >= 6, "{rows:?}");
    let of_xtask = |row: &&&str| ["gpu-pack ", "mutants`", "tidy`"].iter().any(|own| row.starts_with(own));
    for row in rows.iter().filter(|row| !of_xtask(row)) {
        let words: Vec<&str> = row.split('`').next().unwrap().split(' ').collect();
        let help = text(&lab(&[words[0], "--help"], Path::new(".")).stdout);
        assert!(help.contains(&format!("Usage: cargo xtask {}", words[0])), "{words:?}: {help}");
        for flag in words.iter().filter(|w| w.starts_with("--")) {
            assert!(help.contains(flag), "{words:?}");
        }
    }
}

#[test]
fn every_dependency_has_its_reason() {
    let (manifest, page) = (in_repository("Cargo.toml"), in_repository("docs/dependencies.md"));
    let (_, all) = manifest.split_once("[workspace.dependencies]\n").unwrap();
    let (all, _) = all.split_once("\n[").unwrap();
    let names = all.lines().filter(|line| !line.starts_with('#')).filter_map(|line| line.split_once(" = "));
    let mut named: Vec<&str> = names.map(|(name, _)| name).filter(|name| !name.starts_with("binade")).collect();
    let rows = page.lines().filter_map(|line| line.strip_prefix("| ")?.split_once(" |")).skip(1);
    let mut told: Vec<&str> = rows.flat_map(|(names, _)| names.split(", ")).collect();
    named.sort();
    told.sort();
    assert_eq!(named, told);
}

/// xtask depends on no crate of the workspace, so it has a list of its own.
#[test]
fn xtask_knows_every_tool_and_what_it_does() {
    let xtask = in_repository("xtask/src/main.rs");
    let help = text(&lab(&["--help"], Path::new(".")).stdout);
    let (_, commands) = help.split_once("Commands:\n").unwrap();
    let commands = commands.lines().map_while(|l| l.strip_prefix("  ")?.split_once(' '));
    let mut seen = 0;
    for (name, what) in commands.filter(|(name, _)| *name != "help") {
        let row = format!("(\"{name}\", \"{}\")", what.trim());
        assert!(xtask.contains(&row), "xtask/src/main.rs lacks {row}");
        seen += 1;
    }
    assert!(xtask.contains(&format!("const LAB: [(&str, &str); {seen}]")), "{help}");
}

/// The examples of the help, which are short; `cargo xtask torture` and `soak` do the same for longer.
#[test]
fn trainings_that_are_killed_damaged_and_poisoned_come_to_what_they_must() {
    let folder = tempfile::tempdir().unwrap();
    for (command, told) in [
        ("torture", &["kills: 2 of trainings", "1 of 1 trainings came to the same bits", "files: 2 of 2"][..]),
        ("soak", &["fp32: ", "fp16: ", "bf16: ", "1 workers died", "poisoned and skipped"]),
    ] {
        let help = text(&lab(&[command, "--help"], folder.path()).stdout);
        let (_, example) = help.split_once("Example: cargo xtask ").unwrap_or_else(|| panic!("{help}"));
        let words: Vec<&str> = example.lines().next().unwrap().split(' ').collect();
        let out = lab(&words, folder.path());
        let said = text(&out.stdout);
        assert!(out.status.success(), "{words:?}: {said}{}", text(&out.stderr));
        assert!(told.iter().all(|part| said.contains(part)), "{said}");
    }
    let nowhere = error(&["torture", "--program", "nowhere"], folder.path(), 1);
    assert!(nowhere.contains("nowhere: no such program"), "{nowhere}");
}

#[test]
fn bench_refuses_what_it_cannot_measure() {
    let folder = tempfile::tempdir().unwrap();
    let error = |args: &[&str]| {
        let out = lab(&[&["bench"], args].concat(), folder.path());
        assert_ne!(out.status.code(), Some(0), "{args:?}");
        text(&out.stderr)
    };
    assert!(error(&["cnn,rnn"]).contains("there are gemm, skinny, conv, micro, tape, cnn, resnet18, vit, gpt, unet"));
    assert!(error(&["--precision", "fp8"]).contains("there are fp32, fp16, bf16"));
    assert!(error(&["--against", "python", "--peer-precision", "fp16"]).contains("fp32 and bf16"));
    assert!(error(&["--peer-precision", "bf16"]).contains("--against"));
    for flag in ["--n", "--threads", "--pairs", "--min-iters"] {
        for value in ["0", "-1", "many"] {
            assert!(error(&[&format!("{flag}={value}")]).contains("at least 1"), "{flag}={value}");
        }
    }
    for value in ["0", "-1", "inf", "NaN", "long"] {
        assert!(error(&[&format!("--secs={value}")]).contains("above 0"), "{value}");
    }
    assert!(error(&["--scaling", "--sizes"]).contains("cannot be used with"));
    assert!(error(&["--sizes", "--n", "4"]).contains("cannot be used with"));
    assert!(error(&["--true-size", "bert"]).contains("resnet50, vit-tiny"));
    assert!(error(&["--true-size", "gpt2", "--sizes"]).contains("cannot be used with"));
    assert!(error(&["--true-size", "gpt2", "--limit", "much"]).contains("expected one like 20GiB"));
    assert!(error(&["--limit", "20GiB"]).contains("--true-size"));
    assert!(error(&["--picture", "a.svg"]).contains("--against"));
    assert!(error(&["--out", "a.json"]).contains("--against"));
    assert!(error(&["--from", "nowhere.json"]).contains("nowhere.json"));
    std::fs::write(folder.path().join("other.json"), "[1]").unwrap();
    assert!(error(&["--from", "other.json"]).contains("not what bench --out writes"));
}

/// The picture needs no measurement: it is made of the file that a comparison wrote.
#[test]
fn bench_draws_what_was_compared() {
    let folder = tempfile::tempdir().unwrap();
    let row = |prec: &str, own: &str, bf16: &str| {
        format!(
            r#"{{"case": "cnn", "prec": "{prec}", "threads": 2, "rounds": 5, "binade_ms": 10.0, "own_f32": {own},
            "torch_f32": {{"ms": 12.0, "ratio": 1.25, "p25": 1.1, "p75": 1.3}}, "torch_bf16": {bf16},
            "memory": {{"saved_mib": 50.0, "peak_mib": 80.0}},
            "torch_f32_memory": {{"saved_mib": 100.0, "peak_mib": 160.0}},
            "torch_bf16_memory": null}}"#
        )
    };
    let beside = r#"{"ms": 11.0, "ratio": 0.9, "p25": 0.8, "p75": 99.0}"#;
    let rows = format!("[{}, {}]", row("fp32", "null", "null"), row("bf16", beside, beside));
    std::fs::write(folder.path().join("rows.json"), rows).unwrap();
    let out = lab(&["bench", "--from", "rows.json", "--picture", "a.svg"], folder.path());
    assert!(out.status.success(), "{}", text(&out.stderr));
    let printed = text(&out.stdout);
    assert!(
        printed.contains("1.25 (1.10 to 1.30)") && printed.contains("PyTorch bf16, ms") && printed.contains("0.50"),
        "{printed}"
    );
    let svg = std::fs::read_to_string(folder.path().join("a.svg")).unwrap();
    // Three ratios of time, two of peak memory and one of saved activations, and the legend's six.
    assert_eq!(svg.matches("<circle").count(), 12, "{svg}");
    assert!(svg.contains("prefers-color-scheme:dark") && !svg.contains("NaN") && !svg.contains("inf"), "{svg}");
}

#[test]
fn conform_reports_a_wrong_case_and_exits_1() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, op: &str, out: f32| {
        let tensor = |v: f32| {
            binade::tensor::Array::from_slice(
                &binade::tensor::Device::cpu(),
                &[v],
                &[1],
                binade::tensor::Class::Workspace,
            )
            .unwrap()
        };
        let tensors: Vec<_> = [
            ("in.input", 2.0),
            ("gout", 1.0),
            ("out", out),
            ("ref.out", out),
            ("grad.input", 4.0),
            ("ref.grad.input", 4.0),
        ]
        .iter()
        .map(|(n, v)| (n.to_string(), tensor(*v)))
        .collect();
        let metadata = [("op", op), ("attrs", "{}"), ("policy", "neutral"), ("region", "off")];
        let metadata = metadata.into_iter().map(|(k, v)| (k.to_string(), v.to_string())).collect();
        binade::nn::write_safetensors(&folder.path().join(name), &tensors, metadata).unwrap();
    };
    write("a.off.safetensors", "square", 4.0);
    write("b.off.safetensors", "bessel", 0.0);
    let good = lab(&["conform", "."], folder.path());
    assert!(
        good.status.success() && text(&good.stdout).ends_with("1 passed, 0 failed, 1 absent\n"),
        "{}",
        text(&good.stdout)
    );
    assert!(text(&good.stdout).contains("absent: bessel (1)"));
    write("c.off.safetensors", "square", 5.0);
    let bad = lab(&["conform", "."], folder.path());
    assert_eq!(bad.status.code(), Some(1));
    assert!(
        text(&bad.stdout).contains("FAIL c.off: out: error 1")
            && text(&bad.stdout).ends_with("1 passed, 1 failed, 1 absent\n")
    );
}

#[test]
fn replay_compares_exactly_and_names_what_differs() {
    let folder = tempfile::tempdir().unwrap();
    let trace = |last: f64| {
        let text = format!(
            r#"[{{"config": {{"init_scale": 4.0, "growth_factor": 2.0, "backoff_factor": 0.25, "growth_interval": 2}},
                "found_inf": [false, false, true], "scale": [4.0, 8.0, {last}], "growth_tracker": [1, 0, 0]}}]"#
        );
        std::fs::write(folder.path().join("traces.json"), text).unwrap();
        lab(&["replay", "traces.json"], folder.path())
    };
    assert!(trace(2.0).status.success());
    let wrong = trace(4.0);
    assert_eq!(wrong.status.code(), Some(1));
    assert!(text(&wrong.stdout).contains("trace 0, update 2"), "{}", text(&wrong.stdout));
    std::fs::write(folder.path().join("traces.json"), "{").unwrap();
    assert!(text(&lab(&["replay", "traces.json"], folder.path()).stdout).contains("not a list of loss-scale traces"));
    assert!(text(&lab(&["replay", "."], folder.path()).stderr).contains("no recorded run"));
}

/// Training and loss scales recorded from PyTorch, where `BINADE_GOLDEN` says they are.
#[test]
fn recorded_training_is_replayed() {
    let Some(golden) = std::env::var_os("BINADE_GOLDEN") else {
        // Not through the test's captured output: whoever reads the results must see that nothing ran.
        let _ = writeln!(
            std::io::stderr(),
            "SKIPPED recorded_training_is_replayed: BINADE_GOLDEN names no folder of recordings"
        );
        return;
    };
    for part in ["train", "grad_scaler_traces.json"] {
        let path = Path::new(&golden).join(part);
        let out = lab(&["replay", path.to_str().unwrap()], Path::new("."));
        assert!(out.status.success(), "{}", text(&out.stdout));
    }
}

#[test]
fn the_classics_show_what_they_claim() {
    let folder = tempfile::tempdir().unwrap();
    let out = lab(&["classics"], folder.path());
    let printed = text(&out.stdout);
    assert!(out.status.success() && printed.matches("  ok ").count() == 16 && !printed.contains("FAIL"), "{printed}");
    assert_eq!(lab(&["classics", "stagnation"], folder.path()).status.code(), Some(0));
}

#[test]
fn what_compares_nothing_does_not_pass() {
    let folder = tempfile::tempdir().unwrap();
    let replayed = |traces: &str| {
        std::fs::write(folder.path().join("traces.json"), traces).unwrap();
        let out = lab(&["replay", "traces.json"], folder.path());
        assert_eq!(out.status.code(), Some(1));
        text(&out.stdout)
    };
    assert!(replayed("[]").contains("there is no trace to compare"));
    let config = r#"{"init_scale": 4.0, "growth_factor": 2.0, "backoff_factor": 0.25, "growth_interval": 2}"#;
    let empty = replayed(&format!(r#"[{{"config": {config}, "found_inf": [], "scale": [], "growth_tracker": []}}]"#));
    assert!(empty.contains("trace 0: no update to compare"), "{empty}");
    std::fs::write(folder.path().join("rows.json"), "[]").unwrap();
    assert!(error(&["bench", "--from", "rows.json"], folder.path(), 1).contains("holds no measurement"));
    std::fs::create_dir(folder.path().join("cases")).unwrap();
    assert!(error(&["conform", "cases"], folder.path(), 1).contains("no *.safetensors cases"));
}

/// Commands that end at once, each with a result on standard output.
const PRINTING: [&[&str]; 4] =
    [&["classics", "overflow"], &["replay", "traces.json"], &["bench", "--from", "rows.json"], &["--help"]];

/// What the commands of [`PRINTING`] read.
/// What the commands of [`PRINTING`] read.
fn inputs(folder: &Path) {
    let config = r#"{"init_scale": 4.0, "growth_factor": 2.0, "backoff_factor": 0.25, "growth_interval": 2}"#;
    let trace = format!(r#"[{{"config": {config}, "found_inf": [true], "scale": [1.0], "growth_tracker": [0]}}]"#);
    std::fs::write(folder.join("traces.json"), trace).unwrap();
    let row = r#"[{"case": "cnn", "prec": "fp32", "threads": 2, "rounds": 5, "binade_ms": 10.0}]"#;
    std::fs::write(folder.join("rows.json"), row).unwrap();
}

#[test]
fn a_reader_that_leaves_ends_a_command_quietly() {
    let folder = tempfile::tempdir().unwrap();
    inputs(folder.path());
    for args in PRINTING {
        let mut child = command(args, folder.path()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        drop(child.stdout.take());
        let out = child.wait_with_output().unwrap();
        assert_eq!((out.status.code(), text(&out.stderr).as_str()), (Some(0), ""), "{args:?}");
    }
}

#[cfg(target_os = "linux")]
#[test]
fn a_full_disk_under_the_output_is_an_error_and_no_panic() {
    let folder = tempfile::tempdir().unwrap();
    inputs(folder.path());
    let full = || Stdio::from(std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap());
    for args in PRINTING {
        let out = command(args, folder.path()).stdout(full()).output().unwrap();
        assert_eq!(out.status.code(), Some(1), "{args:?}");
        let told = text(&out.stderr);
        assert!(told.starts_with("error: standard output: No space left on device"), "{told}");
    }
}

/// The text of the system's error is part of ours.
#[test]
fn errors_are_told_once() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    std::fs::create_dir_all(path.join("recorded")).unwrap();
    std::fs::write(path.join("recorded/run.safetensors"), "no").unwrap();
    let config = r#"{"in_channels":1,"channels":[1,1,1,1],"size":8,"fc":1,"classes":2}"#;
    std::fs::write(path.join("recorded/config.json"), config).unwrap();
    for args in
        [&["replay", "nowhere"][..], &["replay", "recorded"], &["conform", "nowhere"], &["bench", "--from", "nowhere"]]
    {
        let out = lab(args, path);
        assert_eq!(out.status.code(), Some(1), "{args:?}");
        let told = text(&out.stderr) + &text(&out.stdout);
        assert!(told.contains(args[args.len() - 1]), "{told}");
        assert_eq!(told.matches("(os error").count(), 1, "{told}");
    }
}

#[test]
fn the_fuzzer_says_which_operators_its_cases_reach() {
    let folder = Path::new(".");
    let few = lab(&["fuzz-ops", "--coverage", "--cases", "5"], folder);
    assert_eq!(few.status.code(), Some(1), "five cases cannot have every operator");
    let said = text(&few.stdout);
    assert!(said.starts_with("5 cases drawn\n") && said.contains("operators drawn; never: "), "{said}");
    let run = lab(&["fuzz-ops", "--seed", "1", "--cases", "20", "--seconds", "300"], folder);
    let said = text(&run.stdout);
    assert_eq!(run.status.code(), Some(0), "{said}");
    for part in ["operators drawn", "with second order", "kernels of gradients run", "20 cases, ", " 0 faults"] {
        assert!(said.contains(part), "{part:?} in {said}");
    }
}

#[test]
fn damaged_files_are_read_or_refused() {
    let out = lab(&["fuzz-files", "--seconds", "4", "--seed", "3"], Path::new("."));
    let told = text(&out.stdout);
    assert!(out.status.success(), "{told}{}", text(&out.stderr));
    let counts = told.lines().last().unwrap();
    assert!(counts.ends_with(" 0 faults"), "{told}");
    let kinds: Vec<&str> = told.lines().filter(|line| line.contains("damaged files, ")).collect();
    // Each kind has files that are read and files that are refused, and the last line adds them up.
    assert!(kinds.len() == 11, "{told}");
    assert!(kinds.iter().all(|kind| !kind.contains(" 0 read") && !kind.contains(" 0 refused")), "{told}");
    assert!(error(&["fuzz-files", "--kind", "poems"], Path::new("."), 1).contains("there are weights, cifar"));
}
