//! Inference: jobs that wait for a worker, and their results. Models that are tried before they are used are in [`trial`].

pub mod claim;
pub mod trial;

use serde_json::Value;
use tokio_postgres::types::ToSql;
use uuid::Uuid;

use crate::clock::Timestamp;
use crate::id;
use crate::store::page::{Page, Place, ROWS_PER_READ, Sieve, behind};
use crate::store::tally::{self, Counted};
use crate::store::{Conn, StoreError};

/// Every statement of this module.
pub const STATEMENTS: &[&str] = &[
    PUT_JOB,
    JOB,
    IMAGE,
    PUT_RESULT,
    RESULTS,
    RESULTS_OF_SESSION,
    RESULTS_OF_DEVICE,
    RESULT_PLACE,
    OLDEST_JOB,
    claim::CLAIM,
    claim::CLAIM_ONE,
    claim::EXPIRED,
    claim::HELD,
    claim::COMPLETE,
    claim::PUT_OFF,
    claim::GIVE_UP,
    claim::REDRIVE,
];

/// An image to be looked at by a model.
#[derive(Clone, Debug)]
pub struct NewJob<'a> {
    /// Tenant.
    pub tenant_id: &'a str,
    /// Farm of the image.
    pub farm_id: &'a str,
    /// Barn of the image.
    pub barn_id: &'a str,
    /// The camera.
    pub device_id: &'a str,
    /// The image.
    pub media_id: Uuid,
    /// Its key.
    pub object_key: &'a str,
    /// Its session; a job of a session goes before one of a monitoring image.
    pub session_id: Option<&'a str>,
    /// The model that is asked.
    pub model_version: &'a str,
    /// Trace id of what caused it.
    pub trace_id: Option<&'a str>,
}

impl NewJob<'_> {
    /// The job's id: one per image and model.
    #[must_use]
    pub fn id(&self) -> Uuid {
        id::inference_job_id(self.tenant_id, &self.media_id.to_string(), self.model_version)
    }
}

const PUT_JOB: &str = "-- inference_put_job
INSERT INTO inference_jobs (id, tenant_id, farm_id, barn_id, device_id, media_id, object_key, session_id, model_version,
    status, next_attempt_at, trace_id, created_at, updated_at)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, 'pending', $11, $10, $11, $11)
ON CONFLICT (tenant_id, id) DO NOTHING";

/// Writes a job down, as part of the caller's transaction, and returns its id. A job of the same image and model stays
/// as it is.
///
/// # Errors
/// When the database fails.
pub async fn put_job(conn: &Conn, job: &NewJob<'_>, now: Timestamp) -> Result<Uuid, StoreError> {
    let id = job.id();
    conn.execute(
        PUT_JOB,
        &[
            &id,
            &job.tenant_id,
            &job.farm_id,
            &job.barn_id,
            &job.device_id,
            &job.media_id,
            &job.object_key,
            &job.session_id,
            &job.model_version,
            &job.trace_id,
            &now,
        ],
    )
    .await?;
    Ok(id)
}

/// A job as it is stored.
#[derive(Clone, Debug)]
pub struct Job {
    /// Its id.
    pub id: Uuid,
    /// Tenant.
    pub tenant_id: String,
    /// Farm of the image.
    pub farm_id: String,
    /// Barn of the image.
    pub barn_id: String,
    /// The camera.
    pub device_id: String,
    /// The image.
    pub media_id: Uuid,
    /// Its key.
    pub object_key: String,
    /// Its session.
    pub session_id: Option<String>,
    /// The model that was asked.
    pub model_version: String,
    /// `pending`, `processing`, `completed` or `failed`.
    pub status: String,
    /// Why the last attempt failed.
    pub last_error: Option<String>,
    /// Its result, once there is one.
    pub result_id: Option<Uuid>,
    /// Trace id of what caused it.
    pub trace_id: Option<String>,
    /// When it was asked for.
    pub created_at: Timestamp,
    /// When it last changed.
    pub updated_at: Timestamp,
}

row_of! {
    Job, job_columns as "j":
    id, tenant_id, farm_id, barn_id, device_id, media_id, object_key, session_id, model_version, status,
    last_error, result_id, trace_id, created_at, updated_at,
}

pub(super) use job_columns;

const JOB: &str = concat!(
    "-- inference_job
SELECT ",
    job_columns!(),
    " FROM inference_jobs AS j WHERE j.id = $1 AND ($2::text IS NULL OR j.tenant_id = $2) LIMIT 1"
);

/// A job of a tenant, or of any.
///
/// # Errors
/// When the database fails.
pub async fn job(conn: &Conn, tenant_id: Option<&str>, id: Uuid) -> Result<Option<Job>, StoreError> {
    Ok(conn.query_opt(JOB, &[&id, &tenant_id]).await?.as_ref().map(Job::from))
}

const IMAGE: &str = "-- inference_image
SELECT id, farm_id, barn_id, device_id, session_id, object_key, path FROM media_objects
WHERE tenant_id = $1 AND (id = $2 OR ($2 IS NULL AND object_key = $3))";

/// A completed image, as far as inference needs it.
#[derive(Clone, Debug)]
pub struct Image {
    /// Its id.
    pub id: Uuid,
    /// Its farm.
    pub farm_id: String,
    /// Its barn.
    pub barn_id: String,
    /// The camera.
    pub device_id: String,
    /// Its session.
    pub session_id: Option<String>,
    /// Its key.
    pub object_key: String,
    /// Where it lies below the root, with the filesystem backend.
    pub path: Option<String>,
}

/// An image of a tenant by its id, or without one by its key.
///
/// # Errors
/// When the database fails.
pub async fn image(
    conn: &Conn,
    tenant_id: &str,
    media_id: Option<Uuid>,
    object_key: &str,
) -> Result<Option<Image>, StoreError> {
    let row = conn.query_opt(IMAGE, &[&tenant_id, &media_id, &object_key]).await?;
    Ok(row.map(|row| Image {
        id: row.get("id"),
        farm_id: row.get("farm_id"),
        barn_id: row.get("barn_id"),
        device_id: row.get("device_id"),
        session_id: row.get("session_id"),
        object_key: row.get("object_key"),
        path: row.get("path"),
    }))
}

/// What a model said of an image.
#[derive(Clone, Debug)]
pub struct NewResult {
    /// Kilograms; `None` when there is no bird.
    pub predicted_weight_kg: Option<f64>,
    /// From 0 to 1.
    pub confidence: f64,
    /// The model that said it.
    pub model_version: String,
    /// What else there is to say, an object.
    pub metadata: Value,
}

const PUT_RESULT: &str = "-- inference_put_result
INSERT INTO inference_results (id, tenant_id, farm_id, barn_id, device_id, session_id, media_id, predicted_weight_kg,
    confidence, model_version, occurred_at, created_at, metadata, event_id)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $11, $12, $1)
ON CONFLICT (tenant_id, id) DO NOTHING";

async fn put_result(conn: &Conn, job: &Job, result: &NewResult, now: Timestamp) -> Result<(), StoreError> {
    let media_id = job.media_id.to_string();
    let params: [&(dyn ToSql + Sync); 12] = [
        &job.id,
        &job.tenant_id,
        &job.farm_id,
        &job.barn_id,
        &job.device_id,
        &job.session_id,
        &media_id,
        &result.predicted_weight_kg,
        &result.confidence,
        &result.model_version,
        &now,
        &result.metadata,
    ];
    conn.execute(PUT_RESULT, &params).await?;
    Ok(())
}

/// A stored result.
#[derive(Clone, Debug)]
pub struct StoredResult {
    /// Its id, which is its job's.
    pub id: Uuid,
    /// Tenant.
    pub tenant_id: String,
    /// Farm.
    pub farm_id: String,
    /// Barn.
    pub barn_id: String,
    /// The camera.
    pub device_id: String,
    /// Its session.
    pub session_id: Option<String>,
    /// The image.
    pub media_id: Option<String>,
    /// Kilograms; `None` when there is no bird.
    pub predicted_weight_kg: Option<f64>,
    /// From 0 to 1.
    pub confidence: f64,
    /// The model that said it.
    pub model_version: String,
    /// When.
    pub occurred_at: Timestamp,
    /// When it was stored.
    pub created_at: Timestamp,
    /// What else there is to say.
    pub metadata: Option<Value>,
}

row_of! {
    StoredResult, result_columns as "r":
    id, tenant_id, farm_id, barn_id, device_id, session_id, media_id, predicted_weight_kg, confidence,
    model_version, occurred_at, created_at, metadata,
}

/// Which results are listed.
#[derive(Clone, Debug, Default)]
pub struct WantedResults<'a> {
    /// Their tenant; `None` means all.
    pub tenant_id: Option<&'a str>,
    /// Those of a session. What another barn named it for is not among them.
    pub session_id: Option<&'a str>,
    /// Those of a camera.
    pub device_id: Option<&'a str>,
    /// Of then or later.
    pub from: Option<Timestamp>,
    /// Of before.
    pub to: Option<Timestamp>,
}

impl StoredResult {
    /// Its place in the list.
    #[must_use]
    pub fn place(&self) -> Place {
        Place { at: self.occurred_at, id: self.id }
    }
}

macro_rules! results {
    ($name:literal, $where:literal) => {
        concat!(
            "-- ",
            $name,
            "\nSELECT ",
            result_columns!(),
            " FROM inference_results AS r
WHERE ",
            $where,
            " AND ($2::text IS NULL OR r.session_id = $2) AND ($3::text IS NULL OR r.device_id = $3)
    AND r.occurred_at >= coalesce($4::timestamptz, '-infinity') AND r.occurred_at < coalesce($5::timestamptz, 'infinity') AND ",
            behind!("r.occurred_at, r.id", "$6", "$7"),
            "
ORDER BY r.occurred_at DESC, r.id DESC LIMIT $8"
        )
    };
}
const RESULTS: &str = results!("inference_results", "r.tenant_id = $1");
const RESULTS_OF_SESSION: &str = results!(
    "inference_results_of_session",
    "r.session_id = $2 AND ($1::text IS NULL OR r.tenant_id = $1)
    AND NOT EXISTS (SELECT FROM weight_sessions AS s WHERE s.tenant_id = r.tenant_id AND s.session_id = r.session_id
        AND (s.farm_id, s.barn_id) <> (r.farm_id, r.barn_id))"
);
const RESULTS_OF_DEVICE: &str =
    results!("inference_results_of_device", "r.tenant_id = $1 AND r.device_id = $3");

/// Results behind a place, newest first. Of all tenants only those of a session.
///
/// # Errors
/// When the database fails.
pub async fn results(
    conn: &Conn,
    wanted: &WantedResults<'_>,
    after: Option<Place>,
    limit: i64,
) -> Result<Vec<StoredResult>, StoreError> {
    let sql = match (wanted.session_id, wanted.device_id) {
        (Some(_), _) => RESULTS_OF_SESSION,
        (None, Some(_)) => RESULTS_OF_DEVICE,
        (None, None) => RESULTS,
    };
    let WantedResults { tenant_id, session_id, device_id, from, to } = wanted;
    let (at, id) = Place::params(after);
    let rows = conn.query(sql, &[tenant_id, session_id, device_id, from, to, &at, &id, &limit]).await?;
    Ok(rows.iter().map(StoredResult::from).collect())
}

/// Those of the results behind a place that are no surer than this, as one page.
///
/// # Errors
/// When the database fails.
pub async fn unsure_results(
    conn: &Conn,
    wanted: &WantedResults<'_>,
    confidence_max: f64,
    after: Option<Place>,
    limit: i64,
) -> Result<Page<StoredResult>, StoreError> {
    let mut sieve = Sieve::new(after, limit);
    loop {
        let found = results(conn, wanted, sieve.after(), ROWS_PER_READ).await?;
        if sieve.take(found, |row| row.confidence <= confidence_max, StoredResult::place) {
            return Ok(sieve.page());
        }
    }
}

const RESULT_PLACE: &str = "-- inference_result_place
SELECT farm_id, barn_id FROM inference_results WHERE tenant_id = $1 AND id = $2";

/// Farm and barn of a result of a tenant.
///
/// # Errors
/// When the database fails.
pub async fn result_place(
    conn: &Conn,
    tenant_id: &str,
    id: Uuid,
) -> Result<Option<(String, String)>, StoreError> {
    let row = conn.query_opt(RESULT_PLACE, &[&tenant_id, &id]).await?;
    Ok(row.map(|row| (row.get(0), row.get(1))))
}

/// How many results a tenant has, and when the newest came.
///
/// # Errors
/// When the database fails.
pub async fn stats(conn: &Conn, tenant_id: &str) -> Result<(i64, Option<Timestamp>), StoreError> {
    let tenants = [tenant_id.to_owned()];
    let tally = tally::read_kind(conn, Counted::InferenceResults, tally::ALL, Some(&tenants)).await?;
    Ok((tally.rows, tally.last_at))
}

const OLDEST_JOB: &str = "-- inference_oldest_job
SELECT created_at FROM inference_jobs WHERE status IN ('pending', 'processing') ORDER BY created_at LIMIT 1";

/// How many jobs are not done, and when the oldest of them was asked for.
///
/// # Errors
/// When the database fails.
pub async fn queue(conn: &Conn) -> Result<(i64, Option<Timestamp>), StoreError> {
    let depth = tally::read_kind(conn, Counted::InferenceJobs, tally::OPEN, None).await?.rows;
    let oldest = conn.query_opt(OLDEST_JOB, &[]).await?;
    Ok((depth, oldest.map(|row| row.get(0))))
}
