//! What came in since the process started: the counters of the API and, beside them, the metrics.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

use chrono::DateTime;
use schema::clock::Timestamp;
use schema::metrics::{self, Counter};
use schema::wire::envelope::{Dialect, Envelope};
use schema::wire::reject::Reject;
use schema::wire::topic::Kind;

/// A message whose time is further than this from its arrival is counted as skewed, seconds.
const SKEW_SECONDS: i64 = 3600;

/// Counts of everything that came in. One per process, shared by all actors.
pub struct IngressStats {
    started_at: Timestamp,
    /// Microseconds since the epoch; 0 before the first message.
    last_message_micros: AtomicI64,
    unroutable: AtomicU64,
    invalid: AtomicU64,
    processing_errors: AtomicU64,
    by_kind: [KindStats; Kind::ALL.len()],
    dialects: [Counter; Dialect::ALL.len()],
    /// The text of the newest refusal of each reason.
    last_errors: Mutex<BTreeMap<&'static str, String>>,
}

/// Counts of one topic kind, each with its metric.
struct KindStats {
    received: Counted,
    valid: Counted,
    deduped: Counted,
    succeeded: AtomicU64,
    trace_generated: Counter,
    ts_alias: Counter,
}

struct Counted {
    count: AtomicU64,
    metric: Counter,
}

impl Counted {
    fn of(metric: Counter) -> Self {
        Self { count: AtomicU64::new(0), metric }
    }

    fn add(&self, count: u64) {
        self.count.fetch_add(count, Ordering::Relaxed);
        self.metric.increment(count);
    }

    fn get(&self) -> u64 {
        self.count.load(Ordering::Relaxed)
    }
}

/// The counters as `GET /api/v1/ingress/stats` shows them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StatsSnapshot {
    /// When the process started.
    pub started_at: Timestamp,
    /// When the newest message arrived.
    pub last_message_at: Option<Timestamp>,
    /// Messages that reached the ingress.
    pub received: u64,
    /// Messages that passed every check, duplicates included.
    pub valid: u64,
    /// Refusals.
    pub invalid: u64,
    /// Duplicates.
    pub deduped: u64,
    /// Failed attempts to store, each repeated until it succeeds.
    pub processing_errors: u64,
    /// Valid and stored messages of readings.
    pub telemetry: [u64; 2],
    /// Valid and stored messages of weighing sessions.
    pub weighvision: [u64; 2],
    /// Valid and stored status messages.
    pub status: [u64; 2],
    /// The text of the newest refusal of each reason.
    pub last_errors: BTreeMap<&'static str, String>,
}

impl IngressStats {
    /// All zero.
    #[must_use]
    pub fn new(started_at: Timestamp) -> Self {
        Self {
            started_at,
            last_message_micros: AtomicI64::new(0),
            unroutable: AtomicU64::new(0),
            invalid: AtomicU64::new(0),
            processing_errors: AtomicU64::new(0),
            by_kind: Kind::ALL.map(KindStats::of),
            dialects: Dialect::ALL.map(metrics::ingress_dialect),
            last_errors: Mutex::default(),
        }
    }

    /// A message with a known topic arrived.
    pub fn received(&self, kind: Kind, now: Timestamp) {
        self.of(kind).received.add(1);
        self.last_message_micros.store(now.timestamp_micros(), Ordering::Relaxed);
    }

    /// A message without a known topic arrived.
    pub fn received_unroutable(&self, now: Timestamp) {
        self.unroutable.fetch_add(1, Ordering::Relaxed);
        self.last_message_micros.store(now.timestamp_micros(), Ordering::Relaxed);
    }

    /// A message passed every check.
    pub fn valid(&self, kind: Kind, envelope: &Envelope, received_at: Timestamp) {
        let stats = self.of(kind);
        stats.valid.add(1);
        self.dialects[envelope.dialect as usize].increment(1);
        if envelope.trace_id.is_none() {
            stats.trace_generated.increment(1);
        }
        if envelope.is_ts_alias {
            stats.ts_alias.increment(1);
        }
        let skew_seconds = (envelope.occurred_at - received_at).num_seconds();
        if skew_seconds.abs() > SKEW_SECONDS {
            metrics::ingress_ts_skew(if skew_seconds < 0 { "past" } else { "future" }).increment(1);
        }
    }

    /// Units that came over HTTP passed every check.
    pub fn valid_over_http(&self, kind: Kind, count: usize) {
        self.of(kind).valid.add(u64::try_from(count).expect("a count fits"));
    }

    /// Messages were stored; of these, `duplicates` had been seen before.
    pub fn stored(&self, kind: Kind, count: u64, duplicates: u64) {
        let stats = self.of(kind);
        stats.succeeded.fetch_add(count, Ordering::Relaxed);
        if duplicates > 0 {
            stats.deduped.add(duplicates);
        }
    }

    /// A message was refused.
    pub fn refused(&self, reject: Reject) {
        self.invalid.fetch_add(1, Ordering::Relaxed);
        metrics::ingress_rejected(reject.reason).increment(1);
        let mut last_errors = self.last_errors.lock().expect("nothing panics while it holds the lock");
        last_errors.insert(reject.reason.code(), reject.to_string());
    }

    /// An attempt to store failed and will be repeated.
    pub fn processing_failed(&self) {
        self.processing_errors.fetch_add(1, Ordering::Relaxed);
    }

    /// All counters now.
    #[must_use]
    pub fn snapshot(&self) -> StatsSnapshot {
        let sum = |count: fn(&KindStats) -> u64| self.by_kind.iter().map(count).sum::<u64>();
        let routed = |kind: Kind| {
            let stats = self.of(kind);
            [stats.valid.get(), stats.succeeded.load(Ordering::Relaxed)]
        };
        let last_micros = self.last_message_micros.load(Ordering::Relaxed);
        StatsSnapshot {
            started_at: self.started_at,
            last_message_at: (last_micros != 0)
                .then(|| DateTime::from_timestamp_micros(last_micros))
                .flatten(),
            received: sum(|stats| stats.received.get()) + self.unroutable.load(Ordering::Relaxed),
            valid: sum(|stats| stats.valid.get()),
            invalid: self.invalid.load(Ordering::Relaxed),
            deduped: sum(|stats| stats.deduped.get()),
            processing_errors: self.processing_errors.load(Ordering::Relaxed),
            telemetry: routed(Kind::Telemetry),
            weighvision: routed(Kind::WeighVision),
            status: routed(Kind::Status),
            last_errors: self.last_errors.lock().expect("nothing panics while it holds the lock").clone(),
        }
    }

    fn of(&self, kind: Kind) -> &KindStats {
        &self.by_kind[kind as usize]
    }
}

impl KindStats {
    fn of(kind: Kind) -> Self {
        Self {
            received: Counted::of(metrics::ingress_received(kind)),
            valid: Counted::of(metrics::ingress_accepted(kind)),
            deduped: Counted::of(metrics::ingress_deduped(kind)),
            succeeded: AtomicU64::new(0),
            trace_generated: metrics::ingress_trace_generated(kind),
            ts_alias: metrics::ingress_ts_alias(kind),
        }
    }
}
