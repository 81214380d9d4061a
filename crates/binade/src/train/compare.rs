//! Runs with several seeds: each precision against the first, seed by seed.

use anyhow::Result;
use binade::cli::output::line;
use binade::train::Summary;

/// What a summary is compared by: accuracy in percent, else the loss.
fn result(summary: &Summary) -> (f64, &'static str) {
    match summary.test_accuracy {
        Some(accuracy) => (100.0 * accuracy, "points"),
        None => (summary.test_loss.unwrap_or(f64::NAN), "of test loss"),
    }
}

/// The results of a seed.
pub fn seed_line(seed: u64, summaries: &[Summary]) -> String {
    let each = summaries.iter().map(|s| match s.test_accuracy {
        Some(accuracy) => format!("{} {:.2} %", s.precision, 100.0 * accuracy),
        None => format!("{} {:.4}", s.precision, result(s).0),
    });
    format!("seed {seed}: {}", each.collect::<Vec<_>>().join("  "))
}

/// Mean paired difference of each precision to the first, with its standard error.
pub fn compare(all: &[(u64, Vec<Summary>)]) -> Result<()> {
    let n = all.len() as f64;
    for i in 1..all[0].1.len() {
        let differences: Vec<f64> = all.iter().map(|(_, s)| result(&s[i]).0 - result(&s[0]).0).collect();
        let mean = differences.iter().sum::<f64>() / n;
        let variance = differences.iter().map(|d| (d - mean).powi(2)).sum::<f64>() / (n - 1.0).max(1.0);
        let (error, names) = ((variance / n).sqrt(), [i, 0].map(|i| &all[0].1[i].precision));
        let unit = result(&all[0].1[i]).1;
        line(format_args!("{} − {}: {mean:+.3} {unit}, standard error {error:.3}, {n} seeds", names[0], names[1]))?;
    }
    Ok(())
}
