//! Stamps of when rows came in, where a wrong clock gave them.
//!
//! A row that came in before the clock was set looks decades old, and one that came in while it stood years ahead would
//! stay until then. When either came in nobody knows, so its age counts from when that is noticed.

use chrono::{DateTime, Duration};

use super::rows::ROWS_PER_CHUNK;
use crate::clock::Timestamp;
use crate::store::{Conn, StoreError, at};

/// No engine ran before this time: a stamp from there says that the clock was not set.
pub const OLDEST: Timestamp = DateTime::from_timestamp(1_577_836_800, 0).expect("2020 is in the calendar");
/// By how much the clocks of two engines may differ.
const AHEAD_MAX: Duration = Duration::days(1);

/// The newest time at which something can have come in.
#[must_use]
pub fn newest(now: Timestamp) -> Timestamp {
    now.checked_add_signed(AHEAD_MAX).unwrap_or(Timestamp::MAX_UTC)
}

/// Sets stamps to the present that cannot be right, some at a time, and returns how many; fewer than [`ROWS_PER_CHUNK`]
/// means done. The names are those of a table and of its column.
///
/// # Errors
/// When the database fails.
pub async fn mend(conn: &Conn, table: &str, column: &str, now: Timestamp) -> Result<u64, StoreError> {
    let sql = format!(
        "UPDATE ONLY {table} SET {column} = $1 WHERE ctid = ANY (ARRAY(
            SELECT ctid FROM ONLY {table} WHERE {column} < $2 OR {column} > $3 LIMIT $4 FOR UPDATE SKIP LOCKED))"
    );
    // Some of the tables are about to go, so it is not kept prepared.
    let mended = conn.raw().execute(&*sql, &[&now, &OLDEST, &newest(now), &ROWS_PER_CHUNK]).await;
    mended.map_err(at("mend_stamps"))
}
