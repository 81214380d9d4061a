//! Event files of TensorBoard: the numbers of `metrics.jsonl`, the weights by power of two, and what the model makes.
//! Their form is TFRecord (a length and a message, each with a masked CRC-32C) around `Event` of TensorFlow's
//! `event.proto` and `summary.proto`.

mod message;

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use binade_nn::Module;
use crc::{CRC_32_ISCSI, Crc};

use crate::gallery::Whose;
use crate::metrics::Metrics;
use crate::picture::png;
use crate::{Error, Made, Precision, Result};
use message::Message;

/// Tags of what evaluations within epochs and after them tell alike.
const LOSS: &str = "test/loss";
const ACCURACY: &str = "test/accuracy";
const PERPLEXITY: &str = "test/perplexity";
const BITS: &str = "test/bits";

const CRC: Crc<u32> = Crc::<u32>::new(&CRC_32_ISCSI);

/// Names of event files: this, seconds and nanoseconds since 1970, and [`SUFFIX`].
const PREFIX: &str = "events.out.tfevents.";
const SUFFIX: &str = ".binade";

/// The time in the name of the last event file of a folder.
fn last(folder: &Path) -> Option<Duration> {
    let time = |name: &str| {
        let (seconds, nanos) = name.strip_prefix(PREFIX)?.strip_suffix(SUFFIX)?.split_once('.')?;
        Some(Duration::new(seconds.parse().ok()?, nanos.parse::<u32>().ok().filter(|nanos| *nanos < 1_000_000_000)?))
    };
    std::fs::read_dir(folder).ok()?.flatten().filter_map(|entry| time(entry.file_name().to_str()?)).max()
}

/// An event file that is being written.
pub(crate) struct Events {
    file: File,
    path: PathBuf,
}

impl Events {
    /// A new file in `tensorboard/PRECISION` of the run folder. What earlier ones tell of later iterations was not kept
    /// by the checkpoint, and TensorBoard leaves it out.
    pub(crate) fn create(folder: &Path, precision: Precision, iteration: u64) -> Result<Events> {
        let folder = folder.join("tensorboard").join(precision.name());
        std::fs::create_dir_all(&folder).map_err(Error::io(&folder))?;
        // Files are read in the order of their names, and the clock may have been put back since the last.
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let at = now.max(last(&folder).map_or(Duration::ZERO, |last| last.saturating_add(Duration::from_nanos(1))));
        let name = format!("{PREFIX}{:010}.{:09}{SUFFIX}", at.as_secs(), at.subsec_nanos());
        let path = folder.join(name);
        let file = File::create_new(&path).map_err(Error::io(&path))?;
        let mut events = Events { file, path };
        events.event(0, Message::default().blob(3, b"brain.Event:2"))?;
        if iteration > 0 {
            // A session begins: what has its step or a later one is gone.
            events.event(iteration + 1, Message::default().message(7, Message::default().varint(1, 1)))?;
        }
        Ok(events)
    }

    /// The numbers, each after as many iterations as it tells of.
    pub(crate) fn metrics(&mut self, metrics: &Metrics) -> Result<()> {
        let mut summary = Message::default();
        let mut scalar = |tag: &str, number: Option<f64>| {
            if let Some(number) = number {
                let value = Message::default().blob(1, tag.as_bytes()).float(2, number as f32);
                summary.add_message(1, value);
            }
        };
        let at = match metrics {
            Metrics::Step(step) => {
                scalar("train/loss", step.loss);
                scalar("train/lr", Some(step.lr));
                scalar("train/grad_norm", step.grad_norm);
                scalar("train/loss_scale", Some(step.loss_scale));
                scalar("train/skipped", Some(f64::from(u8::from(step.skipped))));
                step.iteration + 1
            }
            Metrics::Evaluation(numbers) => {
                scalar(LOSS, Some(numbers.test_loss));
                scalar(ACCURACY, numbers.test_accuracy);
                scalar(PERPLEXITY, numbers.test_perplexity);
                scalar(BITS, numbers.test_bits);
                numbers.iteration
            }
            Metrics::Epoch(epoch) => {
                scalar("epoch/train_loss", Some(epoch.train_loss));
                scalar("epoch/seconds", Some(epoch.seconds));
                scalar(LOSS, Some(epoch.test_loss));
                scalar(ACCURACY, epoch.test_accuracy);
                scalar(PERPLEXITY, epoch.test_perplexity);
                scalar(BITS, epoch.test_bits);
                epoch.iteration
            }
        };
        if let Metrics::Step(step) = metrics
            && let Some(blame) = &step.blame
        {
            summary.add_message(1, text("train/skipped step", &blame.to_string()));
        }
        self.event(at, Message::default().message(5, summary))
    }

    /// How large the parameters are, by power of two.
    pub(crate) fn weights(&mut self, iteration: u64, model: &dyn Module) -> Result<()> {
        let mut summary = Message::default();
        for (name, param) in model.named_parameters() {
            let values = param.array().to_f64_vec()?;
            let tag = format!("weights/{name}");
            summary.add_message(1, Message::default().blob(1, tag.as_bytes()).message(5, histogram(&values)));
        }
        self.event(iteration, Message::default().message(5, summary))
    }

    /// Images and texts that the model made.
    pub(crate) fn made(&mut self, iteration: u64, whose: Whose, made: &[Made]) -> Result<()> {
        let mut summary = Message::default();
        for (i, made) in made.iter().enumerate() {
            let end = if whose == Whose::Averaged { ", averaged" } else { "" };
            let tag = format!("samples/{}{end}", i + 1);
            summary.add_message(
                1,
                match made {
                    Made::Text(words) => text(&tag, words),
                    Made::Image { width, channels, pixels } => {
                        let height = pixels.len().checked_div(width * channels).unwrap_or(0);
                        let image = Message::default()
                            .varint(1, height as u64)
                            .varint(2, *width as u64)
                            .varint(3, *channels as u64)
                            .blob(4, &png(*width, *channels, pixels)?);
                        Message::default().blob(1, tag.as_bytes()).message(4, image)
                    }
                },
            );
        }
        if made.is_empty() { Ok(()) } else { self.event(iteration, Message::default().message(5, summary)) }
    }

    /// Writes an event in one piece, so that a kill leaves whole ones.
    fn event(&mut self, step: u64, what: Message) -> Result<()> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let event = Message::default().double(1, now.as_secs_f64()).varint(2, step).then(what).into_bytes();
        let length = (event.len() as u64).to_le_bytes();
        let mut record = Vec::with_capacity(event.len() + 16);
        record.extend(length);
        record.extend(masked(&length).to_le_bytes());
        record.extend_from_slice(&event);
        record.extend(masked(&event).to_le_bytes());
        self.file.write_all(&record).map_err(Error::io(&self.path))
    }
}

/// The checksum as TFRecord stores it: rotated and offset, since records of records would hold checksums of checksums.
fn masked(bytes: &[u8]) -> u32 {
    CRC.checksum(bytes).rotate_right(15).wrapping_add(0xa282_ead8)
}

/// A value of the plugin `text`: a tensor of one string.
fn text(tag: &str, words: &str) -> Message {
    const STRING: u64 = 7;
    let plugin = Message::default().message(1, Message::default().blob(1, b"text"));
    let one = Message::default().message(2, Message::default().varint(1, 1));
    let tensor = Message::default().varint(1, STRING).message(2, one).blob(8, words.as_bytes());
    Message::default().blob(1, tag.as_bytes()).message(9, plugin).message(8, tensor)
}

/// `HistogramProto` of the finite numbers: a bucket ends at each power of two between the smallest and the largest, of
/// both signs, and at 0.
fn histogram(values: &[f64]) -> Message {
    let finite = || values.iter().copied().filter(|v| v.is_finite());
    let exponents = || finite().filter(|v| *v != 0.0).map(|v| v.abs().log2().floor() as i32);
    let (low, high) = (exponents().min().unwrap_or(0), exponents().max().unwrap_or(0));
    let power = |e: i32| 2f64.powi(e).min(f64::MAX);
    let limits: Vec<f64> =
        (low..=high).rev().map(|e| -power(e)).chain([0.0]).chain((low..=high + 1).map(power)).collect();
    let mut counts = vec![0.0; limits.len()];
    finite().for_each(|v| counts[limits.partition_point(|limit| *limit < v).min(limits.len() - 1)] += 1.0);
    Message::default()
        .double(1, finite().reduce(f64::min).unwrap_or(0.0))
        .double(2, finite().reduce(f64::max).unwrap_or(0.0))
        .double(3, finite().count() as f64)
        .double(4, finite().sum())
        .double(5, finite().map(|v| v * v).sum())
        .doubles(6, &limits)
        .doubles(7, &counts)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 3720, B.4: 32 zeros, 32 ones, 0 to 31.
    #[test]
    fn checksums_are_those_of_castagnoli() {
        let counted: Vec<u8> = (0..32).collect();
        let sums = [[0; 32].as_slice(), &[0xff; 32], &counted].map(|bytes| CRC.checksum(bytes));
        assert_eq!(sums, [0x8a91_36aa, 0x62a8_ab43, 0x46dd_794e]);
        assert_eq!(masked(&[0; 32]), 0x8a91_36aau32.rotate_right(15).wrapping_add(0xa282_ead8));
    }

    #[test]
    fn a_new_file_comes_after_those_before_it_whatever_the_clock_says() {
        let folder = tempfile::tempdir().unwrap();
        let own = folder.path().join("tensorboard/fp32");
        std::fs::create_dir_all(&own).unwrap();
        assert_eq!(last(&own), None);
        // In the year 2100, and what is no event file.
        let future = own.join("events.out.tfevents.4102444800.999999999.binade");
        for name in [future.as_path(), &own.join("events.out.tfevents.9.binade"), &own.join("notes")] {
            std::fs::write(name, "").unwrap();
        }
        Events::create(folder.path(), Precision::Fp32, 7).unwrap();
        Events::create(folder.path(), Precision::Fp32, 9).unwrap();
        let mut names: Vec<_> = std::fs::read_dir(&own).unwrap().map(|entry| entry.unwrap().path()).collect();
        names.retain(|path| path.to_string_lossy().contains("tfevents.4"));
        names.sort();
        assert_eq!((names.len(), &names[0]), (3, &future));
        assert!(names[1].ends_with("events.out.tfevents.4102444801.000000000.binade"), "{names:?}");
    }

    #[test]
    fn a_histogram_has_every_finite_number_in_the_bucket_that_ends_above_it() {
        let bytes = histogram(&[0.0, 1.0, 1.5, 2.0, -0.75, f64::NAN, f64::INFINITY]).into_bytes();
        let expected = Message::default()
            .double(1, -0.75)
            .double(2, 2.0)
            .double(3, 5.0)
            .double(4, 3.75)
            .double(5, 0.75 * 0.75 + 1.0 + 2.25 + 4.0)
            .doubles(6, &[-2.0, -1.0, -0.5, 0.0, 0.5, 1.0, 2.0, 4.0])
            .doubles(7, &[0.0, 0.0, 1.0, 1.0, 0.0, 1.0, 2.0, 0.0]);
        assert_eq!(bytes, expected.into_bytes());
    }
}
