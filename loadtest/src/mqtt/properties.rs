//! The properties of MQTT 5 that a message carries, and the one of a CONNACK that a publisher obeys.

use anyhow::{Context, Result, bail, ensure};
use serde::{Deserialize, Serialize};

use super::{put_length, put_string, take_varint};

const PAYLOAD_FORMAT: u8 = 0x01;
const MESSAGE_EXPIRY: u8 = 0x02;
const CONTENT_TYPE: u8 = 0x03;
const RESPONSE_TOPIC: u8 = 0x08;
const CORRELATION_DATA: u8 = 0x09;
const SUBSCRIPTION_ID: u8 = 0x0B;
const RECEIVE_MAX: u8 = 0x21;
const TOPIC_ALIAS: u8 = 0x23;
const USER: u8 = 0x26;

/// What a publisher says of its message. What only concerns one connection (topic alias, subscription id) is not here.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Properties {
    /// 1 when the payload is text.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub payload_format: Option<u8>,
    /// Seconds after which a broker may drop the message.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message_expiry_seconds: Option<u32>,
    /// What the payload is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub content_type: Option<String>,
    /// Where an answer is expected.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub response_topic: Option<String>,
    /// What an answer must repeat, as lower-case hex.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub correlation_data_hex: Option<String>,
    /// Names and values of the sender's own.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub user: Vec<(String, String)>,
}

impl Properties {
    /// Whether there is nothing to say.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// As they stand in a packet, without their length.
    ///
    /// # Errors
    /// When a text is longer than MQTT can carry, or the correlation data is no hex.
    pub fn encode(&self) -> Result<Vec<u8>> {
        let mut out = Vec::new();
        if let Some(format) = self.payload_format {
            out.extend([PAYLOAD_FORMAT, format]);
        }
        if let Some(seconds) = self.message_expiry_seconds {
            out.push(MESSAGE_EXPIRY);
            out.extend(seconds.to_be_bytes());
        }
        for (id, text) in [(CONTENT_TYPE, &self.content_type), (RESPONSE_TOPIC, &self.response_topic)] {
            if let Some(text) = text {
                out.push(id);
                put_string(&mut out, text.as_bytes())?;
            }
        }
        if let Some(data) = &self.correlation_data_hex {
            out.push(CORRELATION_DATA);
            put_string(&mut out, &hex::decode(data).context("correlation_data_hex is no hex")?)?;
        }
        for (name, value) in &self.user {
            out.push(USER);
            put_string(&mut out, name.as_bytes())?;
            put_string(&mut out, value.as_bytes())?;
        }
        Ok(out)
    }

    /// Reads them from the front of a packet's rest, their length first; returns what follows them.
    ///
    /// # Errors
    /// When they are damaged, or of no message.
    pub fn take(bytes: &[u8]) -> Result<(Self, &[u8])> {
        let (mut rest, after) = take_section(bytes)?;
        let mut found = Self::default();
        while let Some((&id, value)) = rest.split_first() {
            rest = match id {
                PAYLOAD_FORMAT => {
                    let (value, rest) = take::<1>(value)?;
                    found.payload_format = Some(value[0]);
                    rest
                }
                MESSAGE_EXPIRY => {
                    let (value, rest) = take::<4>(value)?;
                    found.message_expiry_seconds = Some(u32::from_be_bytes(value));
                    rest
                }
                CONTENT_TYPE | RESPONSE_TOPIC => {
                    let (text, rest) = take_text(value)?;
                    let place =
                        if id == CONTENT_TYPE { &mut found.content_type } else { &mut found.response_topic };
                    *place = Some(text);
                    rest
                }
                CORRELATION_DATA => {
                    let (data, rest) = take_binary(value)?;
                    found.correlation_data_hex = Some(hex::encode(data));
                    rest
                }
                SUBSCRIPTION_ID => {
                    let (_, used) = take_varint(value)?.context("a property is cut short")?;
                    &value[used..]
                }
                TOPIC_ALIAS => take::<2>(value)?.1,
                USER => {
                    let (name, rest) = take_text(value)?;
                    let (value, rest) = take_text(rest)?;
                    found.user.push((name, value));
                    rest
                }
                other => bail!("property {other:#04x} belongs to no message"),
            };
        }
        Ok((found, after))
    }
}

impl Properties {
    /// What follows the properties of a packet, whatever they are.
    ///
    /// # Errors
    /// When they are cut short.
    pub fn skip(bytes: &[u8]) -> Result<&[u8]> {
        Ok(take_section(bytes)?.1)
    }
}

/// The receive maximum among the properties of a CONNACK; 65,535 unless the broker says less.
pub(super) fn receive_max(bytes: &[u8]) -> Result<u16> {
    if bytes.is_empty() {
        return Ok(u16::MAX);
    }
    let (mut rest, _) = take_section(bytes)?;
    while let Some((&id, value)) = rest.split_first() {
        rest = match id {
            RECEIVE_MAX => return Ok(u16::from_be_bytes(take::<2>(value)?.0).max(1)),
            0x24 | 0x25 | 0x28 | 0x29 | 0x2A => take::<1>(value)?.1,
            0x13 | 0x22 => take::<2>(value)?.1,
            0x11 | 0x27 => take::<4>(value)?.1,
            0x12 | 0x15 | 0x16 | 0x1A | 0x1C | 0x1F => take_binary(value)?.1,
            USER => take_binary(take_binary(value)?.1)?.1,
            other => bail!("property {other:#04x} belongs to no CONNACK"),
        };
    }
    Ok(u16::MAX)
}

/// A length and so many bytes; then the rest.
fn take_section(bytes: &[u8]) -> Result<(&[u8], &[u8])> {
    let (length, used) = take_varint(bytes)?.context("the properties are cut short")?;
    ensure!(bytes.len() >= used + length, "the properties are cut short");
    Ok(bytes[used..].split_at(length))
}

fn take<const COUNT: usize>(bytes: &[u8]) -> Result<([u8; COUNT], &[u8])> {
    let (value, rest) = bytes.split_first_chunk().context("a property is cut short")?;
    Ok((*value, rest))
}

fn take_binary(bytes: &[u8]) -> Result<(&[u8], &[u8])> {
    let (length, rest) = take::<2>(bytes)?;
    let length = usize::from(u16::from_be_bytes(length));
    ensure!(rest.len() >= length, "a property is cut short");
    Ok(rest.split_at(length))
}

fn take_text(bytes: &[u8]) -> Result<(String, &[u8])> {
    let (text, rest) = take_binary(bytes)?;
    Ok((std::str::from_utf8(text).context("a property is no text")?.to_owned(), rest))
}

/// The properties with their length, as a packet holds them.
pub(super) fn put_section(out: &mut Vec<u8>, properties: &[u8]) {
    put_length(out, properties.len());
    out.extend_from_slice(properties);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_encoded_is_read_back() {
        let properties = Properties {
            payload_format: Some(1),
            message_expiry_seconds: Some(3600),
            content_type: Some("application/json".into()),
            response_topic: Some("a/b".into()),
            correlation_data_hex: Some("00ff".into()),
            user: vec![("k".into(), "v".into()), ("k".into(), "w".into())],
        };
        let mut packet = Vec::new();
        put_section(&mut packet, &properties.encode().unwrap());
        packet.extend(b"payload");
        assert_eq!(Properties::take(&packet).unwrap(), (properties, &b"payload"[..]));
        for length in 0..packet.len() - 8 {
            assert!(Properties::take(&packet[..length]).is_err(), "{length}");
        }
    }

    #[test]
    fn what_concerns_one_connection_is_left_out() {
        let (found, rest) = Properties::take(&[6, SUBSCRIPTION_ID, 0x81, 1, TOPIC_ALIAS, 0, 1]).unwrap();
        assert!(found.is_empty() && rest.is_empty());
    }

    #[test]
    fn a_connack_says_how_much_may_be_open() {
        assert_eq!(receive_max(&[]).unwrap(), 65_535);
        assert_eq!(receive_max(&[6, 0x24, 1, RECEIVE_MAX, 0, 20, 0]).unwrap(), 20);
        assert_eq!(receive_max(&[5, 0x1F, 0, 2, b'n', b'o']).unwrap(), 65_535);
    }
}
