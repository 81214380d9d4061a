//! Trainings that are killed, at random moments and while they write a file, until they end.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};

use super::training::{Ending, Program, Running};
use super::{Args, Tally, Told};
use crate::fuzz_files::Draw;

pub fn run(program: &Program, ending: &Ending, seconds: f64, args: &Args) -> Result<Told> {
    let (mut draw, mut tally) = (Draw::new(args.seed, 0), Tally::default());
    let (mut kills, mut within, mut trainings) = (0, 0, 0);
    while kills < args.kills {
        trainings += 1;
        let name = format!("killed-{trainings}");
        let folder = program.folder(&name)?;
        let mut killed = 0;
        let result = (|| -> Result<()> {
            // The last life of a training is left to it.
            while kills + killed < args.kills && killed < 8 {
                let threads = 1 + draw.below(2);
                let mut running = program.start(&folder, threads)?;
                let (moment, aimed) = (draw.below(1000) as f64 / 1000.0, draw.below(2) == 0);
                let over = if aimed {
                    wait_for_write(&mut running, &folder, draw.below(12), seconds)?
                } else {
                    wait_for(&mut running, Duration::from_secs_f64(0.7 * seconds * moment * moment))?
                };
                if over {
                    return running.wait()?.well();
                }
                running.kill()?;
                running.child.wait()?;
                killed += 1;
                within += u64::from(writes(&folder));
            }
            program.train(&folder, 1 + draw.below(2))?.well()
        })();
        kills += killed;
        let result = result.and_then(|()| ending.check(&folder)).with_context(|| format!("{killed} kills"));
        let good = result.is_ok();
        tally.count(&name, result)?;
        if good {
            program.folder(&name)?;
        } else if killed == 0 {
            break;
        }
    }
    let text = format!(
        "{kills} of trainings, {within} of them while a file was written; {} trainings came to the same bits",
        tally.passed()
    );
    Ok(Told { text, faults: tally.faults.len() as u64 })
}

/// Waits so long: whether it ended before.
fn wait_for(running: &mut Running, time: Duration) -> Result<bool> {
    while running.elapsed() < time {
        if running.is_over()? {
            return Ok(true);
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    running.is_over()
}

/// Waits for a file that is being written, after so many others: whether the training ended before.
fn wait_for_write(running: &mut Running, folder: &Path, after: usize, seconds: f64) -> Result<bool> {
    let (mut seen, mut writing) = (0, false);
    while running.elapsed().as_secs_f64() < 2.0 * seconds {
        let now = writes(folder);
        if now && !writing {
            seen += 1;
            if seen > after {
                return Ok(false);
            }
        }
        writing = now;
        if running.is_over()? {
            return Ok(true);
        }
        std::thread::sleep(Duration::from_micros(100));
    }
    running.is_over()
}

/// Whether there is a file that is not whole.
fn writes(folder: &Path) -> bool {
    let Ok(entries) = std::fs::read_dir(folder) else { return false };
    entries.flatten().any(|entry| entry.file_name().to_string_lossy().ends_with(".partial"))
}
