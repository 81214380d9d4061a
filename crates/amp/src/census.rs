//! [`census`]: which operators of a step ran in which dtype, what was cast, and which contractions stayed in f32.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use binade_autograd::Var;
use binade_autograd::scope::{self, Event};
use binade_tensor::{DType, Op};
use serde::{Deserialize, Serialize};

use crate::{Policy, Result};

/// What [`census`] counted, forward and backward together.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Census {
    /// Operators by name and dtype of the result.
    pub operators: BTreeMap<String, BTreeMap<String, u64>>,
    /// Casts by layer: how many, and the bytes they wrote.
    pub casts: BTreeMap<String, (u64, u64)>,
    /// Layers and operators whose contraction ran in f32 though the policy has a 16-bit dtype.
    pub wide_contractions: Vec<(String, String)>,
}

impl Census {
    /// Operators with a result of a dtype.
    pub fn in_dtype(&self, dtype: DType) -> u64 {
        self.operators.values().filter_map(|by| by.get(&dtype.to_string())).sum()
    }

    /// Bytes written by casts.
    pub fn cast_bytes(&self) -> u64 {
        self.casts.values().map(|(_, bytes)| bytes).sum()
    }
}

/// Runs a step, forward and backward, under a policy and counts. Nothing is changed: running statistics that wait are
/// discarded.
///
/// # Errors
/// The closure fails.
pub fn census<E: From<crate::Error>>(policy: &Policy, loss: impl Fn() -> Result<Var, E>) -> Result<Census, E> {
    let found = Arc::new(Mutex::new(Census::default()));
    let sink = found.clone();
    let low = policy.compute();
    let observer: scope::Observer = Arc::new(move |event: &Event<'_>| {
        let out = &event.outs[0];
        let mut census = sink.lock().unwrap_or_else(|e| e.into_inner());
        let op = event.op;
        if matches!(op, Op::View(_) | Op::Copy) {
            return;
        }
        if matches!(op, Op::Cast(_) | Op::StochasticCast { .. }) {
            let (count, bytes) = census.casts.entry(event.path.to_string()).or_default();
            *count += 1;
            *bytes += (out.numel() * out.dtype().size()) as u64;
            return;
        }
        let by = census.operators.entry(op.name().into()).or_default();
        *by.entry(out.dtype().to_string()).or_default() += 1;
        let product = matches!(op, Op::MatMul(_));
        let contraction = product || matches!(op, Op::Conv2d(..) | Op::ConvTranspose2d { .. } | Op::Attention(_));
        // A 16-bit operand with an f32 result is accumulation, not a wide product.
        let wide = event.ins.iter().take(2).any(|a| a.dtype() == DType::F32);
        if contraction && wide && low.is_some() {
            census.wide_contractions.push((event.path.into(), op.name().into()));
        }
    });
    scope::run_in(&scope::capture().rehearsal(), || {
        scope::with_observer(observer, || {
            let loss = policy.run(&loss)?;
            policy.check_layers()?;
            loss.backward().map(drop).map_err(|e| E::from(e.into()))
        })
    })?;
    Ok(std::mem::take(&mut *found.lock().unwrap_or_else(|e| e.into_inner())))
}
