//! Weighing stations, as operators let them in and silence them.

use std::sync::Arc;

use actors::stations::NewStation;
use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use schema::id::{BarnId, FarmId, StationId, TenantId};
use schema::store::station::Station;
use serde::Serialize;
use utoipa::{IntoParams, ToSchema};

use super::AppState;
use super::auth::Call;
use super::body::JsonBody;
use super::cursor::{self, StationKey};
use super::device::check_key;
use super::error::{Code, Error};
use super::fields::Fields;
use super::query::Params;
use super::telemetry::TenantQuery;
use super::time::Time;

/// A station, and for which barn it may speak.
#[derive(Debug, Serialize, ToSchema)]
#[schema(example = json!({"tenant_id": "t-001", "station_id": "st-01", "farm_id": "f-001", "barn_id": "b-001",
    "enabled": true, "pending": false, "created_at": "2026-02-12T09:32:15.052Z", "updated_at": "2026-02-12T09:32:15.052Z"}))]
pub(super) struct StationBody {
    tenant_id: String,
    station_id: String,
    /// Null means any.
    farm_id: Option<String>,
    /// Null means any.
    barn_id: Option<String>,
    /// Whether it may speak.
    enabled: bool,
    /// Whether it waits for approval.
    pending: bool,
    created_at: Time,
    updated_at: Time,
}

impl From<Station> for StationBody {
    fn from(row: Station) -> Self {
        Self {
            tenant_id: row.tenant_id,
            station_id: row.station_id,
            farm_id: row.farm_id,
            barn_id: row.barn_id,
            enabled: row.enabled,
            pending: row.provision_state == "pending",
            created_at: row.created_at.into(),
            updated_at: row.updated_at.into(),
        }
    }
}

/// Stations, by tenant and id.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct StationList {
    stations: Vec<StationBody>,
    /// What to give as `after` for those that follow; null at the end.
    next: Option<String>,
}

/// Which stations.
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
#[expect(dead_code, reason = "documents the query that is read by hand")]
pub(super) struct StationQuery {
    /// Only what stands behind: `next` of the list before.
    after: Option<String>,
    /// Stations at most.
    #[param(minimum = 1, maximum = 1000, default = 100)]
    limit: Option<i64>,
}

/// Lists stations of the key's tenants.
#[utoipa::path(get, path = "/api/v1/stations", tag = "devices", params(StationQuery, TenantQuery),
    responses((status = 200, description = "Stations", body = StationList)))]
pub(super) async fn list_stations(
    State(state): State<Arc<AppState>>,
    call: Call,
    mut params: Params,
) -> Result<Json<StationList>, Error> {
    check_key(&call)?;
    let (named, limit) = (params.id("tenant_id"), params.limit());
    let StationKey(tenant_id, station_id) = params.after().unwrap_or_default();
    params.finish()?;
    let tenants = call.tenants(named.as_deref())?;
    let stations = state.stations.list(tenants.as_slice(), (&tenant_id, &station_id), limit).await?;
    let key = |last: &Station| StationKey(last.tenant_id.clone(), last.station_id.clone());
    let next = cursor::behind(&stations, limit, key);
    Ok(Json(StationList { stations: stations.into_iter().map(StationBody::from).collect(), next }))
}

/// A station to let in.
#[derive(ToSchema)]
#[expect(dead_code, reason = "documents the body that is read by hand")]
#[schema(example = json!({"tenant_id": "t-001", "farm_id": "f-001", "barn_id": "b-001", "station_id": "st-01"}))]
pub(super) struct NewStationBody {
    /// Tenant; `x-tenant-id` may say it instead.
    tenant_id: Option<String>,
    farm_id: String,
    barn_id: String,
    station_id: String,
}

/// Lets a station speak for a barn. One that is there already is moved, or comes back.
#[utoipa::path(post, path = "/api/v1/stations", tag = "devices", request_body = NewStationBody,
    responses((status = 201, description = "The station", body = StationBody)))]
pub(super) async fn add_station(
    State(state): State<Arc<AppState>>,
    call: Call,
    body: JsonBody,
) -> Result<(StatusCode, Json<StationBody>), Error> {
    check_key(&call)?;
    let mut fields = Fields::of(&body)?;
    let tenant_id = fields.optional_id("tenant_id");
    let (farm_id, barn_id) = (fields.id("farm_id"), fields.id("barn_id"));
    let station_id = fields.id("station_id");
    fields.finish()?;
    let tenant_id = call.tenant(tenant_id.as_deref())?;
    let checked = "the fields were checked";
    let new = NewStation {
        tenant_id: TenantId::new(&tenant_id).expect(checked),
        station_id: StationId::new(&station_id).expect(checked),
        farm_id: FarmId::new(&farm_id).expect(checked),
        barn_id: BarnId::new(&barn_id).expect(checked),
    };
    let station = state.stations.add(&new, &call.author()).await?;
    tracing::info!(tenant_id, station_id, "station let in");
    Ok((StatusCode::CREATED, Json(station.ok_or_else(unknown)?.into())))
}

/// Whose station is silenced.
#[derive(ToSchema)]
#[expect(dead_code, reason = "documents the body that is read by hand")]
#[schema(example = json!({"tenant_id": "t-001"}))]
pub(super) struct RevokeStation {
    /// Tenant; `x-tenant-id` may say it instead.
    tenant_id: Option<String>,
}

/// Silences a station at once: what is sent in its name is refused on every engine of the database.
#[utoipa::path(post, path = "/api/v1/stations/{station_id}/revoke", tag = "devices", request_body = RevokeStation,
    params(("station_id" = String, Path, description = "The station", example = "st-01")),
    responses((status = 200, description = "The station as it is now", body = StationBody)))]
pub(super) async fn revoke_station(
    State(state): State<Arc<AppState>>,
    call: Call,
    Path(station_id): Path<String>,
    body: JsonBody,
) -> Result<Json<StationBody>, Error> {
    check_key(&call)?;
    let tenant_id = Fields::tenant_alone(&body)?;
    let tenant_id = call.tenant(tenant_id.as_deref())?;
    let station = state.stations.revoke([&tenant_id, &station_id], &call.author()).await?;
    tracing::info!(tenant_id, station_id, "station silenced");
    Ok(Json(station.ok_or_else(unknown)?.into()))
}

fn unknown() -> Error {
    Error::new(Code::NotFound, "there is no such station")
}
