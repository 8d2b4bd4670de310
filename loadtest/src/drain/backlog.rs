//! The backlog: readings in the outbox that look as if the cloud had been away.

use std::time::Instant;

use anyhow::{Context, Result, ensure};
use chrono::Duration;
use tokio::sync::watch;

use schema::clock::{Clock, Timestamp};
use schema::store::bench::{Backlog, fill_outbox};

use crate::bench::Bench;
use crate::climate::Metric;
use crate::report::{Live, note, per_second};

/// Rows of one statement: well below its time limit.
const ROWS_PER_STATEMENT_MAX: u64 = 20_000;
/// Milliseconds from one reading to the next: the devices together send a thousand a second.
const STEP_MS: i64 = 1;
/// Readings made beyond the two backlogs: those that replace claimed ones.
const SPARE_ROWS: u64 = 200_000;

/// Makes readings in the order of time and knows how many of them wait.
pub(super) struct Filler {
    begins_at: Timestamp,
    /// Number of the next reading.
    next: u64,
    waiting: u64,
}

impl Filler {
    /// Begins so far in the past that two backlogs of `rows` end before now.
    pub(super) fn new(rows: u64) -> Self {
        let readings = i64::try_from(2 * rows + SPARE_ROWS).unwrap_or(i64::MAX / STEP_MS);
        let begins_at = Clock::system().now() - Duration::milliseconds(readings * STEP_MS);
        Self { begins_at, next: 0, waiting: 0 }
    }

    /// Rows that wait.
    pub(super) fn waiting(&self) -> u64 {
        self.waiting
    }

    /// So many rows were claimed and settled.
    pub(super) fn take(&mut self, rows: u64) {
        self.waiting = self.waiting.saturating_sub(rows);
    }

    /// All rows were sent; returns how many.
    pub(super) fn take_all(&mut self) -> u64 {
        std::mem::take(&mut self.waiting)
    }

    /// Fills the outbox until `rows` wait.
    pub(super) async fn fill_up_to(
        &mut self,
        bench: &Bench,
        rows: u64,
        stop: &watch::Receiver<bool>,
    ) -> Result<()> {
        let missing = rows.saturating_sub(self.waiting);
        if missing > ROWS_PER_STATEMENT_MAX {
            note(format!("filling the outbox with {missing} readings"));
        }
        let started = Instant::now();
        let mut live = Live::start(Some(missing));
        while self.waiting < rows {
            ensure!(!*stop.borrow(), "stopped while filling the outbox");
            self.fill(bench, (rows - self.waiting).min(ROWS_PER_STATEMENT_MAX)).await?;
            let filled = missing - rows.saturating_sub(self.waiting);
            live.show(filled, &format!("filled {filled}, {:.0}/s", per_second(filled, started.elapsed())));
        }
        live.finish();
        Ok(())
    }

    async fn fill(&mut self, bench: &Bench, rows: u64) -> Result<()> {
        let (metrics, units) = (Metric::ALL.map(Metric::name), Metric::ALL.map(Metric::unit));
        let place = &bench.engine_place;
        let backlog = Backlog {
            tenant: &place.tenant,
            farm: &place.farm,
            barn: &place.barn,
            devices: &bench.devices,
            metrics: &metrics,
            units: &units,
            begins_at: self.begins_at,
            step: Duration::milliseconds(STEP_MS),
        };
        let (first, count) = (i64::try_from(self.next)?, i64::try_from(rows)?);
        let conn = bench.store.conn().await.context("connect to the database")?;
        let filled = fill_outbox(&conn, &backlog, first, count, Clock::system().now()).await;
        ensure!(filled.context("fill the outbox")? == rows, "the outbox did not take every row");
        self.next += rows;
        self.waiting += rows;
        Ok(())
    }
}
