//! How much memory a command may take, and the words for it.

use std::fmt;

use anyhow::{Context, Result};
use sysinfo::{MemoryRefreshKind, ProcessRefreshKind, ProcessesToUpdate, System};

/// Memory that this process may still take, and who says so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Room {
    /// How much.
    pub bytes: u64,
    /// The limit that comes first.
    pub limit: &'static str,
}

/// The least of what the machine has left, of what the process's control group may take, and of the address space
/// within `RLIMIT_AS`; `None` where the system tells none of them.
pub fn room() -> Option<Room> {
    let mut system = System::new().ok()?;
    system.refresh_memory_specifics(MemoryRefreshKind::nothing().with_ram());
    let machine = Some(system.available_memory()).filter(|bytes| *bytes > 0);
    let (mut group, mut space) = (None, None);
    if let Ok(own) = sysinfo::get_current_pid() {
        let what = ProcessRefreshKind::nothing().with_memory();
        system.refresh_processes_specifics(ProcessesToUpdate::Some(&[own]), false, what);
        if let Some(process) = system.process(own) {
            group = process.cgroup_limits().map(|limits| limits.free_memory);
            space = address_space().map(|limit| limit.saturating_sub(process.virtual_memory()));
        }
    }
    let all = [(machine, "the machine's memory"), (group, "the control group's limit"), (space, "RLIMIT_AS")];
    all.into_iter().filter_map(|(bytes, limit)| Some(Room { bytes: bytes?, limit })).min_by_key(|room| room.bytes)
}

/// The limit of this process's address space, if there is one.
#[cfg(unix)]
fn address_space() -> Option<u64> {
    use nix::sys::resource::{RLIM_INFINITY, Resource, getrlimit};
    getrlimit(Resource::RLIMIT_AS).ok().map(|(soft, _)| soft).filter(|soft| *soft != RLIM_INFINITY)
}

#[cfg(not(unix))]
fn address_space() -> Option<u64> {
    None
}

/// Limits this process's address space, and so all memory that it will ever have.
///
/// # Errors
/// The system refuses, or has no such limit.
pub fn limit_address_space(bytes: u64) -> Result<()> {
    #[cfg(unix)]
    let limited = nix::sys::resource::setrlimit(nix::sys::resource::Resource::RLIMIT_AS, bytes, bytes);
    #[cfg(not(unix))]
    let limited = Err(std::io::Error::from(std::io::ErrorKind::Unsupported));
    limited.with_context(|| format!("a limit of {} for this process", Bytes(bytes)))
}

/// A number of bytes in words: `1.50 GiB`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Bytes(pub u64);

/// The units, the largest first.
const UNITS: [(&str, u64); 5] = [("TiB", 1 << 40), ("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10), ("B", 1)];

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (unit, size) = UNITS.into_iter().find(|(_, size)| self.0 >= *size).unwrap_or(("B", 1));
        match self.0 as f64 / size as f64 {
            number if size == 1 || number >= 100.0 => write!(f, "{number:.0} {unit}"),
            number => write!(f, "{number:.0$} {unit}", if number >= 10.0 { 1 } else { 2 }),
        }
    }
}

impl Bytes {
    /// Reads `20GiB`, `512 MiB`, `1.5GB`, or a number of bytes.
    ///
    /// # Errors
    /// What it must look like.
    pub fn parse(text: &str) -> Result<Bytes, String> {
        let expected = || format!("{text:?} is no size; expected one like 20GiB, 20GB, 512MiB or a number of bytes");
        let at = text.find(|c: char| c.is_ascii_alphabetic()).unwrap_or(text.len());
        let (number, unit) = (text[..at].trim(), &text[at..]);
        let decimal = [("TB", 1e12), ("GB", 1e9), ("MB", 1e6), ("KB", 1e3), ("", 1.0)];
        let units = UNITS.into_iter().map(|(name, size)| (name, size as f64)).chain(decimal);
        let (_, size) = units.into_iter().find(|(name, _)| name.eq_ignore_ascii_case(unit)).ok_or_else(expected)?;
        let bytes = number.parse::<f64>().map_err(|_| expected())? * size;
        if (1.0..u64::MAX as f64).contains(&bytes) { Ok(Bytes(bytes as u64)) } else { Err(expected()) }
    }
}

#[cfg(test)]
mod tests {
    use super::{Bytes, room};

    #[test]
    fn sizes_are_read_as_they_are_written() {
        for (text, bytes) in [("20GiB", 20 << 30), ("512 MiB", 512 << 20), ("1.5gb", 1_500_000_000), ("4096", 4096)] {
            assert_eq!(Bytes::parse(text), Ok(Bytes(bytes)), "{text}");
        }
        for bytes in [1, 1023, 1024, 1536, 15 << 20, 200 << 30] {
            assert_eq!(Bytes::parse(&Bytes(bytes).to_string()), Ok(Bytes(bytes)), "{bytes}");
        }
        for text in ["", "GiB", "-1GiB", "0", "1e400", "NaN", "20 parsecs", "inf"] {
            assert!(Bytes::parse(text).unwrap_err().contains("20GiB"), "{text}");
        }
    }

    #[test]
    fn there_is_room_and_somebody_who_says_so() {
        let room = room().unwrap();
        assert!(room.bytes > 1 << 20 && !room.limit.is_empty(), "{room:?}");
    }
}
