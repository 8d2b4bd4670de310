//! Readings and generic device events: the one statement that stores them, and the queries over them.

pub mod copy;

use chrono::Duration;
use serde_json::value::RawValue;
use tokio_postgres::types::{Json, ToSql};
use uuid::Uuid;

use crate::clock::Timestamp;
use crate::id;
use crate::store::ledger::{Arrivals, count_stored};
use crate::store::page::{Place, behind};
use crate::store::tally::{self, Counted};
use crate::store::{Conn, StoreError};
use crate::wire::event::{TELEMETRY_INGESTED, TelemetryIngested};

/// Every statement of this module.
pub const STATEMENTS: &[&str] = &[
    STORE_NEW_READINGS,
    STORE_READINGS,
    STORE_EVENTS,
    READINGS,
    READINGS_OF_DEVICE,
    EVENTS,
    EVENTS_OF_DEVICE,
    TOTALS,
    RATE,
];

/// One reading with everything its unit of work needs.
#[derive(Clone, Debug)]
pub struct Reading {
    /// Row id, time-ordered.
    pub id: Uuid,
    /// Id of its outbox row.
    pub outbox_id: Uuid,
    /// Tenant.
    pub tenant_id: String,
    /// Farm of the topic.
    pub farm_id: String,
    /// Barn of the topic.
    pub barn_id: String,
    /// The measuring device.
    pub device_id: String,
    /// Normal form of the event id.
    pub event_id: String,
    /// Metric of the topic.
    pub metric: String,
    /// A finite number.
    pub value: f64,
    /// Unit as the device names it.
    pub unit: Option<String>,
    /// When it was measured.
    pub occurred_at: Timestamp,
    /// Trace id, made when the device sent none.
    pub trace_id: String,
    /// Where it came from: the topic, or `http:<route>`.
    pub topic: String,
    /// Hex SHA-256 of the body.
    pub hash: String,
}

impl Reading {
    /// The payload of its `telemetry.ingested` event.
    #[must_use]
    pub fn payload_json(&self) -> String {
        serde_json::to_string(&self.payload()).expect("texts and finite numbers always serialize")
    }

    fn payload(&self) -> TelemetryIngested<'_> {
        TelemetryIngested {
            telemetry_raw_id: self.id,
            tenant_id: &self.tenant_id,
            device_id: &self.device_id,
            metric_type: &self.metric,
            metric_value: self.value,
            unit: self.unit.as_deref(),
            occurred_at: self.occurred_at,
        }
    }
}

/// A generic device event.
#[derive(Clone, Debug)]
pub struct DeviceEvent {
    /// Row id, time-ordered.
    pub id: Uuid,
    /// Tenant.
    pub tenant_id: String,
    /// Farm of the topic.
    pub farm_id: String,
    /// Barn of the topic.
    pub barn_id: String,
    /// The reporting device.
    pub device_id: String,
    /// Normal form of the event id.
    pub event_id: String,
    /// Its type.
    pub event_type: String,
    /// When it happened.
    pub occurred_at: Timestamp,
    /// Trace id, made when the device sent none.
    pub trace_id: String,
    /// The payload as JSON, at most 64 KiB.
    pub payload_json: Option<String>,
    /// Where it came from.
    pub topic: String,
    /// Hex SHA-256 of the body.
    pub hash: String,
    /// Whether it goes to the cloud under its own type.
    pub is_forwarded: bool,
}

/// When a unit of work happens and what it belongs to.
#[derive(Clone, Copy, Debug)]
pub struct WriteContext {
    /// The time of the attempt.
    pub now: Timestamp,
    /// How long the dedupe marks live.
    pub dedupe_ttl: Duration,
    /// The writer's number; keeps the counters of parallel writers apart.
    pub shard: i32,
    /// What becomes of readings that were stored before.
    pub replays: Replays,
    /// New readings from which on they are copied ([`copy::COPY_ROWS_MIN`]), where replays fail.
    pub copy_rows_min: usize,
}

impl WriteContext {
    /// Whether so many readings are copied, which takes a transaction; otherwise storing them is one statement.
    #[must_use]
    pub fn is_copied(&self, readings: usize) -> bool {
        self.replays == Replays::Fail && readings >= self.copy_rows_min
    }
}

/// What becomes of a reading that was stored before: one that a client sent again, or a replay after days.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Replays {
    /// Not expected. The statement fails with [`StoreError::is_replay`], and nothing is written.
    Fail,
    /// Expected: they are passed over, which costs every other reading a look at its keys.
    PassOver,
}

// A batch's marks, sorted by key.
macro_rules! marks {
    () => {
        "marked AS (
    INSERT INTO ingress_dedupe AS d (tenant_id, event_id, first_seen_at, expires_at, topic, hash)
    SELECT tenant_id, event_id, $17, $18, topic, hash FROM input"
    };
}

// One statement is one transaction: dedupe mark, reading and outbox row stand or fall together. Marks come first, and in the
// order of their keys, so that two writers cannot wait for each other.
macro_rules! store_readings {
    (
        $name:literal, first: { $($first:tt)* }, fresh: $fresh:literal, on_known_reading: $on_known_reading:literal,
        stored: $stored:literal, queue_if: $queue_if:literal, on_known_event: $on_known_event:literal, last: { $($last:tt)* }
    ) => {
        concat!(
            "-- ", $name, "
WITH input AS MATERIALIZED (
    SELECT * FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::text[], $6::uuid[], $7::uuid[], $8::text[],
        $9::float8[], $10::text[], $11::timestamptz[], $12::text[], $13::text[], $14::text[], $15::text[], $16::int[])
    AS i (tenant_id, farm_id, barn_id, device_id, event_id, id, outbox_id, metric_type,
        metric_value, unit, occurred_at, trace_id, topic, hash, payload_json, arrival)
), ", $($first)* "stored AS (
    INSERT INTO telemetry_raw (id, tenant_id, farm_id, barn_id, device_id, event_id, metric_type, metric_value, unit,
        occurred_at, ingested_at, trace_id)
    SELECT id, tenant_id, farm_id, barn_id, device_id, event_id, metric_type, metric_value, unit,
        occurred_at, $17, trace_id
    FROM ", $fresh, " ORDER BY arrival
    ", $on_known_reading, "
), queued AS (
    INSERT INTO sync_outbox (id, tenant_id, farm_id, barn_id, device_id, event_type, occurred_at, trace_id, payload_json,
        payload_size_bytes, next_attempt_at, created_at, updated_at)
    SELECT outbox_id, tenant_id, farm_id, barn_id, device_id, $19, occurred_at, trace_id, payload_json::jsonb,
        octet_length(payload_json), $17, $17, $17
    FROM ", $fresh, " ", $queue_if, " ORDER BY arrival
    ", $on_known_event, "
), totals AS (
    INSERT INTO telemetry_totals AS t (tenant_id, shard, readings, last_reading_at)
    SELECT tenant_id, $20, count(*), max(occurred_at) FROM ", $stored, " GROUP BY tenant_id
    ON CONFLICT (tenant_id, shard) DO UPDATE SET readings = t.readings + excluded.readings,
        last_reading_at = greatest(t.last_reading_at, excluded.last_reading_at)
), counted AS (
    ", count_stored!("$17", "$21", "$22", "$23", $stored), "
)", $($last)* "
SELECT arrival FROM ", $fresh
        )
    };
}

// The server runs parts that nothing reads from the last one to the first.
const STORE_NEW_READINGS: &str = store_readings!(
    "store_new_readings",
    first: {},
    fresh: "input",
    on_known_reading: "",
    stored: "input",
    queue_if: "",
    on_known_event: "",
    last: { ", ", marks!(), ")", }
);

// The server decides which readings are new. `queued` depends on `stored`, so a reading whose domain key exists already
// stays without an outbox row; IS TRUE keeps the planner, which takes an array for a handful of rows, from joining the two
// by a loop in a loop.
const STORE_READINGS: &str = store_readings!(
    "store_readings",
    first: {
        marks!(),
        "
    ON CONFLICT (tenant_id, event_id) DO UPDATE
    SET first_seen_at = excluded.first_seen_at, expires_at = excluded.expires_at, topic = excluded.topic, hash = excluded.hash
    WHERE d.expires_at <= excluded.first_seen_at
    RETURNING tenant_id, event_id
), fresh AS MATERIALIZED (
    SELECT input.* FROM input JOIN marked USING (tenant_id, event_id)
), ",
    },
    fresh: "fresh",
    on_known_reading: "ON CONFLICT DO NOTHING
    RETURNING id, tenant_id, occurred_at",
    stored: "stored",
    queue_if: "WHERE (id IN (SELECT id FROM stored)) IS TRUE",
    on_known_event: "ON CONFLICT DO NOTHING",
    last: {}
);

const STORE_EVENTS: &str = concat!(
    "-- store_events
WITH input AS MATERIALIZED (
    SELECT * FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::text[], $6::uuid[],
        $7::uuid[], $8::text[], $9::timestamptz[], $10::text[], $11::text[], $12::text[], $13::text[], $14::boolean[],
        $15::int[])
    AS i (tenant_id, farm_id, barn_id, device_id, event_id, id,
        outbox_id, event_type, occurred_at, trace_id, payload_json, topic, hash, is_forwarded, arrival)
), marked AS (
    INSERT INTO ingress_dedupe AS d (tenant_id, event_id, first_seen_at, expires_at, topic, hash)
    SELECT tenant_id, event_id, $16, $17, topic, hash FROM input
    ON CONFLICT (tenant_id, event_id) DO UPDATE
    SET first_seen_at = excluded.first_seen_at, expires_at = excluded.expires_at, topic = excluded.topic, hash = excluded.hash
    WHERE d.expires_at <= excluded.first_seen_at
    RETURNING tenant_id, event_id
), fresh AS MATERIALIZED (
    SELECT input.* FROM input JOIN marked USING (tenant_id, event_id)
), stored AS (
    INSERT INTO device_events (id, tenant_id, farm_id, barn_id, device_id, event_id, event_type, occurred_at,
        ingested_at, trace_id, payload_json)
    SELECT id, tenant_id, farm_id, barn_id, device_id, event_id, event_type, occurred_at,
        $16, trace_id, payload_json::jsonb
    FROM fresh
    WHERE NOT EXISTS (
        SELECT 1 FROM device_events AS e
        WHERE e.tenant_id = fresh.tenant_id AND e.device_id = fresh.device_id
            AND e.occurred_at = fresh.occurred_at AND e.event_id = fresh.event_id)
    ORDER BY arrival
    RETURNING id, tenant_id
), queued AS (
    INSERT INTO sync_outbox (id, tenant_id, farm_id, barn_id, device_id, event_type, occurred_at,
        trace_id, payload_json, payload_size_bytes, next_attempt_at, created_at, updated_at)
    SELECT outbox_id, tenant_id, farm_id, barn_id, device_id, event_type, occurred_at,
        trace_id, coalesce(payload_json, '{}')::jsonb, octet_length(payload_json), $16, $16, $16
    FROM fresh WHERE is_forwarded AND (id IN (SELECT id FROM stored)) IS TRUE ORDER BY arrival
    ON CONFLICT DO NOTHING
), counted AS (
    ",
    count_stored!("$16", "$18", "$19", "$20", "stored"),
    "
)
SELECT arrival FROM fresh"
);

/// Stores readings in one transaction and has the ledger count what `came` of each tenant. The event ids must differ from
/// each other. Readings that are copied ([`WriteContext::is_copied`]) are part of the caller's transaction.
/// Returns the positions (in `readings`) of those that were new; the others had been seen before.
///
/// # Errors
/// When the database fails; [`StoreError::is_data`] tells whether one of the rows is to blame.
pub async fn store_readings(
    conn: &Conn,
    readings: &[&Reading],
    came: &[Arrivals<'_>],
    at: WriteContext,
) -> Result<Vec<usize>, StoreError> {
    if at.is_copied(readings.len()) {
        copy::store(conn, readings, came, at).await?;
        return Ok((0..readings.len()).collect());
    }
    let order = sorted_by_key(readings, |reading| (&reading.tenant_id, &reading.event_id));
    macro_rules! column {
        ($($field:tt)+) => { order.iter().map(|&i| readings[i].$($field)+).collect::<Vec<_>>() };
    }
    let expires_at = at.now + at.dedupe_ttl;
    let (tenants, received, repeated) = columns(came);
    let params: [&(dyn ToSql + Sync); 23] = [
        &column!(tenant_id.as_str()),
        &column!(farm_id.as_str()),
        &column!(barn_id.as_str()),
        &column!(device_id.as_str()),
        &column!(event_id.as_str()),
        &column!(id),
        &column!(outbox_id),
        &column!(metric.as_str()),
        &column!(value),
        &column!(unit.as_deref()),
        &column!(occurred_at),
        &column!(trace_id.as_str()),
        &column!(topic.as_str()),
        &column!(hash.as_str()),
        &column!(payload_json()),
        &positions(&order),
        &at.now,
        &expires_at,
        &TELEMETRY_INGESTED,
        &at.shard,
        &tenants,
        &received,
        &repeated,
    ];
    let sql = match at.replays {
        Replays::Fail => STORE_NEW_READINGS,
        Replays::PassOver => STORE_READINGS,
    };
    arrivals(conn, sql, &params).await
}

/// Stores generic events like [`store_readings`]; the forwarded ones get an outbox row.
///
/// # Errors
/// When the database fails; [`StoreError::is_data`] tells whether one of the rows is to blame.
pub async fn store_events(
    conn: &Conn,
    events: &[&DeviceEvent],
    came: &[Arrivals<'_>],
    at: WriteContext,
) -> Result<Vec<usize>, StoreError> {
    let order = sorted_by_key(events, |event| (&event.tenant_id, &event.event_id));
    macro_rules! column {
        ($($field:tt)+) => { order.iter().map(|&i| events[i].$($field)+).collect::<Vec<_>>() };
    }
    let outbox_ids: Vec<Uuid> =
        order.iter().map(|&i| id::outbox_id(&events[i].tenant_id, &events[i].event_id)).collect();
    let expires_at = at.now + at.dedupe_ttl;
    let (tenants, received, repeated) = columns(came);
    let params: [&(dyn ToSql + Sync); 20] = [
        &column!(tenant_id.as_str()),
        &column!(farm_id.as_str()),
        &column!(barn_id.as_str()),
        &column!(device_id.as_str()),
        &column!(event_id.as_str()),
        &column!(id),
        &outbox_ids,
        &column!(event_type.as_str()),
        &column!(occurred_at),
        &column!(trace_id.as_str()),
        &column!(payload_json.as_deref()),
        &column!(topic.as_str()),
        &column!(hash.as_str()),
        &column!(is_forwarded),
        &positions(&order),
        &at.now,
        &expires_at,
        &tenants,
        &received,
        &repeated,
    ];
    arrivals(conn, STORE_EVENTS, &params).await
}

fn columns<'a>(came: &[Arrivals<'a>]) -> (Vec<&'a str>, Vec<i64>, Vec<i64>) {
    let tenants = came.iter().map(|arrivals| arrivals.tenant_id).collect();
    let received = came.iter().map(|arrivals| arrivals.received).collect();
    (tenants, received, came.iter().map(|arrivals| arrivals.repeated).collect())
}

fn sorted_by_key<'a, T, K: Ord + 'a>(rows: &[&'a T], key: impl Fn(&'a T) -> K) -> Vec<usize> {
    let mut order: Vec<usize> = (0..rows.len()).collect();
    order.sort_unstable_by(|&a, &b| key(rows[a]).cmp(&key(rows[b])));
    order
}

fn positions(order: &[usize]) -> Vec<i32> {
    order.iter().map(|&i| i32::try_from(i).expect("a batch has at most thousands of rows")).collect()
}

async fn arrivals(conn: &Conn, sql: &str, params: &[&(dyn ToSql + Sync)]) -> Result<Vec<usize>, StoreError> {
    let rows = conn.query(sql, params).await?;
    let position = |arrival: i32| usize::try_from(arrival).expect("positions are never negative");
    Ok(rows.iter().map(|row| position(row.get(0))).collect())
}

/// What a list of readings or events is narrowed to.
#[derive(Clone, Debug)]
pub struct TimeRange<'a> {
    /// Tenant.
    pub tenant_id: &'a str,
    /// One device of it, or all.
    pub device_id: Option<&'a str>,
    /// First time, inclusive.
    pub start: Option<Timestamp>,
    /// Last time, inclusive.
    pub end: Option<Timestamp>,
    /// Rows at most.
    pub limit: i64,
}

/// A stored reading as the API shows it.
#[derive(Clone, Debug)]
pub struct StoredReading {
    /// Row id.
    pub id: Uuid,
    /// Tenant.
    pub tenant_id: String,
    /// Farm, where known.
    pub farm_id: Option<String>,
    /// Barn, where known.
    pub barn_id: Option<String>,
    /// The measuring device.
    pub device_id: String,
    /// What was measured.
    pub metric_type: String,
    /// The value.
    pub metric_value: f64,
    /// Its unit.
    pub unit: Option<String>,
    /// When it was measured.
    pub occurred_at: Timestamp,
    /// When it was stored.
    pub ingested_at: Timestamp,
}

// Two statements, since a plan that serves both reads every reading of the tenant.
macro_rules! readings {
    ($name:literal, $device:literal) => {
        concat!(
            "-- ",
            $name,
            "
SELECT id, tenant_id, farm_id, barn_id, device_id, metric_type, metric_value, unit, occurred_at, ingested_at
FROM telemetry_raw
WHERE tenant_id = $1 AND ",
            $device,
            "
    AND occurred_at >= coalesce($3::timestamptz, '-infinity') AND occurred_at <= coalesce($4::timestamptz, 'infinity')
    AND ",
            behind!("occurred_at, id", "$6", "$7"),
            "
ORDER BY occurred_at DESC, id DESC
LIMIT $5"
        )
    };
}
const READINGS: &str = readings!("readings", "$2::text IS NULL");
const READINGS_OF_DEVICE: &str = readings!("readings_of_device", "device_id = $2");

/// Readings behind a place, newest first.
///
/// # Errors
/// When the database fails.
pub async fn readings(
    conn: &Conn,
    range: &TimeRange<'_>,
    after: Option<Place>,
) -> Result<Vec<StoredReading>, StoreError> {
    let (at, id) = Place::params(after);
    let params: [&(dyn ToSql + Sync); 7] =
        [&range.tenant_id, &range.device_id, &range.start, &range.end, &range.limit, &at, &id];
    let sql = if range.device_id.is_some() { READINGS_OF_DEVICE } else { READINGS };
    let rows = conn.query(sql, &params).await?;
    let reading = |row: &tokio_postgres::Row| StoredReading {
        id: row.get(0),
        tenant_id: row.get(1),
        farm_id: row.get(2),
        barn_id: row.get(3),
        device_id: row.get(4),
        metric_type: row.get(5),
        metric_value: row.get(6),
        unit: row.get(7),
        occurred_at: row.get(8),
        ingested_at: row.get(9),
    };
    Ok(rows.iter().map(reading).collect())
}

/// A stored device event as the API shows it.
#[derive(Clone, Debug)]
pub struct StoredEvent {
    /// Row id.
    pub id: Uuid,
    /// Tenant.
    pub tenant_id: String,
    /// Farm of the topic.
    pub farm_id: String,
    /// Barn of the topic.
    pub barn_id: String,
    /// The reporting device.
    pub device_id: String,
    /// Event id in its normal form.
    pub event_id: String,
    /// Its type.
    pub event_type: String,
    /// When it happened.
    pub occurred_at: Timestamp,
    /// When it was stored.
    pub ingested_at: Timestamp,
    /// The payload as the device sent it.
    pub payload: Option<Box<RawValue>>,
}

// Two statements, since a plan that serves both reads every event of the tenant.
macro_rules! events {
    ($name:literal, $device:literal) => {
        concat!(
            "-- ",
            $name,
            "
SELECT id, tenant_id, farm_id, barn_id, device_id, event_id, event_type, occurred_at, ingested_at, payload_json
FROM device_events
WHERE tenant_id = $1 AND ",
            $device,
            "
    AND occurred_at >= coalesce($3::timestamptz, '-infinity') AND occurred_at <= coalesce($4::timestamptz, 'infinity')
    AND ($6::text IS NULL OR event_type = $6) AND ",
            behind!("occurred_at, id", "$7", "$8"),
            "
ORDER BY occurred_at DESC, id DESC
LIMIT $5"
        )
    };
}
const EVENTS: &str = events!("events", "$2::text IS NULL");
const EVENTS_OF_DEVICE: &str = events!("events_of_device", "device_id = $2");

/// Generic device events behind a place, newest first.
///
/// # Errors
/// When the database fails.
pub async fn events(
    conn: &Conn,
    range: &TimeRange<'_>,
    event_type: Option<&str>,
    after: Option<Place>,
) -> Result<Vec<StoredEvent>, StoreError> {
    let (at, id) = Place::params(after);
    let params: [&(dyn ToSql + Sync); 8] =
        [&range.tenant_id, &range.device_id, &range.start, &range.end, &range.limit, &event_type, &at, &id];
    let sql = if range.device_id.is_some() { EVENTS_OF_DEVICE } else { EVENTS };
    let rows = conn.query(sql, &params).await?;
    let event = |row: &tokio_postgres::Row| StoredEvent {
        id: row.get(0),
        tenant_id: row.get(1),
        farm_id: row.get(2),
        barn_id: row.get(3),
        device_id: row.get(4),
        event_id: row.get(5),
        event_type: row.get(6),
        occurred_at: row.get(7),
        ingested_at: row.get(8),
        payload: row.get::<_, Option<Json<_>>>(9).map(|Json(payload)| payload),
    };
    Ok(rows.iter().map(event).collect())
}

/// How much telemetry there is.
#[derive(Clone, Debug, Default)]
pub struct Totals {
    /// Readings stored.
    pub readings: i64,
    /// Aggregate rows.
    pub aggregates: i64,
    /// Time of the newest reading.
    pub last_reading_at: Option<Timestamp>,
}

const TOTALS: &str = "-- telemetry_totals
SELECT coalesce(sum(readings), 0)::bigint, max(last_reading_at) FROM telemetry_totals WHERE $1::text IS NULL OR tenant_id = $1";

/// The totals of one tenant, or of all.
///
/// # Errors
/// When the database fails.
pub async fn totals(conn: &Conn, tenant_id: Option<&str>) -> Result<Totals, StoreError> {
    let row = conn.query_one(TOTALS, &[&tenant_id]).await?;
    let tenants = tenant_id.map(|tenant_id| [tenant_id.to_owned()]);
    let tenants = tenants.as_ref().map(<[String; 1]>::as_slice);
    let aggregates = tally::read_kind(conn, Counted::Aggregates, tally::ALL, tenants).await?.rows;
    Ok(Totals { readings: row.get(0), last_reading_at: row.get(1), aggregates })
}

const RATE: &str = "-- telemetry_rate
SELECT count(*) FROM telemetry_raw WHERE ingested_at > $2 AND ($1::text IS NULL OR tenant_id = $1)";

/// Readings stored since `since`, of one tenant or of all.
///
/// # Errors
/// When the database fails.
pub async fn stored_since(conn: &Conn, tenant_id: Option<&str>, since: Timestamp) -> Result<i64, StoreError> {
    Ok(conn.query_one(RATE, &[&tenant_id, &since]).await?.get(0))
}
