//! Pictures of the samples that a model was surest about and wrong, for people and for the report.

use std::path::{Path, PathBuf};

use binade_nn::replace_file;

use crate::answers::Confused;
use crate::data::Values;
use crate::picture::{grid, png};
use crate::{Answers, Data, Error, Numbers, Pixels, Precision, Resize, Result};

const FOLDER: &str = "confused";
/// Larger images are made smaller: a page holds many.
const SIDE: usize = 96;

fn path(folder: &Path, precision: &str, sample: u64) -> PathBuf {
    folder.join(FOLDER).join(format!("{precision}-{sample}.png"))
}

/// Writes the pictures of a precision in the place of those before, as far as samples are images.
pub(crate) fn write(folder: &Path, precision: Precision, answers: &Answers, test: &dyn Data) -> Result<()> {
    let mut pictures = Vec::new();
    for one in &answers.confused {
        let index = one.sample as usize;
        let sample = test.sample(index, None);
        let sample = sample.map_err(|e| Error::Sample { set: "test", index, message: e.to_string() })?;
        let Some(bytes) = sample.0.first().map(picture).transpose()?.flatten() else { return Ok(()) };
        pictures.push((path(folder, precision.name(), one.sample), bytes));
    }
    let folder = folder.join(FOLDER);
    for old in std::fs::read_dir(&folder).into_iter().flatten().flatten() {
        if old.file_name().to_string_lossy().starts_with(&format!("{}-", precision.name())) {
            std::fs::remove_file(old.path()).map_err(Error::io(&old.path()))?;
        }
    }
    if pictures.is_empty() {
        return Ok(());
    }
    std::fs::create_dir_all(&folder).map_err(Error::io(&folder))?;
    for (path, bytes) in pictures {
        replace_file(&path, |file| file.write_all(&bytes)).map_err(Error::io(&path))?;
    }
    Ok(())
}

/// The pictures that were written, each with what it is of.
pub(crate) fn shown<'a>(folder: &Path, precision: &str, answers: &'a Answers) -> Vec<(&'a Confused, Vec<u8>)> {
    let read = |one: &'a Confused| Some((one, std::fs::read(path(folder, precision, one.sample)).ok()?));
    answers.confused.iter().filter_map(read).collect()
}

/// A PNG file of numbers `[C, H, W]` in one to four channels, from the least as black to the largest as white.
fn picture(values: &Values) -> Result<Option<Vec<u8>>> {
    let (Numbers::F32(numbers), [channels @ (1 | 3 | 4), height, width]) = (&values.numbers, &values.shape[..]) else {
        return Ok(None);
    };
    let finite = || numbers.iter().copied().filter(|x| x.is_finite());
    let (low, high) = finite().fold((f32::INFINITY, f32::NEG_INFINITY), |(low, high), x| (low.min(x), high.max(x)));
    let scale = 2.0 / f64::from(high - low).max(f64::MIN_POSITIVE);
    let scaled: Vec<f64> = numbers.iter().map(|x| (f64::from(*x) - f64::from(low)) * scale - 1.0).collect();
    let (wide, channels, pixels) = grid(&scaled, [1, *channels, *height, *width], 1);
    let mut image = Pixels { width: wide, height: height + 2, channels, bytes: pixels };
    if (*height).min(*width) > SIDE {
        image = image.prepared(&Resize::square(SIDE));
    }
    png(image.width, image.channels, &image.bytes).map(Some)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::InMemory;

    #[test]
    fn pictures_are_of_the_samples_that_were_confused() {
        let folder = tempfile::tempdir().unwrap();
        let inputs = (0..3 * 4).map(|i| i as f32).collect();
        let data = InMemory::classes(inputs, &[1, 2, 2], &[0, 1, 0]).unwrap();
        let mut answers = Answers::new(2, &[]);
        for (logits, class) in [([0.0, 5.0], 0), ([0.0, 5.0], 1), ([0.0, 9.0], 0)] {
            answers.count(&logits, class);
        }
        write(folder.path(), Precision::Fp32, &answers, &data).unwrap();
        let told: Vec<u64> = shown(folder.path(), "fp32", &answers).iter().map(|(one, _)| one.sample).collect();
        assert_eq!(told, [2, 0], "the surest mistake first");
        let image = Pixels::open(&path(folder.path(), "fp32", 2)).unwrap();
        // Black to white, in a white frame of a pixel.
        assert_eq!((image.width, image.height, image.bytes[5], image.bytes[10]), (4, 4, 0, 255));
        // What was there before is no longer shown.
        write(folder.path(), Precision::Fp32, &Answers::new(2, &[]), &data).unwrap();
        assert!(shown(folder.path(), "fp32", &answers).is_empty());
        // What is no image has no picture.
        let data = InMemory::classes(vec![0.5; 12], &[4], &[0, 1, 0]).unwrap();
        write(folder.path(), Precision::Fp32, &answers, &data).unwrap();
        assert!(shown(folder.path(), "fp32", &answers).is_empty());
    }
}
