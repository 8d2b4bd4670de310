//! The limits the engine is compared with: COPY of the same rows, and the bare unit of work in a loop.

use std::time::Instant;

use anyhow::{Context, Result};
use chrono::Duration;
use rand::SeedableRng;
use rand::rngs::StdRng;
use tokio::task::JoinSet;

use schema::clock::{Clock, Timestamp};
use schema::id::{new_id, outbox_id};
use schema::store::bench::{before, copy_readings};
use schema::store::ledger::Arrivals;
use schema::store::telemetry::{Reading, Replays, WriteContext, store_readings};
use schema::store::{Conn, Store, StoreError};

use crate::bench::table::Row;
use crate::bench::{Bench, DEDUPE_HOURS};
use crate::climate::Metric;
use crate::ids::new_event_id;

/// Rows of one COPY transaction.
const COPY_BATCH: usize = 5000;
/// Rows of one statement of the engine.
const SQL_BATCH: usize = 1000;

/// How rows get into the tables.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Limit {
    /// Binary COPY into three tables, and nothing else.
    Copy,
    /// The bare unit of work as it was when the engine was first measured.
    Statement,
    /// The engine's unit of work now, so many rows a batch, by its statement or copied.
    Unit { rows: usize, is_copied: bool },
}

impl Limit {
    fn batch(self) -> usize {
        match self {
            Self::Copy => COPY_BATCH,
            Self::Statement => SQL_BATCH,
            Self::Unit { rows, .. } => rows,
        }
    }

    fn name(self, writers: usize) -> String {
        match self {
            Self::Copy => format!("COPY, {COPY_BATCH} a batch, {writers} connection(s)"),
            Self::Statement => format!("bare SQL, {SQL_BATCH} a batch, {writers} connection(s)"),
            Self::Unit { rows, is_copied } => {
                let way = if is_copied { "copied" } else { "statement" };
                format!("unit of work, {rows} a batch, {way}, {writers} connection(s)")
            }
        }
    }
}

/// Writes `events` new readings with so many connections side by side.
pub(crate) async fn measure(bench: &Bench, limit: Limit, writers: usize, events: usize) -> Result<Row> {
    let clock = Clock::system();
    let shares: Vec<_> = (0..writers).map(|_| readings(bench, events / writers, clock.now())).collect();
    let before = bench.gauge().await?;
    let started = Instant::now();
    let mut tasks = JoinSet::new();
    for (shard, share) in shares.into_iter().enumerate() {
        tasks.spawn(write(bench.store.clone(), limit, share, shard, clock.clone()));
    }
    while let Some(done) = tasks.join_next().await {
        done.context("a writer broke")?.context("write readings")?;
    }
    let elapsed = started.elapsed();
    let used = bench.gauge().await?.since(&before);
    let events = (events / writers * writers) as u64;
    Ok(Row { name: limit.name(writers), events, elapsed, engine_cpu: None, ..used })
}

async fn write(
    store: Store,
    limit: Limit,
    readings: Vec<Reading>,
    shard: usize,
    clock: Clock,
) -> Result<(), StoreError> {
    let mut conn = store.conn().await?;
    let shard = i32::try_from(shard).expect("there are a few writers");
    for batch in readings.chunks(limit.batch()) {
        let at = WriteContext {
            now: clock.now(),
            dedupe_ttl: Duration::hours(DEDUPE_HOURS),
            shard,
            replays: Replays::Fail,
            copy_rows_min: if matches!(limit, Limit::Unit { is_copied: true, .. }) { 0 } else { usize::MAX },
        };
        match limit {
            Limit::Copy => copy_readings(&mut conn, batch, at).await?,
            Limit::Statement => before::store_readings(&conn, batch, at).await?,
            Limit::Unit { .. } => unit(&mut conn, batch, at).await?,
        }
    }
    Ok(())
}

/// The engine's unit of work of one tenant.
async fn unit(conn: &mut Conn, batch: &[Reading], at: WriteContext) -> Result<(), StoreError> {
    let batch: Vec<_> = batch.iter().collect();
    let received = i64::try_from(batch.len()).unwrap_or(i64::MAX);
    let came = batch.first().map(|first| Arrivals { tenant_id: &first.tenant_id, received, repeated: 0 });
    let came: Vec<_> = came.into_iter().collect();
    let work = async |conn: &Conn| store_readings(conn, &batch, &came, at).await;
    if at.is_copied(batch.len()) {
        conn.transaction("bench_unit", work).await?;
    } else {
        work(conn).await?;
    }
    Ok(())
}

/// Readings as the engine makes them of device messages: random event ids, time-ordered row ids.
fn readings(bench: &Bench, count: usize, now: Timestamp) -> Vec<Reading> {
    let mut random = StdRng::from_os_rng();
    let place = &bench.limits_place;
    (0..count)
        .map(|index| {
            let metric = Metric::ALL[index % Metric::ALL.len()];
            let device_id = bench.devices[index % bench.devices.len()].clone();
            let event_id = new_event_id(&mut random);
            #[expect(clippy::cast_precision_loss, reason = "any number will do")]
            let value = 20.0 + (index % 1000) as f64 / 100.0;
            Reading {
                id: new_id(),
                outbox_id: outbox_id(&place.tenant, &event_id),
                tenant_id: place.tenant.clone(),
                farm_id: place.farm.clone(),
                barn_id: place.barn.clone(),
                topic: crate::device::telemetry_topic(place, &device_id, metric),
                device_id,
                metric: metric.name().to_owned(),
                value,
                unit: Some(metric.unit().to_owned()),
                occurred_at: now + Duration::microseconds(i64::try_from(index).unwrap_or(0)),
                trace_id: format!("tr-{event_id}"),
                hash: "85427c844f93825c6da2568206d51f572cb955df0bfd4daee43253489f69b550".to_owned(),
                event_id,
            }
        })
        .collect()
}
