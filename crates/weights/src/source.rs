//! Where a model's tensors are in a file: the same names and shapes in most files, others in some.

use std::collections::BTreeMap;

use crate::entry::elements;

/// Where one tensor of a model is in a file. Each form can be read and written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// Under this name, in the model's shape.
    Tensor(String),
    /// Under this name, with the same numbers in the same order in another shape: `[C, C]` as `[C, C, 1, 1]`. Written
    /// in this shape, and read in the model's too.
    Reshaped(String, Vec<usize>),
    /// Under this name, a matrix with its dimensions exchanged: GPT-2's `[in, out]`.
    Transposed(String),
    /// In parts along the first dimension, of equal extents and in this order: query, key and value.
    Parts(Vec<String>),
}

impl Source {
    /// The names in the file, in order.
    pub fn names(&self) -> &[String] {
        match self {
            Source::Tensor(name) | Source::Reshaped(name, _) | Source::Transposed(name) => std::slice::from_ref(name),
            Source::Parts(names) => names,
        }
    }

    /// The shape in the file of each of the names, for a tensor of this shape in the model, and another that will do.
    /// `None` where the model's does not divide into the parts, or is no matrix to be transposed.
    pub(crate) fn shapes(&self, model: &[usize]) -> (Option<Vec<usize>>, Option<Vec<usize>>) {
        match self {
            Source::Tensor(_) => (Some(model.to_vec()), None),
            Source::Reshaped(_, shape) => {
                let same = elements(shape) == elements(model);
                (same.then(|| shape.clone()), Some(model.to_vec()))
            }
            Source::Transposed(_) => match model {
                [rows, columns] => (Some(vec![*columns, *rows]), None),
                _ => (None, None),
            },
            Source::Parts(names) => match model.split_first() {
                Some((first, rest)) if !names.is_empty() && first.is_multiple_of(names.len()) => {
                    (Some([&[first / names.len()], rest].concat()), None)
                }
                _ => (None, None),
            },
        }
    }
}

/// How a file names what a model has. What is not listed has the model's own name and shape.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sources {
    /// By the model's name. Under a name that the model does not have, a file may have the values of the place given
    /// once more: those of a tied head, which must be the same.
    pub sources: BTreeMap<String, Source>,
    /// Names of the file that are no part of the model and are left out without a word: masks, position ids.
    pub ignored: Vec<String>,
}

impl Sources {
    /// Where the model's tensor of this name is.
    pub fn of(&self, name: &str) -> Source {
        self.sources.get(name).cloned().unwrap_or_else(|| Source::Tensor(name.into()))
    }
}
