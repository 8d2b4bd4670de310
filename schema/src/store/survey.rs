//! What a database comes to: counts that a restored copy is judged by, sizes for a support bundle, and what an event costs.
//! Nothing here reads a payload.

use chrono::TimeDelta;
use serde::{Deserialize, Serialize};
use tokio_postgres::Row;

use crate::clock::Timestamp;
use crate::store::{Conn, StoreError};

/// Every statement of this module.
pub const STATEMENTS: &[&str] = &[COUNTS, SIZES, ACTIVITY, SETTINGS, IMAGE_PATHS, BUDGET, EVENTS_EVER];

// Exact, since a restored copy is judged by them.
const COUNTS: &str = "-- survey_counts
SELECT (SELECT count(*) FROM telemetry_raw), (SELECT max(ingested_at) FROM telemetry_raw),
    (SELECT count(*) FROM weight_sessions), (SELECT count(*) FROM media_objects),
    (SELECT count(*) FROM ONLY sync_outbox), (SELECT count(*) FROM device_credentials)";

/// What a barn's database holds.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    /// Readings.
    pub readings: i64,
    /// When the newest of them came in.
    pub newest_reading_at: Option<Timestamp>,
    /// Weighing sessions.
    pub sessions: i64,
    /// Images.
    pub images: i64,
    /// Events that the cloud has not acknowledged.
    pub unacknowledged: i64,
    /// Devices with a password.
    pub credentials: i64,
}

/// Counts everything; it takes as long as reading the tables does.
///
/// # Errors
/// When the database fails.
pub async fn counts(conn: &Conn) -> Result<Counts, StoreError> {
    let row = conn.query_one(COUNTS, &[]).await?;
    Ok(Counts {
        readings: row.get(0),
        newest_reading_at: row.get(1),
        sessions: row.get(2),
        images: row.get(3),
        unacknowledged: row.get(4),
        credentials: row.get(5),
    })
}

// Partitions and days count for the table that they belong to as well; here each stands alone.
const SIZES: &str = "-- survey_sizes
SELECT c.relname::text, pg_total_relation_size(c.oid), greatest(c.reltuples, 0)::bigint,
    coalesce(s.n_live_tup, 0), coalesce(s.n_dead_tup, 0), greatest(s.last_vacuum, s.last_autovacuum),
    greatest(s.last_analyze, s.last_autoanalyze), age(c.relfrozenxid)::bigint
FROM pg_class AS c LEFT JOIN pg_stat_all_tables AS s ON s.relid = c.oid
WHERE c.relkind = 'r' AND c.relnamespace = 'public'::regnamespace ORDER BY 2 DESC, 1";

/// A table and what it takes.
#[derive(Clone, Debug, Serialize)]
pub struct TableSize {
    /// Its name.
    pub table: String,
    /// Its bytes with indexes and what belongs to it.
    pub bytes: i64,
    /// Rows, as the last analysis found them.
    pub rows_analyzed: i64,
    /// Rows, as the server counts along.
    pub rows_live: i64,
    /// Versions of rows that nobody needs any more.
    pub rows_dead: i64,
    /// When it was last vacuumed.
    pub vacuumed_at: Option<Timestamp>,
    /// When it was last analyzed.
    pub analyzed_at: Option<Timestamp>,
    /// Transactions since it was frozen; at two thousand million the server stops.
    pub frozen_age: i64,
}

impl From<&Row> for TableSize {
    fn from(row: &Row) -> Self {
        Self {
            table: row.get(0),
            bytes: row.get(1),
            rows_analyzed: row.get(2),
            rows_live: row.get(3),
            rows_dead: row.get(4),
            vacuumed_at: row.get(5),
            analyzed_at: row.get(6),
            frozen_age: row.get(7),
        }
    }
}

/// Every table, the largest first.
///
/// # Errors
/// When the database fails.
pub async fn sizes(conn: &Conn) -> Result<Vec<TableSize>, StoreError> {
    Ok(conn.query(SIZES, &[]).await?.iter().map(TableSize::from).collect())
}

// Without the statements: their parameters may be payloads.
const ACTIVITY: &str = "-- survey_activity
SELECT pid, coalesce(application_name, ''), coalesce(backend_type, ''), coalesce(state, ''),
    coalesce(wait_event_type || '/' || wait_event, ''),
    extract(epoch FROM clock_timestamp() - xact_start)::float8,
    extract(epoch FROM clock_timestamp() - query_start)::float8, age(backend_xmin)::bigint
FROM pg_stat_activity WHERE datname = current_database() OR datname IS NULL ORDER BY xact_start NULLS LAST, pid";

/// What a process of the server is at.
#[derive(Clone, Debug, Serialize)]
pub struct Activity {
    /// Its number.
    pub pid: i32,
    /// Who is connected.
    pub application: String,
    /// What kind of process it is.
    pub kind: String,
    /// Whether it works, waits, or holds a transaction open.
    pub state: String,
    /// What it waits for.
    pub waits_for: String,
    /// How old its transaction is.
    pub transaction_seconds: Option<f64>,
    /// How old its statement is.
    pub statement_seconds: Option<f64>,
    /// How many transactions old its snapshot is: what is newer is not vacuumed.
    pub snapshot_age: Option<i64>,
}

/// What every process of the server is at, the oldest transaction first.
///
/// # Errors
/// When the database fails.
pub async fn activity(conn: &Conn) -> Result<Vec<Activity>, StoreError> {
    let rows = conn.query(ACTIVITY, &[]).await?;
    let activity = |row: &Row| Activity {
        pid: row.get(0),
        application: row.get(1),
        kind: row.get(2),
        state: row.get(3),
        waits_for: row.get(4),
        transaction_seconds: row.get(5),
        statement_seconds: row.get(6),
        snapshot_age: row.get(7),
    };
    Ok(rows.iter().map(activity).collect())
}

// Only those that can hold no secret: numbers, switches, and the version.
const SETTINGS: &str = "-- survey_settings
SELECT name::text, setting::text, coalesce(unit, '')::text, source::text FROM pg_settings
WHERE (vartype IN ('bool', 'integer', 'real', 'enum') AND source NOT IN ('default', 'override', 'client', 'session'))
    OR name = 'server_version'
ORDER BY name";

/// The settings of the server that somebody chose, as `name = value unit (source)`.
///
/// # Errors
/// When the database fails.
pub async fn settings(conn: &Conn) -> Result<Vec<String>, StoreError> {
    let rows = conn.query(SETTINGS, &[]).await?;
    let line = |row: &Row| {
        let (name, value, unit, source): (String, String, String, String) =
            (row.get(0), row.get(1), row.get(2), row.get(3));
        format!("{name} = {value}{unit} ({source})")
    };
    Ok(rows.iter().map(line).collect())
}

const IMAGE_PATHS: &str = "-- survey_image_paths
SELECT path, size_bytes FROM media_objects WHERE path IS NOT NULL AND path > $1 ORDER BY path LIMIT $2";

/// Images that lie in a directory, behind a path: where, and how large each is.
///
/// # Errors
/// When the database fails.
pub async fn image_paths(
    conn: &Conn,
    after: &str,
    limit: i64,
) -> Result<Vec<(String, Option<i64>)>, StoreError> {
    let rows = conn.query(IMAGE_PATHS, &[&after, &limit]).await?;
    Ok(rows.iter().map(|row| (row.get(0), row.get(1))).collect())
}

// By the statistics of the server: an estimate in days needs no more, and reads no table.
const BUDGET: &str = "-- survey_budget
WITH tables AS (
    SELECT c.relname::text AS name, pg_total_relation_size(c.oid) AS bytes,
        greatest(c.reltuples::bigint, coalesce(s.n_live_tup, 0), 0) AS row_count
    FROM pg_class AS c LEFT JOIN pg_stat_all_tables AS s ON s.relid = c.oid
    WHERE c.relkind = 'r' AND c.relnamespace = 'public'::regnamespace
), kinds AS (
    SELECT CASE WHEN name = 'sync_outbox' THEN 'outbox' WHEN name ~ '^sync_outbox_acked_' THEN 'acked'
            WHEN name ~ '^(telemetry_raw|device_events)_' THEN 'raw' WHEN name = 'ingress_dedupe' THEN 'marks'
            WHEN name = 'telemetry_agg' THEN 'aggregates' ELSE 'others' END AS kind,
        name >= 'sync_outbox_acked_' || to_char($1::timestamptz, 'YYYYMMDD') AS is_recent, bytes, row_count
    FROM tables
)
SELECT kind, sum(bytes)::bigint, sum(row_count)::bigint,
    coalesce(sum(row_count) FILTER (WHERE is_recent), 0)::bigint FROM kinds GROUP BY kind
UNION ALL SELECT 'log', pg_size_bytes(current_setting('max_wal_size')), 0, 0";

/// Tables of one kind together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Extent {
    /// Bytes with indexes.
    pub bytes: i64,
    /// Rows, about.
    pub rows: i64,
}

/// What the tables take that grow with each event.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Extents {
    /// Events that the cloud has not acknowledged.
    pub outbox: Extent,
    /// Events that it has.
    pub acked: Extent,
    /// Those of them that were acknowledged in the days that were asked for.
    pub recently_acked_rows: i64,
    /// Readings and generic events.
    pub raw: Extent,
    /// Marks of what was seen.
    pub marks: Extent,
    /// Aggregates.
    pub aggregates: Extent,
    /// All other tables.
    pub others: Extent,
    /// What the server's log may take between two checkpoints.
    pub log_bytes_max: i64,
}

const EVENTS_EVER: &str = "-- survey_events_ever
SELECT coalesce(pg_sequence_last_value(pg_get_serial_sequence('sync_outbox', 'seq')::regclass), 0)";

/// How many events were ever made for the cloud, a few that came to nothing included.
///
/// # Errors
/// When the database fails.
pub async fn events_ever(conn: &Conn) -> Result<i64, StoreError> {
    Ok(conn.query_one(EVENTS_EVER, &[]).await?.get(0))
}

/// How far back [`extents`] counts what was acknowledged.
pub const RECENT: TimeDelta = TimeDelta::days(7);

/// What the tables take that grow with each event, by the server's statistics.
///
/// # Errors
/// When the database fails.
pub async fn extents(conn: &Conn, now: Timestamp) -> Result<Extents, StoreError> {
    let mut extents = Extents::default();
    for row in conn.query(BUDGET, &[&(now - RECENT)]).await? {
        let (kind, extent): (String, _) = (row.get(0), Extent { bytes: row.get(1), rows: row.get(2) });
        match kind.as_str() {
            "outbox" => extents.outbox = extent,
            "acked" => (extents.acked, extents.recently_acked_rows) = (extent, row.get(3)),
            "raw" => extents.raw = extent,
            "marks" => extents.marks = extent,
            "aggregates" => extents.aggregates = extent,
            "log" => extents.log_bytes_max = extent.bytes,
            _ => extents.others = extent,
        }
    }
    Ok(extents)
}
