//! The zip form: the pickle and each storage are members, stored as they are.

use std::io::{Cursor, Read as _};
use std::ops::Range;

use zip::{CompressionMethod, ZipArchive};

use super::{Storages, entries, read};
use crate::entry::Entry;
use crate::file::Mapped;
use crate::{Error, Result};

/// The tensors of an archive.
pub(crate) fn zip(file: &Mapped, at: usize) -> Result<Vec<Entry>> {
    let fail = |message: String| Error::format(&file.path, message);
    let damaged = |error: zip::result::ZipError| fail(format!("no whole zip archive: {error}"));
    let bytes = file.bytes();
    let mut archive = ZipArchive::new(Cursor::new(bytes)).map_err(damaged)?;
    let (mut pickle, mut storages, mut ranges) = (None, Storages::new(), Vec::new());
    for i in 0..archive.len() {
        let mut member = archive.by_index_raw(i).map_err(damaged)?;
        let name = member.name().map_err(damaged)?.into_owned();
        let (size, start) = (member.size(), member.data_start());
        if member.compression() != CompressionMethod::Stored || member.compressed_size() != size || member.encrypted() {
            return Err(fail(format!("{name} is compressed or encrypted, which PyTorch never does")));
        }
        let start = start.ok_or_else(|| fail(format!("{name} has no data")))?;
        let range = range(start, size, bytes.len())
            .ok_or_else(|| fail(format!("{name} claims {size} bytes, which reach past the end of the file")))?;
        ranges.push((range.start, range.end, name.clone()));
        // Below the archive's own folder, whatever its name.
        match name.split_once('/').map_or(name.as_str(), |(_, within)| within) {
            "data.pkl" if pickle.is_some() => return Err(fail("two pickles".into())),
            "data.pkl" => pickle = Some(range),
            "byteorder" => {
                let mut order = String::new();
                member.by_ref().take(16).read_to_string(&mut order).map_err(Error::io(&file.path))?;
                if order.trim() != "little" {
                    return Err(fail(format!("byte order {order:?}: only little-endian files are read")));
                }
            }
            within => {
                let key = within.strip_prefix("data/").map(str::to_string);
                if let Some(key) = key
                    && storages.insert(key, range).is_some()
                {
                    return Err(fail(format!("{name} is twice in the archive")));
                }
            }
        }
    }
    ranges.sort();
    if let Some(pair) = ranges.windows(2).find(|pair| pair[0].1 > pair[1].0) {
        return Err(fail(format!("{} and {} overlap", pair[0].2, pair[1].2)));
    }
    let pickle = pickle.ok_or_else(|| fail("a zip archive without data.pkl: not of torch.save".into()))?;
    entries(file, at, &read(file, &bytes[pickle])?, &storages)
}

fn range(start: u64, size: u64, end: usize) -> Option<Range<usize>> {
    let (start, size) = (usize::try_from(start).ok()?, usize::try_from(size).ok()?);
    let stop = start.checked_add(size).filter(|stop| *stop <= end)?;
    Some(start..stop)
}
