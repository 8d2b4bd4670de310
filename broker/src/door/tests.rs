//! A door over streams: what goes on while the store of its journal is away, and how long a packet may take.

use async_trait::async_trait;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout};
use uuid::Uuid;

use super::*;
use crate::delivery::Delivery;
use crate::door::doubles::Nobody;
use crate::store::{Change, DoorStoreError, Forgetful, Stored};

/// More changes than may wait before whoever adds to them is not read.
const CHANGES: usize = 20_001;

/// Stores nothing before it is opened.
struct Gate(Semaphore);

#[async_trait]
impl DoorStore for Gate {
    async fn keeps_sessions(&self) -> Result<bool, DoorStoreError> {
        Ok(true)
    }

    async fn load(&self) -> Result<Stored, DoorStoreError> {
        Ok(Stored::default())
    }

    async fn apply(&self, _changes: &[Change]) -> Result<Vec<Uuid>, DoorStoreError> {
        drop(self.0.acquire().await.expect("nobody closes it"));
        Ok(Vec::new())
    }
}

/// Settles every message at once.
struct Done;

impl Intake for Done {
    fn take(&self, delivery: Delivery) {
        delivery.done();
    }
}

async fn open(store: Arc<dyn DoorStore>) -> Arc<Door> {
    let settings = DoorSettings { allow_anonymous: true, ..DoorSettings::default() };
    let parts = DoorParts {
        gatekeeper: Arc::new(Nobody),
        intake: Arc::new(Done),
        store,
        guesses: Guesses::default(),
        clock: Clock::system(),
    };
    let door = Door::bind_with(settings, parts, None).await;
    Arc::new(door.expect("a door without sockets opens"))
}

async fn connect(door: &Arc<Door>, tasks: &mut JoinSet<()>, connect: &[u8]) -> DuplexStream {
    let (mut client, server) = duplex(4096);
    let serving = Arc::clone(door);
    tasks.spawn(async move { serving.serve_stream(server).await });
    client.write_all(connect).await.unwrap();
    hears(&mut client, b"\x20\x02\0\0").await;
    client
}

async fn hears(client: &mut DuplexStream, answer: &[u8]) {
    let mut heard = vec![0; answer.len()];
    client.read_exact(&mut heard).await.unwrap();
    assert_eq!(heard, answer);
}

#[tokio::test(start_paused = true)]
async fn while_the_store_is_away_only_those_wait_who_add_to_what_is_to_be_stored() {
    let gate = Arc::new(Gate(Semaphore::new(0)));
    let door = open(Arc::clone(&gate) as Arc<dyn DoorStore>).await;
    let mut tasks = JoinSet::new();
    let running = Arc::clone(&door);
    tasks.spawn(async move { running.run().await });
    let clean: &[u8] = b"\x10\x0d\0\x04MQTT\x04\x02\0\0\0\x01";
    let mut plain = connect(&door, &mut tasks, &[clean, b"p"].concat()).await;
    let mut keeping = connect(&door, &mut tasks, &[clean, b"k"].concat()).await;
    for _ in 0..CHANGES {
        door.shared.hub.journal.note(Change::Unretained("t".into()));
    }
    plain.write_all(b"\x32\x05\0\x01a\0\x01").await.unwrap();
    hears(&mut plain, b"\x40\x02\0\x01").await;
    keeping.write_all(b"\x33\x06\0\x01a\0\x01x").await.unwrap();
    let early = timeout(Duration::from_secs(60), keeping.read_u8()).await;
    assert!(early.is_err(), "it is to be retained");
    let opened_at = Instant::now();
    gate.0.add_permits(1);
    hears(&mut keeping, b"\x40\x02\0\x01").await;
    assert_eq!(opened_at.elapsed(), Duration::ZERO, "it is read as soon as there is room");
    tasks.shutdown().await;
}

/// Sends a message of so many bytes at QoS 1, so many in each second; says after how many seconds it was answered, or the
/// connection was closed over it.
async fn trickle(body_bytes: usize, bytes_per_second: usize) -> Result<u64, u64> {
    let door = open(Arc::new(Forgetful)).await;
    let mut tasks = JoinSet::new();
    let mut client = connect(&door, &mut tasks, b"\x10\x0d\0\x04MQTT\x04\x02\0\0\0\x01s").await;
    let length =
        [0x80 | (body_bytes & 0x7f) as u8, 0x80 | (body_bytes >> 7 & 0x7f) as u8, (body_bytes >> 14) as u8];
    let head = [b"\x32".as_slice(), &length, b"\0\x01a\0\x01"].concat();
    let packet = [head, vec![b'x'; body_bytes - 5]].concat();
    let begun_at = Instant::now();
    for part in packet.chunks(bytes_per_second) {
        if client.write_all(part).await.is_err() {
            return Err(begun_at.elapsed().as_secs());
        }
        sleep(Duration::from_secs(1)).await;
    }
    let mut answer = [0; 4];
    match client.read_exact(&mut answer).await {
        Ok(_) => Ok(begun_at.elapsed().as_secs()),
        Err(_) => Err(begun_at.elapsed().as_secs()),
    }
}

#[tokio::test(start_paused = true)]
async fn a_packet_has_time_by_its_size_and_no_more() {
    const LARGE: usize = 128 << 10;
    // Thirty seconds for any packet, and one for each 4 KiB of it.
    assert_eq!(trickle(LARGE, 3 << 10).await, Ok(43));
    assert_eq!(trickle(LARGE, 2000).await.map_err(|seconds| seconds.abs_diff(62) <= 1), Err(true));
    assert_eq!(trickle(3000, 110).await, Ok(28));
    assert_eq!(trickle(3000, 50).await.map_err(|seconds| seconds.abs_diff(30) <= 1), Err(true));
}
