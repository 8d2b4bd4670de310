//! Credentials of devices: made, replaced and taken back, and what is known of the devices that have them.

use serde_json::{Value, json};
use tokio_postgres::Row;
use tokio_postgres::types::ToSql;

use crate::clock::Timestamp;
use crate::store::audit::{self, Action, Author, Deed};
use crate::store::{Conn, StoreError};
use crate::wire::time;

/// Every statement of this module.
pub const STATEMENTS: &[&str] = &[KNOWN, ALLOW, ADD, ROTATE, REVOKE, SHUT_OUT, BROKER_USERS];

/// A device as it is let in, or not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Known {
    /// Tenant.
    pub tenant_id: String,
    /// The device.
    pub device_id: String,
    /// Farm of its allowlist row; `None` means any, or that there is no row.
    pub farm_id: Option<String>,
    /// Barn of its allowlist row; `None` means any, or that there is no row.
    pub barn_id: Option<String>,
    /// Its only station; `None` means any.
    pub station_id: Option<String>,
    /// Whether the allowlist lets it act; `None` when it has no row there.
    pub is_allowed: Option<bool>,
    /// Whether it waits for approval.
    pub is_pending: bool,
    /// Its password; `None` when it has none.
    pub credential: Option<KnownCredential>,
    /// When it last gave a sign of life.
    pub last_seen_at: Option<Timestamp>,
    /// What else is known of how it is.
    pub signs: Signs,
}

/// What a device says of itself, and what its messages say of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Signs {
    /// `online`, `offline` or `error`, by its status or last will; `None` of a device that sends none.
    pub state: Option<String>,
    /// Since when.
    pub state_changed_at: Option<Timestamp>,
    /// Its firmware.
    pub firmware_version: Option<String>,
    /// What it says about its state.
    pub message: Option<String>,
    /// Its flags, such as `scale_ok`.
    pub health: Option<Value>,
    /// Messages of its that were refused lately.
    pub refusals: i64,
    /// Why the last of them was.
    pub refused_for: Option<String>,
    /// Seconds between two of its readings, the median of the last few.
    pub usual_seconds: Option<i64>,
    /// By how many seconds the times of its last readings were ahead of their arrival at most.
    pub ahead_seconds: Option<i64>,
}

/// A password as it may be shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KnownCredential {
    /// The user name.
    pub username: String,
    /// Whether it is good.
    pub is_enabled: bool,
    /// When the first password was made.
    pub created_at: Timestamp,
    /// When the newest was made; `None` when that was not here.
    pub rotated_at: Option<Timestamp>,
    /// Whether a password before the newest is stored, too.
    pub has_two: bool,
    /// Until when that one is good; `None` means for ever, when there is one.
    pub overlap_ends_at: Option<Timestamp>,
    /// Whether Mosquitto can be told of the newest.
    pub has_mosquitto_hash: bool,
}

// The order is that of the bytes, so that the last row says where to go on, whatever the locale of the database is.
const KNOWN: &str = "-- known_devices
SELECT k.tenant_id, k.device_id, k.farm_id, k.barn_id, k.station_id, k.is_allowed, k.is_pending, k.username, k.is_good,
    k.created_at, k.rotated_at, k.has_two, k.overlap_ends_at, k.has_mosquitto_hash, k.last_seen_at, k.state, k.state_changed_at,
    k.firmware_version, k.message, k.health_json, coalesce(x.refusals, 0), x.refused_for, u.usual_seconds, u.ahead_seconds
FROM (
    SELECT tenant_id, device_id, a.farm_id, a.barn_id, a.station_id, a.enabled AS is_allowed,
        a.provision_state = 'pending' AS is_pending, c.username, c.enabled AS is_good, c.created_at, c.rotated_at,
        c.password_hash_next IS NOT NULL AS has_two, c.overlap_ends_at, c.mosquitto_hash IS NOT NULL AS has_mosquitto_hash,
        s.last_seen_at, s.state, s.state_changed_at, s.firmware_version, s.message, s.health_json
    FROM device_allowlist AS a FULL JOIN device_credentials AS c USING (tenant_id, device_id)
        LEFT JOIN device_last_seen AS s USING (tenant_id, device_id)
    WHERE ($1::text[] IS NULL OR tenant_id = ANY($1)) AND ($2::text IS NULL OR device_id = $2)
        AND (tenant_id COLLATE \"C\", device_id COLLATE \"C\") > ($3::text, $4::text)
    ORDER BY tenant_id COLLATE \"C\", device_id COLLATE \"C\" LIMIT $5
) AS k
LEFT JOIN (
    SELECT r.tenant_id, r.device_id, count(*) AS refusals, (array_agg(r.reason ORDER BY r.rejected_at DESC))[1] AS refused_for
    FROM ingress_rejects AS r WHERE r.rejected_at >= $6 GROUP BY r.tenant_id, r.device_id
) AS x ON x.tenant_id = k.tenant_id AND x.device_id = k.device_id
LEFT JOIN LATERAL (
    SELECT (percentile_disc(0.5) WITHIN GROUP (ORDER BY g.gap_seconds) FILTER (WHERE g.gap_seconds > 0))::bigint AS usual_seconds,
        max(g.ahead_seconds)::bigint AS ahead_seconds
    FROM (
        SELECT extract(epoch FROM n.ingested_at - lag(n.ingested_at) OVER (ORDER BY n.ingested_at))::bigint AS gap_seconds,
            extract(epoch FROM n.occurred_at - n.ingested_at) AS ahead_seconds
        FROM (
            SELECT t.ingested_at, t.occurred_at FROM telemetry_raw AS t
            WHERE t.tenant_id = k.tenant_id AND t.device_id = k.device_id ORDER BY t.occurred_at DESC LIMIT $7
        ) AS n
    ) AS g
) AS u ON true
ORDER BY k.tenant_id COLLATE \"C\", k.device_id COLLATE \"C\"";

/// Readings of a device by which it is told how often it sends: all of what it measures, several times over.
const READINGS_LOOKED_AT: i64 = 50;

/// Devices of these tenants (`None` means of all) behind a place in the order by tenant and device. Refusals count since
/// `since`.
///
/// # Errors
/// When the database fails.
pub async fn list(
    conn: &Conn,
    tenants: Option<&[String]>,
    (tenant_id, device_id): (&str, &str),
    limit: i64,
    since: Timestamp,
) -> Result<Vec<Known>, StoreError> {
    let nobody: Option<&str> = None;
    let params: [&(dyn ToSql + Sync); 7] =
        [&tenants, &nobody, &tenant_id, &device_id, &limit, &since, &READINGS_LOOKED_AT];
    let rows = conn.query(KNOWN, &params).await?;
    Ok(rows.iter().map(known).collect())
}

/// One device. Refusals count since `since`.
///
/// # Errors
/// When the database fails.
pub async fn find(
    conn: &Conn,
    tenant_id: &str,
    device_id: &str,
    since: Timestamp,
) -> Result<Option<Known>, StoreError> {
    let tenants = [tenant_id];
    let tenants = tenants.as_slice();
    let params: [&(dyn ToSql + Sync); 7] =
        [&tenants, &device_id, &"", &"", &1_i64, &since, &READINGS_LOOKED_AT];
    let row = conn.query_opt(KNOWN, &params).await?;
    Ok(row.as_ref().map(known))
}

fn known(row: &Row) -> Known {
    let credential = row.get::<_, Option<String>>(7).map(|username| KnownCredential {
        username,
        is_enabled: row.get(8),
        created_at: row.get(9),
        rotated_at: row.get(10),
        has_two: row.get(11),
        overlap_ends_at: row.get(12),
        has_mosquitto_hash: row.get(13),
    });
    Known {
        tenant_id: row.get(0),
        device_id: row.get(1),
        farm_id: row.get(2),
        barn_id: row.get(3),
        station_id: row.get(4),
        is_allowed: row.get(5),
        is_pending: row.get::<_, Option<bool>>(6).unwrap_or_default(),
        credential,
        last_seen_at: row.get(14),
        signs: Signs {
            state: row.get(15),
            state_changed_at: row.get(16),
            firmware_version: row.get(17),
            message: row.get(18),
            health: row.get(19),
            refusals: row.get(20),
            refused_for: row.get(21),
            usual_seconds: row.get(22),
            ahead_seconds: row.get(23),
        },
    }
}

/// Where a device belongs.
#[derive(Clone, Copy, Debug)]
pub struct NewDevice<'a> {
    /// Tenant.
    pub tenant_id: &'a str,
    /// The device.
    pub device_id: &'a str,
    /// Its farm.
    pub farm_id: &'a str,
    /// Its barn.
    pub barn_id: &'a str,
    /// Its only station; `None` means any of its barn.
    pub station_id: Option<&'a str>,
}

/// What is stored of a password.
#[derive(Clone, Copy, Debug)]
pub struct Hashes<'a> {
    /// argon2id, PHC format.
    pub argon2: &'a str,
    /// As a line of Mosquitto's password file holds it.
    pub mosquitto: &'a str,
}

const ALLOW: &str = "-- allow_device
INSERT INTO device_allowlist (tenant_id, device_id, farm_id, barn_id, station_id, enabled, provision_state, created_at, updated_at)
VALUES ($1, $2, $3, $4, $5, true, 'approved', $6, $6)
ON CONFLICT (tenant_id, device_id) DO UPDATE SET farm_id = excluded.farm_id, barn_id = excluded.barn_id,
    station_id = excluded.station_id, enabled = true, provision_state = 'approved', updated_at = excluded.updated_at";

// A device that was revoked comes back with a new password.
const ADD: &str = "-- add_credential
INSERT INTO device_credentials AS c (username, tenant_id, device_id, password_hash, mosquitto_hash, rotated_at, created_at, updated_at)
VALUES ($1, $2, $3, $4, $5, $6, $6, $6)
ON CONFLICT (tenant_id, device_id) DO UPDATE SET username = excluded.username, password_hash = excluded.password_hash,
    password_hash_next = NULL, overlap_ends_at = NULL, mosquitto_hash = excluded.mosquitto_hash, enabled = true,
    rotated_at = excluded.rotated_at, updated_at = excluded.updated_at
WHERE NOT c.enabled";

/// Lets a device in with a password; false, and nothing is changed, when it has one that is good.
///
/// # Errors
/// When the database fails; a user name that another device has makes it [`StoreError::is_replay`].
pub async fn add(
    conn: &mut Conn,
    new: NewDevice<'_>,
    username: &str,
    hashes: Hashes<'_>,
    author: &Author,
    now: Timestamp,
) -> Result<bool, StoreError> {
    let NewDevice { tenant_id, device_id, farm_id, barn_id, station_id } = new;
    let Hashes { argon2, mosquitto } = hashes;
    let added = conn
        .transaction_from("add_device", "BEGIN", async |conn| {
            let added =
                conn.execute(ADD, &[&username, &tenant_id, &device_id, &argon2, &mosquitto, &now]).await?;
            if added == 0 {
                return Ok(None);
            }
            conn.execute(ALLOW, &[&tenant_id, &device_id, &farm_id, &barn_id, &station_id, &now]).await?;
            let detail = json!({"username": username, "farm_id": farm_id, "barn_id": barn_id, "station_id": station_id});
            note(conn, author, (tenant_id, device_id), Action::DeviceAdd, detail, now).await?;
            Ok(Some(()))
        })
        .await?;
    Ok(added.is_some())
}

// A rotation that is over but was not tidied up yet leaves its new password as the old one of the next.
const ROTATE: &str = "-- rotate_credential
UPDATE device_credentials
SET password_hash = CASE WHEN $5::timestamptz IS NULL THEN $3
        WHEN overlap_ends_at <= $6::timestamptz THEN coalesce(password_hash_next, password_hash) ELSE password_hash END,
    password_hash_next = CASE WHEN $5::timestamptz IS NOT NULL THEN $3 END,
    overlap_ends_at = $5::timestamptz, mosquitto_hash = $4, rotated_at = $6::timestamptz, updated_at = $6::timestamptz
WHERE tenant_id = $1 AND device_id = $2 AND enabled
    AND ($5::timestamptz IS NULL OR password_hash_next IS NULL OR overlap_ends_at <= $6::timestamptz)
RETURNING username";

/// Gives a device another password; the one before stays good until `overlap_ends_at`, or ends at once. Says the user
/// name; `None` when the device has no password that is good, or has two and should keep the older one.
///
/// # Errors
/// When the database fails.
pub async fn rotate(
    conn: &mut Conn,
    (tenant_id, device_id): (&str, &str),
    hashes: Hashes<'_>,
    overlap_ends_at: Option<Timestamp>,
    author: &Author,
    now: Timestamp,
) -> Result<Option<String>, StoreError> {
    let Hashes { argon2, mosquitto } = hashes;
    conn.transaction_from("rotate_credential", "BEGIN", async |conn| {
        let row = conn
            .query_opt(ROTATE, &[&tenant_id, &device_id, &argon2, &mosquitto, &overlap_ends_at, &now])
            .await?;
        let Some(row) = row else { return Ok(None) };
        let detail = json!({"old_password_good_until": overlap_ends_at.map(time::format)});
        note(conn, author, (tenant_id, device_id), Action::DeviceRotate, detail, now).await?;
        Ok(Some(row.get(0)))
    })
    .await
}

const REVOKE: &str = "-- revoke_credential
UPDATE device_credentials SET enabled = false, updated_at = $3 WHERE tenant_id = $1 AND device_id = $2";

const SHUT_OUT: &str = "-- shut_device_out
UPDATE device_allowlist SET enabled = false, updated_at = $3 WHERE tenant_id = $1 AND device_id = $2";

/// Puts a device out, whatever it comes with; false when nobody knows it.
///
/// # Errors
/// When the database fails.
pub async fn revoke(
    conn: &mut Conn,
    tenant_id: &str,
    device_id: &str,
    author: &Author,
    now: Timestamp,
) -> Result<bool, StoreError> {
    let revoked = conn
        .transaction_from("revoke_device", "BEGIN", async |conn| {
            let credentials = conn.execute(REVOKE, &[&tenant_id, &device_id, &now]).await?;
            let rows = conn.execute(SHUT_OUT, &[&tenant_id, &device_id, &now]).await?;
            if credentials + rows == 0 {
                return Ok(None);
            }
            note(conn, author, (tenant_id, device_id), Action::DeviceRevoke, json!({}), now).await?;
            Ok(Some(()))
        })
        .await?;
    Ok(revoked.is_some())
}

/// Writes down what was done to a device.
async fn note(
    conn: &Conn,
    author: &Author,
    (tenant_id, device_id): (&str, &str),
    action: Action,
    detail: Value,
    now: Timestamp,
) -> Result<(), StoreError> {
    let tenants = [tenant_id.to_owned()];
    let deed = Deed { action, tenants: Some(&tenants), target: Some(device_id), detail };
    audit::record(conn, author, &deed, now).await
}

/// A device that may log in at a broker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BrokerUser {
    /// User name.
    pub username: String,
    /// A line of Mosquitto's password file; `None` when the password was not made here.
    pub mosquitto_hash: Option<String>,
    /// Tenant.
    pub tenant_id: String,
    /// The device.
    pub device_id: String,
    /// Its farm; `None` means any.
    pub farm_id: Option<String>,
    /// Its barn; `None` means any.
    pub barn_id: Option<String>,
    /// Its only station; `None` means any.
    pub station_id: Option<String>,
}

const BROKER_USERS: &str = "-- broker_users
SELECT c.username, c.mosquitto_hash, tenant_id, device_id, a.farm_id, a.barn_id, a.station_id
FROM device_credentials AS c JOIN device_allowlist AS a USING (tenant_id, device_id)
WHERE c.enabled AND a.enabled ORDER BY c.username COLLATE \"C\"";

/// Every device that may log in by password, by user name.
///
/// # Errors
/// When the database fails.
pub async fn broker_users(conn: &Conn) -> Result<Vec<BrokerUser>, StoreError> {
    let user = |row: &Row| BrokerUser {
        username: row.get(0),
        mosquitto_hash: row.get(1),
        tenant_id: row.get(2),
        device_id: row.get(3),
        farm_id: row.get(4),
        barn_id: row.get(5),
        station_id: row.get(6),
    };
    Ok(conn.query(BROKER_USERS, &[]).await?.iter().map(user).collect())
}
