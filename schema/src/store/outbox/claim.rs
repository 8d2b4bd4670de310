//! Claiming: one transaction that takes free lane groups, reads the rows at their heads, and makes the batch of them. The rows
//! stay as they are.

use std::collections::{HashMap, HashSet};
use std::ops::Range;

use chrono::Duration;
use tokio_postgres::Row;
use tokio_postgres::types::ToSql;
use uuid::Uuid;

use super::choose::{Candidate, Limits, Stage, choose};
use super::low_water::{low, tenants};
use super::settle::{Fate, Rejection, reject_rows, return_rows};
use super::{in_order, lane, lease};
use crate::clock::Timestamp;
use crate::clock::deadline::{farthest, waits};
use crate::store::{Conn, StoreError};
use crate::wire::batch::{self, EventRow};
use crate::wire::event::SESSION_CREATED;

/// Error code of a row that the cloud would refuse.
pub const EVENT_INCOMPLETE: &str = "EVENT_INCOMPLETE";
/// Where [`READ_ROWS`] says that a row waits.
const IS_PENDING: usize = 11;
/// Where it says that somebody holds the row locked, or did.
const WAS_LOCKED: usize = 12;
/// Lanes with a priority of their own that are looked at in one claim.
const PRIORITY_LANES_MAX: i64 = 1000;

/// Begins a transaction whose plans follow the indexes whatever the statistics say: a plan that was made while the table
/// was nearly empty must not be used when a million rows wait in it.
const BEGIN: &str = "BEGIN; SET LOCAL enable_seqscan = off; SET LOCAL enable_bitmapscan = off;
    SET LOCAL enable_hashjoin = off; SET LOCAL enable_mergejoin = off; SET LOCAL enable_sort = off";

// Rows at the heads of the free groups. Not among them: lanes behind a row that waits after a rejection, and lanes
// whose session could not be created. A batch in flight keeps its whole group away. `OFFSET 0` keeps the planner from
// reading every waiting `session.created` ahead instead of the one of the row's session.
pub(super) const CANDIDATES: &str = concat!(
    "-- claim_candidates
WITH held AS MATERIALIZED (
    SELECT DISTINCT ",
    lane!(),
    " AS lane
    FROM ONLY sync_outbox AS o
    WHERE o.tenant_id = $1 AND o.lane_group = ANY ($2) AND (o.reject_count > 0 OR o.failed_at IS NOT NULL)
        AND o.failed_at IS NULL AND ",
    waits!("o.next_attempt_at", "$3", "$9"),
    "
)
SELECT o.*, EXISTS (
    SELECT FROM ONLY sync_outbox AS p WHERE p.tenant_id = $1 AND p.priority <> 0) AS has_priority
FROM (
    SELECT u.lane_group, ",
    low!("$1", "u.lane_group"),
    " AS low_at
    FROM unnest($2::smallint[]) AS u (lane_group) OFFSET 0
) AS g
CROSS JOIN LATERAL (
    SELECT o.id, o.ctid::text AS place, o.attempt_count, o.reject_count, o.lane_group, ",
    lane!(),
    " AS lane, o.event_type, o.status, o.next_attempt_at, o.claimed_by, o.lease_expires_at,
        greatest(o.payload_size_bytes, pg_column_size(o.payload_json)) AS payload_bytes,
        o.event_type IN ('weighvision.session.finalized', 'weighvision.session.amended') AND EXISTS (
            SELECT FROM ONLY sync_outbox AS c
            WHERE c.tenant_id = $1 AND c.session_id = o.session_id
                AND c.event_type = 'weighvision.session.created' AND c.status <> 'acked'
            OFFSET 0) AS is_barred
    FROM ONLY sync_outbox AS o
    WHERE o.tenant_id = $1 AND o.lane_group = g.lane_group AND o.failed_at IS NULL
        AND coalesce(o.order_at, o.occurred_at, o.created_at) >= g.low_at
        AND o.status IN ('pending', 'claimed', 'sent')
        AND ",
    lane!(),
    " NOT IN (SELECT held.lane FROM held)
        AND (o.session_id IS NULL OR NOT EXISTS (
            SELECT FROM ONLY sync_outbox AS c
            WHERE c.tenant_id = $1 AND c.session_id = o.session_id
                AND c.event_type = 'weighvision.session.created' AND c.status = 'failed'
            OFFSET 0))
        AND ($6::text[] IS NULL OR ",
    lane!(),
    " = ANY ($6))
        AND ($7::text[] IS NULL OR ",
    lane!(),
    " <> ALL ($7))
    ORDER BY ",
    in_order!(),
    " LIMIT $4
) AS o
WHERE NOT EXISTS (
    SELECT FROM sync_lane_groups AS l
    WHERE l.tenant_id = $1 AND l.lane_group = g.lane_group AND ",
    waits!("l.lease_expires_at", "$3", "$8"),
    ")
LIMIT $5"
);

pub(super) const PRIORITY_LANES: &str = concat!(
    "-- priority_lanes
SELECT ",
    lane!(),
    " AS lane, max(o.priority)
FROM ONLY sync_outbox AS o
WHERE o.tenant_id = $1 AND o.priority <> 0 AND o.status <> 'failed' AND o.lane_group = ANY ($2)
GROUP BY 1 ORDER BY 2 DESC LIMIT $3"
);

// The columns of a row that an event is made of.
macro_rules! read {
    () => {
        "o.id, o.ctid::text, o.attempt_count, o.farm_id, o.barn_id, o.device_id, o.station_id, o.session_id,
    coalesce(o.occurred_at, o.created_at), o.trace_id, o.payload_json::text"
    };
}

// The rows are found where they lay a moment ago, and by nothing else, so that no plan reads the whole tenant instead. One
// that changed since does not come back, which the caller sees. Nothing is written: the lease of the group is the claim.
// Whether somebody holds a row locked stands in it, as long as nobody else has locked it since.
pub(super) const READ_ROWS: &str = concat!(
    "-- read_rows
SELECT ",
    read!(),
    ", o.status = 'pending', o.xmax <> '0'::xid
FROM ONLY sync_outbox AS o WHERE o.ctid = ANY ($1::text[]::tid[])"
);

// For the few rows that look as if somebody held them locked.
pub(super) const UNLOCKED_ROWS: &str = "-- unlocked_rows
SELECT o.id FROM ONLY sync_outbox AS o WHERE o.ctid = ANY ($1::text[]::tid[]) FOR UPDATE SKIP LOCKED";

// Rows of a batch whose sender was lost, or of a program that claims row by row: that attempt counts, and what may still be
// answered to it finds another number.
pub(super) const TAKE_OVER_ROWS: &str = concat!(
    "-- take_over_rows
WITH free AS MATERIALIZED (
    SELECT o.ctid AS place FROM ONLY sync_outbox AS o
    WHERE o.ctid = ANY ($1::text[]::tid[])
    FOR UPDATE SKIP LOCKED
)
UPDATE ONLY sync_outbox AS o
SET status = 'sent', attempt_count = o.attempt_count + 1, claimed_by = $2, claimed_at = $3, lease_expires_at = $4,
    batch_id = $5, last_attempt_at = $3, updated_at = $3
FROM free
WHERE o.ctid = free.place
RETURNING ",
    read!()
);

// In the groups of each tenant it looks from the mark on. `OFFSET 0` keeps the planner from reading a tenant as a whole.
pub(super) const DUE_TENANTS: &str = concat!(
    "-- due_tenants
WITH RECURSIVE ",
    tenants!("o.failed_at IS NULL AND"),
    "
SELECT t.tenant_id, s.paused_until, coalesce(s.consecutive_failures, 0)
FROM tenants AS t LEFT JOIN sync_state AS s ON s.tenant_id = t.tenant_id
WHERE t.tenant_id IS NOT NULL AND EXISTS (
    SELECT FROM (
        SELECT u.lane_group, ",
    low!("t.tenant_id", "u.lane_group"),
    " AS low_at
        FROM unnest($1::smallint[]) AS u (lane_group) OFFSET 0
    ) AS g
    WHERE EXISTS (
        SELECT FROM ONLY sync_outbox AS o
        WHERE o.tenant_id = t.tenant_id AND o.lane_group = g.lane_group AND o.failed_at IS NULL
            AND coalesce(o.order_at, o.occurred_at, o.created_at) >= g.low_at OFFSET 0)
    AND NOT EXISTS (
        SELECT FROM sync_lane_groups AS l
        WHERE l.tenant_id = t.tenant_id AND l.lane_group = g.lane_group AND ",
    waits!("l.lease_expires_at", "$2", "$3"),
    " OFFSET 0))
ORDER BY t.tenant_id"
);

/// What to claim.
#[derive(Clone, Copy, Debug)]
pub struct ClaimRequest<'a> {
    /// Tenant of the batch.
    pub tenant_id: &'a str,
    /// Lane groups to look at, the first ones first.
    pub groups: &'a [i16],
    /// Rows to look at per group.
    pub window_rows: i64,
    /// Id of the batch, new for every claim.
    pub batch_id: Uuid,
    /// The engine as the cloud knows it.
    pub edge_id: &'a str,
    /// The name under which it holds leases; no two living engines have the same (see [`super::slot`]).
    pub holder: &'a str,
    /// The time of the claim.
    pub now: Timestamp,
    /// How long nobody else may have the rows.
    pub lease: Duration,
    /// The longest that a row waits after a rejection.
    pub wait_max: Duration,
    /// Events of a batch at most.
    pub events_max: usize,
    /// Bytes of a request body at most; one larger event travels alone.
    pub bytes_max: usize,
}

/// One claimed event.
#[derive(Clone, Debug)]
pub struct ClaimedEvent {
    /// Row id, the cloud's event id.
    pub id: Uuid,
    /// Where the row version lay in the table when it was read.
    pub place: String,
    /// Its group of lanes, whose lease is the fence.
    pub lane_group: i16,
    /// Slow and failed attempts when it was read: a row that has had another one since is not settled.
    pub attempt_count: i32,
    /// Rejections before this attempt.
    pub reject_count: i32,
    /// Its lane.
    pub lane: String,
    /// Its type.
    pub event_type: String,
    /// Its part of [`Batch::text`].
    pub span: Range<usize>,
}

/// Events of one tenant that are leased to this engine, in the order of sending.
#[derive(Clone, Debug)]
pub struct Batch {
    /// Batch id.
    pub id: Uuid,
    /// Tenant.
    pub tenant_id: String,
    /// When it was claimed.
    pub claimed_at: Timestamp,
    /// The events.
    pub events: Vec<ClaimedEvent>,
    /// The events as JSON, one after the other.
    pub text: String,
}

impl Batch {
    /// The JSON of one event.
    #[must_use]
    pub fn event_text(&self, event: &ClaimedEvent) -> &str {
        &self.text[event.span.clone()]
    }
}

/// What a claim has brought.
#[derive(Debug, Default)]
pub struct Claimed {
    /// Events to send, if any.
    pub batch: Option<Batch>,
    /// Rows that the cloud would refuse and that are `failed` now.
    pub incomplete: u64,
    /// The batch has room and a group has more rows than the window showed.
    pub is_window_short: bool,
    /// Rows were locked or changed by somebody else; nothing was claimed.
    pub is_contended: bool,
}

/// A tenant with rows in some lane groups that are free.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DueTenant {
    /// Tenant.
    pub tenant_id: String,
    /// Until when nothing is sent for it after a failure.
    pub paused_until: Option<Timestamp>,
    /// Failures in a row so far.
    pub consecutive_failures: i32,
}

/// The tenants that have rows in free groups, in order of their ids. A lease lasts for `lease_max` at most.
///
/// # Errors
/// When the database fails.
pub async fn due_tenants(
    conn: &mut Conn,
    groups: &[i16],
    now: Timestamp,
    lease_max: Duration,
) -> Result<Vec<DueTenant>, StoreError> {
    let farthest = farthest(now, lease_max);
    let params: [&(dyn ToSql + Sync); 3] = [&groups, &now, &farthest];
    let rows = with_plans(conn, "due_tenants", async |conn| conn.query(DUE_TENANTS, &params).await).await?;
    let tenant = |row: &Row| DueTenant {
        tenant_id: row.get(0),
        paused_until: row.get(1),
        consecutive_failures: row.get(2),
    };
    Ok(rows.iter().map(tenant).collect())
}

/// Claims a batch: one transaction.
///
/// # Errors
/// When the database fails; nothing is claimed then.
pub async fn claim(conn: &mut Conn, request: &ClaimRequest<'_>) -> Result<Claimed, StoreError> {
    // Rows that somebody holds locked stop their lanes, not the claim; a second look goes around them.
    let mut locked = HashSet::new();
    for _ in 0..2 {
        let work = async |conn: &Conn| claim_in_transaction(conn, request, &mut locked).await;
        if let Some(claimed) = conn.transaction_from("claim", BEGIN, work).await? {
            return Ok(claimed);
        }
    }
    Ok(Claimed { is_contended: true, ..Claimed::default() })
}

/// `None` when some of the rows could not be had: they are in `locked` then.
async fn claim_in_transaction(
    conn: &Conn,
    request: &ClaimRequest<'_>,
    locked: &mut HashSet<Uuid>,
) -> Result<Option<Claimed>, StoreError> {
    let (candidates, chosen) = look(conn, request, locked).await?;
    let is_window_short =
        chosen.len() < request.events_max && has_full_group(&candidates, request.window_rows);
    if chosen.is_empty() {
        return Ok(Some(Claimed { is_window_short, ..Claimed::default() }));
    }
    let chosen: Vec<&Candidate> = chosen.iter().map(|&i| &candidates[i]).collect();
    let mut groups: Vec<i16> = chosen.iter().map(|row| row.lane_group).collect();
    groups.sort_unstable();
    groups.dedup();
    let (owner, term) = ((request.batch_id, request.holder), (request.now, request.lease));
    if !lease::take(conn, (request.tenant_id, &groups), owner, term).await? {
        // Another engine was faster; its lease keeps the group away from the second look.
        return Ok(None);
    }
    let Some(rows) = rows_of(conn, request, &chosen, locked).await? else {
        return Ok(None);
    };
    let packed = pack(request, &chosen, &rows);
    settle_leftovers(conn, request, &packed, &chosen).await?;
    let incomplete = packed.incomplete.len() as u64;
    let batch = (!packed.events.is_empty()).then(|| Batch {
        id: request.batch_id,
        tenant_id: request.tenant_id.to_owned(),
        claimed_at: request.now,
        events: packed.events,
        text: packed.text,
    });
    Ok(Some(Claimed { batch, incomplete, is_window_short, is_contended: false }))
}

/// Reads the heads of the groups and chooses. Lanes with a priority of their own cost a second look, others none.
async fn look(
    conn: &Conn,
    request: &ClaimRequest<'_>,
    locked: &HashSet<Uuid>,
) -> Result<(Vec<Candidate>, Vec<usize>), StoreError> {
    let limits = Limits {
        now: request.now,
        claimed_by: request.holder,
        events_max: request.events_max,
        bytes_max: request.bytes_max,
        lease_max: request.lease,
        wait_max: request.wait_max,
    };
    let (candidates, has_priority) = candidates(conn, request, locked, None, None).await?;
    if !has_priority {
        let chosen = choose(&candidates, &limits);
        return Ok((candidates, chosen));
    }
    let rows =
        conn.query(PRIORITY_LANES, &[&request.tenant_id, &request.groups, &PRIORITY_LANES_MAX]).await?;
    let ranks: HashMap<String, i32> = rows.iter().map(|row| (row.get(0), row.get(1))).collect();
    let (first, last): (Vec<&str>, Vec<&str>) = {
        let lanes = |is_first: bool| {
            let of_kind = ranks.iter().filter(move |(_, rank)| (**rank > 0) == is_first);
            of_kind.map(|(lane, _)| lane.as_str()).collect()
        };
        (lanes(true), lanes(false))
    };
    let apart: Vec<&str> = first.iter().chain(&last).copied().collect();
    for (only, skip) in [(Some(&first), None), (None, Some(&apart)), (Some(&last), None)] {
        let (mut candidates, _) =
            self::candidates(conn, request, locked, only.map(Vec::as_slice), skip.map(Vec::as_slice)).await?;
        candidates.sort_by_key(|row| std::cmp::Reverse(ranks.get(&row.lane).copied().unwrap_or(0)));
        let chosen = choose(&candidates, &limits);
        if !chosen.is_empty() {
            return Ok((candidates, chosen));
        }
    }
    Ok((candidates, Vec::new()))
}

async fn candidates(
    conn: &Conn,
    request: &ClaimRequest<'_>,
    locked: &HashSet<Uuid>,
    only: Option<&[&str]>,
    skip: Option<&[&str]>,
) -> Result<(Vec<Candidate>, bool), StoreError> {
    let rows_max = request.window_rows.max(i64::try_from(request.events_max).unwrap_or(i64::MAX));
    let params: [&(dyn ToSql + Sync); 9] = [
        &request.tenant_id,
        &request.groups,
        &request.now,
        &request.window_rows,
        &rows_max,
        &only,
        &skip,
        &farthest(request.now, request.lease),
        &farthest(request.now, request.wait_max),
    ];
    let rows = conn.query(CANDIDATES, &params).await?;
    let has_priority = rows.first().is_some_and(|row| row.get("has_priority"));
    let mut candidates: Vec<Candidate> = rows.iter().map(candidate).collect();
    for row in candidates.iter_mut().filter(|row| locked.contains(&row.id)) {
        row.stage = Stage::Locked;
    }
    Ok((candidates, has_priority))
}

fn candidate(row: &Row) -> Candidate {
    let status: &str = row.get("status");
    Candidate {
        id: row.get("id"),
        place: row.get("place"),
        attempt_count: row.get("attempt_count"),
        reject_count: row.get("reject_count"),
        lane_group: row.get("lane_group"),
        lane: row.get("lane"),
        event_type: row.get("event_type"),
        stage: if status == "pending" { Stage::Waiting } else { Stage::InFlight },
        next_attempt_at: row.get("next_attempt_at"),
        claimed_by: row.get("claimed_by"),
        lease_expires_at: row.get("lease_expires_at"),
        payload_bytes: usize::try_from(row.get::<_, i32>("payload_bytes")).unwrap_or(0),
        is_barred: row.get::<_, Option<bool>>("is_barred").unwrap_or(false),
    }
}

fn has_full_group(candidates: &[Candidate], window_rows: i64) -> bool {
    let mut counts: HashMap<i16, i64> = HashMap::new();
    for row in candidates {
        *counts.entry(row.lane_group).or_default() += 1;
    }
    counts.values().any(|count| *count >= window_rows)
}

/// The chosen rows by id, as they are now that nobody else may have their groups. `None` when one of them could not be had.
async fn rows_of(
    conn: &Conn,
    request: &ClaimRequest<'_>,
    chosen: &[&Candidate],
    locked: &mut HashSet<Uuid>,
) -> Result<Option<HashMap<Uuid, Row>>, StoreError> {
    let places = |is_left: bool| -> Vec<&str> {
        let of_kind = chosen.iter().filter(move |row| (row.stage == Stage::InFlight) == is_left);
        of_kind.map(|row| row.place.as_str()).collect()
    };
    let mut rows = read_rows(conn, &places(false)).await?;
    let left = places(true);
    if !left.is_empty() {
        let lease_expires_at = request.now + request.lease;
        let params: [&(dyn ToSql + Sync); 5] =
            [&left, &request.holder, &request.now, &lease_expires_at, &request.batch_id];
        let taken = conn.query(TAKE_OVER_ROWS, &params).await?;
        rows.extend(taken.into_iter().map(|row| (row.get(0), row)));
    }
    let is_had = |candidate: &&Candidate| {
        let step = i32::from(candidate.stage == Stage::InFlight);
        let found = rows.get(&candidate.id);
        found.is_some_and(|row| row.get::<_, i32>(2) == candidate.attempt_count + step)
    };
    let missed: Vec<Uuid> = chosen.iter().filter(|row| !is_had(row)).map(|row| row.id).collect();
    if missed.is_empty() && rows.len() == chosen.len() {
        return Ok(Some(rows));
    }
    locked.extend(missed);
    Ok(None)
}

/// The waiting rows at these places, without those that somebody holds locked.
async fn read_rows(conn: &Conn, places: &[&str]) -> Result<HashMap<Uuid, Row>, StoreError> {
    let found = conn.query(READ_ROWS, &[&places]).await?;
    let waiting = found.into_iter().filter(|row| row.get(IS_PENDING));
    let mut rows: HashMap<Uuid, Row> = waiting.map(|row| (row.get(0), row)).collect();
    let marked = rows.values().filter(|row| row.get(WAS_LOCKED));
    let marked: Vec<String> = marked.map(|row| row.get(1)).collect();
    if !marked.is_empty() {
        let unlocked = conn.query(UNLOCKED_ROWS, &[&marked]).await?;
        let unlocked: HashSet<Uuid> = unlocked.iter().map(|row| row.get(0)).collect();
        rows.retain(|id, row| !row.get::<_, bool>(WAS_LOCKED) || unlocked.contains(id));
    }
    Ok(rows)
}

/// The rows of a claim, told apart by what becomes of them.
#[derive(Debug, Default)]
struct Packed {
    events: Vec<ClaimedEvent>,
    text: String,
    /// Rows that fail, with the text of their lack.
    incomplete: Vec<(Uuid, i16, i32, &'static str)>,
    /// Rows that wait for another batch.
    released: Vec<(Uuid, i32)>,
}

fn pack(request: &ClaimRequest<'_>, chosen: &[&Candidate], rows: &HashMap<Uuid, Row>) -> Packed {
    let mut packed = Packed::default();
    let mut held: HashSet<&str> = HashSet::new();
    let mut room = request.bytes_max.saturating_sub(batch::frame_bytes(request.tenant_id, request.edge_id));
    let mut is_full = false;
    for candidate in chosen {
        let row = rows.get(&candidate.id).expect("every chosen row was read");
        let attempt_count: i32 = row.get(2);
        if is_full || held.contains(candidate.lane.as_str()) {
            packed.released.push((candidate.id, attempt_count));
            continue;
        }
        let start = packed.text.len();
        if let Err(lack) = batch::write_event(&mut packed.text, &event_row(request, candidate, row)) {
            packed.incomplete.push((candidate.id, candidate.lane_group, attempt_count, lack));
            if candidate.event_type == SESSION_CREATED {
                held.insert(&candidate.lane);
            }
            continue;
        }
        // One more for the comma.
        let bytes = packed.text.len() - start + 1;
        if bytes > room && !packed.events.is_empty() {
            packed.text.truncate(start);
            packed.released.push((candidate.id, attempt_count));
            is_full = true;
            continue;
        }
        room = room.saturating_sub(bytes);
        packed.events.push(ClaimedEvent {
            id: candidate.id,
            place: row.get(1),
            lane_group: candidate.lane_group,
            attempt_count,
            reject_count: candidate.reject_count,
            lane: candidate.lane.clone(),
            event_type: candidate.event_type.clone(),
            span: start..packed.text.len(),
        });
    }
    packed
}

fn event_row<'a>(request: &ClaimRequest<'a>, candidate: &'a Candidate, row: &'a Row) -> EventRow<'a> {
    EventRow {
        id: candidate.id,
        tenant_id: request.tenant_id,
        farm_id: row.get(3),
        barn_id: row.get(4),
        device_id: row.get(5),
        station_id: row.get(6),
        session_id: row.get(7),
        event_type: &candidate.event_type,
        occurred_at: row.get(8),
        trace_id: row.get(9),
        payload_json: row.get(10),
    }
}

/// Fails the incomplete rows, gives back what did not fit, and frees the groups of which nothing travels.
async fn settle_leftovers(
    conn: &Conn,
    request: &ClaimRequest<'_>,
    packed: &Packed,
    chosen: &[&Candidate],
) -> Result<(), StoreError> {
    if packed.incomplete.is_empty() && packed.released.is_empty() {
        return Ok(());
    }
    let failures: Vec<Rejection> = packed
        .incomplete
        .iter()
        .map(|(id, lane_group, attempt_count, lack)| Rejection {
            id: *id,
            lane_group: *lane_group,
            attempt_count: *attempt_count,
            code: EVENT_INCOMPLETE,
            message: (*lack).to_owned(),
            is_counted: false,
            fate: Fate::Failed { reason: "event_incomplete" },
        })
        .collect();
    let batch = (request.tenant_id, request.batch_id);
    reject_rows(conn, batch, &failures.iter().collect::<Vec<_>>(), request.now).await?;
    return_rows(conn, batch, &packed.released, None, request.now).await?;
    let travelling: HashSet<Uuid> = packed.events.iter().map(|event| event.id).collect();
    let groups: Vec<i16> =
        chosen.iter().filter(|row| travelling.contains(&row.id)).map(|row| row.lane_group).collect();
    conn.execute(lease::DROP_GROUPS, &[&request.tenant_id, &request.batch_id, &groups]).await?;
    Ok(())
}

/// Runs work in a transaction whose plans follow the indexes.
pub(in crate::store) async fn with_plans<T>(
    conn: &mut Conn,
    name: &'static str,
    work: impl AsyncFnOnce(&Conn) -> Result<T, StoreError>,
) -> Result<T, StoreError> {
    let work = async |conn: &Conn| work(conn).await.map(Some);
    let value = conn.transaction_from(name, BEGIN, work).await?;
    Ok(value.expect("work that returns a value is committed"))
}
