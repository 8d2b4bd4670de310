//! Small pictures that differ: what stands behind the end of a JPEG belongs to its bytes and not to the picture.

/// A picture of 16 x 16.
pub const JPEG: &[u8] = include_bytes!("picture.jpg");

/// A picture of so many bytes.
#[must_use]
pub const fn jpeg_of<const BYTES: usize>() -> [u8; BYTES] {
    let mut bytes = [b'Z'; BYTES];
    let mut at = 0;
    while at < JPEG.len() {
        bytes[at] = JPEG[at];
        at += 1;
    }
    bytes
}

/// The picture with this text behind it.
#[must_use]
pub fn jpeg(text: &str) -> Vec<u8> {
    [JPEG, text.as_bytes()].concat()
}
