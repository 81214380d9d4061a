//! The command line where files, flags and the output are not what it would wish.

use std::path::Path;
use std::process::{Command, Output, Stdio};

fn command(args: &[&str], folder: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_binade"));
    command.args(args).current_dir(folder);
    command
}

fn binade(args: &[&str], folder: &Path) -> Output {
    command(args, folder).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn error(args: &[&str], folder: &Path, code: i32) -> String {
    let out = binade(args, folder);
    assert_eq!(out.status.code(), Some(code), "{args:?}: {}", text(&out.stderr));
    text(&out.stderr)
}

const SHORT: [&str; 7] = ["train", "--epochs", "1", "--precision", "fp32", "--out", "run"];

/// Commands that end at once, each with a result on standard output.
const PRINTING: [&[&str]; 5] = [&["formats"], &["formats", "1e-8"], &["doctor"], &["--help"], &["--version"]];

#[test]
fn a_reader_that_leaves_ends_a_command_quietly() {
    let folder = tempfile::tempdir().unwrap();
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
    let full = || Stdio::from(std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap());
    for args in PRINTING {
        let out = command(args, folder.path()).stdout(full()).output().unwrap();
        assert_eq!(out.status.code(), Some(1), "{args:?}");
        assert!(
            text(&out.stderr).starts_with("error: standard output: No space left on device"),
            "{}",
            text(&out.stderr)
        );
        let out = command(args, folder.path()).stdout(full()).stderr(full()).output().unwrap();
        assert_eq!(out.status.code(), Some(1), "{args:?}");
    }
    // Errors, too, may have nowhere to go.
    for (args, code) in [(&["formats", "many"][..], 1), (&["tarin"], 2), (&["train", "--resume", "nowhere"], 1)] {
        let out = command(args, folder.path()).stderr(full()).output().unwrap();
        assert_eq!(out.status.code(), Some(code), "{args:?}");
    }
}

/// What it is for stands in the run folder.
#[cfg(target_os = "linux")]
#[test]
fn training_needs_no_reader() {
    let folder = tempfile::tempdir().unwrap();
    let full = || Stdio::from(std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap());
    let out = command(&SHORT, folder.path()).stdout(full()).stderr(full()).output().unwrap();
    assert_eq!(out.status.code(), Some(0));
    let mut child = command(&["train", "--resume", "run", "--epochs", "2"], folder.path());
    let mut child = child.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    let out = child.wait_with_output().unwrap();
    assert_eq!((out.status.code(), text(&out.stderr).as_str()), (Some(0), ""));
    let metrics = std::fs::read_to_string(folder.path().join("run/metrics.jsonl")).unwrap();
    assert_eq!(metrics.lines().count(), 2 * (1437_usize.div_ceil(64) + 1));
    for file in ["summary.json", "report.html", "checkpoint-fp32.safetensors"] {
        assert!(folder.path().join("run").join(file).exists(), "{file}");
    }
}

#[test]
fn two_runs_begun_at_once_have_a_folder_each() {
    let folder = tempfile::tempdir().unwrap();
    let short = ["train", "--epochs", "1", "--precision", "fp32", "--quiet"];
    let begun = [(); 2].map(|()| command(&short, folder.path()).spawn().unwrap());
    assert!(begun.into_iter().all(|mut run| run.wait().unwrap().success()));
    for run in ["runs/digits-1", "runs/digits-2"] {
        assert!(folder.path().join(run).join("summary.json").exists(), "{run}");
    }
    // The last seed there is.
    let last = [&short[..], &["--seeds", "1", "--seed", "18446744073709551615"]].concat();
    assert!(binade(&last, folder.path()).status.success());
}

/// One that was killed holds nothing.
#[cfg(unix)]
#[test]
fn a_run_folder_belongs_to_one_process() {
    use std::time::{Duration, Instant};
    let folder = tempfile::tempdir().unwrap();
    let metrics = folder.path().join("run/metrics.jsonl");
    let length = || std::fs::metadata(&metrics).map_or(0, |m| m.len());
    let train = |args: &[&str]| {
        let before = length();
        let all = [&["train", "--quiet", "--precision", "fp32", "--epochs", "100000"], args].concat();
        let mut child = command(&all, folder.path()).stderr(Stdio::null()).spawn().unwrap();
        let start = Instant::now();
        while length() <= before {
            assert!(start.elapsed() < Duration::from_secs(60) && child.try_wait().unwrap().is_none());
            std::thread::sleep(Duration::from_millis(5));
        }
        child
    };
    let mut first = train(&["--out", "run"]);
    for refused in [["--resume", "run"], ["--out", "run"]] {
        let error = error(&[&["train", "--epochs", "100000"][..], &refused].concat(), folder.path(), 1);
        assert!(error.contains(&format!("run: in use by process {} on ", first.id())), "{error}");
    }
    assert!(first.try_wait().unwrap().is_none());
    first.kill().unwrap();
    first.wait().unwrap();
    let mut second = train(&["--resume", "run"]);
    second.kill().unwrap();
    second.wait().unwrap();
}

#[test]
fn a_number_out_of_range_is_refused_for_its_value() {
    let folder = tempfile::tempdir().unwrap();
    for (flag, value, allowed) in [
        ("--lr", "-1", "above 0"),
        ("--lr", "-1e-3", "above 0"),
        ("--lr", "-inf", "above 0"),
        ("--lr", "0", "above 0"),
        ("--lr", "nan", "above 0"),
        ("--epochs", "-1", "at least 1"),
        ("--batch-size", "-64", "at least 1"),
        ("--threads", "-2", "at least 1"),
        ("--seeds", "-5", "at least 1"),
        ("--seed", "-1", "at least 0"),
    ] {
        let error = error(&["train", flag, value], folder.path(), 2);
        assert!(error.contains(&format!("invalid value '{value}' for '{flag}")) && error.contains(allowed), "{error}");
    }
    // A flag is still no value.
    assert!(error(&["train", "--epochs", "--quiet"], folder.path(), 2).contains("a value is required for '--epochs"));
}

#[test]
fn threads_beyond_the_cores_are_not_started() {
    let folder = tempfile::tempdir().unwrap();
    let out = binade(&[&SHORT[..], &["--threads", "999"]].concat(), folder.path());
    assert!(out.status.success(), "{}", text(&out.stderr));
    assert!(text(&out.stderr).contains("999 threads asked for, but this machine runs "), "{}", text(&out.stderr));
    let out = command(&["doctor"], folder.path()).env("RAYON_NUM_THREADS", "5000").output().unwrap();
    let cores = std::thread::available_parallelism().unwrap();
    assert!(text(&out.stdout).contains(&format!("threads   {cores}\n")), "{}", text(&out.stdout));
}

#[test]
fn the_settings_of_a_run_are_read_strictly() {
    let folder = tempfile::tempdir().unwrap();
    assert!(binade(&[&SHORT[..], &["--quiet"]].concat(), folder.path()).status.success());
    let config = folder.path().join("run/config.json");
    let written = std::fs::read_to_string(&config).unwrap();
    for (from, to, named) in [
        (
            r#""fp32"
  ]"#,
            "]",
            "precisions = []",
        ),
        (
            r#""fp32"
  ]"#,
            r#""fp32", "fp32"]"#,
            "fp32 is there twice",
        ),
        (
            r#""fp32"
  ]"#,
            r#""fp8"]"#,
            "fp8",
        ),
        (r#""name""#, r#""name": "digits", "name""#, "duplicate field `name`"),
        (r#""lr""#, r#""lr": 0.5, "lr""#, "duplicate field `lr`"),
        (r#""name""#, r#""warmup": 3, "name""#, "unknown field `warmup`"),
        (r#""lr""#, r#""momentum": 0.9, "lr""#, "unknown field `momentum`"),
        (r#""clip": 1.0"#, r#""clip": -1.0"#, "positive and finite, got -1"),
    ] {
        let changed = written.replacen(from, to, 1);
        assert_ne!(changed, written, "{from}");
        std::fs::write(&config, &changed).unwrap();
        for args in [&["train", "--resume", "run"][..], &["inspect", "run"]] {
            let error = error(args, folder.path(), 1);
            assert!(error.contains("config.json") && error.contains(named), "{error}");
        }
        assert_eq!(std::fs::read_to_string(&config).unwrap(), changed);
    }
}

#[test]
fn a_damaged_checkpoint_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    assert!(binade(&[&SHORT[..], &["--quiet"]].concat(), folder.path()).status.success());
    let checkpoint = folder.path().join("run/checkpoint-fp32.safetensors");
    let mut bytes = std::fs::read(&checkpoint).unwrap();
    let last = bytes.len() - 1;
    bytes[last] ^= 4;
    std::fs::write(&checkpoint, &bytes).unwrap();
    for args in [&["train", "--resume", "run", "--epochs", "2"][..], &["inspect", "run"]] {
        let error = error(args, folder.path(), 1);
        assert!(error.contains("checkpoint-fp32.safetensors") && error.contains("damaged"), "{error}");
    }
    assert!(std::fs::read(&checkpoint).unwrap() == bytes);
}

#[test]
fn a_damaged_description_of_the_model_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    assert!(binade(&[&SHORT[..], &["--quiet"]].concat(), folder.path()).status.success());
    let card = folder.path().join("run/model.json");
    let written = std::fs::read_to_string(&card).unwrap();
    // A digit of the mean that images are normalised by.
    let changed = written.replacen("0.3053", "0.3153", 1);
    assert_ne!(changed, written);
    std::fs::write(&card, &changed).unwrap();
    for args in [&["predict", "run", "absent.png"][..], &["export", "run", "--dtype", "f32", "--to", "out"]] {
        let error = error(args, folder.path(), 1);
        assert!(error.contains("model.json") && error.contains("damaged"), "{error}");
    }
    assert!(!folder.path().join("out").exists());
}

#[test]
fn a_run_whose_checkpoint_is_gone_says_that_it_begins_anew() {
    let folder = tempfile::tempdir().unwrap();
    assert!(binade(&[&SHORT[..], &["--quiet"]].concat(), folder.path()).status.success());
    std::fs::remove_file(folder.path().join("run/checkpoint-fp32.safetensors")).unwrap();
    let out = binade(&["train", "--resume", "run"], folder.path());
    assert!(text(&out.stdout).contains("fp32: there is no checkpoint to go on from"), "{}", text(&out.stdout));
    let again = binade(&["train", "--resume", "run", "--epochs", "2"], folder.path());
    assert!(!text(&again.stdout).contains("no checkpoint"), "{}", text(&again.stdout));
}

/// The text of the system's error is part of ours.
#[test]
fn errors_are_told_once() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    for args in [
        &["train", "--resume", "nowhere"][..],
        &["train", "--dataset", "cifar10", "--data", "nowhere"],
        &["inspect", "nowhere"],
        &["train", "--out", "/dev/null/run"],
    ] {
        let out = binade(args, path);
        assert_eq!(out.status.code(), Some(1), "{args:?}");
        let told = text(&out.stderr) + &text(&out.stdout);
        assert_eq!(told.matches("(os error").count(), 1, "{told}");
    }
}

#[test]
fn the_help_names_the_program_itself() {
    let folder = tempfile::tempdir().unwrap();
    let help = text(&binade(&["--help"], folder.path()).stdout);
    assert!(help.contains("Usage: binade"), "{help}");
    for command in ["train", "formats", "inspect", "doctor", "ops"] {
        let help = text(&binade(&[command, "--help"], folder.path()).stdout);
        assert!(help.contains(&format!("Usage: binade {command}")), "{help}");
    }
    assert!(error(&["train", "--epoch", "3"], folder.path(), 2).contains("Usage: binade train"));
}

#[test]
fn what_was_read_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let out = text(&binade(&SHORT, folder.path()).stdout);
    assert!(out.starts_with("digits: 1437 training images, 360 test images, 1×8×8\n"), "{out}");
    let image = [vec![1; 3073], vec![2; 3073]].concat();
    std::fs::write(folder.path().join("data_batch_1.bin"), &image).unwrap();
    std::fs::write(folder.path().join("test_batch.bin"), &image).unwrap();
    let args =
        ["train", "--dataset", "cifar10", "--data", ".", "--precision", "fp32", "--epochs", "1", "--out", "cifar"];
    let out = text(&binade(&args, folder.path()).stdout);
    assert!(out.starts_with("cifar10: 2 of 50000 training images, 2 of 10000 test images, 3×32×32\n"), "{out}");
}
