//! Aggregates of readings over minutes, hours and days.

use std::collections::BTreeSet;

use chrono::{Duration, DurationRound};
use tokio_postgres::Row;
use tokio_postgres::types::ToSql;
use uuid::Uuid;

use crate::clock::Timestamp;
use crate::clock::deadline::farthest;
use crate::store::telemetry::TimeRange;
use crate::store::{Conn, Store, StoreError, partition};
use crate::wire::event::TELEMETRY_AGGREGATED;

/// Every statement of this module.
pub const STATEMENTS: &[&str] = &[
    LOCK_PROGRESS,
    FIRST_INGESTED,
    HAS_OCCURRED,
    HAS_INGESTED,
    CLOSE_MINUTES,
    LATE_MINUTES,
    COMPUTE_MINUTES,
    ROLL_UP,
    EMIT,
    SAVE_PROGRESS,
    AGGREGATES,
];

/// The longest stretch of time that one pass covers, so that a pass after a long stop stays short.
pub const STEP_MAX: Duration = Duration::minutes(10);
/// The shortest one, however slow the database is.
pub const STEP_MIN: Duration = Duration::minutes(1);
/// How far back a pass looks for rows whose commit came late: longer than any statement may run.
const COMMIT_LAG: Duration = Duration::seconds(45);
/// How far before the first pass of a process rows are looked at that came in by a clock which is behind.
const UNSEEN_MAX: Duration = Duration::minutes(10);

/// What one pass did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pass {
    /// Buckets written, of all windows.
    pub buckets: usize,
    /// Whether there is more to close already.
    pub is_behind: bool,
    /// For the next pass of the process: [`Scope::horizon`].
    pub horizon: i64,
}

/// What a pass is to look at, and how.
#[derive(Clone, Copy, Debug)]
pub struct Scope<'a> {
    /// The time of the pass.
    pub now: Timestamp,
    /// The newest time that is known to be right.
    pub newest_seen: Option<Timestamp>,
    /// Up to which time this process has looked at what came in, since the clock was set last; `None` at its first pass.
    pub looked_until: Option<Timestamp>,
    /// Stretches of time in which something may have come in before the clock was set.
    pub ended: &'a [(Timestamp, Timestamp)],
    /// The last pass of this process has seen whatever transactions before this one had written; `None` at its first.
    pub horizon: Option<i64>,
    /// The stretch of time that the pass covers.
    pub step: Duration,
    /// Whether closed buckets go to the cloud.
    pub is_emitting: bool,
}

impl Scope<'_> {
    /// A pass under a clock that nobody has set.
    #[must_use]
    pub fn at(now: Timestamp) -> Self {
        Self {
            now,
            newest_seen: None,
            looked_until: None,
            ended: &[],
            horizon: None,
            step: STEP_MAX,
            is_emitting: false,
        }
    }

    /// Up to which time what came in by this clock was looked at.
    fn looked_until(&self) -> Timestamp {
        self.looked_until.unwrap_or(self.now - UNSEEN_MAX).min(self.now)
    }

    /// Whether a mark that a pass has left lies further ahead than any believable clock has been.
    fn is_beyond(&self, mark: Timestamp) -> bool {
        mark > farthest(self.newest_seen.map_or(self.now, |newest| newest.max(self.now)), Duration::zero())
    }
}

/// How far the aggregation has come. A mark never goes back, unless only a wrong clock can have left it: while the clock
/// is behind, what comes in is found by the time at which it does.
#[derive(Clone, Copy, Debug)]
struct Progress {
    /// Minutes that end here or earlier are closed.
    closed_until: Timestamp,
    /// Readings ingested before this have been looked at.
    ingested_until: Timestamp,
}

/// What one pass covers.
#[derive(Debug)]
struct Stretch {
    /// Minutes from here on are closed now, and none between this and the mark has a reading.
    closed_from: Timestamp,
    /// The marks that the pass leaves.
    until: Progress,
    /// When the readings came in that may have changed a closed minute.
    ingested: Vec<Window>,
    /// Transactions before this one have written nothing that is new.
    horizon: i64,
}

/// A stretch of time in which readings came in.
#[derive(Clone, Copy, Debug)]
struct Window {
    first: Timestamp,
    /// What came before this was looked at, unless its commit was late.
    new_from: Timestamp,
    end: Timestamp,
}

impl Window {
    /// One that nobody has looked at.
    fn new(first: Timestamp, end: Timestamp) -> Self {
        Self { first, new_from: first, end }
    }
}

/// A bucket of a minute: tenant, device, metric, start.
type Minute = (String, String, String, Timestamp);

/// Buckets to compute, one array per column.
#[derive(Debug, Default)]
struct Buckets {
    tenants: Vec<String>,
    devices: Vec<String>,
    metrics: Vec<String>,
    starts: Vec<Timestamp>,
    /// Ids of buckets that did not exist before.
    new_ids: Vec<Uuid>,
}

/// Closes the minutes, hours and days that ended since the last pass and recomputes those a late reading changed.
/// Returns `None` while another engine does it, and while readings are on their way into a partition, where they are not
/// seen.
///
/// # Errors
/// When the database fails; the next pass starts where the last successful one ended.
pub async fn pass(store: &Store, scope: Scope<'_>) -> Result<Option<Pass>, StoreError> {
    store
        .run("aggregate", async |conn| {
            conn.transaction("aggregate", async |conn| {
                let Some(row) = conn.query_opt(LOCK_PROGRESS, &[]).await? else { return Ok(None) };
                if partition::is_moving_readings(conn).await? {
                    return Ok(None);
                }
                let now = scope.now;
                let from = progress(conn, &row, scope).await?;
                let stretch = stretch(conn, from, scope).await?;
                let until = stretch.until;
                let minutes = compute_minutes(conn, &stretch, now).await?;
                let hours = roll_up(conn, ["1m", "1h", "hour"], &minutes, from, &stretch, now).await?;
                let days = roll_up(conn, ["1h", "1d", "day"], &hours, from, &stretch, now).await?;
                if scope.is_emitting {
                    let ids: Vec<Uuid> =
                        [&minutes, &hours, &days].iter().flat_map(|b| b.new_ids.clone()).collect();
                    conn.execute(EMIT, &[&ids, &TELEMETRY_AGGREGATED, &now]).await?;
                }
                conn.execute(SAVE_PROGRESS, &[&until.closed_until, &until.ingested_until]).await?;
                let is_behind = until.closed_until < truncated_to_minute(now) || until.ingested_until < now;
                let buckets = minutes.starts.len() + hours.starts.len() + days.starts.len();
                Ok(Some(Pass { buckets, is_behind, horizon: row.get(2) }))
            })
            .await
        })
        .await
}

fn truncated_to_minute(time: Timestamp) -> Timestamp {
    time.duration_trunc(Duration::minutes(1)).expect("a minute divides every time of the calendar")
}

// Whoever holds this row aggregates; another engine skips it. All transactions before the third number have ended.
const LOCK_PROGRESS: &str = "-- lock_aggregation
SELECT closed_until, ingested_until, txid_snapshot_xmin(txid_current_snapshot())
FROM telemetry_agg_progress WHERE id = 1 FOR UPDATE SKIP LOCKED";

const FIRST_INGESTED: &str = "-- first_ingested
SELECT min(ingested_at) FROM telemetry_raw";

/// Where the last pass ended. The first one closes from this minute on and takes everything older for late.
async fn progress(conn: &Conn, row: &Row, scope: Scope<'_>) -> Result<Progress, StoreError> {
    let Some((closed_until, ingested_until)) = row.get::<_, Option<Timestamp>>(0).zip(row.get(1)) else {
        let first: Option<Timestamp> = conn.query_one(FIRST_INGESTED, &[]).await?.get(0);
        let closed_until = truncated_to_minute(scope.now);
        return Ok(Progress { closed_until, ingested_until: first.unwrap_or(scope.now) });
    };
    let looked_until = scope.looked_until();
    let in_order = |mark, otherwise| if scope.is_beyond(mark) { otherwise } else { mark };
    Ok(Progress {
        closed_until: truncated_to_minute(in_order(closed_until, looked_until)),
        ingested_until: in_order(ingested_until, looked_until),
    })
}

async fn stretch(conn: &Conn, from: Progress, scope: Scope<'_>) -> Result<Stretch, StoreError> {
    let Scope { now, step, .. } = scope;
    let closed_from = skip_empty(conn, HAS_OCCURRED, from.closed_until, truncated_to_minute(now)).await?;
    let ingested_from = skip_empty(conn, HAS_INGESTED, from.ingested_until, now).await?;
    // Whole minutes, since a minute is closed by one look.
    let closed_until = truncated_to_minute(now.min(closed_from + step));
    let until = Progress {
        closed_until: closed_until.max(from.closed_until),
        ingested_until: now.min(ingested_from + step).max(from.ingested_until),
    };
    let ended = scope.ended.iter();
    let ended = ended.map(|(looked_until, end)| Window::new(*looked_until - COMMIT_LAG, *end + COMMIT_LAG));
    let mut ingested: Vec<Window> = ended.collect();
    if from.ingested_until <= now {
        let mut window = Window::new(ingested_from - COMMIT_LAG, until.ingested_until);
        if scope.horizon.is_some() && ingested_from == from.ingested_until {
            window.new_from = ingested_from;
        }
        ingested.push(window);
    } else {
        // The clock is behind the mark.
        ingested.push(Window::new(scope.looked_until() - COMMIT_LAG, now));
    }
    if scope.looked_until.is_none() {
        // An earlier process may have died while the clock was ahead.
        ingested.push(Window::new(now, Timestamp::MAX_UTC));
    }
    Ok(Stretch { closed_from, until, ingested, horizon: scope.horizon.unwrap_or_default() })
}

const HAS_OCCURRED: &str = "-- has_occurred
SELECT EXISTS (SELECT FROM telemetry_raw WHERE occurred_at >= $1 AND occurred_at < $2)";

const HAS_INGESTED: &str = "-- has_ingested
SELECT EXISTS (SELECT FROM telemetry_raw WHERE ingested_at >= $1 AND ingested_at < $2)";

/// The start of the next stretch that has readings: after an hour in 1970 there are none for decades. It looks twice as
/// far each time, and starts again where it found something, until that is near.
async fn skip_empty(
    conn: &Conn,
    has_readings: &str,
    mut from: Timestamp,
    end: Timestamp,
) -> Result<Timestamp, StoreError> {
    while end - from > STEP_MAX {
        let (mut empty_until, mut reach) = (from, STEP_MAX);
        while empty_until < end {
            let until = end.min(from + reach);
            if conn.query_one(has_readings, &[&empty_until, &until]).await?.get(0) {
                break;
            }
            (empty_until, reach) = (until, reach * 2);
        }
        if empty_until == from {
            break;
        }
        from = empty_until;
    }
    Ok(from)
}

// A bucket only ever gains readings. One that would lose some has lost its rows to retention and stays as it is, also when
// new ones outnumber them: the table of its month is gone, and it was written before today.
// The mean is computed on values scaled by 2^-64, which is exact and keeps sums of huge values from overflowing.
macro_rules! write_minutes {
    ($name:literal, $now:literal, $readings:literal) => {
        concat!(
            "-- ",
            $name,
            "
INSERT INTO telemetry_agg AS a (id, tenant_id, device_id, \"window\", bucket_start_at, bucket_end_at, metric_type,
    avg_value, min_value, max_value, count, created_at)
SELECT gen_random_uuid(), r.tenant_id, r.device_id, '1m', r.bucket, r.bucket + interval '1 minute', r.metric_type,
    least(greatest(r.scaled / r.readings, r.lowest * 5.421010862427522e-20), r.highest * 5.421010862427522e-20)
        * 18446744073709551616::float8, r.lowest, r.highest, r.readings, ",
            $now,
            "
FROM (",
            $readings,
            ") AS r
ORDER BY r.tenant_id, r.device_id, r.metric_type, r.bucket
ON CONFLICT (tenant_id, device_id, \"window\", bucket_start_at, metric_type) DO UPDATE
SET avg_value = excluded.avg_value, min_value = excluded.min_value, max_value = excluded.max_value, count = excluded.count
WHERE excluded.count > a.count AND (a.created_at > ",
            $now,
            " - interval '1 day'
    OR to_regclass('telemetry_raw_' || to_char(a.bucket_start_at, 'YYYYMM')) IS NOT NULL)
RETURNING a.tenant_id, a.device_id, a.metric_type, a.bucket_start_at, CASE WHEN xmax = 0 THEN a.id END"
        )
    };
}

// Two ways a minute becomes dirty. It has closed since the last pass: all of these are computed in one go. Or a reading of a
// minute closed before has arrived since then: each of those is looked up by itself. The block range index over
// (ingested_at, occurred_at) serves both scans.
const CLOSE_MINUTES: &str = write_minutes!(
    "close_minutes",
    "$3",
    "
    SELECT tenant_id, device_id, metric_type, date_trunc('minute', occurred_at) AS bucket,
        sum(metric_value * 5.421010862427522e-20) AS scaled, min(metric_value) AS lowest, max(metric_value) AS highest,
        count(*)::int AS readings
    FROM telemetry_raw WHERE occurred_at >= $1 AND occurred_at < $2
    GROUP BY 1, 2, 3, 4"
);

const COMPUTE_MINUTES: &str = write_minutes!(
    "compute_minutes",
    "$5",
    "
    SELECT d.tenant_id, d.device_id, d.metric_type, d.bucket, t.scaled, t.lowest, t.highest, t.readings
    FROM unnest($1::text[], $2::text[], $3::text[], $4::timestamptz[]) AS d (tenant_id, device_id, metric_type, bucket)
    CROSS JOIN LATERAL (
        SELECT sum(metric_value * 5.421010862427522e-20) AS scaled, min(metric_value) AS lowest,
            max(metric_value) AS highest, count(*)::int AS readings
        FROM telemetry_raw AS t
        WHERE t.tenant_id = d.tenant_id AND t.device_id = d.device_id AND t.metric_type = d.metric_type
            AND t.occurred_at >= d.bucket AND t.occurred_at < d.bucket + interval '1 minute'
    ) AS t
    WHERE t.readings > 0"
);

// Of what the last pass has looked at, only rows whose transaction had not ended then are new; the others would all be looked
// up again. Numbers of transactions have 32 bits in rows, and are compared by their age.
const LATE_MINUTES: &str = "-- late_minutes
SELECT DISTINCT tenant_id, device_id, metric_type, date_trunc('minute', occurred_at)
FROM telemetry_raw AS r WHERE ingested_at >= $1 AND ingested_at < $2 AND occurred_at < $3
    AND (ingested_at >= $4 OR age(r.xmin) <= age(($5::bigint & 4294967295)::text::xid))";

async fn compute_minutes(conn: &Conn, stretch: &Stretch, now: Timestamp) -> Result<Buckets, StoreError> {
    let Stretch { closed_from, until, ingested, horizon } = stretch;
    let closed = conn.query(CLOSE_MINUTES, &[closed_from, &until.closed_until, &now]).await?;
    let mut dirty: BTreeSet<Minute> = BTreeSet::new();
    for Window { first, new_from, end } in ingested {
        dirty.extend(minutes(conn, LATE_MINUTES, &[first, end, closed_from, new_from, horizon]).await?);
    }
    if dirty.is_empty() {
        return Ok(Buckets::of(&closed));
    }
    let tenants: Vec<&str> = dirty.iter().map(|(tenant, ..)| tenant.as_str()).collect();
    let devices: Vec<&str> = dirty.iter().map(|(_, device, ..)| device.as_str()).collect();
    let metrics: Vec<&str> = dirty.iter().map(|(_, _, metric, _)| metric.as_str()).collect();
    let starts: Vec<Timestamp> = dirty.iter().map(|(.., start)| *start).collect();
    let late = conn.query(COMPUTE_MINUTES, &[&tenants, &devices, &metrics, &starts, &now]).await?;
    Ok(Buckets::of(closed.iter().chain(&late)))
}

async fn minutes(
    conn: &Conn,
    sql: &str,
    params: &[&(dyn ToSql + Sync)],
) -> Result<BTreeSet<Minute>, StoreError> {
    let rows = conn.query(sql, params).await?;
    Ok(rows.iter().map(|row| (row.get(0), row.get(1), row.get(2), row.get(3))).collect())
}

// A bucket of the wider window is dirty when one of its parts was written and it is closed, or when it has closed now. A
// stretch without readings lies between $8 and $11.
const ROLL_UP: &str = "-- roll_up
WITH dirty AS (
    SELECT DISTINCT tenant_id, device_id, metric_type, date_trunc($3, start_at) AS bucket
    FROM unnest($4::text[], $5::text[], $6::text[], $7::timestamptz[]) AS i (tenant_id, device_id, metric_type, start_at)
    WHERE date_trunc($3, start_at) < date_trunc($3, $9::timestamptz)
    UNION
    SELECT DISTINCT tenant_id, device_id, metric_type, date_trunc($3, bucket_start_at)
    FROM telemetry_agg
    WHERE \"window\" = $1 AND bucket_start_at >= date_trunc($3, $8::timestamptz)
        AND bucket_start_at < least($8, date_trunc($3, $9::timestamptz))
    UNION
    SELECT DISTINCT tenant_id, device_id, metric_type, date_trunc($3, bucket_start_at)
    FROM telemetry_agg
    WHERE \"window\" = $1 AND bucket_start_at >= date_trunc($3, $11::timestamptz)
        AND bucket_start_at < date_trunc($3, $9::timestamptz)
)
INSERT INTO telemetry_agg AS a (id, tenant_id, device_id, \"window\", bucket_start_at, bucket_end_at, metric_type,
    avg_value, min_value, max_value, count, created_at)
SELECT gen_random_uuid(), d.tenant_id, d.device_id, $2, d.bucket, d.bucket + ('1 ' || $3)::interval, d.metric_type,
    r.scaled * 18446744073709551616::float8, r.lowest, r.highest, r.readings, $10
FROM dirty AS d
CROSS JOIN LATERAL (
    SELECT least(greatest(sum(avg_value * 5.421010862427522e-20 * count) / sum(count),
            min(min_value) * 5.421010862427522e-20), max(max_value) * 5.421010862427522e-20) AS scaled,
        min(min_value) AS lowest, max(max_value) AS highest, sum(count)::int AS readings
    FROM telemetry_agg AS t
    WHERE t.tenant_id = d.tenant_id AND t.device_id = d.device_id AND t.metric_type = d.metric_type AND t.\"window\" = $1
        AND t.bucket_start_at >= d.bucket AND t.bucket_start_at < d.bucket + ('1 ' || $3)::interval
) AS r
WHERE r.readings > 0
ORDER BY d.tenant_id, d.device_id, d.metric_type, d.bucket
ON CONFLICT (tenant_id, device_id, \"window\", bucket_start_at, metric_type) DO UPDATE
SET avg_value = excluded.avg_value, min_value = excluded.min_value, max_value = excluded.max_value, count = excluded.count
WHERE excluded.count > a.count
RETURNING a.tenant_id, a.device_id, a.metric_type, a.bucket_start_at, CASE WHEN xmax = 0 THEN a.id END";

async fn roll_up(
    conn: &Conn,
    [parts, whole, unit]: [&str; 3],
    dirty: &Buckets,
    from: Progress,
    stretch: &Stretch,
    now: Timestamp,
) -> Result<Buckets, StoreError> {
    let params: [&(dyn ToSql + Sync); 11] = [
        &parts,
        &whole,
        &unit,
        &dirty.tenants,
        &dirty.devices,
        &dirty.metrics,
        &dirty.starts,
        &from.closed_until,
        &stretch.until.closed_until,
        &now,
        &stretch.closed_from,
    ];
    Ok(Buckets::of(&conn.query(ROLL_UP, &params).await?))
}

impl Buckets {
    fn of<'a>(rows: impl IntoIterator<Item = &'a Row>) -> Self {
        let mut buckets = Self::default();
        for row in rows {
            buckets.tenants.push(row.get(0));
            buckets.devices.push(row.get(1));
            buckets.metrics.push(row.get(2));
            buckets.starts.push(row.get(3));
            buckets.new_ids.extend(row.get::<_, Option<Uuid>>(4));
        }
        buckets
    }
}

// Farm and barn, which the cloud asks for, are those of the device's newest reading.
const EMIT: &str = "-- emit_aggregates
INSERT INTO sync_outbox (id, tenant_id, farm_id, barn_id, device_id, event_type, occurred_at, trace_id, payload_json,
    next_attempt_at, created_at, updated_at)
SELECT a.id, a.tenant_id, r.farm_id, r.barn_id, a.device_id, $2, a.bucket_end_at, 'aggregate-' || a.id,
    to_jsonb(a) - 'created_at', $3, $3, $3
FROM telemetry_agg AS a
CROSS JOIN LATERAL (
    SELECT farm_id, barn_id FROM telemetry_raw AS t
    WHERE t.tenant_id = a.tenant_id AND t.device_id = a.device_id AND t.occurred_at < a.bucket_end_at
    ORDER BY t.occurred_at DESC LIMIT 1
) AS r
WHERE a.id = ANY ($1)
ON CONFLICT DO NOTHING";

const SAVE_PROGRESS: &str = "-- save_aggregation
UPDATE telemetry_agg_progress SET closed_until = $1, ingested_until = $2 WHERE id = 1";

/// A bucket as the API shows it.
#[derive(Clone, Debug)]
pub struct Aggregate {
    /// Row id.
    pub id: Uuid,
    /// Tenant.
    pub tenant_id: String,
    /// The measuring device.
    pub device_id: String,
    /// `1m`, `1h` or `1d`.
    pub window: String,
    /// First instant of the bucket.
    pub bucket_start_at: Timestamp,
    /// First instant after it.
    pub bucket_end_at: Timestamp,
    /// What was measured.
    pub metric_type: String,
    /// Mean.
    pub avg_value: f64,
    /// Smallest value.
    pub min_value: f64,
    /// Largest value.
    pub max_value: f64,
    /// Readings in the bucket.
    pub count: i32,
}

const AGGREGATES: &str = "-- aggregates
SELECT id, tenant_id, device_id, \"window\", bucket_start_at, bucket_end_at, metric_type, avg_value, min_value,
    max_value, count
FROM telemetry_agg
WHERE tenant_id = $1 AND ($2::text IS NULL OR device_id = $2) AND \"window\" = $3
    AND bucket_start_at >= coalesce($4::timestamptz, '-infinity') AND bucket_end_at <= coalesce($5::timestamptz, 'infinity')
    AND bucket_start_at <= coalesce($7::timestamptz, 'infinity')
    AND (bucket_start_at < coalesce($7::timestamptz, 'infinity') OR (device_id, metric_type) > ($8::text, $9::text))
    AND ($10::text IS NULL OR metric_type = $10)
ORDER BY bucket_start_at DESC, device_id, metric_type
LIMIT $6";

/// A bucket's place in the list: by its start, device and metric.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BucketPlace {
    /// First instant of the bucket.
    pub start_at: Timestamp,
    /// The measuring device.
    pub device_id: String,
    /// What was measured.
    pub metric_type: String,
}

/// Buckets of one window behind a place, newest first, that lie wholly within the range; of one metric where it is named.
///
/// # Errors
/// When the database fails.
pub async fn aggregates(
    conn: &Conn,
    range: &TimeRange<'_>,
    window: &str,
    metric_type: Option<&str>,
    after: Option<&BucketPlace>,
) -> Result<Vec<Aggregate>, StoreError> {
    let start_at = after.map(|after| after.start_at);
    let device_id = after.map(|after| after.device_id.as_str());
    let metric_after = after.map(|after| after.metric_type.as_str());
    let r = range;
    let params: [&(dyn ToSql + Sync); 10] = [
        &r.tenant_id,
        &r.device_id,
        &window,
        &r.start,
        &r.end,
        &r.limit,
        &start_at,
        &device_id,
        &metric_after,
        &metric_type,
    ];
    let rows = conn.query(AGGREGATES, &params).await?;
    let aggregate = |row: &Row| Aggregate {
        id: row.get(0),
        tenant_id: row.get(1),
        device_id: row.get(2),
        window: row.get(3),
        bucket_start_at: row.get(4),
        bucket_end_at: row.get(5),
        metric_type: row.get(6),
        avg_value: row.get(7),
        min_value: row.get(8),
        max_value: row.get(9),
        count: row.get(10),
    };
    Ok(rows.iter().map(aggregate).collect())
}
