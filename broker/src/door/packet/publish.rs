//! PUBLISH in both directions.

use std::num::{NonZeroU16, NonZeroU32};

use bytes::{BufMut, BytesMut};

use crate::door::packet::property::{Gathered, NOT_HERE, Properties, Value, id};
use crate::door::packet::reader::Reader;
use crate::door::packet::writer::{put_text, put_variable, variable_bytes};
use crate::door::packet::{Malformed, MessageProperties, Reason, Version, topic_name};
use crate::message::Qos;

/// Bytes the properties of a PUBLISH may have.
const PROPERTY_BYTES_MAX: usize = 64 << 10;

/// The part of a PUBLISH before its payload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PublishHead<'a> {
    /// May be empty where an alias stands for it.
    pub(crate) topic: &'a str,
    /// Zero at QoS 0.
    pub(crate) packet_id: u16,
    /// Whether it is one of those that were announced is for the caller to judge.
    pub(crate) alias: Option<NonZeroU16>,
    pub(crate) properties: MessageProperties,
    /// Bytes of the body before the payload.
    pub(crate) head_bytes: usize,
}

/// Reads the head of a PUBLISH whose body has `body_bytes`; `None` while more `bytes` of it are needed.
pub(crate) fn publish_head(
    version: Version,
    body_bytes: usize,
    qos: Qos,
    bytes: &[u8],
) -> Result<Option<PublishHead<'_>>, Malformed> {
    let Some(head_bytes) = head_bytes(version, body_bytes, qos, bytes)? else { return Ok(None) };
    let Some(head) = bytes.get(..head_bytes) else { return Ok(None) };
    let mut reader = Reader::new(head);
    let topic = reader.text()?;
    let packet_id = if qos == Qos::AtMostOnce { 0 } else { reader.packet_id()? };
    let mut gathered = Gathered::default();
    let alias = alias(Properties::take(&mut reader, version)?, &mut gathered)?;
    if !topic.is_empty() || version == Version::V4 {
        topic_name(topic)?;
    } else if alias.is_none() {
        return Err(Malformed::protocol("neither a topic nor an alias"));
    }
    Ok(Some(PublishHead { topic, packet_id, alias, properties: gathered.finish(), head_bytes }))
}

/// Bytes before the payload, as soon as they can be known.
fn head_bytes(
    version: Version,
    body_bytes: usize,
    qos: Qos,
    bytes: &[u8],
) -> Result<Option<usize>, Malformed> {
    let Some(topic_bytes) = bytes.first_chunk().map(|length| usize::from(u16::from_be_bytes(*length))) else {
        return Ok(None);
    };
    let id_bytes = if qos == Qos::AtMostOnce { 0 } else { 2 };
    let fixed_bytes = 2 + topic_bytes + id_bytes;
    if version == Version::V4 {
        return within(fixed_bytes, body_bytes).map(Some);
    }
    within(fixed_bytes + 1, body_bytes)?;
    let Some(after_fixed) = bytes.get(fixed_bytes..) else { return Ok(None) };
    let mut reader = Reader::new(after_fixed);
    let Some(property_bytes) = reader.remaining_length(true)? else { return Ok(None) };
    if property_bytes > PROPERTY_BYTES_MAX {
        return Err(Malformed::with("properties of a publish are too large", Reason::PACKET_TOO_LARGE));
    }
    let length_bytes = after_fixed.len() - reader.left();
    within(fixed_bytes + length_bytes + property_bytes, body_bytes).map(Some)
}

fn within(head_bytes: usize, body_bytes: usize) -> Result<usize, Malformed> {
    if head_bytes > body_bytes {
        Err(Malformed::new("publish is shorter than its head"))
    } else {
        Ok(head_bytes)
    }
}

/// Gathers the properties of the message; what remains is the alias.
fn alias(mut properties: Properties<'_>, gathered: &mut Gathered) -> Result<Option<NonZeroU16>, Malformed> {
    let mut found = None;
    while let Some(property) = properties.next()? {
        match (property.id, &property.value) {
            (id::TOPIC_ALIAS, Value::Two(alias)) => {
                found = Some(NonZeroU16::new(*alias).ok_or(ALIAS_ZERO)?);
            }
            (id::SUBSCRIPTION_ID, _) => {
                return Err(Malformed::protocol("a subscription identifier from a client"));
            }
            (_, _) if gathered.take(&property)? => {}
            (_, _) => return Err(NOT_HERE),
        }
    }
    Ok(found)
}

const ALIAS_ZERO: Malformed = Malformed::with("topic alias 0", Reason::TOPIC_ALIAS_INVALID);

/// A message on its way to a subscriber. Version 3.1.1 has no alias, expiry, carried properties and identifiers; they
/// are left out there.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Outgoing<'a> {
    pub(crate) topic: &'a str,
    /// An alias for the topic, and whether the client was told before what it stands for.
    pub(crate) alias: Option<(NonZeroU16, bool)>,
    pub(crate) payload: &'a [u8],
    pub(crate) qos: Qos,
    /// Zero at QoS 0.
    pub(crate) packet_id: u16,
    pub(crate) dup: bool,
    pub(crate) retain: bool,
    pub(crate) expiry_seconds: Option<u32>,
    /// [`MessageProperties::carried`].
    pub(crate) carried: &'a [u8],
    pub(crate) subscription_ids: &'a [NonZeroU32],
}

impl Outgoing<'_> {
    fn wire_topic(&self, version: Version) -> &str {
        match (version, self.alias) {
            (Version::V5, Some((_, true))) => "",
            (Version::V4 | Version::V5, _) => self.topic,
        }
    }

    fn property_bytes(&self) -> usize {
        let alias_bytes = if self.alias.is_some() { 3 } else { 0 };
        let expiry_bytes = if self.expiry_seconds.is_some() { 5 } else { 0 };
        let id_bytes = |id: &NonZeroU32| 1 + variable_bytes(id.get() as usize);
        let ids_bytes: usize = self.subscription_ids.iter().map(id_bytes).sum();
        alias_bytes + expiry_bytes + ids_bytes + self.carried.len()
    }

    fn body_bytes(&self, version: Version) -> usize {
        let id_bytes = if self.qos == Qos::AtMostOnce { 0 } else { 2 };
        let properties_bytes = match version {
            Version::V4 => 0,
            Version::V5 => variable_bytes(self.property_bytes()) + self.property_bytes(),
        };
        2 + self.wire_topic(version).len() + id_bytes + properties_bytes + self.payload.len()
    }
}

/// Bytes of the whole packet that [`put_publish`] writes, to compare with what the client takes.
pub(crate) fn publish_bytes(version: Version, publish: &Outgoing<'_>) -> usize {
    let body_bytes = publish.body_bytes(version);
    1 + variable_bytes(body_bytes) + body_bytes
}

/// Writes a PUBLISH to a subscriber.
pub(crate) fn put_publish(out: &mut BytesMut, version: Version, publish: &Outgoing<'_>) {
    out.reserve(publish_bytes(version, publish));
    put_publish_head(out, version, publish);
    out.put_slice(publish.payload);
}

/// Writes a PUBLISH to a subscriber up to its payload.
pub(crate) fn put_publish_head(out: &mut BytesMut, version: Version, publish: &Outgoing<'_>) {
    let flags = u8::from(publish.dup) << 3 | (publish.qos as u8) << 1 | u8::from(publish.retain);
    out.put_u8(0x30 | flags);
    put_variable(out, publish.body_bytes(version));
    put_text(out, publish.wire_topic(version));
    if publish.qos != Qos::AtMostOnce {
        out.put_u16(publish.packet_id);
    }
    if version == Version::V5 {
        put_properties(out, publish);
    }
}

fn put_properties(out: &mut BytesMut, publish: &Outgoing<'_>) {
    put_variable(out, publish.property_bytes());
    if let Some((alias, _)) = publish.alias {
        out.put_u8(id::TOPIC_ALIAS);
        out.put_u16(alias.get());
    }
    if let Some(seconds) = publish.expiry_seconds {
        out.put_u8(id::MESSAGE_EXPIRY);
        out.put_u32(seconds);
    }
    for subscription_id in publish.subscription_ids {
        out.put_u8(id::SUBSCRIPTION_ID);
        put_variable(out, subscription_id.get() as usize);
    }
    out.put_slice(publish.carried);
}
