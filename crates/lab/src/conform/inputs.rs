//! [`Inputs`]: tensors and attributes of a recorded case.

use std::collections::HashMap;

use anyhow::{Result, anyhow};
use binade::autograd::Var;
use binade::tensor::op::Reduction;
use serde_json::Value;

/// Inputs and attributes of a case, by PyTorch's names.
pub struct Inputs<'a> {
    pub tensors: &'a HashMap<String, Var>,
    pub attrs: &'a Value,
}

impl<'a> Inputs<'a> {
    pub fn new(tensors: &'a HashMap<String, Var>, attrs: &'a Value) -> Inputs<'a> {
        Inputs { tensors, attrs }
    }

    pub fn get(&self, name: &str) -> Result<&'a Var> {
        self.tensors.get(name).ok_or_else(|| anyhow!("the case lacks input '{name}'"))
    }

    pub fn number(&self, name: &str, default: f64) -> f64 {
        self.attrs.get(name).and_then(Value::as_f64).unwrap_or(default)
    }

    pub fn flag(&self, name: &str) -> bool {
        self.attrs.get(name).and_then(Value::as_bool).unwrap_or(false)
    }

    pub fn text(&self, name: &str, default: &'a str) -> &'a str {
        self.attrs.get(name).and_then(Value::as_str).unwrap_or(default)
    }

    /// A number or a list of numbers; empty when absent or null.
    pub fn list(&self, name: &str) -> Vec<isize> {
        match self.attrs.get(name) {
            Some(Value::Array(items)) => items.iter().filter_map(|v| v.as_i64().map(|i| i as isize)).collect(),
            Some(value) => value.as_i64().map(|i| i as isize).into_iter().collect(),
            None => Vec::new(),
        }
    }

    /// A number for both directions, or a pair.
    pub fn pair(&self, name: &str, default: [usize; 2]) -> [usize; 2] {
        match self.list(name).as_slice() {
            [both] => [*both as usize; 2],
            [h, w] => [*h as usize, *w as usize],
            _ => default,
        }
    }

    pub fn reduction(&self) -> Reduction {
        match self.text("reduction", "mean") {
            "sum" => Reduction::Sum,
            "none" => Reduction::None,
            _ => Reduction::Mean,
        }
    }

    /// Weight and bias of a norm.
    pub fn affine(&self) -> Option<(&'a Var, &'a Var)> {
        Some((self.tensors.get("weight")?, self.tensors.get("bias")?))
    }
}
