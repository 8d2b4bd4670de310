//! Generic device events, listed.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use schema::id::Uuid;
use schema::store::page::Place;
use schema::store::telemetry::{self as rows, StoredEvent};
use serde::Serialize;
use serde_json::value::RawValue;
use utoipa::{IntoParams, ToSchema};

use super::AppState;
use super::auth::Call;
use super::cursor::{self, EventKey};
use super::error::Error;
use super::query::Params;
use super::telemetry::{Range, RangeQuery};
use super::time::Time;

/// The type a list of events is narrowed to.
#[derive(Debug, IntoParams)]
#[into_params(parameter_in = Query)]
#[expect(dead_code, reason = "documents the parameter that is read by hand")]
pub(super) struct EventTypeQuery {
    /// One type of events.
    #[param(example = "door_opened")]
    event_type: Option<String>,
}

/// A stored device event.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct EventRow {
    /// Row id.
    id: Uuid,
    /// Tenant.
    #[schema(example = "t-001")]
    tenant_id: String,
    /// Farm of the topic.
    #[schema(example = "f-001")]
    farm_id: String,
    /// Barn of the topic.
    #[schema(example = "b-001")]
    barn_id: String,
    /// The reporting device.
    #[schema(example = "d-001")]
    device_id: String,
    /// Event id.
    event_id: String,
    /// Its type.
    #[schema(example = "door_opened")]
    event_type: String,
    /// When it happened.
    occurred_at: Time,
    /// When it was stored.
    ingested_at: Time,
    /// What the device sent along.
    #[schema(value_type = Option<Object>)]
    payload: Option<Box<RawValue>>,
}

impl From<StoredEvent> for EventRow {
    fn from(row: StoredEvent) -> Self {
        Self {
            id: row.id,
            tenant_id: row.tenant_id,
            farm_id: row.farm_id,
            barn_id: row.barn_id,
            device_id: row.device_id,
            event_id: row.event_id,
            event_type: row.event_type,
            occurred_at: row.occurred_at.into(),
            ingested_at: row.ingested_at.into(),
            payload: row.payload,
        }
    }
}

/// Device events, newest first.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct EventList {
    events: Vec<EventRow>,
    /// How many there are in this list.
    count: usize,
    /// What to give as `after` for those that follow; null at the end.
    next: Option<String>,
}

/// Lists device events, newest first.
#[utoipa::path(get, path = "/api/v1/events", tag = "events", params(RangeQuery, EventTypeQuery),
    responses((status = 200, description = "The events", body = EventList)))]
pub(super) async fn list_events(
    State(state): State<Arc<AppState>>,
    call: Call,
    mut params: Params,
) -> Result<Json<EventList>, Error> {
    let range = Range::of(&mut params);
    let (event_type, after) = (params.event_type(), params.after::<EventKey>().map(Place::from));
    params.finish()?;
    let range = range.allowed(&call)?;
    let read = async |conn: &mut _| rows::events(conn, &range, event_type.as_deref(), after).await;
    let found = state.reads.run("events", read).await?;
    let place = |last: &StoredEvent| Place { at: last.occurred_at, id: last.id };
    let next = cursor::behind(&found, range.limit, |last| EventKey::from(place(last)));
    let events: Vec<_> = found.into_iter().map(EventRow::from).collect();
    Ok(Json(EventList { count: events.len(), events, next }))
}
