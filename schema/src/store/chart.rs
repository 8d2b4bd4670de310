//! Charts: aggregates of several devices in buckets whose edges the caller knows, such as days of a time zone.

use tokio_postgres::Row;
use tokio_postgres::types::ToSql;

use crate::clock::Timestamp;
use crate::store::{Conn, StoreError};

/// Every statement of this module.
pub const STATEMENTS: &[&str] = &[DEVICES, MINUTES, HOURS];

/// Points of one chart, over all its series.
pub const POINTS_MAX: i64 = 20_000;

const DEVICES: &str = "-- chart_devices
SELECT device_id FROM device_allowlist
WHERE tenant_id = $1 AND barn_id = $2 AND ($3::text IS NULL OR farm_id = $3) ORDER BY device_id LIMIT $4";

/// The devices that the allowlist has in a barn.
///
/// # Errors
/// When the database fails.
pub async fn devices(
    conn: &Conn,
    tenant_id: &str,
    barn_id: &str,
    farm_id: Option<&str>,
    limit: i64,
) -> Result<Vec<String>, StoreError> {
    let rows = conn.query(DEVICES, &[&tenant_id, &barn_id, &farm_id, &limit]).await?;
    Ok(rows.iter().map(|row| row.get(0)).collect())
}

/// A bucket of a device's metric.
#[derive(Clone, Debug, PartialEq)]
pub struct Point {
    /// The device.
    pub device_id: String,
    /// The metric.
    pub metric_type: String,
    /// Its bucket: the place of its first edge among the edges.
    pub bucket: usize,
    /// Smallest value.
    pub min: f64,
    /// Mean.
    pub avg: f64,
    /// Largest value.
    pub max: f64,
    /// Readings.
    pub count: i64,
}

/// What is charted.
#[derive(Clone, Debug)]
pub struct Chart<'a> {
    /// Tenant.
    pub tenant_id: &'a str,
    /// Whose values.
    pub devices: &'a [String],
    /// Only this metric.
    pub metric_type: Option<&'a str>,
    /// The edges of the buckets, ascending; the last one ends the last bucket.
    pub edges: &'a [Timestamp],
}

impl Chart<'_> {
    /// Minutes between which no edge lies: quarters of an hour, unless an edge lies off them, as in zones of long ago.
    fn minutes_together(&self) -> i32 {
        const QUARTER_SECONDS: i64 = 15 * 60;
        let are_quarters = self.edges.iter().all(|edge| edge.timestamp().rem_euclid(QUARTER_SECONDS) == 0);
        if are_quarters { 15 } else { 1 }
    }

    fn span(&self) -> (Timestamp, Timestamp) {
        let first = self.edges.first().copied().unwrap_or_default();
        (first, self.edges.last().copied().unwrap_or(first))
    }
}

// The mean of means, reckoned on values scaled by 2^-64, which is exact and keeps sums of huge values from overflowing.
macro_rules! mean {
    ($rows:literal) => {
        concat!(
            "least(greatest(sum(",
            $rows,
            ".avg_value * 5.421010862427522e-20 * ",
            $rows,
            ".count) / sum(",
            $rows,
            ".count),
        min(",
            $rows,
            ".min_value) * 5.421010862427522e-20), max(",
            $rows,
            ".max_value) * 5.421010862427522e-20)
        * 18446744073709551616::float8"
        )
    };
}

// The planner, which takes every minute for a bucket of its own, would sort them all on disk; behind a fence it knows nothing
// and hashes.
macro_rules! points {
    ($name:literal, $($parts:tt)+) => {
        concat!(
            "-- ",
            $name,
            "
WITH p AS MATERIALIZED (
    SELECT device_id, metric_type, width_bucket(bucket_start_at, $4::timestamptz[]) - 1 AS bucket, min_value, avg_value, max_value,
        count
    FROM (",
            $($parts)+,
            ") AS parts
)
SELECT p.device_id, p.metric_type, p.bucket, min(p.min_value),
    ",
            mean!("p"),
            ",
    max(p.max_value), sum(p.count)::bigint
FROM p GROUP BY 1, 2, 3 ORDER BY 1, 2, 3 LIMIT $7"
        )
    };
}

const MINUTES: &str = points!(
    "chart_minutes",
    "SELECT device_id, metric_type, bucket_start_at, min_value, avg_value, max_value, count FROM telemetry_agg
    WHERE tenant_id = $1 AND device_id = ANY ($2) AND \"window\" = '1m' AND bucket_start_at >= $5 AND bucket_start_at < $6
        AND ($3::text IS NULL OR metric_type = $3)"
);

// The minutes of an hour are put together as far as no edge comes between them: fewer rows are laid into buckets.
const HOURS: &str = points!(
    "chart_hours",
    "SELECT device_id, metric_type, bucket_start_at, min_value, avg_value, max_value, count FROM telemetry_agg
    WHERE tenant_id = $1 AND device_id = ANY ($2) AND \"window\" = '1h' AND bucket_start_at >= $5 AND bucket_start_at < $6
        AND ($3::text IS NULL OR metric_type = $3) AND bucket_start_at <> ALL ($8)
    UNION ALL
    SELECT m.device_id, m.metric_type, m.begins_at, m.min_value, m.avg_value, m.max_value, m.count
    FROM unnest($8::timestamptz[]) AS h (hour) CROSS JOIN LATERAL (
        SELECT a.device_id, a.metric_type, date_bin($9::int * interval '1 minute', a.bucket_start_at, h.hour) AS begins_at,
            min(a.min_value) AS min_value, max(a.max_value) AS max_value, sum(a.count)::bigint AS count,
            ",
    mean!("a"),
    " AS avg_value
        FROM telemetry_agg AS a
        WHERE a.tenant_id = $1 AND a.device_id = ANY ($2) AND a.\"window\" = '1m' AND a.bucket_start_at >= greatest(h.hour, $5)
            AND a.bucket_start_at < least(h.hour + interval '1 hour', $6) AND ($3::text IS NULL OR a.metric_type = $3)
        GROUP BY 1, 2, 3) AS m"
);

/// The points of a chart by the minutes of its whole time, by device, metric and time; [`POINTS_MAX`] and one more at most.
///
/// # Errors
/// When the database fails.
pub async fn by_minutes(conn: &Conn, chart: &Chart<'_>) -> Result<Vec<Point>, StoreError> {
    let (from, to) = chart.span();
    let params: [&(dyn ToSql + Sync); 7] =
        [&chart.tenant_id, &chart.devices, &chart.metric_type, &chart.edges, &from, &to, &(POINTS_MAX + 1)];
    Ok(conn.query(MINUTES, &params).await?.iter().map(point).collect())
}

/// The same by hours, but for some that are read minute by minute: because an edge lies inside of them, or because they are
/// not over.
///
/// # Errors
/// When the database fails.
pub async fn by_hours(
    conn: &Conn,
    chart: &Chart<'_>,
    by_minute: &[Timestamp],
) -> Result<Vec<Point>, StoreError> {
    let (from, to) = chart.span();
    let minutes = chart.minutes_together();
    let params: [&(dyn ToSql + Sync); 9] = [
        &chart.tenant_id,
        &chart.devices,
        &chart.metric_type,
        &chart.edges,
        &from,
        &to,
        &(POINTS_MAX + 1),
        &by_minute,
        &minutes,
    ];
    Ok(conn.query(HOURS, &params).await?.iter().map(point).collect())
}

fn point(row: &Row) -> Point {
    let bucket: i32 = row.get(2);
    Point {
        device_id: row.get(0),
        metric_type: row.get(1),
        bucket: usize::try_from(bucket).unwrap_or_default(),
        min: row.get(3),
        avg: row.get(4),
        max: row.get(5),
        count: row.get(6),
    }
}
