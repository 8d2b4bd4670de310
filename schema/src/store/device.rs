//! Devices: who is allowed, with which password, and when each was last seen.

use chrono::Duration;
use tokio_postgres::Row;

use crate::clock::Timestamp;
use crate::clock::deadline::is_due;
use crate::store::{Conn, StoreError};
use crate::wire::payload::{DeviceState, Status};

/// The longest overlap of two passwords: a year.
const OVERLAP_MAX: Duration = Duration::days(366);

/// Every statement of this module.
pub const STATEMENTS: &[&str] = &[
    DEVICES,
    STATIONS,
    AMBIGUOUS,
    PROVISION_DEVICE,
    PROVISION_STATION,
    CREDENTIAL,
    CREDENTIALS,
    END_OVERLAPS,
    SEEN,
    APPLY_STATUS,
];

/// A row of an allowlist.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Allowed {
    /// Tenant.
    pub tenant_id: String,
    /// Device or station.
    pub id: String,
    /// Farm it belongs to; `None` means any.
    pub farm_id: Option<String>,
    /// Barn it belongs to; `None` means any.
    pub barn_id: Option<String>,
    /// Station of a device; `None` means any.
    pub station_id: Option<String>,
    /// Whether it may act.
    pub is_enabled: bool,
    /// Whether it waits for approval.
    pub is_pending: bool,
}

const DEVICES: &str = "-- device_allowlist
SELECT tenant_id, device_id, farm_id, barn_id, station_id, enabled, provision_state = 'pending' FROM device_allowlist";

const STATIONS: &str = "-- station_allowlist
SELECT tenant_id, station_id, farm_id, barn_id, NULL::text, enabled, provision_state = 'pending' FROM station_allowlist";

const AMBIGUOUS: &str = "-- ambiguous_device_ids
SELECT device_id FROM device_tenants GROUP BY device_id HAVING count(*) > 1";

/// Everybody who may speak.
#[derive(Clone, Debug)]
pub struct Allowlists {
    /// Devices.
    pub devices: Vec<Allowed>,
    /// Stations.
    pub stations: Vec<Allowed>,
    /// Ids of devices that more than one tenant has, or has ever had.
    pub ambiguous_ids: Vec<String>,
}

/// Both allowlists, whole.
///
/// # Errors
/// When the database fails.
pub async fn allowlists(conn: &Conn) -> Result<Allowlists, StoreError> {
    let allowed = |row: &Row| Allowed {
        tenant_id: row.get(0),
        id: row.get(1),
        farm_id: row.get(2),
        barn_id: row.get(3),
        station_id: row.get(4),
        is_enabled: row.get(5),
        is_pending: row.get(6),
    };
    let devices = conn.query(DEVICES, &[]).await?.iter().map(allowed).collect();
    let stations = conn.query(STATIONS, &[]).await?.iter().map(allowed).collect();
    let ambiguous_ids = conn.query(AMBIGUOUS, &[]).await?.iter().map(|row| row.get(0)).collect();
    Ok(Allowlists { devices, stations, ambiguous_ids })
}

// A row that somebody else entered meanwhile is written once more as it is, so that it counts as entered.
macro_rules! provision {
    ($name:literal, $table:literal, $id:literal) => {
        concat!(
            "-- ",
            $name,
            "
INSERT INTO ",
            $table,
            " AS a (tenant_id, ",
            $id,
            ", farm_id, barn_id, enabled, provision_state, created_at, updated_at)
SELECT $1, $2, $3, $4, false, 'pending', $5, $5
WHERE (SELECT count(*) FROM (
    SELECT FROM ",
            $table,
            " WHERE tenant_id = $1 AND provision_state = 'pending' LIMIT $6) AS waiting) < $6
ON CONFLICT (tenant_id, ",
            $id,
            ") DO UPDATE SET updated_at = a.updated_at"
        )
    };
}
const PROVISION_DEVICE: &str = provision!("provision_device", "device_allowlist", "device_id");
const PROVISION_STATION: &str = provision!("provision_station", "station_allowlist", "station_id");

/// Which allowlist.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Allowlist {
    /// `device_allowlist`
    Devices,
    /// `station_allowlist`
    Stations,
}

/// Enters an unknown device or station as disabled and pending, so that an operator only has to enable it. `false`: as many
/// of its tenant as may wait already.
///
/// # Errors
/// When the database fails.
pub async fn provision(
    conn: &Conn,
    list: Allowlist,
    [tenant_id, id, farm_id, barn_id]: [&str; 4],
    rows_max: i64,
    now: Timestamp,
) -> Result<bool, StoreError> {
    let sql = match list {
        Allowlist::Devices => PROVISION_DEVICE,
        Allowlist::Stations => PROVISION_STATION,
    };
    Ok(conn.execute(sql, &[&tenant_id, &id, &farm_id, &barn_id, &now, &rows_max]).await? > 0)
}

/// What a login is checked against.
#[derive(Clone)]
pub struct Credential {
    /// User name.
    pub username: String,
    /// Tenant of the device.
    pub tenant_id: String,
    /// The device.
    pub device_id: String,
    /// argon2id hash, PHC format.
    pub password_hash: String,
    /// The next password's hash during a rotation.
    pub password_hash_next: Option<String>,
    /// Until then both are good, afterwards the next one alone; `None` keeps both.
    pub overlap_ends_at: Option<Timestamp>,
}

const CREDENTIAL: &str = "-- device_credential
SELECT username, tenant_id, device_id, password_hash, password_hash_next, overlap_ends_at
FROM device_credentials WHERE username = $1 AND enabled";

const CREDENTIALS: &str = "-- device_credentials
SELECT username, tenant_id, device_id, password_hash, password_hash_next, overlap_ends_at
FROM device_credentials WHERE username = ANY($1) AND enabled";

/// The enabled credential of a user name.
///
/// # Errors
/// When the database fails.
pub async fn credential(conn: &Conn, username: &str) -> Result<Option<Credential>, StoreError> {
    let row = conn.query_opt(CREDENTIAL, &[&username]).await?;
    Ok(row.as_ref().map(Credential::of))
}

/// The enabled credentials of these user names.
///
/// # Errors
/// When the database fails.
pub async fn credentials(conn: &Conn, usernames: &[&str]) -> Result<Vec<Credential>, StoreError> {
    Ok(conn.query(CREDENTIALS, &[&usernames]).await?.iter().map(Credential::of).collect())
}

const END_OVERLAPS: &str = "-- end_overlaps
UPDATE device_credentials
SET password_hash = password_hash_next, password_hash_next = NULL, overlap_ends_at = NULL, updated_at = $1
WHERE overlap_ends_at <= $1 AND password_hash_next IS NOT NULL";

/// Forgets the old passwords of rotations whose overlap is over; says how many.
///
/// # Errors
/// When the database fails.
pub async fn end_overlaps(conn: &Conn, now: Timestamp) -> Result<u64, StoreError> {
    conn.execute(END_OVERLAPS, &[&now]).await
}

impl Credential {
    fn of(row: &Row) -> Self {
        Self {
            username: row.get(0),
            tenant_id: row.get(1),
            device_id: row.get(2),
            password_hash: row.get(3),
            password_hash_next: row.get(4),
            overlap_ends_at: row.get(5),
        }
    }

    /// What is stored of the passwords that are good now: one, or two during a rotation.
    pub fn hashes(&self, now: Timestamp) -> impl Iterator<Item = &str> {
        let next = self.password_hash_next.as_deref();
        let is_past = |ends_at| is_due(ends_at, now, OVERLAP_MAX);
        let is_over = next.is_some() && self.overlap_ends_at.is_some_and(is_past);
        [Some(self.password_hash.as_str()).filter(|_| !is_over), next].into_iter().flatten()
    }
}

/// A sign of life of a device.
#[derive(Clone, Debug)]
pub struct Seen {
    /// Tenant.
    pub tenant_id: String,
    /// The device.
    pub device_id: String,
    /// When its message arrived.
    pub at: Timestamp,
    /// The topic it was published on.
    pub topic: String,
}

const SEEN: &str = "-- device_seen
INSERT INTO device_last_seen AS d (tenant_id, device_id, last_seen_at, last_topic, updated_at)
SELECT tenant_id, device_id, seen_at, topic, $5
FROM unnest($1::text[], $2::text[], $3::timestamptz[], $4::text[]) AS i (tenant_id, device_id, seen_at, topic)
ORDER BY tenant_id, device_id
ON CONFLICT (tenant_id, device_id) DO UPDATE
SET last_seen_at = greatest(d.last_seen_at, excluded.last_seen_at), last_topic = excluded.last_topic, updated_at = excluded.updated_at";

/// Moves `last_seen_at` forward. Each device may occur once.
///
/// # Errors
/// When the database fails.
pub async fn seen(conn: &Conn, signs: &[&Seen], now: Timestamp) -> Result<(), StoreError> {
    let tenants: Vec<_> = signs.iter().map(|sign| sign.tenant_id.as_str()).collect();
    let devices: Vec<_> = signs.iter().map(|sign| sign.device_id.as_str()).collect();
    let times: Vec<_> = signs.iter().map(|sign| sign.at).collect();
    let topics: Vec<_> = signs.iter().map(|sign| sign.topic.as_str()).collect();
    conn.execute(SEEN, &[&tenants, &devices, &times, &topics, &now]).await?;
    Ok(())
}

/// A status message of a device.
#[derive(Clone, Debug)]
pub struct StatusReport {
    /// Tenant.
    pub tenant_id: String,
    /// The device.
    pub device_id: String,
    /// Its topic.
    pub topic: String,
    /// What it says.
    pub status: Status,
    /// Hex SHA-256 of the body.
    pub hash: String,
    /// When the device says it wrote it.
    pub occurred_at: Timestamp,
    /// When it arrived.
    pub received_at: Timestamp,
    /// Whether it is a broker's stored copy and not a live message.
    pub is_retained_copy: bool,
}

// A retained copy of what is known already changes nothing. An offline status is no sign of life: a row that it makes
// starts at the time the device gives, and an existing one keeps its time.
const APPLY_STATUS: &str = "-- apply_status
INSERT INTO device_last_seen AS d (tenant_id, device_id, last_seen_at, last_topic, last_payload_hash, state,
    state_changed_at, firmware_version, message, health_json, updated_at)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $7)
ON CONFLICT (tenant_id, device_id) DO UPDATE
SET last_seen_at = CASE WHEN $11 THEN greatest(d.last_seen_at, excluded.last_seen_at) ELSE d.last_seen_at END,
    last_topic = excluded.last_topic,
    last_payload_hash = excluded.last_payload_hash,
    state_changed_at = CASE WHEN d.state = excluded.state THEN d.state_changed_at ELSE excluded.state_changed_at END,
    state = excluded.state,
    firmware_version = coalesce(excluded.firmware_version, d.firmware_version),
    message = excluded.message,
    health_json = excluded.health_json,
    updated_at = excluded.updated_at
WHERE NOT ($12 AND d.last_payload_hash IS NOT DISTINCT FROM excluded.last_payload_hash)";

/// Applies one status message.
///
/// # Errors
/// When the database fails.
pub async fn apply_status(conn: &Conn, report: &StatusReport) -> Result<(), StoreError> {
    let status = &report.status;
    let is_sign_of_life = !report.is_retained_copy && status.state != DeviceState::Offline;
    let seen_at =
        if is_sign_of_life { report.received_at } else { report.occurred_at.min(report.received_at) };
    let health = status.health.clone().map(serde_json::Value::Object);
    conn.execute(
        APPLY_STATUS,
        &[
            &report.tenant_id,
            &report.device_id,
            &seen_at,
            &report.topic,
            &report.hash,
            &status.state.as_str(),
            &report.received_at,
            &status.firmware_version,
            &status.message,
            &health,
            &is_sign_of_life,
            &report.is_retained_copy,
        ],
    )
    .await?;
    Ok(())
}
