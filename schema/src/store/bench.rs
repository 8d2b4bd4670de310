//! What measuring needs of the database: the limits to compare with, a backlog, the server's own figures, and an
//! operator's script.

pub mod before;
pub mod locks;
pub mod past;

use chrono::Duration;
use tokio_postgres::types::ToSql;

use crate::clock::Timestamp;
use crate::store::telemetry::{Reading, WriteContext, copy};
use crate::store::{Conn, StoreError};
use crate::wire::event::TELEMETRY_INGESTED;
use crate::wire::time;

/// Every statement of this module.
pub const STATEMENTS: &[&str] = &[
    SERVER,
    ACTIVITY,
    WAL_POSITION,
    READING_COUNT,
    UNSENT_COUNT,
    TRANSACTIONS,
    FILL_OUTBOX,
    before::STORE_READINGS,
    locks::LOOK,
    past::READINGS,
    past::EVENTS,
    past::AGGREGATES,
    past::MARKS,
    past::REFUSALS,
    past::UPLOADS,
    past::LETTERS,
    past::IMAGES,
    past::REFUSED_EVENT,
    past::SKIP_AGGREGATION,
    past::IMAGE_COUNT,
];

const SERVER: &str = "-- bench_server
SELECT pg_backend_pid(), current_setting('server_version'), current_setting('fsync'),
    current_setting('synchronous_commit'), current_setting('shared_buffers')";

const ACTIVITY: &str = "-- bench_activity
SELECT concat_ws(' ', nullif(application_name, ''), backend_type) AS who, coalesce(state, '-') AS state,
    coalesce(wait_event_type || '/' || wait_event, 'running') AS wait,
    coalesce(extract(epoch FROM $1::timestamptz - xact_start)::float8, 0) AS transaction_seconds,
    coalesce(split_part(query, chr(10), 1), '') AS statement
FROM pg_stat_activity
WHERE pid <> pg_backend_pid() AND state IS DISTINCT FROM 'idle' AND wait_event_type IS DISTINCT FROM 'Activity'
ORDER BY backend_type, pid LIMIT 40";

const WAL_POSITION: &str = "-- bench_wal_position
SELECT pg_wal_lsn_diff(pg_current_wal_insert_lsn(), '0/0')::bigint";

const READING_COUNT: &str = "-- bench_reading_count
SELECT count(*) FROM telemetry_raw WHERE tenant_id = $1";

const UNSENT_COUNT: &str = "-- bench_unsent_count
SELECT count(*) FROM ONLY sync_outbox";

const TRANSACTIONS: &str = "-- bench_transactions
SELECT xact_commit + xact_rollback FROM pg_stat_database WHERE datname = current_database()";

// The columns that storing a reading writes. `OFFSET 0` keeps the payload from being built once for each use.
const FILL_OUTBOX: &str = "-- bench_fill_outbox
INSERT INTO sync_outbox (id, tenant_id, farm_id, barn_id, device_id, event_type, occurred_at, trace_id, payload_json,
    payload_size_bytes, next_attempt_at, created_at, updated_at)
SELECT gen_random_uuid(), $1, $2, $3, r.device_id, $4, r.occurred_at, 'tr-' || gen_random_uuid(), p.payload,
    octet_length(p.payload::text), $5, $5, $5
FROM (
    SELECT i, ($6::text[])[1 + i % cardinality($6)] AS device_id,
        $8::timestamptz + i * $9::bigint * interval '1 microsecond' AS occurred_at,
        ($7::text[])[1 + i / cardinality($6) % cardinality($7)] AS metric_type,
        ($12::text[])[1 + i / cardinality($6) % cardinality($7)] AS unit
    FROM generate_series($10::bigint, $10 + $11::bigint - 1) AS i
) AS r CROSS JOIN LATERAL (
    SELECT jsonb_build_object('telemetry_raw_id', gen_random_uuid(), 'tenant_id', $1::text, 'device_id', r.device_id,
        'metric_type', r.metric_type, 'metric_value', 20 + r.i % 1000 / 100.0, 'unit', r.unit,
        'occurred_at', to_char(r.occurred_at, 'YYYY-MM-DD\"T\"HH24:MI:SS.MS\"Z\"')) AS payload
    OFFSET 0
) AS p";

/// The server a benchmark ran on.
#[derive(Clone, Debug)]
pub struct Server {
    /// Process of the asking connection; its parent is the postmaster.
    pub backend_pid: i32,
    /// `server_version`.
    pub version: String,
    /// `fsync`.
    pub fsync: String,
    /// `synchronous_commit`.
    pub synchronous_commit: String,
    /// `shared_buffers`.
    pub shared_buffers: String,
}

/// Asks the server what it is.
///
/// # Errors
/// When the database fails.
pub async fn server(conn: &Conn) -> Result<Server, StoreError> {
    let row = conn.query_one(SERVER, &[]).await?;
    Ok(Server {
        backend_pid: row.get(0),
        version: row.get(1),
        fsync: row.get(2),
        synchronous_commit: row.get(3),
        shared_buffers: row.get(4),
    })
}

/// Bytes of write-ahead log written since the cluster was made.
///
/// # Errors
/// When the database fails.
pub async fn wal_position(conn: &Conn) -> Result<i64, StoreError> {
    Ok(conn.query_one(WAL_POSITION, &[]).await?.get(0))
}

/// Transactions of this database so far, as far as its connections have reported them.
///
/// # Errors
/// When the database fails.
pub async fn transactions(conn: &Conn) -> Result<i64, StoreError> {
    Ok(conn.query_one(TRANSACTIONS, &[]).await?.get(0))
}

/// Readings stored for a tenant.
///
/// # Errors
/// When the database fails.
pub async fn reading_count(conn: &Conn, tenant_id: &str) -> Result<i64, StoreError> {
    Ok(conn.query_one(READING_COUNT, &[&tenant_id]).await?.get(0))
}

/// What one connection or background process of the server does.
#[derive(Clone, Debug)]
pub struct Activity {
    /// Application and kind of process.
    pub who: String,
    /// `state`.
    pub state: String,
    /// What it waits for.
    pub wait: String,
    /// Age of its transaction.
    pub transaction_seconds: f64,
    /// First line of its statement, which is the statement's name where it has one.
    pub statement: String,
}

/// What is going on in the server; idle connections and idle background processes are left out.
///
/// # Errors
/// When the database fails.
pub async fn activity(conn: &Conn, now: Timestamp) -> Result<Vec<Activity>, StoreError> {
    let rows = conn.query(ACTIVITY, &[&now]).await?;
    let activity = |row: &tokio_postgres::Row| Activity {
        who: row.get(0),
        state: row.get(1),
        wait: row.get(2),
        transaction_seconds: row.get(3),
        statement: row.get(4),
    };
    Ok(rows.iter().map(activity).collect())
}

/// Rows in the outbox, of all tenants: what the cloud has not acknowledged.
///
/// # Errors
/// When the database fails.
pub async fn unsent_count(conn: &Conn) -> Result<i64, StoreError> {
    Ok(conn.query_one(UNSENT_COUNT, &[]).await?.get(0))
}

/// Readings to put into the outbox, as if a cloud had been away.
#[derive(Clone, Copy, Debug)]
pub struct Backlog<'a> {
    /// Tenant of all.
    pub tenant: &'a str,
    /// Farm of all.
    pub farm: &'a str,
    /// Barn of all.
    pub barn: &'a str,
    /// Devices, which take turns.
    pub devices: &'a [String],
    /// Metrics; every device speaks of the first before one speaks of the second.
    pub metrics: &'a [&'a str],
    /// Their units.
    pub units: &'a [&'a str],
    /// Time of reading 0.
    pub begins_at: Timestamp,
    /// From one reading to the next.
    pub step: Duration,
}

/// Puts so many readings of a backlog into the outbox, from the reading with this number on, in one statement and
/// without telling the planner.
///
/// # Errors
/// When the database fails.
pub async fn fill_outbox(
    conn: &Conn,
    backlog: &Backlog<'_>,
    first: i64,
    count: i64,
    now: Timestamp,
) -> Result<u64, StoreError> {
    let step_micros = backlog.step.num_microseconds().unwrap_or(1);
    let params: [&(dyn ToSql + Sync); 12] = [
        &backlog.tenant,
        &backlog.farm,
        &backlog.barn,
        &TELEMETRY_INGESTED,
        &now,
        &backlog.devices,
        &backlog.metrics,
        &backlog.begins_at,
        &step_micros,
        &first,
        &count,
        &backlog.units,
    ];
    conn.execute(FILL_OUTBOX, &params).await
}

/// Lets devices and stations in.
///
/// # Errors
/// When the database fails.
pub async fn enable_devices(conn: &Conn, allowed: &Allowed<'_>, now: Timestamp) -> Result<(), StoreError> {
    conn.batch("bench_enable_devices", &allowlist_script(allowed, now)).await
}

/// Flushes dirty pages, so that each measurement starts alike. Only some roles may.
///
/// # Errors
/// When the database fails or the role may not.
pub async fn checkpoint(conn: &Conn) -> Result<(), StoreError> {
    conn.batch("bench_checkpoint", "CHECKPOINT").await
}

/// The upper limit of storing readings: binary COPY of the same rows into the same three tables, in one transaction,
/// without any look at duplicates.
///
/// # Errors
/// When the database fails.
pub async fn copy_readings(
    conn: &mut Conn,
    readings: &[Reading],
    at: WriteContext,
) -> Result<(), StoreError> {
    let readings: Vec<&Reading> = readings.iter().collect();
    conn.transaction("bench_copy", async |conn| copy::copy(conn, &readings, at).await).await
}

/// Devices and stations an operator lets in.
#[derive(Clone, Copy, Debug)]
pub struct Allowed<'a> {
    /// Tenant of all.
    pub tenant: &'a str,
    /// Farm of all.
    pub farm: &'a str,
    /// Barn of all.
    pub barn: &'a str,
    /// Device ids.
    pub devices: &'a [String],
    /// Station ids.
    pub stations: &'a [String],
}

/// The SQL text that enables devices and stations, as operators' scripts do it. Safe to run again.
#[must_use]
pub fn allowlist_script(allowed: &Allowed<'_>, now: Timestamp) -> String {
    let devices = enable("device_allowlist", "device_id", allowed, allowed.devices, now);
    let stations = enable("station_allowlist", "station_id", allowed, allowed.stations, now);
    devices + &stations
}

fn enable(table: &str, key: &str, allowed: &Allowed<'_>, ids: &[String], now: Timestamp) -> String {
    if ids.is_empty() {
        return String::new();
    }
    let now = literal(&time::format(now));
    let [tenant, farm, barn] = [allowed.tenant, allowed.farm, allowed.barn].map(literal);
    let rows: Vec<_> = ids
        .iter()
        .map(|id| format!("  ({tenant}, {}, {farm}, {barn}, TRUE, {now}, {now})", literal(id)))
        .collect();
    format!(
        "INSERT INTO {table} (tenant_id, {key}, farm_id, barn_id, enabled, created_at, updated_at) VALUES\n{}\n\
         ON CONFLICT (tenant_id, {key}) DO UPDATE SET enabled = TRUE, farm_id = EXCLUDED.farm_id, \
         barn_id = EXCLUDED.barn_id, updated_at = EXCLUDED.updated_at;\n",
        rows.join(",\n")
    )
}

/// A text as an SQL literal; ids have no control characters, so only the quote needs care.
fn literal(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quote_in_an_id_stays_inside_its_literal() {
        let devices = ["d-1".to_owned(), "o'hare".to_owned()];
        let allowed = Allowed { tenant: "t", farm: "f", barn: "b", devices: &devices, stations: &[] };
        let script = allowlist_script(&allowed, Timestamp::UNIX_EPOCH);
        assert!(script.contains("('t', 'o''hare', 'f', 'b', TRUE, '1970-01-01T00:00:00.000Z'"), "{script}");
        assert!(!script.contains("station_allowlist"));
    }
}
