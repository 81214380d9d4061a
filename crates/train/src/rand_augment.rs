//! [`RandAugment`]: some changes of colour and form, drawn from a list (Cubuk et al., 2019). Changes and strengths are
//! torchvision's.

use binade_tensor::Key;
use binade_tensor::random::{below, uniform};
use serde::{Deserialize, Serialize};

use crate::augment::{Canvas, words};
use crate::{Error, Result};

/// How many changes an image gets, and how strong they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RandAugment {
    /// Changes, one after the other.
    pub changes: usize,
    /// Strength of each, from 0 to 30.
    pub strength: u32,
}

/// One change; those with a direction are drawn with a sign.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Change {
    Identity,
    ShearX,
    ShearY,
    TranslateX,
    TranslateY,
    Rotate,
    Brightness,
    Colour,
    Contrast,
    Sharpness,
    Posterize,
    Solarize,
    AutoContrast,
    Equalize,
}

use Change::*;

const CHANGES: [Change; 14] = [
    Identity,
    ShearX,
    ShearY,
    TranslateX,
    TranslateY,
    Rotate,
    Brightness,
    Colour,
    Contrast,
    Sharpness,
    Posterize,
    Solarize,
    AutoContrast,
    Equalize,
];

/// The largest strength.
const MOST: u32 = 30;

impl RandAugment {
    pub(crate) fn check(&self) -> Result<()> {
        if self.changes == 0 || self.changes > 100 || self.strength > MOST {
            let RandAugment { changes, strength } = self;
            return Err(Error::Config(format!(
                "RandAugment wants 1 to 100 changes of a strength from 0 to {MOST}, got {changes} and {strength}"
            )));
        }
        Ok(())
    }

    pub(crate) fn apply(&self, canvas: &mut Canvas, key: Key, index: usize) {
        let strength = self.strength as f32 / MOST as f32;
        for round in 0..self.changes as u32 {
            let [a, b, sign, _] = words(key, "rand augment", index, round);
            let sign = if uniform(sign) < 0.5 { -1.0 } else { 1.0 };
            CHANGES[below(a, b, CHANGES.len() as u64) as usize].apply(canvas, strength, sign);
        }
    }
}

impl Change {
    /// With a strength from 0 to 1.
    fn apply(self, canvas: &mut Canvas, strength: f32, sign: f32) {
        let [_, _, w] = canvas.shape;
        let white = canvas.white;
        let signed = sign * strength;
        match self {
            Identity => {}
            ShearX => canvas.mapped([[1.0, 0.0], [0.3 * signed, 1.0]], [0.0, 0.0]),
            ShearY => canvas.mapped([[1.0, 0.3 * signed], [0.0, 1.0]], [0.0, 0.0]),
            TranslateX => canvas.mapped([[1.0, 0.0], [0.0, 1.0]], [0.0, (150.0 / 331.0 * w as f32 * signed).trunc()]),
            TranslateY => canvas.mapped([[1.0, 0.0], [0.0, 1.0]], [(150.0 / 331.0 * w as f32 * signed).trunc(), 0.0]),
            Rotate => {
                let (sin, cos) = (30.0 * signed).to_radians().sin_cos();
                canvas.mapped([[cos, -sin], [sin, cos]], [0.0, 0.0]);
            }
            Brightness => canvas.colours().iter_mut().for_each(|v| *v = (*v * (1.0 + 0.9 * signed)).clamp(0.0, white)),
            Colour => {
                let grey = canvas.grey();
                canvas.blended(|_, at| grey[at], 1.0 + 0.9 * signed);
            }
            Contrast => {
                let grey = canvas.grey();
                let mean = grey.iter().sum::<f32>() / grey.len().max(1) as f32;
                canvas.blended(|_, _| mean, 1.0 + 0.9 * signed);
            }
            Sharpness => {
                let smooth = canvas.smoothed();
                let plane = canvas.plane();
                canvas.blended(|channel, at| smooth[channel * plane + at], 1.0 + 0.9 * signed);
            }
            Posterize => {
                // Of 8 bits, 4 at the largest strength.
                let lost = (4.0 * strength).round() as u32;
                let step = (1u32 << lost) as f32 * white / 255.0;
                canvas.colours().iter_mut().filter(|_| lost > 0).for_each(|v| *v = (*v / step).floor() * step);
            }
            Solarize => {
                let from = white * (1.0 - strength);
                canvas.colours().iter_mut().filter(|v| strength > 0.0 && **v >= from).for_each(|v| *v = white - *v);
            }
            AutoContrast => canvas.each_plane(|plane| {
                let (low, high) = plane.iter().fold((f32::MAX, f32::MIN), |(a, b), &v| (a.min(v), b.max(v)));
                if high > low {
                    plane.iter_mut().for_each(|v| *v = (*v - low) / (high - low) * white);
                }
            }),
            Equalize => canvas.each_plane(|plane| equalized(plane, white)),
        }
    }
}

/// Values so spread that each of 256 steps has about as many pixels, as Pillow does it.
fn equalized(plane: &mut [f32], white: f32) {
    let step = |v: f32| ((v / white * 255.0).round() as usize).min(255);
    let mut counts = [0usize; 256];
    plane.iter().for_each(|&v| counts[step(v)] += 1);
    let last = counts.iter().rev().find(|n| **n > 0).copied().unwrap_or(0);
    let each = (plane.len() - last) / 255;
    if each == 0 {
        return;
    }
    let mut below = each / 2;
    let table = counts.map(|n| {
        let value = (below / each).min(255);
        below += n;
        value as f32 / 255.0 * white
    });
    plane.iter_mut().for_each(|v| *v = table[step(*v)]);
}

impl Canvas {
    fn plane(&self) -> usize {
        self.shape[1] * self.shape[2]
    }

    /// The channels but for opacity, the last of four.
    fn colours(&mut self) -> &mut [f32] {
        let (plane, channels) = (self.plane(), self.shape[0]);
        &mut self.values[..plane * if channels == 4 { 3 } else { channels }]
    }

    fn each_plane(&mut self, change: impl Fn(&mut [f32])) {
        let plane = self.plane().max(1);
        self.colours().chunks_mut(plane).for_each(change);
    }

    /// Each value is what `from` is not, so often: 1 leaves the image as it is, 0 gives what `from` says of channel and
    /// place.
    fn blended(&mut self, from: impl Fn(usize, usize) -> f32, factor: f32) {
        let (plane, white) = (self.plane().max(1), self.white);
        for (i, v) in self.colours().iter_mut().enumerate() {
            let other = from(i / plane, i % plane);
            *v = (other + factor * (*v - other)).clamp(0.0, white);
        }
    }

    /// The luma (ITU-R 601) of every pixel; of other than three colours their mean.
    fn grey(&mut self) -> Vec<f32> {
        let plane = self.plane();
        let colours = self.colours();
        let channels = colours.len() / plane.max(1);
        let weights = if channels == 3 { vec![0.299, 0.587, 0.114] } else { vec![1.0 / channels as f32; channels] };
        (0..plane).map(|at| weights.iter().enumerate().map(|(c, w)| w * colours[c * plane + at]).sum()).collect()
    }

    /// Each pixel within the edge as the mean of its neighbourhood, in which it counts fivefold.
    fn smoothed(&self) -> Vec<f32> {
        let [_, h, w] = self.shape;
        let mut smooth = self.values.clone();
        for (to, from) in smooth.chunks_mut(h * w).zip(self.values.chunks(h * w)) {
            for y in 1..h.saturating_sub(1) {
                for x in 1..w.saturating_sub(1) {
                    let around = (y - 1..y + 2).flat_map(|y| (x - 1..x + 2).map(move |x| y * w + x));
                    let sum: f32 = around.map(|at| from[at]).sum();
                    to[y * w + x] = (sum + 4.0 * from[y * w + x]) / 13.0;
                }
            }
        }
        smooth
    }

    /// The image moved: what is in a place comes from the place that the matrix gives of its distance from the middle,
    /// less the shift. Rows come before columns; where nothing comes from is black.
    fn mapped(&mut self, matrix: [[f32; 2]; 2], shift: [f32; 2]) {
        let [_, h, w] = self.shape;
        let middle = [(h as f32 - 1.0) / 2.0, (w as f32 - 1.0) / 2.0];
        let from = |row: usize, column: usize| {
            let at = [row as f32 - middle[0] - shift[0], column as f32 - middle[1] - shift[1]];
            let place: [f32; 2] =
                std::array::from_fn(|d| (matrix[d][0] * at[0] + matrix[d][1] * at[1] + middle[d]).round());
            let within = |d: usize, n: usize| place[d] >= 0.0 && place[d] < n as f32;
            (within(0, h) && within(1, w)).then(|| place[0] as usize * w + place[1] as usize)
        };
        let places: Vec<Option<usize>> = (0..h * w).map(|at| from(at / w, at % w)).collect();
        let old = self.values.clone();
        for (plane, old) in self.values.chunks_mut((h * w).max(1)).zip(old.chunks((h * w).max(1))) {
            plane.iter_mut().zip(&places).for_each(|(v, place)| *v = place.map_or(0.0, |at| old[at]));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn canvas(values: &[f32], shape: [usize; 3]) -> Canvas {
        Canvas { values: values.to_vec(), shape, white: 255.0 }
    }

    fn changed(change: Change, values: &[f32], shape: [usize; 3], strength: f32, sign: f32) -> Vec<f32> {
        let mut canvas = canvas(values, shape);
        change.apply(&mut canvas, strength, sign);
        canvas.values
    }

    #[test]
    fn without_strength_nothing_with_a_strength_changes_an_image() {
        let values: Vec<f32> = (0..48).map(|i| (i * 37 % 256) as f32).collect();
        for change in CHANGES.into_iter().filter(|c| ![AutoContrast, Equalize].contains(c)) {
            assert_eq!(changed(change, &values, [3, 4, 4], 0.0, 1.0), values, "{change:?}");
        }
    }

    #[test]
    fn changes_of_colour_have_the_values_of_their_formulas() {
        let grey = [0.0, 50.0, 100.0, 200.0];
        let of = |change, strength, sign| changed(change, &grey, [1, 2, 2], strength, sign);
        assert_eq!(of(Brightness, 1.0, 1.0), [0.0, 95.0, 190.0, 255.0]);
        assert_eq!(of(Posterize, 1.0, 1.0), [0.0, 48.0, 96.0, 192.0]);
        assert_eq!(of(Solarize, 0.5, 1.0), [0.0, 50.0, 100.0, 55.0]);
        assert_eq!(of(AutoContrast, 0.0, 1.0), [0.0, 63.75, 127.5, 255.0]);
        // Around the mean of 87.5, a tenth is left.
        let near = of(Contrast, 1.0, -1.0).iter().zip([78.75, 83.75, 88.75, 98.75]).all(|(a, b)| (a - b).abs() < 1e-3);
        assert!(near);
        let colours = changed(Colour, &[255.0, 0.0, 0.0], [3, 1, 1], 1.0, -1.0);
        assert!((colours[0] - (76.245 + 0.1 * 178.755)).abs() < 1e-2 && colours[1] == colours[2], "{colours:?}");
        // Of four channels the last is opacity.
        assert_eq!(changed(Brightness, &[10.0, 10.0, 10.0, 99.0], [4, 1, 1], 1.0, 1.0)[3], 99.0);
    }

    #[test]
    fn many_values_are_equalised_and_few_are_left() {
        let values: Vec<f32> = (0..1024).map(|i| (i / 8) as f32).collect();
        let even = changed(Equalize, &values, [1, 32, 32], 0.0, 1.0);
        assert!(even[0] == 0.0 && even[1023] > 250.0 && even.windows(2).all(|w| w[0] <= w[1]));
        assert_eq!(changed(Equalize, &[1.0, 2.0], [1, 1, 2], 0.0, 1.0), [1.0, 2.0]);
    }

    #[test]
    fn forms_move_around_the_middle_and_leave_black() {
        let cross = [0.0, 1.0, 0.0, 0.0, 1.0, 0.0, 0.0, 1.0, 0.0];
        let right = changed(TranslateX, &cross, [1, 3, 3], 1.0, 1.0);
        assert_eq!(right, [0.0, 0.0, 1.0, 0.0, 0.0, 1.0, 0.0, 0.0, 1.0]);
        assert_eq!(changed(TranslateY, &cross, [1, 3, 3], 1.0, 1.0), [0.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 1.0, 0.0]);
        let mut canvas = canvas(&cross, [1, 3, 3]);
        canvas.mapped([[0.0, -1.0], [1.0, 0.0]], [0.0, 0.0]);
        assert_eq!(canvas.values, [0.0, 0.0, 0.0, 1.0, 1.0, 1.0, 0.0, 0.0, 0.0]);
        // 30 degrees turn the ends of a line of five.
        let line = [[0.0; 10], [0.0; 10]].concat();
        let mut line: Vec<f32> = line.into_iter().chain([0.0; 5]).collect();
        line[10..15].fill(9.0);
        let turned = changed(Rotate, &line, [1, 5, 5], 1.0, 1.0);
        assert!(turned[12] == 9.0 && turned[10] == 0.0 && turned[14] == 0.0, "{turned:?}");
    }
}
