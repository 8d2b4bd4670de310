//! Weighing stations, as operators let them speak and silence them.

use serde_json::{Value, json};

use crate::clock::Timestamp;
use crate::store::audit::{self, Action, Author, Deed};
use crate::store::{Conn, StoreError};

/// Every statement of this module.
pub const STATEMENTS: &[&str] = &[LIST, FIND, ALLOW, REVOKE];

/// A row of the allowlist of stations.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Station {
    /// Tenant.
    pub tenant_id: String,
    /// The station.
    pub station_id: String,
    /// Its farm; `None` means any.
    pub farm_id: Option<String>,
    /// Its barn; `None` means any.
    pub barn_id: Option<String>,
    /// Whether it may speak.
    pub enabled: bool,
    /// `approved`, or `pending` while it waits for approval.
    pub provision_state: String,
    /// When its row was made.
    pub created_at: Timestamp,
    /// When it last changed.
    pub updated_at: Timestamp,
}

row_of!(Station, station_columns as "s": tenant_id, station_id, farm_id, barn_id, enabled, provision_state, created_at,
    updated_at);

// The order is that of the bytes, as that of devices.
const LIST: &str = concat!(
    "-- stations\nSELECT ",
    station_columns!(),
    " FROM station_allowlist AS s
WHERE ($1::text[] IS NULL OR s.tenant_id = ANY ($1))
    AND (s.tenant_id COLLATE \"C\", s.station_id COLLATE \"C\") > ($2::text, $3::text)
ORDER BY s.tenant_id COLLATE \"C\", s.station_id COLLATE \"C\" LIMIT $4"
);

/// Stations of these tenants (`None` means of all) behind a place in the order by tenant and station.
///
/// # Errors
/// When the database fails.
pub async fn list(
    conn: &Conn,
    tenants: Option<&[String]>,
    (tenant_id, station_id): (&str, &str),
    limit: i64,
) -> Result<Vec<Station>, StoreError> {
    let rows = conn.query(LIST, &[&tenants, &tenant_id, &station_id, &limit]).await?;
    Ok(rows.iter().map(Station::from).collect())
}

const FIND: &str = concat!(
    "-- station\nSELECT ",
    station_columns!(),
    " FROM station_allowlist AS s WHERE s.tenant_id = $1 AND s.station_id = $2"
);

/// One station.
///
/// # Errors
/// When the database fails.
pub async fn find(conn: &Conn, tenant_id: &str, station_id: &str) -> Result<Option<Station>, StoreError> {
    Ok(conn.query_opt(FIND, &[&tenant_id, &station_id]).await?.as_ref().map(Station::from))
}

const ALLOW: &str = "-- allow_station
INSERT INTO station_allowlist (tenant_id, station_id, farm_id, barn_id, enabled, provision_state, created_at, updated_at)
VALUES ($1, $2, $3, $4, true, 'approved', $5, $5)
ON CONFLICT (tenant_id, station_id) DO UPDATE SET farm_id = excluded.farm_id, barn_id = excluded.barn_id, enabled = true,
    provision_state = 'approved', updated_at = excluded.updated_at";

/// Lets a station speak for a barn; one that is there already is moved, or comes back.
///
/// # Errors
/// When the database fails.
pub async fn allow(
    conn: &mut Conn,
    [tenant_id, station_id]: [&str; 2],
    [farm_id, barn_id]: [&str; 2],
    author: &Author,
    now: Timestamp,
) -> Result<(), StoreError> {
    conn.transaction("add_station", async |conn| {
        conn.execute(ALLOW, &[&tenant_id, &station_id, &farm_id, &barn_id, &now]).await?;
        let detail = json!({"farm_id": farm_id, "barn_id": barn_id});
        note(conn, author, [tenant_id, station_id], Action::StationAdd, detail, now).await
    })
    .await
}

const REVOKE: &str = "-- revoke_station
UPDATE station_allowlist SET enabled = false, updated_at = $3 WHERE tenant_id = $1 AND station_id = $2";

/// Silences a station; false when nobody knows it.
///
/// # Errors
/// When the database fails.
pub async fn revoke(
    conn: &mut Conn,
    [tenant_id, station_id]: [&str; 2],
    author: &Author,
    now: Timestamp,
) -> Result<bool, StoreError> {
    conn.transaction("revoke_station", async |conn| {
        if conn.execute(REVOKE, &[&tenant_id, &station_id, &now]).await? == 0 {
            return Ok(false);
        }
        note(conn, author, [tenant_id, station_id], Action::StationRevoke, json!({}), now).await?;
        Ok(true)
    })
    .await
}

async fn note(
    conn: &Conn,
    author: &Author,
    [tenant_id, station_id]: [&str; 2],
    action: Action,
    detail: Value,
    now: Timestamp,
) -> Result<(), StoreError> {
    let tenants = [tenant_id.to_owned()];
    let deed = Deed { action, tenants: Some(&tenants), target: Some(station_id), detail };
    audit::record(conn, author, &deed, now).await
}
