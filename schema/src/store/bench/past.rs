//! Rows of the past, for measuring how retention deletes them: many of each kind, and some that must stay.

use chrono::{Duration, NaiveDate};
use uuid::Uuid;

use super::literal;
use crate::clock::Timestamp;
use crate::store::partition::acked_table;
use crate::store::{Conn, StoreError};
use crate::wire::event::TELEMETRY_INGESTED;

/// Bytes of each image, as its row has it.
pub const IMAGE_BYTES: usize = 1024;

// Row i of $4 happened $3 microseconds after row i - 1, and the first one at $2. $1 is the tenant.
macro_rules! past {
    ($name:literal, $into:literal, $select:literal) => {
        concat!(
            "-- bench_past_",
            $name,
            "\nINSERT INTO ",
            $into,
            " SELECT ",
            $select,
            " FROM (SELECT i, $1::text AS tenant, $2::timestamptz + (i - 1) * $3::bigint * interval '1 microsecond' AS at
                FROM generate_series(1, $4::bigint) AS i) AS r"
        )
    };
}

pub(super) const READINGS: &str = past!(
    "readings",
    "telemetry_raw (id, tenant_id, farm_id, barn_id, device_id, event_id, metric_type, metric_value, unit,
        occurred_at, ingested_at, trace_id)",
    "gen_random_uuid(), tenant, 'f-001', 'b-001', 'd-' || i % 1000, gen_random_uuid()::text, 'temperature',
        20 + i % 1000 / 100.0, 'celsius', at, at, 'tr-' || gen_random_uuid()"
);

pub(super) const EVENTS: &str = past!(
    "events",
    "device_events (id, tenant_id, farm_id, barn_id, device_id, event_id, event_type, occurred_at, ingested_at,
        payload_json)",
    "gen_random_uuid(), tenant, 'f-001', 'b-001', 'd-' || i % 1000, gen_random_uuid()::text, 'door.opened', at, at,
        '{\"door\": 1}'::jsonb"
);

pub(super) const AGGREGATES: &str = past!(
    "aggregates",
    "telemetry_agg (id, tenant_id, device_id, \"window\", bucket_start_at, bucket_end_at, metric_type, avg_value,
        min_value, max_value, count, created_at)",
    "gen_random_uuid(), tenant, 'd-' || i, '1m', date_trunc('minute', at), date_trunc('minute', at) + interval '1 minute',
        'temperature', 20, 19, 21, 12, at"
);

pub(super) const MARKS: &str = past!(
    "marks",
    "ingress_dedupe (tenant_id, event_id, first_seen_at, expires_at, topic, hash)",
    "tenant, gen_random_uuid()::text, at - interval '72 hours', at,
        'iot/telemetry/' || tenant || '/f-001/b-001/d-' || i % 1000 || '/temperature', md5(i::text) || md5(i::text)"
);

pub(super) const REFUSALS: &str = past!(
    "refusals",
    "ingress_rejects (id, reason, topic, tenant_id, device_id, size_bytes, sha256, rejected_at)",
    "gen_random_uuid(), 'invalid_json', 'iot/telemetry/' || tenant || '/f-001/b-001/d-1/temperature', tenant, 'd-1', 100,
        md5(i::text) || md5(i::text), at"
);

pub(super) const UPLOADS: &str = past!(
    "uploads",
    "media_uploads (media_id, tenant_id, farm_id, barn_id, device_id, bucket, object_key, content_type, status,
        expires_at, completed_at, created_at)",
    "gen_random_uuid(), tenant, 'f-001', 'b-001', 'wv-001', 'farmiq-media',
        'tenants/' || tenant || '/uploads/' || gen_random_uuid() || '.jpg', 'image/jpeg', 'completed', at, at, at"
);

pub(super) const LETTERS: &str = past!(
    "letters",
    "dead_letters (id, tenant_id, source, reason, event_type, event_id, body_json, first_seen_at, dead_at, redriven_at)",
    "gen_random_uuid(), tenant, 'session', 'conflict', 'session.finalized', gen_random_uuid()::text, '{}'::jsonb, at, at,
        at"
);

// Two images of each session, both bound to it.
pub(super) const IMAGES: &str = "-- bench_past_images
WITH sessions AS (
    INSERT INTO weight_sessions (id, tenant_id, session_id, farm_id, barn_id, device_id, station_id, status, start_at,
        created_event_id, created_at, updated_at, end_at, finalized_event_id)
    SELECT gen_random_uuid(), $1::text, $5::text || '-' || i, 'f-001', 'b-001', 'wv-001', 'st-01', $5, $2::timestamptz, 'e',
        $2, $2, CASE WHEN $5 = 'finalized' THEN $2 END, CASE WHEN $5 = 'finalized' THEN 'e' END
    FROM generate_series(0, ($4::bigint - 1) / 2) AS i
), images AS (
    INSERT INTO media_objects (id, tenant_id, farm_id, barn_id, device_id, session_id, bucket, object_key, path, mime_type,
        size_bytes, captured_at, created_at)
    SELECT gen_random_uuid(), tenant, 'f-001', 'b-001', 'wv-001', session, 'farmiq-media',
        'tenants/' || tenant || '/' || session || '/' || i || '.jpg', tenant || '/f-001/b-001/' || session || '/' || i || '.jpg',
        'image/jpeg', $6::bigint, at, at
    FROM (SELECT i, $1 AS tenant, $5 || '-' || i / 2 AS session, $2 + i * $3::bigint * interval '1 microsecond' AS at
        FROM generate_series(0, $4 - 1) AS i) AS r
    RETURNING id, tenant_id, session_id, captured_at, path
), bindings AS (
    INSERT INTO session_media_bindings (id, tenant_id, session_id, media_object_id, occurred_at, event_id, is_bound, created_at)
    SELECT gen_random_uuid(), tenant_id, session_id, id::text, captured_at, 'b-' || id, true, captured_at FROM images
)
SELECT path FROM images";

pub(super) const REFUSED_EVENT: &str = "-- bench_past_refused_event
INSERT INTO sync_outbox (id, tenant_id, device_id, event_type, occurred_at, payload_json, status, failed_at)
VALUES ($1, $2, 'd-1', $3, $4, '{}', 'failed', $4)";

pub(super) const SKIP_AGGREGATION: &str = "-- bench_past_skip_aggregation
UPDATE telemetry_agg_progress SET closed_until = $1, ingested_until = $1";

pub(super) const IMAGE_COUNT: &str = "-- bench_past_image_count
SELECT count(*) FROM media_objects WHERE tenant_id = $1";

/// Rows that are all alike but for their time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Old {
    /// Readings.
    Readings,
    /// Generic events of devices.
    Events,
    /// Minutes, each of a device of its own.
    Aggregates,
    /// Dedupe marks, by their expiry.
    Marks,
    /// Refused messages.
    Refusals,
    /// Completed uploads.
    Uploads,
    /// Dead letters, by the time at which they were applied again.
    Letters,
}

impl Old {
    fn sql(self) -> &'static str {
        match self {
            Self::Readings => READINGS,
            Self::Events => EVENTS,
            Self::Aggregates => AGGREGATES,
            Self::Marks => MARKS,
            Self::Refusals => REFUSALS,
            Self::Uploads => UPLOADS,
            Self::Letters => LETTERS,
        }
    }
}

/// How many rows, of whom, and when.
#[derive(Clone, Copy, Debug)]
pub struct Span<'a> {
    /// Tenant of all.
    pub tenant: &'a str,
    /// Time of the first one.
    pub begins_at: Timestamp,
    /// From one to the next.
    pub step: Duration,
    /// How many.
    pub rows: i64,
}

impl Span<'_> {
    fn step_micros(&self) -> i64 {
        self.step.num_microseconds().unwrap_or(1)
    }
}

/// Adds rows of a kind and returns how many.
///
/// # Errors
/// When the database fails.
pub async fn fill(conn: &Conn, old: Old, span: &Span<'_>) -> Result<u64, StoreError> {
    conn.execute(old.sql(), &[&span.tenant, &span.begins_at, &span.step_micros(), &span.rows]).await
}

/// Adds images that are bound to sessions, two to each, and returns the paths of their files, which are the caller's work.
///
/// # Errors
/// When the database fails.
pub async fn fill_images(conn: &Conn, span: &Span<'_>, is_open: bool) -> Result<Vec<String>, StoreError> {
    let status = if is_open { "created" } else { "finalized" };
    let size_bytes = i64::try_from(IMAGE_BYTES).expect("an image is small");
    let rows = conn
        .query(
            IMAGES,
            &[&span.tenant, &span.begins_at, &span.step_micros(), &span.rows, &status, &size_bytes],
        )
        .await?;
    Ok(rows.iter().map(|row| row.get(0)).collect())
}

/// Adds events that the cloud acknowledged on a day long ago.
///
/// # Errors
/// When the database fails.
pub async fn fill_acked(conn: &Conn, tenant: &str, day: NaiveDate, rows: i64) -> Result<(), StoreError> {
    let (table, tenant) = (acked_table(day), literal(tenant));
    let sql = format!(
        "CREATE TABLE IF NOT EXISTS {table} () INHERITS (sync_outbox);
         INSERT INTO {table} (id, seq, tenant_id, farm_id, barn_id, device_id, event_type, occurred_at, payload_json,
             payload_size_bytes, status, attempt_count, acked_at)
         SELECT gen_random_uuid(), -i, {tenant}, 'f-001', 'b-001', 'd-' || i % 1000, '{TELEMETRY_INGESTED}', '{day}',
             jsonb_build_object('telemetry_raw_id', gen_random_uuid(), 'tenant_id', {tenant}, 'metric_type', 'temperature',
                 'metric_value', 20 + i % 1000 / 100.0, 'unit', 'celsius', 'occurred_at', '{day}'), 200, 'acked', 1, '{day}'
         FROM generate_series(1, {rows}) AS i"
    );
    conn.batch("bench_past_acked", &sql).await
}

/// Adds the event of a reading that the cloud has refused, and that waits for a person.
///
/// # Errors
/// When the database fails.
pub async fn add_refused_event(conn: &Conn, id: Uuid, tenant: &str, at: Timestamp) -> Result<(), StoreError> {
    conn.execute(REFUSED_EVENT, &[&id, &tenant, &TELEMETRY_INGESTED, &at]).await?;
    Ok(())
}

/// Takes everything up to now for aggregated.
///
/// # Errors
/// When the database fails.
pub async fn skip_aggregation(conn: &Conn, now: Timestamp) -> Result<(), StoreError> {
    conn.execute(SKIP_AGGREGATION, &[&now]).await?;
    Ok(())
}

/// Images of a tenant.
///
/// # Errors
/// When the database fails.
pub async fn image_count(conn: &Conn, tenant: &str) -> Result<i64, StoreError> {
    Ok(conn.query_one(IMAGE_COUNT, &[&tenant]).await?.get(0))
}

/// Tells the planner what there is, as the server does by itself before rows grow old.
///
/// # Errors
/// When the database fails.
pub async fn analyze(conn: &Conn) -> Result<(), StoreError> {
    conn.batch("bench_analyze", "ANALYZE").await
}
