//! What a pass did, or would have done.

use std::collections::BTreeMap;
use std::time::Duration;

use schema::clock::Timestamp;
use schema::metrics;
use tokio::time::Instant;

use super::trouble::Trouble;

/// How often a pass says how far it has come.
const PROGRESS_EVERY: Duration = Duration::from_secs(10);

/// The result of a pass.
#[derive(Clone, Debug)]
pub struct Report {
    /// When it began.
    pub started_at: Timestamp,
    /// When it ended.
    pub finished_at: Timestamp,
    /// Whether it only counted what it would delete.
    pub is_dry_run: bool,
    /// Rows that went, by table.
    pub deleted_rows: BTreeMap<&'static str, u64>,
    /// Files that went.
    pub deleted_files: u64,
    /// What they had taken.
    pub freed_bytes: u64,
    /// What did not succeed, each with its reason.
    pub errors: Vec<String>,
    told_at: Instant,
}

impl Report {
    pub(super) fn new(now: Timestamp, is_dry_run: bool) -> Self {
        Self {
            started_at: now,
            finished_at: now,
            is_dry_run,
            deleted_rows: BTreeMap::new(),
            deleted_files: 0,
            freed_bytes: 0,
            errors: Vec::new(),
            told_at: Instant::now(),
        }
    }

    /// What did not succeed, as one text.
    #[must_use]
    pub fn error(&self) -> Option<String> {
        if self.errors.is_empty() { None } else { Some(self.errors.join("; ")) }
    }

    /// Rows of a table went.
    pub(super) fn rows(&mut self, table: &'static str, count: u64) {
        if count == 0 {
            return;
        }
        *self.deleted_rows.entry(table).or_default() += count;
        if !self.is_dry_run {
            metrics::retention_deleted_rows(table).increment(count);
        }
        self.tell_progress();
    }

    /// A file went.
    pub(super) fn file(&mut self, bytes: u64) {
        self.deleted_files += 1;
        self.freed_bytes += bytes;
        if !self.is_dry_run {
            metrics::retention_deleted_files().increment(1);
            metrics::retention_freed_bytes().increment(bytes);
        }
        self.tell_progress();
    }

    /// A part of the pass failed; the others go on.
    pub(super) fn note<E: std::error::Error + 'static>(
        &mut self,
        part: &'static str,
        outcome: Result<(), E>,
    ) {
        if let Err(error) = outcome {
            let cause = schema::store::cause(&error);
            tracing::warn!(part, %error, cause, "a part of the retention pass failed, the next pass tries again");
            self.errors.push(format!("{part}: {error}"));
        }
    }

    /// A part of the pass did nothing, for a reason that is told elsewhere.
    pub(super) fn refuse(&mut self, part: &'static str, trouble: &Trouble) {
        self.errors.push(format!("{part}: {}", trouble.text()));
    }

    fn tell_progress(&mut self) {
        if self.told_at.elapsed() < PROGRESS_EVERY {
            return;
        }
        self.told_at = Instant::now();
        tracing::info!(
            dry_run = self.is_dry_run,
            deleted_rows = self.deleted_rows.values().sum::<u64>(),
            deleted_files = self.deleted_files,
            freed_bytes = self.freed_bytes,
            "retention pass goes on"
        );
    }

    pub(super) fn log(&self) {
        for (table, rows) in &self.deleted_rows {
            tracing::info!(table, rows, dry_run = self.is_dry_run, "old rows deleted");
        }
        tracing::info!(
            dry_run = self.is_dry_run,
            deleted_files = self.deleted_files,
            freed_bytes = self.freed_bytes,
            duration_ms = (self.finished_at - self.started_at).num_milliseconds(),
            failed_parts = self.errors.len(),
            "retention pass ended"
        );
    }
}
