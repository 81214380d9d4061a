//! [`Pixels`]: an image as its file has it, read from PNG or JPEG.

use std::io::Cursor;
use std::path::Path;

use png::{BitDepth, ColorType, Transformations};
use zune_jpeg::JpegDecoder;
use zune_jpeg::zune_core::bytestream::ZCursor;
use zune_jpeg::zune_core::colorspace::ColorSpace;
use zune_jpeg::zune_core::options::DecoderOptions;

use crate::images::MOST;
use crate::{Error, Result};

/// An image of one byte per channel, row by row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pixels {
    /// Pixels of a row.
    pub width: usize,
    /// Rows.
    pub height: usize,
    /// 1: grey; 2: grey and opacity; 3: RGB; 4: RGB and opacity.
    pub channels: usize,
    /// `[height, width, channels]`.
    pub bytes: Vec<u8>,
}

impl Pixels {
    /// Reads a PNG or JPEG file; which it is its first bytes say, not its name.
    ///
    /// PNG of every kind: palettes become colours, and 16 bit are rounded to 8. Of several frames it is the first.
    /// JPEG in grey, colours, CMYK and YCCK, the last two as RGB. Colour profiles and turned cameras are not looked at.
    ///
    /// # Errors
    /// [`Error::Io`]; [`Error::Data`]: another kind of file, damage, or more than 1 GiB of pixels.
    pub fn open(path: &Path) -> Result<Pixels> {
        let size = std::fs::metadata(path).map_err(Error::io(path))?.len();
        let bad = |found: String| Error::Data { path: path.into(), expected: "a PNG or JPEG image".into(), found };
        if size > MOST {
            return Err(bad(format!("{size} bytes, above 1 GiB")));
        }
        let bytes = std::fs::read(path).map_err(Error::io(path))?;
        Pixels::decode(&bytes).map_err(bad)
    }

    /// The image of a file's bytes, or what they are instead.
    fn decode(bytes: &[u8]) -> Result<Pixels, String> {
        match bytes {
            [] => Err("an empty file".into()),
            [0x89, b'P', b'N', b'G', ..] => png_pixels(bytes),
            [0xFF, 0xD8, 0xFF, ..] => jpeg_pixels(bytes),
            [b'G', b'I', b'F', ..] => Err("GIF".into()),
            [b'B', b'M', ..] => Err("BMP".into()),
            [b'R', b'I', b'F', b'F', _, _, _, _, b'W', b'E', b'B', b'P', ..] => Err("WebP".into()),
            [b'I', b'I', b'*', 0, ..] | [b'M', b'M', 0, b'*', ..] => Err("TIFF".into()),
            other => Err(format!("a file that begins with {:02x?}", &other[..other.len().min(8)])),
        }
    }

    /// With 1 channel (grey), 3 (RGB) or 4 (RGB and opacity). Opacity that is given up shows white behind the image;
    /// grey is ITU-R 601's luma, rounded, as Pillow has it.
    ///
    /// # Errors
    /// [`Error::Config`]: another number.
    pub fn with_channels(self, channels: usize) -> Result<Pixels> {
        if ![1, 3, 4].contains(&channels) {
            return Err(Error::Config(format!("images have 1, 3 or 4 channels, not {channels}")));
        }
        if channels == self.channels {
            return Ok(self);
        }
        let opaque = if channels == 4 { self } else { self.on_white() };
        let grey =
            |c: &[u8]| ((19_595 * c[0] as u32 + 38_470 * c[1] as u32 + 7_471 * c[2] as u32 + 0x8000) >> 16) as u8;
        let bytes = opaque.bytes.chunks_exact(opaque.channels).flat_map(|pixel| {
            let (colour, opacity) = match *pixel {
                [grey] => ([grey; 3], 255),
                [grey, opacity] => ([grey; 3], opacity),
                [r, g, b] => ([r, g, b], 255),
                [r, g, b, opacity, ..] => ([r, g, b], opacity),
                [] => ([0; 3], 0),
            };
            let of = |c: usize| match (channels, pixel.len()) {
                (1, 1) => pixel[0],
                (1, _) => grey(&colour),
                _ => colour.get(c).copied().unwrap_or(opacity),
            };
            (0..channels).map(of).collect::<Vec<u8>>()
        });
        Ok(Pixels { channels, bytes: bytes.collect(), ..opaque })
    }

    /// Without opacity: what shows on a white page.
    fn on_white(self) -> Pixels {
        if ![2, 4].contains(&self.channels) {
            return self;
        }
        let colours = self.channels - 1;
        let bytes = self.bytes.chunks_exact(self.channels).flat_map(|pixel| {
            let opacity = pixel[colours] as u32;
            pixel[..colours].iter().map(move |&v| ((v as u32 * opacity + 255 * (255 - opacity) + 127) / 255) as u8)
        });
        Pixels { channels: colours, bytes: bytes.collect(), ..self }
    }

    /// The rows from `top` on and the columns from `left` on, so many; black where there is no image.
    #[must_use]
    pub fn cut(&self, [top, left]: [isize; 2], [height, width]: [usize; 2]) -> Pixels {
        let mut bytes = vec![0; height * width * self.channels];
        for (row, to) in bytes.chunks_mut((width * self.channels).max(1)).enumerate() {
            for (column, to) in to.chunks_mut(self.channels).enumerate() {
                let (y, x) = (top + row as isize, left + column as isize);
                if (0..self.height as isize).contains(&y) && (0..self.width as isize).contains(&x) {
                    let at = (y as usize * self.width + x as usize) * self.channels;
                    to.copy_from_slice(&self.bytes[at..at + self.channels]);
                }
            }
        }
        Pixels { width, height, channels: self.channels, bytes }
    }

    /// The bytes as `[channels, height, width]`.
    pub fn planes(&self) -> Vec<u8> {
        let of = |c: usize| self.bytes.iter().skip(c).step_by(self.channels.max(1)).copied();
        (0..self.channels).flat_map(of).collect()
    }
}

/// Fails where an image would take too much memory: headers are not believed.
fn fits(width: usize, height: usize, channels: usize) -> Result<(), String> {
    let most = MOST as usize;
    let bytes = width.checked_mul(height).and_then(|pixels| pixels.checked_mul(channels));
    match bytes {
        Some(bytes) if bytes > 0 && bytes <= most => Ok(()),
        Some(0) => Err(format!("an image of {width}×{height}")),
        _ => Err(format!("an image of {width}×{height}, beyond 1 GiB")),
    }
}

fn png_pixels(bytes: &[u8]) -> Result<Pixels, String> {
    let fail = |error: png::DecodingError| format!("a damaged PNG: {error}");
    let mut decoder = png::Decoder::new(Cursor::new(bytes));
    // Palettes and packed greys become bytes, and a transparent colour opacity.
    decoder.set_transformations(Transformations::EXPAND);
    let mut reader = decoder.read_info().map_err(fail)?;
    let (width, height) = (reader.info().width as usize, reader.info().height as usize);
    let (colour, depth) = reader.output_color_type();
    let channels = match colour {
        ColorType::Grayscale => 1,
        ColorType::GrayscaleAlpha => 2,
        ColorType::Rgb | ColorType::Indexed => 3,
        ColorType::Rgba => 4,
    };
    let wide = depth == BitDepth::Sixteen;
    fits(width, height, if wide { 2 * channels } else { channels })?;
    let size = reader.output_buffer_size().ok_or("a PNG that is too large")?;
    let mut read = vec![0; size];
    reader.next_frame(&mut read).map_err(fail)?;
    let bytes = if wide { read.chunks_exact(2).map(|b| narrowed([b[0], b[1]])).collect() } else { read };
    Ok(Pixels { width, height, channels, bytes })
}

/// 16 bit to 8, rounded: `65535` is 255.
fn narrowed(bytes: [u8; 2]) -> u8 {
    ((u16::from_be_bytes(bytes) as u32 * 255 + 32_767) / 65_535) as u8
}

fn jpeg_pixels(bytes: &[u8]) -> Result<Pixels, String> {
    let fail = |error: &dyn std::fmt::Display| format!("a damaged JPEG: {}", error.to_string().trim());
    // Of a file that was cut off the rest would be grey.
    let options = DecoderOptions::default().set_strict_mode(true);
    let mut decoder = JpegDecoder::new_with_options(ZCursor::new(bytes), options);
    decoder.decode_headers().map_err(|error| fail(&error))?;
    let (width, height) = decoder.info().map(|info| (info.width as usize, info.height as usize)).ok_or("no size")?;
    let (space, channels) = match decoder.input_colorspace() {
        Some(ColorSpace::Luma) => (ColorSpace::Luma, 1),
        _ => (ColorSpace::RGB, 3),
    };
    fits(width, height, channels)?;
    decoder.set_options(options.jpeg_set_out_colorspace(space));
    let bytes = decoder.decode().map_err(|error| fail(&error))?;
    if bytes.len() != width * height * channels {
        return Err(format!("a JPEG of {width}×{height} with {} bytes", bytes.len()));
    }
    Ok(Pixels { width, height, channels, bytes })
}
