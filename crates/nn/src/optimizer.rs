//! [`Optimizer`]: one fused pass over all parameters; f32 state, f32 master copies of 16-bit parameters.

use std::collections::HashMap;

use binade_autograd::{Gradients, LeafId, scope};
use binade_tensor::{Array, ArrayMut, Class, DType, Grad, Slot, Update};

use crate::clip::scalars;
use crate::{Module, Param, Result};

/// Stochastic gradient descent; fields as PyTorch's arguments.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sgd {
    /// Learning rate.
    pub lr: f64,
    /// Momentum factor.
    pub momentum: f64,
    /// Dampening of the gradient in the momentum buffer.
    pub dampening: f64,
    /// L2 penalty.
    pub weight_decay: f64,
    /// Nesterov's form.
    pub nesterov: bool,
}

impl Default for Sgd {
    fn default() -> Sgd {
        Sgd { lr: 1e-3, momentum: 0.0, dampening: 0.0, weight_decay: 0.0, nesterov: false }
    }
}

/// Adam with an L2 penalty.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Adam {
    /// Learning rate.
    pub lr: f64,
    /// Decay of the moments.
    pub betas: [f64; 2],
    /// Added to the denominator.
    pub eps: f64,
    /// L2 penalty.
    pub weight_decay: f64,
}

impl Default for Adam {
    fn default() -> Adam {
        Adam { lr: 1e-3, betas: [0.9, 0.999], eps: 1e-8, weight_decay: 0.0 }
    }
}

/// Adam with decoupled weight decay.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AdamW {
    /// Learning rate.
    pub lr: f64,
    /// Decay of the moments.
    pub betas: [f64; 2],
    /// Added to the denominator.
    pub eps: f64,
    /// Decoupled weight decay.
    pub weight_decay: f64,
}

impl Default for AdamW {
    fn default() -> AdamW {
        AdamW { lr: 1e-3, betas: [0.9, 0.999], eps: 1e-8, weight_decay: 1e-2 }
    }
}

impl From<Sgd> for (f64, Update) {
    fn from(o: Sgd) -> (f64, Update) {
        (o.lr, Update::Sgd { momentum: o.momentum, dampening: o.dampening, weight_decay: o.weight_decay, nesterov: o.nesterov })
    }
}

impl From<Adam> for (f64, Update) {
    fn from(o: Adam) -> (f64, Update) {
        (o.lr, Update::Adam { betas: o.betas, eps: o.eps, weight_decay: o.weight_decay, decoupled: false })
    }
}

impl From<AdamW> for (f64, Update) {
    fn from(o: AdamW) -> (f64, Update) {
        (o.lr, Update::Adam { betas: o.betas, eps: o.eps, weight_decay: o.weight_decay, decoupled: true })
    }
}

/// Parameters that share settings.
#[derive(Clone, Debug)]
pub struct Group {
    /// Names and parameters.
    pub params: Vec<(String, Param)>,
    /// Learning rate before the schedule.
    pub lr: f64,
    /// The rule.
    pub update: Update,
}

/// State of one parameter.
#[derive(Clone, Debug)]
struct State {
    /// f32 copy of a 16-bit parameter.
    master: Option<Array>,
    buffers: Vec<Array>,
    steps: u64,
}

/// An optimiser over parameter groups.
#[derive(Clone, Debug, Default)]
pub struct Optimizer {
    groups: Vec<Group>,
    state: HashMap<LeafId, State>,
    lr_factor: f64,
}

impl Optimizer {
    /// One group with all trainable parameters of a module: `Optimizer::new(&model, AdamW::default())`.
    pub fn new(module: &impl Module, rule: impl Into<(f64, Update)>) -> Optimizer {
        module.assign_names();
        let mut seen = std::collections::HashSet::new();
        let params = module.named_parameters().into_iter().filter(|(_, p)| p.is_trainable() && seen.insert(p.id())).collect();
        Optimizer { groups: vec![], state: HashMap::new(), lr_factor: 1.0 }.with_group(params, rule)
    }

    /// No parameters yet.
    pub fn empty() -> Optimizer {
        Optimizer { lr_factor: 1.0, ..Optimizer::default() }
    }

    /// With another group.
    #[must_use]
    pub fn with_group(mut self, params: Vec<(String, Param)>, rule: impl Into<(f64, Update)>) -> Optimizer {
        let (lr, update) = rule.into();
        self.groups.push(Group { params, lr, update });
        self
    }

    /// The groups.
    pub fn groups(&self) -> &[Group] {
        &self.groups
    }

    /// Sets the factor of every group's learning rate: what a [`crate::Schedule`] gives.
    pub fn set_lr_factor(&mut self, factor: f64) {
        self.lr_factor = factor;
    }

    /// The learning rate of the first group, schedule included.
    pub fn lr(&self) -> f64 {
        self.groups.first().map_or(0.0, |g| g.lr * self.lr_factor)
    }

    /// One update of every parameter that has a gradient, and of the buffers that waited for it (running statistics).
    ///
    /// # Errors
    /// A gradient of another shape; a tensor in use; out of memory.
    pub fn step(&mut self, grads: &Gradients) -> Result<()> {
        let factor = self.lr_factor;
        for group in &self.groups {
            // Bias corrections depend on each parameter's own number of steps; parameters are passed together by that number.
            let mut by_steps = std::collections::BTreeMap::<u64, Vec<(&Param, &Array)>>::new();
            for (_, param) in &group.params {
                let Some(grad) = grads.by_id(param.id()) else { continue };
                let state = match self.state.entry(param.id()) {
                    std::collections::hash_map::Entry::Occupied(e) => e.into_mut(),
                    std::collections::hash_map::Entry::Vacant(e) => e.insert(State::new(param, &group.update)?),
                };
                state.steps += 1;
                by_steps.entry(state.steps).or_default().push((param, grad));
            }
            for (steps, params) in by_steps {
                let device = params[0].0.array().device();
                let lr = group.lr * factor;
                let values = match &group.update {
                    Update::Adam { betas, .. } => {
                        let correction = |b: f64| 1.0 - b.powf(steps as f64);
                        vec![lr, correction(betas[0]), correction(betas[1]).sqrt()]
                    }
                    Update::Sgd { .. } | Update::Unscale | Update::Norm | Update::Scale => vec![lr],
                };
                let mut slots = Vec::with_capacity(params.len());
                for (param, grad) in &params {
                    let state = &self.state[&param.id()];
                    let write = |a| ArrayMut::new(group.update.name(), a);
                    slots.push(Slot {
                        param: Some(write(param.array())?),
                        master: state.master.as_ref().map(write).transpose()?,
                        grad: Grad::Read(grad),
                        state: state.buffers.iter().map(write).collect::<Result<_, _>>()?,
                        first: steps == 1,
                    });
                }
                device.update(&group.update, &scalars(device, &values)?, &mut slots)?;
            }
        }
        Ok(scope::commit()?)
    }

    /// State by parameter name: `NAME.0`, `NAME.1` (the rule's buffers), `NAME.master`, and the number of steps.
    pub fn state_dict(&self) -> Vec<(String, Array, u64)> {
        let mut out = Vec::new();
        for (name, param) in self.groups.iter().flat_map(|g| &g.params) {
            let Some(state) = self.state.get(&param.id()) else { continue };
            out.extend(state.buffers.iter().enumerate().map(|(i, b)| (format!("{name}.{i}"), b.clone(), state.steps)));
            out.extend(state.master.iter().map(|m| (format!("{name}.master"), m.clone(), state.steps)));
        }
        out
    }

    /// Restores the state that [`Optimizer::state_dict`] gave: `lookup` returns the array of a name.
    ///
    /// # Errors
    /// A shape differs.
    pub fn load_state_dict(&mut self, steps: impl Fn(&str) -> Option<u64>, lookup: impl Fn(&str) -> Option<Array>) -> Result<()> {
        for group in &self.groups {
            for (name, param) in &group.params {
                let Some(steps) = steps(name) else { continue };
                let state = State { steps, ..State::new(param, &group.update)? };
                for (i, buffer) in state.buffers.iter().enumerate() {
                    if let Some(from) = lookup(&format!("{name}.{i}")) {
                        buffer.copy_from(&from)?;
                    }
                }
                if let (Some(master), Some(from)) = (&state.master, lookup(&format!("{name}.master"))) {
                    master.copy_from(&from)?;
                }
                self.state.insert(param.id(), state);
            }
        }
        Ok(())
    }

    /// Steps taken by each parameter, by name.
    pub fn steps(&self) -> Vec<(String, u64)> {
        let all = self.groups.iter().flat_map(|g| &g.params);
        all.filter_map(|(name, p)| self.state.get(&p.id()).map(|s| (name.clone(), s.steps))).collect()
    }
}

impl State {
    fn new(param: &Param, update: &Update) -> Result<State> {
        let array = param.array();
        let dtype = if array.dtype() == DType::F64 { DType::F64 } else { DType::F32 };
        let zeros = || Array::full(array.device(), dtype, *array.shape(), 0.0, Class::Optimizer);
        let buffers = (0..update.states()).map(|_| zeros()).collect::<Result<_, _>>()?;
        let master = array.dtype().is_half().then(|| array.cast(dtype, Class::Optimizer)).transpose()?;
        Ok(State { master, buffers, steps: 0 })
    }
}
