//! Tables that are dropped as a whole: months of readings and events, days of acknowledged outbox rows.
//!
//! Dropping needs a lock that nobody else may hold, and whoever comes after waits behind it. So the wait for it, the work
//! under it and the silence of our own side are each limited, and together they stay below a second. Whoever is in the
//! way stays undisturbed: the table goes another time.
//!
//! A month is that of the times that devices give. Its age counts from when its rows came in: one that a replay of last
//! year has filled is kept as long as any other.

use chrono::{Days, Months, NaiveDate};
use tokio_postgres::error::SqlState;

use super::stamps;
use crate::clock::Timestamp;
use crate::store::outbox::queries;
use crate::store::partition::{DAYS_AHEAD, MONTHS_AHEAD};
use crate::store::{Conn, StoreError, at};

/// What is dropped table by table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Months of readings.
    Readings,
    /// Months of generic events.
    Events,
    /// Days of acknowledged outbox rows.
    Acked,
}

impl Kind {
    /// The table as a whole, which is also the label of the metric.
    #[must_use]
    pub fn table(self) -> &'static str {
        match self {
            Self::Readings => "telemetry_raw",
            Self::Events => "device_events",
            Self::Acked => "sync_outbox",
        }
    }
}

impl Kind {
    /// The column that says when a row came in.
    fn came_in(self) -> &'static str {
        match self {
            Self::Readings | Self::Events => "ingested_at",
            Self::Acked => "created_at",
        }
    }
}

pub(super) const CHILDREN: &str = "-- retention_children
SELECT c.oid::regclass::text FROM pg_inherits AS i JOIN pg_class AS c ON c.oid = i.inhrelid
WHERE i.inhparent = $1::text::regclass ORDER BY c.relname";

// The head of the table exactly, the rest as the server's statistics have it.
pub(super) const ROWS_ABOUT: &str = "-- retention_rows_about
SELECT greatest(c.reltuples, 0)::bigint FROM pg_class AS c WHERE c.oid = $1::text::regclass";

// Those that the cloud has refused, found by an index of their own.
pub(super) const IS_REFUSED: &str = "-- retention_is_refused
SELECT EXISTS (
    SELECT 1 FROM ONLY sync_outbox AS o
    WHERE (o.reject_count > 0 OR o.failed_at IS NOT NULL) AND o.failed_at IS NOT NULL
        AND coalesce(o.order_at, o.occurred_at, o.created_at) >= $1
        AND coalesce(o.order_at, o.occurred_at, o.created_at) < $2
        AND (o.event_type = 'telemetry.ingested') = $3
)";

// A month of all lane groups, found by the order of sending.
pub(super) const IS_UNACKED: &str = "-- retention_is_unacked
SELECT EXISTS (
    SELECT 1 FROM unnest($1::text[]) AS t (tenant_id)
    CROSS JOIN generate_series(0, 15) AS g (lane_group)
    CROSS JOIN LATERAL (
        SELECT 1 FROM ONLY sync_outbox AS o
        WHERE o.tenant_id = t.tenant_id AND o.lane_group = g.lane_group::smallint AND o.failed_at IS NULL
            AND coalesce(o.order_at, o.occurred_at, o.created_at) >= $2
            AND coalesce(o.order_at, o.occurred_at, o.created_at) < $3
            AND (o.event_type = 'telemetry.ingested') = $4 AND o.status <> 'acked'
        LIMIT 1
    ) AS waiting
)";

/// Rows of a table that are counted one by one.
const ROWS_COUNTED_MAX: i64 = 100_000;
/// Pages at the end of a table, where rows are that came in a moment ago.
const PAGES_OF_A_MOMENT: i64 = 64;
/// Limits of a transaction that drops a table: for each wait, for each of its six statements, and for each silence
/// between two of them. It looks at the outbox by index, since the statistics of that table are never right.
const LIMITS: &str = "SET LOCAL lock_timeout = '100ms'; SET LOCAL statement_timeout = '120ms';
SET LOCAL idle_in_transaction_session_timeout = '100ms'; SET LOCAL enable_seqscan = off";

/// Which tables may go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Age {
    /// The present.
    pub now: Timestamp,
    /// What ended before this time, and came in before it, may go.
    pub before: Timestamp,
}

/// A table that is over as a whole, or that a wrong clock made for a time that is far away.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OldTable {
    /// Its name.
    pub name: String,
    /// What is in it.
    pub kind: Kind,
    /// The first day in it.
    start: NaiveDate,
    /// The first day behind it.
    end: NaiveDate,
}

/// Why a table is kept although it is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hold {
    /// The cloud has refused an event of its time.
    Refused,
    /// The cloud has not acknowledged an event of its time yet.
    Unacked,
    /// Some of it came in late, and is not old enough.
    Young,
}

/// What became of a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It is gone, with about so many rows.
    Dropped {
        /// Exact for small tables, by the server's statistics for large ones.
        rows: u64,
    },
    /// It is kept.
    Held(Hold),
    /// Somebody was in the way.
    Busy,
}

/// The tables of a kind whose time is over, or that lie further ahead than they are made.
///
/// # Errors
/// When the database fails.
pub async fn old(conn: &Conn, kind: Kind, age: Age) -> Result<Vec<OldTable>, StoreError> {
    let (before, far) = (age.before.date_naive(), farthest(kind, age.now.date_naive()));
    let names = conn.query(CHILDREN, &[&kind.table()]).await?;
    let tables = names.iter().filter_map(|row| table(kind, row.get(0)));
    Ok(tables.filter(|table| table.end <= before || table.start > far).collect())
}

/// What holds a table, if anything does.
///
/// # Errors
/// When the database fails.
pub async fn hold(conn: &mut Conn, table: &OldTable, age: Age) -> Result<Option<Hold>, StoreError> {
    let unsent = conn
        .transaction("is_table_held", async |conn| {
            conn.batch("is_table_held", "SET LOCAL enable_seqscan = off").await?;
            unsent(conn, table).await
        })
        .await?;
    if unsent.is_some() {
        return Ok(unsent);
    }
    Ok(is_young(conn, table, age, false).await?.then_some(Hold::Young))
}

/// Drops a table, unless something holds it. What [`hold`] has seen of its rows is believed, but for the newest.
///
/// # Errors
/// When the database fails.
pub async fn drop(conn: &mut Conn, table: &OldTable, age: Age) -> Result<Fate, StoreError> {
    let rows = rows_about(conn, &table.name).await?;
    let mut held = None;
    let drop = async |conn: &Conn| {
        held = drop_unless_held(conn, table, age).await?;
        Ok(held.is_none().then_some(()))
    };
    match conn.transaction_from("drop_table", "BEGIN", drop).await {
        Ok(_) => Ok(held.map_or(Fate::Dropped { rows }, Fate::Held)),
        Err(error) if is_in_the_way(&error) => Ok(Fate::Busy),
        Err(error) => Err(error),
    }
}

async fn drop_unless_held(conn: &Conn, table: &OldTable, age: Age) -> Result<Option<Hold>, StoreError> {
    conn.batch("drop_table", LIMITS).await?;
    if table.kind != Kind::Acked {
        // Whoever writes comes through the parent. Nobody does from here on, so what is looked at stays true.
        let lock = format!("LOCK TABLE ONLY {} IN ACCESS EXCLUSIVE MODE", table.kind.table());
        conn.batch("drop_table", &lock).await?;
    }
    if let Some(hold) = unsent(conn, table).await? {
        return Ok(Some(hold));
    }
    if is_young(conn, table, age, true).await? {
        return Ok(Some(Hold::Young));
    }
    conn.batch("drop_table", &format!("DROP TABLE {}", table.name)).await?;
    Ok(None)
}

/// Rows of a table: exactly while they are few, by the server's statistics when they are many.
///
/// # Errors
/// When the database fails.
pub async fn rows_about(conn: &Conn, table: &str) -> Result<u64, StoreError> {
    let head = format!("SELECT count(*) FROM (SELECT 1 FROM ONLY {table} LIMIT {ROWS_COUNTED_MAX}) AS head");
    let head: i64 = conn.query_one(&head, &[]).await?.get(0);
    if head < ROWS_COUNTED_MAX {
        return Ok(head.unsigned_abs());
    }
    let known: i64 = conn.query_one(ROWS_ABOUT, &[&table]).await?.get(0);
    Ok(known.max(head).unsigned_abs())
}

/// Whether the cloud lacks an event of a table's time.
async fn unsent(conn: &Conn, table: &OldTable) -> Result<Option<Hold>, StoreError> {
    let holds_readings = match table.kind {
        Kind::Readings => true,
        Kind::Events => false,
        // An acknowledged row is in such a table because it is acknowledged.
        Kind::Acked => return Ok(None),
    };
    let (start, end) = (midnight(table.start), midnight(table.end));
    if conn.query_one(IS_REFUSED, &[&start, &end, &holds_readings]).await?.get(0) {
        return Ok(Some(Hold::Refused));
    }
    let tenants = queries::tenants(conn, None).await?;
    let waiting = conn.query_one(IS_UNACKED, &[&tenants, &start, &end, &holds_readings]).await?;
    Ok(waiting.get::<_, bool>(0).then_some(Hold::Unacked))
}

/// Whether a row of a table came in too late to go, or only whether one of the last ones did.
async fn is_young(conn: &Conn, table: &OldTable, age: Age, is_quick: bool) -> Result<bool, StoreError> {
    let (name, column) = (&table.name, table.kind.came_in());
    let is_far_ahead = table.start > age.now.date_naive();
    if table.kind == Kind::Acked && !is_far_ahead {
        // Its day is that of the acknowledgement.
        return Ok(false);
    }
    let place = if is_quick {
        format!(
            "ctid >= format('(%s,0)', greatest(pg_relation_size('{name}')
                / current_setting('block_size')::bigint - {PAGES_OF_A_MOMENT}, 0))::tid AND "
        )
    } else {
        String::new()
    };
    let sql =
        format!("SELECT EXISTS (SELECT 1 FROM ONLY {name} WHERE {place}{column} >= $1 AND {column} <= $2)");
    // It names a table that is about to go, so it is not kept prepared.
    let row = conn.raw().query_one(&*sql, &[&age.before, &stamps::newest(age.now)]).await;
    Ok(row.map_err(at("is_table_young"))?.get(0))
}

/// The last day in which a table of a kind is made ahead.
fn farthest(kind: Kind, today: NaiveDate) -> NaiveDate {
    let far = match kind {
        // With the days of the month.
        Kind::Readings | Kind::Events => today.checked_add_months(Months::new(MONTHS_AHEAD + 1)),
        Kind::Acked => today.checked_add_days(Days::new(DAYS_AHEAD + 1)),
    };
    far.unwrap_or(NaiveDate::MAX)
}

/// Whether somebody held a lock, or the work took longer than others should wait for.
fn is_in_the_way(error: &StoreError) -> bool {
    [
        SqlState::LOCK_NOT_AVAILABLE,
        SqlState::QUERY_CANCELED,
        SqlState::IDLE_IN_TRANSACTION_SESSION_TIMEOUT,
        SqlState::T_R_DEADLOCK_DETECTED,
    ]
    .iter()
    .any(|state| error.code() == Some(state))
}

fn midnight(day: NaiveDate) -> Timestamp {
    day.and_time(chrono::NaiveTime::MIN).and_utc()
}

/// Reads the name of a month or a day; `None` for other tables.
fn table(kind: Kind, name: String) -> Option<OldTable> {
    let (prefix, digits_count, first_day) = match kind {
        Kind::Readings | Kind::Events => (kind.table(), 6, "01"),
        Kind::Acked => ("sync_outbox_acked", 8, ""),
    };
    let digits = name.strip_prefix(prefix)?.strip_prefix('_')?;
    let start = NaiveDate::parse_from_str(&format!("{digits}{first_day}"), "%Y%m%d").ok()?;
    let end = match kind {
        Kind::Readings | Kind::Events => start.checked_add_months(Months::new(1))?,
        Kind::Acked => start.checked_add_days(Days::new(1))?,
    };
    (digits.len() == digits_count).then_some(OldTable { name, kind, start, end })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_are_far_ahead_beyond_those_that_are_made() {
        let day = |text: &str| text.parse::<NaiveDate>().expect("a day");
        for today in ["2026-11-01", "2026-11-30", "2026-12-31"] {
            let made_ahead = day(&format!("{}01", &today[..8])) + Months::new(MONTHS_AHEAD);
            assert!(made_ahead <= farthest(Kind::Readings, day(today)), "{today}");
            assert!(day(today) + Days::new(DAYS_AHEAD) <= farthest(Kind::Acked, day(today)), "{today}");
        }
        assert!(farthest(Kind::Readings, day("2026-11-30")) < day("2027-03-01"));
    }

    #[test]
    fn only_names_of_months_and_days_are_read() {
        let check = |kind: Kind, name: &str, expected: Option<(&str, &str)>| {
            let span =
                table(kind, name.to_owned()).map(|table| (table.start.to_string(), table.end.to_string()));
            let expected = expected.map(|(start, end)| (start.to_owned(), end.to_owned()));
            assert_eq!(span, expected, "{name}");
        };
        check(Kind::Readings, "telemetry_raw_202612", Some(("2026-12-01", "2027-01-01")));
        check(Kind::Events, "device_events_202601", Some(("2026-01-01", "2026-02-01")));
        for other in
            ["telemetry_raw_default", "telemetry_raw_202613", "telemetry_raw_20261", "device_events_202612"]
        {
            check(Kind::Readings, other, None);
        }
        check(Kind::Acked, "sync_outbox_acked_20261231", Some(("2026-12-31", "2027-01-01")));
        for other in ["sync_outbox_acked_20260230", "sync_outbox_acked_202601", "sync_outbox_20261231"] {
            check(Kind::Acked, other, None);
        }
    }
}
