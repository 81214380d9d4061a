//! [`csv`]: the numbers of runs as a table for spreadsheets.

use crate::{Metrics, Recorded};

/// Columns after those that say of what a line is.
const NUMBERS: [&str; 13] = [
    "epoch",
    "loss",
    "lr",
    "grad_norm",
    "loss_scale",
    "skipped",
    "train_loss",
    "test_loss",
    "test_accuracy",
    "test_perplexity",
    "test_bits",
    "seconds",
    "why_skipped",
];

/// A line for each step, evaluation and epoch of the runs (RFC 4180), under a line of names. What a line does not tell,
/// or what is not finite, is empty.
pub fn csv(runs: &[Recorded]) -> String {
    let mut text = format!("run,precision,kind,iteration,{}\r\n", NUMBERS.join(","));
    for (run, record) in runs.iter().flat_map(|run| run.metrics.iter().map(move |record| (run, record))) {
        let number = |n: f64| if n.is_finite() { n.to_string() } else { String::new() };
        let maybe = |n: Option<f64>| n.map_or(String::new(), number);
        let mut cells: [String; 13] = Default::default();
        let mut put = |name: &str, cell: String| {
            if let Some(at) = NUMBERS.iter().position(|own| *own == name) {
                cells[at] = cell;
            }
        };
        let (kind, iteration) = match &record.metrics {
            Metrics::Step(step) => {
                put("loss", maybe(step.loss));
                put("lr", number(step.lr));
                put("grad_norm", maybe(step.grad_norm));
                put("loss_scale", number(step.loss_scale));
                put("skipped", u8::from(step.skipped).to_string());
                put("why_skipped", step.blame.as_ref().map_or(String::new(), |blame| quoted(&blame.to_string())));
                ("step", step.iteration)
            }
            Metrics::Evaluation(e) => {
                put("test_loss", number(e.test_loss));
                put("test_accuracy", maybe(e.test_accuracy));
                put("test_perplexity", maybe(e.test_perplexity));
                put("test_bits", maybe(e.test_bits));
                ("evaluation", e.iteration)
            }
            Metrics::Epoch(e) => {
                put("epoch", e.epoch.to_string());
                put("train_loss", number(e.train_loss));
                put("test_loss", number(e.test_loss));
                put("test_accuracy", maybe(e.test_accuracy));
                put("test_perplexity", maybe(e.test_perplexity));
                put("test_bits", maybe(e.test_bits));
                put("seconds", number(e.seconds));
                ("epoch", e.iteration)
            }
        };
        let run = quoted(&run.name);
        text += &format!("{run},{},{kind},{iteration},{}\r\n", record.precision, cells.join(","));
    }
    text
}

/// A text as a cell.
fn quoted(text: &str) -> String {
    if text.contains([',', '"', '\r', '\n']) { format!("\"{}\"", text.replace('"', "\"\"")) } else { text.into() }
}

#[cfg(test)]
mod tests {
    use super::quoted;

    #[test]
    fn what_a_spreadsheet_would_split_is_quoted() {
        assert_eq!(quoted("plain"), "plain");
        assert_eq!(quoted("a, \"b\""), "\"a, \"\"b\"\"\"");
    }
}
