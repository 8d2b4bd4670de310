//! The few packets of MQTT 3.1.1 a publishing device needs, encoded and decoded by hand.
//!
//! A full client library costs more per message than the engine may spend on one; a publisher that shares two cores
//! with what it measures has to be lean.

use anyhow::{Context, Result, bail};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Longest string an MQTT packet can hold.
const STRING_BYTES_MAX: usize = 65_535;

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
    /// 0 or 1.
    pub qos: u8,
    /// Whether the broker keeps it.
    pub is_retained: bool,
}

/// What a broker says to a publisher.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Heard {
    /// A PUBACK for this packet id.
    PubAck(u16),
    /// The answer to a ping.
    PingResp,
}

/// Opens a connection, sends CONNECT and waits for the CONNACK.
///
/// # Errors
/// When the broker cannot be reached or refuses the login; the text says which.
pub async fn connect(broker: &str, login: &Login) -> Result<TcpStream> {
    let mut stream = TcpStream::connect(broker).await.with_context(|| format!("connect to {broker}"))?;
    stream.set_nodelay(true).context("set TCP_NODELAY")?;
    stream.write_all(&connect_packet(login)?).await.context("send CONNECT")?;
    let mut answer = [0; 4];
    stream.read_exact(&mut answer).await.with_context(|| format!("{broker} closed before CONNACK"))?;
    match answer {
        [0x20, 2, _, 0] => Ok(stream),
        [0x20, 2, _, code] => bail!("{broker} refused {}: {}", login.client_id, refusal(code)),
        _ => bail!("{broker} answered CONNECT with {answer:02x?}, which is no CONNACK"),
    }
}

fn refusal(code: u8) -> &'static str {
    match code {
        1 => "protocol version not accepted",
        2 => "client id not accepted",
        3 => "server unavailable",
        4 => "bad user name or password",
        5 => "not authorized",
        _ => "unknown refusal code",
    }
}

/// The CONNECT packet: 3.1.1, always a clean session.
///
/// # Errors
/// When a text is longer than MQTT can carry.
pub fn connect_packet(login: &Login) -> Result<Vec<u8>> {
    let mut flags = 0b0000_0010;
    let mut body = Vec::with_capacity(128);
    put_string(&mut body, b"MQTT")?;
    body.extend([4, 0]);
    body.extend(login.keepalive_seconds.to_be_bytes());
    put_string(&mut body, login.client_id.as_bytes())?;
    if let Some(will) = &login.will {
        flags |= 0b0000_1100 | (u8::from(will.is_retained) << 5);
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

/// Appends a PUBLISH; `packet_id` only matters at QoS 1.
pub fn put_publish(out: &mut Vec<u8>, publish: &Publish, packet_id: u16, is_resent: bool) {
    let has_id = publish.qos > 0;
    let length = 2 + publish.topic.len() + if has_id { 2 } else { 0 } + publish.payload.len();
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
    out.extend_from_slice(&publish.payload);
}

/// A ping.
pub const PINGREQ: [u8; 2] = [0xC0, 0];
/// A clean good-bye, after which the broker forgets the will.
pub const DISCONNECT: [u8; 2] = [0xE0, 0];

/// Takes the next packet off the front of `inbox`, with the number of bytes it used; `None` when it is not whole yet.
///
/// # Errors
/// When the broker sends something a publisher never gets.
pub fn take_packet(inbox: &[u8]) -> Result<Option<(Heard, usize)>> {
    match inbox {
        [0x40, 2, high, low, ..] => Ok(Some((Heard::PubAck(u16::from_be_bytes([*high, *low])), 4))),
        [0xD0, 0, ..] => Ok(Some((Heard::PingResp, 2))),
        [] | [0x40 | 0xD0] | [0x40, 2] | [0x40, 2, _] => Ok(None),
        [first, ..] => {
            bail!("the broker sent a packet of kind {:#04x}, which no publisher expects", first & 0xF0)
        }
    }
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
        };
        let packet = connect_packet(&login).unwrap();
        let expected = b"\x10\x19\x00\x04MQTT\x04\xee\x00\x3c\x00\x01d\x00\x01t\x00\x01w\x00\x01u\x00\x01p";
        assert_eq!(packet, expected);
    }

    #[test]
    fn a_publish_of_two_hundred_bytes_has_a_two_byte_length() {
        let publish =
            Publish { topic: "a/b".into(), payload: vec![b'x'; 200].into(), qos: 1, is_retained: false };
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
        assert!(take_packet(&[0x30, 0]).is_err());
    }
}
