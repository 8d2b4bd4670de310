//! One pass: part after part, chunk after chunk. A part that fails does not keep the others from their turn.

use std::time::Duration;

use schema::clock::Timestamp;
use schema::metrics;
use schema::store::retention::lock::PassLock;
use schema::store::retention::passes;
use schema::store::retention::rows::{self, ROWS_PER_CHUNK, Rule, StrayPlace, Strays};
use schema::store::retention::stamps;
use schema::store::retention::tables::{self, Age, Fate, Kind, OldTable};

use super::PassOrder;
use super::janitor::{Janitor, PassError, days_before, rested};
use super::mark::Standing;
use super::report::Report;
use super::trouble::Trouble;
use crate::clock;

/// How long the offer of an upload is kept after its end.
const UPLOAD_DAYS: u64 = 7;
/// How long a job of inference is kept after its completion.
const JOB_DAYS: u64 = 30;
/// How long it is known who did what.
const AUDIT_DAYS: u64 = 400;
/// How long a dead letter is kept after it was applied again.
const REDRIVEN_DAYS: u64 = 30;
/// How long it is known what was discarded, and why.
const DISCARDED_DAYS: u64 = 400;
/// The digest of an hour is of use for longer than the events of that hour can be resent.
const DIGEST_DAYS: u64 = 92;
/// Attempts to drop a table in one pass, while nothing has been in the way yet.
const DROP_ATTEMPTS_MAX: u32 = 3;
/// The wait between them.
const DROP_RETRY: Duration = Duration::from_secs(1);

impl Janitor {
    /// Runs one pass, unless another engine does.
    pub(super) async fn pass(&self, order: PassOrder) -> Report {
        let is_dry_run = order.is_dry_run.unwrap_or(self.settings.is_dry_run);
        let mut report = Report::new(self.watch.now(), is_dry_run);
        match PassLock::take(&self.store).await {
            Ok(Some(lock)) => {
                let outcome = self.believed(order, &mut report).await;
                report.note("clock", outcome);
                report.note("lock", lock.release().await);
            }
            Ok(None) => report.note("lock", Err(PassError::Elsewhere)),
            Err(error) => report.note("lock", Err(error)),
        }
        report.finished_at = self.watch.now();
        report.log();
        report
    }

    /// Runs the parts, if it is time for them by a clock that can be believed.
    async fn believed(&self, order: PassOrder, report: &mut Report) -> Result<(), PassError> {
        let standing = self.look_at_store(order.adopts_store && !report.is_dry_run).await;
        let Some(now) = self.believed_now(order.confirms_clock, report).await? else { return Ok(()) };
        self.parts(now, report).await;
        match standing {
            Ok(standing) => self.files(standing, now, order, report).await,
            Err(error) => report.note("store", Err(error)),
        }
        if !report.is_dry_run {
            self.store.run("record_pass", async |conn| passes::record(conn, now).await).await?;
        }
        Ok(())
    }

    /// The time by which things are old now; `None` while the clock is not believed.
    async fn believed_now(
        &self,
        is_confirmed: bool,
        report: &mut Report,
    ) -> Result<Option<Timestamp>, PassError> {
        let last_pass = self.ask_of_clock().await?;
        if is_confirmed && !report.is_dry_run {
            self.watch.confirm();
        }
        // What a person says is not measured by the last pass.
        let verdict = if is_confirmed { Ok(self.watch.now()) } else { self.watch.judge(last_pass) };
        let trouble = verdict.as_ref().err().map(|unbelievable| Trouble {
            reason: "the clock is not believed, so nothing is deleted by age",
            detail: format!("{unbelievable}; if it is right, order janitor/run?confirm_clock=true"),
        });
        metrics::retention_clock_unbelievable().set(f64::from(u8::from(trouble.is_some())));
        if let Some(trouble) = &trouble {
            report.refuse("clock", trouble);
        }
        self.troubles.note("clock", trouble);
        Ok(verdict.ok())
    }

    /// When the last pass ran. The watch over the clock is told, once, what the database knows.
    pub(super) async fn ask_of_clock(&self) -> Result<Option<Timestamp>, PassError> {
        let last_pass = self.store.run("last_pass", async |conn| passes::last(conn).await).await?;
        clock::ask(&self.store, &self.watch).await?;
        Ok(last_pass)
    }

    async fn parts(&self, now: Timestamp, report: &mut Report) {
        let settings = &self.settings;
        let raw = days_before(now, settings.telemetry_raw_days);
        if !report.is_dry_run {
            let outcome = self.mend_stamps(now).await;
            report.note("stamps", outcome);
        }
        self.held.begin();
        for (kind, before) in [
            (Kind::Readings, raw),
            (Kind::Events, raw),
            (Kind::Acked, days_before(now, settings.outbox_acked_days)),
        ] {
            let outcome = self.tables(kind, Age { now, before }, report).await;
            report.note(kind.table(), outcome);
        }
        self.held.end();
        for strays in [rows::READINGS, rows::EVENTS] {
            let outcome = self.strays(strays, raw, report).await;
            report.note(strays.table, outcome);
        }
        for (rule, days) in [
            (rows::AGGREGATES, settings.telemetry_agg_days),
            (rows::FAULTS, settings.telemetry_agg_days),
            (rows::AUDIT, AUDIT_DAYS),
            (rows::UPLOADS, UPLOAD_DAYS),
            (rows::JOBS, JOB_DAYS),
            (rows::DEAD_LETTERS, REDRIVEN_DAYS),
            (rows::DISCARDED, DISCARDED_DAYS),
            (rows::LEDGER_HOURS, DIGEST_DAYS),
        ] {
            let outcome = self.rows(rule, days_before(now, days), report).await;
            report.note(rule.table, outcome);
        }
    }

    /// The parts that deal with files. What is unknown is measured by all there are.
    async fn files(&self, standing: Standing, now: Timestamp, order: PassOrder, report: &mut Report) {
        let outcome = self.orphans(standing, now, order, report).await;
        report.note("orphans", outcome);
        self.images(standing, now, report).await;
        let outcome = self.expired_uploads(standing, days_before(now, UPLOAD_DAYS), report).await;
        report.note("media_uploads", outcome);
    }

    /// Sets stamps right that a wrong clock gave: what came in then is as old as the time for which it is known.
    async fn mend_stamps(&self, now: Timestamp) -> Result<(), PassError> {
        for (table, column) in [
            ("media_objects", "created_at"),
            (rows::READINGS.default, "ingested_at"),
            (rows::EVENTS.default, "ingested_at"),
        ] {
            self.mend_stamps_of(table, column, now).await?;
        }
        Ok(())
    }

    async fn mend_stamps_of(&self, table: &str, column: &str, now: Timestamp) -> Result<(), PassError> {
        let mut rows = 0;
        loop {
            let mend = async |conn: &mut _| stamps::mend(conn, table, column, now).await;
            let mended = rested(self.store.run("mend_stamps", mend)).await?;
            rows += mended;
            if mended < ROWS_PER_CHUNK.unsigned_abs() {
                break;
            }
        }
        if rows > 0 {
            tracing::info!(table, rows, "rows came in while the clock was wrong, their age counts from now");
        }
        Ok(())
    }

    /// Drops the tables of a kind that are over.
    async fn tables(&self, kind: Kind, age: Age, report: &mut Report) -> Result<(), PassError> {
        let mut is_busy = false;
        for table in self.store.run("old_tables", async |conn| tables::old(conn, kind, age).await).await? {
            if kind != Kind::Acked && !report.is_dry_run {
                self.mend_stamps_of(&table.name, "ingested_at", age.now).await?;
            }
            // Whoever is in the way of one is often in the way of all, and is not waited for again.
            let attempts_max = if is_busy { 1 } else { DROP_ATTEMPTS_MAX };
            match self.drop_table(&table, age, attempts_max, report).await? {
                Fate::Busy => is_busy = true,
                Fate::Held(hold) => self.held.note(&table.name, hold),
                Fate::Dropped { .. } => {}
            }
        }
        if is_busy { Err(PassError::Busy) } else { Ok(()) }
    }

    /// Drops a table, or says how many rows would go.
    pub(super) async fn drop_table(
        &self,
        table: &OldTable,
        age: Age,
        attempts_max: u32,
        report: &mut Report,
    ) -> Result<Fate, PassError> {
        let hold = async |conn: &mut _| tables::hold(conn, table, age).await;
        if let Some(hold) = self.store.run("is_table_held", hold).await? {
            return Ok(Fate::Held(hold));
        }
        for attempt in 1..=attempts_max {
            let fate = if report.is_dry_run {
                let count =
                    self.store.run("rows_about", async |conn| tables::rows_about(conn, &table.name).await);
                Fate::Dropped { rows: count.await? }
            } else {
                self.store.run("drop_table", async |conn| tables::drop(conn, table, age).await).await?
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
                Fate::Held(_) | Fate::Busy => return Ok(fate),
            }
        }
        Ok(Fate::Busy)
    }

    async fn strays(&self, strays: Strays, before: Timestamp, report: &mut Report) -> Result<(), PassError> {
        let mut next = Some(StrayPlace::start());
        while let Some(after) = next {
            next = rested(self.stray_chunk(strays, before, after, report)).await?;
        }
        Ok(())
    }

    async fn stray_chunk(
        &self,
        strays: Strays,
        before: Timestamp,
        after: StrayPlace,
        report: &mut Report,
    ) -> Result<Option<StrayPlace>, PassError> {
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

    pub(super) async fn rows(
        &self,
        rule: Rule,
        before: Timestamp,
        report: &mut Report,
    ) -> Result<(), PassError> {
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
