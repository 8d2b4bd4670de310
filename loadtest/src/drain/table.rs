//! The table of a drain: claims first, then engines.

use std::time::Duration;

use crate::bench::process::kib_to_mib;
use crate::bench::table::{Row as Used, align, show};
use crate::drain::course::Course;
use crate::report::per_second;

/// Times of single claims.
#[derive(Clone, Copy, Debug)]
pub(super) struct Claims {
    /// Median of the claims.
    pub(super) claim: Duration,
    /// Nine of ten claims were faster.
    pub(super) p90: Duration,
    /// Median of claim and settlement together.
    pub(super) cycle: Duration,
}

/// One measurement.
#[derive(Debug)]
pub(super) struct Row {
    /// What was measured.
    pub(super) name: String,
    /// Events of it.
    events: u64,
    /// How long those took.
    elapsed: Duration,
    /// Single claims, when those were measured.
    claims: Option<Claims>,
    /// An engine, when one was measured.
    engine: Option<Engine>,
}

#[derive(Debug)]
struct Engine {
    used: Used,
    own_cpu: Duration,
    pause_max: Duration,
    peak_kib: Option<u64>,
    latency_ms: Option<(f64, f64)>,
    violations: u64,
    is_lossless: bool,
}

impl Row {
    pub(super) fn of_claims(name: String, events: u64, elapsed: Duration, claims: Claims) -> Self {
        Self { name, events, elapsed, claims: Some(claims), engine: None }
    }

    pub(super) fn of_engine(
        name: String,
        course: Course,
        peak_kib: Option<u64>,
        latency_ms: Option<(f64, f64)>,
        violations: u64,
        is_lossless: bool,
    ) -> Self {
        let Course { events, elapsed, used, own_cpu, pause_max } = course;
        let engine = Engine { used, own_cpu, pause_max, peak_kib, latency_ms, violations, is_lossless };
        Self { name, events, elapsed, claims: None, engine: Some(engine) }
    }

    /// Whether every event arrived, and as the contract says.
    pub(super) fn is_flawless(&self) -> bool {
        self.engine.as_ref().is_none_or(|engine| engine.is_lossless && engine.violations == 0)
    }

    /// The times of the claims in one line.
    pub(super) fn claim_line(&self) -> String {
        self.claims.map_or_else(String::new, |claims| {
            let [claim, p90, cycle] = [claims.claim, claims.p90, claims.cycle].map(millis);
            format!("{claim:.1} ms (p90 {p90:.1}), with settlement {cycle:.1} ms")
        })
    }

    fn cells(&self) -> [String; 14] {
        let engine = self.engine.as_ref();
        let per_event = |time: Option<Duration>| time.map(|time| self.per_event(time.as_secs_f64() * 1e6));
        let used =
            |cpu: fn(&Used) -> Option<Duration>| per_event(engine.and_then(|engine| cpu(&engine.used)));
        let latency = engine.and_then(|engine| engine.latency_ms);
        #[expect(clippy::cast_precision_loss, reason = "the log of one run stays far below 2^52 bytes")]
        let wal = engine.and_then(|engine| engine.used.wal_bytes).map(|bytes| self.per_event(bytes as f64));
        [
            self.name.clone(),
            self.events.to_string(),
            format!("{:.0}", per_second(self.events, self.elapsed)),
            show(self.claims.map(|claims| millis(claims.claim)), 1),
            show(self.claims.map(|claims| millis(claims.cycle)), 1),
            show(used(|used| used.postgres_cpu), 1),
            show(wal, 0),
            show(used(|used| used.engine_cpu), 1),
            show(per_event(engine.map(|engine| engine.own_cpu)), 1),
            show(engine.and_then(|engine| engine.peak_kib).map(kib_to_mib), 0),
            show(engine.map(|engine| engine.pause_max.as_secs_f64()), 2),
            show(latency.map(|(_, p99)| p99), 1),
            engine.map_or_else(dash, |engine| engine.violations.to_string()),
            engine.map_or_else(dash, |engine| if engine.is_lossless { "none" } else { "SOME" }.to_owned()),
        ]
    }

    #[expect(clippy::cast_precision_loss, reason = "events of one run stay far below 2^52")]
    fn per_event(&self, total: f64) -> f64 {
        total / self.events.max(1) as f64
    }
}

const HEADER: [&str; 14] = [
    "",
    "events",
    "events/s",
    "claim ms",
    "+settle ms",
    "PG µs/ev",
    "WAL B/ev",
    "engine µs/ev",
    "loadtest µs/ev",
    "peak MiB",
    "pause s",
    "MQTT p99 ms",
    "violations",
    "lost",
];

/// Renders the table.
pub(super) fn render(rows: &[Row]) -> String {
    let mut lines = vec![HEADER.map(str::to_owned)];
    lines.extend(rows.iter().map(Row::cells));
    align(&lines)
}

fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

fn dash() -> String {
    "-".to_owned()
}
