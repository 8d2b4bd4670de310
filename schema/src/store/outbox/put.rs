//! Writing events: the rows that a domain adds to the outbox in its own transaction.

use serde_json::Value;
use tokio_postgres::types::ToSql;
use uuid::Uuid;

use crate::clock::Timestamp;
use crate::store::{Conn, StoreError};

/// One event on its way to the cloud.
#[derive(Clone, Debug, PartialEq)]
pub struct NewEvent {
    /// Its id, which the cloud knows it by.
    pub id: Uuid,
    /// Tenant; never empty, as are farm, barn, device and trace id.
    pub tenant_id: String,
    /// Farm.
    pub farm_id: String,
    /// Barn.
    pub barn_id: String,
    /// The device that caused it.
    pub device_id: String,
    /// Its station, where known.
    pub station_id: Option<String>,
    /// The session it belongs to, which makes it a part of that session's lane.
    pub session_id: Option<String>,
    /// Its type.
    pub event_type: &'static str,
    /// When it happened.
    pub occurred_at: Timestamp,
    /// Where it stands in its lane, when that is not where `occurred_at` puts it.
    pub order_at: Option<Timestamp>,
    /// Trace id of what caused it.
    pub trace_id: String,
    /// What happened.
    pub payload: Value,
}

pub(super) const PUT: &str = "-- outbox_put
INSERT INTO sync_outbox (id, tenant_id, farm_id, barn_id, device_id, station_id, session_id, event_type, occurred_at, order_at,
    trace_id, payload_json, payload_size_bytes, next_attempt_at, created_at, updated_at)
SELECT id, tenant_id, farm_id, barn_id, device_id, station_id, session_id, event_type, occurred_at, order_at,
    trace_id, payload_json, octet_length(payload_json::text), $13, $13, $13
FROM unnest($1::uuid[], $2::text[], $3::text[], $4::text[], $5::text[], $6::text[], $7::text[], $8::text[],
    $9::timestamptz[], $10::timestamptz[], $11::text[], $12::jsonb[]) WITH ORDINALITY
    AS i (id, tenant_id, farm_id, barn_id, device_id, station_id, session_id, event_type, occurred_at, order_at,
        trace_id, payload_json, position)
ORDER BY position
ON CONFLICT (tenant_id, id) DO NOTHING";

/// Adds events in their order, as part of the caller's transaction. An event that is there already stays as it is.
///
/// # Errors
/// When the database fails.
pub async fn put(conn: &Conn, events: &[NewEvent], now: Timestamp) -> Result<(), StoreError> {
    if events.is_empty() {
        return Ok(());
    }
    macro_rules! column {
        ($($field:tt)+) => { events.iter().map(|event| event.$($field)+).collect::<Vec<_>>() };
    }
    let payloads: Vec<&Value> = events.iter().map(|event| &event.payload).collect();
    let params: [&(dyn ToSql + Sync); 13] = [
        &column!(id),
        &column!(tenant_id.as_str()),
        &column!(farm_id.as_str()),
        &column!(barn_id.as_str()),
        &column!(device_id.as_str()),
        &column!(station_id.as_deref()),
        &column!(session_id.as_deref()),
        &column!(event_type),
        &column!(occurred_at),
        &column!(order_at),
        &column!(trace_id.as_str()),
        &payloads,
        &now,
    ];
    conn.execute(PUT, &params).await?;
    Ok(())
}
