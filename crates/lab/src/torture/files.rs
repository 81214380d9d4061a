//! Files of a training that was cut off, torn and with flipped bits: it goes on to the same bits, or names the file and
//! changes nothing.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};

use super::training::{Ending, Outcome, Program, contents, copy, files};
use super::{Args, Tally, Told};
use crate::fuzz_files::Draw;

pub fn run(program: &Program, ending: &Ending, args: &Args) -> Result<Told> {
    let cut_off = program.folder("cut-off")?;
    cut_off_in_the_second_precision(program, &cut_off)?;
    let all: Vec<PathBuf> = files(&cut_off)?.into_iter().filter(|path| !path.ends_with(".lock")).collect();
    let (mut draw, mut tally, mut refused) = (Draw::new(args.seed, 1), Tally::default(), 0);
    for number in 0..args.files {
        let path = all[draw.below(all.len())].strip_prefix(&cut_off)?;
        let folder = program.folder(&format!("damaged-{number}"))?;
        copy(&cut_off, &folder)?;
        let how = damage(&folder.join(path), &mut draw)?;
        let name = format!("damaged-{number}: {} {how}", path.display());
        let outcome = (|| -> Result<bool> {
            let before = contents(&folder)?;
            let outcome = program.train(&folder, 2)?;
            if outcome.code == Some(0) {
                ending.check(&folder).with_context(|| format!("it went on, and said {:?}", outcome.said))?;
                return Ok(false);
            }
            clear(&outcome, path)?;
            ensure!(contents(&folder)? == before, "it was refused, and something was changed");
            Ok(true)
        })();
        refused += u64::from(*outcome.as_ref().unwrap_or(&false));
        let good = outcome.is_ok();
        tally.count(&name, outcome.map(drop))?;
        if good {
            std::fs::remove_dir_all(&folder)?;
        }
    }
    let went_on = tally.tried - refused - tally.faults.len() as u64;
    let text =
        format!("{} torn or flipped: {went_on} went on to the same bits, {refused} were refused", tally.passed());
    Ok(Told { text, faults: tally.faults.len() as u64 })
}

/// Trains until the second precision has a checkpoint of its second epoch, and ends it there.
fn cut_off_in_the_second_precision(program: &Program, folder: &Path) -> Result<()> {
    let mut running = program.start(folder, 2)?;
    while !folder.join("checkpoint-fp16.epoch-2.safetensors").exists() {
        ensure!(!running.is_over()?, "it ended before it was cut off");
        std::thread::sleep(std::time::Duration::from_millis(1));
    }
    running.kill()?;
    running.child.wait()?;
    Ok(())
}

/// Tears a file, or flips a bit of it, where it lies: another name of it is damaged too.
fn damage(path: &Path, draw: &mut Draw) -> Result<String> {
    let mut bytes = std::fs::read(path).with_context(|| path.display().to_string())?;
    let at = draw.below(bytes.len());
    let how = if draw.below(2) == 0 {
        bytes.truncate(at);
        format!("torn after {at} bytes")
    } else {
        let bit = draw.below(8);
        bytes.iter_mut().skip(at).take(1).for_each(|byte| *byte ^= 1 << bit);
        format!("with bit {bit} of byte {at} flipped")
    };
    std::fs::write(path, bytes)?;
    Ok(how)
}

/// Fails unless the error names the file.
fn clear(outcome: &Outcome, path: &Path) -> Result<()> {
    let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    outcome.refused(&[&name])
}
