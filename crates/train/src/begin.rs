//! The folder of a run when it begins, and when it is gone on with.

use std::path::{Path, PathBuf};

use binade_nn::remove_partial_files;

use crate::lock::Lock;
use crate::metrics::each_precision;
use crate::record::METRICS;
use crate::{Config, Error, Precision, Result, RunConfig, checkpoint};

/// A folder for a new run, which is this process's.
pub(crate) fn start(config: &RunConfig) -> Result<(PathBuf, Lock)> {
    let folder = match &config.out {
        Some(folder) => std::fs::create_dir_all(folder).map_err(Error::io(folder)).map(|()| folder.clone()),
        None => numbered(config),
    }?;
    let lock = Lock::acquire(&folder)?;
    if folder.join("config.json").exists() || Precision::ALL.iter().any(|&p| checkpoint::path(&folder, p).exists()) {
        return Err(Error::Config(format!(
            "{} already holds a run: continue it with --resume, or choose another --out",
            folder.display()
        )));
    }
    Ok((folder, lock))
}

/// Makes the folder with the next number.
fn numbered(config: &RunConfig) -> Result<PathBuf> {
    loop {
        let folder = config.folder()?;
        folder.parent().map_or(Ok(()), std::fs::create_dir_all).map_err(Error::io(&folder))?;
        match std::fs::create_dir(&folder) {
            // Another process has taken the number meanwhile.
            Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => {}
            made => return made.map_err(Error::io(&folder)).map(|()| folder),
        }
    }
}

/// Whether the run in the folder, and every checkpoint in it, is one of these settings and passes `check`.
pub(crate) fn check_resumed(folder: &Path, config: &RunConfig, check: &dyn Fn(&Config) -> Result<()>) -> Result<()> {
    config.check_resumed(folder)?;
    for &precision in &config.precisions {
        if checkpoint::path(folder, precision).exists() {
            check(&Config { precision, ..config.fit.clone() })?;
        }
        checkpoint::check_best(folder, precision)?;
    }
    let metrics = folder.join(METRICS);
    each_precision(&metrics, |precision| {
        if config.precisions.iter().any(|own| own.name() == precision) {
            return Ok(());
        }
        let message = format!("damaged, or of another run: a line is of {precision:?}, in which none is trained");
        Err(Error::Checkpoint { path: metrics.clone(), message })
    })
}

/// Removes what killed processes have left in the folder of a run and in those within it.
pub(crate) fn remove_partial_files_below(folder: &Path) -> Result<()> {
    remove_partial_files(folder).map_err(Error::io(folder))?;
    for entry in std::fs::read_dir(folder).map_err(Error::io(folder))? {
        let entry = entry.map_err(Error::io(folder))?;
        // A link may lead anywhere.
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove_partial_files_below(&entry.path())?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn leftovers_are_removed_in_folders_within_a_run_too() {
        let folder = tempfile::tempdir().unwrap();
        let inner = folder.path().join("fp32/unet");
        std::fs::create_dir_all(&inner).unwrap();
        for at in [folder.path(), &inner] {
            std::fs::write(at.join(".binade-x7Tq.partial"), "").unwrap();
            std::fs::write(at.join("kept"), "").unwrap();
        }
        remove_partial_files_below(folder.path()).unwrap();
        for at in [folder.path(), &inner] {
            assert!(at.join("kept").exists() && !at.join(".binade-x7Tq.partial").exists());
        }
    }
}
