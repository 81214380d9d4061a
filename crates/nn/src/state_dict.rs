//! State dicts under PyTorch's names, and safetensors files.

use std::collections::HashMap;
use std::path::Path;

use binade_autograd::scope;
use binade_tensor::{Array, Class, DType};
use safetensors::tensor::{Dtype, SafeTensors, TensorView};

use crate::checksum::{CHECKSUM, seal, verify, with_room};
use crate::{Error, Module, Result, replace_file};

/// Tensors by name, in order.
pub type StateDict = Vec<(String, Array)>;

/// Parameters and buffers of a module by dotted name. The arrays share memory with the module.
pub fn state_dict(module: &impl Module) -> StateDict {
    module.assign_names();
    let params = module.named_parameters().into_iter().map(|(name, p)| (name, p.array()));
    params.chain(module.named_buffers().into_iter().map(|(name, b)| (name, b.array()))).collect()
}

fn to_safetensors(dtype: DType) -> Dtype {
    match dtype {
        DType::F64 => Dtype::F64,
        DType::F32 => Dtype::F32,
        DType::F16 => Dtype::F16,
        DType::BF16 => Dtype::BF16,
        DType::I64 => Dtype::I64,
        DType::U32 => Dtype::U32,
        DType::I8 => Dtype::I8,
        DType::Bool => Dtype::BOOL,
    }
}

/// Writes tensors and metadata, and a checksum of all of it as the metadata entry [`CHECKSUM`], to a safetensors file
/// that is replaced as a whole ([`replace_file`]).
///
/// # Errors
/// The file cannot be written.
pub fn write_safetensors(path: &Path, tensors: &[(String, Array)], metadata: HashMap<String, String>) -> Result<()> {
    let mut data = Vec::new();
    for (name, array) in tensors {
        let dense = array.contiguous(Class::Workspace)?;
        data.push((name, array.dtype(), array.shape().to_vec(), dense.device().download(&dense)?));
    }
    let format = |e: safetensors::SafeTensorError| Error::Format { path: path.into(), message: e.to_string() };
    let mut views = Vec::new();
    for (name, dtype, shape, bytes) in &data {
        views.push((name.as_str(), TensorView::new(to_safetensors(*dtype), shape.clone(), bytes).map_err(format)?));
    }
    let mut bytes = safetensors::serialize(views, Some(with_room(metadata))).map_err(format)?;
    seal(&mut bytes);
    replace_file(path, |file| file.write_all(&bytes)).map_err(|error| Error::Io { path: path.into(), error })
}

/// Reads a safetensors file onto the scope's device: tensors and metadata. One without a checksum is taken as it is:
/// other programs write none.
///
/// # Errors
/// The file cannot be read, is torn, is not what its checksum says, or holds a dtype this library lacks.
pub fn read_safetensors(path: &Path, class: Class) -> Result<(StateDict, HashMap<String, String>)> {
    let bytes = std::fs::read(path).map_err(|error| Error::Io { path: path.into(), error })?;
    let format = |message: String| Error::Format { path: path.into(), message };
    let (_, header) = SafeTensors::read_metadata(&bytes).map_err(|e| format(e.to_string()))?;
    let metadata = header.metadata().clone().unwrap_or_default();
    if metadata.contains_key(CHECKSUM) {
        verify(&bytes).map_err(format)?;
    }
    let file = SafeTensors::deserialize(&bytes).map_err(|e| format(e.to_string()))?;
    let mut out = StateDict::new();
    for (name, view) in file.iter() {
        let dtype = DType::ALL
            .into_iter()
            .find(|&d| to_safetensors(d) == view.dtype())
            .ok_or_else(|| format(format!("{name}: no support for dtype {:?}", view.dtype())))?;
        out.push((name.to_string(), Array::from_bytes(&scope::device()?, dtype, view.data(), view.shape(), class)?));
    }
    out.sort_by(|a, b| a.0.cmp(&b.0));
    Ok((out, metadata))
}
