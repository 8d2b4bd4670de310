//! The tables of the benchmark: who writes, without a pass and with it; and what went.

use std::time::Duration;

use crate::bench::table::{Row as Used, align, show};
use crate::publisher::Meter;
use crate::report::per_second;

use super::janitor::Deleted;
use super::watch::Sights;

/// One measurement.
#[derive(Debug)]
pub(super) struct Row {
    name: String,
    events: u64,
    elapsed: Duration,
    used: Used,
    /// p50, p99 and the longest.
    latency_ms: [f64; 3],
    pub(super) sights: Sights,
}

impl Row {
    pub(super) fn new(
        name: &str,
        events: u64,
        elapsed: Duration,
        used: Used,
        meter: &Meter,
        sights: Sights,
    ) -> Self {
        let latency_ms = [0.5, 0.99, 1.0].map(|quantile| meter.latency_ms(quantile));
        Self { name: name.to_owned(), events, elapsed, used, latency_ms, sights }
    }

    fn cells(&self) -> [String; 9] {
        let cpu = |time: Option<Duration>| {
            show(time.map(|time| time.as_secs_f64() / self.elapsed.as_secs_f64() * 100.0), 0)
        };
        let millis = |time: Duration| show(Some(time.as_secs_f64() * 1e3), 0);
        let [p50, p99, longest] = self.latency_ms.map(|latency| show(Some(latency), 1));
        [
            self.name.clone(),
            format!("{:.0}", per_second(self.events, self.elapsed)),
            p50,
            p99,
            longest,
            cpu(self.used.postgres_cpu),
            cpu(self.used.engine_cpu),
            millis(self.sights.lock_longest()),
            millis(self.sights.wait_longest()),
        ]
    }
}

const HEADER: [&str; 9] = [
    "",
    "readings/s",
    "p50 ms",
    "p99 ms",
    "max ms",
    "PG CPU %",
    "engine CPU %",
    "longest lock ms",
    "longest wait ms",
];

/// Renders the measurements.
pub(super) fn render(rows: &[Row]) -> String {
    let mut lines = vec![HEADER.map(str::to_owned)];
    lines.extend(rows.iter().map(Row::cells));
    align(&lines)
}

/// Renders what went beside what had to go.
pub(super) fn render_deleted(deleted: &Deleted, expected: &Deleted) -> String {
    let mut lines = vec![["table", "old rows", "deleted"].map(str::to_owned)];
    let count = |rows: u64| rows.to_string();
    lines.extend(expected.iter().map(|(table, rows)| {
        [table.clone(), count(*rows), count(deleted.get(table).copied().unwrap_or_default())]
    }));
    let total = |of: &Deleted| of.values().sum::<u64>().to_string();
    lines.push(["all".to_owned(), total(expected), total(deleted)]);
    align(&lines)
}
