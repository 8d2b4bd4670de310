//! From the bytes of an image to the numbers a model takes: decoded within limits, resized, normalized.

use std::io::Cursor;

use image::imageops::{self, FilterType};
use image::{DynamicImage, ImageError, ImageFormat, ImageReader, Limits};

use super::settings::{Colors, Input, Layout};

/// The largest image file that is decoded, bytes.
pub const IMAGE_BYTES_MAX: usize = 64 * 1024 * 1024;
/// The most pixels an image may have.
pub const IMAGE_PIXELS_MAX: u64 = 50_000_000;
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
            Self::Undecodable(_) => "IMAGE_UNDECODABLE",
        }
    }
}

/// Decodes a JPEG, PNG or WebP image; what it is, its first bytes say.
///
/// # Errors
/// [`ImageRefusal`].
pub fn decode(bytes: &[u8]) -> Result<DynamicImage, ImageRefusal> {
    if bytes.len() > IMAGE_BYTES_MAX {
        return Err(ImageRefusal::TooManyBytes { bytes: bytes.len() as u64 });
    }
    let format = image::guess_format(bytes).map_err(|_| ImageRefusal::UnknownFormat)?;
    if ![ImageFormat::Jpeg, ImageFormat::Png, ImageFormat::WebP].contains(&format) {
        return Err(ImageRefusal::UnknownFormat);
    }
    let reader = |bytes| {
        let mut reader = ImageReader::with_format(Cursor::new(bytes), format);
        let mut limits = Limits::default();
        limits.max_alloc = Some(DECODER_BYTES_MAX);
        reader.limits(limits);
        reader
    };
    // The header alone says how large it is, before anything is allocated for it.
    let (width, height) = reader(bytes).into_dimensions().map_err(ImageRefusal::Undecodable)?;
    if u64::from(width) * u64::from(height) > IMAGE_PIXELS_MAX {
        return Err(ImageRefusal::TooManyPixels { width, height });
    }
    reader(bytes).decode().map_err(ImageRefusal::Undecodable)
}

/// The numbers of an image in the order that the model takes them.
#[must_use]
pub fn tensor(image: &DynamicImage, input: &Input) -> Vec<f32> {
    let (width, height) = (input.width, input.height);
    // Transparency means nothing in a barn.
    let resized = imageops::resize(&image.to_rgb8(), width, height, FilterType::Triangle);
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
    use image::{Rgb, RgbImage};

    use super::*;

    fn encoded(format: ImageFormat) -> Vec<u8> {
        let image = RgbImage::from_fn(40, 30, |x, y| Rgb([x as u8 * 6, y as u8 * 8, 128]));
        let mut bytes = Cursor::new(Vec::new());
        image.write_to(&mut bytes, format).unwrap();
        bytes.into_inner()
    }

    fn input(layout: Layout, colors: Colors) -> Input {
        let (mean, std) = (vec![0.5; colors.channels()], vec![0.25; colors.channels()]);
        Input { width: 4, height: 2, layout, colors, scale: 255.0, mean, std }
    }

    #[test]
    fn jpeg_png_and_webp_are_taken_and_nothing_else() {
        for format in [ImageFormat::Jpeg, ImageFormat::Png, ImageFormat::WebP] {
            let image = decode(&encoded(format)).unwrap();
            assert_eq!((image.width(), image.height()), (40, 30), "{format:?}");
        }
        for bytes in [&b""[..], b"GIF89a\x01\x00\x01\x00", b"<svg/>", b"not an image at all"] {
            assert!(matches!(decode(bytes), Err(ImageRefusal::UnknownFormat)), "{bytes:?}");
        }
    }

    #[test]
    fn an_image_that_is_cut_off_is_refused() {
        for format in [ImageFormat::Png, ImageFormat::WebP] {
            let whole = encoded(format);
            for length in [20, whole.len() / 2] {
                let refusal = decode(&whole[..length]).unwrap_err();
                assert_eq!(refusal.code(), "IMAGE_UNDECODABLE", "{format:?} at {length}");
            }
        }
        let jpeg = encoded(ImageFormat::Jpeg);
        assert_eq!(decode(&jpeg[..jpeg.len() / 2]).unwrap_err().code(), "IMAGE_UNDECODABLE");
    }

    #[test]
    fn a_bomb_is_refused_by_its_header() {
        // Says 60,000 x 60,000 pixels, with a right checksum, and holds none.
        let mut png = encoded(ImageFormat::Png);
        png[16..20].copy_from_slice(&60_000_u32.to_be_bytes());
        png[20..24].copy_from_slice(&60_000_u32.to_be_bytes());
        let checksum = crc32(&png[12..29]);
        png[29..33].copy_from_slice(&checksum.to_be_bytes());
        let refusal = decode(&png).unwrap_err();
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
}
