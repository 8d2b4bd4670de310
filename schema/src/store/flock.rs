//! Barns, flocks and the days of flocks. What is written down of a flock is in [`record`], standards that somebody brought
//! are in [`standard`], what came in by itself is in [`signal`], and what scales and cameras both have seen in [`pair`].

pub mod pair;
pub mod record;
pub mod signal;
pub mod standard;

use chrono::NaiveDate;
use serde_json::Value;
use uuid::Uuid;

use crate::clock::Timestamp;
use crate::store::session::mark::exclusions;
use crate::store::{Conn, StoreError};

/// Every statement of this module.
pub const STATEMENTS: &[&str] = &[
    PUT_BARN,
    BARN,
    BARNS,
    PUT,
    FIND,
    AT,
    LIST,
    BY_BATCH,
    FINISHED,
    END,
    DAYS,
    PUT_DAY,
    FORGET_DAYS,
    WEIGHTS,
    SCALES,
    CLIMATE,
    MARK,
    MARK_ALL,
    DIRTY,
    CLEAN,
    LOCK,
];

/// Days that a flock may have.
pub const DAYS_MAX: i64 = 1000;
/// Weighings of one day that are looked at.
pub const WEIGHTS_MAX: i64 = 20_000;

/// A barn and how its people tell time and weight.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Barn {
    /// Tenant.
    pub tenant_id: String,
    /// Farm.
    pub farm_id: String,
    /// Barn.
    pub barn_id: String,
    /// What people call it.
    pub name: String,
    /// A name of the IANA database.
    pub time_zone: String,
    /// A language tag, such as `th-TH`.
    pub language: String,
    /// `METRIC` or `IMPERIAL`.
    pub units: String,
    /// When this was last changed.
    pub updated_at: Timestamp,
}

row_of!(Barn, barn_columns as "b": tenant_id, farm_id, barn_id, name, time_zone, language, units, updated_at);

const PUT_BARN: &str = "-- barn_put
INSERT INTO barns (tenant_id, farm_id, barn_id, name, time_zone, language, units, updated_at)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8)
ON CONFLICT (tenant_id, farm_id, barn_id) DO UPDATE SET name = excluded.name, time_zone = excluded.time_zone,
    language = excluded.language, units = excluded.units, updated_at = excluded.updated_at";

/// Writes what is known of a barn. In another time zone all days of its flocks are others.
///
/// # Errors
/// When the database fails.
pub async fn put_barn(conn: &Conn, barn: &Barn) -> Result<(), StoreError> {
    let Barn { tenant_id, farm_id, barn_id, name, time_zone, language, units, updated_at } = barn;
    conn.execute(PUT_BARN, &[tenant_id, farm_id, barn_id, name, time_zone, language, units, updated_at])
        .await?;
    Ok(())
}

const BARN: &str = concat!(
    "-- barn\nSELECT ",
    barn_columns!(),
    " FROM barns AS b
WHERE tenant_id = $1 AND farm_id = $2 AND barn_id = $3"
);

/// A barn, if anything is known of it.
///
/// # Errors
/// When the database fails.
pub async fn barn(conn: &Conn, [tenant_id, farm_id, barn_id]: [&str; 3]) -> Result<Option<Barn>, StoreError> {
    Ok(conn.query_opt(BARN, &[&tenant_id, &farm_id, &barn_id]).await?.as_ref().map(Barn::from))
}

const BARNS: &str = concat!(
    "-- barns\nSELECT ",
    barn_columns!(),
    " FROM barns AS b
WHERE ($1::text IS NULL OR tenant_id = $1) AND (tenant_id, farm_id, barn_id) > ($3::text, $4::text, $5::text)
ORDER BY tenant_id, farm_id, barn_id LIMIT $2"
);

/// Barns of a tenant, or of all, behind one in the order by tenant, farm and barn; empty names stand before the first.
///
/// # Errors
/// When the database fails.
pub async fn barns(
    conn: &Conn,
    tenant_id: Option<&str>,
    [after_tenant, after_farm, after_barn]: [&str; 3],
    limit: i64,
) -> Result<Vec<Barn>, StoreError> {
    let rows = conn.query(BARNS, &[&tenant_id, &limit, &after_tenant, &after_farm, &after_barn]).await?;
    Ok(rows.iter().map(Barn::from).collect())
}

/// A flock: birds that were placed in a barn on one day.
#[derive(Clone, Debug, PartialEq)]
pub struct Flock {
    /// Its id.
    pub id: Uuid,
    /// Tenant.
    pub tenant_id: String,
    /// Farm.
    pub farm_id: String,
    /// Barn.
    pub barn_id: String,
    /// The name that weighing sessions and the cloud know it by.
    pub batch_id: String,
    /// Breed, such as `ROSS308`.
    pub genetic_line_code: String,
    /// `AS_HATCHED`, `MALE` or `FEMALE`.
    pub sex: String,
    /// Day 0.
    pub placed_on: NaiveDate,
    /// Birds placed.
    pub birds: i32,
    /// Usable floor, m².
    pub area_m2: Option<f64>,
    /// What a bird is to weigh in the end, grams.
    pub target_weight_g: Option<f64>,
    /// What it is compared with.
    pub standard_set_id: Option<Uuid>,
    /// The last day with birds; `None` while there are some.
    pub ended_on: Option<NaiveDate>,
    /// When the row was made.
    pub created_at: Timestamp,
    /// When it last changed.
    pub updated_at: Timestamp,
}

row_of!(Flock, flock_columns as "f": id, tenant_id, farm_id, barn_id, batch_id, genetic_line_code, sex, placed_on, birds,
    area_m2, target_weight_g, standard_set_id, ended_on, created_at, updated_at);

// Two flocks never share a day of a barn, so that a weighing without a name is of one of them.
const PUT: &str = "-- flock_put
INSERT INTO flocks (id, tenant_id, farm_id, barn_id, batch_id, genetic_line_code, sex, placed_on, birds, area_m2,
    target_weight_g, standard_set_id, ended_on, created_at, updated_at)
SELECT $1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $14
WHERE NOT EXISTS (SELECT FROM flocks AS f WHERE f.tenant_id = $2 AND f.farm_id = $3 AND f.barn_id = $4
    AND f.placed_on <= coalesce($13, 'infinity'::date) AND coalesce(f.ended_on, 'infinity'::date) >= $8::date)
ON CONFLICT DO NOTHING";

/// Writes a new flock, and says whether there was room: not when its barn has another one on one of its days, or of its
/// name.
///
/// # Errors
/// When the database fails.
pub async fn put(conn: &Conn, flock: &Flock) -> Result<bool, StoreError> {
    let f = flock;
    let made = conn
        .execute(
            PUT,
            &[
                &f.id,
                &f.tenant_id,
                &f.farm_id,
                &f.barn_id,
                &f.batch_id,
                &f.genetic_line_code,
                &f.sex,
                &f.placed_on,
                &f.birds,
                &f.area_m2,
                &f.target_weight_g,
                &f.standard_set_id,
                &f.ended_on,
                &f.created_at,
            ],
        )
        .await?;
    Ok(made == 1)
}

const FIND: &str =
    concat!("-- flock_find\nSELECT ", flock_columns!(), " FROM flocks AS f WHERE tenant_id = $1 AND id = $2");

/// A flock, if it is there.
///
/// # Errors
/// When the database fails.
pub async fn find(conn: &Conn, tenant_id: &str, id: Uuid) -> Result<Option<Flock>, StoreError> {
    Ok(conn.query_opt(FIND, &[&tenant_id, &id]).await?.as_ref().map(Flock::from))
}

const AT: &str = concat!("-- flock_at\nSELECT ", flock_columns!(), " FROM flocks AS f
WHERE tenant_id = $1 AND farm_id = $2 AND barn_id = $3 AND placed_on <= $4 AND coalesce(ended_on, 'infinity'::date) >= $4
    AND ($5::text IS NULL OR batch_id = $5)");

/// The flock that a barn has on a day; where a batch is named, only that one.
///
/// # Errors
/// When the database fails.
pub async fn at(
    conn: &Conn,
    [tenant_id, farm_id, barn_id]: [&str; 3],
    day: NaiveDate,
    batch_id: Option<&str>,
) -> Result<Option<Flock>, StoreError> {
    let row = conn.query_opt(AT, &[&tenant_id, &farm_id, &barn_id, &day, &batch_id]).await?;
    Ok(row.as_ref().map(Flock::from))
}

const LIST: &str = concat!("-- flock_list\nSELECT ", flock_columns!(), " FROM flocks AS f
WHERE ($1::text IS NULL OR tenant_id = $1) AND ($2::text IS NULL OR barn_id = $2) AND (NOT $3::boolean OR ended_on IS NULL)
    AND (placed_on, id) < (coalesce($5::date, 'infinity'), coalesce($6::uuid, 'ffffffff-ffff-ffff-ffff-ffffffffffff'))
ORDER BY placed_on DESC, id DESC LIMIT $4");

/// Flocks, the newest first: of a tenant and a barn where these are named, and only present ones where that is wished.
///
/// # Errors
/// When the database fails.
pub async fn list(
    conn: &Conn,
    tenant_id: Option<&str>,
    barn_id: Option<&str>,
    is_present_only: bool,
    limit: i64,
) -> Result<Vec<Flock>, StoreError> {
    list_behind(conn, tenant_id, barn_id, is_present_only, None, limit).await
}

/// The same behind the flock of this day of placement and id.
///
/// # Errors
/// When the database fails.
pub async fn list_behind(
    conn: &Conn,
    tenant_id: Option<&str>,
    barn_id: Option<&str>,
    is_present_only: bool,
    after: Option<(NaiveDate, Uuid)>,
    limit: i64,
) -> Result<Vec<Flock>, StoreError> {
    let (placed_on, id) = (after.map(|after| after.0), after.map(|after| after.1));
    let rows = conn.query(LIST, &[&tenant_id, &barn_id, &is_present_only, &limit, &placed_on, &id]).await?;
    Ok(rows.iter().map(Flock::from).collect())
}

const BY_BATCH: &str = concat!(
    "-- flock_by_batch\nSELECT ",
    flock_columns!(),
    " FROM flocks AS f
WHERE tenant_id = $1 AND batch_id = $2 AND ($3::text IS NULL OR barn_id = $3) LIMIT 2"
);

/// The flock of a batch; `None` when no flock has this name, or those of several barns.
///
/// # Errors
/// When the database fails.
pub async fn by_batch(
    conn: &Conn,
    tenant_id: &str,
    batch_id: &str,
    barn_id: Option<&str>,
) -> Result<Option<Flock>, StoreError> {
    let rows = conn.query(BY_BATCH, &[&tenant_id, &batch_id, &barn_id]).await?;
    Ok(match rows.as_slice() {
        [only] => Some(Flock::from(only)),
        _ => None,
    })
}

const FINISHED: &str = concat!("-- flock_finished\nSELECT ", flock_columns!(), " FROM flocks AS f
WHERE tenant_id = $1 AND genetic_line_code = $2 AND sex = $3 AND ended_on <= $4 AND ($5::text IS NULL OR farm_id = $5)
    AND ($6::text IS NULL OR barn_id = $6)
ORDER BY placed_on DESC, id DESC LIMIT $7");

/// Which finished flocks.
#[derive(Clone, Copy, Debug)]
pub struct Finished<'a> {
    /// Tenant.
    pub tenant_id: &'a str,
    /// Only of this farm.
    pub farm_id: Option<&'a str>,
    /// Only of this barn.
    pub barn_id: Option<&'a str>,
    /// Breed.
    pub genetic_line_code: &'a str,
    /// `AS_HATCHED`, `MALE` or `FEMALE`.
    pub sex: &'a str,
    /// Their last day is this or an earlier one.
    pub today: NaiveDate,
}

/// Flocks that have ended, the newest first.
///
/// # Errors
/// When the database fails.
pub async fn finished(conn: &Conn, which: &Finished<'_>, limit: i64) -> Result<Vec<Flock>, StoreError> {
    let Finished { tenant_id, farm_id, barn_id, genetic_line_code, sex, today } = which;
    let rows =
        conn.query(FINISHED, &[tenant_id, genetic_line_code, sex, today, farm_id, barn_id, &limit]).await?;
    Ok(rows.iter().map(Flock::from).collect())
}

const END: &str = "-- flock_end
UPDATE flocks SET ended_on = $3, updated_at = $4 WHERE tenant_id = $1 AND id = $2 AND ended_on IS NULL AND placed_on <= $3";

/// Notes the last day of a flock, and says whether it had none and was placed by then.
///
/// # Errors
/// When the database fails.
pub async fn end(
    conn: &Conn,
    tenant_id: &str,
    id: Uuid,
    day: NaiveDate,
    now: Timestamp,
) -> Result<bool, StoreError> {
    Ok(conn.execute(END, &[&tenant_id, &id, &day, &now]).await? == 1)
}

/// A day of a flock, as it was last made.
#[derive(Clone, Debug, PartialEq)]
pub struct Day {
    /// The day in the barn's time zone.
    pub day: NaiveDate,
    /// What its own inputs come to.
    pub summary: Value,
    /// How often it was made.
    pub revision: i32,
    /// When it was made.
    pub rebuilt_at: Timestamp,
}

row_of!(Day, day_columns as "d": day, summary, revision, rebuilt_at);

const DAYS: &str = concat!(
    "-- flock_days\nSELECT ",
    day_columns!(),
    " FROM flock_days AS d
WHERE tenant_id = $1 AND flock_id = $2 AND day BETWEEN $3 AND $4 ORDER BY day LIMIT $5"
);

/// The days of a flock, in their order.
///
/// # Errors
/// When the database fails.
pub async fn days(
    conn: &Conn,
    tenant_id: &str,
    flock_id: Uuid,
    (from, to): (NaiveDate, NaiveDate),
) -> Result<Vec<Day>, StoreError> {
    let rows = conn.query(DAYS, &[&tenant_id, &flock_id, &from, &to, &DAYS_MAX]).await?;
    Ok(rows.iter().map(Day::from).collect())
}

const PUT_DAY: &str = "-- flock_day_put
INSERT INTO flock_days AS d (tenant_id, flock_id, day, summary, revision, rebuilt_at) VALUES ($1, $2, $3, $4, 1, $5)
ON CONFLICT (tenant_id, flock_id, day) DO UPDATE
SET summary = excluded.summary, revision = d.revision + 1, rebuilt_at = excluded.rebuilt_at";

/// Writes what a day comes to.
///
/// # Errors
/// When the database fails.
pub async fn put_day(
    conn: &Conn,
    dirty: &DirtyDay,
    summary: &Value,
    now: Timestamp,
) -> Result<(), StoreError> {
    conn.execute(PUT_DAY, &[&dirty.tenant_id, &dirty.flock_id, &dirty.day, summary, &now]).await?;
    Ok(())
}

const FORGET_DAYS: &str = "-- flock_days_forget
DELETE FROM flock_days WHERE tenant_id = $1 AND flock_id = $2 AND day > $3";

/// Removes the days behind a flock's last one.
///
/// # Errors
/// When the database fails.
pub async fn forget_days(
    conn: &Conn,
    tenant_id: &str,
    flock_id: Uuid,
    last: NaiveDate,
) -> Result<(), StoreError> {
    conn.execute(FORGET_DAYS, &[&tenant_id, &flock_id, &last]).await?;
    Ok(())
}

/// A weighing of a day.
#[derive(Clone, Debug, PartialEq)]
pub struct Weighing {
    /// Its session.
    pub session_id: String,
    /// The last weight of it.
    pub weight_kg: f64,
    /// Whether its device's clock was more than ten minutes ahead, so that it counts for the time at which it came in.
    pub is_clock_ahead: bool,
    /// Whether a person keeps it out of the statistics.
    pub is_excluded: bool,
}

row_of!(Weighing, weighing_columns as "w": session_id, weight_kg, is_clock_ahead, is_excluded);

// The time is written as the index of weight_sessions has it.
const WEIGHTS: &str = concat!("-- flock_weights\nSELECT ", weighing_columns!(), " FROM (
    SELECT s.session_id, coalesce(l.weight_kg, s.final_weight_kg) AS weight_kg,
        s.start_at > s.created_at + interval '10 minutes' AS is_clock_ahead,
        x.is_whole OR (x.is_part AND l.weight_kg IS NULL) AS is_excluded, least(s.start_at, s.created_at) AS weighed_at, s.id
    FROM weight_sessions AS s
    ", exclusions!(), "
    WHERE s.tenant_id = $1 AND s.barn_id = $3 AND least(s.start_at, s.created_at) >= $4 AND least(s.start_at, s.created_at) < $5
        AND s.final_weight_kg IS NOT NULL AND s.farm_id = $2 AND (s.batch_id IS NULL OR s.batch_id = $6)) AS w
ORDER BY w.weighed_at, w.id LIMIT $7");

/// The weighings of a flock within a time: of finalized sessions that name its batch or none. Where a person has excluded
/// weights of a session, the last of the others is its weight.
///
/// # Errors
/// When the database fails.
pub async fn weights(
    conn: &Conn,
    flock: &Flock,
    (from, to): (Timestamp, Timestamp),
) -> Result<Vec<Weighing>, StoreError> {
    let Flock { tenant_id, farm_id, barn_id, batch_id, .. } = flock;
    let rows =
        conn.query(WEIGHTS, &[tenant_id, farm_id, barn_id, &from, &to, batch_id, &WEIGHTS_MAX]).await?;
    Ok(rows.iter().map(Weighing::from).collect())
}

/// What a scale said on a day.
#[derive(Clone, Debug, PartialEq)]
pub struct ScaleDay {
    /// The day.
    pub day: NaiveDate,
    /// The station.
    pub station_id: String,
    /// Weighings.
    pub n: i64,
    /// Their median, kg.
    pub median_kg: f64,
}

row_of!(ScaleDay, scale_columns as "x": day, station_id, n, median_kg);

/// Scales of a barn by days that are looked at.
const SCALES_MAX: i64 = 1000;

// The time is written as the index of weight_sessions has it. What a person left out is not asked for: it moves no median.
const SCALES: &str = concat!("-- flock_scales\nSELECT ", scale_columns!(), " FROM (
    SELECT d.day, s.station_id, count(*) AS n, percentile_cont(0.5) WITHIN GROUP (ORDER BY s.final_weight_kg) AS median_kg
    FROM unnest($4::date[], $5::timestamptz[], $6::timestamptz[]) AS d (day, begins_at, ends_at)
    JOIN weight_sessions AS s ON s.tenant_id = $1 AND s.barn_id = $3 AND least(s.start_at, s.created_at) >= d.begins_at
        AND least(s.start_at, s.created_at) < d.ends_at
    WHERE s.farm_id = $2 AND s.final_weight_kg IS NOT NULL AND (s.batch_id IS NULL OR s.batch_id = $7)
    GROUP BY d.day, s.station_id) AS x
ORDER BY x.day, x.station_id LIMIT $8");

/// What each scale said of a flock on each of some days, which begin and end at these times.
///
/// # Errors
/// When the database fails.
pub async fn scales(
    conn: &Conn,
    flock: &Flock,
    days: &[(NaiveDate, (Timestamp, Timestamp))],
) -> Result<Vec<ScaleDay>, StoreError> {
    let Flock { tenant_id, farm_id, barn_id, batch_id, .. } = flock;
    let named: Vec<NaiveDate> = days.iter().map(|(day, _)| *day).collect();
    let (from, to): (Vec<Timestamp>, Vec<Timestamp>) = days.iter().map(|(_, span)| *span).unzip();
    let params: [&(dyn tokio_postgres::types::ToSql + Sync); 8] =
        [tenant_id, farm_id, barn_id, &named, &from, &to, batch_id, &SCALES_MAX];
    Ok(conn.query(SCALES, &params).await?.iter().map(ScaleDay::from).collect())
}

/// An hour of a barn's air.
#[derive(Clone, Debug, PartialEq)]
pub struct AirHour {
    /// When it begins.
    pub begins_at: Timestamp,
    /// Mean of the barn's devices, °C.
    pub temperature_c: Option<f64>,
    /// The same of the relative humidity, percent.
    pub humidity_percent: Option<f64>,
}

row_of!(AirHour, air_columns as "a": begins_at, temperature_c, humidity_percent);

const CLIMATE: &str = concat!("-- flock_climate\nSELECT ", air_columns!(), " FROM (
    SELECT g.bucket_start_at AS begins_at,
        avg(g.avg_value) FILTER (WHERE g.metric_type = 'temperature') AS temperature_c,
        avg(g.avg_value) FILTER (WHERE g.metric_type = 'humidity') AS humidity_percent
    FROM telemetry_agg AS g JOIN device_allowlist AS d ON d.tenant_id = g.tenant_id AND d.device_id = g.device_id
    WHERE g.\"window\" = '1h' AND g.bucket_start_at >= $4 AND g.bucket_start_at < $5 AND g.tenant_id = $1
        AND g.metric_type IN ('temperature', 'humidity') AND d.farm_id = $2 AND d.barn_id = $3
    GROUP BY g.bucket_start_at) AS a
ORDER BY a.begins_at");

/// The air of a flock's barn, hour by hour, by the devices that the allowlist has there.
///
/// # Errors
/// When the database fails.
pub async fn climate(
    conn: &Conn,
    flock: &Flock,
    (from, to): (Timestamp, Timestamp),
) -> Result<Vec<AirHour>, StoreError> {
    let Flock { tenant_id, farm_id, barn_id, .. } = flock;
    let rows = conn.query(CLIMATE, &[tenant_id, farm_id, barn_id, &from, &to]).await?;
    Ok(rows.iter().map(AirHour::from).collect())
}

/// A day that is no longer what it was made from.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct DirtyDay {
    /// Tenant.
    pub tenant_id: String,
    /// Flock.
    pub flock_id: Uuid,
    /// The day.
    pub day: NaiveDate,
}

row_of!(DirtyDay, dirty_columns as "d": tenant_id, flock_id, day);

const MARK: &str = "-- flock_day_mark
INSERT INTO flock_dirty_days (tenant_id, flock_id, day) VALUES ($1, $2, $3)";

/// Has a day made anew, as part of the caller's transaction.
///
/// # Errors
/// When the database fails.
pub async fn mark(conn: &Conn, dirty: &DirtyDay) -> Result<(), StoreError> {
    conn.execute(MARK, &[&dirty.tenant_id, &dirty.flock_id, &dirty.day]).await?;
    Ok(())
}

const MARK_ALL: &str = "-- flock_days_mark
INSERT INTO flock_dirty_days (tenant_id, flock_id, day)
SELECT f.tenant_id, f.id, f.placed_on + n FROM flocks AS f,
    generate_series(0, least(coalesce(f.ended_on, $4::date) - f.placed_on, $4::date - f.placed_on, $5::int)) AS n
WHERE f.tenant_id = $1 AND f.farm_id = $2 AND f.barn_id = $3";

/// Has all days of a barn's flocks up to `today` made anew.
///
/// # Errors
/// When the database fails.
pub async fn mark_all(
    conn: &Conn,
    [tenant_id, farm_id, barn_id]: [&str; 3],
    today: NaiveDate,
) -> Result<(), StoreError> {
    let days_max = i32::try_from(DAYS_MAX).unwrap_or(i32::MAX);
    conn.execute(MARK_ALL, &[&tenant_id, &farm_id, &barn_id, &today, &days_max]).await?;
    Ok(())
}

const LOCK: &str = "-- flock_lock
SELECT pg_try_advisory_xact_lock($1)";

/// The key of the advisory lock of whoever keeps the book: "flock" in ASCII.
const LOCK_KEY: i64 = 0x66_6c6f_636b;

/// Makes the caller the one who keeps the book to the end of its transaction; `false` if another engine is at it.
///
/// # Errors
/// When the database fails.
pub async fn try_lock(conn: &Conn) -> Result<bool, StoreError> {
    Ok(conn.query_one(LOCK, &[&LOCK_KEY]).await?.get(0))
}

const DIRTY: &str = concat!(
    "-- flock_dirty\nSELECT DISTINCT ",
    dirty_columns!(),
    " FROM flock_dirty_days AS d
ORDER BY d.day, d.tenant_id, d.flock_id LIMIT $1"
);

/// Days to be made anew, the earliest first: the gate of a day comes from the day before.
///
/// # Errors
/// When the database fails.
pub async fn dirty(conn: &Conn, limit: i64) -> Result<Vec<DirtyDay>, StoreError> {
    Ok(conn.query(DIRTY, &[&limit]).await?.iter().map(DirtyDay::from).collect())
}

const CLEAN: &str = "-- flock_day_clean
DELETE FROM flock_dirty_days WHERE tenant_id = $1 AND flock_id = $2 AND day = $3";

/// Takes the marks of a day away; to be done before its inputs are read, so that a mark which comes later stays.
///
/// # Errors
/// When the database fails.
pub async fn clean(conn: &Conn, dirty: &DirtyDay) -> Result<(), StoreError> {
    conn.execute(CLEAN, &[&dirty.tenant_id, &dirty.flock_id, &dirty.day]).await?;
    Ok(())
}
