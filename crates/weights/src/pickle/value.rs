//! What a pickle of weights is made of, as data: nothing of it is an instruction any more.

use std::rc::Rc;

/// A value's place among all of a pickle.
pub(super) type Id = u32;

/// A value. Containers hold places, so that a list that is filled after it was remembered is one list.
#[derive(Clone, Debug)]
pub(super) enum Value {
    None,
    Bool(bool),
    Int(i64),
    /// Of an integer that i64 does not hold, or of a float: neither is asked for.
    Other,
    Text(Rc<str>),
    Bytes,
    Tuple(Vec<Id>),
    List(Vec<Id>),
    Dict(Vec<(Id, Id)>),
    Class(Class),
    Storage(Rc<Storage>),
    Tensor(Rc<Tensor>),
}

/// The classes and functions that weights are made of. All others are refused by name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Class {
    OrderedDict,
    /// `torch._utils._rebuild_tensor_v2`, and its forerunner with fewer arguments.
    Tensor,
    /// `torch._utils._rebuild_tensor_v3`, which says the type by itself.
    TensorOfType,
    Parameter,
    Size,
    /// `set` and the like: nothing that is asked for.
    Set,
    /// A class of storages with elements of this type, by safetensors' name; without one for bytes.
    Storage(Option<&'static str>),
    /// A dtype by itself.
    DType(&'static str),
    /// Devices and other words that are passed on and mean nothing here.
    Word,
}

/// PyTorch's names of types: in `FloatStorage`, `torch.float32`, and safetensors.
const TYPES: [(&str, &str, &str); 11] = [
    ("Double", "float64", "F64"),
    ("Float", "float32", "F32"),
    ("Half", "float16", "F16"),
    ("BFloat16", "bfloat16", "BF16"),
    ("Long", "int64", "I64"),
    ("Int", "int32", "I32"),
    ("Short", "int16", "I16"),
    ("Char", "int8", "I8"),
    ("Byte", "uint8", "U8"),
    ("Bool", "bool", "BOOL"),
    ("ComplexFloat", "complex64", "C64"),
];

/// Types that have no class of storages.
const BARE: [(&str, &str); 6] = [
    ("float8_e4m3fn", "F8_E4M3"),
    ("float8_e5m2", "F8_E5M2"),
    ("float8_e8m0fnu", "F8_E8M0"),
    ("uint16", "U16"),
    ("uint32", "U32"),
    ("uint64", "U64"),
];

impl Class {
    /// The class of this name; `None` if it is none of those.
    pub(super) fn named(module: &str, name: &str) -> Option<Class> {
        match (module, name) {
            ("collections", "OrderedDict") => return Some(Class::OrderedDict),
            ("torch._utils", "_rebuild_tensor" | "_rebuild_tensor_v2") => return Some(Class::Tensor),
            ("torch._utils", "_rebuild_tensor_v3") => return Some(Class::TensorOfType),
            ("torch._utils", "_rebuild_parameter" | "_rebuild_parameter_with_state") => return Some(Class::Parameter),
            ("torch.nn.parameter", "Parameter") | ("torch", "nn.Parameter") => return Some(Class::Parameter),
            ("torch", "Size") => return Some(Class::Size),
            ("torch", "device") => return Some(Class::Word),
            ("builtins" | "__builtin__", "set" | "frozenset") => return Some(Class::Set),
            ("torch.storage" | "torch", "UntypedStorage") => return Some(Class::Storage(None)),
            _ => {}
        }
        if let ("torch" | "torch.storage" | "torch.cuda", Some(of)) = (module, name.strip_suffix("Storage")) {
            return TYPES.iter().find(|(class, _, _)| *class == of).map(|(_, _, file)| Class::Storage(Some(file)));
        }
        if module != "torch" {
            return None;
        }
        let typed = TYPES.iter().find(|(_, torch, _)| *torch == name).map(|(_, _, file)| *file);
        let bare = || BARE.iter().find(|(torch, _)| *torch == name).map(|(_, file)| *file);
        typed.or_else(bare).map(Class::DType)
    }
}

/// A storage as a pickle names it: its numbers are elsewhere.
#[derive(Clone, Debug)]
pub(super) struct Storage {
    pub(super) key: Rc<str>,
    /// Type of its elements, by safetensors' name; bytes have none.
    pub(super) dtype: Option<&'static str>,
    /// Number of elements, as the pickle claims.
    pub(super) numel: usize,
    /// Elements before this one, of a storage that is a part of another.
    pub(super) offset: usize,
}

/// A tensor as a pickle describes it.
#[derive(Clone, Debug)]
pub(super) struct Tensor {
    pub(super) storage: Rc<Storage>,
    pub(super) dtype: &'static str,
    pub(super) offset: usize,
    pub(super) shape: Vec<usize>,
    pub(super) strides: Vec<usize>,
}
