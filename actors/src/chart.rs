//! Charts: what devices measured, in buckets of minutes, hours or days, whose edges are those of a time zone.
//!
//! Buckets of 5 and 15 minutes are made of closed minutes. Hours and days are made of closed hours, but for hours that an edge lies
//! inside of (in zones off the hour) and those that are not over: these are read minute by minute.

use std::collections::BTreeMap;

use chrono::{DateTime, Duration, NaiveDate};
use schema::clock::Timestamp;
use schema::store::chart::{self as rows, POINTS_MAX, Point};
use schema::store::fault::{self, Fault};
use schema::store::flock::barn;
use schema::store::house;
use schema::store::{Conn, Store, StoreError};

use crate::flock::calendar::Zone;

/// Buckets of one chart.
pub const BUCKETS_MAX: i64 = 1500;
/// Devices of one chart.
pub const DEVICES_MAX: usize = 50;
/// Closed minutes that are read for one chart, about: beyond it nobody would wait for the answer.
const MINUTES_MAX: i64 = 75_000;
/// Metrics that a device has, about.
const METRICS_OF_DEVICE: i64 = 7;
/// An hour is closed so long after its end at the latest, unless the aggregation is behind.
const CLOSED_AFTER: Duration = Duration::minutes(5);

/// How long a bucket is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bucket {
    /// Five minutes.
    FiveMinutes,
    /// A quarter of an hour.
    Quarter,
    /// An hour.
    Hour,
    /// A day, from midnight to midnight where the barn is.
    Day,
}

impl Bucket {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::FiveMinutes, Self::Quarter, Self::Hour, Self::Day];

    /// As callers name it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::FiveMinutes => "5m",
            Self::Quarter => "15m",
            Self::Hour => "1h",
            Self::Day => "1d",
        }
    }

    fn seconds(self) -> i64 {
        match self {
            Self::FiveMinutes => 300,
            Self::Quarter => 900,
            Self::Hour => 3600,
            Self::Day => 86_400,
        }
    }

    /// What is charted when nobody says from when on.
    #[must_use]
    pub fn usual_span(self) -> Duration {
        match self {
            Self::FiveMinutes | Self::Quarter => Duration::days(1),
            Self::Hour => Duration::days(7),
            Self::Day => Duration::days(60),
        }
    }
}

/// What is to be charted.
#[derive(Clone, Debug)]
pub struct Ask {
    /// Tenant.
    pub tenant_id: String,
    /// Whose values; none: those of the devices of the barn.
    pub devices: Vec<String>,
    /// Farm of the barn, where several have one of its name.
    pub farm_id: Option<String>,
    /// The barn.
    pub barn_id: Option<String>,
    /// Only this metric.
    pub metric_type: Option<String>,
    /// From this bucket on.
    pub from: Option<Timestamp>,
    /// Up to this one; now unless said.
    pub to: Option<Timestamp>,
    /// How long a bucket is.
    pub bucket: Bucket,
    /// Whose midnights; those of the barn unless said, or else UTC's.
    pub zone: Option<Zone>,
}

/// What was measured by one metric of a device.
#[derive(Clone, Debug, PartialEq)]
pub struct Line {
    /// The device.
    pub device_id: String,
    /// The metric.
    pub metric_type: String,
    /// Its buckets that have readings, in their order.
    pub points: Vec<Point>,
    /// What was wrong with it in this time.
    pub faults: Vec<Fault>,
}

/// A chart.
#[derive(Clone, Debug, PartialEq)]
pub struct Chart {
    /// Whose midnights.
    pub zone: Zone,
    /// The edges of the buckets; the last one ends the last.
    pub edges: Vec<Timestamp>,
    /// By device and metric.
    pub lines: Vec<Line>,
}

impl Chart {
    /// The day of a bucket where the zone is.
    #[must_use]
    pub fn day(&self, bucket: usize) -> Option<NaiveDate> {
        self.edges.get(bucket).map(|edge| self.zone.day(*edge))
    }
}

/// Why there is no chart.
#[derive(Debug, thiserror::Error)]
pub enum ChartError {
    /// Nobody is named.
    #[error("name device_id or barn_id")]
    Nobody,
    /// The end lies before the beginning.
    #[error("end_time must be behind start_time")]
    Backwards,
    /// Too many buckets.
    #[error("{0} buckets of {1} are more than {BUCKETS_MAX}: name a longer bucket or a shorter time")]
    Buckets(i64, &'static str),
    /// Too many devices.
    #[error("{0} devices are more than {DEVICES_MAX}: name some of them by device_id")]
    Devices(usize),
    /// Too much to read or to tell.
    #[error(
        "that is too much for one chart: name metric_type, fewer devices, a shorter time or a longer bucket"
    )]
    TooMuch,
    /// Several farms have a barn of the name.
    #[error("several farms have a barn of this name: name farm_id")]
    Farms,
    /// The database failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Reads a chart.
///
/// # Errors
/// [`ChartError`] when it would be too much, and when the database fails.
pub async fn read(reads: &Store, ask: &Ask, now: Timestamp) -> Result<Chart, ChartError> {
    let to = ask.to.unwrap_or(now);
    let from = ask.from.unwrap_or(to - ask.bucket.usual_span());
    if from >= to {
        return Err(ChartError::Backwards);
    }
    let count = to.signed_duration_since(from).num_seconds() / ask.bucket.seconds() + 1;
    if count > BUCKETS_MAX {
        return Err(ChartError::Buckets(count, ask.bucket.as_str()));
    }
    let place = async |conn: &mut Conn| place(conn, ask).await;
    let (devices, zone) = reads.run("chart_devices", place).await??;
    let edges = edges(zone, ask.bucket, from, to);
    let source = Source::of(ask.bucket, &edges, now);
    let minutes = source.minutes(&edges) * i64::try_from(devices.len()).unwrap_or(i64::MAX);
    let metrics = if ask.metric_type.is_some() { 1 } else { METRICS_OF_DEVICE };
    if minutes.saturating_mul(metrics) > MINUTES_MAX {
        return Err(ChartError::TooMuch);
    }
    let metric_type = ask.metric_type.as_deref();
    let chart = rows::Chart { tenant_id: &ask.tenant_id, devices: &devices, metric_type, edges: &edges };
    let span = (from, to);
    let read = async |conn: &mut Conn| {
        let points = match &source {
            Source::Minutes => rows::by_minutes(conn, &chart).await?,
            Source::Hours(by_minute) => rows::by_hours(conn, &chart, by_minute).await?,
        };
        let faults = fault::of_devices(conn, &ask.tenant_id, &devices, metric_type, span).await?;
        Ok((points, faults))
    };
    let (points, faults) = reads.run("chart", read).await?;
    if i64::try_from(points.len()).unwrap_or(i64::MAX) > POINTS_MAX {
        return Err(ChartError::TooMuch);
    }
    Ok(Chart { zone, edges, lines: lines(points, faults) })
}

/// Whose values, and where.
async fn place(conn: &Conn, ask: &Ask) -> Result<Result<(Vec<String>, Zone), ChartError>, StoreError> {
    let mut zone = ask.zone;
    let mut devices = ask.devices.clone();
    if let Some(barn_id) = &ask.barn_id {
        let barns = house::named(conn, &ask.tenant_id, barn_id, ask.farm_id.as_deref()).await?;
        if barns.len() > 1 {
            return Ok(Err(ChartError::Farms));
        }
        if let (None, Some(found)) = (zone, barns.first()) {
            let known = barn(conn, [&found.tenant_id, &found.farm_id, &found.barn_id]).await?;
            zone = known.and_then(|barn| Zone::parse(&barn.time_zone));
        }
        if devices.is_empty() {
            let limit = i64::try_from(DEVICES_MAX + 1).unwrap_or(i64::MAX);
            let farm_id = ask.farm_id.as_deref();
            devices = rows::devices(conn, &ask.tenant_id, barn_id, farm_id, limit).await?;
        }
    } else if devices.is_empty() {
        return Ok(Err(ChartError::Nobody));
    }
    if devices.len() > DEVICES_MAX {
        return Ok(Err(ChartError::Devices(devices.len())));
    }
    Ok(Ok((devices, zone.unwrap_or(Zone::UTC))))
}

/// Of what a chart is made.
#[derive(Debug, PartialEq)]
enum Source {
    /// Minute by minute.
    Minutes,
    /// Hour by hour, but for these, which are read minute by minute.
    Hours(Vec<Timestamp>),
}

impl Source {
    fn of(bucket: Bucket, edges: &[Timestamp], now: Timestamp) -> Self {
        let inside: Vec<Timestamp> = edges
            .iter()
            .filter(|edge| edge.timestamp().rem_euclid(3600) != 0)
            .map(|edge| hour_of(*edge))
            .collect();
        match bucket {
            Bucket::FiveMinutes | Bucket::Quarter => Self::Minutes,
            Bucket::Hour if !inside.is_empty() => Self::Minutes,
            Bucket::Hour | Bucket::Day => {
                let open = hour_of(now - CLOSED_AFTER);
                let end = edges.last().copied().unwrap_or(open).min(now + Duration::hours(1));
                let hours = (0..).map(|hours| open + Duration::hours(hours));
                let mut by_minute: Vec<_> = hours.take_while(|hour| *hour < end).chain(inside).collect();
                by_minute.sort_unstable();
                by_minute.dedup();
                Self::Hours(by_minute)
            }
        }
    }

    /// How many minutes of each device are read.
    fn minutes(&self, edges: &[Timestamp]) -> i64 {
        match self {
            Self::Minutes => {
                let (first, last) = (edges.first().copied(), edges.last().copied());
                let span = first.zip(last).map(|(first, last)| last.signed_duration_since(first));
                span.map_or(0, |span| span.num_minutes())
            }
            Self::Hours(by_minute) => i64::try_from(by_minute.len()).unwrap_or(i64::MAX).saturating_mul(60),
        }
    }
}

fn hour_of(at: Timestamp) -> Timestamp {
    let seconds = at.timestamp();
    DateTime::from_timestamp(seconds - seconds.rem_euclid(3600), 0).unwrap_or(at)
}

/// The edges of the buckets from the one that `from` is in up to the end of that in which the time before `to` is.
#[must_use]
pub fn edges(zone: Zone, bucket: Bucket, from: Timestamp, to: Timestamp) -> Vec<Timestamp> {
    let mut edges = Vec::new();
    let mut edge = match bucket {
        Bucket::FiveMinutes | Bucket::Quarter | Bucket::Hour => zone.floor(from, bucket.seconds()),
        Bucket::Day => zone.span(zone.day(from)).0,
    };
    let count_max = usize::try_from(2 * BUCKETS_MAX).unwrap_or(usize::MAX);
    while edges.len() <= count_max {
        edges.push(edge);
        if edge >= to {
            break;
        }
        let next = match bucket {
            Bucket::FiveMinutes | Bucket::Quarter | Bucket::Hour => {
                zone.floor(edge, bucket.seconds()) + Duration::seconds(bucket.seconds())
            }
            Bucket::Day => zone.span(zone.day(edge)).1,
        };
        if next <= edge {
            break;
        }
        edge = next;
    }
    edges
}

fn lines(points: Vec<Point>, faults: Vec<Fault>) -> Vec<Line> {
    let mut lines: BTreeMap<(String, String), Line> = BTreeMap::new();
    let mut line = |device_id: &str, metric_type: &str, add: &mut dyn FnMut(&mut Line)| {
        let line = lines.entry((device_id.to_owned(), metric_type.to_owned())).or_insert_with(|| Line {
            device_id: device_id.to_owned(),
            metric_type: metric_type.to_owned(),
            points: Vec::new(),
            faults: Vec::new(),
        });
        add(line);
    };
    for point in points {
        let (device_id, metric_type) = (point.device_id.clone(), point.metric_type.clone());
        line(&device_id, &metric_type, &mut |line| line.points.push(point.clone()));
    }
    for fault in faults {
        let (device_id, metric_type) = (fault.device_id.clone(), fault.metric_type.clone());
        line(&device_id, &metric_type, &mut |line| line.faults.push(fault.clone()));
    }
    lines.into_values().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn time(text: &str) -> Timestamp {
        schema::wire::time::parse(text).unwrap()
    }

    fn zone(name: &str) -> Zone {
        Zone::parse(name).unwrap()
    }

    fn texts(edges: &[Timestamp]) -> Vec<String> {
        edges.iter().map(|edge| edge.format("%dT%H:%M").to_string()).collect()
    }

    #[test]
    fn buckets_begin_where_their_zone_says() {
        let (from, to) = (time("2026-02-12T09:07:00Z"), time("2026-02-12T10:01:00Z"));
        let of = |name: &str, bucket| texts(&edges(zone(name), bucket, from, to));
        assert_eq!(
            of("UTC", Bucket::Quarter),
            ["12T09:00", "12T09:15", "12T09:30", "12T09:45", "12T10:00", "12T10:15"]
        );
        assert_eq!(of("Asia/Kathmandu", Bucket::Hour), ["12T08:15", "12T09:15", "12T10:15"]);
        assert_eq!(of("Asia/Bangkok", Bucket::Day), ["11T17:00", "12T17:00"]);
        assert_eq!(of("UTC", Bucket::FiveMinutes).len(), 13);
    }

    #[test]
    fn days_have_as_many_hours_as_their_clocks() {
        let hours = |name: &str, from: &str, to: &str| {
            let edges = edges(zone(name), Bucket::Day, time(from), time(to));
            edges.windows(2).map(|two| (two[1] - two[0]).num_hours()).collect::<Vec<_>>()
        };
        assert_eq!(hours("Europe/Berlin", "2026-03-28T12:00:00Z", "2026-03-30T12:00:00Z"), [24, 23, 24]);
        assert_eq!(hours("Europe/Berlin", "2026-10-24T12:00:00Z", "2026-10-26T12:00:00Z"), [24, 25, 24]);
        assert_eq!(hours("Asia/Bangkok", "2026-03-28T12:00:00Z", "2026-03-29T12:00:00Z"), [24, 24]);
    }

    #[test]
    fn local_hours_stay_on_the_hour_over_every_change_of_the_clocks() {
        // Lord Howe changes by half an hour.
        for name in ["Europe/Berlin", "Australia/Lord_Howe", "America/St_Johns", "Asia/Kathmandu"] {
            let edges =
                edges(zone(name), Bucket::Hour, time("2026-03-20T00:00:00Z"), time("2026-04-20T00:00:00Z"));
            assert!(edges.windows(2).all(|two| two[0] < two[1]), "{name}");
            let off = edges.iter().filter(|edge| zone(name).floor(**edge, 3600) != **edge).count();
            assert!(off <= 1, "{name}: {off} edges are off the hour");
        }
    }

    #[test]
    fn hours_are_read_as_a_whole_unless_an_edge_is_inside_or_they_are_not_over() {
        let now = time("2026-02-12T10:20:00Z");
        let source = |name: &str, bucket, from: &str| {
            Source::of(bucket, &edges(zone(name), bucket, time(from), now), now)
        };
        let Source::Hours(by_minute) = source("Asia/Bangkok", Bucket::Day, "2026-02-10T00:00:00Z") else {
            panic!("hours")
        };
        assert_eq!(texts(&by_minute), ["12T10:00", "12T11:00"]);
        let Source::Hours(by_minute) = source("Asia/Kathmandu", Bucket::Day, "2026-02-10T00:00:00Z") else {
            panic!("hours")
        };
        assert_eq!(
            texts(&by_minute),
            ["09T18:00", "10T18:00", "11T18:00", "12T10:00", "12T11:00", "12T18:00"]
        );
        assert_eq!(source("Asia/Kathmandu", Bucket::Hour, "2026-02-10T00:00:00Z"), Source::Minutes);
        assert_eq!(source("UTC", Bucket::Quarter, "2026-02-12T00:00:00Z"), Source::Minutes);
    }
}
