//! Time partitions, made ahead of the rows that need them.

use chrono::{Datelike, Days, Months, NaiveDate};

use crate::clock::Timestamp;
use crate::store::{Conn, StoreError};

/// Every statement of this module.
pub const STATEMENTS: &[&str] = &[EXISTING];

/// Months ahead for which monthly partitions exist.
pub const MONTHS_AHEAD: u32 = 2;
/// Days ahead for which tables of acknowledged outbox rows exist.
pub const DAYS_AHEAD: u64 = 2;
/// The tables that are partitioned by month of `occurred_at`.
pub const MONTHLY_TABLES: [&str; 2] = ["telemetry_raw", "device_events"];

const EXISTING: &str = "-- existing_tables
SELECT relname::text FROM pg_class WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace AND relname = ANY ($1)";

/// The table that holds the rows the cloud acknowledged on this day. It inherits from `sync_outbox`, so that a query of
/// `sync_outbox` sees them, and is dropped as a whole when its time has come.
#[must_use]
pub fn acked_table(day: NaiveDate) -> String {
    format!("sync_outbox_acked_{}", day.format("%Y%m%d"))
}

/// Makes the partitions of this month (and the one before, for late readings), of the months ahead, and the tables for
/// acknowledged rows of the days ahead. Rows that a clock gone wrong had put into the default partition move along.
///
/// # Errors
/// When the database fails.
pub async fn ensure_ahead(conn: &mut Conn, now: Timestamp) -> Result<(), StoreError> {
    let wanted: Vec<Table> = monthly(now).chain(daily(now)).collect();
    let names: Vec<&str> = wanted.iter().map(|table| table.name.as_str()).collect();
    let existing = existing(conn, &names).await?;
    for table in wanted.iter().filter(|table| !existing.contains(&table.name)) {
        let made = conn
            .transaction("create_partition", async |conn| conn.batch("create_partition", &table.sql).await)
            .await;
        // Two replicas may make the same table at once: the second finds it there.
        if let Err(error) = made
            && self::existing(conn, &[&table.name]).await?.is_empty()
        {
            return Err(error);
        }
    }
    Ok(())
}

/// Whether every table that [`ensure_ahead`] makes is there; the names of the missing ones.
///
/// # Errors
/// When the database fails.
pub async fn missing_ahead(conn: &Conn, now: Timestamp) -> Result<Vec<String>, StoreError> {
    let wanted: Vec<Table> = monthly(now).chain(daily(now)).collect();
    let names: Vec<&str> = wanted.iter().map(|table| table.name.as_str()).collect();
    let existing = existing(conn, &names).await?;
    Ok(wanted.into_iter().map(|table| table.name).filter(|name| !existing.contains(name)).collect())
}

async fn existing(conn: &Conn, names: &[&str]) -> Result<Vec<String>, StoreError> {
    Ok(conn.query(EXISTING, &[&names]).await?.iter().map(|row| row.get(0)).collect())
}

struct Table {
    name: String,
    sql: String,
}

fn monthly(now: Timestamp) -> impl Iterator<Item = Table> {
    let this_month = month_start(now);
    let first = this_month.checked_sub_months(Months::new(1)).unwrap_or(this_month);
    (0..=MONTHS_AHEAD + 1).flat_map(move |i| {
        let start = first + Months::new(i);
        let end = start + Months::new(1);
        MONTHLY_TABLES.into_iter().map(move |parent| {
            let name = format!("{parent}_{}", month_suffix(start));
            let sql = format!(
                "CREATE TABLE {name} (LIKE {parent} INCLUDING ALL);
                 WITH strays AS (
                     DELETE FROM {parent}_default
                     WHERE occurred_at >= '{start} 00:00:00+00' AND occurred_at < '{end} 00:00:00+00' RETURNING *)
                 INSERT INTO {name} SELECT * FROM strays;
                 ALTER TABLE {parent} ATTACH PARTITION {name} FOR VALUES FROM ('{start} 00:00:00+00') TO ('{end} 00:00:00+00')"
            );
            Table { name, sql }
        })
    })
}

fn daily(now: Timestamp) -> impl Iterator<Item = Table> {
    let today = now.date_naive();
    (0..=DAYS_AHEAD).map(move |i| {
        let name = acked_table(today + Days::new(i));
        let sql = format!("CREATE TABLE {name} () INHERITS (sync_outbox)");
        Table { name, sql }
    })
}

fn month_start(now: Timestamp) -> NaiveDate {
    now.date_naive().with_day(1).expect("every month has a first day")
}

fn month_suffix(start: NaiveDate) -> String {
    start.format("%Y%m").to_string()
}
