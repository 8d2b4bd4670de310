//! The delivery of one batch: its requests, what they mean, and the rows settled after each.

use std::future::Future;
use std::time::Duration;

use schema::id::Uuid;
use schema::metrics;
use schema::store::cause;
use schema::store::outbox::claim::{Batch, ClaimedEvent};
use schema::store::outbox::settle::{Failure, Fate, Rejection, Settlement};
use schema::store::sync_state::Change;
use schema::wire::batch::{self, MISSING_PREFIX};
use tokio::sync::watch;
use tokio::time::Instant;

use super::{RETRY_DELAY, RETRY_DELAY_MAX, tell_skew};
use crate::sync::answer::{
    Answer, CLOUD_BATCH_REJECTED, CLOUD_EVENT_REJECTED, Kind, Refused, Trouble, Verdict, decide,
};
use crate::sync::course::{Course, Refusal, Step};
use crate::sync::{SETTLE_GRACE, Shared};

/// How long a request may take before its rows say that they are on the line.
const SLOW: Duration = Duration::from_secs(1);
/// Why an event waits for a person: it was rejected too often.
const MAX_REJECTIONS: &str = "max_rejections";
/// Why an event waits for a person: it lacks a field, which no waiting brings.
const MISSING_FIELD: &str = "missing_field";

/// How a delivery ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// The cloud has answered for every event that could go.
    Delivered {
        /// When the first of those that it rejected may go again.
        retry_at: Option<Instant>,
    },
    /// There was trouble; the rest is pending again and the tenant pauses.
    Postponed,
    /// The engine stops.
    Stopped,
}

/// What came of waiting for an answer.
enum Waited<T> {
    Answered(T),
    /// The engine stops and the time for it is over.
    Stopped,
}

/// What a refusal of a whole request has led to.
enum Isolated {
    /// Smaller requests follow.
    Smaller,
    /// The one event of the request is at fault.
    AtFault(Refused),
    /// The cloud does not even take an empty batch, or there was trouble while it was asked.
    Trouble(Trouble),
}

/// The delivery of one batch.
pub(super) struct Delivery<'a> {
    shared: &'a Shared,
    batch: &'a Batch,
    ids: Vec<Uuid>,
    failures_before: i32,
    course: Course,
    started: Instant,
    renew_at: Instant,
    /// When the rows are told that they are on the line; `None` once they know.
    mark_at: Option<Instant>,
    retry_at: Option<Instant>,
    ends_at: watch::Receiver<Option<Instant>>,
}

impl<'a> Delivery<'a> {
    pub(super) fn new(
        shared: &'a Shared,
        batch: &'a Batch,
        failures_before: i32,
        ends_at: watch::Receiver<Option<Instant>>,
    ) -> Self {
        let lanes = batch.events.iter().map(|event| event.lane.clone()).collect();
        let now = Instant::now();
        Self {
            shared,
            batch,
            ids: batch.events.iter().map(|event| event.id).collect(),
            failures_before,
            course: Course::new(lanes),
            started: now,
            renew_at: now + half_lease(shared),
            mark_at: Some(now + SLOW),
            retry_at: None,
            ends_at,
        }
    }

    pub(super) async fn run(mut self) -> Outcome {
        while let Step::Send(part) = self.course.next_step() {
            let answer = match self.send(&part).await {
                Waited::Answered(answer) => answer,
                Waited::Stopped => return self.stop().await,
            };
            let ids: Vec<Uuid> = part.iter().map(|&i| self.ids[i]).collect();
            match decide(&answer, &ids, self.shared.clock.now()) {
                Verdict::Taken { refused, duplicated } => {
                    self.taken(&part, &refused, CLOUD_EVENT_REJECTED, duplicated).await;
                }
                Verdict::Later(trouble) => return self.postpone(&trouble).await,
                Verdict::Split { text } => match self.isolate(text).await {
                    Waited::Answered(Isolated::Smaller) => {}
                    Waited::Answered(Isolated::AtFault(refused)) => {
                        self.taken(&part, &[refused], CLOUD_BATCH_REJECTED, 0).await;
                    }
                    Waited::Answered(Isolated::Trouble(trouble)) => return self.postpone(&trouble).await,
                    Waited::Stopped => return self.stop().await,
                },
            }
        }
        Outcome::Delivered { retry_at: self.retry_at }
    }

    async fn send(&mut self, part: &[usize]) -> Waited<Answer> {
        let (shared, batch) = (self.shared, self.batch);
        let events = part.iter().map(|&i| batch.event_text(&batch.events[i]));
        let body = batch::body(&batch.tenant_id, &shared.settings.edge_id, shared.clock.now(), events);
        self.post(body, Some(part.len())).await
    }

    async fn post(&mut self, body: String, events: Option<usize>) -> Waited<Answer> {
        let (shared, batch) = (self.shared, self.batch);
        let Some(line) = &shared.ports.line else { return Waited::Stopped };
        let is_whole = events == Some(batch.events.len());
        // Halves and empty batches are other requests to the cloud than the whole.
        let request_id = if is_whole { batch.id } else { schema::id::new_id() };
        #[expect(clippy::cast_precision_loss, reason = "a body has some megabytes at most")]
        if let Some(events) = events {
            metrics::sync_batch_events().record(events as f64);
            metrics::sync_batch_bytes().record(body.len() as f64);
        }
        self.wait(line.post(&batch.tenant_id, request_id, body)).await
    }

    /// Waits for an answer and keeps the lease meanwhile.
    async fn wait<T>(&mut self, answer: impl Future<Output = T>) -> Waited<T> {
        let mut answer = std::pin::pin!(answer);
        let mut ends_at = self.ends_at.clone();
        let ended = async move {
            // The sender lives in the hub, which outlives every delivery.
            let at = ends_at.wait_for(Option::is_some).await.ok().and_then(|at| *at);
            match at {
                Some(at) => tokio::time::sleep_until(at).await,
                None => std::future::pending().await,
            }
        };
        let mut ended = std::pin::pin!(ended);
        // A quick request of a batch whose first one was slow tells nothing new.
        self.mark_at = self.mark_at.map(|_| Instant::now() + SLOW);
        loop {
            let mark_at = self.mark_at.unwrap_or(self.renew_at);
            tokio::select! {
                biased;
                answer = &mut answer => return Waited::Answered(answer),
                () = &mut ended => return Waited::Stopped,
                () = tokio::time::sleep_until(mark_at), if self.mark_at.is_some() => self.mark().await,
                () = tokio::time::sleep_until(self.renew_at) => self.renew().await,
            }
        }
    }

    /// Has the rows say that they are on the line, since this lasts.
    async fn mark(&mut self) {
        let (shared, batch) = (self.shared, self.batch);
        let events: Vec<&ClaimedEvent> =
            self.course.unsettled().into_iter().map(|i| &batch.events[i]).collect();
        self.mark_at = match shared.ports.rows.mark_sent(batch, &events, shared.clock.now()).await {
            Ok(_) => None,
            Err(error) => {
                tracing::debug!(batch_id = %batch.id, %error, cause = cause(&error), "batch not marked");
                Some(Instant::now() + RETRY_DELAY_MAX)
            }
        };
    }

    async fn renew(&mut self) {
        self.renew_at = Instant::now() + half_lease(self.shared);
        let expires_at = self.shared.clock.now() + self.shared.lease();
        match self.shared.ports.rows.renew(self.batch, expires_at).await {
            Ok(true) => {}
            Ok(false) => {
                tracing::warn!(batch_id = %self.batch.id, "the lease of a batch has gone to another engine")
            }
            Err(error) => {
                tracing::warn!(batch_id = %self.batch.id, %error, cause = cause(&error), "lease not renewed")
            }
        }
    }

    /// Goes on with smaller requests, or finds out whether the one event or the configuration is at fault.
    async fn isolate(&mut self, text: String) -> Waited<Isolated> {
        metrics::sync_send_failure(Kind::Batch.as_str()).increment(1);
        let at_fault = Isolated::AtFault(Refused { position: 0, text });
        match self.course.refused() {
            Refusal::Split => return Waited::Answered(Isolated::Smaller),
            Refusal::Event(_) => return Waited::Answered(at_fault),
            Refusal::Ask => {}
        }
        let shared = self.shared;
        let now = shared.clock.now();
        let body = batch::body(&self.batch.tenant_id, &shared.settings.edge_id, now, []);
        let answer = match self.post(body, None).await {
            Waited::Answered(answer) => answer,
            Waited::Stopped => return Waited::Stopped,
        };
        Waited::Answered(match decide(&answer, &[], shared.clock.now()) {
            Verdict::Taken { .. } => {
                self.course.empty_batch_taken();
                at_fault
            }
            Verdict::Later(trouble) => Isolated::Trouble(trouble),
            Verdict::Split { text } => {
                let message = format!("the cloud refuses even an empty batch: {text}");
                Isolated::Trouble(Trouble::new(Kind::Batch, message))
            }
        })
    }

    /// Settles what the cloud has taken and what it has refused.
    async fn taken(&mut self, part: &[usize], refused: &[Refused], code: &'static str, duplicated: u64) {
        let (shared, batch) = (self.shared, self.batch);
        let at_fault: Vec<usize> = refused.iter().map(|refused| part[refused.position]).collect();
        let rejected: Vec<Rejection> = refused
            .iter()
            .map(|refused| self.rejection(&batch.events[part[refused.position]], code, &refused.text))
            .collect();
        self.course.taken(&at_fault);
        let acked: Vec<&ClaimedEvent> =
            part.iter().filter(|i| !at_fault.contains(i)).map(|&i| &batch.events[i]).collect();
        let is_last = self.course.is_done();
        let left = if is_last { self.course.unsettled() } else { Vec::new() };
        let change =
            Change::Success { batch_id: batch.id, last_acked_event_id: acked.last().map(|event| event.id) };
        let is_back = shared.status.took_batch(shared.clock.now());
        // A cloud that takes a batch has nothing against our clock.
        tell_skew(0);
        if code == CLOUD_EVENT_REJECTED {
            metrics::sync_send_success().increment(1);
        }
        self.tell_duplicates(&acked, duplicated);
        tell_rejections(batch, &rejected);
        let settlement = Settlement {
            acked,
            rejected,
            returned: left.iter().map(|&i| &batch.events[i]).collect(),
            failure: None,
            is_last,
            change: Some(change),
        };
        if let Some(acked) = self.settle(&settlement).await {
            metrics::outbox_acked().increment(acked);
        }
        #[expect(clippy::cast_precision_loss, reason = "milliseconds of one batch")]
        metrics::sync_batch_latency_ms().record(self.started.elapsed().as_millis() as f64);
        self.failures_before = 0;
        if is_back {
            shared.resume().await;
        }
    }

    fn rejection(&mut self, event: &ClaimedEvent, code: &'static str, text: &str) -> Rejection {
        let settings = &self.shared.settings;
        let count = u32::try_from(event.reject_count).unwrap_or(0).saturating_add(1);
        let is_missing = code == CLOUD_EVENT_REJECTED && text.starts_with(MISSING_PREFIX);
        let fate = if is_missing {
            Fate::Failed { reason: MISSING_FIELD }
        } else if count >= settings.rejections_max {
            Fate::Failed { reason: MAX_REJECTIONS }
        } else {
            let wait = self.shared.backoff(count);
            let retry_at = Instant::now() + wait;
            self.retry_at = Some(self.retry_at.map_or(retry_at, |at| at.min(retry_at)));
            Fate::Retry { at: self.shared.clock.now() + wait }
        };
        Rejection {
            id: event.id,
            lane_group: event.lane_group,
            attempt_count: event.attempt_count,
            code,
            message: text.to_owned(),
            is_counted: true,
            fate,
        }
    }

    /// The rows of a batch were all rejected before or none was, so the counter of duplicates tells how many events the
    /// cloud had marked before it rejected them.
    fn tell_duplicates(&self, acked: &[&ClaimedEvent], duplicated: u64) {
        metrics::outbox_duplicated().increment(duplicated);
        let was_rejected = self.batch.events.first().is_some_and(|event| event.reject_count > 0);
        if duplicated == 0 || !was_rejected {
            return;
        }
        metrics::outbox_acked_after_rejection().increment(duplicated);
        let event_ids: Vec<String> = acked.iter().map(|event| event.id.to_string()).collect();
        tracing::warn!(
            tenant_id = self.batch.tenant_id,
            batch_id = %self.batch.id,
            duplicated,
            event_ids = event_ids.join(" "),
            "events are duplicates after a rejection: the cloud may have lost them"
        );
    }

    /// Puts the rest back to pending and lets the tenant pause.
    async fn postpone(&mut self, trouble: &Trouble) -> Outcome {
        let shared = self.shared;
        let now = shared.clock.now();
        let n = u32::try_from(self.failures_before).unwrap_or(0).saturating_add(1);
        let wait = trouble.wait.unwrap_or_else(|| shared.backoff(n));
        metrics::sync_send_failure(trouble.kind.as_str()).increment(1);
        if let Some(skew_ms) = trouble.skew_ms {
            tell_skew(skew_ms);
        }
        self.tell_trouble(trouble, wait);
        shared.status.failed(now, trouble.message.clone());
        let left = self.course.unsettled();
        let settlement = Settlement {
            returned: left.iter().map(|&i| &self.batch.events[i]).collect(),
            failure: Some(Failure { code: trouble.code, message: &trouble.message }),
            is_last: true,
            change: Some(Change::Failure {
                batch_id: self.batch.id,
                code: trouble.code,
                message: &trouble.message,
                failures_before: self.failures_before,
                paused_until: now + wait,
                pause_max: shared.wait_max(),
            }),
            ..Settlement::default()
        };
        self.settle(&settlement).await;
        Outcome::Postponed
    }

    fn tell_trouble(&self, trouble: &Trouble, wait: Duration) {
        let (tenant_id, batch_id, error_code) = (&self.batch.tenant_id, self.batch.id, trouble.code);
        let (message, wait_ms) = (&trouble.message, wait.as_millis());
        match trouble.kind {
            Kind::Auth | Kind::Batch => {
                tracing::error!(tenant_id, %batch_id, error_code, message, wait_ms, "the cloud refuses this engine");
            }
            Kind::Network | Kind::Timeout | Kind::Server | Kind::Throttled => {
                tracing::warn!(tenant_id, %batch_id, error_code, message, wait_ms, "batch not taken, trying again");
            }
        }
    }

    /// Gives the rest back without a pause.
    async fn stop(&mut self) -> Outcome {
        let left = self.course.unsettled();
        let settlement = Settlement {
            returned: left.iter().map(|&i| &self.batch.events[i]).collect(),
            is_last: true,
            ..Settlement::default()
        };
        self.settle(&settlement).await;
        Outcome::Stopped
    }

    /// Settles, and tries until the database has it: what the cloud has taken is known here alone. Returns how many rows
    /// were acknowledged; `None` when the engine had to stop first, or the rows cannot be settled at all.
    async fn settle(&self, settlement: &Settlement<'_>) -> Option<u64> {
        let (shared, batch) = (self.shared, self.batch);
        let mut delay = RETRY_DELAY;
        loop {
            let now = shared.clock.now();
            let error = match shared.ports.rows.settle(batch, settlement, now).await {
                Ok(settled) => {
                    shared.settled(&batch.tenant_id);
                    return Some(settled.acked.len() as u64);
                }
                Err(error) => error,
            };
            tracing::warn!(batch_id = %batch.id, %error, cause = cause(&error), "batch not settled");
            let ends_at = *self.ends_at.borrow();
            let is_over = ends_at.is_some_and(|at| Instant::now() + delay > at + SETTLE_GRACE);
            if is_over || error.is_data() {
                tracing::error!(batch_id = %batch.id, "the lease of a batch is left to run out, its events go again");
                return None;
            }
            tokio::time::sleep(delay).await;
            delay = (delay * 2).min(RETRY_DELAY_MAX);
        }
    }
}

fn tell_rejections(batch: &Batch, rejected: &[Rejection]) {
    for rejection in rejected {
        metrics::outbox_rejected(rejection.code).increment(1);
        let (tenant_id, event_id, error_code) = (&batch.tenant_id, rejection.id, rejection.code);
        let message = &rejection.message;
        match rejection.fate {
            Fate::Failed { reason } => {
                metrics::outbox_dead_lettered(rejection.code).increment(1);
                tracing::error!(tenant_id, %event_id, error_code, message, reason, "event waits for a person");
            }
            Fate::Retry { .. } => {
                tracing::warn!(tenant_id, %event_id, error_code, message, "event rejected, trying again");
            }
        }
    }
}

fn half_lease(shared: &Shared) -> Duration {
    Duration::from_secs(shared.settings.lease_seconds) / 2
}
