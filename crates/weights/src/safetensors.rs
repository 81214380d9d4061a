//! The header of a safetensors file, of which every claim is checked before anything is read.

use std::collections::{BTreeMap, HashSet};
use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, Visitor};

use crate::FileDType;
use crate::entry::{Entry, elements};

/// Bytes of the largest header: that of the format's own library.
const LARGEST: u64 = 100_000_000;

/// What a header says of a tensor.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Claim {
    dtype: String,
    shape: Vec<usize>,
    data_offsets: (usize, usize),
}

#[derive(Default)]
struct Header {
    metadata: BTreeMap<String, String>,
    /// In order of the file, with names that stand there more than once.
    tensors: Vec<(String, Claim)>,
}

impl<'de> Deserialize<'de> for Header {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Header, D::Error> {
        struct Entries;
        impl<'de> Visitor<'de> for Entries {
            type Value = Header;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object of tensors")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Header, A::Error> {
                let mut header = Header::default();
                while let Some(name) = map.next_key::<String>()? {
                    if name == "__metadata__" {
                        header.metadata = map.next_value()?;
                    } else {
                        header.tensors.push((name, map.next_value()?));
                    }
                }
                Ok(header)
            }
        }
        deserializer.deserialize_map(Entries)
    }
}

/// Tensors and metadata of a file's bytes.
///
/// # Errors
/// What is wrong, in words: a header that is too long or does not parse; a tensor twice; ranges that do not fit the
/// shape, overlap, leave gaps or reach past the end; bytes that belong to no tensor.
pub(crate) fn read(bytes: &[u8], file: usize) -> Result<(Vec<Entry>, BTreeMap<String, String>), String> {
    let length = bytes.first_chunk().map(|length| u64::from_le_bytes(*length)).ok_or("shorter than a header")?;
    if length > LARGEST {
        return Err(format!("its header claims {length} bytes, and {LARGEST} is the most"));
    }
    let length = length as usize;
    let text = bytes[8..].get(..length);
    let text = text.ok_or_else(|| format!("truncated: a header of {length} bytes in a file of {}", bytes.len()))?;
    let header: Header = serde_json::from_slice(text).map_err(|e| format!("its header does not parse: {e}"))?;
    let mut seen = HashSet::new();
    let twice: Vec<&str> =
        header.tensors.iter().filter(|(name, _)| !seen.insert(name)).map(|(name, _)| name.as_str()).collect();
    if !twice.is_empty() {
        return Err(format!("twice in the header: {}", twice.join(", ")));
    }
    let start = 8 + length;
    let room = bytes.len() - start;
    let mut entries = Vec::with_capacity(header.tensors.len());
    let mut ranges = Vec::with_capacity(header.tensors.len());
    for (name, claim) in header.tensors {
        let (begin, end) = claim.data_offsets;
        if begin > end || end > room {
            let what = if begin > end { "backwards" } else { "beyond the file's end (truncated?)" };
            return Err(format!("{name} lies {what}: bytes {begin} to {end} of {room}"));
        }
        let dtype = FileDType::named(&claim.dtype);
        let needed = elements(&claim.shape).and_then(|n| dtype.size().map_or(Some(end - begin), |s| n.checked_mul(s)));
        if needed != Some(end - begin) {
            let (shape, found) = (&claim.shape, end - begin);
            return Err(format!("{name} is {dtype} {shape:?}, which does not fit its {found} bytes"));
        }
        ranges.push((begin, end, name.clone()));
        entries.push(Entry::dense(name, dtype, claim.shape, file, start + begin, end - begin));
    }
    ranges.sort();
    let mut before = (0, String::new());
    for (begin, end, name) in ranges {
        if begin < before.0 {
            return Err(format!("{name} and {} overlap", before.1));
        }
        if begin > before.0 {
            return Err(format!("{} bytes before {name} belong to no tensor", begin - before.0));
        }
        before = (end, name);
    }
    if before.0 != room {
        return Err(format!("{} bytes at the end belong to no tensor", room - before.0));
    }
    Ok((entries, header.metadata))
}
