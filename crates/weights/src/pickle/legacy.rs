//! The form before zip: five pickles (a magic number, a version, the machine, the object, the keys of its storages),
//! and then each storage's length and numbers.

use super::machine::Read;
use super::value::Value;
use super::{Storages, entries, read};
use crate::entry::Entry;
use crate::file::Mapped;
use crate::{Error, FileDType, Result};

/// `0x1950a86a20f9469cfc6c`, ten bytes, as a pickle writes it: protocol 2, a long of ten bytes, and the end.
const MAGIC: [u8; 15] = [0x80, 2, 0x8a, 10, 0x6c, 0xfc, 0x9c, 0x46, 0xf9, 0x20, 0x6a, 0xa8, 0x50, 0x19, b'.'];
const VERSION: i64 = 1001;

/// The tensors of a file.
pub(crate) fn legacy(file: &Mapped, at: usize) -> Result<Vec<Entry>> {
    let fail = |message: &str| Error::format(&file.path, message);
    let bytes = file.bytes();
    if !bytes.starts_with(&MAGIC) {
        return Err(fail("a pickle, but not of torch.save: it does not begin with PyTorch's number"));
    }
    let mut end = MAGIC.len();
    let mut next = || {
        let pickle = read(file, &bytes[end..])?;
        end += pickle.end;
        Ok::<Read, Error>(pickle)
    };
    let (version, machine, object, keys) = (next()?, next()?, next()?, next()?);
    if !matches!(version.root(), Value::Int(VERSION)) {
        return Err(fail("of a version of torch.save that is not read"));
    }
    if is_big_endian(&machine) {
        return Err(fail("written on a big-endian machine: only little-endian files are read"));
    }
    let storages = storages(bytes, end, &keys, &sizes(&object)).map_err(|message| fail(&message))?;
    entries(file, at, &object, &storages)
}

/// What the machine says of itself.
fn is_big_endian(machine: &Read) -> bool {
    let Value::Dict(items) = machine.root() else { return false };
    let says = |key: u32| matches!(machine.get(key), Value::Text(text) if &**text == "little_endian");
    items.iter().any(|(key, value)| says(*key) && matches!(machine.get(*value), Value::Bool(false)))
}

/// Bytes of an element of each storage that the pickle names.
fn sizes(object: &Read) -> std::collections::BTreeMap<&str, usize> {
    let of = |storage: &super::value::Storage| {
        storage.dtype.map_or(Some(1), |dtype| FileDType::named(dtype).size()).unwrap_or(1)
    };
    object
        .values()
        .filter_map(|value| match value {
            Value::Storage(storage) => Some((&*storage.key, of(storage))),
            _ => None,
        })
        .collect()
}

/// Where each storage's numbers are.
fn storages(
    bytes: &[u8],
    mut at: usize,
    keys: &Read,
    sizes: &std::collections::BTreeMap<&str, usize>,
) -> Result<Storages, String> {
    let Value::List(keys_of) = keys.root() else { return Err("no list of its storages".into()) };
    let mut found = Storages::new();
    for key in keys_of {
        let Value::Text(key) = keys.get(*key) else { return Err("a storage without a key".into()) };
        let size = sizes.get(&**key).ok_or_else(|| format!("storage {key} belongs to no tensor"))?;
        let rest = bytes.get(at..).unwrap_or_default();
        let numel = rest.first_chunk().map(|numel| i64::from_le_bytes(*numel));
        let numel = numel.ok_or_else(|| format!("truncated before storage {key}"))?;
        let length = usize::try_from(numel).ok().and_then(|n| n.checked_mul(*size));
        let end = length.and_then(|length| (at + 8).checked_add(length)).filter(|end| *end <= bytes.len());
        let end =
            end.ok_or_else(|| format!("storage {key} claims {numel} elements, which reach past the file's end"))?;
        if found.insert(key.to_string(), at + 8..end).is_some() {
            return Err(format!("storage {key} is listed twice"));
        }
        at = end;
    }
    Ok(found)
}
