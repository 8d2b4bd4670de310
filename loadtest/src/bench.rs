//! Measures the engine against the limits of the machine and database it runs on.

pub(crate) mod edge;
pub(crate) mod engine;
mod limits;
pub(crate) mod process;
mod rounds;
pub(crate) mod table;

use std::time::Duration;

use anyhow::{Context, Result};
use rand::Rng;
use tokio::sync::watch;

use schema::clock::Clock;
use schema::store::bench::{checkpoint, reading_count, server, wal_position};
use schema::store::partition::ensure_ahead;
use schema::store::{Store, StoreSettings};

use crate::device::Place;
use crate::report::{note, say};

use engine::Pace;
use limits::Limit;
use rounds::Rounds;
use table::Row;

/// How long the dedupe marks of the limits live, as in the engine.
const DEDUPE_HOURS: i64 = 72;
/// Connections of the pool: two writers and one observer.
const POOL_MAX: usize = 4;
/// Connections that write side by side: as many as the engine has writers.
const WRITERS: usize = 2;
/// Longest statement: a checkpoint of a busy server.
const STATEMENT_SECONDS_MAX: u64 = 120;

/// What to measure, and how long.
#[derive(Clone, Debug)]
pub struct Settings {
    /// `host:port` of the engine's broker.
    pub broker: String,
    /// The engine's database.
    pub database_url: String,
    /// The engine's process; `None` leaves its figures out.
    pub engine_pid: Option<u32>,
    /// Connections that publish.
    pub connections: usize,
    /// Devices they speak for, and idle connections of the memory figure.
    pub devices: usize,
    /// Events of each measurement of a round.
    pub events: usize,
    /// Rounds in which COPY, bare SQL and the engine take turns.
    pub rounds: usize,
    /// Messages per second of the paced runs.
    pub rates: Vec<f64>,
    /// Length of a paced run.
    pub rate_duration: Duration,
    /// Unacknowledged messages of each connection.
    pub window: usize,
    /// Whether COPY and bare SQL are measured.
    pub measures_limits: bool,
    /// Whether the engine is measured.
    pub measures_engine: bool,
    /// Rows of a batch at which the unit of work is measured both ways, beside the rounds.
    pub batch_rows: Vec<usize>,
}

impl Settings {
    /// Readings that arrive at a steady rate while something else is measured.
    pub(crate) fn arriving(database_url: String, rate: f64) -> Self {
        Self {
            broker: String::new(),
            database_url,
            engine_pid: None,
            connections: 50,
            devices: 1000,
            events: 0,
            rounds: 0,
            rates: vec![rate],
            rate_duration: engine::PUBLISH_ROUND,
            window: 100,
            measures_limits: false,
            measures_engine: true,
            batch_rows: Vec::new(),
        }
    }
}

/// Runs the whole benchmark and prints one table.
///
/// # Errors
/// When the database or the engine cannot be reached.
pub async fn run(settings: Settings, stop: watch::Receiver<bool>) -> Result<()> {
    let bench = Bench::open(settings).await?;
    let mut memory = Memory { idle_kib: bench.engine_kib(), ..Memory::default() };
    let mut idle = Vec::new();
    if bench.settings.measures_engine {
        let Settings { connections, devices, .. } = bench.settings;
        engine::admit(&bench).await?;
        idle = engine::idle_connections(&bench, devices.saturating_sub(connections)).await?;
        // Every device says something once, so that the engine knows it.
        engine::run(&bench, "devices", Pace::Max(devices * 7), connections, stop.clone()).await?;
        memory.devices_kib = bench.engine_kib();
    }
    let mut rows = measure_batches(&bench, &stop).await?;
    let rounds = Rounds::measure(&bench, &mut memory, &stop).await?;
    rows.extend(rounds.medians());
    rows.extend(measure_paced(&bench, &mut memory, &stop).await?);
    drop(idle);
    say("");
    say(table::render(&rows).trim_end());
    rounds.tell_ratios();
    if bench.settings.measures_engine {
        memory.print(bench.settings.devices);
    }
    Ok(())
}

/// The unit of work by batches of some sizes, both ways, in turns.
async fn measure_batches(bench: &Bench, stop: &watch::Receiver<bool>) -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    for &batch_rows in &bench.settings.batch_rows {
        for is_copied in [false, true] {
            if *stop.borrow() {
                return Ok(rows);
            }
            bench.settle().await;
            let limit = Limit::Unit { rows: batch_rows, is_copied };
            rows.push(limits::measure(bench, limit, WRITERS, bench.settings.events).await?);
        }
    }
    Ok(rows)
}

async fn measure_paced(bench: &Bench, memory: &mut Memory, stop: &watch::Receiver<bool>) -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    let Settings { connections, rates, rate_duration, measures_engine, .. } = &bench.settings;
    for rate in rates.iter().filter(|_| *measures_engine) {
        if *stop.borrow() {
            break;
        }
        bench.settle().await;
        let name = format!("engine, {connections} connections, {rate:.0}/s");
        let row = engine::measure(bench, &name, Pace::PerSecond(*rate, *rate_duration), memory, stop).await?;
        rows.push(row);
    }
    Ok(rows)
}

/// What every measurement needs.
pub(crate) struct Bench {
    pub(crate) settings: Settings,
    pub(crate) store: Store,
    pub(crate) devices: Vec<String>,
    /// Tenant of the rows that never went through the engine; new in every run.
    pub(crate) limits_place: Place,
    /// Tenant of the devices the engine lets in; new in every run.
    pub(crate) engine_place: Place,
    postmaster: Option<u32>,
}

impl Bench {
    pub(crate) async fn open(settings: Settings) -> Result<Self> {
        let store = Store::new(&StoreSettings {
            pool_max: POOL_MAX,
            statement_timeout_seconds: STATEMENT_SECONDS_MAX,
            ..StoreSettings::new(&settings.database_url, "farmiq-loadtest")
        })
        .context("read the database URL")?;
        if !settings.measures_engine {
            store.migrate().await.context("prepare the tables")?;
            // An engine at work makes its own; the two would stand in each other's way.
            let mut conn = store.conn().await.context("connect to the database")?;
            ensure_ahead(&mut conn, Clock::system().now()).await.context("make partitions")?;
        }
        let conn = store.conn().await.context("connect to the database")?;
        let server = server(&conn).await.context("ask the server what it is")?;
        drop(conn);
        let postmaster = u32::try_from(server.backend_pid).ok().and_then(postmaster_of);
        say(process::machine());
        say(format!(
            "PostgreSQL {}, fsync {}, synchronous_commit {}, shared_buffers {}",
            server.version, server.fsync, server.synchronous_commit, server.shared_buffers
        ));
        if cfg!(debug_assertions) {
            note("this is a debug build: build with --release before you believe a figure");
        }
        if postmaster.is_none() {
            note("PostgreSQL does not run in sight of this process: its CPU time is not measured");
        }
        let run = rand::rng().random_range(0..1_u32 << 24);
        let place = |kind: &str| Place {
            tenant: format!("b{kind}-{run:06x}"),
            farm: "f-001".to_owned(),
            barn: "b-001".to_owned(),
        };
        let devices = (0..settings.devices).map(|number| format!("d-{number:04}")).collect();
        Ok(Self { settings, store, devices, limits_place: place("l"), engine_place: place("e"), postmaster })
    }

    /// Flushes what earlier measurements left behind, where the role may.
    pub(crate) async fn settle(&self) {
        if let Ok(conn) = self.store.conn().await {
            drop(checkpoint(&conn).await);
        }
    }

    /// Readings of the engine's devices that the engine has stored.
    pub(crate) async fn stored(&self) -> Result<i64> {
        let conn = self.store.conn().await.context("connect to the database")?;
        reading_count(&conn, &self.engine_place.tenant).await.context("count readings")
    }

    /// The server's first process, when it is on this machine.
    pub(crate) fn postmaster(&self) -> Option<u32> {
        self.postmaster
    }

    pub(crate) fn engine_kib(&self) -> Option<u64> {
        self.settings.engine_pid.and_then(|pid| process::resident_kib(pid).ok())
    }

    /// CPU time of the server's processes up to now; `None` when it is not on this machine.
    pub(crate) fn postgres_cpu(&self) -> Option<Duration> {
        self.postmaster.and_then(|pid| process::family_cpu(pid).ok())
    }

    /// What was used up to now.
    pub(crate) async fn gauge(&self) -> Result<Gauge> {
        let conn = self.store.conn().await.context("connect to the database")?;
        let wal = wal_position(&conn).await.context("read the WAL position")?;
        Ok(Gauge {
            wal,
            postgres_cpu: self.postgres_cpu(),
            engine_cpu: self.settings.engine_pid.and_then(|pid| process::cpu(pid).ok()),
        })
    }
}

/// The parent of a backend when it is a PostgreSQL process of this machine, and not a stranger with the same number.
fn postmaster_of(backend: u32) -> Option<u32> {
    let parent = process::parent(backend).ok()?;
    process::name(parent).is_ok_and(|name| name.starts_with("postgres")).then_some(parent)
}

/// Counters at one moment.
pub(crate) struct Gauge {
    wal: i64,
    postgres_cpu: Option<Duration>,
    engine_cpu: Option<Duration>,
}

impl Gauge {
    /// What was used between two moments, as a row that lacks the rest.
    pub(crate) fn since(&self, before: &Self) -> Row {
        let between = |now: Option<Duration>, then: Option<Duration>| Some(now?.saturating_sub(then?));
        Row {
            wal_bytes: Some(self.wal - before.wal),
            postgres_cpu: between(self.postgres_cpu, before.postgres_cpu),
            engine_cpu: between(self.engine_cpu, before.engine_cpu),
            ..Row::default()
        }
    }
}

/// Resident memory of the engine at some moments, in KiB.
#[derive(Debug, Default)]
pub(crate) struct Memory {
    idle_kib: Option<u64>,
    devices_kib: Option<u64>,
    /// The most while it was measured.
    busy_kib: Option<u64>,
}

impl Memory {
    fn note_busy(&mut self, kib: u64) {
        self.busy_kib = self.busy_kib.max(Some(kib));
    }

    fn print(&self, devices: usize) {
        let show = |kib: Option<u64>| match kib {
            Some(kib) => format!("{:.0} MiB", process::kib_to_mib(kib)),
            None => "-".to_owned(),
        };
        say(format!(
            "engine memory: idle {}, with {devices} devices {}, the most under load {}",
            show(self.idle_kib),
            show(self.devices_kib),
            show(self.busy_kib),
        ));
    }
}
