//! What disks, systems and people do to trainings.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, bail, ensure};
use binade::cli::output::verdict_line;
use nix::sys::signal::Signal;

use super::training::{Ending, Program, Running, contents, copy, files};
use super::{Tally, Told};

/// What a case works with.
struct Case<'a> {
    program: &'a Program,
    ending: &'a Ending,
    /// Of a training that nobody disturbs.
    seconds: f64,
    folder: PathBuf,
}

type Try = fn(&Case<'_>) -> Result<()>;

const ALL: [(&str, Try); 10] = [
    ("full-disk", full_disk),
    ("read-only", read_only),
    ("clock-back", clock_back),
    ("two-at-once", two_at_once),
    ("another-model", another_model),
    ("hangup", |case| stopped_by(case, Signal::SIGHUP)),
    ("terminate", |case| stopped_by(case, Signal::SIGTERM)),
    ("interrupt", |case| stopped_by(case, Signal::SIGINT)),
    ("stop-and-continue", stop_and_continue),
    ("little-memory", little_memory),
];

pub fn run(program: &Program, ending: &Ending, seconds: f64) -> Result<Told> {
    let mut tally = Tally::default();
    for (name, case) in ALL {
        let folder = program.folder(name)?;
        let result = case(&Case { program, ending, seconds, folder });
        let good = result.is_ok();
        tally.count(name, result)?;
        if good {
            program.folder(name)?;
        }
    }
    Ok(Told { text: format!("{} ended as they must", tally.passed()), faults: tally.faults.len() as u64 })
}

impl Case<'_> {
    fn words(&self, folder: &Path) -> Vec<String> {
        self.program.words(folder, 2)
    }

    /// Goes on where it stands, to the end.
    fn ends_well(&self, folder: &Path) -> Result<()> {
        self.program.train(folder, 1)?.well()?;
        self.ending.check(folder)
    }

    /// Starts, and waits for a part of the time that it takes.
    fn begun(&self, part: f64) -> Result<Running> {
        let mut running = self.program.start(&self.folder, 2)?;
        while !self.folder.join("checkpoint-fp32.safetensors").exists()
            || running.elapsed() < Duration::from_secs_f64(part * self.seconds)
        {
            ensure!(!running.is_over()?, "it ended before it was disturbed");
            std::thread::sleep(Duration::from_millis(1));
        }
        Ok(running)
    }
}

fn strs(words: &[String]) -> Vec<&str> {
    words.iter().map(String::as_str).collect()
}

/// A mounted file system, until it is dropped.
struct Mounted<'a>(&'a Path);

impl<'a> Mounted<'a> {
    /// Nothing where this process may not mount.
    fn new(args: &[&str], at: &'a Path) -> Result<Option<Mounted<'a>>> {
        std::fs::create_dir_all(at)?;
        let mut mount = Command::new("mount");
        mount.args(args).arg(at).stdout(Stdio::null()).stderr(Stdio::null());
        Ok(mount.status().is_ok_and(|status| status.success()).then_some(Mounted(at)))
    }
}

impl Drop for Mounted<'_> {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(self.0).status();
    }
}

/// A disk that is full within the first checkpoints, and has room again later; files that may not grow beyond a size,
/// where no disk may be mounted.
fn full_disk(case: &Case<'_>) -> Result<()> {
    let here = case.folder.join("run");
    // Room for less than two checkpoints.
    let mounted = Mounted::new(&["-t", "tmpfs", "-o", "size=1m", "tmpfs"], &case.folder)?;
    let outcome = match &mounted {
        Some(_) => case.program.train(&here, 2)?,
        None => {
            verdict_line("full-disk: no disk may be mounted here; files have a largest size instead")?;
            std::fs::create_dir_all(&case.folder)?;
            let words = case.words(&here);
            Running::new(case.program.limited("trap '' XFSZ; ulimit -f 400", &strs(&words)))?.wait()?
        }
    };
    let word = if mounted.is_some() { "No space left" } else { "File too large" };
    outcome.refused(&[word, &here.display().to_string()])?;
    // What is there is whole: it goes on where there is room.
    let room = case.folder.with_file_name("full-disk-with-room");
    if room.exists() {
        std::fs::remove_dir_all(&room)?;
    }
    copy(&here, &room)?;
    drop(mounted);
    case.ends_well(&room)?;
    Ok(std::fs::remove_dir_all(&room)?)
}

/// A folder that cannot be written to, for a new run and for one that goes on.
fn read_only(case: &Case<'_>) -> Result<()> {
    let run = case.folder.join("run");
    let mut running = Case { folder: run.clone(), ..*case }.begun(0.3)?;
    running.kill()?;
    running.child.wait()?;
    let words = [case.words(&run), case.words(&case.folder.join("new"))];
    let tried = |word: &str| -> Result<()> {
        for words in &words {
            Running::new(case.program.command(&strs(words)))?
                .wait()?
                .refused(&[word, &run.parent().map_or_else(String::new, |p| p.display().to_string())])?;
        }
        Ok(())
    };
    let before = contents(&run)?;
    match Mounted::new(&["--bind", &case.folder.display().to_string()], &case.folder)? {
        Some(mounted) => {
            let again = Command::new("mount").args(["-o", "remount,bind,ro"]).arg(&case.folder).status()?;
            ensure!(again.success(), "mount -o remount,bind,ro {}", case.folder.display());
            tried("Read-only file system")?;
            drop(mounted);
        }
        None => {
            permit(&case.folder, 0o555)?;
            permit(&run, 0o555)?;
            let result = tried("Permission denied");
            permit(&case.folder, 0o755)?;
            permit(&run, 0o755)?;
            result?;
        }
    }
    ensure!(contents(&run)? == before, "something was changed");
    case.ends_well(&run)
}

fn permit(folder: &Path, mode: u32) -> Result<()> {
    use std::os::unix::fs::PermissionsExt;
    Ok(std::fs::set_permissions(folder, PermissionsExt::from_mode(mode))?)
}

/// All files are from tomorrow, as those of a run are whose clock was put back; those whose names have times, too.
fn clock_back(case: &Case<'_>) -> Result<()> {
    let mut running = case.begun(0.4)?;
    running.kill()?;
    running.child.wait()?;
    let tomorrow = SystemTime::now() + Duration::from_secs(86_400);
    let mut renamed = Vec::new();
    for path in files(&case.folder)? {
        std::fs::File::options().write(true).open(&path)?.set_modified(tomorrow)?;
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if let Some(rest) = name.strip_prefix("events.out.tfevents.") {
            let seconds: u64 =
                rest.split('.').next().unwrap_or_default().parse().context("the time of an event file")?;
            let later = rest.replacen(&seconds.to_string(), &(seconds + 86_400).to_string(), 1);
            let later = path.with_file_name(format!("events.out.tfevents.{later}"));
            std::fs::rename(&path, &later)?;
            renamed.push(later);
        }
    }
    ensure!(!renamed.is_empty(), "no event files");
    case.ends_well(&case.folder)?;
    for path in renamed {
        let siblings = files(path.parent().unwrap_or(&path))?;
        let resumed = siblings.len() > 1;
        ensure!(!resumed || siblings.last() != Some(&path), "{}: a later file comes before it", path.display());
    }
    Ok(())
}

/// Two trainings in one folder: the second hears who trains there, and the first notices nothing.
fn two_at_once(case: &Case<'_>) -> Result<()> {
    let running = case.begun(0.1)?;
    let holder = format!("in use by process {}", running.child.id());
    let second = case.program.train(&case.folder, 1)?;
    second.refused(&[&holder, "one process at a time"])?;
    running.wait()?.well()?;
    case.ending.check(&case.folder)
}

/// A checkpoint of another model in the place of the run's own.
fn another_model(case: &Case<'_>) -> Result<()> {
    let mut running = case.begun(0.3)?;
    running.kill()?;
    running.child.wait()?;
    let other = case.folder.with_file_name("another-model-other");
    let line = "train gpt --n-layer 1 --n-head 1 --n-embd 16 --block-size 16 --max-iters 2 --eval-interval 2 \
                --eval-iters 1 --precision fp32 --quiet --out";
    let mut words: Vec<String> = line.split_whitespace().map(String::from).collect();
    words.push(other.display().to_string());
    Running::new(case.program.command(&strs(&words)))?.wait()?.well()?;
    let name = "checkpoint-fp32.safetensors";
    let (own, kept) = (case.folder.join(name), case.folder.join("kept"));
    std::fs::rename(&own, &kept)?;
    std::fs::copy(other.join(name), &own)?;
    let before = contents(&case.folder)?;
    case.program.train(&case.folder, 2)?.refused(&[name])?;
    ensure!(contents(&case.folder)? == before, "something was changed");
    std::fs::rename(&kept, &own)?;
    std::fs::remove_dir_all(&other)?;
    case.ends_well(&case.folder)
}

/// A signal ends a run after its step, with a checkpoint.
fn stopped_by(case: &Case<'_>, signal: Signal) -> Result<()> {
    let running = case.begun(0.4)?;
    running.signal(signal)?;
    let outcome = running.wait()?;
    ensure!(outcome.code == Some(130), "exit code {:?}: {}", outcome.code, outcome.said.trim());
    let resume = format!("continue with --resume {}", case.folder.display());
    ensure!(outcome.said.contains(&resume), "it does not say how to go on: {}", outcome.said.trim());
    case.ends_well(&case.folder)
}

/// A stopped process holds its folder, and goes on when it is told to.
fn stop_and_continue(case: &Case<'_>) -> Result<()> {
    let running = case.begun(0.2)?;
    running.signal(Signal::SIGSTOP)?;
    std::thread::sleep(Duration::from_millis(300));
    let second = case.program.train(&case.folder, 1)?;
    running.signal(Signal::SIGCONT)?;
    second.refused(&["in use by process"])?;
    running.wait()?.well()?;
    case.ending.check(&case.folder)
}

/// Address space of 512 MiB: it works, or says what it needs.
fn little_memory(case: &Case<'_>) -> Result<()> {
    let words = case.words(&case.folder);
    let outcome = Running::new(case.program.limited("ulimit -v 524288", &strs(&words)))?.wait()?;
    match outcome.code {
        Some(0) => case.ending.check(&case.folder),
        Some(1) if outcome.said.contains("memory") => Ok(()),
        code => bail!("exit code {code:?}: {}", outcome.said.trim()),
    }
}
