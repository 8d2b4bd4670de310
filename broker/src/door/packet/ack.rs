//! What a client answers, and how it says goodbye.

use crate::door::packet::property::{NOT_HERE, Properties, Value, id};
use crate::door::packet::reader::Reader;
use crate::door::packet::{Kind, Malformed, Reason, Version};

/// A PUBACK, PUBREC, PUBREL or PUBCOMP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ack {
    pub(crate) packet_id: u16,
    /// Always success in 3.1.1.
    pub(crate) reason: Reason,
}

/// A DISCONNECT.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Disconnect {
    pub(crate) reason: Reason,
    /// Takes the place of what the CONNECT said; whether it may is for the caller to judge.
    pub(crate) session_expiry_seconds: Option<u32>,
}

/// Reads the body of a PUBACK, PUBREC, PUBREL or PUBCOMP, whichever `kind` is.
pub(crate) fn ack(version: Version, kind: Kind, body: &[u8]) -> Result<Ack, Malformed> {
    let mut reader = Reader::new(body);
    let packet_id = reader.packet_id()?;
    let mut reason = Reason::SUCCESS;
    if version == Version::V5 && !reader.is_empty() {
        reason = Reason(reader.byte()?);
        if !reader.is_empty() {
            Properties::take(&mut reader, version)?.skip(true)?;
        }
    }
    reader.end()?;
    let is_release = matches!(kind, Kind::PubRel | Kind::PubComp);
    let is_known = if is_release {
        matches!(reason.0, 0x00 | 0x92)
    } else {
        matches!(reason.0, 0x00 | 0x10 | 0x80 | 0x83 | 0x87 | 0x90 | 0x91 | 0x97 | 0x99)
    };
    if is_known { Ok(Ack { packet_id, reason }) } else { Err(UNKNOWN_REASON) }
}

/// Reads the body of a DISCONNECT.
pub(crate) fn disconnect(version: Version, body: &[u8]) -> Result<Disconnect, Malformed> {
    let mut reader = Reader::new(body);
    let mut disconnect = Disconnect { reason: Reason::NORMAL_DISCONNECTION, session_expiry_seconds: None };
    if version == Version::V5 && !reader.is_empty() {
        disconnect.reason = Reason(reader.byte()?);
        if !reader.is_empty() {
            let mut properties = Properties::take(&mut reader, version)?;
            while let Some(property) = properties.next()? {
                match (property.id, property.value) {
                    (id::SESSION_EXPIRY, Value::Four(seconds)) => {
                        disconnect.session_expiry_seconds = Some(seconds);
                    }
                    (id::REASON_STRING | id::USER_PROPERTY, _) => {}
                    (_, _) => return Err(NOT_HERE),
                }
            }
        }
    }
    reader.end()?;
    match disconnect.reason.0 {
        0x00 | 0x04 | 0x80..=0x83 | 0x90 | 0x93..=0x99 => Ok(disconnect),
        _ => Err(UNKNOWN_REASON),
    }
}

const UNKNOWN_REASON: Malformed = Malformed::protocol("a reason code that a client cannot send here");
