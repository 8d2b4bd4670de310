//! What the door answers, apart from messages.

use bytes::{BufMut, BytesMut};

use crate::door::packet::property::id;
use crate::door::packet::writer::{put_text, put_variable, variable_bytes};
use crate::door::packet::{Reason, Version};

/// The answer to a CONNECT.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ConnectCode {
    Accepted,
    Version,
    ClientId,
    Unavailable,
    NotAuthorized,
    /// What only version 5 has a name for.
    Refused(Reason),
}

impl ConnectCode {
    /// What version 5 is told.
    pub(crate) fn reason(self) -> Reason {
        match self {
            Self::Accepted => Reason::SUCCESS,
            Self::Version => Reason::UNSUPPORTED_VERSION,
            Self::ClientId => Reason::CLIENT_ID_NOT_VALID,
            Self::Unavailable => Reason::SERVER_UNAVAILABLE,
            Self::NotAuthorized => Reason::NOT_AUTHORIZED,
            Self::Refused(reason) => reason,
        }
    }

    /// What 3.1.1 is told: a refusal that may pass is "unavailable", another one "not authorized".
    pub(crate) fn v4(self) -> u8 {
        match self {
            Self::Accepted => 0,
            Self::Version => 1,
            Self::ClientId => 2,
            Self::Unavailable
            | Self::Refused(
                Reason::SERVER_UNAVAILABLE
                | Reason::SERVER_BUSY
                | Reason::QUOTA_EXCEEDED
                | Reason::USE_ANOTHER_SERVER
                | Reason::CONNECTION_RATE_EXCEEDED,
            ) => 3,
            Self::NotAuthorized | Self::Refused(_) => 5,
        }
    }
}

/// What a CONNACK of version 5 says beside its code.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct ConnackProperties<'a> {
    pub(crate) session_expiry_seconds: Option<u32>,
    pub(crate) receive_max: Option<u16>,
    pub(crate) packet_bytes_max: Option<u32>,
    pub(crate) assigned_client_id: Option<&'a str>,
    pub(crate) topic_alias_max: u16,
    pub(crate) server_keep_alive_seconds: Option<u16>,
}

/// Writes a CONNACK. Who is not let in has no session either.
pub(crate) fn put_connack(
    out: &mut BytesMut,
    version: Version,
    code: ConnectCode,
    session_present: bool,
    properties: &ConnackProperties<'_>,
) {
    let flags = u8::from(session_present && code == ConnectCode::Accepted);
    match version {
        Version::V4 => out.put_slice(&[0x20, 2, flags, code.v4()]),
        Version::V5 => {
            let mut encoded = BytesMut::new();
            put_connack_properties(&mut encoded, properties);
            let mut body = BytesMut::new();
            body.put_slice(&[flags, code.reason().0]);
            put_variable(&mut body, encoded.len());
            body.put_slice(&encoded);
            out.put_u8(0x20);
            put_variable(out, body.len());
            out.put_slice(&body);
        }
    }
}

fn put_connack_properties(out: &mut BytesMut, properties: &ConnackProperties<'_>) {
    if let Some(seconds) = properties.session_expiry_seconds {
        out.put_u8(id::SESSION_EXPIRY);
        out.put_u32(seconds);
    }
    if let Some(count) = properties.receive_max {
        out.put_u8(id::RECEIVE_MAXIMUM);
        out.put_u16(count);
    }
    if let Some(bytes) = properties.packet_bytes_max {
        out.put_u8(id::MAXIMUM_PACKET_SIZE);
        out.put_u32(bytes);
    }
    if let Some(client_id) = properties.assigned_client_id {
        out.put_u8(id::ASSIGNED_CLIENT_ID);
        put_text(out, client_id);
    }
    if properties.topic_alias_max > 0 {
        out.put_u8(id::TOPIC_ALIAS_MAXIMUM);
        out.put_u16(properties.topic_alias_max);
    }
    if let Some(seconds) = properties.server_keep_alive_seconds {
        out.put_u8(id::SERVER_KEEP_ALIVE);
        out.put_u16(seconds);
    }
}

/// Writes a PUBACK.
pub(crate) fn put_puback(out: &mut BytesMut, version: Version, packet_id: u16, reason: Reason) {
    put_ack(out, 0x40, version, packet_id, reason);
}

/// Writes a PUBREC.
pub(crate) fn put_pubrec(out: &mut BytesMut, version: Version, packet_id: u16, reason: Reason) {
    put_ack(out, 0x50, version, packet_id, reason);
}

/// Writes a PUBREL.
pub(crate) fn put_pubrel(out: &mut BytesMut, version: Version, packet_id: u16, reason: Reason) {
    put_ack(out, 0x62, version, packet_id, reason);
}

/// Writes a PUBCOMP.
pub(crate) fn put_pubcomp(out: &mut BytesMut, version: Version, packet_id: u16, reason: Reason) {
    put_ack(out, 0x70, version, packet_id, reason);
}

/// Version 3.1.1 has no reason, and version 5 leaves out a success.
fn put_ack(out: &mut BytesMut, first: u8, version: Version, packet_id: u16, reason: Reason) {
    let [high, low] = packet_id.to_be_bytes();
    if version == Version::V4 || reason == Reason::SUCCESS {
        out.put_slice(&[first, 2, high, low]);
    } else {
        out.put_slice(&[first, 3, high, low, reason.0]);
    }
}

/// Writes a SUBACK with one code for each filter: the QoS granted, or a reason from 0x80 on. In 3.1.1 the only such
/// reason is 0x80.
pub(crate) fn put_suback(out: &mut BytesMut, version: Version, packet_id: u16, codes: &[u8]) {
    let codes = codes.iter().map(|code| if version == Version::V4 { *code.min(&0x80) } else { *code });
    put_codes(out, 0x90, version, packet_id, codes);
}

/// Writes an UNSUBACK with one code for each filter; 3.1.1 has none.
pub(crate) fn put_unsuback(out: &mut BytesMut, version: Version, packet_id: u16, codes: &[Reason]) {
    let codes = if version == Version::V4 { &[] } else { codes };
    put_codes(out, 0xb0, version, packet_id, codes.iter().map(|reason| reason.0));
}

/// Bytes of a whole SUBACK or UNSUBACK of version 5 with so many codes.
pub(crate) fn codes_bytes(codes: usize) -> usize {
    let body_bytes = 2 + 1 + codes;
    1 + variable_bytes(body_bytes) + body_bytes
}

fn put_codes(
    out: &mut BytesMut,
    first: u8,
    version: Version,
    packet_id: u16,
    codes: impl ExactSizeIterator<Item = u8>,
) {
    let no_properties: &[u8] = if version == Version::V4 { &[] } else { &[0] };
    out.put_u8(first);
    put_variable(out, 2 + no_properties.len() + codes.len());
    out.put_u16(packet_id);
    out.put_slice(no_properties);
    out.extend(codes);
}

/// Writes a PINGRESP.
pub(crate) fn put_pingresp(out: &mut BytesMut) {
    out.put_slice(&[0xd0, 0]);
}

/// Writes a DISCONNECT; only version 5 has one from the server. The text is for people, and is left out where it is empty
/// or would make the packet larger than the client takes.
pub(crate) fn put_disconnect(out: &mut BytesMut, reason: Reason, text: &str, packet_bytes_max: usize) {
    let mut properties = BytesMut::new();
    properties.put_u8(id::REASON_STRING);
    put_text(&mut properties, text);
    let body_bytes = 1 + variable_bytes(properties.len()) + properties.len();
    if text.is_empty() || 1 + variable_bytes(body_bytes) + body_bytes > packet_bytes_max {
        return out.put_slice(&[0xe0, 1, reason.0]);
    }
    out.put_u8(0xe0);
    put_variable(out, body_bytes);
    out.put_u8(reason.0);
    put_variable(out, properties.len());
    out.put_slice(&properties);
}
