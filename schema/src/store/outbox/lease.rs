//! Leases: who has a lane group, which is the fence of everything that is done with its rows.
//!
//! A claim takes groups and reads rows; the rows themselves stay as they are. Whoever settles holds the groups of the batch
//! first, and settles what lies in those that still have its batch id. Rows that were taken away in the meantime by another
//! engine, whose batch id stands there now, are left alone. Only a request that lasts is written into its rows, so that an
//! operator sees what is on the line and a program that knows nothing but rows leaves them alone.

use chrono::Duration;
use tokio_postgres::types::ToSql;
use uuid::Uuid;

use super::claim::{Batch, ClaimedEvent, with_plans};
use crate::clock::Timestamp;
use crate::clock::deadline::{due, farthest};
use crate::store::{Conn, StoreError};

pub(super) const TAKE_GROUPS: &str = concat!(
    "-- take_lane_groups
INSERT INTO sync_lane_groups AS l (tenant_id, lane_group, batch_id, claimed_by, lease_expires_at)
SELECT $1, g.lane_group, $3, $4, $5 FROM unnest($2::smallint[]) AS g (lane_group) ORDER BY g.lane_group
ON CONFLICT (tenant_id, lane_group) DO UPDATE
SET batch_id = excluded.batch_id, claimed_by = excluded.claimed_by, lease_expires_at = excluded.lease_expires_at
WHERE ",
    due!("l.lease_expires_at", "$6", "$7")
);

pub(super) const DROP_GROUPS: &str = "-- drop_lane_groups
DELETE FROM sync_lane_groups WHERE tenant_id = $1 AND batch_id = $2 AND lane_group <> ALL ($3)";

pub(super) const RELEASE_MINE: &str = "-- release_my_lane_groups
DELETE FROM sync_lane_groups WHERE claimed_by = $1 AND lane_group = ANY ($2)";

// Nobody takes a group over between this look and the end of the transaction.
pub(super) const HOLD_GROUPS: &str = "-- hold_lane_groups
SELECT l.lane_group, l.claimed_by, l.lease_expires_at FROM sync_lane_groups AS l
WHERE l.tenant_id = $1 AND l.batch_id = $2 ORDER BY l.lane_group FOR UPDATE";

pub(super) const RELEASE_GROUPS: &str = "-- release_lane_groups
DELETE FROM sync_lane_groups AS l WHERE l.tenant_id = $1 AND l.batch_id = $2
RETURNING l.lane_group, l.claimed_by, l.lease_expires_at";

pub(super) const RENEW_GROUPS: &str = "-- renew_lane_groups
UPDATE sync_lane_groups SET lease_expires_at = $3 WHERE tenant_id = $1 AND batch_id = $2";

pub(super) const RENEW_ROWS: &str = "-- renew_rows
UPDATE ONLY sync_outbox AS o SET lease_expires_at = $2
FROM unnest($1::text[], $3::uuid[]) AS mine (tenant_id, id)
WHERE o.tenant_id = mine.tenant_id AND o.id = mine.id AND o.batch_id = $4 AND o.status IN ('claimed', 'sent')";

// The rows are found where they lay when they were read. Rows that were found in flight bear the mark already.
pub(super) const MARK_SENT: &str = "-- mark_sent
UPDATE ONLY sync_outbox AS o
SET status = 'sent', attempt_count = o.attempt_count + 1, claimed_by = $5, claimed_at = $6, lease_expires_at = $7,
    batch_id = $8, last_attempt_at = $6, updated_at = $9
FROM unnest($1::text[], $2::uuid[], $3::int[], $4::text[]::tid[]) AS mine (tenant_id, id, attempt_count, place)
WHERE o.ctid = mine.place AND o.tenant_id = mine.tenant_id AND o.id = mine.id AND o.attempt_count = mine.attempt_count
    AND o.status = 'pending'";

/// Lane groups that are still those of a batch, and locked until the end of the transaction.
#[derive(Debug, Default)]
pub(super) struct Held {
    groups: Vec<i16>,
    pub(super) claimed_by: Option<String>,
    lease_expires_at: Option<Timestamp>,
}

impl Held {
    /// Whether an event of this group may be settled.
    pub(super) fn has(&self, lane_group: i16) -> bool {
        self.groups.contains(&lane_group)
    }

    fn is_empty(&self) -> bool {
        self.groups.is_empty()
    }
}

/// Holds what is left of a batch's groups, and gives them back with the end of the transaction when `is_last`.
pub(super) async fn hold(
    conn: &Conn,
    tenant_id: &str,
    batch_id: Uuid,
    is_last: bool,
) -> Result<Held, StoreError> {
    let sql = if is_last { RELEASE_GROUPS } else { HOLD_GROUPS };
    let mut held = Held::default();
    for row in conn.query(sql, &[&tenant_id, &batch_id]).await? {
        held.groups.push(row.get(0));
        held.claimed_by = Some(row.get(1));
        held.lease_expires_at = Some(row.get(2));
    }
    Ok(held)
}

/// Takes lane groups that are free; `false` when another engine has been faster with one of them. `claimed_at` is the present.
pub(super) async fn take(
    conn: &Conn,
    (tenant_id, groups): (&str, &[i16]),
    (batch_id, holder): (Uuid, &str),
    (claimed_at, lease): (Timestamp, Duration),
) -> Result<bool, StoreError> {
    let params: [&(dyn ToSql + Sync); 7] = [
        &tenant_id,
        &groups,
        &batch_id,
        &holder,
        &(claimed_at + lease),
        &claimed_at,
        &farthest(claimed_at, lease),
    ];
    let taken = conn.execute(TAKE_GROUPS, &params).await?;
    Ok(usize::try_from(taken).ok() == Some(groups.len()))
}

/// Frees the groups that an earlier life of this engine left behind; their rows may be claimed at once.
///
/// # Errors
/// When the database fails.
pub async fn release_mine(conn: &Conn, holder: &str, groups: &[i16]) -> Result<u64, StoreError> {
    conn.execute(RELEASE_MINE, &[&holder, &groups]).await
}

/// Keeps the batch for longer. Returns `false` when the lease has gone to somebody else meanwhile.
///
/// # Errors
/// When the database fails.
pub async fn renew(conn: &mut Conn, batch: &Batch, lease_expires_at: Timestamp) -> Result<bool, StoreError> {
    let ids: Vec<Uuid> = batch.events.iter().map(|event| event.id).collect();
    with_plans(conn, "renew", async |conn| {
        let groups = conn.execute(RENEW_GROUPS, &[&batch.tenant_id, &batch.id, &lease_expires_at]).await?;
        let tenants = vec![batch.tenant_id.as_str(); ids.len()];
        conn.execute(RENEW_ROWS, &[&tenants, &lease_expires_at, &ids, &batch.id]).await?;
        Ok(groups > 0)
    })
    .await
}

/// Writes into the rows of a batch that they are on the line, which counts as an attempt: the request lasts. Returns how many
/// rows say so now; those of groups that went to somebody else do not, nor those that say so already.
///
/// # Errors
/// When the database fails.
pub async fn mark_sent(
    conn: &mut Conn,
    batch: &Batch,
    events: &[&ClaimedEvent],
    now: Timestamp,
) -> Result<u64, StoreError> {
    with_plans(conn, "mark_sent", async |conn| {
        let held = hold(conn, &batch.tenant_id, batch.id, false).await?;
        if held.is_empty() {
            return Ok(0);
        }
        let events: Vec<_> = events.iter().filter(|event| held.has(event.lane_group)).collect();
        macro_rules! column {
            ($($field:tt)+) => { events.iter().map(|event| event.$($field)+).collect::<Vec<_>>() };
        }
        let tenants = vec![batch.tenant_id.as_str(); events.len()];
        let params: [&(dyn ToSql + Sync); 9] = [
            &tenants,
            &column!(id),
            &column!(attempt_count),
            &column!(place.as_str()),
            &held.claimed_by,
            &batch.claimed_at,
            &held.lease_expires_at,
            &batch.id,
            &now,
        ];
        conn.execute(MARK_SENT, &params).await
    })
    .await
}
