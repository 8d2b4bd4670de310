//! Housekeeping that cannot wait for a pass: partitions made ahead, expired dedupe marks and old refusals removed.

use std::time::Duration;

use schema::clock::watch::ClockWatch;
use schema::clock::{Clock, Timestamp};
use schema::metrics;
use schema::store::partition::{self, Month};
use schema::store::retention::rows;
use schema::store::{Store, StoreError, console, dedupe, index, reject};

use super::janitor::rested;
use crate::chore::Chore;
use crate::gauges::Measured;

/// How often the partitions ahead are looked after.
const PARTITIONS_EVERY: Duration = Duration::from_secs(600);
/// How soon a clock is asked again that was not believed.
const CLOCK_RETRY: Duration = Duration::from_secs(60);

/// How often the indexes are looked after.
const INDEXES_EVERY: Duration = Duration::from_secs(6 * 3600);
/// The longest that attaching a partition may keep others waiting, after less was not enough again and again.
const PATIENCE_MAX: Duration = Duration::from_secs(16);

/// Makes partitions ahead of the rows that need them.
#[derive(Clone)]
pub struct Partitions {
    store: Store,
    clock: Clock,
    /// How long attaching a partition may take. A default partition is read as a whole for it, which takes long when it is
    /// full of rows that belong to no month of ours.
    patience: Duration,
    gauge: Measured,
}

impl Partitions {
    /// Over a database.
    #[must_use]
    pub fn new(store: Store, clock: Clock) -> Self {
        let gauge = Measured::new("telemetry.default_partition_rows");
        Self { store, clock, patience: partition::ATTACH_PATIENCE, gauge }
    }

    /// Moves the rows of a month into its partition, some at a time, and attaches it.
    async fn fill(&mut self, month: &Month) -> Result<(), StoreError> {
        self.store.run("stage_partition", async |conn| month.stage(conn).await).await?;
        let (mut rows, mut next) = (0, Some(0));
        while let Some(page) = next {
            let chunk = self.store.run("move_strays", async |conn| month.move_chunk(conn, page).await);
            let moved = rested(chunk).await?;
            rows += moved.rows;
            next = moved.next;
        }
        let vacuum = async |conn: &mut _| partition::vacuum_default(conn, month).await;
        self.store.run_at_leisure("vacuum_default", vacuum).await?;
        let patience = self.patience;
        self.patience = (patience * 2).min(PATIENCE_MAX);
        self.store.run("attach_partition", async |conn| month.attach(conn, patience).await).await?;
        self.patience = partition::ATTACH_PATIENCE;
        tracing::info!(table = month.table(), rows, "rows moved into the partition of their month");
        Ok(())
    }

    /// Shows how many readings belong to no month.
    async fn show_strays(&mut self) {
        let strays = self.store.run("default_partition", async |conn| partition::strays(conn).await).await;
        let gauge = metrics::telemetry_default_partition_rows();
        if let Some(strays) = self.gauge.found(strays, [gauge.clone()]) {
            gauge.set(strays as f64);
        }
    }
}

/// Makes the indexes of tables that may be large.
#[derive(Clone)]
pub struct Indexes {
    /// The database.
    pub store: Store,
}

impl Chore for Indexes {
    const NAME: &'static str = "indexes";
    type Error = StoreError;

    async fn run(&mut self) -> Result<Duration, StoreError> {
        self.store.run_at_leisure("indexes", async |conn| index::ensure(conn).await).await?;
        Ok(INDEXES_EVERY)
    }
}

impl Chore for Partitions {
    const NAME: &'static str = "partitions";
    type Error = StoreError;

    async fn run(&mut self) -> Result<Duration, StoreError> {
        self.show_strays().await;
        let now = self.clock.now();
        let crowded =
            self.store.run("partitions", async |conn| partition::ensure_ahead(conn, now).await).await?;
        for month in &crowded {
            self.fill(month).await?;
        }
        Ok(PARTITIONS_EVERY)
    }
}

/// Removes expired dedupe marks and logins of the console, and all but the newest refusals and strangers.
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
        self.close_logins(now).await?;
        Ok(Duration::from_secs(self.every_minutes * 60))
    }
}

impl Cleanup {
    async fn delete_expired(&self, now: Timestamp) -> Result<(), StoreError> {
        let mut expired = dedupe::ExpiredMarks::new(now);
        loop {
            let delete = self.store.run("dedupe_cleanup", async |conn| expired.delete_chunk(conn).await);
            let deleted = rested(delete).await?;
            metrics::retention_deleted_rows("ingress_dedupe").increment(deleted);
            if deleted < dedupe::EXPIRED_ROWS_PER_CHUNK.unsigned_abs() {
                return Ok(());
            }
        }
    }

    async fn close_logins(&self, now: Timestamp) -> Result<(), StoreError> {
        loop {
            let expire = self.store.run("console_expire", async |conn| console::expire(conn, now).await);
            let expired = rested(expire).await?;
            metrics::retention_deleted_rows("console_sessions").increment(expired);
            if expired < console::ROWS_PER_CHUNK.unsigned_abs() {
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
