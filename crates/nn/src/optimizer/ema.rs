//! [`Ema`]: averages of parameters over steps.

use std::collections::HashMap;

use binade_tensor::{Array, ArrayMut, Class, DType, Grad, Slot, Update};
use serde::{Deserialize, Serialize};

use super::scalars::Scalars;
use super::state::{taken_over, unshare};
use crate::{Error, LoadReport, Mismatch, Module, Param, Result, StateDict};

/// How fast averages follow at first: what the factor d of an update is at most, after n updates.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WarmUp {
    /// 1: PyTorch's `get_ema_multi_avg_fn`.
    Off,
    /// (1 + n)/(10 + n): TensorFlow's.
    Ratio,
    /// 1 − (1 + n/γ)^−power, and 0 at n = 0: diffusers' `EMAModel(use_ema_warmup=True)`.
    Power {
        /// γ: so many updates until the average is one of more than the last few.
        inverse_gamma: f64,
        /// 2/3 reaches 0.999 after 31,600 updates and 0.9999 after a million.
        power: f64,
    },
}

impl WarmUp {
    /// diffusers' defaults: γ = 1, power 2/3.
    pub const POWER: WarmUp = WarmUp::Power { inverse_gamma: 1.0, power: 2.0 / 3.0 };

    fn most(self, updates: u64) -> f64 {
        let n = updates as f64;
        match self {
            WarmUp::Off => 1.0,
            WarmUp::Ratio => (1.0 + n) / (10.0 + n),
            WarmUp::Power { inverse_gamma, power } => 1.0 - (1.0 + n / inverse_gamma).powf(-power),
        }
    }

    /// Fails unless γ and power are above 0 and finite.
    ///
    /// # Errors
    /// [`Error::Setting`].
    pub fn check(self) -> Result<()> {
        let WarmUp::Power { inverse_gamma, power } = self else { return Ok(()) };
        let positive = |what, value: f64| {
            Error::unless(value > 0.0 && value.is_finite(), "the averages", what, "above 0 and finite", value)
        };
        positive("inverse γ", inverse_gamma)?;
        positive("power", power)
    }
}

/// Exponential moving averages of a module's parameters, f32 (f64 for f64) whatever the parameters' dtype. In 16 bit an
/// average with decay 0.999 would never move. A clone goes on by itself.
#[derive(Clone, Debug)]
pub struct Ema {
    decay: f64,
    warm_up: WarmUp,
    steps: u64,
    averages: Vec<(String, Param, Array)>,
    scalars: Scalars,
    /// The parameters' own values, while the averages are in their place.
    kept: Option<Vec<Array>>,
}

/// A snapshot of averages ([`Ema::state_dict`]). With serde it is everything but the tensors.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EmaState {
    /// Decay.
    pub decay: f64,
    /// How fast averages follow at first.
    pub warm_up: WarmUp,
    /// Updates so far.
    pub steps: u64,
    /// Averages by the parameters' names.
    #[serde(skip)]
    pub tensors: StateDict,
}

impl Ema {
    /// Starts at the current values.
    ///
    /// # Errors
    /// [`Error::Setting`]: a decay outside 0 to 1; out of memory.
    pub fn new(module: &dyn Module, decay: f64) -> Result<Ema> {
        Ema::check_decay(decay)?;
        let mut seen = std::collections::HashSet::new();
        let mut averages = Vec::new();
        for (name, param) in module.named_parameters().into_iter().filter(|(_, p)| seen.insert(p.id())) {
            let array = &param.array();
            let dtype = if array.dtype() == DType::F64 { DType::F64 } else { DType::F32 };
            let copy = Array::full(array.device(), dtype, *array.shape(), 0.0, Class::Optimizer)?;
            copy.copy_from(array)?;
            averages.push((name, param, copy));
        }
        Ok(Ema { decay, warm_up: WarmUp::Ratio, steps: 0, averages, scalars: Scalars::default(), kept: None })
    }

    /// Fails unless a decay lies in 0 to 1.
    ///
    /// # Errors
    /// [`Error::Setting`].
    pub fn check_decay(decay: f64) -> Result<()> {
        Error::unless((0.0..=1.0).contains(&decay), "the averages", "decay", "from 0 to 1", decay)
    }

    /// With the plain rule, d = decay from the first update on.
    #[must_use]
    pub fn without_warm_up(self) -> Ema {
        Ema { warm_up: WarmUp::Off, ..self }
    }

    /// With another start.
    ///
    /// # Errors
    /// [`Error::Setting`]: γ or a power that is not above 0 and finite.
    pub fn with_warm_up(self, warm_up: WarmUp) -> Result<Ema> {
        warm_up.check()?;
        Ok(Ema { warm_up, ..self })
    }

    /// One step, after each applied optimiser step: `average ← d·average + (1 − d)·parameter`. d is
    /// the decay, or less at first ([`WarmUp`]; by default (1 + n)/(10 + n) after n updates).
    ///
    /// # Errors
    /// The averages are in the place of the parameters; a tensor is in use; out of memory. Nothing is changed then.
    pub fn update(&mut self) -> Result<()> {
        self.pass(true)?;
        self.steps += 1;
        Ok(())
    }

    /// Whether the next [`Ema::update`] can be made: fails as it would. What must not be done without it comes after
    /// this.
    ///
    /// # Errors
    /// As [`Ema::update`].
    pub fn prepare(&mut self) -> Result<()> {
        self.pass(false)
    }

    /// An update, or all of it that can fail.
    fn pass(&mut self, write: bool) -> Result<()> {
        if self.kept.is_some() {
            return Err(swapped());
        }
        let decay = self.decay.min(self.warm_up.most(self.steps));
        let mut followed = Vec::with_capacity(self.averages.len());
        for (_, param, average) in &mut self.averages {
            let array = param.array();
            unshare(average, array.device())?;
            followed.push(array);
        }
        // Each device's in one pass, all of which can be run before the first is.
        let mut passes: Vec<(Array, Vec<Slot<'_>>)> = Vec::new();
        for ((_, _, average), array) in self.averages.iter().zip(&followed) {
            let written = Some(ArrayMut::new("ema", average)?);
            let slot = Slot { param: written, master: None, grad: Grad::Read(array), state: vec![], first: false };
            slot.check(&Update::Ema)?;
            match passes.iter_mut().find(|(scalars, _)| scalars.device() == array.device()) {
                Some((_, slots)) => slots.push(slot),
                None => passes.push((self.scalars.on(array.device(), &[1.0 - decay, 1.0])?, vec![slot])),
            }
        }
        for (scalars, slots) in passes.iter_mut().filter(|_| write) {
            Update::Ema.run(scalars, slots)?;
        }
        Ok(())
    }

    /// Runs `f` with the averages in the place of the parameters, which have their own values again afterwards, whether
    /// it fails or panics.
    ///
    /// # Errors
    /// As [`Ema::swap`].
    pub fn with_averages<T>(&mut self, f: impl FnOnce() -> T) -> Result<T> {
        struct Guard<'a>(&'a mut Ema);
        impl Drop for Guard<'_> {
            fn drop(&mut self) {
                // Only a panic comes here with the averages still in place: there is no one to tell of an error.
                if self.0.kept.is_some() {
                    let _ = self.0.swap();
                }
            }
        }
        self.put_in()?;
        let guard = Guard(self);
        let result = f();
        guard.0.put_back()?;
        Ok(result)
    }

    /// Puts the averages in the place of the parameters, and the second time the parameters' own values back. The
    /// averages stay as they are, also where the parameters' dtype is too narrow for them. See [`Ema::with_averages`].
    ///
    /// # Errors
    /// A tensor is in use, or out of memory; nothing is changed then.
    pub fn swap(&mut self) -> Result<()> {
        if self.kept.is_some() { self.put_back() } else { self.put_in() }
    }

    fn put_in(&mut self) -> Result<()> {
        if self.kept.is_some() {
            return Err(swapped());
        }
        let kept = self.averages.iter().map(|(_, param, _)| crate::copy(&param.array())).collect::<Result<_>>()?;
        self.write(self.averages.iter().map(|(_, _, average)| average))?;
        self.kept = Some(kept);
        Ok(())
    }

    fn put_back(&mut self) -> Result<()> {
        let Some(kept) = &self.kept else { return Ok(()) };
        self.write(kept)?;
        self.kept = None;
        Ok(())
    }

    fn write<'a>(&self, values: impl IntoIterator<Item = &'a Array>) -> Result<()> {
        // What is in use shows here, before anything is written.
        self.averages.iter().try_for_each(|(_, param, _)| ArrayMut::new("ema", &param.array()).map(drop))?;
        self.averages.iter().zip(values).try_for_each(|((_, param, _), value)| Ok(param.array().copy_from(value)?))
    }

    /// Averages by parameter, in order of the module's parameters.
    pub fn averages(&self) -> impl Iterator<Item = (&Param, &Array)> {
        self.averages.iter().map(|(_, p, a)| (p, a))
    }

    /// Updates so far.
    pub fn steps(&self) -> u64 {
        self.steps
    }

    /// A snapshot: later updates do not change it. Memory is shared until then.
    pub fn state_dict(&self) -> EmaState {
        let tensors = self.averages.iter().map(|(name, _, average)| (name.clone(), average.clone())).collect();
        EmaState { decay: self.decay, warm_up: self.warm_up, steps: self.steps, tensors }
    }

    /// Restores a snapshot, its rule too. Nothing is changed on an error.
    ///
    /// # Errors
    /// [`Error::Averages`], which lists averages that are missing, too many or of another shape or dtype;
    /// [`Error::Setting`]: a decay outside 0 to 1, or a warm-up that cannot be; out of memory.
    pub fn load_state_dict(&mut self, from: &EmaState) -> Result<()> {
        Ema::check_decay(from.decay)?;
        from.warm_up.check()?;
        let mut report = LoadReport::default();
        let mut given: HashMap<&str, &Array> = HashMap::new();
        for (name, array) in &from.tensors {
            if given.insert(name, array).is_some() {
                report.unexpected.push(format!("a second {name}"));
            }
        }
        let mut averages = Vec::with_capacity(self.averages.len());
        for (name, param, average) in &self.averages {
            match given.remove(name.as_str()) {
                None => report.missing.push(name.clone()),
                Some(found) if (found.shape(), found.dtype()) == (average.shape(), average.dtype()) => {
                    averages.push((name.clone(), param.clone(), taken_over(found, average.device())?));
                }
                Some(found) => {
                    report.mismatched.push(Mismatch::of(name.clone(), found, average.dtype(), average.shape()))
                }
            }
        }
        report
            .unexpected
            .extend(from.tensors.iter().map(|(n, _)| n).filter(|n| given.contains_key(n.as_str())).cloned());
        if !report.is_complete() {
            return Err(Error::Averages(Box::new(report)));
        }
        (self.decay, self.warm_up, self.steps, self.averages) = (from.decay, from.warm_up, from.steps, averages);
        Ok(())
    }
}

fn swapped() -> Error {
    Error::Config {
        layer: "Ema",
        message: "the averages are in the place of the parameters: swap them back first".into(),
    }
}
