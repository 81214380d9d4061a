//! [`Mapped`]: a file in the address space, which takes no memory that other programs could not have.

use std::fs::File;
use std::path::{Path, PathBuf};

use memmap2::Mmap;

use crate::{Error, Result};

/// A mapped file. Who cuts it short while it is read ends the process, as with any mapped file: writers of weights
/// replace files as a whole.
#[derive(Debug)]
pub(crate) struct Mapped {
    pub(crate) path: PathBuf,
    map: Mmap,
}

/// The forms of files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    Safetensors,
    /// What `torch.save` writes since 1.6.
    Zip,
    /// What it wrote before: pickles in a row, and then the numbers.
    Legacy,
}

impl Mapped {
    pub(crate) fn open(path: &Path) -> Result<Mapped> {
        let file = File::open(path).map_err(Error::io(path))?;
        let about = file.metadata().map_err(Error::io(path))?;
        if !about.is_file() || about.len() == 0 {
            return Err(Error::format(path, if about.is_file() { "the file is empty" } else { "no file" }));
        }
        // SAFETY: the bytes are only read; that they may change under a reader is said above, and every value of them
        // is valid.
        let map = unsafe { Mmap::map(&file) }.map_err(Error::io(path))?;
        Ok(Mapped { path: path.into(), map })
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        &self.map
    }

    /// What the file is, by its first bytes.
    pub(crate) fn form(&self) -> Result<Form> {
        let bytes = self.bytes();
        if bytes.starts_with(b"PK\x03\x04") || bytes.starts_with(b"PK\x05\x06") {
            return Ok(Form::Zip);
        }
        if bytes.starts_with(&[0x80])
            && bytes.get(1).is_some_and(|version| (2..=5).contains(version))
            && bytes.get(8) != Some(&b'{')
        {
            return Ok(Form::Legacy);
        }
        if bytes.len() >= 8 && (bytes.len() == 8 || bytes[8] == b'{') {
            return Ok(Form::Safetensors);
        }
        Err(Error::format(&self.path, "neither safetensors nor a file of torch.save: its first bytes are of neither"))
    }
}
