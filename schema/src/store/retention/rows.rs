//! Rows that are deleted one chunk at a time.

use uuid::Uuid;

use super::unacked;
use crate::clock::Timestamp;
use crate::id;
use crate::store::{Conn, StoreError};

/// Rows that one statement deletes at most.
pub const ROWS_PER_CHUNK: i64 = 2_000;

/// A table whose rows go once a condition on a time holds.
#[derive(Clone, Copy, Debug)]
pub struct Rule {
    /// The table, which is also the label of the metric.
    pub table: &'static str,
    pub(super) count: &'static str,
    pub(super) delete: &'static str,
}

// Rows that somebody else holds are left for the next pass. Times: $1.
macro_rules! rule {
    ($table:literal, $is_due:literal) => {
        Rule {
            table: $table,
            count: concat!(
                "-- retention_count_",
                $table,
                "\nSELECT count(*) FROM ",
                $table,
                " AS r WHERE ",
                $is_due
            ),
            delete: concat!(
                "-- retention_delete_",
                $table,
                "\nDELETE FROM ",
                $table,
                " WHERE ctid = ANY (ARRAY(SELECT r.ctid FROM ",
                $table,
                " AS r WHERE ",
                $is_due,
                " LIMIT $2 FOR UPDATE SKIP LOCKED))"
            ),
        }
    };
}

/// Aggregates, by the end of their bucket. The condition on the start is what the index knows.
pub const AGGREGATES: Rule = rule!(
    "telemetry_agg",
    r#"r."window" IN ('1m', '1h', '1d') AND r.bucket_start_at < $1 AND r.bucket_end_at < $1"#
);
/// Offers of uploads, from their completion or their expiry on.
pub const UPLOADS: Rule = rule!(
    "media_uploads",
    "(r.status = 'completed' AND r.completed_at < $1 OR r.status = 'expired' AND r.expires_at < $1)"
);
/// Dead letters, from the moment on in which they were applied again. Open ones stay.
pub const DEAD_LETTERS: Rule = rule!("dead_letters", "r.redriven_at < $1");

impl Rule {
    /// How many rows would go.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn count(&self, conn: &Conn, before: Timestamp) -> Result<u64, StoreError> {
        let count: i64 = conn.query_one(self.count, &[&before]).await?.get(0);
        Ok(count.unsigned_abs())
    }

    /// Deletes one chunk and returns how many rows went; fewer than [`ROWS_PER_CHUNK`] means done.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn delete(&self, conn: &Conn, before: Timestamp) -> Result<u64, StoreError> {
        conn.execute(self.delete, &[&before, &ROWS_PER_CHUNK]).await
    }
}

/// Rows whose time lay outside every monthly partition. Each goes by itself, once the cloud has its event.
#[derive(Clone, Copy, Debug)]
pub struct Strays {
    /// The partitioned table, which is also the label of the metric.
    pub table: &'static str,
    pub(super) due: &'static str,
    pub(super) delete: &'static str,
}

macro_rules! strays {
    ($table:literal) => {
        Strays {
            table: $table,
            due: concat!(
                "-- retention_due_",
                $table,
                "\nSELECT id, tenant_id, event_id FROM ",
                $table,
                "_default WHERE occurred_at < $1 AND id > $2 ORDER BY id LIMIT $3"
            ),
            delete: concat!(
                "-- retention_delete_",
                $table,
                "\nDELETE FROM ",
                $table,
                "_default WHERE occurred_at < $1 AND id = ANY ($2)"
            ),
        }
    };
}

/// Readings of odd times.
pub const READINGS: Strays = strays!("telemetry_raw");
/// Generic events of odd times.
pub const EVENTS: Strays = strays!("device_events");

/// One chunk of strays that may go.
#[derive(Debug)]
pub struct StrayChunk {
    /// Those whose events the cloud has.
    pub ids: Vec<Uuid>,
    /// Where the next chunk begins; `None` when this was the last one.
    pub next: Option<Uuid>,
}

impl Strays {
    /// Looks at one chunk behind this id.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn due(&self, conn: &Conn, before: Timestamp, after: Uuid) -> Result<StrayChunk, StoreError> {
        let rows = conn.query(self.due, &[&before, &after, &ROWS_PER_CHUNK]).await?;
        let ids: Vec<Uuid> = rows.iter().map(|row| row.get(0)).collect();
        let tenants: Vec<&str> = rows.iter().map(|row| row.get(1)).collect();
        let events: Vec<Uuid> = rows.iter().map(|row| id::outbox_id(row.get(1), row.get(2))).collect();
        let held = unacked(conn, &tenants, &events).await?;
        let is_last = rows.len() < usize::try_from(ROWS_PER_CHUNK).unwrap_or(usize::MAX);
        let next = if is_last { None } else { ids.last().copied() };
        let due = ids.into_iter().zip(events).filter(|(_, event)| !held.contains(event)).map(|(id, _)| id);
        Ok(StrayChunk { ids: due.collect(), next })
    }

    /// Deletes what may go.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn delete(&self, conn: &Conn, before: Timestamp, ids: &[Uuid]) -> Result<u64, StoreError> {
        conn.execute(self.delete, &[&before, &ids]).await
    }
}
