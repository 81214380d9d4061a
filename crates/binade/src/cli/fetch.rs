//! [`fetch`]: a published file, by HTTP, to a folder: begun where an earlier try ended, and checked against its sum.

use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use indicatif::{ProgressBar, ProgressStyle};
use ring::digest::{Context as Hasher, SHA256};
use ureq::http::{StatusCode, header};
use ureq::{Agent, Body, http::Response};

use super::memory::Bytes;
use super::output::note;

/// A file that was published.
#[derive(Clone, Debug)]
pub struct Remote<'a> {
    /// Its name in the folder.
    pub name: &'a str,
    /// Where it lies, the first to be asked first.
    pub urls: Vec<String>,
    /// Its bytes.
    pub size: u64,
    /// Their SHA-256, in lower-case digits.
    pub sha256: &'a str,
}

/// When to give up.
#[derive(Clone, Debug)]
pub struct Patience {
    /// Tries in a row that bring nothing, over all places.
    pub tries: u32,
    /// How long a place may send nothing.
    pub silence: Duration,
    /// The wait before the second try, which doubles with each.
    pub pause: Duration,
}

impl Default for Patience {
    fn default() -> Patience {
        Patience { tries: 6, silence: Duration::from_secs(20), pause: Duration::from_secs(1) }
    }
}

/// Hears how far it is.
pub trait Progress {
    /// So many bytes of so many are there.
    fn at(&mut self, name: &str, bytes: u64, of: u64);
    /// Something went wrong that may yet be mended.
    fn trouble(&mut self, what: &str);
}

/// A bar on the terminal, if there is one, and lines of trouble on standard error.
pub struct Shown {
    bar: ProgressBar,
    quiet: bool,
}

impl Shown {
    /// Without a bar if `quiet`.
    pub fn new(quiet: bool) -> Shown {
        let bar = if quiet { ProgressBar::hidden() } else { ProgressBar::new(0) };
        let form = "{prefix} {bar:30} {binary_bytes}/{binary_total_bytes}  {binary_bytes_per_sec}  {eta} left";
        if let Ok(style) = ProgressStyle::with_template(form) {
            bar.set_style(style);
        }
        Shown { bar, quiet }
    }
}

impl Progress for Shown {
    fn at(&mut self, name: &str, bytes: u64, of: u64) {
        if self.bar.prefix() != name {
            self.bar.set_prefix(name.to_string());
            self.bar.set_length(of);
            self.bar.set_position(bytes);
            self.bar.reset_eta();
        }
        self.bar.set_position(bytes);
        if bytes == of {
            self.bar.finish_and_clear();
        }
    }

    fn trouble(&mut self, what: &str) {
        if !self.quiet {
            self.bar.suspend(|| note(what));
        }
    }
}

/// Why a try ended, and whether the place is worth another.
struct Ended {
    why: String,
    place_is_good: bool,
}

fn again(why: impl fmt::Display) -> Ended {
    Ended { why: why.to_string(), place_is_good: true }
}

fn never(why: impl fmt::Display) -> Ended {
    Ended { why: why.to_string(), place_is_good: false }
}

/// Puts the file into the folder, if it is not there, and gives its path. It has its name only when it is whole and its
/// sum is right; until then it is `.NAME.part`, with which the next try, or the next call, goes on.
///
/// # Errors
/// Another file of that name, or another process that fetches it; no place has it, which each says why; the disk.
pub fn fetch(remote: &Remote<'_>, to: &Path, patience: &Patience, progress: &mut dyn Progress) -> Result<PathBuf> {
    let (path, partial) = (to.join(remote.name), to.join(format!(".{}.part", remote.name)));
    if path.exists() {
        let found = sum(&mut File::open(&path).with_context(|| path.display().to_string())?)?;
        ensure!(
            found == remote.sha256,
            "{}: another file of that name; move it away, or choose another folder",
            path.display()
        );
        return Ok(path);
    }
    let options = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&partial);
    let mut file = options.with_context(|| partial.display().to_string())?;
    ensure!(file.try_lock().is_ok(), "{}: another process fetches it", partial.display());
    if path.exists() {
        // Another process was done meanwhile, and this is its file under its old name.
        return fetch(remote, to, patience, progress);
    }
    let agent: Agent = Agent::config_builder()
        .http_status_as_error(false)
        .timeout_connect(Some(patience.silence))
        .timeout_recv_response(Some(patience.silence))
        .timeout_per_read(Some(patience.silence))
        .user_agent(concat!("binade/", env!("CARGO_PKG_VERSION")))
        .build()
        .into();
    let mut places: Vec<&String> = remote.urls.iter().collect();
    let (mut told, mut vain, mut turn) = (Vec::new(), 0, 0);
    while !places.is_empty() && vain < patience.tries {
        if vain > 0 {
            std::thread::sleep(patience.pause * (1 << (vain - 1).min(5)));
        }
        let (at, before) = (turn % places.len(), length(&mut file)?);
        let ended = match receive(&agent, places[at], remote, &mut file, progress) {
            Ok(()) => match check(remote, &mut file)? {
                None => {
                    file.sync_all()?;
                    std::fs::rename(&partial, &path).with_context(|| path.display().to_string())?;
                    // The name is on the disk too, where folders can be synced.
                    let _ = File::open(to).and_then(|folder| folder.sync_all());
                    return Ok(path);
                }
                // What was here before may be at fault: the next try begins anew.
                Some(why) => Ended { why, place_is_good: before > 0 },
            },
            Err(Failed::Disk(error)) => return Err(error).with_context(|| partial.display().to_string()),
            Err(Failed::Place(ended)) => ended,
        };
        let brought = length(&mut file)?.saturating_sub(before);
        vain = if brought > 0 { 1 } else { vain + 1 };
        let why = format!("{}: {}", places[at], ended.why);
        progress.trouble(&why);
        if told.last() != Some(&why) {
            told.push(why);
        }
        if ended.place_is_good {
            turn += 1;
        } else {
            places.remove(at);
        }
    }
    bail!("{} was not fetched: {}", remote.name, told.join("; "))
}

/// Who is at fault that a try ended.
enum Failed {
    Disk(std::io::Error),
    Place(Ended),
}

impl From<std::io::Error> for Failed {
    fn from(error: std::io::Error) -> Failed {
        Failed::Disk(error)
    }
}

impl From<Ended> for Failed {
    fn from(ended: Ended) -> Failed {
        Failed::Place(ended)
    }
}

/// Adds what is missing at the end of the file.
fn receive(
    agent: &Agent,
    url: &str,
    remote: &Remote<'_>,
    file: &mut File,
    progress: &mut dyn Progress,
) -> Result<(), Failed> {
    let mut have = length(file)?;
    if have > remote.size {
        file.set_len(0)?;
        have = 0;
    }
    progress.at(remote.name, have, remote.size);
    if have == remote.size {
        return Ok(());
    }
    let mut request = agent.get(url);
    if have > 0 {
        request = request.header(header::RANGE, format!("bytes={have}-"));
    }
    let response = request.call().map_err(|error| match error {
        ureq::Error::BadUri(_) | ureq::Error::Http(_) => never(error),
        other => again(other),
    })?;
    let (begins, rest) = place(&response, have, remote.size)?;
    if begins == 0 && have > 0 {
        // This place sends all of it again.
        file.set_len(0)?;
        have = 0;
    }
    file.seek(SeekFrom::Start(have))?;
    let mut body = response.into_body().into_with_config().limit(u64::MAX).reader();
    let (mut block, mut left) = (vec![0; 64 << 10], rest);
    loop {
        let n = match body.read(&mut block) {
            Ok(0) if left == 0 => return Ok(()),
            Ok(0) => return Err(again(format!("it ended {left} bytes early")).into()),
            Ok(n) => n,
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            Err(error) => return Err(again(format!("after {have} bytes: {error}")).into()),
        };
        if n as u64 > left {
            return Err(never(format!("it sends more than {} bytes", remote.size)).into());
        }
        file.write_all(&block[..n])?;
        (left, have) = (left - n as u64, have + n as u64);
        progress.at(remote.name, have, remote.size);
    }
}

/// Where a response begins, and how much of the file follows.
fn place(response: &Response<Body>, have: u64, size: u64) -> Result<(u64, u64), Ended> {
    let text = |name| response.headers().get(name).and_then(|value| value.to_str().ok());
    let status = response.status();
    let (begins, total) = match status {
        StatusCode::OK => (0, text(header::CONTENT_LENGTH).and_then(|length| length.parse::<u64>().ok())),
        StatusCode::PARTIAL_CONTENT => {
            let range = text(header::CONTENT_RANGE).and_then(|range| range.strip_prefix("bytes "));
            let range = range.and_then(|range| range.split_once('/'));
            let begins = range.and_then(|(part, _)| part.split_once('-')?.0.parse::<u64>().ok());
            if begins != Some(have) {
                return Err(never(format!("asked for the bytes from {have} on, it sends others")));
            }
            (have, range.and_then(|(_, total)| total.parse().ok()))
        }
        _ if status.is_server_error() || [408, 425, 429].contains(&status.as_u16()) => return Err(again(status)),
        _ => return Err(never(status)),
    };
    match total {
        Some(total) if total != size => Err(never(format!("its file has {total} bytes, {size} were published"))),
        _ => Ok((begins, size - begins)),
    }
}

/// What is wrong with a file of the right length, which is emptied then.
fn check(remote: &Remote<'_>, file: &mut File) -> Result<Option<String>> {
    let found = sum(file)?;
    if found == remote.sha256 {
        return Ok(None);
    }
    file.set_len(0)?;
    Ok(Some(format!("its {} have the SHA-256 {found}, {} was published", Bytes(remote.size), remote.sha256)))
}

/// The SHA-256 of a file.
fn sum(file: &mut File) -> Result<String> {
    let (mut hasher, mut block) = (Hasher::new(&SHA256), vec![0; 1 << 20]);
    file.seek(SeekFrom::Start(0))?;
    loop {
        match file.read(&mut block)? {
            0 => return Ok(hasher.finish().as_ref().iter().map(|byte| format!("{byte:02x}")).collect()),
            n => hasher.update(&block[..n]),
        }
    }
}

fn length(file: &mut File) -> std::io::Result<u64> {
    file.metadata().map(|file| file.len())
}
