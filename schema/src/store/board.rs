//! What the board of latest values begins with: the last closed minutes of each device.

use crate::clock::Timestamp;
use crate::store::{Conn, StoreError};

/// Every statement of this module.
pub const STATEMENTS: &[&str] = &[DEVICES, LAST_MINUTES];

/// Devices that are asked for at once.
pub const DEVICES_PER_PAGE: i64 = 200;
/// Minutes of a device that are looked through for its metrics.
const MINUTES_MAX: i64 = 64;

/// A device that is let in, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Device {
    /// Tenant.
    pub tenant_id: String,
    /// The device.
    pub device_id: String,
    /// Its farm; `None` means any.
    pub farm_id: Option<String>,
    /// Its barn; `None` means any.
    pub barn_id: Option<String>,
}

row_of!(Device, device_columns as "d": tenant_id, device_id, farm_id, barn_id);

const DEVICES: &str = concat!(
    "-- board_devices\nSELECT ",
    device_columns!(),
    " FROM device_allowlist AS d
WHERE enabled AND (tenant_id, device_id) > ($1, $2) ORDER BY tenant_id, device_id LIMIT $3"
);

/// Devices that are let in, behind one of them.
///
/// # Errors
/// When the database fails.
pub async fn devices(conn: &Conn, (tenant_id, device_id): (&str, &str)) -> Result<Vec<Device>, StoreError> {
    let rows = conn.query(DEVICES, &[&tenant_id, &device_id, &DEVICES_PER_PAGE]).await?;
    Ok(rows.iter().map(Device::from).collect())
}

/// The last closed minute of a metric of a device.
#[derive(Clone, Debug, PartialEq)]
pub struct LastMinute {
    /// Tenant.
    pub tenant_id: String,
    /// The device.
    pub device_id: String,
    /// The metric.
    pub metric_type: String,
    /// Mean of the minute.
    pub avg_value: f64,
    /// The end of it.
    pub bucket_end_at: Timestamp,
}

row_of!(LastMinute, minute_columns as "m": tenant_id, device_id, metric_type, avg_value, bucket_end_at);

const LAST_MINUTES: &str = concat!(
    "-- board_last_minutes\nSELECT DISTINCT ON (m.tenant_id, m.device_id, m.metric_type) ",
    minute_columns!(),
    " FROM unnest($1::text[], $2::text[]) AS d (tenant_id, device_id) CROSS JOIN LATERAL (
    SELECT a.tenant_id, a.device_id, a.metric_type, a.avg_value, a.bucket_end_at FROM telemetry_agg AS a
    WHERE a.tenant_id = d.tenant_id AND a.device_id = d.device_id AND a.\"window\" = '1m'
        AND a.bucket_start_at >= $3 AND a.bucket_start_at < $4
    ORDER BY a.bucket_start_at DESC LIMIT $5) AS m
ORDER BY m.tenant_id, m.device_id, m.metric_type, m.bucket_end_at DESC"
);

/// The last closed minute of each metric of these devices within a time.
///
/// # Errors
/// When the database fails.
pub async fn last_minutes(
    conn: &Conn,
    devices: &[Device],
    (from, to): (Timestamp, Timestamp),
) -> Result<Vec<LastMinute>, StoreError> {
    let tenants: Vec<&str> = devices.iter().map(|device| device.tenant_id.as_str()).collect();
    let ids: Vec<&str> = devices.iter().map(|device| device.device_id.as_str()).collect();
    let rows = conn.query(LAST_MINUTES, &[&tenants, &ids, &from, &to, &MINUTES_MAX]).await?;
    Ok(rows.iter().map(LastMinute::from).collect())
}
