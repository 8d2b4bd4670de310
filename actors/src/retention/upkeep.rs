//! Housekeeping that cannot wait for a pass: partitions made ahead, expired dedupe marks and old refusals removed.

use std::time::Duration;

use schema::clock::watch::ClockWatch;
use schema::clock::{Clock, Timestamp};
use schema::metrics;
use schema::store::retention::rows;
use schema::store::{Store, StoreError, dedupe, partition, reject, telemetry};

use super::pass::rested;
use crate::chore::Chore;

/// How often the partitions ahead are looked after.
const PARTITIONS_EVERY: Duration = Duration::from_secs(600);
/// How soon a clock is asked again that was not believed.
const CLOCK_RETRY: Duration = Duration::from_secs(60);

/// Makes partitions ahead of the rows that need them.
#[derive(Clone)]
pub struct Partitions {
    /// The database.
    pub store: Store,
    /// Wall time.
    pub clock: Clock,
}

impl Chore for Partitions {
    const NAME: &'static str = "partitions";
    type Error = StoreError;

    async fn run(&mut self) -> Result<Duration, StoreError> {
        let now = self.clock.now();
        self.store.run("partitions", async |conn| partition::ensure_ahead(conn, now).await).await?;
        let strays = self
            .store
            .run("default_partition", async |conn| telemetry::default_partition_rows(conn).await)
            .await?;
        metrics::telemetry_default_partition_rows().set(f64::from(i32::try_from(strays).unwrap_or(i32::MAX)));
        Ok(PARTITIONS_EVERY)
    }
}

/// Removes expired dedupe marks, and all but the newest refusals and strangers.
#[derive(Clone)]
pub struct Cleanup {
    /// The database.
    pub store: Store,
    /// What of the wall time may be believed.
    pub watch: ClockWatch,
    /// Minutes between two rounds.
    pub every_minutes: u64,
    /// Refusals that are kept.
    pub rejects_rows_max: i64,
}

impl Chore for Cleanup {
    const NAME: &'static str = "cleanup";
    type Error = StoreError;

    async fn run(&mut self) -> Result<Duration, StoreError> {
        self.trim_rejects().await?;
        self.trim_strangers().await?;
        // A mark that a wrong clock takes for expired would let its event in again.
        let Ok(now) = self.watch.judge(None) else { return Ok(CLOCK_RETRY) };
        self.delete_expired(now).await?;
        Ok(Duration::from_secs(self.every_minutes * 60))
    }
}

impl Cleanup {
    async fn delete_expired(&self, now: Timestamp) -> Result<(), StoreError> {
        loop {
            let delete =
                self.store.run("dedupe_cleanup", async |conn| dedupe::delete_expired(conn, now).await);
            let deleted = rested(delete).await?;
            metrics::retention_deleted_rows("ingress_dedupe").increment(deleted);
            if deleted < dedupe::EXPIRED_ROWS_PER_CHUNK.unsigned_abs() {
                return Ok(());
            }
        }
    }

    async fn trim_strangers(&self) -> Result<(), StoreError> {
        loop {
            let trim = self.store.run("trim_strangers", async |conn| rows::trim_strangers(conn).await);
            let trimmed = rested(trim).await?;
            metrics::retention_deleted_rows("device_last_seen").increment(trimmed);
            if trimmed < rows::ROWS_PER_CHUNK.unsigned_abs() {
                return Ok(());
            }
        }
    }

    async fn trim_rejects(&self) -> Result<(), StoreError> {
        let rows_max = self.rejects_rows_max;
        loop {
            let trim = self.store.run("trim_rejects", async |conn| reject::trim(conn, rows_max).await);
            let trimmed = rested(trim).await?;
            metrics::retention_deleted_rows("ingress_rejects").increment(trimmed);
            if trimmed < reject::TRIMMED_ROWS_PER_CHUNK.unsigned_abs() {
                return Ok(());
            }
        }
    }
}
