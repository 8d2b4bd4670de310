//! What is known of the time, across restarts and power cuts.

use crate::clock::Timestamp;
use crate::clock::watch::Known;
use crate::store::retention::passes;
use crate::store::{Conn, StoreError};

/// Every statement of this module.
pub const STATEMENTS: &[&str] = &[KNOWN, KEEP];

const KNOWN: &str = "-- clock_known
SELECT known_at, leapt_at FROM engine_clock WHERE id = 1";

/// What an earlier life of this engine, or another one, knew of the time. A database that an earlier program wrote knows
/// none yet: its newest rows are the best there is then.
///
/// # Errors
/// When the database fails.
pub async fn known(conn: &Conn, now: Timestamp) -> Result<Known, StoreError> {
    let row = conn.query_one(KNOWN, &[]).await?;
    let kept = Known { known_at: row.get(0), leapt_at: row.get(1) };
    let known_at = match kept.known_at.max(passes::last(conn).await?) {
        Some(known_at) => Some(known_at),
        None => passes::newest_row(conn, now).await?,
    };
    Ok(Known { known_at, ..kept })
}

const KEEP: &str = "-- clock_keep
UPDATE engine_clock SET known_at = greatest(known_at, $1), leapt_at = greatest(leapt_at, $2) WHERE id = 1";

/// Keeps what is known of the time. Of two engines' words the newer one counts.
///
/// # Errors
/// When the database fails.
pub async fn keep(conn: &Conn, known: Known) -> Result<(), StoreError> {
    conn.execute(KEEP, &[&known.known_at, &known.leapt_at]).await?;
    Ok(())
}
