//! A client that keeps to the protocol and never forgets: what it was promised is held against the door.

use std::collections::{BTreeMap, BTreeSet};

use bytes::{Buf, BufMut, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};

/// Packet ids a client uses: few, so that they are used again and again.
const PACKET_IDS: std::ops::RangeInclusive<u16> = 1..=4;
/// The one filter, and the topic that it matches.
const FILTER: &str = "t/+";
const TOPIC: &str = "t/x";

/// How far a message of ours is on its way to the door.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// Unanswered.
    Published,
    /// PUBREC has come.
    Received,
}

/// A message of ours that is not finished.
#[derive(Clone, Debug)]
struct Outgoing {
    packet_id: u16,
    qos: u8,
    payload: String,
    stage: Stage,
    was_sent: bool,
}

/// A client.
pub(super) struct Peer {
    name: &'static str,
    is_v5: bool,
    stream: Option<DuplexStream>,
    inbox: BytesMut,
    is_let_in: bool,
    /// Whether it does not answer for now; its answers wait.
    is_mute: bool,
    unsent_answers: BytesMut,
    published: u32,
    outgoing: Vec<Outgoing>,
    /// Messages that the door took, each with its quality.
    pub(super) acknowledged: BTreeMap<String, u8>,
    /// Wants this quality; and whether that was confirmed.
    pub(super) wants: Option<u8>,
    pub(super) is_subscribed: bool,
    /// Ids of messages at quality 2 that were received and not released.
    held: BTreeSet<u16>,
    /// What its application was given, in order.
    pub(super) received: Vec<String>,
}

impl Peer {
    pub(super) fn new(name: &'static str, is_v5: bool) -> Self {
        Self {
            name,
            is_v5,
            stream: None,
            inbox: BytesMut::new(),
            is_let_in: false,
            is_mute: false,
            unsent_answers: BytesMut::new(),
            published: 0,
            outgoing: Vec::new(),
            acknowledged: BTreeMap::new(),
            wants: None,
            is_subscribed: false,
            held: BTreeSet::new(),
            received: Vec::new(),
        }
    }

    /// Opens a connection, whatever became of the last one.
    pub(super) async fn connect(&mut self, stream: DuplexStream) {
        self.cut();
        self.stream = Some(stream);
        let mut body = BytesMut::new();
        put_text(&mut body, "MQTT");
        body.put_u8(if self.is_v5 { 5 } else { 4 });
        body.put_slice(&[0, 0, 0]);
        if self.is_v5 {
            // A session of an hour.
            body.put_slice(&[5, 0x11, 0, 0, 0x0e, 0x10]);
        }
        put_text(&mut body, self.name);
        self.say(0x10, &body).await;
    }

    /// Loses the connection, and with it the answers that were not sent.
    pub(super) fn cut(&mut self) {
        self.stream = None;
        self.is_let_in = false;
        self.inbox.clear();
        self.unsent_answers.clear();
    }

    pub(super) fn is_connected(&self) -> bool {
        self.stream.is_some()
    }

    /// Publishes its next message, unless too many are not finished.
    pub(super) async fn publish(&mut self, qos: u8) {
        let is_free = |id: &u16| self.outgoing.iter().all(|outgoing| outgoing.packet_id != *id);
        let Some(packet_id) = PACKET_IDS.into_iter().find(is_free) else { return };
        self.published += 1;
        let payload = format!("{}-{}", self.name, self.published);
        let (stage, was_sent) = (Stage::Published, false);
        self.outgoing.push(Outgoing { packet_id, qos, payload, stage, was_sent });
        if self.is_let_in {
            self.send_outgoing(self.outgoing.len() - 1).await;
        }
    }

    /// Subscribes at a quality, if it has not asked yet.
    pub(super) async fn subscribe(&mut self, qos: u8) {
        if self.wants.is_none() {
            self.wants = Some(qos);
            if self.is_let_in {
                self.send_subscribe().await;
            }
        }
    }

    pub(super) async fn set_mute(&mut self, is_mute: bool) {
        self.is_mute = is_mute;
        if !is_mute {
            let answers = self.unsent_answers.split();
            self.write(&answers).await;
        }
    }

    /// Whether nothing of its own waits for an answer.
    pub(super) fn is_done(&self) -> bool {
        self.outgoing.is_empty() && self.is_subscribed == self.wants.is_some() && self.held.is_empty()
    }

    /// The payload of its last message.
    pub(super) fn published(&self) -> u32 {
        self.published
    }

    /// Takes in what has come; says whether there was anything.
    pub(super) async fn listen(&mut self) -> bool {
        let mut has_heard = false;
        while let Some(stream) = &mut self.stream {
            let read = tokio::select! {
                biased;
                read = stream.read_buf(&mut self.inbox) => read,
                () = std::future::ready(()) => break,
            };
            has_heard = true;
            let is_over = !read.is_ok_and(|bytes| bytes > 0);
            while let Some((first, body)) = self.next_packet() {
                self.hear(first, body).await;
            }
            if is_over {
                self.cut();
            }
        }
        has_heard
    }

    fn next_packet(&mut self) -> Option<(u8, BytesMut)> {
        let (mut length, mut head) = (0, 1);
        loop {
            let byte = *self.inbox.get(head)?;
            length |= usize::from(byte & 0x7f) << (7 * (head - 1));
            head += 1;
            if byte & 0x80 == 0 {
                break;
            }
        }
        if self.inbox.len() < head + length {
            return None;
        }
        let mut packet = self.inbox.split_to(head + length);
        let first = packet[0];
        packet.advance(head);
        Some((first, packet))
    }

    async fn hear(&mut self, first: u8, body: BytesMut) {
        match first >> 4 {
            2 => self.hear_connack(&body).await,
            3 => self.hear_publish(first, body).await,
            4 => self.finish(id_of(&body), 1, Stage::Published),
            5 => {
                let packet_id = id_of(&body);
                for outgoing in self.outgoing.iter_mut().filter(|outgoing| outgoing.packet_id == packet_id) {
                    outgoing.stage = Stage::Received;
                }
                self.say(0x62, &packet_id.to_be_bytes()).await;
            }
            6 => {
                self.held.remove(&id_of(&body));
                self.answer(0x70, id_of(&body)).await;
            }
            7 => self.finish(id_of(&body), 2, Stage::Received),
            9 => self.is_subscribed = true,
            14 => {}
            kind => panic!("{} hears a packet of kind {kind}: {body:02x?}", self.name),
        }
    }

    async fn hear_connack(&mut self, body: &[u8]) {
        let (is_present, code) = (body[0] == 1, body[1]);
        if code != 0 {
            return self.cut();
        }
        let has_received = self.outgoing.iter().any(|outgoing| outgoing.stage == Stage::Received);
        let was_promised = self.is_subscribed || has_received;
        assert!(is_present || !was_promised, "{}: the session is lost", self.name);
        self.is_let_in = true;
        for index in 0..self.outgoing.len() {
            self.send_outgoing(index).await;
        }
        if self.wants.is_some() && !self.is_subscribed {
            self.send_subscribe().await;
        }
    }

    async fn hear_publish(&mut self, first: u8, mut body: BytesMut) {
        let (qos, is_repeated) = (first >> 1 & 3, first & 8 != 0);
        let topic_bytes = usize::from(body.get_u16());
        let topic = body.split_to(topic_bytes);
        assert_eq!(topic, TOPIC.as_bytes(), "{}: a foreign topic", self.name);
        let packet_id = if qos == 0 { 0 } else { body.get_u16() };
        if self.is_v5 {
            let properties = usize::from(body.get_u8());
            body.advance(properties);
        }
        let payload = String::from_utf8_lossy(&body).into_owned();
        if qos == 2 && self.held.contains(&packet_id) {
            assert!(
                is_repeated,
                "{}: {payload} is sent under id {packet_id}, which belongs to another message",
                self.name
            );
        } else {
            self.received.push(payload);
        }
        match qos {
            1 => self.answer(0x40, packet_id).await,
            2 => {
                self.held.insert(packet_id);
                self.answer(0x50, packet_id).await;
            }
            _ => {}
        }
    }

    fn finish(&mut self, packet_id: u16, qos: u8, stage: Stage) {
        let is_meant = |outgoing: &Outgoing| outgoing.packet_id == packet_id;
        let index = self.outgoing.iter().position(is_meant);
        let Some(index) = index else { panic!("{}: an answer to nothing, id {packet_id}", self.name) };
        let outgoing = self.outgoing.remove(index);
        assert_eq!((outgoing.qos, outgoing.stage), (qos, stage), "{}: {outgoing:?}", self.name);
        self.acknowledged.insert(outgoing.payload, qos);
    }

    async fn send_outgoing(&mut self, index: usize) {
        let Outgoing { packet_id, qos, payload, stage, was_sent } = self.outgoing[index].clone();
        self.outgoing[index].was_sent = true;
        if stage == Stage::Received {
            return self.say(0x62, &packet_id.to_be_bytes()).await;
        }
        let mut body = BytesMut::new();
        put_text(&mut body, TOPIC);
        body.put_u16(packet_id);
        if self.is_v5 {
            body.put_u8(0);
        }
        body.put_slice(payload.as_bytes());
        self.say(0x30 | qos << 1 | u8::from(was_sent) << 3, &body).await;
    }

    async fn send_subscribe(&mut self) {
        let mut body = BytesMut::from(&[0, 9][..]);
        if self.is_v5 {
            body.put_u8(0);
        }
        put_text(&mut body, FILTER);
        body.put_u8(self.wants.unwrap_or_default());
        self.say(0x82, &body).await;
    }

    async fn answer(&mut self, first: u8, packet_id: u16) {
        let [high, low] = packet_id.to_be_bytes();
        if self.is_mute {
            self.unsent_answers.put_slice(&[first, 2, high, low]);
        } else {
            self.say(first, &[high, low]).await;
        }
    }

    async fn say(&mut self, first: u8, body: &[u8]) {
        let mut packet = BytesMut::new();
        packet.put_u8(first);
        packet.put_u8(u8::try_from(body.len()).expect("short packets"));
        packet.put_slice(body);
        self.write(&packet).await;
    }

    async fn write(&mut self, bytes: &[u8]) {
        if let Some(stream) = &mut self.stream {
            // Nobody may be there any more, which is noticed at the next read.
            let _ = stream.write_all(bytes).await;
        }
    }
}

fn id_of(body: &[u8]) -> u16 {
    u16::from_be_bytes([body[0], body[1]])
}

fn put_text(body: &mut BytesMut, text: &str) {
    body.put_u16(u16::try_from(text.len()).expect("a short text"));
    body.put_slice(text.as_bytes());
}
