//! A folder of images as a data set: PNG and JPEG files, in a folder for each class.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use rayon::prelude::*;

use crate::images::{Dataset, ImageSet, Images, Source};
use crate::resize::Resize;
use crate::{Data, Error, Pixels, Result};

/// Bytes of all pixels at most, which are held in memory.
const MOST: usize = 4 << 30;

/// Of so many images in the order of their paths the last is held out, where nothing else is said.
const HELD_OUT: usize = 10;

/// A file and its class.
type Labelled = (PathBuf, u32);

/// The images below a folder: `DIR/train/CLASS/…` and `DIR/test/CLASS/…` (or `val`), or `DIR/CLASS/…`, of which every
/// tenth is held out; or, of one class, the files of `DIR` itself. Classes are in the order of their names.
pub(crate) fn open(folder: &Path, source: &Source<'_>, resize: Option<&Resize>) -> Result<ImageSet> {
    let channels = if source.channels == 0 { 3 } else { source.channels };
    if ![1, 3, 4].contains(&channels) {
        return Err(Error::Config(format!("images have 1, 3 or 4 channels, not {channels}")));
    }
    if resize.is_some_and(|resize| resize.size.contains(&0)) {
        return Err(Error::Config("images of 0 pixels: the size must be at least 1".into()));
    }
    let (classes, train, test) = listed(folder)?;
    let read = |files: &[Labelled]| -> Vec<Result<Pixels>> {
        files.par_iter().map(|(path, _)| prepared(path, channels, resize)).collect()
    };
    if let Some(&Resize { size, .. }) = resize {
        room(folder, train.len() + test.len(), channels, size)?;
    }
    let (mut skipped, mut size, mut seen) = (Vec::new(), resize.map(|resize| resize.size), 0);
    let mut of = |files: &[Labelled]| -> Result<Images> {
        let (mut pixels, mut labels) = (Vec::new(), Vec::new());
        // A part at a time: only what is kept is held for all.
        for files in files.chunks(256) {
            for ((path, label), image) in files.iter().zip(read(files)) {
                let image = match image {
                    Ok(image) => image,
                    Err(error) if source.skip_broken => {
                        skipped.push(error);
                        continue;
                    }
                    Err(error) => return Err(error),
                };
                let wanted = *size.get_or_insert([image.height; 2]);
                if [image.height, image.width] != wanted {
                    let expected = format!("{0}×{0} as the images before, or --image-size for all", wanted[0]);
                    let found = format!("{}×{}", image.width, image.height);
                    return Err(Error::Data { path: path.clone(), expected, found });
                }
                seen += 1;
                room(folder, seen, channels, wanted)?;
                pixels.extend(image.planes());
                labels.push(*label);
            }
        }
        let [height, width] = size.unwrap_or([1; 2]);
        Ok(Images::new(Dataset::Folder, pixels, labels, [channels, height, width], 255.0))
    };
    let (train, test) = (of(&train)?, of(&test)?);
    if train.is_empty() || test.is_empty() {
        let left_out = skipped.first().map_or_else(String::new, |error| format!("; the first left out: {error}"));
        let (train, test) = (train.len(), test.len());
        return Err(nothing(folder, format!("{train} to train on and {test} to test{left_out}")));
    }
    Ok(ImageSet { train, test, classes, skipped })
}

/// Fails where the pixels of so many images are more than is held.
pub(crate) fn room(path: &Path, images: usize, channels: usize, [height, width]: [usize; 2]) -> Result<()> {
    let bytes = height.checked_mul(width).and_then(|n| n.checked_mul(channels)).and_then(|n| n.checked_mul(images));
    match bytes {
        Some(bytes) if bytes <= MOST => Ok(()),
        _ => Err(Error::Data {
            path: path.into(),
            expected: "at most 4 GiB of pixels: fewer images or a smaller --image-size".into(),
            found: format!("{images} images of {channels}×{height}×{width}"),
        }),
    }
}

/// The image of a file.
fn prepared(path: &Path, channels: usize, resize: Option<&Resize>) -> Result<Pixels> {
    let image = Pixels::open(path)?.with_channels(channels)?;
    Ok(match resize {
        Some(resize) => image.prepared(resize),
        None => image,
    })
}

/// The classes, and the files to train on and to test.
fn listed(folder: &Path) -> Result<(Vec<String>, Vec<Labelled>, Vec<Labelled>)> {
    let entries = Entries::of(folder)?;
    let part = |name: &str| entries.folders.iter().find(|path| path.file_name() == Some(OsStr::new(name)));
    // A class may be called so too: of trains.
    let parts = part("train").map(|train| Ok::<_, Error>((train, Entries::of(train)?))).transpose()?;
    let Some((train, inner)) = parts.filter(|(_, inner)| !inner.folders.is_empty()) else {
        let (classes, all) = labelled(folder, entries, None)?;
        let (train, test) = held_out(folder, all)?;
        return Ok((classes, train, test));
    };
    let (classes, all) = labelled(train, inner, None)?;
    match part("test").or_else(|| part("val")) {
        Some(test) => {
            let (_, test) = labelled(test, Entries::of(test)?, Some(&classes))?;
            Ok((classes, all, test))
        }
        None => {
            let (train, test) = held_out(train, all)?;
            Ok((classes, train, test))
        }
    }
}

/// Every tenth file, at least the last, is held out.
fn held_out(folder: &Path, all: Vec<Labelled>) -> Result<(Vec<Labelled>, Vec<Labelled>)> {
    if all.len() < 2 {
        return Err(nothing(folder, "one, of which none can be held out".into()));
    }
    let every = HELD_OUT.min(all.len());
    let (test, train): (Vec<_>, Vec<_>) = all.into_iter().enumerate().partition(|(i, _)| i % every == every - 1);
    let without = |files: Vec<(usize, Labelled)>| files.into_iter().map(|(_, file)| file).collect();
    Ok((without(train), without(test)))
}

/// The files of each class, and the classes' names: those `known`, or those of the folders.
fn labelled(folder: &Path, entries: Entries, known: Option<&[String]>) -> Result<(Vec<String>, Vec<Labelled>)> {
    let mut classes = BTreeMap::new();
    for path in entries.folders {
        let (mut files, name) = (Vec::new(), path.file_name().map(|name| name.to_string_lossy().into_owned()));
        gather(Entries::of(&path)?, &mut files, 0)?;
        if !files.is_empty() {
            classes.insert(name.unwrap_or_default(), files);
        }
    }
    match (entries.images.first(), classes.is_empty()) {
        (Some(_), true) => {
            let name = folder.file_name().map_or_else(|| "images".into(), |name| name.to_string_lossy().into_owned());
            classes.insert(name, entries.images);
        }
        (Some(image), false) => {
            let expected = "a folder for each class, and no images beside them".into();
            let found = format!("an image beside {} classes", classes.len());
            return Err(Error::Data { path: image.clone(), expected, found });
        }
        (None, true) => {
            let found = if entries.others == 0 { "none".into() } else { format!("{} other files", entries.others) };
            return Err(nothing(folder, found));
        }
        (None, false) => {}
    }
    let names = known.map_or_else(|| classes.keys().cloned().collect(), <[String]>::to_vec);
    let mut all = Vec::new();
    for (name, files) in classes {
        let Some(label) = names.iter().position(|known| *known == name) else {
            let expected = format!("the classes that are trained: {}", names.join(", "));
            return Err(Error::Data { path: folder.join(&name), expected, found: format!("class {name:?}") });
        };
        all.extend(files.into_iter().map(|path| (path, label as u32)));
    }
    Ok((names, all))
}

fn nothing(folder: &Path, found: String) -> Error {
    let expected = "PNG or JPEG images (.png, .jpg, .jpeg), in a folder for each class".into();
    Error::Data { path: folder.into(), expected, found }
}

/// The PNG and JPEG files of a folder and of those below it, by name.
///
/// # Errors
/// A folder cannot be read.
pub fn images_below(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    gather(Entries::of(folder)?, &mut files, 0)?;
    Ok(files)
}

/// The images of a folder and those below it.
fn gather(entries: Entries, files: &mut Vec<PathBuf>, depth: usize) -> Result<()> {
    files.extend(entries.images);
    // Links may lead in circles.
    for folder in entries.folders.iter().filter(|_| depth < 16) {
        gather(Entries::of(folder)?, files, depth + 1)?;
    }
    Ok(())
}

/// What a folder has, by name; what is hidden is left out.
struct Entries {
    folders: Vec<PathBuf>,
    images: Vec<PathBuf>,
    others: usize,
}

impl Entries {
    fn of(folder: &Path) -> Result<Entries> {
        let mut found = Entries { folders: Vec::new(), images: Vec::new(), others: 0 };
        for entry in std::fs::read_dir(folder).map_err(Error::io(folder))? {
            let path = entry.map_err(Error::io(folder))?.path();
            let hidden = path.file_name().is_some_and(|name| name.to_string_lossy().starts_with('.'));
            let ending = path.extension().map(|ending| ending.to_string_lossy().to_ascii_lowercase());
            match ending.as_deref() {
                _ if hidden => {}
                _ if path.is_dir() => found.folders.push(path),
                Some("png" | "jpg" | "jpeg") => found.images.push(path),
                _ => found.others += 1,
            }
        }
        found.folders.sort();
        found.images.sort();
        Ok(found)
    }
}
