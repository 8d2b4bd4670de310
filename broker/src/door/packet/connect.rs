//! CONNECT: who comes, what they want of their session, and their last will.

use std::num::{NonZeroU16, NonZeroU32};

use bytes::Bytes;

use crate::door::packet::property::{Gathered, NOT_HERE, Properties, Value, id};
use crate::door::packet::reader::Reader;
use crate::door::packet::{Malformed, MessageProperties, Reason, Version, qos, topic_name};
use crate::message::Qos;

/// A CONNECT.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Connect {
    pub(crate) version: Version,
    pub(crate) client_id: String,
    /// The session starts empty. In 3.1.1 it also ends with the connection.
    pub(crate) clean_start: bool,
    pub(crate) keep_alive_seconds: u16,
    pub(crate) username: Option<String>,
    pub(crate) password: Option<Vec<u8>>,
    pub(crate) will: Option<Will>,
    pub(crate) properties: ConnectProperties,
}

/// What a CONNECT of version 5 says beside that; 3.1.1 has the defaults.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct ConnectProperties {
    /// How long the session outlives the connection; `u32::MAX` is for ever.
    pub(crate) session_expiry_seconds: u32,
    /// Unacknowledged publishes the client takes at once.
    pub(crate) receive_max: Option<NonZeroU16>,
    /// Bytes of the largest packet the client takes.
    pub(crate) packet_bytes_max: Option<NonZeroU32>,
    /// Topic aliases the client keeps.
    pub(crate) topic_alias_max: u16,
    pub(crate) authentication_method: Option<String>,
}

/// A last will.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Will {
    pub(crate) topic: String,
    pub(crate) payload: Bytes,
    pub(crate) qos: Qos,
    pub(crate) retain: bool,
    /// How long it waits for the client to come back.
    pub(crate) delay_seconds: u32,
    pub(crate) properties: MessageProperties,
}

/// A CONNECT that gets no session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum BadConnect {
    /// It breaks the protocol. Version 5 answers with the reason, 3.1.1 closes without an answer.
    Malformed(Version, Malformed),
    /// Another version of the protocol: refused in the form of the known version that is nearest.
    Version(Version),
}

/// Reads the body of a CONNECT.
pub(crate) fn connect(body: &[u8]) -> Result<Connect, BadConnect> {
    let mut reader = Reader::new(body);
    let version = version(&mut reader)?;
    fields(reader, version).map_err(|malformed| BadConnect::Malformed(version, malformed))
}

fn version(reader: &mut Reader<'_>) -> Result<Version, BadConnect> {
    // As long as the version is unknown there is no form for an answer: as in 3.1.1 there is none.
    let unanswered = |malformed| BadConnect::Malformed(Version::V4, malformed);
    let name = reader.text().map_err(unanswered)?;
    let level = reader.byte().map_err(unanswered)?;
    match (name, level) {
        // MQTT 3.1 differs in nothing that the door relies on, so it is served like 3.1.1.
        ("MQTT", 4) | ("MQIsdp", 3) => Ok(Version::V4),
        ("MQTT", 5) => Ok(Version::V5),
        ("MQTT", 6..) => Err(BadConnect::Version(Version::V5)),
        ("MQTT" | "MQIsdp", _) => Err(BadConnect::Version(Version::V4)),
        (_, _) => Err(unanswered(Malformed::protocol("protocol name"))),
    }
}

fn fields(mut reader: Reader<'_>, version: Version) -> Result<Connect, Malformed> {
    let flags = ConnectFlags::read(reader.byte()?, version)?;
    let keep_alive_seconds = reader.two()?;
    let properties = connect_properties(Properties::take(&mut reader, version)?)?;
    let client_id = reader.text()?.to_owned();
    let will = match flags.will {
        Some((qos, retain)) => Some(will(&mut reader, version, qos, retain)?),
        None => None,
    };
    let username = flags.has_username.then(|| reader.text().map(str::to_owned)).transpose()?;
    // Some tools send an empty user name for "none".
    let username = username.filter(|name| !name.is_empty());
    let password = flags.has_password.then(|| reader.binary().map(<[u8]>::to_vec)).transpose()?;
    reader.end()?;
    Ok(Connect {
        version,
        client_id,
        clean_start: flags.clean_start,
        keep_alive_seconds,
        username,
        password,
        will,
        properties,
    })
}

struct ConnectFlags {
    clean_start: bool,
    will: Option<(Qos, bool)>,
    has_username: bool,
    has_password: bool,
}

impl ConnectFlags {
    fn read(bits: u8, version: Version) -> Result<Self, Malformed> {
        let has = |bit: u8| bits & bit != 0;
        let will_bits_without_will = !has(0x04) && bits & 0x38 != 0;
        let password_without_username = version == Version::V4 && has(0x40) && !has(0x80);
        if has(0x01) || will_bits_without_will || password_without_username {
            return Err(Malformed::new("connect flags"));
        }
        let will = if has(0x04) { Some((qos((bits >> 3) & 0x03)?, has(0x20))) } else { None };
        Ok(Self { clean_start: has(0x02), will, has_username: has(0x80), has_password: has(0x40) })
    }
}

fn connect_properties(mut read: Properties<'_>) -> Result<ConnectProperties, Malformed> {
    let mut properties = ConnectProperties::default();
    let mut has_authentication_data = false;
    while let Some(property) = read.next()? {
        match (property.id, property.value) {
            (id::SESSION_EXPIRY, Value::Four(seconds)) => properties.session_expiry_seconds = seconds,
            (id::RECEIVE_MAXIMUM, Value::Two(count)) => {
                properties.receive_max = Some(NonZeroU16::new(count).ok_or(ZERO)?);
            }
            (id::MAXIMUM_PACKET_SIZE, Value::Four(bytes)) => {
                properties.packet_bytes_max = Some(NonZeroU32::new(bytes).ok_or(ZERO)?);
            }
            (id::TOPIC_ALIAS_MAXIMUM, Value::Two(count)) => properties.topic_alias_max = count,
            // The door sends neither reason strings with packets that allow the choice, nor response information.
            (id::REQUEST_PROBLEM_INFORMATION | id::REQUEST_RESPONSE_INFORMATION, Value::Byte(_)) => {}
            (id::AUTHENTICATION_METHOD, Value::Text(method)) => {
                properties.authentication_method = Some(method.to_owned());
            }
            (id::AUTHENTICATION_DATA, Value::Binary) => has_authentication_data = true,
            (id::USER_PROPERTY, Value::Pair) => {}
            (_, _) => return Err(NOT_HERE),
        }
    }
    if has_authentication_data && properties.authentication_method.is_none() {
        return Err(Malformed::protocol("authentication data without a method"));
    }
    Ok(properties)
}

const ZERO: Malformed = Malformed::protocol("a limit of zero");

fn will(reader: &mut Reader<'_>, version: Version, qos: Qos, retain: bool) -> Result<Will, Malformed> {
    let mut properties = Properties::take(reader, version)?;
    let mut gathered = Gathered::default();
    let mut delay_seconds = 0;
    while let Some(property) = properties.next()? {
        match (property.id, &property.value) {
            (id::WILL_DELAY, Value::Four(seconds)) => delay_seconds = *seconds,
            (_, _) if gathered.take(&property)? => {}
            (_, _) => return Err(NOT_HERE),
        }
    }
    let topic = topic_name(reader.text()?)?.to_owned();
    let payload = reader.binary()?;
    if gathered.is_text && std::str::from_utf8(payload).is_err() {
        return Err(Malformed::with(
            "the will is not the text it claims to be",
            Reason::PAYLOAD_FORMAT_INVALID,
        ));
    }
    Ok(Will {
        topic,
        payload: Bytes::copy_from_slice(payload),
        qos,
        retain,
        delay_seconds,
        properties: gathered.finish(),
    })
}
