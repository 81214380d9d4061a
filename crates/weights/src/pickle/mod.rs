//! What `torch.save` writes: a pickle that describes tensors, and their numbers beside it. The pickle is read as data.

mod legacy;
mod machine;
mod make;
mod value;
mod zipped;

use std::collections::{BTreeMap, HashSet};
use std::ops::Range;

use crate::entry::{Entry, elements};
use crate::file::Mapped;
use crate::{Error, FileDType, Result};

use machine::Read;
use make::Refused;
use value::{Tensor, Value};

pub(crate) use legacy::legacy;
pub(crate) use zipped::zip;

/// Where a state dict is in a file that holds more: the first of these that is there.
const WITHIN: [&str; 6] = ["state_dict", "model_state_dict", "model", "module", "net", "params"];

/// Bytes of each storage in the file, by key.
type Storages = BTreeMap<String, Range<usize>>;

fn read(file: &Mapped, bytes: &[u8]) -> Result<Read> {
    machine::read(bytes).map_err(|refused| match refused {
        Refused::Class(class) => Error::Forbidden { path: file.path.clone(), class },
        Refused::Broken(message) => Error::format(&file.path, format!("the pickle: {message}")),
    })
}

/// The tensors of a state dict, found in their storages.
fn entries(file: &Mapped, at: usize, pickle: &Read, storages: &Storages) -> Result<Vec<Entry>> {
    let fail = |message: String| Error::format(&file.path, message);
    let named = state_dict(pickle).ok_or_else(|| fail("the pickle holds no state dict".into()))?;
    let mut seen = HashSet::new();
    named
        .into_iter()
        .map(|(name, tensor)| {
            if !seen.insert(name) {
                return Err(fail(format!("{name} is twice in the pickle")));
            }
            entry(name, tensor, at, storages).map_err(|message| fail(format!("{name} {message}")))
        })
        .collect()
}

/// Names and tensors: of the root, or of the state dict that it holds.
fn state_dict(pickle: &Read) -> Option<Vec<(&str, &Tensor)>> {
    let items = |value: &Value| match value {
        Value::Dict(items) => Some(items.clone()),
        _ => None,
    };
    let text = |id| match pickle.get(id) {
        Value::Text(text) => Some(&**text),
        _ => None,
    };
    let tensors = |items: &[(u32, u32)]| -> Vec<(&str, &Tensor)> {
        let of = |&(key, value): &(u32, u32)| match pickle.get(value) {
            Value::Tensor(tensor) => Some((text(key)?, &**tensor)),
            _ => None,
        };
        items.iter().filter_map(of).collect()
    };
    let root = items(pickle.root())?;
    let within = WITHIN.iter().find_map(|within| {
        let (_, held) = root.iter().find(|(key, _)| text(*key) == Some(within))?;
        items(pickle.get(*held)).filter(|held| !tensors(held).is_empty())
    });
    let found = tensors(&within.unwrap_or(root));
    (!found.is_empty()).then_some(found)
}

/// A tensor in its storage, or what does not fit.
fn entry(name: &str, tensor: &Tensor, at: usize, storages: &Storages) -> Result<Entry, String> {
    let storage = &tensor.storage;
    let dtype = FileDType::named(tensor.dtype);
    let size = dtype.size().ok_or_else(|| format!("is of type {dtype}, whose size is not known"))?;
    // Storages of bytes count bytes.
    let unit = storage.dtype.map_or(Some(1), |dtype| FileDType::named(dtype).size()).unwrap_or(1);
    let bytes =
        storages.get(&*storage.key).ok_or_else(|| format!("is in storage {}, which is not there", storage.key))?;
    let claimed = storage.numel.checked_add(storage.offset).and_then(|n| n.checked_mul(unit));
    if claimed.is_none_or(|claimed| claimed > bytes.len()) {
        let (key, numel) = (&storage.key, storage.numel);
        return Err(format!("is in storage {key}, which claims {numel} elements and has {} bytes", bytes.len()));
    }
    // No overflow from here on: both are within the claim.
    let (start, room) = (bytes.start + storage.offset * unit, storage.numel * unit / size);
    let numel = elements(&tensor.shape).ok_or_else(|| format!("has too many elements: {:?}", tensor.shape))?;
    let reach = tensor.shape.iter().zip(&tensor.strides).try_fold(1usize, |reach, (extent, stride)| {
        extent.checked_sub(1).map_or(Some(reach), |steps| steps.checked_mul(*stride)?.checked_add(reach))
    });
    let reach = if numel == 0 { Some(0) } else { reach };
    let end = reach.and_then(|reach| reach.checked_add(tensor.offset));
    if end.is_none_or(|end| end > room) {
        let (shape, strides, offset) = (&tensor.shape, &tensor.strides, tensor.offset);
        return Err(format!("{shape:?} with strides {strides:?} from {offset} reaches past its storage of {room}"));
    }
    let offset = if numel == 0 { 0 } else { tensor.offset };
    let mut entry =
        Entry::dense(name.into(), dtype, tensor.shape.clone(), at, start + offset * size, reach.unwrap_or(0) * size);
    let natural = crate::entry::row_major(&tensor.shape);
    entry.strides = (tensor.strides != natural).then(|| tensor.strides.clone());
    // A few bytes could stand for any number of elements.
    if numel > room {
        entry.fault = Some(format!("repeats {room} elements as {:?}", tensor.shape));
    }
    Ok(entry)
}
