//! [`Calibration`]: what the layers of a model read, seen from outside while it runs.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use binade_autograd::scope::{self, Event};
use binade_tensor::op::Unary;
use binade_tensor::{Array, Class, DType, Op, run_one};

use super::{Histogram, Threshold, weights};
use crate::{Module, Param, Result};

/// Histograms of the inputs of a model's linear layers and convolutions.
#[derive(Clone, Debug)]
pub struct Calibration {
    /// By the memory of the weight that an input meets.
    seen: Arc<Mutex<HashMap<u64, Histogram>>>,
}

impl Calibration {
    /// Of a model, which has seen nothing yet.
    pub fn new(module: &dyn Module) -> Calibration {
        let weights = weights(module).into_iter().map(|weight| (key(&weight.param.array()), Histogram::default()));
        Calibration { seen: Arc::new(Mutex::new(weights.collect())) }
    }

    /// Runs `f`, in evaluation and without gradients, and counts what meets the weights in it.
    ///
    /// # Errors
    /// Those of `f`.
    pub fn watch<T>(&self, f: impl FnOnce() -> T) -> T {
        let seen = self.seen.clone();
        let observer = Arc::new(move |event: &Event<'_>| {
            let [x, weight, ..] = event.ins else { return };
            let act = if let Op::MatMul(product) = event.op {
                product.act_of(0)
            } else if matches!(event.op, Op::Conv2d(..)) {
                None
            } else {
                return;
            };
            let mut seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
            let Some(histogram) = seen.get_mut(&key(weight)) else { return };
            // An operator that ran had memory for more than this.
            if let Ok(values) = values(x, act) {
                histogram.add(values);
            }
        });
        scope::with_observer(observer, || scope::eval(f))
    }

    /// What met a weight.
    pub fn histogram(&self, weight: &Param) -> Option<Histogram> {
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.get(&key(&weight.array())).filter(|histogram| !histogram.is_empty()).cloned()
    }

    /// The scale of a weight's input: its threshold over 127. `None` if it met nothing but zeros.
    pub fn scale(&self, weight: &Param, by: Threshold) -> Option<f64> {
        Some(self.histogram(weight)?.threshold(by)? / binade_tensor::op::LARGEST)
    }
}

/// A weight and its views share their memory.
fn key(array: &Array) -> u64 {
    array.storage().id()
}

fn values(x: &Array, act: Option<Unary>) -> Result<Vec<f64>> {
    let activated = match act {
        Some(act) => run_one(&Op::Unary(act), &[x], x.device(), DType::F32, Class::Workspace)?,
        None => x.clone(),
    };
    Ok(activated.to_f64_vec()?)
}
