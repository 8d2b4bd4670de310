//! Alarms: one row for each rule and place, and everything that happened to it. Edited rules and the modes of houses are in
//! [`rule`], tellings and drills in [`telling`], what the owner of a barn starts from is in [`scene`], which engine that is
//! in [`owner`], and what reaches the others in [`unheard`].

pub mod owner;
pub mod rule;
pub mod scene;
pub mod telling;
pub mod unheard;

use tokio_postgres::types::ToSql;
use uuid::Uuid;

use crate::clock::Timestamp;
use crate::id::alarm_id;
use crate::store::{Conn, StoreError};

/// Every statement of this module.
pub const STATEMENTS: &[&str] =
    &[PUT, UPDATE, OF_BARN, FIND, LOCK, LIST, REVISIONS, EVENT, EVENTS, HISTORY, TODAY, LONGEST, TOP];

/// Rows of one list at most.
const LIST_ROWS_MAX: i64 = 1000;
/// Alarms of one barn at most: rules by places.
pub const ALARMS_PER_BARN_MAX: i64 = 10_000;

/// A barn; all names are empty for the box itself.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Barn {
    /// Tenant.
    pub tenant_id: String,
    /// Farm.
    pub farm_id: String,
    /// Barn.
    pub barn_id: String,
}

impl From<&tokio_postgres::Row> for Barn {
    fn from(row: &tokio_postgres::Row) -> Self {
        Self { tenant_id: row.get("tenant_id"), farm_id: row.get("farm_id"), barn_id: row.get("barn_id") }
    }
}

impl Barn {
    /// The names of tenant, farm and barn.
    #[must_use]
    pub fn names(&self) -> [&str; 3] {
        [&self.tenant_id, &self.farm_id, &self.barn_id]
    }

    /// The box that the engine runs on, which is no barn.
    #[must_use]
    pub fn of_box() -> Self {
        Self::default()
    }

    /// Whether it is the box itself.
    #[must_use]
    pub fn is_box(&self) -> bool {
        self.tenant_id.is_empty()
    }
}

/// A row of `alarms`.
#[derive(Clone, Debug, PartialEq)]
pub struct AlarmRow {
    /// Its id.
    pub id: Uuid,
    /// Tenant; empty for the box itself.
    pub tenant_id: String,
    /// Farm.
    pub farm_id: String,
    /// Barn.
    pub barn_id: String,
    /// The rule.
    pub rule_id: String,
    /// A device, a metric, or empty for the whole house.
    pub place: String,
    /// How bad it is.
    pub class: String,
    /// The state that is shown.
    pub state: String,
    /// Whether the condition stands.
    pub is_active: bool,
    /// Whether somebody must still say that he knows.
    pub is_unacknowledged: bool,
    /// Whether it stays until a person has seen that it is over.
    pub is_latching: bool,
    /// How often it was raised.
    pub occurrence: i64,
    /// How often somebody had to be told anew.
    pub rounds: i64,
    /// The value that raised it.
    pub value: Option<f64>,
    /// The limit that it was beyond.
    pub limit_value: Option<f64>,
    /// The unit of both.
    pub unit: Option<String>,
    /// More about it, in words.
    pub why: Option<String>,
    /// When it was raised last.
    pub raised_at: Option<Timestamp>,
    /// When it ended last.
    pub ended_at: Option<Timestamp>,
    /// When it was acknowledged last.
    pub acknowledged_at: Option<Timestamp>,
    /// By whom.
    pub acknowledged_by: Option<String>,
    /// Since when its readings say the opposite.
    pub turning_since: Option<Timestamp>,
    /// The newest reading that was looked at.
    pub looked_until: Option<Timestamp>,
    /// The end of its shelf.
    pub shelved_until: Option<Timestamp>,
    /// Who put it there.
    pub shelved_by: Option<String>,
    /// Why.
    pub shelf_reason: Option<String>,
    /// What its cause is.
    pub suppressed_by: Option<String>,
    /// Why its sensor is out of service.
    pub out_of_service_reason: Option<String>,
    /// When it was raised lately.
    pub raised_lately: Vec<Timestamp>,
    /// Until when it is slower to end, because it chattered.
    pub chatters_until: Option<Timestamp>,
    /// Tellings of this occurrence.
    pub tellings: i32,
    /// Of these, before this round.
    pub round_first: i32,
    /// When this round began.
    pub round_began_at: Option<Timestamp>,
    /// Since when it is in its state.
    pub state_since: Timestamp,
    /// Grows with each change.
    pub revision: i64,
    /// When it last changed.
    pub updated_at: Timestamp,
}

impl AlarmRow {
    /// The alarm of a rule at a place that was never raised: of no class, normal, and nothing was written of it.
    #[must_use]
    pub fn unraised(barn: &Barn, rule_id: &str, place: &str, now: Timestamp) -> Self {
        let Barn { tenant_id, farm_id, barn_id } = barn.clone();
        Self {
            id: alarm_id(barn.names(), rule_id, place),
            tenant_id,
            farm_id,
            barn_id,
            rule_id: rule_id.to_owned(),
            place: place.to_owned(),
            class: String::new(),
            state: "NORM".to_owned(),
            is_active: false,
            is_unacknowledged: false,
            is_latching: false,
            occurrence: 0,
            rounds: 0,
            value: None,
            limit_value: None,
            unit: None,
            why: None,
            raised_at: None,
            ended_at: None,
            acknowledged_at: None,
            acknowledged_by: None,
            turning_since: None,
            looked_until: None,
            shelved_until: None,
            shelved_by: None,
            shelf_reason: None,
            suppressed_by: None,
            out_of_service_reason: None,
            raised_lately: Vec::new(),
            chatters_until: None,
            tellings: 0,
            round_first: 0,
            round_began_at: None,
            state_since: now,
            revision: 0,
            updated_at: now,
        }
    }
}

row_of!(AlarmRow, alarm_columns as "a": id, tenant_id, farm_id, barn_id, rule_id, place, class, state, is_active,
    is_unacknowledged, is_latching, occurrence, rounds, value, limit_value, unit, why, raised_at, ended_at, acknowledged_at,
    acknowledged_by, turning_since, looked_until, shelved_until, shelved_by, shelf_reason, suppressed_by,
    out_of_service_reason, raised_lately, chatters_until, tellings, round_first, round_began_at, state_since, revision,
    updated_at);

const PUT: &str = "-- alarm_put
INSERT INTO alarms (id, tenant_id, farm_id, barn_id, rule_id, place, class, state, is_active, is_unacknowledged,
    is_latching, occurrence, rounds, value, limit_value, unit, why, raised_at, ended_at, acknowledged_at, acknowledged_by,
    turning_since, looked_until, shelved_until, shelved_by, shelf_reason, suppressed_by, out_of_service_reason,
    raised_lately, chatters_until, tellings, round_first, round_began_at, state_since, updated_at, revision)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20, $21, $22, $23, $24,
    $25, $26, $27, $28, $29, $30, $31, $32, $33, $34, $35, 1)
ON CONFLICT DO NOTHING";

const UPDATE: &str = "-- alarm_update
UPDATE alarms SET class = $7, state = $8, is_active = $9, is_unacknowledged = $10, is_latching = $11, occurrence = $12,
    rounds = $13, value = $14, limit_value = $15, unit = $16, why = $17, raised_at = $18, ended_at = $19,
    acknowledged_at = $20, acknowledged_by = $21, turning_since = $22, looked_until = $23, shelved_until = $24,
    shelved_by = $25, shelf_reason = $26, suppressed_by = $27, out_of_service_reason = $28, raised_lately = $29,
    chatters_until = $30, tellings = $31, round_first = $32, round_began_at = $33, state_since = $34, updated_at = $35,
    revision = $36 + 1
WHERE id = $1 AND tenant_id = $2 AND farm_id = $3 AND barn_id = $4 AND rule_id = $5 AND place = $6 AND revision = $36";

/// Writes an alarm; `row.revision` is the one that was read, 0 for a new one. Says whether that was still so: else somebody
/// else has changed it.
///
/// # Errors
/// When the database fails.
pub async fn put(conn: &Conn, row: &AlarmRow) -> Result<bool, StoreError> {
    let r = row;
    let mut params: Vec<&(dyn ToSql + Sync)> = vec![
        &r.id,
        &r.tenant_id,
        &r.farm_id,
        &r.barn_id,
        &r.rule_id,
        &r.place,
        &r.class,
        &r.state,
        &r.is_active,
        &r.is_unacknowledged,
        &r.is_latching,
        &r.occurrence,
        &r.rounds,
        &r.value,
        &r.limit_value,
        &r.unit,
        &r.why,
        &r.raised_at,
        &r.ended_at,
        &r.acknowledged_at,
        &r.acknowledged_by,
        &r.turning_since,
        &r.looked_until,
        &r.shelved_until,
        &r.shelved_by,
        &r.shelf_reason,
        &r.suppressed_by,
        &r.out_of_service_reason,
        &r.raised_lately,
        &r.chatters_until,
        &r.tellings,
        &r.round_first,
        &r.round_began_at,
        &r.state_since,
        &r.updated_at,
    ];
    if r.revision == 0 {
        return Ok(conn.execute(PUT, &params).await? == 1);
    }
    params.push(&r.revision);
    Ok(conn.execute(UPDATE, &params).await? == 1)
}

const OF_BARN: &str = concat!(
    "-- alarms_of_barn\nSELECT ",
    alarm_columns!(),
    " FROM alarms AS a
WHERE tenant_id = $1 AND farm_id = $2 AND barn_id = $3 ORDER BY rule_id, place LIMIT $4"
);

/// All alarms of a barn.
///
/// # Errors
/// When the database fails.
pub async fn of_barn(conn: &Conn, barn: &Barn) -> Result<Vec<AlarmRow>, StoreError> {
    let Barn { tenant_id, farm_id, barn_id } = barn;
    let rows = conn.query(OF_BARN, &[tenant_id, farm_id, barn_id, &ALARMS_PER_BARN_MAX]).await?;
    Ok(rows.iter().map(AlarmRow::from).collect())
}

const REVISIONS: &str = "-- alarm_revisions
SELECT id, revision FROM alarms WHERE tenant_id = $1 AND farm_id = $2 AND barn_id = $3 LIMIT $4";

/// The revision of each alarm of a barn.
///
/// # Errors
/// When the database fails.
pub async fn revisions(conn: &Conn, barn: &Barn) -> Result<Vec<(Uuid, i64)>, StoreError> {
    let Barn { tenant_id, farm_id, barn_id } = barn;
    let rows = conn.query(REVISIONS, &[tenant_id, farm_id, barn_id, &ALARMS_PER_BARN_MAX]).await?;
    Ok(rows.iter().map(|row| (row.get(0), row.get(1))).collect())
}

// The alarms of the box itself are seen by everybody.
const FIND: &str = concat!(
    "-- alarm_find\nSELECT ",
    alarm_columns!(),
    " FROM alarms AS a
WHERE id = $1 AND ($2::text IS NULL OR tenant_id = $2 OR tenant_id = '')"
);

/// An alarm of a tenant, or of the box itself; `None` as tenant means every one.
///
/// # Errors
/// When the database fails.
pub async fn find(conn: &Conn, tenant_id: Option<&str>, id: Uuid) -> Result<Option<AlarmRow>, StoreError> {
    Ok(conn.query_opt(FIND, &[&id, &tenant_id]).await?.as_ref().map(AlarmRow::from))
}

const LOCK: &str = concat!(
    "-- alarm_lock\nSELECT ",
    alarm_columns!(),
    " FROM alarms AS a
WHERE id = $1 AND ($2::text IS NULL OR tenant_id = $2 OR tenant_id = '') FOR UPDATE"
);

/// As [`find`], and nobody else changes it until the end of the transaction.
///
/// # Errors
/// When the database fails.
pub async fn lock(conn: &Conn, tenant_id: Option<&str>, id: Uuid) -> Result<Option<AlarmRow>, StoreError> {
    Ok(conn.query_opt(LOCK, &[&id, &tenant_id]).await?.as_ref().map(AlarmRow::from))
}

/// Which alarms.
#[derive(Clone, Copy, Debug, Default)]
pub struct Filter<'a> {
    /// Of this tenant and of the box itself; `None` for every tenant.
    pub tenant_id: Option<&'a str>,
    /// Of this barn and of the box itself.
    pub barn_id: Option<&'a str>,
    /// Of this rule.
    pub rule_id: Option<&'a str>,
}

const LIST: &str = concat!("-- alarm_list\nSELECT ", alarm_columns!(), " FROM alarms AS a
WHERE ($1::text IS NULL OR tenant_id = $1 OR tenant_id = '') AND ($2::text IS NULL OR barn_id = $2 OR tenant_id = '')
    AND ($3::text IS NULL OR rule_id = $3) AND state = ANY ($4)
    AND ($5::text IS NULL OR (array_position($4, state), id::text) > (split_part($5, '/', 1)::int, split_part($5, '/', 2)))
ORDER BY array_position($4, state), id LIMIT $6");

/// Alarms in some states, in the order of these and then by their ids, behind `after`: the place of a state and an id, with
/// a slash between.
///
/// # Errors
/// When the database fails.
pub async fn list(
    conn: &Conn,
    filter: Filter<'_>,
    states: &[&str],
    after: Option<&str>,
    limit: i64,
) -> Result<Vec<AlarmRow>, StoreError> {
    let Filter { tenant_id, barn_id, rule_id } = filter;
    let limit = limit.clamp(0, LIST_ROWS_MAX);
    let rows = conn.query(LIST, &[&tenant_id, &barn_id, &rule_id, &states, &after, &limit]).await?;
    Ok(rows.iter().map(AlarmRow::from).collect())
}

/// A row of `alarm_events`.
#[derive(Clone, Debug, PartialEq)]
pub struct EventRow {
    /// Its id; ids grow with time.
    pub id: Uuid,
    /// The alarm.
    pub alarm_id: Uuid,
    /// Tenant.
    pub tenant_id: String,
    /// Farm.
    pub farm_id: String,
    /// Barn.
    pub barn_id: String,
    /// The rule.
    pub rule_id: String,
    /// The place.
    pub place: String,
    /// How bad it is.
    pub class: String,
    /// The occurrence.
    pub occurrence: i64,
    /// What happened.
    pub kind: String,
    /// The state before.
    pub from_state: String,
    /// The state after.
    pub to_state: String,
    /// The value that did it.
    pub value: Option<f64>,
    /// The limit.
    pub limit_value: Option<f64>,
    /// More about it, in words.
    pub why: Option<String>,
    /// Who did it: a person, or `engine`.
    pub author: String,
    /// The time of the reading that did it.
    pub occurred_at: Option<Timestamp>,
    /// When it happened here.
    pub happened_at: Timestamp,
}

row_of!(EventRow, event_columns as "e": id, alarm_id, tenant_id, farm_id, barn_id, rule_id, place, class, occurrence, kind,
    from_state, to_state, value, limit_value, why, author, occurred_at, happened_at);

const EVENT: &str = "-- alarm_event
INSERT INTO alarm_events (id, alarm_id, tenant_id, farm_id, barn_id, rule_id, place, class, occurrence, kind, from_state,
    to_state, value, limit_value, why, author, occurred_at, happened_at)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18) ON CONFLICT DO NOTHING";

/// Writes down what happened, as part of the transaction that changes the alarm.
///
/// # Errors
/// When the database fails.
pub async fn add_event(conn: &Conn, event: &EventRow) -> Result<(), StoreError> {
    let e = event;
    conn.execute(
        EVENT,
        &[
            &e.id,
            &e.alarm_id,
            &e.tenant_id,
            &e.farm_id,
            &e.barn_id,
            &e.rule_id,
            &e.place,
            &e.class,
            &e.occurrence,
            &e.kind,
            &e.from_state,
            &e.to_state,
            &e.value,
            &e.limit_value,
            &e.why,
            &e.author,
            &e.occurred_at,
            &e.happened_at,
        ],
    )
    .await?;
    Ok(())
}

const EVENTS: &str = concat!(
    "-- alarm_events\nSELECT ",
    event_columns!(),
    " FROM alarm_events AS e
WHERE alarm_id = $1 AND ($2::uuid IS NULL OR id < $2) ORDER BY id DESC LIMIT $3"
);

/// What happened to an alarm, the newest first, behind `before`.
///
/// # Errors
/// When the database fails.
pub async fn events(
    conn: &Conn,
    alarm_id: Uuid,
    before: Option<Uuid>,
    limit: i64,
) -> Result<Vec<EventRow>, StoreError> {
    let rows = conn.query(EVENTS, &[&alarm_id, &before, &limit.clamp(0, LIST_ROWS_MAX)]).await?;
    Ok(rows.iter().map(EventRow::from).collect())
}

const HISTORY: &str = concat!("-- alarm_history\nSELECT ", event_columns!(), " FROM alarm_events AS e
WHERE ($1::text IS NULL OR tenant_id = $1 OR tenant_id = '') AND ($2::text IS NULL OR barn_id = $2 OR tenant_id = '')
    AND ($3::text IS NULL OR rule_id = $3) AND ($4::uuid IS NULL OR id < $4) ORDER BY id DESC LIMIT $5");

/// What happened to all alarms, the newest first, behind `before`.
///
/// # Errors
/// When the database fails.
pub async fn history(
    conn: &Conn,
    filter: Filter<'_>,
    before: Option<Uuid>,
    limit: i64,
) -> Result<Vec<EventRow>, StoreError> {
    let Filter { tenant_id, barn_id, rule_id } = filter;
    let limit = limit.clamp(0, LIST_ROWS_MAX);
    let rows = conn.query(HISTORY, &[&tenant_id, &barn_id, &rule_id, &before, &limit]).await?;
    Ok(rows.iter().map(EventRow::from).collect())
}

/// A rule and how often it was raised.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cause {
    /// The rule.
    pub rule_id: String,
    /// Raises.
    pub raises: i64,
}

row_of!(Cause, cause_columns as "c": rule_id, raises);

/// Figures of alarms.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Figures {
    /// Raised since the beginning of the day that was asked for.
    pub raised_today: i64,
    /// Since when the one that stands longest does.
    pub longest_since: Option<Timestamp>,
    /// Which one that is.
    pub longest_id: Option<Uuid>,
    /// The rules that were raised most often since the beginning of the month that was asked for.
    pub top_causes: Vec<Cause>,
    /// All raises since then.
    pub raised_lately: i64,
}

const TODAY: &str = "-- alarms_today
SELECT count(*) FILTER (WHERE happened_at >= $3), count(*) FROM alarm_events
WHERE ($1::text IS NULL OR tenant_id = $1 OR tenant_id = '') AND ($2::text IS NULL OR barn_id = $2 OR tenant_id = '')
    AND kind = 'raised' AND rule_id <> 'drill' AND id >= $4";

const LONGEST: &str = "-- alarm_longest
SELECT raised_at, id FROM alarms
WHERE ($1::text IS NULL OR tenant_id = $1 OR tenant_id = '') AND ($2::text IS NULL OR barn_id = $2 OR tenant_id = '')
    AND is_active AND state IN ('UNACK', 'ACKED') ORDER BY raised_at LIMIT 1";

const TOP: &str = concat!("-- alarm_causes\nSELECT ", cause_columns!(), " FROM (
    SELECT rule_id, count(*) AS raises FROM alarm_events
    WHERE ($1::text IS NULL OR tenant_id = $1 OR tenant_id = '') AND ($2::text IS NULL OR barn_id = $2 OR tenant_id = '')
        AND kind = 'raised' AND rule_id <> 'drill' AND id >= $3
    GROUP BY rule_id) AS c
ORDER BY c.raises DESC, c.rule_id LIMIT 3");

/// Figures of alarms since the beginning of a day and that of a longer time.
///
/// # Errors
/// When the database fails.
pub async fn figures(
    conn: &Conn,
    filter: Filter<'_>,
    (today, lately): (Timestamp, Timestamp),
) -> Result<Figures, StoreError> {
    let Filter { tenant_id, barn_id, .. } = filter;
    let first = crate::id::last_id_at(lately);
    let counts = conn.query_one(TODAY, &[&tenant_id, &barn_id, &today, &first]).await?;
    let longest = conn.query_opt(LONGEST, &[&tenant_id, &barn_id]).await?;
    let causes = conn.query(TOP, &[&tenant_id, &barn_id, &first]).await?;
    Ok(Figures {
        raised_today: counts.get(0),
        raised_lately: counts.get(1),
        longest_since: longest.as_ref().and_then(|row| row.get(0)),
        longest_id: longest.as_ref().map(|row| row.get(1)),
        top_causes: causes.iter().map(Cause::from).collect(),
    })
}
