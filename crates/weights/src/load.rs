//! [`load`]: weights into a module, without a second copy of it in memory.

use std::collections::{BTreeMap, BTreeSet};

use binade_nn::{Module, state_dict};
use binade_tensor::{Array, ArrayMut, Class, DType};

use crate::entry::Entry;
use crate::range::narrows;
use crate::report::{Loaded, Misplaced, Missing};
use crate::view::View;
use crate::{Error, Range, Report, Result, Source, Sources, Weights};

/// Ends of names of buffers that some files carry and no model needs: causal masks, and 0, 1, 2, ….
const BUFFERS: [&str; 3] = ["attn.bias", "attn.masked_bias", "position_ids"];

/// How weights are loaded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LoadOptions {
    /// Everything must fit. Else what fits is loaded and the rest reported.
    pub strict: bool,
    /// Finite values may become infinite in a narrower dtype.
    pub allow_overflow: bool,
    /// Weights may be NaN.
    pub allow_nan: bool,
}

impl Default for LoadOptions {
    fn default() -> LoadOptions {
        LoadOptions { strict: true, allow_overflow: false, allow_nan: false }
    }
}

/// A tensor of the model, and where its values are.
struct Place<'a> {
    name: String,
    array: Array,
    /// In order along the first dimension.
    views: Vec<View<'a>>,
}

/// Copies weights into a module's parameters and buffers, in their dtypes: 16-bit weights into f32 parameters too. What
/// is tied in the module may be in the file once, or under each name with the same values. Each tensor goes from the
/// mapped file into the module's memory, a block at a time.
///
/// Buffers that models do not need (`attn.bias`, `attn.masked_bias`, `position_ids`, and [`Sources::ignored`]) are left
/// out without a word.
///
/// # Errors
/// [`Error::Misfit`], which lists all that is missing, too much, of another shape, not tied or not readable; if all of
/// that fits, all tensors with NaNs or values that overflow. A tensor of the module is in use. Nothing is written then.
pub fn load(module: &dyn Module, weights: &Weights, sources: &Sources, options: &LoadOptions) -> Result<Report> {
    let (places, mut report) = plan(module, weights, sources);
    let misfit = |report: Report| Err(Error::Misfit { path: weights.path().into(), report: Box::new(report) });
    if options.strict && !report.is_complete() {
        return misfit(report);
    }
    for place in &places {
        report.loaded.push(examine(place));
    }
    let faulty = |l: &Loaded| {
        l.nan > 0 && !options.allow_nan || l.loss.is_some_and(|loss| loss.overflow > 0) && !options.allow_overflow
    };
    if report.loaded.iter().any(faulty) {
        report.loaded.retain(faulty);
        (report.missing, report.unexpected, report.mismatched) = Default::default();
        return misfit(report);
    }
    // What is in use shows here, before anything is written.
    places.iter().try_for_each(|place| ArrayMut::new("load", &place.array).map(drop))?;
    places.iter().try_for_each(write)?;
    Ok(report)
}

/// The model's tensors with their places in the files, and what has none.
fn plan<'a>(module: &dyn Module, weights: &'a Weights, sources: &Sources) -> (Vec<Place<'a>>, Report) {
    let (mut places, mut report, mut used) = (Vec::new(), Report::default(), BTreeSet::new());
    for (names, array) in tied(module) {
        let stored: Vec<(&String, Source)> = names.iter().map(|name| (name, sources.of(name))).collect();
        stored.iter().for_each(|(_, source)| used.extend(source.names().iter().cloned()));
        let mut there = stored.iter().filter(|(_, source)| source.names().iter().any(|n| weights.get(n).is_some()));
        let Some((name, source)) = there.next().or(stored.first()) else { continue };
        let Some(views) = resolve(name, source, &array, weights, &mut report) else { continue };
        for (_, other) in there {
            if let Some(twin) = resolve(name, other, &array, weights, &mut report)
                && !same(&views, &twin, array.dtype())
            {
                report.untied.push([source.names().join(", "), other.names().join(", ")]);
            }
        }
        places.push(Place { name: names[0].clone(), array, views });
    }
    for entry in weights.entries().filter(|entry| !used.contains(&entry.name)) {
        let name = &entry.name;
        // A tied tensor once more, under a name that the model does not list.
        if let Some(Source::Tensor(twin)) = sources.sources.get(name)
            && let Some(twin) = weights.get(twin)
            && let (Ok(own), Ok(other)) = (weights.view(twin), weights.view(entry))
        {
            let dtype = twin.dtype.dtype().unwrap_or(DType::F32);
            if twin.shape == entry.shape && same(&[own], &[other], dtype) {
                report.ignored.push(name.clone());
            } else {
                report.untied.push([twin.name.clone(), name.clone()]);
            }
            continue;
        }
        let is_buffer =
            BUFFERS.iter().any(|end| name.strip_suffix(end).is_some_and(|at| at.is_empty() || at.ends_with('.')));
        if is_buffer || sources.ignored.contains(name) {
            report.ignored.push(name.clone());
        } else {
            report.unexpected.push((name.clone(), entry.shape.clone()));
        }
    }
    (places, report)
}

/// Tensors of a module, each once, with all their names.
pub(crate) fn tied(module: &dyn Module) -> Vec<(Vec<String>, Array)> {
    let mut out: Vec<(Vec<String>, Array)> = Vec::new();
    let mut known = BTreeMap::new();
    for (name, array) in state_dict(module) {
        let layout = array.layout();
        let key = (array.storage().id(), layout.offset, layout.shape.to_vec(), layout.strides.to_vec());
        match known.get(&key) {
            Some(&at) => {
                let (names, _): &mut (Vec<String>, Array) = &mut out[at];
                names.push(name);
            }
            None => {
                known.insert(key, out.len());
                out.push((vec![name], array));
            }
        }
    }
    out
}

/// The elements of a tensor in the order of the model, if they are there and fit.
fn resolve<'a>(
    name: &str,
    source: &Source,
    array: &Array,
    weights: &'a Weights,
    report: &mut Report,
) -> Option<Vec<View<'a>>> {
    let shape = array.shape().to_vec();
    let lacking: Vec<String> = source.names().iter().filter(|n| weights.get(n).is_none()).cloned().collect();
    if !lacking.is_empty() || source.names().is_empty() {
        let stored = if lacking == [name] { vec![] } else { lacking };
        report.missing.push(Missing { name: name.into(), shape, stored });
        return None;
    }
    let (expected, other) = source.shapes(&shape);
    let entries: Vec<&Entry> = source.names().iter().filter_map(|n| weights.get(n)).collect();
    let mut views = Vec::with_capacity(entries.len());
    for entry in entries {
        let fits = Some(&entry.shape) == expected.as_ref() || Some(&entry.shape) == other.as_ref();
        let numbers = array.dtype().is_float() || !entry.dtype.is_float();
        if !fits || !numbers {
            let expected = match &expected {
                Some(shape) if numbers => format!("{shape:?}"),
                Some(shape) => format!("{} {shape:?}", array.dtype()),
                None => format!("a part of {shape:?}"),
            };
            let found =
                if numbers { format!("{:?}", entry.shape) } else { format!("{} {:?}", entry.dtype, entry.shape) };
            report.mismatched.push(Misplaced { name: entry.name.clone(), found, expected });
            continue;
        }
        match weights.view(entry) {
            Ok(view) if matches!(source, Source::Transposed(_)) => views.push(view.transposed()),
            Ok(view) => views.push(view),
            Err(why) => report.unreadable.push((entry.name.clone(), why.into())),
        }
    }
    (views.len() == source.names().len()).then_some(views)
}

/// Whether two places hold the same values, as the model will have them.
fn same(a: &[View<'_>], b: &[View<'_>], dtype: DType) -> bool {
    let whole = |views: &[View<'_>]| views.iter().map(View::numel).sum::<usize>();
    if let ([a], [b]) = (a, b)
        && let (Some(x), Some(y)) = (a.dense(), b.dense())
        && a.dtype == b.dtype
        && x == y
    {
        return true;
    }
    if whole(a) != whole(b) {
        return false;
    }
    let size = dtype.size();
    let bytes = |views: &[View<'_>]| -> Vec<u8> {
        let mut out = vec![0; whole(views) * size];
        let mut rest = &mut out[..];
        for view in views {
            let (head, tail) = rest.split_at_mut(view.numel() * size);
            view.fill_all(dtype, head);
            rest = tail;
        }
        out
    };
    bytes(a) == bytes(b)
}

/// What becomes of a tensor's values in the model's dtype.
fn examine(place: &Place<'_>) -> Loaded {
    let to = place.array.dtype();
    let mut loaded =
        Loaded { name: place.name.clone(), from: place.views[0].dtype.clone(), to, nan: 0, loss: None, max_abs: None };
    for view in &place.views {
        if !narrows(view.dtype, to) {
            loaded.nan += Range::nan(view);
            continue;
        }
        let range = Range::of(view, &[to]);
        loaded.nan += range.nan;
        loaded.max_abs = Some(loaded.max_abs.unwrap_or(0.0).max(range.max_abs));
        for found in range.losses {
            let sum = loaded.loss.get_or_insert(crate::Loss { dtype: to, overflow: 0, zero: 0, subnormal: 0 });
            sum.overflow += found.overflow;
            sum.zero += found.zero;
            sum.subnormal += found.subnormal;
        }
    }
    loaded
}

/// Writes a tensor's values into the model's memory.
fn write(place: &Place<'_>) -> Result<()> {
    fill(&place.views, &place.array)
}

/// Writes elements into an array's memory: where that is the host's and in row-major order, without a copy beside it.
pub(crate) fn fill(views: &[View<'_>], array: &Array) -> Result<()> {
    let (dtype, layout) = (array.dtype(), array.layout());
    if !layout.is_contiguous() {
        let dense = Array::alloc(
            array.device(),
            binade_tensor::Meta { dtype, layout: binade_tensor::Layout::contiguous(*array.shape()) },
            Class::Workspace,
        )
        .map_err(|error| error.during("load"))?;
        fill(views, &dense)?;
        return Ok(array.copy_from(&dense)?);
    }
    let (start, length) = (layout.offset * dtype.size(), array.numel() * dtype.size());
    let mut memory = ArrayMut::new("load", array)?;
    if let Some(bytes) = memory.bytes() {
        spread(views, dtype, &mut bytes[start..start + length]);
        return Ok(());
    }
    let mut bytes = vec![0; length];
    spread(views, dtype, &mut bytes);
    Ok(array.device().upload(&bytes, &mut memory)?)
}

fn spread(views: &[View<'_>], dtype: DType, mut out: &mut [u8]) {
    for view in views {
        let (head, tail) = out.split_at_mut(view.numel() * dtype.size());
        view.fill_all(dtype, head);
        out = tail;
    }
}
