//! JSON files that tell when they were changed: their first entry is a CRC-32 of all the rest.

use std::path::Path;

use binade_nn::replace_file;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::{Error, Result};

/// How such a file begins, and what follows its eight digits.
const OPEN: &str = "{\n  \"crc32\": \"";
const CLOSE: &str = "\",\n";
const DIGITS: usize = 8;

/// Writes an object, of one entry at least, with its checksum.
pub(crate) fn write(path: &Path, value: &impl Serialize) -> Result<()> {
    let text = serde_json::to_string_pretty(value).map_err(|e| Error::io(path)(e.into()))?;
    let rest = format!("{}\n", text.trim_start_matches("{\n"));
    let text = format!("{OPEN}{}{CLOSE}{rest}", digits(&rest));
    replace_file(path, |file| file.write_all(text.as_bytes())).map_err(Error::io(path))
}

/// Reads such a file.
///
/// # Errors
/// It cannot be read, is no such object, or is not as it was written.
pub fn read_sealed<T: DeserializeOwned>(path: &Path) -> Result<T> {
    let bad = |message: String| Error::Checkpoint { path: path.into(), message };
    let text = std::fs::read_to_string(path).map_err(Error::io(path))?;
    let (object, whole) = open(&text);
    let value = serde_json::from_str(&object).map_err(|e| bad(e.to_string()))?;
    whole.map_err(bad)?;
    Ok(value)
}

/// The object in the text of a file, without the checksum, and what is wrong with that. Told apart, since of an object
/// that does not parse there is more to say.
pub(crate) fn open(text: &str) -> (String, Result<(), String>) {
    let parts = text.strip_prefix(OPEN).and_then(|rest| rest.split_at_checked(DIGITS));
    let Some((written, rest)) = parts.and_then(|(written, rest)| Some((written, rest.strip_prefix(CLOSE)?))) else {
        return (text.into(), Err("it does not begin with a checksum (crc32): damaged, or not written by this".into()));
    };
    let found = digits(rest);
    // Text against text: a damaged digit may still be a digit, or the same one in capitals.
    let verdict = if written == found {
        Ok(())
    } else {
        Err(format!(
            "damaged, or changed since it was written: its checksum is {written}, that of its contents {found}"
        ))
    };
    (format!("{{\n{rest}"), verdict)
}

fn digits(rest: &str) -> String {
    format!("{:08x}", crc32fast::hash(rest.as_bytes()))
}
