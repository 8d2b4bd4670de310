//! Retention: what has become old enough to be deleted, and its deletion in short transactions.
//!
//! Whole tables go where time allows it ([`tables`]), rows go in chunks otherwise ([`rows`]); images are found here and
//! deleted by whoever holds their files ([`images`]). What the cloud has not acknowledged stays.

pub mod images;
pub mod lock;
pub mod mark;
pub mod passes;
pub mod rows;
pub mod stamps;
pub mod tables;

use std::collections::HashSet;

use uuid::Uuid;

use crate::store::{Conn, StoreError};

/// Every statement of this module.
pub const STATEMENTS: &[&str] = &[
    UNACKED,
    images::DUE,
    images::DUE_EARLY,
    images::DELETE,
    images::UNKNOWN,
    images::ANY,
    images::PLACES,
    images::EXPIRED,
    images::COUNT_EXPIRED,
    images::DELETE_EXPIRED,
    lock::TAKE,
    lock::RELEASE,
    mark::IDENTITY,
    mark::IDENTIFY,
    mark::CARRY_OVER,
    mark::COUNT,
    passes::LAST,
    passes::RECORD,
    passes::NEWEST_ROW,
    rows::AGGREGATES.count,
    rows::AGGREGATES.delete,
    rows::MINUTES.count,
    rows::MINUTES.delete,
    rows::FAULTS.count,
    rows::FAULTS.delete,
    rows::AUDIT.count,
    rows::AUDIT.delete,
    rows::UPLOADS.count,
    rows::UPLOADS.delete,
    rows::JOBS.count,
    rows::JOBS.delete,
    rows::DEAD_LETTERS.count,
    rows::DEAD_LETTERS.delete,
    rows::DISCARDED.count,
    rows::DISCARDED.delete,
    rows::LEDGER_HOURS.count,
    rows::LEDGER_HOURS.delete,
    rows::TRIM_STRANGERS,
    rows::READINGS.due,
    rows::READINGS.delete,
    rows::EVENTS.due,
    rows::EVENTS.delete,
    tables::CHILDREN,
    tables::ROWS_ABOUT,
    tables::IS_REFUSED,
    tables::IS_UNACKED,
];

const UNACKED: &str = "-- retention_unacked
SELECT o.id FROM unnest($1::text[], $2::uuid[]) AS i (tenant_id, id)
JOIN ONLY sync_outbox AS o USING (tenant_id, id)
WHERE o.status <> 'acked'";

/// Which of these events (tenant and id) the cloud has not acknowledged yet.
async fn unacked(conn: &Conn, tenants: &[&str], ids: &[Uuid]) -> Result<HashSet<Uuid>, StoreError> {
    Ok(conn.query(UNACKED, &[&tenants, &ids]).await?.iter().map(|row| row.get(0)).collect())
}
