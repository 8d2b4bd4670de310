//! Images: uploads that were offered, and the objects they became.

use chrono::Duration;
use tokio_postgres::Row;
use tokio_postgres::types::{FromSql, ToSql, Type, accepts};
use uuid::Uuid;

use crate::clock::Timestamp;
use crate::clock::deadline::{due, farthest};
use crate::store::tally::{self, Counted};
use crate::store::{Conn, StoreError};

/// Every statement of this module.
pub const STATEMENTS: &[&str] = &[
    OFFER,
    UPLOAD,
    UPLOAD_OF_KEY,
    LOCK_UPLOAD,
    RECEIVED,
    CLAIM_DUE,
    SETTLE,
    EXPIRE,
    PUT_OBJECT,
    OBJECT,
    OBJECT_OF_KEY,
    SESSION,
    SESSION_HELD,
    DECLARED,
    DECLARE,
];

/// Where an upload stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UploadStatus {
    /// A URL was given out.
    Presigned,
    /// Its bytes came through this engine.
    Uploaded,
    /// It became an object.
    Completed,
    /// Its URL expired and nothing was there.
    Expired,
}

impl UploadStatus {
    /// The text in the database.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Presigned => "presigned",
            Self::Uploaded => "uploaded",
            Self::Completed => "completed",
            Self::Expired => "expired",
        }
    }

    fn of(text: &str) -> Self {
        let all = [Self::Presigned, Self::Uploaded, Self::Completed, Self::Expired];
        all.into_iter().find(|status| status.as_str() == text).expect("the table allows no other text")
    }
}

impl<'a> FromSql<'a> for UploadStatus {
    fn from_sql(kind: &Type, raw: &'a [u8]) -> Result<Self, Box<dyn std::error::Error + Sync + Send>> {
        <&str>::from_sql(kind, raw).map(Self::of)
    }

    accepts!(TEXT);
}

/// An upload that was offered to a device.
#[derive(Clone, Debug, PartialEq)]
pub struct Upload {
    /// The image's id.
    pub media_id: Uuid,
    /// Tenant.
    pub tenant_id: String,
    /// Farm.
    pub farm_id: String,
    /// Barn.
    pub barn_id: String,
    /// The camera.
    pub device_id: String,
    /// Its station, where the device said so.
    pub station_id: Option<String>,
    /// Its session, where the device said so.
    pub session_id: Option<String>,
    /// Bucket.
    pub bucket: String,
    /// Key.
    pub object_key: String,
    /// Type.
    pub content_type: String,
    /// Size, where the device said so.
    pub content_length: Option<i64>,
    /// When it was taken, where the device said so.
    pub captured_at: Option<Timestamp>,
    /// Trace id of the offer.
    pub trace_id: Option<String>,
    /// Where it stands.
    pub status: UploadStatus,
    /// Where it lies below the root, with the filesystem backend.
    pub path: Option<String>,
    /// Size of what this engine received.
    pub size_bytes: Option<i64>,
    /// Hex SHA-256 of what this engine received.
    pub sha256: Option<String>,
    /// When its URL expires.
    pub expires_at: Timestamp,
}

row_of! {
    Upload, upload_columns as "u":
    media_id, tenant_id, farm_id, barn_id, device_id, station_id, session_id, bucket, object_key, content_type,
    content_length, captured_at, trace_id, status, path, size_bytes, sha256, expires_at,
}

const OFFER: &str = "-- media_offer
INSERT INTO media_uploads (media_id, tenant_id, farm_id, barn_id, device_id, station_id, session_id, bucket, object_key,
    content_type, content_length, captured_at, trace_id, status, path, expires_at, created_at)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17)";

/// Writes an offered upload down.
///
/// # Errors
/// When the database fails.
pub async fn offer(conn: &Conn, upload: &Upload, now: Timestamp) -> Result<(), StoreError> {
    conn.execute(
        OFFER,
        &[
            &upload.media_id,
            &upload.tenant_id,
            &upload.farm_id,
            &upload.barn_id,
            &upload.device_id,
            &upload.station_id,
            &upload.session_id,
            &upload.bucket,
            &upload.object_key,
            &upload.content_type,
            &upload.content_length,
            &upload.captured_at,
            &upload.trace_id,
            &upload.status.as_str(),
            &upload.path,
            &upload.expires_at,
            &now,
        ],
    )
    .await?;
    Ok(())
}

const UPLOAD: &str = concat!(
    "-- media_upload
SELECT ",
    upload_columns!(),
    " FROM media_uploads AS u WHERE u.media_id = $1"
);

/// The upload of an image, whoever's it is: an upload URL names no tenant, and its signature says that it is ours.
///
/// # Errors
/// When the database fails.
pub async fn upload(conn: &Conn, media_id: Uuid) -> Result<Option<Upload>, StoreError> {
    Ok(conn.query_opt(UPLOAD, &[&media_id]).await?.as_ref().map(Upload::from))
}

const UPLOAD_OF_KEY: &str = concat!(
    "-- media_upload_of_key
SELECT ",
    upload_columns!(),
    " FROM media_uploads AS u WHERE u.bucket = $1 AND u.object_key = $2"
);

/// The upload under a key, whoever's it is.
///
/// # Errors
/// When the database fails.
pub async fn upload_of_key(
    conn: &Conn,
    bucket: &str,
    object_key: &str,
) -> Result<Option<Upload>, StoreError> {
    Ok(conn.query_opt(UPLOAD_OF_KEY, &[&bucket, &object_key]).await?.as_ref().map(Upload::from))
}

const LOCK_UPLOAD: &str = concat!(
    "-- media_lock_upload
SELECT ",
    upload_columns!(),
    " FROM media_uploads AS u WHERE u.tenant_id = $1 AND u.media_id = $2 FOR UPDATE"
);

/// The upload as it is now, which nobody else changes before the caller's transaction ends.
///
/// # Errors
/// When the database fails.
pub async fn lock_upload(conn: &Conn, tenant_id: &str, media_id: Uuid) -> Result<Option<Upload>, StoreError> {
    Ok(conn.query_opt(LOCK_UPLOAD, &[&tenant_id, &media_id]).await?.as_ref().map(Upload::from))
}

const RECEIVED: &str = "-- media_received
UPDATE media_uploads SET status = 'uploaded', size_bytes = $3, sha256 = $4, uploaded_at = $5, next_look_at = NULL
WHERE tenant_id = $1 AND media_id = $2 AND status <> 'completed'";

/// Notes what came through this engine, as part of the caller's transaction, which holds the upload's lock.
///
/// # Errors
/// When the database fails.
pub async fn received(
    conn: &Conn,
    upload: &Upload,
    size_bytes: i64,
    sha256: &str,
    now: Timestamp,
) -> Result<(), StoreError> {
    conn.execute(RECEIVED, &[&upload.tenant_id, &upload.media_id, &size_bytes, &sha256, &now]).await?;
    Ok(())
}

/// An upload that somebody should look at.
#[derive(Clone, Debug, PartialEq)]
pub struct DueUpload {
    /// The upload.
    pub upload: Upload,
    /// The session that an event of the device bound it to, and the trace id of that event.
    pub binding: Option<(String, Option<String>)>,
}

/// When uploads are due.
#[derive(Clone, Copy, Debug)]
pub struct Due {
    /// The present.
    pub now: Timestamp,
    /// How long received bytes wait for somebody to complete them.
    pub grace: Duration,
    /// How long a claimed upload is left alone.
    pub look_again: Duration,
    /// The longest that an offer is good for.
    pub offer_max: Duration,
    /// Uploads at most.
    pub uploads_max: i64,
}

const CLAIM_DUE: &str = concat!(
    "-- media_claim_due
WITH due AS (
    SELECT u.tenant_id, u.media_id, b.session_id AS bound_session_id, b.trace_id AS bound_trace_id
    FROM media_uploads AS u
    LEFT JOIN LATERAL (
        SELECT session_id, trace_id FROM session_media_bindings AS b
        WHERE b.tenant_id = u.tenant_id AND b.media_object_id = u.media_id::text
        ORDER BY b.created_at, b.id LIMIT 1) AS b ON true
    WHERE u.status IN ('presigned', 'uploaded') AND (u.next_look_at IS NULL OR ",
    due!("u.next_look_at", "$1", "$5"),
    ")
        AND (",
    due!("u.expires_at", "$1", "$6"),
    " OR (u.status = 'uploaded' AND ",
    due!("u.uploaded_at", "$2", "$7"),
    ") OR b.session_id IS NOT NULL)
    ORDER BY u.expires_at
    LIMIT $4
    FOR UPDATE OF u SKIP LOCKED)
UPDATE media_uploads AS u SET next_look_at = $3
FROM due WHERE u.tenant_id = due.tenant_id AND u.media_id = due.media_id
RETURNING ",
    upload_columns!(),
    ", due.bound_session_id, due.bound_trace_id"
);

/// Claims open uploads that can be completed without being asked, or have expired. Other replicas leave them alone for
/// a while, and so does a later claim: that is also the wait until the next look.
///
/// # Errors
/// When the database fails.
pub async fn claim_due(conn: &Conn, due: Due) -> Result<Vec<DueUpload>, StoreError> {
    let Due { now, grace, look_again, offer_max, uploads_max } = due;
    let params: [&(dyn ToSql + Sync); 7] = [
        &now,
        &(now - grace),
        &(now + look_again),
        &uploads_max,
        &farthest(now, look_again),
        &farthest(now, offer_max),
        &farthest(now, Duration::zero()),
    ];
    let rows = conn.query(CLAIM_DUE, &params).await?;
    let binding =
        |row: &Row| Some((row.get::<_, Option<String>>("bound_session_id")?, row.get("bound_trace_id")));
    Ok(rows.iter().map(|row| DueUpload { upload: Upload::from(row), binding: binding(row) }).collect())
}

const SETTLE: &str = "-- media_settle
UPDATE media_uploads SET status = 'completed', completed_at = $3
WHERE tenant_id = $1 AND media_id = $2 AND status <> 'completed'";

/// Ends an upload as completed, as part of the caller's transaction, which holds the upload's lock.
///
/// # Errors
/// When the database fails.
pub async fn settle(conn: &Conn, tenant_id: &str, media_id: Uuid, now: Timestamp) -> Result<(), StoreError> {
    conn.execute(SETTLE, &[&tenant_id, &media_id, &now]).await?;
    Ok(())
}

const EXPIRE: &str = "-- media_expire
UPDATE media_uploads SET status = 'expired' WHERE tenant_id = $1 AND media_id = $2 AND status = $3";

/// Ends an upload as expired, unless something has come since it was looked at. `false`: something has.
///
/// # Errors
/// When the database fails.
pub async fn expire(conn: &Conn, upload: &Upload) -> Result<bool, StoreError> {
    let params: [&(dyn ToSql + Sync); 3] = [&upload.tenant_id, &upload.media_id, &upload.status.as_str()];
    Ok(conn.execute(EXPIRE, &params).await? > 0)
}

/// A stored image.
#[derive(Clone, Debug, PartialEq)]
pub struct MediaObject {
    /// Its id.
    pub id: Uuid,
    /// Tenant.
    pub tenant_id: String,
    /// Farm.
    pub farm_id: String,
    /// Barn.
    pub barn_id: String,
    /// The camera.
    pub device_id: String,
    /// Its session, where known.
    pub session_id: Option<String>,
    /// Bucket.
    pub bucket: String,
    /// Key.
    pub object_key: String,
    /// Where it lies below the root, with the filesystem backend.
    pub path: Option<String>,
    /// Entity tag, without quotes.
    pub etag: Option<String>,
    /// Type.
    pub mime_type: String,
    /// Size.
    pub size_bytes: Option<i64>,
    /// Hex SHA-256, where known.
    pub sha256: Option<String>,
    /// Who computed it: `computed` here, or `declared` by the device.
    pub sha256_source: Option<String>,
    /// Hex SHA-256 that the device declared; of two that it did, the one that is not `sha256`.
    pub declared_sha256: Option<String>,
    /// When it was taken.
    pub captured_at: Timestamp,
    /// When it was completed.
    pub created_at: Timestamp,
}

row_of! {
    MediaObject, object_columns as "o":
    id, tenant_id, farm_id, barn_id, device_id, session_id, bucket, object_key, path, etag, mime_type,
    size_bytes, sha256, sha256_source, declared_sha256, captured_at, created_at,
}

impl MediaObject {
    /// With what the device has declared before the image was completed, earliest first.
    #[must_use]
    pub fn with_declared(self, hashes: &[String]) -> Self {
        let sha256 = self.sha256.or_else(|| hashes.first().cloned());
        let other = hashes.iter().find(|hash| Some(*hash) != sha256.as_ref());
        let declared_sha256 = other.or(hashes.first()).cloned();
        let declared = || sha256.is_some().then(|| "declared".to_owned());
        let sha256_source = self.sha256_source.or_else(declared);
        Self { sha256, sha256_source, declared_sha256, ..self }
    }

    /// Whether its bytes are not those that the device declared.
    #[must_use]
    pub fn is_other_than_declared(&self) -> bool {
        self.declared_sha256.is_some() && self.declared_sha256 != self.sha256
    }
}

const PUT_OBJECT: &str = "-- media_put_object
INSERT INTO media_objects (id, tenant_id, farm_id, barn_id, device_id, session_id, bucket, object_key, path, etag,
    mime_type, size_bytes, sha256, sha256_source, declared_sha256, captured_at, created_at)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17)
ON CONFLICT DO NOTHING";

/// Writes a completed image down, as part of the caller's transaction. `false`: its id or its key is there already.
///
/// # Errors
/// When the database fails.
pub async fn put_object(conn: &Conn, object: &MediaObject) -> Result<bool, StoreError> {
    let written = conn
        .execute(
            PUT_OBJECT,
            &[
                &object.id,
                &object.tenant_id,
                &object.farm_id,
                &object.barn_id,
                &object.device_id,
                &object.session_id,
                &object.bucket,
                &object.object_key,
                &object.path,
                &object.etag,
                &object.mime_type,
                &object.size_bytes,
                &object.sha256,
                &object.sha256_source,
                &object.declared_sha256,
                &object.captured_at,
                &object.created_at,
            ],
        )
        .await?;
    Ok(written > 0)
}

const OBJECT: &str = concat!(
    "-- media_object
SELECT ",
    object_columns!(),
    " FROM media_objects AS o WHERE o.id = $1 AND ($2::text IS NULL OR o.tenant_id = $2)"
);

/// An image by its id; without a tenant, whoever's it is.
///
/// # Errors
/// When the database fails.
pub async fn object(
    conn: &Conn,
    tenant_id: Option<&str>,
    id: Uuid,
) -> Result<Option<MediaObject>, StoreError> {
    Ok(conn.query(OBJECT, &[&id, &tenant_id]).await?.first().map(MediaObject::from))
}

const OBJECT_OF_KEY: &str = concat!(
    "-- media_object_of_key
SELECT ",
    object_columns!(),
    " FROM media_objects AS o WHERE o.bucket = $1 AND o.object_key = $2 AND ($3::text IS NULL OR o.tenant_id = $3)"
);

/// An image by its key; without a tenant, whoever's it is.
///
/// # Errors
/// When the database fails.
pub async fn object_of_key(
    conn: &Conn,
    tenant_id: Option<&str>,
    bucket: &str,
    object_key: &str,
) -> Result<Option<MediaObject>, StoreError> {
    Ok(conn
        .query_opt(OBJECT_OF_KEY, &[&bucket, &object_key, &tenant_id])
        .await?
        .as_ref()
        .map(MediaObject::from))
}

const SESSION: &str = "-- media_session
SELECT session_id FROM media_objects WHERE tenant_id = $1 AND id = $2";

// Only an image without a session is held: a session that has one may wait for it while the caller waits for the session.
const SESSION_HELD: &str = "-- media_session_held
SELECT session_id FROM media_objects WHERE tenant_id = $1 AND id = $2 FOR SHARE";

/// The session of an image. One that has none gets none before the caller's transaction ends.
///
/// # Errors
/// When the database fails.
pub async fn session(conn: &Conn, tenant_id: &str, id: Uuid) -> Result<Option<String>, StoreError> {
    for sql in [SESSION, SESSION_HELD] {
        let row = conn.query_opt(sql, &[&tenant_id, &id]).await?;
        if let Some(session_id) = row.and_then(|row| row.get(0)) {
            return Ok(Some(session_id));
        }
    }
    Ok(None)
}

const DECLARED: &str = "-- media_declared_hashes
SELECT sha256 FROM session_media_bindings
WHERE tenant_id = $1 AND media_object_id = $2 AND sha256 IS NOT NULL
GROUP BY sha256 ORDER BY min(created_at), sha256 LIMIT 2";

/// The different hashes that were declared of an image, earliest first; two at most, since one of two is wrong. To be
/// asked under the upload's lock, which [`declare_hash`] takes as well.
///
/// # Errors
/// When the database fails.
pub async fn declared_hashes(conn: &Conn, tenant_id: &str, id: Uuid) -> Result<Vec<String>, StoreError> {
    let rows = conn.query(DECLARED, &[&tenant_id, &id.to_string()]).await?;
    Ok(rows.iter().map(|row| row.get(0)).collect())
}

const DECLARE: &str = concat!(
    "-- media_declare_hash
UPDATE media_objects AS o SET declared_sha256 = $3, sha256 = coalesce(o.sha256, $3),
    sha256_source = coalesce(o.sha256_source, 'declared')
WHERE o.tenant_id = $1 AND o.id = $2 AND (o.declared_sha256 IS NULL OR o.declared_sha256 = o.sha256)
    AND o.declared_sha256 IS DISTINCT FROM $3
RETURNING ",
    object_columns!()
);

/// Notes with an image, when it is stored already, the hash that its device declares, as part of the caller's
/// transaction. The image, when that was news.
///
/// # Errors
/// When the database fails.
pub async fn declare_hash(
    conn: &Conn,
    tenant_id: &str,
    id: Uuid,
    sha256: &str,
) -> Result<Option<MediaObject>, StoreError> {
    // A completion that is under way does not see the binding; its image must be seen here.
    lock_upload(conn, tenant_id, id).await?;
    let row = conn.query_opt(DECLARE, &[&tenant_id, &id, &sha256]).await?;
    Ok(row.as_ref().map(MediaObject::from))
}

/// The images of a tenant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stats {
    /// How many there are.
    pub objects: i64,
    /// Their size.
    pub size_bytes: i64,
    /// When the last one was completed, which may be gone.
    pub last_created_at: Option<Timestamp>,
}

/// Counts the images of a tenant.
///
/// # Errors
/// When the database fails.
pub async fn stats(conn: &Conn, tenant_id: &str) -> Result<Stats, StoreError> {
    let tenants = [tenant_id.to_owned()];
    let tally = tally::read_kind(conn, Counted::MediaObjects, tally::ALL, Some(&tenants)).await?;
    Ok(Stats { objects: tally.rows, size_bytes: tally.bytes, last_created_at: tally.last_at })
}

/// The size of all images.
///
/// # Errors
/// When the database fails.
pub async fn stored_bytes(conn: &Conn) -> Result<i64, StoreError> {
    Ok(tally::read_kind(conn, Counted::MediaObjects, tally::ALL, None).await?.bytes)
}
