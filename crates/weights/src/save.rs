//! [`save`]: a module's tensors as safetensors, in shards, without a second copy of it in memory.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};

use binade_nn::{Module, replace_file};
use binade_tensor::{Array, Class, DType};

use crate::load::tied;
use crate::range::narrows;
use crate::report::Loaded;
use crate::view::View;
use crate::{Error, FileDType, Range, Report, Result, Source, Sources};

/// How weights are saved.
#[derive(Clone, Debug, PartialEq)]
pub struct SaveOptions {
    /// Dtype of floating-point tensors in the files; `None` for that of the model.
    pub dtype: Option<DType>,
    /// Most bytes of tensors in a file, unless one tensor has more.
    pub max_shard_size: u64,
    /// Name of the file without its end: `model`, `diffusion_pytorch_model`.
    pub stem: String,
    /// Finite values may become infinite in a narrower dtype.
    pub allow_overflow: bool,
}

impl Default for SaveOptions {
    /// As transformers names files, in one file.
    fn default() -> SaveOptions {
        SaveOptions { dtype: None, max_shard_size: u64::MAX, stem: "model".into(), allow_overflow: false }
    }
}

/// A tensor of a file that will be written.
struct Item {
    name: String,
    shape: Vec<usize>,
    array: Array,
    /// Elements of the array before it, and whether its dimensions are exchanged.
    start: usize,
    transposed: bool,
    to: DType,
}

impl Item {
    fn bytes(&self) -> usize {
        self.shape.iter().product::<usize>() * self.to.size()
    }

    /// Shows its elements: in the model's memory where that is the host's, else in a copy.
    fn with_view<T>(&self, see: impl FnOnce(&View<'_>) -> Result<T>) -> Result<T> {
        let array = self.array.contiguous(Class::Workspace)?;
        let guard = array.storage().read("save")?;
        let (dtype, size) = (FileDType::from(array.dtype()), array.dtype().size());
        let copy;
        let bytes = match guard.bytes() {
            Some(bytes) => &bytes[array.layout().offset * size..],
            None => {
                copy = array.device().download(&array)?;
                &copy
            }
        };
        let numel: usize = self.shape.iter().product();
        let bytes = &bytes[self.start * size..][..numel * size];
        let shape = if self.transposed { self.array.shape().to_vec() } else { self.shape.clone() };
        let view = View::new(&dtype, bytes, shape, None).ok_or_else(|| Error::Tensor {
            path: PathBuf::new(),
            name: self.name.clone(),
            message: "is of a type that is not written".into(),
        })?;
        see(&if self.transposed { view.transposed() } else { view })
    }
}

/// Writes a module's parameters and buffers to a folder: one file, or shards with an index. Files are those that
/// `safetensors` in Python writes, byte for byte, with the metadata `"format": "pt"`; each replaces an old one as a
/// whole, and older shards are removed when all are written. What is tied is written once, under its first name.
///
/// The report says what is lost in a narrower dtype.
///
/// # Errors
/// [`Error::Misfit`]: values that overflow, by name, before anything is written; a source that does not fit its tensor;
/// [`Error::Io`]; a tensor of the module is being written.
pub fn save(module: &dyn Module, folder: &Path, sources: &Sources, options: &SaveOptions) -> Result<Report> {
    write(items(module, sources, options, folder)?, folder, options)
}

/// [`save`] of several modules into the same files.
///
/// # Errors
/// As [`save`]; a name that two tensors have.
pub fn save_together(parts: &[(&dyn Module, &Sources)], folder: &Path, options: &SaveOptions) -> Result<Report> {
    let mut all = Vec::new();
    for (module, sources) in parts {
        all.extend(items(*module, sources, options, folder)?);
    }
    write(all, folder, options)
}

fn write(items: Vec<Item>, folder: &Path, options: &SaveOptions) -> Result<Report> {
    let mut seen = BTreeSet::new();
    if let Some(twice) = items.iter().find(|item| !seen.insert(&item.name)) {
        let message = "is the name of two tensors".into();
        return Err(Error::Tensor { path: folder.into(), name: twice.name.clone(), message });
    }
    let mut report = Report::default();
    for item in &items {
        let from = FileDType::from(item.array.dtype());
        let mut saved = Loaded { name: item.name.clone(), from, to: item.to, nan: 0, loss: None, max_abs: None };
        if narrows(&saved.from, item.to) {
            let range = item.with_view(|view| Ok(Range::of(view, &[item.to])))?;
            (saved.nan, saved.max_abs, saved.loss) = (range.nan, Some(range.max_abs), range.losses.first().copied());
        }
        report.loaded.push(saved);
    }
    let overflows = |l: &Loaded| l.loss.is_some_and(|loss| loss.overflow > 0);
    if !options.allow_overflow && report.loaded.iter().any(overflows) {
        report.loaded.retain(overflows);
        return Err(Error::Misfit { path: folder.into(), report: Box::new(report) });
    }
    std::fs::create_dir_all(folder).map_err(Error::io(folder))?;
    let shards = shards(items, options.max_shard_size);
    let names = file_names(&options.stem, shards.len());
    for (shard, name) in shards.iter().zip(&names) {
        write_file(&folder.join(name), shard)?;
    }
    let index = folder.join(format!("{}.safetensors.index.json", options.stem));
    if shards.len() > 1 {
        let text = index_text(&shards, &names);
        replace_file(&index, |file| file.write_all(text.as_bytes())).map_err(Error::io(&index))?;
    }
    remove_others(folder, &options.stem, &names)?;
    Ok(report)
}

/// The tensors of the files in the order of the module.
fn items(module: &dyn Module, sources: &Sources, options: &SaveOptions, folder: &Path) -> Result<Vec<Item>> {
    let mut items = Vec::new();
    for (names, array) in tied(module) {
        let dtype = array.dtype();
        let to = options.dtype.filter(|_| dtype.is_float()).unwrap_or(dtype);
        let source = sources.of(&names[0]);
        let (Some(shape), _) = source.shapes(array.shape()) else {
            let message = format!("of shape {:?} cannot be stored as {source:?}", array.shape());
            return Err(Error::Tensor { path: folder.into(), name: names[0].clone(), message });
        };
        let part: usize = shape.iter().product();
        let transposed = matches!(source, Source::Transposed(_));
        for (i, name) in source.names().iter().enumerate() {
            let (name, shape, array) = (name.clone(), shape.clone(), array.clone());
            items.push(Item { name, shape, array, start: i * part, transposed, to });
        }
    }
    Ok(items)
}

/// Divides tensors in their order into files of at most so many bytes, or one tensor.
fn shards(items: Vec<Item>, most: u64) -> Vec<Vec<Item>> {
    let mut shards = vec![Vec::new()];
    let mut bytes = 0u64;
    for item in items {
        let (size, mut rest) = (item.bytes() as u64, Some(item));
        if bytes > 0 && bytes.saturating_add(size) > most {
            shards.push(Vec::new());
            bytes = 0;
        }
        bytes += size;
        shards.last_mut().into_iter().for_each(|shard: &mut Vec<Item>| shard.extend(rest.take()));
    }
    shards
}

fn file_names(stem: &str, count: usize) -> Vec<String> {
    match count {
        1 => vec![format!("{stem}.safetensors")],
        _ => (1..=count).map(|i| format!("{stem}-{i:05}-of-{count:05}.safetensors")).collect(),
    }
}

/// A header in the order and form of the format's own library, and the tensors after it.
fn write_file(path: &Path, items: &[Item]) -> Result<()> {
    let mut sorted: Vec<&Item> = items.iter().collect();
    let rank = |item: &Item| std::cmp::Reverse(FileDType::from(item.to).rank());
    sorted.sort_by(|a, b| rank(a).cmp(&rank(b)).then(a.name.cmp(&b.name)));
    let quoted = |text: &str| serde_json::Value::from(text).to_string();
    let (mut header, mut at) = (String::from(r#"{"__metadata__":{"format":"pt"}"#), 0);
    for item in &sorted {
        let (name, dtype, shape) = (quoted(&item.name), FileDType::from(item.to), serde_json::json!(item.shape));
        let end = at + item.bytes();
        header += &format!(r#",{name}:{{"dtype":"{dtype}","shape":{shape},"data_offsets":[{at},{end}]}}"#);
        at = end;
    }
    header += "}";
    header += &" ".repeat(header.len().next_multiple_of(8) - header.len());
    let mut failed = None;
    let written = replace_file(path, |file| {
        file.write_all(&(header.len() as u64).to_le_bytes())?;
        file.write_all(header.as_bytes())?;
        for item in &sorted {
            let write = item.with_view(|view| Ok(view.stream(item.to, |bytes| file.write_all(bytes))));
            match write {
                Ok(written) => written?,
                Err(error) => {
                    failed = Some(error);
                    return Err(io::Error::other("a tensor could not be read"));
                }
            }
        }
        Ok(())
    });
    match failed {
        Some(error) => Err(error),
        None => written.map_err(Error::io(path)),
    }
}

/// The index, as transformers writes it.
fn index_text(shards: &[Vec<Item>], names: &[String]) -> String {
    let mut map = BTreeMap::new();
    for (shard, name) in shards.iter().zip(names) {
        map.extend(shard.iter().map(|item| (item.name.as_str(), name.as_str())));
    }
    let total: usize = shards.iter().flatten().map(Item::bytes).sum();
    let index = serde_json::json!({ "metadata": { "total_size": total }, "weight_map": map });
    format!("{index:#}\n")
}

/// Removes what an earlier save of another size has left: a reader would find both.
fn remove_others(folder: &Path, stem: &str, names: &[String]) -> Result<()> {
    let is_shard = |name: &str| {
        let middle = name.strip_prefix(stem).and_then(|rest| rest.strip_suffix(".safetensors"));
        let numbers = middle.and_then(|middle| middle.strip_prefix('-')?.split_once("-of-"));
        let number = |text: &str| text.len() == 5 && text.bytes().all(|b| b.is_ascii_digit());
        middle == Some("") || numbers.is_some_and(|(a, b)| number(a) && number(b))
    };
    let index = format!("{stem}.safetensors.index.json");
    for entry in std::fs::read_dir(folder).map_err(Error::io(folder))? {
        let path = entry.map_err(Error::io(folder))?.path();
        let Some(name) = path.file_name().and_then(|name| name.to_str()) else { continue };
        let old = is_shard(name) && !names.iter().any(|new| new == name) || name == index && names.len() == 1;
        if old {
            std::fs::remove_file(&path).map_err(Error::io(&path))?;
        }
    }
    Ok(())
}
