//! [`Common`]: the flags of every training, and what they do to its settings.

use std::path::PathBuf;

use anyhow::{Context, Result, bail, ensure};
use binade::cli::device::On;
use binade::cli::flags::{above_zero, at_least_zero, positive, whole};
use binade::nn::Schedule;
use binade::train::{BestBy, Config, OptimizerChoice, Precision, Profile};
use clap::ValueEnum;

/// Flags of every training. What is not given has the default of the training, or the value of the run that is resumed.
#[derive(clap::Args, Clone, Debug)]
#[command(next_help_heading = "Settings of every training")]
pub struct Common {
    /// A file in TOML whose keys are these flags: `lr = 1e-3`; what the command line says comes after it
    // Taken out of the command line before it is read (`cli::config_file`).
    #[arg(long, value_name = "FILE.toml")]
    config: Option<PathBuf>,
    /// Precision to train in [default: all]
    #[arg(long, value_enum)]
    precision: Option<PrecisionName>,
    /// Passes over the training data; a resumed run may change it [default: the training's; 12 for digits]
    #[arg(long, value_parser = positive::<u64>, allow_negative_numbers = true)]
    epochs: Option<u64>,
    /// Samples per step, or per part of one with --accumulate [default: the training's; 64 for digits]
    #[arg(long, value_parser = positive::<usize>, allow_negative_numbers = true)]
    batch_size: Option<usize>,
    /// Batches per step, whose gradients are accumulated [default: 1]
    #[arg(
        long,
        value_name = "N",
        alias = "gradient-accumulation-steps",
        value_parser = positive::<usize>,
        allow_negative_numbers = true
    )]
    accumulate: Option<usize>,
    /// Leave out the last batch of an epoch where it has fewer samples than the others
    #[arg(long)]
    drop_last: bool,
    /// Steps of an epoch, which has another part of the training data each time then [default: as all data have]
    #[arg(long, value_name = "N", value_parser = positive::<usize>, allow_negative_numbers = true)]
    steps_per_epoch: Option<usize>,
    /// Optimiser [default: adamw]
    #[arg(long, value_name = "NAME", value_parser = OptimizerChoice::NAMES)]
    optimizer: Option<String>,
    /// Peak learning rate [default: the training's; 2e-3 for digits]
    #[arg(long, alias = "learning-rate", value_parser = above_zero, allow_hyphen_values = true)]
    lr: Option<f64>,
    /// Decay of the moments, of adamw, adam and lion
    #[arg(long, value_name = "B", num_args = 2, value_parser = at_least_zero, allow_hyphen_values = true)]
    betas: Option<Vec<f64>>,
    /// Momentum, of sgd and rmsprop [default: 0.9 for sgd, 0 for rmsprop]
    #[arg(long, value_parser = at_least_zero, allow_hyphen_values = true)]
    momentum: Option<f64>,
    /// Nesterov's form, of sgd [default: true]
    #[arg(long, value_name = "BOOL")]
    nesterov: Option<bool>,
    /// Learning rate over the run [default: cosine]
    #[arg(long, value_enum)]
    schedule: Option<ScheduleName>,
    /// Steps in which the learning rate rises from 0 [default: the training's; 0 for digits]
    #[arg(long, value_name = "STEPS", alias = "warmup-iters", value_parser = whole, allow_negative_numbers = true)]
    warmup: Option<u64>,
    /// Learning rate at the end of cosine and linear schedules [default: 0; a tenth of --lr for gpt]
    #[arg(long, value_parser = at_least_zero, allow_hyphen_values = true)]
    min_lr: Option<f64>,
    /// Weight decay: decoupled in adamw, lion and adafactor, else an L2 penalty [default: the training's; 0.01]
    #[arg(long, value_parser = at_least_zero, allow_hyphen_values = true)]
    weight_decay: Option<f64>,
    /// Largest norm of the gradient; inf clips nothing [default: 1]
    #[arg(long, value_name = "NORM", alias = "grad-clip", value_parser = norm, allow_hyphen_values = true)]
    clip: Option<f64>,
    /// Decay of averages of the weights, which are evaluated then [default: none; 0.99 for diffusion and vae]
    #[arg(long, value_name = "DECAY", value_parser = at_least_zero, allow_hyphen_values = true)]
    ema: Option<f64>,
    /// Let averages begin as diffusers' do: after N steps their decay is at most 1 − (1 + N)^−POWER
    #[arg(long, value_name = "POWER", value_parser = above_zero, allow_hyphen_values = true)]
    ema_power: Option<f64>,
    /// Evaluate after so many steps each, besides after each epoch
    #[arg(long, value_name = "N", value_parser = positive::<u64>, allow_negative_numbers = true)]
    evaluate_every: Option<u64>,
    /// Keep the checkpoints of so many epochs [default: 1]
    #[arg(long, value_name = "N", value_parser = positive::<usize>, allow_negative_numbers = true)]
    keep_last: Option<usize>,
    /// Keep the weights of the best epoch, in best-PRECISION.safetensors
    #[arg(long)]
    keep_best: bool,
    /// End after so many epochs in a row of which none was better than all before [default: after --epochs alone]
    #[arg(long, value_name = "EPOCHS", value_parser = positive::<u64>, allow_negative_numbers = true)]
    patience: Option<u64>,
    /// By what an epoch is better than another, on the test data [default: loss]
    #[arg(long, value_enum)]
    best_by: Option<BestByName>,
    /// Write event files too: `tensorboard --logdir RUN/tensorboard` shows them
    #[arg(long)]
    tensorboard: bool,
    /// End with the first operator whose result or gradient is not finite, its layer, step and batch; steps are slower
    #[arg(long)]
    detect_anomaly: bool,
    /// Seed of initial values, order and augmentation [default: 0]
    #[arg(long, value_parser = whole, allow_negative_numbers = true)]
    seed: Option<u64>,
    /// Train with this many seeds and compare each precision with fp32, seed by seed
    #[arg(
        long,
        value_name = "N",
        value_parser = positive::<u64>,
        allow_negative_numbers = true,
        conflicts_with_all = ["resume", "out"]
    )]
    pub seeds: Option<u64>,
    /// Threads, at most one per core [default: one per core]
    #[arg(long, value_parser = positive::<usize>, allow_negative_numbers = true)]
    pub threads: Option<usize>,
    #[command(flatten)]
    pub on: On,
    /// Run folder [default: a new runs/NAME-N]
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,
    /// Continue the run in DIR with its own settings [default: --out, or the newest run of that name]
    #[arg(long, value_name = "DIR", num_args = 0..=1)]
    pub resume: Option<Option<PathBuf>>,
    /// With --resume: go on from the checkpoints that were kept after this epoch (--keep-last) [default: the newest]
    #[arg(
        long,
        value_name = "EPOCH",
        requires = "resume",
        value_parser = positive::<u64>,
        allow_negative_numbers = true
    )]
    pub after_epoch: Option<u64>,
    /// Print nothing but errors
    #[arg(long)]
    pub quiet: bool,
    /// What is printed while it trains
    #[arg(long, value_enum, default_value_t = Level::Epochs, conflicts_with = "quiet")]
    log: Level,
    /// Print nothing but the results, as JSON, at the end
    #[arg(long, conflicts_with_all = ["quiet", "seeds", "tui", "log"])]
    pub json: bool,
    /// Show curves on the whole terminal while training, as `binade watch` does
    #[arg(long, conflicts_with_all = ["quiet", "seeds"])]
    pub tui: bool,
    /// Record steps of each precision into a file that Perfetto and Chrome show, and print where their time goes
    #[arg(long, value_name = "TRACE.json", conflicts_with = "seeds")]
    profile: Option<PathBuf>,
    /// With --profile, how many steps, after the first five [default: 20]
    #[arg(
        long,
        value_name = "N",
        requires = "profile",
        value_parser = positive::<u64>,
        allow_negative_numbers = true
    )]
    profile_steps: Option<u64>,
}

/// A precision, or all of them.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum PrecisionName {
    Fp32,
    Fp16,
    Bf16,
    All,
}

/// How much is printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Level {
    /// Errors alone
    Errors,
    /// Evaluations, epochs, skipped steps and results
    Epochs,
    /// Every step too
    Steps,
}

/// What makes an epoch the best.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum BestByName {
    /// The lowest test loss
    Loss,
    /// The highest share of test samples that are right
    Accuracy,
}

/// Learning rate over a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum ScheduleName {
    /// The same after the warm-up
    Constant,
    /// Half a cosine after the warm-up, down to --min-lr
    Cosine,
    /// A straight line after the warm-up, down to --min-lr
    Linear,
    /// Up for 0.3 of the run and down again (Smith and Topin, 2018)
    OneCycle,
}

fn norm(text: &str) -> Result<f64, String> {
    if text == "inf" { Ok(f64::MAX) } else { above_zero(text) }
}

impl PrecisionName {
    /// Those that are meant.
    pub fn precisions(self) -> Vec<Precision> {
        match self {
            PrecisionName::Fp32 => vec![Precision::Fp32],
            PrecisionName::Fp16 => vec![Precision::Fp16],
            PrecisionName::Bf16 => vec![Precision::Bf16],
            PrecisionName::All => Precision::ALL.to_vec(),
        }
    }
}

impl Common {
    /// The precisions asked for.
    pub fn precisions(&self) -> Option<Vec<Precision>> {
        self.precision.map(PrecisionName::precisions)
    }

    /// Whether nothing is printed while it trains.
    pub fn is_quiet(&self) -> bool {
        self.quiet || self.json || self.log == Level::Errors
    }

    /// Whether every step is printed.
    pub fn is_verbose(&self) -> bool {
        self.log == Level::Steps
    }

    /// What to record.
    pub fn profile(&self) -> Option<Profile> {
        let profile = Profile::to(self.profile.clone()?);
        Some(Profile { steps: self.profile_steps.unwrap_or(profile.steps), ..profile })
    }

    /// Puts what the flags say in the place of the settings.
    pub fn adjust(&self, fit: &mut Config) -> Result<()> {
        fit.epochs = self.epochs.unwrap_or(fit.epochs);
        fit.batch_size = self.batch_size.unwrap_or(fit.batch_size);
        fit.accumulate = self.accumulate.unwrap_or(fit.accumulate);
        fit.drop_last |= self.drop_last;
        fit.steps_per_epoch = self.steps_per_epoch.or(fit.steps_per_epoch);
        self.adjust_optimizer(&mut fit.optimizer)?;
        let lr = self.lr.unwrap_or(fit.lr);
        fit.schedule = self.schedule(&fit.schedule, lr)?;
        fit.lr = lr;
        fit.weight_decay = self.weight_decay.unwrap_or(fit.weight_decay);
        fit.clip = self.clip.unwrap_or(fit.clip);
        fit.ema = self.ema.or(fit.ema);
        fit.ema_power = self.ema_power.or(fit.ema_power);
        ensure!(fit.ema_power.is_none() || fit.ema.is_some(), "--ema-power: no averages are kept; see --ema");
        fit.evaluate_every = self.evaluate_every.or(fit.evaluate_every);
        fit.keep_last = self.keep_last.unwrap_or(fit.keep_last);
        fit.keep_best |= self.keep_best;
        fit.patience = self.patience.or(fit.patience);
        fit.best_by = match self.best_by {
            Some(BestByName::Loss) => BestBy::Loss,
            Some(BestByName::Accuracy) => BestBy::Accuracy,
            None => fit.best_by,
        };
        fit.tensorboard |= self.tensorboard;
        fit.detect_anomaly = self.detect_anomaly;
        fit.seed = self.seed.unwrap_or(fit.seed);
        Ok(())
    }

    fn adjust_optimizer(&self, optimizer: &mut OptimizerChoice) -> Result<()> {
        if let Some(named) = self.optimizer.as_deref().filter(|name| *name != optimizer.name()) {
            *optimizer = OptimizerChoice::named(named).with_context(|| format!("no optimiser {named:?}"))?;
        }
        let name = optimizer.name();
        if let Some(betas) = &self.betas {
            let Some(own) = optimizer.betas_mut() else { bail!("--betas: {name} has none") };
            own.copy_from_slice(betas);
        }
        if let Some(momentum) = self.momentum {
            let Some(own) = optimizer.momentum_mut() else { bail!("--momentum: {name} has none") };
            *own = momentum;
        }
        match (self.nesterov, optimizer) {
            (None, _) => {}
            (Some(asked), OptimizerChoice::Sgd { nesterov, .. }) => *nesterov = asked,
            (Some(_), _) => bail!("--nesterov is of sgd, and the optimiser is {name}"),
        }
        Ok(())
    }

    /// The schedule asked for; what is not said is as it was.
    fn schedule(&self, was: &Schedule, lr: f64) -> Result<Schedule> {
        if self.schedule.is_none() && self.warmup.is_none() && self.min_lr.is_none() {
            return Ok(was.clone());
        }
        let (name, warmup, floor) = parts(was);
        let name = self.schedule.unwrap_or(name);
        // A schedule of another kind begins anew.
        let (warmup, floor) = if name == parts(was).0 { (warmup, floor) } else { (0, 0.0) };
        let (warmup, floor) = (self.warmup.unwrap_or(warmup), self.min_lr.map_or(floor, |min| min / lr));
        ensure!(floor <= 1.0, "--min-lr {} is above the learning rate, {lr}", floor * lr);
        let after = |then: Schedule| if warmup == 0 { then } else { then.after_warm_up(warmup) };
        Ok(match name {
            ScheduleName::Cosine => Schedule::Cosine { warmup, total: 0, floor },
            ScheduleName::Linear => after(Schedule::Linear { start: 1.0, end: floor, total: 0 }),
            ScheduleName::Constant => {
                ensure!(self.min_lr.is_none(), "--min-lr: a constant schedule ends where it begins");
                after(Schedule::Constant)
            }
            ScheduleName::OneCycle => {
                ensure!(
                    self.min_lr.is_none() && self.warmup.is_none(),
                    "a one-cycle schedule has a rise and an end of its own: no --warmup and no --min-lr"
                );
                Schedule::OneCycle { total: 0, rising: 0.3, div: 25.0, final_div: 1e4, cosine: true }
            }
        })
    }
}

/// Name, warm-up and floor of a schedule that flags can ask for.
fn parts(schedule: &Schedule) -> (ScheduleName, u64, f64) {
    match schedule {
        Schedule::Cosine { warmup, floor, .. } => (ScheduleName::Cosine, *warmup, *floor),
        Schedule::Linear { end, .. } => (ScheduleName::Linear, 0, *end),
        Schedule::OneCycle { .. } => (ScheduleName::OneCycle, 0, 0.0),
        Schedule::WarmUp { steps, then, .. } => (parts(then).0, *steps, parts(then).2),
        _ => (ScheduleName::Constant, 0, 0.0),
    }
}
