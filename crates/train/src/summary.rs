//! [`Summary`]: what a run came to, one per precision, as JSON and as a table.

use serde::{Deserialize, Serialize};

use binade_tensor::{Class, MemoryStats};

use crate::TextUnit;
use crate::answers::Answers;

/// Largest numbers of bytes in use at once, by class.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PeakBytes {
    /// Parameters and buffers.
    pub weights: usize,
    /// Gradients.
    pub gradients: usize,
    /// Optimiser state.
    pub optimizer: usize,
    /// Results of operators, batches included.
    pub activations: usize,
    /// Copies in another dtype.
    pub casts: usize,
    /// Integer tensors.
    pub indices: usize,
    /// Scratch of kernels.
    pub workspace: usize,
}

impl From<MemoryStats> for PeakBytes {
    fn from(stats: MemoryStats) -> PeakBytes {
        PeakBytes {
            weights: stats.peak(Class::Weights),
            gradients: stats.peak(Class::Gradients),
            optimizer: stats.peak(Class::Optimizer),
            activations: stats.peak(Class::Activations),
            casts: stats.peak(Class::Casts),
            indices: stats.peak(Class::Indices),
            workspace: stats.peak(Class::Workspace),
        }
    }
}

impl PeakBytes {
    /// The larger of each class.
    #[must_use]
    pub fn most(self, other: PeakBytes) -> PeakBytes {
        PeakBytes {
            weights: self.weights.max(other.weights),
            gradients: self.gradients.max(other.gradients),
            optimizer: self.optimizer.max(other.optimizer),
            activations: self.activations.max(other.activations),
            casts: self.casts.max(other.casts),
            indices: self.indices.max(other.indices),
            workspace: self.workspace.max(other.workspace),
        }
    }

    /// Name and bytes of every class.
    pub fn classes(&self) -> [(&'static str, usize); 7] {
        [
            ("weights", self.weights),
            ("gradients", self.gradients),
            ("optimizer", self.optimizer),
            ("activations", self.activations),
            ("casts", self.casts),
            ("indices", self.indices),
            ("workspace", self.workspace),
        ]
    }
}

fn images() -> String {
    "images".into()
}

impl Summary {
    /// e to the test loss, of a language model.
    pub fn test_perplexity(&self) -> Option<f64> {
        self.test_loss.filter(|_| self.text.is_some()).map(f64::exp)
    }

    /// The test loss in bits, where they are told, and what they are told per.
    pub fn test_bits(&self) -> Option<(f64, &str)> {
        let text = self.text.as_ref()?;
        Some((text.bits(self.test_loss?), &text.name))
    }
}

/// What training in one precision came to.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Summary {
    /// `fp32`, `fp16` or `bf16`.
    pub precision: String,
    /// Epochs trained.
    pub epochs: u64,
    /// Mean seconds of training per epoch, evaluation apart.
    pub seconds_per_epoch: f64,
    /// Training samples (tokens, images …) per second.
    #[serde(alias = "images_per_second")]
    pub per_second: f64,
    /// What there are so many of in a second.
    #[serde(default = "images")]
    pub unit: String,
    /// Mean of the last epoch's losses over its samples, those of batches with a finite loss; NaN, in JSON `null`, if
    /// there were none.
    #[serde(deserialize_with = "crate::metrics::null_is_nan")]
    pub train_loss: f64,
    /// Share of test samples classified right, 0 to 1; absent for regression.
    pub test_accuracy: Option<f64>,
    /// Share of test samples whose class was among the five most likely; absent where there are no classes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub test_top5: Option<f64>,
    /// Which classes were found for which, of at most 100.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub answers: Option<Answers>,
    /// Mean loss on the test samples; absent where it is not finite.
    #[serde(default)]
    pub test_loss: Option<f64>,
    /// What bits are told per, of a language model.
    #[serde(default)]
    pub text: Option<TextUnit>,
    /// Last loss scale; 1 without scaling.
    pub loss_scale: f64,
    /// Steps skipped because a gradient was not finite.
    pub skipped_steps: u64,
    /// Peak bytes by class.
    pub peak_bytes: PeakBytes,
    /// Bytes of activations, casts and indices alive between forward and backward.
    pub saved_activation_bytes: usize,
}

/// Bytes for people: `1.25 MiB`.
pub(crate) fn bytes(n: usize) -> String {
    match n {
        0 => "0".into(),
        n if n < 1 << 20 => format!("{:.1} KiB", n as f64 / 1024.0),
        n if n < 1 << 30 => format!("{:.1} MiB", n as f64 / (1u64 << 20) as f64),
        n => format!("{:.2} GiB", n as f64 / (1u64 << 30) as f64),
    }
}

/// What says how good the models are: accuracy, else perplexity, else the loss.
pub(crate) fn result(summaries: &[&Summary]) -> (&'static str, fn(&Summary) -> Option<String>) {
    let all = |of: fn(&Summary) -> bool| !summaries.is_empty() && summaries.iter().all(|summary| of(summary));
    if all(|s| s.test_accuracy.is_some()) {
        ("test accuracy", |s| s.test_accuracy.map(|a| format!("{:.2} %", 100.0 * a)))
    } else if all(|s| s.text.is_some()) {
        ("test perplexity", |s| {
            let ((bits, unit), loss) = (s.test_bits()?, s.test_loss?);
            Some(format!("{:.3}: {loss:.4} nats per token, {bits:.4} bits per {unit}", loss.exp()))
        })
    } else {
        ("test loss", |s| s.test_loss.map(|l| format!("{l:.5}")))
    }
}

/// The summaries side by side: one column per precision.
pub fn table(summaries: &[Summary]) -> String {
    table_of(&summaries.iter().map(|summary| (summary.precision.as_str(), summary)).collect::<Vec<_>>())
}

/// As [`table`], with a name for each column.
pub fn table_of(named: &[(&str, &Summary)]) -> String {
    use comfy_table::{CellAlignment, Table, presets};
    let summaries: Vec<&Summary> = named.iter().map(|(_, summary)| *summary).collect();
    let mut table = Table::new();
    table.load_preset(presets::ASCII_MARKDOWN);
    table.set_header(std::iter::once("precision").chain(named.iter().map(|(name, _)| *name)));
    let mut row = |name: &str, f: &dyn Fn(&Summary) -> String| {
        table.add_row(std::iter::once(name.to_string()).chain(summaries.iter().map(|summary| f(summary))));
    };
    let first = summaries.first().copied();
    let against = |value: f64, of: &dyn Fn(&Summary) -> f64| {
        first.map(of).filter(|&b| b > 0.0).map_or(String::new(), |b| format!(" ({:.2}×)", value / b))
    };
    row("seconds per epoch", &|s| format!("{:.3}", s.seconds_per_epoch));
    row(&format!("{}/s", first.map_or("samples", |s| &s.unit)), &|s| {
        format!("{:.0}{}", s.per_second, against(s.per_second, &|f| f.per_second))
    });
    let (result, of) = result(&summaries);
    row(result, &|s| of(s).unwrap_or("-".into()));
    // Of few classes five are no choice.
    if summaries.iter().any(|s| s.test_top5.is_some() && s.answers.as_ref().is_none_or(|a| a.found.len() > 10)) {
        row("test top-5", &|s| s.test_top5.map_or("-".into(), |share| format!("{:.2} %", 100.0 * share)));
    }
    row("final loss", &|s| format!("{:.5}", s.train_loss));
    row("loss scale", &|s| format!("{}", s.loss_scale));
    row("skipped steps", &|s| s.skipped_steps.to_string());
    row("saved activations", &|s| {
        format!(
            "{}{}",
            bytes(s.saved_activation_bytes),
            against(s.saved_activation_bytes as f64, &|f| f.saved_activation_bytes as f64)
        )
    });
    for i in 0..7 {
        let name = PeakBytes::default().classes()[i].0;
        row(&format!("peak {name}"), &|s| bytes(s.peak_bytes.classes()[i].1));
    }
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table.to_string()
}
