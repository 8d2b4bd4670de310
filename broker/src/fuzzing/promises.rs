//! Clients that keep to the protocol, a door that is killed, and a store that lags, fails and hangs: whatever the order of
//! all that, every promise is kept.
//!
//! An input is a script of two bytes a step. In the end everything is well, and then it is looked at what each client was
//! promised: of what was acknowledged, a lasting subscriber has got everything, at quality 2 once, of each publisher in
//! order, and nothing else.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use schema::clock::Clock;
use tokio::io::duplex;
use tokio::task::{JoinSet, yield_now};
use tokio::time::sleep;

use crate::delivery::{Delivery, Intake};
use crate::door::{Door, DoorParts, DoorSettings};
use crate::fuzzing::connection::House;
use crate::fuzzing::peer::Peer;
use crate::fuzzing::rows::{Mood, Rows};
use crate::guesses::{GuessLimits, Guesses};
use crate::store::DoorStore;

/// Steps of one input.
const STEPS_MAX: usize = 64;
/// Bytes a stream holds: more than anybody says in an input, so that no writer waits.
const STREAM_BYTES: usize = 1 << 20;
/// Rounds after which everything is settled once nothing is in the way.
const LAST_ROUNDS_MAX: usize = 50;

/// Plays a script of promises and faults.
pub fn promises(script: &[u8]) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    runtime.expect("a runtime on this thread").block_on(async {
        let mut world = World::new().await;
        for step in script.chunks_exact(2).take(STEPS_MAX) {
            world.step(step[0], step[1]).await;
        }
        world.end().await;
        world.check();
    });
}

/// Takes messages, or holds them back as long as it is told.
#[derive(Default)]
struct Engine(Mutex<(bool, VecDeque<Delivery>)>);

impl Engine {
    fn lock(&self) -> MutexGuard<'_, (bool, VecDeque<Delivery>)> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set_holding(&self, is_holding: bool) {
        self.lock().0 = is_holding;
        if !is_holding {
            let held = std::mem::take(&mut self.lock().1);
            held.into_iter().for_each(Delivery::done);
        }
    }

    /// What it had in hand is not committed.
    fn forget(&self) {
        let held = std::mem::take(&mut self.lock().1);
        drop(held);
    }
}

impl Intake for Engine {
    fn take(&self, delivery: Delivery) {
        let mut held = self.lock();
        if held.0 {
            held.1.push_back(delivery);
        } else {
            drop(held);
            delivery.done();
        }
    }
}

struct World {
    rows: Arc<Rows>,
    engine: Arc<Engine>,
    door: Arc<Door>,
    tasks: JoinSet<()>,
    peers: [Peer; 4],
    /// For each subscriber the messages of each peer before which it was not subscribed yet.
    since: BTreeMap<usize, Vec<u32>>,
}

impl World {
    async fn new() -> Self {
        let (rows, engine) = (Arc::<Rows>::default(), Arc::<Engine>::default());
        let door = open(&rows, &engine).await;
        let peers =
            [("p4", false), ("p5", true), ("s4", false), ("s5", true)].map(|(name, v5)| Peer::new(name, v5));
        let mut world = Self { rows, engine, door, tasks: JoinSet::new(), peers, since: BTreeMap::new() };
        world.serve();
        world
    }

    fn serve(&mut self) {
        let door = Arc::clone(&self.door);
        self.tasks.spawn(async move { door.run().await });
    }

    async fn step(&mut self, action: u8, argument: u8) {
        let who = usize::from(argument & 3);
        let more = argument >> 2;
        match action % 10 {
            0 => self.peers[who].publish(2).await,
            1 => self.peers[who].publish(1).await,
            2 => self.peers[who].subscribe(1 + more % 2).await,
            3 => self.connect(who).await,
            4 => self.peers[who].cut(),
            5 => self.peers[who].set_mute(more.is_multiple_of(2)).await,
            6 => self.rows.set_mood(Mood::ALL[usize::from(argument) % Mood::ALL.len()]),
            7 => self.engine.set_holding(argument.is_multiple_of(2)),
            8 => return self.kill(argument).await,
            _ => sleep(Duration::from_millis(100 * u64::from(argument))).await,
        }
        self.settle().await;
    }

    async fn connect(&mut self, who: usize) {
        let (client, server) = duplex(STREAM_BYTES);
        let door = Arc::clone(&self.door);
        self.tasks.spawn(async move { door.serve_stream(server).await });
        self.peers[who].connect(client).await;
    }

    /// Everybody says what there is to say, until nobody has anything more.
    async fn settle(&mut self) {
        loop {
            // The clock moves only when nothing else can.
            sleep(Duration::from_millis(1)).await;
            let mut has_heard = false;
            for who in 0..self.peers.len() {
                let was_subscribed = self.peers[who].is_subscribed;
                has_heard |= self.peers[who].listen().await;
                if self.peers[who].is_subscribed && !was_subscribed {
                    self.since.insert(who, self.peers.iter().map(Peer::published).collect());
                }
            }
            if !has_heard {
                return;
            }
        }
    }

    /// Kills the door in the middle of what it does, and opens it again with what the store has.
    async fn kill(&mut self, turns: u8) {
        for _ in 0..turns {
            yield_now().await;
        }
        self.tasks.shutdown().await;
        self.engine.forget();
        self.rows.set_mood(Mood::Well);
        self.door = open(&self.rows, &self.engine).await;
        self.serve();
        self.settle().await;
    }

    /// Lets everything come to its end.
    async fn end(&mut self) {
        self.rows.set_mood(Mood::Well);
        self.engine.set_holding(false);
        for _ in 0..LAST_ROUNDS_MAX {
            for who in 0..self.peers.len() {
                if !self.peers[who].is_connected() {
                    self.connect(who).await;
                }
                self.peers[who].set_mute(false).await;
            }
            self.settle().await;
            sleep(Duration::from_secs(1)).await;
            self.settle().await;
            if self.peers.iter().all(|peer| peer.is_connected() && peer.is_done()) {
                return;
            }
        }
        let waiting: Vec<usize> = (0..self.peers.len()).filter(|who| !self.peers[*who].is_done()).collect();
        panic!("the clients {waiting:?} wait for answers that never come");
    }

    fn check(&self) {
        for (subscriber, since) in &self.since {
            for (publisher, before) in self.peers.iter().zip(since) {
                check_one(&self.peers[*subscriber], publisher, *before);
            }
        }
        let everything: Vec<&String> = self.peers.iter().flat_map(|peer| peer.acknowledged.keys()).collect();
        for payload in self.peers.iter().flat_map(|peer| &peer.received) {
            assert!(everything.contains(&payload), "{payload} was never published");
        }
    }
}

/// What a subscriber got of a publisher against what it was promised.
fn check_one(subscriber: &Peer, publisher: &Peer, before: u32) {
    let wants = subscriber.wants.unwrap_or_default();
    let mut firsts = Vec::new();
    let mut counts: BTreeMap<&String, usize> = BTreeMap::new();
    for payload in subscriber.received.iter().filter(|payload| publisher.acknowledged.contains_key(*payload))
    {
        let count = counts.entry(payload).or_default();
        *count += 1;
        // What was published before may come again, at quality 1, after what was published later.
        if *count == 1 && number_of(payload) > before {
            firsts.push(number_of(payload));
        }
    }
    for (payload, qos) in &publisher.acknowledged {
        let count = counts.get(payload).copied().unwrap_or_default();
        assert!(count > 0 || number_of(payload) <= before, "{payload} was acknowledged and is lost");
        assert!(count < 2 || *qos.min(&wants) < 2, "{payload} reached the application {count} times");
    }
    assert!(firsts.is_sorted(), "out of order: {firsts:?}");
}

/// The number of a message among those of its publisher.
fn number_of(payload: &str) -> u32 {
    payload.rsplit('-').next().and_then(|number| number.parse().ok()).expect("it ends with a number")
}

async fn open(rows: &Arc<Rows>, engine: &Arc<Engine>) -> Arc<Door> {
    let settings = DoorSettings {
        allow_anonymous: true,
        handshakes_per_address_max: 1000,
        keep_alive_seconds_max: u16::MAX,
        stuck_timeout: Duration::from_secs(24 * 3600),
        connect_timeout: Duration::from_secs(3600),
        ..DoorSettings::default()
    };
    let parts = DoorParts {
        gatekeeper: Arc::new(House),
        intake: Arc::clone(engine) as Arc<dyn Intake>,
        store: Arc::clone(rows) as Arc<dyn DoorStore>,
        guesses: Guesses::new(GuessLimits { delay: Duration::ZERO, ..GuessLimits::default() }),
        clock: Clock::system(),
    };
    let door = Door::bind_with(settings, parts, None).await;
    Arc::new(door.expect("a door without sockets opens"))
}
