//! How sending stands for each tenant: the last success, the last error, and how long it pauses.

use chrono::Duration;
use uuid::Uuid;

use super::outbox::settle::storable;
use crate::clock::Timestamp;
use crate::clock::deadline::{farthest, waits};
use crate::store::{Conn, StoreError};

/// Every statement of this module.
pub const STATEMENTS: &[&str] = &[SUCCESS, FAILURE, RESUME, SUMMARY];

const SUCCESS: &str = "-- sync_success
INSERT INTO sync_state AS s (tenant_id, last_acked_event_id, last_acked_at, last_success_at, last_sent_batch_id, updated_at)
VALUES ($1, $2, CASE WHEN $2::uuid IS NULL THEN NULL ELSE $3::timestamptz END, $3, $4, $3)
ON CONFLICT (tenant_id) DO UPDATE
SET last_acked_event_id = coalesce(excluded.last_acked_event_id, s.last_acked_event_id),
    last_acked_at = coalesce(excluded.last_acked_at, s.last_acked_at), last_success_at = excluded.last_success_at,
    last_sent_batch_id = excluded.last_sent_batch_id, consecutive_failures = 0, paused_until = NULL,
    updated_at = excluded.updated_at";

// Batches that travel side by side fail side by side: only the first of them to be settled counts. A pause that a wrong
// clock has set does not outlive the next one.
const FAILURE: &str = concat!(
    "-- sync_failure
INSERT INTO sync_state AS s (tenant_id, last_error_at, last_error_code, last_error_message, last_sent_batch_id,
    consecutive_failures, paused_until, updated_at)
VALUES ($1, $2, $3, $4, $5, $6 + 1, $7, $2)
ON CONFLICT (tenant_id) DO UPDATE
SET last_error_at = excluded.last_error_at, last_error_code = excluded.last_error_code,
    last_error_message = excluded.last_error_message, last_sent_batch_id = excluded.last_sent_batch_id,
    consecutive_failures = CASE WHEN s.consecutive_failures > $6 THEN s.consecutive_failures
        ELSE s.consecutive_failures + 1 END,
    paused_until = CASE WHEN ",
    waits!("s.paused_until", "excluded.updated_at", "$8"),
    " THEN greatest(s.paused_until, excluded.paused_until) ELSE excluded.paused_until END,
    updated_at = excluded.updated_at"
);

// The failures stay counted: who fails again pauses as long as it would have.
const RESUME: &str = "-- sync_resume
UPDATE sync_state SET paused_until = NULL, updated_at = $2 WHERE paused_until IS NOT NULL AND last_error_code = $1";

const SUMMARY: &str = concat!(
    "-- sync_summary
SELECT max(last_success_at), max(last_error_at),
    (array_agg(coalesce(last_error_code || ': ' || last_error_message, last_error_code) ORDER BY last_error_at DESC NULLS LAST))[1],
    coalesce(max(consecutive_failures), 0), max(paused_until) FILTER (WHERE ",
    waits!("paused_until", "$2", "$3"),
    ")
FROM sync_state WHERE $1::text[] IS NULL OR tenant_id = ANY ($1)"
);

/// What an attempt does to a tenant's state.
#[derive(Clone, Copy, Debug)]
pub enum Change<'a> {
    /// The cloud has taken a batch.
    Success {
        /// The batch.
        batch_id: Uuid,
        /// The last event it has, if any.
        last_acked_event_id: Option<Uuid>,
    },
    /// It has not.
    Failure {
        /// The batch.
        batch_id: Uuid,
        /// Error code.
        code: &'static str,
        /// Error text.
        message: &'a str,
        /// Failures in a row that the batch knew of when it was claimed.
        failures_before: i32,
        /// When the tenant may be tried again.
        paused_until: Timestamp,
        /// The longest that a tenant ever pauses.
        pause_max: Duration,
    },
}

/// Writes a change, inside the transaction that settles the rows.
pub(crate) async fn record(
    conn: &Conn,
    tenant_id: &str,
    change: &Change<'_>,
    now: Timestamp,
) -> Result<(), StoreError> {
    match change {
        Change::Success { batch_id, last_acked_event_id } => {
            conn.execute(SUCCESS, &[&tenant_id, last_acked_event_id, &now, batch_id]).await?;
        }
        Change::Failure { batch_id, code, message, failures_before, paused_until, pause_max } => {
            let message = storable(message);
            let farthest = farthest(now, *pause_max);
            conn.execute(
                FAILURE,
                &[&tenant_id, &now, code, &message, batch_id, failures_before, paused_until, &farthest],
            )
            .await?;
        }
    }
    Ok(())
}

/// Ends the pauses of all tenants whose last error has this code; says how many there were.
///
/// # Errors
/// When the database fails.
pub async fn resume(conn: &Conn, code: &str, now: Timestamp) -> Result<u64, StoreError> {
    conn.execute(RESUME, &[&code, &now]).await
}

/// The state of several tenants taken together.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// Newest success.
    pub last_success_at: Option<Timestamp>,
    /// Newest error.
    pub last_error_at: Option<Timestamp>,
    /// Its code and text.
    pub last_error: Option<String>,
    /// Failures in a row; the largest of all tenants.
    pub consecutive_failures: i32,
    /// When the last of their pauses ends; `None` while none pauses.
    pub paused_until: Option<Timestamp>,
}

/// The state of these tenants, or of all, which pause for `pause_max` at most.
///
/// # Errors
/// When the database fails.
pub async fn summary(
    conn: &Conn,
    tenants: Option<&[String]>,
    now: Timestamp,
    pause_max: Duration,
) -> Result<Summary, StoreError> {
    let row = conn.query_one(SUMMARY, &[&tenants, &now, &farthest(now, pause_max)]).await?;
    Ok(Summary {
        last_success_at: row.get(0),
        last_error_at: row.get(1),
        last_error: row.get(2),
        consecutive_failures: row.get(3),
        paused_until: row.get(4),
    })
}
