//! Images that may go, uploads that never came, and files that no row knows. The file goes first, then the row.
//!
//! The age of an image counts from when it came in. What its device or a wrong clock says of its capture is no measure.

use tokio_postgres::Row;
use uuid::Uuid;

use super::unacked;
use crate::clock::Timestamp;
use crate::id;
use crate::store::{Conn, StoreError};

/// Images looked at by one statement: few, since what holds an image is asked right before its file goes.
pub const IMAGES_PER_CHUNK: i64 = 50;

macro_rules! due {
    ($name:literal, $and:literal) => {
        concat!(
            "-- ",
            $name,
            "
SELECT m.tenant_id, m.id, m.object_key, m.path, m.created_at, m.size_bytes FROM media_objects AS m
WHERE m.created_at < $1 AND (m.created_at, m.tenant_id, m.id) > ($2, $3, $4)
    AND NOT EXISTS (
        SELECT 1 FROM weight_sessions AS s
        WHERE s.tenant_id = m.tenant_id AND s.session_id = m.session_id AND s.status = 'created')
    AND NOT EXISTS (
        SELECT 1 FROM session_media_bindings AS b JOIN weight_sessions AS s USING (tenant_id, session_id)
        WHERE b.tenant_id = m.tenant_id AND b.media_object_id = m.id::text AND s.status = 'created')",
            $and,
            "
ORDER BY m.created_at, m.tenant_id, m.id LIMIT $5"
        )
    };
}

pub(super) const DUE: &str = due!("retention_due_images", "");

// Before its time an image goes only when its session is finalized and nobody is about to look at it.
pub(super) const DUE_EARLY: &str = due!(
    "retention_due_images_early",
    "
    AND (EXISTS (
        SELECT 1 FROM weight_sessions AS s
        WHERE s.tenant_id = m.tenant_id AND s.session_id = m.session_id AND s.status = 'finalized')
    OR EXISTS (
        SELECT 1 FROM session_media_bindings AS b JOIN weight_sessions AS s USING (tenant_id, session_id)
        WHERE b.tenant_id = m.tenant_id AND b.media_object_id = m.id::text AND s.status = 'finalized'))
    AND NOT EXISTS (
        SELECT 1 FROM inference_jobs AS j
        WHERE j.tenant_id = m.tenant_id AND j.media_id = m.id AND j.status IN ('pending', 'processing'))"
);

pub(super) const DELETE: &str = "-- retention_delete_images
DELETE FROM media_objects AS m USING unnest($1::text[], $2::uuid[]) AS gone (tenant_id, id)
WHERE m.tenant_id = gone.tenant_id AND m.id = gone.id";

pub(super) const UNKNOWN: &str = "-- retention_unknown_files
SELECT f.place FROM unnest($1::text[]) AS f (place)
WHERE NOT EXISTS (SELECT 1 FROM media_objects AS m WHERE m.bucket = $2 AND m.object_key = f.place)
    AND NOT EXISTS (SELECT 1 FROM media_objects AS m WHERE m.path = f.place)
    AND NOT EXISTS (SELECT 1 FROM media_uploads AS u WHERE u.object_key = f.place)
    AND NOT EXISTS (SELECT 1 FROM media_uploads AS u WHERE u.path = f.place)";

pub(super) const PLACES: &str = "-- retention_places
SELECT DISTINCT tenant_id, farm_id, barn_id FROM device_allowlist";

macro_rules! expired {
    () => {
        "u.status = 'expired' AND u.expires_at < $1
    AND NOT EXISTS (SELECT 1 FROM media_objects AS m WHERE m.tenant_id = u.tenant_id AND m.id = u.media_id)"
    };
}

pub(super) const EXPIRED: &str = concat!(
    "-- retention_expired_uploads
SELECT u.tenant_id, u.media_id, u.object_key, u.path, u.expires_at, u.size_bytes FROM media_uploads AS u
WHERE (u.expires_at, u.tenant_id, u.media_id) > ($2, $3, $4) AND ",
    expired!(),
    "
ORDER BY u.expires_at, u.tenant_id, u.media_id LIMIT $5"
);

pub(super) const COUNT_EXPIRED: &str =
    concat!("-- retention_count_expired_uploads\nSELECT count(*) FROM media_uploads AS u WHERE ", expired!());

pub(super) const DELETE_EXPIRED: &str = "-- retention_delete_expired_uploads
DELETE FROM media_uploads AS u USING unnest($1::text[], $2::uuid[]) AS gone (tenant_id, media_id)
WHERE u.tenant_id = gone.tenant_id AND u.media_id = gone.media_id AND u.status = 'expired'";

/// Which images are meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Choice {
    /// All that came in before this time.
    Old {
        /// Exclusive.
        before: Timestamp,
    },
    /// Those of finalized sessions, because room is needed.
    Early {
        /// The present.
        now: Timestamp,
    },
}

/// An image that may go, or an upload that never became one.
#[derive(Clone, Debug)]
pub struct Image {
    /// Tenant.
    pub tenant_id: String,
    /// Its id.
    pub id: Uuid,
    /// Its key.
    pub object_key: String,
    /// Where it lies below the root of a directory.
    pub path: Option<String>,
    /// Its size in bytes, where known.
    pub size_bytes: u64,
}

impl Image {
    fn of(row: &Row) -> Self {
        Self {
            tenant_id: row.get(0),
            id: row.get(1),
            object_key: row.get(2),
            path: row.get(3),
            size_bytes: row.get::<_, Option<i64>>(5).map_or(0, i64::unsigned_abs),
        }
    }
}

/// Where a chunk ends.
#[derive(Clone, Debug)]
pub struct Place(Timestamp, String, Uuid);

impl Place {
    /// Before the first image.
    #[must_use]
    pub fn start() -> Self {
        Self::at(Timestamp::UNIX_EPOCH - chrono::Duration::days(365 * 100))
    }

    /// Before the first image that came in then or later.
    #[must_use]
    pub fn at(created_at: Timestamp) -> Self {
        Self(created_at, String::new(), Uuid::nil())
    }
}

/// Images that may go, oldest first.
#[derive(Debug)]
pub struct Chunk {
    /// Without those whose event waits for the cloud.
    pub images: Vec<Image>,
    /// Where the next chunk begins; `None` when this was the last one.
    pub next: Option<Place>,
}

/// Looks at one chunk of images.
///
/// # Errors
/// When the database fails.
pub async fn due(conn: &Conn, choice: Choice, after: &Place) -> Result<Chunk, StoreError> {
    let (sql, before) = match choice {
        Choice::Old { before } => (DUE, before),
        Choice::Early { now } => (DUE_EARLY, now),
    };
    let mut chunk = chunk(conn, sql, before, after).await?;
    let tenants: Vec<&str> = chunk.images.iter().map(|image| image.tenant_id.as_str()).collect();
    let events: Vec<Uuid> = chunk.images.iter().map(|image| id::media_stored_event_id(image.id)).collect();
    let held = unacked(conn, &tenants, &events).await?;
    chunk.images.retain(|image| !held.contains(&id::media_stored_event_id(image.id)));
    Ok(chunk)
}

async fn chunk(conn: &Conn, sql: &str, before: Timestamp, after: &Place) -> Result<Chunk, StoreError> {
    let Place(at, tenant_id, id) = after;
    let rows = conn.query(sql, &[&before, at, tenant_id, id, &IMAGES_PER_CHUNK]).await?;
    let is_last = rows.len() < usize::try_from(IMAGES_PER_CHUNK).unwrap_or(usize::MAX);
    let next = rows.last().filter(|_| !is_last).map(|row| Place(row.get(4), row.get(0), row.get(1)));
    Ok(Chunk { images: rows.iter().map(Image::of).collect(), next })
}

/// Deletes the rows of images whose files are gone.
///
/// # Errors
/// When the database fails.
pub async fn delete(conn: &Conn, images: &[&Image]) -> Result<u64, StoreError> {
    let tenants: Vec<&str> = images.iter().map(|image| image.tenant_id.as_str()).collect();
    let ids: Vec<Uuid> = images.iter().map(|image| image.id).collect();
    conn.execute(DELETE, &[&tenants, &ids]).await
}

/// Which of these files of a directory, or objects of a bucket, have no row, neither as an image nor as an upload.
///
/// # Errors
/// When the database fails.
pub async fn unknown(conn: &Conn, places: &[&str], bucket: &str) -> Result<Vec<String>, StoreError> {
    let rows = conn.query(UNKNOWN, &[&places, &bucket]).await?;
    Ok(rows.iter().map(|row| row.get(0)).collect())
}

pub(super) const ANY: &str = "-- retention_any_image
SELECT EXISTS (SELECT 1 FROM media_objects)";

/// Whether there is any image.
///
/// # Errors
/// When the database fails.
pub async fn any(conn: &Conn) -> Result<bool, StoreError> {
    Ok(conn.query_one(ANY, &[]).await?.get(0))
}

/// Where devices are that we let in; a farm or barn that is not named may be any.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Barn {
    /// Tenant.
    pub tenant_id: String,
    /// Farm.
    pub farm_id: Option<String>,
    /// Barn.
    pub barn_id: Option<String>,
}

/// The places of all devices that we let in.
///
/// # Errors
/// When the database fails.
pub async fn places(conn: &Conn) -> Result<Vec<Barn>, StoreError> {
    let barn = |row: &Row| Barn { tenant_id: row.get(0), farm_id: row.get(1), barn_id: row.get(2) };
    Ok(conn.query(PLACES, &[]).await?.iter().map(barn).collect())
}

/// Looks at one chunk of uploads that expired before a time and never became an image.
///
/// # Errors
/// When the database fails.
pub async fn expired(conn: &Conn, before: Timestamp, after: &Place) -> Result<Chunk, StoreError> {
    chunk(conn, EXPIRED, before, after).await
}

/// How many there are.
///
/// # Errors
/// When the database fails.
pub async fn count_expired(conn: &Conn, before: Timestamp) -> Result<u64, StoreError> {
    let count: i64 = conn.query_one(COUNT_EXPIRED, &[&before]).await?.get(0);
    Ok(count.unsigned_abs())
}

/// Deletes the rows of uploads whose files are gone, unless they were completed after all.
///
/// # Errors
/// When the database fails.
pub async fn delete_expired(conn: &Conn, uploads: &[&Image]) -> Result<u64, StoreError> {
    let tenants: Vec<&str> = uploads.iter().map(|upload| upload.tenant_id.as_str()).collect();
    let ids: Vec<Uuid> = uploads.iter().map(|upload| upload.id).collect();
    conn.execute(DELETE_EXPIRED, &[&tenants, &ids]).await
}
