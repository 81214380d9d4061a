//! PyTorch's side: the same model from its own library, in a process of its own.

use std::path::Path;
use std::process::Command;

use anyhow::Result;
use binade::cli::known::Model;
use binade::cli::memory::Bytes;
use serde::Deserialize;

use super::answer;
use crate::bench::Args;

const SCRIPT: &str = include_str!("torch_step.py");

/// PyTorch maps that much besides: its libraries and its threads' stacks.
const LIBRARIES: u64 = 8 << 30;

/// A step of PyTorch's in f32 with AdamW.
#[derive(Clone, Copy, Debug, Deserialize)]
pub struct Torch {
    pub ms: f64,
    pub base_mib: f64,
    pub peak_mib: f64,
}

/// Whether PyTorch may like its images in another memory format.
fn has_images(model: Model) -> bool {
    matches!(model, Model::Resnet50 | Model::SdUnet | Model::SdVae)
}

/// The fastest of two allocator settings and, for images, two memory formats; memory with the default allocator, which
/// gives large buffers back at once.
pub fn best(python: &Path, model: Model, args: &Args, limit: Bytes) -> Result<Torch> {
    let mut best: Option<Torch> = None;
    for channels_last in [false, true] {
        if channels_last && !has_images(model) {
            continue;
        }
        for reuse in [false, true] {
            let mut command = Command::new(python);
            command.args(["-c", SCRIPT, &model.name(), "--threads", &args.threads.to_string()]);
            command.args(["--secs", &args.secs.to_string(), "--limit", &(limit.0 + LIBRARIES).to_string()]);
            if channels_last {
                command.arg("--channels-last");
            }
            if reuse {
                command.envs([
                    ("MALLOC_MMAP_THRESHOLD_", "4294967296"),
                    ("MALLOC_TRIM_THRESHOLD_", "17179869184"),
                    ("MALLOC_TOP_PAD_", "67108864"),
                ]);
            }
            let found: Torch = answer(command)?;
            best = Some(match best {
                None => found,
                Some(before) => {
                    let leaner = !reuse && found.peak_mib - found.base_mib < before.peak_mib - before.base_mib;
                    let memory = if leaner { found } else { before };
                    Torch { ms: before.ms.min(found.ms), ..memory }
                }
            });
        }
    }
    best.ok_or_else(|| anyhow::anyhow!("no setting was tried"))
}
