//! Pictures: what a file is by its first bytes, and whether all of it is there.
//!
//! Nothing here makes pixels. A structure is walked, and the scan data of a JPEG is read as its Huffman codes, since
//! decoders paint what is missing gray and say nothing.

use image::ImageFormat;

mod jpeg;

/// Bytes from which the type of a picture is known.
pub const FIRST_BYTES: usize = 16;
/// Zeros at the end of what was compressed: no encoder ends so, a file that was never filled does.
const ZERO_BYTES: usize = 32;

/// The types of picture that are taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PictureType {
    /// JPEG.
    Jpeg,
    /// PNG.
    Png,
    /// WebP.
    Webp,
}

impl PictureType {
    /// What a file is that begins with these bytes.
    #[must_use]
    pub fn of(first_bytes: &[u8]) -> Option<Self> {
        if first_bytes.starts_with(&[0xff, 0xd8, 0xff]) {
            return Some(Self::Jpeg);
        }
        if first_bytes.starts_with(b"\x89PNG\r\n\x1a\n") {
            return Some(Self::Png);
        }
        let is_webp = first_bytes.starts_with(b"RIFF") && first_bytes.get(8..12) == Some(b"WEBP");
        is_webp.then_some(Self::Webp)
    }

    /// Its name on the wire.
    #[must_use]
    pub fn content_type(self) -> &'static str {
        match self {
            Self::Jpeg => "image/jpeg",
            Self::Png => "image/png",
            Self::Webp => "image/webp",
        }
    }

    /// Its decoder.
    #[must_use]
    pub fn format(self) -> ImageFormat {
        match self {
            Self::Jpeg => ImageFormat::Jpeg,
            Self::Png => ImageFormat::Png,
            Self::Webp => ImageFormat::WebP,
        }
    }
}

/// Why a file is no picture.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PictureFault {
    /// There is nothing.
    #[error("the file is empty")]
    Empty,
    /// It is none of the types that are taken.
    #[error("the file is no JPEG, PNG or WebP image")]
    Unknown,
    /// A part of it is missing, or is not what it should be.
    #[error("the image is broken: {0}")]
    Broken(&'static str),
}

/// Says what a whole file is. Bytes behind its end make no picture broken, and no JPEG a missing end mark.
///
/// # Errors
/// [`PictureFault`].
pub fn check(bytes: &[u8]) -> Result<PictureType, PictureFault> {
    if bytes.is_empty() {
        return Err(PictureFault::Empty);
    }
    let picture = PictureType::of(bytes).ok_or(PictureFault::Unknown)?;
    let outcome = match picture {
        PictureType::Jpeg => jpeg::check(bytes),
        PictureType::Png => check_png(bytes),
        PictureType::Webp => check_webp(bytes),
    };
    outcome.map(|()| picture).map_err(PictureFault::Broken)
}

/// Walks the chunks up to the last one. Their checksums are the decoder's to judge, which insists on the last one, too.
fn check_png(bytes: &[u8]) -> Result<(), &'static str> {
    const AROUND: usize = 12;
    const CUT: &str = "it ends in the middle of a chunk";
    let mut rest = &bytes[8..];
    let mut has_pixels = false;
    loop {
        let (kind, length) = png_chunk(rest).ok_or(CUT)?;
        rest = rest.get(AROUND + length..).ok_or(CUT)?;
        match kind {
            b"IEND" => return if has_pixels { Ok(()) } else { Err("it has no pixels") },
            b"IDAT" => has_pixels = true,
            kind if !kind.iter().all(u8::is_ascii_alphabetic) => return Err("a chunk has no name"),
            _ => {}
        }
    }
}

/// Name and length of the chunk that stands here.
fn png_chunk(bytes: &[u8]) -> Option<(&[u8; 4], usize)> {
    let (length, bytes) = bytes.split_first_chunk()?;
    Some((bytes.first_chunk()?, u32::from_be_bytes(*length) as usize))
}

/// Walks the chunks of the length that the file says it has.
fn check_webp(bytes: &[u8]) -> Result<(), &'static str> {
    const CUT: &str = "it ends before its length";
    let mut rest = &bytes[12..];
    let length = riff_chunk(bytes).ok_or(CUT)?.1.checked_sub(4).ok_or("its length is too small")?;
    // The last chunk of an odd length may lack the byte that makes it even.
    if rest.len() + 1 < length {
        return Err(CUT);
    }
    rest = &rest[..length.min(rest.len())];
    let mut has_pixels = false;
    while let Some((kind, length)) = riff_chunk(rest) {
        let content = rest.get(8..8 + length).ok_or("it ends in the middle of a chunk")?;
        match kind {
            b"VP8 " | b"VP8L" | b"ANMF" if ends_with_zeros(content) => return Err("it ends with zeros"),
            b"VP8 " | b"VP8L" | b"ANMF" => has_pixels = true,
            _ => {}
        }
        rest = rest.get(8 + length + length % 2..).unwrap_or_default();
    }
    if has_pixels { Ok(()) } else { Err("it has no pixels") }
}

/// Name and length of the chunk that stands here.
fn riff_chunk(bytes: &[u8]) -> Option<(&[u8; 4], usize)> {
    let (kind, bytes) = bytes.split_first_chunk()?;
    Some((kind, u32::from_le_bytes(*bytes.first_chunk()?) as usize))
}

fn ends_with_zeros(bytes: &[u8]) -> bool {
    bytes.len() >= ZERO_BYTES && bytes[bytes.len() - ZERO_BYTES..].iter().all(|byte| *byte == 0)
}

#[cfg(test)]
mod tests;
