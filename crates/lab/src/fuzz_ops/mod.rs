//! `cargo xtask fuzz-ops`: random operators on random operands, against the reference. `BINADE_ISA` names the highest
//! instruction set tried.

mod cases;
mod check;
mod coverage;
mod draw;

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::Result;

use binade::cli::flags::{above_zero, whole};
use binade::cli::output::verdict_line;

/// Failing cases printed of one operator and kind.
const SHOWN: usize = 3;
/// A case that takes longer hangs. Most take milliseconds, but a machine may be busy with other things.
const PATIENCE: Duration = Duration::from_secs(300);

#[derive(clap::Args)]
#[command(after_help = "Example: cargo xtask fuzz-ops --seconds 10")]
pub struct Args {
    /// How long to go on
    #[arg(long, default_value_t = 60.0, value_name = "SECONDS", value_parser = above_zero, allow_hyphen_values = true)]
    seconds: f64,
    /// Stop after so many cases
    #[arg(long, value_name = "N", value_parser = whole, allow_negative_numbers = true)]
    cases: Option<u64>,
    /// Which cases: the same seed gives the same ones
    #[arg(long, default_value_t = 0, value_parser = whole, allow_negative_numbers = true)]
    seed: u64,
    /// Run this case of the seed alone, and say what it is
    #[arg(long, value_name = "N", value_parser = whole, allow_negative_numbers = true)]
    case: Option<u64>,
    /// Only draw the cases, and fail if they leave an operator out
    #[arg(long, conflicts_with = "case")]
    coverage: bool,
}

pub fn run(args: &Args) -> Result<ExitCode> {
    if args.coverage {
        return cover(args);
    }
    let machine = check::Machine::new()?;
    let last_panic = quiet_panics();
    if let Some(number) = args.case {
        let case = cases::Case::draw(&mut draw::Draw::new(args.seed, number), &binade::tensor::Device::cpu())?;
        verdict_line(format_args!("{:?}", case.op))?;
    }
    let (start, limit) = (Instant::now(), Duration::try_from_secs_f64(args.seconds)?);
    let now = watch(args.seed);
    let (mut cases, mut compared, mut faults) = (0u64, 0, BTreeMap::<String, usize>::new());
    let mut coverage = coverage::Coverage::default();
    for number in args.case.unwrap_or(0).. {
        now.0.store(number, Ordering::Relaxed);
        now.1.store(start.elapsed().as_millis() as u64, Ordering::Relaxed);
        match machine.check(args.seed, number, &mut coverage) {
            Ok(n) => compared += n,
            Err(fault) => {
                let panic = last_panic.lock().ok().and_then(|mut p| p.take()).filter(|_| fault.kind.ends_with("panic"));
                let count = faults.entry(fault.kind.clone()).or_default();
                *count += 1;
                if *count <= SHOWN {
                    let at = panic.map(|at| format!(" (at {at})")).unwrap_or_default();
                    verdict_line(format_args!("{}: {}{at}", fault.kind, fault.text))?;
                    verdict_line(format_args!("  again: cargo xtask fuzz-ops --seed {} --case {number}", args.seed))?;
                }
            }
        }
        cases += 1;
        if args.case.is_some() || args.cases.is_some_and(|most| cases >= most) || start.elapsed() >= limit {
            break;
        }
    }
    if args.case.is_none() {
        coverage.lines().iter().try_for_each(|line| verdict_line(format_args!("{line}")))?;
    }
    let total: usize = faults.values().sum();
    verdict_line(format_args!("{cases} cases, {compared} operators compared with the reference, {total} faults"))?;
    faults.iter().try_for_each(|(kind, n)| verdict_line(format_args!("{n:6} {kind}")))?;
    Ok(if total == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Draws cases until every operator had one, with second order too.
fn cover(args: &Args) -> Result<ExitCode> {
    let device = binade::tensor::Device::cpu();
    let (start, limit) = (Instant::now(), Duration::try_from_secs_f64(args.seconds)?);
    let mut coverage = coverage::Coverage::default();
    let mut cases = 0;
    while start.elapsed() < limit && args.cases.is_none_or(|most| cases < most) {
        let case = cases::Case::draw(&mut draw::Draw::new(args.seed, cases), &device)?;
        coverage.drawn(&case.op, case.twice);
        cases += 1;
        // What is missing is looked up seldom.
        if cases % 1000 == 0 && coverage.is_whole() {
            break;
        }
    }
    verdict_line(format_args!("{cases} cases drawn"))?;
    coverage.lines().iter().try_for_each(|line| verdict_line(format_args!("{line}")))?;
    Ok(if coverage.is_whole() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Panics are faults that are reported with their case; where the last one was is kept.
fn quiet_panics() -> std::sync::Arc<Mutex<Option<String>>> {
    let last = std::sync::Arc::new(Mutex::new(None));
    let note = last.clone();
    std::panic::set_hook(Box::new(move |info| {
        if let Ok(mut last) = note.lock() {
            *last = info.location().map(ToString::to_string);
        }
    }));
    last
}

/// Ends the program with the case's number when one hangs. Gets the number and the time it began at, in milliseconds.
fn watch(seed: u64) -> &'static (AtomicU64, AtomicU64) {
    let now: &'static (AtomicU64, AtomicU64) = Box::leak(Box::default());
    let start = Instant::now();
    std::thread::spawn(move || {
        loop {
            std::thread::sleep(Duration::from_secs(1));
            let began = Duration::from_millis(now.1.load(Ordering::Relaxed));
            if start.elapsed().saturating_sub(began) > PATIENCE {
                let case = now.0.load(Ordering::Relaxed);
                // The exit code says it too.
                let _ = verdict_line(format_args!(
                    "a case hangs\n  again: cargo xtask fuzz-ops --seed {seed} --case {case}"
                ));
                std::process::exit(1);
            }
        }
    });
    now
}
