//! Steps that are made while a checkpoint is written. In a process of its own: one that begins another holds the locks
//! of all its threads for a moment.

#![cfg(unix)]

use binade_cpu as _;
use std::ops::ControlFlow;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::{Arc, mpsc};
use std::time::Duration;

use binade_nn::Linear;
use binade_tensor::Class;
use binade_train::{Classify, Config, InMemory, Metrics, Precision, RunConfig, Splits, Trainer};

static THREE: Classify = Classify::new(3);

fn data() -> Splits {
    let samples = |n: usize| {
        let inputs = (0..n * 4).map(|i| (i as f32 * 0.77).sin()).collect();
        InMemory::classes(inputs, &[4], &(0..n).map(|i| i % 3).collect::<Vec<_>>()).unwrap()
    };
    Splits::new(samples(48), samples(12))
}

fn config(folder: &Path, fit: Config) -> RunConfig {
    RunConfig {
        precisions: vec![Precision::Fp32],
        fit: Config { batch_size: 8, epochs: 2, ..fit },
        out: Some(folder.into()),
        quiet: true,
        ..RunConfig::default()
    }
}

fn checkpoint(folder: &Path) -> std::path::PathBuf {
    folder.join("checkpoint-fp32.safetensors")
}

/// The first epoch's checkpoint goes into a pipe that takes nothing until a step of the second was made.
#[test]
fn steps_are_made_while_a_checkpoint_is_written() {
    let folder = tempfile::tempdir().unwrap();
    let (data, at) = (data(), folder.path().join("run"));
    let pipe = checkpoint(&at);
    let (stepped, (send, read)) = (Arc::new(AtomicBool::new(false)), mpsc::channel());
    let mut piped = None;
    let trainer = Trainer::new(|| Linear::new(4, 3), &THREE, &data).with_callback(Box::new(|metrics, _| {
        match metrics {
            Metrics::Step(step) if step.iteration == 0 => {
                assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
            }
            // The first of the second epoch.
            Metrics::Step(step) if step.iteration == 6 => stepped.store(true, SeqCst),
            Metrics::Epoch(epoch) if epoch.epoch == 1 => {
                let (pipe, stepped, send) = (pipe.clone(), stepped.clone(), send.clone());
                std::thread::spawn(move || {
                    for _ in 0..2_000 {
                        if stepped.load(SeqCst) {
                            break;
                        }
                        std::thread::sleep(Duration::from_millis(10));
                    }
                    let in_time = stepped.load(SeqCst);
                    let bytes = std::fs::read(&pipe).unwrap();
                    std::fs::remove_file(&pipe).unwrap();
                    send.send((in_time, bytes)).unwrap();
                });
            }
            // The pipe is gone by the last checkpoint.
            Metrics::Epoch(_) => piped = Some(read.recv().unwrap()),
            _ => {}
        }
        Ok(ControlFlow::Continue(()))
    }));
    trainer.run(&config(&at, Config::default())).unwrap();
    let (in_time, bytes): (bool, Vec<u8>) = piped.unwrap();
    assert!(in_time, "no step was made until the checkpoint was written");
    // It is that of the first epoch, bit for bit.
    let between = folder.path().join("between");
    let fit = Config { save_between_steps: true, keep_last: 2, ..Config::default() };
    Trainer::new(|| Linear::new(4, 3), &THREE, &data).run(&config(&between, fit)).unwrap();
    let piped = folder.path().join("piped.safetensors");
    std::fs::write(&piped, bytes).unwrap();
    let tensors = |path: &Path| -> Vec<(String, Vec<u64>)> {
        let (all, _) = binade_nn::read_safetensors(path, Class::Workspace).unwrap();
        all.into_iter().map(|(n, a)| (n, a.to_f64_vec().unwrap().into_iter().map(f64::to_bits).collect())).collect()
    };
    assert_eq!(tensors(&piped), tensors(&between.join("checkpoint-fp32.epoch-1.safetensors")));
    assert_eq!(tensors(&checkpoint(&at)), tensors(&checkpoint(&between)));
}
