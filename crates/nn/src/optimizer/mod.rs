//! [`Optimizer`]: one fused pass over all parameters; f32 state, f32 master copies of 16-bit parameters.

mod ema;
pub mod rules;
mod scalars;
mod state;

use std::collections::HashMap;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};

use binade_autograd::{Gradients, LeafId, Owner};
use binade_tensor::{Array, ArrayMut, Device, Grad, Slot, Update};

use crate::clip::{clip_norm, clip_value, grad_norm, inverse};
use crate::{Error, Module, Param, Result};

pub use ema::{Ema, EmaState, WarmUp};
pub use rules::*;
pub use state::{OptimizerState, ParamState};

use scalars::Scalars;
use state::State;

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

/// An optimiser over parameter groups. A clone has the same parameters and goes on by itself: its moments are its own.
#[derive(Clone, Debug, Default)]
pub struct Optimizer {
    groups: Vec<Group>,
    state: HashMap<LeafId, State>,
    lr_factor: f64,
    scalars: Scalars,
    /// The parameters, and the buffers of the modules it was made from, whose deferred changes follow its steps.
    owner: Owner,
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

/// What a step did. A skipped step changed nothing: no parameter, no optimiser state, no running statistics.
#[must_use = "a skipped step must not advance the schedule"]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StepOutcome {
    /// The parameters were updated.
    Applied,
    /// A gradient was not finite; nothing was changed.
    Skipped,
}

impl Optimizer {
    /// One group with all parameters of a module: `Optimizer::new(&model, AdamW::default())?`. Those that are frozen at
    /// a step are passed over there, so one that is unfrozen later trains.
    ///
    /// # Errors
    /// As [`Rule::check`].
    pub fn new(module: &dyn Module, rule: impl Into<Rule>) -> Result<Optimizer> {
        let rule = rule.into();
        rule.check()?;
        Optimizer::grouped(module, |_, _| rule.clone())
    }

    /// All parameters of a module, each under the rule that `choose` gives for its name: weight decay and learning
    /// rates by group. Parameters with equal rules share a group.
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
    /// As [`Rule::check`].
    pub fn grouped<R: Into<Rule>>(module: &dyn Module, choose: impl Fn(&str, &Param) -> R) -> Result<Optimizer> {
        Self::grouped_by(module, &|name, param| choose(name, param).into())
    }

    fn grouped_by(module: &dyn Module, choose: &dyn Fn(&str, &Param) -> Rule) -> Result<Optimizer> {
        let mut optimizer = Optimizer::empty();
        for (_, buffer) in module.named_buffers() {
            optimizer.owner.claim(buffer.claims());
        }
        for (name, param) in each_once(module) {
            let rule = choose(&name, &param);
            rule.check()?;
            let Rule { lr, update, lr_decay } = rule;
            let same = |g: &&mut Group| g.lr == lr && g.update == update && g.lr_decay == lr_decay;
            optimizer.owner.claim(&param.claims());
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
    /// As [`Rule::check`]. [`Error::Twice`]: a parameter is listed twice, or is in another group. `named_parameters`
    /// lists a tied parameter under each name.
    pub fn with_group(mut self, params: Vec<(String, Param)>, rule: impl Into<Rule>) -> Result<Optimizer> {
        let rule = rule.into();
        rule.check()?;
        let mut known: HashMap<LeafId, String> = self.all().map(|(name, p)| (p.id(), name.clone())).collect();
        for (name, param) in &params {
            if let Some(other) = known.insert(param.id(), name.clone()) {
                return Err(Error::Twice { name: name.clone(), other });
            }
            self.owner.claim(&param.claims());
        }
        let Rule { lr, update, lr_decay } = rule;
        self.groups.push(Group { params, lr, update, lr_decay });
        Ok(self)
    }

    fn all(&self) -> impl Iterator<Item = &(String, Param)> {
        self.groups.iter().flat_map(|g| &g.params)
    }

    /// Identity of this optimiser; no other of this process has it, dropped ones included.
    pub fn id(&self) -> u64 {
        self.id.0
    }

    /// The parameters' identities.
    pub fn param_ids(&self) -> impl Iterator<Item = LeafId> {
        self.groups.iter().flat_map(|g| &g.params).map(|(_, p)| p.id())
    }

    /// Of some gradients, those of this optimiser's parameters that are not frozen, and of the changes that wait with
    /// them (running statistics) those that its step decides about: of its modules, or of none that an optimiser has.
    pub fn own(&self, grads: &Gradients) -> Gradients {
        Optimizer::own_of(std::slice::from_ref(self), grads)
    }

    /// As [`Optimizer::own`], of several optimisers together.
    pub fn own_of(optimizers: &[Optimizer], grads: &Gradients) -> Gradients {
        let trainable = optimizers.iter().flat_map(Optimizer::all).filter(|(_, p)| p.is_trainable());
        grads.part(trainable.map(|(_, p)| p.id()), &owners(optimizers))
    }

    /// As [`crate::clip_grad_norm`], over the gradients of this optimiser's parameters.
    ///
    /// # Errors
    /// A gradient is in use.
    pub fn clip_grad_norm(&self, grads: &mut Gradients, max_norm: f64) -> Result<f64> {
        let own: Vec<LeafId> = self.own(grads).iter().map(|(id, _)| id).collect();
        clip_norm(grads, &own, max_norm)
    }

    /// As [`crate::clip_grad_value`], over the gradients of this optimiser's parameters.
    ///
    /// # Errors
    /// A gradient is in use.
    pub fn clip_grad_value(&self, grads: &mut Gradients, limit: f64) -> Result<()> {
        let own: Vec<LeafId> = self.own(grads).iter().map(|(id, _)| id).collect();
        clip_value(grads, &own, limit)
    }

    /// The groups.
    pub fn groups(&self) -> &[Group] {
        &self.groups
    }

    /// The device of the parameters; `None` without any.
    pub fn device(&self) -> Option<Device> {
        let (_, param) = self.groups.iter().flat_map(|group| &group.params).next()?;
        Some(param.array().device().clone())
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
            Error::unless(
                (lr as f32).is_finite(),
                group.update.name(),
                "learning rate times its factor",
                "finite in f32",
                lr,
            )?;
        }
        self.lr_factor = factor;
        Ok(())
    }

    /// The learning rate of the first group, schedule included.
    pub fn lr(&self) -> f64 {
        self.groups.first().map_or(0.0, |g| g.lr * self.lr_factor)
    }

    /// One update of every parameter that has a gradient and is not frozen, and of the buffers that waited for it
    /// (running statistics). Gradients that carry a loss scale are divided by it as they are read. One that is not
    /// finite skips the step: nothing changes.
    ///
    /// # Errors
    /// A gradient of another shape; a tensor in use; out of memory. Nothing is changed then.
    pub fn step(&mut self, grads: &Gradients) -> Result<StepOutcome> {
        let own = self.own(grads);
        if !grad_norm(&own)?.is_finite() {
            own.discard();
            return Ok(StepOutcome::Skipped);
        }
        self.step_scaled(grads, 1.0)?;
        Ok(StepOutcome::Applied)
    }

    /// As [`Optimizer::step`] for gradients that were checked, with every one multiplied by `factor` (what clipping
    /// takes) in f32 as it is read: no pass of its own for unscaling and clipping, and a 16-bit gradient is not rounded
    /// again.
    ///
    /// # Errors
    /// As [`Optimizer::step`].
    pub fn step_scaled(&mut self, grads: &Gradients, factor: f64) -> Result<()> {
        Optimizer::step_all(std::slice::from_mut(self), grads, factor)
    }

    /// As [`Optimizer::step_scaled`], of several optimisers that step together: all of them, or none.
    ///
    /// # Errors
    /// As [`Optimizer::step`]; a parameter of two of them is in use. Nothing is changed then.
    pub fn step_all(optimizers: &mut [Optimizer], grads: &Gradients, factor: f64) -> Result<()> {
        // All that can fail comes before the first write.
        let changes = grads.prepare(&owners(optimizers))?;
        let mut fresh = Vec::with_capacity(optimizers.len());
        for optimizer in optimizers.iter_mut() {
            let trained: Vec<Param> = optimizer.trained(grads).map(|(_, param, _)| param.clone()).collect();
            for param in &trained {
                optimizer.state.get_mut(&param.id()).map_or(Ok(()), |state| state.unshare(param))?;
            }
            fresh.push((trained, optimizer.missing_states(grads)?));
        }
        let params = fresh.iter().flat_map(|(trained, _)| trained);
        let arrays: HashMap<LeafId, Array> = params.map(|param| (param.id(), param.array())).collect();
        // The numbers of all optimisers' passes are one array, which the first one keeps.
        let mut numbers = optimizers.first_mut().map(|first| std::mem::take(&mut first.scalars)).unwrap_or_default();
        let (mut passes, mut values) = (Vec::new(), Vec::new());
        for (optimizer, (_, fresh)) in optimizers.iter().zip(&fresh) {
            for group in &optimizer.groups {
                optimizer.passes(group, (grads, &arrays), fresh, factor, (&mut passes, &mut values))?;
            }
        }
        let scalars = passes.iter().map(|pass| pass.scalars(&mut numbers, &values)).collect::<Result<Vec<_>>>()?;
        passes.iter().try_for_each(|pass| pass.slots.iter().try_for_each(|slot| slot.check(pass.update)))?;
        for (pass, scalars) in passes.iter_mut().zip(&scalars) {
            // Nothing is asked of it: what goes wrong late shows at the next wait.
            pass.update.run(scalars, &mut pass.slots)?;
        }
        drop(passes);
        optimizers.iter_mut().take(1).for_each(|first| first.scalars = std::mem::take(&mut numbers));
        changes.write()?;
        for (optimizer, (trained, fresh)) in optimizers.iter_mut().zip(fresh) {
            optimizer.state.extend(fresh);
            for param in &trained {
                optimizer.state.get_mut(&param.id()).into_iter().for_each(|state| state.stepped(param));
            }
        }
        Ok(())
    }

    /// The parameters that a step with these gradients updates, with their groups.
    fn trained<'a>(&'a self, grads: &'a Gradients) -> impl Iterator<Item = (&'a Group, &'a Param, &'a Array)> {
        let all = self.groups.iter().flat_map(|group| group.params.iter().map(move |(_, param)| (group, param)));
        all.filter(|(_, p)| p.is_trainable()).filter_map(|(group, p)| Some((group, p, grads.by_id(p.id())?)))
    }

    /// States of parameters at their first step.
    fn missing_states(&self, grads: &Gradients) -> Result<HashMap<LeafId, State>> {
        let new = self.trained(grads).filter(|(_, param, _)| !self.state.contains_key(&param.id()));
        new.map(|(group, param, _)| Ok((param.id(), State::new(param, &group.update)?))).collect()
    }

    /// The passes of a group, and the numbers they read. Bias corrections depend on each parameter's own number of
    /// steps, and gradients may carry scales of their own; parameters of a device are passed together by both.
    fn passes<'a>(
        &'a self,
        group: &'a Group,
        (grads, arrays): (&'a Gradients, &'a HashMap<LeafId, Array>),
        fresh: &'a HashMap<LeafId, State>,
        factor: f64,
        (passes, values): (&mut Vec<Pass<'a>>, &mut Vec<f64>),
    ) -> Result<()> {
        let first = passes.len();
        let mut keys = Vec::new();
        for (name, param) in group.params.iter().filter(|(_, p)| p.is_trainable()) {
            let (Some(grad), Some(array)) = (grads.by_id(param.id()), arrays.get(&param.id())) else { continue };
            if grad.shape() != array.shape() {
                return Err(Error::Shape {
                    name: name.clone(),
                    found: grad.shape().to_vec(),
                    expected: array.shape().to_vec(),
                });
            }
            let Some(state) = self.state.get(&param.id()).or_else(|| fresh.get(&param.id())) else { continue };
            let (steps, scale) = (state.steps + 1, grads.scale_of(param.id()).unwrap_or(1.0));
            let op = group.update.name();
            let written = Some(ArrayMut::new(op, array)?);
            let mut slot =
                Slot { param: written, master: None, grad: Grad::Read(grad), state: vec![], first: steps == 1 };
            state.lend(op, &mut slot)?;
            let key = (steps, scale.to_bits(), array.device());
            let at = keys.iter().position(|k| *k == key).unwrap_or(keys.len());
            if at == keys.len() {
                let first = values.len();
                let lr = group.lr * self.lr_factor / (1.0 + steps.saturating_sub(1) as f64 * group.lr_decay);
                values.extend(group.update.scalars(lr, steps, inverse(scale) * factor));
                let (device, scalars) = (key.2, first..values.len());
                passes.push(Pass {
                    device,
                    update: &group.update,
                    scalars,
                    slots: Vec::with_capacity(group.params.len()),
                });
                keys.push(key);
            }
            passes[first + at].slots.push(slot);
        }
        Ok(())
    }

    /// Steps taken by each parameter, by name.
    pub fn steps(&self) -> Vec<(String, u64)> {
        let all = self.groups.iter().flat_map(|g| &g.params);
        all.filter_map(|(name, p)| self.state.get(&p.id()).map(|s| (name.clone(), s.steps))).collect()
    }
}

/// Parameters of one group that are updated together.
struct Pass<'a> {
    device: &'a Device,
    update: &'a Update,
    /// Where its numbers are among those of all passes.
    scalars: Range<usize>,
    slots: Vec<Slot<'a>>,
}

impl Pass<'_> {
    /// Its numbers, of the array of all.
    fn scalars(&self, numbers: &mut Scalars, values: &[f64]) -> Result<Array> {
        let all = numbers.on(self.device, values)?;
        Ok(all.with_layout(all.layout().narrow(0, self.scalars.start, self.scalars.len()))?)
    }
}

/// Who decides about the changes that wait for a step of these optimisers.
fn owners(optimizers: &[Optimizer]) -> Vec<&Owner> {
    optimizers.iter().map(|optimizer| &optimizer.owner).collect()
}

/// Parameters by name, each once.
fn each_once(module: &dyn Module) -> Vec<(String, Param)> {
    module.assign_names();
    let mut seen = std::collections::HashSet::new();
    module.named_parameters().into_iter().filter(|(_, p)| seen.insert(p.id())).collect()
}
