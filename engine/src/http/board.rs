//! The board over HTTP: the latest value of each metric of each device, with its age, its place and what is wrong with it.

use std::sync::Arc;

use actors::board::{Latest, View};
use actors::quality::series::Standing;
use axum::Json;
use axum::extract::State;
use schema::clock::Timestamp;
use serde::Serialize;
use utoipa::{IntoParams, ToSchema};

use super::AppState;
use super::auth::Call;
use super::error::Error;
use super::place::PlaceBody;
use super::query::Params;
use super::time::Time;

/// Something that is wrong with a value.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(super) struct FaultNow {
    /// `range`, `spike`, `rate`, `stuck`, `gap`, `neighbors` or `clock`.
    #[schema(example = "stuck")]
    test: &'static str,
    /// `suspect`, `missing` or `fail`.
    #[schema(example = "suspect")]
    level: &'static str,
    /// Since which reading.
    since: Time,
}

impl From<Standing> for FaultNow {
    fn from(standing: Standing) -> Self {
        Self { test: standing.test.as_str(), level: standing.level.as_str(), since: standing.since.into() }
    }
}

/// A value of the board.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[schema(example = json!({"farm_id": "f-001", "barn_id": "b-001", "device_id": "d-001", "metric_type": "temperature",
    "value": 27.4, "unit": "celsius", "occurred_at": "2026-02-12T09:32:15.052Z", "received_at": "2026-02-12T09:32:15.310Z",
    "age_seconds": 41, "source": "live", "quality": "pass", "faults": [],
    "place": {"role": "inside", "zone": "north", "height_cm": 40.0, "weight": 1.0}}))]
pub(super) struct LatestBody {
    /// Farm, where known.
    farm_id: Option<String>,
    /// Barn, where known.
    barn_id: Option<String>,
    device_id: String,
    metric_type: String,
    /// The value; where `source` is `aggregate`, the mean of its last minute.
    value: f64,
    /// As the device names it, where known.
    unit: Option<String>,
    /// When it was measured, by its device's clock; of an aggregate, the end of its minute.
    occurred_at: Time,
    /// When it came in.
    received_at: Time,
    /// Seconds since it came in, by the engine's clock.
    age_seconds: i64,
    /// `live`, or `aggregate`: read from the database when the engine started, and not heard since.
    source: &'static str,
    /// `pass`, or the worst level of `faults`.
    quality: &'static str,
    /// What is wrong with it, the worst first.
    faults: Vec<FaultNow>,
    /// Where it is; null where nobody has said.
    place: Option<PlaceBody>,
}

impl LatestBody {
    pub(super) fn of(state: &AppState, tenant_id: &str, latest: Latest, now: Timestamp) -> Self {
        let place = state.place_desk.places.of(tenant_id, &latest.device_id, &latest.metric_type);
        let faults: Vec<FaultNow> = latest.standing.into_iter().map(FaultNow::from).collect();
        Self {
            farm_id: latest.farm_id,
            barn_id: latest.barn_id,
            device_id: latest.device_id,
            metric_type: latest.metric_type,
            value: latest.value,
            unit: latest.unit,
            occurred_at: latest.occurred_at.into(),
            received_at: latest.received_at.into(),
            age_seconds: now.signed_duration_since(latest.received_at).num_seconds().max(0),
            source: if latest.is_from_rows { "aggregate" } else { "live" },
            quality: faults.first().map_or("pass", |worst| worst.level),
            faults,
            place: place.map(|place| PlaceBody::of(&place)),
        }
    }
}

/// Which values.
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
#[expect(dead_code, reason = "documents the query that is read by hand")]
pub(super) struct BoardQuery {
    /// Tenant; `x-tenant-id` may say it instead, and a key for one tenant needs neither.
    #[param(example = "t-001")]
    tenant_id: Option<String>,
    /// Only those of this farm.
    farm_id: Option<String>,
    /// Only those of this barn.
    #[param(example = "b-001")]
    barn_id: Option<String>,
}

/// Of whom, and which, the board is asked.
pub(super) struct Asked {
    pub(super) tenant_id: String,
    farm_id: Option<String>,
    barn_id: Option<String>,
}

impl Asked {
    /// # Errors
    /// When the query cannot be read, or the caller may not see the tenant.
    pub(super) fn of(call: &Call, mut params: Params) -> Result<Self, Error> {
        let tenant_id = params.id("tenant_id");
        let (farm_id, barn_id) = (params.id("farm_id"), params.id("barn_id"));
        params.finish()?;
        Ok(Self { tenant_id: call.tenant(tenant_id.as_deref())?, farm_id, barn_id })
    }

    pub(super) fn view(&self) -> View<'_> {
        View { farm_id: self.farm_id.as_deref(), barn_id: self.barn_id.as_deref() }
    }

    /// Whether something of this farm and barn is among what is asked for.
    pub(super) fn includes(&self, farm_id: &str, barn_id: &str) -> bool {
        let is_it = |asked: &Option<String>, own: &str| asked.as_deref().is_none_or(|asked| asked == own);
        is_it(&self.farm_id, farm_id) && is_it(&self.barn_id, barn_id)
    }
}

/// The board.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct BoardBody {
    /// When it was asked: what `age_seconds` is counted to.
    now: Time,
    /// By device and metric.
    entries: Vec<LatestBody>,
    /// How many there are.
    count: usize,
}

/// Shows the latest value of each metric of each device, out of memory.
#[utoipa::path(get, path = "/api/v1/board", tag = "telemetry", params(BoardQuery),
    responses((status = 200, description = "The board", body = BoardBody)))]
pub(super) async fn show_board(
    State(state): State<Arc<AppState>>,
    call: Call,
    params: Params,
) -> Result<Json<BoardBody>, Error> {
    let asked = Asked::of(&call, params)?;
    let now = state.clock.now();
    let (mut latest, _) = state.board.since(&asked.tenant_id, asked.view(), 0, now);
    latest.sort_unstable_by(|a, b| (&a.device_id, &a.metric_type).cmp(&(&b.device_id, &b.metric_type)));
    let entries: Vec<_> =
        latest.into_iter().map(|latest| LatestBody::of(&state, &asked.tenant_id, latest, now)).collect();
    Ok(Json(BoardBody { now: now.into(), count: entries.len(), entries }))
}
