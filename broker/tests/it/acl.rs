//! The matrix of access: who may publish, leave a will and subscribe where, in both versions of the protocol.

use broker::{Scope, Verdict};
use tokio::io::AsyncReadExt;
use tokio::time::timeout;

use crate::clients::{Raw, publish, text};
use crate::notation;
use crate::support::{Arrivals, OpenDoor, PATIENCE, identity, open, settings};

/// Who comes: the letter by which the tables name it, and its user.
const WHO: [(char, Option<&str>); 5] = [
    ('a', None),                    // anonymous, where that is allowed
    ('d', Some("d")),               // a device of tenant t in farm f, barn b, with station st
    ('w', Some("wide")),            // a device of tenant t that may be anywhere
    ('t', Some("operator:of t")),   // an operator of tenant t
    ('o', Some("operator:of all")), // an operator of every tenant
];

/// Topics, and who may publish or leave a will there.
const TOPICS: [(&str, &str); 29] = [
    ("iot/telemetry/t/f/b/d/m", "ad"),
    ("iot/telemetry/t/f2/b/d/m", "a"),
    ("iot/telemetry/t/f/b2/d/m", "a"),
    ("iot/telemetry/t2/f/b/d/m", "a"),
    ("iot/telemetry/t/f/b/d2/m", "a"),
    ("iot/telemetry/t/f/b/wide/m", "aw"),
    ("iot/telemetry/t/f9/b9/wide/m", "aw"),
    ("iot/telemetry/t2/f/b/wide/m", "a"),
    ("iot/event/t/f/b/d/x", "ad"),
    ("iot/event/t/f2/b/d/x", "a"),
    ("iot/event/t/f/b/d2/x", "a"),
    ("iot/event/t/f9/b9/wide/x", "aw"),
    ("iot/event/t2/f/b/wide/x", "a"),
    ("iot/status/t/f/b/d", "ad"),
    ("iot/status/t/f/b/d2", "a"),
    ("iot/status/t2/f/b/d", "a"),
    ("iot/status/t/f9/b9/wide", "aw"),
    ("iot/weighvision/t/f/b/st/session/s/x", "adw"),
    ("iot/weighvision/t/f/b/st2/session/s/x", "aw"),
    ("iot/weighvision/t/f2/b/st/session/s/x", "aw"),
    ("iot/weighvision/t2/f/b/st/session/s/x", "a"),
    ("iot//status/t/f/b/d", "ad"),
    ("/iot/status/t/f/b/d/", "ad"),
    ("iot/feed/t/f/b/d/x", "a"),
    ("iot/status/t/f/b", "a"),
    ("farmiq/device/d/ota", "a"),
    ("other", "a"),
    ("$SYS/broker/uptime", ""),
    ("$share/g/other", ""),
];

/// Filters, and who may subscribe to them.
const FILTERS: [(&str, &str); 27] = [
    ("iot/status/t/f/b/d", "adto"),
    ("iot/status/t/f2/b/d", "ato"),
    ("iot/status/t/f/b/d2", "ato"),
    ("iot/status/t2/f/b/d", "ao"),
    ("iot/status/t/f9/b9/wide", "awto"),
    ("iot/status/t/f/b/+", "ato"),
    ("iot/status/t/#", "ato"),
    ("iot/status/+/+/+/+", "ao"),
    ("iot/telemetry/t/f/b/d/m", "ato"),
    ("iot/telemetry/t/f/b/d/+", "ato"),
    ("iot/telemetry/t/#", "ato"),
    ("iot/telemetry/t2/#", "ao"),
    ("iot/telemetry/+/#", "ao"),
    ("iot/weighvision/t/f/b/st/session/+/+", "ato"),
    ("iot/+/t/#", "ato"),
    ("iot/+/t", "ato"),
    ("iot/+/+/f/#", "ao"),
    ("iot/#", "ao"),
    ("+/status/t/#", "ao"),
    ("+/#", "ao"),
    ("#", "ao"),
    ("other/#", "ao"),
    ("$SYS/#", ""),
    ("$share/g/iot/status/t/f/b/d", "adto"),
    ("$share/g/iot/+/t/#", "ato"),
    ("$share/g/iot/telemetry/+/#", "ao"),
    ("$share/g/#", "ao"),
];

/// Who speaks which version of the protocol.
#[derive(Clone, Copy, Debug)]
struct Speaker {
    letter: char,
    user: Option<&'static str>,
    is_v5: bool,
}

impl Speaker {
    fn all() -> Vec<Self> {
        let both = |(letter, user)| [false, true].map(|is_v5| Self { letter, user, is_v5 });
        WHO.into_iter().flat_map(both).collect()
    }

    /// Connects, with a will on this topic if there is one; says the code of the CONNACK.
    async fn connect(self, door: &OpenDoor, will: Option<&str>) -> (Raw, u8) {
        let (level, none) = if self.is_v5 { ("05", "[ ]") } else { ("04", "") };
        let mut flags = 0x02;
        let mut rest = String::new();
        if let Some(topic) = will {
            flags |= 0x0c;
            rest += &format!("{none} <{topic}> <gone> ");
        }
        if let Some(user) = self.user {
            flags |= 0xc0;
            rest += &format!("<{user}> <secret>");
        }
        let hello =
            format!("10 [ <MQTT> {level} {flags:02x} 003c {none} <{}{}> {rest} ]", self.letter, level);
        let mut raw = Raw::open(door.address()).await;
        raw.send(&notation::bytes(&hello)).await;
        let answer = packet(&mut raw).await;
        assert_eq!(answer[0], 0x20, "{self:?}");
        (raw, answer[3])
    }

    async fn login(self, door: &OpenDoor) -> Raw {
        let (raw, code) = self.connect(door, None).await;
        assert_eq!(code, 0, "{self:?}");
        raw
    }

    fn refused(self, v4: u8) -> u8 {
        if self.is_v5 { 0x87 } else { v4 }
    }

    /// Publishes at QoS 1: what is denied is recorded as such, and version 5 is told so.
    async fn check_publish(self, raw: &mut Raw, arrivals: &mut Arrivals, topic: &str, is_allowed: bool) {
        let told = format!("{self:?} publishes to {topic}");
        let properties: &[u8] = if self.is_v5 { &[0] } else { &[] };
        raw.send(&publish(topic, &[properties, b"x"].concat(), 1, 7, false)).await;
        check_verdict(arrivals, topic, is_allowed, &told).await;
        let answer = packet(raw).await;
        assert_eq!(answer[..1], [0x40], "{told}");
        let code = answer.get(4).copied().unwrap_or_default();
        assert_eq!(code, if is_allowed || !self.is_v5 { 0 } else { 0x87 }, "{told}");
    }

    /// Leaves a will: version 5 and operators are refused at once, others have it recorded as denied when its time comes.
    async fn check_will(self, door: &OpenDoor, arrivals: &mut Arrivals, topic: &str, is_allowed: bool) {
        let told = format!("{self:?} leaves a will on {topic}");
        let (raw, code) = self.connect(door, Some(topic)).await;
        let is_operator = matches!(self.letter, 't' | 'o');
        if !is_allowed && (self.is_v5 || is_operator) {
            assert_eq!(code, self.refused(5), "{told}");
            return;
        }
        assert_eq!(code, 0, "{told}");
        drop(raw);
        check_verdict(arrivals, topic, is_allowed, &told).await;
    }

    async fn check_subscribe(self, raw: &mut Raw, filter: &str, is_allowed: bool) {
        let properties: &[u8] = if self.is_v5 { &[0] } else { &[] };
        let body = [&[0, 9], properties, &text(filter), &[1]].concat();
        raw.send(&crate::clients::packet(0x82, &body)).await;
        let answer = packet(raw).await;
        let code = if is_allowed { 1 } else { self.refused(0x80) };
        assert_eq!((answer[0], answer.last()), (0x90, Some(&code)), "{self:?} subscribes to {filter}");
    }
}

/// The next packet, which is a short one.
async fn packet(raw: &mut Raw) -> Vec<u8> {
    let reading = async {
        let mut packet = vec![0; 2];
        raw.0.read_exact(&mut packet).await?;
        assert!(packet[1] < 0x80, "a short packet");
        packet.resize(2 + usize::from(packet[1]), 0);
        raw.0.read_exact(&mut packet[2..]).await?;
        std::io::Result::Ok(packet)
    };
    timeout(PATIENCE, reading).await.expect("an answer in time").expect("an answer")
}

async fn check_verdict(arrivals: &mut Arrivals, topic: &str, is_allowed: bool, told: &str) {
    let delivery = arrivals.next().await;
    let verdict = if is_allowed { Verdict::Admitted } else { Verdict::AclDenied };
    assert_eq!((&*delivery.topic, delivery.verdict), (topic, verdict), "{told}");
    if is_allowed { delivery.done() } else { delivery.reject() }
}

#[tokio::test]
async fn everybody_may_what_is_his_and_nothing_else() {
    let (door, mut arrivals) = open(settings()).await;
    door.house.enable(&identity("wide"), Scope::default());
    let mut cases = 0;
    for speaker in Speaker::all() {
        let mut raw = speaker.login(&door).await;
        for (topic, allowed) in TOPICS {
            let is_allowed = allowed.contains(speaker.letter);
            speaker.check_publish(&mut raw, &mut arrivals, topic, is_allowed).await;
        }
        drop(raw);
        for (topic, allowed) in TOPICS {
            speaker.check_will(&door, &mut arrivals, topic, allowed.contains(speaker.letter)).await;
        }
        let mut raw = speaker.login(&door).await;
        for (filter, allowed) in FILTERS {
            speaker.check_subscribe(&mut raw, filter, allowed.contains(speaker.letter)).await;
        }
        cases += 2 * TOPICS.len() + FILTERS.len();
    }
    assert!(arrivals.is_empty());
    println!("{cases} cases");
}
