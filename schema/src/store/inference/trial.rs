//! Models that are tried on stored pictures before they are used. What they say is kept apart from the results of inference.

use tokio_postgres::types::ToSql;
use uuid::Uuid;

use crate::clock::Timestamp;
use crate::id;
use crate::store::session::mark::exclusions;
use crate::store::{Conn, StoreError};

/// Every statement of this module.
pub const STATEMENTS: &[&str] =
    &[IS_IDLE, PUT, END_OTHERS, FORGET, NEWEST, NEXT, PRESENT, ADD, ADVANCE, SET_STATE, FINDINGS];

/// Pictures of one trial at most.
pub const PICTURES_MAX: i32 = 50_000;
/// Trials that are kept, with what they said.
const TRIALS_KEPT: i64 = 3;

/// A trial.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trial {
    /// Its id.
    pub id: Uuid,
    /// Whose pictures; `None` means everybody's.
    pub tenant_id: Option<String>,
    /// Where the package lies.
    pub path: String,
    /// The version that its package says.
    pub model_version: String,
    /// Of its network, in hex.
    pub model_sha256: String,
    /// Of its network and its settings, in hex.
    pub package_sha256: String,
    /// `reading`, `done`, `broken` or `ended`.
    pub state: String,
    /// Why it is broken.
    pub fault: Option<String>,
    /// Pictures to look at.
    pub pictures_max: i32,
    /// Pictures that were looked at.
    pub pictures: i32,
    /// When the last of them was taken.
    pub captured_at: Option<Timestamp>,
    /// Which one that was.
    pub media_id: Option<Uuid>,
    /// When it began.
    pub created_at: Timestamp,
    /// When anything last came of it.
    pub updated_at: Timestamp,
}

row_of!(Trial, trial_columns as "t": id, tenant_id, path, model_version, model_sha256, package_sha256, state, fault, pictures_max,
    pictures, captured_at, media_id, created_at, updated_at);

const IS_IDLE: &str = "-- inference_is_idle
SELECT NOT EXISTS (SELECT FROM inference_jobs WHERE status IN ('pending', 'processing'))";

/// Whether no picture waits for the model in use.
///
/// # Errors
/// When the database fails.
pub async fn is_idle(conn: &Conn) -> Result<bool, StoreError> {
    Ok(conn.query_one(IS_IDLE, &[]).await?.get(0))
}

const PUT: &str = "-- model_trial_put
INSERT INTO model_trials (id, tenant_id, path, model_version, model_sha256, package_sha256, state, pictures_max, created_at,
    updated_at)
VALUES ($1, $2, $3, $4, $5, $6, 'reading', $7, $8, $8)";

const END_OTHERS: &str = "-- model_trials_end
UPDATE model_trials SET state = 'ended', updated_at = $1 WHERE state = 'reading'";

const FORGET: &str = "-- model_trials_forget
DELETE FROM model_trials WHERE id IN (SELECT id FROM model_trials ORDER BY created_at DESC, id DESC OFFSET $1)";

/// Begins a trial, as part of the caller's transaction. One that goes on ends, and the oldest are forgotten.
///
/// # Errors
/// When the database fails.
pub async fn put(conn: &Conn, trial: &Trial) -> Result<(), StoreError> {
    let Trial {
        id,
        tenant_id,
        path,
        model_version,
        model_sha256,
        package_sha256,
        pictures_max,
        created_at,
        ..
    } = trial;
    conn.execute(END_OTHERS, &[created_at]).await?;
    let params: [&(dyn ToSql + Sync); 8] =
        [id, tenant_id, path, model_version, model_sha256, package_sha256, pictures_max, created_at];
    conn.execute(PUT, &params).await?;
    conn.execute(FORGET, &[&TRIALS_KEPT]).await?;
    Ok(())
}

const NEWEST: &str = concat!(
    "-- model_trial\nSELECT ",
    trial_columns!(),
    " FROM model_trials AS t ORDER BY created_at DESC, id DESC LIMIT 1"
);

/// The newest trial.
///
/// # Errors
/// When the database fails.
pub async fn newest(conn: &Conn) -> Result<Option<Trial>, StoreError> {
    Ok(conn.query_opt(NEWEST, &[]).await?.as_ref().map(Trial::from))
}

/// A stored picture.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Picture {
    /// Its id.
    pub id: Uuid,
    /// Tenant.
    pub tenant_id: String,
    /// The camera.
    pub device_id: String,
    /// Its session.
    pub session_id: Option<String>,
    /// Its key.
    pub object_key: String,
    /// Where it lies below the root, with the filesystem backend.
    pub path: Option<String>,
    /// When it was taken.
    pub captured_at: Timestamp,
}

row_of!(Picture, picture_columns as "o": id, tenant_id, device_id, session_id, object_key, path, captured_at);

// Pictures that come later are of another trial.
const NEXT: &str = concat!("-- model_trial_next\nSELECT ", picture_columns!(), " FROM media_objects AS o
WHERE o.captured_at <= coalesce($2::timestamptz, $4) AND ($2 IS NULL OR (o.captured_at, o.id) < ($2, $3::uuid))
    AND ($1::text IS NULL OR o.tenant_id = $1)
ORDER BY o.captured_at DESC, o.id DESC LIMIT 1");

/// The newest picture that the trial has not seen yet.
///
/// # Errors
/// When the database fails.
pub async fn next(conn: &Conn, trial: &Trial) -> Result<Option<Picture>, StoreError> {
    let Trial { tenant_id, captured_at, media_id, created_at, .. } = trial;
    let row = conn.query_opt(NEXT, &[tenant_id, captured_at, media_id, created_at]).await?;
    Ok(row.as_ref().map(Picture::from))
}

/// What a model said of a picture.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Said {
    /// Kilograms; `None` when there is no bird.
    pub weight_kg: Option<f64>,
    /// Birds, where the model finds them one by one.
    pub birds: Option<i32>,
}

const PRESENT: &str = "-- model_trial_present
SELECT predicted_weight_kg, (metadata ->> 'count')::int FROM inference_results WHERE tenant_id = $1 AND id = $2";

/// What the version in use has said of a picture, if it has looked at it.
///
/// # Errors
/// When the database fails.
pub async fn present(conn: &Conn, picture: &Picture, version: &str) -> Result<Option<Said>, StoreError> {
    let id = id::inference_job_id(&picture.tenant_id, &picture.id.to_string(), version);
    let row = conn.query_opt(PRESENT, &[&picture.tenant_id, &id]).await?;
    Ok(row.map(|row| Said { weight_kg: row.get(0), birds: row.get(1) }))
}

const ADD: &str = "-- model_trial_add
INSERT INTO model_trial_pictures (trial_id, tenant_id, media_id, device_id, session_id, captured_at, candidate_kg, candidate_birds,
    failure, present_version, present_kg, present_birds)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12) ON CONFLICT DO NOTHING";

const ADVANCE: &str = "-- model_trial_advance
UPDATE model_trials SET pictures = pictures + 1, captured_at = $3, media_id = $4, updated_at = $5
WHERE id = $1 AND state = 'reading' AND pictures = $2";

/// Keeps what was said of the next picture of a trial, and goes on behind it, as part of the caller's transaction. `false`
/// when somebody else has looked at it, or the trial has ended: then nothing is to be kept.
///
/// # Errors
/// When the database fails.
pub async fn add(
    conn: &Conn,
    (trial, picture): (&Trial, &Picture),
    candidate: &Result<Said, String>,
    present: Option<(&str, &Said)>,
    now: Timestamp,
) -> Result<bool, StoreError> {
    let advanced =
        conn.execute(ADVANCE, &[&trial.id, &trial.pictures, &picture.captured_at, &picture.id, &now]).await?;
    if advanced == 0 {
        return Ok(false);
    }
    let said = candidate.as_ref().ok();
    let failure = candidate.as_ref().err();
    let params: [&(dyn ToSql + Sync); 12] = [
        &trial.id,
        &picture.tenant_id,
        &picture.id,
        &picture.device_id,
        &picture.session_id,
        &picture.captured_at,
        &said.and_then(|said| said.weight_kg),
        &said.and_then(|said| said.birds),
        &failure,
        &present.map(|(version, _)| version),
        &present.and_then(|(_, said)| said.weight_kg),
        &present.and_then(|(_, said)| said.birds),
    ];
    conn.execute(ADD, &params).await?;
    Ok(true)
}

const SET_STATE: &str = "-- model_trial_set_state
UPDATE model_trials SET state = $2, fault = $3, updated_at = $4 WHERE id = $1 AND state = 'reading'";

/// Ends a trial that goes on: `done`, `broken` with its reason, or `ended`. Says whether it went on.
///
/// # Errors
/// When the database fails.
pub async fn set_state(
    conn: &Conn,
    id: Uuid,
    (state, fault): (&str, Option<&str>),
    now: Timestamp,
) -> Result<bool, StoreError> {
    Ok(conn.execute(SET_STATE, &[&id, &state, &fault, &now]).await? == 1)
}

/// A picture of a trial.
#[derive(Clone, Debug, PartialEq)]
pub struct Finding {
    /// Tenant.
    pub tenant_id: String,
    /// The picture.
    pub media_id: Uuid,
    /// The camera.
    pub device_id: String,
    /// Its session.
    pub session_id: Option<String>,
    /// What the candidate says.
    pub candidate_kg: Option<f64>,
    /// How many birds it sees.
    pub candidate_birds: Option<i32>,
    /// Why it says nothing.
    pub failure: Option<String>,
    /// The version in use, when it has looked at the picture.
    pub present_version: Option<String>,
    /// What it says.
    pub present_kg: Option<f64>,
    /// How many birds it sees.
    pub present_birds: Option<i32>,
    /// What the scale said of the weighing, unless a person has excluded it.
    pub scale_kg: Option<f64>,
}

row_of!(Finding, finding_columns as "p": tenant_id, media_id, device_id, session_id, candidate_kg, candidate_birds, failure,
    present_version, present_kg, present_birds, scale_kg);

const FINDINGS: &str = concat!("-- model_trial_findings\nSELECT ", finding_columns!(), " FROM (
    SELECT r.tenant_id, r.media_id, r.device_id, r.session_id, r.candidate_kg, r.candidate_birds, r.failure, r.present_version,
        r.present_kg, r.present_birds,
        CASE WHEN x.is_whole OR (x.is_part AND l.weight_kg IS NULL) THEN NULL ELSE coalesce(l.weight_kg, s.final_weight_kg) END
            AS scale_kg
    FROM model_trial_pictures AS r
    LEFT JOIN weight_sessions AS s ON s.tenant_id = r.tenant_id AND s.session_id = r.session_id
    ", exclusions!(), "
    WHERE r.trial_id = $1) AS p
ORDER BY p.tenant_id, p.media_id LIMIT $2");

/// Everything that a trial found.
///
/// # Errors
/// When the database fails.
pub async fn findings(conn: &Conn, trial_id: Uuid) -> Result<Vec<Finding>, StoreError> {
    let rows = conn.query(FINDINGS, &[&trial_id, &i64::from(PICTURES_MAX)]).await?;
    Ok(rows.iter().map(Finding::from).collect())
}
