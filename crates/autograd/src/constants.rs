//! Numbers that operators compute on the host and read again at each call. They stay on their device: a step that wants
//! them again uploads nothing.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};

use binade_tensor::{Array, Class, Device, Element};

use crate::Result;

/// So many arrays are kept; who was not wanted for longest goes first.
const MOST: usize = 32;
/// Larger ones are made anew each time.
pub(crate) const LARGEST: usize = 16 << 20;

struct Kept {
    what: &'static str,
    numbers: Vec<usize>,
    array: Array,
}

static KEPT: Mutex<VecDeque<Kept>> = Mutex::new(VecDeque::new());

/// The array that `make` gives, on a device. What it is, with the numbers that it depends on, tells it from others.
///
/// # Errors
/// Out of memory.
pub(crate) fn kept<T: Element>(
    device: &Device,
    what: &'static str,
    numbers: &[usize],
    shape: &[usize],
    make: impl FnOnce() -> Vec<T>,
) -> Result<Array> {
    let mut all = KEPT.lock().unwrap_or_else(PoisonError::into_inner);
    let is_it = |k: &Kept| k.what == what && k.numbers == numbers && k.array.device() == device;
    if let Some(kept) = all.iter().position(is_it).and_then(|at| all.remove(at)) {
        let array = kept.array.clone();
        all.push_back(kept);
        return Ok(array);
    }
    let array = Array::from_slice(device, &make(), shape, Class::Weights)?;
    if array.numel() * size_of::<T>() <= LARGEST {
        if all.len() == MOST {
            all.pop_front();
        }
        all.push_back(Kept { what, numbers: numbers.to_vec(), array: array.clone() });
    }
    Ok(array)
}
