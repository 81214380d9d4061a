//! State dicts under PyTorch's names, and safetensors files: tensors go between a file and their own memory, without a
//! copy of all of them beside it.

use std::borrow::Cow;
use std::cmp::Reverse;
use std::collections::HashMap;
use std::fs::File;
use std::path::{Path, PathBuf};

use binade_autograd::scope;
use binade_tensor::{Array, ArrayMut, Class, DType, ReadGuard};
use memmap2::Mmap;
use safetensors::tensor::{Dtype, Metadata, SafeTensors, TensorInfo};

use crate::checksum::{CHECKSUM, seal, verify, with_room};
use crate::load::{check, list};
use crate::{Error, Module, Result, replace_file};

/// Tensors by name, in order.
pub type StateDict = Vec<(String, Array)>;

/// Parameters and buffers of a module by dotted name. The arrays share memory with the module.
pub fn state_dict(module: &dyn Module) -> StateDict {
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
/// that is replaced as a whole ([`replace_file`]). The tensors are read where they are, and cannot be written to
/// meanwhile.
///
/// # Errors
/// The file cannot be written; a tensor is being written.
pub fn write_safetensors(path: &Path, tensors: &[(String, Array)], metadata: HashMap<String, String>) -> Result<()> {
    let dense = in_order(tensors)?;
    let mut header = header(path, &dense, metadata)?;
    let mut held = Vec::with_capacity(dense.len());
    for (_, array) in &dense {
        held.push((array, array.storage().read("write_safetensors")?));
    }
    seal(&mut header, held.iter().map(|(array, guard)| bytes(array, guard)))?;
    let mut failed = None;
    let written = replace_file(path, |file| {
        file.write_all(&header)?;
        for (array, guard) in &held {
            match bytes(array, guard) {
                Ok(bytes) => file.write_all(&bytes)?,
                Err(error) => {
                    failed = Some(error);
                    return Err(std::io::Error::other("a tensor cannot be read"));
                }
            }
        }
        Ok(())
    });
    match failed {
        Some(error) => Err(error),
        None => written.map_err(|error| Error::Io { path: path.into(), error }),
    }
}

/// A safetensors file in the host's memory, with the tensors as they were when it was made: what [`write_safetensors`]
/// writes, for another thread to write while they change.
#[derive(Debug)]
pub struct PackedFile {
    path: PathBuf,
    bytes: Vec<u8>,
}

impl PackedFile {
    /// Copies tensors and metadata into `memory`, which grows where it is too small.
    ///
    /// # Errors
    /// Out of memory; a tensor is being written.
    pub fn new(
        path: &Path,
        tensors: &[(String, Array)],
        metadata: HashMap<String, String>,
        memory: Vec<u8>,
    ) -> Result<PackedFile> {
        let dense = in_order(tensors)?;
        let header = header(path, &dense, metadata)?;
        let size = dense.iter().map(|(_, array)| array.numel() * array.dtype().size()).sum::<usize>() + header.len();
        let mut all = memory;
        all.clear();
        all.try_reserve_exact(size).map_err(|_| binade_tensor::Error::OutOfMemory {
            op: "a checkpoint's copy",
            bytes: size,
            class: Class::Workspace,
        })?;
        all.extend_from_slice(&header);
        for (_, array) in &dense {
            all.extend_from_slice(&bytes(array, &array.storage().read("PackedFile::new")?)?);
        }
        Ok(PackedFile { path: path.into(), bytes: all })
    }

    /// Writes it, with its checksum, and gives its memory back for another.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn write(mut self) -> (Vec<u8>, Result<()>) {
        let sealed = seal(&mut self.bytes, std::iter::empty());
        let written = sealed.and_then(|()| {
            replace_file(&self.path, |file| file.write_all(&self.bytes))
                .map_err(|error| Error::Io { path: self.path.clone(), error })
        });
        (self.bytes, written)
    }
}

/// Tensors in row-major order, in the format's own order: the widest first, so that every tensor is aligned.
fn in_order(tensors: &[(String, Array)]) -> Result<Vec<(&String, Array)>> {
    let mut dense = Vec::with_capacity(tensors.len());
    for (name, array) in tensors {
        dense.push((name, array.contiguous(Class::Workspace)?));
    }
    dense.sort_by(|(a, x), (b, y)| {
        let rank = |array: &Array| Reverse(to_safetensors(array.dtype()));
        rank(x).cmp(&rank(y)).then(a.cmp(b))
    });
    Ok(dense)
}

/// The length and text of a file's header, with room for the checksum.
fn header(path: &Path, tensors: &[(&String, Array)], metadata: HashMap<String, String>) -> Result<Vec<u8>> {
    let format = |message: String| Error::Format { path: path.into(), message };
    let mut at = 0;
    let info = |(name, array): &(&String, Array)| {
        let start = at;
        at += array.numel() * array.dtype().size();
        let (dtype, shape) = (to_safetensors(array.dtype()), array.shape().to_vec());
        ((*name).clone(), TensorInfo { dtype, shape, data_offsets: (start, at) })
    };
    let infos = tensors.iter().map(info).collect();
    let header = Metadata::new(Some(with_room(metadata)), infos).map_err(|e| format(e.to_string()))?;
    let mut text = serde_json::to_vec(&header).map_err(|e| format(e.to_string()))?;
    text.resize(text.len().next_multiple_of(8), b' ');
    Ok([&(text.len() as u64).to_le_bytes(), &text[..]].concat())
}

/// The bytes of an array in row-major order: those in the host's memory, or a copy of a device's.
fn bytes<'a>(array: &Array, guard: &'a ReadGuard<'_>) -> Result<Cow<'a, [u8]>> {
    let size = array.dtype().size();
    match guard.bytes() {
        Some(bytes) => Ok(Cow::Borrowed(&bytes[array.layout().offset * size..][..array.numel() * size])),
        None => Ok(Cow::Owned(array.device().download(array)?)),
    }
}

/// A safetensors file, mapped. Who cuts it short while it is read ends the process, as with any mapped file; files are
/// to be replaced as a whole, as [`replace_file`] does.
#[derive(Debug)]
pub struct TensorFile {
    path: PathBuf,
    map: Mmap,
    metadata: HashMap<String, String>,
    names: Vec<String>,
}

impl TensorFile {
    /// Maps a file and checks its header, and its checksum if it has one: other programs write none.
    ///
    /// # Errors
    /// The file cannot be read, is torn, or is not what its checksum says.
    pub fn open(path: &Path) -> Result<TensorFile> {
        let io = |error| Error::Io { path: path.into(), error };
        let file = File::open(path).map_err(io)?;
        // SAFETY: the bytes are only read, and any of their values is valid.
        let map = unsafe { Mmap::map(&file) }.map_err(io)?;
        let format = |message: String| Error::Format { path: path.into(), message };
        let (_, header) = SafeTensors::read_metadata(&map).map_err(|e| format(e.to_string()))?;
        let metadata = header.metadata().clone().unwrap_or_default();
        if metadata.contains_key(CHECKSUM) {
            verify(&map).map_err(format)?;
        }
        let mut names = header.offset_keys();
        names.sort();
        Ok(TensorFile { path: path.into(), map, metadata, names })
    }

    /// Texts beside the tensors.
    pub fn metadata(&self) -> &HashMap<String, String> {
        &self.metadata
    }

    /// Names of the tensors, sorted.
    pub fn names(&self) -> &[String] {
        &self.names
    }

    /// Tensors of these names on the scope's device, one after the other.
    ///
    /// # Errors
    /// A name is not there; a dtype that this library lacks; out of memory.
    pub fn arrays<'a>(&self, names: impl IntoIterator<Item = &'a String>, class: Class) -> Result<StateDict> {
        let file = self.tensors()?;
        let device = scope::device()?;
        let array = |name: &'a String| {
            let (dtype, shape, bytes) = self.tensor(&file, name)?;
            Ok((name.clone(), Array::from_bytes(&device, dtype, bytes, &shape, class)?))
        };
        names.into_iter().map(array).collect()
    }

    /// Copies the tensors whose names begin with `prefix` into a module, which must have all of them under the rest of
    /// the name, and no other. Dtypes may differ. Nothing is written unless all can be.
    ///
    /// # Errors
    /// [`Error::Names`], [`Error::Shape`]; a dtype that this library lacks; a tensor of the module is in use.
    pub fn load(&self, module: &dyn Module, prefix: &str) -> Result<()> {
        let file = self.tensors()?;
        let mut found = Vec::new();
        for name in self.names.iter().filter(|name| name.starts_with(prefix)) {
            found.push((&name[prefix.len()..], self.tensor(&file, name)?));
        }
        let own = state_dict(module);
        check(&own, found.iter().map(|(name, (_, shape, _))| (*name, &shape[..])))?;
        // What is in use shows here, before anything is written.
        own.iter().try_for_each(|(_, array)| ArrayMut::new("load", array).map(drop))?;
        let found: HashMap<&str, _> = found.into_iter().collect();
        for (name, array) in &own {
            let Some((dtype, shape, bytes)) = found.get(name.as_str()) else { continue };
            if *dtype == array.dtype() && *dtype != DType::Bool && array.layout().is_contiguous() {
                array.device().upload(bytes, &mut ArrayMut::new("load", array)?)?;
            } else {
                array.copy_from(&Array::from_bytes(array.device(), *dtype, bytes, shape, Class::Workspace)?)?;
            }
        }
        Ok(())
    }

    fn tensors(&self) -> Result<SafeTensors<'_>> {
        SafeTensors::deserialize(&self.map).map_err(|e| self.wrong(e.to_string()))
    }

    /// Dtype, shape and bytes of a tensor.
    fn tensor<'a>(&'a self, file: &SafeTensors<'a>, name: &str) -> Result<(DType, Vec<usize>, &'a [u8])> {
        let view = file.tensor(name).map_err(|_| self.wrong(format!("it has no tensor {}", list(&[name.into()]))))?;
        let dtype = DType::ALL.into_iter().find(|&d| to_safetensors(d) == view.dtype());
        let dtype = dtype.ok_or_else(|| self.wrong(format!("{name}: no support for dtype {:?}", view.dtype())))?;
        Ok((dtype, view.shape().to_vec(), view.data()))
    }

    fn wrong(&self, message: String) -> Error {
        Error::Format { path: self.path.clone(), message }
    }
}

/// Reads a safetensors file onto the scope's device: tensors and metadata, as [`TensorFile`] does.
///
/// # Errors
/// The file cannot be read, is torn, is not what its checksum says, or holds a dtype this library lacks.
pub fn read_safetensors(path: &Path, class: Class) -> Result<(StateDict, HashMap<String, String>)> {
    let file = TensorFile::open(path)?;
    Ok((file.arrays(file.names(), class)?, file.metadata.clone()))
}
