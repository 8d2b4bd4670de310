//! Dead letters: what was accepted and could not be applied, kept until somebody has it applied again.

use serde_json::Value;
use uuid::Uuid;

use crate::clock::Timestamp;
use crate::id;
use crate::store::tally::{self, Counted};
use crate::store::{Conn, StoreError};

/// Letters read at once.
const LETTERS_PER_PAGE: i64 = 100;

/// Every statement of this module.
pub const STATEMENTS: &[&str] = &[PUT, OPEN, TAKE, SETTLE, FAILED_AGAIN, HAS];

/// Whose letter it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Source {
    /// A command that its session could not take.
    Session,
    /// An image that could not be completed.
    Media,
    /// A job that failed for good.
    Inference,
}

impl Source {
    /// Every source.
    pub const ALL: [Self; 3] = [Self::Session, Self::Media, Self::Inference];

    /// The text in the database and in metrics.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Session => "session",
            Self::Media => "media",
            Self::Inference => "inference",
        }
    }
}

/// Something that could not be applied.
#[derive(Clone, Debug)]
pub struct DeadLetter<'a> {
    /// Tenant.
    pub tenant_id: &'a str,
    /// Whose it is.
    pub source: Source,
    /// Why, as a code.
    pub reason: &'a str,
    /// The type of event, or what stands for it.
    pub event_type: &'a str,
    /// Its key: an open letter of the same source and event is replaced.
    pub event_id: &'a str,
    /// Its session, where known.
    pub session_id: Option<&'a str>,
    /// Its device, where known.
    pub device_id: Option<&'a str>,
    /// Everything that applying it again needs.
    pub body: Value,
    /// Attempts so far.
    pub attempt_count: i32,
    /// Trace id.
    pub trace_id: Option<&'a str>,
    /// When it was first seen.
    pub first_seen_at: Timestamp,
}

const PUT: &str = "-- dead_letter_put
INSERT INTO dead_letters (id, tenant_id, source, reason, event_type, event_id, session_id, device_id, body_json,
    attempt_count, trace_id, first_seen_at, dead_at)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13)
ON CONFLICT (tenant_id, source, event_id) WHERE redriven_at IS NULL DO UPDATE
SET reason = excluded.reason, body_json = excluded.body_json, attempt_count = excluded.attempt_count, dead_at = excluded.dead_at";

/// Keeps a dead letter, as part of the caller's transaction.
///
/// # Errors
/// When the database fails.
pub async fn put(conn: &Conn, letter: &DeadLetter<'_>, now: Timestamp) -> Result<(), StoreError> {
    conn.execute(
        PUT,
        &[
            &id::new_id(),
            &letter.tenant_id,
            &letter.source.as_str(),
            &letter.reason,
            &letter.event_type,
            &letter.event_id,
            &letter.session_id,
            &letter.device_id,
            &letter.body,
            &letter.attempt_count,
            &letter.trace_id,
            &letter.first_seen_at,
            &now,
        ],
    )
    .await?;
    Ok(())
}

const OPEN: &str = "-- dead_letter_open
SELECT id, tenant_id, body_json FROM dead_letters
WHERE redriven_at IS NULL AND source = $1 AND ($2::uuid[] IS NULL OR id = ANY ($2))
    AND ($3::text[] IS NULL OR tenant_id = ANY ($3)) AND id > $4
ORDER BY id LIMIT $5";

/// A letter that waits for somebody to have it applied again.
#[derive(Clone, Debug)]
pub struct OpenLetter {
    /// Row id.
    pub id: Uuid,
    /// Tenant.
    pub tenant_id: String,
    /// Everything that applying it again needs.
    pub body: Value,
}

/// Open letters of one source, a page at a time: these ids or all, of these tenants or of all.
pub struct OpenLetters<'a> {
    source: Source,
    ids: Option<&'a [Uuid]>,
    tenants: Option<&'a [String]>,
    after: Uuid,
}

impl<'a> OpenLetters<'a> {
    /// From the first one on.
    #[must_use]
    pub fn new(source: Source, ids: Option<&'a [Uuid]>, tenants: Option<&'a [String]>) -> Self {
        Self { source, ids, tenants, after: Uuid::nil() }
    }

    /// The next page; empty when there is none.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn next(&mut self, conn: &Conn) -> Result<Vec<OpenLetter>, StoreError> {
        let Self { source, ids, tenants, after } = self;
        let rows = conn.query(OPEN, &[&source.as_str(), ids, tenants, after, &LETTERS_PER_PAGE]).await?;
        if let Some(last) = rows.last() {
            *after = last.get(0);
        }
        let letter = |row: &tokio_postgres::Row| OpenLetter {
            id: row.get(0),
            tenant_id: row.get(1),
            body: row.get(2),
        };
        Ok(rows.iter().map(letter).collect())
    }
}

const TAKE: &str = "-- dead_letter_take
SELECT id FROM dead_letters WHERE id = $1 AND redriven_at IS NULL FOR UPDATE";

/// Takes an open letter for the caller's transaction. `false`: somebody else has redriven it.
///
/// # Errors
/// When the database fails.
pub async fn take(conn: &Conn, id: Uuid) -> Result<bool, StoreError> {
    Ok(conn.query_opt(TAKE, &[&id]).await?.is_some())
}

const SETTLE: &str = "-- dead_letter_settle
UPDATE dead_letters SET redriven_at = $2, redrive_reason = $3, attempt_count = attempt_count + 1 WHERE id = $1";

/// Closes a letter that was applied, as part of the caller's transaction, which has taken it.
///
/// # Errors
/// When the database fails.
pub async fn settle(conn: &Conn, id: Uuid, reason: &str, now: Timestamp) -> Result<(), StoreError> {
    conn.execute(SETTLE, &[&id, &now, &reason]).await?;
    Ok(())
}

const FAILED_AGAIN: &str = "-- dead_letter_failed_again
UPDATE dead_letters SET attempt_count = attempt_count + 1 WHERE id = $1";

/// Notes that a letter could not be applied this time either, as part of the caller's transaction.
///
/// # Errors
/// When the database fails.
pub async fn failed_again(conn: &Conn, id: Uuid) -> Result<(), StoreError> {
    conn.execute(FAILED_AGAIN, &[&id]).await?;
    Ok(())
}

const HAS: &str = "-- dead_letter_has
SELECT EXISTS (SELECT FROM dead_letters WHERE tenant_id = $1 AND source = $2 AND event_id = $3)";

/// Whether an event is or was a dead letter.
///
/// # Errors
/// When the database fails.
pub async fn has(conn: &Conn, tenant_id: &str, source: Source, event_id: &str) -> Result<bool, StoreError> {
    Ok(conn.query_one(HAS, &[&tenant_id, &source.as_str(), &event_id]).await?.get(0))
}

/// Open letters by source.
///
/// # Errors
/// When the database fails.
pub async fn counts(conn: &Conn) -> Result<Vec<(Source, i64)>, StoreError> {
    let tallies = tally::read(conn, Counted::DeadLetters, None).await?;
    let count = |source: Source| {
        let tally = tallies.iter().find(|tally| tally.kind == source.as_str());
        (source, tally.map_or(0, |tally| tally.rows))
    };
    Ok(Source::ALL.map(count).to_vec())
}
