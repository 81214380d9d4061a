//! [`Answers`]: which classes a model found for which.

use std::fmt::Write;

use serde::{Deserialize, Serialize};

/// Beyond so many classes only sums are kept.
const MOST: usize = 100;

/// What a model answered, counted over test samples.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answers {
    /// Samples whose class was among the five that were found most likely.
    pub among_five: u64,
    /// Names of the classes; none where only their numbers are known.
    pub names: Vec<String>,
    /// For each true class how often each was found; none of more than 100 classes.
    pub found: Vec<Vec<u64>>,
}

impl Answers {
    /// Nothing yet, of so many classes.
    pub fn new(classes: usize, names: &[String]) -> Answers {
        let kept = if classes <= MOST { classes } else { 0 };
        let names = if names.len() == kept { names.to_vec() } else { Vec::new() };
        Answers { among_five: 0, names, found: vec![vec![0; kept]; kept] }
    }

    /// Counts a sample, of which these are the classes' logits: whether the most likely one was right. Of equal ones it
    /// is the first; a sample with NaN is wrong.
    pub fn count(&mut self, logits: &[f64], class: usize) -> bool {
        let Some(&own) = logits.get(class) else { return false };
        let before = |(i, &l): (usize, &f64)| l > own || l.is_nan() || (l == own && i < class);
        let place = if own.is_nan() { usize::MAX } else { logits.iter().enumerate().filter(|e| before(*e)).count() };
        let most = logits.iter().enumerate().max_by(|(i, a), (j, b)| a.total_cmp(b).then(j.cmp(i)));
        self.among_five += (place < 5) as u64;
        if let Some(cell) = self.found.get_mut(class).and_then(|row| row.get_mut(most?.0)) {
            *cell += 1;
        }
        place == 0
    }

    /// Adds what was counted elsewhere of the same classes.
    pub fn add(&mut self, other: &Answers) {
        self.among_five += other.among_five;
        for (row, others) in self.found.iter_mut().zip(&other.found) {
            row.iter_mut().zip(others).for_each(|(n, other)| *n += other);
        }
    }

    /// The share of each class's samples that were found to be of it; `None` for a class without any.
    pub fn recall(&self) -> Vec<Option<f64>> {
        let of = |(class, row): (usize, &Vec<u64>)| {
            let all: u64 = row.iter().sum();
            (all > 0).then(|| row[class] as f64 / all as f64)
        };
        self.found.iter().enumerate().map(of).collect()
    }

    /// A table: rows are true classes, columns what was found; the last column is the recall.
    pub(crate) fn html(&self, escape: impl Fn(&str) -> String) -> String {
        let name = |class: usize| self.names.get(class).map_or_else(|| class.to_string(), |name| escape(name));
        let mut html = String::from("<table class=\"confusion\"><tr><th>is \\ found</th>");
        for class in 0..self.found.len() {
            let _ = write!(html, "<th>{}</th>", name(class));
        }
        html.push_str("<th>recall</th></tr>");
        for (class, (row, recall)) in self.found.iter().zip(self.recall()).enumerate() {
            let _ = write!(html, "<tr><td>{}</td>", name(class));
            let all = row.iter().sum::<u64>().max(1) as f64;
            for (found, &n) in row.iter().enumerate() {
                // What is right in blue, what is wrong in red, the more the stronger.
                let colour = if found == class { "0,114,178" } else { "213,94,0" };
                let shown = if n == 0 { "·".to_string() } else { n.to_string() };
                let _ = write!(html, "<td style=\"background:rgba({colour},{:.2})\">{shown}</td>", n as f64 / all);
            }
            let recall = recall.map_or("–".into(), |r| format!("{:.1} %", 100.0 * r));
            let _ = write!(html, "<td>{recall}</td></tr>");
        }
        html + "</table>"
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
        let html = answers.html(str::to_string);
        assert!(html.contains("<td>50.0 %</td>") && html.contains("<th>b</th>"));
        assert_eq!(Answers::new(3, &[]).recall(), [None, None, None]);
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
