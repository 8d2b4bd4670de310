//! What the owner of a barn's alarms starts from and looks at now and then: its devices, their last readings, and what takes
//! hours to see.

use super::Barn;
use crate::clock::Timestamp;
use crate::store::{Conn, StoreError};

/// Every statement of this module.
pub const STATEMENTS: &[&str] = &[BARNS, DEVICES, LAST_READINGS, READINGS_SINCE, LAST_EVENTS, HOURS, MINUTES];

/// Barns of one engine at most.
pub const BARNS_MAX: i64 = 1000;
/// Devices of one barn at most.
pub const DEVICES_MAX: i64 = 2000;
/// Of the last readings of a device, so many are looked at.
pub const LAST_READINGS_MAX: i64 = 500;
/// Readings of one look at what came in since.
pub const READINGS_SINCE_MAX: i64 = 20_000;
/// Hours and minutes of one look.
const ROWS_MAX: i64 = 20_000;

const BARNS: &str = "-- alarm_barns
SELECT tenant_id, farm_id, barn_id FROM (
    SELECT tenant_id, farm_id, barn_id FROM barns
    UNION SELECT tenant_id, farm_id, barn_id FROM device_allowlist
    WHERE enabled AND farm_id IS NOT NULL AND barn_id IS NOT NULL
    UNION SELECT tenant_id, farm_id, barn_id FROM alarms WHERE state <> 'NORM') AS b
WHERE tenant_id <> '' ORDER BY tenant_id, farm_id, barn_id LIMIT $1";

/// Barns that have devices, a name or alarms.
///
/// # Errors
/// When the database fails.
pub async fn barns(conn: &Conn) -> Result<Vec<Barn>, StoreError> {
    Ok(conn.query(BARNS, &[&BARNS_MAX]).await?.iter().map(Barn::from).collect())
}

const DEVICES: &str = "-- alarm_devices
SELECT device_id FROM device_allowlist WHERE tenant_id = $1 AND farm_id = $2 AND barn_id = $3 AND enabled
ORDER BY device_id LIMIT $4";

/// The devices of a barn that may speak.
///
/// # Errors
/// When the database fails.
pub async fn devices(conn: &Conn, barn: &Barn) -> Result<Vec<String>, StoreError> {
    let Barn { tenant_id, farm_id, barn_id } = barn;
    let rows = conn.query(DEVICES, &[tenant_id, farm_id, barn_id, &DEVICES_MAX]).await?;
    Ok(rows.iter().map(|row| row.get(0)).collect())
}

/// A reading, as far as alarms need it.
#[derive(Clone, Debug, PartialEq)]
pub struct ReadingRow {
    /// Its device.
    pub device_id: String,
    /// Its metric.
    pub metric_type: String,
    /// Its value.
    pub metric_value: f64,
    /// When it was measured.
    pub occurred_at: Timestamp,
    /// When it was stored.
    pub ingested_at: Timestamp,
}

row_of!(ReadingRow, reading_columns as "r": device_id, metric_type, metric_value, occurred_at, ingested_at);

const LAST_READINGS: &str = concat!(
    "-- alarm_last_readings\nSELECT ",
    reading_columns!(),
    " FROM unnest($4::text[]) AS d (device_id) CROSS JOIN LATERAL (
    SELECT t.* FROM telemetry_raw AS t
    WHERE t.tenant_id = $1 AND t.device_id = d.device_id AND t.occurred_at >= $5 AND t.occurred_at < $6
    ORDER BY t.occurred_at DESC LIMIT $7) AS r
WHERE r.farm_id = $2 AND r.barn_id = $3 ORDER BY r.occurred_at, r.id"
);

/// The last readings of each of these devices within a time, in the order of their own time.
///
/// # Errors
/// When the database fails.
pub async fn last_readings(
    conn: &Conn,
    barn: &Barn,
    devices: &[String],
    (from, to): (Timestamp, Timestamp),
) -> Result<Vec<ReadingRow>, StoreError> {
    let Barn { tenant_id, farm_id, barn_id } = barn;
    let rows = conn
        .query(LAST_READINGS, &[tenant_id, farm_id, barn_id, &devices, &from, &to, &LAST_READINGS_MAX])
        .await?;
    Ok(rows.iter().map(ReadingRow::from).collect())
}

const READINGS_SINCE: &str = concat!("-- alarm_readings_since\nSELECT ", reading_columns!(), " FROM telemetry_raw AS r
WHERE ingested_at >= $4 AND tenant_id = $1 AND farm_id = $2 AND barn_id = $3 ORDER BY occurred_at, id LIMIT $5");

/// What came in since a moment, in the order of its own time; `None` when it is more than [`READINGS_SINCE_MAX`].
///
/// # Errors
/// When the database fails.
pub async fn readings_since(
    conn: &Conn,
    barn: &Barn,
    since: Timestamp,
) -> Result<Option<Vec<ReadingRow>>, StoreError> {
    let Barn { tenant_id, farm_id, barn_id } = barn;
    let limit = READINGS_SINCE_MAX + 1;
    let rows = conn.query(READINGS_SINCE, &[tenant_id, farm_id, barn_id, &since, &limit]).await?;
    let is_all = i64::try_from(rows.len()).is_ok_and(|rows| rows <= READINGS_SINCE_MAX);
    Ok(is_all.then(|| rows.iter().map(ReadingRow::from).collect()))
}

/// An event of a device, as far as alarms need it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceEventRow {
    /// Its device.
    pub device_id: String,
    /// Its type.
    pub event_type: String,
    /// When it happened.
    pub occurred_at: Timestamp,
    /// When it was stored.
    pub ingested_at: Timestamp,
}

row_of!(DeviceEventRow, device_event_columns as "e": device_id, event_type, occurred_at, ingested_at);

const LAST_EVENTS: &str = concat!(
    "-- alarm_last_events\nSELECT ",
    device_event_columns!(),
    " FROM unnest($4::text[]) AS d (device_id) CROSS JOIN LATERAL (
    SELECT t.* FROM device_events AS t
    WHERE t.tenant_id = $1 AND t.device_id = d.device_id AND t.occurred_at >= $6 AND t.occurred_at < $7
        AND t.event_type = ANY ($5)
    ORDER BY t.occurred_at DESC LIMIT $8) AS e
WHERE e.farm_id = $2 AND e.barn_id = $3 ORDER BY e.occurred_at, e.id"
);

/// The last events of some types of each of these devices, in the order of their own time.
///
/// # Errors
/// When the database fails.
pub async fn last_events(
    conn: &Conn,
    barn: &Barn,
    devices: &[String],
    types: &[String],
    (from, to): (Timestamp, Timestamp),
) -> Result<Vec<DeviceEventRow>, StoreError> {
    const EVENTS_MAX: i64 = 20;
    let Barn { tenant_id, farm_id, barn_id } = barn;
    let rows = conn
        .query(LAST_EVENTS, &[tenant_id, farm_id, barn_id, &devices, &types, &from, &to, &EVENTS_MAX])
        .await?;
    Ok(rows.iter().map(DeviceEventRow::from).collect())
}

/// A metric of a barn's devices over an hour or a minute.
#[derive(Clone, Debug, PartialEq)]
pub struct Bucket {
    /// When it begins.
    pub begins_at: Timestamp,
    /// The mean of its readings.
    pub mean: f64,
    /// Their sum.
    pub sum: f64,
}

row_of!(Bucket, bucket_columns as "g": begins_at, mean, sum);

macro_rules! buckets {
    ($name:literal, $window:literal) => {
        concat!(
            "-- ", $name, "\nSELECT ", bucket_columns!(), " FROM (
    SELECT bucket_start_at AS begins_at, sum(avg_value * count) / sum(count) AS mean, sum(avg_value * count) AS sum
    FROM telemetry_agg
    WHERE tenant_id = $1 AND device_id = ANY ($2) AND \"window\" = '", $window, "' AND metric_type = $3
        AND bucket_start_at >= $4 AND bucket_start_at < $5 AND count > 0
    GROUP BY bucket_start_at) AS g
ORDER BY g.begins_at LIMIT $6"
        )
    };
}

const HOURS: &str = buckets!("alarm_hours", "1h");
const MINUTES: &str = buckets!("alarm_minutes", "1m");

/// The hours of a metric of these devices.
///
/// # Errors
/// When the database fails.
pub async fn hours(
    conn: &Conn,
    tenant_id: &str,
    devices: &[String],
    metric: &str,
    (from, to): (Timestamp, Timestamp),
) -> Result<Vec<Bucket>, StoreError> {
    let rows = conn.query(HOURS, &[&tenant_id, &devices, &metric, &from, &to, &ROWS_MAX]).await?;
    Ok(rows.iter().map(Bucket::from).collect())
}

/// The minutes of a metric of these devices.
///
/// # Errors
/// When the database fails.
pub async fn minutes(
    conn: &Conn,
    tenant_id: &str,
    devices: &[String],
    metric: &str,
    (from, to): (Timestamp, Timestamp),
) -> Result<Vec<Bucket>, StoreError> {
    let rows = conn.query(MINUTES, &[&tenant_id, &devices, &metric, &from, &to, &ROWS_MAX]).await?;
    Ok(rows.iter().map(Bucket::from).collect())
}
