//! The record of refused messages: what was wrong with them, never what was in them.

use uuid::Uuid;

use crate::clock::Timestamp;
use crate::store::page::{Place, behind};
use crate::store::{Conn, StoreError};
use crate::wire::reject::Reject;

/// Every statement of this module.
pub const STATEMENTS: &[&str] = &[RECORD, LIST, TRIM];

/// Bytes of a refused message's topic that are kept.
const TOPIC_BYTES_MAX: usize = 512;

/// A refused message.
#[derive(Clone, Debug)]
pub struct Refusal {
    /// Why.
    pub reject: Reject,
    /// Where it was published.
    pub topic: String,
    /// Tenant of the topic, when it has one.
    pub tenant_id: Option<String>,
    /// Device of the topic, when it has one.
    pub device_id: Option<String>,
    /// Event id, when the body was read that far.
    pub event_id: Option<String>,
    /// Size of the body, bytes.
    pub size_bytes: i32,
    /// Hex SHA-256 of the body; empty when the body was not read.
    pub sha256: String,
    /// When it arrived.
    pub rejected_at: Timestamp,
}

const RECORD: &str = "-- record_rejects
INSERT INTO ingress_rejects (id, reason, topic, detail, tenant_id, device_id, event_id, size_bytes, sha256, rejected_at)
SELECT * FROM unnest($1::uuid[], $2::text[], $3::text[], $4::text[], $5::text[], $6::text[], $7::text[], $8::int[],
    $9::text[], $10::timestamptz[])";

/// Writes refusals down.
///
/// # Errors
/// When the database fails.
pub async fn record(conn: &Conn, refusals: &[&Refusal]) -> Result<(), StoreError> {
    macro_rules! column {
        (|$refusal:ident| $value:expr) => {
            refusals.iter().map(|$refusal| $value).collect::<Vec<_>>()
        };
    }
    let ids: Vec<Uuid> = refusals.iter().map(|_| crate::id::new_id()).collect();
    let topics: Vec<String> = refusals.iter().map(|refusal| storable(&refusal.topic)).collect();
    conn.execute(
        RECORD,
        &[
            &ids,
            &column!(|refusal| refusal.reject.reason.code()),
            &topics,
            &column!(|refusal| refusal.reject.field),
            &column!(|refusal| refusal.tenant_id.as_deref()),
            &column!(|refusal| refusal.device_id.as_deref()),
            &column!(|refusal| refusal.event_id.as_deref()),
            &column!(|refusal| refusal.size_bytes),
            &column!(|refusal| refusal.sha256.as_str()),
            &column!(|refusal| refusal.rejected_at),
        ],
    )
    .await?;
    Ok(())
}

/// A topic as a text column can hold it, cut to what is kept.
fn storable(topic: &str) -> String {
    let mut end = topic.len().min(TOPIC_BYTES_MAX);
    while !topic.is_char_boundary(end) {
        end -= 1;
    }
    topic[..end].replace('\0', "\u{fffd}")
}

/// A refusal as it is listed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recorded {
    /// Row id.
    pub id: Uuid,
    /// The code of the reason.
    pub reason: String,
    /// Where it was published, or `http:` and the path.
    pub topic: String,
    /// The field at fault.
    pub detail: Option<String>,
    /// Tenant of the topic.
    pub tenant_id: Option<String>,
    /// Device of the topic.
    pub device_id: Option<String>,
    /// Event id, when the body was read that far.
    pub event_id: Option<String>,
    /// Size of the body, bytes.
    pub size_bytes: i32,
    /// Hex SHA-256 of the body; empty when the body was not read.
    pub sha256: String,
    /// When it arrived.
    pub rejected_at: Timestamp,
}

row_of!(Recorded, recorded_columns as "r": id, reason, topic, detail, tenant_id, device_id, event_id, size_bytes, sha256,
    rejected_at);

impl Recorded {
    /// Its place in the list.
    #[must_use]
    pub fn place(&self) -> Place {
        Place { at: self.rejected_at, id: self.id }
    }
}

/// Which refusals are listed.
#[derive(Clone, Debug, Default)]
pub struct Wanted<'a> {
    /// Of these tenants; `None` means every refusal, also those whose topic names no tenant.
    pub tenants: Option<&'a [String]>,
    /// Of this device.
    pub device_id: Option<&'a str>,
    /// For this reason.
    pub reason: Option<&'a str>,
    /// Of then or later.
    pub from: Option<Timestamp>,
    /// Of before.
    pub to: Option<Timestamp>,
}

// The table has so few rows that one index by time serves whatever they are narrowed to.
const LIST: &str = concat!(
    "-- rejects\nSELECT ",
    recorded_columns!(),
    " FROM ingress_rejects AS r
WHERE ($1::text[] IS NULL OR r.tenant_id = ANY ($1)) AND ($2::text IS NULL OR r.device_id = $2)
    AND ($3::text IS NULL OR r.reason = $3)
    AND r.rejected_at >= coalesce($4::timestamptz, '-infinity') AND r.rejected_at < coalesce($5::timestamptz, 'infinity') AND ",
    behind!("r.rejected_at, r.id", "$6", "$7"),
    "
ORDER BY r.rejected_at DESC, r.id DESC LIMIT $8"
);

/// Refusals behind a place, newest first.
///
/// # Errors
/// When the database fails.
pub async fn list(
    conn: &Conn,
    wanted: &Wanted<'_>,
    after: Option<Place>,
    limit: i64,
) -> Result<Vec<Recorded>, StoreError> {
    let Wanted { tenants, device_id, reason, from, to } = wanted;
    let (at, id) = Place::params(after);
    let rows = conn.query(LIST, &[tenants, device_id, reason, from, to, &at, &id, &limit]).await?;
    Ok(rows.iter().map(Recorded::from).collect())
}

/// Refusals that one statement deletes at most.
pub const TRIMMED_ROWS_PER_CHUNK: i64 = 5_000;

const TRIM: &str = "-- trim_rejects
DELETE FROM ingress_rejects WHERE id = ANY (ARRAY(
    SELECT id FROM ingress_rejects ORDER BY rejected_at DESC, id DESC OFFSET $1 LIMIT $2))";

/// Deletes one chunk of what is beyond the newest `rows_max` refusals and returns how many went; fewer than
/// [`TRIMMED_ROWS_PER_CHUNK`] means done.
///
/// # Errors
/// When the database fails.
pub async fn trim(conn: &Conn, rows_max: i64) -> Result<u64, StoreError> {
    conn.execute(TRIM, &[&rows_max, &TRIMMED_ROWS_PER_CHUNK]).await
}
