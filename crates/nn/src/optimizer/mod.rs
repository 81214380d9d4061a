//! [`Optimizer`]: one fused pass over all parameters; f32 state, f32 master copies of 16-bit parameters.

mod ema;
mod rules;

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};

use binade_autograd::{Gradients, LeafId, scope};
use binade_tensor::{Array, ArrayMut, Class, DType, Grad, Slot, Update};

use crate::clip::scalars;
use crate::{Error, Module, Param, Result};

pub use ema::Ema;
pub use rules::{Adafactor, Adagrad, Adam, AdamW, Lion, RmsProp, Rule, Sgd};

/// Parameters that share settings.
#[derive(Clone, Debug)]
pub struct Group {
    /// Names and parameters.
    pub params: Vec<(String, Param)>,
    /// Learning rate before the schedule.
    pub lr: f64,
    /// The rule.
    pub update: Update,
    /// The learning rate is divided by 1 + steps·lr_decay (Adagrad).
    pub lr_decay: f64,
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
    id: Token,
}

/// Identity of an optimiser, never used again: a clone gets its own.
#[derive(Debug)]
struct Token(u64);

impl Default for Token {
    fn default() -> Token {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        Token(NEXT.fetch_add(1, Ordering::Relaxed))
    }
}

impl Clone for Token {
    fn clone(&self) -> Token {
        Token::default()
    }
}

impl Optimizer {
    /// One group with all trainable parameters of a module: `Optimizer::new(&model, AdamW::default())?`.
    ///
    /// # Errors
    /// As [`Optimizer::with_group`].
    pub fn new(module: &impl Module, rule: impl Into<Rule>) -> Result<Optimizer> {
        Optimizer::empty().with_group(trainable(module), rule)
    }

    /// All trainable parameters of a module, each under the rule that `choose` gives for its name: weight decay and learning rates
    /// by group. Parameters with equal rules share a group.
    ///
    /// ```
    /// # fn main() -> binade_nn::Result<()> {
    /// use binade_nn::{AdamW, LayerNorm, Linear, Optimizer, Sequential};
    /// let model = Sequential::new().then(Linear::new(4, 8)?).then(LayerNorm::new(8)?);
    /// // As GPT-2 is trained: matrices decay, biases and norms do not.
    /// let optimizer = Optimizer::grouped(&model, |_name, param| AdamW {
    ///     weight_decay: if param.array().shape().rank() >= 2 { 0.1 } else { 0.0 },
    ///     ..AdamW::default()
    /// })?;
    /// assert_eq!(optimizer.groups().len(), 2);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`Optimizer::with_group`].
    pub fn grouped<R: Into<Rule>>(module: &impl Module, choose: impl Fn(&str, &Param) -> R) -> Result<Optimizer> {
        let mut optimizer = Optimizer::empty();
        for (name, param) in trainable(module) {
            let rule = choose(&name, &param).into();
            rule.check()?;
            let Rule { lr, update, lr_decay } = rule;
            let same = |g: &&mut Group| g.lr == lr && g.update == update && g.lr_decay == lr_decay;
            match optimizer.groups.iter_mut().find(same) {
                Some(group) => group.params.push((name, param)),
                None => optimizer.groups.push(Group { params: vec![(name, param)], lr, update, lr_decay }),
            }
        }
        Ok(optimizer)
    }

    /// No parameters yet.
    pub fn empty() -> Optimizer {
        Optimizer { lr_factor: 1.0, ..Optimizer::default() }
    }

    /// With another group.
    ///
    /// # Errors
    /// As [`Rule::check`].
    pub fn with_group(mut self, params: Vec<(String, Param)>, rule: impl Into<Rule>) -> Result<Optimizer> {
        let rule = rule.into();
        rule.check()?;
        let Rule { lr, update, lr_decay } = rule;
        self.groups.push(Group { params, lr, update, lr_decay });
        Ok(self)
    }

    /// Identity of this optimiser; no other of this process has it, dropped ones included.
    pub fn id(&self) -> u64 {
        self.id.0
    }

    /// The parameters' identities.
    pub fn param_ids(&self) -> impl Iterator<Item = LeafId> {
        self.groups.iter().flat_map(|g| &g.params).map(|(_, p)| p.id())
    }

    /// Of some gradients, those of this optimiser's parameters.
    pub fn own(&self, grads: &Gradients) -> Gradients {
        let mut own = Gradients::default();
        self.param_ids().for_each(|id| grads.by_id(id).into_iter().for_each(|g| own.insert(id, g.clone())));
        own
    }

    /// The groups.
    pub fn groups(&self) -> &[Group] {
        &self.groups
    }

    /// Sets the factor of every group's learning rate: what a [`crate::Schedule`] gives.
    ///
    /// # Errors
    /// [`Error::Setting`] if the factor is negative, or a rate times it does not fit f32.
    pub fn set_lr_factor(&mut self, factor: f64) -> Result<()> {
        let of = "the schedule";
        Error::unless(factor >= 0.0 && factor.is_finite(), of, "factor", "at least 0 and finite", factor)?;
        for group in &self.groups {
            let lr = group.lr * factor;
            Error::unless((lr as f32).is_finite(), group.update.name(), "learning rate times its factor", "finite in f32", lr)?;
        }
        self.lr_factor = factor;
        Ok(())
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
        self.step_scaled(grads, 1.0)
    }

    /// As [`Optimizer::step`], with every gradient multiplied by `factor` (1/loss scale, times what clipping takes) in f32 as it is read: no
    /// pass of its own for unscaling and clipping, and a 16-bit gradient is not rounded again.
    ///
    /// Nothing is changed unless all gradients fit their parameters.
    ///
    /// # Errors
    /// As [`Optimizer::step`].
    pub fn step_scaled(&mut self, grads: &Gradients, grad_factor: f64) -> Result<()> {
        for (name, param) in self.groups.iter().flat_map(|g| &g.params) {
            let Some(grad) = grads.by_id(param.id()) else { continue };
            if grad.shape() != param.shape() {
                return Err(Error::Shape { name: name.clone(), found: grad.shape().to_vec(), expected: param.shape().to_vec() });
            }
            // A tensor that is read elsewhere is an error here, before anything is written.
            drop(ArrayMut::new("optimizer", param.array())?);
        }
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
                let mut values = match &group.update {
                    Update::Adam { betas, .. } => {
                        let correction = |b: f64| 1.0 - b.powf(steps as f64);
                        vec![lr, correction(betas[0]), correction(betas[1]).sqrt()]
                    }
                    Update::Adafactor { .. } => vec![lr, steps as f64],
                    Update::Adagrad { .. } => vec![lr / (1.0 + (steps - 1) as f64 * group.lr_decay)],
                    Update::Sgd { .. } | Update::RmsProp { .. } | Update::Lion { .. } => vec![lr],
                    Update::Unscale | Update::Norm | Update::Scale | Update::Clamp | Update::Ema => vec![lr],
                };
                values.push(grad_factor);
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

/// Trainable parameters by name, each once.
fn trainable(module: &impl Module) -> Vec<(String, Param)> {
    module.assign_names();
    let mut seen = std::collections::HashSet::new();
    module.named_parameters().into_iter().filter(|(_, p)| p.is_trainable() && seen.insert(p.id())).collect()
}

impl State {
    fn new(param: &Param, update: &Update) -> Result<State> {
        let array = param.array();
        let dtype = if array.dtype() == DType::F64 { DType::F64 } else { DType::F32 };
        let zeros = |shape| Array::full(array.device(), dtype, shape, 0.0, Class::Optimizer);
        let buffers = update.states(array.shape()).into_iter().map(zeros).collect::<Result<_, _>>()?;
        let master = array.dtype().is_half().then(|| array.cast(dtype, Class::Optimizer)).transpose()?;
        Ok(State { master, buffers, steps: 0 })
    }
}
