//! Resending: what the cloud has acknowledged and lost goes back into the outbox, under the same ids and in its old place.

use chrono::Duration;
use tokio_postgres::types::ToSql;

use uuid::Uuid;

use super::claim::with_plans;
use super::queries::ACKED_TABLES;
use super::settle::columns;
use crate::clock::Timestamp;
use crate::id;
use crate::store::{Conn, StoreError, partition};
use crate::wire::event::TelemetryIngested;

/// Events that one call puts back at most.
pub const EVENTS_MAX: i64 = 50_000;

// The parent stands for the table of a day under the name `a`, which takes its place.
macro_rules! in_range {
    () => {
        "a.tenant_id = $1 AND coalesce(a.occurred_at, a.created_at) >= $2 AND coalesce(a.occurred_at, a.created_at) < $3
        AND a.acked_at IS NOT NULL"
    };
}
// Whether the payload of a row was left out because its reading has it. A payload that was empty from the beginning is none
// of these.
macro_rules! is_slim {
    () => {
        "(a.event_type = 'telemetry.ingested' AND a.payload_json = '{}' AND coalesce(a.payload_size_bytes, 0) > 2)"
    };
}

pub(super) const COUNT: &str = concat!(
    "-- resend_count
SELECT count(*), count(*) FILTER (WHERE ",
    is_slim!(),
    ") FROM ONLY sync_outbox AS a WHERE ",
    in_range!()
);

// What may be the readings of such rows; their event ids say which are.
pub(super) const READINGS: &str = concat!(
    "-- resend_readings
SELECT a.id, r.id, r.device_id, r.event_id, r.metric_type, r.metric_value, r.unit, r.occurred_at
FROM ONLY sync_outbox AS a
JOIN telemetry_raw AS r ON r.tenant_id = a.tenant_id AND r.device_id = a.device_id AND r.occurred_at = a.occurred_at
WHERE ",
    in_range!(),
    " AND ",
    is_slim!()
);

// A row that goes back keeps everything that makes it this event. That it was lost counts as a failed attempt, so that an
// answer to an earlier one that is still on its way settles nothing. The digest counts it no more until the cloud has
// acknowledged it again.
pub(super) const RESEND: &str = concat!(
    "-- resend
WITH rebuilt AS MATERIALIZED (
    SELECT r.id, r.payload FROM unnest($5::uuid[], $6::text[]) AS r (id, payload)
), gone AS (
    DELETE FROM ONLY sync_outbox AS a WHERE ",
    in_range!(),
    " AND (NOT ",
    is_slim!(),
    " OR a.id IN (SELECT r.id FROM rebuilt AS r))
    RETURNING a.*
), forgotten AS (
    INSERT INTO ledger_hours AS h (tenant_id, hour, shard, events, hash)
    SELECT g.tenant_id, date_trunc('hour', coalesce(g.occurred_at, g.created_at), 'UTC'), pg_backend_pid(), -count(*),
        -sum(farmiq_event_hash(g.id))
    FROM gone AS g GROUP BY 1, 2
    ON CONFLICT (tenant_id, hour, shard) DO UPDATE SET events = h.events + excluded.events, hash = h.hash + excluded.hash
)
INSERT INTO sync_outbox (",
    columns!(),
    ") OVERRIDING SYSTEM VALUE
SELECT g.id, tenant_id, farm_id, barn_id, device_id, station_id, session_id, event_type, occurred_at, order_at, seq,
    trace_id, coalesce(r.payload::jsonb, payload_json), payload_size_bytes, 'pending', priority, attempt_count + 1, 0,
    last_attempt_at, $4, NULL, NULL, NULL, NULL, last_error_code, last_error_message, NULL, NULL, acked_at, created_at, $4
FROM gone AS g LEFT JOIN rebuilt AS r ON r.id = g.id ON CONFLICT (tenant_id, id) DO NOTHING"
);

/// Which events are to go again: those of a tenant whose time lies in a range.
#[derive(Clone, Copy, Debug)]
pub struct Range<'a> {
    /// Tenant.
    pub tenant_id: &'a str,
    /// First time, inclusive.
    pub from: Timestamp,
    /// Last time, exclusive.
    pub to: Timestamp,
}

/// What is there to go again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Resent {
    /// Events of the range that are kept.
    pub found: i64,
    /// Of these, events of readings that are deleted by now. What they said is not known any more, and they cannot go again.
    pub without_reading: i64,
    /// Events that were put back.
    pub resent: i64,
}

/// Counts the events of a range that are kept, and puts them back unless it is a rehearsal or there are more than
/// [`EVENTS_MAX`]; as one transaction. Each goes with the bytes that it went with before.
///
/// # Errors
/// When the database fails; nothing is put back then.
pub async fn resend(
    conn: &mut Conn,
    range: &Range<'_>,
    is_rehearsal: bool,
    now: Timestamp,
) -> Result<Resent, StoreError> {
    with_plans(conn, "resend", async |conn| {
        let tables = tables(conn, range).await?;
        let (mut resent, mut slim) = (Resent::default(), 0);
        for table in &tables {
            let row = conn.query_one(&of_table(COUNT, table), &range.params()).await?;
            resent.found += row.get::<_, i64>(0);
            slim += row.get::<_, i64>(1);
        }
        if resent.found > EVENTS_MAX {
            return Ok(resent);
        }
        for table in &tables {
            let rebuilt = rebuild(conn, table, range).await?;
            slim -= i64::try_from(rebuilt.len()).unwrap_or(i64::MAX);
            if is_rehearsal {
                continue;
            }
            let (ids, payloads): (Vec<Uuid>, Vec<String>) = rebuilt.into_iter().unzip();
            let mut params = range.params().to_vec();
            params.extend([&now as &(dyn ToSql + Sync), &ids, &payloads]);
            let moved = conn.execute(&of_table(RESEND, table), &params).await?;
            resent.resent += i64::try_from(moved).unwrap_or(i64::MAX);
        }
        resent.without_reading = slim.max(0);
        Ok(resent)
    })
    .await
}

impl Range<'_> {
    fn params(&self) -> [&(dyn ToSql + Sync); 3] {
        [&self.tenant_id, &self.from, &self.to]
    }
}

/// The payloads of the events that are kept without, made of their readings as they were made at first.
async fn rebuild(conn: &Conn, table: &str, range: &Range<'_>) -> Result<Vec<(Uuid, String)>, StoreError> {
    let rows = conn.query(&of_table(READINGS, table), &range.params()).await?;
    let mut rebuilt = Vec::new();
    for row in &rows {
        let (event, event_id): (Uuid, &str) = (row.get(0), row.get(3));
        if id::outbox_id(range.tenant_id, event_id) != event {
            // Another reading of the same device and time.
            continue;
        }
        let payload = TelemetryIngested {
            telemetry_raw_id: row.get(1),
            tenant_id: range.tenant_id,
            device_id: row.get(2),
            metric_type: row.get(4),
            metric_value: row.get(5),
            unit: row.get(6),
            occurred_at: row.get(7),
        };
        let payload = serde_json::to_string(&payload).expect("texts and finite numbers always serialize");
        rebuilt.push((event, payload));
    }
    Ok(rebuilt)
}

/// The tables of days on which an event of the range may have been acknowledged: not before it happened, by a clock that is
/// a day wrong at most.
async fn tables(conn: &Conn, range: &Range<'_>) -> Result<Vec<String>, StoreError> {
    let first = partition::acked_table((range.from - Duration::days(1)).date_naive());
    let tables = conn.query(ACKED_TABLES, &[]).await?;
    let tables = tables.iter().map(|row| row.get::<_, String>(0));
    Ok(tables.filter(|table| table.as_str() >= first.as_str()).collect())
}

fn of_table(sql: &str, table: &str) -> String {
    sql.replace("ONLY sync_outbox AS a", &format!("ONLY {table} AS a"))
}
