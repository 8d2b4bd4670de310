//! The low-water marks: where looks at the outbox begin, so that they cost the same while somebody keeps a vacuum from removing
//! what was settled. The migration that makes the tables says why a mark is right; a model of it is in the tests.

use chrono::Duration;

use super::claim::with_plans;
use crate::clock::Timestamp;
use crate::store::{Conn, StoreError};

/// How far marks stay behind the present at least: what comes in later than that costs a note.
const LAG: Duration = Duration::seconds(5);

/// Where a look at a lane group begins, as SQL: the names of tenant and group.
macro_rules! low {
    ($tenant:literal, $group:literal) => {
        concat!(
            "coalesce((SELECT least(m.low_at, (SELECT min(l.at) FROM sync_lane_late AS l WHERE l.tenant_id = ",
            $tenant,
            " AND l.lane_group = ",
            $group,
            ")) FROM sync_lane_marks AS m WHERE m.tenant_id = ",
            $tenant,
            " AND m.lane_group = ",
            $group,
            "), '-infinity')"
        )
    };
}

/// Tenants with rows, each found by a jump along an index, as SQL: what is asked of a row. Between two tenants that have marks
/// it looks for others; those that have marks are there with and without rows, so that nothing dead is read for them. The last
/// one is NULL.
macro_rules! tenants {
    ($where:literal) => {
        concat!(
            "tenants AS (
    SELECT ''::text AS tenant_id
    UNION ALL
    SELECT coalesce(CASE WHEN k.tenant_id IS NULL THEN (
            SELECT o.tenant_id FROM ONLY sync_outbox AS o
            WHERE ",
            $where,
            " o.tenant_id > t.tenant_id ORDER BY o.tenant_id LIMIT 1)
        ELSE (
            SELECT o.tenant_id FROM ONLY sync_outbox AS o
            WHERE ",
            $where,
            " o.tenant_id > t.tenant_id AND o.tenant_id < k.tenant_id ORDER BY o.tenant_id LIMIT 1)
        END, k.tenant_id)
    FROM tenants AS t CROSS JOIN LATERAL (
        SELECT min(m.tenant_id) AS tenant_id FROM sync_lane_marks AS m WHERE m.tenant_id > t.tenant_id
    ) AS k
    WHERE t.tenant_id IS NOT NULL
)"
        )
    };
}
pub(super) use {low, tenants};

pub(super) const ADD_MARKS: &str = "-- low_water_add
INSERT INTO sync_lane_marks (tenant_id, lane_group)
SELECT t.tenant_id, g.lane_group::smallint FROM unnest($1::text[]) AS t (tenant_id) CROSS JOIN generate_series(0, 15) AS g (lane_group)
ORDER BY 1, 2 ON CONFLICT DO NOTHING";

// By a statement of its own, so that the next one sees nothing older than what is locked here.
pub(super) const LOCK_MARKS: &str = "-- low_water_lock
SELECT m.tenant_id, m.lane_group FROM sync_lane_marks AS m WHERE m.tenant_id = ANY ($1)
ORDER BY m.tenant_id, m.lane_group FOR UPDATE SKIP LOCKED";

// The first row that waits is looked for from the mark and the notes on. What is seen here is all there is below `safe_at` but
// for what has notes that are not seen here: they stay.
pub(super) const ADVANCE: &str = "-- low_water_advance
WITH mine AS MATERIALIZED (
    SELECT m.tenant_id, m.lane_group, m.low_at, m.safe_at, m.next_at, m.barrier
    FROM unnest($1::text[], $2::smallint[]) AS g (tenant_id, lane_group)
    JOIN sync_lane_marks AS m ON m.tenant_id = g.tenant_id AND m.lane_group = g.lane_group
), notes AS (
    DELETE FROM sync_lane_late AS l USING mine WHERE l.tenant_id = mine.tenant_id AND l.lane_group = mine.lane_group
    RETURNING l.tenant_id, l.lane_group, l.at
), late AS (
    SELECT n.tenant_id, n.lane_group, min(n.at) AS at FROM notes AS n GROUP BY 1, 2
), begun AS MATERIALIZED (
    SELECT mine.*, least(mine.low_at, late.at) AS begin_at,
        coalesce(mine.barrier <= pg_snapshot_xmin(pg_current_snapshot()), false) AS is_ripe,
        coalesce(mine.barrier > pg_snapshot_xmax(pg_current_snapshot()), true) AS is_unknown
    FROM mine LEFT JOIN late ON late.tenant_id = mine.tenant_id AND late.lane_group = mine.lane_group
), found AS (
    SELECT b.*, f.at AS first_at, least(CASE WHEN b.is_ripe THEN b.next_at ELSE b.safe_at END, $3) AS new_safe_at
    FROM begun AS b LEFT JOIN LATERAL (
        SELECT coalesce(o.order_at, o.occurred_at, o.created_at) AS at FROM ONLY sync_outbox AS o
        WHERE o.tenant_id = b.tenant_id AND o.lane_group = b.lane_group AND o.failed_at IS NULL
            AND coalesce(o.order_at, o.occurred_at, o.created_at) >= CASE WHEN $4 THEN '-infinity' ELSE b.begin_at END
        ORDER BY coalesce(o.order_at, o.occurred_at, o.created_at), o.seq LIMIT 1
    ) AS f ON true
)
UPDATE sync_lane_marks AS m
SET low_at = least(f.new_safe_at, f.first_at), safe_at = f.new_safe_at,
    next_at = CASE WHEN f.next_at IS NOT NULL AND NOT f.is_ripe THEN f.next_at WHEN $3 > f.new_safe_at THEN $3 END,
    barrier = CASE WHEN f.next_at IS NULL OR f.is_ripe THEN NULL WHEN f.is_unknown THEN pg_snapshot_xmax(pg_current_snapshot())
        ELSE f.barrier END
FROM found AS f WHERE m.tenant_id = f.tenant_id AND m.lane_group = f.lane_group
RETURNING coalesce(f.first_at < f.begin_at, false)";

/// Moves the marks of these tenants up to the first rows that wait, as far as that is safe by now: of those that nobody else
/// is moving. With `is_full` it looks from the very beginning, for what came in past all triggers; it says in how many groups
/// there was such.
///
/// # Errors
/// When the database fails.
pub async fn advance(
    conn: &mut Conn,
    tenants: &[String],
    is_full: bool,
    now: Timestamp,
) -> Result<u64, StoreError> {
    conn.execute(ADD_MARKS, &[&tenants]).await?;
    with_plans(conn, "low_water", async |conn| {
        let rows = conn.query(LOCK_MARKS, &[&tenants]).await?;
        let (tenants, groups): (Vec<String>, Vec<i16>) =
            rows.iter().map(|row| (row.get::<_, String>(0), row.get::<_, i16>(1))).unzip();
        let moved = conn.query(ADVANCE, &[&tenants, &groups, &(now - LAG), &is_full]).await?;
        Ok(moved.iter().filter(|row| row.get(0)).count() as u64)
    })
    .await
}
