//! Time partitions, made ahead of the rows that need them.
//!
//! Rows whose month has no partition when they come go to the default one. They move when the partition is made: a few in
//! the transaction that makes it, many in transactions of their own before it is attached. Nobody needs a partition to
//! store a row, so whatever is in the way of making one is left in peace, and the next look tries again.

pub mod tail;

use std::time::Duration;

use chrono::{Datelike, Days, Months, NaiveDate};

use crate::clock::Timestamp;
use crate::store::{Conn, StoreError, ledger};

/// Every statement of this module.
pub const STATEMENTS: &[&str] =
    &[EXISTING, PAGES, IS_MOVING_READINGS, STRAYS, STRAYS_ABOUT, LOCK_AGGREGATION];

/// Months ahead for which monthly partitions exist.
pub const MONTHS_AHEAD: u32 = 2;
/// Days ahead for which tables of acknowledged outbox rows exist.
pub const DAYS_AHEAD: u64 = 2;
/// The tables that are partitioned by month of `occurred_at`.
pub const MONTHLY_TABLES: [&str; 2] = ["telemetry_raw", "device_events"];
/// How long attaching a partition may take as long as nothing has been in its way.
pub const ATTACH_PATIENCE: Duration = Duration::from_secs(1);

/// Pages of a default partition whose strays move in the transaction that makes their partition: about 2,500 rows.
const PAGES_AT_ONCE_MAX: i64 = 64;
/// Pages whose strays move in one transaction otherwise.
const PAGES_PER_CHUNK: i64 = 64;
/// Pages up to which strays are counted one by one.
const PAGES_COUNTED_MAX: i64 = 1_000;

/// Whoever stores a stray waits behind the wait for this lock.
const MONTH_LOCK_MS: u32 = 500;
/// Nobody who writes waits behind the wait for this one. An automatic vacuum makes way after a second.
const DAY_LOCK_MS: u32 = 3_000;

const EXISTING: &str = "-- existing_tables
SELECT c.relname::text, c.relispartition FROM pg_class AS c
WHERE c.relkind = 'r' AND c.relnamespace = 'public'::regnamespace AND c.relname = ANY ($1)";

const PAGES: &str = "-- table_pages
SELECT pg_relation_size($1::text::regclass) / current_setting('block_size')::bigint";

const IS_MOVING_READINGS: &str = "-- is_moving_readings
SELECT EXISTS (
    SELECT FROM pg_class AS c
    WHERE c.relkind = 'r' AND NOT c.relispartition AND c.relnamespace = 'public'::regnamespace
        AND c.relname ~ '^telemetry_raw_[0-9]{6}$')";

const LOCK_AGGREGATION: &str = "-- lock_aggregation_out
SELECT id FROM telemetry_agg_progress WHERE id = 1 FOR UPDATE";

const STRAYS: &str = "-- default_partition_rows
SELECT count(*) FROM telemetry_raw_default";

// What the server has counted along. After a crash it begins anew, and the last vacuum's number is the better one.
const STRAYS_ABOUT: &str = "-- default_partition_rows_about
SELECT greatest(pg_stat_get_live_tuples(c.oid), c.reltuples::bigint, 0) FROM pg_class AS c
WHERE c.oid = 'telemetry_raw_default'::regclass";

/// The table that holds the rows the cloud acknowledged on this day. It inherits from `sync_outbox`, so that a query of
/// `sync_outbox` sees them, and is dropped as a whole when its time has come.
#[must_use]
pub fn acked_table(day: NaiveDate) -> String {
    format!("sync_outbox_acked_{}", day.format("%Y%m%d"))
}

/// Makes the tables for acknowledged rows of today and the days ahead.
///
/// # Errors
/// When the database fails, or the lock is not had in time.
pub async fn ensure_days(conn: &mut Conn, now: Timestamp) -> Result<(), StoreError> {
    let today = now.date_naive();
    let wanted: Vec<String> = (0..=DAYS_AHEAD).map(|i| acked_table(today + Days::new(i))).collect();
    let existing = existing(conn, &wanted).await?;
    for name in wanted.iter().filter(|name| existing.iter().all(|table| table.name != **name)) {
        let sql = format!("CREATE TABLE {name} () INHERITS (sync_outbox); {}", watch_sql(name));
        let begin = format!("BEGIN; SET LOCAL lock_timeout = '{DAY_LOCK_MS}ms'");
        let made = conn
            .transaction_from("create_day", &begin, async |conn| {
                conn.batch("create_day", &sql).await.map(Some)
            })
            .await;
        // Two replicas may make the same table at once: the second finds it there.
        if let Err(error) = made
            && self::existing(conn, &[name]).await?.is_empty()
        {
            return Err(error);
        }
    }
    watch_days(conn).await
}

/// Has the ledger count what moves into tables of days that a program made which does not know it.
async fn watch_days(conn: &mut Conn) -> Result<(), StoreError> {
    for row in conn.query(ledger::UNWATCHED, &[]).await? {
        let table: String = row.get(0);
        let begin = format!("BEGIN; SET LOCAL lock_timeout = '{DAY_LOCK_MS}ms'");
        let sql = watch_sql(&table);
        let watched = conn
            .transaction_from("watch_day", &begin, async |conn| conn.batch("watch_day", &sql).await.map(Some))
            .await;
        // Two replicas may do it at once, and its time may have come meanwhile.
        if let Err(error) = watched
            && conn.query(ledger::UNWATCHED, &[]).await?.iter().any(|row| row.get::<_, &str>(0) == table)
        {
            return Err(error);
        }
    }
    Ok(())
}

fn watch_sql(table: &str) -> String {
    format!("LOCK TABLE {table} IN SHARE ROW EXCLUSIVE MODE; SELECT farmiq_ledger_watch('{table}', true)")
}

/// Makes the tables of [`ensure_days`] and the partitions of this month (and the one before, for late readings) and of
/// the months ahead. Rows that a clock gone wrong had put into the default partition move along.
///
/// Returns the months whose partitions are still missing because there are too many rows to look at for one transaction;
/// [`Month::stage`], [`Month::move_chunk`] and [`Month::attach`] make these.
///
/// # Errors
/// When the database fails, or a lock is not had in time; what could be made is made.
pub async fn ensure_ahead(conn: &mut Conn, now: Timestamp) -> Result<Vec<Month>, StoreError> {
    ensure_days(conn, now).await?;
    let (mut crowded, mut failed) = (Vec::new(), None);
    for missing in missing_months(conn, now).await? {
        if missing.is_staged || missing.month.default_pages(conn).await? > PAGES_AT_ONCE_MAX {
            crowded.push(missing.month);
        } else if let Err(error) = missing.month.make(conn).await {
            failed.get_or_insert(error);
        }
    }
    tail::shorten(conn).await?;
    failed.map_or(Ok(crowded), Err)
}

/// The names of the tables of [`ensure_ahead`] that are missing.
///
/// # Errors
/// When the database fails.
pub async fn missing_ahead(conn: &Conn, now: Timestamp) -> Result<Vec<String>, StoreError> {
    let today = now.date_naive();
    let days: Vec<String> = (0..=DAYS_AHEAD).map(|i| acked_table(today + Days::new(i))).collect();
    let existing = existing(conn, &days).await?;
    let months = missing_months(conn, now).await?.into_iter().map(|missing| missing.month.table());
    let days = days.into_iter().filter(|name| existing.iter().all(|table| table.name != *name));
    Ok(months.chain(days).collect())
}

/// Whether readings are being moved, which no query of `telemetry_raw` sees until they have arrived.
///
/// # Errors
/// When the database fails.
pub async fn is_moving_readings(conn: &Conn) -> Result<bool, StoreError> {
    Ok(conn.query_one(IS_MOVING_READINGS, &[]).await?.get(0))
}

/// Readings whose time lies outside every monthly partition; about so many, when there are many.
///
/// # Errors
/// When the database fails.
pub async fn strays(conn: &Conn) -> Result<i64, StoreError> {
    let pages: i64 = conn.query_one(PAGES, &[&"telemetry_raw_default"]).await?.get(0);
    let sql = if pages > PAGES_COUNTED_MAX { STRAYS_ABOUT } else { STRAYS };
    Ok(conn.query_one(sql, &[]).await?.get(0))
}

/// Frees what the strays that moved have left behind, so that attaching need not read it.
///
/// # Errors
/// When the database fails.
pub async fn vacuum_default(conn: &Conn, month: &Month) -> Result<(), StoreError> {
    conn.batch("vacuum_default", &format!("VACUUM {}", month.default())).await
}

/// A month of a partitioned table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Month {
    parent: &'static str,
    start: NaiveDate,
}

struct MissingMonth {
    month: Month,
    /// Whether its table is there already and is being filled.
    is_staged: bool,
}

/// How far a move of strays has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Moved {
    /// Rows that moved.
    pub rows: u64,
    /// The page to go on with; `None` when the last one was looked at.
    pub next: Option<i64>,
}

impl Month {
    /// The name of its table.
    #[must_use]
    pub fn table(&self) -> String {
        format!("{}_{}", self.parent, self.start.format("%Y%m"))
    }

    fn default(&self) -> String {
        format!("{}_default", self.parent)
    }

    fn end(&self) -> NaiveDate {
        self.start + Months::new(1)
    }

    fn condition(&self) -> String {
        let (start, end) = (self.start, self.end());
        format!("occurred_at >= '{start} 00:00:00+00' AND occurred_at < '{end} 00:00:00+00'")
    }

    /// A table like its parent, with a constraint that spares attaching it a look at its rows.
    fn create_sql(&self) -> String {
        let (table, parent, condition) = (self.table(), self.parent, self.condition());
        format!(
            "CREATE TABLE IF NOT EXISTS {table} (LIKE {parent} INCLUDING ALL,
                CONSTRAINT {table}_range CHECK (occurred_at IS NOT NULL AND {condition}))"
        )
    }

    /// Strays of some pages, or of all. One whose key has arrived already is the same event once more.
    fn move_sql(&self, pages: Option<[i64; 2]>) -> String {
        let (table, default, condition) = (self.table(), self.default(), self.condition());
        let place = pages
            .map(|[from, to]| format!("ctid >= '({from},0)'::tid AND ctid < '({to},0)'::tid AND "))
            .unwrap_or_default();
        format!(
            "WITH strays AS (DELETE FROM {default} WHERE {place}{condition} RETURNING *)
             INSERT INTO {table} SELECT * FROM strays ON CONFLICT DO NOTHING"
        )
    }

    /// Nobody stores a stray between the last look for strays and the end of the transaction. Locks are taken in the order
    /// in which ATTACH takes them.
    fn attach_sql(&self) -> String {
        let (table, parent, default) = (self.table(), self.parent, self.default());
        let (start, end, rest) = (self.start, self.end(), self.move_sql(None));
        format!(
            "LOCK TABLE ONLY {parent} IN SHARE UPDATE EXCLUSIVE MODE;
             LOCK TABLE {default} IN ACCESS EXCLUSIVE MODE;
             {rest};
             ALTER TABLE {parent} ATTACH PARTITION {table} FOR VALUES FROM ('{start} 00:00:00+00') TO ('{end} 00:00:00+00');
             ALTER TABLE {table} DROP CONSTRAINT {table}_range"
        )
    }

    async fn default_pages(&self, conn: &Conn) -> Result<i64, StoreError> {
        Ok(conn.query_one(PAGES, &[&self.default()]).await?.get(0))
    }

    /// Makes it in one transaction.
    async fn make(&self, conn: &mut Conn) -> Result<(), StoreError> {
        let sql = format!("{}; {}", self.create_sql(), self.attach_sql());
        self.define(conn, "create_partition", &sql, ATTACH_PATIENCE).await
    }

    /// Makes its table, into which strays may then move. Until it is attached no readings are aggregated.
    ///
    /// # Errors
    /// When the database fails, or a pass of the aggregation takes long.
    pub async fn stage(&self, conn: &mut Conn) -> Result<(), StoreError> {
        let sql = self.create_sql();
        let work = async |conn: &Conn| {
            conn.query_opt(LOCK_AGGREGATION, &[]).await?;
            conn.batch("stage_partition", &sql).await
        };
        conn.transaction("stage_partition", work).await
    }

    /// Moves the strays of some pages of the default partition.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn move_chunk(&self, conn: &Conn, page: i64) -> Result<Moved, StoreError> {
        let end = page + PAGES_PER_CHUNK;
        // The text differs from chunk to chunk, so it is not kept prepared.
        let sql = self.move_sql(Some([page, end]));
        let rows = conn.raw().execute(&*sql, &[]).await.map_err(crate::store::at("move_strays"))?;
        let is_last = end >= self.default_pages(conn).await?;
        Ok(Moved { rows, next: (!is_last).then_some(end) })
    }

    /// Moves the strays that came meanwhile and attaches the table. Whoever stores a stray waits for as long as `patience`
    /// at most, and whoever is in the way is waited for even less.
    ///
    /// # Errors
    /// When the database fails, or there is not enough time; everything is as before then.
    pub async fn attach(&self, conn: &mut Conn, patience: Duration) -> Result<(), StoreError> {
        self.define(conn, "attach_partition", &self.attach_sql(), patience).await
    }

    async fn define(
        &self,
        conn: &mut Conn,
        name: &'static str,
        sql: &str,
        patience: Duration,
    ) -> Result<(), StoreError> {
        let begin = format!(
            "BEGIN; SET LOCAL lock_timeout = '{MONTH_LOCK_MS}ms'; SET LOCAL statement_timeout = '{}ms'",
            patience.as_millis()
        );
        let made =
            conn.transaction_from(name, &begin, async |conn| conn.batch(name, sql).await.map(Some)).await;
        // Another replica may have been faster.
        match made {
            Err(_) if self.is_attached(conn).await? => Ok(()),
            outcome => outcome.map(drop),
        }
    }

    async fn is_attached(&self, conn: &Conn) -> Result<bool, StoreError> {
        Ok(existing(conn, &[&self.table()]).await?.iter().any(|table| table.is_partition))
    }
}

async fn missing_months(conn: &Conn, now: Timestamp) -> Result<Vec<MissingMonth>, StoreError> {
    let wanted: Vec<Month> = months(now).collect();
    let names: Vec<String> = wanted.iter().map(Month::table).collect();
    let existing = existing(conn, &names).await?;
    let missing = wanted.into_iter().zip(names).filter_map(|(month, name)| {
        let table = existing.iter().find(|table| table.name == name);
        let is_staged = table.is_some();
        table.is_none_or(|table| !table.is_partition).then_some(MissingMonth { month, is_staged })
    });
    Ok(missing.collect())
}

fn months(now: Timestamp) -> impl Iterator<Item = Month> {
    let this_month = now.date_naive().with_day(1).expect("every month has a first day");
    let first = this_month.checked_sub_months(Months::new(1)).unwrap_or(this_month);
    (0..=MONTHS_AHEAD + 1).flat_map(move |i| {
        MONTHLY_TABLES.into_iter().map(move |parent| Month { parent, start: first + Months::new(i) })
    })
}

struct Existing {
    name: String,
    is_partition: bool,
}

async fn existing(conn: &Conn, names: &[impl AsRef<str>]) -> Result<Vec<Existing>, StoreError> {
    let names: Vec<&str> = names.iter().map(AsRef::as_ref).collect();
    let rows = conn.query(EXISTING, &[&names]).await?;
    Ok(rows.iter().map(|row| Existing { name: row.get(0), is_partition: row.get(1) }).collect())
}
