//! What the router of live messages buys: the same messages to the same subscribers, through rumqttd and through the queues
//! of the door, in alternating rounds. Run it with `make bench-fan-out`.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use broker::gatekeeper::CredentialId;
use broker::guesses::Guesses;
use broker::{
    Delivery, Door, DoorParts, DoorSettings, Forgetful, Gatekeeper, Identity, Intake, Live, Login, Scope,
    Shown,
};
use schema::clock::Clock;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::timeout;

/// Messages of one round, and bytes of each.
const MESSAGES: usize = 20_000;
const PAYLOAD_BYTES: usize = 300;
/// Messages the publisher has unanswered.
const WINDOW: usize = 50;
/// Silence after which a subscriber has everything it will get.
const SILENCE: Duration = Duration::from_secs(2);
const TOPIC: &str = "live/reading";

/// Commits nothing.
struct Done;

impl Intake for Done {
    fn take(&self, delivery: Delivery) {
        delivery.done();
    }
}

/// Lets everybody in.
struct Open;

#[async_trait]
impl Gatekeeper for Open {
    async fn login(&self, _shown: Shown<'_>) -> Login {
        Login::Anonymous
    }

    fn scope(&self, _identity: &Identity) -> Option<Scope> {
        None
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

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    for subscribers in [1, 8, 32] {
        for _ in 0..3 {
            for (name, live) in [("rumqttd", Live::Rumqttd), ("queues", Live::Queues)] {
                let (received, elapsed) = measure(live, subscribers).await?;
                report(name, subscribers, received, elapsed);
            }
        }
    }
    Ok(())
}

/// One round at a door of its own.
async fn measure(live: Live, subscribers: usize) -> anyhow::Result<(usize, Duration)> {
    let settings = DoorSettings {
        listen: Some(([127, 0, 0, 1], 0).into()),
        allow_anonymous: true,
        live,
        ..DoorSettings::default()
    };
    let parts = DoorParts {
        gatekeeper: Arc::new(Open),
        intake: Arc::new(Done),
        store: Arc::new(Forgetful),
        guesses: Guesses::default(),
        clock: Clock::system(),
    };
    let door = Arc::new(Door::bind(settings, parts).await?);
    let address = door.addresses().plain.expect("it listens");
    let mut running = JoinSet::new();
    let run = Arc::clone(&door);
    running.spawn(async move { run.run().await });
    let measured = round(address, subscribers).await?;
    door.shutdown(Duration::from_secs(1)).await;
    Ok(measured)
}

#[expect(clippy::print_stdout, reason = "a measurement is for reading")]
fn report(name: &str, subscribers: usize, received: usize, elapsed: Duration) {
    let per_second = received as f64 / elapsed.as_secs_f64();
    let share = 100.0 * received as f64 / (MESSAGES * subscribers) as f64;
    println!("{name:8} {subscribers:3} subscribers {per_second:9.0} messages/s {share:5.1} % arrived");
}

/// Publishes all messages; says how many reached their subscribers, and in what time.
async fn round(address: SocketAddr, subscribers: usize) -> anyhow::Result<(usize, Duration)> {
    let mut readers = JoinSet::new();
    for number in 0..subscribers {
        let mut stream = connect(address, &format!("reader-{number}")).await?;
        stream.write_all(&packet(0x82, &[&[0, 1], text(TOPIC).as_slice(), &[0]].concat())).await?;
        stream.read_exact(&mut [0; 5]).await?;
        readers.spawn(read(stream));
    }
    let started = Instant::now();
    publish(connect(address, "writer").await?).await?;
    let (mut received, mut last) = (0, started);
    while let Some(read) = readers.join_next().await {
        let (count, at) = read??;
        received += count;
        last = last.max(at);
    }
    Ok((received, last - started))
}

async fn connect(address: SocketAddr, client_id: &str) -> anyhow::Result<TcpStream> {
    let mut stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    let hello = [b"\0\x04MQTT\x04\x02\0\0".as_slice(), &text(client_id)].concat();
    stream.write_all(&packet(0x10, &hello)).await?;
    stream.read_exact(&mut [0; 4]).await?;
    Ok(stream)
}

async fn publish(mut stream: TcpStream) -> anyhow::Result<()> {
    let message = packet(0x32, &[text(TOPIC).as_slice(), &[0, 1], &[b'x'; PAYLOAD_BYTES]].concat());
    let burst = message.repeat(WINDOW);
    for _ in 0..MESSAGES / WINDOW {
        stream.write_all(&burst).await?;
        stream.read_exact(&mut [0; 4 * WINDOW]).await?;
    }
    Ok(())
}

/// Counts messages until none comes any more; says how many, and when the last one came.
async fn read(mut stream: TcpStream) -> anyhow::Result<(usize, Instant)> {
    let message_bytes = packet(0x30, &[text(TOPIC).as_slice(), &[b'x'; PAYLOAD_BYTES]].concat()).len();
    let (mut bytes, mut last) = (0, Instant::now());
    let mut buffer = vec![0; 64 << 10];
    while let Ok(count) = timeout(SILENCE, stream.read(&mut buffer)).await {
        (bytes, last) = (bytes + count?, Instant::now());
        if bytes >= MESSAGES * message_bytes {
            break;
        }
    }
    Ok((bytes / message_bytes, last))
}

fn text(text: &str) -> Vec<u8> {
    let length = u16::try_from(text.len()).expect("a short text");
    [length.to_be_bytes().as_slice(), text.as_bytes()].concat()
}

fn packet(first: u8, body: &[u8]) -> Vec<u8> {
    let mut bytes = vec![first];
    let mut length = body.len();
    while length > 0x7f {
        bytes.push((length & 0x7f) as u8 | 0x80);
        length >>= 7;
    }
    bytes.push(length as u8);
    [bytes.as_slice(), body].concat()
}
