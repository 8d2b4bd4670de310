//! The normative statements of both specifications that more than one packet decides: sessions, acknowledgements, wills,
//! retained messages, subscriptions. One test each, named by number: `v4` is 3.1.1, `v5` is 5.0.
//!
//! Packets are written in the [notation](crate::notation), with `~` where version 5 has properties and `%` for the level
//! of the protocol, so that one text stands for a packet of both versions.

mod connect;
mod deliver;
mod publish;
mod session;
mod subscribe;
mod v5_only;

use std::sync::Arc;

use broker::DoorSettings;
use chrono::TimeDelta;
use tokio::io::AsyncReadExt;
use tokio::time::timeout;

use crate::clients::Raw;
use crate::notation;
use crate::support::{Done, OpenDoor, PATIENCE, open_with, settings};

/// The protocol a test speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Version {
    V4,
    V5,
}

use Version::{V4, V5};

impl Version {
    /// The bytes of a packet of this version, without properties.
    fn bytes(self, notation: &str) -> Vec<u8> {
        let (level, properties) = match self {
            V4 => ("04", ""),
            V5 => ("05", "[ ]"),
        };
        notation::bytes(&notation.replace('%', level).replace('~', properties))
    }

    /// The CONNECT of a client whose session lasts for an hour at least.
    fn lasting(self, id: &str, clean: bool) -> String {
        let flags = if clean { "02" } else { "00" };
        match self {
            // In 3.1.1 a session that starts clean never lasts.
            V4 => format!("10 [ <MQTT> 04 {flags} 003c <{id}> ]"),
            V5 => format!("10 [ <MQTT> 05 {flags} 003c [ 11 00000e10 ] <{id}> ]"),
        }
    }
}

/// A door whose intake settles every message at once.
async fn door() -> OpenDoor {
    door_with(settings()).await
}

async fn door_with(settings: DoorSettings) -> OpenDoor {
    open_with(settings, Arc::new(Done)).await
}

/// So much wall time passes.
fn seconds_pass(door: &OpenDoor, seconds: i64) {
    door.clock.advance(TimeDelta::seconds(seconds));
}

/// A client that says and hears bytes.
struct Peer {
    version: Version,
    raw: Raw,
}

impl Peer {
    async fn open(door: &OpenDoor, version: Version) -> Self {
        Self { version, raw: Raw::open(door.address()).await }
    }

    /// Connects with a session that ends with the connection.
    async fn connect(door: &OpenDoor, version: Version, id: &str) -> Self {
        Self::present(door, version, &format!("10 [ <MQTT> % 02 003c ~ <{id}> ]"), false).await
    }

    /// Connects with a session that lasts, and finds one or none.
    async fn lasting(door: &OpenDoor, version: Version, id: &str, is_present: bool) -> Self {
        Self::present(door, version, &version.lasting(id, false), is_present).await
    }

    /// Connects with any CONNECT that is accepted, and finds a session or none.
    async fn present(door: &OpenDoor, version: Version, connect: &str, is_present: bool) -> Self {
        let mut peer = Self::open(door, version).await;
        peer.send(connect).await;
        let answer = peer.next().await;
        assert_eq!(answer[0], 0x20, "{answer:02x?}");
        let (_, at) = length(&answer);
        assert_eq!((answer[at], answer[at + 1]), (u8::from(is_present), 0), "{answer:02x?}");
        peer
    }

    async fn send(&mut self, notation: &str) {
        self.raw.send(&self.version.bytes(notation)).await;
    }

    /// The next packet, whole.
    async fn next(&mut self) -> Vec<u8> {
        let reading = async {
            let mut packet = vec![0; 2];
            self.raw.0.read_exact(&mut packet).await.expect("a packet");
            while packet.last().is_some_and(|byte| byte & 0x80 != 0) {
                packet.push(self.raw.0.read_u8().await.expect("a packet"));
            }
            let (body_bytes, at) = length(&packet);
            packet.resize(at + body_bytes, 0);
            self.raw.0.read_exact(&mut packet[at..]).await.expect("a packet");
            packet
        };
        timeout(PATIENCE, reading).await.expect("a packet in time")
    }

    /// The next packet is this one.
    async fn expect(&mut self, notation: &str) {
        let packet = self.next().await;
        assert_eq!(packet, self.version.bytes(notation), "{notation}");
    }

    /// Nothing comes that was on its way before. Of two answers in a row the second leaves after everything that was
    /// queued when the first was asked for.
    async fn expect_silence(&mut self) {
        for _ in 0..2 {
            self.send("c0 00").await;
            self.expect("d0 00").await;
        }
    }

    /// Subscribes to one filter, which is granted.
    async fn subscribe(&mut self, filter: &str, options: u8) {
        self.send(&format!("82 [ 0ace ~ <{filter}> {options:02x} ]")).await;
        self.expect(&format!("90 [ 0ace ~ {:02x} ]", options & 3)).await;
    }

    /// Publishes at quality 1, and is answered.
    async fn publish(&mut self, topic: &str, payload: &str) {
        self.send(&format!("32 [ <{topic}> 0bed ~ '{payload}' ]")).await;
        self.expect("40 [ 0bed ]").await;
    }

    /// Publishes at quality 1 to a topic it is subscribed to. Whether it is answered before it gets its own copy, nobody
    /// promises. Returns the copy.
    async fn publish_to_itself(&mut self, publish: &str) -> Vec<u8> {
        self.send(publish).await;
        let packets = [self.next().await, self.next().await];
        let (answers, mut copies): (Vec<_>, Vec<_>) =
            packets.into_iter().partition(|packet| packet[0] == 0x40);
        assert_eq!((answers.len(), copies.len()), (1, 1), "{answers:02x?} {copies:02x?}");
        copies.remove(0)
    }

    /// Publishes a retained message at quality 1, and is answered.
    async fn retain(&mut self, topic: &str, payload: &str) {
        self.send(&format!("33 [ <{topic}> 0bed ~ '{payload}' ]")).await;
        self.expect("40 [ 0bed ]").await;
    }

    /// The next packet is a PUBLISH at quality 1 or 2, of this topic and payload: its first byte and its id.
    async fn message(&mut self, topic: &str, payload: &str) -> (u8, String) {
        let packet = self.next().await;
        let (_, at) = length(&packet);
        let id_at = at + 2 + topic.len();
        let id = u16::from_be_bytes([packet[id_at], packet[id_at + 1]]);
        let body = self.version.bytes(&format!("<{topic}> {id:04x} ~ '{payload}'"));
        assert_eq!(&packet[at..], body, "{topic} {payload}");
        assert_ne!(id, 0, "a packet id is not zero");
        (packet[0], format!("{id:04x}"))
    }

    /// As [`Peer::message`] at quality 1, which is acknowledged.
    async fn take(&mut self, topic: &str, payload: &str) {
        let (first, id) = self.message(topic, payload).await;
        assert_eq!(first & 0x06, 0x02, "quality 1");
        self.send(&format!("40 [ {id} ]")).await;
    }

    /// The door closes the connection after these packets.
    async fn expect_end(self, notation: &str) {
        let expected = self.version.bytes(notation);
        assert_eq!(self.raw.rest().await, expected, "{notation}");
    }

    /// The door closes the connection for a breach of the protocol; version 5 is told the reason.
    async fn expect_refusal(self, reason: u8) {
        match self.version {
            V4 => self.expect_end("").await,
            V5 => self.expect_disconnect(reason).await,
        }
    }

    /// The door closes the connection after a DISCONNECT that gives the reason: to a working client in words too.
    async fn expect_disconnect(self, reason: u8) {
        is_disconnect(&self.raw.rest().await, reason);
    }

    /// Says goodbye and waits for the end.
    async fn leave(mut self) {
        self.send("e0 00").await;
        self.expect_end("").await;
    }
}

/// A DISCONNECT with a reason, for whoever broke the protocol, and otherwise with a reason string and nothing else.
fn is_disconnect(packet: &[u8], reason: u8) {
    if matches!(reason, 0x81 | 0x82) {
        return assert_eq!(packet, [0xe0, 1, reason]);
    }
    let (body_bytes, at) = length(packet);
    assert_eq!((packet[0], packet.len()), (0xe0, at + body_bytes), "one DISCONNECT: {packet:02x?}");
    let [said, properties_bytes, 0x1f, _, text_bytes, text @ ..] = &packet[at..] else {
        panic!("a reason and a reason string: {packet:02x?}");
    };
    assert_eq!(*said, reason, "{packet:02x?}");
    assert_eq!((usize::from(*text_bytes), usize::from(*properties_bytes)), (text.len(), text.len() + 3));
    assert!(std::str::from_utf8(text).is_ok_and(|text| !text.is_empty()), "{packet:02x?}");
}

/// The id of a PUBLISH at quality 1 or 2, as it is written.
fn id_of(packet: &[u8], topic: &str) -> String {
    let (_, at) = length(packet);
    let id_at = at + 2 + topic.len();
    format!("{:02x}{:02x}", packet[id_at], packet[id_at + 1])
}

/// The bytes after the fixed header of a packet, and where they begin.
fn length(packet: &[u8]) -> (usize, usize) {
    let (mut value, mut at) = (0, 1);
    loop {
        value |= usize::from(packet[at] & 0x7f) << (7 * (at - 1));
        at += 1;
        if packet[at - 1] & 0x80 == 0 {
            return (value, at);
        }
    }
}

/// The properties of a CONNACK of version 5, each with its value as it stands.
fn connack_properties(packet: &[u8]) -> Vec<(u8, Vec<u8>)> {
    let (_, at) = length(packet);
    let (count, from) = length(&packet[at + 1..]);
    let mut rest = &packet[at + 1 + from..];
    assert_eq!(rest.len(), count, "nothing follows the properties");
    let mut found = Vec::new();
    while let Some((id, after)) = rest.split_first() {
        let value_bytes = match id {
            0x11 | 0x27 => 4,
            0x13 | 0x21 | 0x22 => 2,
            0x24 | 0x25 | 0x28..=0x2a => 1,
            _ => 2 + usize::from(u16::from_be_bytes([after[0], after[1]])),
        };
        let (value, after) = after.split_at(value_bytes);
        found.push((*id, value.to_vec()));
        rest = after;
    }
    found
}
