//! Running counts of what pages and gauges ask for all the time. Triggers keep them (`tallies`); here they are read, and
//! seen to.

use tokio_postgres::Row;

use crate::clock::Timestamp;
use crate::store::{Conn, StoreError};

/// Every statement of this module.
pub const STATEMENTS: &[&str] = &[IS_CHECKED, READ, COUNT, FOLD, STALEST, CHECK];

/// A table whose rows are counted along.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Counted {
    /// `dead_letters`: the open ones, by source.
    DeadLetters,
    /// `inference_jobs`: those that are not done, as [`OPEN`].
    InferenceJobs,
    /// `inference_results`: [`ALL`] of them, and when the newest came.
    InferenceResults,
    /// `media_objects`: [`ALL`] of them, their size, and when the newest was completed.
    MediaObjects,
    /// `session_media_bindings`: those that wait for their session, as [`UNBOUND`].
    SessionImages,
    /// `session_parked`: [`ALL`] of them.
    SessionParked,
    /// `session_weights`: those that wait for their session, as [`UNBOUND`].
    SessionWeights,
    /// `telemetry_agg`: [`ALL`] of them.
    Aggregates,
    /// `sync_outbox`: what the cloud has not acknowledged, by status; [`HELD`] instead of `failed` where that holds a lane.
    Outbox,
}

/// The kind of all rows of a table.
pub const ALL: &str = "all";
/// The kind of jobs that are not done.
pub const OPEN: &str = "open";
/// The kind of children that wait for their session.
pub const UNBOUND: &str = "unbound";
/// The kind of a failed `session.created`.
pub const HELD: &str = "held";

impl Counted {
    fn table(self) -> &'static str {
        match self {
            Self::DeadLetters => "dead_letters",
            Self::InferenceJobs => "inference_jobs",
            Self::InferenceResults => "inference_results",
            Self::MediaObjects => "media_objects",
            Self::SessionImages => "session_media_bindings",
            Self::SessionParked => "session_parked",
            Self::SessionWeights => "session_weights",
            Self::Aggregates => "telemetry_agg",
            Self::Outbox => "sync_outbox",
        }
    }
}

/// Rows of one kind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tally {
    /// Which rows.
    pub kind: String,
    /// How many.
    pub rows: i64,
    /// Their size, where it is counted.
    pub bytes: i64,
    /// The newest of their times, where it is noted; also of rows that are gone.
    pub last_at: Option<Timestamp>,
}

impl Tally {
    fn of(row: &Row) -> Self {
        // Between a change of rows and a check that mends an old mistake a sum may fall below zero.
        Self {
            kind: row.get(0),
            rows: row.get::<_, i64>(1).max(0),
            bytes: row.get::<_, i64>(2).max(0),
            last_at: row.get(3),
        }
    }
}

const IS_CHECKED: &str = "-- tally_is_checked
SELECT EXISTS (SELECT FROM tally_checks WHERE counted = $1 AND checked_at IS NOT NULL)";

const READ: &str = "-- tally_read
SELECT t.kind, sum(t.rows)::bigint, sum(t.bytes)::bigint, max(t.last_at) FROM tallies AS t
WHERE t.counted = $1 AND ($2::text[] IS NULL OR t.tenant_id = ANY ($2)) GROUP BY t.kind";

const COUNT: &str = "-- tally_count
SELECT c.kind, sum(c.rows)::bigint, sum(c.bytes)::bigint, max(c.last_at) FROM farmiq_count($1, $2) AS c GROUP BY c.kind";

/// The tallies of a table by kind, of these tenants or of all. A table that was large when its tallies were introduced is
/// counted row by row until [`check`] has been at it.
///
/// # Errors
/// When the database fails.
pub async fn read(
    conn: &Conn,
    counted: Counted,
    tenants: Option<&[String]>,
) -> Result<Vec<Tally>, StoreError> {
    let is_checked: bool = conn.query_one(IS_CHECKED, &[&counted.table()]).await?.get(0);
    let sql = if is_checked { READ } else { COUNT };
    Ok(conn.query(sql, &[&counted.table(), &tenants]).await?.iter().map(Tally::of).collect())
}

/// The tally of one kind; zero when there is none.
///
/// # Errors
/// When the database fails.
pub async fn read_kind(
    conn: &Conn,
    counted: Counted,
    kind: &str,
    tenants: Option<&[String]>,
) -> Result<Tally, StoreError> {
    let found = read(conn, counted, tenants).await?.into_iter().find(|tally| tally.kind == kind);
    Ok(found.unwrap_or_else(|| Tally { kind: kind.to_owned(), rows: 0, bytes: 0, last_at: None }))
}

// A process that is gone counts no more. If another one has its number by now, it begins a row of its own.
const FOLD: &str = "-- tally_fold
WITH gone AS (
    DELETE FROM tallies AS t WHERE t.shard <> 0 AND t.shard <> ALL (ARRAY(SELECT a.pid FROM pg_stat_activity AS a))
    RETURNING t.counted, t.kind, t.tenant_id, t.rows, t.bytes, t.last_at
)
INSERT INTO tallies AS t (counted, kind, tenant_id, shard, rows, bytes, last_at)
SELECT g.counted, g.kind, g.tenant_id, 0, sum(g.rows), sum(g.bytes), max(g.last_at)
FROM gone AS g GROUP BY g.counted, g.kind, g.tenant_id ORDER BY 1, 2, 3
ON CONFLICT (counted, kind, tenant_id, shard) DO UPDATE SET rows = t.rows + excluded.rows,
    bytes = t.bytes + excluded.bytes, last_at = greatest(t.last_at, excluded.last_at)";

/// Takes over what server processes that are gone have counted, so that there are never more rows than processes.
///
/// # Errors
/// When the database fails.
pub async fn fold(conn: &Conn) -> Result<(), StoreError> {
    conn.execute(FOLD, &[]).await?;
    Ok(())
}

const STALEST: &str = "-- tally_stalest
SELECT counted FROM tally_checks WHERE checked_at IS NULL OR checked_at NOT BETWEEN $1 AND $2
ORDER BY checked_at NULLS FIRST, counted LIMIT 1";

const CHECK: &str = "-- tally_check
SELECT farmiq_check_tally($1, $2)";

/// The table whose tallies were not checked since `before` for the longest time, or not at all.
///
/// # Errors
/// When the database fails.
pub async fn stalest(conn: &Conn, before: Timestamp, now: Timestamp) -> Result<Option<String>, StoreError> {
    Ok(conn.query_opt(STALEST, &[&before, &now]).await?.map(|row| row.get(0)))
}

/// Counts a table row by row and puts its tallies right; says by how many rows they were off. To be run at leisure
/// ([`crate::store::Store::run_at_leisure`]).
///
/// # Errors
/// When the database fails.
pub async fn check(conn: &Conn, table: &str, now: Timestamp) -> Result<i64, StoreError> {
    Ok(conn.query_one(CHECK, &[&table, &now]).await?.get(0))
}
