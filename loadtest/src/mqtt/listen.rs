//! The packets of a listener: subscribe, take what comes, acknowledge it.

use anyhow::{Result, bail, ensure};
use bytes::Bytes;

use super::properties::{Properties, put_section};
use super::{Version, goodbye, put_length, put_string, take_varint};

/// Bytes of a packet that a listener takes; the largest that MQTT has.
const TAKEN_BYTES_MAX: usize = 256 * 1024 * 1024;

/// A message from the broker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Delivered {
    /// Topic.
    pub topic: String,
    /// Body.
    pub payload: Bytes,
    /// 0, 1 or 2.
    pub qos: u8,
    /// Whether it was kept, or is to be kept (MQTT 5, when asked for).
    pub is_retained: bool,
    /// What the sender says of it; empty over MQTT 3.1.1.
    pub properties: Properties,
    /// To acknowledge it by; 0 at QoS 0.
    pub packet_id: u16,
}

/// What a broker says to a listener.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A message.
    Delivered(Delivered),
    /// The answer to a subscription: a QoS or a refusal for each filter.
    Subscribed(Vec<u8>),
    /// The broker releases a message at QoS 2.
    Release(u16),
    /// The answer to a ping.
    PingResp,
}

/// The SUBSCRIBE packet for these filters. With MQTT 5 the broker is asked to leave the retain flag as it was published.
///
/// # Errors
/// When a filter is longer than MQTT can carry.
pub fn subscribe(version: Version, filters: &[String], qos: u8, wants_retained: bool) -> Result<Vec<u8>> {
    const RETAIN_AS_PUBLISHED: u8 = 0b1000;
    const NO_RETAINED: u8 = 0b10_0000;
    let mut body = vec![0, 1];
    let mut options = qos;
    if version == Version::V5 {
        put_section(&mut body, &[]);
        options |= RETAIN_AS_PUBLISHED | if wants_retained { 0 } else { NO_RETAINED };
    }
    for filter in filters {
        put_string(&mut body, filter.as_bytes())?;
        body.push(options);
    }
    let mut packet = vec![0x82];
    put_length(&mut packet, body.len());
    packet.extend(body);
    Ok(packet)
}

/// Appends what acknowledges a message: PUBACK, or the first half of QoS 2.
pub fn put_answer(out: &mut Vec<u8>, delivered: &Delivered) {
    let [high, low] = delivered.packet_id.to_be_bytes();
    match delivered.qos {
        0 => {}
        1 => out.extend([0x40, 2, high, low]),
        _ => out.extend([0x50, 2, high, low]),
    }
}

/// Appends a PUBCOMP.
pub fn put_completion(out: &mut Vec<u8>, packet_id: u16) {
    let [high, low] = packet_id.to_be_bytes();
    out.extend([0x70, 2, high, low]);
}

/// Takes the next packet off the front of `inbox`, with the number of bytes it used; `None` when it is not whole yet.
///
/// # Errors
/// When the packet is damaged, is none for a listener, or says goodbye.
pub fn take_event(version: Version, inbox: &[u8]) -> Result<Option<(Event, usize)>> {
    let Some(&first) = inbox.first() else { return Ok(None) };
    let Some((length, header_bytes)) = take_varint(&inbox[1..])? else { return Ok(None) };
    ensure!(length <= TAKEN_BYTES_MAX, "the broker sent a packet of {length} bytes");
    let bytes = 1 + header_bytes + length;
    if inbox.len() < bytes {
        return Ok(None);
    }
    let body = &inbox[1 + header_bytes..bytes];
    let event = match first & 0xF0 {
        0x30 => Event::Delivered(delivered(version, first, body)?),
        0x60 => Event::Release(u16::from_be_bytes(split_id(body)?.0)),
        0x90 => {
            let (_, rest) = split_id(body)?;
            let codes = if version == Version::V5 { Properties::skip(rest)? } else { rest };
            Event::Subscribed(codes.to_vec())
        }
        0xD0 => Event::PingResp,
        0xE0 => {
            let code = body.first().copied().unwrap_or(0);
            bail!("the broker said goodbye with code {code:#04x}: {}", goodbye(code));
        }
        kind => bail!("the broker sent a packet of kind {kind:#04x}, which no listener expects"),
    };
    Ok(Some((event, bytes)))
}

fn delivered(version: Version, first: u8, body: &[u8]) -> Result<Delivered> {
    let (length, rest) = split_id(body)?;
    let length = usize::from(u16::from_be_bytes(length));
    ensure!(rest.len() >= length, "a message is cut short");
    let (topic, mut rest) = rest.split_at(length);
    let qos = (first >> 1) & 3;
    let mut packet_id = 0;
    if qos > 0 {
        let (id, after) = split_id(rest)?;
        (packet_id, rest) = (u16::from_be_bytes(id), after);
    }
    let mut properties = Properties::default();
    if version == Version::V5 {
        (properties, rest) = Properties::take(rest)?;
    }
    let topic = std::str::from_utf8(topic)?.to_owned();
    let payload = Bytes::copy_from_slice(rest);
    Ok(Delivered { topic, payload, qos, is_retained: first & 1 != 0, properties, packet_id })
}

fn split_id(body: &[u8]) -> Result<([u8; 2], &[u8])> {
    match body.split_first_chunk() {
        Some((id, rest)) => Ok((*id, rest)),
        None => bail!("a packet is cut short"),
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Publish, put_publish_in};
    use super::*;

    #[test]
    fn a_published_message_is_taken_as_it_was() {
        let properties = Properties { content_type: Some("text".into()), ..Properties::default() };
        for version in [Version::V311, Version::V5] {
            let publish = Publish {
                topic: "a/b".into(),
                payload: vec![0xFF; 300].into(),
                qos: 1,
                is_retained: true,
                properties: properties.encode().unwrap().into(),
            };
            let mut packet = Vec::new();
            put_publish_in(version, &mut packet, &publish, 7, false);
            for length in 0..packet.len() {
                assert_eq!(take_event(version, &packet[..length]).unwrap(), None);
            }
            let expected = Delivered {
                topic: "a/b".into(),
                payload: publish.payload,
                qos: 1,
                is_retained: true,
                properties: if version == Version::V5 { properties.clone() } else { Properties::default() },
                packet_id: 7,
            };
            let taken = take_event(version, &packet).unwrap();
            assert_eq!(taken, Some((Event::Delivered(expected), packet.len())));
        }
    }

    #[test]
    fn refused_subscriptions_show_their_codes() {
        let heard = take_event(Version::V311, &[0x90, 4, 0, 1, 1, 0x80]).unwrap();
        assert_eq!(heard, Some((Event::Subscribed(vec![1, 0x80]), 6)));
        let heard = take_event(Version::V5, &[0x90, 4, 0, 1, 0, 0x87]).unwrap();
        assert_eq!(heard, Some((Event::Subscribed(vec![0x87]), 6)));
        assert!(take_event(Version::V5, &[0xE0, 1, 0x8B]).is_err());
    }
}
