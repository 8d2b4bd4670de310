//! What was wrong with sensors, by stretches of time. Sound sensors have no rows.

use tokio_postgres::types::ToSql;

use crate::clock::Timestamp;
use crate::store::{Conn, StoreError};

/// Every statement of this module.
pub const STATEMENTS: &[&str] = &[PUT, OF_SERIES, LATEST];

/// Stretches that one answer tells of.
pub const FAULTS_MAX: i64 = 5000;

/// A stretch of time in which one test found something.
#[derive(Clone, Debug, PartialEq)]
pub struct Fault {
    /// Tenant.
    pub tenant_id: String,
    /// The device.
    pub device_id: String,
    /// The metric.
    pub metric_type: String,
    /// The test.
    pub test: String,
    /// `suspect`, `fail` or `missing`.
    pub level: String,
    /// Its first reading, by the reading's time.
    pub from_at: Timestamp,
    /// Its last.
    pub until_at: Timestamp,
    /// How many readings are flagged.
    pub readings: i64,
    /// The last of their values.
    pub value: Option<f64>,
    /// When this was last written.
    pub updated_at: Timestamp,
}

row_of!(Fault, fault_columns as "f": tenant_id, device_id, metric_type, test, level, from_at, until_at, readings, value,
    updated_at);

const PUT: &str = "-- faults_put
INSERT INTO sensor_faults AS f (tenant_id, device_id, metric_type, test, level, from_at, until_at, readings, value, updated_at)
SELECT tenant_id, device_id, metric_type, test, level, from_at, until_at, readings, value, $10
FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::text[], $6::timestamptz[], $7::timestamptz[], $8::bigint[],
    $9::float8[]) AS i (tenant_id, device_id, metric_type, test, level, from_at, until_at, readings, value)
ORDER BY tenant_id, device_id, metric_type, from_at, test
ON CONFLICT (tenant_id, device_id, metric_type, from_at, test) DO UPDATE SET level = excluded.level,
    until_at = greatest(f.until_at, excluded.until_at), readings = greatest(f.readings, excluded.readings), value = excluded.value, updated_at = excluded.updated_at";

/// Writes stretches, new or longer than before. No two may begin together for one series and test.
///
/// # Errors
/// When the database fails.
pub async fn put(conn: &Conn, faults: &[Fault], now: Timestamp) -> Result<(), StoreError> {
    fn texts(faults: &[Fault], of: impl Fn(&Fault) -> &str) -> Vec<&str> {
        faults.iter().map(of).collect()
    }
    let from: Vec<Timestamp> = faults.iter().map(|fault| fault.from_at).collect();
    let until: Vec<Timestamp> = faults.iter().map(|fault| fault.until_at).collect();
    let readings: Vec<i64> = faults.iter().map(|fault| fault.readings).collect();
    let values: Vec<Option<f64>> = faults.iter().map(|fault| fault.value).collect();
    let params: [&(dyn ToSql + Sync); 10] = [
        &texts(faults, |fault| &fault.tenant_id),
        &texts(faults, |fault| &fault.device_id),
        &texts(faults, |fault| &fault.metric_type),
        &texts(faults, |fault| &fault.test),
        &texts(faults, |fault| &fault.level),
        &from,
        &until,
        &readings,
        &values,
        &now,
    ];
    conn.execute(PUT, &params).await?;
    Ok(())
}

// No stretch is longer than a day, so none that reaches into the time began more than a day before it.
const OF_SERIES: &str = concat!(
    "-- faults\nSELECT ",
    fault_columns!(),
    " FROM sensor_faults AS f
WHERE tenant_id = $1 AND device_id = ANY ($2) AND ($3::text IS NULL OR metric_type = $3)
    AND from_at >= $4::timestamptz - interval '1 day' AND from_at < $5 AND until_at >= $4
ORDER BY device_id, metric_type, from_at, test LIMIT $6"
);

/// What was wrong with devices, or one of their metrics, within a time.
///
/// # Errors
/// When the database fails.
pub async fn of_devices(
    conn: &Conn,
    tenant_id: &str,
    devices: &[String],
    metric_type: Option<&str>,
    (from, to): (Timestamp, Timestamp),
) -> Result<Vec<Fault>, StoreError> {
    let rows = conn.query(OF_SERIES, &[&tenant_id, &devices, &metric_type, &from, &to, &FAULTS_MAX]).await?;
    Ok(rows.iter().map(Fault::from).collect())
}

const LATEST: &str = concat!(
    "-- faults_latest\nSELECT ",
    fault_columns!(),
    " FROM sensor_faults AS f
WHERE updated_at >= $1 AND until_at >= $1 ORDER BY updated_at DESC LIMIT $2"
);

/// Stretches that had not ended at a moment.
///
/// # Errors
/// When the database fails.
pub async fn latest(conn: &Conn, since: Timestamp) -> Result<Vec<Fault>, StoreError> {
    Ok(conn.query(LATEST, &[&since, &FAULTS_MAX]).await?.iter().map(Fault::from).collect())
}
