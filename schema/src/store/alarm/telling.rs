//! Who was told of an alarm, how that went, and the drills.

use uuid::Uuid;

use super::Barn;
use crate::clock::Timestamp;
use crate::store::{Conn, StoreError};

/// Every statement of this module.
pub const STATEMENTS: &[&str] = &[
    CLAIM,
    RESULT,
    OF_ALARM,
    RESULTS,
    CUT_OFF,
    DRILL,
    ANSWER_DRILL,
    DRILLS,
    FIND_DRILL,
    LAST_DRILL,
    WAITING_DRILLS,
];

/// Rows of one list at most.
const LIST_ROWS_MAX: i64 = 1000;

/// A telling.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TellingRow {
    /// The alarm.
    pub alarm_id: Uuid,
    /// Its occurrence.
    pub occurrence: i64,
    /// The number of the telling of this occurrence, from 0.
    pub number: i32,
    /// What was said.
    pub kind: String,
    /// Listed with the others of a flood, and told by no way.
    pub is_grouped: bool,
    /// By which ways.
    pub ways: Vec<String>,
    /// When it began.
    pub begun_at: Timestamp,
}

row_of!(TellingRow, telling_columns as "t": alarm_id, occurrence, number, kind, is_grouped, ways, begun_at);

const CLAIM: &str = "-- alarm_telling_claim
INSERT INTO alarm_tellings (alarm_id, occurrence, number, kind, is_grouped, ways, begun_at)
VALUES ($1, $2, $3, $4, $5, $6, $7) ON CONFLICT DO NOTHING";

/// Claims a telling before anybody is told; `false` if it was told before.
///
/// # Errors
/// When the database fails.
pub async fn claim(conn: &Conn, row: &TellingRow) -> Result<bool, StoreError> {
    let TellingRow { alarm_id, occurrence, number, kind, is_grouped, ways, begun_at } = row;
    let made = conn.execute(CLAIM, &[alarm_id, occurrence, number, kind, is_grouped, ways, begun_at]).await?;
    Ok(made == 1)
}

/// What became of a telling by one way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResultRow {
    /// The alarm.
    pub alarm_id: Uuid,
    /// Its occurrence.
    pub occurrence: i64,
    /// The telling.
    pub number: i32,
    /// The way.
    pub way: String,
    /// What kind of failure it was; `None` when it was told.
    pub failure: Option<String>,
    /// What the other side said, or what is to be done.
    pub detail: String,
    /// Who confirmed that it arrived.
    pub confirmed_by: Option<String>,
    /// From the order to the confirmation.
    pub latency_ms: i64,
    /// When it ended.
    pub ended_at: Timestamp,
}

row_of!(ResultRow, result_columns as "r": alarm_id, occurrence, number, way, failure, detail, confirmed_by, latency_ms,
    ended_at);

const RESULT: &str = "-- alarm_telling_result
INSERT INTO alarm_telling_results (alarm_id, occurrence, number, way, failure, detail, confirmed_by, latency_ms, ended_at)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)
ON CONFLICT (alarm_id, occurrence, number, way) DO UPDATE SET failure = excluded.failure, detail = excluded.detail,
    confirmed_by = excluded.confirmed_by, latency_ms = excluded.latency_ms, ended_at = excluded.ended_at
WHERE alarm_telling_results.failure IS NOT NULL";

/// Writes what became of a telling. One that failed at first may arrive in the end, and not the other way round.
///
/// # Errors
/// When the database fails.
pub async fn put_result(conn: &Conn, row: &ResultRow) -> Result<(), StoreError> {
    let r = row;
    conn.execute(
        RESULT,
        &[
            &r.alarm_id,
            &r.occurrence,
            &r.number,
            &r.way,
            &r.failure,
            &r.detail,
            &r.confirmed_by,
            &r.latency_ms,
            &r.ended_at,
        ],
    )
    .await?;
    Ok(())
}

const OF_ALARM: &str = concat!(
    "-- alarm_tellings\nSELECT ",
    telling_columns!(),
    " FROM alarm_tellings AS t
WHERE alarm_id = $1 AND occurrence = $2 ORDER BY number DESC LIMIT $3"
);

const RESULTS: &str = concat!(
    "-- alarm_telling_results\nSELECT ",
    result_columns!(),
    " FROM alarm_telling_results AS r
WHERE alarm_id = $1 AND occurrence = $2 ORDER BY number DESC, way LIMIT $3"
);

/// The tellings of an occurrence and what became of them, the newest first.
///
/// # Errors
/// When the database fails.
pub async fn of_occurrence(
    conn: &Conn,
    alarm_id: Uuid,
    occurrence: i64,
) -> Result<(Vec<TellingRow>, Vec<ResultRow>), StoreError> {
    let tellings = conn.query(OF_ALARM, &[&alarm_id, &occurrence, &LIST_ROWS_MAX]).await?;
    let results = conn.query(RESULTS, &[&alarm_id, &occurrence, &LIST_ROWS_MAX]).await?;
    Ok((tellings.iter().map(TellingRow::from).collect(), results.iter().map(ResultRow::from).collect()))
}

// The newest telling of each occurrence that still waits, with the ways of which nothing is known.
const CUT_OFF: &str = concat!("-- alarm_tellings_cut_off\nSELECT ", telling_columns!(), " FROM (
    SELECT t.alarm_id, t.occurrence, t.number, t.kind, t.is_grouped, t.begun_at,
        array(SELECT w FROM unnest(t.ways) AS w WHERE NOT EXISTS (SELECT FROM alarm_telling_results AS r
            WHERE r.alarm_id = t.alarm_id AND r.occurrence = t.occurrence AND r.number = t.number AND r.way = w)) AS ways
    FROM alarm_tellings AS t JOIN alarms AS a ON a.id = t.alarm_id AND a.occurrence = t.occurrence
        AND t.number = a.tellings - 1
    WHERE a.tenant_id = $1 AND a.farm_id = $2 AND a.barn_id = $3 AND a.is_unacknowledged AND a.is_active
        AND NOT t.is_grouped) AS t
WHERE cardinality(t.ways) > 0 LIMIT $4");

/// Tellings of a barn that were begun and of which some ways have said nothing: those ways alone.
///
/// # Errors
/// When the database fails.
pub async fn cut_off(conn: &Conn, barn: &Barn) -> Result<Vec<TellingRow>, StoreError> {
    let Barn { tenant_id, farm_id, barn_id } = barn;
    let rows = conn.query(CUT_OFF, &[tenant_id, farm_id, barn_id, &LIST_ROWS_MAX]).await?;
    Ok(rows.iter().map(TellingRow::from).collect())
}

/// A drill.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DrillRow {
    /// Its id.
    pub id: Uuid,
    /// Tenant.
    pub tenant_id: String,
    /// Farm.
    pub farm_id: String,
    /// Barn.
    pub barn_id: String,
    /// The alarm of the rule `drill`.
    pub alarm_id: Uuid,
    /// Its occurrence.
    pub occurrence: i64,
    /// Whether the schedule began it.
    pub is_scheduled: bool,
    /// Who began it.
    pub author: String,
    /// When.
    pub started_at: Timestamp,
    /// When a person answered.
    pub acknowledged_at: Option<Timestamp>,
    /// Who.
    pub acknowledged_by: Option<String>,
    /// How it went: `waiting`, `answered` or `unanswered`.
    pub result: String,
}

row_of!(DrillRow, drill_columns as "d": id, tenant_id, farm_id, barn_id, alarm_id, occurrence, is_scheduled, author,
    started_at, acknowledged_at, acknowledged_by, result);

const DRILL: &str = "-- alarm_drill
INSERT INTO alarm_drills (id, tenant_id, farm_id, barn_id, alarm_id, occurrence, is_scheduled, author, started_at,
    acknowledged_at, acknowledged_by, result)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12) ON CONFLICT DO NOTHING";

/// Writes a drill.
///
/// # Errors
/// When the database fails.
pub async fn put_drill(conn: &Conn, row: &DrillRow) -> Result<(), StoreError> {
    let d = row;
    conn.execute(
        DRILL,
        &[
            &d.id,
            &d.tenant_id,
            &d.farm_id,
            &d.barn_id,
            &d.alarm_id,
            &d.occurrence,
            &d.is_scheduled,
            &d.author,
            &d.started_at,
            &d.acknowledged_at,
            &d.acknowledged_by,
            &d.result,
        ],
    )
    .await?;
    Ok(())
}

const ANSWER_DRILL: &str = "-- alarm_drill_answer
UPDATE alarm_drills SET acknowledged_at = $3, acknowledged_by = $4,
    result = CASE WHEN $4::text IS NULL THEN 'unanswered' ELSE 'answered' END
WHERE alarm_id = $1 AND occurrence = $2 AND acknowledged_at IS NULL";

/// Notes who answered a drill and when; nobody did in time where `by` is `None`.
///
/// # Errors
/// When the database fails.
pub async fn answer_drill(
    conn: &Conn,
    (alarm_id, occurrence): (Uuid, i64),
    at: Option<Timestamp>,
    by: Option<&str>,
) -> Result<(), StoreError> {
    conn.execute(ANSWER_DRILL, &[&alarm_id, &occurrence, &at, &by]).await?;
    Ok(())
}

const DRILLS: &str = concat!(
    "-- alarm_drills\nSELECT ",
    drill_columns!(),
    " FROM alarm_drills AS d
WHERE ($1::text IS NULL OR tenant_id = $1) AND ($2::text IS NULL OR barn_id = $2) AND ($3::uuid IS NULL OR id < $3)
ORDER BY id DESC LIMIT $4"
);

/// Drills, the newest first, behind `before`.
///
/// # Errors
/// When the database fails.
pub async fn drills(
    conn: &Conn,
    tenant_id: Option<&str>,
    barn_id: Option<&str>,
    before: Option<Uuid>,
    limit: i64,
) -> Result<Vec<DrillRow>, StoreError> {
    let rows = conn.query(DRILLS, &[&tenant_id, &barn_id, &before, &limit.clamp(0, LIST_ROWS_MAX)]).await?;
    Ok(rows.iter().map(DrillRow::from).collect())
}

const FIND_DRILL: &str = concat!(
    "-- alarm_drill_find\nSELECT ",
    drill_columns!(),
    " FROM alarm_drills AS d
WHERE id = $1 AND ($2::text IS NULL OR tenant_id = $2)"
);

/// A drill of a tenant; `None` as tenant means every one.
///
/// # Errors
/// When the database fails.
pub async fn find_drill(
    conn: &Conn,
    tenant_id: Option<&str>,
    id: Uuid,
) -> Result<Option<DrillRow>, StoreError> {
    Ok(conn.query_opt(FIND_DRILL, &[&id, &tenant_id]).await?.as_ref().map(DrillRow::from))
}

const WAITING_DRILLS: &str = concat!(
    "-- alarm_drills_waiting\nSELECT ",
    drill_columns!(),
    " FROM alarm_drills AS d
WHERE tenant_id = $1 AND farm_id = $2 AND barn_id = $3 AND result = 'waiting' ORDER BY started_at LIMIT $4"
);

/// Drills of a barn that wait for an answer.
///
/// # Errors
/// When the database fails.
pub async fn waiting_drills(conn: &Conn, barn: &Barn) -> Result<Vec<DrillRow>, StoreError> {
    let Barn { tenant_id, farm_id, barn_id } = barn;
    let rows = conn.query(WAITING_DRILLS, &[tenant_id, farm_id, barn_id, &LIST_ROWS_MAX]).await?;
    Ok(rows.iter().map(DrillRow::from).collect())
}

const LAST_DRILL: &str = "-- alarm_drill_last
SELECT max(acknowledged_at), max(started_at) FROM alarm_drills WHERE tenant_id = $1 AND farm_id = $2 AND barn_id = $3";

/// When somebody last answered a drill of a barn, and when one last began.
///
/// # Errors
/// When the database fails.
pub async fn last_drill(conn: &Conn, barn: &Barn) -> Result<[Option<Timestamp>; 2], StoreError> {
    let Barn { tenant_id, farm_id, barn_id } = barn;
    let row = conn.query_one(LAST_DRILL, &[tenant_id, farm_id, barn_id]).await?;
    Ok([row.get(0), row.get(1)])
}
