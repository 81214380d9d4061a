//! [`Histogram`]: magnitudes of activations, and where to cut them off.

/// Bins of a histogram.
const BINS: usize = 2048;
/// Steps of an 8-bit magnitude.
const LEVELS: usize = 128;

/// The part of a number that an empty step has.
const NOTHING: f64 = 1e-4;

/// How magnitudes are counted: in bins from 0 to a limit, which grows with what it sees.
#[derive(Clone, Debug)]
pub struct Histogram {
    counts: Vec<u64>,
    /// The end of the last bin; 0 before there was a number but 0.
    limit: f64,
    largest: f64,
    zeros: u64,
}

/// Where magnitudes are cut off: beyond, activations become the largest integer.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Threshold {
    /// The largest seen.
    MinMax,
    /// So many percent of magnitudes are at most as large.
    Percentile(f64),
    /// Where the distribution of 128 steps is closest to what was seen, by relative entropy (Migacz, 2017).
    Entropy,
}

impl Default for Histogram {
    fn default() -> Histogram {
        Histogram { counts: vec![0; BINS], limit: 0.0, largest: 0.0, zeros: 0 }
    }
}

impl Histogram {
    /// Counts the magnitudes of numbers; what is not finite is passed over.
    pub fn add(&mut self, values: impl IntoIterator<Item = f64>) {
        for value in values.into_iter().map(f64::abs).filter(|v| v.is_finite()) {
            if value == 0.0 {
                self.zeros += 1;
                continue;
            }
            self.largest = self.largest.max(value);
            if self.limit == 0.0 {
                self.limit = value;
            }
            while value > self.limit {
                self.double();
            }
            let bin = (value / self.limit * BINS as f64) as usize;
            self.counts[bin.min(BINS - 1)] += 1;
        }
    }

    /// Twice the range: two neighbouring bins become one.
    fn double(&mut self) {
        for i in 0..BINS / 2 {
            self.counts[i] = self.counts[2 * i] + self.counts[2 * i + 1];
        }
        self.counts[BINS / 2..].fill(0);
        self.limit *= 2.0;
    }

    /// Numbers counted.
    pub fn len(&self) -> u64 {
        self.zeros + self.counts.iter().sum::<u64>()
    }

    /// Whether nothing was counted.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Where to cut off; `None` if there was no number but 0.
    pub fn threshold(&self, by: Threshold) -> Option<f64> {
        if self.largest == 0.0 {
            return None;
        }
        Some(match by {
            Threshold::MinMax => self.largest,
            Threshold::Percentile(percent) => self.percentile(percent),
            Threshold::Entropy => self.entropy(),
        })
    }

    fn percentile(&self, percent: f64) -> f64 {
        let (wanted, mut below) = (percent / 100.0 * self.len() as f64, self.zeros as f64);
        if wanted <= below {
            return self.limit / BINS as f64;
        }
        for (i, &count) in self.counts.iter().enumerate() {
            let with = below + count as f64;
            if count > 0 && with >= wanted {
                // Evenly spread within the bin.
                let part = ((wanted - below) / count as f64).clamp(0.0, 1.0);
                return ((i as f64 + part) * self.limit / BINS as f64).clamp(self.limit / BINS as f64, self.largest);
            }
            below = with;
        }
        self.largest
    }

    fn entropy(&self) -> f64 {
        let used = self.counts.iter().rposition(|&c| c > 0).map_or(0, |last| last + 1);
        let (mut best, mut least) = (used, f64::INFINITY);
        for cut in LEVELS.min(used)..=used {
            let divergence = self.divergence(cut);
            if divergence < least {
                (best, least) = (cut, divergence);
            }
        }
        (best as f64 * self.limit / BINS as f64).min(self.largest)
    }

    /// The relative entropy of the first `cut` bins, to the last of which all beyond is added, and their means over so
    /// many steps.
    fn divergence(&self, cut: usize) -> f64 {
        let (inside, beyond) = self.counts.split_at(cut);
        let beyond: u64 = beyond.iter().sum();
        let total = (inside.iter().sum::<u64>() + beyond) as f64;
        let seen = |i: usize| (inside[i] + if i + 1 == cut { beyond } else { 0 }) as f64 / total;
        // The steps know nothing of what lies beyond.
        let kept: f64 = inside.iter().sum::<u64>() as f64;
        let mut sum = 0.0;
        for step in 0..LEVELS.min(cut) {
            let bins = step * cut / LEVELS.min(cut)..(step + 1) * cut / LEVELS.min(cut);
            let filled = bins.clone().filter(|&i| seen(i) > 0.0).count() as f64;
            let mean = bins.clone().map(|i| inside[i] as f64).sum::<f64>() / filled.max(1.0) / kept;
            // What lies beyond may meet a step of nothing, which counts as a little.
            let mean = mean.max(NOTHING / kept);
            sum += bins.map(seen).filter(|&p| p > 0.0).map(|p| p * (p / mean).ln()).sum::<f64>();
        }
        sum
    }
}
