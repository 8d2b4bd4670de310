//! Messages at quality 2 through kills of the engine at every place of the exchange, on the way in and on the way out, in
//! both versions, with the tables of the sessions free and locked: none is lost and none reaches the application twice.

use std::collections::BTreeSet;

use tests::engine::Engine;
use tests::postgres::Database;
use tests::raw::{Packet, Raw};
use tests::settings::Settings;

const TOPIC: &str = "news/weather";

/// Where the engine is killed. *Unstored* means that what the client sent last was taken in and cannot be stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Published,
    PublishedUnstored,
    Received,
    Arrived,
    TakenUnstored,
    Releasing,
    CompletedUnstored,
    ReleasedUnstored,
    ReleasedTwiceUnstored,
    Finished,
}

const PLACES: [Place; 10] = [
    Place::Published,
    Place::PublishedUnstored,
    Place::Received,
    Place::Arrived,
    Place::TakenUnstored,
    Place::Releasing,
    Place::CompletedUnstored,
    Place::ReleasedUnstored,
    Place::ReleasedTwiceUnstored,
    Place::Finished,
];

/// A client that remembers across connections what the protocol wants it to.
struct Client {
    name: &'static str,
    is_v5: bool,
    raw: Option<Raw>,
    /// Its message under way: packet id and payload, and whether PUBREC has come.
    outgoing: Option<(u16, String, bool)>,
    /// Ids that were received and not released.
    held: BTreeSet<u16>,
    /// What its application was given.
    given: Vec<String>,
}

impl Client {
    fn new(name: &'static str, is_v5: bool) -> Self {
        Self { name, is_v5, raw: None, outgoing: None, held: BTreeSet::new(), given: Vec::new() }
    }

    fn raw(&mut self) -> &mut Raw {
        self.raw.as_mut().expect("it is connected")
    }

    /// Connects, and sends again what was not finished.
    async fn connect(&mut self, engine: &Engine) -> bool {
        let (level, properties): (u8, &[u8]) =
            if self.is_v5 { (5, &[5, 0x11, 0, 0, 0x0e, 0x10]) } else { (4, &[]) };
        let fields = [b"\0\x04MQTT".as_slice(), &[level, 0, 0, 0x3c], properties, &text(self.name)].concat();
        let (raw, connack) = Raw::connect(engine.settings.mqtt, &fields).await;
        assert_eq!((connack.first, connack.body[1]), (0x20, 0), "it is let in");
        self.raw = Some(raw);
        match self.outgoing.clone() {
            Some((packet_id, _, true)) => self.raw().answer(0x62, packet_id).await,
            Some((packet_id, payload, false)) => self.send(0x0c, packet_id, &payload).await,
            None => {}
        }
        connack.body[0] == 1
    }

    async fn subscribe(&mut self) {
        let properties: &[u8] = if self.is_v5 { &[0] } else { &[] };
        self.raw().send(0x82, &[&[0, 9], properties, &text("news/#"), &[2]].concat()).await;
        assert_eq!(self.raw().next().await.first, 0x90);
    }

    async fn publish(&mut self, packet_id: u16, payload: &str) {
        self.outgoing = Some((packet_id, payload.to_owned(), false));
        self.send(0x04, packet_id, payload).await;
    }

    async fn send(&mut self, flags: u8, packet_id: u16, payload: &str) {
        let properties: &[u8] = if self.is_v5 { &[0] } else { &[] };
        let body =
            [text(TOPIC), packet_id.to_be_bytes().to_vec(), properties.to_vec(), payload.as_bytes().to_vec()];
        self.raw().send(0x30 | flags, &body.concat()).await;
    }

    /// Reads packets up to one of this kind, and does with each what the protocol wants, but for the answers of `mute` kinds.
    async fn hear(&mut self, until: u8, mute: &[u8]) {
        loop {
            let packet = self.raw().next().await;
            self.take(&packet, mute).await;
            if packet.first >> 4 == until {
                return;
            }
        }
    }

    async fn take(&mut self, Packet { first, body }: &Packet, mute: &[u8]) {
        let kind = first >> 4;
        let answer = match kind {
            3 => {
                let after_topic = 2 + usize::from(u16::from_be_bytes([body[0], body[1]]));
                let packet_id = u16::from_be_bytes([body[after_topic], body[after_topic + 1]]);
                let payload = &body[after_topic + 2 + usize::from(self.is_v5)..];
                if self.held.insert(packet_id) {
                    self.given.push(String::from_utf8_lossy(payload).into_owned());
                } else {
                    assert_ne!(first & 0x08, 0, "another message under an id that is held");
                }
                Some((0x50, packet_id))
            }
            5 => {
                let (packet_id, _, is_received) = self.outgoing.as_mut().expect("it has published");
                *is_received = true;
                Some((0x62, *packet_id))
            }
            6 => {
                let packet_id = u16::from_be_bytes([body[0], body[1]]);
                self.held.remove(&packet_id);
                Some((0x70, packet_id))
            }
            7 => {
                self.outgoing = None;
                None
            }
            _ => None,
        };
        if let Some((first, packet_id)) = answer.filter(|_| !mute.contains(&kind)) {
            self.raw().answer(first, packet_id).await;
        }
    }

    /// Waits until everything said so far was taken in: the answers to it that leave at once come before this one.
    async fn ping(&mut self) {
        self.raw().send(0xc0, &[]).await;
        self.hear(13, &[]).await;
    }
}

/// An engine with a writer and a reader.
struct Barn {
    db: Database,
    engine: Engine,
    writer: Client,
    reader: Client,
}

impl Barn {
    async fn open(is_v5: bool) -> Self {
        let db = Database::fresh().await;
        let engine = Engine::start(Settings::of(&db.url)).await;
        let (mut writer, mut reader) = (Client::new("writer", is_v5), Client::new("reader", is_v5));
        writer.connect(&engine).await;
        reader.connect(&engine).await;
        reader.subscribe().await;
        Self { db, engine, writer, reader }
    }

    /// Nothing of the sessions can be stored from now on.
    async fn lock(&self) {
        self.db.execute("BEGIN; LOCK TABLE mqtt_queue, mqtt_received IN EXCLUSIVE MODE").await;
    }

    /// Plays the exchange of one message up to a place.
    async fn play(&mut self, place: Place, packet_id: u16, payload: &str) {
        let Self { writer, reader, .. } = self;
        if place == Place::PublishedUnstored {
            self.lock().await;
            self.writer.publish(packet_id, payload).await;
            self.writer.ping().await;
            return self.reader.ping().await;
        }
        writer.publish(packet_id, payload).await;
        if place == Place::Published {
            return writer.ping().await;
        }
        writer.hear(5, &[5]).await;
        if place == Place::Received {
            return;
        }
        reader.hear(3, &[3]).await;
        if place == Place::Arrived {
            return;
        }
        let taken = *reader.held.last().expect("it has come");
        if place == Place::TakenUnstored {
            return self.answer_unstored(0x50, taken).await;
        }
        reader.raw().answer(0x50, taken).await;
        reader.hear(6, &[6]).await;
        if place == Place::Releasing {
            return;
        }
        if place == Place::CompletedUnstored {
            return self.answer_unstored(0x70, taken).await;
        }
        reader.raw().answer(0x70, taken).await;
        if place == Place::Finished {
            writer.raw().answer(0x62, packet_id).await;
            return writer.hear(7, &[]).await;
        }
        self.lock().await;
        self.writer.raw().answer(0x62, packet_id).await;
        self.writer.ping().await;
        if place == Place::ReleasedTwiceUnstored {
            self.writer.connect(&self.engine).await;
            self.writer.ping().await;
        }
        assert!(self.writer.outgoing.is_some(), "it is told that its id is free before that is stored");
    }

    /// The reader answers, and what it says cannot be stored.
    async fn answer_unstored(&mut self, first: u8, packet_id: u16) {
        self.lock().await;
        self.reader.raw().answer(first, packet_id).await;
        self.reader.ping().await;
    }

    /// Kills the engine, starts it again, and brings everything to its end.
    async fn kill(&mut self) {
        self.engine.kill().await;
        self.db.execute("ROLLBACK").await;
        self.engine.start_again().await;
        assert!(self.writer.connect(&self.engine).await, "the writer's session is there");
        assert!(self.reader.connect(&self.engine).await, "the reader's session is there");
        while self.writer.outgoing.is_some() {
            let packet = self.writer.raw().next().await;
            self.writer.take(&packet, &[]).await;
        }
        // What is stored is sent at once, and all that is to be sent is stored.
        self.reader.ping().await;
        while !self.reader.held.is_empty() {
            self.reader.hear(6, &[]).await;
        }
        self.reader.ping().await;
    }
}

async fn survives_kills(is_v5: bool) {
    let mut barn = Barn::open(is_v5).await;
    for (packet_id, place) in (1..).zip(PLACES) {
        let payload = format!("{place:?}");
        barn.play(place, packet_id, &payload).await;
        barn.kill().await;
        let given = barn.reader.given.iter().filter(|given| **given == payload).count();
        assert_eq!(given, 1, "{place:?}: {:?}", barn.reader.given);
    }
    let expected: Vec<String> = PLACES.iter().map(|place| format!("{place:?}")).collect();
    assert_eq!(barn.reader.given, expected);
    assert_eq!(barn.db.count("SELECT count(*) FROM mqtt_received").await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_kills_of_exchanges_in_version_3_1_1() {
    survives_kills(false).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_kills_of_exchanges_in_version_5() {
    survives_kills(true).await;
}

fn text(text: &str) -> Vec<u8> {
    let length = u16::try_from(text.len()).expect("a short text");
    [length.to_be_bytes().as_slice(), text.as_bytes()].concat()
}
