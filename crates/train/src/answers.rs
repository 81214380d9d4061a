//! [`Answers`]: which classes a model found for which.

use serde::{Deserialize, Serialize};

/// Beyond so many classes only sums are kept.
const MOST: usize = 100;
/// So many samples are kept of those that were found to be of another class.
const CONFUSED: usize = 12;

/// What a model answered, counted over test samples.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answers {
    /// Samples whose class was among the five that were found most likely.
    pub among_five: u64,
    /// Names of the classes; none where only their numbers are known.
    pub names: Vec<String>,
    /// For each true class how often each was found; none of more than 100 classes.
    pub found: Vec<Vec<u64>>,
    /// Samples that were counted.
    #[serde(default)]
    pub counted: u64,
    /// The samples that were found to be of another class with the most confidence, the surest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub confused: Vec<Confused>,
}

/// A sample that was found to be of another class.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Confused {
    /// Its number, from 0.
    pub sample: u64,
    /// What it is.
    pub class: usize,
    /// What was found.
    pub found: usize,
    /// The probability that was given to that.
    pub share: f64,
}

// Of probabilities, none of which is NaN.
impl Eq for Confused {}

impl Answers {
    /// Nothing yet, of so many classes.
    pub fn new(classes: usize, names: &[String]) -> Answers {
        let kept = if classes <= MOST { classes } else { 0 };
        let names = if names.len() == kept { names.to_vec() } else { Vec::new() };
        Answers { names, found: vec![vec![0; kept]; kept], ..Answers::default() }
    }

    /// Counts a sample, of which these are the classes' logits: whether the most likely one was right. Of equal ones it
    /// is the first; a sample with NaN is wrong.
    pub fn count(&mut self, logits: &[f64], class: usize) -> bool {
        self.counted += 1;
        let Some(&own) = logits.get(class) else { return false };
        let before = |(i, &l): (usize, &f64)| l > own || l.is_nan() || (l == own && i < class);
        let place = if own.is_nan() { usize::MAX } else { logits.iter().enumerate().filter(|e| before(*e)).count() };
        let most = logits.iter().enumerate().max_by(|(i, a), (j, b)| a.total_cmp(b).then(j.cmp(i)));
        self.among_five += (place < 5) as u64;
        if let Some(cell) = self.found.get_mut(class).and_then(|row| row.get_mut(most?.0)) {
            *cell += 1;
        }
        if let Some((found, _)) = most.filter(|(found, _)| *found != class && place > 0) {
            let share = 1.0 / logits.iter().map(|l| (l - logits[found]).exp()).sum::<f64>();
            self.confused.extend(share.is_finite().then_some(Confused {
                sample: self.counted - 1,
                class,
                found,
                share,
            }));
            self.keep_the_surest();
        }
        place == 0
    }

    /// Adds what was counted elsewhere of the same classes.
    pub fn add(&mut self, other: &Answers) {
        self.among_five += other.among_five;
        for (row, others) in self.found.iter_mut().zip(&other.found) {
            row.iter_mut().zip(others).for_each(|(n, other)| *n += other);
        }
        let after = |one: &Confused| Confused { sample: self.counted + one.sample, ..*one };
        self.confused.extend(other.confused.iter().map(after).collect::<Vec<_>>());
        self.counted += other.counted;
        self.keep_the_surest();
    }

    fn keep_the_surest(&mut self) {
        self.confused.sort_by(|a, b| b.share.total_cmp(&a.share).then(a.sample.cmp(&b.sample)));
        self.confused.truncate(CONFUSED);
    }

    /// The share of each class's samples that were found to be of it; `None` for a class without any.
    pub fn recall(&self) -> Vec<Option<f64>> {
        let of = |(class, row): (usize, &Vec<u64>)| {
            let all: u64 = row.iter().sum();
            (all > 0).then(|| row[class] as f64 / all as f64)
        };
        self.found.iter().enumerate().map(of).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::Answers;

    #[test]
    fn classes_are_counted_by_what_was_found() {
        let mut answers = Answers::new(3, &["a".into(), "b".into(), "c".into()]);
        assert!(answers.count(&[0.0, 2.0, 1.0], 1));
        assert!(!answers.count(&[3.0, 2.0, 1.0], 1));
        // Of equal ones the first.
        assert!(answers.count(&[1.0, 1.0, 1.0], 0) && !answers.count(&[1.0, 1.0, 1.0], 2));
        assert_eq!(answers.found, [[1, 0, 0], [1, 1, 0], [1, 0, 0]]);
        assert_eq!(answers.recall(), [Some(1.0), Some(0.5), Some(0.0)]);
        let mut twice = answers.clone();
        twice.add(&answers);
        assert_eq!((twice.found[1][0], twice.among_five), (2, 8));
        assert_eq!(Answers::new(3, &[]).recall(), [None, None, None]);
        // The surest mistake first, and those of a second part after those of the first.
        let told: Vec<(u64, usize, usize)> = twice.confused.iter().map(|c| (c.sample, c.class, c.found)).collect();
        assert_eq!(told, [(1, 1, 0), (5, 1, 0), (3, 2, 0), (7, 2, 0)]);
        let share = 1.0 / (1.0 + (-1.0f64).exp() + (-2.0f64).exp());
        assert!((twice.confused[0].share - share).abs() < 1e-12 && (twice.confused[2].share - 1.0 / 3.0).abs() < 1e-12);
    }

    #[test]
    fn the_class_is_among_five_unless_five_are_before_it_or_it_is_no_number() {
        let mut answers = Answers::new(101, &[]);
        let mut logits = vec![0.0; 101];
        logits[..5].fill(1.0);
        assert!(!answers.count(&logits, 4));
        assert_eq!(answers.among_five, 1);
        answers.count(&logits, 5);
        assert!(!answers.count(&[f64::NAN; 101], 0) && answers.among_five == 1 && answers.found.is_empty());
    }
}
