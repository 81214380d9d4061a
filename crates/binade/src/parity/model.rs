//! A case of a model: output, loss and every gradient.

use std::path::Path;

use anyhow::Result;
use binade::amp::Policy;
use binade::models::AnyModel;
use binade::models::parity::{Case, Comparison, NUDGES, Region, nudged};
use binade::weights::{LoadOptions, Weights};

use super::verdict::Verdict;

pub fn run(folder: &Path, regions: &[Region], recompute: bool) -> Result<Verdict> {
    let case = Case::open(folder)?;
    let (model, _) = AnyModel::open(folder, &LoadOptions::default())?;
    let model = model.recomputing(recompute);
    let stored = Weights::open(folder)?.names();
    let mut verdict = Verdict { layered: true, ..Verdict::default() };
    let compared = |model: &AnyModel, region: Region| -> Result<Comparison> {
        let policy = region.dtype().map_or(Policy::OFF, Policy::autocast);
        let computed = policy.run(|| case.compute(model, &stored))?;
        Ok(case.compare(&computed, region)?)
    };
    for &region in regions {
        let comparison = compared(&model, region)?;
        if region != Region::F32 && !comparison.failures().is_empty() {
            // Whether it is chance: models that no precision tells from this one.
            let mut passed = 0;
            for seed in 1..=NUDGES {
                let (other, _) = AnyModel::open(folder, &LoadOptions::default())?;
                let other = other.recomputing(recompute);
                nudged(&other, seed)?;
                passed += compared(&other, region)?.failures().is_empty() as u64;
            }
            let name = region.name();
            verdict.notes.push(format!("  {name}: with weights a rounding away {passed} of {NUDGES} runs pass"));
        }
        verdict.distances.extend(comparison.distances);
        verdict.lines.extend(comparison.unmatched.into_iter().map(|line| format!("  {line}")));
    }
    verdict.passed = verdict.lines.is_empty() && verdict.distances.iter().all(|d| d.fits());
    Ok(verdict)
}
