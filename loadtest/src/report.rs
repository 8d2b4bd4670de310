//! What the command line shows: results on stdout, progress on stderr as a bar, or as plain lines without a terminal.

use std::io::{IsTerminal, Write};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

use crate::publisher::Meter;

/// How often the live line changes on a terminal.
pub const REDRAW_EVERY: Duration = Duration::from_millis(250);
/// How often a plain line is written when stderr is no terminal.
const PLAIN_EVERY: Duration = Duration::from_secs(5);

/// Writes one line of results to stdout; a closed pipe is nobody's failure.
pub fn say(line: impl AsRef<str>) {
    drop(writeln!(std::io::stdout().lock(), "{}", line.as_ref()));
}

/// Writes one line of progress or warning to stderr.
pub fn note(line: impl AsRef<str>) {
    drop(writeln!(std::io::stderr().lock(), "{}", line.as_ref()));
}

/// A live line: redrawn in place on a terminal, repeated now and then elsewhere.
#[derive(Debug)]
pub struct Live {
    bar: Option<ProgressBar>,
    last_line_at: Instant,
}

impl Live {
    /// Starts the line; `total` draws a bar, without it there is only a spinner.
    #[must_use]
    pub fn start(total: Option<u64>) -> Self {
        let bar = std::io::stderr().is_terminal().then(|| match total {
            Some(total) => ProgressBar::new(total).with_style(style("{bar:30} {pos}/{len} {wide_msg}")),
            None => ProgressBar::new_spinner().with_style(style("{spinner} {elapsed} {wide_msg}")),
        });
        Self { bar, last_line_at: Instant::now() }
    }

    /// Shows the state of now.
    pub fn show(&mut self, position: u64, line: &str) {
        if let Some(bar) = &self.bar {
            bar.set_position(position);
            bar.set_message(line.to_owned());
        } else if self.last_line_at.elapsed() >= PLAIN_EVERY {
            self.last_line_at = Instant::now();
            note(line);
        }
    }

    /// Shows a line that stays.
    pub fn keep(&self, line: &str) {
        match &self.bar {
            Some(bar) => bar.println(line),
            None => note(line),
        }
    }

    /// Takes the line away.
    pub fn finish(self) {
        if let Some(bar) = self.bar {
            bar.finish_and_clear();
        }
    }
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).expect("the template is a constant")
}

/// Runs `work` to its end and shows the meter meanwhile.
pub async fn watch<T>(work: impl Future<Output = T>, meter: &Meter, started: Instant, live: &mut Live) -> T {
    tokio::pin!(work);
    let mut redraw = tokio::time::interval(REDRAW_EVERY);
    loop {
        tokio::select! {
            done = &mut work => return done,
            _ = redraw.tick() => {
                if let Some(error) = meter.take_error() {
                    live.keep(&format!("connection lost: {error}"));
                }
                live.show(meter.acknowledged(), &publish_line(meter, started.elapsed()));
            }
        }
    }
}

/// The state of a publisher in one line.
#[must_use]
pub fn publish_line(meter: &Meter, elapsed: Duration) -> String {
    let acknowledged = meter.acknowledged();
    let mut line = format!(
        "published {}, acknowledged {acknowledged}, {:.0}/s, p50 {:.1} ms, p99 {:.1} ms",
        meter.published(),
        per_second(acknowledged, elapsed),
        meter.latency_ms(0.5),
        meter.latency_ms(0.99),
    );
    for (count, what) in [
        (&meter.fire_and_forget, "at QoS 0"),
        (&meter.reconnects, "reconnects"),
        (&meter.resent, "resent"),
        (&meter.stray_acks, "stray PUBACKs"),
    ] {
        let count = count.load(Ordering::Relaxed);
        if count > 0 {
            line.push_str(&format!(", {count} {what}"));
        }
    }
    line
}

/// A rate.
#[must_use]
#[expect(clippy::cast_precision_loss, reason = "counts stay far below 2^52")]
pub fn per_second(count: u64, elapsed: Duration) -> f64 {
    count as f64 / elapsed.as_secs_f64().max(1e-9)
}
