//! Image data sets: the embedded digits and icons, CIFAR's binary layouts, MNIST's idx files, any folder of images.

use std::io::Read;
use std::path::{Path, PathBuf};

use crate::augment::{Augment, Flip};
use crate::folder;
use crate::idx::Idx;
use crate::{Error, Resize, Result, Splits};

pub use crate::image_set::{ImageSet, Images, Source};

/// The data sets that `--dataset` names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dataset {
    /// 1,797 digits of 8×8, embedded: 1,437 for training.
    Digits,
    /// 214 Tango icons of 32×32 in colour and opacity, 9 categories, embedded: 190 for training.
    Icons,
    /// CIFAR-10: `data_batch_1.bin` to `data_batch_5.bin`, or the first of them, and `test_batch.bin`.
    Cifar10,
    /// CIFAR-100: `train.bin` and `test.bin`, of which the fine classes are learned.
    Cifar100,
    /// MNIST: four idx files, plain or `.gz`.
    Mnist,
    /// Fashion-MNIST: as MNIST.
    FashionMnist,
    /// PNG and JPEG files in a folder for each class.
    Folder,
}

impl Dataset {
    /// All data sets.
    pub const ALL: [Dataset; 7] = [
        Dataset::Digits,
        Dataset::Icons,
        Dataset::Cifar10,
        Dataset::Cifar100,
        Dataset::Mnist,
        Dataset::FashionMnist,
        Dataset::Folder,
    ];

    /// Name on the command line.
    pub const fn name(self) -> &'static str {
        match self {
            Dataset::Digits => "digits",
            Dataset::Icons => "icons",
            Dataset::Cifar10 => "cifar10",
            Dataset::Cifar100 => "cifar100",
            Dataset::Mnist => "mnist",
            Dataset::FashionMnist => "fashion-mnist",
            Dataset::Folder => "folder",
        }
    }

    /// Whether it ships with this library.
    pub const fn is_embedded(self) -> bool {
        matches!(self, Dataset::Digits | Dataset::Icons)
    }

    /// Training and test images of the whole set, of which files may hold a part; `None` for a folder.
    pub const fn sizes(self) -> Option<(usize, usize)> {
        match self {
            Dataset::Digits => Some((1_437, 360)),
            Dataset::Icons => Some((190, 24)),
            Dataset::Cifar10 | Dataset::Cifar100 => Some((50_000, 10_000)),
            Dataset::Mnist | Dataset::FashionMnist => Some((60_000, 10_000)),
            Dataset::Folder => None,
        }
    }

    /// Mean and standard deviation per channel of the training pixels, black 0 and white 1: an input is `(pixel − mean)
    /// / deviation`.
    pub const fn normalization(self) -> (&'static [f32], &'static [f32]) {
        match self {
            Dataset::Digits => (&[0.3053], &[0.3760]),
            // From −1 to 1, which half of the icons' pixels are, being transparent.
            Dataset::Icons | Dataset::Folder => (&[0.5; 4], &[0.5; 4]),
            Dataset::Cifar10 => (&[0.4914, 0.4822, 0.4465], &[0.2470, 0.2435, 0.2616]),
            Dataset::Cifar100 => (&[0.5071, 0.4865, 0.4409], &[0.2673, 0.2564, 0.2762]),
            Dataset::Mnist => (&[0.1307], &[0.3081]),
            Dataset::FashionMnist => (&[0.2860], &[0.3530]),
        }
    }

    /// Names of the classes; those of a folder are its folders'.
    pub const fn classes(self) -> &'static [&'static str] {
        match self {
            Dataset::Digits | Dataset::Mnist => &["0", "1", "2", "3", "4", "5", "6", "7", "8", "9"],
            Dataset::Icons => {
                &["actions", "apps", "categories", "devices", "emblems", "emotes", "mimetypes", "places", "status"]
            }
            Dataset::Cifar10 => {
                &["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]
            }
            Dataset::Cifar100 => &crate::cifar100::CLASSES,
            Dataset::FashionMnist => {
                &["t-shirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle boot"]
            }
            Dataset::Folder => &[],
        }
    }

    /// What is done to training images where nothing else is said: things that may stand either way round are
    /// mirrored.
    pub const fn augment(self) -> Augment {
        let flip = match self {
            Dataset::Cifar10 | Dataset::Cifar100 | Dataset::Icons => Flip::Random,
            Dataset::Digits | Dataset::Mnist | Dataset::FashionMnist | Dataset::Folder => Flip::Off,
        };
        Augment { crop: 0, flip, rand_augment: None, cutout: 0, mixup: 0.0, cutmix: 0.0 }
    }

    /// Loads it, from a folder for all that are not embedded.
    ///
    /// # Errors
    /// As [`Dataset::open`].
    pub fn load(self, folder: Option<&Path>) -> Result<Splits> {
        Ok(self.open(&Source { folder, ..Source::default() })?.splits())
    }

    /// Opens it.
    ///
    /// # Errors
    /// No folder given; a file missing, torn, of another kind or beyond 1 GiB: which, what was expected, what was
    /// found. Of a folder of images: one without images, images beside the classes' folders, a class that is only
    /// tested, images of several sizes where none is given, or beyond 4 GiB together.
    pub fn open(self, source: &Source<'_>) -> Result<ImageSet> {
        let resize = source.size.map(Resize::square);
        self.read(source, resize.as_ref().filter(|_| self == Dataset::Folder))
    }

    /// As [`Dataset::open`], with all images made as large as `resize` says, whichever set it is.
    ///
    /// # Errors
    /// As [`Dataset::open`].
    pub fn open_as(self, source: &Source<'_>, resize: &Resize) -> Result<ImageSet> {
        let set = self.read(source, Some(resize))?;
        if self == Dataset::Folder { Ok(set) } else { set.resized(resize) }
    }

    fn read(self, source: &Source<'_>, resize: Option<&Resize>) -> Result<ImageSet> {
        let needed = || {
            source.folder.ok_or_else(|| {
                Error::Config(format!("--dataset {} needs --data DIR, the folder with its files", self.name()))
            })
        };
        let (train, test) = match self {
            Dataset::Digits => digits()?,
            Dataset::Icons => icons()?,
            Dataset::Cifar10 => cifar10(needed()?)?,
            Dataset::Cifar100 => crate::cifar100::read(needed()?)?,
            Dataset::Mnist | Dataset::FashionMnist => mnist(self, needed()?)?,
            Dataset::Folder => return folder::open(needed()?, source, resize),
        };
        let classes = self.classes().iter().map(|name| name.to_string()).collect();
        Ok(ImageSet { train, test, classes, skipped: Vec::new() })
    }
}

/// The embedded digits, split by a fixed permutation into 1,437 and 360.
fn digits() -> Result<(Images, Images)> {
    const PACKED: &[u8] = include_bytes!("../data/digits.bin.gz");
    let images = unpacked("embedded digits", PACKED, 65)?;
    let part = |range: std::ops::Range<usize>| {
        let images = images[range].iter();
        let pixels = images.clone().flat_map(|i| &i[..64]).copied().collect();
        Images::new(Dataset::Digits, pixels, images.map(|i| i[64] as u32).collect(), [1, 8, 8], 16.0)
    };
    Ok((part(0..1437), part(1437..images.len())))
}

/// The embedded icons, split by a fixed permutation into 190 and 24.
fn icons() -> Result<(Images, Images)> {
    const PACKED: &[u8] = include_bytes!("../data/icons.bin.gz");
    let images = unpacked("embedded icons", PACKED, 4097)?;
    let part = |range: std::ops::Range<usize>| {
        let images = images[range].iter();
        let pixels = images.clone().flat_map(|i| &i[1..]).copied().collect();
        Images::new(Dataset::Icons, pixels, images.map(|i| i[0] as u32).collect(), [4, 32, 32], 255.0)
    };
    Ok((part(24..images.len()), part(0..24)))
}

/// Records of so many bytes, in the order of a fixed permutation.
fn unpacked(name: &str, packed: &[u8], record: usize) -> Result<Vec<Vec<u8>>> {
    let mut bytes = Vec::new();
    flate2::read::GzDecoder::new(packed).read_to_end(&mut bytes).map_err(Error::io(&PathBuf::from(name)))?;
    let order = crate::batch::epoch_order(bytes.len() / record, 0, 0)?;
    Ok(order.into_iter().map(|i| bytes[i * record..(i + 1) * record].to_vec()).collect())
}

/// Bytes of pixels in one file at most: far above any set of these forms, and told before memory is taken for them.
pub(crate) const MOST: u64 = 1 << 30;

/// CIFAR-10 in its binary layout: per image a label byte and 3,072 bytes, planes R, G, B.
fn cifar10(folder: &Path) -> Result<(Images, Images)> {
    let number = |name: &str| name.strip_prefix("data_batch_")?.strip_suffix(".bin")?.parse::<usize>().ok();
    let entries = std::fs::read_dir(folder).map_err(Error::io(folder))?;
    let numbers = entries.filter_map(|entry| number(entry.ok()?.file_name().to_str()?));
    let Some(last) = numbers.max() else {
        return Err(Error::Data {
            path: folder.into(),
            expected: "CIFAR-10's binary version: data_batch_1.bin … and test_batch.bin".into(),
            found: "no data_batch_*.bin".into(),
        });
    };
    let batches: Vec<PathBuf> = (1..=last.min(5)).map(|i| folder.join(format!("data_batch_{i}.bin"))).collect();
    let load = |paths: &[PathBuf]| labelled_images(Dataset::Cifar10, paths, 1);
    Ok((load(&batches)?, load(&[folder.join("test_batch.bin")])?))
}

/// Images of 3 × 32 × 32 bytes, each after its label, which is the last of so many.
pub(crate) fn labelled_images(set: Dataset, paths: &[PathBuf], label_bytes: usize) -> Result<Images> {
    let (mut pixels, mut labels, one) = (Vec::new(), Vec::new(), label_bytes + 3072);
    let last = set.classes().len() - 1;
    for path in paths {
        let bad = |found: String| Error::Data {
            path: path.clone(),
            expected: format!("images of {one} bytes each, at most 1 GiB: a label 0 to {last} and 3072 pixels"),
            found,
        };
        let size = std::fs::metadata(path).map_err(Error::io(path))?.len();
        if size == 0 || !size.is_multiple_of(one as u64) || size > MOST {
            return Err(bad(format!("{size} bytes")));
        }
        let bytes = std::fs::read(path).map_err(Error::io(path))?;
        for (i, image) in bytes.chunks_exact(one).enumerate() {
            let (label, image) = (image[label_bytes - 1], &image[label_bytes..]);
            if label as usize > last {
                return Err(bad(format!("label {label} at image {i}")));
            }
            labels.push(label.into());
            pixels.extend_from_slice(image);
        }
    }
    Ok(Images::new(set, pixels, labels, [3, 32, 32], 255.0))
}

/// The four idx files of MNIST and its kin.
fn mnist(set: Dataset, folder: &Path) -> Result<(Images, Images)> {
    let part = |prefix: &str| -> Result<Images> {
        let images = Idx::open(folder, &format!("{prefix}-images"), 3)?;
        let labels = Idx::open(folder, &format!("{prefix}-labels"), 1)?;
        let (n, h, w) = (images.extents[0], images.extents[1], images.extents[2]);
        let bad =
            |path: &Path, expected: String, found: String| Err(Error::Data { path: path.into(), expected, found });
        if n * h * w == 0 {
            return bad(&images.path, "at least one image".into(), format!("{n} images of {h}×{w}"));
        }
        if labels.extents[0] != n {
            return bad(
                &labels.path,
                format!("{n} labels, one for each image"),
                format!("a header for {}", labels.extents[0]),
            );
        }
        let path = labels.path.clone();
        let (labels, pixels) = (labels.read()?, images.read()?);
        if let Some(label) = labels.iter().find(|&&l| l > 9) {
            return bad(&path, "labels 0 to 9".into(), format!("label {label}"));
        }
        let labels = labels.into_iter().map(u32::from).collect();
        Ok(Images::new(set, pixels, labels, [1, h, w], 255.0))
    };
    let (train, test) = (part("train")?, part("t10k")?);
    if train.shape != test.shape {
        let size = |[_, h, w]: [usize; 3]| format!("images of {h}×{w}");
        let (expected, found) = (size(train.shape) + ", as for training", size(test.shape));
        return Err(Error::Data { path: folder.join("t10k-images-idx3-ubyte"), expected, found });
    }
    Ok((train, test))
}
