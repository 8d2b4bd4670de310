//! Dedupe marks: what a duplicate conflicts with, and their removal once they have expired.

use chrono::Duration;

use crate::clock::Timestamp;
use crate::store::{Conn, StoreError, index};

/// Every statement of this module.
pub const STATEMENTS: &[&str] = &[MARK, UNMARK, CONFLICTS, DELETE_EXPIRED];

/// Marks deleted by one statement.
pub const EXPIRED_ROWS_PER_CHUNK: i64 = 5_000;

/// What is marked as seen.
#[derive(Clone, Copy, Debug)]
pub struct Mark<'a> {
    /// Tenant.
    pub tenant_id: &'a str,
    /// Normal form of the event id.
    pub event_id: &'a str,
    /// Where it came from: the topic, or `http:<route>`.
    pub topic: &'a str,
    /// Hex SHA-256 of the body.
    pub hash: &'a str,
}

const MARK: &str = "-- dedupe_mark
INSERT INTO ingress_dedupe AS d (tenant_id, event_id, first_seen_at, expires_at, topic, hash)
VALUES ($1, $2, $3, $4, $5, $6)
ON CONFLICT (tenant_id, event_id) DO UPDATE
SET first_seen_at = excluded.first_seen_at, expires_at = excluded.expires_at, topic = excluded.topic, hash = excluded.hash
WHERE d.expires_at <= excluded.first_seen_at
RETURNING true";

/// Marks an event as seen, as part of the caller's transaction. `false`: it had been seen before.
///
/// # Errors
/// When the database fails.
pub async fn mark(conn: &Conn, mark: Mark<'_>, now: Timestamp, ttl: Duration) -> Result<bool, StoreError> {
    let row = conn
        .query_opt(MARK, &[&mark.tenant_id, &mark.event_id, &now, &(now + ttl), &mark.topic, &mark.hash])
        .await?;
    Ok(row.is_some())
}

const UNMARK: &str = "-- dedupe_unmark
DELETE FROM ingress_dedupe WHERE tenant_id = $1 AND event_id = $2";

/// Takes a mark back, as part of the transaction that made it: the event was refused after all, and may come again.
///
/// # Errors
/// When the database fails.
pub async fn unmark(conn: &Conn, tenant_id: &str, event_id: &str) -> Result<(), StoreError> {
    conn.execute(UNMARK, &[&tenant_id, &event_id]).await?;
    Ok(())
}

const CONFLICTS: &str = "-- dedupe_conflicts
SELECT count(*) FROM unnest($1::text[], $2::text[], $3::text[], $4::text[]) AS i (tenant_id, event_id, topic, hash)
JOIN ingress_dedupe AS d USING (tenant_id, event_id)
WHERE d.topic = i.topic AND d.hash <> i.hash";

/// How many of these duplicates (tenant, event id, topic, hash) differ in their body from the first on the same topic.
///
/// # Errors
/// When the database fails.
pub async fn conflicts(conn: &Conn, duplicates: &[[&str; 4]]) -> Result<i64, StoreError> {
    let column = |i: usize| duplicates.iter().map(|row| row[i]).collect::<Vec<_>>();
    Ok(conn.query_one(CONFLICTS, &[&column(0), &column(1), &column(2), &column(3)]).await?.get(0))
}

// A chunk begins where the last one ended, so that it does not step over what that one left behind in the index.
const DELETE_EXPIRED: &str = "-- dedupe_delete_expired
WITH gone AS (
    DELETE FROM ingress_dedupe WHERE expires_at <= $1 AND ctid = ANY (ARRAY(
        SELECT ctid FROM ingress_dedupe WHERE expires_at <= $1 AND expires_at >= $2 ORDER BY expires_at LIMIT $3))
    RETURNING expires_at
)
SELECT count(*), max(expires_at) FROM gone";

/// A walk over the expired marks, in the order in which they expired.
#[derive(Clone, Copy, Debug)]
pub struct ExpiredMarks {
    now: Timestamp,
    from: Timestamp,
}

impl ExpiredMarks {
    /// From the oldest one on.
    #[must_use]
    pub fn new(now: Timestamp) -> Self {
        Self { now, from: Timestamp::UNIX_EPOCH }
    }

    /// Deletes one chunk and returns how many marks went; fewer than [`EXPIRED_ROWS_PER_CHUNK`] means done. None go until
    /// their index is there, without which each chunk would read the whole table.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn delete_chunk(&mut self, conn: &Conn) -> Result<u64, StoreError> {
        if !index::is_valid(conn, index::DEDUPE_EXPIRES).await? {
            return Ok(0);
        }
        let row = conn.query_one(DELETE_EXPIRED, &[&self.now, &self.from, &EXPIRED_ROWS_PER_CHUNK]).await?;
        self.from = row.get::<_, Option<Timestamp>>(1).unwrap_or(self.from);
        Ok(row.get::<_, i64>(0).unsigned_abs())
    }
}
