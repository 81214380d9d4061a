//! [`preflight`]: what a model's numbers would lose in each 16-bit format, found by one step in f32.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::{Arc, Mutex};

use binade_autograd::Var;
use binade_autograd::scope::{self, Event, Phase};
use binade_nn::Module;
use binade_tensor::{Array, DType};
use serde::{Deserialize, Serialize};

use crate::{CastPolicy, Dynamic, LossScale, Policy, Result, Table};

/// What a tensor is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// A parameter.
    Weight,
    /// A result of the forward pass.
    Activation,
    /// A result of the backward pass.
    Gradient,
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Role::Weight => "weight",
            Role::Activation => "activation",
            Role::Gradient => "gradient",
        })
    }
}

/// What numbers would become in a format.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Loss {
    /// Numbers that would become 0.
    pub underflow: u64,
    /// Numbers that would be subnormal: kept with fewer bits.
    pub subnormal: u64,
    /// Finite numbers that would become infinite.
    pub overflow: u64,
}

/// Magnitudes of the numbers of some tensors.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Range {
    /// Numbers seen.
    pub count: u64,
    /// Of them, zeros.
    pub zeros: u64,
    /// Of them, infinities and NaN.
    pub not_finite: u64,
    /// Largest finite magnitude.
    pub max_abs: f64,
    /// Smallest magnitude that is not 0.
    pub min_abs: f64,
    /// Numbers by ⌊log₂|x|⌋.
    pub exponents: BTreeMap<i32, u64>,
    /// In f16.
    pub f16: Loss,
    /// In bf16.
    pub bf16: Loss,
}

impl Range {
    fn add(&mut self, values: &[f64]) {
        // By the field of the exponent, of which the last is of what is not finite. Millions of numbers go into few
        // entries of the map.
        let mut fields = [0u64; 0x800];
        for &x in values {
            let m = x.abs();
            fields[(m.to_bits() >> 52) as usize] += 1;
            // Zeros, infinities and NaN change none of these.
            if m > 0.0 && m < f64::INFINITY {
                self.max_abs = self.max_abs.max(m);
                self.min_abs = if self.min_abs == 0.0 { m } else { self.min_abs.min(m) };
                self.f16.add(m, &F16);
                self.bf16.add(m, &BF16);
            }
        }
        self.count += values.len() as u64;
        // The field of zeros is that of f64's subnormals too.
        let zeros = values.iter().filter(|x| **x == 0.0).count() as u64;
        self.zeros += zeros;
        fields[0] -= zeros;
        self.not_finite += std::mem::take(&mut fields[0x7FF]);
        // Exact for every finite f64 above its subnormals, which f32 and narrower values are.
        for (field, n) in fields.into_iter().enumerate().filter(|(_, n)| *n > 0) {
            *self.exponents.entry(field as i32 - 1023).or_default() += n;
        }
    }

    /// Binades between the largest magnitude and the largest f16, 65504; negative beyond it.
    pub fn f16_headroom(&self) -> f64 {
        (65504.0 / self.max_abs).log2()
    }
}

/// Where a format loses numbers, as magnitudes.
struct Limits {
    /// The largest that becomes 0: half the smallest subnormal, which is rounded to even.
    zero: f64,
    /// The smallest that is normal.
    normal: f64,
    /// The smallest that becomes infinite: halfway beyond the largest, which is rounded to even.
    infinite: f64,
}

const F16: Limits = Limits { zero: two_to(-25), normal: two_to(-14), infinite: 65520.0 };
const BF16: Limits = Limits { zero: two_to(-134), normal: two_to(-126), infinite: two_to(128) - two_to(119) };

/// 2ⁿ, for what f64 has as a normal number.
const fn two_to(n: i64) -> f64 {
    f64::from_bits(((n + 1023) as u64) << 52)
}

impl Loss {
    fn add(&mut self, m: f64, limits: &Limits) {
        self.underflow += (m <= limits.zero) as u64;
        self.subnormal += (m > limits.zero && m < limits.normal) as u64;
        self.overflow += (m >= limits.infinite) as u64;
    }
}

/// The numbers of one operator in one layer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Row {
    /// Path of the layer; of weights, the parameter's name.
    pub layer: String,
    /// Operator; empty for weights.
    pub op: String,
    /// What they are.
    pub role: Role,
    /// Their magnitudes.
    pub range: Range,
    /// Whether autocast to f16 has some of them in f16: as results, or cast for an operator that takes them. A sum or a
    /// loss stays in f32.
    pub in_f16: bool,
}

/// What [`preflight`] found.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Preflight {
    /// Weights, then operators in order of first use.
    pub rows: Vec<Row>,
    /// The recommended dtype of autocast.
    pub recommended: String,
    /// The recommended first loss scale; `None` for no scaling.
    pub loss_scale: Option<f64>,
    /// Why, in a sentence.
    pub why: String,
}

impl Preflight {
    /// The magnitudes of all numbers of a role.
    pub fn total(&self, role: Role) -> Range {
        let mut total = Range::default();
        for r in self.rows.iter().filter(|r| r.role == role).map(|r| &r.range) {
            let min = [total.min_abs, r.min_abs].into_iter().filter(|m| *m > 0.0).fold(f64::INFINITY, f64::min);
            total.min_abs = if min.is_finite() { min } else { 0.0 };
            total.max_abs = total.max_abs.max(r.max_abs);
            (total.count, total.zeros) = (total.count + r.count, total.zeros + r.zeros);
            total.not_finite += r.not_finite;
            r.exponents.iter().for_each(|(e, n)| *total.exponents.entry(*e).or_default() += n);
            for (t, l) in [(&mut total.f16, r.f16), (&mut total.bf16, r.bf16)] {
                t.underflow += l.underflow;
                t.subnormal += l.subnormal;
                t.overflow += l.overflow;
            }
        }
        total
    }

    /// The recommended policy.
    pub fn policy(&self) -> Policy {
        Policy::autocast(if self.recommended == DType::F16.to_string() { DType::F16 } else { DType::BF16 })
    }

    /// The loss scaling that belongs to it.
    pub fn scaling(&self) -> LossScale {
        match self.loss_scale {
            Some(init_scale) => LossScale::Dynamic(Dynamic { init_scale, ..Dynamic::default() }),
            None => LossScale::Off,
        }
    }
}

/// Runs one step, forward and backward, in f32 whatever the surrounding policy, and says per layer and operator what
/// over- or underflows in f16 and bf16. Nothing is changed: running statistics that wait are discarded.
///
/// # Errors
/// The closure fails.
pub fn preflight<E: From<crate::Error>>(model: &dyn Module, loss: impl Fn() -> Result<Var, E>) -> Result<Preflight, E> {
    let mut weights = Seen::default();
    for (name, param) in model.named_parameters() {
        weights.note(Role::Weight, &name, "", &param.array(), true);
    }
    let seen = Arc::new(Mutex::new(weights));
    let sink = seen.clone();
    let observer: scope::Observer =
        Arc::new(move |event: &Event<'_>| sink.lock().unwrap_or_else(|e| e.into_inner()).see(event));
    scope::run_in(&scope::capture().rehearsal(), || {
        scope::with_observer(observer, || {
            let loss = Policy::OFF.run(&loss)?;
            loss.backward().map(drop).map_err(|e| E::from(e.into()))
        })
    })?;
    let rows = std::mem::take(&mut *seen.lock().unwrap_or_else(|e| e.into_inner())).rows;
    Ok(judge(Preflight { rows, recommended: String::new(), loss_scale: None, why: String::new() }))
}

/// The rows so far, and what autocast to f16 would make of results.
#[derive(Default)]
struct Seen {
    rows: Vec<Row>,
    index: HashMap<(Role, String, String), usize>,
    /// Of a storage, the dtype it would have, and its row.
    would_be: HashMap<u64, (DType, usize)>,
}

impl Seen {
    /// Adds numbers to their row.
    fn note(&mut self, role: Role, layer: &str, op: &str, array: &Array, in_f16: bool) -> usize {
        let at = *self.index.entry((role, layer.into(), op.into())).or_insert(self.rows.len());
        if at == self.rows.len() {
            self.rows.push(Row { layer: layer.into(), op: op.into(), role, range: Range::default(), in_f16: false });
        }
        self.rows[at].in_f16 |= in_f16;
        self.rows[at].range.add(&array.to_f64_vec().unwrap_or_default());
        at
    }

    fn see(&mut self, event: &Event<'_>) {
        let out = &event.outs[0];
        // A view has the numbers of what it views.
        let view = event.ins.iter().any(|a| a.storage().id() == out.storage().id());
        if view || !out.dtype().is_float() {
            return;
        }
        let (layer, op) = (event.path, event.op.name());
        if event.phase == Phase::Backward {
            self.note(Role::Gradient, layer, op, out, true);
            return;
        }
        let would_be = |a: &&Array| self.would_be.get(&a.storage().id()).map_or(a.dtype(), |(dtype, _)| *dtype);
        let dtypes: Vec<DType> = event.ins.iter().map(would_be).collect();
        let class = Table::Torch.class(event.op, DType::F16);
        let dtype = match class {
            CastPolicy::Lower => DType::F16,
            CastPolicy::F32 | CastPolicy::F32Out | CastPolicy::Banned => DType::F32,
            CastPolicy::Promote | CastPolicy::Neutral => event.op.natural_dtype(&dtypes),
        };
        if class == CastPolicy::Lower {
            let rows = event.ins.iter().filter_map(|a| self.would_be.get(&a.storage().id()));
            rows.for_each(|&(_, row)| self.rows[row].in_f16 = true);
        }
        let row = self.note(Role::Activation, layer, op, out, dtype == DType::F16);
        self.would_be.insert(out.storage().id(), (dtype, row));
    }
}

/// Fills in the recommendation.
fn judge(found: Preflight) -> Preflight {
    let wide = found
        .rows
        .iter()
        .filter(|r| r.role != Role::Gradient && r.in_f16)
        .max_by(|a, b| a.range.max_abs.total_cmp(&b.range.max_abs));
    let gradients = found.total(Role::Gradient);
    // Four binades are left for what training will change.
    if let Some(row) = wide.filter(|r| r.range.f16_headroom() < 4.0) {
        let place = if row.op.is_empty() { row.layer.clone() } else { format!("{} in {:?}", row.op, row.layer) };
        let why = format!(
            "{place} reaches {:.3e}, {:.1} binades below 65504: too near for f16",
            row.range.max_abs,
            row.range.f16_headroom()
        );
        return Preflight { recommended: DType::BF16.to_string(), why, ..found };
    }
    let share = 100.0 * gradients.f16.underflow as f64 / (gradients.count - gradients.zeros).max(1) as f64;
    // The largest power of two that keeps the largest gradient four binades below the limit.
    let scale = 2f64.powi((gradients.f16_headroom().clamp(4.0, 28.0) as i32 - 4).min(24));
    let why = format!(
        "activations and weights fit f16 ({:.1} binades left); {share:.2} % of the gradients would be 0 without \
         scaling",
        wide.map_or(f64::INFINITY, |r| r.range.f16_headroom())
    );
    Preflight { recommended: DType::F16.to_string(), loss_scale: Some(scale), why, ..found }
}

#[cfg(test)]
mod tests {
    use super::*;
    use binade_tensor::Class;

    #[test]
    fn subnormal_numbers_of_f64_are_not_zeros() {
        let mut range = Range::default();
        range.add(&[0.0, -0.0, 5e-324, f64::INFINITY, f64::NAN, 1.5]);
        assert_eq!((range.count, range.zeros, range.not_finite), (6, 2, 2));
        assert_eq!((range.min_abs, range.max_abs), (5e-324, 1.5));
        assert_eq!(range.exponents, BTreeMap::from([(-1023, 1), (0, 1)]));
    }

    #[test]
    fn counts_agree_with_real_casts_at_every_edge() {
        let edges = [-134, -133, -127, -126, -26, -25, -24, -15, -14, 0, 15, 16, 126, 127];
        let mut values: Vec<f32> = edges.iter().map(|&e| 2f64.powi(e) as f32).collect();
        values.extend([65504.0, 65519.996, 65520.0, 3.389_531_3e38, 3.396_177e38, f32::MAX, -1e-8, 4e-8, 0.0]);
        let around = |v: f32| [f32::from_bits(v.to_bits().saturating_sub(1)), v, f32::from_bits(v.to_bits() + 1)];
        let values: Vec<f32> = values.into_iter().flat_map(around).filter(|v| v.is_finite()).collect();
        for v in values {
            let mut range = Range::default();
            range.add(&[v as f64]);
            let array = Array::from_slice(&binade_cpu::device(), &[v], &[1], Class::Workspace).unwrap();
            for (dtype, loss, normal) in
                [(DType::F16, range.f16, 2f64.powi(-14)), (DType::BF16, range.bf16, 2f64.powi(-126))]
            {
                let cast = array.cast(dtype, Class::Workspace).unwrap().item().unwrap().abs();
                assert_eq!(loss.underflow == 1, v != 0.0 && cast == 0.0, "{v:e} in {dtype}");
                assert_eq!(loss.overflow == 1, cast.is_infinite(), "{v:e} in {dtype}");
                assert_eq!(loss.subnormal == 1, cast != 0.0 && (v.abs() as f64) < normal, "{v:e} in {dtype}");
            }
        }
    }
}
