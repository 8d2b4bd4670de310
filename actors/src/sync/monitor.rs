//! The monitor of sync: greets an idle cloud, refreshes the gauges of the outbox, and moves its low-water marks up.

use std::sync::Arc;
use std::time::Duration;

use chrono::TimeDelta;
use schema::clock::Timestamp;
use schema::metrics::{self, Gauge};
use schema::store::health::{self, Snapshot};
use schema::store::outbox::low_water;
use schema::store::outbox::queries::{self, Counts};
use schema::store::sync_state::{self, Summary};
use schema::store::{cause, ledger};
use tokio::time::Instant;

use super::Shared;
use crate::gauges::Measured;

/// How often the monitor looks whether something is due.
const TICK: Duration = Duration::from_secs(1);
/// The gauges are refreshed no more often than this.
const REFRESH_MIN: Duration = Duration::from_secs(5);
/// Where nothing was written or sent in this process, no more often than this.
const REFRESH_IDLE: Duration = Duration::from_secs(15);
/// And no more often than this many times as long as a refresh takes, when the database is slow.
const REFRESH_COST_FACTOR: u32 = 20;

/// How often the low-water marks are moved while something is sent.
const MARKS_EVERY: Duration = Duration::from_secs(5);
/// How often they are looked for what came in past all triggers.
const MARKS_CHECKED_EVERY: Duration = Duration::from_secs(600);

/// The monitor; one per engine.
pub(crate) struct Monitor {
    shared: Arc<Shared>,
    started_at: Instant,
    refresh_at: Instant,
    /// When the gauges were refreshed last, and what had been written and sent until then.
    refreshed: Option<(Instant, u64)>,
    greet_at: Instant,
    marks_at: Instant,
    marks_checked_at: Option<Instant>,
    gauges: Measured,
}

impl Monitor {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        let now = Instant::now();
        let gauges = Measured::new("outbox");
        Self {
            shared,
            started_at: now,
            refresh_at: now,
            refreshed: None,
            greet_at: now + TICK,
            marks_at: now + MARKS_EVERY,
            marks_checked_at: None,
            gauges,
        }
    }

    /// Runs until the partition stops.
    pub(crate) async fn run(mut self) {
        let shared = Arc::clone(&self.shared);
        let mut ends_at = shared.seat(0).ends_at.subscribe();
        loop {
            let next = self.refresh_at.min(self.greet_at).min(self.marks_at).max(Instant::now());
            tokio::select! {
                _ = ends_at.wait_for(Option::is_some) => return,
                () = tokio::time::sleep_until(next) => {}
            }
            // A greeting or a count that is under way holds nothing and may be dropped.
            tokio::select! {
                _ = ends_at.wait_for(Option::is_some) => return,
                () = self.look() => {}
            }
        }
    }

    async fn look(&mut self) {
        let now = Instant::now();
        if now >= self.refresh_at {
            let started = now;
            let stirs = self.shared.stirs();
            let is_news =
                self.refreshed.is_none_or(|(at, then)| then != stirs || at.elapsed() >= REFRESH_IDLE);
            if is_news {
                self.refresh().await;
                self.refreshed = Some((started, stirs));
            }
            self.refresh_at = Instant::now() + REFRESH_MIN.max(started.elapsed() * REFRESH_COST_FACTOR);
        }
        if now >= self.marks_at {
            self.move_marks().await;
            self.marks_at = Instant::now() + MARKS_EVERY;
        }
        if now >= self.greet_at {
            self.greet_at = self.greet().await;
        }
    }

    /// Greets the cloud when nothing was exchanged for long enough; returns when to look again.
    async fn greet(&self) -> Instant {
        let (Some(cloud), Some(settings)) = (&self.shared.cloud, &self.shared.settings.cloud) else {
            return Instant::now() + REFRESH_MIN;
        };
        let every = Duration::from_secs(settings.handshake_seconds);
        let due_at = self.shared.status.exchanged_at().map(|at| at + every);
        if let Some(due_at) = due_at.filter(|due_at| *due_at > Instant::now()) {
            return due_at;
        }
        let answer = cloud.handshake().await;
        self.shared.note_handshake(&answer).await;
        Instant::now() + every
    }

    /// Moves the marks of the tenants for which something was sent a moment ago.
    async fn move_marks(&mut self) {
        let tenants = self.shared.tenants_at_work();
        if tenants.is_empty() {
            return;
        }
        let is_full = self.marks_checked_at.is_none_or(|at| at.elapsed() >= MARKS_CHECKED_EVERY);
        let now = self.shared.clock.now();
        let work = async |conn: &mut _| low_water::advance(conn, &tenants, is_full, now).await;
        match self.shared.store.run("low_water", work).await {
            Ok(0) => {}
            Ok(groups) => tracing::warn!(groups, "events lay below the marks of their lane groups"),
            Err(error) => {
                // The marks stay, and looks read more.
                tracing::debug!(%error, cause = cause(&error), "low-water marks not moved");
                return;
            }
        }
        if is_full {
            self.marks_checked_at = Some(Instant::now());
        }
    }

    async fn refresh(&mut self) {
        let (now, pause_max) = (self.shared.clock.now(), self.shared.wait_max());
        let read = async |conn: &mut _| {
            let counts = queries::counts(conn, None).await?;
            let summary = sync_state::summary(conn, None, now, pause_max).await?;
            let snapshot = health::oldest_snapshot(conn).await?;
            Ok((counts, summary, ledger::totals(conn, None).await?, snapshot))
        };
        let read = self.shared.store.reads().run("outbox_gauges", read).await;
        let Some((counts, summary, totals, snapshot)) = self.gauges.found(read, gauges()) else { return };
        show_snapshot(snapshot.as_ref());
        self.shared.status.remember(summary.last_success_at);
        show(&counts, &summary, now, self.started_at.elapsed());
        show_ledger(&totals);
    }
}

fn gauges() -> impl Iterator<Item = Gauge> {
    let states = ledger::Line::default().states().map(|(state, _)| metrics::ledger_events(state));
    let gauges = [
        metrics::ledger_difference(),
        metrics::db_oldest_snapshot_age_seconds(),
        metrics::outbox_pending(),
        metrics::outbox_claimed(),
        metrics::outbox_sent(),
        metrics::outbox_failed(),
        metrics::outbox_lanes_held(),
        metrics::outbox_oldest_pending_age_seconds(),
        metrics::sync_last_success_age_seconds(),
        metrics::sync_consecutive_failures(),
    ];
    gauges.into_iter().chain(states)
}

fn show_snapshot(snapshot: Option<&Snapshot>) {
    metrics::db_oldest_snapshot_age_seconds().set(snapshot.map_or(0.0, |snapshot| snapshot.seconds));
}

#[expect(clippy::cast_precision_loss, reason = "counts stay far below 2^52")]
fn show_ledger(totals: &ledger::Totals) {
    for (state, events) in totals.line.states() {
        metrics::ledger_events(state).set(events as f64);
    }
    metrics::ledger_difference().set(totals.difference as f64);
}

#[expect(clippy::cast_precision_loss, reason = "counts stay far below 2^52")]
fn show(counts: &Counts, summary: &Summary, now: Timestamp, running_for: Duration) {
    metrics::outbox_pending().set(counts.pending as f64);
    metrics::outbox_claimed().set(counts.claimed as f64);
    metrics::outbox_sent().set(counts.sent as f64);
    metrics::outbox_failed().set(counts.failed as f64);
    metrics::outbox_lanes_held().set(counts.lanes_held as f64);
    let seconds = |at: Timestamp| ((now - at).max(TimeDelta::zero()).num_milliseconds() as f64) / 1000.0;
    metrics::outbox_oldest_pending_age_seconds().set(counts.oldest_pending_at.map_or(0.0, seconds));
    // A cloud that was never reached is as silent as one that was lost at the start.
    let silent_seconds = summary.last_success_at.map_or(running_for.as_secs_f64(), seconds);
    metrics::sync_last_success_age_seconds().set(silent_seconds);
    metrics::sync_consecutive_failures().set(f64::from(summary.consecutive_failures));
}
