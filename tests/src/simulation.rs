//! Senders under paused time: the engine's own partitions between a model of the outbox and a model of the cloud, driven by a
//! seed. A seed is one life of a barn: what is queued when, how the cloud and the database behave, and when engines die.
//!
//! What PostgreSQL does by itself (locks, plans, what a crash leaves) is not modelled; chaos on a real server is for that. That
//! the model does what the statements do is checked by running the same operations on both.

pub mod cloud;
pub mod outbox;
pub mod pace;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use actors::sync::ports::Ports;
use actors::sync::{SyncHub, SyncSettings};
use chrono::DateTime;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};
use schema::clock::{Clock, Timestamp};
use schema::store::{Store, StoreSettings};
use schema::wire::event::{SESSION_CREATED, SESSION_FINALIZED, TELEMETRY_INGESTED};
use tokio::task::JoinSet;
use tokio::time::Instant;
use uuid::Uuid;

use cloud::{ModelCloud, Rules, Weather};
use outbox::{ModelOutbox, NewRow};

/// The tenant of every simulated event.
pub const TENANT: &str = "t-sim";
/// How long everything has to come to rest after the last trouble.
const REST_MAX: Duration = Duration::from_secs(6 * 3600);
/// Rejections after which an event waits for a person.
pub const REJECTIONS_MAX: u32 = 3;
/// How long a batch belongs to an engine.
const LEASE_SECONDS: u64 = 30;

/// A fault that is planted, to see that it is found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flaw {
    /// A row is settled by its id alone, whoever has its group by now and whatever has become of it.
    SettleWithoutFence,
    /// An acknowledged row is deleted by its place alone, whoever lies there by now.
    SettleByPlace,
    /// Rows are claimed although they are under way.
    ClaimWithoutLease,
    /// A row that waits after a rejection does not hold its lane.
    RejectionHoldsNothing,
}

/// What a life came to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Life {
    /// Events that were queued.
    pub queued: usize,
    /// Requests that the cloud read.
    pub requests: u64,
    /// Events that the cloud had already.
    pub duplicates: u64,
    /// Virtual seconds.
    pub seconds: u64,
}

/// What happens from which second on, in that order.
type Timed<T> = Vec<(f64, T)>;

/// What a seed decides.
#[derive(Debug)]
struct Script {
    engines: usize,
    partitions: usize,
    batch_events_max: usize,
    poll_ms: u64,
    timeout: Duration,
    /// Rows with the second in which they are queued, in that order.
    rows: Timed<NewRow>,
    /// What the cloud does to ids that it does not like.
    bad: Vec<(Uuid, cloud::Dislike)>,
    /// From when on, which weather.
    weather: Timed<Weather>,
    /// From when on, how many of a thousand transactions fail, half of them after their commit.
    database: Timed<u32>,
    /// When an engine dies, and after how many seconds it is back.
    deaths: Vec<(f64, usize, f64)>,
    /// When the trouble is over.
    ends: f64,
}

impl Script {
    fn of(random: &mut StdRng) -> Self {
        // Every tenth life has a week without the cloud.
        let is_week = random.random_ratio(1, 10);
        let ends = if is_week { 7.0 * 86_400.0 + 600.0 } else { random.random_range(60.0..900.0) };
        let (rows, bad) = rows(random, if is_week { 86_400.0 } else { ends });
        let weather = if is_week {
            vec![
                (random.random_range(0.0..120.0), Weather::storm(random, 1.0)),
                (ends - 300.0, Weather::storm(random, 0.3)),
            ]
        } else {
            (0..random.random_range(1..8))
                .map(|_| {
                    let share = *[0.0, 0.2, 0.6, 1.0].choose(random).expect("not empty");
                    (random.random_range(0.0..ends), Weather::storm(random, share))
                })
                .collect()
        };
        let database = (0..random.random_range(0..4))
            .map(|_| {
                (
                    random.random_range(0.0..ends.min(900.0)),
                    *[0, 50, 400, 1000].choose(random).expect("not empty"),
                )
            })
            .collect();
        let engines = random.random_range(1..=2);
        let deaths = (0..random.random_range(0..4))
            .map(|_| {
                (
                    random.random_range(0.0..ends),
                    random.random_range(0..engines),
                    random.random_range(0.1..90.0),
                )
            })
            .collect();
        let mut script = Self {
            engines,
            partitions: random.random_range(1..=3),
            batch_events_max: *[1, 3, 8, 50].choose(random).expect("not empty"),
            poll_ms: if is_week { 600_000 } else { 5_000 },
            timeout: Duration::from_secs(*[5, 20, 60].choose(random).expect("not empty")),
            rows,
            bad,
            weather,
            database,
            deaths,
            ends,
        };
        let by_time = |a: f64, b: f64| a.total_cmp(&b);
        script.weather.sort_by(|a, b| by_time(a.0, b.0));
        script.database.sort_by(|a, b| by_time(a.0, b.0));
        script.deaths.sort_by(|a, b| by_time(a.0, b.0));
        script
    }
}

/// Rows of some devices and sessions over a time, and which of them the cloud will not have.
fn rows(random: &mut StdRng, seconds: f64) -> (Timed<NewRow>, Vec<(Uuid, cloud::Dislike)>) {
    let mut times: Vec<f64> =
        (0..random.random_range(5..120)).map(|_| random.random_range(0.0..seconds)).collect();
    times.sort_by(f64::total_cmp);
    let (devices, sessions) = (random.random_range(1..6), random.random_range(0..4));
    let mut begun = vec![0_u32; sessions];
    let (mut rows, mut bad) = (Vec::new(), Vec::new());
    for at in times {
        let id = Uuid::from_u128(random.random());
        let lane = random.random_range(0..devices + sessions);
        let (session, event_type) = match lane.checked_sub(devices) {
            None => (None, TELEMETRY_INGESTED),
            Some(session) => {
                begun[session] += 1;
                let event_type = match begun[session] {
                    1 => SESSION_CREATED,
                    3 => SESSION_FINALIZED,
                    _ => "media.stored",
                };
                (Some(format!("s-{session}")), event_type)
            }
        };
        if event_type != SESSION_CREATED && random.random_ratio(1, 12) {
            bad.push((id, cloud::Dislike::any(random)));
        }
        let group = i16::try_from(lane * 5 % 16).expect("below 16");
        rows.push((at, NewRow { id, group, device: format!("d-{lane}"), session, event_type }));
    }
    (rows, bad)
}

/// Lives a life.
///
/// # Errors
/// What did not hold.
///
/// # Panics
/// When no runtime can be made.
pub fn live(seed: u64, flaw: Option<Flaw>) -> Result<Life, String> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    runtime.expect("a runtime can be made").block_on(async { World::of(seed, flaw).run().await })
}

struct World {
    script: Script,
    outbox: Arc<ModelOutbox>,
    cloud: Arc<ModelCloud>,
    chance: Arc<Mutex<StdRng>>,
    clock: Clock,
    store: Store,
    started: Instant,
}

/// An engine that lives: its hub, and its senders.
type Engine = (SyncHub, JoinSet<()>);

impl World {
    fn of(seed: u64, flaw: Option<Flaw>) -> Self {
        let mut random = StdRng::seed_from_u64(seed);
        let script = Script::of(&mut random);
        let start: Timestamp = DateTime::from_timestamp(1_780_000_000, 0).expect("a time");
        let clock = Clock::following(start);
        let rules = Rules {
            timeout: script.timeout,
            is_alone: script.engines == 1,
            is_steady: script.database.iter().all(|(_, failures)| *failures == 0),
        };
        let cloud = Arc::new(ModelCloud::new(script.bad.iter().copied().collect(), rules, random.random()));
        let outbox = Arc::new(ModelOutbox::new(Arc::clone(&cloud), flaw, random.random()));
        // Nothing ever connects to it.
        let store =
            Store::new(&StoreSettings::new("host=/nowhere user=nobody", "simulation")).expect("a URL");
        let chance = Arc::new(Mutex::new(StdRng::seed_from_u64(random.random())));
        Self { script, outbox, cloud, chance, clock, store, started: Instant::now() }
    }

    async fn run(self) -> Result<Life, String> {
        let mut engines: Vec<Option<Engine>> =
            (0..self.script.engines).map(|number| Some(self.engine(number))).collect();
        for (at, step) in self.steps() {
            tokio::time::sleep_until(self.started + Duration::from_secs_f64(at)).await;
            match step {
                Step::Queue(row) => {
                    self.outbox.queue(row, self.clock.now());
                    engines.iter().flatten().for_each(|(hub, _)| hub.wake());
                }
                Step::Weather(weather) => self.cloud.change(weather),
                Step::Database(failures) => self.outbox.fail(failures),
                // Dropped at its await points, as a process that is killed.
                Step::Die(number) => engines[number] = None,
                Step::Return(number) => {
                    engines[number].get_or_insert_with(|| self.engine(number));
                }
            }
            self.found()?;
        }
        self.cloud.change(Weather::default());
        self.outbox.fail(0);
        for (number, engine) in engines.iter_mut().enumerate() {
            engine.get_or_insert_with(|| self.engine(number));
        }
        self.rest().await?;
        self.stop(engines).await?;
        self.judge()
    }

    fn steps(&self) -> Vec<(f64, Step)> {
        let Script { rows, weather, database, deaths, ends, .. } = &self.script;
        let mut steps: Vec<(f64, Step)> = Vec::new();
        steps.extend(rows.iter().map(|(at, row)| (*at, Step::Queue(row.clone()))));
        steps.extend(weather.iter().map(|(at, weather)| (*at, Step::Weather(weather.clone()))));
        steps.extend(database.iter().map(|(at, failures)| (*at, Step::Database(*failures))));
        for (at, number, seconds) in deaths {
            steps.push((*at, Step::Die(*number)));
            steps.push((at + seconds, Step::Return(*number)));
        }
        steps.push((*ends, Step::Weather(Weather::default())));
        steps.sort_by(|a, b| a.0.total_cmp(&b.0));
        steps
    }

    fn engine(&self, number: usize) -> Engine {
        let settings = SyncSettings {
            edge_id: format!("edge-{number}"),
            cloud: None,
            is_sending: true,
            partitions: self.script.partitions,
            batch_events_max: self.script.batch_events_max,
            batch_bytes_max: 1_000_000,
            lease_seconds: LEASE_SECONDS,
            rejections_max: REJECTIONS_MAX,
            backoff_seconds_max: 300,
            poll_ms: self.script.poll_ms,
            drain_ms: 10_000,
        };
        let chance = Arc::clone(&self.chance);
        let ports = Ports {
            rows: self.outbox.seen_by(&settings.edge_id),
            line: Some(Arc::clone(&self.cloud) as _),
            chance: Arc::new(move || chance.lock().expect("nobody panics").random_range(0.5..=1.0)),
        };
        let hub = SyncHub::simulated(settings, ports, self.store.clone(), self.clock.clone());
        let mut work = JoinSet::new();
        for partition in 0..hub.partitions() {
            work.spawn(hub.send(partition));
        }
        (hub, work)
    }

    /// Waits until everything has come to rest.
    async fn rest(&self) -> Result<(), String> {
        let until = Instant::now() + REST_MAX;
        while !self.outbox.is_at_rest() {
            if Instant::now() > until {
                return Err(format!(
                    "no rest {REST_MAX:?} after the last trouble: {}",
                    self.outbox.describe()
                ));
            }
            tokio::time::sleep(Duration::from_secs(1)).await;
            self.found()?;
        }
        Ok(())
    }

    async fn stop(&self, engines: Vec<Option<Engine>>) -> Result<(), String> {
        for (hub, mut work) in engines.into_iter().flatten() {
            hub.stop_by(Instant::now() + Duration::from_secs(5));
            let ended = async { while work.join_next().await.is_some() {} };
            let ended = tokio::time::timeout(Duration::from_secs(60), ended).await;
            ended.map_err(|_| "a sender does not stop".to_owned())?;
        }
        Ok(())
    }

    fn found(&self) -> Result<(), String> {
        self.outbox.fault().or_else(|| self.cloud.fault()).map_or(Ok(()), Err)
    }

    /// What must hold in the end.
    fn judge(&self) -> Result<Life, String> {
        self.found()?;
        let bad: std::collections::HashMap<_, _> = self.script.bad.iter().copied().collect();
        let acked = self.outbox.acked();
        for (_, row) in &self.script.rows {
            let never = bad.get(&row.id).is_some_and(cloud::Dislike::is_final);
            let (is_acked, is_there) = (acked.contains(&row.id), self.cloud.has(row.id));
            if is_acked == never || is_there == never {
                return Err(format!(
                    "{}: acknowledged {is_acked}, at the cloud {is_there}, refused {never}",
                    row.id
                ));
            }
        }
        if let Some(leases) = self.outbox.leases() {
            return Err(format!("leases are left: {leases}"));
        }
        let (requests, duplicates) = self.cloud.counts();
        let seconds = self.started.elapsed().as_secs();
        Ok(Life { queued: self.script.rows.len(), requests, duplicates, seconds })
    }
}

#[derive(Debug)]
enum Step {
    Queue(NewRow),
    Weather(Weather),
    Database(u32),
    Die(usize),
    Return(usize),
}
