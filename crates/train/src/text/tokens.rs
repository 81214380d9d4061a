//! [`Tokens`]: the tokens of a text, in memory or in a file of nanoGPT or llm.c.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use crc32fast::Hasher;

use crate::{Error, Result};

/// Tokens of a text.
#[derive(Debug)]
pub(super) enum Tokens {
    Memory(Vec<u32>),
    File(TokenFile),
}

/// A file of tokens as little-endian numbers of 2 or 4 bytes. It may be larger than memory.
#[derive(Debug)]
pub(super) struct TokenFile {
    path: PathBuf,
    file: Mutex<File>,
    /// Where they begin.
    start: u64,
    /// Bytes of one.
    width: usize,
    len: usize,
}

/// llm.c's files begin with 256 numbers of 32 bits: this or that, a version, how many tokens there are.
const MAGIC: [u32; 2] = [20_240_520, 20_240_801];
const HEADER: u64 = 1024;
/// Tokens that are read at a time where all are.
const CHUNK: usize = 1 << 16;

impl Tokens {
    pub(super) fn len(&self) -> usize {
        match self {
            Tokens::Memory(tokens) => tokens.len(),
            Tokens::File(file) => file.len,
        }
    }

    /// The tokens of a range within the length.
    pub(super) fn read(&self, range: Range<usize>) -> Result<Vec<u32>> {
        match self {
            Tokens::Memory(tokens) => Ok(tokens[range].to_vec()),
            Tokens::File(file) => file.read(range).map_err(Error::io(&file.path)),
        }
    }

    /// A checksum over all.
    ///
    /// # Errors
    /// A token that a vocabulary of so many does not have, with its place; the file cannot be read.
    pub(super) fn check(&self, path: &Path, vocabulary: usize) -> Result<u32> {
        let mut hasher = Hasher::new();
        for start in (0..self.len()).step_by(CHUNK) {
            let tokens = self.read(start..self.len().min(start + CHUNK))?;
            if let Some(at) = tokens.iter().position(|&token| token as usize >= vocabulary) {
                return Err(Error::Data {
                    path: path.into(),
                    expected: format!("tokens below {vocabulary}, the size of the vocabulary"),
                    found: format!("{} at place {}", tokens[at], start + at),
                });
            }
            let bytes: Vec<u8> = tokens.iter().flat_map(|token| token.to_le_bytes()).collect();
            hasher.update(&bytes);
        }
        Ok(hasher.finalize())
    }
}

impl TokenFile {
    /// nanoGPT's, which is nothing but tokens of 16 bits, or llm.c's with a header and 16 or 32 bits.
    pub(super) fn open(path: &Path) -> Result<TokenFile> {
        let bad = |expected: &str, found: String| Error::Data { path: path.into(), expected: expected.into(), found };
        let mut file = File::open(path).map_err(Error::io(path))?;
        let bytes = file.metadata().map_err(Error::io(path))?.len();
        let mut head = [0; 12];
        if bytes >= HEADER {
            file.read_exact(&mut head).map_err(Error::io(path))?;
        }
        let [magic, _, count] = std::array::from_fn(|i| {
            u32::from_le_bytes([head[4 * i], head[4 * i + 1], head[4 * i + 2], head[4 * i + 3]])
        });
        let (start, width, len) = if MAGIC.contains(&magic) {
            let (rest, count) = (bytes - HEADER, u64::from(count));
            let width = [2, 4].into_iter().find(|width| rest == width * count);
            let said = format!("{count} tokens of 2 or 4 bytes, as its header says");
            (HEADER, width.ok_or_else(|| bad(&said, format!("{rest} bytes")))?, count)
        } else {
            let whole = bytes.is_multiple_of(2);
            (0, 2, whole.then_some(bytes / 2).ok_or_else(|| bad("tokens of 2 bytes", format!("{bytes} bytes")))?)
        };
        if len == 0 {
            return Err(bad("tokens", "none".into()));
        }
        Ok(TokenFile { path: path.into(), file: Mutex::new(file), start, width: width as usize, len: len as usize })
    }

    fn read(&self, range: Range<usize>) -> std::io::Result<Vec<u32>> {
        let mut bytes = vec![0; range.len() * self.width];
        // A reader that panicked left nothing half done: every read seeks first.
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        file.seek(SeekFrom::Start(self.start + (range.start * self.width) as u64))?;
        file.read_exact(&mut bytes)?;
        let number = |b: &[u8]| b.iter().rev().fold(0, |number, byte| number << 8 | u32::from(*byte));
        Ok(bytes.chunks_exact(self.width).map(number).collect())
    }
}
