//! The tail of readings that their block range index does not know.
//!
//! A vacuum tells the index which times new pages hold; until then every look by time reads them. By default a table that
//! only grows is vacuumed when a fifth of it is new, which at the end of a month is days of readings, read anew with every
//! pass of the aggregation. With a fixed number the tail stays as short as it was on the first day.

use tokio_postgres::error::SqlState;

use crate::store::{Conn, StoreError};

/// Every statement of this module.
pub const STATEMENTS: &[&str] = &[LONG_TAILED];

/// New rows after which a table of readings is vacuumed: four minutes of 200/s, and about 1,500 pages.
const ROWS_MAX: u32 = 50_000;
/// An automatic vacuum that is under way is left in peace; the next look tries again.
const LOCK_MS: u32 = 200;

const LONG_TAILED: &str = "-- long_tailed_partitions
SELECT c.relname::text FROM pg_inherits AS i JOIN pg_class AS c ON c.oid = i.inhrelid
WHERE i.inhparent = 'telemetry_raw'::regclass AND NOT coalesce(c.reloptions, '{}') @> $1::text[]
ORDER BY c.relname";

/// Has the tables of readings vacuumed in time.
///
/// # Errors
/// When the database fails. A table that somebody holds is no failure.
pub(super) async fn shorten(conn: &mut Conn) -> Result<(), StoreError> {
    let options = [
        "autovacuum_vacuum_insert_scale_factor=0".to_owned(),
        format!("autovacuum_vacuum_insert_threshold={ROWS_MAX}"),
    ];
    let begin = format!("BEGIN; SET LOCAL lock_timeout = '{LOCK_MS}ms'");
    for row in conn.query(LONG_TAILED, &[&options.as_slice()]).await? {
        let table: &str = row.get(0);
        let sql = format!("ALTER TABLE {table} SET ({})", options.join(", "));
        let work = async |conn: &Conn| conn.batch("shorten_tail", &sql).await.map(Some);
        match conn.transaction_from("shorten_tail", &begin, work).await {
            Err(error) if error.code() == Some(&SqlState::LOCK_NOT_AVAILABLE) => {}
            outcome => outcome.map(drop)?,
        }
    }
    Ok(())
}
