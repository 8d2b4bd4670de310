//! Weighing sessions: their rows, their children, and what waits for them.
//!
//! A session is changed only under its lock, which is held to the end of the transaction.

use uuid::Uuid;

use crate::clock::Timestamp;
use crate::store::{Conn, StoreError};

/// Every statement of this module.
pub const STATEMENTS: &[&str] = &[LOCK, ATTACH_RESULT];

// An advisory lock and not a row lock, since the session may not be there yet.
const LOCK: &str = "-- session_lock
SELECT pg_advisory_xact_lock(hashtextextended('session/' || $1 || '/' || $2, 0))";

/// Waits until nobody else changes the session, which need not be there yet, and keeps others out to the end of the
/// caller's transaction.
///
/// # Errors
/// When the database fails.
pub async fn lock(conn: &Conn, tenant_id: &str, session_id: &str) -> Result<(), StoreError> {
    conn.query_one(LOCK, &[&tenant_id, &session_id]).await?;
    Ok(())
}

const ATTACH_RESULT: &str = "-- session_attach_result
UPDATE weight_sessions SET inference_result_id = $3, updated_at = $4
WHERE tenant_id = $1 AND session_id = $2 AND status <> 'cancelled'";

/// Notes the newest inference result of a session, as part of the caller's transaction, which holds the session's
/// lock. `false`: there is no such session, or it is cancelled.
///
/// # Errors
/// When the database fails.
pub async fn attach_result(
    conn: &Conn,
    tenant_id: &str,
    session_id: &str,
    result_id: Uuid,
    now: Timestamp,
) -> Result<bool, StoreError> {
    let result_id = result_id.to_string();
    Ok(conn.execute(ATTACH_RESULT, &[&tenant_id, &session_id, &result_id, &now]).await? > 0)
}
