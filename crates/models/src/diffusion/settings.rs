//! What the configurations of diffusion models have in common: checks, activations, names of old versions.

use std::collections::{BTreeMap, BTreeSet};

use binade_nn::Module;
use binade_tensor::op::Unary;
use binade_weights::{Source, Sources};
use serde::{Deserialize, Serialize};

use crate::Keys;

/// One value for all levels, or one for each.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum OneOrEach<T> {
    /// For all levels.
    One(T),
    /// Per level.
    Each(Vec<T>),
}

impl<T: Copy> OneOrEach<T> {
    /// Of so many levels. What is missing repeats the last; [`Check::each`] has refused it.
    pub(crate) fn list(&self, levels: usize) -> Vec<T> {
        match self {
            OneOrEach::One(value) => vec![*value; levels],
            OneOrEach::Each(values) => {
                let last = values.last();
                (0..levels).filter_map(|i| values.get(i).or(last).copied()).collect()
            }
        }
    }
}

pub(crate) fn strings(names: &[&str]) -> Vec<String> {
    names.iter().map(|&name| name.into()).collect()
}

/// Names of activations in configurations.
const ACTIVATIONS: [(&str, Unary); 5] = [
    ("silu", Unary::Silu),
    ("swish", Unary::Silu),
    ("gelu", Unary::Gelu),
    ("mish", Unary::Mish),
    ("relu", Unary::Relu),
];

/// The function of a name.
pub(crate) fn activation(key: &str, name: &str, keys: &mut Keys) -> Unary {
    let found = ACTIVATIONS.iter().find(|(known, _)| *known == name);
    found.map_or_else(
        || {
            let built = ACTIVATIONS.map(|(known, _)| known).join(" or ");
            keys.problem(format!("{key} is {name:?}, and only {built} is built"));
            Unary::Silu
        },
        |(_, act)| *act,
    )
}

/// Notes what does not fit in a configuration, and returns something to go on with.
pub(crate) struct Check<'a>(pub &'a mut Keys);

impl Check<'_> {
    pub fn levels(&mut self, channels: &[usize], down: &[String], up: &[String]) {
        let counts = [channels.len(), down.len(), up.len()];
        if counts[0] == 0 || counts.iter().any(|&n| n != counts[0]) {
            self.0.problem(format!(
                "block_out_channels, down_block_types and up_block_types have {counts:?} entries: there must be as \
                 many of each, and at least one"
            ));
        }
    }

    pub fn each<T: Copy>(&mut self, key: &str, values: &OneOrEach<T>, levels: usize) -> Vec<T> {
        if let OneOrEach::Each(values) = values
            && values.len() != levels
        {
            self.0.problem(format!("{key} has {} entries for {levels} levels", values.len()));
        }
        values.list(levels)
    }

    pub fn groups(&mut self, channels: &[usize], groups: usize) {
        if let Some(c) = channels.iter().find(|&&c| groups == 0 || c == 0 || c % groups != 0) {
            self.0.problem(format!("norm_num_groups is {groups}, which does not divide {c} channels"));
        }
    }

    /// Features of a head that divide the channels.
    pub fn head(&mut self, key: &str, head: usize, channels: usize) -> usize {
        if head == 0 || !channels.is_multiple_of(head) {
            self.0.problem(format!("{key}: heads of {head} features do not divide {channels} channels"));
            return channels.max(1);
        }
        head
    }

    /// A number of heads that divides the channels.
    pub fn heads(&mut self, key: &str, heads: usize, channels: usize) -> usize {
        if heads == 0 || !channels.is_multiple_of(heads) {
            self.0.problem(format!("{key}: {heads} heads do not divide {channels} channels"));
            return 1;
        }
        heads
    }

    pub fn positive(&mut self, key: &str, value: usize) {
        if value == 0 {
            self.0.problem(format!("{key} is 0, and must be at least 1"));
        }
    }

    pub fn scale(&mut self, key: &str, value: f64) {
        if !(value > 0.0 && value.is_finite()) {
            self.0.problem(format!("{key} is {value}, and must be above 0"));
        }
    }

    pub fn rate(&mut self, key: &str, value: f64) {
        if !(0.0..1.0).contains(&value) {
            self.0.problem(format!("{key} is {value}, and must be from 0 to below 1"));
        }
    }

    /// Frequencies of the time need a positive divisor, and as many sines as cosines.
    pub fn shift(&mut self, shift: usize, channels: usize) -> usize {
        if !channels.is_multiple_of(2) || shift >= channels / 2 {
            self.0.problem(format!(
                "freq_shift is {shift}: {channels} channels of the first level have {} frequencies",
                channels as f64 / 2.0
            ));
            return 0;
        }
        shift
    }

    /// Which of the names it is.
    pub fn choice(&mut self, key: &str, name: &str, names: &[&str]) -> usize {
        names.iter().position(|known| *known == name).unwrap_or_else(|| {
            self.0.problem(format!("{key} is {name:?}, and only {} is built", names.join(" or ")));
            0
        })
    }
}

/// Where attention's weights are in files of the library's first versions: `query`, `key`, `value`, `proj_attn`. Their
/// matrices are `[C, C]`, and in files converted from the original code `[C, C, 1, 1]`: both are read.
pub(crate) fn legacy_attention(model: &dyn Module, stored: &BTreeSet<String>) -> Sources {
    const NAMES: [(&str, &str); 4] = [("to_q", "query"), ("to_k", "key"), ("to_v", "value"), ("to_out.0", "proj_attn")];
    let mut sources = BTreeMap::new();
    for (name, param) in model.named_parameters() {
        for (new, old) in NAMES {
            for end in ["weight", "bias"] {
                if let Some(above) = name.strip_suffix(&format!("{new}.{end}")) {
                    let legacy = format!("{above}{old}.{end}");
                    if stored.contains(&legacy) && !stored.contains(&name) {
                        let source = match param.shape().to_vec() {
                            matrix if matrix.len() == 2 => Source::Reshaped(legacy, [&matrix[..], &[1, 1]].concat()),
                            _ => Source::Tensor(legacy),
                        };
                        sources.insert(name.clone(), source);
                    }
                }
            }
        }
    }
    Sources { sources, ignored: Vec::new() }
}
