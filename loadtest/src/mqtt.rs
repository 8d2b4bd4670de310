//! The few packets of MQTT 3.1.1 and 5 that a device or a listener needs, encoded and decoded by hand.
//!
//! A full client library costs more per message than the engine may spend on one; a publisher that shares two cores
//! with what it measures has to be lean.

pub mod listen;
pub mod properties;

use anyhow::{Context, Result, bail, ensure};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;

/// Longest string an MQTT packet can hold.
const STRING_BYTES_MAX: usize = 65_535;

/// How long a lasting session of MQTT 5 outlives its connection.
const SESSION_SECONDS: u32 = 3600;
/// Bytes of a packet that a publisher hears; the longest is a refusal with its reasons.
const HEARD_BYTES_MAX: usize = 64 * 1024;

/// A version of the protocol.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Version {
    /// MQTT 3.1.1.
    #[default]
    V311,
    /// MQTT 5.
    V5,
}

/// What the client library promises to publish when the connection dies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Will {
    /// Topic of the will.
    pub topic: String,
    /// Body of the will.
    pub payload: Vec<u8>,
    /// Whether the broker keeps it.
    pub is_retained: bool,
}

/// How a device introduces itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Login {
    /// MQTT client id.
    pub client_id: String,
    /// User name; `None` is anonymous.
    pub user: Option<String>,
    /// Password; only sent together with a user.
    pub password: Option<String>,
    /// Keepalive promised to the broker.
    pub keepalive_seconds: u16,
    /// Version of the protocol.
    pub version: Version,
    /// Whether the session is to outlive the connection.
    pub is_lasting: bool,
    /// The last will, published at QoS 1.
    pub will: Option<Will>,
}

/// One message to publish, before it has a packet id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Publish {
    /// Topic.
    pub topic: std::sync::Arc<str>,
    /// Body, exactly as it goes out.
    pub payload: bytes::Bytes,
    /// 0, 1 or 2.
    pub qos: u8,
    /// Whether the broker keeps it.
    pub is_retained: bool,
    /// Properties of MQTT 5, encoded without their length; MQTT 3.1.1 leaves them out.
    pub properties: bytes::Bytes,
}

/// What a broker says to a publisher.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Heard {
    /// A PUBACK for this packet id.
    PubAck(u16),
    /// A PUBREC for this packet id.
    PubRec(u16),
    /// A PUBCOMP for this packet id.
    PubComp(u16),
    /// The broker refused this packet id with a reason code of MQTT 5.
    Refused(u16, u8),
    /// The answer to a ping.
    PingResp,
}

/// Opens a connection in the clear, sends CONNECT and waits for the CONNACK.
///
/// # Errors
/// When the broker cannot be reached or refuses the login; the text says which.
pub async fn connect(broker: &str, login: &Login) -> Result<TcpStream> {
    let mut stream = TcpStream::connect(broker).await.with_context(|| format!("connect to {broker}"))?;
    stream.set_nodelay(true).context("set TCP_NODELAY")?;
    introduce(&mut stream, login).await.with_context(|| format!("log in at {broker}"))?;
    Ok(stream)
}

/// A broker said no to a login.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("refused with code {code:#04x}: {}", refusal(*code))]
pub struct Refused {
    /// The code of the CONNACK.
    pub code: u8,
}

impl Refused {
    /// The broker cannot do its work now: code 3 of MQTT 3.1.1, 0x88 of MQTT 5.
    #[must_use]
    pub fn is_unavailable(self) -> bool {
        matches!(self.code, 3 | 0x88 | 0x89 | 0x97 | 0x9F)
    }
}

/// What a broker says to a login it accepts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Welcome {
    /// Whether the broker knew the session.
    pub is_session_known: bool,
    /// Unacknowledged messages the broker takes at most.
    pub receive_max: u16,
}

/// Sends CONNECT and waits for the CONNACK.
///
/// # Errors
/// When the broker breaks off, or refuses the login: then the error is [`Refused`].
pub async fn introduce<S: AsyncRead + AsyncWrite + Unpin>(stream: &mut S, login: &Login) -> Result<Welcome> {
    stream.write_all(&connect_packet(login)?).await.context("send CONNECT")?;
    stream.flush().await.context("send CONNECT")?;
    let closed = "the broker closed before CONNACK";
    let mut head = vec![0; 2];
    stream.read_exact(&mut head).await.context(closed)?;
    ensure!(head[0] == 0x20, "CONNECT was answered with {head:02x?}, which is no CONNACK");
    let length = loop {
        match take_length(&head[1..])? {
            Some((length, _)) => break length,
            None => head.push(stream.read_u8().await.context(closed)?),
        }
    };
    let mut body = vec![0; length];
    stream.read_exact(&mut body).await.context(closed)?;
    let [flags, code, rest @ ..] = body.as_slice() else { bail!("the CONNACK has {length} bytes") };
    if *code != 0 {
        return Err(Refused { code: *code }.into());
    }
    let receive_max = match login.version {
        Version::V311 => u16::MAX,
        Version::V5 => properties::receive_max(rest).context("read the CONNACK")?,
    };
    Ok(Welcome { is_session_known: flags & 1 != 0, receive_max })
}

/// What a code means with which a login, a subscription or a message is refused.
#[must_use]
pub fn refusal(code: u8) -> &'static str {
    match code {
        1 | 0x84 => "protocol version not accepted",
        2 | 0x85 => "client id not accepted",
        4 | 0x86 => "bad user name or password",
        5 | 0x87 => "not authorized",
        3 | 0x88 => "server unavailable",
        0x80 => "unspecified error",
        0x83 => "implementation specific error",
        0x89 => "server busy",
        0x8A => "banned",
        0x8F => "topic filter invalid",
        0x90 => "topic name invalid",
        0x91 => "packet id in use",
        0x92 => "packet id not found",
        0x93 => "receive maximum exceeded",
        0x95 => "packet too large",
        0x97 => "quota exceeded",
        0x99 => "payload format invalid",
        0x9A => "retain not supported",
        0x9B => "QoS not supported",
        0x9F => "connection rate exceeded",
        _ => "unknown refusal code",
    }
}

/// The CONNECT packet.
///
/// # Errors
/// When a text is longer than MQTT can carry.
pub fn connect_packet(login: &Login) -> Result<Vec<u8>> {
    let is_v5 = login.version == Version::V5;
    let mut flags = u8::from(!login.is_lasting) << 1;
    let mut body = Vec::with_capacity(128);
    put_string(&mut body, b"MQTT")?;
    body.extend([if is_v5 { 5 } else { 4 }, 0]);
    body.extend(login.keepalive_seconds.to_be_bytes());
    if is_v5 && login.is_lasting {
        body.extend([5, 0x11]);
        body.extend(SESSION_SECONDS.to_be_bytes());
    } else if is_v5 {
        body.push(0);
    }
    put_string(&mut body, login.client_id.as_bytes())?;
    if let Some(will) = &login.will {
        flags |= 0b0000_1100 | (u8::from(will.is_retained) << 5);
        if is_v5 {
            body.push(0);
        }
        put_string(&mut body, will.topic.as_bytes())?;
        put_string(&mut body, &will.payload)?;
    }
    if let Some(user) = &login.user {
        flags |= 0b1000_0000;
        put_string(&mut body, user.as_bytes())?;
        if let Some(password) = &login.password {
            flags |= 0b0100_0000;
            put_string(&mut body, password.as_bytes())?;
        }
    }
    body[7] = flags;
    let mut packet = vec![0x10];
    put_length(&mut packet, body.len());
    packet.extend(body);
    Ok(packet)
}

/// Appends a PUBLISH of MQTT 3.1.1; `packet_id` does not matter at QoS 0.
pub fn put_publish(out: &mut Vec<u8>, publish: &Publish, packet_id: u16, is_resent: bool) {
    put_publish_in(Version::V311, out, publish, packet_id, is_resent);
}

/// Appends a PUBLISH of either version; `packet_id` does not matter at QoS 0.
pub fn put_publish_in(
    version: Version,
    out: &mut Vec<u8>,
    publish: &Publish,
    packet_id: u16,
    is_resent: bool,
) {
    let has_id = publish.qos > 0;
    let mut properties = Vec::new();
    if version == Version::V5 {
        put_length(&mut properties, publish.properties.len());
        properties.extend_from_slice(&publish.properties);
    }
    let id_bytes = if has_id { 2 } else { 0 };
    let length = 2 + publish.topic.len() + id_bytes + properties.len() + publish.payload.len();
    out.push(
        0x30 | (u8::from(is_resent && has_id) << 3) | (publish.qos << 1) | u8::from(publish.is_retained),
    );
    put_length(out, length);
    let topic_length = u16::try_from(publish.topic.len()).expect("a topic was checked when it was made");
    out.extend_from_slice(&topic_length.to_be_bytes());
    out.extend_from_slice(publish.topic.as_bytes());
    if has_id {
        out.extend_from_slice(&packet_id.to_be_bytes());
    }
    out.extend_from_slice(&properties);
    out.extend_from_slice(&publish.payload);
}

/// Appends a PUBREL.
pub fn put_pubrel(out: &mut Vec<u8>, packet_id: u16) {
    let [high, low] = packet_id.to_be_bytes();
    out.extend([0x62, 2, high, low]);
}

/// A ping.
pub const PINGREQ: [u8; 2] = [0xC0, 0];
/// A clean good-bye, after which the broker forgets the will.
pub const DISCONNECT: [u8; 2] = [0xE0, 0];

/// Takes the next packet off the front of `inbox`, with the number of bytes it used; `None` when it is not whole yet.
///
/// # Errors
/// When the broker sends something a publisher never gets, or says goodbye.
pub fn take_packet(inbox: &[u8]) -> Result<Option<(Heard, usize)>> {
    let Some(&first) = inbox.first() else { return Ok(None) };
    let kind = first & 0xF0;
    ensure!(
        matches!(kind, 0x40 | 0x50 | 0x70 | 0xD0 | 0xE0),
        "the broker sent a packet of kind {kind:#04x}, which no publisher expects"
    );
    let Some((length, header_bytes)) = take_length(&inbox[1..])? else { return Ok(None) };
    let bytes = 1 + header_bytes + length;
    if inbox.len() < bytes {
        return Ok(None);
    }
    let body = &inbox[1 + header_bytes..bytes];
    if kind == 0xD0 {
        return Ok(Some((Heard::PingResp, bytes)));
    }
    if kind == 0xE0 {
        let code = body.first().copied().unwrap_or(0);
        bail!("the broker said goodbye with code {code:#04x}: {}", goodbye(code));
    }
    let [high, low, rest @ ..] = body else { bail!("the broker acknowledged no packet id") };
    let packet_id = u16::from_be_bytes([*high, *low]);
    let heard = match (kind, rest.first()) {
        // At the end of an exchange at QoS 2 there is nothing left to refuse.
        (0x40 | 0x50, Some(code @ 0x80..)) => Heard::Refused(packet_id, *code),
        (0x40, _) => Heard::PubAck(packet_id),
        (0x50, _) => Heard::PubRec(packet_id),
        _ => Heard::PubComp(packet_id),
    };
    Ok(Some((heard, bytes)))
}

fn goodbye(code: u8) -> &'static str {
    match code {
        0 => "normal disconnection",
        0x8B => "server shutting down",
        0x8D => "keep alive timeout",
        0x8E => "session taken over",
        0x98 => "administrative action",
        0xA0 => "maximum connect time",
        code => refusal(code),
    }
}

/// The length of a packet that a publisher hears, and the bytes that say it.
fn take_length(bytes: &[u8]) -> Result<Option<(usize, usize)>> {
    let found = take_varint(bytes)?;
    if let Some((length, _)) = found {
        ensure!(length <= HEARD_BYTES_MAX, "the broker sent {length} bytes, which no publisher expects");
    }
    Ok(found)
}

/// A number of one to four bytes and how many it took; `None` when it is not whole yet.
fn take_varint(bytes: &[u8]) -> Result<Option<(usize, usize)>> {
    let mut number = 0;
    for (position, byte) in bytes.iter().take(4).enumerate() {
        number |= usize::from(byte & 0x7F) << (7 * position);
        if byte & 0x80 == 0 {
            return Ok(Some((number, position + 1)));
        }
    }
    ensure!(bytes.len() < 4, "the broker sent a length that does not end");
    Ok(None)
}

fn put_length(out: &mut Vec<u8>, mut length: usize) {
    loop {
        let low = u8::try_from(length & 0x7F).expect("seven bits fit into a byte");
        length >>= 7;
        if length == 0 {
            out.push(low);
            return;
        }
        out.push(low | 0x80);
    }
}

fn put_string(out: &mut Vec<u8>, text: &[u8]) -> Result<()> {
    let Ok(length) = u16::try_from(text.len()) else {
        bail!("a text of {} bytes is longer than the {STRING_BYTES_MAX} MQTT can carry", text.len());
    };
    out.extend(length.to_be_bytes());
    out.extend(text);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connect_packet_carries_will_user_and_password() {
        let login = Login {
            client_id: "d".into(),
            user: Some("u".into()),
            password: Some("p".into()),
            keepalive_seconds: 60,
            will: Some(Will { topic: "t".into(), payload: b"w".to_vec(), is_retained: true }),
            ..Login::default()
        };
        let packet = connect_packet(&login).unwrap();
        let expected = b"\x10\x19\x00\x04MQTT\x04\xee\x00\x3c\x00\x01d\x00\x01t\x00\x01w\x00\x01u\x00\x01p";
        assert_eq!(packet, expected);
    }

    #[test]
    fn a_lasting_session_of_mqtt_5_says_how_long() {
        let login =
            Login { client_id: "d".into(), version: Version::V5, is_lasting: true, ..Login::default() };
        let expected = b"\x10\x13\x00\x04MQTT\x05\x00\x00\x00\x05\x11\x00\x00\x0e\x10\x00\x01d";
        assert_eq!(connect_packet(&login).unwrap(), expected);
    }

    #[test]
    fn a_publish_of_two_hundred_bytes_has_a_two_byte_length() {
        let publish = Publish {
            topic: "a/b".into(),
            payload: vec![b'x'; 200].into(),
            qos: 1,
            is_retained: false,
            properties: bytes::Bytes::new(),
        };
        let mut out = Vec::new();
        put_publish(&mut out, &publish, 0x0102, true);
        assert_eq!(out[..10], [0x3A, 0xCF, 0x01, 0, 3, b'a', b'/', b'b', 1, 2]);
        assert_eq!(out.len(), 3 + 207);
    }

    #[test]
    fn packets_are_taken_only_when_they_are_whole() {
        assert_eq!(take_packet(&[0x40, 2, 1]).unwrap(), None);
        assert_eq!(take_packet(&[0x40, 2, 1, 2, 0xD0]).unwrap(), Some((Heard::PubAck(0x0102), 4)));
        assert_eq!(take_packet(&[0xD0, 0]).unwrap(), Some((Heard::PingResp, 2)));
        assert_eq!(take_packet(&[0x50, 3, 1, 2, 0]).unwrap(), Some((Heard::PubRec(0x0102), 5)));
        assert_eq!(take_packet(&[0x70, 4, 1, 2, 0, 0]).unwrap(), Some((Heard::PubComp(0x0102), 6)));
        assert_eq!(take_packet(&[0x40, 3, 1, 2, 0x87]).unwrap(), Some((Heard::Refused(0x0102, 0x87), 5)));
        assert_eq!(take_packet(&[0x40, 3, 1, 2, 0x10]).unwrap(), Some((Heard::PubAck(0x0102), 5)));
        for bad in [&[0x30, 0][..], &[0xE0, 1, 0x8B], &[0x40, 0], &[0x40, 0xFF, 0xFF, 0xFF, 0xFF]] {
            assert!(take_packet(bad).is_err(), "{bad:02x?}");
        }
    }
}
