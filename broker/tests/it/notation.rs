//! How packets are written down in the tests of the two specifications.
//!
//! A packet is hexadecimal digits, with spaces wherever they help. `[ ... ]` stands for what it encloses with its length in
//! front as a variable byte integer, `<text>` for a text with its length in two bytes, `'text'` for the bytes alone.
//! So `10 [ <MQTT> 04 02 003c <id> ]` is the CONNECT of a client `id`, and every wrong length can still be spelled out.

/// The bytes of a packet.
pub(crate) fn bytes(notation: &str) -> Vec<u8> {
    let mut rest = notation;
    let bytes = sequence(&mut rest);
    assert!(rest.is_empty(), "a bracket is closed that was not opened: {notation}");
    bytes
}

/// Everything up to the end or to the bracket that closes.
fn sequence(rest: &mut &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    loop {
        *rest = rest.trim_start();
        let Some(first) = rest.chars().next() else { return bytes };
        match first {
            ']' => return bytes,
            '[' => {
                *rest = &rest[1..];
                let inner = sequence(rest);
                *rest = rest.strip_prefix(']').expect("a bracket is closed");
                bytes.extend(variable(inner.len()));
                bytes.extend(inner);
            }
            '<' => {
                let text = quoted(rest, '>');
                bytes.extend(u16::try_from(text.len()).expect("a short text").to_be_bytes());
                bytes.extend(text.as_bytes());
            }
            '\'' => bytes.extend(quoted(rest, '\'').as_bytes()),
            _ => {
                let (digits, after) = rest.split_at(2);
                bytes.push(u8::from_str_radix(digits, 16).expect("two hexadecimal digits"));
                *rest = after;
            }
        }
    }
}

/// What stands between here and `end`.
fn quoted<'a>(rest: &mut &'a str, end: char) -> &'a str {
    let (text, after) = rest[1..].split_once(end).expect("a text is closed");
    *rest = after;
    text
}

/// A variable byte integer.
pub(crate) fn variable(mut value: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    while value > 0x7f {
        bytes.push((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    bytes.push(value as u8);
    bytes
}
