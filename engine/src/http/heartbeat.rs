//! The engine's signs of life, for a second box on the network of the barn that rings when they stop.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::{CACHE_CONTROL, HeaderName, HeaderValue};
use serde::Serialize;
use utoipa::ToSchema;

use super::AppState;
use super::time::Time;

/// Whether the engine lives: its supervision tree answers, and so does everything without which it could not tell an alarm.
#[derive(Debug, Serialize, ToSchema)]
#[schema(example = json!({"alive": true, "edge_id": "barn-1", "beat": 8640, "age_ms": 2100, "period_seconds": 10,
    "now": "2026-02-12T09:32:15.052Z", "trouble": null, "alarms_waiting": 0}))]
pub(super) struct Heartbeat {
    /// Whether it has beaten within the last three periods.
    alive: bool,
    /// The engine.
    edge_id: String,
    /// Beats since the start; one that does not grow is an answer from a cache.
    beat: u64,
    /// Milliseconds since the last beat; null before the first.
    age_ms: Option<u64>,
    /// Seconds between two beats.
    period_seconds: u64,
    /// The engine's time.
    now: Time,
    /// Why it does not beat; null while it does.
    trouble: Option<String>,
    /// Alarms that ring and that nobody has acknowledged: a second box may ring for them, too.
    alarms_waiting: u32,
}

/// Says whether the engine lives; anything but 200 within a few seconds, three times in a row, is a reason to ring.
#[utoipa::path(get, path = "/api/v1/heartbeat", tag = "health",
    responses((status = 200, description = "It lives", body = Heartbeat),
        (status = 503, description = "It does not: a status document, not an error", body = Heartbeat,
            example = json!({"alive": false, "edge_id": "barn-1", "beat": 8640, "age_ms": 61000, "period_seconds": 10,
                "now": "2026-02-12T09:32:15.052Z", "trouble": "the supervisor does not answer", "alarms_waiting": 0}))))]
pub(super) async fn heartbeat(
    State(state): State<Arc<AppState>>,
) -> (StatusCode, [(HeaderName, HeaderValue); 1], Json<Heartbeat>) {
    let life = state.telling.heart.life();
    let status = if life.is_alive { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let body = Heartbeat {
        alive: life.is_alive,
        edge_id: state.settings.edge_id.clone(),
        beat: life.beat,
        age_ms: life.age_ms,
        period_seconds: life.period_seconds,
        now: Time(state.clock.now()),
        trouble: life.trouble,
        alarms_waiting: life.alarms_waiting,
    };
    (status, [(CACHE_CONTROL, HeaderValue::from_static("no-store"))], Json(body))
}
