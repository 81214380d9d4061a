//! [`Augment`]: what is done to training images, each time differently. Everything drawn depends on the seed, the epoch
//! and the sample's number alone, so that a resumed run draws the same.

use binade_tensor::Key;
use binade_tensor::random::{below, normal_pair, uniform};
use serde::{Deserialize, Serialize};

use crate::rand_augment::RandAugment;
use crate::{Error, Result};

/// Whether images are mirrored, left and right.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Flip {
    /// Never.
    #[default]
    Off,
    /// Each time with probability ½.
    Random,
    /// In the first epoch with probability ½, and from then on in turn: an image is seen either way round equally often
    /// (Jordan, 2024).
    Alternating,
}

/// What is done to training images, in this order. By default nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Augment {
    /// Pixels by which an image is continued on each side as in a mirror, before one of its size is cut out at random.
    pub crop: usize,
    /// Whether it is mirrored.
    pub flip: Flip,
    /// Changes of colour and form, drawn from a list.
    pub rand_augment: Option<RandAugment>,
    /// Side of a square that becomes the mean (DeVries and Taylor, 2017); its middle is anywhere in the image.
    pub cutout: usize,
    /// α of the Beta distribution from which comes the share of an image in its mixture with another (Zhang et al.,
    /// 2018); 0 for none.
    pub mixup: f64,
    /// α of the Beta distribution from which comes the area that another image leaves of an image (Yun et al., 2019);
    /// 0 for none. With [`Augment::mixup`] each of the two has every other image.
    pub cutmix: f64,
}

/// An image while it is changed: values `[channels, height, width]` from 0 to `white`.
pub(crate) struct Canvas {
    pub values: Vec<f32>,
    pub shape: [usize; 3],
    pub white: f32,
}

/// Another image, and what is left of the first when both are in one.
pub(crate) struct Mixture {
    /// The other's number.
    pub other: usize,
    /// Share of the first image, by which its class counts.
    pub share: f32,
    /// Rows and columns that are the other's, from and to; `None` where every pixel is of both.
    pub patch: Option<[[usize; 2]; 2]>,
}

impl Augment {
    /// Fails where a setting is outside its domain.
    ///
    /// # Errors
    /// [`Error::Config`], with the setting and its value.
    pub fn check(&self) -> Result<()> {
        for (name, value) in [("mixup", self.mixup), ("cutmix", self.cutmix)] {
            if !(value >= 0.0 && value.is_finite()) {
                return Err(Error::Config(format!("{name} must be at least 0 and finite, got {value}")));
            }
        }
        self.rand_augment.map_or(Ok(()), |rand_augment| rand_augment.check())
    }

    /// Changes an image; `mean` is of each channel, from 0 to 1.
    pub(crate) fn apply(&self, canvas: &mut Canvas, mean: &[f32], key: Key, index: usize) {
        let [_, h, w] = canvas.shape;
        if self.crop > 0 {
            let [a, b, c, d] = words(key, "crop", index, 0);
            let at = |high, low| below(high, low, 2 * self.crop as u64 + 1) as isize - self.crop as isize;
            let (y, x) = (at(a, b), at(c, d));
            canvas.each_from(|row, column| [mirrored(row as isize + y, h), mirrored(column as isize + x, w)]);
        }
        if self.flip.flips(key, index) {
            canvas.values.chunks_mut(w).for_each(<[f32]>::reverse);
        }
        if let Some(rand_augment) = &self.rand_augment {
            rand_augment.apply(canvas, key, index);
        }
        if self.cutout > 0 {
            let [a, b, c, d] = words(key, "cutout", index, 0);
            let [rows, columns] =
                [span(below(a, b, h as u64), self.cutout, h), span(below(c, d, w as u64), self.cutout, w)];
            for (plane, mean) in canvas.values.chunks_mut(h * w).zip(mean) {
                for row in rows[0]..rows[1] {
                    plane[row * w + columns[0]..row * w + columns[1]].fill(mean * canvas.white);
                }
            }
        }
    }

    /// With which of so many images of this height and width an image is mixed, and how; `None` where none are.
    pub(crate) fn mixture(&self, key: Key, index: usize, count: usize, [h, w]: [usize; 2]) -> Option<Mixture> {
        let [a, b, which, _] = words(key, "mix", index, 0);
        let cut = self.cutmix > 0.0 && (self.mixup == 0.0 || which & 1 == 1);
        let alpha = if cut { self.cutmix } else { self.mixup };
        if alpha == 0.0 {
            return None;
        }
        let (other, share) = (below(a, b, count as u64) as usize, beta(alpha, key, index));
        if !cut {
            return Some(Mixture { other, share: share as f32, patch: None });
        }
        let side = (1.0 - share).sqrt();
        let [a, b, c, d] = words(key, "patch", index, 0);
        let of = |at: u64, extent: usize| span(at, (extent as f64 * side) as usize, extent);
        let [rows, columns] = [of(below(a, b, h as u64), h), of(below(c, d, w as u64), w)];
        // What the other has of the image, at whose edges its patch may end.
        let area = (rows[1] - rows[0]) * (columns[1] - columns[0]);
        Some(Mixture { other, share: 1.0 - area as f32 / (h * w) as f32, patch: Some([rows, columns]) })
    }
}

impl Flip {
    fn flips(self, key: Key, index: usize) -> bool {
        match self {
            Flip::Off => false,
            Flip::Random => key.bits(index) & 1 == 1,
            Flip::Alternating => {
                let first = Key { iteration: 0, ..key }.bits(index) & 1;
                (first as u64 + key.iteration) & 1 == 1
            }
        }
    }
}

impl Canvas {
    /// Puts in every place of every channel the value of the place that `from` gives for its row and column.
    pub(crate) fn each_from(&mut self, from: impl Fn(usize, usize) -> [usize; 2]) {
        let [_, h, w] = self.shape;
        let places: Vec<usize> = (0..h * w)
            .map(|at| {
                let [row, column] = from(at / w, at % w);
                row * w + column
            })
            .collect();
        let old = self.values.clone();
        for (plane, old) in self.values.chunks_mut(h * w).zip(old.chunks(h * w)) {
            plane.iter_mut().zip(&places).for_each(|(value, &place)| *value = old[place]);
        }
    }
}

impl Mixture {
    /// Puts the other image in; both are `[channels, height, width]`.
    pub(crate) fn mix(&self, image: &mut [f32], other: &[f32], [_, h, w]: [usize; 3]) {
        match self.patch {
            None => image.iter_mut().zip(other).for_each(|(x, &y)| *x = self.share * *x + (1.0 - self.share) * y),
            Some([rows, columns]) => {
                for (image, other) in image.chunks_mut(h * w).zip(other.chunks(h * w)) {
                    for row in rows[0]..rows[1] {
                        let range = row * w + columns[0]..row * w + columns[1];
                        image[range.clone()].copy_from_slice(&other[range]);
                    }
                }
            }
        }
    }
}

/// Random words for a purpose; a key has them for every sample, round and repetition in an epoch.
pub(crate) fn words(key: Key, purpose: &str, index: usize, round: u32) -> [u32; 4] {
    let key = key.stream(purpose);
    Key { op: key.op.wrapping_add(round << 16), ..key }.block(index as u32)
}

/// A place of an axis of `n` that is continued as in a mirror: −1 is 1.
fn mirrored(at: isize, n: usize) -> usize {
    let period = (2 * n as isize - 2).max(1);
    let at = at.rem_euclid(period);
    at.min(period - at) as usize % n.max(1)
}

/// From and to of so many places around `middle`, as far as they are in an axis of `n`.
fn span(middle: u64, side: usize, n: usize) -> [usize; 2] {
    let first = middle as usize as isize - (side / 2) as isize;
    [first.max(0) as usize, (first + side as isize).clamp(0, n as isize) as usize]
}

/// From Beta(α, α): two numbers from Gamma(α) and the share of one (Marsaglia and Tsang, 2000).
fn beta(alpha: f64, key: Key, index: usize) -> f64 {
    let [a, b] = ["share", "rest"].map(|part| gamma(alpha, key.stream(part), index));
    // Of very small α both may be 0.
    if a + b > 0.0 { a / (a + b) } else { 0.5 }
}

fn gamma(alpha: f64, key: Key, index: usize) -> f64 {
    // Below 1 by a number of α + 1 and a uniform one.
    let d = (if alpha < 1.0 { alpha + 1.0 } else { alpha }) - 1.0 / 3.0;
    let c = 1.0 / (9.0 * d).sqrt();
    // Each round is accepted with a probability above 0.95.
    for round in 0..1 << 10 {
        let [a, b, u, v] = words(key, "gamma", index, round);
        let normal = normal_pair(a, b)[0];
        let cube = (1.0 + c * normal).powi(3);
        let open = |bits: u32| 1.0 - uniform(bits) as f64;
        if cube > 0.0 && open(u).ln() < 0.5 * normal * normal + d * (1.0 - cube + cube.ln()) {
            return d * cube * if alpha < 1.0 { open(v).powf(1.0 / alpha) } else { 1.0 };
        }
    }
    d
}
