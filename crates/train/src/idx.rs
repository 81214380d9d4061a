//! [`Idx`]: a file in the layout of MNIST's. What its header says is checked against its size before memory is taken
//! for it.

use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

use flate2::bufread::MultiGzDecoder;

use crate::images::MOST;
use crate::{Error, Result};

/// Deflate packs at most so many bytes into one: two bits stand for a run of 258.
const DENSEST: u64 = 1032;

/// An idx file of unsigned bytes, plain or `.gz` of one or more members, of which the header is read and the contents
/// are not.
pub(crate) struct Idx {
    pub(crate) path: PathBuf,
    pub(crate) extents: Vec<usize>,
    bytes: u64,
    rest: Box<dyn Read>,
}

impl Idx {
    /// # Errors
    /// No such file, or not an idx file of so many dimensions; a header for more than there can be in the file, or for
    /// more than 1 GiB.
    pub(crate) fn open(folder: &Path, stem: &str, dims: u8) -> Result<Idx> {
        let names = ["-idx", ".idx"].map(|s| format!("{stem}{s}{dims}-ubyte"));
        let mut candidates = names.iter().flat_map(|n| [folder.join(n), folder.join(format!("{n}.gz"))]);
        let Some(path) = candidates.find(|p| p.exists()) else {
            let (expected, found) = (format!("{} (or .gz)", names[0]), "no such file".into());
            return Err(Error::Data { path: folder.into(), expected, found });
        };
        let bad = |expected: String, found: String| Err(Error::Data { path: path.clone(), expected, found });
        let file = File::open(&path).map_err(Error::io(&path))?;
        let size = file.metadata().map_err(Error::io(&path))?.len();
        let mut file = BufReader::new(file);
        let packed = file.fill_buf().map_err(Error::io(&path))?.starts_with(&[0x1f, 0x8b]);
        let mut rest: Box<dyn Read> = if packed { Box::new(MultiGzDecoder::new(file)) } else { Box::new(file) };
        let mut header = Vec::new();
        let length = 4 + 4 * dims as usize;
        (&mut rest).take(length as u64).read_to_end(&mut header).map_err(Error::io(&path))?;
        if header.len() < length || header[..4] != [0, 0, 8, dims] {
            let expected = format!("an idx file of unsigned bytes in {dims} dimensions (00 00 08 0{dims})");
            return bad(expected, format!("{size} bytes beginning {:02x?}", &header[..header.len().min(4)]));
        }
        let extent = |e: &[u8]| e.iter().fold(0u32, |n, &byte| n << 8 | byte as u32);
        let extents: Vec<u32> = header[4..].chunks(4).map(extent).collect();
        let shape = extents.iter().map(u32::to_string).collect::<Vec<_>>().join("×");
        let bytes = extents.iter().try_fold(1u64, |n, &e| n.checked_mul(e as u64)).filter(|n| *n <= MOST);
        let Some(bytes) = bytes else { return bad("at most 1 GiB".into(), format!("a header for {shape} bytes")) };
        if packed && bytes > size.saturating_mul(DENSEST) {
            return bad(format!("at most {DENSEST} times its {size} bytes"), format!("a header for {shape} bytes"));
        }
        if !packed && size != length as u64 + bytes {
            return bad(format!("{bytes} bytes after its header"), (size - length as u64).to_string());
        }
        Ok(Idx { path, extents: extents.iter().map(|&e| e as usize).collect(), bytes, rest })
    }

    /// The contents.
    ///
    /// # Errors
    /// More or less than the header says; a packed file that is damaged.
    pub(crate) fn read(self) -> Result<Vec<u8>> {
        let mut contents = Vec::new();
        let memory = contents.try_reserve_exact(self.bytes as usize + 1);
        memory.map_err(|_| Error::io(&self.path)(std::io::ErrorKind::OutOfMemory.into()))?;
        // One more than there should be, so that what is too long is found without being unpacked.
        self.rest.take(self.bytes + 1).read_to_end(&mut contents).map_err(Error::io(&self.path))?;
        let found = match contents.len() as u64 {
            n if n == self.bytes => return Ok(contents),
            n if n < self.bytes => n.to_string(),
            _ => "more".into(),
        };
        Err(Error::Data { path: self.path, expected: format!("{} bytes after its header", self.bytes), found })
    }
}
