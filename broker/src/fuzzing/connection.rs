//! Arbitrary bytes for whole connections: several clients, one after the other or at once, against one door.
//!
//! The first byte decides how the intake settles and how the store is, the rest is cut at a mark into visits. The first byte of a visit decides
//! what is said in front of its bytes, in which chunks they come, and how the visit ends. Time passes whenever nothing else
//! can happen, so that every deadline comes at once.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use schema::clock::Clock;
use schema::id::{BarnId, DeviceId, FarmId, TenantId};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tokio::sync::Notify;
use tokio::task::{JoinSet, yield_now};
use tokio::time::sleep;

use crate::delivery::{Delivery, Intake};
use crate::door::{Door, DoorParts, DoorSettings};
use crate::fanout::Fanout;
use crate::fuzzing::rows::{Mood, Rows};
use crate::fuzzing::switchboard::Switchboard;
use crate::gatekeeper::{CredentialId, Gatekeeper, Identity, Login, Scope, Shown};
use crate::guesses::{GuessLimits, Guesses};
use crate::store::DoorStore;

/// Ends a visit; no packet of interest has it.
const MARK: [u8; 2] = [0xfe, 0xfd];
/// Visits of one input.
const VISITS_MAX: usize = 8;
/// Bytes a stream holds before its writer waits.
const STREAM_BYTES: usize = 256;
/// How long the store may be in trouble.
const STORE_TROUBLE_MAX: Duration = Duration::from_secs(60);
/// Messages the intake holds back.
const HELD_MAX: usize = 3;

/// What a visit may open with: nothing, or one of these.
const GREETINGS: [&[u8]; 7] = [
    // 3.1.1, clean.
    b"\x10\x0e\0\x04MQTT\x04\x02\0\x3c\0\x02v4",
    // 3.1.1, lasting.
    b"\x10\x0e\0\x04MQTT\x04\x00\0\x3c\0\x02v4",
    // 5, clean.
    b"\x10\x0f\0\x04MQTT\x05\x02\0\x3c\0\0\x02v5",
    // 5, lasting, with a receive maximum of 2, aliases, and small packets.
    b"\x10\x1f\0\x04MQTT\x05\x00\0\x3c\x10\x11\0\0\0\x3c\x21\0\x02\x22\0\x02\x27\0\0\0\x40\0\x02v5",
    // 5, lasting, with a delayed will.
    b"\x10\x23\0\x04MQTT\x05\x2c\0\x3c\x05\x11\0\0\0\x3c\0\x02v5\x05\x18\0\0\0\x02\0\x01w\0\x04gone",
    // 3.1.1, the device, with a will.
    b"\x10\x21\0\x04MQTT\x04\xee\0\x02\0\x01d\0\x01w\0\x04gone\0\x01d\0\x06secret\xc0\0",
    // 5, the device.
    b"\x10\x19\0\x04MQTT\x05\xc2\0\x3c\0\0\x01d\0\x01d\0\x06secret",
];

/// The bit of the policy with which a router serves what is promised to nobody.
const ROUTER: u8 = 0x80;

/// Plays a script of visits against a fresh door; every delivery is settled in the end, and nothing panics.
pub fn connection(bytes: &[u8]) {
    let Some((policy, script)) = bytes.split_first() else { return };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    runtime.expect("a runtime on this thread").block_on(run(*policy, script));
}

async fn run(policy: u8, script: &[u8]) {
    let (door, intake, rows) = open(policy).await;
    let credits = door.credits();
    let credit = credits.free();
    let visits = async {
        visit_all(&door, script).await;
        rows.set_mood(Mood::Well);
        door.shutdown(Duration::from_secs(60)).await
    };
    let abandoned = tokio::select! {
        ((), abandoned) = async { tokio::join!(door.run(), visits) } => abandoned,
        never = intake.settle_held() => match never {},
        never = recover(&rows) => match never {},
    };
    assert_eq!((abandoned, door.stats().unacked()), (0, 0), "every delivery is settled");
    assert_eq!(door.stats().panicked(), 0);
    // Whatever still waits for its time, as a last will does, goes with the door.
    drop(door);
    assert_eq!(credits.free(), credit, "all credit is given back");
}

/// A store that hangs for ever would keep a client waiting for ever.
async fn recover(rows: &Rows) -> Infallible {
    sleep(STORE_TROUBLE_MAX).await;
    rows.set_mood(Mood::Well);
    std::future::pending().await
}

/// A door without sockets, in which little is enough to reach a limit, its intake, and its store.
pub(super) async fn open(policy: u8) -> (Arc<Door>, Arc<Pretend>, Arc<Rows>) {
    let settings = DoorSettings {
        allow_anonymous: true,
        handshakes_per_address_max: 100,
        inflight_max: 4,
        message_bytes_max: 512,
        credit_messages_max: 6,
        credit_bytes_max: 16 << 10,
        sessions_max: 2,
        subscriptions_max: 4,
        queued_messages_max: 6,
        queued_bytes_max: 8 << 10,
        queued_total_bytes_max: 12 << 10,
        ..DoorSettings::default()
    };
    let intake = Arc::new(Pretend { policy, held: Mutex::default(), filled: Notify::new() });
    let rows = Arc::<Rows>::default();
    rows.set_mood(Mood::ALL.get(usize::from(policy >> 2 & 0x07)).copied().unwrap_or_default());
    let parts = DoorParts {
        gatekeeper: Arc::new(House),
        intake: Arc::clone(&intake) as Arc<dyn Intake>,
        store: Arc::clone(&rows) as Arc<dyn DoorStore>,
        guesses: Guesses::new(GuessLimits { delay: Duration::ZERO, ..GuessLimits::default() }),
        clock: Clock::system(),
    };
    let router = (policy & ROUTER != 0).then(|| Arc::<Switchboard>::default() as Arc<dyn Fanout>);
    let door = Door::bind_with(settings, parts, router).await;
    (Arc::new(door.expect("a door without sockets opens")), intake, rows)
}

async fn visit_all(door: &Arc<Door>, script: &[u8]) {
    let mut visits = JoinSet::new();
    for visit in split(script) {
        let Some((manner, bytes)) = visit.split_first() else { continue };
        let is_alone = manner & 0x20 == 0;
        let (client, server) = duplex(STREAM_BYTES);
        let serving = Arc::clone(door);
        visits.spawn(async move { serving.serve_stream(server).await });
        visits.spawn(talk(client, *manner, bytes.to_vec()));
        if is_alone {
            while let Some(ended) = visits.join_next().await {
                ended.expect("no visit panics");
            }
        }
    }
    while let Some(ended) = visits.join_next().await {
        ended.expect("no visit panics");
    }
}

/// The visits of a script.
fn split(script: &[u8]) -> Vec<&[u8]> {
    let mut visits = Vec::new();
    let mut rest = script;
    while visits.len() < VISITS_MAX {
        let Some(at) = rest.windows(MARK.len()).position(|window| window == MARK) else { break };
        visits.push(&rest[..at]);
        rest = &rest[at + MARK.len()..];
    }
    visits.push(rest);
    visits
}

/// One client: says its bytes in chunks while it listens, then leaves.
async fn talk(client: DuplexStream, manner: u8, bytes: Vec<u8>) {
    let greeting: &[u8] = match manner & 0x07 {
        0 => b"",
        number => GREETINGS[usize::from(number) - 1],
    };
    let chunk_bytes = [usize::MAX, 1, 3, 17][usize::from(manner >> 3 & 0x03)];
    let is_rude = manner & 0x40 != 0;
    let (mut reader, mut writer) = tokio::io::split(client);
    let say = async {
        for chunk in [greeting, &bytes].concat().chunks(chunk_bytes) {
            if writer.write_all(chunk).await.is_err() {
                return;
            }
            yield_now().await;
        }
        if manner & 0x80 != 0 {
            // Stays silent until the door has had enough.
            sleep(Duration::from_secs(200)).await;
        }
        let _ = writer.shutdown().await;
    };
    if is_rude {
        say.await;
        return;
    }
    let mut heard = Vec::new();
    let (_, ()) = tokio::join!(reader.read_to_end(&mut heard), say);
    check(&heard);
}

/// What the door says is a sequence of packets that a server may send; it opens with the only CONNACK.
fn check(heard: &[u8]) {
    let mut rest = heard;
    let mut count = 0;
    while let Some((first, after)) = rest.split_first() {
        let kind = first >> 4;
        assert!(matches!(kind, 2..=7 | 9 | 11 | 13 | 14), "a server sends {first:02x}: {heard:02x?}");
        assert_eq!(kind == 2, count == 0, "the first packet, and no other, is a CONNACK: {heard:02x?}");
        let mut body_bytes = 0;
        let mut length_bytes = 0;
        for byte in after.iter().take(4) {
            body_bytes |= usize::from(byte & 0x7f) << (7 * length_bytes);
            length_bytes += 1;
            if byte & 0x80 == 0 {
                break;
            }
        }
        count += 1;
        // The last packet of a client that left in the middle of it is cut.
        rest = after.get(length_bytes + body_bytes..).unwrap_or_default();
    }
}

/// Settles as it was told: at once, refused, late and backward, or only when it comes again.
pub(super) struct Pretend {
    policy: u8,
    held: Mutex<VecDeque<Delivery>>,
    filled: Notify,
}

impl Pretend {
    fn hold(&self, delivery: Delivery) -> usize {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        held.push_back(delivery);
        self.filled.notify_one();
        held.len()
    }

    /// Lets go of one message, if any is held.
    fn release(&self) -> bool {
        let last = self.held.lock().unwrap_or_else(PoisonError::into_inner).pop_back();
        last.map(Delivery::done).is_some()
    }

    /// Lets go of what is held back, one message at a time. Sleeps only then: a look every so often would cost more than all
    /// else in the minutes in which nothing happens.
    async fn settle_held(&self) -> Infallible {
        loop {
            self.filled.notified().await;
            sleep(Duration::from_millis(100)).await;
            while self.release() {
                sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

impl Intake for Pretend {
    fn take(&self, delivery: Delivery) {
        match self.policy & 0x03 {
            0 => delivery.done(),
            1 => delivery.reject(),
            2 => {
                if self.hold(delivery) > HELD_MAX {
                    let _ = self.release();
                }
            }
            _ if delivery.attempt() == 0 => drop(delivery),
            _ => delivery.done(),
        }
    }
}

/// Knows one device.
pub(super) struct House;

#[async_trait]
impl Gatekeeper for House {
    async fn login(&self, shown: Shown<'_>) -> Login {
        match (shown.username, shown.password) {
            (None, _) => Login::Anonymous,
            (Some("d"), Some(b"secret")) => Login::Device {
                identity: Identity {
                    tenant_id: TenantId::new("t").expect("an id"),
                    device_id: DeviceId::new("d").expect("an id"),
                },
                credential: None,
            },
            (Some(_), _) => Login::Refused,
        }
    }

    fn scope(&self, _identity: &Identity) -> Option<Scope> {
        Some(Scope {
            farm_id: Some(FarmId::new("f").expect("an id")),
            barn_id: Some(BarnId::new("b").expect("an id")),
            station_id: None,
        })
    }

    fn generation(&self) -> u64 {
        0
    }

    async fn still_accepts(&self, credentials: &[CredentialId]) -> Option<Vec<bool>> {
        Some(vec![true; credentials.len()])
    }

    fn stalled_for(&self) -> Duration {
        Duration::ZERO
    }
}
