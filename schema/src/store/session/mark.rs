//! What people say of weighings. Rows are only added: an exclusion is in force until a row ends it.

use uuid::Uuid;

use crate::clock::Timestamp;
use crate::store::{Conn, StoreError};

/// Every statement of this module.
pub const STATEMENTS: &[&str] = &[ADD, LIST, IN_FORCE, HAS_WEIGHT, SIGNAL];

/// What is said of a weighing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// It enters no statistics.
    Excluded,
    /// It enters them again.
    Included,
    /// Somebody has looked at it.
    Reviewed,
}

impl Kind {
    /// The text of the column.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Excluded => "excluded",
            Self::Included => "included",
            Self::Reviewed => "reviewed",
        }
    }
}

/// Something that was said of a weighing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mark {
    /// Row id; ids grow with time.
    pub id: Uuid,
    /// Tenant.
    pub tenant_id: String,
    /// The session.
    pub session_id: String,
    /// One weight of it; `None` means the whole session.
    pub weight_id: Option<Uuid>,
    /// What, as [`Kind::as_str`] says it.
    pub kind: String,
    /// The exclusion that ends with this row.
    pub ends: Option<Uuid>,
    /// Why.
    pub reason: Option<String>,
    /// Who, as the audit log names it.
    pub author: String,
    /// When.
    pub created_at: Timestamp,
}

row_of!(Mark, mark_columns as "m": id, tenant_id, session_id, weight_id, kind, ends, reason, author, created_at);

// Whether the exclusion `m` is in force.
macro_rules! in_force {
    () => {
        "m.kind = 'excluded' AND NOT EXISTS (SELECT FROM session_marks AS e WHERE e.tenant_id = m.tenant_id AND e.ends = m.id)"
    };
}

// What is excluded of the session `s`, as `x`: `is_whole`, or `is_part` when some of its weights are; and as `l` the last
// weight that is left then.
macro_rules! exclusions {
    () => {
        concat!(
            "LEFT JOIN LATERAL (
    SELECT coalesce(bool_or(m.weight_id IS NULL), false) AS is_whole, coalesce(bool_or(m.weight_id IS NOT NULL), false) AS is_part
    FROM session_marks AS m WHERE m.tenant_id = s.tenant_id AND m.session_id = s.session_id AND ",
            $crate::store::session::mark::in_force!(),
            "
) AS x ON true
LEFT JOIN LATERAL (
    SELECT w.weight_kg FROM session_weights AS w
    WHERE x.is_part AND w.tenant_id = s.tenant_id AND w.session_id = s.session_id AND w.is_bound AND NOT EXISTS (
        SELECT FROM session_marks AS m WHERE m.tenant_id = w.tenant_id AND m.session_id = w.session_id AND m.weight_id = w.id AND ",
            $crate::store::session::mark::in_force!(),
            ")
    ORDER BY w.occurred_at DESC, w.id DESC LIMIT 1
) AS l ON true"
        )
    };
}
pub(in crate::store) use {exclusions, in_force};

const ADD: &str = "-- session_mark_add
INSERT INTO session_marks (id, tenant_id, session_id, weight_id, kind, ends, reason, author, created_at)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)";

/// Adds a row as part of the caller's transaction, which holds the session's lock.
///
/// # Errors
/// When the database fails.
pub async fn add(conn: &Conn, mark: &Mark) -> Result<(), StoreError> {
    let Mark { id, tenant_id, session_id, weight_id, kind, ends, reason, author, created_at } = mark;
    conn.execute(ADD, &[id, tenant_id, session_id, weight_id, kind, ends, reason, author, created_at])
        .await?;
    Ok(())
}

const LIST: &str = concat!(
    "-- session_marks\nSELECT ",
    mark_columns!(),
    " FROM session_marks AS m
WHERE m.tenant_id = $1 AND m.session_id = $2 AND ($3::uuid IS NULL OR m.id < $3) ORDER BY m.id DESC LIMIT $4"
);

/// What was said of a session, newest first, before a row.
///
/// # Errors
/// When the database fails.
pub async fn list(
    conn: &Conn,
    [tenant_id, session_id]: [&str; 2],
    before: Option<Uuid>,
    limit: i64,
) -> Result<Vec<Mark>, StoreError> {
    let rows = conn.query(LIST, &[&tenant_id, &session_id, &before, &limit]).await?;
    Ok(rows.iter().map(Mark::from).collect())
}

const IN_FORCE: &str = concat!(
    "-- session_mark_in_force\nSELECT ",
    mark_columns!(),
    " FROM session_marks AS m
WHERE m.tenant_id = $1 AND m.session_id = $2 AND m.weight_id IS NOT DISTINCT FROM $3 AND ",
    in_force!(),
    " ORDER BY m.id LIMIT 1"
);

/// The exclusion that is in force of a session, or of one weight of it.
///
/// # Errors
/// When the database fails.
pub async fn exclusion(
    conn: &Conn,
    [tenant_id, session_id]: [&str; 2],
    weight_id: Option<Uuid>,
) -> Result<Option<Mark>, StoreError> {
    Ok(conn.query_opt(IN_FORCE, &[&tenant_id, &session_id, &weight_id]).await?.as_ref().map(Mark::from))
}

const HAS_WEIGHT: &str = "-- session_has_weight
SELECT EXISTS (SELECT FROM session_weights WHERE tenant_id = $1 AND session_id = $2 AND id = $3 AND is_bound)";

/// Whether a session has a weight.
///
/// # Errors
/// When the database fails.
pub async fn has_weight(
    conn: &Conn,
    [tenant_id, session_id]: [&str; 2],
    weight_id: Uuid,
) -> Result<bool, StoreError> {
    Ok(conn.query_one(HAS_WEIGHT, &[&tenant_id, &session_id, &weight_id]).await?.get(0))
}

// As the trigger of sessions writes it.
const SIGNAL: &str = "-- session_mark_signal
INSERT INTO flock_signals (kind, tenant_id, farm_id, barn_id, device_id, event_id, batch_id, occurred_at)
SELECT 'WEIGHING', s.tenant_id, s.farm_id, s.barn_id, s.device_id, s.session_id, s.batch_id, least(s.start_at, s.created_at)
FROM weight_sessions AS s WHERE s.tenant_id = $1 AND s.session_id = $2 AND s.final_weight_kg IS NOT NULL";

/// Has the day of a weighing made anew, as part of the caller's transaction.
///
/// # Errors
/// When the database fails.
pub async fn signal(conn: &Conn, [tenant_id, session_id]: [&str; 2]) -> Result<(), StoreError> {
    conn.execute(SIGNAL, &[&tenant_id, &session_id]).await?;
    Ok(())
}
