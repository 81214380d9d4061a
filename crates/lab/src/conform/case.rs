//! One recorded case and the rule by which it passes.

use std::collections::HashMap;
use std::path::Path;

use anyhow::{Context, Result, anyhow, bail};
use binade::amp::Policy;
use binade::autograd::{Var, scope};
use binade::nn::read_safetensors;
use binade::tensor::format::Format;
use binade::tensor::{Array, Class, DType, Device};
use serde_json::Value;

use super::{inputs::Inputs, ops};

/// A recorded case: inputs, upstream gradient, PyTorch's results and those of float64.
pub struct Case {
    tensors: HashMap<String, Array>,
    op: String,
    attrs: Value,
    policy: String,
    region: Option<DType>,
}

/// What became of a case.
pub enum Outcome {
    Passed,
    /// One line per tensor that is too far off.
    Failed(Vec<String>),
    /// The operator does not exist here.
    Absent(String),
}

impl Case {
    pub fn read(path: &Path) -> Result<Case> {
        // Those of float64 stay on the host: a device may have none.
        let (tensors, metadata) = scope::with_device(&Device::cpu(), || read_safetensors(path, Class::Activations))?;
        let device = scope::device()?;
        let moved = |array: Array| if array.dtype() == DType::F64 { Ok(array) } else { array.to(&device) };
        let tensors = tensors.into_iter().map(|(name, array)| Ok((name, moved(array)?))).collect::<Result<_>>()?;
        let get = |key: &str| metadata.get(key).cloned().ok_or_else(|| anyhow!("the metadata lacks '{key}'"));
        let region = match get("region")?.as_str() {
            "off" => None,
            "f16" => Some(DType::F16),
            "bf16" => Some(DType::BF16),
            other => bail!("unknown region '{other}'"),
        };
        let attrs = serde_json::from_str(&get("attrs")?).context("the attributes are not JSON")?;
        Ok(Case { tensors, op: get("op")?, attrs, policy: get("policy")?, region })
    }

    pub fn run(&self) -> Result<Outcome> {
        let mut leaves = HashMap::new();
        let mut inputs = HashMap::new();
        for (name, array) in &self.tensors {
            let Some(name) = name.strip_prefix("in.") else { continue };
            if !array.dtype().is_float() {
                inputs.insert(name.to_string(), Var::constant(array.clone()));
                continue;
            }
            let leaf = Var::leaf(array.clone());
            // After a 16-bit operator: cast inside the graph. A `lower` operator casts its inputs itself.
            let arrives_low = match self.policy.as_str() {
                "lower" => false,
                "batch_norm" => name == "input",
                _ => true,
            };
            let var = match self.region {
                Some(dtype) if arrives_low => leaf.cast(dtype)?,
                Some(_) | None => leaf.clone(),
            };
            inputs.insert(name.to_string(), var);
            leaves.insert(name.to_string(), leaf);
        }
        let policy = self.region.map_or(Policy::OFF, Policy::autocast);
        let result = policy.run(|| ops::apply(&self.op, &Inputs::new(&inputs, &self.attrs)))?;
        let Some(out) = result else { return Ok(Outcome::Absent(self.op.clone())) };
        let mut failures = Vec::new();
        self.compare("out", out.array(), &mut failures)?;
        if out.requires_grad() {
            let gradients = out.backward_with(self.tensor("gout")?)?;
            gradients.commit()?;
            for (name, leaf) in &leaves {
                let key = format!("grad.{name}");
                if !self.tensors.contains_key(&key) {
                    continue;
                }
                match gradients.get(leaf) {
                    Some(gradient) => self.compare(&key, gradient, &mut failures)?,
                    None => failures.push(format!("{key}: no gradient")),
                }
            }
        }
        for key in self.tensors.keys().filter(|k| k.starts_with("after.")) {
            let name = &key["after.".len()..];
            let ours = inputs.get(name).ok_or_else(|| anyhow!("{key} has no input {name}"))?;
            self.compare(key, ours.array(), &mut failures)?;
        }
        Ok(if failures.is_empty() { Outcome::Passed } else { Outcome::Failed(failures) })
    }

    fn tensor(&self, name: &str) -> Result<&Array> {
        self.tensors.get(name).ok_or_else(|| anyhow!("the case lacks '{name}'"))
    }

    /// No further from float64 than twice PyTorch's error plus two units in the last place, in the recorded dtype and
    /// shape.
    fn compare(&self, name: &str, ours: &Array, failures: &mut Vec<String>) -> Result<()> {
        let theirs = self.tensor(name)?;
        if ours.dtype() != theirs.dtype() || ours.shape() != theirs.shape() {
            failures.push(format!(
                "{name}: got {} {:?}, recorded {} {:?}",
                ours.dtype(),
                ours.shape(),
                theirs.dtype(),
                theirs.shape()
            ));
            return Ok(());
        }
        // Buffers have no float64 reference: PyTorch's value stands in.
        let reference = self.tensors.get(&format!("ref.{name}")).unwrap_or(theirs);
        let (ours, theirs, reference) = (ours.to_f64_vec()?, theirs.to_f64_vec()?, reference.to_f64_vec()?);
        let format = self.tensor(name)?.dtype().format().unwrap_or(Format::F32);
        let special = |x: f64| if x.is_finite() { None } else { Some((x.is_nan(), x > 0.0)) };
        if let Some(i) = (0..ours.len()).find(|&i| special(ours[i]) != special(theirs[i])) {
            failures.push(format!("{name}: element {i} is {}, PyTorch has {}", ours[i], theirs[i]));
            return Ok(());
        }
        let error = |values: &[f64]| {
            values.iter().zip(&reference).map(|(v, r)| (v - r).abs()).filter(|e| !e.is_nan()).fold(0.0, f64::max)
        };
        let largest = reference.iter().filter(|r| r.is_finite()).fold(0.0, |m: f64, r| m.max(r.abs()));
        let (mine, pytorch) = (error(&ours), error(&theirs));
        let limit = 2.0 * pytorch + 2.0 * format.ulp(largest);
        if mine.is_nan() || mine > limit {
            failures.push(format!("{name}: error {mine:.3e}, PyTorch's {pytorch:.3e}, limit {limit:.3e}"));
        }
        Ok(())
    }
}
