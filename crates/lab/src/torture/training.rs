//! A short training with all that can be lost, and what it comes to.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use binade::nn::read_safetensors;
use binade::tensor::Class;
use binade::train::images::{Dataset, Source};
use binade::train::{Metrics, Precision, Recorded, write_png};

/// What takes longer hangs.
const PATIENCE: Duration = Duration::from_secs(120);

/// Averages, parts, augmentation, evaluations in between, several checkpoints, event files: every state there is.
const SETTINGS: &str = "train vision --dataset folder --epochs 3 --batch-size 16 --accumulate 2 --ema 0.9 --crop 1 \
                        --schedule cosine --warmup 2 --keep-last 2 --keep-best --evaluate-every 4 --tensorboard \
                        --quiet";

/// Images of the digits that are trained on, a tenth of them held out.
const IMAGES: usize = 160;

const DATA: &str = "images";

/// The program, and where its trainings run.
pub struct Program {
    path: PathBuf,
    root: PathBuf,
}

impl Program {
    /// With images to train on, so few that most of the time something begins, ends or is written.
    pub fn new(path: &Path, root: &Path) -> Result<Program> {
        let set = Dataset::Digits.open(&Source::default())?;
        for index in 0..IMAGES {
            let (Some(image), Some(class)) = (set.train.pixels(index), set.train.labels().get(index)) else { continue };
            let folder = root.join(DATA).join(class.to_string());
            std::fs::create_dir_all(&folder).with_context(|| folder.display().to_string())?;
            let path = folder.join(format!("{index}.png"));
            write_png(&path, image.width, image.channels, &image.bytes)?;
        }
        Ok(Program { path: path.into(), root: root.into() })
    }

    /// A folder for a run, without what was there.
    pub fn folder(&self, name: &str) -> Result<PathBuf> {
        let folder = self.root.join(name);
        if folder.exists() {
            std::fs::remove_dir_all(&folder).with_context(|| folder.display().to_string())?;
        }
        Ok(folder)
    }

    /// The program with these words, and nothing to print to.
    pub fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(&self.path);
        command.args(words);
        silenced(command)
    }

    /// As [`Program::command`], after a line of the shell, which may set limits.
    pub fn limited(&self, line: &str, words: &[&str]) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", &format!("{line}; exec \"$@\""), "sh"]).arg(&self.path).args(words);
        silenced(command)
    }

    /// The words that begin the training in a folder, or go on where it has begun.
    pub fn words(&self, folder: &Path, threads: usize) -> Vec<String> {
        let words = |line: &str| line.split_whitespace().map(String::from).collect::<Vec<_>>();
        let (mut all, target) = if folder.join("config.json").exists() {
            (words("train --quiet"), "--resume")
        } else {
            let data = ["--data".into(), self.root.join(DATA).display().to_string()];
            ([words(SETTINGS), data.into()].concat(), "--out")
        };
        all.extend([target.into(), folder.display().to_string(), "--threads".into(), threads.to_string()]);
        all
    }

    /// Starts the training, or goes on with it.
    pub fn start(&self, folder: &Path, threads: usize) -> Result<Running> {
        let words = self.words(folder, threads);
        Running::new(self.command(&words.iter().map(String::as_str).collect::<Vec<_>>()))
    }

    /// Trains to the end.
    pub fn train(&self, folder: &Path, threads: usize) -> Result<Outcome> {
        self.start(folder, threads)?.wait()
    }
}

fn silenced(mut command: Command) -> Command {
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    command
}

/// A program that runs.
pub struct Running {
    pub child: Child,
    began: Instant,
}

impl Running {
    pub fn new(mut command: Command) -> Result<Running> {
        let child = command.spawn().with_context(|| format!("cannot start {}", command.get_program().display()))?;
        Ok(Running { child, began: Instant::now() })
    }

    pub fn elapsed(&self) -> Duration {
        self.began.elapsed()
    }

    /// Whether it has ended.
    pub fn is_over(&mut self) -> Result<bool> {
        Ok(self.child.try_wait()?.is_some())
    }

    /// Sends a signal, of the names of `kill`.
    #[cfg(unix)]
    pub fn signal(&self, signal: nix::sys::signal::Signal) -> Result<()> {
        let pid = nix::unistd::Pid::from_raw(i32::try_from(self.child.id())?);
        nix::sys::signal::kill(pid, signal).with_context(|| format!("{signal}"))
    }

    pub fn kill(&mut self) -> Result<()> {
        self.child.kill().context("kill")
    }

    /// Waits for its end, and kills it where that does not come.
    pub fn wait(mut self) -> Result<Outcome> {
        while !self.is_over()? {
            if self.elapsed() > PATIENCE {
                self.kill()?;
                self.child.wait()?;
                bail!("it hangs: nothing after {} s", PATIENCE.as_secs());
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        let code = self.child.wait()?.code();
        let mut said = String::new();
        if let Some(mut pipe) = self.child.stderr.take() {
            let mut bytes = Vec::new();
            pipe.read_to_end(&mut bytes)?;
            said = String::from_utf8_lossy(&bytes).into_owned();
        }
        ensure!(!said.contains("panicked"), "it panicked: {said}");
        Ok(Outcome { code, said })
    }
}

/// How a program ended.
#[derive(Debug)]
pub struct Outcome {
    /// Nothing after a signal.
    pub code: Option<i32>,
    /// On standard error.
    pub said: String,
}

impl Outcome {
    /// Fails unless it ended well.
    pub fn well(&self) -> Result<()> {
        ensure!(self.code == Some(0), "exit code {:?}: {}", self.code, self.said.trim());
        Ok(())
    }

    /// Fails unless it ended with an error that has these words.
    pub fn refused(&self, words: &[&str]) -> Result<()> {
        ensure!(self.code == Some(1), "exit code {:?}, and not an error: {}", self.code, self.said.trim());
        let missing = words.iter().find(|word| !self.said.contains(**word));
        ensure!(missing.is_none(), "its error does not say {missing:?}: {}", self.said.trim());
        Ok(())
    }
}

/// All that a training comes to which must not depend on what it met on the way.
#[derive(PartialEq)]
pub struct Ending {
    /// Tensors of each checkpoint, and of the best weights, as bits.
    tensors: BTreeMap<String, Vec<u64>>,
    /// Numbers of all steps and evaluations; seconds are not among them.
    numbers: Vec<String>,
    /// Test losses and accuracies of the summary.
    results: Vec<String>,
}

impl Ending {
    pub fn of(run: &Path) -> Result<Ending> {
        let mut tensors = BTreeMap::new();
        for precision in Precision::ALL {
            for kind in ["checkpoint", "best"] {
                let file = format!("{kind}-{}.safetensors", precision.name());
                let path = run.join(&file);
                let (all, _) = read_safetensors(&path, Class::Workspace).with_context(|| path.display().to_string())?;
                for (name, array) in all {
                    let bits = array.to_f64_vec()?.into_iter().map(f64::to_bits).collect();
                    tensors.insert(format!("{file} {name}"), bits);
                }
            }
        }
        let recorded = Recorded::open(run)?;
        let numbers = recorded.metrics.iter().map(|record| match &record.metrics {
            Metrics::Epoch(e) => {
                let [train, test] = [e.train_loss, e.test_loss].map(f64::to_bits);
                format!("{} epoch {} {train:x} {test:x} {:?}", record.precision, e.epoch, e.test_accuracy)
            }
            other => format!("{} {other:?}", record.precision),
        });
        let results = recorded.summaries.iter().map(|s| {
            let skipped = (s.skipped_steps, s.loss_scale);
            format!("{} {:?} {:?} {:?} {skipped:?}", s.precision, s.test_loss, s.test_accuracy, s.answers)
        });
        let (mut numbers, results) = (numbers.collect::<Vec<_>>(), results.collect());
        // Precisions are trained in turn; each in the order of its steps.
        numbers.sort();
        Ok(Ending { tensors, numbers, results })
    }

    /// Fails unless a run has come to the same.
    pub fn check(&self, run: &Path) -> Result<()> {
        let found = Ending::of(run)?;
        let differs = self.tensors.iter().find(|(name, bits)| found.tensors.get(*name) != Some(bits));
        ensure!(differs.is_none(), "other bits in {}", differs.map_or("", |(name, _)| name));
        ensure!(found.tensors.len() == self.tensors.len(), "other tensors");
        let differs = self.numbers.iter().zip(&found.numbers).find(|(expected, found)| expected != found);
        ensure!(differs.is_none(), "other numbers: {differs:?}");
        ensure!(self.numbers.len() == found.numbers.len(), "{} lines, not {}", found.numbers.len(), self.numbers.len());
        ensure!(self.results == found.results, "other results: {:?}, not {:?}", found.results, self.results);
        for file in ["report.html", "summary.json", "numbers.json", "model.json"] {
            ensure!(run.join(file).exists(), "{file} is missing");
        }
        let left = files(run)?.into_iter().find(|path| path.to_string_lossy().contains(".partial"));
        ensure!(left.is_none(), "{left:?} was left");
        Ok(())
    }
}

/// All files below a folder, by their paths in it, in order.
pub fn files(folder: &Path) -> Result<Vec<PathBuf>> {
    let (mut found, mut open) = (Vec::new(), vec![folder.to_path_buf()]);
    while let Some(folder) = open.pop() {
        for entry in std::fs::read_dir(&folder).with_context(|| folder.display().to_string())? {
            let path = entry?.path();
            if path.is_dir() { open.push(path) } else { found.push(path) }
        }
    }
    found.sort();
    Ok(found)
}

/// Copies a folder; what were two names of one file are two files then.
pub fn copy(from: &Path, to: &Path) -> Result<()> {
    for path in files(from)? {
        let target = to.join(path.strip_prefix(from)?);
        target.parent().map_or(Ok(()), std::fs::create_dir_all)?;
        std::fs::copy(&path, &target).with_context(|| path.display().to_string())?;
    }
    Ok(())
}

/// The bytes of all files, to see whether something changed. The lock tells who held it last.
pub fn contents(folder: &Path) -> Result<BTreeMap<PathBuf, Vec<u8>>> {
    let files = files(folder)?.into_iter().filter(|path| !path.ends_with(".lock"));
    files.map(|path| Ok((path.clone(), std::fs::read(&path)?))).collect()
}
