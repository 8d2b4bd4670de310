//! The table of a benchmark: one row per measurement, a dash where nothing was measured.

use std::time::Duration;

/// One measurement.
#[derive(Clone, Debug, Default)]
pub(crate) struct Row {
    /// What was measured.
    pub(crate) name: String,
    /// Events done.
    pub(crate) events: u64,
    /// From the first event to the last acknowledgement or commit.
    pub(crate) elapsed: Duration,
    /// CPU time of all PostgreSQL processes.
    pub(crate) postgres_cpu: Option<Duration>,
    /// CPU time of the engine.
    pub(crate) engine_cpu: Option<Duration>,
    /// Write-ahead log written.
    pub(crate) wal_bytes: Option<i64>,
    /// Publish to PUBACK at p50 and p99, in milliseconds.
    pub(crate) latency_ms: Option<(f64, f64)>,
}

impl Row {
    /// Events per second.
    pub(crate) fn rate(&self) -> f64 {
        crate::report::per_second(self.events, self.elapsed)
    }

    #[expect(clippy::cast_precision_loss, reason = "figures of one run stay far below 2^52")]
    fn per_event(&self, total: f64) -> f64 {
        total / self.events.max(1) as f64
    }

    #[expect(clippy::cast_precision_loss, reason = "figures of one run stay far below 2^52")]
    fn cells(&self, copy: Option<f64>, sql: Option<f64>) -> [String; 9] {
        let micros = |time: Option<Duration>| time.map(|time| self.per_event(time.as_secs_f64() * 1e6));
        let ratio = |to: Option<f64>| to.map(|to| self.rate() / to);
        [
            self.name.clone(),
            format!("{:.0}", self.rate()),
            show(ratio(copy), 2),
            show(ratio(sql), 2),
            show(micros(self.postgres_cpu), 1),
            show(self.wal_bytes.map(|bytes| self.per_event(bytes as f64)), 0),
            show(micros(self.engine_cpu), 1),
            show(self.latency_ms.map(|(p50, _)| p50), 1),
            show(self.latency_ms.map(|(_, p99)| p99), 1),
        ]
    }
}

const HEADER: [&str; 9] =
    ["", "events/s", "x COPY", "x SQL", "PG µs/ev", "WAL B/ev", "engine µs/ev", "p50 ms", "p99 ms"];

/// Renders the table. Ratios refer to the fastest row whose name starts with `COPY` and with `bare SQL`.
pub(crate) fn render(rows: &[Row]) -> String {
    let fastest =
        |prefix: &str| rows.iter().filter(|row| row.name.starts_with(prefix)).map(Row::rate).reduce(f64::max);
    let (copy, sql) = (fastest("COPY"), fastest("bare SQL"));
    let mut lines = vec![HEADER.map(str::to_owned)];
    lines.extend(rows.iter().map(|row| row.cells(copy, sql)));
    align(&lines)
}

/// Lines of cells as text: the first column to the left, the others to the right.
pub(crate) fn align<const COLUMNS: usize>(lines: &[[String; COLUMNS]]) -> String {
    let widths: Vec<usize> = (0..COLUMNS)
        .map(|column| lines.iter().map(|cells| cells[column].chars().count()).max().unwrap_or(0))
        .collect();
    let mut text = String::new();
    for cells in lines {
        let padded = cells.iter().zip(&widths).enumerate().map(|(column, (cell, width))| {
            if column == 0 { format!("{cell:<width$}") } else { format!("{cell:>width$}") }
        });
        text.push_str(padded.collect::<Vec<_>>().join("  ").trim_end());
        text.push('\n');
    }
    text
}

/// A figure, or a dash where nothing was measured.
pub(crate) fn show(figure: Option<f64>, digits: usize) -> String {
    figure.map_or_else(|| "-".to_owned(), |figure| format!("{figure:.digits$}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ratios_refer_to_the_fastest_limit() {
        let row = |name: &str, events| Row {
            name: name.into(),
            events,
            elapsed: Duration::from_secs(1),
            ..Row::default()
        };
        let text =
            render(&[row("COPY, 1", 800), row("COPY, 2", 1000), row("bare SQL", 500), row("engine", 250)]);
        let last = text.lines().last().unwrap();
        let cells: Vec<_> = last.split_whitespace().collect();
        assert_eq!(cells, ["engine", "250", "0.25", "0.50", "-", "-", "-", "-", "-"]);
    }
}
