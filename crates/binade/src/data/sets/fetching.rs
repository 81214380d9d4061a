//! Fetching the files of a data set that are not there yet.

use std::collections::BTreeMap;

use anyhow::{Context, Result};
use binade::cli::archive::unpack;
use binade::cli::fetch::{Patience, Remote, Shown, fetch};
use binade::cli::memory::Bytes;
use binade::cli::output::line;
use serde_json::json;

use super::{Set, To, by_hand};

impl To {
    /// Fetches what is not there yet, and says where it is and how to train on it.
    pub fn fetch(&self, set: &Set) -> Result<()> {
        std::fs::create_dir_all(&self.to).with_context(|| self.to.display().to_string())?;
        let is_there = |(name, size): &(&str, u64)| {
            std::fs::metadata(self.to.join(name)).is_ok_and(|file| file.is_file() && file.len() == *size)
        };
        let patience = Patience { tries: self.tries, ..Patience::default() };
        let unpacked = !set.members.is_empty() && set.members.iter().all(is_there);
        for (name, size, sha256) in set.files.iter().filter(|_| !unpacked) {
            let from = self.mirror.iter().map(String::as_str).chain(set.from.iter().copied());
            let urls = from.map(|at| format!("{}/{name}", at.trim_end_matches('/'))).collect();
            let remote = Remote { name, urls, size: *size, sha256 };
            let path = fetch(&remote, &self.to, &patience, &mut Shown::new(self.json))
                .with_context(|| by_hand(set, &self.to))?;
            if !set.members.is_empty() {
                unpack(&path, set.members, &self.to)?;
                std::fs::remove_file(&path).with_context(|| path.display().to_string())?;
            }
        }
        let files: BTreeMap<&str, u64> = match set.members {
            [] => set.files.iter().map(|(name, size, _)| (*name, *size)).collect(),
            members => members.iter().copied().collect(),
        };
        let data = match (set.members, set.files) {
            ([], [(name, _, _)]) => self.to.join(name),
            _ => self.to.clone(),
        };
        let train = format!("binade {} {}", set.train, data.display());
        if self.json {
            let told = json!({ "data": set.name, "folder": self.to, "files": files, "train": train });
            return Ok(line(serde_json::to_string_pretty(&told)?)?);
        }
        for (name, size) in files {
            line(format_args!("{} ({})", self.to.join(name).display(), Bytes(size)))?;
        }
        Ok(line(format_args!("to train on it: {train}"))?)
    }
}
