//! What a run did, second by second: counts and latencies, of which a report draws its curves.

use std::sync::Mutex;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

/// Longest latency that is told apart: ten minutes.
const LATENCY_MICROS_MAX: u64 = 600_000_000;
/// Rows kept at most; beyond that two become one.
const ROWS_MAX: usize = 3600;
/// Time of a row at first.
const ROW_EVERY: Duration = Duration::from_secs(1);

/// Percentiles in milliseconds.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize, PartialEq)]
pub struct Percentiles {
    /// Half were faster.
    pub p50: f64,
    /// Nine of ten were faster.
    pub p90: f64,
    /// 99 of 100 were faster.
    pub p99: f64,
    /// 999 of 1,000 were faster.
    pub p999: f64,
    /// The slowest.
    pub max: f64,
    /// How many there were.
    pub count: u64,
}

impl Percentiles {
    fn of(histogram: &Histogram<u64>) -> Self {
        let at = |quantile: f64| ms(histogram.value_at_quantile(quantile));
        Self {
            p50: at(0.5),
            p90: at(0.9),
            p99: at(0.99),
            p999: at(0.999),
            max: ms(histogram.max()),
            count: histogram.len(),
        }
    }

    /// Of two times together, as far as their percentiles tell: the larger of each.
    fn worse(self, other: Self) -> Self {
        Self {
            p50: self.p50.max(other.p50),
            p90: self.p90.max(other.p90),
            p99: self.p99.max(other.p99),
            p999: self.p999.max(other.p999),
            max: self.max.max(other.max),
            count: self.count + other.count,
        }
    }
}

#[expect(clippy::cast_precision_loss, reason = "latencies stay far below 2^52 microseconds")]
fn ms(micros: u64) -> f64 {
    micros as f64 / 1000.0
}

/// What a latency is measured from and to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Span {
    /// From when a message was due to its acknowledgement: what a device waits.
    Due,
    /// From when it was sent to its acknowledgement: what the broker takes.
    Sent,
    /// From the first packet to the CONNACK.
    Connect,
    /// From publishing to the arrival at a subscriber.
    Delivery,
}

impl Span {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Due, Self::Sent, Self::Connect, Self::Delivery];

    /// Its name in files.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Due => "due",
            Self::Sent => "sent",
            Self::Connect => "connect",
            Self::Delivery => "delivery",
        }
    }
}

/// Memory and CPU of a process.
#[derive(Clone, Debug, Default, Serialize, Deserialize, PartialEq)]
pub struct Usage {
    /// What it is called in the report.
    pub name: String,
    /// Resident memory, MiB.
    pub memory_mib: f64,
    /// Cores it kept busy.
    pub cores: f64,
}

/// One stretch of time.
#[derive(Clone, Debug, Default, Serialize, Deserialize, PartialEq)]
#[serde(default)]
pub struct Row {
    /// Seconds from the start to the end of the stretch.
    pub at_s: f64,
    /// Its length in seconds.
    pub seconds: f64,
    /// Messages sent for the first time.
    pub published: u64,
    /// Messages acknowledged.
    pub acknowledged: u64,
    /// Messages refused.
    pub refused: u64,
    /// Messages that arrived at subscribers.
    pub delivered: u64,
    /// Latency from when messages were due.
    pub due: Option<Percentiles>,
    /// Latency from when messages were sent.
    pub sent: Option<Percentiles>,
    /// Latency of deliveries.
    pub delivery: Option<Percentiles>,
    /// Processes that were watched.
    pub usage: Vec<Usage>,
}

impl Row {
    fn joined(self, next: Self) -> Self {
        let worse = |one: Option<Percentiles>, other: Option<Percentiles>| match (one, other) {
            (Some(one), Some(other)) => Some(one.worse(other)),
            (one, other) => one.or(other),
        };
        Self {
            at_s: next.at_s,
            seconds: self.seconds + next.seconds,
            published: self.published + next.published,
            acknowledged: self.acknowledged + next.acknowledged,
            refused: self.refused + next.refused,
            delivered: self.delivered + next.delivered,
            due: worse(self.due, next.due),
            sent: worse(self.sent, next.sent),
            delivery: worse(self.delivery, next.delivery),
            usage: if next.usage.is_empty() { self.usage } else { next.usage },
        }
    }
}

/// Something that happened at one time, such as a fault.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq)]
pub struct Mark {
    /// Seconds from the start.
    pub at_s: f64,
    /// What it was.
    pub what: String,
}

/// A run under way, shared by all its connections.
#[derive(Debug)]
pub struct Timeline {
    started: Instant,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    total: Spans,
    current: Spans,
    row: Row,
    row_every: Duration,
    row_until: Instant,
    rows: Vec<Row>,
    marks: Vec<Mark>,
}

/// A histogram for each [`Span`].
#[derive(Debug)]
struct Spans([Histogram<u64>; 4]);

impl Spans {
    fn new() -> Self {
        Self(
            Span::ALL.map(|_| {
                Histogram::new_with_bounds(1, LATENCY_MICROS_MAX, 3).expect("the bounds are in order")
            }),
        )
    }

    fn record(&mut self, span: Span, micros: u64) {
        self.0[span as usize].saturating_record(micros);
    }

    fn percentiles(&self, span: Span) -> Option<Percentiles> {
        let histogram = &self.0[span as usize];
        (!histogram.is_empty()).then(|| Percentiles::of(histogram))
    }

    fn reset(&mut self) {
        for histogram in self.0.iter_mut().filter(|histogram| !histogram.is_empty()) {
            histogram.reset();
        }
    }
}

impl Timeline {
    /// A run that starts now.
    #[must_use]
    pub fn start() -> Self {
        let started = Instant::now();
        let state = State {
            total: Spans::new(),
            current: Spans::new(),
            row: Row::default(),
            row_every: ROW_EVERY,
            row_until: started + ROW_EVERY,
            rows: Vec::new(),
            marks: Vec::new(),
        };
        Self { started, state: Mutex::new(state) }
    }

    /// When it started.
    #[must_use]
    pub fn started(&self) -> Instant {
        self.started
    }

    /// A message was sent for the first time.
    pub fn published(&self) {
        self.with(|state| state.row.published += 1);
    }

    /// A message was acknowledged.
    pub fn acknowledged(&self, due: Duration, sent: Duration) {
        self.with(|state| {
            state.row.acknowledged += 1;
            state.record(Span::Due, due);
            state.record(Span::Sent, sent);
        });
    }

    /// Messages were refused.
    pub fn refused(&self, count: u64) {
        self.with(|state| state.row.refused += count);
    }

    /// A message arrived at a subscriber.
    pub fn delivered(&self, after: Option<Duration>) {
        self.with(|state| {
            state.row.delivered += 1;
            if let Some(after) = after {
                state.record(Span::Delivery, after);
            }
        });
    }

    /// A connection stood after so much time.
    pub fn connected(&self, took: Duration) {
        self.with(|state| state.record(Span::Connect, took));
    }

    /// Something happened now.
    pub fn mark(&self, what: impl Into<String>) {
        let at_s = self.started.elapsed().as_secs_f64();
        self.with(|state| state.marks.push(Mark { at_s, what: what.into() }));
    }

    /// Ends the row when its time is over; `usage` is asked only then.
    pub fn tick(&self, usage: impl FnOnce(Duration) -> Vec<Usage>) {
        let now = Instant::now();
        self.with(|state| {
            if now >= state.row_until {
                state.end_row(now, self.started, usage);
            }
        });
    }

    /// The percentiles of the whole run so far; `None` when there is nothing to tell.
    #[must_use]
    pub fn percentiles(&self, span: Span) -> Option<Percentiles> {
        self.state.lock().expect("no recorder panics").total.percentiles(span)
    }

    /// Ends the last row, and gives rows and marks.
    #[must_use]
    pub fn finish(&self) -> (Vec<Row>, Vec<Mark>) {
        let mut state = self.state.lock().expect("no recorder panics");
        state.end_row(Instant::now(), self.started, |_| Vec::new());
        (std::mem::take(&mut state.rows), std::mem::take(&mut state.marks))
    }

    fn with(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.state.lock().expect("no recorder panics"));
    }
}

impl State {
    fn record(&mut self, span: Span, took: Duration) {
        let micros = u64::try_from(took.as_micros()).unwrap_or(LATENCY_MICROS_MAX);
        self.total.record(span, micros);
        self.current.record(span, micros);
    }

    fn end_row(&mut self, now: Instant, started: Instant, usage: impl FnOnce(Duration) -> Vec<Usage>) {
        let at_s = (now - started).as_secs_f64();
        let length = Duration::from_secs_f64((at_s - self.rows.last().map_or(0.0, |row| row.at_s)).max(0.0));
        let mut row = std::mem::take(&mut self.row);
        (row.at_s, row.seconds, row.usage) = (at_s, length.as_secs_f64(), usage(length));
        row.due = self.current.percentiles(Span::Due);
        row.sent = self.current.percentiles(Span::Sent);
        row.delivery = self.current.percentiles(Span::Delivery);
        self.current.reset();
        self.rows.push(row);
        if self.rows.len() > ROWS_MAX {
            self.row_every *= 2;
            let mut rows = std::mem::take(&mut self.rows).into_iter();
            while let Some(row) = rows.next() {
                self.rows.push(match rows.next() {
                    Some(next) => row.joined(next),
                    None => row,
                });
            }
        }
        self.row_until = now + self.row_every;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_timeline_tells_due_from_sent() {
        let timeline = Timeline::start();
        for number in 1..=100 {
            timeline.published();
            timeline.acknowledged(Duration::from_millis(number * 10), Duration::from_millis(number));
        }
        timeline.refused(2);
        timeline.mark("a fault");
        let sent = timeline.percentiles(Span::Sent).unwrap();
        assert!((sent.p50 - 50.0).abs() < 0.1 && (sent.max - 100.0).abs() < 0.1, "{sent:?}");
        assert_eq!(timeline.percentiles(Span::Delivery), None);
        let (rows, marks) = timeline.finish();
        assert_eq!((rows[0].published, rows[0].acknowledged, rows[0].refused), (100, 100, 2));
        assert!(rows[0].due.unwrap().p99 > 900.0);
        assert_eq!(marks[0].what, "a fault");
    }

    #[test]
    fn a_long_run_keeps_its_sums_in_fewer_rows() {
        let timeline = Timeline::start();
        for number in 0..=ROWS_MAX {
            timeline.published();
            timeline.acknowledged(Duration::from_millis(number as u64), Duration::ZERO);
            let mut state = timeline.state.lock().unwrap();
            state.end_row(Instant::now(), timeline.started, |_| Vec::new());
        }
        let (rows, _) = timeline.finish();
        assert!(rows.len() <= ROWS_MAX / 2 + 2, "{}", rows.len());
        assert_eq!(rows.iter().map(|row| row.published).sum::<u64>(), ROWS_MAX as u64 + 1);
        assert!(rows.windows(2).all(|pair| pair[0].at_s <= pair[1].at_s));
    }
}
