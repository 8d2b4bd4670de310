//! Inference: jobs that wait for a worker, and their results.

use uuid::Uuid;

use crate::clock::Timestamp;
use crate::id;
use crate::store::{Conn, StoreError};

/// Every statement of this module.
pub const STATEMENTS: &[&str] = &[PUT_JOB];

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
