//! One credential that takes all it can get of everything at once, while devices publish: they notice nothing.

#![expect(clippy::print_stdout, reason = "figures that a reader of the test wants to see")]

use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use loadtest::mqtt::Login;
use tests::barn::admit;
use tests::descriptors;
use tests::device::{Device, TENANT, login, new_event_id, reading};
use tests::engine::Engine;
use tests::postgres::Database;
use tests::settings::Settings;
use tests::wait::{PATIENCE, until};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::runtime::Builder;
use tokio::sync::watch;
use tokio::task::{JoinSet, spawn_blocking};
use tokio::time::{interval, timeout};

/// How much memory an attack may cost.
const GROWTH_BYTES_MAX: u64 = 150 << 20;
/// How much of it may be left when the attacker is gone: what waits for its sessions, within its part.
const LEFT_BYTES_MAX: u64 = 100 << 20;
/// How long a deed waits for the engine to read or to answer.
const DEED_MAX: Duration = Duration::from_secs(2);
/// How often the memory of the engine is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// Seven days in seconds, as long as a session may last.
const LONG: [u8; 4] = [0, 9, 0x3a, 0x80];
const PASSWORD: &str = "secret";
/// The device whose password the attacker has, and its own status topic.
const ATTACKER: &str = "d-evil";
const OWN_STATUS: [&str; 6] = ["iot", "status", "t-001", "f-001", "b-001", "d-evil"];

/// How large an attack is.
#[derive(Clone, Copy)]
struct Size {
    /// Connections of the attacker.
    connections: usize,
    devices: usize,
    /// Readings of each device per second.
    per_second: f64,
    lasts: Duration,
    /// How long a device may wait for an acknowledgement, where that is measured.
    wait_max: Option<Duration>,
    /// The part of what devices have to send that must be acknowledged.
    acknowledged_part_min: f64,
}

/// Readings of a device that go out together at most.
const BURST_MAX: usize = 40;

const SHORT: Size = Size {
    connections: 70,
    devices: 5,
    per_second: 10.0,
    lasts: Duration::from_secs(8),
    wait_max: None,
    acknowledged_part_min: 0.0,
};
const LONG_RUN: Size = Size {
    connections: 500,
    devices: 50,
    per_second: 20.0,
    lasts: Duration::from_secs(180),
    wait_max: Some(Duration::from_secs(1)),
    acknowledged_part_min: 0.95,
};

/// What the attacker does; each of its connections does one of these again and again.
#[derive(Clone, Copy, Debug)]
enum Deed {
    /// Holds a place for ever, and places before the login beside it.
    Hold,
    /// Subscribes to one topic many times, and acknowledges none of the retained messages that follow.
    Resubscribe,
    /// Acknowledges every large message but the first.
    Pin,
    /// Subscribes to spellings of its topic that nobody has seen.
    Spell,
    /// Leaves last wills that wait for days.
    LeaveWill,
    /// Retains messages under spellings of its topic.
    Retain,
    /// Leaves sessions for which large messages wait.
    LeaveSession,
}

const DEEDS: [Deed; 7] = [
    Deed::Hold,
    Deed::Resubscribe,
    Deed::Pin,
    Deed::Spell,
    Deed::LeaveWill,
    Deed::Retain,
    Deed::LeaveSession,
];

static NUMBER: AtomicU64 = AtomicU64::new(0);

/// A number that was not used before.
fn number() -> u64 {
    NUMBER.fetch_add(1, Ordering::Relaxed)
}

fn text(text: &str) -> Vec<u8> {
    binary(text.as_bytes())
}

fn binary(bytes: &[u8]) -> Vec<u8> {
    let length = u16::try_from(bytes.len()).expect("a short text");
    [length.to_be_bytes().as_slice(), bytes].concat()
}

fn packet(first: u8, body: &[u8]) -> Vec<u8> {
    let mut bytes = vec![first];
    let mut length = body.len();
    while length > 0x7f {
        bytes.push((length & 0x7f) as u8 | 0x80);
        length >>= 7;
    }
    bytes.push(length as u8);
    bytes.extend_from_slice(body);
    bytes
}

fn own_status() -> String {
    OWN_STATUS.join("/")
}

/// The own status topic with slashes that mean nothing, in places that depend on the number.
fn spelling(number: u64) -> String {
    let gaps = [1, 2, 3, 4, 5].map(|gap| "/".repeat(1 + usize::from((number >> (2 * gap)) as u8 & 3)));
    let mut spelled = "/".repeat(usize::from(number as u8 & 3));
    for (position, level) in OWN_STATUS.iter().enumerate() {
        spelled.push_str(level);
        spelled.push_str(gaps.get(position).map_or("", String::as_str));
    }
    spelled
}

/// A status of a device that fills so many bytes more.
fn status(name: &str, bytes: usize) -> Vec<u8> {
    let fill = "x".repeat(bytes);
    format!("{{\"device_id\":\"{name}\",\"status\":\"online\",\"fill\":\"{fill}\"}}").into_bytes()
}

fn subscribe(filters: impl Iterator<Item = String>, qos: u8) -> Vec<u8> {
    let asked = filters.flat_map(|filter| [text(&filter), vec![qos]].concat());
    packet(0x82, &[0, 1].into_iter().chain(asked).collect::<Vec<_>>())
}

fn publish(topic: &str, body: &[u8], is_retained: bool) -> Vec<u8> {
    let first = 0x32 | u8::from(is_retained);
    packet(first, &[&text(topic), [0, 9].as_slice(), body].concat())
}

/// A connection of the attacker, who cares for no error.
struct Line(TcpStream);

impl Line {
    async fn open(mqtt: SocketAddr, is_lasting: bool) -> io::Result<Self> {
        let clean = if is_lasting { 0 } else { 2 };
        let fields = [b"\0\x04MQTT\x04".as_slice(), &[0xc0 | clean, 0, 0], &Self::credential()].concat();
        Self::introduce(mqtt, &fields).await
    }

    fn credential() -> Vec<u8> {
        [text(&format!("evil-{}", number())), text(ATTACKER), text(PASSWORD)].concat()
    }

    async fn introduce(mqtt: SocketAddr, fields: &[u8]) -> io::Result<Self> {
        let mut line = Self(TcpStream::connect(mqtt).await?);
        line.send(&packet(0x10, fields)).await?;
        let mut head = [0; 2];
        timeout(DEED_MAX, line.0.read_exact(&mut head)).await??;
        let mut rest = vec![0; usize::from(head[1])];
        timeout(DEED_MAX, line.0.read_exact(&mut rest)).await??;
        Ok(line)
    }

    async fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        timeout(DEED_MAX, self.0.write_all(bytes)).await?
    }

    /// Takes whatever has come, without looking at it.
    async fn take(&mut self) -> io::Result<()> {
        self.0.readable().await?;
        let mut inbox = [0; 64 << 10];
        match self.0.try_read(&mut inbox) {
            Ok(0) => Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(_) => Ok(()),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(()),
            Err(error) => Err(error),
        }
    }
}

impl Deed {
    /// Does it until the engine or the attacker has enough of this connection.
    async fn repeat(self, mqtt: SocketAddr) -> io::Result<()> {
        match self {
            Self::Hold => hold(mqtt).await,
            Self::Resubscribe => {
                let mut line = Line::open(mqtt, true).await?;
                let hundred = subscribe((0..100).map(|_| own_status()), 1);
                loop {
                    line.send(&hundred).await?;
                    line.take().await?;
                }
            }
            Self::Pin => pin(mqtt).await,
            Self::Spell => {
                let mut line = Line::open(mqtt, false).await?;
                loop {
                    let filters: Vec<String> = (0..50).map(|_| spelling(number())).collect();
                    line.send(&subscribe(filters.iter().cloned(), 0)).await?;
                    let named: Vec<u8> = filters.iter().flat_map(|filter| text(filter)).collect();
                    line.send(&packet(0xa2, &[[0, 2].as_slice(), &named].concat())).await?;
                    line.take().await?;
                }
            }
            Self::LeaveWill => {
                let properties = |id: u8| [[5, id].as_slice(), &LONG].concat();
                let will =
                    [properties(0x18), text(&own_status()), binary(&status(ATTACKER, 60_000))].concat();
                let [client_id, rest] = [text(&format!("evil-{}", number())), text(ATTACKER)];
                let fields =
                    [b"\0\x04MQTT\x05\xc4\0\0".as_slice(), &properties(0x11), &client_id, &will, &rest];
                Line::introduce(mqtt, &[fields.concat(), text(PASSWORD)].concat()).await.map(drop)
            }
            Self::Retain => {
                let mut line = Line::open(mqtt, false).await?;
                loop {
                    line.send(&publish(&spelling(number()), &status(ATTACKER, 10_000), true)).await?;
                    line.take().await?;
                }
            }
            Self::LeaveSession => {
                let mut line = Line::open(mqtt, true).await?;
                line.send(&subscribe([own_status()].into_iter(), 1)).await?;
                line.take().await?;
                drop(line);
                let mut line = Line::open(mqtt, false).await?;
                line.send(&publish(&own_status(), &status(ATTACKER, 500_000), false)).await?;
                line.take().await
            }
        }
    }
}

async fn hold(mqtt: SocketAddr) -> io::Result<()> {
    let mut silent = Vec::new();
    for _ in 0..3 {
        silent.push(TcpStream::connect(mqtt).await?);
    }
    let mut line = Line::open(mqtt, false).await?;
    loop {
        line.take().await?;
    }
}

async fn pin(mqtt: SocketAddr) -> io::Result<()> {
    let mut line = Line::open(mqtt, true).await?;
    line.send(&subscribe([own_status()].into_iter(), 1)).await?;
    let large = publish(&own_status(), &status(ATTACKER, 1_000_000), true);
    // Ids follow each other, so all but the first can be acknowledged without reading what they belong to.
    for packet_id in 2_u16.. {
        line.send(&large).await?;
        line.take().await?;
        line.send(&packet(0x40, &packet_id.to_be_bytes())).await?;
    }
    Ok(())
}

/// The attacker, until it is dropped.
struct Attacker {
    /// They end with it.
    _connections: JoinSet<()>,
}

impl Attacker {
    fn start(mqtt: SocketAddr, connections: usize) -> Self {
        let mut tasks = JoinSet::new();
        for deed in DEEDS.into_iter().cycle().take(connections) {
            tasks.spawn(async move {
                loop {
                    // Its next connection is no better than this one.
                    drop(timeout(10 * DEED_MAX, deed.repeat(mqtt)).await);
                }
            });
        }
        Self { _connections: tasks }
    }
}

/// What became of the readings of devices.
#[derive(Default)]
struct Told {
    acknowledged: usize,
    longest_wait: Duration,
    /// Of all readings together.
    waited: Duration,
}

impl Told {
    fn note(&mut self, waited: Duration) {
        self.acknowledged += 1;
        self.longest_wait = self.longest_wait.max(waited);
        self.waited += waited;
    }

    fn and(self, other: &Self) -> Self {
        Self {
            acknowledged: self.acknowledged + other.acknowledged,
            longest_wait: self.longest_wait.max(other.longest_wait),
            waited: self.waited + other.waited,
        }
    }

    fn mean_wait(&self) -> Duration {
        self.waited / u32::try_from(self.acknowledged.max(1)).unwrap_or(u32::MAX)
    }
}

/// Devices on a thread of their own: the attacker, which stands for another machine, does not delay them on their way out.
fn publish_beside(
    mqtt: SocketAddr,
    devices: Vec<String>,
    per_second: f64,
    stop: watch::Receiver<bool>,
) -> thread::JoinHandle<Told> {
    thread::spawn(move || {
        let runtime = Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(async {
            let mut publishing = JoinSet::new();
            for name in devices {
                publishing.spawn(publish_all(mqtt, name, per_second, stop.clone()));
            }
            let all = publishing.join_all().await;
            all.iter().fold(Told::default(), Told::and)
        })
    })
}

/// A device that retains its status and publishes readings at its pace. Those that came due while it waited for
/// acknowledgements go out together, and each waits from when it was sent.
async fn publish_all(mqtt: SocketAddr, name: String, per_second: f64, stop: watch::Receiver<bool>) -> Told {
    let mut device = Device::login(mqtt, &with_password(&name)).await;
    let topic = format!("iot/status/{TENANT}/f-001/b-001/{name}");
    let online = loadtest::mqtt::Publish {
        topic: topic.as_str().into(),
        payload: status(&name, 0).into(),
        qos: 1,
        is_retained: true,
        properties: bytes::Bytes::new(),
    };
    device.put(&online).await;
    let mut told = Told::default();
    let mut turns = interval(Duration::from_secs_f64(1.0 / per_second));
    let (started, mut sent) = (Instant::now(), 0);
    while !*stop.borrow() {
        turns.tick().await;
        let due = (started.elapsed().as_secs_f64() * per_second) as usize;
        let count = due.saturating_sub(sent).min(BURST_MAX);
        let readings: Vec<_> = (0..count).map(|_| reading(&name, &new_event_id())).collect();
        let sent_at = Instant::now();
        device.put_all(readings).await;
        (0..count).for_each(|_| told.note(sent_at.elapsed()));
        sent += count;
    }
    device.put(&online).await;
    told
}

fn with_password(name: &str) -> Login {
    Login { user: Some(name.to_owned()), password: Some(PASSWORD.to_owned()), ..login(name) }
}

async fn attack(size: Size) {
    descriptors::make_room(16 << 10);
    let db = Database::fresh().await;
    admit(&db).await;
    let devices: Vec<String> = (0..size.devices).map(|number| format!("d-{number}")).collect();
    for name in devices.iter().map(String::as_str).chain([ATTACKER]) {
        db.execute(&format!(
            "INSERT INTO device_allowlist (tenant_id, device_id, farm_id, barn_id)
             VALUES ('{TENANT}', '{name}', 'f-001', 'b-001') ON CONFLICT DO NOTHING"
        ))
        .await;
        db.set_password(TENANT, name, name, PASSWORD).await;
    }
    let mut engine = Engine::start(Settings::of(&db.url).set("broker.allow_anonymous", "false")).await;
    let mqtt = engine.settings.mqtt;
    let (stop, stopped) = watch::channel(false);
    let publishing = publish_beside(mqtt, devices.clone(), size.per_second, stopped);
    let stored = async || db.count("SELECT count(*) FROM telemetry_raw").await;
    until("every device publishes", async || stored().await >= devices.len() as i64).await;

    let before = engine.resident_bytes();
    let attacker = Attacker::start(mqtt, size.connections);
    let started = Instant::now();
    let mut largest = before;
    let mut looks = interval(LOOK_EVERY);
    while started.elapsed() < size.lasts {
        looks.tick().await;
        largest = largest.max(engine.resident_bytes());
    }
    stop.send_replace(true);
    let joined = spawn_blocking(|| publishing.join()).await.expect("the thread is joined");
    let told = joined.expect("a device is acknowledged, whatever the attacker does");
    drop(attacker);
    let Told { acknowledged, longest_wait, .. } = told;
    println!(
        "{acknowledged} acknowledged after {:?}, the slowest after {longest_wait:?}; {} KiB more",
        told.mean_wait(),
        (largest - before) >> 10
    );
    for name in &devices {
        check_retained(mqtt, name).await;
    }
    assert_eq!(usize::try_from(stored().await), Ok(acknowledged), "acknowledged but not stored");
    assert!(largest - before < GROWTH_BYTES_MAX, "the attack cost {} bytes", largest - before);
    let asked = size.devices as f64 * size.per_second * size.lasts.as_secs_f64();
    let part = acknowledged as f64 / asked;
    assert!(part >= size.acknowledged_part_min, "{part} of what the devices had to send");
    assert!(size.wait_max.is_none_or(|max| longest_wait < max), "a device waited for {longest_wait:?}");
    until("the memory comes back", async || engine.resident_bytes() < before + LEFT_BYTES_MAX).await;
    assert!(!engine.log().contains("panicked"), "something panicked");
    assert_eq!(engine.terminate().await.code, Some(0));
}

/// The status a device retained is there for whoever subscribes.
async fn check_retained(mqtt: SocketAddr, name: &str) {
    let fields = [
        b"\0\x04MQTT\x04\xc2\0\x3c".as_slice(),
        &text(&format!("{name}-looks")),
        &text(name),
        &text(PASSWORD),
    ];
    let mut line = Line::introduce(mqtt, &fields.concat()).await.expect("the device is let in");
    let topic = format!("iot/status/{TENANT}/f-001/b-001/{name}");
    line.send(&subscribe([topic.clone()].into_iter(), 0)).await.expect("the engine reads");
    let message = packet(0x31, &[text(&topic), status(name, 0)].concat());
    let mut suback = [0; 5];
    line.0.read_exact(&mut suback).await.expect("an answer");
    assert_eq!(suback, [0x90, 3, 0, 1, 0], "{name} subscribes");
    let mut seen = vec![0; message.len()];
    timeout(PATIENCE, line.0.read_exact(&mut seen)).await.expect("a status in time").expect("a status");
    assert_eq!(seen, message, "the status of {name}");
}

#[tokio::test(flavor = "multi_thread")]
async fn one_credential_that_takes_all_it_can_get_hinders_nobody() {
    attack(SHORT).await;
}

/// How long the large run is to last, where somebody wants another time.
#[expect(clippy::disallowed_methods, reason = "a person shortens the run for a look")]
fn asked_seconds() -> Option<u64> {
    std::env::var("ATTACK_SECONDS").ok().map(|seconds| seconds.parse().expect("a number of seconds"))
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "large: `make test-large`; ATTACK_SECONDS makes it shorter"]
async fn one_credential_with_five_hundred_connections_hinders_nobody_for_three_minutes() {
    attack(Size { lasts: asked_seconds().map_or(LONG_RUN.lasts, Duration::from_secs), ..LONG_RUN }).await;
}
