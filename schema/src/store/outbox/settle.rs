//! Settling: what the cloud's answer does to the rows of a batch, in one transaction per answer.

use std::collections::HashSet;

use tokio_postgres::error::SqlState;
use tokio_postgres::types::ToSql;
use uuid::Uuid;

use super::claim::{ClaimedEvent, with_plans};
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
macro_rules! gone {
    () => {
        "id, tenant_id, farm_id, barn_id, device_id, station_id, session_id, event_type, occurred_at, order_at, seq,
        trace_id, payload_json, payload_size_bytes, 'acked', priority, attempt_count, reject_count, last_attempt_at,
        next_attempt_at, claimed_by, claimed_at, NULL, batch_id, last_error_code, last_error_message,
        NULL, NULL, $2, created_at, $2"
    };
}

// The tenant comes as an array like the rest: as a single value it would offer the planner every row of the tenant, and
// without fresh statistics it would take the offer.

// A row that the cloud has moves to the table of the day. The statement names the parent, which stands for that table.
pub(super) const ACK_BY_PLACE: &str = concat!(
    "-- ack_by_place
WITH gone AS (
    DELETE FROM ONLY sync_outbox AS o
    USING unnest($1::text[], $3::uuid[], $4::int[], $5::text[]::tid[]) AS mine (tenant_id, id, attempt_count, place)
    WHERE o.ctid = mine.place AND o.tenant_id = mine.tenant_id AND o.id = mine.id AND o.attempt_count = mine.attempt_count
    RETURNING o.*
)
INSERT INTO sync_outbox (",
    columns!(),
    ") OVERRIDING SYSTEM VALUE
SELECT ",
    gone!(),
    " FROM gone RETURNING id"
);

// For the few rows that were written again since the claim, by a renewed lease or by an operator.
pub(super) const ACK_BY_KEY: &str = concat!(
    "-- ack_by_key
WITH gone AS (
    DELETE FROM ONLY sync_outbox AS o
    USING unnest($1::text[], $3::uuid[], $4::int[]) AS mine (tenant_id, id, attempt_count)
    WHERE o.tenant_id = mine.tenant_id AND o.id = mine.id AND o.attempt_count = mine.attempt_count
    RETURNING o.*
)
INSERT INTO sync_outbox (",
    columns!(),
    ") OVERRIDING SYSTEM VALUE
SELECT ",
    gone!(),
    " FROM gone RETURNING id"
);

pub(super) const RETURN_ROWS: &str = "-- return_rows
UPDATE ONLY sync_outbox AS o
SET status = 'pending', claimed_by = NULL, claimed_at = NULL, lease_expires_at = NULL, batch_id = NULL,
    last_error_code = coalesce($4, o.last_error_code), last_error_message = coalesce($5, o.last_error_message),
    updated_at = $6
FROM unnest($1::text[], $2::uuid[], $3::int[]) AS mine (tenant_id, id, attempt_count)
WHERE o.tenant_id = mine.tenant_id AND o.id = mine.id AND o.attempt_count = mine.attempt_count
    AND o.status IN ('claimed', 'sent')";

// A row that is not on its way has been settled: a settlement whose answer was lost is made again, and its rejection counts once.
pub(super) const REJECT_ROWS: &str = "-- reject_rows
UPDATE ONLY sync_outbox AS o
SET status = CASE WHEN mine.dlq_reason IS NULL THEN 'pending' ELSE 'failed' END,
    reject_count = o.reject_count + mine.step, next_attempt_at = coalesce(mine.next_attempt_at, o.next_attempt_at),
    failed_at = CASE WHEN mine.dlq_reason IS NULL THEN NULL ELSE $2::timestamptz END, dlq_reason = mine.dlq_reason,
    last_error_code = mine.code, last_error_message = mine.message,
    claimed_by = NULL, claimed_at = NULL, lease_expires_at = NULL, batch_id = NULL, updated_at = $2
FROM unnest($1::text[], $3::uuid[], $4::int[], $5::text[], $6::text[], $7::int[], $8::timestamptz[], $9::text[])
    AS mine (tenant_id, id, attempt_count, code, message, step, next_attempt_at, dlq_reason)
WHERE o.tenant_id = mine.tenant_id AND o.id = mine.id AND o.attempt_count = mine.attempt_count
    AND o.status IN ('claimed', 'sent')";

pub(super) const RELEASE_GROUPS: &str = "-- release_lane_groups
DELETE FROM sync_lane_groups WHERE tenant_id = $1 AND batch_id = $2";

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
    /// Fence.
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

/// Applies a settlement.
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

async fn settle_once(
    conn: &mut Conn,
    tenant_id: &str,
    batch_id: Uuid,
    settlement: &Settlement<'_>,
    now: Timestamp,
) -> Result<Settled, StoreError> {
    with_plans(conn, "settle", async |conn| {
        let acked = ack_rows(conn, tenant_id, &settlement.acked, now).await?;
        reject_rows(conn, tenant_id, &settlement.rejected, now).await?;
        let returned: Vec<(Uuid, i32)> =
            settlement.returned.iter().map(|event| (event.id, event.attempt_count)).collect();
        return_rows(conn, tenant_id, &returned, settlement.failure, now).await?;
        if settlement.is_last {
            conn.execute(RELEASE_GROUPS, &[&tenant_id, &batch_id]).await?;
        }
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
    tenant_id: &str,
    events: &[&ClaimedEvent],
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
    let params: [&(dyn ToSql + Sync); 5] = [&tenants, &now, &ids, &attempts, &places];
    let rows = conn.query(&into_table(ACK_BY_PLACE), &params).await?;
    let mut acked: HashSet<Uuid> = rows.iter().map(|row| row.get(0)).collect();
    if acked.len() < events.len() {
        let rows = conn.query(&into_table(ACK_BY_KEY), &params[..4]).await?;
        acked.extend(rows.iter().map(|row| row.get::<_, Uuid>(0)));
    }
    Ok(acked)
}

pub(super) async fn return_rows(
    conn: &Conn,
    tenant_id: &str,
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
    conn.execute(RETURN_ROWS, &[&tenants, &ids, &attempts, &code, &message, &now]).await?;
    Ok(())
}

pub(super) async fn reject_rows(
    conn: &Conn,
    tenant_id: &str,
    rejections: &[Rejection],
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
    let params: [&(dyn ToSql + Sync); 9] = [
        &tenants,
        &now,
        &column!(|rejection| rejection.id),
        &column!(|rejection| rejection.attempt_count),
        &column!(|rejection| rejection.code),
        &column!(|rejection| storable(&rejection.message)),
        &column!(|rejection| i32::from(rejection.is_counted)),
        &next_attempt_at,
        &dlq_reason,
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
