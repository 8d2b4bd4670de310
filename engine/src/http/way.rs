//! The ways out of the barn: which there are, whether each can be reached, and a try. None of it needs the database.

use std::sync::Arc;

use actors::alarm::way::{Message, WayError};
use axum::Json;
use axum::extract::{Path, State};
use serde::Serialize;
use utoipa::ToSchema;

use super::AppState;
use super::auth::Call;
use super::error::{Code, Error};

/// A way out of the barn.
#[derive(Debug, Serialize, ToSchema)]
#[schema(example = json!({"name": "horn", "kind": "relay", "sounds": true}))]
pub(super) struct WayBody {
    /// Its name in the settings.
    name: String,
    /// `siren`, `webhook`, `ntfy`, `program`, `relay` or `email`.
    kind: &'static str,
    /// Whether it makes noise or light until it is told to stop.
    sounds: bool,
}

/// All ways.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct WaysBody {
    data: Vec<WayBody>,
}

/// Lists the ways out of the barn.
#[utoipa::path(get, path = "/api/v1/alarms/ways", tag = "operations",
    responses((status = 200, description = "The ways, by name", body = WaysBody)))]
pub(super) async fn list_ways(State(state): State<Arc<AppState>>) -> Json<WaysBody> {
    let ways = state.telling.ways.iter().map(|way| WayBody {
        name: way.name().to_owned(),
        kind: way.kind(),
        sounds: way.sounds(),
    });
    Json(WaysBody { data: ways.collect() })
}

/// What became of a question or a try.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct WayOutcomeBody {
    data: WayOutcome,
}

/// The inside of [`WayOutcomeBody`].
#[derive(Debug, Serialize, ToSchema)]
#[schema(example = json!({"way": "siren-north", "ok": true, "detail": "siren-1 answered", "confirmed_by": "siren-1",
    "latency_ms": 84, "failure": null, "advice": null}))]
struct WayOutcome {
    /// The way.
    way: String,
    /// Whether it was reached, or has told.
    ok: bool,
    /// What the other side said, or what went wrong.
    detail: String,
    /// Who confirmed that it arrived, where the way can tell.
    confirmed_by: Option<String>,
    /// From the order to the confirmation; null for a question, and for a failure.
    latency_ms: Option<u64>,
    /// `unreachable`, `timed_out`, `refused`, `unanswered` or `broken`; null when all went well.
    failure: Option<&'static str>,
    /// What to do about the failure.
    advice: Option<String>,
}

impl From<WayError> for WayOutcome {
    fn from(error: WayError) -> Self {
        Self {
            way: error.way,
            ok: false,
            detail: error.what,
            confirmed_by: None,
            latency_ms: None,
            failure: Some(error.failure.as_str()),
            advice: Some(error.advice),
        }
    }
}

fn known(state: &AppState, name: &str) -> Result<(), Error> {
    match state.telling.ways.get(name) {
        Some(_) => Ok(()),
        None => Err(Error::new(Code::NotFound, "there is no such way; /api/v1/alarms/ways lists them")),
    }
}

/// Says whether a way could be told now, without anybody hearing of it.
#[utoipa::path(get, path = "/api/v1/alarms/ways/{name}", tag = "operations",
    params(("name" = String, Path, description = "Its name in the settings")),
    responses((status = 200, description = "Whether it is reached, and why not", body = WayOutcomeBody),
        (status = 404, description = "NOT_FOUND")))]
pub(super) async fn reach_way(
    State(state): State<Arc<AppState>>,
    Path(name): Path<String>,
) -> Result<Json<WayOutcomeBody>, Error> {
    known(&state, &name)?;
    let data = match state.telling.ways.reach(&name).await {
        Ok(detail) => WayOutcome {
            way: name,
            ok: true,
            detail,
            confirmed_by: None,
            latency_ms: None,
            failure: None,
            advice: None,
        },
        Err(error) => error.into(),
    };
    Ok(Json(WayOutcomeBody { data }))
}

/// Sends one message by a way, marked as a test: a siren sounds for two seconds, people are told that all is well.
#[utoipa::path(post, path = "/api/v1/alarms/ways/{name}/try", tag = "operations",
    params(("name" = String, Path, description = "Its name in the settings")),
    responses((status = 200, description = "What became of it", body = WayOutcomeBody),
        (status = 404, description = "NOT_FOUND")))]
pub(super) async fn try_way(
    State(state): State<Arc<AppState>>,
    call: Call,
    Path(name): Path<String>,
) -> Result<Json<WayOutcomeBody>, Error> {
    known(&state, &name)?;
    tracing::info!(way = name, by = call.author().actor, "a way out of the barn is tried");
    let message = Message::trial(&state.settings.edge_id);
    let data = match state.telling.ways.tell(&name, &message).await {
        Ok(receipt) => WayOutcome {
            way: name,
            ok: true,
            detail: receipt.detail,
            confirmed_by: receipt.confirmed_by,
            latency_ms: Some(receipt.latency_ms),
            failure: None,
            advice: None,
        },
        Err(error) => error.into(),
    };
    Ok(Json(WayOutcomeBody { data }))
}
