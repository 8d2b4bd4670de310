//! Dead letters: what was accepted and could not be applied, kept until somebody has it applied again.

use serde_json::Value;

use crate::clock::Timestamp;
use crate::id;
use crate::store::{Conn, StoreError};

/// Every statement of this module.
pub const STATEMENTS: &[&str] = &[PUT];

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
