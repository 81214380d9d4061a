//! The unmodified path to NVIDIA's driver, over a `libcuda.so` that is the interpreter.
//!
//! A library is found when a process starts, so each test runs one of [`inside`]'s in a process of its own, with the
//! stand-in where the driver would be.

use binade_cpu as _;

mod inside;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The library, beside this program.
fn library() -> PathBuf {
    let program = std::env::current_exe().unwrap();
    let name = format!("{}binade_standin{}", std::env::consts::DLL_PREFIX, std::env::consts::DLL_SUFFIX);
    let path = program.parent().unwrap().join(name);
    assert!(path.exists(), "{} is missing: cargo builds it with this test", path.display());
    path
}

/// Names under which the driver is looked for, with what stands there.
fn place(folder: &Path, put: impl Fn(&Path)) {
    ["libcuda.so", "libcuda.so.1"].iter().for_each(|name| put(&folder.join(name)));
}

/// Runs a test of [`inside`] in a folder where the driver would be, with variables of the environment.
fn run(test: &str, folder: &Path, variables: &[(&str, &str)]) {
    let out = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", &format!("inside::{test}"), "--ignored", "--nocapture"])
        .env("LD_LIBRARY_PATH", folder)
        .env_remove("CUDA_VISIBLE_DEVICES")
        .env_remove("CUDA_LAUNCH_BLOCKING")
        .env("BINADE_STANDIN_LOG", folder.join("log"))
        .envs(variables.iter().copied())
        .output()
        .unwrap();
    let said = format!("{}{}", String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr));
    assert!(out.status.success() && said.contains("1 passed"), "{test} {variables:?}: {said}");
}

fn over_the_interpreter(test: &str, variables: &[(&str, &str)]) -> String {
    let folder = tempfile::tempdir().unwrap();
    place(folder.path(), |path| {
        std::fs::copy(library(), path).unwrap();
    });
    run(test, folder.path(), variables);
    std::fs::read_to_string(folder.path().join("log")).unwrap_or_default()
}

/// As [`over_the_interpreter`], where no kernel may do anything wrong.
fn clean(test: &str, variables: &[(&str, &str)]) {
    let log = over_the_interpreter(test, variables);
    assert!(log.is_empty(), "{test}: {log}");
}

#[test]
fn operators_and_updates_have_the_bits_of_the_interpreter() {
    clean("operators_have_the_bits_of_the_interpreter", &[]);
}

#[test]
fn products_and_convolutions_are_those_of_the_devices_capability() {
    for capability in ["capability=75", "capability=80", "capability=90"] {
        clean(
            "products_and_convolutions_on_tensor_cores_have_the_bits_of_the_interpreter",
            &[("BINADE_STANDIN", capability)],
        );
    }
}

#[test]
fn copies_arrive_whole_in_both_directions_whatever_their_length() {
    clean("copies_arrive_whole", &[]);
}

#[test]
fn memory_is_counted_by_class_and_used_again() {
    clean("memory_is_counted_and_used_again", &[]);
}

#[test]
fn a_steady_step_waits_once_and_asks_for_no_memory() {
    clean("a_steady_step_waits_once_and_asks_for_no_memory", &[]);
}

#[test]
fn devices_are_those_that_are_visible() {
    clean("there_are_two_devices", &[]);
    clean("there_are_two_devices", &[("CUDA_VISIBLE_DEVICES", "1,0")]);
    clean("there_is_one_device", &[("CUDA_VISIBLE_DEVICES", "1")]);
    clean("there_is_one_device", &[("CUDA_VISIBLE_DEVICES", "0,-1,1")]);
}

#[test]
fn without_a_driver_the_error_says_what_to_install() {
    let folder = tempfile::tempdir().unwrap();
    place(folder.path(), |path| std::fs::write(path, "no library").unwrap());
    run("there_is_no_driver", folder.path(), &[]);
}

/// The stand-in without some of its functions: they have other names.
fn without(library: &[u8], functions: &[&str]) -> Vec<u8> {
    let (mut bytes, mut found) = (library.to_vec(), BTreeSet::new());
    for text in bytes.split_mut(|&byte| byte == 0) {
        if let Some(function) = functions.iter().find(|function| function.as_bytes() == text) {
            text[0] = b'?';
            found.insert(function);
        }
    }
    assert_eq!(found.len(), functions.len(), "{found:?} of {functions:?} are in the library");
    bytes
}

#[test]
fn a_driver_that_lacks_functions_is_an_error_that_names_them() {
    let whole = std::fs::read(library()).unwrap();
    for missing in [&["cuInit"][..], &["cuEventQuery"], &["cuLaunchKernel", "cuMemAlloc_v2"]] {
        let folder = tempfile::tempdir().unwrap();
        let library = without(&whole, missing);
        place(folder.path(), |path| std::fs::write(path, &library).unwrap());
        run("the_driver_is_not_whole", folder.path(), &[("BINADE_MISSING", &missing.join(", "))]);
    }
    // What the backend does not ask for may be missing: so it calls nothing else. But for three functions that the
    // stand-in itself calls.
    let others = [
        "cuCtxGetCurrent",
        "cuDeviceGetName",
        "cuDevicePrimaryCtxRelease_v2",
        "cuDeviceTotalMem_v2",
        "cuDriverGetVersion",
        "cuGetErrorName",
        "cuGetErrorString",
        "cuMemFreeHost",
        "cuModuleUnload",
        "cuStreamDestroy_v2",
        "cuStreamQuery",
    ];
    let folder = tempfile::tempdir().unwrap();
    let library = without(&whole, &others);
    place(folder.path(), |path| std::fs::write(path, &library).unwrap());
    for test in ["memory_is_counted_and_used_again", "copies_arrive_whole", "memory_runs_out"] {
        let memory = if test == "memory_runs_out" { "memory=2000000" } else { "" };
        run(test, folder.path(), &[("BINADE_STANDIN", memory)]);
    }
}

#[test]
fn without_a_device_the_error_says_what_may_hide_it() {
    clean("there_is_no_device", &[("BINADE_STANDIN", "devices=0")]);
    clean("there_is_no_device", &[("CUDA_VISIBLE_DEVICES", "")]);
}

#[test]
fn a_driver_that_is_too_old_for_the_ptx_is_an_error_of_the_operator() {
    clean("the_driver_is_too_old", &[("BINADE_STANDIN", "ptx=6.0")]);
}

#[test]
fn a_device_that_is_too_old_is_an_error_that_says_so() {
    clean("the_device_is_too_old", &[("BINADE_STANDIN", "capability=70")]);
}

#[test]
fn memory_that_is_not_there_is_an_error_of_the_operator_and_what_was_kept_is_given_back_first() {
    clean("memory_runs_out", &[("BINADE_STANDIN", "memory=2000000")]);
}

#[test]
fn a_kernel_that_goes_astray_is_told_by_the_next_wait_and_nothing_runs_behind_it() {
    let log = over_the_interpreter("a_kernel_goes_astray", &[]);
    assert!(log.contains("OutOfBounds"), "{log}");
    over_the_interpreter("a_kernel_goes_astray", &[("CUDA_LAUNCH_BLOCKING", "1")]);
}

#[test]
fn a_device_that_is_lost_is_an_error_of_every_operator_and_no_panic() {
    clean("the_device_is_lost", &[("BINADE_STANDIN", "lost=3")]);
}
