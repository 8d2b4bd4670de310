//! One pass: part after part, chunk after chunk. A part that fails does not keep the others from their turn.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use chrono::Days;
use schema::clock::{Clock, Timestamp};
use schema::id::Uuid;
use schema::store::retention::lock::PassLock;
use schema::store::retention::rows::{self, ROWS_PER_CHUNK, Rule, Strays};
use schema::store::retention::tables::{self, Fate, Kind, OldTable};
use schema::store::{Store, StoreError};
use tokio::time::Instant;

use super::RetentionSettings;
use super::report::Report;
use crate::media::store::{MediaStore, MediaStoreError};

/// How long the offer of an upload is kept after its end.
const UPLOAD_DAYS: u64 = 7;
/// How long a dead letter is kept after it was applied again.
const REDRIVEN_DAYS: u64 = 30;
/// Attempts to drop a table in one pass, while nothing has been in the way yet.
const DROP_ATTEMPTS_MAX: u32 = 3;
/// The wait between them.
const DROP_RETRY: Duration = Duration::from_secs(1);
/// The longest rest between two chunks.
const REST_MAX: Duration = Duration::from_secs(1);

/// Why a part of a pass failed.
#[derive(Debug, thiserror::Error)]
pub(super) enum PassError {
    /// The database.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The place of the images.
    #[error(transparent)]
    Media(#[from] MediaStoreError),
    /// Others were at work on it.
    #[error("a table is in use, it goes with a later pass")]
    Busy,
    /// Some files stay for now.
    #[error("{0} files could not be deleted, the next pass tries again")]
    FilesLeft(u64),
    /// Another engine has the lock.
    #[error("another engine runs a pass")]
    Elsewhere,
}

/// Whoever runs a pass.
pub(super) struct Janitor {
    pub(super) settings: RetentionSettings,
    pub(super) store: Store,
    pub(super) clock: Clock,
    pub(super) media: Arc<dyn MediaStore>,
    /// Where the last look for files without a row ended.
    pub(super) listed_to: tokio::sync::Mutex<Option<String>>,
}

impl Janitor {
    pub(super) fn new(
        settings: RetentionSettings,
        store: Store,
        clock: Clock,
        media: Arc<dyn MediaStore>,
    ) -> Self {
        Self { settings, store, clock, media, listed_to: tokio::sync::Mutex::default() }
    }

    /// Runs one pass, unless another engine does.
    pub(super) async fn pass(&self, is_dry_run: bool) -> Report {
        let mut report = Report::new(self.clock.now(), is_dry_run);
        match PassLock::take(&self.store).await {
            Ok(Some(lock)) => {
                self.parts(&mut report).await;
                report.note("lock", lock.release().await);
            }
            Ok(None) => report.note("lock", Err(PassError::Elsewhere)),
            Err(error) => report.note("lock", Err(error)),
        }
        report.finished_at = self.clock.now();
        report.log();
        report
    }

    async fn parts(&self, report: &mut Report) {
        let settings = &self.settings;
        let raw = self.days_ago(settings.telemetry_raw_days);
        for (kind, before) in [
            (Kind::Readings, raw),
            (Kind::Events, raw),
            (Kind::Acked, self.days_ago(settings.outbox_acked_days)),
        ] {
            let outcome = self.tables(kind, before, report).await;
            report.note(kind.table(), outcome);
        }
        for strays in [rows::READINGS, rows::EVENTS] {
            let outcome = self.strays(strays, raw, report).await;
            report.note(strays.table, outcome);
        }
        for (rule, days) in [
            (rows::AGGREGATES, settings.telemetry_agg_days),
            (rows::UPLOADS, UPLOAD_DAYS),
            (rows::DEAD_LETTERS, REDRIVEN_DAYS),
        ] {
            let outcome = self.rows(rule, self.days_ago(days), report).await;
            report.note(rule.table, outcome);
        }
        self.images(report).await;
    }

    /// The present, so many days earlier.
    pub(super) fn days_ago(&self, days: u64) -> Timestamp {
        let now = self.clock.now();
        now.checked_sub_days(Days::new(days)).unwrap_or(Timestamp::MIN_UTC)
    }

    /// Drops the tables of a kind that are over.
    async fn tables(&self, kind: Kind, before: Timestamp, report: &mut Report) -> Result<(), PassError> {
        let mut is_busy = false;
        for table in self.store.run("old_tables", async |conn| tables::old(conn, kind, before).await).await? {
            // Whoever is in the way of one is often in the way of all, and is not waited for again.
            let attempts_max = if is_busy { 1 } else { DROP_ATTEMPTS_MAX };
            is_busy |= self.drop_table(&table, attempts_max, report).await? == Fate::Busy;
        }
        if is_busy { Err(PassError::Busy) } else { Ok(()) }
    }

    /// Drops a table, or says how many rows would go.
    async fn drop_table(
        &self,
        table: &OldTable,
        attempts_max: u32,
        report: &mut Report,
    ) -> Result<Fate, PassError> {
        if self.store.run("is_table_held", async |conn| tables::is_held(conn, table).await).await? {
            tracing::info!(
                table = table.name,
                "an old table is kept, an event of its time waits for the cloud"
            );
            return Ok(Fate::Held);
        }
        for attempt in 1..=attempts_max {
            let fate = if report.is_dry_run {
                let count =
                    self.store.run("rows_about", async |conn| tables::rows_about(conn, &table.name).await);
                Fate::Dropped { rows: count.await? }
            } else {
                self.store.run("drop_table", async |conn| tables::drop(conn, table).await).await?
            };
            match fate {
                Fate::Busy if attempt < attempts_max => tokio::time::sleep(DROP_RETRY).await,
                Fate::Dropped { rows } => {
                    tracing::info!(
                        table = table.name,
                        rows,
                        dry_run = report.is_dry_run,
                        "old table dropped"
                    );
                    report.rows(table.kind.table(), rows);
                    return Ok(fate);
                }
                Fate::Held | Fate::Busy => return Ok(fate),
            }
        }
        Ok(Fate::Busy)
    }

    async fn strays(&self, strays: Strays, before: Timestamp, report: &mut Report) -> Result<(), PassError> {
        let mut next = Some(Uuid::nil());
        while let Some(after) = next {
            next = rested(self.stray_chunk(strays, before, after, report)).await?;
        }
        Ok(())
    }

    async fn stray_chunk(
        &self,
        strays: Strays,
        before: Timestamp,
        after: Uuid,
        report: &mut Report,
    ) -> Result<Option<Uuid>, PassError> {
        let due = async |conn: &mut _| strays.due(conn, before, after).await;
        let chunk = self.store.run("due_strays", due).await?;
        let count = if report.is_dry_run {
            chunk.ids.len() as u64
        } else {
            let delete = async |conn: &mut _| strays.delete(conn, before, &chunk.ids).await;
            self.store.run("delete_strays", delete).await?
        };
        report.rows(strays.table, count);
        Ok(chunk.next)
    }

    async fn rows(&self, rule: Rule, before: Timestamp, report: &mut Report) -> Result<(), PassError> {
        if report.is_dry_run {
            let count = self.store.run("count_old_rows", async |conn| rule.count(conn, before).await).await?;
            report.rows(rule.table, count);
            return Ok(());
        }
        loop {
            let delete = self.store.run("delete_old_rows", async |conn| rule.delete(conn, before).await);
            let count = rested(delete).await?;
            report.rows(rule.table, count);
            if count < ROWS_PER_CHUNK.unsigned_abs() {
                return Ok(());
            }
        }
    }
}

/// Does a piece of work and then rests as long as it took, so that others have at least half of the database.
pub(super) async fn rested<T>(work: impl Future<Output = T>) -> T {
    let started = Instant::now();
    let outcome = work.await;
    tokio::time::sleep(started.elapsed().min(REST_MAX)).await;
    outcome
}
