//! Images as PNG files.

use std::path::Path;

use binade_nn::replace_file;

use crate::{Error, Result};

/// The bytes of a PNG file of an image, row by row, one byte per channel: grey, RGB or RGBA.
///
/// # Errors
/// Another number of channels, or pixels that are no whole rows.
pub fn png(width: usize, channels: usize, pixels: &[u8]) -> Result<Vec<u8>> {
    let colour = match channels {
        1 => png::ColorType::Grayscale,
        3 => png::ColorType::Rgb,
        4 => png::ColorType::Rgba,
        _ => return Err(Error::Config(format!("an image has 1, 3 or 4 channels, got {channels}"))),
    };
    let row = width * channels;
    let height = pixels.len().checked_div(row).unwrap_or(0);
    let extents = (u32::try_from(width), u32::try_from(height));
    let (Ok(wide), Ok(high), true) = (extents.0, extents.1, height > 0 && height * row == pixels.len()) else {
        return Err(Error::Config(format!("{} bytes are no rows of {width} pixels", pixels.len())));
    };
    let mut bytes = Vec::new();
    let mut encoder = png::Encoder::new(&mut bytes, wide, high);
    encoder.set_color(colour);
    encoder.set_depth(png::BitDepth::Eight);
    let written = encoder.write_header().and_then(|mut writer| writer.write_image_data(pixels));
    written.map_err(|error| Error::Config(format!("PNG: {error}")))?;
    Ok(bytes)
}

/// Writes a PNG file, which is replaced as a whole.
///
/// # Errors
/// As [`png()`]; the file cannot be written.
pub fn write_png(path: &Path, width: usize, channels: usize, pixels: &[u8]) -> Result<()> {
    let bytes = png(width, channels, pixels)?;
    replace_file(path, |file| file.write_all(&bytes)).map_err(Error::io(path))
}

/// Images `[N, C, H, W]` of numbers from −1 to 1, side by side in rows of `columns`, with a line between: the pixels of
/// one image, its width and its channels. Of four channels the last is opacity, before white; others than 3 and 4 are
/// shown as their mean, in grey.
pub fn grid(values: &[f64], shape: [usize; 4], columns: usize) -> (usize, usize, Vec<u8>) {
    let [n, c, h, w] = shape;
    let columns = columns.clamp(1, n.max(1));
    let (rows, channels) = (n.div_ceil(columns), if c == 3 || c == 4 { 3 } else { 1 });
    let width = columns * (w + 1) + 1;
    let mut pixels = vec![255; width * (rows * (h + 1) + 1) * channels];
    let byte = |value: f64| (127.5 * (value + 1.0)).clamp(0.0, 255.0) as u8;
    for (i, image) in values.chunks_exact((c * h * w).max(1)).take(n).enumerate() {
        for at in 0..h * w {
            let value = |channel: usize| image[channel * h * w + at];
            let (x, y) = (1 + i % columns * (w + 1) + at % w, 1 + i / columns * (h + 1) + at / w);
            let opacity = if c == 4 { ((value(3) + 1.0) / 2.0).clamp(0.0, 1.0) } else { 1.0 };
            for channel in 0..channels {
                let shown = if channels == 3 { value(channel) } else { (0..c).map(value).sum::<f64>() / c as f64 };
                pixels[(y * width + x) * channels + channel] = byte(1.0 - opacity * (1.0 - shown));
            }
        }
    }
    (width, channels, pixels)
}
