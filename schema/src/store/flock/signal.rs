//! What came in and may be of a flock: weighings, as a trigger of their sessions tells, and feed, as its devices tell.

use uuid::Uuid;

use crate::clock::Timestamp;
use crate::store::telemetry::{DeviceEvent, Reading};
use crate::store::{Conn, StoreError};

/// Every statement of this module.
pub const STATEMENTS: &[&str] = &[PUT, NEXT, DROP, SNAPSHOT, PUT_SNAPSHOT];

/// The metric of a silo that weighs itself.
pub const SILO_WEIGHT: &str = "silo.weight";
/// The event of a dispenser.
pub const FEED_DISPENSED: &str = "feed.dispensed";

/// Something that came in.
#[derive(Clone, Debug, PartialEq)]
pub struct Signal {
    /// Its place in the queue.
    pub seq: i64,
    /// `WEIGHING`, `FEED_DISPENSED` or `SILO_WEIGHT`.
    pub kind: String,
    /// Tenant.
    pub tenant_id: String,
    /// Farm.
    pub farm_id: String,
    /// Barn.
    pub barn_id: String,
    /// Device.
    pub device_id: String,
    /// Its event, or its session.
    pub event_id: String,
    /// The batch of animals, where it names one.
    pub batch_id: Option<String>,
    /// Kilograms.
    pub quantity_kg: Option<f64>,
    /// When.
    pub occurred_at: Timestamp,
    /// Trace id.
    pub trace_id: Option<String>,
}

row_of!(Signal, signal_columns as "s": seq, kind, tenant_id, farm_id, barn_id, device_id, event_id, batch_id, quantity_kg,
    occurred_at, trace_id);

const PUT: &str = "-- flock_signal_put
INSERT INTO flock_signals (kind, tenant_id, farm_id, barn_id, device_id, event_id, batch_id, quantity_kg, occurred_at, trace_id)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)";

/// Whether a reading is of feed.
#[must_use]
pub fn is_of_silo(reading: &Reading) -> bool {
    reading.metric == SILO_WEIGHT
}

/// Whether an event is of feed.
#[must_use]
pub fn is_dispensed(event: &DeviceEvent) -> bool {
    event.event_type == FEED_DISPENSED
}

/// Notes the weight of a silo as part of the transaction that stores the reading. A reading counts for the time at which it
/// came in when its clock is ahead.
///
/// # Errors
/// When the database fails.
pub async fn put_silo(conn: &Conn, reading: &Reading, now: Timestamp) -> Result<(), StoreError> {
    let r = reading;
    put(
        conn,
        "SILO_WEIGHT",
        [&r.tenant_id, &r.farm_id, &r.barn_id, &r.device_id, &r.event_id],
        (None, Some(r.value)),
        (r.occurred_at.min(now), &r.trace_id),
    )
    .await
}

/// The same of a dispenser's event. One that names no quantity above zero is an ordinary event.
///
/// # Errors
/// When the database fails.
pub async fn put_dispensed(conn: &Conn, event: &DeviceEvent, now: Timestamp) -> Result<(), StoreError> {
    #[derive(serde::Deserialize)]
    struct Dispensed {
        quantity_kg: f64,
        batch_id: Option<String>,
    }
    let e = event;
    let dispensed: Option<Dispensed> =
        e.payload_json.as_deref().and_then(|payload| serde_json::from_str(payload).ok());
    let Some(Dispensed { quantity_kg, batch_id }) = dispensed else { return Ok(()) };
    if !(quantity_kg > 0.0 && quantity_kg.is_finite()) {
        return Ok(());
    }
    put(
        conn,
        "FEED_DISPENSED",
        [&e.tenant_id, &e.farm_id, &e.barn_id, &e.device_id, &e.event_id],
        (batch_id.as_deref(), Some(quantity_kg)),
        (e.occurred_at.min(now), &e.trace_id),
    )
    .await
}

async fn put(
    conn: &Conn,
    kind: &str,
    [tenant_id, farm_id, barn_id, device_id, event_id]: [&str; 5],
    (batch_id, quantity_kg): (Option<&str>, Option<f64>),
    (occurred_at, trace_id): (Timestamp, &str),
) -> Result<(), StoreError> {
    conn.execute(
        PUT,
        &[
            &kind,
            &tenant_id,
            &farm_id,
            &barn_id,
            &device_id,
            &event_id,
            &batch_id,
            &quantity_kg,
            &occurred_at,
            &trace_id,
        ],
    )
    .await?;
    Ok(())
}

const NEXT: &str = concat!(
    "-- flock_signals_next\nSELECT ",
    signal_columns!(),
    " FROM flock_signals AS s ORDER BY seq LIMIT $1"
);

/// The oldest of what came in.
///
/// # Errors
/// When the database fails.
pub async fn next(conn: &Conn, limit: i64) -> Result<Vec<Signal>, StoreError> {
    Ok(conn.query(NEXT, &[&limit]).await?.iter().map(Signal::from).collect())
}

const DROP: &str = "-- flock_signals_drop
DELETE FROM flock_signals WHERE seq = ANY ($1)";

/// Removes what was taken.
///
/// # Errors
/// When the database fails.
pub async fn drop_all(conn: &Conn, seqs: &[i64]) -> Result<(), StoreError> {
    conn.execute(DROP, &[&seqs]).await?;
    Ok(())
}

const SNAPSHOT: &str = "-- silo_snapshot
SELECT weight_kg, occurred_at FROM silo_weight_snapshot WHERE tenant_id = $1 AND device_id = $2";

/// The weight that a silo's next one is compared with, and when it was last seen.
///
/// # Errors
/// When the database fails.
pub async fn snapshot(
    conn: &Conn,
    tenant_id: &str,
    device_id: &str,
) -> Result<Option<(f64, Timestamp)>, StoreError> {
    let row = conn.query_opt(SNAPSHOT, &[&tenant_id, &device_id]).await?;
    Ok(row.map(|row| (row.get(0), row.get(1))))
}

const PUT_SNAPSHOT: &str = "-- silo_snapshot_put
INSERT INTO silo_weight_snapshot (tenant_id, device_id, weight_kg, occurred_at) VALUES ($1, $2, $3, $4)
ON CONFLICT (tenant_id, device_id) DO UPDATE SET weight_kg = excluded.weight_kg, occurred_at = excluded.occurred_at";

/// Keeps the weight that a silo's next one is compared with.
///
/// # Errors
/// When the database fails.
pub async fn put_snapshot(conn: &Conn, signal: &Signal, weight_kg: f64) -> Result<(), StoreError> {
    let Signal { tenant_id, device_id, occurred_at, .. } = signal;
    conn.execute(PUT_SNAPSHOT, &[tenant_id, device_id, &weight_kg, occurred_at]).await?;
    Ok(())
}

/// The id of the record, and of the event for the cloud, that a signal becomes.
#[must_use]
pub fn record_id(signal: &Signal) -> Uuid {
    crate::id::caused_event_id(&signal.tenant_id, &signal.event_id, "feed.intake.recorded")
}
