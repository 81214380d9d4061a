//! [`Weights`]: the tensors of a file or folder, by name, mapped and read one at a time.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use binade_autograd::scope;
use binade_tensor::{Array, Class, DType, Layout, Meta, Shape};

use crate::entry::Entry;
use crate::file::{Form, Mapped};
use crate::folder::{Files, files};
use crate::load::fill;
use crate::view::View;
use crate::{Error, Range, Result, pickle, safetensors};

/// Tensors in files: safetensors, shards with an index, and what `torch.save` writes, in its zip and its older form.
/// Opening reads headers alone and checks all that they claim.
#[derive(Debug)]
pub struct Weights {
    path: PathBuf,
    files: Vec<Mapped>,
    entries: BTreeMap<String, Entry>,
    metadata: BTreeMap<String, String>,
}

impl Weights {
    /// The weights at a path: a file; an index of shards; a folder with one of the names that libraries give, or with
    /// one file of weights alone. Half precision (`.fp16.`) is taken where there is no other.
    ///
    /// # Errors
    /// [`Error::Io`]; [`Error::Format`]: no weights or several, a header whose claims do not fit the file, shards that
    /// are missing or have a tensor twice; [`Error::Forbidden`].
    pub fn open(path: &Path) -> Result<Weights> {
        let Files { paths, index } = files(path)?;
        let mut weights =
            Weights { path: path.into(), files: vec![], entries: BTreeMap::new(), metadata: BTreeMap::new() };
        let mut twice = Vec::new();
        for path in &paths {
            for entry in weights.read(path)? {
                if let Some(before) = weights.entries.get(&entry.name) {
                    let file = |at: usize| weights.files[at].path.file_name().unwrap_or_default().to_string_lossy();
                    twice.push(format!("{} in {} and {}", entry.name, file(before.file), file(entry.file)));
                }
                weights.entries.insert(entry.name.clone(), entry);
            }
        }
        if !twice.is_empty() {
            return Err(Error::format(path, format!("in two shards: {}", twice.join(", "))));
        }
        if let Some((path, index)) = index {
            let lacks: Vec<String> =
                index.keys().filter(|name| !weights.entries.contains_key(*name)).cloned().collect();
            if !lacks.is_empty() {
                return Err(Error::format(&path, format!("it names tensors that no shard has: {}", lacks.join(", "))));
            }
        }
        Ok(weights)
    }

    /// The tensors of one more file.
    fn read(&mut self, path: &Path) -> Result<Vec<Entry>> {
        let mapped = Mapped::open(path)?;
        let at = self.files.len();
        let entries = match mapped.form()? {
            Form::Safetensors => {
                let (entries, metadata) =
                    safetensors::read(mapped.bytes(), at).map_err(|message| Error::format(path, message))?;
                self.metadata.extend(metadata);
                entries
            }
            Form::Zip => pickle::zip(&mapped, at)?,
            Form::Legacy => pickle::legacy(&mapped, at)?,
        };
        self.files.push(mapped);
        Ok(entries)
    }

    /// The path that was opened.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The files that hold the tensors.
    pub fn files(&self) -> impl Iterator<Item = &Path> {
        self.files.iter().map(|file| file.path.as_path())
    }

    /// Tensors in order of their names.
    pub fn entries(&self) -> impl Iterator<Item = &Entry> {
        self.entries.values()
    }

    /// All names.
    pub fn names(&self) -> BTreeSet<String> {
        self.entries.keys().cloned().collect()
    }

    /// What is known of a tensor.
    pub fn get(&self, name: &str) -> Option<&Entry> {
        self.entries.get(name)
    }

    /// Texts that the files carry beside their tensors.
    pub fn metadata(&self) -> &BTreeMap<String, String> {
        &self.metadata
    }

    /// A tensor on the scope's device: in the file's dtype, where this library has it, and with integers widened.
    ///
    /// # Errors
    /// [`Error::Tensor`]: it is not there, or of a type that is not read; out of memory.
    pub fn array(&self, name: &str, class: Class) -> Result<Array> {
        let (view, dtype) = self.wanted(name)?;
        let layout = Layout::contiguous(Shape::new(&self.entries[name].shape)?);
        let device = scope::device().map_err(binade_nn::Error::from)?;
        let array = Array::alloc(&device, Meta { dtype, layout }, class).map_err(|error| error.during("load"))?;
        fill(&[view], &array)?;
        Ok(array)
    }

    /// How large a tensor's values are, and what is lost in each of these formats.
    ///
    /// # Errors
    /// [`Error::Tensor`]: it is not there, or of a type that is not read.
    pub fn range(&self, name: &str, formats: &[DType]) -> Result<Range> {
        Ok(Range::of(&self.wanted(name)?.0, formats))
    }

    fn wanted(&self, name: &str) -> Result<(View<'_>, DType)> {
        let fail =
            |message: &str| Error::Tensor { path: self.path.clone(), name: name.into(), message: message.into() };
        let entry = self.get(name).ok_or_else(|| fail("is not there"))?;
        let view = self.view(entry).map_err(fail)?;
        Ok((view, entry.dtype.dtype().ok_or_else(|| fail("is of a type that is not read"))?))
    }

    /// A tensor's elements, or why they cannot be read.
    pub(crate) fn view<'a>(&'a self, entry: &'a Entry) -> std::result::Result<View<'a>, &'a str> {
        if let Some(fault) = &entry.fault {
            return Err(fault);
        }
        let bytes = &self.files[entry.file].bytes()[entry.at..][..entry.bytes];
        View::new(&entry.dtype, bytes, entry.shape.clone(), entry.strides.clone())
            .ok_or("is of a type that is not read")
    }
}
