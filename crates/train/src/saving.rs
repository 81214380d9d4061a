//! [`Saver`]: checkpoints that are written while the training goes on.

use std::path::{Path, PathBuf};
use std::thread::JoinHandle;

use binade_nn::{Module, PackedFile, write_safetensors};
use binade_tensor::profile;

use crate::checkpoint::{self, Contents};
use crate::metrics::Lines;
use crate::progress::warn;
use crate::{Config, Error, Result};

/// Writes the checkpoints of a precision, one after the other. A step waits only for a copy of what is written, and not
/// at all for the disk; where there is no memory for the copy, a checkpoint is written between two steps.
pub(crate) struct Saver<'a> {
    config: &'a Config,
    folder: &'a Path,
    path: PathBuf,
    /// Weights of the best epoch, to be written before the checkpoint that knows of them.
    best: Option<PackedFile>,
    writing: Option<JoinHandle<Done>>,
    /// Of earlier copies: pages that are there cost nothing.
    memory: Vec<Vec<u8>>,
}

/// What a thread leaves: the memory of the copies that it wrote, and whether it could.
type Done = (Vec<Vec<u8>>, Result<()>);

impl<'a> Saver<'a> {
    pub(crate) fn new(config: &'a Config, folder: &'a Path) -> Saver<'a> {
        let path = checkpoint::path(folder, config.precision);
        Saver { config, folder, path, best: None, writing: None, memory: Vec::new() }
    }

    /// Takes the weights of the best epoch so far, which are written with the next checkpoint.
    pub(crate) fn weights(&mut self, model: &dyn Module) -> Result<()> {
        let _phase = profile::phase("checkpoint");
        self.wait()?;
        let weights = checkpoint::weights(self.folder, self.config.precision, model);
        self.best = self.packed(&weights);
        if self.best.is_none() { weights.write() } else { Ok(()) }
    }

    /// Saves what the metrics so far lead to, after the checkpoint before and the weights of the best epoch. With an
    /// epoch it is kept beside the newest, as the settings say.
    pub(crate) fn save(&mut self, contents: &Contents, metrics: Lines, epoch: Option<u64>) -> Result<()> {
        let _phase = profile::phase("checkpoint");
        self.wait()?;
        let (best, packed) = (self.best.take(), self.packed(contents));
        let (path, last) = (self.path.clone(), self.config.keep_last);
        let keep = move || epoch.map_or(Ok(()), |epoch| checkpoint::keep(&path, epoch, last));
        let Some(packed) = packed else {
            best.map_or(Ok(()), |best| best.write().1)?;
            metrics.sync()?;
            contents.write()?;
            return keep();
        };
        let job = move || {
            let mut memory = Vec::new();
            let result = (|| {
                if let Some(file) = best {
                    let (bytes, written) = file.write();
                    memory.push(bytes);
                    written?;
                }
                metrics.sync()?;
                let (bytes, written) = packed.write();
                memory.push(bytes);
                written?;
                keep()
            })();
            (memory, result)
        };
        let thread = std::thread::Builder::new().name("checkpoint".into()).spawn(job);
        self.writing = Some(thread.map_err(|e| Error::Config(format!("no thread for checkpoints: {e}")))?);
        Ok(())
    }

    /// Fails if what was begun has failed by now.
    pub(crate) fn check(&mut self) -> Result<()> {
        if self.writing.as_ref().is_some_and(JoinHandle::is_finished) { self.wait() } else { Ok(()) }
    }

    /// Waits until what was begun is on the disk.
    pub(crate) fn wait(&mut self) -> Result<()> {
        let Some(thread) = self.writing.take() else { return Ok(()) };
        let Ok((memory, result)) = thread.join() else {
            let message = "the thread that wrote it panicked".into();
            return Err(Error::Checkpoint { path: self.path.clone(), message });
        };
        self.memory.extend(memory);
        result
    }

    /// A copy, if there is memory for one.
    fn packed(&mut self, contents: &Contents) -> Option<PackedFile> {
        if self.config.save_between_steps {
            return None;
        }
        // The smallest that is large enough is that of the same file before.
        self.memory.sort_by_key(|memory| std::cmp::Reverse(memory.capacity()));
        let size: usize = contents.tensors.iter().map(|(_, array)| array.numel() * array.dtype().size()).sum();
        let at = self.memory.iter().rposition(|memory| memory.capacity() >= size);
        let memory = at.map_or_else(Vec::new, |at| self.memory.remove(at));
        PackedFile::new(&contents.path, &contents.tensors, contents.metadata.clone(), memory).ok()
    }
}

impl Contents {
    /// Writes it at once.
    fn write(&self) -> Result<()> {
        Ok(write_safetensors(&self.path, &self.tensors, self.metadata.clone())?)
    }
}

impl Drop for Saver<'_> {
    /// A run that ends with another error still ends after its last checkpoint.
    fn drop(&mut self) {
        if let Err(error) = self.wait() {
            warn(&format!("the last checkpoint was not written: {error}"));
        }
    }
}
