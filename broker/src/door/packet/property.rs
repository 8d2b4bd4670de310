//! The properties of version 5: which there are, what they hold, and those that travel with a message.

use bytes::Bytes;

use crate::door::packet::reader::Reader;
use crate::door::packet::{Malformed, Version, topic_name};

/// The identifiers of properties.
pub(super) mod id {
    pub(crate) const PAYLOAD_FORMAT: u8 = 0x01;
    pub(crate) const MESSAGE_EXPIRY: u8 = 0x02;
    pub(crate) const CONTENT_TYPE: u8 = 0x03;
    pub(crate) const RESPONSE_TOPIC: u8 = 0x08;
    pub(crate) const CORRELATION_DATA: u8 = 0x09;
    pub(crate) const SUBSCRIPTION_ID: u8 = 0x0b;
    pub(crate) const SESSION_EXPIRY: u8 = 0x11;
    pub(crate) const ASSIGNED_CLIENT_ID: u8 = 0x12;
    pub(crate) const SERVER_KEEP_ALIVE: u8 = 0x13;
    pub(crate) const AUTHENTICATION_METHOD: u8 = 0x15;
    pub(crate) const AUTHENTICATION_DATA: u8 = 0x16;
    pub(crate) const REQUEST_PROBLEM_INFORMATION: u8 = 0x17;
    pub(crate) const WILL_DELAY: u8 = 0x18;
    pub(crate) const REQUEST_RESPONSE_INFORMATION: u8 = 0x19;
    pub(crate) const RESPONSE_INFORMATION: u8 = 0x1a;
    pub(crate) const SERVER_REFERENCE: u8 = 0x1c;
    pub(crate) const REASON_STRING: u8 = 0x1f;
    pub(crate) const RECEIVE_MAXIMUM: u8 = 0x21;
    pub(crate) const TOPIC_ALIAS_MAXIMUM: u8 = 0x22;
    pub(crate) const TOPIC_ALIAS: u8 = 0x23;
    pub(crate) const MAXIMUM_QOS: u8 = 0x24;
    pub(crate) const RETAIN_AVAILABLE: u8 = 0x25;
    pub(crate) const USER_PROPERTY: u8 = 0x26;
    pub(crate) const MAXIMUM_PACKET_SIZE: u8 = 0x27;
    pub(crate) const WILDCARDS_AVAILABLE: u8 = 0x28;
    pub(crate) const SUBSCRIPTION_IDS_AVAILABLE: u8 = 0x29;
    pub(crate) const SHARED_SUBSCRIPTIONS_AVAILABLE: u8 = 0x2a;
}

/// A property of a packet.
pub(super) struct Property<'a> {
    pub(super) id: u8,
    pub(super) value: Value<'a>,
    /// Identifier and value as they came.
    encoded: &'a [u8],
}

/// What a property holds.
pub(super) enum Value<'a> {
    Byte(u8),
    Two(u16),
    Four(u32),
    Variable(u32),
    Text(&'a str),
    Binary,
    Pair,
}

/// A property that a client may not send to a server at all, or not in this packet. Section 2.2.2.2 asks for 0x81 here; what
/// can be read and must not be sent is 0x82 everywhere else, and with other brokers here too.
pub(super) const NOT_HERE: Malformed = Malformed::protocol("a property that does not belong to the packet");

/// The properties of one packet, one after the other. Each comes once, but for the user properties.
pub(super) struct Properties<'a> {
    reader: Reader<'a>,
    /// One bit for each identifier that came.
    seen: u64,
}

impl<'a> Properties<'a> {
    /// Takes the properties of a packet: none in version 3.1.1.
    pub(super) fn take(reader: &mut Reader<'a>, version: Version) -> Result<Self, Malformed> {
        let count = match version {
            Version::V4 => 0,
            Version::V5 => reader.variable()? as usize,
        };
        Ok(Self { reader: Reader::new(reader.take(count)?), seen: 0 })
    }

    /// The next property; `None` after the last.
    pub(super) fn next(&mut self) -> Result<Option<Property<'a>>, Malformed> {
        if self.reader.is_empty() {
            return Ok(None);
        }
        let start = self.reader.rest();
        let id = self.reader.byte()?;
        let value = value(&mut self.reader, id)?;
        let bit = 1 << id;
        if self.seen & bit != 0 && id != id::USER_PROPERTY {
            return Err(Malformed::protocol("a property that comes twice"));
        }
        self.seen |= bit;
        let encoded = &start[..start.len() - self.reader.left()];
        Ok(Some(Property { id, value, encoded }))
    }

    /// For the packets whose properties say nothing the door wants to know: a reason for people, and user properties.
    pub(super) fn skip(mut self, may_have_reason: bool) -> Result<(), Malformed> {
        while let Some(property) = self.next()? {
            match property.id {
                id::USER_PROPERTY => {}
                id::REASON_STRING if may_have_reason => {}
                _ => return Err(NOT_HERE),
            }
        }
        Ok(())
    }
}

/// Reads the value of a property; an identifier that is read here is below 64.
fn value<'a>(reader: &mut Reader<'a>, id: u8) -> Result<Value<'a>, Malformed> {
    match id {
        id::PAYLOAD_FORMAT
        | id::REQUEST_PROBLEM_INFORMATION
        | id::REQUEST_RESPONSE_INFORMATION
        | id::MAXIMUM_QOS
        | id::RETAIN_AVAILABLE
        | id::WILDCARDS_AVAILABLE
        | id::SUBSCRIPTION_IDS_AVAILABLE
        | id::SHARED_SUBSCRIPTIONS_AVAILABLE => match reader.byte()? {
            bit @ (0 | 1) => Ok(Value::Byte(bit)),
            _ => Err(Malformed::protocol("a property that is neither 0 nor 1")),
        },
        id::SERVER_KEEP_ALIVE | id::RECEIVE_MAXIMUM | id::TOPIC_ALIAS_MAXIMUM | id::TOPIC_ALIAS => {
            reader.two().map(Value::Two)
        }
        id::MESSAGE_EXPIRY | id::SESSION_EXPIRY | id::WILL_DELAY | id::MAXIMUM_PACKET_SIZE => {
            reader.four().map(Value::Four)
        }
        id::SUBSCRIPTION_ID => reader.variable().map(Value::Variable),
        id::CONTENT_TYPE
        | id::RESPONSE_TOPIC
        | id::ASSIGNED_CLIENT_ID
        | id::AUTHENTICATION_METHOD
        | id::RESPONSE_INFORMATION
        | id::SERVER_REFERENCE
        | id::REASON_STRING => reader.text().map(Value::Text),
        id::CORRELATION_DATA | id::AUTHENTICATION_DATA => reader.binary().map(|_| Value::Binary),
        id::USER_PROPERTY => {
            reader.text()?;
            reader.text()?;
            Ok(Value::Pair)
        }
        _ => Err(Malformed::new("an unknown property")),
    }
}

/// What an application message carries beside its payload (version 5).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct MessageProperties {
    /// How long the message is of use, from when it arrived.
    pub(crate) expiry_seconds: Option<u32>,
    /// Payload format, content type, response topic, correlation data and user properties: encoded as they came, in
    /// their order, validated. They are forwarded by copying and never looked at again.
    pub(crate) carried: Bytes,
}

/// Gathers the properties that travel with a message.
#[derive(Default)]
pub(super) struct Gathered {
    expiry_seconds: Option<u32>,
    /// The payload is declared to be UTF-8.
    pub(super) is_text: bool,
    carried: Vec<u8>,
}

impl Gathered {
    /// Takes a property that travels with a message; false when it is none.
    pub(super) fn take(&mut self, property: &Property<'_>) -> Result<bool, Malformed> {
        match (property.id, &property.value) {
            (id::MESSAGE_EXPIRY, Value::Four(seconds)) => {
                self.expiry_seconds = Some(*seconds);
                return Ok(true);
            }
            (id::PAYLOAD_FORMAT, Value::Byte(format)) => self.is_text = *format == 1,
            (id::RESPONSE_TOPIC, Value::Text(topic)) => {
                topic_name(topic).map_err(|_| Malformed::protocol("response topic"))?;
            }
            (id::CONTENT_TYPE | id::CORRELATION_DATA | id::USER_PROPERTY, _) => {}
            (_, _) => return Ok(false),
        }
        self.carried.extend_from_slice(property.encoded);
        Ok(true)
    }

    pub(super) fn finish(self) -> MessageProperties {
        MessageProperties { expiry_seconds: self.expiry_seconds, carried: self.carried.into() }
    }
}
