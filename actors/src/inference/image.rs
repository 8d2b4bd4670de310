//! From the bytes of an image to the numbers a model takes: decoded within limits, resized, normalized.

use std::io::Cursor;

use image::imageops::{self, FilterType};
use image::metadata::Orientation;
use image::{DynamicImage, ImageDecoder, ImageError, ImageReader, Limits, Rgb, RgbImage};

use super::settings::{Colors, Fit, Input, Layout};
use crate::picture::{self, PictureFault, PictureType};

/// The largest image file that is decoded, bytes.
pub const IMAGE_BYTES_MAX: usize = 64 * 1024 * 1024;
/// The most pixels an image may have.
pub const IMAGE_PIXELS_MAX: u64 = 50_000_000;
/// What stands beside a picture in a letterbox: the gray that Ultralytics trains with.
const LETTERBOX_COLOR: Rgb<u8> = Rgb([114, 114, 114]);
/// What a decoder may allocate, bytes.
const DECODER_BYTES_MAX: u64 = 256 * 1024 * 1024;

/// Why an image cannot be looked at.
#[derive(Debug, thiserror::Error)]
pub enum ImageRefusal {
    /// The file is too large.
    #[error("the image has {bytes} bytes, more than {IMAGE_BYTES_MAX}")]
    TooManyBytes {
        /// How large it is.
        bytes: u64,
    },
    /// It would fill the memory.
    #[error("the image has {width} x {height} pixels, more than {IMAGE_PIXELS_MAX} together")]
    TooManyPixels {
        /// Its width.
        width: u32,
        /// Its height.
        height: u32,
    },
    /// It is none of the formats that are taken.
    #[error("the file is no JPEG, PNG or WebP image")]
    UnknownFormat,
    /// A part of it is missing, which a decoder would paint gray.
    #[error("decode the image")]
    Broken(#[source] PictureFault),
    /// It is broken, or asks for more memory than a decoder gets.
    #[error("decode the image")]
    Undecodable(#[source] ImageError),
}

impl ImageRefusal {
    /// The code of it in dead letters.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::TooManyBytes { .. } | Self::TooManyPixels { .. } => "IMAGE_TOO_LARGE",
            Self::UnknownFormat => "IMAGE_FORMAT_UNKNOWN",
            Self::Broken(_) | Self::Undecodable(_) => "IMAGE_UNDECODABLE",
        }
    }
}

/// Decodes a JPEG, PNG or WebP image; what it is, its first bytes say. With `is_turned` it stands as its EXIF data says.
///
/// # Errors
/// [`ImageRefusal`].
pub fn decode(bytes: &[u8], is_turned: bool) -> Result<DynamicImage, ImageRefusal> {
    if bytes.len() > IMAGE_BYTES_MAX {
        return Err(ImageRefusal::TooManyBytes { bytes: bytes.len() as u64 });
    }
    let picture = PictureType::of(bytes).ok_or(ImageRefusal::UnknownFormat)?;
    let mut reader = ImageReader::with_format(Cursor::new(bytes), picture.format());
    let mut limits = Limits::default();
    limits.max_alloc = Some(DECODER_BYTES_MAX);
    reader.limits(limits.clone());
    let mut decoder = reader.into_decoder().map_err(ImageRefusal::Undecodable)?;
    // The header alone says how large it is, before anything is allocated for it.
    let (width, height) = decoder.dimensions();
    if u64::from(width) * u64::from(height) > IMAGE_PIXELS_MAX {
        return Err(ImageRefusal::TooManyPixels { width, height });
    }
    limits.reserve(decoder.total_bytes()).map_err(ImageRefusal::Undecodable)?;
    picture::check(bytes).map_err(ImageRefusal::Broken)?;
    // EXIF data that cannot be read turns nothing.
    let orientation = decoder.orientation().unwrap_or(Orientation::NoTransforms);
    let mut image = DynamicImage::from_decoder(decoder).map_err(ImageRefusal::Undecodable)?;
    if is_turned {
        image.apply_orientation(orientation);
    }
    Ok(image)
}

/// Where a picture stands in the input of a model, pixels of the input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Placement {
    /// Left edge.
    pub left: u32,
    /// Top edge.
    pub top: u32,
    /// Width.
    pub width: u32,
    /// Height.
    pub height: u32,
}

impl Placement {
    /// The place of a picture of this size: the whole input, or as much of its middle as keeps the picture's shape, rounded
    /// as Ultralytics' `LetterBox` does it.
    #[must_use]
    pub fn of(width: u32, height: u32, input: &Input) -> Self {
        let whole = Self { left: 0, top: 0, width: input.width, height: input.height };
        if input.fit != Some(Fit::Letterbox) || width == 0 || height == 0 {
            return whole;
        }
        let scale =
            (f64::from(input.width) / f64::from(width)).min(f64::from(input.height) / f64::from(height));
        let scaled = |size: u32, most: u32| {
            #[expect(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "it is not negative, and at most a side of the input"
            )]
            let scaled = (f64::from(size) * scale).round() as u32;
            scaled.clamp(1, most)
        };
        let (width, height) = (scaled(width, input.width), scaled(height, input.height));
        // Half of what is left stands before the picture; an odd pixel comes after it.
        Self { left: (input.width - width) / 2, top: (input.height - height) / 2, width, height }
    }
}

/// The numbers of an image in the order that the model takes them.
#[must_use]
pub fn tensor(image: &DynamicImage, input: &Input) -> Vec<f32> {
    let (width, height) = (input.width, input.height);
    let place = Placement::of(image.width(), image.height(), input);
    // Transparency means nothing in a barn.
    let mut resized = imageops::resize(&image.to_rgb8(), place.width, place.height, FilterType::Triangle);
    if (place.width, place.height) != (width, height) {
        let mut canvas = RgbImage::from_pixel(width, height, LETTERBOX_COLOR);
        imageops::replace(&mut canvas, &resized, place.left.into(), place.top.into());
        resized = canvas;
    }
    let channels = input.colors.channels();
    let pixels = width as usize * height as usize;
    let mut tensor = vec![0.0; pixels * channels];
    for (index, pixel) in resized.pixels().enumerate() {
        let [red, green, blue] = pixel.0.map(f32::from);
        let values = match input.colors {
            Colors::Rgb => [red, green, blue],
            Colors::Bgr => [blue, green, red],
            Colors::Gray => [0.299 * red + 0.587 * green + 0.114 * blue, 0.0, 0.0],
        };
        for (channel, value) in values.into_iter().take(channels).enumerate() {
            let place = match input.layout {
                Layout::Nchw => channel * pixels + index,
                Layout::Nhwc => index * channels + channel,
            };
            tensor[place] = (value / input.scale - input.mean[channel]) / input.std[channel];
        }
    }
    tensor
}

#[cfg(test)]
mod tests {
    use image::ImageFormat;

    use super::*;

    fn encoded(format: ImageFormat) -> Vec<u8> {
        let image = RgbImage::from_fn(40, 30, |x, y| Rgb([x as u8 * 6, y as u8 * 8, 128]));
        let mut bytes = Cursor::new(Vec::new());
        image.write_to(&mut bytes, format).unwrap();
        bytes.into_inner()
    }

    fn input(layout: Layout, colors: Colors) -> Input {
        let (mean, std) = (vec![0.5; colors.channels()], vec![0.25; colors.channels()]);
        Input {
            width: 4,
            height: 2,
            fit: None,
            layout,
            colors,
            scale: 255.0,
            mean,
            std,
            exif_orientation: true,
        }
    }

    #[test]
    fn jpeg_png_and_webp_are_taken_and_nothing_else() {
        for format in [ImageFormat::Jpeg, ImageFormat::Png, ImageFormat::WebP] {
            let image = decode(&encoded(format), true).unwrap();
            assert_eq!((image.width(), image.height()), (40, 30), "{format:?}");
        }
        for bytes in [&b""[..], b"GIF89a\x01\x00\x01\x00", b"<svg/>", b"not an image at all"] {
            assert!(matches!(decode(bytes, true), Err(ImageRefusal::UnknownFormat)), "{bytes:?}");
        }
    }

    #[test]
    fn an_image_of_which_a_part_is_missing_is_refused() {
        for format in [ImageFormat::Jpeg, ImageFormat::Png, ImageFormat::WebP] {
            let whole = encoded(format);
            for length in [20, whole.len() / 2, whole.len() * 9 / 10] {
                let cut = &whole[..length];
                let mut filled = cut.to_vec();
                filled.resize(whole.len().max(cut.len() + 64), 0);
                for bytes in [cut, &filled] {
                    let refusal = decode(bytes, true).unwrap_err();
                    assert_eq!(refusal.code(), "IMAGE_UNDECODABLE", "{format:?} at {length}");
                }
            }
        }
    }

    #[test]
    fn a_missing_end_mark_or_bytes_behind_it_are_no_reason() {
        for (format, mark_bytes) in [(ImageFormat::Jpeg, 2), (ImageFormat::Png, 0), (ImageFormat::WebP, 0)] {
            let whole = encoded(format);
            let image = decode(&whole, true).unwrap();
            let behind = [&*whole, b"and so on", &[0; 100]].concat();
            for bytes in [&whole[..whole.len() - mark_bytes], &behind] {
                assert!(decode(bytes, true).unwrap() == image, "{format:?}");
            }
        }
    }

    /// The picture with EXIF data that says how it stands.
    fn oriented(jpeg: &[u8], orientation: u8) -> Vec<u8> {
        let exif =
            [b"Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0", &[orientation][..], &[0; 7]].concat();
        let length = u16::try_from(exif.len() + 2).unwrap().to_be_bytes();
        [&jpeg[..2], &[0xff, 0xe1], &length, &exif, &jpeg[2..]].concat()
    }

    #[test]
    fn an_image_is_turned_as_its_exif_data_says_unless_that_is_switched_off() {
        // Red is where the first row and column meet, blue is at the end of that row.
        let image = RgbImage::from_fn(48, 32, |x, y| match (x < 16, x >= 32, y < 16) {
            (true, _, true) => Rgb([250, 0, 0]),
            (_, true, true) => Rgb([0, 0, 250]),
            _ => Rgb([0, 0, 0]),
        });
        let mut jpeg = Cursor::new(Vec::new());
        image.write_to(&mut jpeg, ImageFormat::Jpeg).unwrap();
        let jpeg = jpeg.into_inner();
        // Where red and blue are: right, then down.
        let corners = [
            ("left top", "right top"),
            ("right top", "left top"),
            ("right bottom", "left bottom"),
            ("left bottom", "right bottom"),
            ("left top", "left bottom"),
            ("right top", "right bottom"),
            ("right bottom", "right top"),
            ("left bottom", "left top"),
        ];
        for (orientation, (red, blue)) in (1..).zip(corners) {
            let bytes = oriented(&jpeg, orientation);
            let turned = decode(&bytes, true).unwrap().to_rgb8();
            let lies = orientation >= 5;
            assert_eq!(turned.dimensions(), if lies { (32, 48) } else { (48, 32) }, "{orientation}");
            let found = |channel: usize| {
                let (width, height) = turned.dimensions();
                let at = |x, y| turned.get_pixel(x, y).0[channel] > 125;
                let places = [
                    ("left top", 4, 4),
                    ("right top", width - 5, 4),
                    ("left bottom", 4, height - 5),
                    ("right bottom", width - 5, height - 5),
                ];
                places.iter().find(|(_, x, y)| at(*x, *y)).map(|(name, ..)| *name)
            };
            assert_eq!((found(0), found(2)), (Some(red), Some(blue)), "{orientation}");
            assert!(decode(&bytes, false).unwrap() == decode(&jpeg, true).unwrap(), "{orientation}");
        }
    }

    #[test]
    fn a_bomb_is_refused_by_its_header() {
        // Says 60,000 x 60,000 pixels, with a right checksum, and holds none.
        let mut png = encoded(ImageFormat::Png);
        png[16..20].copy_from_slice(&60_000_u32.to_be_bytes());
        png[20..24].copy_from_slice(&60_000_u32.to_be_bytes());
        let checksum = crc32(&png[12..29]);
        png[29..33].copy_from_slice(&checksum.to_be_bytes());
        let refusal = decode(&png, true).unwrap_err();
        assert!(
            matches!(refusal, ImageRefusal::TooManyPixels { width: 60_000, height: 60_000 }),
            "{refusal:?}"
        );
    }

    fn crc32(bytes: &[u8]) -> u32 {
        !bytes.iter().fold(!0, |crc, byte| {
            (0..8).fold(crc ^ u32::from(*byte), |crc, _| (crc >> 1) ^ (0xedb8_8320 * (crc & 1)))
        })
    }

    #[test]
    fn the_numbers_stand_in_the_order_of_the_layout() {
        let image = DynamicImage::ImageRgb8(RgbImage::from_pixel(8, 8, Rgb([255, 0, 51])));
        let (red, green, blue) = (2.0, -2.0, (0.2 - 0.5) / 0.25);
        let check = |layout, colors, expected: &dyn Fn(usize) -> f32| {
            let tensor = tensor(&image, &input(layout, colors));
            for (index, value) in tensor.iter().enumerate() {
                assert!((value - expected(index)).abs() < 1e-5, "{layout:?} {colors:?} {index}: {value}");
            }
            assert_eq!(tensor.len(), 8 * colors.channels());
        };
        check(Layout::Nchw, Colors::Rgb, &|index| [red, green, blue][index / 8]);
        check(Layout::Nhwc, Colors::Rgb, &|index| [red, green, blue][index % 3]);
        check(Layout::Nchw, Colors::Bgr, &|index| [blue, green, red][index / 8]);
        check(Layout::Nhwc, Colors::Gray, &|_| ((0.299 + 0.2 * 0.114) - 0.5) / 0.25);
    }

    #[test]
    fn a_letterbox_keeps_the_shape_of_a_picture_and_is_gray_beside_it() {
        let input = Input { fit: Some(Fit::Letterbox), ..input(Layout::Nchw, Colors::Gray) };
        let check = |width, height, [left, top, placed_width, placed_height]: [u32; 4]| {
            let expected = Placement { left, top, width: placed_width, height: placed_height };
            assert_eq!(Placement::of(width, height, &input), expected, "{width} x {height}");
        };
        check(8, 4, [0, 0, 4, 2]);
        check(4, 4, [1, 0, 2, 2]);
        check(40, 10, [0, 0, 4, 1]);
        check(1, 10_000, [1, 0, 1, 2]);
        let white = DynamicImage::ImageRgb8(RgbImage::from_pixel(40, 40, Rgb([255, 255, 255])));
        let (gray, white_number) = ((114.0 / 255.0 - 0.5) / 0.25, (1.0 - 0.5) / 0.25);
        let numbers = tensor(&white, &input);
        let expected = [gray, white_number, white_number, gray].repeat(2);
        assert!(numbers.iter().zip(&expected).all(|(a, b)| (a - b).abs() < 1e-5), "{numbers:?}");
    }
}
