//! MQTT 3.1.1 and 5 on the wire: strict reading of what a client may send, writing of what the door answers.
//!
//! Reading works on borrowed bytes and decides everything from the fixed header first, so that no length a client
//! claims is believed before it was compared with a limit. Nothing here knows what happened before a packet: what
//! depends on the session is judged by the caller.

mod ack;
mod answer;
mod connect;
mod property;
mod publish;
mod reader;
mod reason;
mod subscribe;
mod writer;

pub(crate) use ack::{Ack, Disconnect, ack, disconnect};
pub(crate) use answer::{
    ConnackProperties, ConnectCode, codes_bytes, put_connack, put_disconnect, put_pingresp, put_puback,
    put_pubcomp, put_pubrec, put_pubrel, put_suback, put_unsuback,
};
pub(crate) use connect::{BadConnect, Connect, ConnectProperties, Will, connect};
pub(crate) use property::MessageProperties;
pub(crate) use publish::{Outgoing, publish_bytes, publish_head, put_publish, put_publish_head};
pub(crate) use reason::{Malformed, Reason};
pub(crate) use subscribe::{
    Asked, RetainHandling, Subscribe, SubscribeOptions, Unsubscribe, subscribe, unsubscribe,
};

use crate::door::packet::reader::Reader;
use crate::message::Qos;

/// Bytes after the fixed header that an acknowledgement, a DISCONNECT or an AUTH may have.
const SHORT_BODY_BYTES_MAX: usize = 64 << 10;

/// The protocol a connection speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Version {
    /// MQTT 3.1.1.
    V4,
    /// MQTT 5.
    V5,
}

/// The kinds of packets a client may send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Connect,
    Publish { dup: bool, qos: Qos, retain: bool },
    PubAck,
    PubRec,
    PubRel,
    PubComp,
    Subscribe,
    Unsubscribe,
    PingReq,
    Disconnect,
    Auth,
}

/// A fixed header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) kind: Kind,
    /// Bytes of the fixed header itself.
    pub(crate) header_bytes: usize,
    /// Bytes that follow it.
    pub(crate) body_bytes: usize,
}

impl Header {
    /// Bytes of the whole packet.
    pub(crate) fn frame_bytes(&self) -> usize {
        self.header_bytes + self.body_bytes
    }
}

/// Reads the fixed header; `None` while more bytes are needed. The version is unknown before the CONNECT was read;
/// until then only the length of a CONNECT is judged.
pub(crate) fn header(bytes: &[u8], version: Option<Version>) -> Result<Option<Header>, Malformed> {
    let Some((first, rest)) = bytes.split_first() else { return Ok(None) };
    let kind = kind(*first, version)?;
    let mut reader = Reader::new(rest);
    let must_be_minimal = version == Some(Version::V5);
    let Some(body_bytes) = reader.remaining_length(must_be_minimal)? else { return Ok(None) };
    check_length(kind, version, body_bytes)?;
    let header_bytes = bytes.len() - reader.left();
    Ok(Some(Header { kind, header_bytes, body_bytes }))
}

fn kind(first: u8, version: Option<Version>) -> Result<Kind, Malformed> {
    let flags = first & 0x0f;
    match (first >> 4, flags) {
        (1, 0) => Ok(Kind::Connect),
        (3, _) => {
            let (dup, qos) = (flags & 0x08 != 0, qos((flags >> 1) & 0x03)?);
            if dup && qos == Qos::AtMostOnce {
                return Err(Malformed::new("a repeated publish at QoS 0"));
            }
            Ok(Kind::Publish { dup, qos, retain: flags & 0x01 != 0 })
        }
        (4, 0) => Ok(Kind::PubAck),
        (5, 0) => Ok(Kind::PubRec),
        (6, 2) => Ok(Kind::PubRel),
        (7, 0) => Ok(Kind::PubComp),
        (8, 2) => Ok(Kind::Subscribe),
        (10, 2) => Ok(Kind::Unsubscribe),
        (12, 0) => Ok(Kind::PingReq),
        (14, 0) => Ok(Kind::Disconnect),
        (15, 0) if version != Some(Version::V4) => Ok(Kind::Auth),
        (1 | 4..=8 | 10 | 12 | 14, _) => Err(Malformed::new("flags of the fixed header")),
        (15, _) if version != Some(Version::V4) => Err(Malformed::new("flags of the fixed header")),
        (_, _) => Err(Malformed::protocol("a packet that a client cannot send")),
    }
}

fn check_length(kind: Kind, version: Option<Version>, body_bytes: usize) -> Result<(), Malformed> {
    let Some(version) = version else {
        return if kind != Kind::Connect || body_bytes > 2 { Ok(()) } else { Err(WRONG_LENGTH) };
    };
    let (least, most) = match (kind, version) {
        (Kind::PubAck | Kind::PubRec | Kind::PubRel | Kind::PubComp, Version::V4) => (2, 2),
        (Kind::PubAck | Kind::PubRec | Kind::PubRel | Kind::PubComp, Version::V5) => {
            (2, SHORT_BODY_BYTES_MAX)
        }
        (Kind::PingReq, _) | (Kind::Disconnect, Version::V4) => (0, 0),
        (Kind::Disconnect | Kind::Auth, _) => (0, SHORT_BODY_BYTES_MAX),
        // A topic name of one character; in version 5 the length of the properties, and perhaps no name.
        (Kind::Publish { qos: Qos::AtMostOnce, .. }, _) => (3, usize::MAX),
        (Kind::Publish { .. }, _) => (5, usize::MAX),
        (Kind::Subscribe | Kind::Unsubscribe, Version::V4) => (2, usize::MAX),
        (Kind::Connect | Kind::Subscribe | Kind::Unsubscribe, _) => (3, usize::MAX),
    };
    if body_bytes < least || (most == 0 || version == Version::V4) && body_bytes > most {
        Err(WRONG_LENGTH)
    } else if body_bytes > most {
        Err(Malformed::with("packet is too large for its type", Reason::PACKET_TOO_LARGE))
    } else {
        Ok(())
    }
}

const WRONG_LENGTH: Malformed = Malformed::new("remaining length does not fit the packet type");

fn qos(bits: u8) -> Result<Qos, Malformed> {
    match bits {
        0 => Ok(Qos::AtMostOnce),
        1 => Ok(Qos::AtLeastOnce),
        2 => Ok(Qos::ExactlyOnce),
        _ => Err(Malformed::new("QoS above 2")),
    }
}

fn topic_name(topic: &str) -> Result<&str, Malformed> {
    if topic.is_empty() || topic.contains(['+', '#']) { Err(Malformed::new("topic name")) } else { Ok(topic) }
}

#[cfg(test)]
mod conformance_tests;

#[cfg(test)]
#[path = "packet_tests.rs"]
mod tests;
