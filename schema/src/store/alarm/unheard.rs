//! What engines have stored that do not own the alarms: of which barn, and since when. The owner reads the rows from there
//! on, which are the truth.

use super::Barn;
use crate::clock::Timestamp;
use crate::store::{Conn, StoreError};

/// Every statement of this module.
pub const STATEMENTS: &[&str] = &[NOTE, TAKE];

/// Barns that are taken at once.
const BARNS_MAX: i64 = 1000;

// In the order of names, so that two who note the same barns wait for each other, and no more. One row a barn, whatever comes
// and whoever takes it: nobody may.
const NOTE: &str = "-- alarm_unheard_note
INSERT INTO alarm_unheard AS u (tenant_id, farm_id, barn_id, since)
SELECT * FROM unnest($1::text[], $2::text[], $3::text[], $4::timestamptz[]) AS n (tenant_id, farm_id, barn_id, since)
ORDER BY 1, 2, 3
ON CONFLICT (tenant_id, farm_id, barn_id) DO UPDATE SET since = least(u.since, excluded.since)";

/// Notes since when an engine that does not own the alarms has stored something of these barns, each of which is named once.
///
/// # Errors
/// When the database fails.
pub async fn note(conn: &Conn, barns: &[(Barn, Timestamp)]) -> Result<(), StoreError> {
    let column = |name: fn(&Barn) -> &str| barns.iter().map(|(barn, _)| name(barn)).collect::<Vec<_>>();
    let [tenants, farms, names] =
        [column(|barn| &barn.tenant_id), column(|barn| &barn.farm_id), column(|barn| &barn.barn_id)];
    let since: Vec<_> = barns.iter().map(|(_, since)| *since).collect();
    conn.execute(NOTE, &[&tenants, &farms, &names, &since]).await?;
    Ok(())
}

// What somebody notes just now is taken next time.
const TAKE: &str = "-- alarm_unheard_take
DELETE FROM alarm_unheard AS u USING (
    SELECT tenant_id, farm_id, barn_id FROM alarm_unheard ORDER BY tenant_id, farm_id, barn_id LIMIT $1 FOR UPDATE SKIP LOCKED
) AS t WHERE (u.tenant_id, u.farm_id, u.barn_id) = (t.tenant_id, t.farm_id, t.barn_id)
RETURNING u.tenant_id, u.farm_id, u.barn_id, u.since";

/// Takes what was noted.
///
/// # Errors
/// When the database fails. Then it may have been taken all the same.
pub async fn take(conn: &Conn) -> Result<Vec<(Barn, Timestamp)>, StoreError> {
    let rows = conn.query(TAKE, &[&BARNS_MAX]).await?;
    Ok(rows.iter().map(|row| (Barn::from(row), row.get("since"))).collect())
}
