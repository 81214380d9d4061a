//! LoRA as diffusers writes it: `pytorch_lora_weights.safetensors`, changes of low rank to linear layers.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};

use binade_autograd::{Var, no_grad};
use binade_nn::{Module, write_safetensors};
use binade_tensor::{Array, Class, DType};
use binade_weights::Weights;
use serde_json::Value;

use crate::{Error, Result};

/// The name of its file in a folder.
pub const LORA_FILE: &str = "pytorch_lora_weights.safetensors";

/// How libraries have called the two matrices over time: diffusers, PEFT, and diffusers' first versions.
const NAMES: [[&str; 2]; 4] = [
    [".lora.down.weight", ".lora.up.weight"],
    [".lora_A.weight", ".lora_B.weight"],
    [".lora_linear_layer.down.weight", ".lora_linear_layer.up.weight"],
    ["_lora.down.weight", "_lora.up.weight"],
];

/// Writes the changes of low rank of a U-Net that was made `with_lora` into a folder, and returns the file. Factors of
/// `alpha / rank` other than 1 are multiplied into `up`, since diffusers' own files have none.
///
/// # Errors
/// The model has no changes; the file cannot be written.
pub fn save_lora(unet: &dyn Module, alpha: f64, folder: &Path) -> Result<PathBuf> {
    let mut tensors: Vec<(String, Array)> = Vec::new();
    let params = unet.named_parameters();
    for (name, param) in &params {
        if name.ends_with(NAMES[0][0]) {
            tensors.push((format!("unet.{name}"), param.array()));
        } else if let Some(layer) = name.strip_suffix(NAMES[0][1]) {
            let factor = alpha / param.shape()[1] as f64;
            let up = no_grad(|| &Var::constant(param.array()) * factor)?;
            tensors.push((format!("unet.{layer}{}", NAMES[0][1]), up.array().clone()));
        }
    }
    if tensors.is_empty() {
        return Err(Error::Setting("the model has no changes of low rank to write".into()));
    }
    let path = folder.join(LORA_FILE);
    let at = |message: String| Error::File { path: path.clone(), message };
    std::fs::create_dir_all(folder).map_err(|e| at(e.to_string()))?;
    write_safetensors(&path, &tensors, HashMap::from([("format".into(), "pt".into())]))?;
    Ok(path)
}

/// A change of one layer.
#[derive(Default)]
struct Change {
    down: Option<Array>,
    up: Option<Array>,
    alpha: Option<f64>,
}

/// Adds `scale` times the changes of a file, or of a folder's [`LORA_FILE`], to the weights of the models. Each of them
/// has its prefix there: `unet`, `text_encoder`. Returns how many layers have changed.
///
/// # Errors
/// No such file; a name that is none of LoRA's, or a layer that no model has; shapes that do not fit, as those of
/// convolutions. Nothing is changed then.
pub fn merge_lora(models: &[(&str, &dyn Module)], path: &Path, scale: f64) -> Result<usize> {
    if !scale.is_finite() {
        return Err(Error::Setting(format!("the scale of a LoRA must be finite, got {scale}")));
    }
    let path = &if path.is_dir() { path.join(LORA_FILE) } else { path.to_path_buf() };
    let bad = |message: String| Error::File { path: path.clone(), message };
    let weights = Weights::open(path)?;
    let adapter = adapter(&weights).map_err(bad)?;
    let mut changes: BTreeMap<String, Change> = BTreeMap::new();
    for entry in weights.entries() {
        let array = weights.array(&entry.name, Class::Weights)?;
        let name = entry.name.replace(".processor.", ".");
        let side = |side: usize| NAMES.iter().find_map(|names| name.strip_suffix(names[side]));
        if let Some(layer) = side(0) {
            changes.entry(layer.into()).or_default().down = Some(array);
        } else if let Some(layer) = side(1) {
            changes.entry(layer.into()).or_default().up = Some(array);
        } else if let Some(layer) = name.strip_suffix(".alpha") {
            let layer = layer.strip_suffix("_lora").unwrap_or(layer);
            changes.entry(layer.into()).or_default().alpha = Some(array.item()?);
        } else {
            return Err(bad(format!(
                "{:?} is no name of a LoRA: expected …{} or …{}",
                entry.name, NAMES[0][0], NAMES[0][1]
            )));
        }
    }
    let mut known = HashMap::new();
    for (prefix, model) in models {
        known.extend(model.named_parameters().into_iter().map(|(name, param)| (format!("{prefix}.{name}"), param)));
    }
    let mut made = Vec::new();
    for (layer, change) in &changes {
        let (Some(down), Some(up)) = (&change.down, &change.up) else {
            return Err(bad(format!("{layer} has one of the two matrices, and not the other")));
        };
        // Diffusers' first versions left out that the last layer is the first of a list.
        let names = [format!("{layer}.weight"), format!("{layer}.0.weight")];
        let Some(weight) = names.iter().find_map(|name| known.get(name)) else {
            let of: Vec<&str> = models.iter().map(|(prefix, _)| *prefix).collect();
            return Err(bad(format!("{layer} is no layer of {}", of.join(" or "))));
        };
        let (shape, rank) = (weight.shape(), down.shape()[0]);
        if shape.rank() != 2 || **down.shape() != [rank, shape[1]] || **up.shape() != [shape[0], rank] {
            let message = format!(
                "{layer}: matrices of {:?} and {:?} are no change of a weight of {:?}; only linear layers are built",
                down.shape(),
                up.shape(),
                shape
            );
            return Err(bad(message));
        }
        let alpha = change.alpha.or(adapter).unwrap_or(rank as f64);
        let wide = |array: &Array| Var::constant(array.clone()).cast(DType::F32);
        let sum = no_grad(|| {
            let change = (&wide(up)?.matmul(&wide(down)?)? * (scale * alpha / rank as f64))?;
            &wide(&weight.array())? + &change
        })?;
        made.push((weight, sum));
    }
    made.iter().try_for_each(|(weight, sum)| weight.array().copy_from(sum.array()))?;
    Ok(made.len())
}

/// The α that newer files of diffusers have in their header, if it is the same for all layers.
fn adapter(weights: &Weights) -> Result<Option<f64>, String> {
    let Some(text) = weights.metadata().get("lora_adapter_metadata") else { return Ok(None) };
    let all: Value = serde_json::from_str(text).map_err(|e| format!("lora_adapter_metadata: {e}"))?;
    let of = |key: &str| all.get(format!("unet.{key}")).or(all.get(key));
    for pattern in ["alpha_pattern", "rank_pattern"] {
        if of(pattern).and_then(Value::as_object).is_some_and(|map| !map.is_empty()) {
            return Err(format!("lora_adapter_metadata has a {pattern}, which is not built"));
        }
    }
    if of("use_rslora").and_then(Value::as_bool) == Some(true) || of("use_dora").and_then(Value::as_bool) == Some(true)
    {
        return Err("lora_adapter_metadata asks for rsLoRA or DoRA, which are not built".into());
    }
    Ok(of("lora_alpha").and_then(Value::as_f64))
}
