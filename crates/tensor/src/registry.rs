//! The backends of a program: each linked crate that has one announces it, and [`Device::open`] finds it by name.

use crate::{Device, Error, Result};

/// A backend as its crate announces it, with [`register_backend!`](crate::register_backend). Its devices have the names
/// `name` for the first and `name:index` for each.
#[derive(Debug)]
pub struct BackendKind {
    /// `cpu`, `reference`, `cuda`.
    pub name: &'static str,
    /// How many devices this machine has.
    pub count: fn() -> usize,
    /// A device below that count; the same handle each time.
    pub open: fn(index: usize) -> Result<Device>,
}

inventory::collect!(BackendKind);

/// Announces a [`BackendKind`] to every program that its crate is linked into, which takes a mention of the crate
/// somewhere: `use binade_cpu as _;`.
///
/// ```
/// use binade_tensor::{BackendKind, Device, reference::Reference, register_backend};
///
/// register_backend! { BackendKind { name: "mine", count: || 1, open: |_| Ok(Device::new(Reference::new())) } }
///
/// assert_eq!(Device::open("mine")?.name(), "reference");
/// # Ok::<(), binade_tensor::Error>(())
/// ```
#[macro_export]
macro_rules! register_backend {
    ($($kind:tt)*) => { $crate::inventory::submit! { $($kind)* } };
}

register_backend! { BackendKind { name: "reference", count: || 1, open: |_| Ok(Device::reference()) } }

impl Device {
    /// A device by name: `cpu`, `reference`, `cuda:0`. Which there are is a matter of the crates that are linked: see
    /// [`register_backend!`](crate::register_backend).
    ///
    /// # Errors
    /// [`Error::UnknownDevice`] names those that there are; the device fails.
    pub fn open(name: &str) -> Result<Device> {
        let (kind, index) = match name.split_once(':') {
            Some((kind, index)) => (kind, index.parse().ok()),
            None => (name, Some(0)),
        };
        match Device::kinds().find(|k| k.name == kind).zip(index).filter(|(kind, index)| *index < (kind.count)()) {
            Some((kind, index)) => (kind.open)(index),
            None => Err(Error::UnknownDevice { found: name.into(), known: Device::names() }),
        }
    }

    pub(crate) fn kinds() -> impl Iterator<Item = &'static BackendKind> {
        inventory::iter::<BackendKind>.into_iter()
    }

    /// The names of all devices that can be opened, sorted.
    pub fn names() -> Vec<String> {
        let mut names: Vec<String> = Device::kinds().flat_map(|kind| names_of(kind.name, (kind.count)())).collect();
        names.sort();
        names
    }

    /// The CPU of this machine, `Device::open("cpu")`.
    ///
    /// # Panics
    /// Where no crate is linked that has one, as `binade-cpu` has; `binade` brings it along.
    pub fn cpu() -> Device {
        static CPU: std::sync::OnceLock<Device> = std::sync::OnceLock::new();
        let open = || match Device::open("cpu") {
            Ok(device) => device,
            Err(error) => panic!("{error}; a CPU needs the crate binade-cpu: add it, and `use binade_cpu as _;`"),
        };
        CPU.get_or_init(open).clone()
    }
}

/// A single device needs no number.
fn names_of(kind: &str, count: usize) -> Vec<String> {
    if count == 1 { vec![kind.into()] } else { (0..count).map(|index| format!("{kind}:{index}")).collect() }
}

#[cfg(test)]
mod tests {
    use super::*;

    register_backend! { BackendKind { name: "pair", count: || 2, open: |_| Ok(Device::reference()) } }

    #[test]
    fn a_device_is_opened_by_the_name_and_number_of_a_registered_kind() {
        assert_eq!(Device::open("reference").unwrap(), Device::reference());
        for name in ["pair", "pair:0", "pair:1", "reference:0"] {
            assert!(Device::open(name).is_ok(), "{name}");
        }
    }

    #[test]
    fn any_other_name_is_an_error_with_those_that_there_are() {
        for name in ["", "tpu", "pair:2", "pair:", "pair:one", "pair:-1", "reference:1", "Reference"] {
            let error = Device::open(name).unwrap_err().to_string();
            assert!(
                error.contains(&format!("'{name}'")) && error.ends_with("pair:0, pair:1, reference, remote"),
                "{error}"
            );
        }
    }

    #[test]
    fn without_a_crate_that_has_a_cpu_the_message_names_one() {
        let panic = std::panic::catch_unwind(Device::cpu).unwrap_err();
        let message = panic.downcast_ref::<String>().unwrap();
        assert!(message.contains("'cpu'") && message.contains("binade-cpu"), "{message}");
    }
}
