//! Policies as text: jmp's grammar, names of other systems' policies, and settings.

use std::fmt;

use binade_tensor::DType;
use serde::de::{DeserializeOwned, IntoDeserializer, value};

use super::{Policy, Table};
use crate::{Error, Result};

/// Names whose policies have no other spelling that is as short.
const NAMES: [&str; 16] = [
    "off",
    "torch:f16",
    "torch:bf16",
    "torch-cpu:f16",
    "torch-cpu:bf16",
    "apex:O2",
    "apex:O3",
    "paddle-o1:f16",
    "paddle-o1:bf16",
    "paddle-o2:f16",
    "paddle-o2:bf16",
    "paddle-od:f16",
    "paddle-od:bf16",
    "f32",
    "f16",
    "bf16",
];

/// The variant of a fieldless enum that serde calls `name`.
fn named<T: DeserializeOwned>(name: &str) -> Result<T, String> {
    let from: value::StrDeserializer<'_, value::Error> = name.into_deserializer();
    T::deserialize(from).map_err(|e| e.to_string())
}

/// What serde calls a variant of a fieldless enum whose words it joins so.
fn name(variant: &impl fmt::Debug, joint: &str) -> String {
    let mut out = String::new();
    for c in format!("{variant:?}").chars() {
        if c.is_uppercase() && !out.is_empty() {
            out.push_str(joint);
        }
        out.extend(c.to_lowercase());
    }
    out
}

fn dtype(name: &str) -> Result<DType, String> {
    match name.trim() {
        "f32" | "float32" | "full" => Ok(DType::F32),
        "f16" | "float16" | "half" => Ok(DType::F16),
        "bf16" | "bfloat16" => Ok(DType::BF16),
        other => Err(format!("unknown dtype {other:?}; expected f32, f16 or bf16")),
    }
}

impl Policy {
    /// jmp's strings: `p=f32,c=bf16,o=f32` for parameters, computation and output, or one dtype for all three. What is
    /// missing follows: parameters f32, computation as parameters, output as computation. `half` is f16. The output is
    /// f32 or the dtype of computation. Parameters in 16 bit are made with [`Policy::build`].
    ///
    /// Also the names `off`, `torch:f16`, `torch-cpu:bf16`, `apex:O1`, `paddle-o1:f16`, `paddle-o2:…`, `paddle-od:…`.
    /// After any of them settings may follow: `residual=low` ([`Policy::with_low_residual`]), `wgrad=f32`
    /// ([`Policy::with_f32_weight_gradients`]), `except=OPERATOR@LAYER=CLASS` ([`Policy::except`]), and after jmp's
    /// `table=uniform` and `batch_norm=f32`. [`Policy`]'s `Display` writes such a string.
    ///
    /// # Errors
    /// [`Error::Policy`]: an unknown key, dtype, name or operator; an output that is neither.
    pub fn parse(text: &str) -> Result<Policy> {
        parse(text).map_err(|message| Error::Policy(format!("policy {text:?}: {message}")))
    }
}

fn parse(text: &str) -> Result<Policy, String> {
    let (first, rest) = text.split_once(',').map_or((text, None), |(first, rest)| (first, Some(rest)));
    let settings = rest.into_iter().flat_map(|rest| rest.split(','));
    if first.contains('=') {
        return jmp(std::iter::once(first).chain(settings));
    }
    let base = match first.split_once(':') {
        None if first == "off" => Policy::OFF,
        None => {
            let of = dtype(first)?;
            Policy { param: of, output: Some(of), ..Policy::autocast(of).with_table(Table::Uniform) }
        }
        Some(("apex", level)) => {
            let level = level.trim_start_matches(['O', 'o']).parse().map_err(|_| "expected O0 to O3")?;
            Policy::apex(level).map_err(|e| e.to_string())?
        }
        Some((table, of)) => {
            let table = named(table).map_err(|_| format!("unknown name {table:?}"))?;
            Policy::autocast(dtype(of)?).with_table(table)
        }
    };
    settings.into_iter().try_fold(base, |policy, part| match setting(policy, part)? {
        (policy, true) => Ok(policy),
        (_, false) => {
            Err(format!("{part:?} is no setting; expected residual=low, wgrad=f32 or except=OPERATOR@LAYER=CLASS"))
        }
    })
}

/// The keys p, c and o, and settings.
fn jmp<'a>(parts: impl Iterator<Item = &'a str>) -> Result<Policy, String> {
    let (mut param, mut compute, mut output, mut policy) = (None, None, None, Policy::OFF.with_table(Table::Uniform));
    for part in parts {
        let (key, value) = part.split_once('=').ok_or_else(|| format!("{part:?} is not KEY=VALUE"))?;
        match (key.trim(), value.trim()) {
            ("p" | "params", value) => param = Some(dtype(value)?),
            ("c" | "compute", value) => compute = Some(dtype(value)?),
            ("o" | "output", "any") => output = Some(None),
            ("o" | "output", value) => output = Some(Some(dtype(value)?)),
            ("table", value) => policy.table = named(value)?,
            ("batch_norm", "f32") => policy.f32_batch_norm = true,
            (other, _) => match setting(policy, part)? {
                (with, true) => policy = with,
                (_, false) => return Err(format!("unknown key {other:?}; expected p, c or o")),
            },
        }
    }
    let param = param.unwrap_or(DType::F32);
    let compute = compute.unwrap_or(param);
    let output = output.unwrap_or(Some(compute));
    if output.is_some_and(|o| o != DType::F32 && o != compute) {
        return Err(format!("the output is f32 or, as computation, {compute}; cast the result for another dtype"));
    }
    Ok(Policy { param, compute: compute.is_half().then_some(compute), output, ..policy })
}

/// A setting that may follow any name, and whether `part` is one.
fn setting(policy: Policy, part: &str) -> Result<(Policy, bool), String> {
    Ok(match part.split_once('=') {
        Some(("residual", "low")) => (policy.with_low_residual(), true),
        Some(("wgrad", "f32")) => (policy.with_f32_weight_gradients(), true),
        Some(("except", exception)) => {
            let form = || format!("{exception:?} is not OPERATOR@LAYER=CLASS");
            let (op, rest) = exception.split_once('@').ok_or_else(form)?;
            let (layer, class) = rest.rsplit_once('=').ok_or_else(form)?;
            (policy.except(op, layer, named(class)?).map_err(|e| e.to_string())?, true)
        }
        Some(_) | None => (policy, false),
    })
}

/// A string that [`Policy::parse`] makes the same policy of.
impl fmt::Display for Policy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let plain = Policy { exceptions: Vec::new(), wgrad_f32: false, low_residual: false, ..self.clone() };
        match NAMES.iter().find(|name| parse(name).is_ok_and(|policy| policy == plain)) {
            Some(name) => f.write_str(name)?,
            None => {
                let (compute, output) =
                    (self.compute.unwrap_or(DType::F32), self.output.map_or("any".into(), |o| o.to_string()));
                write!(f, "p={},c={compute},o={output}", self.param)?;
                if self.table != Table::Uniform {
                    write!(f, ",table={}", name(&self.table, "-"))?;
                }
                if self.f32_batch_norm {
                    f.write_str(",batch_norm=f32")?;
                }
            }
        }
        if self.low_residual {
            f.write_str(",residual=low")?;
        }
        if self.wgrad_f32 {
            f.write_str(",wgrad=f32")?;
        }
        self.exceptions.iter().try_for_each(|e| write!(f, ",except={}@{}={}", e.op, e.layer, name(&e.class, "_")))
    }
}
