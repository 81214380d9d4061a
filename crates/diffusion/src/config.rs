//! [`SchedulerConfig`]: diffusers' `scheduler_config.json`.

use binade_models::Keys;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::schedule::check_prediction;
use crate::{BetaSchedule, Error, NoiseSchedule, Prediction, Result};

/// Which sampler.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The reverse process itself (Ho et al., 2020).
    Ddpm,
    /// Implicit models (Song et al., 2021).
    Ddim,
    /// Linear multistep over pseudo numerical steps (Liu et al., 2022), as Stable Diffusion's files ask for.
    Pndm,
    /// Euler's method (Karras et al., 2022).
    Euler,
    /// Euler's method with new noise at each step.
    EulerAncestral,
    /// Heun's method: two evaluations per step (Karras et al., 2022).
    Heun,
    /// DPM-Solver++ of up to second order, multistep (Lu et al., 2022).
    DpmMultistep,
}

impl Kind {
    /// All samplers.
    pub const ALL: [Kind; 7] =
        [Kind::Ddpm, Kind::Ddim, Kind::Pndm, Kind::Euler, Kind::EulerAncestral, Kind::Heun, Kind::DpmMultistep];

    /// Its class in diffusers.
    pub const fn class(self) -> &'static str {
        match self {
            Kind::Ddpm => "DDPMScheduler",
            Kind::Ddim => "DDIMScheduler",
            Kind::Pndm => "PNDMScheduler",
            Kind::Euler => "EulerDiscreteScheduler",
            Kind::EulerAncestral => "EulerAncestralDiscreteScheduler",
            Kind::Heun => "HeunDiscreteScheduler",
            Kind::DpmMultistep => "DPMSolverMultistepScheduler",
        }
    }

    /// Its name on the command line.
    pub const fn name(self) -> &'static str {
        match self {
            Kind::Ddpm => "ddpm",
            Kind::Ddim => "ddim",
            Kind::Pndm => "pndm",
            Kind::Euler => "euler",
            Kind::EulerAncestral => "euler-a",
            Kind::Heun => "heun",
            Kind::DpmMultistep => "dpm++2m",
        }
    }
}

/// Which times of the schedule are visited (Lin et al., 2024, table 2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Spacing {
    /// Multiples of a whole step from 0 on.
    Leading,
    /// Back from the last time.
    Trailing,
    /// From the first to the last.
    Linspace,
}

/// A noise schedule and a sampler, as diffusers writes them.
#[derive(Clone, Debug, PartialEq)]
pub struct SchedulerConfig {
    /// Which sampler.
    pub kind: Kind,
    /// Times of the schedule.
    pub num_train_timesteps: usize,
    /// First β.
    pub beta_start: f64,
    /// Last β.
    pub beta_end: f64,
    /// How β grows.
    pub beta_schedule: BetaSchedule,
    /// β of every time instead.
    pub trained_betas: Option<Vec<f64>>,
    /// What the network predicts.
    pub prediction_type: Prediction,
    /// Whether the last time is made noise alone.
    pub rescale_betas_zero_snr: bool,
    /// Which times are visited.
    pub timestep_spacing: Spacing,
    /// Added to the times of leading spacing.
    pub steps_offset: usize,
    /// The image that is predicted is kept within ± this; `None` for latents.
    pub clip_sample: Option<f64>,
    /// DDIM and PNDM: whether ᾱ before the first time is 1, and not that of the first time.
    pub set_alpha_to_one: bool,
    /// DDPM: whether the variance is the larger one of the two that are fixed.
    pub fixed_large: bool,
    /// DPM-Solver++: 1 or 2.
    pub solver_order: usize,
    /// DPM-Solver++: Heun's second order instead of the midpoint's.
    pub solver_heun: bool,
    /// DPM-Solver++: whether the last of fewer than 15 steps is of first order.
    pub lower_order_final: bool,
    /// DPM-Solver++: whether the last step is of first order.
    pub euler_at_final: bool,
    /// DPM-Solver++: whether the last step ends with the noise of the first time, and not with none.
    pub final_sigma_min: bool,
    /// DPM-Solver++: times are left out whose log ratio is below this.
    pub lambda_min_clipped: f64,
}

impl SchedulerConfig {
    /// The library's defaults of a sampler.
    pub fn new(kind: Kind) -> SchedulerConfig {
        let (beta_start, beta_end) = if kind == Kind::Heun { (0.00085, 0.012) } else { (1e-4, 0.02) };
        let is_ancestor = matches!(kind, Kind::Ddpm | Kind::Ddim);
        let is_leading = is_ancestor || kind == Kind::Pndm;
        SchedulerConfig {
            kind,
            num_train_timesteps: 1000,
            beta_start,
            beta_end,
            beta_schedule: BetaSchedule::Linear,
            trained_betas: None,
            prediction_type: Prediction::Epsilon,
            rescale_betas_zero_snr: false,
            timestep_spacing: if is_leading { Spacing::Leading } else { Spacing::Linspace },
            steps_offset: 0,
            clip_sample: is_ancestor.then_some(1.0),
            set_alpha_to_one: kind != Kind::Pndm,
            fixed_large: false,
            solver_order: 2,
            solver_heun: false,
            lower_order_final: true,
            euler_at_final: false,
            final_sigma_min: false,
            lambda_min_clipped: f64::NEG_INFINITY,
        }
    }

    /// Another sampler over the same noise, with its own settings at their defaults: diffusers' `from_config`.
    #[must_use]
    pub fn with_kind(&self, kind: Kind) -> SchedulerConfig {
        SchedulerConfig { kind, ..self.clone() }
    }

    /// Reads the text of a `scheduler_config.json`. What is absent is the library's default of its class.
    ///
    /// # Errors
    /// No JSON; every key that is not built or not known, by name and value; noise predicted at a zero terminal SNR.
    pub fn read(text: &str) -> Result<SchedulerConfig> {
        // Python's writer has a word that JSON has not.
        let text = text.replace("-Infinity", "null");
        let config: Value = serde_json::from_str(&text).map_err(|e| Error::Setting(format!("no JSON: {e}")))?;
        SchedulerConfig::of(&config)
    }

    /// As [`SchedulerConfig::read`], of a value.
    ///
    /// # Errors
    /// As there.
    pub fn of(config: &Value) -> Result<SchedulerConfig> {
        let mut keys = Keys::new("scheduler_config.json", config)?;
        let class: String = keys.required("_class_name");
        let kind = Kind::ALL.into_iter().find(|kind| kind.class() == class);
        if kind.is_none() && !class.is_empty() {
            let built: Vec<&str> = Kind::ALL.iter().map(|kind| kind.class()).collect();
            keys.problem(format!("_class_name is {class:?}, and only {} is built", built.join(" or ")));
            // What other samplers ask for is not known.
            return Err(keys.finish().map_or_else(Error::from, |()| Error::Setting("no sampler".into())));
        }
        let d = SchedulerConfig::new(kind.unwrap_or(Kind::Ddim));
        let mut all = SchedulerConfig {
            num_train_timesteps: keys.or("num_train_timesteps", d.num_train_timesteps),
            beta_start: keys.or("beta_start", d.beta_start),
            beta_end: keys.or("beta_end", d.beta_end),
            beta_schedule: keys.or("beta_schedule", d.beta_schedule),
            trained_betas: keys.optional("trained_betas"),
            prediction_type: keys.or("prediction_type", d.prediction_type),
            rescale_betas_zero_snr: keys.or("rescale_betas_zero_snr", false),
            timestep_spacing: keys.or("timestep_spacing", d.timestep_spacing),
            steps_offset: keys.or("steps_offset", 0),
            ..d.clone()
        };
        let clip: bool = keys.or("clip_sample", d.clip_sample.is_some());
        let range: f64 = keys.or("clip_sample_range", 1.0);
        all.clip_sample = clip.then_some(range);
        all.set_alpha_to_one = keys.or("set_alpha_to_one", d.set_alpha_to_one);
        all.fixed_large = match keys.or("variance_type", "fixed_small".to_string()).as_str() {
            "fixed_small" | "fixed_small_log" => false,
            "fixed_large" => true,
            other => {
                keys.problem(format!("variance_type is {other:?}, and only fixed_small or fixed_large is built"));
                false
            }
        };
        all.solver_order = keys.or("solver_order", 2);
        if !(1..=2).contains(&all.solver_order) {
            keys.problem(format!("solver_order is {}, and only 1 or 2 is built", all.solver_order));
        }
        all.solver_heun = match keys.or("solver_type", "midpoint".to_string()).as_str() {
            "heun" => true,
            "midpoint" => false,
            other => {
                keys.problem(format!("solver_type is {other:?}, and only midpoint or heun is built"));
                false
            }
        };
        all.lower_order_final = keys.or("lower_order_final", true);
        all.euler_at_final = keys.or("euler_at_final", false);
        all.final_sigma_min = match keys.or("final_sigmas_type", "zero".to_string()).as_str() {
            "zero" => false,
            "sigma_min" => true,
            other => {
                keys.problem(format!("final_sigmas_type is {other:?}, and only zero or sigma_min is built"));
                false
            }
        };
        all.lambda_min_clipped = keys.or("lambda_min_clipped", f64::NEG_INFINITY);
        keys.only("algorithm_type", &[json!("dpmsolver++")]);
        // Absent means false to PNDM, and nothing to the others.
        let skips: bool = keys.or("skip_prk_steps", kind != Some(Kind::Pndm));
        if kind == Some(Kind::Pndm) && !skips {
            keys.problem("skip_prk_steps is false, and only true is built");
        }
        keys.only("interpolation_type", &[json!("linear")]);
        keys.only("timestep_type", &[json!("discrete")]);
        keys.only("sigma_min", &[]);
        keys.only("sigma_max", &[]);
        for key in ["thresholding", "use_karras_sigmas", "use_exponential_sigmas", "use_beta_sigmas", "use_lu_lambdas"]
        {
            keys.only(key, &[json!(false)]);
        }
        for key in ["use_flow_sigmas", "use_dynamic_shifting", "rescale_betas"] {
            keys.only(key, &[json!(false)]);
        }
        // They belong to thresholds and flows, which are refused.
        keys.harmless(&["dynamic_thresholding_ratio", "sample_max_value", "flow_shift", "time_shift_type"]);
        keys.harmless(&["_diffusers_version", "_name_or_path"]);
        keys.finish()?;
        all.check()?;
        Ok(all)
    }

    /// The text of a `scheduler_config.json`, from which diffusers makes the same.
    pub fn write(&self) -> String {
        let mut config = json!({
            "_class_name": self.kind.class(),
            "num_train_timesteps": self.num_train_timesteps,
            "beta_start": self.beta_start,
            "beta_end": self.beta_end,
            "beta_schedule": self.beta_schedule,
            "trained_betas": self.trained_betas,
            "prediction_type": self.prediction_type,
            "timestep_spacing": self.timestep_spacing,
            "steps_offset": self.steps_offset,
        });
        let mut set = |key: &str, value: Value| config[key] = value;
        if !matches!(self.kind, Kind::Heun | Kind::Pndm) {
            set("rescale_betas_zero_snr", json!(self.rescale_betas_zero_snr));
        }
        if matches!(self.kind, Kind::Ddpm | Kind::Ddim | Kind::Heun) {
            set("clip_sample", json!(self.clip_sample.is_some()));
            set("clip_sample_range", json!(self.clip_sample.unwrap_or(1.0)));
        }
        match self.kind {
            Kind::Ddpm => set("variance_type", json!(if self.fixed_large { "fixed_large" } else { "fixed_small" })),
            Kind::Ddim => set("set_alpha_to_one", json!(self.set_alpha_to_one)),
            Kind::Pndm => {
                set("set_alpha_to_one", json!(self.set_alpha_to_one));
                set("skip_prk_steps", json!(true));
            }
            Kind::DpmMultistep => {
                set("algorithm_type", json!("dpmsolver++"));
                set("solver_order", json!(self.solver_order));
                set("solver_type", json!(if self.solver_heun { "heun" } else { "midpoint" }));
                set("lower_order_final", json!(self.lower_order_final));
                set("euler_at_final", json!(self.euler_at_final));
                set("final_sigmas_type", json!(if self.final_sigma_min { "sigma_min" } else { "zero" }));
                if self.lambda_min_clipped.is_finite() {
                    set("lambda_min_clipped", json!(self.lambda_min_clipped));
                }
            }
            Kind::Euler | Kind::EulerAncestral | Kind::Heun => {}
        }
        format!("{config:#}\n")
    }

    /// The noise of every time.
    ///
    /// # Errors
    /// No times, or β outside 0 to 1.
    pub fn schedule(&self) -> Result<NoiseSchedule> {
        let betas = match &self.trained_betas {
            Some(betas) => betas.clone(),
            None => self.beta_schedule.betas(self.num_train_timesteps, self.beta_start, self.beta_end),
        };
        if betas.len() != self.num_train_timesteps {
            let message = format!("{} trained_betas for {} times", betas.len(), self.num_train_timesteps);
            return Err(Error::Setting(message));
        }
        let schedule = NoiseSchedule::new(betas)?;
        Ok(if self.rescale_betas_zero_snr { schedule.with_zero_terminal_snr() } else { schedule })
    }

    /// Whether its settings fit each other.
    ///
    /// # Errors
    /// They do not.
    pub fn check(&self) -> Result<()> {
        check_prediction(&self.schedule()?, self.prediction_type)?;
        if self.kind == Kind::Pndm && self.prediction_type == Prediction::Sample {
            return Err(Error::Setting("PNDM takes networks that predict epsilon or v_prediction, not sample".into()));
        }
        if self.kind == Kind::Pndm && self.rescale_betas_zero_snr {
            return Err(Error::Setting("PNDM begins where the image is noise alone, which it cannot".into()));
        }
        if let Some(range) = self.clip_sample
            && !(range > 0.0 && range.is_finite())
        {
            return Err(Error::Setting(format!("clip_sample_range must be above 0 and finite, got {range}")));
        }
        Ok(())
    }
}
