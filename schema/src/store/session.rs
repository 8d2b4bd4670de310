//! Weighing sessions: their rows, their children, and what waits for them.
//!
//! A session is changed only under its lock, which is held to the end of the transaction.

use chrono::Duration;
use serde_json::Value;
use tokio_postgres::Row;
use tokio_postgres::types::ToSql;
use uuid::Uuid;

use crate::clock::Timestamp;
use crate::clock::deadline::farthest;
use crate::store::tally::{self, Counted};
use crate::store::{Conn, StoreError, media};

pub mod list;
pub mod mark;

/// Every statement of this module.
pub const STATEMENTS: &[&str] = &[
    LOCK,
    FIND,
    PUT,
    ATTACH_RESULT,
    ADOPT_IMAGE,
    ADOPT_RESULTS,
    ATTACH_ADOPTED,
    IS_ELSEWHERE,
    SESSION_OF_IMAGE,
    NEWEST_RESULT,
    WEIGHTS,
    WEIGHT,
    FIRST_WEIGHT,
    LAST_WEIGHT,
    UNBOUND_WEIGHTS,
    IS_CROWDED,
    DROP_UNBOUND,
    FORSAKEN,
    PUT_WEIGHT,
    IMAGE,
    UNBOUND_IMAGES,
    PUT_IMAGE,
    DECLARE,
    DROP_FOREIGN,
    BIND,
    PARK,
    PARKED,
    UNPARK,
    REDATE,
    EXPIRED,
    IDLE,
];

/// Weights, images and finalizes that wait for one session at most, of each kind: as many as its create binds in one
/// transaction.
pub const CHILDREN_WAITING_MAX: i64 = 10_000;
/// Weights that are shown with their session at most.
pub const WEIGHTS_SHOWN_MAX: i64 = 1000;

/// What a session has come to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// It has begun.
    Created,
    /// It has ended; late children amend it.
    Finalized,
    /// It was given up; nothing changes it any more.
    Cancelled,
}

impl Status {
    /// The text of the column.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Created => "created",
            Self::Finalized => "finalized",
            Self::Cancelled => "cancelled",
        }
    }

    fn parse(text: &str) -> Self {
        match text {
            "finalized" => Self::Finalized,
            "cancelled" => Self::Cancelled,
            // The table allows only these three.
            _ => Self::Created,
        }
    }
}

/// A weighing session.
#[derive(Clone, Debug, PartialEq)]
pub struct Session {
    /// Row id.
    pub id: Uuid,
    /// Tenant.
    pub tenant_id: String,
    /// Its id, unique in the tenant.
    pub session_id: String,
    /// Farm.
    pub farm_id: String,
    /// Barn.
    pub barn_id: String,
    /// The device that weighs.
    pub device_id: String,
    /// Its station.
    pub station_id: String,
    /// The batch of animals, where known.
    pub batch_id: Option<String>,
    /// What it has come to.
    pub status: Status,
    /// When it began.
    pub start_at: Timestamp,
    /// When it ended; there exactly when it is finalized.
    pub end_at: Option<Timestamp>,
    /// The earliest weight, kg.
    pub initial_weight_kg: Option<f64>,
    /// The latest weight of a finalized session, kg.
    pub final_weight_kg: Option<f64>,
    /// Different images bound to it.
    pub image_count: i32,
    /// The newest inference result.
    pub inference_result_id: Option<String>,
    /// The event that created it.
    pub created_event_id: String,
    /// The event that finalized it.
    pub finalized_event_id: Option<String>,
    /// Children that came after the end.
    pub amendment_count: i32,
    /// Trace id of the create.
    pub trace_id: Option<String>,
    /// When the row was made.
    pub created_at: Timestamp,
    /// When it last changed.
    pub updated_at: Timestamp,
}

/// Who sent something to a session, as far as it is known.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sender {
    /// The station.
    pub station_id: Option<String>,
    /// The device.
    pub device_id: Option<String>,
    /// The farm where it may act.
    pub farm_id: Option<String>,
    /// The barn where it may act.
    pub barn_id: Option<String>,
}

impl Sender {
    /// Whether a session may take what it sent: its station decides where it names one, else its device, else its farm
    /// and barn. Who names nothing is taken: an operator, a device in compat mode, an engine that did not note it.
    #[must_use]
    pub fn fits(&self, session: &Session) -> bool {
        let is = |named: &Option<String>, own: &str| named.as_deref() == Some(own);
        match &self.station_id {
            Some(station_id) => *station_id == session.station_id,
            None => {
                is(&self.device_id, &session.device_id) || self.is_at_home(&session.farm_id, &session.barn_id)
            }
        }
    }

    /// Whether it may act in this barn, as far as it is known.
    #[must_use]
    pub fn is_at_home(&self, farm_id: &str, barn_id: &str) -> bool {
        let agrees = |named: &Option<String>, own: &str| named.as_deref().is_none_or(|named| named == own);
        agrees(&self.farm_id, farm_id) && agrees(&self.barn_id, barn_id)
    }
}

/// A weight of a session.
#[derive(Clone, Debug, PartialEq)]
pub struct Weight {
    /// Row id.
    pub id: Uuid,
    /// Tenant.
    pub tenant_id: String,
    /// Session.
    pub session_id: String,
    /// Who sent it.
    pub sender: Sender,
    /// A finite number, kg.
    pub weight_kg: f64,
    /// When the scale said so.
    pub occurred_at: Timestamp,
    /// Its event, unique in the tenant.
    pub event_id: String,
    /// Trace id.
    pub trace_id: Option<String>,
    /// Whether its session is there.
    pub is_bound: bool,
    /// When the row was made.
    pub created_at: Timestamp,
}

/// An image bound to a session, or to be bound once that is there.
#[derive(Clone, Debug, PartialEq)]
pub struct Image {
    /// Row id.
    pub id: Uuid,
    /// Tenant.
    pub tenant_id: String,
    /// Session.
    pub session_id: String,
    /// The media id, unique in the session.
    pub media_object_id: String,
    /// Who sent it.
    pub sender: Sender,
    /// When it was taken.
    pub occurred_at: Timestamp,
    /// Its event, unique in the tenant.
    pub event_id: String,
    /// Which camera.
    pub image_role: Option<String>,
    /// Hex SHA-256 that the device declares.
    pub sha256: Option<String>,
    /// Trace id.
    pub trace_id: Option<String>,
    /// Whether its session is there.
    pub is_bound: bool,
    /// When the row was made.
    pub created_at: Timestamp,
}

/// A finalize that waits for its session.
#[derive(Clone, Debug, PartialEq)]
pub struct Parked {
    /// Tenant.
    pub tenant_id: String,
    /// Its event.
    pub event_id: String,
    /// The session it waits for.
    pub session_id: String,
    /// The device that sent it, where known.
    pub device_id: Option<String>,
    /// The station that sent it; over HTTP none is named.
    pub station_id: Option<String>,
    /// When it happened, by the device's clock.
    pub occurred_at: Timestamp,
    /// When it arrived.
    pub received_at: Timestamp,
    /// When it is given up.
    pub expires_at: Timestamp,
    /// Trace id.
    pub trace_id: Option<String>,
    /// Everything that applying it needs.
    pub body: Value,
}

// An advisory lock and not a row lock, since the session may not be there yet.
const LOCK: &str = "-- session_lock
SELECT pg_advisory_xact_lock(hashtextextended('session/' || $1 || '/' || $2, 0))";

/// Waits until nobody else changes the session, which need not be there yet, and keeps others out to the end of the
/// caller's transaction.
///
/// # Errors
/// When the database fails.
pub async fn lock(conn: &Conn, tenant_id: &str, session_id: &str) -> Result<(), StoreError> {
    conn.query_one(LOCK, &[&tenant_id, &session_id]).await?;
    Ok(())
}

// The columns of a session, under the alias `s`.
macro_rules! session_columns {
    () => {
        "s.id, s.tenant_id, s.session_id, s.farm_id, s.barn_id, s.device_id, s.station_id, s.batch_id, s.status, s.start_at,
    s.end_at, s.initial_weight_kg, s.final_weight_kg, s.image_count, s.inference_result_id, s.created_event_id,
    s.finalized_event_id, s.amendment_count, s.trace_id, s.created_at, s.updated_at"
    };
}
use session_columns;

impl From<&Row> for Session {
    fn from(row: &Row) -> Self {
        Self {
            id: row.get("id"),
            tenant_id: row.get("tenant_id"),
            session_id: row.get("session_id"),
            farm_id: row.get("farm_id"),
            barn_id: row.get("barn_id"),
            device_id: row.get("device_id"),
            station_id: row.get("station_id"),
            batch_id: row.get("batch_id"),
            status: Status::parse(row.get("status")),
            start_at: row.get("start_at"),
            end_at: row.get("end_at"),
            initial_weight_kg: row.get("initial_weight_kg"),
            final_weight_kg: row.get("final_weight_kg"),
            image_count: row.get("image_count"),
            inference_result_id: row.get("inference_result_id"),
            created_event_id: row.get("created_event_id"),
            finalized_event_id: row.get("finalized_event_id"),
            amendment_count: row.get("amendment_count"),
            trace_id: row.get("trace_id"),
            created_at: row.get("created_at"),
            updated_at: row.get("updated_at"),
        }
    }
}

const FIND: &str = concat!(
    "-- session_find\nSELECT ",
    session_columns!(),
    " FROM weight_sessions AS s WHERE s.tenant_id = $1 AND s.session_id = $2"
);

/// A session, if it is there.
///
/// # Errors
/// When the database fails.
pub async fn find(conn: &Conn, tenant_id: &str, session_id: &str) -> Result<Option<Session>, StoreError> {
    Ok(conn.query_opt(FIND, &[&tenant_id, &session_id]).await?.as_ref().map(Session::from))
}

const PUT: &str = "-- session_put
INSERT INTO weight_sessions (id, tenant_id, session_id, farm_id, barn_id, device_id, station_id, batch_id, status, start_at,
    end_at, initial_weight_kg, final_weight_kg, image_count, inference_result_id, created_event_id, finalized_event_id,
    amendment_count, trace_id, created_at, updated_at)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20, $21)
ON CONFLICT (tenant_id, session_id) DO UPDATE
SET status = excluded.status, end_at = excluded.end_at, initial_weight_kg = excluded.initial_weight_kg,
    final_weight_kg = excluded.final_weight_kg, image_count = excluded.image_count,
    inference_result_id = excluded.inference_result_id, finalized_event_id = excluded.finalized_event_id,
    amendment_count = excluded.amendment_count, updated_at = excluded.updated_at";

/// Writes a session, new or changed, as part of the caller's transaction, which holds its lock.
///
/// # Errors
/// When the database fails.
pub async fn put(conn: &Conn, session: &Session) -> Result<(), StoreError> {
    let params: [&(dyn ToSql + Sync); 21] = [
        &session.id,
        &session.tenant_id,
        &session.session_id,
        &session.farm_id,
        &session.barn_id,
        &session.device_id,
        &session.station_id,
        &session.batch_id,
        &session.status.as_str(),
        &session.start_at,
        &session.end_at,
        &session.initial_weight_kg,
        &session.final_weight_kg,
        &session.image_count,
        &session.inference_result_id,
        &session.created_event_id,
        &session.finalized_event_id,
        &session.amendment_count,
        &session.trace_id,
        &session.created_at,
        &session.updated_at,
    ];
    conn.execute(PUT, &params).await?;
    Ok(())
}

const ATTACH_RESULT: &str = "-- session_attach_result
UPDATE weight_sessions SET inference_result_id = $3, updated_at = $4
WHERE tenant_id = $1 AND session_id = $2 AND status <> 'cancelled'";

/// Notes the newest inference result of a session, as part of the caller's transaction, which holds the session's
/// lock. `false`: there is no such session, or it is cancelled.
///
/// # Errors
/// When the database fails.
pub async fn attach_result(
    conn: &Conn,
    tenant_id: &str,
    session_id: &str,
    result_id: Uuid,
    now: Timestamp,
) -> Result<bool, StoreError> {
    let result_id = result_id.to_string();
    Ok(conn.execute(ATTACH_RESULT, &[&tenant_id, &session_id, &result_id, &now]).await? > 0)
}

// An image goes to no session of another barn, and to none that a sender from elsewhere names.
const ADOPT_IMAGE: &str = "-- session_adopt_image
UPDATE media_objects AS o SET session_id = $2
WHERE o.tenant_id = $1 AND o.id = $3 AND o.session_id IS NULL
    AND ($4::text IS NULL OR o.farm_id = $4) AND ($5::text IS NULL OR o.barn_id = $5)
    AND NOT EXISTS (SELECT FROM weight_sessions AS s WHERE s.tenant_id = $1 AND s.session_id = $2
        AND (s.farm_id, s.barn_id) <> (o.farm_id, o.barn_id))";

// A result is younger than its image, whichever clocks told their times: that keeps the search short.
const ADOPT_RESULTS: &str = "-- session_adopt_results
UPDATE inference_results AS r SET session_id = $2 FROM media_objects AS o
WHERE o.tenant_id = $1 AND o.id = $3 AND r.tenant_id = $1 AND r.device_id = o.device_id
    AND r.occurred_at >= o.created_at - interval '1 day' AND r.media_id = o.id::text AND r.session_id IS NULL";

const ATTACH_ADOPTED: &str = "-- session_attach_adopted
UPDATE weight_sessions AS s SET updated_at = $3, inference_result_id = (
    SELECT r.id::text FROM inference_results AS r WHERE r.tenant_id = $1 AND r.session_id = $2
        AND (r.farm_id, r.barn_id) = (s.farm_id, s.barn_id)
    ORDER BY r.occurred_at DESC, r.id DESC LIMIT 1)
WHERE s.tenant_id = $1 AND s.session_id = $2 AND s.status <> 'cancelled' AND s.inference_result_id IS NULL";

/// Gives an image that was completed without a session to this one, with what was read from it, as part of the caller's
/// transaction, which holds the session's lock. An image that is not complete yet finds its session when it is. `false`:
/// it has a session, is not there, or lies in another barn than the session or its sender.
///
/// # Errors
/// When the database fails.
pub async fn adopt_image(
    conn: &Conn,
    (tenant_id, session_id): (&str, &str),
    media_id: Uuid,
    sender: &Sender,
    now: Timestamp,
) -> Result<bool, StoreError> {
    // Either this waits for the completion, or the completion waits for this and then finds the binding.
    media::lock_upload(conn, tenant_id, media_id).await?;
    let Sender { farm_id, barn_id, .. } = sender;
    if conn.execute(ADOPT_IMAGE, &[&tenant_id, &session_id, &media_id, farm_id, barn_id]).await? == 0 {
        return Ok(false);
    }
    if conn.execute(ADOPT_RESULTS, &[&tenant_id, &session_id, &media_id]).await? > 0 {
        conn.execute(ATTACH_ADOPTED, &[&tenant_id, &session_id, &now]).await?;
    }
    Ok(true)
}

const IS_ELSEWHERE: &str = "-- session_is_elsewhere
SELECT EXISTS (SELECT FROM weight_sessions
    WHERE tenant_id = $1 AND session_id = $2 AND (farm_id, barn_id) <> ($3, $4))";

/// Whether a session is there and belongs to another barn than this one.
///
/// # Errors
/// When the database fails.
pub async fn is_elsewhere(
    conn: &Conn,
    (tenant_id, session_id): (&str, &str),
    farm_id: &str,
    barn_id: &str,
) -> Result<bool, StoreError> {
    Ok(conn.query_one(IS_ELSEWHERE, &[&tenant_id, &session_id, &farm_id, &barn_id]).await?.get(0))
}

const SESSION_OF_IMAGE: &str = "-- session_of_image
SELECT session_id FROM session_media_bindings WHERE tenant_id = $1 AND media_object_id = $2
    AND (farm_id IS NULL OR farm_id = $3) AND (barn_id IS NULL OR barn_id = $4)
ORDER BY created_at, id LIMIT 1";

/// The session to which an event of the barn bound an image first.
///
/// # Errors
/// When the database fails.
pub async fn of_image(
    conn: &Conn,
    tenant_id: &str,
    media_id: Uuid,
    farm_id: &str,
    barn_id: &str,
) -> Result<Option<String>, StoreError> {
    let params: [&(dyn ToSql + Sync); 4] = [&tenant_id, &media_id.to_string(), &farm_id, &barn_id];
    Ok(conn.query_opt(SESSION_OF_IMAGE, &params).await?.map(|row| row.get(0)))
}

const NEWEST_RESULT: &str = "-- session_newest_result
SELECT id::text FROM inference_results WHERE tenant_id = $1 AND session_id = $2 AND farm_id = $3 AND barn_id = $4
ORDER BY occurred_at DESC, id DESC LIMIT 1";

/// The newest inference result of a session of this barn, which came before the session itself.
///
/// # Errors
/// When the database fails.
pub async fn newest_result(
    conn: &Conn,
    (tenant_id, session_id): (&str, &str),
    farm_id: &str,
    barn_id: &str,
) -> Result<Option<String>, StoreError> {
    let row = conn.query_opt(NEWEST_RESULT, &[&tenant_id, &session_id, &farm_id, &barn_id]).await?;
    Ok(row.map(|row| row.get(0)))
}

macro_rules! weight {
    ($name:literal, $where:literal) => {
        concat!(
            "-- ",
            $name,
            "\nSELECT id, tenant_id, session_id, station_id, weight_kg, occurred_at, event_id, trace_id, is_bound, created_at,
    device_id, farm_id, barn_id
FROM session_weights WHERE tenant_id = $1 AND ",
            $where
        )
    };
}

const WEIGHTS: &str = weight!("session_weights", "session_id = $2 ORDER BY occurred_at, id LIMIT $3");
const WEIGHT: &str = weight!("session_weight", "event_id = $2");
const FIRST_WEIGHT: &str =
    weight!("session_first_weight", "session_id = $2 AND is_bound ORDER BY occurred_at, id LIMIT 1");
const LAST_WEIGHT: &str =
    weight!("session_last_weight", "session_id = $2 AND is_bound ORDER BY occurred_at DESC, id DESC LIMIT 1");
const UNBOUND_WEIGHTS: &str =
    weight!("session_unbound_weights", "session_id = $2 AND NOT is_bound ORDER BY occurred_at, id");

fn sender(row: &Row) -> Sender {
    Sender {
        station_id: row.get("station_id"),
        device_id: row.get("device_id"),
        farm_id: row.get("farm_id"),
        barn_id: row.get("barn_id"),
    }
}

fn weight(row: &Row) -> Weight {
    Weight {
        id: row.get(0),
        tenant_id: row.get(1),
        session_id: row.get(2),
        sender: sender(row),
        weight_kg: row.get(4),
        occurred_at: row.get(5),
        event_id: row.get(6),
        trace_id: row.get(7),
        is_bound: row.get(8),
        created_at: row.get(9),
    }
}

/// The weights of a session, bound or not, by time; at most [`WEIGHTS_SHOWN_MAX`].
///
/// # Errors
/// When the database fails.
pub async fn weights(conn: &Conn, tenant_id: &str, session_id: &str) -> Result<Vec<Weight>, StoreError> {
    let rows = conn.query(WEIGHTS, &[&tenant_id, &session_id, &WEIGHTS_SHOWN_MAX]).await?;
    Ok(rows.iter().map(weight).collect())
}

/// The weight of an event, whichever session it belongs to.
///
/// # Errors
/// When the database fails.
pub async fn find_weight(conn: &Conn, tenant_id: &str, event_id: &str) -> Result<Option<Weight>, StoreError> {
    Ok(conn.query_opt(WEIGHT, &[&tenant_id, &event_id]).await?.as_ref().map(weight))
}

/// The earliest and the latest bound weight of a session.
///
/// # Errors
/// When the database fails.
pub async fn outer_weights(
    conn: &Conn,
    tenant_id: &str,
    session_id: &str,
) -> Result<Option<[Weight; 2]>, StoreError> {
    let first = conn.query_opt(FIRST_WEIGHT, &[&tenant_id, &session_id]).await?;
    let last = conn.query_opt(LAST_WEIGHT, &[&tenant_id, &session_id]).await?;
    Ok(first.zip(last).map(|(first, last)| [weight(&first), weight(&last)]))
}

/// The weights that wait for their session, by time.
///
/// # Errors
/// When the database fails.
pub async fn unbound_weights(
    conn: &Conn,
    tenant_id: &str,
    session_id: &str,
) -> Result<Vec<Weight>, StoreError> {
    let rows = conn.query(UNBOUND_WEIGHTS, &[&tenant_id, &session_id]).await?;
    Ok(rows.iter().map(weight).collect())
}

const IS_CROWDED: &str = "-- session_is_crowded
SELECT greatest(
    (SELECT count(*) FROM (
        SELECT FROM session_weights WHERE tenant_id = $1 AND session_id = $2 AND NOT is_bound LIMIT $3) AS weights),
    (SELECT count(*) FROM (
        SELECT FROM session_media_bindings WHERE tenant_id = $1 AND session_id = $2 AND NOT is_bound LIMIT $3) AS images),
    (SELECT count(*) FROM (
        SELECT FROM session_parked WHERE tenant_id = $1 AND session_id = $2 LIMIT $3) AS parked)
) >= $3";

/// Whether as much of one kind waits for a session as may ([`CHILDREN_WAITING_MAX`]).
///
/// # Errors
/// When the database fails.
pub async fn is_crowded(conn: &Conn, tenant_id: &str, session_id: &str) -> Result<bool, StoreError> {
    Ok(conn.query_one(IS_CROWDED, &[&tenant_id, &session_id, &CHILDREN_WAITING_MAX]).await?.get(0))
}

const DROP_UNBOUND: &str = "-- session_drop_unbound
WITH weights AS (
    DELETE FROM session_weights WHERE tenant_id = $1 AND session_id = $2 AND NOT is_bound AND created_at <= $3)
DELETE FROM session_media_bindings WHERE tenant_id = $1 AND session_id = $2 AND NOT is_bound AND created_at <= $3";

/// Removes the children of a session that came until then and still wait for it, as part of the caller's transaction,
/// which holds the session's lock and keeps them elsewhere.
///
/// # Errors
/// When the database fails.
pub async fn drop_unbound(
    conn: &Conn,
    tenant_id: &str,
    session_id: &str,
    until: Timestamp,
) -> Result<(), StoreError> {
    conn.execute(DROP_UNBOUND, &[&tenant_id, &session_id, &until]).await?;
    Ok(())
}

const PUT_WEIGHT: &str = "-- session_put_weight
INSERT INTO session_weights (id, tenant_id, session_id, station_id, weight_kg, occurred_at, event_id, trace_id, is_bound,
    created_at, device_id, farm_id, barn_id)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13)";

/// Writes a new weight, as part of the caller's transaction.
///
/// # Errors
/// When the database fails; also when its event has a weight.
pub async fn put_weight(conn: &Conn, weight: &Weight) -> Result<(), StoreError> {
    let sender = &weight.sender;
    let params: [&(dyn ToSql + Sync); 13] = [
        &weight.id,
        &weight.tenant_id,
        &weight.session_id,
        &sender.station_id,
        &weight.weight_kg,
        &weight.occurred_at,
        &weight.event_id,
        &weight.trace_id,
        &weight.is_bound,
        &weight.created_at,
        &sender.device_id,
        &sender.farm_id,
        &sender.barn_id,
    ];
    conn.execute(PUT_WEIGHT, &params).await?;
    Ok(())
}

macro_rules! image {
    ($name:literal, $where:literal) => {
        concat!(
            "-- ",
            $name,
            "\nSELECT id, tenant_id, session_id, media_object_id, station_id, occurred_at, event_id, image_role, trace_id,
    is_bound, created_at, sha256, device_id, farm_id, barn_id
FROM session_media_bindings WHERE tenant_id = $1 AND ",
            $where
        )
    };
}

const IMAGE: &str = image!(
    "session_image",
    "((session_id = $2 AND media_object_id = $3) OR event_id = $4) ORDER BY event_id = $4 LIMIT 1"
);
const UNBOUND_IMAGES: &str =
    image!("session_unbound_images", "session_id = $2 AND NOT is_bound ORDER BY occurred_at, id");

fn image(row: &Row) -> Image {
    Image {
        id: row.get(0),
        tenant_id: row.get(1),
        session_id: row.get(2),
        media_object_id: row.get(3),
        sender: sender(row),
        occurred_at: row.get(5),
        event_id: row.get(6),
        image_role: row.get(7),
        trace_id: row.get(8),
        is_bound: row.get(9),
        created_at: row.get(10),
        sha256: row.get(11),
    }
}

/// An image of a session, or else that of an event.
///
/// # Errors
/// When the database fails.
pub async fn find_image(
    conn: &Conn,
    tenant_id: &str,
    session_id: &str,
    media_object_id: &str,
    event_id: &str,
) -> Result<Option<Image>, StoreError> {
    let row = conn.query_opt(IMAGE, &[&tenant_id, &session_id, &media_object_id, &event_id]).await?;
    Ok(row.as_ref().map(image))
}

/// The images that wait for their session, by time.
///
/// # Errors
/// When the database fails.
pub async fn unbound_images(
    conn: &Conn,
    tenant_id: &str,
    session_id: &str,
) -> Result<Vec<Image>, StoreError> {
    let rows = conn.query(UNBOUND_IMAGES, &[&tenant_id, &session_id]).await?;
    Ok(rows.iter().map(image).collect())
}

const PUT_IMAGE: &str = "-- session_put_image
INSERT INTO session_media_bindings (id, tenant_id, session_id, media_object_id, station_id, occurred_at, event_id, image_role,
    trace_id, is_bound, created_at, sha256, device_id, farm_id, barn_id)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15)";

/// Writes a new image, as part of the caller's transaction.
///
/// # Errors
/// When the database fails; also when its event or its session has it.
pub async fn put_image(conn: &Conn, image: &Image) -> Result<(), StoreError> {
    let sender = &image.sender;
    let params: [&(dyn ToSql + Sync); 15] = [
        &image.id,
        &image.tenant_id,
        &image.session_id,
        &image.media_object_id,
        &sender.station_id,
        &image.occurred_at,
        &image.event_id,
        &image.image_role,
        &image.trace_id,
        &image.is_bound,
        &image.created_at,
        &image.sha256,
        &sender.device_id,
        &sender.farm_id,
        &sender.barn_id,
    ];
    conn.execute(PUT_IMAGE, &params).await?;
    Ok(())
}

const DECLARE: &str = "-- session_declare_hash
UPDATE session_media_bindings SET sha256 = $4
WHERE tenant_id = $1 AND session_id = $2 AND media_object_id = $3 AND sha256 IS NULL";

/// Notes the hash that a device declares of an image which it had announced without, as part of the caller's
/// transaction.
///
/// # Errors
/// When the database fails.
pub async fn declare_hash(
    conn: &Conn,
    tenant_id: &str,
    session_id: &str,
    media_object_id: &str,
    sha256: &str,
) -> Result<(), StoreError> {
    conn.execute(DECLARE, &[&tenant_id, &session_id, &media_object_id, &sha256]).await?;
    Ok(())
}

const DROP_FOREIGN: &str = "-- session_drop_foreign_children
WITH weights AS (DELETE FROM session_weights WHERE tenant_id = $1 AND session_id = $2 AND NOT is_bound AND id = ANY ($3))
DELETE FROM session_media_bindings WHERE tenant_id = $1 AND session_id = $2 AND NOT is_bound AND id = ANY ($3)";

const BIND: &str = "-- session_bind_children
WITH weights AS (
    UPDATE session_weights SET is_bound = true WHERE tenant_id = $1 AND session_id = $2 AND NOT is_bound)
UPDATE session_media_bindings SET is_bound = true WHERE tenant_id = $1 AND session_id = $2 AND NOT is_bound";

/// Binds what waited for a session and removes what others sent, the rows `foreign`, as part of the caller's
/// transaction, which holds the session's lock.
///
/// # Errors
/// When the database fails.
pub async fn bind_children(
    conn: &Conn,
    tenant_id: &str,
    session_id: &str,
    foreign: &[Uuid],
) -> Result<(), StoreError> {
    if !foreign.is_empty() {
        conn.execute(DROP_FOREIGN, &[&tenant_id, &session_id, &foreign]).await?;
    }
    conn.execute(BIND, &[&tenant_id, &session_id]).await?;
    Ok(())
}

const PARK: &str = "-- session_park
INSERT INTO session_parked (tenant_id, event_id, session_id, device_id, station_id, occurred_at, received_at, expires_at,
    trace_id, body_json)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)
ON CONFLICT (tenant_id, event_id) DO NOTHING";

/// Lets a finalize wait for its session, as part of the caller's transaction.
///
/// # Errors
/// When the database fails.
pub async fn park(conn: &Conn, parked: &Parked) -> Result<(), StoreError> {
    let params: [&(dyn ToSql + Sync); 10] = [
        &parked.tenant_id,
        &parked.event_id,
        &parked.session_id,
        &parked.device_id,
        &parked.station_id,
        &parked.occurred_at,
        &parked.received_at,
        &parked.expires_at,
        &parked.trace_id,
        &parked.body,
    ];
    conn.execute(PARK, &params).await?;
    Ok(())
}

const PARKED: &str = "-- session_parked
SELECT tenant_id, event_id, session_id, device_id, station_id, occurred_at, received_at, expires_at, trace_id, body_json
FROM session_parked WHERE tenant_id = $1 AND session_id = $2 ORDER BY received_at, event_id";

/// What waits for a session, in the order of arrival.
///
/// # Errors
/// When the database fails.
pub async fn parked(conn: &Conn, tenant_id: &str, session_id: &str) -> Result<Vec<Parked>, StoreError> {
    let rows = conn.query(PARKED, &[&tenant_id, &session_id]).await?;
    let parked = |row: &Row| Parked {
        tenant_id: row.get(0),
        event_id: row.get(1),
        session_id: row.get(2),
        device_id: row.get(3),
        station_id: row.get(4),
        occurred_at: row.get(5),
        received_at: row.get(6),
        expires_at: row.get(7),
        trace_id: row.get(8),
        body: row.get(9),
    };
    Ok(rows.iter().map(parked).collect())
}

const UNPARK: &str = "-- session_unpark
DELETE FROM session_parked WHERE tenant_id = $1 AND event_id = ANY ($2)";

/// Ends the waiting of these events, as part of the caller's transaction.
///
/// # Errors
/// When the database fails.
pub async fn unpark(conn: &Conn, tenant_id: &str, event_ids: &[String]) -> Result<(), StoreError> {
    conn.execute(UNPARK, &[&tenant_id, &event_ids]).await?;
    Ok(())
}

/// A session that something is due for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Due {
    /// Tenant.
    pub tenant_id: String,
    /// Session.
    pub session_id: String,
}

const REDATE: &str = "-- session_redate_parked
UPDATE session_parked SET expires_at = $1 WHERE expires_at > $2";

/// Lets finalizes that were parked by a clock far ahead wait from now on, for `wait`, as long as any other. Returns how
/// many.
///
/// # Errors
/// When the database fails.
pub async fn redate_parked(conn: &Conn, now: Timestamp, wait: Duration) -> Result<u64, StoreError> {
    let until = now.checked_add_signed(wait).unwrap_or(Timestamp::MAX_UTC);
    conn.execute(REDATE, &[&until, &farthest(now, wait)]).await
}

const EXPIRED: &str = "-- session_expired_finalizes
SELECT DISTINCT tenant_id, session_id FROM (
    SELECT tenant_id, session_id FROM session_parked WHERE expires_at <= $1 ORDER BY expires_at LIMIT $2) AS expired";

// The time of the oldest child finds its session; how many children it has is of no matter here.
const FORSAKEN: &str = "-- session_forsaken
SELECT DISTINCT f.tenant_id, f.session_id FROM (
    (SELECT w.tenant_id, w.session_id FROM session_weights AS w WHERE NOT w.is_bound AND w.created_at <= $1
        ORDER BY w.created_at LIMIT $2)
    UNION ALL
    (SELECT m.tenant_id, m.session_id FROM session_media_bindings AS m WHERE NOT m.is_bound AND m.created_at <= $1
        ORDER BY m.created_at LIMIT $2)
) AS f
WHERE NOT EXISTS (SELECT FROM weight_sessions AS s WHERE s.tenant_id = f.tenant_id AND s.session_id = f.session_id)";

/// Sessions that did not come although children have waited for them since then or longer, at most so many.
///
/// # Errors
/// When the database fails.
pub async fn forsaken(conn: &Conn, since: Timestamp, limit: i64) -> Result<Vec<Due>, StoreError> {
    Ok(conn.query(FORSAKEN, &[&since, &limit]).await?.iter().map(due).collect())
}

const IDLE: &str = "-- session_idle
SELECT tenant_id, session_id FROM weight_sessions WHERE status = 'created' AND updated_at <= $1 LIMIT $2";

/// Sessions for which a finalize has waited too long, at most so many.
///
/// # Errors
/// When the database fails.
pub async fn expired(conn: &Conn, now: Timestamp, limit: i64) -> Result<Vec<Due>, StoreError> {
    Ok(conn.query(EXPIRED, &[&now, &limit]).await?.iter().map(due).collect())
}

/// Open sessions that have not changed since, at most so many.
///
/// # Errors
/// When the database fails.
pub async fn idle(conn: &Conn, since: Timestamp, limit: i64) -> Result<Vec<Due>, StoreError> {
    Ok(conn.query(IDLE, &[&since, &limit]).await?.iter().map(due).collect())
}

fn due(row: &Row) -> Due {
    Due { tenant_id: row.get(0), session_id: row.get(1) }
}

/// Finalizes and children that wait for their session.
///
/// # Errors
/// When the database fails.
pub async fn waiting(conn: &Conn) -> Result<[i64; 2], StoreError> {
    let parked = tally::read_kind(conn, Counted::SessionParked, tally::ALL, None).await?.rows;
    let weights = tally::read_kind(conn, Counted::SessionWeights, tally::UNBOUND, None).await?.rows;
    let images = tally::read_kind(conn, Counted::SessionImages, tally::UNBOUND, None).await?.rows;
    Ok([parked, weights + images])
}
