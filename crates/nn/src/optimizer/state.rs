//! What an optimiser remembers, and [`OptimizerState`], its snapshot.

use std::collections::{HashMap, HashSet};

use binade_autograd::LeafId;
use binade_tensor::op::Compare;
use binade_tensor::{Array, ArrayMut, Class, DType, Device, Op, Slot, Update, run_one};
use serde::{Deserialize, Serialize};

use super::Optimizer;
use crate::{Error, LoadReport, Mismatch, Param, Result, StateDict};

/// State of one parameter. Clones share memory; [`State::unshare`] comes before a write.
#[derive(Clone, Debug)]
pub(super) struct State {
    master: Option<Master>,
    buffers: Vec<Array>,
    pub(super) steps: u64,
}

/// f32 copy of a 16-bit parameter.
#[derive(Clone, Debug)]
struct Master {
    array: Array,
    /// The parameter's memory and its version when it was last this copy's rounding; `None` if that is not known.
    version: Option<(u64, u64)>,
}

impl State {
    pub(super) fn new(param: &Param, update: &Update) -> Result<State> {
        let array = &param.array();
        let dtype = state_dtype(array.dtype());
        let zeros = |shape| Array::full(array.device(), dtype, shape, 0.0, Class::Optimizer);
        let buffers = update.states(array.shape()).into_iter().map(zeros).collect::<Result<_, _>>()?;
        let master = array.dtype().is_half().then(|| array.cast(dtype, Class::Optimizer)).transpose()?;
        let version = Some(version(array));
        Ok(State { master: master.map(|array| Master { array, version }), buffers, steps: 0 })
    }

    /// Gives every array memory of its own where the parameter is, and the master what was written to the parameter
    /// since.
    pub(super) fn unshare(&mut self, param: &Param) -> Result<()> {
        let values = param.array();
        for array in self.buffers.iter_mut().chain(self.master.iter_mut().map(|m| &mut m.array)) {
            unshare(array, values.device())?;
        }
        self.master.as_mut().map_or(Ok(()), |master| master.follow(&values))
    }

    /// The arrays for a pass, borrowed for writing: into the fields of a slot.
    pub(super) fn lend<'a>(&'a self, op: &'static str, slot: &mut Slot<'a>) -> Result<()> {
        slot.master = self.master.as_ref().map(|m| ArrayMut::new(op, &m.array)).transpose()?;
        slot.state = self.buffers.iter().map(|b| ArrayMut::new(op, b)).collect::<Result<_, _>>()?;
        Ok(())
    }

    /// Notes a step, which has written the parameter from the master.
    pub(super) fn stepped(&mut self, param: &Param) {
        self.steps += 1;
        self.master.iter_mut().for_each(|m| m.version = Some(version(&param.array())));
    }

    /// The arrays with their names under the parameter's.
    fn named(&self, name: &str) -> impl Iterator<Item = (String, &Array)> {
        let buffers = self.buffers.iter().enumerate().map(move |(i, b)| (format!("{name}.{i}"), b));
        buffers.chain(self.master.iter().map(move |m| (format!("{name}.master"), &m.array)))
    }
}

impl Master {
    /// Takes over what was loaded, clipped or swapped into the parameter. Where the parameter still is this copy's
    /// rounding, the copy's further digits stay.
    fn follow(&mut self, param: &Array) -> Result<()> {
        if self.version == Some(version(param)) {
            return Ok(());
        }
        let (device, dtype) = (param.device(), self.array.dtype());
        let rounded = self.array.cast(param.dtype(), Class::Workspace)?;
        let same = run_one(&Op::Compare(Compare::Eq), &[&rounded, param], device, DType::Bool, Class::Workspace)?;
        let value = run_one(&Op::Where, &[&same, &self.array, param], device, dtype, Class::Workspace)?;
        self.array.copy_from(&value)?;
        self.version = Some(version(param));
        Ok(())
    }
}

/// What tells an array's values from later ones.
fn version(array: &Array) -> (u64, u64) {
    (array.storage().id(), array.storage().version())
}

/// The dtype of state of a parameter of this dtype.
fn state_dtype(param: DType) -> DType {
    if param == DType::F64 { DType::F64 } else { DType::F32 }
}

/// A snapshot's array as state on a device: itself where its memory can become the state's, else a copy. It is shared
/// until a step would change it ([`unshare`]); where the snapshot is dropped before, it is never copied.
pub(super) fn taken_over(array: &Array, device: &Device) -> Result<Array> {
    let fits = array.is_whole() && array.is_written() && array.layout().is_contiguous();
    if fits && array.device() == device && array.storage().class() == Class::Optimizer {
        return Ok(array.clone());
    }
    let copy = Array::full(device, array.dtype(), *array.shape(), 0.0, Class::Optimizer)?;
    copy.copy_from(array)?;
    Ok(copy)
}

/// Replaces an array that shares its memory, or is on another device, by a copy.
pub(super) fn unshare(array: &mut Array, device: &Device) -> Result<()> {
    *array = array.to(device)?;
    if !array.is_sole() {
        *array = crate::copy(array)?;
    }
    Ok(())
}

/// A snapshot of an optimiser: what its steps have made, without its settings. Later steps do not change it.
///
/// With serde it is everything but the tensors, which have a file of their own kind.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OptimizerState {
    /// Every parameter, in order of the groups.
    pub params: Vec<ParamState>,
    /// Factor of the learning rates ([`Optimizer::set_lr_factor`]).
    pub lr_factor: f64,
    /// `NAME.0`, `NAME.1`, … (the rule's buffers) and `NAME.master` of each parameter that took a step.
    #[serde(skip)]
    pub tensors: StateDict,
}

/// What an [`OptimizerState`] knows of a parameter.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ParamState {
    /// Name.
    pub name: String,
    /// Name of the rule ([`Update::name`]).
    pub rule: String,
    /// Steps taken.
    pub steps: u64,
}

impl Optimizer {
    /// A snapshot of what steps have made: moments, masters and step counts under the parameters' names. Memory is
    /// shared until the next step, which copies what it is about to change.
    ///
    /// # Errors
    /// [`Error::Names`] if two parameters have one name: groups of several modules want names of their own.
    pub fn state_dict(&self) -> Result<OptimizerState> {
        let mut state = OptimizerState { lr_factor: self.lr_factor, ..OptimizerState::default() };
        let mut seen = HashSet::new();
        for (group, name, param) in self.named() {
            if !seen.insert(name) {
                return Err(Error::Names { missing: vec![], unexpected: vec![format!("a second {name}")] });
            }
            let (rule, kept) = (group.name().to_string(), self.state.get(&param.id()));
            state.params.push(ParamState { name: name.into(), rule, steps: kept.map_or(0, |s| s.steps) });
            state.tensors.extend(kept.iter().flat_map(|s| s.named(name)).map(|(name, array)| (name, array.clone())));
        }
        Ok(state)
    }

    /// Restores a snapshot: of the same parameters under the same rules. Nothing is changed on an error.
    ///
    /// # Errors
    /// [`Error::OptimizerState`], which lists parameters, moments and masters that are missing or too many, of another
    /// rule, or of another shape or dtype; [`Error::Setting`] if the factor of the learning rates does not fit; out of
    /// memory.
    pub fn load_state_dict(&mut self, from: &OptimizerState) -> Result<()> {
        let (state, report) = self.restored(from)?;
        if !report.is_complete() {
            return Err(Error::OptimizerState(Box::new(report)));
        }
        self.set_lr_factor(from.lr_factor)?;
        self.state = state;
        Ok(())
    }

    /// Restores what fits of a snapshot, and reports; all else starts anew. A master that is missing is made from its
    /// parameter.
    ///
    /// # Errors
    /// As [`Optimizer::load_state_dict`], but for what the report tells.
    pub fn load_matching(&mut self, from: &OptimizerState) -> Result<LoadReport> {
        let (state, report) = self.restored(from)?;
        self.set_lr_factor(from.lr_factor)?;
        self.state = state;
        Ok(report)
    }

    /// Parameters with their rules and names.
    fn named(&self) -> impl Iterator<Item = (&Update, &str, &Param)> {
        self.groups.iter().flat_map(|g| g.params.iter().map(|(name, p)| (&g.update, name.as_str(), p)))
    }

    /// The state that a snapshot gives, of those parameters all of whose buffers are there.
    fn restored(&self, from: &OptimizerState) -> Result<(HashMap<LeafId, State>, LoadReport)> {
        let (mut restored, mut report) = (HashMap::new(), LoadReport::default());
        let mut params: HashMap<&str, &ParamState> = HashMap::new();
        for p in &from.params {
            if params.insert(&p.name, p).is_some() {
                report.unexpected.push(format!("a second {}", p.name));
            }
        }
        let mut tensors: HashMap<&str, &Array> =
            from.tensors.iter().map(|(name, array)| (name.as_str(), array)).collect();
        for (update, name, param) in self.named() {
            let Some(saved) = params.remove(name) else {
                report.missing.push(name.into());
                continue;
            };
            if saved.rule != update.name() {
                let (found, expected) = (format!("state of {}", saved.rule), format!("that of {}", update.name()));
                report.mismatched.push(Mismatch { name: name.into(), found, expected });
                // One cause, told once.
                tensors.retain(|tensor, _| !is_of(tensor, name));
                continue;
            }
            if saved.steps == 0 {
                report.loaded.push(name.into());
                continue;
            }
            let values = param.array();
            let (dtype, wide) = (state_dtype(values.dtype()), values.dtype().is_half());
            let mut state = State { master: None, buffers: vec![], steps: saved.steps };
            let wrong = report.missing.len() + report.mismatched.len();
            let mut take = |tensor: String, shape: &[usize]| match tensors.remove(tensor.as_str()) {
                None => {
                    report.missing.push(tensor);
                    Ok(None)
                }
                Some(found) if found.shape()[..] == *shape && found.dtype() == dtype => {
                    taken_over(found, values.device()).map(Some)
                }
                Some(found) => {
                    report.mismatched.push(Mismatch::of(tensor, found, dtype, shape));
                    Ok(None)
                }
            };
            for (i, shape) in update.states(values.shape()).into_iter().enumerate() {
                state.buffers.extend(take(format!("{name}.{i}"), &shape)?);
            }
            if wide {
                let array = match take(format!("{name}.master"), values.shape())? {
                    Some(found) => found,
                    None => values.cast(dtype, Class::Optimizer)?,
                };
                state.master = Some(Master { array, version: None });
            }
            let only_master =
                state.master.is_some() && report.missing.last().is_some_and(|m| *m == format!("{name}.master"));
            if report.missing.len() + report.mismatched.len() - only_master as usize == wrong {
                report.loaded.push(name.into());
                restored.insert(param.id(), state);
            }
        }
        report
            .unexpected
            .extend(from.params.iter().filter(|p| params.contains_key(p.name.as_str())).map(|p| p.name.clone()));
        // Tensors of parameters that are told already are not told again.
        let known = |tensor: &str| params.keys().any(|name| is_of(tensor, name));
        let rest = from
            .tensors
            .iter()
            .map(|(name, _)| name)
            .filter(|name| tensors.contains_key(name.as_str()) && !known(name));
        report.unexpected.extend(rest.cloned());
        Ok((restored, report))
    }
}

/// Whether a tensor's name is that of a parameter with one more part.
fn is_of(tensor: &str, param: &str) -> bool {
    tensor.rsplit_once('.').is_some_and(|(of, _)| of == param)
}
