//! Images that may go, and files that nobody knows. The file goes first, then the row.

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
SELECT m.tenant_id, m.id, m.object_key, m.path, m.captured_at, m.size_bytes FROM media_objects AS m
WHERE m.captured_at < $1 AND (m.captured_at, m.tenant_id, m.id) > ($2, $3, $4)
    AND NOT EXISTS (
        SELECT 1 FROM weight_sessions AS s
        WHERE s.tenant_id = m.tenant_id AND s.session_id = m.session_id AND s.status = 'created')
    AND NOT EXISTS (
        SELECT 1 FROM session_media_bindings AS b JOIN weight_sessions AS s USING (tenant_id, session_id)
        WHERE b.tenant_id = m.tenant_id AND b.media_object_id = m.id::text AND s.status = 'created')",
            $and,
            "
ORDER BY m.captured_at, m.tenant_id, m.id LIMIT $5"
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

// Others may keep their images in the same bucket: a key must belong to a barn whose devices we let in. A directory is ours.
pub(super) const STRANGERS: &str = "-- retention_strangers
SELECT f.place FROM unnest($1::text[]) AS f (place)
WHERE ($3 OR EXISTS (
        SELECT 1 FROM device_allowlist AS d
        WHERE starts_with(f.place, concat('tenants/', d.tenant_id, '/farms/', d.farm_id, '/barns/', d.barn_id, '/'))))
    AND NOT EXISTS (SELECT 1 FROM media_objects AS m WHERE m.bucket = $2 AND m.object_key = f.place)
    AND NOT EXISTS (SELECT 1 FROM media_objects AS m WHERE m.path = f.place)
    AND NOT EXISTS (SELECT 1 FROM media_uploads AS u WHERE u.object_key = f.place)
    AND NOT EXISTS (SELECT 1 FROM media_uploads AS u WHERE u.path = f.place)";

/// Which images are meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Choice {
    /// All that were captured before this time.
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

/// An image that may go.
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

/// Where a chunk ends.
#[derive(Clone, Debug)]
pub struct Place(Timestamp, String, Uuid);

impl Place {
    /// Before the first image.
    #[must_use]
    pub fn start() -> Self {
        Self::at(Timestamp::UNIX_EPOCH - chrono::Duration::days(365 * 100))
    }

    /// Before the first image that was captured then or later.
    #[must_use]
    pub fn at(captured_at: Timestamp) -> Self {
        Self(captured_at, String::new(), Uuid::nil())
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
    let Place(captured_at, tenant_id, id) = after;
    let rows = conn.query(sql, &[&before, captured_at, tenant_id, id, &IMAGES_PER_CHUNK]).await?;
    let tenants: Vec<&str> = rows.iter().map(|row| row.get(0)).collect();
    let events: Vec<Uuid> = rows.iter().map(|row| id::media_stored_event_id(row.get(1))).collect();
    let held = unacked(conn, &tenants, &events).await?;
    let is_last = rows.len() < usize::try_from(IMAGES_PER_CHUNK).unwrap_or(usize::MAX);
    let next = rows.last().filter(|_| !is_last).map(|row| Place(row.get(4), row.get(0), row.get(1)));
    let images = rows.iter().zip(&events).filter(|(_, event)| !held.contains(event)).map(|(row, _)| Image {
        tenant_id: row.get(0),
        id: row.get(1),
        object_key: row.get(2),
        path: row.get(3),
        size_bytes: row.get::<_, Option<i64>>(5).map_or(0, i64::unsigned_abs),
    });
    Ok(Chunk { images: images.collect(), next })
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

/// Which of these files of a directory, or objects of a bucket, have no row, neither as an image nor as an upload, although
/// they are of a barn of ours.
///
/// # Errors
/// When the database fails.
pub async fn strangers(
    conn: &Conn,
    places: &[&str],
    bucket: &str,
    is_directory: bool,
) -> Result<Vec<String>, StoreError> {
    let rows = conn.query(STRANGERS, &[&places, &bucket, &is_directory]).await?;
    Ok(rows.iter().map(|row| row.get(0)).collect())
}
