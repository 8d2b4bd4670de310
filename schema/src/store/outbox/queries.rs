//! What operators ask about the outbox and do to it, and what the gauges show.

use tokio_postgres::Row;
use tokio_postgres::error::SqlState;
use tokio_postgres::types::ToSql;
use uuid::Uuid;

use super::claim::with_plans;
use super::in_order;
use super::low_water::{low, tenants};
use crate::clock::Timestamp;
use crate::store::page::{Place, behind};
use crate::store::tally::{self, Counted, Tally};
use crate::store::{Conn, StoreError};

/// Rows a list may have.
pub const LIST_ROWS_MAX: i64 = 1000;

/// Rows at the head of each lane group among which those in flight are looked for: more than any batch has.
const IN_FLIGHT_WINDOW_ROWS: i64 = 2_000;
/// Failed rows that one statement redrives.
const REDRIVEN_ROWS_PER_CHUNK: i64 = 5_000;
/// Failed rows of each lane group that are counted.
const COUNTED_ROWS_PER_GROUP_MAX: i64 = 1_000_000;
/// Rows at the head of each lane group that are told apart by type.
const TYPED_ROWS_PER_GROUP: i64 = 500;
/// Types that are told apart.
const TYPES_MAX: i64 = 100;
/// Rows at the head of each lane group among which the oldest is looked for.
const HEAD_ROWS: i64 = 16;

// Each group lies in the order of its events, which is that of their arrival but for what was sent late: the oldest row
// is among the heads.
pub(super) const OLDEST_PENDING: &str = concat!(
    "-- outbox_oldest_pending
SELECT min(o.created_at) FROM (
    SELECT t.tenant_id, u.lane_group::smallint AS lane_group, ",
    low!("t.tenant_id", "u.lane_group"),
    " AS low_at
    FROM unnest($1::text[]) AS t (tenant_id) CROSS JOIN generate_series(0, 15) AS u (lane_group) OFFSET 0
) AS g
CROSS JOIN LATERAL (
    SELECT o.created_at FROM ONLY sync_outbox AS o
    WHERE o.tenant_id = g.tenant_id AND o.lane_group = g.lane_group AND o.failed_at IS NULL AND o.status = 'pending'
        AND coalesce(o.order_at, o.occurred_at, o.created_at) >= g.low_at
    ORDER BY ",
    in_order!(),
    " LIMIT $2
) AS o"
);

// The columns of a listed row.
macro_rules! entry {
    () => {
        "o.id, o.tenant_id, o.event_type, o.status, o.attempt_count, o.next_attempt_at, o.claimed_by, o.lease_expires_at,
        o.last_error_code, o.last_error_message, o.created_at, o.occurred_at, o.seq"
    };
}

// A merge of the heads of all lane groups: as fast with a million rows as with a thousand.
pub(super) const LIST_PENDING: &str = concat!(
    "-- list_pending
SELECT o.* FROM unnest($1::text[]) AS t (tenant_id)
CROSS JOIN generate_series(0, 15) AS g (lane_group)
CROSS JOIN LATERAL (
    SELECT ",
    entry!(),
    " FROM ONLY sync_outbox AS o
    WHERE o.tenant_id = t.tenant_id AND o.lane_group = g.lane_group::smallint AND o.failed_at IS NULL AND o.status = 'pending'
    ORDER BY ",
    in_order!(),
    " LIMIT $2
) AS o
ORDER BY o.occurred_at, o.seq LIMIT $2"
);

// By the heads of all lane groups: exact while no group is longer than what is looked at.
pub(super) const WAITING_BY_TYPE: &str = concat!(
    "-- waiting_by_type
SELECT o.event_type, count(*) FROM unnest($1::text[]) AS t (tenant_id)
CROSS JOIN generate_series(0, 15) AS g (lane_group)
CROSS JOIN LATERAL (
    SELECT o.event_type FROM ONLY sync_outbox AS o
    WHERE o.tenant_id = t.tenant_id AND o.lane_group = g.lane_group::smallint AND o.failed_at IS NULL
    ORDER BY ",
    in_order!(),
    " LIMIT $2
) AS o
GROUP BY o.event_type ORDER BY count(*) DESC, o.event_type LIMIT $3"
);

pub(super) const LIST_FAILED: &str = concat!(
    "-- list_failed
SELECT ",
    entry!(),
    " FROM ONLY sync_outbox AS o
WHERE (o.reject_count > 0 OR o.failed_at IS NOT NULL) AND o.failed_at IS NOT NULL AND o.status = 'failed'
    AND ($1::text[] IS NULL OR o.tenant_id = ANY ($1))
ORDER BY o.occurred_at, o.seq LIMIT $2"
);

// The status of a row stands in no index, but rows in flight lie at the heads of their groups.
pub(super) const IN_FLIGHT: &str = concat!(
    "-- in_flight
SELECT o.place FROM unnest($1::text[]) AS t (tenant_id)
CROSS JOIN generate_series(0, 15) AS g (lane_group)
CROSS JOIN LATERAL (
    SELECT o.ctid::text AS place, o.status FROM ONLY sync_outbox AS o
    WHERE o.tenant_id = t.tenant_id AND o.lane_group = g.lane_group::smallint AND o.failed_at IS NULL
    ORDER BY ",
    in_order!(),
    " LIMIT $2
) AS o
WHERE o.status IN ('claimed', 'sent')"
);

macro_rules! list_in_flight {
    ($name:literal, $where:literal) => {
        concat!(
            "-- ",
            $name,
            "\nSELECT ",
            entry!(),
            " FROM ONLY sync_outbox AS o
WHERE ",
            $where,
            "o.status = $3 AND ($1::text[] IS NULL OR o.tenant_id = ANY ($1))
ORDER BY o.occurred_at, o.seq LIMIT $2"
        )
    };
}
pub(super) const LIST_IN_FLIGHT_AT: &str =
    list_in_flight!("list_in_flight_at", "o.ctid = ANY ($4::text[]::tid[]) AND ");
pub(super) const LIST_IN_FLIGHT: &str = list_in_flight!("list_in_flight", "");

pub(super) const ACKED_TABLES: &str = "-- acked_tables
SELECT c.oid::regclass::text FROM pg_inherits AS i JOIN pg_class AS c ON c.oid = i.inhrelid
WHERE i.inhparent = 'sync_outbox'::regclass ORDER BY c.relname DESC";

// What a filter asks of a row: of this source, type, reason, device and time; each may be NULL.
macro_rules! is_wanted {
    ($source:literal, $reason:literal, $row:literal, $at:literal) => {
        concat!(
            "($4::text IS NULL OR $4 = ",
            $source,
            ") AND ($5::text IS NULL OR ",
            $row,
            ".event_type = $5) AND ($6::text IS NULL OR $6 IN (",
            $reason,
            ")) AND ($7::text IS NULL OR ",
            $row,
            ".device_id = $7)
            AND ",
            $row,
            ".",
            $at,
            " >= coalesce($8::timestamptz, '-infinity') AND ",
            $row,
            ".",
            $at,
            " < coalesce($9::timestamptz, 'infinity')"
        )
    };
}

// Failed rows of the outbox, each group from its newest on, and open dead letters; `$outbox` and `$letters` narrow them further.
macro_rules! dead {
    (($($outbox:tt)*), ($($letters:tt)*)) => {
        concat!(
            "
    SELECT o.id, o.tenant_id, o.event_type, o.attempt_count, o.last_error_code, o.last_error_message, o.dlq_reason,
        o.failed_at, o.created_at, 'outbox' AS source
    FROM unnest($3::text[]) AS t (tenant_id) CROSS JOIN generate_series(0, 15) AS g (lane_group)
    CROSS JOIN LATERAL (
        SELECT f.* FROM ONLY sync_outbox AS f
        WHERE f.tenant_id = t.tenant_id AND f.lane_group = g.lane_group::smallint
            AND (f.reject_count > 0 OR f.failed_at IS NOT NULL) AND f.failed_at IS NOT NULL AND f.status = 'failed'
            AND ",
            is_wanted!("'outbox'", "f.dlq_reason, f.last_error_code", "f", "failed_at"),
            $($outbox)*,
            "
    ) AS o
    UNION ALL
    SELECT d.id, d.tenant_id, d.event_type, d.attempt_count, d.reason, NULL, d.reason, d.dead_at, d.first_seen_at, d.source
    FROM dead_letters AS d
    WHERE d.redriven_at IS NULL AND ($1::text[] IS NULL OR d.tenant_id = ANY ($1)) AND ",
            is_wanted!("d.source", "d.reason", "d", "dead_at"),
            $($letters)*
        )
    };
}

pub(super) const DEAD: &str = concat!(
    "-- dead_letters_newest
SELECT dead.* FROM (",
    dead!(
        (
            " AND ",
            behind!("f.failed_at, f.id", "$10", "$11"),
            " ORDER BY f.failed_at DESC, f.id DESC LIMIT $2"
        ),
        (" AND ", behind!("d.dead_at, d.id", "$10", "$11"))
    ),
    "
) AS dead
ORDER BY dead.failed_at DESC, dead.id DESC LIMIT $2"
);

pub(super) const DEAD_COUNT: &str = concat!(
    "-- dead_letters_count
SELECT dead.source, count(*) FROM (",
    dead!((" LIMIT $2"), ("")),
    ") AS dead GROUP BY dead.source ORDER BY dead.source"
);

pub(super) const REDRIVE: &str = "-- redrive
UPDATE ONLY sync_outbox AS o
SET status = 'pending', reject_count = 0, failed_at = NULL, dlq_reason = NULL, last_error_code = NULL,
    last_error_message = NULL, next_attempt_at = $1, updated_at = $1
WHERE o.ctid = ANY (ARRAY(
    SELECT f.ctid FROM ONLY sync_outbox AS f
    WHERE (f.reject_count > 0 OR f.failed_at IS NOT NULL) AND f.failed_at IS NOT NULL AND f.status = 'failed'
        AND ($2::uuid[] IS NULL OR f.id = ANY ($2)) AND ($3::text[] IS NULL OR f.tenant_id = ANY ($3))
    LIMIT $4 FOR UPDATE SKIP LOCKED))";

macro_rules! unclaim {
    ($name:literal, $where:literal) => {
        concat!(
            "-- ",
            $name,
            "
UPDATE ONLY sync_outbox AS o
SET status = 'pending', claimed_by = NULL, claimed_at = NULL, lease_expires_at = NULL, batch_id = NULL, updated_at = $1
WHERE ",
            $where,
            "o.status IN ('claimed', 'sent') AND coalesce(o.lease_expires_at, o.claimed_at, o.updated_at) < $2
    AND ($3::text[] IS NULL OR o.tenant_id = ANY ($3))"
        )
    };
}
pub(super) const UNCLAIM_AT: &str = unclaim!("unclaim_at", "o.ctid = ANY ($4::text[]::tid[]) AND ");
pub(super) const UNCLAIM: &str = unclaim!("unclaim", "");

pub(super) const UNCLAIM_GROUPS: &str = "-- unclaim_lane_groups
DELETE FROM sync_lane_groups WHERE lease_expires_at < $1 AND ($2::text[] IS NULL OR tenant_id = ANY ($2))";

// Every tenant with an unacknowledged row, and those that had some.
pub(super) const TENANTS: &str = concat!(
    "-- outbox_tenants
WITH RECURSIVE ",
    tenants!(""),
    "
SELECT t.tenant_id FROM tenants AS t
WHERE t.tenant_id IS NOT NULL AND ($1::text[] IS NULL OR t.tenant_id = ANY ($1))
    AND (t.tenant_id <> '' OR EXISTS (SELECT FROM ONLY sync_outbox AS o WHERE o.tenant_id = ''))"
);

/// Rows by what they are doing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Wait to be sent.
    pub pending: i64,
    /// Claimed and not on the line.
    pub claimed: i64,
    /// On the line.
    pub sent: i64,
    /// Wait for a person.
    pub failed: i64,
    /// Lanes that one of the latter holds: a `session.created`, without which nothing of its session is sent.
    pub lanes_held: i64,
    /// When the oldest pending row was made.
    pub oldest_pending_at: Option<Timestamp>,
}

/// Counts the unacknowledged rows of these tenants, or of all.
///
/// # Errors
/// When the database fails.
pub async fn counts(conn: &mut Conn, tenants: Option<&[String]>) -> Result<Counts, StoreError> {
    let tallies = tally::read(conn, Counted::Outbox, tenants).await?;
    let of = |kind: &str| tallies.iter().find(|tally| tally.kind == kind).map_or(0, |tally| tally.rows);
    let (pending, lanes_held) = (of("pending"), of(tally::HELD));
    let oldest_pending_at = if pending > 0 { oldest_pending(conn, tenants).await? } else { None };
    Ok(Counts {
        pending,
        claimed: of("claimed"),
        sent: of("sent"),
        failed: of("failed") + lanes_held,
        lanes_held,
        oldest_pending_at,
    })
}

/// Rows that wait or are on their way, by the type of their event, the most first: of those that go next, 8,000 a tenant at
/// most.
///
/// # Errors
/// When the database fails.
pub async fn waiting_by_type(
    conn: &mut Conn,
    tenants: Option<&[String]>,
) -> Result<Vec<(String, i64)>, StoreError> {
    let rows = with_plans(conn, "waiting_by_type", async |conn| {
        let present = self::tenants(conn, tenants).await?;
        conn.query(WAITING_BY_TYPE, &[&present, &TYPED_ROWS_PER_GROUP, &TYPES_MAX]).await
    });
    Ok(rows.await?.iter().map(|row| (row.get(0), row.get(1))).collect())
}

async fn oldest_pending(
    conn: &mut Conn,
    tenants: Option<&[String]>,
) -> Result<Option<Timestamp>, StoreError> {
    with_plans(conn, "outbox_oldest_pending", async |conn| {
        let present = self::tenants(conn, tenants).await?;
        Ok(conn.query_one(OLDEST_PENDING, &[&present, &HEAD_ROWS]).await?.get(0))
    })
    .await
}

/// The status of an outbox row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// Waits to be sent.
    Pending,
    /// Claimed and not on the line.
    Claimed,
    /// On the line.
    Sent,
    /// The cloud has it.
    Acked,
    /// Waits for a person.
    Failed,
}

impl Status {
    /// Reads a status as operators write it; `dlq` is another word for `failed`.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        match text {
            "pending" => Some(Self::Pending),
            "claimed" => Some(Self::Claimed),
            "sent" => Some(Self::Sent),
            "acked" => Some(Self::Acked),
            "failed" | "dlq" => Some(Self::Failed),
            _ => None,
        }
    }

    /// The text of the column.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Claimed => "claimed",
            Self::Sent => "sent",
            Self::Acked => "acked",
            Self::Failed => "failed",
        }
    }
}

/// A row as operators see it.
#[derive(Clone, Debug)]
pub struct Entry {
    /// Row id.
    pub id: Uuid,
    /// Tenant.
    pub tenant_id: String,
    /// Event type.
    pub event_type: String,
    /// Its status.
    pub status: String,
    /// Claims so far.
    pub attempt_count: i32,
    /// When it may go again after a rejection.
    pub next_attempt_at: Timestamp,
    /// Who claimed it.
    pub claimed_by: Option<String>,
    /// Until when.
    pub lease_expires_at: Option<Timestamp>,
    /// Last error, as a code.
    pub last_error_code: Option<String>,
    /// Last error, as a text.
    pub last_error_message: Option<String>,
    /// When the row was made.
    pub created_at: Timestamp,
    /// When the event happened.
    pub occurred_at: Option<Timestamp>,
}

impl Entry {
    fn read(row: &Row) -> Self {
        Self {
            id: row.get(0),
            tenant_id: row.get(1),
            event_type: row.get(2),
            status: row.get(3),
            attempt_count: row.get(4),
            next_attempt_at: row.get(5),
            claimed_by: row.get(6),
            lease_expires_at: row.get(7),
            last_error_code: row.get(8),
            last_error_message: row.get(9),
            created_at: row.get(10),
            occurred_at: row.get(11),
        }
    }
}

/// Rows of one status by `occurred_at`, at most `limit` (and [`LIST_ROWS_MAX`]), of these tenants or of all.
/// Acknowledged rows are those of the newest days.
///
/// # Errors
/// When the database fails.
pub async fn list(
    conn: &mut Conn,
    status: Status,
    limit: i64,
    tenants: Option<&[String]>,
) -> Result<Vec<Entry>, StoreError> {
    let limit = limit.clamp(0, LIST_ROWS_MAX);
    let rows = match status {
        Status::Pending => {
            let work = async |conn: &Conn| list_pending(conn, limit, tenants).await;
            with_plans(conn, "list_pending", work).await?
        }
        Status::Failed => {
            let work = async |conn: &Conn| conn.query(LIST_FAILED, &[&tenants, &limit]).await;
            with_plans(conn, "list_failed", work).await?
        }
        Status::Claimed | Status::Sent => {
            let work = async |conn: &Conn| list_in_flight(conn, status, limit, tenants).await;
            with_plans(conn, "list_in_flight", work).await?
        }
        Status::Acked => return list_acked(conn, limit, tenants).await,
    };
    Ok(rows.iter().map(Entry::read).collect())
}

async fn list_pending(conn: &Conn, limit: i64, tenants: Option<&[String]>) -> Result<Vec<Row>, StoreError> {
    let present = self::tenants(conn, tenants).await?;
    conn.query(LIST_PENDING, &[&present, &limit]).await
}

async fn list_in_flight(
    conn: &Conn,
    status: Status,
    limit: i64,
    tenants: Option<&[String]>,
) -> Result<Vec<Row>, StoreError> {
    match in_flight(conn, tenants).await? {
        Some(places) => conn.query(LIST_IN_FLIGHT_AT, &[&tenants, &limit, &status.as_str(), &places]).await,
        None => conn.query(LIST_IN_FLIGHT, &[&tenants, &limit, &status.as_str()]).await,
    }
}

/// Where the rows lie that are claimed or sent; `None` when some of them are elsewhere than expected, and the whole table
/// has to be asked.
async fn in_flight(conn: &Conn, tenants: Option<&[String]>) -> Result<Option<Vec<String>>, StoreError> {
    let tallies = tally::read(conn, Counted::Outbox, tenants).await?;
    let is_in_flight = |tally: &&Tally| ["claimed", "sent"].contains(&tally.kind.as_str());
    let rows: i64 = tallies.iter().filter(is_in_flight).map(|tally| tally.rows).sum();
    if rows == 0 {
        return Ok(Some(Vec::new()));
    }
    let present = self::tenants(conn, tenants).await?;
    let found = conn.query(IN_FLIGHT, &[&present, &IN_FLIGHT_WINDOW_ROWS]).await?;
    let is_all = i64::try_from(found.len()).is_ok_and(|found| found >= rows);
    Ok(is_all.then(|| found.iter().map(|row| row.get(0)).collect()))
}

/// The tenants, all or of these, with a row that the cloud has not acknowledged, and some that had one.
pub(in crate::store) async fn tenants(
    conn: &Conn,
    among: Option<&[String]>,
) -> Result<Vec<String>, StoreError> {
    Ok(conn.query(TENANTS, &[&among]).await?.iter().map(|row| row.get(0)).collect())
}

async fn list_acked(conn: &Conn, limit: i64, tenants: Option<&[String]>) -> Result<Vec<Entry>, StoreError> {
    let mut entries = Vec::new();
    for table in conn.query(ACKED_TABLES, &[]).await? {
        let room = limit - i64::try_from(entries.len()).unwrap_or(limit);
        if room <= 0 {
            break;
        }
        let table: &str = table.get(0);
        let sql = format!(
            "SELECT {} FROM {table} AS o WHERE $1::text[] IS NULL OR o.tenant_id = ANY ($1) LIMIT $2",
            entry!()
        );
        match conn.query(&sql, &[&tenants, &room]).await {
            Ok(rows) => entries.extend(rows.iter().map(Entry::read)),
            // Its time has come since the tables were listed.
            Err(error) if error.code() == Some(&SqlState::UNDEFINED_TABLE) => {}
            Err(error) => return Err(error),
        }
    }
    entries.sort_by_key(|entry| entry.occurred_at);
    Ok(entries)
}

/// Something that waits for a person: a failed outbox row, or a dead letter of another domain.
#[derive(Clone, Debug)]
pub struct Dead {
    /// Row id.
    pub id: Uuid,
    /// Tenant.
    pub tenant_id: String,
    /// Event type.
    pub event_type: String,
    /// Attempts so far.
    pub attempt_count: i32,
    /// Last error, as a code.
    pub last_error_code: Option<String>,
    /// Last error, as a text.
    pub last_error_message: Option<String>,
    /// Why it is dead.
    pub dlq_reason: Option<String>,
    /// Since when.
    pub failed_at: Option<Timestamp>,
    /// When it was made.
    pub created_at: Timestamp,
    /// `outbox`, `session`, `media` or `inference`.
    pub source: String,
}

impl Dead {
    fn read(row: &Row) -> Self {
        Self {
            id: row.get(0),
            tenant_id: row.get(1),
            event_type: row.get(2),
            attempt_count: row.get(3),
            last_error_code: row.get(4),
            last_error_message: row.get(5),
            dlq_reason: row.get(6),
            failed_at: row.get(7),
            created_at: row.get(8),
            source: row.get(9),
        }
    }

    /// Its place in the list; each has a time at which it failed.
    #[must_use]
    pub fn place(&self) -> Place {
        Place { at: self.failed_at.unwrap_or(self.created_at), id: self.id }
    }
}

/// Which of what waits for a person is meant; what is not named may be anything.
#[derive(Clone, Debug, Default)]
pub struct DeadFilter<'a> {
    /// Of these tenants; `None` means of all.
    pub tenants: Option<&'a [String]>,
    /// `outbox`, `session`, `media` or `inference`.
    pub source: Option<&'a str>,
    /// Of this type of event.
    pub event_type: Option<&'a str>,
    /// Given up for this reason, or because of this error.
    pub reason: Option<&'a str>,
    /// Of this device.
    pub device_id: Option<&'a str>,
    /// Given up then or later.
    pub from: Option<Timestamp>,
    /// Given up before.
    pub to: Option<Timestamp>,
}

/// What waits for a person behind a place, newest failure first.
///
/// # Errors
/// When the database fails.
pub async fn dead(
    conn: &mut Conn,
    filter: &DeadFilter<'_>,
    after: Option<Place>,
    limit: i64,
) -> Result<Vec<Dead>, StoreError> {
    let limit = limit.clamp(0, LIST_ROWS_MAX);
    let DeadFilter { tenants, source, event_type, reason, device_id, from, to } = filter;
    let (at, id) = Place::params(after);
    let work = async |conn: &Conn| {
        let present = self::tenants(conn, *tenants).await?;
        let params: [&(dyn ToSql + Sync); 11] =
            [tenants, &limit, &present, source, event_type, reason, device_id, from, to, &at, &id];
        conn.query(DEAD, &params).await
    };
    Ok(with_plans(conn, "dead_letters_newest", work).await?.iter().map(Dead::read).collect())
}

/// How much of it there is, by source. Of each lane group, at most [`COUNTED_ROWS_PER_GROUP_MAX`] rows are counted.
///
/// # Errors
/// When the database fails.
pub async fn count_dead(conn: &mut Conn, filter: &DeadFilter<'_>) -> Result<Vec<(String, i64)>, StoreError> {
    let DeadFilter { tenants, source, event_type, reason, device_id, from, to } = filter;
    let work = async |conn: &Conn| {
        let present = self::tenants(conn, *tenants).await?;
        let params: [&(dyn ToSql + Sync); 9] =
            [tenants, &COUNTED_ROWS_PER_GROUP_MAX, &present, source, event_type, reason, device_id, from, to];
        conn.query(DEAD_COUNT, &params).await
    };
    let rows = with_plans(conn, "dead_letters_count", work).await?;
    Ok(rows.iter().map(|row| (row.get(0), row.get(1))).collect())
}

/// Puts failed outbox rows back to pending as if they had never been refused: these ids, or all.
/// Returns how many. They go in chunks, and what one chunk has done stays done.
///
/// # Errors
/// When the database fails.
pub async fn redrive(
    conn: &mut Conn,
    ids: Option<&[Uuid]>,
    tenants: Option<&[String]>,
    now: Timestamp,
) -> Result<u64, StoreError> {
    let mut redriven = 0;
    loop {
        let params: [&(dyn ToSql + Sync); 4] = [&now, &ids, &tenants, &REDRIVEN_ROWS_PER_CHUNK];
        let chunk = with_plans(conn, "redrive", async |conn| conn.execute(REDRIVE, &params).await).await?;
        redriven += chunk;
        if chunk < REDRIVEN_ROWS_PER_CHUNK.unsigned_abs() {
            return Ok(redriven);
        }
    }
}

/// Puts rows back to pending whose lease ended before `before`, and frees their lane groups. Returns how many rows.
///
/// # Errors
/// When the database fails.
pub async fn unclaim_stuck(
    conn: &mut Conn,
    before: Timestamp,
    tenants: Option<&[String]>,
    now: Timestamp,
) -> Result<u64, StoreError> {
    with_plans(conn, "unclaim", async |conn| {
        // Groups before rows, as whoever settles.
        conn.execute(UNCLAIM_GROUPS, &[&before, &tenants]).await?;
        match in_flight(conn, tenants).await? {
            Some(places) => conn.execute(UNCLAIM_AT, &[&now, &before, &tenants, &places]).await,
            None => conn.execute(UNCLAIM, &[&now, &before, &tenants]).await,
        }
    })
    .await
}
