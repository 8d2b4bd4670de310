//! The air of a barn: minute by minute over its sound probes, and day by day as it was reckoned.

use chrono::NaiveDate;
use serde_json::Value;
use tokio_postgres::Row;

use crate::clock::Timestamp;
use crate::store::{Conn, StoreError};

/// Every statement of this module.
pub const STATEMENTS: &[&str] = &[BARNS, NAMED, LATE, MINUTES, PUT_DAY, DAYS];

/// Barns that are seen to.
const BARNS_MAX: i64 = 1000;
/// Minutes of one look: a day of 25 hours and a dozen metrics in two places.
const MINUTES_MAX: i64 = 40_000;
/// Days of one answer.
pub const DAYS_MAX: i64 = 400;

/// A barn.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Barn {
    /// Tenant.
    pub tenant_id: String,
    /// Farm.
    pub farm_id: String,
    /// Barn.
    pub barn_id: String,
}

row_of!(Barn, barn_columns as "b": tenant_id, farm_id, barn_id);

const BARNS: &str = concat!(
    "-- house_barns\nSELECT DISTINCT ",
    barn_columns!(),
    " FROM device_allowlist AS b
WHERE farm_id IS NOT NULL AND barn_id IS NOT NULL ORDER BY tenant_id, farm_id, barn_id LIMIT $1"
);

/// Barns in which the allowlist has devices.
///
/// # Errors
/// When the database fails.
pub async fn barns(conn: &Conn) -> Result<Vec<Barn>, StoreError> {
    Ok(conn.query(BARNS, &[&BARNS_MAX]).await?.iter().map(Barn::from).collect())
}

const NAMED: &str = concat!(
    "-- house_named\nSELECT ",
    barn_columns!(),
    " FROM (
    SELECT tenant_id, farm_id, barn_id FROM device_allowlist
    WHERE tenant_id = $1 AND barn_id = $2 AND farm_id IS NOT NULL AND ($3::text IS NULL OR farm_id = $3)
    UNION SELECT tenant_id, farm_id, barn_id FROM barns
    WHERE tenant_id = $1 AND barn_id = $2 AND ($3::text IS NULL OR farm_id = $3)) AS b
ORDER BY b.farm_id LIMIT 2"
);

/// The barns of a name, two at most: where several farms have one, the farm must be named, too.
///
/// # Errors
/// When the database fails.
pub async fn named(
    conn: &Conn,
    tenant_id: &str,
    barn_id: &str,
    farm_id: Option<&str>,
) -> Result<Vec<Barn>, StoreError> {
    let rows = conn.query(NAMED, &[&tenant_id, &barn_id, &farm_id]).await?;
    Ok(rows.iter().map(Barn::from).collect())
}

/// An hour of a barn of which something came in late.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LateHour {
    /// The barn.
    pub barn: Barn,
    /// When the hour begins.
    pub hour: Timestamp,
}

/// Hours of one look.
const LATE_HOURS_MAX: i64 = 2000;

// The block range index over (ingested_at, occurred_at) serves it.
const LATE: &str = "-- house_late
SELECT DISTINCT tenant_id, farm_id, barn_id, date_trunc('hour', occurred_at) FROM telemetry_raw
WHERE ingested_at >= $1 AND ingested_at < $2 AND occurred_at >= $3 AND occurred_at < $4 AND metric_type = ANY ($5)
    AND farm_id IS NOT NULL AND barn_id IS NOT NULL LIMIT $6";

/// Hours within a time of which readings of these metrics came in within another.
///
/// # Errors
/// When the database fails.
pub async fn late(
    conn: &Conn,
    (came_from, came_until): (Timestamp, Timestamp),
    (from, to): (Timestamp, Timestamp),
    metrics: &[&str],
) -> Result<Vec<LateHour>, StoreError> {
    let rows = conn.query(LATE, &[&came_from, &came_until, &from, &to, &metrics, &LATE_HOURS_MAX]).await?;
    let late = |row: &Row| LateHour {
        barn: Barn { tenant_id: row.get(0), farm_id: row.get(1), barn_id: row.get(2) },
        hour: row.get(3),
    };
    Ok(rows.iter().map(late).collect())
}

/// A minute of one metric over the probes of a barn.
#[derive(Clone, Debug, PartialEq)]
pub struct Minute {
    /// The metric.
    pub metric_type: String,
    /// Whether it is of the house, or else of the weather outside.
    pub is_of_house: bool,
    /// When it begins.
    pub begins_at: Timestamp,
    /// Mean, each probe by the weight of its place.
    pub mean: f64,
    /// Smallest value of any of them.
    pub min: f64,
    /// Largest.
    pub max: f64,
    /// How many of them spoke.
    pub probes: i32,
}

row_of!(Minute, minute_columns as "m": metric_type, is_of_house, begins_at, mean, min, max, probes);

// A probe without a place is taken for one inside. Minutes in which a probe was unsound are left out: which faults count is
// said by the table of the tests. Values beyond any sense would overflow a sum.
const MINUTES: &str = concat!("-- house_minutes
WITH probes AS MATERIALIZED (
    SELECT d.device_id, w.metric_type, coalesce(p.role, q.role, 'inside') <> 'outside' AS is_of_house,
        coalesce(p.weight, q.weight, 1) AS weight
    FROM device_allowlist AS d CROSS JOIN unnest($4::text[]) AS w (metric_type)
    LEFT JOIN device_places AS p ON p.tenant_id = d.tenant_id AND p.device_id = d.device_id AND p.metric_type = w.metric_type
    LEFT JOIN device_places AS q ON q.tenant_id = d.tenant_id AND q.device_id = d.device_id AND q.metric_type = ''
    WHERE d.tenant_id = $1 AND d.farm_id = $2 AND d.barn_id = $3
        AND coalesce(p.role, q.role, 'inside') IN ('inside', 'outside', 'air', 'light') AND coalesce(p.weight, q.weight, 1) > 0
), faults AS MATERIALIZED (
    SELECT f.device_id, f.metric_type, f.from_at, f.until_at FROM sensor_faults AS f
    JOIN probes AS b ON b.device_id = f.device_id AND b.metric_type = f.metric_type
    WHERE f.tenant_id = $1 AND f.from_at >= $5::timestamptz - interval '1 day' AND f.from_at < $6 AND f.until_at >= $5
        AND (f.test = ANY ($7) OR f.level = 'fail' AND f.test = ANY ($8))
)
SELECT ", minute_columns!(), " FROM (
    SELECT g.metric_type, b.is_of_house, g.bucket_start_at AS begins_at, sum(g.avg_value * b.weight) / sum(b.weight) AS mean,
        min(g.min_value) AS min, max(g.max_value) AS max, count(*)::int AS probes
    FROM probes AS b JOIN telemetry_agg AS g ON g.tenant_id = $1 AND g.device_id = b.device_id AND g.\"window\" = '1m'
        AND g.bucket_start_at >= $5 AND g.bucket_start_at < $6 AND g.metric_type = b.metric_type
    WHERE abs(g.avg_value) < 1e6 AND NOT EXISTS (
        SELECT FROM faults AS f WHERE f.device_id = g.device_id AND f.metric_type = g.metric_type
            AND f.from_at < g.bucket_end_at AND f.until_at >= g.bucket_start_at)
    GROUP BY 1, 2, 3) AS m
ORDER BY m.metric_type, m.is_of_house, m.begins_at LIMIT $9");

/// What of the faults keeps a probe out of the means: those of these tests always, of the others when they are failures.
#[derive(Clone, Copy, Debug)]
pub struct LeftOut<'a> {
    /// At any level.
    pub always: &'a [&'a str],
    /// As failures.
    pub failures: &'a [&'a str],
}

/// The minutes of a barn within a time, for these metrics, by metric and time.
///
/// # Errors
/// When the database fails.
pub async fn minutes(
    conn: &Conn,
    barn: &Barn,
    metrics: &[&str],
    (from, to): (Timestamp, Timestamp),
    left_out: LeftOut<'_>,
) -> Result<Vec<Minute>, StoreError> {
    let Barn { tenant_id, farm_id, barn_id } = barn;
    let LeftOut { always, failures } = left_out;
    let rows = conn
        .query(
            MINUTES,
            &[tenant_id, farm_id, barn_id, &metrics, &from, &to, &always, &failures, &MINUTES_MAX],
        )
        .await?;
    Ok(rows.iter().map(Minute::from).collect())
}

/// A day of a barn as it was last reckoned.
#[derive(Clone, Debug, PartialEq)]
pub struct Day {
    /// The day.
    pub day: NaiveDate,
    /// The time zone it was reckoned in.
    pub time_zone: String,
    /// What it comes to.
    pub summary: Value,
    /// When it was reckoned.
    pub rebuilt_at: Timestamp,
}

row_of!(Day, day_columns as "d": day, time_zone, summary, rebuilt_at);

const PUT_DAY: &str = "-- barn_day_put
INSERT INTO barn_days (tenant_id, farm_id, barn_id, day, time_zone, summary, rebuilt_at) VALUES ($1, $2, $3, $4, $5, $6, $7)
ON CONFLICT (tenant_id, farm_id, barn_id, day) DO UPDATE
SET time_zone = excluded.time_zone, summary = excluded.summary, rebuilt_at = excluded.rebuilt_at";

/// Writes a day.
///
/// # Errors
/// When the database fails.
pub async fn put_day(conn: &Conn, barn: &Barn, day: &Day) -> Result<(), StoreError> {
    let Barn { tenant_id, farm_id, barn_id } = barn;
    let Day { day, time_zone, summary, rebuilt_at } = day;
    conn.execute(PUT_DAY, &[tenant_id, farm_id, barn_id, day, time_zone, summary, rebuilt_at]).await?;
    Ok(())
}

const DAYS: &str = concat!(
    "-- barn_days\nSELECT ",
    day_columns!(),
    " FROM barn_days AS d
WHERE tenant_id = $1 AND farm_id = $2 AND barn_id = $3 AND day BETWEEN $4 AND $5 ORDER BY day LIMIT $6"
);

/// The days of a barn, in their order.
///
/// # Errors
/// When the database fails.
pub async fn days(
    conn: &Conn,
    barn: &Barn,
    (from, to): (NaiveDate, NaiveDate),
) -> Result<Vec<Day>, StoreError> {
    let Barn { tenant_id, farm_id, barn_id } = barn;
    let rows = conn.query(DAYS, &[tenant_id, farm_id, barn_id, &from, &to, &DAYS_MAX]).await?;
    Ok(rows.iter().map(Day::from).collect())
}
