//! Which files of a folder hold the weights.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::{Error, Result};

/// Names that libraries give to weights, in the order in which they are looked for: whole precision before half.
const NAMES: [&str; 17] = [
    "model.safetensors",
    "model.safetensors.index.json",
    "diffusion_pytorch_model.safetensors",
    "diffusion_pytorch_model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
    "diffusion_pytorch_model.bin",
    "diffusion_pytorch_model.bin.index.json",
    "open_clip_model.safetensors",
    "model.fp16.safetensors",
    "model.safetensors.index.fp16.json",
    "diffusion_pytorch_model.fp16.safetensors",
    "diffusion_pytorch_model.safetensors.index.fp16.json",
    "pytorch_model.fp16.bin",
    "pytorch_model.bin.index.fp16.json",
    "diffusion_pytorch_model.fp16.bin",
    "diffusion_pytorch_model.bin.index.fp16.json",
];

/// Ends of names of weights.
const ENDS: [&str; 5] = ["safetensors", "bin", "pt", "pth", "ckpt"];

/// What an index says.
#[derive(Deserialize)]
struct Index {
    weight_map: BTreeMap<String, String>,
}

/// The files at a path, and the tensors that an index says they have.
pub(crate) struct Files {
    pub(crate) paths: Vec<PathBuf>,
    pub(crate) index: Option<(PathBuf, BTreeMap<String, String>)>,
}

/// The files of a folder, an index or a file.
pub(crate) fn files(path: &Path) -> Result<Files> {
    let path = &if path.is_dir() { of_folder(path)? } else { path.to_path_buf() };
    if path.extension().is_some_and(|end| end == "json") {
        return of_index(path);
    }
    Ok(Files { paths: vec![path.clone()], index: None })
}

fn of_folder(folder: &Path) -> Result<PathBuf> {
    if let Some(named) = NAMES.iter().map(|name| folder.join(name)).find(|path| path.exists()) {
        return Ok(named);
    }
    let of_weights = |path: &PathBuf| path.extension().is_some_and(|end| ENDS.iter().any(|known| end == *known));
    let mut others = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(Error::io(folder))? {
        others.push(entry.map_err(Error::io(folder))?.path());
    }
    others.retain(of_weights);
    others.sort();
    match &others[..] {
        [only] => Ok(only.clone()),
        [] => Err(Error::format(folder, format!("no weights: neither {} nor another of the known names", NAMES[0]))),
        several => {
            let names: Vec<_> = several.iter().filter_map(|path| path.file_name()?.to_str()).collect();
            Err(Error::format(folder, format!("several files of weights, name one: {}", names.join(", "))))
        }
    }
}

fn of_index(path: &Path) -> Result<Files> {
    let text = std::fs::read(path).map_err(Error::io(path))?;
    let index: Index =
        serde_json::from_slice(&text).map_err(|e| Error::format(path, format!("no index of shards: {e}")))?;
    let folder = path.parent().unwrap_or(Path::new(""));
    let shards: BTreeSet<&String> = index.weight_map.values().collect();
    let outside = |name: &&&String| Path::new(name).file_name().is_none_or(|file| file != name.as_str());
    if let Some(outside) = shards.iter().find(outside) {
        return Err(Error::format(path, format!("it names {outside:?}, which is no file beside it")));
    }
    if shards.is_empty() {
        return Err(Error::format(path, "it names no shard"));
    }
    let missing: Vec<&str> =
        shards.iter().filter(|shard| !folder.join(shard.as_str()).exists()).map(|shard| shard.as_str()).collect();
    if !missing.is_empty() {
        return Err(Error::format(path, format!("it names shards that are not there: {}", missing.join(", "))));
    }
    Ok(Files {
        paths: shards.iter().map(|shard| folder.join(shard.as_str())).collect(),
        index: Some((path.into(), index.weight_map)),
    })
}
