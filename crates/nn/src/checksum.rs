//! A CRC-32 in the metadata of a safetensors file, over all of the file but its own digits.

use std::borrow::Cow;
use std::collections::HashMap;

use crc32fast::Hasher;

use crate::Result;

/// The metadata entry of the checksum that [`crate::write_safetensors`] writes and [`crate::read_safetensors`] checks.
pub const CHECKSUM: &str = "binade.crc32";

/// What stands in place of the digits while the rest is added up.
const BLANK: &[u8; 8] = b"00000000";

/// Metadata with room for the checksum.
pub(crate) fn with_room(mut metadata: HashMap<String, String>) -> HashMap<String, String> {
    metadata.insert(CHECKSUM.into(), String::from_utf8_lossy(BLANK).into_owned());
    metadata
}

/// Fills in the checksum of a file whose header, with its length before it, was made with [`with_room`], and which has
/// these bytes after it.
pub(crate) fn seal<'a>(header: &mut [u8], rest: impl Iterator<Item = Result<Cow<'a, [u8]>>>) -> Result<()> {
    let Some(at) = position(header) else { return Ok(()) };
    let mut hasher = begun(header, at);
    for bytes in rest {
        hasher.update(&bytes?);
    }
    header[at..at + BLANK.len()].copy_from_slice(digits(hasher).as_bytes());
    Ok(())
}

/// What is wrong with a whole file that says it has a checksum.
pub(crate) fn verify(bytes: &[u8]) -> Result<(), String> {
    let Some(at) = position(bytes) else {
        return Err(format!("damaged: the metadata's {CHECKSUM} has not the form of one"));
    };
    let (written, found) = (&bytes[at..at + BLANK.len()], digits(begun(bytes, at)));
    // Text against text: a damaged digit may still be a digit, or the same one in capitals.
    if written == found.as_bytes() {
        return Ok(());
    }
    let written = String::from_utf8_lossy(written);
    Err(format!("damaged, or changed since it was written: its checksum is {written}, that of its contents {found}"))
}

/// Where the digits are. Quotes inside JSON texts are escaped, so that no name or text can be taken for the entry.
fn position(bytes: &[u8]) -> Option<usize> {
    let length = u64::from_le_bytes(*bytes.first_chunk()?);
    let header = bytes[8..].get(..usize::try_from(length).ok()?)?;
    let entry = format!("\"{CHECKSUM}\":\"");
    let at = header.windows(entry.len()).position(|window| window == entry.as_bytes())? + entry.len();
    (header.get(at + BLANK.len()) == Some(&b'"')).then_some(8 + at)
}

/// Of bytes whose checksum is at `at`.
fn begun(bytes: &[u8], at: usize) -> Hasher {
    let mut hasher = Hasher::new();
    hasher.update(&bytes[..at]);
    hasher.update(BLANK);
    hasher.update(&bytes[at + BLANK.len()..]);
    hasher
}

fn digits(hasher: Hasher) -> String {
    format!("{:08x}", hasher.finalize())
}
