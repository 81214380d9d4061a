//! `cargo xtask soak`: long trainings whose samples are poisoned and whose workers die, in every precision. What they
//! take of memory must stay the same, each poisoned step must be skipped and no other, and all must be told.

use std::ops::ControlFlow;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use anyhow::{Context, Result, bail, ensure};
use binade::autograd::scope;
use binade::cli::flags::{positive, whole};
use binade::cli::output::verdict_line;
use binade::cli::threads;
use binade::models::{SmallCnn, SmallCnnConfig};
use binade::tensor::Key;
use binade::train::images::Dataset;
use binade::train::{
    Classify, Config, Data, Error, Metrics, Numbers, Precision, RunConfig, SampleResult, Splits, Trainer, epoch_order,
};

use crate::bench::rss_mib;
use crate::fuzz_files::Draw;

#[derive(clap::Args)]
#[command(after_help = "Example: cargo xtask soak --steps 200 --deaths 1")]
pub struct Args {
    /// Steps in each precision
    #[arg(
        long,
        default_value_t = 10_000,
        value_name = "N",
        value_parser = positive::<u64>,
        allow_negative_numbers = true
    )]
    steps: u64,
    /// One training sample of so many is not finite
    #[arg(
        long,
        default_value_t = 2_000,
        value_name = "N",
        value_parser = positive::<u64>,
        allow_negative_numbers = true
    )]
    poison: u64,
    /// How often a worker dies that prepares samples, in each precision
    #[arg(
        long,
        default_value_t = 5,
        value_name = "N",
        value_parser = whole,
        allow_negative_numbers = true
    )]
    deaths: u64,
    /// Which samples: the same seed poisons the same
    #[arg(
        long,
        default_value_t = 0,
        value_name = "N",
        value_parser = whole,
        allow_negative_numbers = true
    )]
    seed: u64,
    /// Threads, at most one per core [default: one per core]
    #[arg(long, value_parser = positive::<usize>, allow_negative_numbers = true)]
    threads: Option<usize>,
}

const BATCH: usize = 64;
/// What a worker says as it dies.
const DIES: &str = "this worker dies";

/// Samples of which some are not finite, and one at which the worker dies.
struct Poisoned {
    inner: Arc<dyn Data>,
    one_in: u64,
    /// Samples until then.
    left: Arc<AtomicU64>,
}

/// What is done to a sample of an epoch, whose key is its epoch's.
fn poison(key: Key, index: usize, one_in: u64) -> Option<f32> {
    let drawn = Draw::new(key.seed ^ key.iteration, index as u64).next();
    let bad = [f32::NAN, f32::INFINITY, f32::NEG_INFINITY][(drawn >> 32) as usize % 3];
    drawn.is_multiple_of(one_in).then_some(bad)
}

impl Data for Poisoned {
    fn len(&self) -> usize {
        self.inner.len()
    }

    fn sample(&self, index: usize, key: Option<Key>) -> SampleResult {
        let mut sample = self.inner.sample(index, key)?;
        // Without a key a sample is only looked at.
        let Some(key) = key else { return Ok(sample) };
        if self.left.fetch_sub(1, Relaxed) == 1 {
            std::panic::panic_any(DIES);
        }
        if let Some(bad) = poison(key, index, self.one_in)
            && let Some(Numbers::F32(pixels)) = sample.0.first_mut().map(|values| &mut values.numbers)
            && let Some(pixel) = pixels.first_mut()
        {
            *pixel = bad;
        }
        Ok(sample)
    }
}

/// What was seen after each epoch.
#[derive(Default)]
struct Seen {
    /// MiB that the process had in memory, after so many steps.
    resident: Vec<(u64, f64)>,
    /// Bytes of all buffers.
    live: Vec<usize>,
    poisoned: u64,
    /// Skipped because the loss scale was too large.
    overflows: u64,
    steps: u64,
}

pub fn run(args: &Args) -> Result<ExitCode> {
    threads::start(args.threads)?;
    let folder = tempfile::Builder::new().prefix("binade-soak-").tempdir()?;
    let (mut good, hook) = (true, std::panic::take_hook());
    std::panic::set_hook(Box::new(move |panic| {
        // It is told by the training's error.
        if panic.payload().downcast_ref::<&str>() != Some(&DIES) {
            hook(panic);
        }
    }));
    for precision in Precision::ALL {
        let (text, passed) = in_precision(args, precision, folder.path()).with_context(|| precision.name())?;
        verdict_line(format_args!("{}: {text}{}", precision.name(), if passed { "" } else { "  FAULT" }))?;
        good &= passed;
    }
    Ok(if good { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn in_precision(args: &Args, precision: Precision, folder: &Path) -> Result<(String, bool)> {
    let splits = Dataset::Digits.load(None)?;
    let left = Arc::new(AtomicU64::new(u64::MAX));
    let n = splits.train.len();
    let train = Poisoned { inner: splits.train.clone(), one_in: args.poison, left: left.clone() };
    let data = Splits { train: Arc::new(train), test: splits.test };
    let per_epoch = n.div_ceil(BATCH) as u64;
    let epochs = args.steps.div_ceil(per_epoch);
    let seed = args.seed;
    let mut config = RunConfig {
        name: "soak".into(),
        precisions: vec![precision],
        fit: Config { epochs, batch_size: BATCH, seed, ..Config::default() },
        out: Some(folder.join(precision.name())),
        quiet: true,
        ..RunConfig::default()
    };
    let task = Classify::new(10);
    let mut draw = Draw::new(seed, 0);
    let (mut seen, mut died) = (Seen::default(), 0);
    loop {
        let dies = died < args.deaths;
        left.store(
            if dies { 1 + draw.below(n * epochs as usize / (1 + args.deaths as usize)) as u64 } else { u64::MAX },
            Relaxed,
        );
        let trainer = Trainer::new(|| SmallCnn::new(&SmallCnnConfig::default()), &task, &data)
            .with_callback(Box::new(|metrics, _| look(metrics, &mut seen, (seed, n, per_epoch, args.poison))));
        match trainer.run(&config) {
            Ok(run) => {
                let loss = run.summaries.first().and_then(|summary| summary.test_loss);
                return verdict(&seen, died, args.deaths, loss);
            }
            Err(Error::Sample { message, .. }) if dies && message.contains(DIES) => died += 1,
            Err(error) => return Err(error.into()),
        }
        config.resume = config.out.as_ref().is_some_and(|out| out.join("config.json").exists());
    }
}

/// Counts a step, which was skipped exactly if it has a poisoned sample or a scale too large; after an epoch, what is
/// in memory.
fn look(
    metrics: &Metrics,
    seen: &mut Seen,
    (seed, n, per_epoch, one_in): (u64, usize, u64, u64),
) -> binade::train::Result<ControlFlow<()>> {
    match metrics {
        Metrics::Step(step) => {
            let (epoch, batch) = (step.iteration / per_epoch, (step.iteration % per_epoch) as usize);
            let order = epoch_order(n, seed, epoch)?;
            let key = Key::new(seed, epoch).stream("data");
            let poisoned = order.iter().skip(batch * BATCH).take(BATCH).any(|&i| poison(key, i, one_in).is_some());
            // In f16 a scale may be too large, which the blame says.
            let overflow = step.blame.as_ref().is_some_and(|blame| blame.fitting_scale.is_some());
            let wrong = match (poisoned, step.skipped) {
                (true, false) => Some("poisoned and not skipped"),
                (false, true) if !overflow => Some("skipped and not poisoned, nor would a lower scale fit"),
                (true, true) if step.blame.is_none() => Some("skipped and nothing is blamed"),
                _ => None,
            };
            if let Some(what) = wrong {
                return Err(Error::Config(format!("step {} is {what}", step.iteration)));
            }
            seen.steps += 1;
            seen.poisoned += u64::from(poisoned);
            seen.overflows += u64::from(step.skipped && !poisoned);
        }
        Metrics::Epoch(_) => {
            seen.resident.extend(rss_mib().map(|mib| (seen.steps, mib)));
            seen.live.push(scope::device()?.memory().live.iter().sum());
        }
        Metrics::Evaluation(_) => {}
    }
    Ok(ControlFlow::Continue(()))
}

/// Epochs after which memory is looked at, at least: until then buffers are still made, and the allocator settles.
const WARM_UP: usize = 20;

/// Whether memory stayed the same after the first tenth.
fn verdict(seen: &Seen, died: u64, deaths: u64, loss: Option<f64>) -> Result<(String, bool)> {
    ensure!(died == deaths, "{died} of {deaths} workers died");
    let Some(loss) = loss else { bail!("the test loss is not finite") };
    let Seen { steps, poisoned, overflows, .. } = seen;
    let mut text = format!(
        "{steps} steps, {poisoned} poisoned and skipped, {overflows} skipped for their scale, {died} workers died; \
         test loss {loss:.4}; "
    );
    let first = (seen.live.len() / 10).max(WARM_UP);
    let later = seen.live.get(first..).filter(|live| !live.is_empty());
    let (Some(live), Some(resident)) = (later, seen.resident.get(first..)) else {
        text += "too short to say whether memory stays";
        return Ok((text, true));
    };
    let range = |values: &[f64]| values.iter().fold((f64::INFINITY, 0.0f64), |(a, b), v| (a.min(*v), b.max(*v)));
    let resident: Vec<f64> = resident.iter().map(|(_, mib)| *mib).collect();
    let live: Vec<f64> = live.iter().map(|bytes| *bytes as f64 / f64::from(1 << 20)).collect();
    let ((low, high), (least, most)) = (range(&resident), range(&live));
    text += &format!(
        "resident {low:.1} to {high:.1} MiB ({:.2} %), buffers {least:.3} to {most:.3} MiB ({:.2} %)",
        100.0 * (high / low - 1.0),
        100.0 * (most / least - 1.0)
    );
    Ok((text, high <= 1.01 * low && most <= 1.01 * least))
}
