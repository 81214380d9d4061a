//! A recorded case: what was computed, in f64 and by PyTorch, and how far from it a result may be.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, Result, anyhow};
use binade::autograd::Var;
use binade::cli::output::verdict_line;
use binade::tensor::Class;
use binade::weights::Weights;
use serde_json::Value;

use super::Region;

/// Tensors of `case.safetensors`, read as they are asked for, and its metadata.
pub struct Case {
    weights: Weights,
    autocast: Value,
}

/// How far a tensor is from f64's, and how far it may be: both relative to f64's norm.
pub struct Distance {
    pub region: Region,
    pub name: String,
    pub found: f64,
    pub allowed: f64,
    /// Squares of the difference's norm and of f64's.
    pub squares: [f64; 2],
}

impl Distance {
    pub fn fits(&self) -> bool {
        // Not the negation of `>`: NaN is a failure.
        self.found <= self.allowed
    }
}

/// What a case came to.
#[derive(Default)]
pub struct Verdict {
    pub passed: bool,
    pub distances: Vec<Distance>,
    /// Whether the distances are those of a model's layers.
    pub layered: bool,
    /// What is wrong besides.
    pub lines: Vec<String>,
}

impl Case {
    pub fn open(folder: &Path) -> Result<Case> {
        let weights = Weights::open(&folder.join("case.safetensors"))?;
        let autocast = match weights.metadata().get("autocast") {
            Some(text) => serde_json::from_str(text).context("case.safetensors: autocast")?,
            None => Value::Null,
        };
        Ok(Case { weights, autocast })
    }

    pub fn text(&self, key: &str) -> Result<&str> {
        let found = self.weights.metadata().get(key).map(String::as_str);
        found.ok_or_else(|| anyhow!("case.safetensors: its metadata has no {key}"))
    }

    pub fn has(&self, name: &str) -> bool {
        self.weights.get(name).is_some()
    }

    pub fn var(&self, name: &str) -> Result<Var> {
        Ok(Var::constant(self.weights.array(name, Class::Activations)?))
    }

    pub fn values(&self, name: &str) -> Result<Vec<f64>> {
        Ok(self.weights.array(name, Class::Workspace)?.to_f64_vec()?)
    }

    /// Names of the gradients.
    pub fn gradients(&self) -> impl Iterator<Item = &str> {
        self.weights.entries().filter_map(|entry| entry.name.strip_prefix("ref.grad."))
    }

    /// PyTorch's own error in a region: of the output, or of a gradient.
    fn theirs(&self, region: Region, gradient: Option<&str>) -> Result<f64> {
        let errors = &self.autocast[region.name()];
        let found = gradient.map_or(&errors["out"], |name| &errors["grads"][name]).as_f64();
        let what = gradient.unwrap_or("out");
        found.ok_or_else(|| anyhow!("case.safetensors: no error of PyTorch's {what} in {}", region.name()))
    }

    /// The distance of a tensor. In f32 the norm of the difference may be 1e-5 of the reference's, and of gradients
    /// `floor` besides: one whose true value is 0 is rounding alone. In 16 bit it may be 1.5 times PyTorch's own too.
    pub fn distance(
        &self,
        region: Region,
        name: &str,
        gradient: Option<&str>,
        [ours, wanted]: [&[f64]; 2],
        floor: f64,
    ) -> Result<Distance> {
        if ours.len() != wanted.len() {
            return Err(anyhow!("{name} has {} elements, recorded are {}", ours.len(), wanted.len()));
        }
        let size = square(wanted.iter().copied());
        let difference = square(ours.iter().zip(wanted).map(|(a, b)| a - b));
        let theirs = if region == Region::F32 { 0.0 } else { 1.5 * self.theirs(region, gradient)? };
        // What is 0 in f64 has no relative error: both are then in the tensor's own units.
        let unit = if size > 0.0 { size.sqrt() } else { 1.0 };
        let allowed = theirs + 1e-5 + floor / unit;
        Ok(Distance {
            region,
            name: name.into(),
            found: difference.sqrt() / unit,
            allowed,
            squares: [difference, size],
        })
    }
}

pub fn square(values: impl Iterator<Item = f64>) -> f64 {
    values.map(|value| value * value).sum()
}

impl Verdict {
    /// Prints what failed, the tensors that are furthest, and the layers' errors in each precision.
    pub fn show(&self, worst: usize) -> Result<()> {
        for line in &self.lines {
            verdict_line(line)?;
        }
        for distance in self.distances.iter().filter(|d| !d.fits()) {
            verdict_line(format_args!("  {}: {}", distance.region.name(), text(distance)))?;
        }
        let mut regions: Vec<Region> = Vec::new();
        for distance in &self.distances {
            if !regions.contains(&distance.region) {
                regions.push(distance.region);
            }
        }
        for region in &regions {
            let mut of: Vec<&Distance> = self.distances.iter().filter(|d| d.region == *region).collect();
            of.sort_by(|a, b| (b.found / b.allowed).total_cmp(&(a.found / a.allowed)));
            let told: Vec<String> = of.iter().take(worst).map(|d| text(d)).collect();
            verdict_line(format_args!("  {:<4} closest to its bound: {}", region.name(), told.join("; ")))?;
        }
        if self.layered { self.show_layers(&regions, worst) } else { Ok(()) }
    }

    /// Errors of the gradients of each layer: the norm over all its tensors.
    fn show_layers(&self, regions: &[Region], worst: usize) -> Result<()> {
        let mut layers: BTreeMap<&str, BTreeMap<&str, [f64; 2]>> = BTreeMap::new();
        for distance in self.distances.iter().filter(|d| !matches!(d.name.as_str(), "out" | "loss")) {
            let layer = distance.name.rsplit_once('.').map_or("", |(layer, _)| layer);
            let sums = layers.entry(layer).or_default().entry(distance.region.name()).or_default();
            sums.iter_mut().zip(distance.squares).for_each(|(sum, square)| *sum += square);
        }
        let error = |[difference, size]: [f64; 2]| (difference / size.max(f64::MIN_POSITIVE)).sqrt();
        let largest = |errors: &BTreeMap<&str, [f64; 2]>| errors.values().map(|s| error(*s)).fold(0.0, f64::max);
        let mut sorted: Vec<_> = layers.iter().collect();
        sorted.sort_by(|a, b| largest(b.1).total_cmp(&largest(a.1)));
        for (layer, errors) in sorted.into_iter().take(worst) {
            let of = |region: &Region| {
                let found = errors.get(region.name()).map_or(0.0, |sums| error(*sums));
                format!("{} {found:.1e}", region.name())
            };
            let told: Vec<String> = regions.iter().map(of).collect();
            verdict_line(format_args!("  layer {layer}: {}", told.join(", ")))?;
        }
        Ok(())
    }
}

fn text(distance: &Distance) -> String {
    format!("{} {:.2e} of {:.2e}", distance.name, distance.found, distance.allowed)
}
