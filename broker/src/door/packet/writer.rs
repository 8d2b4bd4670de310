//! Puts fields at the end of what is sent.

use bytes::{BufMut, BytesMut};

/// Bytes that [`put_variable`] needs for a value.
pub(super) fn variable_bytes(value: usize) -> usize {
    match value {
        0..=0x7f => 1,
        0x80..=0x3fff => 2,
        0x4000..=0x1f_ffff => 3,
        _ => 4,
    }
}

/// Writes a variable byte integer.
pub(super) fn put_variable(out: &mut BytesMut, mut value: usize) {
    assert!(value < 1 << 28, "what is sent is bounded by what was taken in");
    while value > 0x7f {
        out.put_u8((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    out.put_u8(value as u8);
}

/// Writes a text with its length.
pub(super) fn put_text(out: &mut BytesMut, text: &str) {
    out.put_u16(u16::try_from(text.len()).expect("a text that is sent came in or is ours"));
    out.put_slice(text.as_bytes());
}
