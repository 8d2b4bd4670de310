//! Dedupe marks: what a duplicate conflicts with, and their removal once they have expired.

use crate::clock::Timestamp;
use crate::store::{Conn, StoreError};

/// Every statement of this module.
pub const STATEMENTS: &[&str] = &[CONFLICTS, DELETE_EXPIRED];

/// Marks deleted by one statement.
pub const EXPIRED_ROWS_PER_CHUNK: i64 = 5_000;

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

const DELETE_EXPIRED: &str = "-- dedupe_delete_expired
DELETE FROM ingress_dedupe WHERE ctid = ANY (ARRAY(
    SELECT ctid FROM ingress_dedupe WHERE expires_at <= $1 LIMIT $2))";

/// Deletes one chunk of expired marks and returns how many; fewer than [`EXPIRED_ROWS_PER_CHUNK`] means done.
///
/// # Errors
/// When the database fails.
pub async fn delete_expired(conn: &Conn, now: Timestamp) -> Result<u64, StoreError> {
    conn.execute(DELETE_EXPIRED, &[&now, &EXPIRED_ROWS_PER_CHUNK]).await
}
