//! [`Lock`]: a run folder belongs to one process at a time.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read, Write};
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use crate::{Error, Result};

/// The file whose lock is the folder's. It stays, empty while nobody trains: who removes a file may remove another's
/// lock.
const NAME: &str = ".lock";

/// A run folder while this process trains in it. The system ends the lock with the process, however that ends: what a
/// dead one has left in the file means nothing.
pub(crate) struct Lock {
    file: File,
}

/// Who trains, for those who may not.
#[derive(Serialize, Deserialize)]
struct Holder {
    pid: u32,
    host: String,
    /// Seconds since 1970.
    started: u64,
}

impl Lock {
    /// # Errors
    /// Another process, or another thread of this one, trains in the folder: who; the folder cannot be written.
    pub(crate) fn acquire(folder: &Path) -> Result<Lock> {
        let path = folder.join(NAME);
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path)
            .map_err(Error::io(&path))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(Error::InUse { folder: folder.into(), by: holder(&file) }),
            // Some file systems have no locks; a run there is as safe as its user makes it.
            Err(TryLockError::Error(e)) if e.kind() == std::io::ErrorKind::Unsupported => {}
            Err(TryLockError::Error(e)) => return Err(Error::io(&path)(e)),
        }
        let mut lock = Lock { file };
        // The lock holds without its holder's name, which is a courtesy to others.
        let _ = lock.sign();
        Ok(lock)
    }

    fn sign(&mut self) -> std::io::Result<()> {
        self.file.set_len(0)?;
        let holder = Holder { pid: std::process::id(), host: host(), started: now() };
        self.file.write_all(&serde_json::to_vec(&holder)?)
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        let _ = self.file.set_len(0);
    }
}

/// Whether a process trains in the folder now.
pub fn is_training(folder: &Path) -> bool {
    let Ok(mut file) = File::open(folder.join(NAME)) else { return false };
    // Who holds the lock has signed: an empty file needs no lock of ours, which would be in the way of theirs.
    let signed = file.read(&mut [0]).is_ok_and(|bytes| bytes > 0);
    signed && matches!(file.try_lock_shared(), Err(TryLockError::WouldBlock))
}

fn holder(mut file: &File) -> String {
    let mut text = String::new();
    let read = file.read_to_string(&mut text).ok().and_then(|_| serde_json::from_str(&text).ok());
    match read {
        Some(Holder { pid, host, started }) => {
            format!("process {pid} on {host} for {} s", now().saturating_sub(started))
        }
        None => "another process".into(),
    }
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

fn host() -> String {
    let named = |variable: &str| std::env::var(variable).ok();
    let kernel = std::fs::read_to_string("/proc/sys/kernel/hostname").ok();
    let name = kernel.or_else(|| named("HOSTNAME")).or_else(|| named("COMPUTERNAME"));
    name.map_or_else(|| "an unnamed host".into(), |name| name.trim().to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_is_locked_once_and_the_holder_named() {
        let folder = tempfile::tempdir().unwrap();
        let lock = Lock::acquire(folder.path()).unwrap();
        let error = Lock::acquire(folder.path()).err().unwrap().to_string();
        assert!(error.contains(&format!("process {} on {}", std::process::id(), host())), "{error}");
        assert!(is_training(folder.path()));
        drop(lock);
        assert!(!is_training(folder.path()));
        assert_eq!(std::fs::read(folder.path().join(NAME)).unwrap(), b"");
        Lock::acquire(folder.path()).unwrap();
    }

    #[test]
    fn what_a_dead_process_left_is_no_lock() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join(NAME), r#"{"pid":1,"host":"elsewhere","started":0} and more"#).unwrap();
        assert!(!is_training(folder.path()));
        let lock = Lock::acquire(folder.path()).unwrap();
        let error = Lock::acquire(folder.path()).err().unwrap().to_string();
        assert!(error.contains(&format!("process {} ", std::process::id())), "{error}");
        drop(lock);
    }
}
