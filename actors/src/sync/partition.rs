//! The work of one partition: claim a batch, send it, settle what was answered, and again.

mod delivery;

use std::sync::Arc;
use std::time::Duration;

use schema::clock::deadline::is_due;
use schema::id;
use schema::metrics;
use schema::store::outbox::claim::{self, ClaimRequest, Claimed, DueTenant};
use schema::store::outbox::groups_of;
use schema::store::{StoreError, cause};
use tokio::sync::watch;
use tokio::time::Instant;

use super::{Seat, Shared};
use delivery::{Delivery, Outcome};

/// The shortest time between two looks at the outbox that do not follow a full batch.
const GATHER_MIN: Duration = Duration::from_millis(100);
/// The longest time for which a sender gathers events: what trickles in costs few batches, and each is on its way within a
/// second.
const GATHER_MAX: Duration = Duration::from_millis(800);
/// How often a sender that is woken looks by itself when it has found nothing for a while.
const IDLE_POLL: Duration = Duration::from_secs(10);
/// Turns that tenants take before it is looked up again who has something to send.
const TURNS_MAX: usize = 64;
/// Rows per lane group that a claim looks at when those before them may not go.
const WINDOW_ROWS_MAX: i64 = 32_768;
/// How much farther a claim looks when it found too little.
const WINDOW_GROWTH: i64 = 4;
/// The first wait after the database failed; it doubles up to [`RETRY_DELAY_MAX`].
pub(super) const RETRY_DELAY: Duration = Duration::from_millis(100);
/// The longest wait after the database failed.
pub(super) const RETRY_DELAY_MAX: Duration = Duration::from_secs(5);

/// One of the senders. A tenant's lane groups are shared out among them by number.
pub(super) struct Partition {
    shared: Arc<Shared>,
    number: usize,
    groups: Vec<i16>,
    /// Rows per group that the next claim looks at.
    window_rows: i64,
    /// The tenant that had its turn last.
    last_tenant: String,
    /// When the round before this one began.
    last_round_at: Option<Instant>,
    /// Looks in a row that found nothing.
    empty_looks: u32,
    /// When the first of the events that were rejected may go again, as far as this sender knows.
    retry_at: Option<Instant>,
    wanted: watch::Receiver<u64>,
    ends_at: watch::Receiver<Option<Instant>>,
}

/// What a look at the outbox has led to.
#[derive(Clone, Copy, Debug, Default)]
struct Round {
    /// Something was sent or settled: more may be due now.
    has_progress: bool,
    /// Full batches that were sent; one that was not full is a part of one.
    batches: f64,
    /// When the first of the tenants that pause may go again, if all do.
    resumes_at: Option<Instant>,
}

/// What became of a tenant's turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Turn {
    /// A full batch went out: there is probably more.
    More,
    /// A batch went out.
    Done,
    /// Nothing may go now.
    Idle,
}

impl Partition {
    pub(super) fn new(shared: Arc<Shared>, number: usize) -> Self {
        let groups = groups_of(number, shared.seats.len());
        let (wanted, ends_at) = (shared.wanted(), shared.seat(number).ends_at.subscribe());
        let mut partition = Self {
            shared,
            number,
            groups,
            window_rows: 0,
            last_tenant: String::new(),
            last_round_at: None,
            empty_looks: 0,
            retry_at: None,
            wanted,
            ends_at,
        };
        partition.window_rows = partition.window_rows_min();
        partition
    }

    /// Runs until it is stopped.
    pub(super) async fn run(mut self) {
        if self.shared.ports.line.is_none() {
            return self.wait_for_end().await;
        }
        self.take_back().await;
        let mut delay = RETRY_DELAY;
        while !self.is_ending() {
            let wanted = *self.wanted.borrow_and_update();
            let is_asked_for = *self.seat().tried.borrow() < wanted;
            let started = Instant::now();
            let round = match self.round(is_asked_for).await {
                Ok(round) => round,
                Err(error) => {
                    tracing::warn!(partition = self.number, %error, cause = cause(&error), "outbox not reached, trying again");
                    self.rest(delay).await;
                    delay = (delay * 2).min(RETRY_DELAY_MAX);
                    continue;
                }
            };
            delay = RETRY_DELAY;
            self.seat().tried.send_replace(wanted);
            self.rest_after(round, started).await;
            self.last_round_at = Some(started);
        }
    }

    /// Frees the lane groups that an earlier life left behind.
    async fn take_back(&mut self) {
        let mut delay = RETRY_DELAY;
        while !self.is_ending() {
            match self.release_mine().await {
                Ok(0) => return,
                Ok(batches) => {
                    tracing::info!(
                        partition = self.number,
                        batches,
                        "lane groups of an earlier life taken back"
                    );
                    return;
                }
                Err(error) => {
                    tracing::debug!(partition = self.number, %error, "outbox not reached yet");
                    self.rest(delay).await;
                    delay = (delay * 2).min(RETRY_DELAY_MAX);
                }
            }
        }
    }

    async fn release_mine(&self) -> Result<u64, StoreError> {
        let holder = self.shared.holder().await?;
        self.shared.ports.rows.release_mine(&holder, &self.groups).await
    }

    /// Gives every tenant with due rows a turn, and those with much to send many.
    async fn round(&mut self, ignores_pauses: bool) -> Result<Round, StoreError> {
        self.retry_at = self.retry_at.filter(|at| *at > Instant::now());
        let now = self.shared.clock.now();
        let (groups, lease_max, pause_max) = (&self.groups, self.shared.lease(), self.shared.wait_max());
        let found = self.shared.ports.rows.due_tenants(groups, now, lease_max).await?;
        let (mut tenants, paused): (Vec<DueTenant>, Vec<DueTenant>) = found.into_iter().partition(|tenant| {
            ignores_pauses || tenant.paused_until.is_none_or(|until| is_due(until, now, pause_max))
        });
        let mut round = Round::default();
        if tenants.is_empty() {
            let first = paused.iter().filter_map(|tenant| tenant.paused_until).min();
            round.resumes_at = first.map(|at| Instant::now() + (at - now).to_std().unwrap_or_default());
            return Ok(round);
        }
        // Whoever comes after the tenant that had its turn last goes first.
        let next = tenants.partition_point(|tenant| tenant.tenant_id <= self.last_tenant);
        let next = if next == tenants.len() { 0 } else { next };
        tenants.rotate_left(next);
        for _ in 0..TURNS_MAX {
            let mut remaining = Vec::new();
            for mut tenant in tenants {
                if self.is_ending() {
                    return Ok(round);
                }
                self.last_tenant.clone_from(&tenant.tenant_id);
                let turn = self.turn(&mut tenant, &mut round).await?;
                round.has_progress |= turn != Turn::Idle;
                if turn == Turn::More {
                    remaining.push(tenant);
                }
            }
            tenants = remaining;
            let somebody_asks = self.wanted.has_changed().unwrap_or(false);
            if tenants.is_empty() || ignores_pauses || somebody_asks {
                break;
            }
        }
        Ok(round)
    }

    /// Claims one batch of a tenant and delivers it.
    async fn turn(&mut self, tenant: &mut DueTenant, round: &mut Round) -> Result<Turn, StoreError> {
        let claimed = self.claim(&tenant.tenant_id).await?;
        if claimed.incomplete > 0 {
            metrics::outbox_dead_lettered(claim::EVENT_INCOMPLETE).increment(claimed.incomplete);
            tracing::warn!(
                tenant_id = tenant.tenant_id,
                rows = claimed.incomplete,
                error_code = claim::EVENT_INCOMPLETE,
                "outbox rows that the cloud would refuse wait for a person"
            );
        }
        let Some(batch) = claimed.batch else {
            return Ok(if claimed.incomplete > 0 { Turn::Done } else { Turn::Idle });
        };
        let settings = &self.shared.settings;
        let is_full = batch.events.len() >= settings.batch_events_max
            || batch.text.len() * 2 > settings.batch_bytes_max;
        round.batches += share(batch.events.len(), settings.batch_events_max)
            .max(share(batch.text.len(), settings.batch_bytes_max));
        let delivery = Delivery::new(&self.shared, &batch, tenant.consecutive_failures, self.ends_at.clone());
        let outcome = delivery.run().await;
        Ok(match outcome {
            Outcome::Delivered { retry_at } => {
                tenant.consecutive_failures = 0;
                self.retry_at = [self.retry_at, retry_at].into_iter().flatten().min();
                if is_full { Turn::More } else { Turn::Done }
            }
            Outcome::Postponed | Outcome::Stopped => Turn::Idle,
        })
    }

    /// Claims, and looks farther when the rows at the heads may not go.
    async fn claim(&mut self, tenant_id: &str) -> Result<Claimed, StoreError> {
        self.groups.rotate_left(1);
        let holder = self.shared.holder().await?;
        loop {
            let settings = &self.shared.settings;
            let request = ClaimRequest {
                tenant_id,
                groups: &self.groups,
                window_rows: self.window_rows,
                batch_id: id::new_id(),
                edge_id: &settings.edge_id,
                holder: &holder,
                now: self.shared.clock.now(),
                lease: self.shared.lease(),
                wait_max: self.shared.wait_max(),
                events_max: settings.batch_events_max,
                bytes_max: settings.batch_bytes_max,
            };
            let claimed = self.shared.ports.rows.claim(&request).await?;
            let has_reached_the_end = self.window_rows >= WINDOW_ROWS_MAX;
            self.window_rows = if claimed.is_window_short {
                (self.window_rows * WINDOW_GROWTH).min(WINDOW_ROWS_MAX)
            } else {
                self.window_rows_min()
            };
            let is_worth_another_look = claimed.is_window_short && !has_reached_the_end;
            if claimed.batch.is_some() || claimed.incomplete > 0 || !is_worth_another_look {
                return Ok(claimed);
            }
        }
    }

    /// An even share of a batch for each group: neighbors in time lie on the same pages, whatever their group.
    fn window_rows_min(&self) -> i64 {
        let share = self.shared.settings.batch_events_max.div_ceil(self.groups.len().max(1));
        i64::try_from(share).unwrap_or(WINDOW_ROWS_MAX)
    }

    /// Waits until another look may find something.
    async fn rest_after(&mut self, round: Round, started: Instant) {
        let poll = Duration::from_millis(self.shared.settings.poll_ms);
        if round.has_progress {
            self.empty_looks = 0;
            let since_last = self.last_round_at.map_or(GATHER_MAX, |at| started - at);
            return self.rest_until(started + gather(round.batches, since_last), false).await;
        }
        match round.resumes_at {
            // While everybody pauses, wake-ups have nothing to say.
            Some(resumes_at) => self.rest_until(resumes_at.min(started + poll), false).await,
            None => {
                self.empty_looks = self.empty_looks.saturating_add(1);
                let next = started + self.poll_after(poll);
                self.rest_until(self.retry_at.map_or(next, |at| at.min(next)), true).await;
                self.rest_until(started + poll.clamp(GATHER_MIN, GATHER_MAX), false).await;
            }
        }
    }

    /// The wait for a look of its own accord: longer and longer while those who write wake this sender.
    fn poll_after(&self, poll: Duration) -> Duration {
        if !self.shared.is_woken() {
            return poll;
        }
        let doubled =
            poll.saturating_mul(1_u32.checked_shl(self.empty_looks.saturating_sub(1)).unwrap_or(u32::MAX));
        doubled.min(IDLE_POLL.max(poll))
    }

    /// Waits for the database, whatever anybody asks for.
    async fn rest(&mut self, duration: Duration) {
        // A stop ends the wait; its sender lives in the hub, which this partition shares.
        let _ = tokio::time::timeout(duration, self.ends_at.wait_for(Option::is_some)).await;
    }

    /// Waits until `at`, or until somebody asks for an attempt, stops the work or, if that counts, wakes it.
    async fn rest_until(&mut self, at: Instant, is_woken: bool) {
        let shared = Arc::clone(&self.shared);
        let woken = async {
            if is_woken {
                shared.seat(self.number).wake.notified().await;
            } else {
                std::future::pending::<()>().await;
            }
        };
        let tried = *shared.seat(self.number).tried.borrow();
        // In a fixed order, so that a simulated life can be lived again.
        tokio::select! {
            biased;
            // The senders of both live in the hub, which this partition shares.
            _ = self.ends_at.wait_for(Option::is_some) => {}
            _ = self.wanted.wait_for(|wanted| *wanted > tried) => {}
            () = woken => {}
            () = tokio::time::sleep_until(at) => {}
        }
    }

    async fn wait_for_end(&mut self) {
        // The sender lives in the hub, which this partition shares.
        let _ = self.ends_at.wait_for(Option::is_some).await;
    }

    fn is_ending(&self) -> bool {
        self.ends_at.borrow().is_some()
    }

    fn seat(&self) -> &Seat {
        self.shared.seat(self.number)
    }
}

/// How long to gather events after a round, from its beginning: as long as they take to fill a batch, at the pace at which
/// they came since the round before. `batches` is how many batches the round has filled.
///
/// | since the last round came | the next one begins after |
/// |---|---|
/// | nothing that was sent | [`GATHER_MIN`] |
/// | less than would fill a batch in [`GATHER_MAX`] | [`GATHER_MAX`] |
/// | more | what a batch takes, and [`GATHER_MIN`] at least |
fn gather(batches: f64, since_last: Duration) -> Duration {
    if batches <= 0.0 {
        return GATHER_MIN;
    }
    let seconds = since_last.as_secs_f64() / batches;
    Duration::try_from_secs_f64(seconds).unwrap_or(GATHER_MAX).clamp(GATHER_MIN, GATHER_MAX)
}

#[expect(clippy::cast_precision_loss, reason = "events and bytes of one batch")]
fn share(part: usize, whole: usize) -> f64 {
    part as f64 / whole.max(1) as f64
}

/// Exports the difference of the clocks.
pub(super) fn tell_skew(skew_ms: i64) {
    #[expect(clippy::cast_precision_loss, reason = "a difference of clocks stays far below 2^52 ms")]
    metrics::sync_clock_skew_ms().set(skew_ms as f64);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_gathered_for_as_long_as_a_batch_takes_to_fill() {
        let ms =
            |batches: f64, since_last_ms| gather(batches, Duration::from_millis(since_last_ms)).as_millis();
        assert_eq!(ms(0.0, 800), 100);
        assert_eq!(ms(0.08, 800), 800, "50 a second fill no batch of 500");
        assert_eq!(ms(0.99, 800), 800);
        assert_eq!(ms(2.0, 800), 400, "1,250 a second fill one in 400 ms");
        assert_eq!(ms(64.0, 800), 100);
        assert_eq!(ms(0.002, 3_600_000), 800);
        assert_eq!(ms(f64::MIN_POSITIVE, 3_600_000), 800);
    }
}
