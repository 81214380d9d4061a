//! [`unpack`]: files out of an archive.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};

use crate::nn::replace_file;

/// Takes these files out of a `.tar.gz`, wherever in it they lie; nothing else is written.
///
/// # Errors
/// The archive is damaged, or lacks one of them in this size; the disk.
pub fn unpack(archive: &Path, members: &[(&str, u64)], to: &Path) -> Result<()> {
    let file = File::open(archive).with_context(|| archive.display().to_string())?;
    let mut tar = tar::Archive::new(flate2::read::GzDecoder::new(file));
    let mut left: Vec<&(&str, u64)> = members.iter().collect();
    for entry in tar.entries().with_context(|| archive.display().to_string())? {
        let mut entry = entry.with_context(|| archive.display().to_string())?;
        let name = entry.path().ok().and_then(|path| Some(path.file_name()?.to_string_lossy().into_owned()));
        let Some(at) = left.iter().position(|(wanted, _)| name.as_deref() == Some(wanted)) else { continue };
        let (name, size) = *left.swap_remove(at);
        let found = entry.size();
        ensure!(found == size, "{}: {name} has {found} bytes, {size} expected", archive.display());
        let path = to.join(name);
        replace_file(&path, |file| {
            let copied = std::io::copy(&mut entry.by_ref().take(size), file)?;
            if copied == size { Ok(()) } else { Err(std::io::ErrorKind::UnexpectedEof.into()) }
        })
        .with_context(|| path.display().to_string())?;
    }
    match left.first() {
        None => Ok(()),
        Some((name, _)) => bail!("{}: it has no {name}", archive.display()),
    }
}
