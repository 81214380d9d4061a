//! What the calls in a pickle make: tensors, storages and containers, of numbers whose sizes are checked later.

use std::rc::Rc;

use super::machine::Machine;
use super::value::{Class, Id, Storage, Tensor, Value};

/// Most tensors, and their most dimensions: a few bytes make one.
const TENSORS: usize = 1 << 18;
const RANK: usize = 16;
/// Why a pickle is refused.
#[derive(Debug)]
pub(super) enum Refused {
    /// It asks for this class.
    Class(String),
    /// It cannot be read.
    Broken(String),
}

impl From<String> for Refused {
    fn from(message: String) -> Refused {
        Refused::Broken(message)
    }
}

impl From<&str> for Refused {
    fn from(message: &str) -> Refused {
        Refused::Broken(message.into())
    }
}

pub(super) type Result<T, E = Refused> = std::result::Result<T, E>;

impl Machine<'_> {
    /// What calling one of the known classes makes.
    pub(super) fn call(&mut self, class: Id, arguments: Id) -> Result<Value> {
        let (Value::Class(class), Value::Tuple(arguments)) = (self.get(class), self.get(arguments)) else {
            return Err("it calls what is no class".into());
        };
        let is_tensor = matches!(class, Class::Tensor | Class::TensorOfType);
        if is_tensor && self.tensors >= TENSORS {
            return Err("more tensors than any model has".into());
        }
        let made = match class {
            Class::OrderedDict => Ok(Value::Dict(vec![])),
            Class::Tensor => self.tensor(arguments, None),
            Class::TensorOfType => {
                let Some(Value::Class(Class::DType(dtype))) = arguments.get(6).map(|id| self.get(*id)) else {
                    return Err("a tensor without a type".into());
                };
                self.tensor(arguments, Some(dtype))
            }
            Class::Parameter => match arguments.first().map(|id| self.get(*id)) {
                Some(Value::Tensor(tensor)) => Ok(Value::Tensor(tensor.clone())),
                _ => Err("a parameter of what is no tensor".into()),
            },
            Class::Size => match arguments.first().map(|id| self.get(*id)) {
                Some(Value::Tuple(items) | Value::List(items)) if items.len() <= RANK => {
                    Ok(Value::Tuple(items.clone()))
                }
                _ => Err("a size of what is no short tuple".into()),
            },
            Class::Set | Class::Word => Ok(Value::Other),
            Class::Storage(_) | Class::DType(_) => Err("it calls a type".into()),
        };
        self.tensors += is_tensor as usize;
        made
    }

    /// The storage of a persistent id: `('storage', class, key, place, numel)`, and in the older form the part of
    /// another that it is.
    pub(super) fn storage(&self, id: Id) -> Result<Storage> {
        let wrong = || Refused::from("a storage that is not named as PyTorch does");
        let Value::Tuple(items) = self.get(id) else { return Err(wrong()) };
        let item = |i: usize| items.get(i).map(|id| self.get(*id));
        let Some(Value::Class(Class::Storage(dtype))) = item(1) else { return Err(wrong()) };
        let key = match item(2) {
            Some(Value::Text(key)) => key.clone(),
            Some(Value::Int(key)) => key.to_string().into(),
            _ => return Err(wrong()),
        };
        let numel = self.count(*items.get(4).ok_or_else(wrong)?)?;
        let mut storage = Storage { key, dtype: *dtype, numel, offset: 0 };
        if let Some(Value::Tuple(part)) = item(5) {
            let [_, offset, size] = part[..] else { return Err(wrong()) };
            (storage.offset, storage.numel) = (self.count(offset)?, self.count(size)?);
        }
        Ok(storage)
    }

    /// A tensor of `(storage, offset, size, stride, …)`.
    fn tensor(&self, arguments: &[Id], dtype: Option<&'static str>) -> Result<Value> {
        let &[storage, offset, shape, strides, ..] = arguments else {
            return Err("a tensor without storage, offset, size and strides".into());
        };
        let Value::Storage(storage) = self.get(storage) else { return Err("a tensor without a storage".into()) };
        let dtype = dtype.or(storage.dtype).ok_or("a tensor of bytes without a type")?;
        let (offset, shape, strides) = (self.count(offset)?, self.counts(shape)?, self.counts(strides)?);
        if shape.len() != strides.len() || shape.len() > RANK {
            return Err(format!("a tensor of {} dimensions with {} strides", shape.len(), strides.len()).into());
        }
        Ok(Value::Tensor(Rc::new(Tensor { storage: storage.clone(), dtype, offset, shape, strides })))
    }

    fn count(&self, id: Id) -> Result<usize> {
        match self.get(id) {
            Value::Int(n) => usize::try_from(*n).map_err(|_| format!("{n} where a size must be").into()),
            _ => Err("no number where a size must be".into()),
        }
    }

    fn counts(&self, id: Id) -> Result<Vec<usize>> {
        match self.get(id) {
            Value::Tuple(items) | Value::List(items) if items.len() <= RANK => {
                items.iter().map(|id| self.count(*id)).collect()
            }
            _ => Err("no short tuple where sizes must be".into()),
        }
    }
}
