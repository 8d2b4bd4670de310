//! Room on the volume of the database: what goes before its time when that is nearly full.
//!
//! First days of events that the cloud has, the oldest first, each as a whole table, which gives its room back to the volume.
//! Then aggregates of one minute that are older than a week, whose hours and days stay; the room of these rows goes to the
//! next rows of their table. What the cloud has not acknowledged never goes.

use std::path::Path;

use schema::clock::Timestamp;
use schema::metrics;
use schema::store::retention::lock::PassLock;
use schema::store::retention::rows;
use schema::store::retention::tables::{self, Age, Fate, Kind};

use super::janitor::{Janitor, PassError, days_before};
use super::report::Report;
use crate::disk;

/// Days for which events that the cloud has are kept whatever happens.
const ACKED_DAYS_MIN: u64 = 1;
/// Days for which aggregates of one minute are kept whatever happens.
const MINUTES_DAYS_MIN: u64 = 7;

impl Janitor {
    /// Whether a volume of the database has too little room. One that cannot be asked has enough.
    pub(super) fn lacks_database_room(&self, place: &Path) -> bool {
        let least = self.settings.database_free_bytes_min;
        disk::space(place).is_ok_and(|space| space.free_bytes < least)
    }

    /// Makes room on the volume of the database, unless another engine is at it.
    pub(super) async fn make_database_room(&self, place: &Path) {
        let now = self.watch.now();
        let mut report = Report::new(now, self.settings.is_dry_run);
        match PassLock::take(&self.store).await {
            Ok(Some(lock)) => {
                let outcome = self.shed(place, now, &mut report).await;
                report.note("database_room", outcome);
                report.note("lock", lock.release().await);
            }
            Ok(None) => return,
            Err(error) => report.note("lock", Err(error)),
        }
        report.log();
    }

    async fn shed(&self, place: &Path, now: Timestamp, report: &mut Report) -> Result<(), PassError> {
        let age = Age { now, before: days_before(now, ACKED_DAYS_MIN) };
        let old = async |conn: &mut _| tables::old(conn, Kind::Acked, age).await;
        for table in self.store.run("old_tables", old).await? {
            if !self.lacks_database_room(place) {
                return Ok(());
            }
            let fate = self.drop_table(&table, age, 1, report).await?;
            if !report.is_dry_run && matches!(fate, Fate::Dropped { .. }) {
                metrics::retention_emergency_tables().increment(1);
            }
        }
        if self.lacks_database_room(place) {
            self.rows(rows::MINUTES, days_before(now, MINUTES_DAYS_MIN), report).await?;
        }
        Ok(())
    }
}
