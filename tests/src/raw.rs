//! A client of MQTT 3.1.1 that sends packets byte by byte, for what no library lets a test do: stopping in the middle of an
//! exchange.

use std::net::SocketAddr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// A connection.
pub struct Raw(TcpStream);

/// A packet: its first byte, and what follows the length.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Packet {
    /// Kind and flags.
    pub first: u8,
    /// The rest.
    pub body: Vec<u8>,
}

/// A PUBLISH as it arrived.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Arrived {
    /// The topic.
    pub topic: String,
    /// The body, as text.
    pub payload: String,
    /// The packet id; zero at quality 0.
    pub packet_id: u16,
    /// It may have been sent before.
    pub is_repeated: bool,
    /// It is a retained message.
    pub is_retained: bool,
}

impl Raw {
    /// Connects without a credential and wants a session that lasts; says whether there was one.
    ///
    /// # Panics
    /// When it is not let in.
    pub async fn resume(mqtt: SocketAddr, client_id: &str) -> (Self, bool) {
        let (raw, Packet { first, body }) = Self::connect(mqtt, &lasting(client_id)).await;
        assert_eq!((first, body.len(), body[1]), (0x20, 2, 0), "it is let in");
        (raw, body[0] == 1)
    }

    /// Connects without a credential, with a session that ends with the connection, and a last will at QoS 1 that is to be
    /// retained.
    ///
    /// # Panics
    /// When it is not let in.
    pub async fn with_will(mqtt: SocketAddr, client_id: &str, topic: &str, payload: &str) -> Self {
        let mut raw = Self(TcpStream::connect(mqtt).await.expect("somebody listens"));
        let fields = [text(client_id), text(topic), text(payload)].concat();
        raw.send(0x10, &[b"\0\x04MQTT\x04\x2e\0\x3c".as_slice(), &fields].concat()).await;
        assert_eq!(raw.next().await, Packet { first: 0x20, body: vec![0, 0] }, "it is let in");
        raw
    }

    /// Asks as [`Raw::resume`] does, and says why it is not let in.
    pub async fn refused(mqtt: SocketAddr, client_id: &str) -> u8 {
        let (_, answer) = Self::connect(mqtt, &lasting(client_id)).await;
        answer.body[1]
    }

    /// Connects with these bytes of a CONNECT after its length; says the answer.
    ///
    /// # Panics
    /// When there is no answer.
    pub async fn connect(mqtt: SocketAddr, fields: &[u8]) -> (Self, Packet) {
        let mut raw = Self(TcpStream::connect(mqtt).await.expect("somebody listens"));
        raw.send(0x10, fields).await;
        let answer = raw.next().await;
        (raw, answer)
    }

    /// Waits until the other side ends the connection, whatever it says before.
    pub async fn expect_end(&mut self) {
        // A reset is an end as well.
        let _ = self.0.read_to_end(&mut Vec::new()).await;
    }

    /// Sends a packet.
    ///
    /// # Panics
    /// When the connection is gone.
    pub async fn send(&mut self, first: u8, body: &[u8]) {
        let mut bytes = vec![first];
        let mut length = body.len();
        while length > 0x7f {
            bytes.push((length & 0x7f) as u8 | 0x80);
            length >>= 7;
        }
        bytes.push(length as u8);
        bytes.extend(body);
        self.0.write_all(&bytes).await.expect("the connection is there");
    }

    /// Subscribes and waits for the answer.
    ///
    /// # Panics
    /// When it is refused.
    pub async fn subscribe(&mut self, filter: &str, qos: u8) {
        self.send(0x82, &[vec![0, 9], text(filter), vec![qos]].concat()).await;
        assert_eq!(self.next().await, Packet { first: 0x90, body: vec![0, 9, qos] });
    }

    /// Publishes without waiting.
    pub async fn publish(&mut self, flags: u8, topic: &str, packet_id: u16, payload: &str) {
        let id = if flags & 0x06 == 0 { Vec::new() } else { packet_id.to_be_bytes().to_vec() };
        self.send(0x30 | flags, &[text(topic), id, payload.as_bytes().to_vec()].concat()).await;
    }

    /// Sends an answer that is nothing but a packet id.
    pub async fn answer(&mut self, first: u8, packet_id: u16) {
        self.send(first, &packet_id.to_be_bytes()).await;
    }

    /// The next packet.
    ///
    /// # Panics
    /// When the connection ends.
    pub async fn next(&mut self) -> Packet {
        let first = self.0.read_u8().await.expect("a packet");
        let mut length = 0;
        for shift in [0, 7, 14, 21] {
            let byte = self.0.read_u8().await.expect("a length");
            length |= usize::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                break;
            }
        }
        let mut body = vec![0; length];
        self.0.read_exact(&mut body).await.expect("the rest");
        Packet { first, body }
    }

    /// The next packet, which is an answer of this kind with this id.
    ///
    /// # Panics
    /// When it is not.
    pub async fn expect(&mut self, first: u8, packet_id: u16) {
        assert_eq!(self.next().await, Packet { first, body: packet_id.to_be_bytes().to_vec() });
    }

    /// The next packet, which is a message.
    ///
    /// # Panics
    /// When it is not.
    pub async fn message(&mut self) -> Arrived {
        Arrived::read(&self.next().await)
    }
}

impl Arrived {
    /// A packet that is a message.
    ///
    /// # Panics
    /// When it is not.
    #[must_use]
    pub fn read(packet: &Packet) -> Self {
        let Packet { first, body } = packet;
        assert_eq!(first & 0xf0, 0x30, "{first:02x} {body:02x?}");
        let topic_bytes = usize::from(u16::from_be_bytes([body[0], body[1]]));
        let (topic, rest) = body[2..].split_at(topic_bytes);
        let (packet_id, payload) = match first & 0x06 {
            0 => (0, rest),
            _ => (u16::from_be_bytes([rest[0], rest[1]]), &rest[2..]),
        };
        let readable = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).expect("text");
        Self {
            topic: readable(topic),
            payload: readable(payload),
            packet_id,
            is_repeated: first & 0x08 != 0,
            is_retained: first & 0x01 != 0,
        }
    }
}

/// A CONNECT of 3.1.1 without a credential, for a session that lasts.
fn lasting(client_id: &str) -> Vec<u8> {
    [b"\0\x04MQTT\x04\0\0\x3c".as_slice(), &text(client_id)].concat()
}

fn text(text: &str) -> Vec<u8> {
    let length = u16::try_from(text.len()).expect("a short text");
    [length.to_be_bytes().as_slice(), text.as_bytes()].concat()
}
