//! Images as their files have them, and in another size.

use std::path::{Path, PathBuf};

use binade_train::{Filter, Pixels};
use png::{BitDepth, ColorType};

/// Another number for every place and channel.
fn pattern(height: usize, width: usize, channels: usize) -> Pixels {
    let at = |i: usize| (i % channels, i / channels % width, i / channels / width);
    let of = |(c, x, y): (usize, usize, usize)| ((37 * x + 61 * y + 91 * c + 7 * x * y) % 256) as u8;
    Pixels { width, height, channels, bytes: (0..height * width * channels).map(at).map(of).collect() }
}

/// Pillow 12's `Image.resize`.
#[test]
fn another_size_has_the_bytes_that_pillow_makes() {
    let grey = pattern(5, 7, 1);
    for (filter, small, first) in [
        (Filter::Nearest, [0, 74, 148, 222, 122, 224, 70, 172, 244, 118, 248, 122], [0, 37, 37, 74, 111, 148]),
        (Filter::Bilinear, [47, 110, 161, 141, 146, 143, 111, 118, 175, 113, 176, 105], [0, 25, 53, 82, 111, 140]),
        (Filter::Bicubic, [38, 113, 165, 139, 153, 145, 106, 117, 181, 106, 182, 102], [0, 17, 48, 76, 105, 133]),
        (Filter::Lanczos, [31, 117, 166, 137, 161, 148, 101, 115, 183, 98, 185, 106], [0, 16, 52, 74, 97, 123]),
    ] {
        assert_eq!(grey.resized([3, 4], filter).bytes, small, "{filter:?}");
        let large = grey.resized([8, 9], filter);
        assert_eq!((large.height, large.width, &large.bytes[..6]), (8, 9, &first[..]), "{filter:?}");
    }
    let last = grey.resized([8, 9], Filter::Lanczos).bytes[63..].to_vec();
    assert_eq!(last, [255, 100, 39, 153, 189, 255, 125, 48, 148]);
}

#[test]
fn colours_count_by_their_opacity_as_in_pillow() {
    let small = pattern(5, 7, 4).resized([2, 3], Filter::Bilinear);
    let expected = [
        [126, 135, 100, 109],
        [165, 121, 109, 151],
        [168, 93, 137, 148],
        [148, 88, 116, 101],
        [148, 125, 108, 122],
        [153, 123, 123, 126],
    ];
    assert_eq!(small.bytes, expected.concat());
}

#[test]
fn the_shorter_side_and_the_middle_are_torchvisions() {
    let image = pattern(5, 7, 1);
    let larger = image.with_shorter_side(8, Filter::Bilinear);
    assert_eq!((larger.height, larger.width), (8, 11));
    assert_eq!(image.middle([3, 3]).bytes, image.cut([1, 2], [3, 3]).bytes);
    // Halves go to the even place: 1½ to 2, ½ to 0.
    assert_eq!(image.middle([2, 6]).bytes, image.cut([2, 0], [2, 6]).bytes);
    // What is larger than the image is black around it.
    let around = image.middle([7, 7]);
    assert!(around.bytes[..7].iter().all(|b| *b == 0) && around.bytes[7..14] == image.bytes[..7]);
}

fn written(path: &Path, size: [u32; 2], colour: ColorType, depth: BitDepth, bytes: &[u8]) -> PathBuf {
    let mut encoder = png::Encoder::new(std::fs::File::create(path).unwrap(), size[0], size[1]);
    encoder.set_color(colour);
    encoder.set_depth(depth);
    if colour == ColorType::Indexed {
        encoder.set_palette([10, 20, 30, 40, 50, 60].to_vec());
        encoder.set_trns([255, 128].to_vec());
    }
    encoder.write_header().unwrap().write_image_data(bytes).unwrap();
    path.into()
}

#[test]
fn png_of_every_kind_becomes_bytes() {
    let folder = tempfile::tempdir().unwrap();
    let read = |size: [u32; 2], colour, depth, bytes: &[u8]| {
        let image = Pixels::open(&written(&folder.path().join("x.png"), size, colour, depth, bytes)).unwrap();
        assert_eq!([image.width as u32, image.height as u32], size);
        (image.channels, image.bytes)
    };
    assert_eq!(read([1, 1], ColorType::Grayscale, BitDepth::Eight, &[7]), (1, vec![7]));
    assert_eq!(read([4, 1], ColorType::Grayscale, BitDepth::Two, &[0b00_01_10_11]), (1, vec![0, 85, 170, 255]));
    assert_eq!(read([3, 1], ColorType::Grayscale, BitDepth::One, &[0b1010_0000]), (1, vec![255, 0, 255]));
    // Of 256 steps each, and half of one: 0x7F80 is nearer to 128 than to 127.
    let deep = [0x00, 0x7F, 0x00, 0x81, 0x7F, 0x80, 0xFF, 0xFF];
    assert_eq!(read([4, 1], ColorType::Grayscale, BitDepth::Sixteen, &deep), (1, vec![0, 1, 127, 255]));
    assert_eq!(read([1, 1], ColorType::GrayscaleAlpha, BitDepth::Eight, &[9, 8]), (2, vec![9, 8]));
    assert_eq!(read([1, 1], ColorType::Rgba, BitDepth::Eight, &[1, 2, 3, 4]), (4, vec![1, 2, 3, 4]));
    assert_eq!(
        read([2, 1], ColorType::Indexed, BitDepth::One, &[0b0100_0000]),
        (4, vec![10, 20, 30, 255, 40, 50, 60, 128])
    );
}

#[test]
fn channels_are_made_grey_coloured_or_opaque() {
    let of = |channels, bytes: &[u8]| Pixels { width: 1, height: 1, channels, bytes: bytes.to_vec() };
    let made = |image: Pixels, channels| image.with_channels(channels).unwrap().bytes;
    // 0.299 R + 0.587 G + 0.114 B.
    assert_eq!(made(of(3, &[200, 100, 50]), 1), [124]);
    assert_eq!(made(of(1, &[9]), 3), [9, 9, 9]);
    assert_eq!(made(of(1, &[9]), 4), [9, 9, 9, 255]);
    assert_eq!(made(of(2, &[9, 7]), 4), [9, 9, 9, 7]);
    // Half of black, and what cannot be seen, before white.
    assert_eq!(made(of(4, &[0, 0, 0, 128]), 3), [127, 127, 127]);
    assert_eq!(made(of(4, &[1, 2, 3, 0]), 3), [255, 255, 255]);
    assert_eq!(made(of(2, &[100, 255]), 1), [100]);
    assert!(of(3, &[1, 2, 3]).with_channels(2).is_err());
}

/// Decoders of JPEG round their cosine transforms each in its own way: Pillow's pixels, give or take a few steps.
#[test]
fn jpeg_is_read_in_colours_progressive_and_in_cmyk() {
    for (name, most, expected) in [
        ("colours", 2, [[129, 227, 2], [186, 55, 109], [28, 115, 208]]),
        ("progressive", 6, [[136, 224, 0], [186, 55, 109], [45, 107, 206]]),
        ("cmyk", 2, [[127, 228, 0], [187, 55, 108], [28, 116, 205]]),
    ] {
        let image = Pixels::open(&Path::new("tests/images").join(format!("{name}.jpg"))).unwrap();
        assert_eq!((image.width, image.height, image.channels), (20, 24, 3));
        for ((y, x), expected) in [(0, 0), (12, 10), (23, 19)].into_iter().zip(expected) {
            let found = &image.bytes[(y * 20 + x) * 3..][..3];
            let near = found.iter().zip(expected).all(|(a, b)| a.abs_diff(b) <= most);
            assert!(near, "{name} at {y}, {x}: {found:?} and {expected:?}");
        }
    }
}

#[test]
fn damaged_and_foreign_files_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("image.png");
    let told = |bytes: &[u8]| {
        std::fs::write(&path, bytes).unwrap();
        let error = Pixels::open(&path).unwrap_err().to_string();
        assert!(error.contains("image.png: expected a PNG or JPEG image"), "{error}");
        error
    };
    assert!(told(b"").contains("an empty file"));
    assert!(told(b"GIF89a").contains("found GIF"));
    assert!(told(b"hello").contains("begins with"));
    let png = std::fs::read(written(
        &folder.path().join("y.png"),
        [30, 20],
        ColorType::Rgb,
        BitDepth::Eight,
        &pattern(20, 30, 3).bytes,
    ))
    .unwrap();
    assert!(told(&png[..png.len() / 2]).contains("a damaged PNG"));
    let mut huge = png.clone();
    huge[16..24].copy_from_slice(&[0x7F, 0xFF, 0xFF, 0xFF, 0x7F, 0xFF, 0xFF, 0xFF]);
    assert!(told(&huge).contains("PNG"));
    let mut flipped = png.clone();
    flipped[png.len() / 2] ^= 0x10;
    assert!(told(&flipped).contains("a damaged PNG"));
    let jpeg = std::fs::read("tests/images/colours.jpg").unwrap();
    assert!(told(&jpeg[..jpeg.len() * 2 / 3]).contains("a damaged JPEG"));
    assert!(Pixels::open(&folder.path().join("absent.png")).unwrap_err().to_string().contains("absent.png"));
}
