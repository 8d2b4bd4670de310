//! Where devices are, over HTTP: said, shown, forgotten.

use std::sync::Arc;

use actors::place::{PlaceError, metric_of};
use axum::Json;
use axum::extract::State;
use schema::store::place::{Place, Role};
use serde::Serialize;
use utoipa::{IntoParams, ToSchema};

use super::AppState;
use super::auth::Call;
use super::body::JsonBody;
use super::error::{Code, Error};
use super::fields::Fields;
use super::query::Params;
use super::time::Time;

/// Above the floor at most.
const HEIGHT_CM_MAX: f64 = 10_000.0;
/// What one probe may count at most.
const WEIGHT_MAX: f64 = 1_000.0;
/// Bytes of a zone.
const ZONE_BYTES_MAX: usize = 128;

/// A place, where its device is known.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(super) struct PlaceBody {
    /// `inside`, `outside`, `water`, `scale`, `light` or `air`.
    #[schema(example = "inside")]
    role: String,
    /// Where in the house.
    #[schema(example = "north")]
    zone: Option<String>,
    /// Above the floor.
    #[schema(example = 40.0)]
    height_cm: Option<f64>,
    /// What it counts in the means of its house.
    #[schema(example = 1.0)]
    weight: f64,
}

impl PlaceBody {
    pub(super) fn of(place: &Place) -> Self {
        Self {
            role: place.role.clone(),
            zone: place.zone.clone(),
            height_cm: place.height_cm,
            weight: place.weight,
        }
    }
}

/// The place of a device, or of one of its metrics.
#[derive(Debug, Serialize, ToSchema)]
#[schema(example = json!({"tenant_id": "t-001", "device_id": "d-001", "metric_type": null, "role": "inside", "zone": "north",
    "height_cm": 40.0, "weight": 1.0, "updated_at": "2026-02-12T09:32:15.052Z"}))]
pub(super) struct PlacedBody {
    tenant_id: String,
    device_id: String,
    /// The metric that it is the place of; null: of all that have none of their own.
    metric_type: Option<String>,
    #[serde(flatten)]
    place: PlaceBody,
    updated_at: Time,
}

impl From<Place> for PlacedBody {
    fn from(place: Place) -> Self {
        Self {
            metric_type: metric_of(&place.metric_type).map(str::to_owned),
            place: PlaceBody::of(&place),
            tenant_id: place.tenant_id,
            device_id: place.device_id,
            updated_at: place.updated_at.into(),
        }
    }
}

/// Places.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct PlaceList {
    places: Vec<PlacedBody>,
}

/// Which places.
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
#[expect(dead_code, reason = "documents the query that is read by hand")]
pub(super) struct PlaceQuery {
    /// Tenant; `x-tenant-id` may say it instead, and a key for one tenant needs neither.
    tenant_id: Option<String>,
    /// Only those of this device.
    device_id: Option<String>,
    /// Only those of devices that the allowlist has in this barn.
    barn_id: Option<String>,
    /// Rows at most.
    #[param(minimum = 1, maximum = 1000, default = 100)]
    limit: Option<i64>,
}

/// Lists where devices are, by device and metric.
#[utoipa::path(get, path = "/api/v1/places", tag = "devices", params(PlaceQuery),
    responses((status = 200, description = "Places", body = PlaceList)))]
pub(super) async fn list_places(
    State(state): State<Arc<AppState>>,
    call: Call,
    mut params: Params,
) -> Result<Json<PlaceList>, Error> {
    let (tenant_id, limit) = (params.id("tenant_id"), params.limit());
    let (device_id, barn_id) = (params.id("device_id"), params.id("barn_id"));
    params.finish()?;
    let tenant_id = call.tenant(tenant_id.as_deref())?;
    let desk = &state.place_desk;
    let places = desk.list(&tenant_id, device_id.as_deref(), barn_id.as_deref(), limit).await?;
    Ok(Json(PlaceList { places: places.into_iter().map(PlacedBody::from).collect() }))
}

/// Where a device is.
#[derive(ToSchema)]
#[expect(dead_code, reason = "documents the body that is read by hand")]
#[schema(example = json!({"tenant_id": "t-001", "device_id": "d-001", "role": "inside", "zone": "north", "height_cm": 40}))]
pub(super) struct NewPlace {
    /// Tenant; `x-tenant-id` may say it instead.
    tenant_id: Option<String>,
    device_id: String,
    /// Of this metric alone.
    metric_type: Option<String>,
    /// `inside`, `outside`, `water`, `scale`, `light` or `air`.
    role: String,
    zone: Option<String>,
    height_cm: Option<f64>,
    /// What it counts in the means of its house: 1 unless given, 0 for nothing.
    weight: Option<f64>,
}

/// Says where a device is, or one of its metrics; what was said before is replaced.
#[utoipa::path(put, path = "/api/v1/places", tag = "devices", request_body = NewPlace,
    responses((status = 200, description = "The place", body = PlacedBody),
        (status = 404, description = "NOT_FOUND: the tenant has no such device")))]
pub(super) async fn put_place(
    State(state): State<Arc<AppState>>,
    call: Call,
    body: JsonBody,
) -> Result<Json<PlacedBody>, Error> {
    let mut fields = Fields::of(&body)?;
    let tenant_id = fields.optional_id("tenant_id");
    let (device_id, metric_type) = (fields.id("device_id"), fields.optional_id("metric_type"));
    let role = fields.optional_word("role", &Role::ALL.map(Role::as_str));
    if !fields.is_given("role") {
        fields.problem("role", "is required");
    }
    let zone = fields.optional_text("zone");
    if zone.as_ref().is_some_and(|zone| zone.len() > ZONE_BYTES_MAX) {
        fields.problem("zone", "must have 128 bytes at most");
    }
    let height_cm = fields.optional_number("height_cm", 0.0, HEIGHT_CM_MAX);
    let weight = fields.optional_number("weight", 0.0, WEIGHT_MAX);
    fields.finish()?;
    let place = Place {
        tenant_id: call.tenant(tenant_id.as_deref())?,
        device_id,
        metric_type: metric_type.unwrap_or_default(),
        role: role.unwrap_or_default(),
        zone,
        height_cm,
        weight: weight.unwrap_or(1.0),
        updated_at: state.clock.now(),
    };
    Ok(Json(state.place_desk.put(place, &call.author()).await?.into()))
}

/// Which place.
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
#[expect(dead_code, reason = "documents the query that is read by hand")]
pub(super) struct RemoveQuery {
    /// Tenant; `x-tenant-id` may say it instead, and a key for one tenant needs neither.
    tenant_id: Option<String>,
    #[param(example = "d-001")]
    device_id: String,
    /// Of this metric alone, and not of the device.
    metric_type: Option<String>,
}

/// What was forgotten.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct RemovedBody {
    #[schema(example = "d-001")]
    device_id: String,
    metric_type: Option<String>,
}

/// Forgets where a device is, or one of its metrics.
#[utoipa::path(delete, path = "/api/v1/places", tag = "devices", params(RemoveQuery),
    responses((status = 200, description = "It is forgotten", body = RemovedBody),
        (status = 404, description = "NOT_FOUND: nobody has said where this is")))]
pub(super) async fn remove_place(
    State(state): State<Arc<AppState>>,
    call: Call,
    mut params: Params,
) -> Result<Json<RemovedBody>, Error> {
    let tenant_id = params.id("tenant_id");
    let (device_id, metric_type) = (params.required_id("device_id"), params.id("metric_type"));
    params.finish()?;
    let tenant_id = call.tenant(tenant_id.as_deref())?;
    let metric = metric_type.as_deref().unwrap_or_default();
    state.place_desk.remove(&tenant_id, &device_id, metric, &call.author()).await?;
    Ok(Json(RemovedBody { device_id, metric_type }))
}

impl From<PlaceError> for Error {
    fn from(error: PlaceError) -> Self {
        match error {
            PlaceError::Store(error) => error.into(),
            PlaceError::NoDevice | PlaceError::NoPlace => Self::new(Code::NotFound, error.to_string()),
        }
    }
}
