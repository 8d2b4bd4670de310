//! Rows that are deleted one chunk at a time.

use uuid::Uuid;

use super::{stamps, unacked};
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

/// Aggregates, by the end of their bucket and by when they were made: those of readings that a device has stamped in the
/// past stay as long as the others. The condition on the start is what the index knows.
pub const AGGREGATES: Rule = rule!(
    "telemetry_agg",
    r#"r."window" IN ('1m', '1h', '1d') AND r.bucket_start_at < $1 AND r.bucket_end_at < $1
    AND r.created_at < $1"#
);
/// Aggregates of one minute alone: they go first when the volume of the database is nearly full.
pub const MINUTES: Rule = Rule {
    table: "telemetry_agg",
    count: r#"-- retention_count_minutes
SELECT count(*) FROM telemetry_agg AS r
WHERE r."window" = '1m' AND r.bucket_start_at < $1 AND r.bucket_end_at < $1 AND r.created_at < $1"#,
    delete: r#"-- retention_delete_minutes
DELETE FROM telemetry_agg WHERE ctid = ANY (ARRAY(
    SELECT r.ctid FROM telemetry_agg AS r
    WHERE r."window" = '1m' AND r.bucket_start_at < $1 AND r.bucket_end_at < $1 AND r.created_at < $1
    LIMIT $2 FOR UPDATE SKIP LOCKED))"#,
};
/// Rows of the audit log.
pub const AUDIT: Rule = rule!("audit_log", "r.happened_at < $1");
/// Offers of uploads, from their completion on.
pub const UPLOADS: Rule = rule!("media_uploads", "r.status = 'completed' AND r.completed_at < $1");
/// Jobs of inference, from their completion on; their results stay. A job is completed after it was due, by which the
/// index knows it.
pub const JOBS: Rule =
    rule!("inference_jobs", "r.status = 'completed' AND r.next_attempt_at < $1 AND r.updated_at < $1");
/// Dead letters, from the moment on in which they were applied again. Open ones stay.
pub const DEAD_LETTERS: Rule = rule!("dead_letters", "r.redriven_at < $1");

/// What a person has discarded, from then on.
pub const DISCARDED: Rule = rule!("discarded_events", "r.discarded_at < $1");

/// The digest of what the cloud acknowledged, by the hour of the events.
pub const LEDGER_HOURS: Rule = rule!("ledger_hours", "r.hour < $1");

/// What was wrong with sensors, from the moment on in which it was written last: as long as the aggregates it belongs to.
pub const FAULTS: Rule = rule!("sensor_faults", "r.updated_at < $1");

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

/// Devices that are not let in and of which a message spoke all the same: so many are remembered.
pub const STRANGERS_MAX: i64 = 10_000;

pub(super) const TRIM_STRANGERS: &str = "-- retention_trim_strangers
DELETE FROM device_last_seen WHERE ctid = ANY (ARRAY(
    SELECT r.ctid FROM device_last_seen AS r
    WHERE NOT EXISTS (
        SELECT 1 FROM device_allowlist AS d WHERE d.tenant_id = r.tenant_id AND d.device_id = r.device_id)
    ORDER BY r.last_seen_at DESC OFFSET $1 LIMIT $2))";

/// Forgets one chunk of the strangers that were seen before the newest [`STRANGERS_MAX`], and returns how many.
///
/// # Errors
/// When the database fails.
pub async fn trim_strangers(conn: &Conn) -> Result<u64, StoreError> {
    conn.execute(TRIM_STRANGERS, &[&STRANGERS_MAX, &ROWS_PER_CHUNK]).await
}

/// Rows whose time lies outside every monthly partition. Each goes by itself, as long after it came in as any other, once
/// the cloud has its event.
#[derive(Clone, Copy, Debug)]
pub struct Strays {
    /// The partitioned table, which is also the label of the metric.
    pub table: &'static str,
    /// Its default partition.
    pub default: &'static str,
    pub(super) due: &'static str,
    pub(super) delete: &'static str,
}

macro_rules! strays {
    ($table:literal) => {
        Strays {
            table: $table,
            default: concat!($table, "_default"),
            due: concat!(
                "-- retention_due_",
                $table,
                "\nSELECT id, tenant_id, event_id, ingested_at FROM ",
                $table,
                "_default WHERE ingested_at < $1 AND (ingested_at, id) > ($2, $3) ORDER BY ingested_at, id LIMIT $4"
            ),
            delete: concat!(
                "-- retention_delete_",
                $table,
                "\nDELETE FROM ",
                $table,
                "_default WHERE ingested_at < $1 AND id = ANY ($2)"
            ),
        }
    };
}

/// Readings of odd times.
pub const READINGS: Strays = strays!("telemetry_raw");
/// Generic events of odd times.
pub const EVENTS: Strays = strays!("device_events");

/// Where a chunk of strays ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StrayPlace(Timestamp, Uuid);

impl StrayPlace {
    /// Before the first one.
    #[must_use]
    pub fn start() -> Self {
        Self(stamps::OLDEST, Uuid::nil())
    }
}

/// One chunk of strays that may go.
#[derive(Debug)]
pub struct StrayChunk {
    /// Those whose events the cloud has.
    pub ids: Vec<Uuid>,
    /// Where the next chunk begins; `None` when this was the last one.
    pub next: Option<StrayPlace>,
}

impl Strays {
    /// Looks at one chunk behind this place.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn due(
        &self,
        conn: &Conn,
        before: Timestamp,
        after: StrayPlace,
    ) -> Result<StrayChunk, StoreError> {
        let StrayPlace(at, id) = after;
        let rows = conn.query(self.due, &[&before, &at, &id, &ROWS_PER_CHUNK]).await?;
        let tenants: Vec<&str> = rows.iter().map(|row| row.get(1)).collect();
        let events: Vec<Uuid> = rows.iter().map(|row| id::outbox_id(row.get(1), row.get(2))).collect();
        let held = unacked(conn, &tenants, &events).await?;
        let is_last = rows.len() < usize::try_from(ROWS_PER_CHUNK).unwrap_or(usize::MAX);
        let next = rows.last().filter(|_| !is_last).map(|row| StrayPlace(row.get(3), row.get(0)));
        let due =
            rows.iter().zip(events).filter(|(_, event)| !held.contains(event)).map(|(row, _)| row.get(0));
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
