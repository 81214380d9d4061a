//! Image data sets: the embedded digits, CIFAR-10's binary layout, MNIST's idx files.

use std::io::Read;
use std::path::{Path, PathBuf};

use binade_tensor::Key;

use crate::{Data, Error, Result, Splits, Target};

/// 8-bit images with classes, normalised per channel on the way out.
#[derive(Clone, Debug)]
pub struct Images {
    pixels: Vec<u8>,
    labels: Vec<u8>,
    /// Channels, height, width.
    shape: [usize; 3],
    classes: usize,
    /// Value that means 1.
    white: f32,
    mean: Vec<f32>,
    std: Vec<f32>,
    /// Mirror images at random in training.
    flip: bool,
}

impl Data for Images {
    fn len(&self) -> usize {
        self.labels.len()
    }

    fn input_shape(&self) -> Vec<usize> {
        self.shape.to_vec()
    }

    fn target(&self) -> Target {
        Target::Classes(self.classes)
    }

    fn sample(&self, index: usize, key: Option<Key>, input: &mut [f32], target: &mut [f32]) {
        let [_, h, w] = self.shape;
        let from = &self.pixels[index * input.len()..][..input.len()];
        for (c, (plane, from)) in input.chunks_mut(h * w).zip(from.chunks(h * w)).enumerate() {
            let (scale, shift) = (1.0 / (self.white * self.std[c]), self.mean[c] / self.std[c]);
            plane.iter_mut().zip(from).for_each(|(x, &p)| *x = p as f32 * scale - shift);
        }
        if let Some(key) = key
            && self.flip
            && key.bits(index) & 1 == 1
        {
            input.chunks_mut(w).for_each(<[f32]>::reverse);
        }
        target[0] = self.labels[index] as f32;
    }
}

/// The data sets that `--dataset` names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dataset {
    /// 1,797 digits of 8×8, embedded: 1,437 for training.
    Digits,
    /// CIFAR-10: `data_batch_*.bin` and `test_batch.bin`.
    Cifar10,
    /// MNIST: four idx files, plain or `.gz`.
    Mnist,
    /// Fashion-MNIST: as MNIST.
    FashionMnist,
}

impl Dataset {
    /// All data sets.
    pub const ALL: [Dataset; 4] = [Dataset::Digits, Dataset::Cifar10, Dataset::Mnist, Dataset::FashionMnist];

    /// Name on the command line.
    pub const fn name(self) -> &'static str {
        match self {
            Dataset::Digits => "digits",
            Dataset::Cifar10 => "cifar10",
            Dataset::Mnist => "mnist",
            Dataset::FashionMnist => "fashion-mnist",
        }
    }

    /// Loads it, from a folder for all but the digits.
    ///
    /// # Errors
    /// No folder given; a file missing, torn or of another kind: which, what was expected, what was found.
    pub fn load(self, folder: Option<&Path>) -> Result<Splits> {
        let needed = || {
            folder.ok_or_else(|| Error::Config(format!("--dataset {} needs --data DIR, the folder with its files", self.name())))
        };
        match self {
            Dataset::Digits => digits(),
            Dataset::Cifar10 => cifar10(needed()?),
            Dataset::Mnist => idx(needed()?, 0.1307, 0.3081),
            Dataset::FashionMnist => idx(needed()?, 0.2860, 0.3530),
        }
    }
}

/// The embedded digits, split by a fixed permutation into 1,437 and 360.
///
/// # Errors
/// Out of memory.
pub fn digits() -> Result<Splits> {
    const PACKED: &[u8] = include_bytes!("../data/digits.bin.gz");
    let path = PathBuf::from("embedded digits");
    let mut bytes = Vec::new();
    flate2::read::GzDecoder::new(PACKED).read_to_end(&mut bytes).map_err(Error::io(&path))?;
    let order = crate::data::epoch_order(bytes.len() / 65, 0, 0)?;
    let part = |range: std::ops::Range<usize>| {
        let images = order[range].iter().map(|&i| &bytes[i * 65..(i + 1) * 65]);
        Images {
            pixels: images.clone().flat_map(|i| &i[..64]).copied().collect(),
            labels: images.map(|i| i[64]).collect(),
            shape: [1, 8, 8],
            classes: 10,
            white: 16.0,
            mean: vec![0.3053],
            std: vec![0.3760],
            flip: false,
        }
    };
    Ok(Splits::new(part(0..1437), part(1437..order.len())))
}

/// CIFAR-10 in its binary layout: per image a label byte and 3,072 bytes, planes R, G, B.
fn cifar10(folder: &Path) -> Result<Splits> {
    let mut batches: Vec<PathBuf> = std::fs::read_dir(folder)
        .map_err(Error::io(folder))?
        .filter_map(|entry| entry.ok().map(|e| e.path()))
        .filter(|p| p.file_name().and_then(|n| n.to_str()).is_some_and(|n| n.starts_with("data_batch_") && n.ends_with(".bin")))
        .collect();
    batches.sort();
    if batches.is_empty() {
        return Err(Error::Data {
            path: folder.into(),
            expected: "CIFAR-10's binary version: data_batch_1.bin … and test_batch.bin".into(),
            found: "no data_batch_*.bin".into(),
        });
    }
    let load = |paths: &[PathBuf], flip: bool| -> Result<Images> {
        let (mut pixels, mut labels) = (Vec::new(), Vec::new());
        for path in paths {
            let bytes = std::fs::read(path).map_err(Error::io(path))?;
            let bad = |found: String| Error::Data {
                path: path.clone(),
                expected: "images of 3073 bytes each: a label 0 to 9 and 3072 pixels".into(),
                found,
            };
            if bytes.is_empty() || !bytes.len().is_multiple_of(3073) {
                return Err(bad(format!("{} bytes", bytes.len())));
            }
            for (i, image) in bytes.chunks_exact(3073).enumerate() {
                if image[0] > 9 {
                    return Err(bad(format!("label {} at image {i}", image[0])));
                }
                labels.push(image[0]);
                pixels.extend_from_slice(&image[1..]);
            }
        }
        Ok(Images {
            pixels,
            labels,
            shape: [3, 32, 32],
            classes: 10,
            white: 255.0,
            mean: vec![0.4914, 0.4822, 0.4465],
            std: vec![0.2470, 0.2435, 0.2616],
            flip,
        })
    };
    Ok(Splits::new(load(&batches, true)?, load(&[folder.join("test_batch.bin")], false)?))
}

/// The four idx files of MNIST and its kin.
fn idx(folder: &Path, mean: f32, std: f32) -> Result<Splits> {
    let part = |prefix: &str| -> Result<Images> {
        let (images_path, images) = read_idx(folder, &format!("{prefix}-images"), 3)?;
        let (labels_path, labels) = read_idx(folder, &format!("{prefix}-labels"), 1)?;
        let size =
            |i: usize| u32::from_be_bytes([images[4 + 4 * i], images[5 + 4 * i], images[6 + 4 * i], images[7 + 4 * i]]) as usize;
        let (n, h, w) = (size(0), size(1), size(2));
        let expect = |path: &Path, bytes: &[u8], header: usize, body: usize| {
            if bytes.len() == header + body {
                return Ok(());
            }
            Err(Error::Data {
                path: path.into(),
                expected: format!("{} bytes after its header", body),
                found: format!("{}", bytes.len() - header),
            })
        };
        expect(&images_path, &images, 16, n * h * w)?;
        expect(&labels_path, &labels, 8, n)?;
        if let Some(bad) = labels[8..].iter().find(|&&l| l > 9) {
            return Err(Error::Data { path: labels_path, expected: "labels 0 to 9".into(), found: format!("label {bad}") });
        }
        if n == 0 || h * w == 0 {
            return Err(Error::Data {
                path: images_path,
                expected: "at least one image".into(),
                found: format!("{n} images of {h}×{w}"),
            });
        }
        let (pixels, labels) = (images[16..].to_vec(), labels[8..].to_vec());
        Ok(Images { pixels, labels, shape: [1, h, w], classes: 10, white: 255.0, mean: vec![mean], std: vec![std], flip: false })
    };
    Ok(Splits::new(part("train")?, part("t10k")?))
}

/// The bytes of an idx file of unsigned bytes with `dims` dimensions, unpacked if it is gzip.
fn read_idx(folder: &Path, stem: &str, dims: u8) -> Result<(PathBuf, Vec<u8>)> {
    let names = ["-idx", ".idx"].map(|s| format!("{stem}{s}{dims}-ubyte"));
    let candidates: Vec<PathBuf> = names.iter().flat_map(|n| [folder.join(n), folder.join(format!("{n}.gz"))]).collect();
    let Some(path) = candidates.iter().find(|p| p.exists()) else {
        return Err(Error::Data {
            path: folder.into(),
            expected: format!("{} (or .gz)", names[0]),
            found: "no such file".into(),
        });
    };
    let mut bytes = std::fs::read(path).map_err(Error::io(path))?;
    if bytes.starts_with(&[0x1f, 0x8b]) {
        let mut plain = Vec::new();
        flate2::read::GzDecoder::new(&bytes[..]).read_to_end(&mut plain).map_err(Error::io(path))?;
        bytes = plain;
    }
    let header = 4 + 4 * dims as usize;
    if bytes.len() < header || bytes[..4] != [0, 0, 8, dims] {
        let found = format!("{} bytes beginning {:02x?}", bytes.len(), &bytes[..bytes.len().min(4)]);
        return Err(Error::Data {
            path: path.clone(),
            expected: format!("an idx file of unsigned bytes in {dims} dimensions (00 00 08 0{dims})"),
            found,
        });
    }
    Ok((path.clone(), bytes))
}
