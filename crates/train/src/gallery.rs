//! What a model makes while it is trained: files in the folder `samples` of a run, for people and for the report.

use std::path::{Path, PathBuf};

use binade_nn::replace_file;

use crate::picture::png;
use crate::{Error, Made, Precision, Result};

/// Whose samples they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Whose {
    /// The parameters'.
    Raw,
    /// Their averages'.
    Averaged,
}

/// An image that a model made, as a PNG file.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Picture {
    /// What it is.
    pub title: String,
    /// The file.
    pub png: Vec<u8>,
}

const FOLDER: &str = "samples";

fn stem(precision: &str, epoch: u64, whose: Whose) -> String {
    let end = if whose == Whose::Averaged { "-averaged" } else { "" };
    format!("{precision}-epoch-{epoch:03}{end}")
}

/// Writes images as PNG and texts as they are.
pub(crate) fn write(folder: &Path, precision: Precision, epoch: u64, whose: Whose, made: &[Made]) -> Result<()> {
    if made.is_empty() {
        return Ok(());
    }
    let folder = folder.join(FOLDER);
    std::fs::create_dir_all(&folder).map_err(Error::io(&folder))?;
    let stem = stem(precision.name(), epoch, whose);
    for (i, made) in made.iter().enumerate() {
        let (bytes, end) = match made {
            Made::Text(text) => (text.clone().into_bytes(), "txt"),
            Made::Image { width, channels, pixels } => (png(*width, *channels, pixels)?, "png"),
        };
        let number = if i == 0 { String::new() } else { format!("-{}", i + 1) };
        let path = folder.join(format!("{stem}{number}.{end}"));
        replace_file(&path, |file| file.write_all(&bytes)).map_err(Error::io(&path))?;
    }
    Ok(())
}

/// The images of a precision, in order of the epochs: the parameters' before their averages'.
pub(crate) fn images(folder: &Path, precision: &str) -> Vec<Picture> {
    let Ok(entries) = std::fs::read_dir(folder.join(FOLDER)) else { return Vec::new() };
    let begin = format!("{precision}-epoch-");
    let of = |path: PathBuf| {
        let name = path.file_stem()?.to_str()?.strip_prefix(&begin)?.to_string();
        let is_png = path.extension().is_some_and(|end| end == "png");
        Some((name, std::fs::read(&path).ok().filter(|_| is_png)?))
    };
    let mut all: Vec<_> = entries.filter_map(|entry| of(entry.ok()?.path())).collect();
    all.sort();
    let title = |name: &str| {
        let (epoch, rest) = name.split_once('-').unwrap_or((name, ""));
        let rest = rest.replace('-', " ");
        format!("epoch {} {rest}", epoch.trim_start_matches('0')).trim_end().to_string()
    };
    all.into_iter().map(|(name, png)| Picture { title: title(&name), png }).collect()
}
