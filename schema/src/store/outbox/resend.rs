//! Resending: what the cloud has acknowledged and lost goes back into the outbox, under the same ids and in its old place.

use chrono::Duration;
use tokio_postgres::types::ToSql;

use super::queries::ACKED_TABLES;
use super::settle::columns;
use crate::clock::Timestamp;
use crate::store::{Conn, StoreError, partition};

/// Events that one call puts back at most.
pub const EVENTS_MAX: i64 = 50_000;

// The parent stands for the table of a day under the name `a`, which takes its place.
pub(super) const COUNT: &str = "-- resend_count
SELECT count(*) FROM ONLY sync_outbox AS a
WHERE a.tenant_id = $1 AND coalesce(a.occurred_at, a.created_at) >= $2 AND coalesce(a.occurred_at, a.created_at) < $3
    AND a.acked_at IS NOT NULL";

// A row that goes back keeps everything that makes it this event, and its fence: an answer to an earlier attempt that is
// still on its way settles nothing. The digest counts it no more until the cloud has acknowledged it again.
pub(super) const RESEND: &str = concat!(
    "-- resend
WITH gone AS (
    DELETE FROM ONLY sync_outbox AS a
    WHERE a.tenant_id = $1 AND coalesce(a.occurred_at, a.created_at) >= $2 AND coalesce(a.occurred_at, a.created_at) < $3
        AND a.acked_at IS NOT NULL
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
SELECT id, tenant_id, farm_id, barn_id, device_id, station_id, session_id, event_type, occurred_at, order_at, seq,
    trace_id, payload_json, payload_size_bytes, 'pending', priority, attempt_count, 0, last_attempt_at,
    $4, NULL, NULL, NULL, NULL, last_error_code, last_error_message, NULL, NULL, acked_at, created_at, $4
FROM gone ON CONFLICT (tenant_id, id) DO NOTHING"
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
    /// Of these, events that were put back.
    pub resent: i64,
}

/// Counts the events of a range that are kept, and puts them back unless it is a rehearsal or there are more than
/// [`EVENTS_MAX`]; as one transaction.
///
/// # Errors
/// When the database fails; nothing is put back then.
pub async fn resend(
    conn: &mut Conn,
    range: &Range<'_>,
    is_rehearsal: bool,
    now: Timestamp,
) -> Result<Resent, StoreError> {
    let work = async |conn: &Conn| {
        let tables = tables(conn, range).await?;
        let mut resent = Resent::default();
        for table in &tables {
            resent.found += count(conn, table, range).await?;
        }
        if is_rehearsal || resent.found > EVENTS_MAX {
            return Ok(resent);
        }
        for table in &tables {
            let params: [&(dyn ToSql + Sync); 4] = [&range.tenant_id, &range.from, &range.to, &now];
            let moved = conn.execute(&of_table(RESEND, table), &params).await?;
            resent.resent += i64::try_from(moved).unwrap_or(i64::MAX);
        }
        Ok(resent)
    };
    conn.transaction("resend", work).await
}

/// The tables of days on which an event of the range may have been acknowledged: not before it happened, by a clock that is
/// a day wrong at most.
async fn tables(conn: &Conn, range: &Range<'_>) -> Result<Vec<String>, StoreError> {
    let first = partition::acked_table((range.from - Duration::days(1)).date_naive());
    let tables = conn.query(ACKED_TABLES, &[]).await?;
    let tables = tables.iter().map(|row| row.get::<_, String>(0));
    Ok(tables.filter(|table| table.as_str() >= first.as_str()).collect())
}

async fn count(conn: &Conn, table: &str, range: &Range<'_>) -> Result<i64, StoreError> {
    let params: [&(dyn ToSql + Sync); 3] = [&range.tenant_id, &range.from, &range.to];
    Ok(conn.query_one(&of_table(COUNT, table), &params).await?.get(0))
}

fn of_table(sql: &str, table: &str) -> String {
    sql.replace("ONLY sync_outbox AS a", &format!("ONLY {table} AS a"))
}
