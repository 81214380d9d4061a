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

/// A file that a model made.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Shown {
    /// Whether it is of the trained model.
    pub at_end: bool,
    /// After which epoch, and whose, if it is not.
    pub title: String,
    /// The text; `None` of an image.
    pub text: Option<String>,
    /// The PNG file of an image.
    pub bytes: Vec<u8>,
}

const FOLDER: &str = "samples";

/// Writes what was made after an epoch: images as PNG and texts as they are.
pub(crate) fn write(folder: &Path, precision: Precision, epoch: u64, whose: Whose, made: &[Made]) -> Result<()> {
    let end = if whose == Whose::Averaged { "-averaged" } else { "" };
    files(folder, &format!("{}-epoch-{epoch:03}{end}", precision.name()), made)
}

/// Writes what the trained model makes.
pub(crate) fn write_end(folder: &Path, precision: Precision, made: &[Made]) -> Result<()> {
    files(folder, &format!("{}-end", precision.name()), made)
}

fn files(folder: &Path, stem: &str, made: &[Made]) -> Result<()> {
    if made.is_empty() {
        return Ok(());
    }
    let folder = folder.join(FOLDER);
    std::fs::create_dir_all(&folder).map_err(Error::io(&folder))?;
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

/// What the model of a precision made, in order of the epochs: the parameters' before their averages', and at the end.
pub(crate) fn shown(folder: &Path, precision: &str) -> Vec<Shown> {
    let Ok(entries) = std::fs::read_dir(folder.join(FOLDER)) else { return Vec::new() };
    let begin = format!("{precision}-");
    let of = |path: PathBuf| {
        let name = path.file_stem()?.to_str()?.strip_prefix(&begin)?.to_string();
        let is_text = path.extension().is_some_and(|end| end == "txt");
        let bytes = std::fs::read(&path).ok()?;
        if is_text {
            return Some((name, Some(String::from_utf8_lossy(&bytes).into_owned()), Vec::new()));
        }
        path.extension().is_some_and(|end| end == "png").then_some((name, None, bytes))
    };
    let mut all: Vec<_> = entries.filter_map(|entry| of(entry.ok()?.path())).collect();
    // The tenth is after the ninth.
    all.sort_by_key(|(name, ..)| (name.trim_end_matches(char::is_numeric).to_string(), name.len(), name.clone()));
    let one = |(name, text, bytes): (String, Option<String>, Vec<u8>)| {
        let Some(name) = name.strip_prefix("epoch-") else {
            return Shown { at_end: true, title: String::new(), text, bytes };
        };
        let (epoch, rest) = name.split_once('-').unwrap_or((name, ""));
        let title = format!("epoch {} {}", epoch.trim_start_matches('0'), rest.replace('-', " "));
        Shown { at_end: false, title: title.trim_end().into(), text, bytes }
    };
    all.into_iter().map(one).collect()
}
