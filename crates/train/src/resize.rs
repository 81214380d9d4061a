//! Images of another size, bit for bit as Pillow makes them, which torchvision and transformers call.

use crate::Pixels;

/// How values between pixels are made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Filter {
    /// The nearest pixel.
    Nearest,
    /// Straight lines between two pixels.
    Bilinear,
    /// Cubic convolution with a = −½ (Keys, 1981).
    Bicubic,
    /// Lanczos' window of three.
    Lanczos,
}

impl Filter {
    /// Beyond this distance a pixel has no weight.
    fn support(self) -> f64 {
        match self {
            Filter::Nearest => 0.5,
            Filter::Bilinear => 1.0,
            Filter::Bicubic => 2.0,
            Filter::Lanczos => 3.0,
        }
    }

    /// The weight of a pixel at a distance.
    fn weight(self, x: f64) -> f64 {
        let x = x.abs();
        let sinc = |x: f64| if x == 0.0 { 1.0 } else { (x * std::f64::consts::PI).sin() / (x * std::f64::consts::PI) };
        match self {
            Filter::Nearest => 1.0,
            Filter::Bilinear => (1.0 - x).max(0.0),
            Filter::Bicubic if x < 1.0 => (1.5 * x - 2.5) * x * x + 1.0,
            Filter::Bicubic if x < 2.0 => ((-0.5 * x + 2.5) * x - 4.0) * x + 2.0,
            Filter::Lanczos if x < 3.0 => sinc(x) * sinc(x / 3.0),
            Filter::Bicubic | Filter::Lanczos => 0.0,
        }
    }
}

/// What an image goes through to become as large as a model wants it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Resize {
    /// Height and width in the end.
    pub size: [usize; 2],
    /// What the shorter side becomes before the middle is cut out; `None` where the whole image gets the size.
    pub shorter: Option<usize>,
    /// How the size is changed.
    pub filter: Filter,
}

impl Resize {
    /// The middle square, whose sides are the shorter side: torchvision's `Resize(side)` and `CenterCrop(side)`.
    pub const fn square(side: usize) -> Resize {
        Resize { size: [side; 2], shorter: Some(side), filter: Filter::Bilinear }
    }
}

impl Pixels {
    /// As large as a model wants it.
    #[must_use]
    pub fn prepared(&self, resize: &Resize) -> Pixels {
        match resize.shorter {
            Some(shorter) => self.with_shorter_side(shorter, resize.filter).middle(resize.size),
            None => self.resized(resize.size, resize.filter),
        }
    }

    /// With another height and width. Where an image shrinks, every pixel of it counts (antialiasing), but for
    /// [`Filter::Nearest`]. Colours count by their opacity.
    #[must_use]
    pub fn resized(&self, [height, width]: [usize; 2], filter: Filter) -> Pixels {
        if [height, width] == [self.height, self.width] {
            return self.clone();
        }
        if filter == Filter::Nearest {
            return self.nearest([height, width]);
        }
        let opaque = ![2, 4].contains(&self.channels);
        let premultiplied = if opaque { self.clone() } else { self.premultiplied() };
        let wide = premultiplied.along_rows(width, filter);
        let all = wide.transposed().along_rows(height, filter).transposed();
        if opaque { all } else { all.divided() }
    }

    /// With so many pixels along the shorter side, in proportion; the longer is rounded down, as torchvision has it.
    #[must_use]
    pub fn with_shorter_side(&self, shorter: usize, filter: Filter) -> Pixels {
        let long = |a: usize, b: usize| (shorter * a / b.max(1)).max(1);
        let size = if self.height <= self.width {
            [shorter, long(self.width, self.height)]
        } else {
            [long(self.height, self.width), shorter]
        };
        self.resized(size, filter)
    }

    /// The middle, of this height and width; black where there is no image. Halves go to the even place.
    #[must_use]
    pub fn middle(&self, [height, width]: [usize; 2]) -> Pixels {
        let at = |all: usize, part: usize| ((all as f64 - part as f64) / 2.0).round_ties_even() as isize;
        self.cut([at(self.height, height), at(self.width, width)], [height, width])
    }

    fn nearest(&self, [height, width]: [usize; 2]) -> Pixels {
        let from = |i: usize, new: usize, old: usize| ((i as f64 + 0.5) * (old as f64 / new as f64)) as usize;
        let mut bytes = Vec::with_capacity(height * width * self.channels);
        for row in 0..height {
            let y = from(row, height, self.height).min(self.height - 1);
            for column in 0..width {
                let x = from(column, width, self.width).min(self.width - 1);
                bytes.extend_from_slice(&self.bytes[(y * self.width + x) * self.channels..][..self.channels]);
            }
        }
        Pixels { width, height, channels: self.channels, bytes }
    }

    /// Rows of another length. Weights are whole numbers of 2⁻²², and results are rounded to a byte.
    fn along_rows(&self, width: usize, filter: Filter) -> Pixels {
        if width == self.width {
            return self.clone();
        }
        let (c, taps) = (self.channels, taps(self.width, width, filter));
        let mut bytes = Vec::with_capacity(self.height * width * c);
        for row in self.bytes.chunks_exact(self.width * c) {
            for (first, weights) in &taps {
                for channel in 0..c {
                    let pixels = row[first * c + channel..].iter().step_by(c);
                    let sum: i64 = pixels.zip(weights).map(|(&p, &w)| p as i64 * w).sum();
                    bytes.push(((sum + (1 << (BITS - 1))) >> BITS).clamp(0, 255) as u8);
                }
            }
        }
        Pixels { width, height: self.height, channels: c, bytes }
    }

    fn transposed(&self) -> Pixels {
        let (w, h, c) = (self.width, self.height, self.channels);
        let mut bytes = vec![0; self.bytes.len()];
        for y in 0..h {
            for x in 0..w {
                let (from, to) = ((y * w + x) * c, (x * h + y) * c);
                bytes[to..to + c].copy_from_slice(&self.bytes[from..from + c]);
            }
        }
        Pixels { width: h, height: w, channels: c, bytes }
    }

    /// Colours times opacity.
    fn premultiplied(&self) -> Pixels {
        self.by_opacity(|colour, opacity| {
            let product = colour as u32 * opacity as u32 + 128;
            ((product + (product >> 8)) >> 8) as u8
        })
    }

    /// Colours of which the opacity was a factor.
    fn divided(&self) -> Pixels {
        self.by_opacity(|colour, opacity| match opacity {
            0 | 255 => colour,
            _ => (255 * colour as u32 / opacity as u32).min(255) as u8,
        })
    }

    fn by_opacity(&self, f: impl Fn(u8, u8) -> u8) -> Pixels {
        let mut result = self.clone();
        let last = self.channels - 1;
        for pixel in result.bytes.chunks_exact_mut(self.channels) {
            let opacity = pixel[last];
            pixel[..last].iter_mut().for_each(|colour| *colour = f(*colour, opacity));
        }
        result
    }
}

/// Bits behind the point of a weight.
const BITS: u32 = 22;

/// For each new pixel the first old one that has a weight, and the weights, which add up to 1.
fn taps(from: usize, to: usize, filter: Filter) -> Vec<(usize, Vec<i64>)> {
    let scale = from as f64 / to as f64;
    let stretch = scale.max(1.0);
    let support = filter.support() * stretch;
    let of = |i: usize| {
        let centre = (i as f64 + 0.5) * scale;
        let first = (centre - support + 0.5).max(0.0) as usize;
        let last = ((centre + support + 0.5) as usize).min(from);
        let inverse = 1.0 / stretch;
        let weights: Vec<f64> = (first..last).map(|j| filter.weight((j as f64 - centre + 0.5) * inverse)).collect();
        let share = 1.0 / weights.iter().sum::<f64>();
        let whole = |w: &f64| {
            let scaled = w * share * (1u64 << BITS) as f64;
            (scaled + if scaled < 0.0 { -0.5 } else { 0.5 }) as i64
        };
        (first, weights.iter().map(whole).collect())
    };
    (0..to).map(of).collect()
}
