//! What cases come to, as it is printed.

use std::collections::BTreeMap;

use anyhow::Result;
use binade::cli::output::verdict_line;
use binade::models::parity::{Distance, Region};

/// What a case came to.
#[derive(Default)]
pub struct Verdict {
    pub passed: bool,
    pub distances: Vec<Distance>,
    /// Whether the distances are those of a model's layers.
    pub layered: bool,
    /// What is wrong besides.
    pub lines: Vec<String>,
    /// What is to be known about it.
    pub notes: Vec<String>,
}

impl Verdict {
    /// Prints what failed, the tensors that are furthest, and the layers' errors in each precision.
    pub fn show(&self, worst: usize) -> Result<()> {
        for line in &self.lines {
            verdict_line(line)?;
        }
        for distance in self.distances.iter().filter(|d| !d.fits()) {
            verdict_line(format_args!("  {}: {}", distance.region.name(), distance))?;
        }
        for note in &self.notes {
            verdict_line(note)?;
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
            let told: Vec<String> = of.iter().take(worst).map(|d| d.to_string()).collect();
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
