//! MQTT 3.1.1 on the wire: strict reading of what a client may send, writing of what the door answers.
//!
//! Reading works on borrowed bytes and decides everything from the fixed header first, so that no length a client
//! claims is believed before it was compared with a limit.

use bytes::{BufMut, Bytes, BytesMut};

use crate::delivery::Qos;
use crate::filter;

/// A packet that breaks the protocol; the text names the rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(crate) struct Malformed(pub(crate) &'static str);

/// The kinds of packets a client may send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Connect,
    Publish { dup: bool, qos: Qos, retain: bool },
    PubAck,
    PubRel,
    Subscribe,
    Unsubscribe,
    PingReq,
    Disconnect,
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

/// A CONNECT.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Connect {
    pub(crate) client_id: String,
    pub(crate) clean_session: bool,
    pub(crate) keep_alive_seconds: u16,
    pub(crate) username: Option<String>,
    pub(crate) password: Option<Vec<u8>>,
    pub(crate) will: Option<Will>,
}

/// A last will.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Will {
    pub(crate) topic: String,
    pub(crate) payload: Bytes,
    pub(crate) qos: Qos,
    pub(crate) retain: bool,
}

/// A CONNECT that gets no session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum BadConnect {
    /// The connection is closed without an answer.
    Malformed(Malformed),
    /// Another version of the protocol: answered with code 1.
    Version,
}

impl From<Malformed> for BadConnect {
    fn from(malformed: Malformed) -> Self {
        Self::Malformed(malformed)
    }
}

/// The part of a PUBLISH before its payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PublishHead<'a> {
    pub(crate) topic: &'a str,
    /// Zero at QoS 0.
    pub(crate) packet_id: u16,
    /// Bytes of the body before the payload.
    pub(crate) head_bytes: usize,
}

/// A filter and the QoS a client asks for.
pub(crate) type Asked<'a> = (&'a str, Qos);

/// The answer to a CONNECT.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ConnectCode {
    Accepted = 0,
    Version = 1,
    ClientId = 2,
    Unavailable = 3,
    NotAuthorized = 5,
}

/// Reads the fixed header; `None` while more bytes are needed.
pub(crate) fn header(bytes: &[u8]) -> Result<Option<Header>, Malformed> {
    let Some((first, rest)) = bytes.split_first() else { return Ok(None) };
    let kind = kind(*first)?;
    let mut body_bytes = 0;
    for (index, byte) in rest.iter().take(REMAINING_LENGTH_BYTES_MAX).enumerate() {
        body_bytes |= usize::from(byte & 0x7f) << (7 * index);
        if byte & 0x80 == 0 {
            check_length(kind, body_bytes)?;
            return Ok(Some(Header { kind, header_bytes: index + 2, body_bytes }));
        }
    }
    if rest.len() < REMAINING_LENGTH_BYTES_MAX {
        Ok(None)
    } else {
        Err(Malformed("remaining length has five bytes"))
    }
}

/// Reads the body of a CONNECT.
pub(crate) fn connect(body: &[u8]) -> Result<Connect, BadConnect> {
    let mut reader = Reader(body);
    let name = reader.text()?;
    let level = reader.byte()?;
    match (name, level) {
        ("MQTT", 4) => {}
        ("MQTT" | "MQIsdp", _) => return Err(BadConnect::Version),
        (_, _) => return Err(Malformed("protocol name").into()),
    }
    let flags = ConnectFlags::read(reader.byte()?)?;
    let keep_alive_seconds = reader.number()?;
    let client_id = reader.text()?.to_owned();
    let will = flags.will.map(|(qos, retain)| will(&mut reader, qos, retain)).transpose()?;
    let username = flags.has_username.then(|| reader.text().map(str::to_owned)).transpose()?;
    let password = flags.has_password.then(|| reader.binary().map(<[u8]>::to_vec)).transpose()?;
    reader.end()?;
    Ok(Connect {
        client_id,
        clean_session: flags.clean_session,
        keep_alive_seconds,
        username,
        password,
        will,
    })
}

/// Reads topic and packet id of a PUBLISH whose body has `body_bytes`; `None` while more `bytes` of it are needed.
pub(crate) fn publish_head(
    body_bytes: usize,
    qos: Qos,
    bytes: &[u8],
) -> Result<Option<PublishHead<'_>>, Malformed> {
    let id_bytes = if qos == Qos::AtMostOnce { 0 } else { 2 };
    let Some([high, low]) = bytes.first_chunk::<2>() else { return Ok(None) };
    let topic_bytes = usize::from(u16::from_be_bytes([*high, *low]));
    let head_bytes = 2 + topic_bytes + id_bytes;
    if head_bytes > body_bytes {
        return Err(Malformed("publish is shorter than its topic"));
    }
    let Some(head) = bytes.get(..head_bytes) else { return Ok(None) };
    let mut reader = Reader(head);
    let topic = topic_name(reader.text()?)?;
    let packet_id = if id_bytes == 0 { 0 } else { reader.packet_id()? };
    Ok(Some(PublishHead { topic, packet_id, head_bytes }))
}

/// Reads the packet id of a PUBACK or PUBREL.
pub(crate) fn packet_id(body: &[u8]) -> Result<u16, Malformed> {
    let mut reader = Reader(body);
    let id = reader.packet_id()?;
    reader.end()?;
    Ok(id)
}

/// Reads a SUBSCRIBE: its packet id, filters and the QoS asked for.
pub(crate) fn subscribe(body: &[u8]) -> Result<(u16, Vec<Asked<'_>>), Malformed> {
    let mut reader = Reader(body);
    let id = reader.packet_id()?;
    let mut filters = Vec::new();
    while !reader.0.is_empty() {
        let filter = topic_filter(reader.text()?)?;
        filters.push((filter, qos(reader.byte()?)?));
    }
    if filters.is_empty() { Err(Malformed("subscribe without a filter")) } else { Ok((id, filters)) }
}

/// Reads an UNSUBSCRIBE: its packet id and filters.
pub(crate) fn unsubscribe(body: &[u8]) -> Result<(u16, Vec<&str>), Malformed> {
    let mut reader = Reader(body);
    let id = reader.packet_id()?;
    let mut filters = Vec::new();
    while !reader.0.is_empty() {
        filters.push(topic_filter(reader.text()?)?);
    }
    if filters.is_empty() { Err(Malformed("unsubscribe without a filter")) } else { Ok((id, filters)) }
}

/// Writes a CONNACK; there is never a stored session.
pub(crate) fn put_connack(out: &mut BytesMut, code: ConnectCode) {
    out.put_slice(&[0x20, 2, 0, code as u8]);
}

/// Writes a PUBACK.
pub(crate) fn put_puback(out: &mut BytesMut, packet_id: u16) {
    put_short(out, 0x40, packet_id);
}

/// Writes a PUBREC.
pub(crate) fn put_pubrec(out: &mut BytesMut, packet_id: u16) {
    put_short(out, 0x50, packet_id);
}

/// Writes a PUBCOMP.
pub(crate) fn put_pubcomp(out: &mut BytesMut, packet_id: u16) {
    put_short(out, 0x70, packet_id);
}

/// Writes an UNSUBACK.
pub(crate) fn put_unsuback(out: &mut BytesMut, packet_id: u16) {
    put_short(out, 0xb0, packet_id);
}

/// Writes a PINGRESP.
pub(crate) fn put_pingresp(out: &mut BytesMut) {
    out.put_slice(&[0xd0, 0]);
}

/// Writes a SUBACK with one code per filter: the QoS granted, or 0x80.
pub(crate) fn put_suback(out: &mut BytesMut, packet_id: u16, codes: &[u8]) {
    out.put_u8(0x90);
    put_length(out, 2 + codes.len());
    out.put_u16(packet_id);
    out.put_slice(codes);
}

/// Writes a PUBLISH to a subscriber: at QoS 1 with a packet id, at QoS 0 without.
pub(crate) fn put_publish(
    out: &mut BytesMut,
    topic: &[u8],
    payload: &[u8],
    packet_id: Option<u16>,
    retain: bool,
) {
    let topic_bytes = u16::try_from(topic.len()).expect("a topic came in with a length of two bytes");
    let id_bytes = if packet_id.is_some() { 2 } else { 0 };
    out.put_u8(0x30 | if packet_id.is_some() { 0x02 } else { 0 } | u8::from(retain));
    put_length(out, 2 + topic.len() + id_bytes + payload.len());
    out.put_u16(topic_bytes);
    out.put_slice(topic);
    if let Some(packet_id) = packet_id {
        out.put_u16(packet_id);
    }
    out.put_slice(payload);
}

/// Bytes a remaining length may have.
const REMAINING_LENGTH_BYTES_MAX: usize = 4;

fn kind(first: u8) -> Result<Kind, Malformed> {
    let flags = first & 0x0f;
    match (first >> 4, flags) {
        (1, 0) => Ok(Kind::Connect),
        (3, _) => {
            let (dup, qos) = (flags & 0x08 != 0, qos((flags >> 1) & 0x03)?);
            if dup && qos == Qos::AtMostOnce {
                return Err(Malformed("a repeated publish at QoS 0"));
            }
            Ok(Kind::Publish { dup, qos, retain: flags & 0x01 != 0 })
        }
        (4, 0) => Ok(Kind::PubAck),
        (6, 2) => Ok(Kind::PubRel),
        (8, 2) => Ok(Kind::Subscribe),
        (10, 2) => Ok(Kind::Unsubscribe),
        (12, 0) => Ok(Kind::PingReq),
        (14, 0) => Ok(Kind::Disconnect),
        (_, _) => Err(Malformed("packet type or flags")),
    }
}

fn check_length(kind: Kind, body_bytes: usize) -> Result<(), Malformed> {
    let fits = match kind {
        Kind::PubAck | Kind::PubRel => body_bytes == 2,
        Kind::PingReq | Kind::Disconnect => body_bytes == 0,
        Kind::Connect | Kind::Publish { .. } | Kind::Subscribe | Kind::Unsubscribe => body_bytes > 2,
    };
    if fits { Ok(()) } else { Err(Malformed("remaining length does not fit the packet type")) }
}

fn qos(bits: u8) -> Result<Qos, Malformed> {
    match bits {
        0 => Ok(Qos::AtMostOnce),
        1 => Ok(Qos::AtLeastOnce),
        2 => Ok(Qos::ExactlyOnce),
        _ => Err(Malformed("QoS above 2")),
    }
}

fn topic_name(topic: &str) -> Result<&str, Malformed> {
    if topic.is_empty() || topic.contains(['+', '#']) { Err(Malformed("topic name")) } else { Ok(topic) }
}

fn topic_filter(filter: &str) -> Result<&str, Malformed> {
    if filter::is_valid(filter) { Ok(filter) } else { Err(Malformed("topic filter")) }
}

fn will(reader: &mut Reader<'_>, qos: Qos, retain: bool) -> Result<Will, Malformed> {
    let topic = topic_name(reader.text()?)?.to_owned();
    let payload = Bytes::copy_from_slice(reader.binary()?);
    Ok(Will { topic, payload, qos, retain })
}

struct ConnectFlags {
    clean_session: bool,
    will: Option<(Qos, bool)>,
    has_username: bool,
    has_password: bool,
}

impl ConnectFlags {
    fn read(bits: u8) -> Result<Self, Malformed> {
        let has = |bit: u8| bits & bit != 0;
        let will_bits_without_will = !has(0x04) && bits & 0x38 != 0;
        let password_without_username = has(0x40) && !has(0x80);
        if has(0x01) || will_bits_without_will || password_without_username {
            return Err(Malformed("connect flags"));
        }
        let will = if has(0x04) { Some((qos((bits >> 3) & 0x03)?, has(0x20))) } else { None };
        Ok(Self { clean_session: has(0x02), will, has_username: has(0x80), has_password: has(0x40) })
    }
}

/// Takes fields from the front of a body.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn byte(&mut self) -> Result<u8, Malformed> {
        self.take(1).map(|bytes| bytes[0])
    }

    fn number(&mut self) -> Result<u16, Malformed> {
        self.take(2).map(|bytes| u16::from_be_bytes([bytes[0], bytes[1]]))
    }

    fn packet_id(&mut self) -> Result<u16, Malformed> {
        match self.number()? {
            0 => Err(Malformed("packet id 0")),
            id => Ok(id),
        }
    }

    fn binary(&mut self) -> Result<&'a [u8], Malformed> {
        let count = usize::from(self.number()?);
        self.take(count)
    }

    fn text(&mut self) -> Result<&'a str, Malformed> {
        let text = std::str::from_utf8(self.binary()?).map_err(|_| Malformed("text is not UTF-8"))?;
        if text.contains('\0') { Err(Malformed("text with a NUL")) } else { Ok(text) }
    }

    fn end(&self) -> Result<(), Malformed> {
        if self.0.is_empty() { Ok(()) } else { Err(Malformed("bytes after the last field")) }
    }

    fn take(&mut self, count: usize) -> Result<&'a [u8], Malformed> {
        let (taken, rest) = self.0.split_at_checked(count).ok_or(Malformed("packet ends inside a field"))?;
        self.0 = rest;
        Ok(taken)
    }
}

fn put_short(out: &mut BytesMut, first: u8, packet_id: u16) {
    let [high, low] = packet_id.to_be_bytes();
    out.put_slice(&[first, 2, high, low]);
}

fn put_length(out: &mut BytesMut, mut length: usize) {
    while length > 0x7f {
        out.put_u8((length & 0x7f) as u8 | 0x80);
        length >>= 7;
    }
    out.put_u8(length as u8);
}

#[cfg(test)]
#[path = "codec_tests.rs"]
mod tests;
