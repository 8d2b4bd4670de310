//! The conservation ledger: what came in and what became of it, by tenant and day, counted in the transactions that do it.
//!
//! `received = stored + duplicate + refused + removed` is written here and in the statements of `telemetry`, in the
//! transaction that settles a message. `queued + resent = acked + waiting + failed + discarded + written_off` is counted by
//! triggers, whichever program changes the outbox. Days are those of UTC: the first line goes by the day on which a
//! message was settled, the second by the day on which its event was queued.

use std::collections::BTreeMap;

use chrono::NaiveDate;
use tokio_postgres::Row;

use crate::clock::Timestamp;
use crate::store::{Conn, StoreError};

/// Every statement of this module.
pub const STATEMENTS: &[&str] =
    &[COUNT, TOTALS, DAYS, FOLD, STANDING, CHECK, UNWATCHED, HOURS, DIGEST_SINCE, FOLD_HOURS];

/// Lines that one answer has at most: a year and a bit of one tenant.
pub const LINES_MAX: i64 = 1_000;

/// What became of a message of which the ledger alone tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Its effect is stored.
    Stored,
    /// It had been seen before.
    Duplicate,
    /// It was refused for good.
    Refused,
    /// It took something back and leaves nothing: an empty retained status.
    Removed,
}

/// Messages of one tenant that come in together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Inbound {
    /// Handed over to be settled.
    pub received: i64,
    /// Settled, by outcome.
    pub stored: i64,
    /// Had been seen before.
    pub duplicate: i64,
    /// Refused for good.
    pub refused: i64,
    /// Took something back.
    pub removed: i64,
}

impl Inbound {
    /// Notes what became of one message.
    pub fn settle(&mut self, outcome: Outcome) {
        *match outcome {
            Outcome::Stored => &mut self.stored,
            Outcome::Duplicate => &mut self.duplicate,
            Outcome::Refused => &mut self.refused,
            Outcome::Removed => &mut self.removed,
        } += 1;
    }

    /// One message, received and settled.
    #[must_use]
    pub fn one(outcome: Outcome) -> Self {
        let mut inbound = Self { received: 1, ..Self::default() };
        inbound.settle(outcome);
        inbound
    }
}

/// Units of one tenant that a statement of `telemetry` is to count: it tells by itself which of them are new.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Arrivals<'a> {
    /// Tenant.
    pub tenant_id: &'a str,
    /// Units that came, those among them that repeat another one of the same batch included.
    pub received: i64,
    /// Units that repeat another one and are not among the rows.
    pub repeated: i64,
}

// A stranger may name any tenant, so what was refused counts under the tenants that have devices, and the rest under none.
const COUNT: &str = "-- ledger_count
INSERT INTO ledger AS l (tenant_id, day, shard, received, stored, duplicate, refused, removed)
SELECT i.tenant_id, ($7::timestamptz AT TIME ZONE 'UTC')::date, pg_backend_pid(),
    sum(i.received), sum(i.stored), sum(i.duplicate), sum(i.refused), sum(i.removed)
FROM (
    SELECT CASE WHEN c.stored + c.duplicate > 0
            OR EXISTS (SELECT FROM device_allowlist AS a WHERE a.tenant_id = c.tenant_id) THEN c.tenant_id ELSE '' END AS tenant_id,
        c.received, c.stored, c.duplicate, c.refused, c.removed
    FROM unnest($1::text[], $2::bigint[], $3::bigint[], $4::bigint[], $5::bigint[], $6::bigint[])
        AS c (tenant_id, received, stored, duplicate, refused, removed)
) AS i
GROUP BY i.tenant_id
ON CONFLICT (tenant_id, day, shard) DO UPDATE SET received = l.received + excluded.received, stored = l.stored + excluded.stored,
    duplicate = l.duplicate + excluded.duplicate, refused = l.refused + excluded.refused, removed = l.removed + excluded.removed";

/// Counts messages by tenant (empty: none that could be told), as part of the transaction that settles them.
///
/// # Errors
/// When the database fails.
pub async fn count(conn: &Conn, came: &BTreeMap<String, Inbound>, now: Timestamp) -> Result<(), StoreError> {
    if came.is_empty() {
        return Ok(());
    }
    macro_rules! column {
        ($field:ident) => {
            came.values().map(|inbound| inbound.$field).collect::<Vec<i64>>()
        };
    }
    let tenants: Vec<String> = came.keys().map(|tenant_id| tenant_id.replace('\0', "\u{fffd}")).collect();
    let (received, stored, duplicate) = (column!(received), column!(stored), column!(duplicate));
    let (refused, removed) = (column!(refused), column!(removed));
    conn.execute(COUNT, &[&tenants, &received, &stored, &duplicate, &refused, &removed, &now]).await?;
    Ok(())
}

/// Counts one message, as part of the transaction that settles it.
///
/// # Errors
/// When the database fails.
pub async fn count_one(
    conn: &Conn,
    tenant_id: &str,
    outcome: Outcome,
    now: Timestamp,
) -> Result<(), StoreError> {
    count(conn, &BTreeMap::from([(tenant_id.to_owned(), Inbound::one(outcome))]), now).await
}

/// The part of a statement that counts what it stores: `$received` and `$repeated` are its parameters, `$stored` the rows it
/// stored, by tenant.
macro_rules! count_stored {
    ($now:literal, $tenants:literal, $received:literal, $repeated:literal, $stored:literal) => {
        concat!(
            "INSERT INTO ledger AS l (tenant_id, day, shard, received, stored, duplicate)
    SELECT c.tenant_id, (",
            $now,
            "::timestamptz AT TIME ZONE 'UTC')::date, pg_backend_pid(), c.received, coalesce(s.rows, 0),
        c.repeated + coalesce(i.rows, 0) - coalesce(s.rows, 0)
    FROM unnest(",
            $tenants,
            "::text[], ",
            $received,
            "::bigint[], ",
            $repeated,
            "::bigint[]) AS c (tenant_id, received, repeated)
    LEFT JOIN (SELECT tenant_id, count(*) AS rows FROM input GROUP BY tenant_id) AS i USING (tenant_id)
    LEFT JOIN (SELECT tenant_id, count(*) AS rows FROM ",
            $stored,
            " GROUP BY tenant_id) AS s USING (tenant_id)
    ON CONFLICT (tenant_id, day, shard) DO UPDATE SET received = l.received + excluded.received,
        stored = l.stored + excluded.stored, duplicate = l.duplicate + excluded.duplicate"
        )
    };
}
pub(crate) use count_stored;

/// A line of the ledger: one tenant's day, or a sum of lines.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Line {
    /// Messages that came in and were settled.
    pub received: i64,
    /// Of these: stored.
    pub stored: i64,
    /// Seen before.
    pub duplicate: i64,
    /// Refused for good.
    pub refused: i64,
    /// Took something back and left nothing.
    pub removed: i64,
    /// Events for the cloud.
    pub queued: i64,
    /// Put back after the cloud had acknowledged them.
    pub resent: i64,
    /// Acknowledgements of the cloud.
    pub acked: i64,
    /// Wait for the cloud, or are on their way.
    pub waiting: i64,
    /// Were refused by the cloud and wait for a person.
    pub failed: i64,
    /// Set aside by a person.
    pub discarded: i64,
    /// Losses that a person has explained and closed.
    pub written_off: i64,
}

impl Line {
    fn of(row: &Row) -> Self {
        Self {
            received: row.get("received"),
            stored: row.get("stored"),
            duplicate: row.get("duplicate"),
            refused: row.get("refused"),
            removed: row.get("removed"),
            queued: row.get("queued"),
            resent: row.get("resent"),
            acked: row.get("acked"),
            waiting: row.get("waiting"),
            failed: row.get("failed"),
            discarded: row.get("discarded"),
            written_off: row.get("written_off"),
        }
    }

    /// Each state with its name, in the order of the two equations.
    #[must_use]
    pub fn states(&self) -> [(&'static str, i64); 12] {
        [
            ("received", self.received),
            ("stored", self.stored),
            ("duplicate", self.duplicate),
            ("refused", self.refused),
            ("removed", self.removed),
            ("queued", self.queued),
            ("resent", self.resent),
            ("acked", self.acked),
            ("waiting", self.waiting),
            ("failed", self.failed),
            ("discarded", self.discarded),
            ("written_off", self.written_off),
        ]
    }

    /// Messages that came in and of which nobody knows what became.
    #[must_use]
    pub fn difference_in(&self) -> i64 {
        self.received - self.stored - self.duplicate - self.refused - self.removed
    }

    /// Events that were queued and of which nobody knows what became.
    #[must_use]
    pub fn difference_out(&self) -> i64 {
        let settled = self.acked + self.discarded + self.written_off;
        self.queued + self.resent - settled - self.waiting - self.failed
    }
}

/// One tenant's day.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Day {
    /// Tenant; empty for what belongs to none that is known.
    pub tenant_id: String,
    /// Day, UTC.
    pub day: NaiveDate,
    /// What happened.
    pub line: Line,
}

/// The sum of all days.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// What happened since the ledger began.
    pub line: Line,
    /// The differences of each tenant's day without their signs, so that one does not hide another. Zero means whole.
    pub difference: i64,
}

macro_rules! sums {
    () => {
        "sum(l.received)::bigint AS received, sum(l.stored)::bigint AS stored, sum(l.duplicate)::bigint AS duplicate,
        sum(l.refused)::bigint AS refused, sum(l.removed)::bigint AS removed, sum(l.queued)::bigint AS queued,
        sum(l.resent)::bigint AS resent, sum(l.acked)::bigint AS acked, sum(l.waiting)::bigint AS waiting,
        sum(l.failed)::bigint AS failed, sum(l.discarded)::bigint AS discarded, sum(l.written_off)::bigint AS written_off"
    };
}

// An event may be acknowledged in another server process than it was queued in, so a line is whole only as a sum.
const DAYS: &str = concat!(
    "-- ledger_days
SELECT l.tenant_id, l.day, ",
    sums!(),
    " FROM ledger AS l
WHERE ($1::text[] IS NULL OR l.tenant_id = ANY ($1)) AND l.day BETWEEN $2 AND $3
GROUP BY l.tenant_id, l.day ORDER BY l.day DESC, l.tenant_id LIMIT $4"
);

const TOTALS: &str = concat!(
    "-- ledger_totals
WITH days AS (
    SELECT ",
    sums!(),
    " FROM ledger AS l WHERE $1::text[] IS NULL OR l.tenant_id = ANY ($1) GROUP BY l.tenant_id, l.day
)
SELECT coalesce(sum(l.received), 0)::bigint AS received, coalesce(sum(l.stored), 0)::bigint AS stored,
    coalesce(sum(l.duplicate), 0)::bigint AS duplicate, coalesce(sum(l.refused), 0)::bigint AS refused,
    coalesce(sum(l.removed), 0)::bigint AS removed, coalesce(sum(l.queued), 0)::bigint AS queued,
    coalesce(sum(l.resent), 0)::bigint AS resent, coalesce(sum(l.acked), 0)::bigint AS acked,
    coalesce(sum(l.waiting), 0)::bigint AS waiting, coalesce(sum(l.failed), 0)::bigint AS failed,
    coalesce(sum(l.discarded), 0)::bigint AS discarded, coalesce(sum(l.written_off), 0)::bigint AS written_off,
    coalesce(sum(abs(l.received - l.stored - l.duplicate - l.refused - l.removed)
        + abs(l.queued + l.resent - l.acked - l.waiting - l.failed - l.discarded - l.written_off)), 0)::bigint AS difference
FROM days AS l"
);

/// The lines of some days, the newest first, at most [`LINES_MAX`], of these tenants or of all.
///
/// # Errors
/// When the database fails.
pub async fn days(
    conn: &Conn,
    tenants: Option<&[String]>,
    (first, last): (NaiveDate, NaiveDate),
) -> Result<Vec<Day>, StoreError> {
    let rows = conn.query(DAYS, &[&tenants, &first, &last, &LINES_MAX]).await?;
    Ok(rows.iter().map(|row| Day { tenant_id: row.get(0), day: row.get(1), line: Line::of(row) }).collect())
}

/// The sum of all days, of these tenants or of all.
///
/// # Errors
/// When the database fails.
pub async fn totals(conn: &Conn, tenants: Option<&[String]>) -> Result<Totals, StoreError> {
    let row = conn.query_one(TOTALS, &[&tenants]).await?;
    Ok(Totals { line: Line::of(&row), difference: row.get("difference") })
}

// A process that is gone counts no more. If another one has its number by now, it begins a row of its own.
const FOLD: &str = "-- ledger_fold
WITH gone AS (
    DELETE FROM ledger AS l WHERE l.shard <> 0 AND l.shard <> ALL (ARRAY(SELECT a.pid FROM pg_stat_activity AS a))
    RETURNING l.*
)
INSERT INTO ledger AS l (tenant_id, day, shard, received, stored, duplicate, refused, removed, queued, resent, acked, waiting,
    failed, discarded, written_off)
SELECT g.tenant_id, g.day, 0, sum(g.received), sum(g.stored), sum(g.duplicate), sum(g.refused), sum(g.removed), sum(g.queued),
    sum(g.resent), sum(g.acked), sum(g.waiting), sum(g.failed), sum(g.discarded), sum(g.written_off)
FROM gone AS g GROUP BY g.tenant_id, g.day ORDER BY 1, 2
ON CONFLICT (tenant_id, day, shard) DO UPDATE SET received = l.received + excluded.received, stored = l.stored + excluded.stored,
    duplicate = l.duplicate + excluded.duplicate, refused = l.refused + excluded.refused, removed = l.removed + excluded.removed,
    queued = l.queued + excluded.queued, resent = l.resent + excluded.resent, acked = l.acked + excluded.acked,
    waiting = l.waiting + excluded.waiting, failed = l.failed + excluded.failed, discarded = l.discarded + excluded.discarded,
    written_off = l.written_off + excluded.written_off";

/// Takes over what server processes that are gone have counted, so that a day has never more rows than there are processes.
///
/// # Errors
/// When the database fails.
pub async fn fold(conn: &Conn) -> Result<(), StoreError> {
    conn.execute(FOLD, &[]).await?;
    Ok(())
}

const STANDING: &str = "-- ledger_standing
SELECT opened_at, checked_at IS NULL OR checked_at NOT BETWEEN $1 AND $2 AS is_due FROM ledger_checks";

const CHECK: &str = "-- ledger_check
SELECT farmiq_check_ledger($1)";

/// How the ledger stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Standing {
    /// When what waited before it was entered; `None` while that has not been done.
    pub opened_at: Option<Timestamp>,
    /// Whether it was not compared with the outbox since the time that was asked for.
    pub is_due: bool,
}

/// How the ledger stands, and whether it was not compared with the outbox since `before`.
///
/// # Errors
/// When the database fails.
pub async fn standing(conn: &Conn, before: Timestamp, now: Timestamp) -> Result<Standing, StoreError> {
    let row = conn.query_one(STANDING, &[&before, &now]).await?;
    Ok(Standing { opened_at: row.get(0), is_due: row.get(1) })
}

/// Compares the ledger with the rows of the outbox, enters what is there, and says by how many rows it was off: a loss shows as
/// a difference from then on. The first time it is the opening, and nothing is off. To be run at leisure
/// ([`crate::store::Store::run_at_leisure`]).
///
/// # Errors
/// When the database fails.
pub async fn check(conn: &Conn, now: Timestamp) -> Result<i64, StoreError> {
    Ok(conn.query_one(CHECK, &[&now]).await?.get(0))
}

// Tables of days that a program made which does not know the ledger.
pub(super) const UNWATCHED: &str = "-- ledger_unwatched
SELECT i.inhrelid::regclass::text FROM pg_inherits AS i
WHERE i.inhparent = 'sync_outbox'::regclass
    AND NOT EXISTS (SELECT FROM pg_trigger AS t WHERE t.tgrelid = i.inhrelid AND t.tgname = 'ledger_acked')";

/// Hours that one answer has at most: a month.
pub const HOURS_MAX: i64 = 31 * 24;

/// What the cloud acknowledged of one hour.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hour {
    /// Its first moment.
    pub hour: Timestamp,
    /// Events.
    pub events: i64,
    /// The sum over their ids, as a decimal number: of each id, as a text of lower case, the first 15 hexadecimal digits of
    /// its SHA-256.
    pub hash: String,
}

const HOURS: &str = "-- ledger_hours
SELECT h.hour, sum(h.events)::bigint, trunc(sum(h.hash))::text FROM ledger_hours AS h
WHERE h.tenant_id = $1 AND h.hour >= $2 AND h.hour < $3
GROUP BY h.hour HAVING sum(h.events) <> 0 ORDER BY h.hour LIMIT $4";

const DIGEST_SINCE: &str = "-- ledger_digest_since
SELECT digest_since FROM ledger_checks";

/// What the cloud acknowledged of a tenant, by hour of the events, from the first time to before the last; hours without
/// any are left out. At most [`HOURS_MAX`].
///
/// # Errors
/// When the database fails.
pub async fn hours(
    conn: &Conn,
    tenant_id: &str,
    (from, to): (Timestamp, Timestamp),
) -> Result<Vec<Hour>, StoreError> {
    let rows = conn.query(HOURS, &[&tenant_id, &from, &to, &HOURS_MAX]).await?;
    Ok(rows.iter().map(|row| Hour { hour: row.get(0), events: row.get(1), hash: row.get(2) }).collect())
}

/// Since when acknowledgements are in the digest.
///
/// # Errors
/// When the database fails.
pub async fn digest_since(conn: &Conn) -> Result<Option<Timestamp>, StoreError> {
    Ok(conn.query_one(DIGEST_SINCE, &[]).await?.get(0))
}

const FOLD_HOURS: &str = "-- ledger_fold_hours
WITH gone AS (
    DELETE FROM ledger_hours AS h WHERE h.shard <> 0 AND h.shard <> ALL (ARRAY(SELECT a.pid FROM pg_stat_activity AS a))
    RETURNING h.tenant_id, h.hour, h.events, h.hash
)
INSERT INTO ledger_hours AS h (tenant_id, hour, shard, events, hash)
SELECT g.tenant_id, g.hour, 0, sum(g.events), sum(g.hash) FROM gone AS g GROUP BY g.tenant_id, g.hour ORDER BY 1, 2
ON CONFLICT (tenant_id, hour, shard) DO UPDATE SET events = h.events + excluded.events, hash = h.hash + excluded.hash";

/// Takes over the hours of server processes that are gone.
///
/// # Errors
/// When the database fails.
pub async fn fold_hours(conn: &Conn) -> Result<(), StoreError> {
    conn.execute(FOLD_HOURS, &[]).await?;
    Ok(())
}
