//! Faults put into the PTX that ships, one at a time: each must be flagged, and by the check that should see it. One
//! that is not is a missing check. `cargo xtask ptx mutants` tries all of them.

mod attention;
mod edit;
mod table;
mod tensor_cores;

use std::io::Write;

use binade_cuda::{Cuda, Interpreted, Module};
use binade_tensor::{Device, Update};

use crate::{bits, registry, updates};
use attention::ATTENTION;
use edit::{At, Edit, apply};
use table::MUTANTS;
use tensor_cores::TENSOR_CORES;

/// A fault: where, what, which tests run it, and what they must see.
struct Mutant {
    name: &'static str,
    at: At,
    edit: Edit,
    by: By,
    seen: Seen,
}

/// Tests of the backend, or the part of one that is about an operator.
#[derive(Debug)]
enum By {
    /// The registry's bounds, of operators by name.
    Bounds(&'static [&'static str]),
    /// The CPU's bits, of operators by name.
    Bits(&'static [&'static str]),
    /// The CPU's bits after steps of an optimiser.
    Steps(fn(&Update) -> bool),
    /// What passes over gradients find and leave.
    Passes(Update),
    /// One that is about a few operators.
    Check(fn(&Device) -> Result<(), String>),
}

/// What a test says.
#[derive(Clone, Copy, Debug)]
enum Seen {
    /// A finding of the interpreter, of one of these kinds: which it is may depend on the order of warps.
    Finding(&'static [&'static str]),
    /// Wrong numbers.
    Numbers,
}

impl By {
    /// What the tests find wrong with a device.
    fn run(&self, device: &Device) -> Result<(), String> {
        match self {
            By::Bounds(names) => registry::bounds(device, names),
            By::Bits(names) => bits::operators(device, |op| names.contains(&op.name())),
            By::Steps(of) => updates::optimisers(device, of),
            By::Passes(update) => updates::passes(device, update),
            By::Check(check) => check(device),
        }
    }
}

impl Mutant {
    /// Which it is.
    fn title(&self) -> String {
        format!("{}.{}: {}", self.at.module.name(), self.at.kernel, self.name)
    }

    /// What the tests say of it.
    ///
    /// # Errors
    /// It is not flagged as it should be.
    fn check(&self) -> Result<String, String> {
        let ptx = apply(&self.at, &self.edit).map_err(|stale| format!("it no longer fits the kernel: {stale}"))?;
        // Tensor cores of capability 7.5 have kernels of their own.
        let of_75 = matches!(self.at.module, Module::ProductSm75 | Module::ConvSm75 | Module::AttentionSm75);
        let driver = if of_75 { Interpreted::of(75).map_err(|e| e.to_string())? } else { Interpreted::default() };
        driver.replace(self.at.module, &ptx).map_err(|e| format!("the PTX is refused: {e:?}"))?;
        let device = Device::new(Cuda::new(driver).map_err(|e| e.to_string())?);
        let Err(said) = self.by.run(&device) else {
            return Err("nothing is flagged".into());
        };
        // Of a finding the message has the kernel, the kind, and the line of the source.
        let told = said.split_once("kernel ").and_then(|(_, told)| told.split_once(": "));
        let finding = told.and_then(|(_, told)| told.split_once(" at "));
        let good = match (self.seen, finding) {
            (Seen::Finding(kinds), Some((kind, place))) => {
                kinds.contains(&kind) && place.split(':').next().is_some_and(|file| file.contains(".cu"))
            }
            (Seen::Numbers, None) => true,
            _ => false,
        };
        if good { Ok(said) } else { Err(format!("expected {:?}, got: {said}", self.seen)) }
    }
}

/// All of them.
fn mutants() -> impl Iterator<Item = &'static Mutant> {
    MUTANTS.iter().chain(TENSOR_CORES).chain(ATTENTION)
}

/// Those whose module, kernel or description has this in it are tried, and what is said of each is told.
const ONLY: &str = "BINADE_MUTANTS";

#[test]
fn every_mutant_fits_the_kernels_that_ship() {
    assert!(mutants().count() >= 60);
    let stale = |m: &Mutant| apply(&m.at, &m.edit).err().map(|why| format!("{}: {why}", m.title()));
    let stale: Vec<String> = mutants().filter_map(stale).collect();
    assert!(stale.is_empty(), "{} mutants do not fit:\n{}", stale.len(), stale.join("\n"));
}

#[test]
fn every_mutant_is_flagged_by_the_check_that_should_see_it() {
    let only = std::env::var(ONLY);
    let wanted = |m: &&Mutant| only.as_ref().is_ok_and(|only| m.title().contains(only)) || only.is_err();
    let mut missed = Vec::new();
    let tried: Vec<&Mutant> = mutants().filter(wanted).collect();
    for mutant in &tried {
        let (start, outcome, title) = (std::time::Instant::now(), mutant.check(), mutant.title());
        let (verdict, said) = match &outcome {
            Ok(said) => ("flagged", said),
            Err(why) => ("MISSED", why),
        };
        let told = format!("{verdict} {title}, {:.1} s\n    {said:.160}\n", start.elapsed().as_secs_f64());
        if only.is_ok() {
            // Tests have their output captured, but not of this.
            let _ = std::io::stderr().write_all(told.as_bytes());
        }
        missed.extend(outcome.err().map(|why| format!("{title}: {why}")));
    }
    if only.is_ok() {
        let _ = writeln!(std::io::stderr(), "{} of {} flagged", tried.len() - missed.len(), tried.len());
    }
    assert!(missed.is_empty(), "{} mutants are not flagged:\n{}", missed.len(), missed.join("\n"));
}
