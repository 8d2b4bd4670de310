//! Discarding: what was given up and is not wanted any more is set aside, with the reason that a person gave. It is not
//! sent or applied, and holds neither its lane nor its month, image or row.

use uuid::Uuid;

use crate::clock::Timestamp;
use crate::store::outbox::claim::with_plans;
use crate::store::{Conn, StoreError};

/// Every statement of this module.
pub const STATEMENTS: &[&str] = &[EVENTS, LETTERS];

// Failed rows are few, and have an index whose condition stands here.
const EVENTS: &str = "-- discard_events
WITH gone AS (
    DELETE FROM ONLY sync_outbox AS o WHERE o.ctid = ANY (ARRAY(
        SELECT f.ctid FROM ONLY sync_outbox AS f
        WHERE (f.reject_count > 0 OR f.failed_at IS NOT NULL) AND f.failed_at IS NOT NULL AND f.status = 'failed'
            AND f.id = ANY ($1) AND ($2::text[] IS NULL OR f.tenant_id = ANY ($2))
        FOR UPDATE))
    RETURNING o.tenant_id, o.id, o.event_type, o.device_id, o.session_id, o.trace_id, o.occurred_at, o.dlq_reason,
        o.failed_at, o.payload_json
)
INSERT INTO discarded_events AS d (tenant_id, source, id, event_type, device_id, session_id, trace_id, occurred_at, failure,
    failed_at, body_json, reason, discarded_at)
SELECT g.tenant_id, 'outbox', g.id, g.event_type, g.device_id, g.session_id, g.trace_id, g.occurred_at, g.dlq_reason,
    g.failed_at, g.payload_json, $3, $4
FROM gone AS g
ON CONFLICT (tenant_id, source, id) DO UPDATE SET failure = excluded.failure, failed_at = excluded.failed_at,
    body_json = excluded.body_json, reason = excluded.reason, discarded_at = excluded.discarded_at";

// The letter itself is closed like one that was applied, so that its event still counts as known.
const LETTERS: &str = "-- discard_letters
WITH gone AS (
    UPDATE dead_letters AS l SET redriven_at = $4, redrive_reason = 'discarded: ' || $3::text
    WHERE l.id = ANY ($1) AND l.redriven_at IS NULL AND ($2::text[] IS NULL OR l.tenant_id = ANY ($2))
    RETURNING l.tenant_id, l.source, l.id, l.event_type, l.device_id, l.session_id, l.trace_id, l.first_seen_at, l.reason,
        l.dead_at, l.body_json
)
INSERT INTO discarded_events (tenant_id, source, id, event_type, device_id, session_id, trace_id, occurred_at, failure,
    failed_at, body_json, reason, discarded_at)
SELECT g.tenant_id, g.source, g.id, g.event_type, g.device_id, g.session_id, g.trace_id, g.first_seen_at, g.reason, g.dead_at,
    g.body_json, $3, $4
FROM gone AS g";

/// Sets failed outbox rows and open dead letters of these ids aside, of these tenants or of all. Returns how many.
///
/// # Errors
/// When the database fails; nothing is set aside then.
pub async fn discard(
    conn: &mut Conn,
    ids: &[Uuid],
    tenants: Option<&[String]>,
    reason: &str,
    now: Timestamp,
) -> Result<u64, StoreError> {
    with_plans(conn, "discard", async |conn| {
        let events = conn.execute(EVENTS, &[&ids, &tenants, &reason, &now]).await?;
        Ok(events + conn.execute(LETTERS, &[&ids, &tenants, &reason, &now]).await?)
    })
    .await
}
