//! A case of a model: output, loss and every gradient.

use std::path::Path;

use anyhow::Result;
use binade::amp::Policy;
use binade::models::AnyModel;
use binade::models::parity::{Case, Region};
use binade::weights::{LoadOptions, Weights};

use super::verdict::Verdict;

pub fn run(folder: &Path, regions: &[Region], recompute: bool) -> Result<Verdict> {
    let case = Case::open(folder)?;
    let (model, _) = AnyModel::open(folder, &LoadOptions::default())?;
    let model = model.recomputing(recompute);
    let stored = Weights::open(folder)?.names();
    let mut verdict = Verdict { layered: true, ..Verdict::default() };
    for &region in regions {
        let policy = region.dtype().map_or(Policy::OFF, Policy::autocast);
        let computed = policy.run(|| case.compute(&model, &stored))?;
        let comparison = case.compare(&computed, region)?;
        verdict.distances.extend(comparison.distances);
        verdict.lines.extend(comparison.unmatched.into_iter().map(|line| format!("  {line}")));
    }
    verdict.passed = verdict.lines.is_empty() && verdict.distances.iter().all(|d| d.fits());
    Ok(verdict)
}
