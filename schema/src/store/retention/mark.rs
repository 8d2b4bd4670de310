//! Who this database is to the store of its images: what the store's marker is compared with.

use uuid::Uuid;

use crate::clock::Timestamp;
use crate::store::{Conn, StoreError};

/// What this database calls itself in the marker of a store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Its id.
    pub id: Uuid,
    /// How often it has written markers; none that it wrote has a higher count.
    pub marks_count: i64,
    /// Whether the id was made in this very database, and not in one that this is a copy of.
    pub is_own: bool,
}

// The server's own identity, and the one that it gave the database: copied and restored databases have another.
macro_rules! database_key {
    () => {
        "(SELECT concat_ws('/', c.system_identifier, d.oid) FROM pg_control_system() AS c, pg_database AS d
    WHERE d.datname = current_database())"
    };
}

pub(super) const IDENTITY: &str = concat!(
    "-- retention_store_identity
SELECT id, marks_count, database_key = ",
    database_key!(),
    " FROM media_store"
);

/// The identity of this database, if it has one.
///
/// # Errors
/// When the database fails.
pub async fn identity(conn: &Conn) -> Result<Option<Identity>, StoreError> {
    let row = conn.query_opt(IDENTITY, &[]).await?;
    Ok(row.map(|row| Identity { id: row.get(0), marks_count: row.get(1), is_own: row.get(2) }))
}

pub(super) const CARRY_OVER: &str =
    concat!("-- retention_carry_over_store\nUPDATE media_store SET database_key = ", database_key!());

/// Keeps the id of this database although its server has another identity, since it was moved there as a whole and the old
/// one does not run any more.
///
/// # Errors
/// When the database fails.
pub async fn carry_over(conn: &Conn) -> Result<(), StoreError> {
    conn.execute(CARRY_OVER, &[]).await?;
    Ok(())
}

pub(super) const IDENTIFY: &str = concat!(
    "-- retention_identify_store
INSERT INTO media_store (id, database_key, marks_count) VALUES ($1, ",
    database_key!(),
    ", 0)
ON CONFLICT (is_only) DO UPDATE
SET id = excluded.id, database_key = excluded.database_key, marks_count = 0, marked_at = NULL
WHERE media_store.id = $2"
);

/// Gives this database an id instead of the one that it had, if any. When somebody else was faster, theirs stays.
///
/// # Errors
/// When the database fails.
pub async fn identify(conn: &Conn, id: Uuid, instead_of: Option<Uuid>) -> Result<(), StoreError> {
    conn.execute(IDENTIFY, &[&id, &instead_of]).await?;
    Ok(())
}

pub(super) const COUNT: &str = "-- retention_count_mark
UPDATE media_store SET marks_count = marks_count + 1, marked_at = $2 WHERE id = $1 RETURNING marks_count";

/// Counts a marker that is about to be written and returns its count.
///
/// # Errors
/// When the database fails.
pub async fn count(conn: &Conn, id: Uuid, now: Timestamp) -> Result<i64, StoreError> {
    Ok(conn.query_one(COUNT, &[&id, &now]).await?.get(0))
}
