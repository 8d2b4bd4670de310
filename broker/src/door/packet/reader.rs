//! Takes fields from the front of a packet.

use crate::door::packet::Malformed;

/// Bytes a variable byte integer may have.
const VARIABLE_BYTES_MAX: usize = 4;

/// What is left of a packet.
#[derive(Clone, Copy, Debug)]
pub(super) struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Bytes that were not taken yet.
    pub(super) fn left(&self) -> usize {
        self.0.len()
    }

    pub(super) fn rest(&self) -> &'a [u8] {
        self.0
    }

    pub(super) fn byte(&mut self) -> Result<u8, Malformed> {
        self.array().map(u8::from_be_bytes)
    }

    pub(super) fn two(&mut self) -> Result<u16, Malformed> {
        self.array().map(u16::from_be_bytes)
    }

    pub(super) fn four(&mut self) -> Result<u32, Malformed> {
        self.array().map(u32::from_be_bytes)
    }

    pub(super) fn packet_id(&mut self) -> Result<u16, Malformed> {
        match self.two()? {
            0 => Err(Malformed::protocol("packet id 0")),
            id => Ok(id),
        }
    }

    pub(super) fn binary(&mut self) -> Result<&'a [u8], Malformed> {
        let count = usize::from(self.two()?);
        self.take(count)
    }

    pub(super) fn text(&mut self) -> Result<&'a str, Malformed> {
        let text = std::str::from_utf8(self.binary()?).map_err(|_| Malformed::new("text is not UTF-8"))?;
        if text.contains(is_barred) { Err(Malformed::new("text with a control character")) } else { Ok(text) }
    }

    /// A variable byte integer in as few bytes as it needs.
    pub(super) fn variable(&mut self) -> Result<u32, Malformed> {
        match self.remaining_length(true)? {
            Some(value) => Ok(u32::try_from(value).expect("four times seven bits")),
            None => Err(ENDS_EARLY),
        }
    }

    /// The remaining length of a fixed header; `None` while more bytes are needed. Version 3.1.1 does not ask for the
    /// shortest form.
    pub(super) fn remaining_length(&mut self, must_be_minimal: bool) -> Result<Option<usize>, Malformed> {
        let mut value = 0;
        for (index, byte) in self.0.iter().take(VARIABLE_BYTES_MAX).enumerate() {
            value |= usize::from(byte & 0x7f) << (7 * index);
            if byte & 0x80 == 0 {
                if must_be_minimal && *byte == 0 && index > 0 {
                    return Err(Malformed::new("variable byte integer is longer than it needs to be"));
                }
                self.take(index + 1)?;
                return Ok(Some(value));
            }
        }
        if self.left() < VARIABLE_BYTES_MAX {
            Ok(None)
        } else {
            Err(Malformed::new("variable byte integer has five bytes"))
        }
    }

    pub(super) fn end(&self) -> Result<(), Malformed> {
        if self.is_empty() { Ok(()) } else { Err(Malformed::new("bytes after the last field")) }
    }

    fn array<const COUNT: usize>(&mut self) -> Result<[u8; COUNT], Malformed> {
        let (taken, rest) = self.0.split_first_chunk().ok_or(ENDS_EARLY)?;
        self.0 = rest;
        Ok(*taken)
    }

    pub(super) fn take(&mut self, count: usize) -> Result<&'a [u8], Malformed> {
        let (taken, rest) = self.0.split_at_checked(count).ok_or(ENDS_EARLY)?;
        self.0 = rest;
        Ok(taken)
    }
}

/// Whether a text has no place for a character. U+0000 is forbidden; the other controls and the code points that are no
/// characters may be refused (1.5.3 of version 3.1.1, 1.5.4 of version 5), and are: nobody has them in a name, and they
/// forge lines of logs.
fn is_barred(character: char) -> bool {
    let code = u32::from(character);
    character.is_control() || matches!(code, 0xfdd0..=0xfdef) || code & 0xfffe == 0xfffe
}

const ENDS_EARLY: Malformed = Malformed::new("packet ends inside a field");
