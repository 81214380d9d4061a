//! Whether there is memory for a step, told before it; and what would fit where there is not.

use anyhow::{Result, bail};
use binade::autograd::scope;
use binade::cli::memory::{Bytes, Room, room};
use binade::cli::output::note;
use binade::nn::{Module, without_initial_values};
use binade::plan::{Plan, Scratch};
use binade::tensor::{Backend, Class, Device, MemoryStats};
use binade::train::{self, Config, OptimizerChoice, RunConfig, Trainer};

/// Fails if a step or an evaluation in a precision of the run needs more memory than this process may still take. Says
/// whether there is room beside it for a copy of what a checkpoint holds.
pub fn check<M: Module>(trainer: &Trainer<'_, M>, config: &RunConfig) -> Result<bool> {
    // A GPU has memory of its own.
    if scope::device()?.name() == "cuda" {
        return Ok(true);
    }
    let Some(room) = room() else { return Ok(true) };
    let (mut told, mut copies) = (None, true);
    for &precision in &config.precisions {
        let fit = Config { precision, ..config.fit.clone() };
        match needed(trainer, &fit, room) {
            Ok(needed) if !needed.fits(room) => bail!("{}", too_much(trainer, &fit, needed, room)),
            Ok(needed) => copies &= needed.bytes().saturating_add(needed.copy) <= room.bytes,
            Err(error) if error.is_setting() => return Err(error.into()),
            // The step itself may fail as well, with words of its own, or may not. In other precisions it mostly fails
            // for the same reason.
            Err(error) => {
                let (name, error) = (precision.name(), error.to_string());
                if told.as_ref() != Some(&error) {
                    note(format_args!(
                        "whether there is memory for a step in {name} is not known: its rehearsal failed: {error}"
                    ));
                }
                told = Some(error);
            }
        }
    }
    Ok(copies)
}

/// Memory of a run.
struct Needed {
    /// At the peak, of each class and of all together.
    stats: MemoryStats,
    /// Bytes of a copy of what a checkpoint holds.
    copy: u64,
}

impl Needed {
    /// With holes between buffers.
    fn bytes(&self) -> u64 {
        let total = self.stats.peak_total as u64;
        total.saturating_add(total / 32)
    }

    fn fits(&self, room: Room) -> bool {
        self.bytes() <= room.bytes
    }

    /// The classes that take most.
    fn parts(&self) -> String {
        let mut classes = Class::ALL.map(|class| (self.stats.peak(class) as u64, class));
        classes.sort_by_key(|(bytes, _)| std::cmp::Reverse(*bytes));
        let most = classes.into_iter().filter(|(bytes, _)| *bytes > self.bytes() / 50);
        most.map(|(bytes, class)| format!("{class} {}", Bytes(bytes))).collect::<Vec<_>>().join(", ")
    }
}

/// What a run with these settings needs. What kernels need beside buffers is measured only where it may decide: an
/// operator alone may be more than there is memory for.
fn needed<M: Module>(trainer: &Trainer<'_, M>, config: &Config, room: Room) -> train::Result<Needed> {
    let plan = |scratch: Scratch| -> train::Result<Needed> {
        let plan = Plan::new(&scratch);
        let rehearsed = without_initial_values(|| trainer.rehearse(config, &Device::new(plan.clone())))?;
        Ok(Needed { stats: plan.memory(), copy: rehearsed.checkpoint_bytes as u64 })
    };
    let device = scope::device()?;
    let needed = plan(Scratch::unmeasured(&device))?;
    let near = needed.fits(room) && needed.bytes().saturating_mul(2) > room.bytes;
    if near { plan(Scratch::of(&device)).or(Ok(needed)) } else { Ok(needed) }
}

/// What is needed, what there is, and the settings near these that would fit.
fn too_much<M: Module>(trainer: &Trainer<'_, M>, config: &Config, needed: Needed, room: Room) -> String {
    let mut found = Vec::new();
    let mut try_out = |flags: String, config: &Config| {
        let needed = self::needed(trainer, config, room).ok().filter(|needed| needed.fits(room));
        found.extend(needed.as_ref().map(|needed| format!("{flags} ({})", Bytes(needed.bytes()))));
        needed.is_some()
    };
    // The same step in more parts: the largest batch that fits.
    for parts in (1..).map(|i| 1usize << i).take_while(|parts| config.batch_size >= *parts) {
        let (batch_size, accumulate) = (config.batch_size / parts, config.accumulate.saturating_mul(parts));
        let smaller = Config { batch_size, accumulate, ..config.clone() };
        if try_out(format!("--batch-size {batch_size} --accumulate {accumulate}"), &smaller) {
            break;
        }
    }
    // One state of each parameter, a row and a column, none.
    let named = ["lion", "adafactor"].map(|name| (name, OptimizerChoice::named(name)));
    let none = ("sgd --momentum 0 --nesterov false", Some(OptimizerChoice::Sgd { momentum: 0.0, nesterov: false }));
    for (flags, optimizer) in named.into_iter().chain([none]) {
        let Some(optimizer) = optimizer.filter(|optimizer| *optimizer != config.optimizer) else { continue };
        if try_out(format!("--optimizer {flags}"), &Config { optimizer, ..config.clone() }) {
            break;
        }
    }
    let advice = match found.join("; ") {
        nothing if nothing.is_empty() => "Neither a batch of one nor another optimiser would fit".into(),
        fitting => format!("What would fit: {fitting}"),
    };
    let (precision, all, left) = (config.precision.name(), Bytes(needed.bytes()), Bytes(room.bytes));
    let (limit, parts) = (room.limit, needed.parts());
    format!("not enough memory: a step in {precision} needs {all} ({parts}), and {limit} leaves {left}. {advice}")
}
