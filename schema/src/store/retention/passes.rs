//! What the database knows of the time: when the last pass ran, and when something came in last.

use crate::clock::Timestamp;
use crate::id;
use crate::store::{Conn, StoreError};

pub(super) const LAST: &str = "-- retention_last_pass
SELECT last_at FROM retention_passes";

/// When the last pass ran that believed its clock.
///
/// # Errors
/// When the database fails.
pub async fn last(conn: &Conn) -> Result<Option<Timestamp>, StoreError> {
    Ok(conn.query_opt(LAST, &[]).await?.map(|row| row.get(0)))
}

pub(super) const RECORD: &str = "-- retention_record_pass
INSERT INTO retention_passes (last_at) VALUES ($1) ON CONFLICT (is_only) DO UPDATE SET last_at = excluded.last_at";

/// Takes note of a pass.
///
/// # Errors
/// When the database fails.
pub async fn record(conn: &Conn, at: Timestamp) -> Result<(), StoreError> {
    conn.execute(RECORD, &[&at]).await.map(drop)
}

macro_rules! newest {
    ($table:literal, $and:literal) => {
        concat!("(SELECT ingested_at FROM ", $table, $and, " ORDER BY id DESC LIMIT 1000)")
    };
}

// Ids are made in the order of time, so the last ones are of the newest rows: the last of all, since somebody else may have
// made them otherwise, and the last that are not ahead of the clock, since it may have been ahead before.
pub(super) const NEWEST_ROW: &str = concat!(
    "-- retention_newest_row
SELECT max(came_in_at) FROM (
    ",
    newest!("telemetry_raw", ""),
    " UNION ALL ",
    newest!("telemetry_raw", " WHERE id <= $2"),
    " UNION ALL ",
    newest!("device_events", ""),
    " UNION ALL ",
    newest!("device_events", " WHERE id <= $2"),
    "
    UNION ALL (SELECT created_at FROM media_objects WHERE created_at <= $1 ORDER BY created_at DESC LIMIT 1)
    UNION ALL (SELECT max(updated_at) FROM device_last_seen WHERE updated_at <= $1)
    UNION ALL (SELECT max(updated_at) FROM sync_state WHERE updated_at <= $1)
) AS newest (came_in_at) WHERE came_in_at <= $1"
);

/// About when something came in last, as far as few looks can tell: for a database that has had no pass yet.
///
/// # Errors
/// When the database fails.
pub async fn newest_row(conn: &Conn, now: Timestamp) -> Result<Option<Timestamp>, StoreError> {
    let last_id = id::last_id_at(now);
    Ok(conn.query_one(NEWEST_ROW, &[&now, &last_id]).await?.get(0))
}
