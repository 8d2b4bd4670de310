//! Settling: what the cloud's answer does to the rows of a batch, in one transaction per answer.

use std::collections::HashSet;

use tokio_postgres::error::SqlState;
use tokio_postgres::types::ToSql;
use uuid::Uuid;

use super::claim::{ClaimedEvent, with_plans};
use super::lease;
use crate::clock::Timestamp;
use crate::store::{Conn, StoreError, partition, sync_state};

/// Bytes of an error text that are kept.
const MESSAGE_BYTES_MAX: usize = 500;

macro_rules! columns {
    () => {
        "id, tenant_id, farm_id, barn_id, device_id, station_id, session_id, event_type, occurred_at, order_at, seq,
        trace_id, payload_json, payload_size_bytes, status, priority, attempt_count, reject_count, last_attempt_at,
        next_attempt_at, claimed_by, claimed_at, lease_expires_at, batch_id, last_error_code, last_error_message,
        failed_at, dlq_reason, acked_at, created_at, updated_at"
    };
}
pub(super) use columns;
// A reading is kept in `telemetry_raw`; its event is kept without what is said there (`resend` makes it again).
macro_rules! gone {
    () => {
        "id, tenant_id, farm_id, barn_id, device_id, station_id, session_id, event_type, occurred_at, order_at, seq,
        trace_id, CASE WHEN event_type = 'telemetry.ingested' AND payload_size_bytes > 2 AND payload_json ? 'telemetry_raw_id'
            THEN '{}' ELSE payload_json END, payload_size_bytes, 'acked', priority, attempt_count, reject_count, last_attempt_at,
        next_attempt_at, coalesce(claimed_by, $6), claimed_at, NULL, $5, last_error_code, last_error_message,
        NULL, NULL, $2, created_at, $2"
    };
}
// The lease of the group is asked before any of these: what is left to ask is whether a row is as it was read, or as its
// batch has marked it. A settlement whose answer was lost and that is made again finds another number.
macro_rules! is_as_read {
    ($batch:literal) => {
        concat!(
            "o.tenant_id = mine.tenant_id AND o.id = mine.id AND (o.attempt_count = mine.attempt_count
        OR (o.attempt_count = mine.attempt_count + 1 AND o.batch_id = ",
            $batch,
            "))"
        )
    };
}

// The tenant comes as an array like the rest: as a single value it would offer the planner every row of the tenant, and
// without fresh statistics it would take the offer.

// A row that the cloud has moves to the table of the day. The statement names the parent, which stands for that table.
pub(super) const ACK_BY_PLACE: &str = concat!(
    "-- ack_by_place
WITH gone AS (
    DELETE FROM ONLY sync_outbox AS o
    USING unnest($1::text[], $3::uuid[], $4::int[], $7::text[]::tid[]) AS mine (tenant_id, id, attempt_count, place)
    WHERE o.ctid = mine.place AND ",
    is_as_read!("$5"),
    "
    RETURNING o.*
)
INSERT INTO sync_outbox (",
    columns!(),
    ") OVERRIDING SYSTEM VALUE
SELECT ",
    gone!(),
    " FROM gone RETURNING id"
);

// For rows that were written again since the claim: those of a request that lasted, or that an operator changed.
pub(super) const ACK_BY_KEY: &str = concat!(
    "-- ack_by_key
WITH gone AS (
    DELETE FROM ONLY sync_outbox AS o
    USING unnest($1::text[], $3::uuid[], $4::int[]) AS mine (tenant_id, id, attempt_count)
    WHERE ",
    is_as_read!("$5"),
    "
    RETURNING o.*
)
INSERT INTO sync_outbox (",
    columns!(),
    ") OVERRIDING SYSTEM VALUE
SELECT ",
    gone!(),
    " FROM gone RETURNING id"
);

// A failed attempt counts, unless it counted as a slow one already. Without a failure only rows change that say they are on
// the line.
pub(super) const RETURN_ROWS: &str = concat!(
    "-- return_rows
UPDATE ONLY sync_outbox AS o
SET status = 'pending', claimed_by = NULL, claimed_at = NULL, lease_expires_at = NULL, batch_id = NULL,
    attempt_count = CASE WHEN $5::text IS NULL THEN o.attempt_count ELSE mine.attempt_count + 1 END,
    last_attempt_at = CASE WHEN $5::text IS NULL THEN o.last_attempt_at ELSE $7 END,
    last_error_code = coalesce($5, o.last_error_code), last_error_message = coalesce($6, o.last_error_message),
    updated_at = $7
FROM unnest($1::text[], $2::uuid[], $3::int[]) AS mine (tenant_id, id, attempt_count)
WHERE ",
    is_as_read!("$4"),
    " AND (o.status IN ('claimed', 'sent') OR (o.status = 'pending' AND $5::text IS NOT NULL))"
);

pub(super) const REJECT_ROWS: &str = concat!(
    "-- reject_rows
UPDATE ONLY sync_outbox AS o
SET status = CASE WHEN mine.dlq_reason IS NULL THEN 'pending' ELSE 'failed' END, attempt_count = mine.attempt_count + 1,
    reject_count = o.reject_count + mine.step, next_attempt_at = coalesce(mine.next_attempt_at, o.next_attempt_at),
    last_attempt_at = CASE WHEN mine.step > 0 THEN $2::timestamptz ELSE o.last_attempt_at END,
    failed_at = CASE WHEN mine.dlq_reason IS NULL THEN NULL ELSE $2::timestamptz END, dlq_reason = mine.dlq_reason,
    last_error_code = mine.code, last_error_message = mine.message,
    claimed_by = NULL, claimed_at = NULL, lease_expires_at = NULL, batch_id = NULL, updated_at = $2
FROM unnest($1::text[], $3::uuid[], $4::int[], $5::text[], $6::text[], $7::int[], $8::timestamptz[], $9::text[])
    AS mine (tenant_id, id, attempt_count, code, message, step, next_attempt_at, dlq_reason)
WHERE ",
    is_as_read!("$10"),
    " AND o.status IN ('pending', 'claimed', 'sent')"
);

/// What becomes of a rejected row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// Goes again at this time; its lane waits.
    Retry {
        /// When.
        at: Timestamp,
    },
    /// Waits for a person.
    Failed {
        /// Why, as `dlq_reason`.
        reason: &'static str,
    },
}

/// A row the cloud has refused, or would refuse.
#[derive(Clone, Debug)]
pub struct Rejection {
    /// Row.
    pub id: Uuid,
    /// Its group of lanes, whose lease is the fence.
    pub lane_group: i16,
    /// Slow and failed attempts when it was read.
    pub attempt_count: i32,
    /// `last_error_code`.
    pub code: &'static str,
    /// `last_error_message`.
    pub message: String,
    /// Whether it counts as one of the row's rejections.
    pub is_counted: bool,
    /// What becomes of it.
    pub fate: Fate,
}

/// Why rows go back to pending.
#[derive(Clone, Copy, Debug)]
pub struct Failure<'a> {
    /// `last_error_code`.
    pub code: &'static str,
    /// `last_error_message`.
    pub message: &'a str,
}

/// What one answer does.
#[derive(Debug, Default)]
pub struct Settlement<'a> {
    /// Events the cloud has.
    pub acked: Vec<&'a ClaimedEvent>,
    /// Events it refused.
    pub rejected: Vec<Rejection>,
    /// Events that were not sent or whose fate is unknown.
    pub returned: Vec<&'a ClaimedEvent>,
    /// Why the latter go back, when something failed.
    pub failure: Option<Failure<'a>>,
    /// Whether this was the last answer of the batch, so that its lane groups are free again.
    pub is_last: bool,
    /// What the tenant's state becomes.
    pub change: Option<sync_state::Change<'a>>,
}

/// What was found to settle: rows that somebody else has claimed or settled meanwhile are left alone.
#[derive(Clone, Debug, Default)]
pub struct Settled {
    /// Rows that were acknowledged now.
    pub acked: HashSet<Uuid>,
}

/// Applies a settlement to the rows whose lane groups are still leased to the batch, whether the lease is over or not. Rows of
/// groups that went to somebody else stay as they are: whoever has them now sends them again, and the cloud knows them by
/// their ids.
///
/// # Errors
/// When the database fails; nothing is settled then.
pub async fn settle(
    conn: &mut Conn,
    tenant_id: &str,
    batch_id: Uuid,
    settlement: &Settlement<'_>,
    now: Timestamp,
) -> Result<Settled, StoreError> {
    match settle_once(conn, tenant_id, batch_id, settlement, now).await {
        Err(error) if error.code() == Some(&SqlState::UNDEFINED_TABLE) => {
            partition::ensure_days(conn, now).await?;
            settle_once(conn, tenant_id, batch_id, settlement, now).await
        }
        outcome => outcome,
    }
}

async fn settle_once<'a>(
    conn: &mut Conn,
    tenant_id: &str,
    batch_id: Uuid,
    settlement: &Settlement<'a>,
    now: Timestamp,
) -> Result<Settled, StoreError> {
    with_plans(conn, "settle", async |conn| {
        // First, so that nobody takes a group over meanwhile.
        let held = lease::hold(conn, tenant_id, batch_id, settlement.is_last).await?;
        let batch = (tenant_id, batch_id);
        let of = |events: &[&'a ClaimedEvent]| -> Vec<&'a ClaimedEvent> {
            events.iter().filter(|event| held.has(event.lane_group)).copied().collect()
        };
        let acked = ack_rows(conn, batch, &of(&settlement.acked), held.claimed_by.as_deref(), now).await?;
        let rejected: Vec<&Rejection> =
            settlement.rejected.iter().filter(|rejection| held.has(rejection.lane_group)).collect();
        reject_rows(conn, batch, &rejected, now).await?;
        let returned: Vec<(Uuid, i32)> =
            of(&settlement.returned).iter().map(|event| (event.id, event.attempt_count)).collect();
        return_rows(conn, batch, &returned, settlement.failure, now).await?;
        // Last, since every batch of the tenant writes this one row.
        if let Some(change) = &settlement.change {
            sync_state::record(conn, tenant_id, change, now).await?;
        }
        Ok(Settled { acked })
    })
    .await
}

async fn ack_rows(
    conn: &Conn,
    (tenant_id, batch_id): (&str, Uuid),
    events: &[&ClaimedEvent],
    claimed_by: Option<&str>,
    now: Timestamp,
) -> Result<HashSet<Uuid>, StoreError> {
    if events.is_empty() {
        return Ok(HashSet::new());
    }
    let table = partition::acked_table(now.date_naive());
    let into_table = |sql: &str| sql.replace("INSERT INTO sync_outbox ", &format!("INSERT INTO {table} "));
    let ids: Vec<Uuid> = events.iter().map(|event| event.id).collect();
    let attempts: Vec<i32> = events.iter().map(|event| event.attempt_count).collect();
    let places: Vec<&str> = events.iter().map(|event| event.place.as_str()).collect();
    let tenants = vec![tenant_id; events.len()];
    let params: [&(dyn ToSql + Sync); 7] = [&tenants, &now, &ids, &attempts, &batch_id, &claimed_by, &places];
    let rows = conn.query(&into_table(ACK_BY_PLACE), &params).await?;
    let mut acked: HashSet<Uuid> = rows.iter().map(|row| row.get(0)).collect();
    if acked.len() < events.len() {
        let rows = conn.query(&into_table(ACK_BY_KEY), &params[..6]).await?;
        acked.extend(rows.iter().map(|row| row.get::<_, Uuid>(0)));
    }
    Ok(acked)
}

pub(super) async fn return_rows(
    conn: &Conn,
    (tenant_id, batch_id): (&str, Uuid),
    rows: &[(Uuid, i32)],
    failure: Option<Failure<'_>>,
    now: Timestamp,
) -> Result<(), StoreError> {
    if rows.is_empty() {
        return Ok(());
    }
    let (ids, attempts): (Vec<Uuid>, Vec<i32>) = rows.iter().copied().unzip();
    let code = failure.map(|failure| failure.code);
    let message = failure.map(|failure| storable(failure.message));
    let tenants = vec![tenant_id; rows.len()];
    conn.execute(RETURN_ROWS, &[&tenants, &ids, &attempts, &batch_id, &code, &message, &now]).await?;
    Ok(())
}

pub(super) async fn reject_rows(
    conn: &Conn,
    (tenant_id, batch_id): (&str, Uuid),
    rejections: &[&Rejection],
    now: Timestamp,
) -> Result<(), StoreError> {
    if rejections.is_empty() {
        return Ok(());
    }
    macro_rules! column {
        (|$rejection:ident| $value:expr) => {
            rejections.iter().map(|$rejection| $value).collect::<Vec<_>>()
        };
    }
    let next_attempt_at = column!(|rejection| match rejection.fate {
        Fate::Retry { at } => Some(at),
        Fate::Failed { .. } => None,
    });
    let dlq_reason = column!(|rejection| match rejection.fate {
        Fate::Retry { .. } => None,
        Fate::Failed { reason } => Some(reason),
    });
    let tenants = vec![tenant_id; rejections.len()];
    let params: [&(dyn ToSql + Sync); 10] = [
        &tenants,
        &now,
        &column!(|rejection| rejection.id),
        &column!(|rejection| rejection.attempt_count),
        &column!(|rejection| rejection.code),
        &column!(|rejection| storable(&rejection.message)),
        &column!(|rejection| i32::from(rejection.is_counted)),
        &next_attempt_at,
        &dlq_reason,
        &batch_id,
    ];
    conn.execute(REJECT_ROWS, &params).await?;
    Ok(())
}

/// An error text as a text column can hold it, cut to what is kept.
pub(crate) fn storable(text: &str) -> String {
    let mut end = text.len().min(MESSAGE_BYTES_MAX);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text[..end].replace('\0', "\u{fffd}")
}
