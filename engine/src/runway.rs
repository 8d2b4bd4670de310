//! The offline runway: how long the cloud may stay away before the volume of the database is full.
//!
//! What an event costs is measured on the tables, and how many come is measured on the counter of the outbox. Without the
//! cloud an event takes its row in the outbox, its reading, and its mark. The last measurement is kept in the data
//! directory, so that the doctor, the status and the next start know it.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use actors::chore::Chore;
use chrono::TimeDelta;
use schema::clock::{Clock, Timestamp};
use schema::metrics;
use schema::store::survey::{self, Extent, Extents};
use schema::store::{Store, StoreError};
use serde::{Deserialize, Serialize};

/// The name of the file.
const FILE: &str = "runway.json";
/// How long the cloud may stay away by the promise of the engine.
pub const PROMISE_DAYS: f64 = 7.0;
/// How far back the rate is measured.
const SPAN_MAX: TimeDelta = TimeDelta::days(7);
/// Before the counter was watched for so long, nothing is foretold.
const SPAN_MIN: TimeDelta = TimeDelta::minutes(60);
/// Time between two readings of the counter that are kept.
const SAMPLE_EVERY: TimeDelta = TimeDelta::hours(1);
/// What stays for everything else, besides what the server's log may take.
const RESERVE_BYTES: u64 = 1024 * 1024 * 1024;
/// Rows of which an average is taken.
const ROWS_MIN: i64 = 1_000;
/// Bytes with indexes where there are too few rows to tell: of an event that waits, of a reading, of a mark. docs/growth.md
/// has the measurement.
const WAITING_BYTES: f64 = 600.0;
const RAW_BYTES: f64 = 350.0;
const MARK_BYTES: f64 = 200.0;
/// The most that a waiting event is believed to take: a table that was emptied is larger than what is in it.
const WAITING_BYTES_MAX: f64 = 4_096.0;
const GB: f64 = 1e9;
const DAY_SECONDS: f64 = 86_400.0;

/// The counter of events at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Sample {
    at: Timestamp,
    events: i64,
}

/// How long the cloud may stay away, and why so long.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Runway {
    /// When it was measured.
    pub at: Timestamp,
    /// Events a day.
    pub events_per_day: f64,
    /// Bytes that one event takes while it cannot be sent.
    pub bytes_per_event: f64,
    /// Free bytes of the volume.
    pub free_bytes: u64,
    /// Bytes that stay for the server's log.
    #[serde(default)]
    pub reserve_bytes: u64,
    /// Bytes of events that the cloud has: they go first when room is needed.
    pub archive_bytes: u64,
    /// Days until the volume is full without the cloud.
    pub days: f64,
}

impl Runway {
    /// The arithmetic, in words.
    #[must_use]
    pub fn arithmetic(&self) -> String {
        let Self { events_per_day, bytes_per_event, .. } = self;
        format!(
            "{:.1} events/s of {bytes_per_event:.0} bytes are {:.2} GB a day; {:.1} GB are free, of which {:.1} GB stay for \
             PostgreSQL's log, and {:.1} GB of events that the cloud has would go first",
            events_per_day / DAY_SECONDS,
            events_per_day * bytes_per_event / GB,
            self.free_bytes as f64 / GB,
            self.reserve_bytes as f64 / GB,
            self.archive_bytes as f64 / GB
        )
    }

    /// Whether the disk keeps the promise.
    #[must_use]
    pub fn is_enough(&self) -> bool {
        self.days >= PROMISE_DAYS
    }

    /// What was measured last on this box.
    #[must_use]
    pub fn read(data_dir: &Path) -> Option<Self> {
        Kept::read(data_dir).last
    }
}

/// What is kept between two measurements.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct Kept {
    /// The counter over the last days, the oldest first.
    samples: Vec<Sample>,
    last: Option<Runway>,
}

impl Kept {
    fn read(data_dir: &Path) -> Self {
        let read = fs::read(data_dir.join(FILE)).ok();
        read.and_then(|bytes| serde_json::from_slice(&bytes).ok()).unwrap_or_default()
    }

    fn write(&self, data_dir: &Path) -> std::io::Result<()> {
        let path = data_dir.join(FILE);
        let draft = path.with_extension("draft");
        fs::write(&draft, serde_json::to_vec(self).expect("numbers and times become JSON"))?;
        fs::rename(draft, path)
    }

    /// Notes the counter. One that goes backwards is that of another database, and a time from the future that of a wrong
    /// clock: both begin anew.
    fn note(&mut self, now: Sample) {
        self.samples.retain(|sample| {
            sample.at <= now.at && sample.events <= now.events && now.at - sample.at <= SPAN_MAX
        });
        if self.samples.last().is_none_or(|last| now.at - last.at >= SAMPLE_EVERY) {
            self.samples.push(now);
        }
    }

    /// Events a day since the oldest sample; `None` before there is enough to tell.
    fn events_per_day(&self, now: Sample) -> Option<f64> {
        let first = self.samples.first().filter(|first| now.at - first.at >= SPAN_MIN)?;
        let days = (now.at - first.at).as_seconds_f64() / DAY_SECONDS;
        Some((now.events - first.events) as f64 / days)
    }
}

/// What the tables and the volume say, with how many events come, as days.
fn forecast(at: Timestamp, extents: &Extents, free_bytes: u64, events_per_day: f64) -> Option<Runway> {
    if events_per_day <= 0.0 {
        return None;
    }
    let bytes_per_event = bytes_per_event(extents);
    let archive_bytes = extents.acked.bytes.unsigned_abs();
    let reserve_bytes = RESERVE_BYTES.saturating_add(extents.log_bytes_max.unsigned_abs());
    let room = free_bytes.saturating_sub(reserve_bytes).saturating_add(archive_bytes);
    let days = room as f64 / (events_per_day * bytes_per_event);
    Some(Runway { at, events_per_day, bytes_per_event, free_bytes, reserve_bytes, archive_bytes, days })
}

/// Bytes that one event takes while it cannot be sent.
fn bytes_per_event(extents: &Extents) -> f64 {
    let measured = |extent: Extent, otherwise: f64| {
        if extent.rows < ROWS_MIN { otherwise } else { extent.bytes as f64 / extent.rows as f64 }
    };
    let waiting = measured(extents.outbox, WAITING_BYTES).min(WAITING_BYTES_MAX);
    waiting + measured(extents.raw, RAW_BYTES) + measured(extents.marks, MARK_BYTES)
}

/// Measures the runway, shows it, and warns when it is shorter than the promise.
#[derive(Clone)]
pub(crate) struct RunwayWatch {
    /// The database.
    pub(crate) store: Store,
    /// Where it lies, when its server is ours.
    pub(crate) own_database: Option<PathBuf>,
    /// Wall time.
    pub(crate) clock: Clock,
    /// Where the measurement is kept.
    pub(crate) data_dir: PathBuf,
    /// Seconds between two looks.
    pub(crate) check_seconds: u64,
    /// What was said last: whether it is enough.
    pub(crate) told: Option<bool>,
}

impl Chore for RunwayWatch {
    const NAME: &'static str = "runway";
    type Error = StoreError;

    async fn run(&mut self) -> Result<Duration, StoreError> {
        let at = self.clock.now();
        let look =
            async |conn: &mut _| Ok((survey::events_ever(conn).await?, survey::extents(conn, at).await?));
        let (events, extents) = self.store.reads().run("runway", look).await?;
        let place = actors::disk::database_place(self.own_database.as_deref(), &self.store.reads()).await?;
        let mut kept = Kept::read(&self.data_dir);
        let now = Sample { at, events };
        kept.note(now);
        let space = place.and_then(|place| actors::disk::space(&place).ok());
        let known = space.zip(kept.events_per_day(now));
        kept.last = known.and_then(|(space, rate)| forecast(at, &extents, space.free_bytes, rate));
        if let Err(error) = kept.write(&self.data_dir) {
            tracing::debug!(%error, "the measurement of the disk cannot be kept");
        }
        self.show(kept.last);
        Ok(Duration::from_secs(self.check_seconds))
    }
}

impl RunwayWatch {
    fn show(&mut self, runway: Option<Runway>) {
        metrics::disk_runway_days().set(runway.map_or(metrics::UNKNOWN, |runway| runway.days));
        let Some(runway) = runway else { return };
        let is_enough = runway.is_enough();
        if self.told.replace(is_enough) == Some(is_enough) {
            return;
        }
        let (days, arithmetic) = (format!("{:.1}", runway.days), runway.arithmetic());
        if is_enough {
            tracing::info!(days, arithmetic, "the cloud may stay away for so many days");
        } else {
            tracing::warn!(
                days,
                arithmetic,
                "the disk of the database holds fewer than seven days without the cloud: give it more room"
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(hours: i64) -> Timestamp {
        schema::wire::time::parse("2026-11-30T00:00:00Z").unwrap() + TimeDelta::hours(hours)
    }

    #[test]
    fn the_rate_is_that_of_the_last_week_and_another_database_begins_anew() {
        let mut kept = Kept::default();
        for hour in 0..=24 * 9 {
            kept.note(Sample { at: at(hour), events: hour * 1000 });
        }
        assert_eq!(kept.samples.len(), 24 * 7 + 1);
        let rate = |kept: &Kept, hour, events| kept.events_per_day(Sample { at: at(hour), events });
        assert_eq!(rate(&kept, 24 * 9, 24 * 9 * 1000), Some(24_000.0));
        kept.note(Sample { at: at(24 * 9 + 1), events: 5 });
        assert_eq!(kept.samples, [Sample { at: at(24 * 9 + 1), events: 5 }]);
        assert_eq!(rate(&kept, 24 * 9 + 1, 6), None);
        kept.note(Sample { at: at(3), events: 7 });
        assert_eq!(kept.samples.len(), 1);
    }

    #[test]
    fn days_are_what_is_free_and_what_goes_first_over_what_comes() {
        let extent = |rows: i64, bytes_each: i64| Extent { bytes: rows * bytes_each, rows };
        let extents = Extents {
            outbox: extent(10, 100_000),
            acked: extent(2_000_000, 500),
            raw: extent(1_000_000, 300),
            marks: extent(10_000, 150),
            log_bytes_max: 8 << 30,
            ..Extents::default()
        };
        // 600 + 300 + 150 bytes an event.
        let runway = forecast(at(0), &extents, (9 << 30) + 6_350_000_000, 1_000_000.0).unwrap();
        assert!((runway.bytes_per_event - 1_050.0).abs() < 1e-6, "{runway:?}");
        assert!((runway.days - 7.0).abs() < 1e-6 && runway.is_enough(), "{runway:?}");
        let full = forecast(at(0), &extents, 0, 1_000_000.0).unwrap();
        assert!(!full.is_enough() && full.days < 1.0, "{full:?}");
        assert!(full.arithmetic().contains("11.6 events/s of 1050 bytes are 1.05 GB a day"), "{full:?}");
        assert_eq!(forecast(at(0), &extents, 1, 0.0), None);
        let waiting = Extents { outbox: extent(5_000, 1_300), ..extents };
        assert!((bytes_per_event(&waiting) - 1_750.0).abs() < 1e-6);
        assert!((bytes_per_event(&Extents::default()) - 1_150.0).abs() < 1e-6);
    }
}
