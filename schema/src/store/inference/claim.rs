//! The life of a job: claimed under a lease, then completed, put off or given up. Whoever settles names the attempt it
//! claimed, so that one whose lease ran out changes nothing.

use chrono::Duration;
use serde_json::json;
use tokio_postgres::Row;
use tokio_postgres::types::ToSql;
use uuid::Uuid;

use super::{Job, NewResult, job_columns, put_result};
use crate::clock::Timestamp;
use crate::clock::deadline::{due, farthest};
use crate::store::dead_letter::{self, DeadLetter, OpenLetter, Source};
use crate::store::outbox::put::{self, NewEvent};
use crate::store::{Conn, StoreError, media, session};

/// Why a dead letter of a job is closed.
const REDRIVEN: &str = "tried again";

/// A claimed job.
#[derive(Clone, Debug)]
pub struct Claim {
    /// The job.
    pub job: Job,
    /// Which attempt this is, from 1.
    pub attempt: i32,
}

/// The longest wait between two attempts at a job.
pub const WAIT_MAX: Duration = Duration::seconds(60);

/// Who claims, and for how long.
#[derive(Clone, Copy, Debug)]
pub struct Lease<'a> {
    /// A name that no other living engine has.
    pub holder: &'a str,
    /// Its length.
    pub length: Duration,
}

// A job of an open session goes first; the others in the order they became due; at last those that wait for a time that
// only a wrong clock can have set.
pub(super) const CLAIM: &str = concat!(
    "-- inference_claim
WITH interactive AS (
    SELECT j.tenant_id, j.id FROM inference_jobs AS j
    JOIN weight_sessions AS s ON s.tenant_id = j.tenant_id AND s.session_id = j.session_id AND s.status = 'created'
    WHERE j.status = 'pending' AND j.session_id IS NOT NULL AND j.next_attempt_at <= $1
    ORDER BY j.next_attempt_at LIMIT 1 FOR UPDATE OF j SKIP LOCKED
), other AS (
    SELECT tenant_id, id FROM inference_jobs
    WHERE status = 'pending' AND next_attempt_at <= $1 AND NOT EXISTS (SELECT FROM interactive)
    ORDER BY next_attempt_at LIMIT 1 FOR UPDATE SKIP LOCKED
), misdated AS (
    SELECT tenant_id, id FROM inference_jobs
    WHERE status = 'pending' AND next_attempt_at > $4 AND NOT EXISTS (SELECT FROM interactive)
        AND NOT EXISTS (SELECT FROM other)
    ORDER BY next_attempt_at LIMIT 1 FOR UPDATE SKIP LOCKED
)
UPDATE inference_jobs AS j
SET status = 'processing', attempt_count = j.attempt_count + 1, claimed_by = $2, lease_expires_at = $3, updated_at = $1
FROM (SELECT tenant_id, id FROM interactive UNION ALL SELECT tenant_id, id FROM other
    UNION ALL SELECT tenant_id, id FROM misdated) AS due
WHERE j.tenant_id = due.tenant_id AND j.id = due.id
RETURNING j.attempt_count, ",
    job_columns!()
);

pub(super) const CLAIM_ONE: &str = concat!(
    "-- inference_claim_one
UPDATE inference_jobs AS j
SET status = 'processing', attempt_count = j.attempt_count + 1, claimed_by = $2, lease_expires_at = $3, updated_at = $1
WHERE j.id = $4 AND (j.tenant_id, j.id) IN (
    SELECT tenant_id, id FROM inference_jobs
    WHERE tenant_id = $5 AND id = $4 AND status = 'pending' AND ",
    due!("next_attempt_at", "$1", "$6"),
    " FOR UPDATE SKIP LOCKED)
RETURNING j.attempt_count, ",
    job_columns!()
);

/// Claims the next due job, if there is one.
///
/// # Errors
/// When the database fails.
pub async fn claim(conn: &Conn, lease: Lease<'_>, now: Timestamp) -> Result<Option<Claim>, StoreError> {
    let (until, farthest) = (now + lease.length, farthest(now, WAIT_MAX));
    let row = conn.query_opt(CLAIM, &[&now, &lease.holder, &until, &farthest]).await?;
    Ok(row.map(|row| Claim::from(&row)))
}

/// Claims this job, if it is due and nobody has it.
///
/// # Errors
/// When the database fails.
pub async fn claim_one(
    conn: &Conn,
    (tenant_id, id): (&str, Uuid),
    lease: Lease<'_>,
    now: Timestamp,
) -> Result<Option<Claim>, StoreError> {
    let (until, farthest) = (now + lease.length, farthest(now, WAIT_MAX));
    let params: [&(dyn ToSql + Sync); 6] = [&now, &lease.holder, &until, &id, &tenant_id, &farthest];
    Ok(conn.query_opt(CLAIM_ONE, &params).await?.map(|row| Claim::from(&row)))
}

impl From<&Row> for Claim {
    fn from(row: &Row) -> Self {
        Self { job: Job::from(row), attempt: row.get("attempt_count") }
    }
}

pub(super) const EXPIRED: &str = concat!(
    "-- inference_expired
SELECT j.attempt_count, ",
    job_columns!(),
    " FROM inference_jobs AS j WHERE j.status = 'processing' AND ",
    due!("j.lease_expires_at", "$1", "$2"),
    " ORDER BY j.lease_expires_at LIMIT 100"
);

/// Jobs whose holder did not come back in time, the oldest first. A lease lasts for `lease_max` at most.
///
/// # Errors
/// When the database fails.
pub async fn expired(conn: &Conn, now: Timestamp, lease_max: Duration) -> Result<Vec<Claim>, StoreError> {
    Ok(conn.query(EXPIRED, &[&now, &farthest(now, lease_max)]).await?.iter().map(Claim::from).collect())
}

pub(super) const HELD: &str = concat!(
    "-- inference_held
SELECT j.attempt_count, ",
    job_columns!(),
    " FROM inference_jobs AS j WHERE j.status = 'processing' AND j.claimed_by = $1 LIMIT 100"
);

/// Jobs that this holder has in hand.
///
/// # Errors
/// When the database fails.
pub async fn held(conn: &Conn, holder: &str) -> Result<Vec<Claim>, StoreError> {
    Ok(conn.query(HELD, &[&holder]).await?.iter().map(Claim::from).collect())
}

pub(super) const COMPLETE: &str = "-- inference_complete
UPDATE inference_jobs SET status = 'completed', result_id = $2, claimed_by = NULL, lease_expires_at = NULL,
    last_error = NULL, updated_at = $4
WHERE tenant_id = $1 AND id = $2 AND attempt_count = $3 AND status = 'processing'";

/// Stores the result of a claimed job with its event, and notes it in its session: one transaction. The session is that
/// of the job, else the one that the image has got since, unless it belongs to another barn; the event is made with it.
/// `false`: the lease had run out and
/// somebody else has the job, so nothing was stored.
///
/// # Errors
/// When the database fails.
pub async fn complete(
    conn: &mut Conn,
    claim: &Claim,
    result: &NewResult,
    event: impl Fn(&Job) -> NewEvent,
    now: Timestamp,
) -> Result<bool, StoreError> {
    conn.transaction("inference_complete", async |tx| {
        let mut job = claim.job.clone();
        let is_mine = tx.execute(COMPLETE, &[&job.tenant_id, &job.id, &claim.attempt, &now]).await? > 0;
        if !is_mine {
            return Ok(false);
        }
        if job.session_id.is_none() {
            job.session_id = media::session(tx, &job.tenant_id, job.media_id).await?;
        }
        if let Some(session_id) = &job.session_id {
            session::lock(tx, &job.tenant_id, session_id).await?;
            let named = (job.tenant_id.as_str(), session_id.as_str());
            if session::is_elsewhere(tx, named, &job.farm_id, &job.barn_id).await? {
                job.session_id = None;
            }
        }
        put_result(tx, &job, result, now).await?;
        put::put(tx, &[event(&job)], now).await?;
        if let Some(session_id) = &job.session_id {
            session::attach_result(tx, &job.tenant_id, session_id, job.id, now).await?;
        }
        Ok(true)
    })
    .await
}

pub(super) const PUT_OFF: &str = "-- inference_put_off
UPDATE inference_jobs SET status = 'pending', attempt_count = attempt_count - $7::int, next_attempt_at = $4, last_error = $5, claimed_by = NULL,
    lease_expires_at = NULL, updated_at = $6
WHERE tenant_id = $1 AND id = $2 AND attempt_count = $3 AND status = 'processing'";

/// When a job is tried again.
#[derive(Clone, Copy, Debug)]
pub struct Again {
    /// Not before.
    pub at: Timestamp,
    /// Whether the attempt counts against the job.
    pub is_counted: bool,
}

/// Gives a claimed job back, to be tried again. `false`: it is no longer this claim's.
///
/// # Errors
/// When the database fails.
pub async fn put_off(
    conn: &Conn,
    claim: &Claim,
    error: &str,
    again: Again,
    now: Timestamp,
) -> Result<bool, StoreError> {
    let Job { tenant_id, id, .. } = &claim.job;
    let uncounted = i32::from(!again.is_counted);
    let params: [&(dyn ToSql + Sync); 7] =
        [tenant_id, id, &claim.attempt, &again.at, &error, &now, &uncounted];
    Ok(conn.execute(PUT_OFF, &params).await? > 0)
}

pub(super) const GIVE_UP: &str = "-- inference_give_up
UPDATE inference_jobs SET status = 'failed', last_error = $4, claimed_by = NULL, lease_expires_at = NULL, updated_at = $5
WHERE tenant_id = $1 AND id = $2 AND attempt_count = $3 AND status = 'processing'";

/// Gives a claimed job up and keeps a dead letter of it. `false`: it is no longer this claim's.
///
/// # Errors
/// When the database fails.
pub async fn give_up(
    conn: &mut Conn,
    claim: &Claim,
    reason: &str,
    error: &str,
    now: Timestamp,
) -> Result<bool, StoreError> {
    conn.transaction("inference_give_up", async |tx| {
        let job = &claim.job;
        let is_mine =
            tx.execute(GIVE_UP, &[&job.tenant_id, &job.id, &claim.attempt, &error, &now]).await? > 0;
        if is_mine {
            let (event_id, body) = (job.id.to_string(), body(job, error));
            let letter = DeadLetter {
                tenant_id: &job.tenant_id,
                source: Source::Inference,
                reason,
                event_type: "inference.job",
                event_id: &event_id,
                session_id: job.session_id.as_deref(),
                device_id: Some(&job.device_id),
                body,
                attempt_count: claim.attempt,
                trace_id: job.trace_id.as_deref(),
                first_seen_at: job.created_at,
            };
            dead_letter::put(tx, &letter, now).await?;
        }
        Ok(is_mine)
    })
    .await
}

fn body(job: &Job, error: &str) -> serde_json::Value {
    json!({
        "job_id": job.id, "tenant_id": job.tenant_id, "farm_id": job.farm_id, "barn_id": job.barn_id,
        "device_id": job.device_id, "media_id": job.media_id, "object_key": job.object_key,
        "session_id": job.session_id, "model_version": job.model_version, "error": error,
    })
}

pub(super) const REDRIVE: &str = concat!(
    "-- inference_redrive
UPDATE inference_jobs AS j SET status = 'pending', attempt_count = 0, next_attempt_at = $3, last_error = NULL, updated_at = $3
WHERE j.tenant_id = $1 AND j.id = $2 AND j.status = 'failed' RETURNING ",
    job_columns!()
);

/// Has the job of a dead letter tried again as if it were new, and closes the letter: one transaction. `None`: somebody
/// else was faster, or there is no such job any more.
///
/// # Errors
/// When the database fails.
pub async fn redrive(
    conn: &mut Conn,
    letter: &OpenLetter,
    now: Timestamp,
) -> Result<Option<Job>, StoreError> {
    let id: Option<Uuid> = letter.body["job_id"].as_str().and_then(|id| id.parse().ok());
    conn.transaction("inference_redrive", async |tx| {
        if !dead_letter::take(tx, letter.id).await? {
            return Ok(None);
        }
        let job = tx.query_opt(REDRIVE, &[&letter.tenant_id, &id, &now]).await?;
        match &job {
            Some(_) => dead_letter::settle(tx, letter.id, REDRIVEN, now).await?,
            None => dead_letter::failed_again(tx, letter.id).await?,
        }
        Ok(job.as_ref().map(Job::from))
    })
    .await
}
