//! A client that sends any bytes it likes, and knows the packets of MQTT 3.1.1 by heart.

use std::net::SocketAddr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::timeout;

use crate::support::PATIENCE;

/// What a CONNECT says.
#[derive(Clone)]
pub(crate) struct Hello {
    pub(crate) client_id: &'static str,
    pub(crate) clean_session: bool,
    pub(crate) keep_alive_seconds: u16,
    pub(crate) user: Option<(&'static str, &'static str)>,
    /// Topic, payload, QoS, retain.
    pub(crate) will: Option<(&'static str, &'static str, u8, bool)>,
}

impl Hello {
    pub(crate) fn named(client_id: &'static str) -> Self {
        Self { client_id, clean_session: true, keep_alive_seconds: 60, user: None, will: None }
    }

    pub(crate) fn device(device: &'static str) -> Self {
        Self { user: Some((device, "secret")), ..Self::named(device) }
    }

    pub(crate) fn with_will(self, topic: &'static str, payload: &'static str) -> Self {
        Self { will: Some((topic, payload, 1, true)), ..self }
    }

    pub(crate) fn packet(&self) -> Vec<u8> {
        let mut flags = u8::from(self.clean_session) << 1;
        let mut fields = text(self.client_id);
        if let Some((topic, payload, qos, retain)) = self.will {
            flags |= 0x04 | (qos << 3) | (u8::from(retain) << 5);
            fields.extend([text(topic), text(payload)].concat());
        }
        if let Some((user, password)) = self.user {
            flags |= 0xc0;
            fields.extend([text(user), text(password)].concat());
        }
        let [high, low] = self.keep_alive_seconds.to_be_bytes();
        packet(0x10, &[b"\0\x04MQTT\x04".as_slice(), &[flags, high, low], &fields].concat())
    }
}

pub(crate) fn packet(first: u8, body: &[u8]) -> Vec<u8> {
    let mut bytes = vec![first];
    let mut length = body.len();
    loop {
        let more = if length > 0x7f { 0x80 } else { 0 };
        bytes.push((length & 0x7f) as u8 | more);
        length >>= 7;
        if length == 0 {
            break;
        }
    }
    bytes.extend_from_slice(body);
    bytes
}

pub(crate) fn text(text: &str) -> Vec<u8> {
    [&u16::try_from(text.len()).unwrap().to_be_bytes(), text.as_bytes()].concat()
}

pub(crate) fn publish(topic: &str, payload: &[u8], qos: u8, packet_id: u16, retain: bool) -> Vec<u8> {
    let id = if qos == 0 { Vec::new() } else { packet_id.to_be_bytes().to_vec() };
    packet(0x30 | (qos << 1) | u8::from(retain), &[text(topic), id, payload.to_vec()].concat())
}

pub(crate) fn subscribe(packet_id: u16, filter: &str, qos: u8) -> Vec<u8> {
    packet(0x82, &[packet_id.to_be_bytes().to_vec(), text(filter), vec![qos]].concat())
}

pub(crate) fn puback(packet_id: u16) -> Vec<u8> {
    packet(0x40, &packet_id.to_be_bytes())
}

/// A connection of bytes.
pub(crate) struct Raw(pub(crate) TcpStream);

impl Raw {
    pub(crate) async fn open(address: SocketAddr) -> Self {
        Self(TcpStream::connect(address).await.expect("the listener accepts"))
    }

    /// Connects from one of the many addresses that this machine has.
    pub(crate) async fn open_from(from: [u8; 4], address: SocketAddr) -> Self {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind(SocketAddr::from((from, 0))).unwrap();
        Self(socket.connect(address).await.expect("the listener accepts"))
    }

    /// Connects and logs in.
    pub(crate) async fn login(address: SocketAddr, hello: &Hello) -> Self {
        let mut raw = Self::open(address).await;
        raw.send(&hello.packet()).await;
        raw.expect(&[0x20, 2, 0, 0]).await;
        raw
    }

    pub(crate) async fn send(&mut self, bytes: &[u8]) {
        self.0.write_all(bytes).await.expect("the door reads");
    }

    /// Reads as many bytes as are expected and compares them.
    pub(crate) async fn expect(&mut self, bytes: &[u8]) {
        let mut seen = vec![0; bytes.len()];
        timeout(PATIENCE, self.0.read_exact(&mut seen)).await.expect("an answer in time").expect("an answer");
        assert_eq!(seen, bytes);
    }

    /// Reads the next packet: its first byte and its body.
    pub(crate) async fn next(&mut self) -> (u8, Vec<u8>) {
        let reading = async {
            let first = self.0.read_u8().await?;
            let (mut length, mut shift) = (0, 0);
            loop {
                let byte = self.0.read_u8().await?;
                length |= usize::from(byte & 0x7f) << shift;
                shift += 7;
                if byte & 0x80 == 0 {
                    break;
                }
            }
            let mut body = vec![0; length];
            self.0.read_exact(&mut body).await?;
            std::io::Result::Ok((first, body))
        };
        timeout(PATIENCE, reading).await.expect("a packet in time").expect("a packet")
    }

    /// Reads the next message at quality 1 and acknowledges it: its topic and payload.
    pub(crate) async fn take(&mut self) -> (String, Vec<u8>) {
        let (first, body) = self.next().await;
        assert_eq!(first & 0xf6, 0x32, "a message at quality 1");
        let topic_end = 2 + usize::from(u16::from_be_bytes([body[0], body[1]]));
        let topic = String::from_utf8(body[2..topic_end].to_vec()).expect("a topic is text");
        let id = u16::from_be_bytes([body[topic_end], body[topic_end + 1]]);
        self.send(&puback(id)).await;
        (topic, body[topic_end + 2..].to_vec())
    }

    /// Has the door answer, so that everything before is taken in.
    pub(crate) async fn ping(&mut self) {
        self.send(&[0xc0, 0]).await;
        self.expect(&[0xd0, 0]).await;
    }

    /// Whether these bytes are the next ones; the door may also close the connection.
    pub(crate) async fn is_answered(&mut self, bytes: &[u8]) -> bool {
        let mut seen = vec![0; bytes.len()];
        let read = timeout(PATIENCE, self.0.read_exact(&mut seen)).await.expect("an answer in time");
        read.is_ok() && seen == bytes
    }

    /// Waits until the door closes the connection; says what came before.
    pub(crate) async fn rest(mut self) -> Vec<u8> {
        let mut rest = Vec::new();
        // A reset is as good an end as any.
        let _ =
            timeout(PATIENCE, self.0.read_to_end(&mut rest)).await.expect("the door closes the connection");
        rest
    }
}
