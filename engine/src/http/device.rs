//! Devices, as operators let them in, give them passwords and put them out.

use std::sync::Arc;
use std::time::Duration;

use actors::credentials::desk::{DeskError, Issued, Newcomer, OVERLAP_SECONDS_MAX};
use actors::device::trouble::{Trouble, silent_seconds, trouble};
use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::http::header::{CACHE_CONTROL, HeaderValue};
use axum::response::{IntoResponse, Response};
use schema::clock::Timestamp;
use schema::id::{BarnId, DeviceId, FarmId, StationId, TenantId};
use schema::store::credential::Known;
use serde::Serialize;
use serde_json::Value;
use utoipa::{IntoParams, ToSchema};

use super::AppState;
use super::auth::{Call, Caller};
use super::body::JsonBody;
use super::cursor::{self, DeviceKey};
use super::error::{Code, Error};
use super::fields::Fields;
use super::query::Params;
use super::time::Time;

/// A device: where it may act, and what it comes with.
#[derive(Debug, Serialize, ToSchema)]
#[schema(example = json!({"tenant_id": "t-001", "device_id": "d-001", "farm_id": "f-001", "barn_id": "b-001",
    "station_id": null, "enabled": true, "pending": false, "username": "t-001/d-001", "password_enabled": true,
    "rotated_at": "2026-02-12T09:32:15.052Z", "has_two_passwords": false, "old_password_good_until": null,
    "known_to_mosquitto": true, "last_seen_at": "2026-02-12T10:00:00.000Z", "state": "online",
    "state_changed_at": "2026-02-12T08:00:00.000Z", "firmware_version": "1.0.0", "message": null,
    "health": {"mqtt_ok": true}, "usual_interval_seconds": 60, "silent_seconds": null, "refusals_last_day": 0,
    "trouble": null}))]
pub(super) struct DeviceBody {
    tenant_id: String,
    device_id: String,
    /// Null means any.
    farm_id: Option<String>,
    /// Null means any.
    barn_id: Option<String>,
    /// Null means any of its barn.
    station_id: Option<String>,
    /// Whether it may act; null when the allowlist does not know it.
    enabled: Option<bool>,
    /// Whether it waits for approval.
    pending: bool,
    /// Null when it has no password.
    username: Option<String>,
    /// Whether its password is good.
    password_enabled: bool,
    /// When its newest password was made; null when that was not here.
    rotated_at: Option<Time>,
    /// Whether the password before the newest is stored, too.
    has_two_passwords: bool,
    /// Until when that one is good; null means for ever, when there is one.
    old_password_good_until: Option<Time>,
    /// Whether Mosquitto's password file can have its newest password.
    known_to_mosquitto: bool,
    /// Its last sign of life.
    last_seen_at: Option<Time>,
    /// `online`, `offline` or `error`, by its status or last will; null of a device that sends none.
    state: Option<String>,
    state_changed_at: Option<Time>,
    firmware_version: Option<String>,
    /// What it says about its state.
    message: Option<String>,
    /// Its flags, such as `scale_ok`.
    #[schema(value_type = Option<Object>)]
    health: Option<Value>,
    /// Seconds between two of its readings, the median of the last few; null of a device that sends none.
    usual_interval_seconds: Option<i64>,
    /// For how long it has been silent, where that is longer than three of its usual intervals.
    silent_seconds: Option<i64>,
    /// Messages of its that were refused within a day.
    refusals_last_day: i64,
    /// The first thing that is wrong; null when all is well.
    trouble: Option<TroubleBody>,
}

/// What is wrong with a device.
#[derive(Debug, Serialize, ToSchema)]
#[schema(example = json!({"word": "silent", "text": "silent for 12 min; it usually sends every 60 s"}))]
pub(super) struct TroubleBody {
    /// `pending`, `not_allowed`, `revoked`, `no_password`, `error`, `silent`, `offline`, `clock_ahead`, `refused` or `never_seen`.
    word: &'static str,
    /// The same for a person.
    text: String,
}

impl DeviceBody {
    fn of(known: Known, now: Timestamp) -> Self {
        let trouble = trouble(&known, now).map(|Trouble { word, text }| TroubleBody { word, text });
        let silent_seconds = silent_seconds(&known, now);
        let (credential, signs) = (known.credential, known.signs);
        let of = credential.as_ref();
        Self {
            tenant_id: known.tenant_id,
            device_id: known.device_id,
            farm_id: known.farm_id,
            barn_id: known.barn_id,
            station_id: known.station_id,
            enabled: known.is_allowed,
            pending: known.is_pending,
            password_enabled: of.is_some_and(|credential| credential.is_enabled),
            rotated_at: of.and_then(|credential| credential.rotated_at).map(Time),
            has_two_passwords: of.is_some_and(|credential| credential.has_two),
            old_password_good_until: of.and_then(|credential| credential.overlap_ends_at).map(Time),
            known_to_mosquitto: of.is_some_and(|credential| credential.has_mosquitto_hash),
            username: credential.map(|credential| credential.username),
            last_seen_at: known.last_seen_at.map(Time),
            state: signs.state,
            state_changed_at: signs.state_changed_at.map(Time),
            firmware_version: signs.firmware_version,
            message: signs.message,
            health: signs.health,
            usual_interval_seconds: signs.usual_seconds,
            silent_seconds,
            refusals_last_day: signs.refusals,
            trouble,
        }
    }
}

/// Devices, by tenant and id.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct DeviceList {
    devices: Vec<DeviceBody>,
    /// What to give as `after` for those that follow; null at the end.
    next: Option<String>,
}

/// Which devices.
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
#[expect(dead_code, reason = "documents the query that is read by hand")]
pub(super) struct ListQuery {
    /// Only those of this tenant.
    tenant_id: Option<String>,
    /// Only what stands behind: `next` of the list before, or `tenant/device`.
    #[param(example = "t-001/d-001")]
    after: Option<String>,
    /// Devices at most.
    #[param(minimum = 1, maximum = 1000, default = 100)]
    limit: Option<i64>,
}

/// Lists devices of the key's tenants.
#[utoipa::path(get, path = "/api/v1/devices", tag = "devices", params(ListQuery),
    responses((status = 200, description = "Devices", body = DeviceList)))]
pub(super) async fn list_devices(
    State(state): State<Arc<AppState>>,
    call: Call,
    mut params: Params,
) -> Result<Json<DeviceList>, Error> {
    check_key(&call)?;
    let (tenant_id, limit) = (params.id("tenant_id"), params.limit());
    let DeviceKey(after_tenant, after_device) = params.after_device().unwrap_or_default();
    params.finish()?;
    let tenants = call.tenants(tenant_id.as_deref())?;
    let place = (after_tenant.as_str(), after_device.as_str());
    let devices = state.desk.list(tenants.as_slice(), place, limit).await?;
    let key = |last: &Known| DeviceKey(last.tenant_id.clone(), last.device_id.clone());
    let (next, now) = (cursor::behind(&devices, limit, key), state.clock.now());
    let devices = devices.into_iter().map(|known| DeviceBody::of(known, now)).collect();
    Ok(Json(DeviceList { devices, next }))
}

/// A device to let in.
#[derive(ToSchema)]
#[expect(dead_code, reason = "documents the body that is read by hand")]
#[schema(example = json!({"tenant_id": "t-001", "farm_id": "f-001", "barn_id": "b-001", "device_id": "d-001",
    "station_id": "st-01"}))]
pub(super) struct NewDevice {
    /// Tenant; `x-tenant-id` may say it instead.
    tenant_id: Option<String>,
    farm_id: String,
    barn_id: String,
    device_id: String,
    /// The only station it speaks for; any of its barn when there is none.
    station_id: Option<String>,
}

/// A password, which is not shown again.
#[derive(Debug, Serialize, ToSchema)]
#[schema(example = json!({"tenant_id": "t-001", "device_id": "d-001", "username": "t-001/d-001",
    "password": "JkZ3v0uS2mXq8bYt5cWn1eRa7dLf4gHp", "old_password_good_until": null}))]
pub(super) struct IssuedBody {
    tenant_id: String,
    device_id: String,
    username: String,
    /// Give it to the device: only its hash is kept here.
    password: String,
    /// Until when the password before is good, too; null when none is.
    old_password_good_until: Option<Time>,
}

impl IssuedBody {
    fn answer(status: StatusCode, tenant_id: String, device_id: String, issued: Issued) -> Response {
        let Issued { username, password, old_is_good_until } = issued;
        let old_password_good_until = old_is_good_until.map(Time);
        let body = Self { tenant_id, device_id, username, password, old_password_good_until };
        let mut answer = (status, Json(body)).into_response();
        answer.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        answer
    }
}

/// Lets a device in and makes the password it comes with. One that was revoked comes back with a new one.
#[utoipa::path(post, path = "/api/v1/devices", tag = "devices", request_body = NewDevice,
    responses((status = 201, description = "The password, shown this once", body = IssuedBody),
        (status = 409, description = "DEVICE_CONFLICT: it has a password already")))]
pub(super) async fn add_device(
    State(state): State<Arc<AppState>>,
    call: Call,
    body: JsonBody,
) -> Result<Response, Error> {
    check_key(&call)?;
    let mut fields = Fields::of(&body)?;
    let tenant_id = fields.optional_id("tenant_id");
    let (farm_id, barn_id) = (fields.id("farm_id"), fields.id("barn_id"));
    let (device_id, station_id) = (fields.id("device_id"), fields.optional_id("station_id"));
    fields.finish()?;
    let tenant_id = call.tenant(tenant_id.as_deref())?;
    let checked = "the fields were checked";
    let newcomer = Newcomer {
        tenant_id: TenantId::new(&tenant_id).expect(checked),
        device_id: DeviceId::new(&device_id).expect(checked),
        farm_id: FarmId::new(&farm_id).expect(checked),
        barn_id: BarnId::new(&barn_id).expect(checked),
        station_id: station_id.map(|id| StationId::new(&id).expect(checked)),
        username: None,
    };
    let issued = state.desk.add(&newcomer, &call.author()).await?;
    tracing::info!(tenant_id, device_id, "device let in");
    Ok(IssuedBody::answer(StatusCode::CREATED, tenant_id, device_id, issued))
}

/// Whose device.
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
#[expect(dead_code, reason = "documents the query that is read by hand")]
pub(super) struct OfTenant {
    /// Its tenant; `x-tenant-id` may say it instead, and a key for one tenant needs neither.
    tenant_id: Option<String>,
}

/// Shows one device.
#[utoipa::path(get, path = "/api/v1/devices/{device_id}", tag = "devices",
    params(("device_id" = String, Path, description = "The device", example = "d-001"), OfTenant),
    responses((status = 200, description = "The device", body = DeviceBody)))]
pub(super) async fn show_device(
    State(state): State<Arc<AppState>>,
    call: Call,
    Path(device_id): Path<String>,
    mut params: Params,
) -> Result<Json<DeviceBody>, Error> {
    check_key(&call)?;
    let tenant_id = params.id("tenant_id");
    params.finish()?;
    let tenant_id = call.tenant(tenant_id.as_deref())?;
    let known = state.desk.find(&tenant_id, &device_id).await?;
    Ok(Json(DeviceBody::of(known.ok_or(DeskError::Unknown)?, state.clock.now())))
}

/// How to replace a password.
#[derive(ToSchema)]
#[expect(dead_code, reason = "documents the body that is read by hand")]
#[schema(example = json!({"tenant_id": "t-001", "overlap_seconds": 86400}))]
pub(super) struct Rotate {
    /// Tenant; `x-tenant-id` may say it instead.
    tenant_id: Option<String>,
    /// Seconds the password before stays good; 0 ends it at once. Unless given, `device.rotation_overlap_hours`.
    overlap_seconds: Option<i64>,
}

/// Makes a device a new password, beside which the one before stays good for a while.
#[utoipa::path(post, path = "/api/v1/devices/{device_id}/rotate", tag = "devices", request_body = Rotate,
    params(("device_id" = String, Path, description = "The device", example = "d-001")),
    responses((status = 200, description = "The password, shown this once", body = IssuedBody),
        (status = 409, description = "DEVICE_CONFLICT: it has no password that is good, or two")))]
pub(super) async fn rotate_device(
    State(state): State<Arc<AppState>>,
    call: Call,
    Path(device_id): Path<String>,
    body: JsonBody,
) -> Result<Response, Error> {
    check_key(&call)?;
    let mut fields = Fields::of(&body)?;
    let (tenant_id, seconds) = (fields.optional_id("tenant_id"), fields.optional_bytes("overlap_seconds"));
    let seconds = seconds.map(|seconds| u64::try_from(seconds).unwrap_or(u64::MAX));
    if seconds.is_some_and(|seconds| seconds > OVERLAP_SECONDS_MAX) {
        fields.problem("overlap_seconds", "a year is the longest");
    }
    fields.finish()?;
    let tenant_id = call.tenant(tenant_id.as_deref())?;
    let overlap = seconds.map(Duration::from_secs);
    let issued = state.desk.rotate(&tenant_id, &device_id, overlap, &call.author()).await?;
    tracing::info!(tenant_id, device_id, "password of a device replaced");
    Ok(IssuedBody::answer(StatusCode::OK, tenant_id, device_id, issued))
}

/// Whose device is put out.
#[derive(ToSchema)]
#[expect(dead_code, reason = "documents the body that is read by hand")]
#[schema(example = json!({"tenant_id": "t-001"}))]
pub(super) struct Revoke {
    /// Tenant; `x-tenant-id` may say it instead.
    tenant_id: Option<String>,
}

/// Puts a device out at once, whatever it comes with: its connections close on every replica.
#[utoipa::path(post, path = "/api/v1/devices/{device_id}/revoke", tag = "devices", request_body = Revoke,
    params(("device_id" = String, Path, description = "The device", example = "d-001")),
    responses((status = 200, description = "The device as it is now", body = DeviceBody)))]
pub(super) async fn revoke_device(
    State(state): State<Arc<AppState>>,
    call: Call,
    Path(device_id): Path<String>,
    body: JsonBody,
) -> Result<Json<DeviceBody>, Error> {
    check_key(&call)?;
    let tenant_id = Fields::tenant_alone(&body)?;
    let tenant_id = call.tenant(tenant_id.as_deref())?;
    state.desk.revoke(&tenant_id, &device_id, &call.author()).await?;
    tracing::info!(tenant_id, device_id, "device revoked");
    let known = state.desk.find(&tenant_id, &device_id).await?;
    Ok(Json(DeviceBody::of(known.ok_or(DeskError::Unknown)?, state.clock.now())))
}

/// Credentials are nobody's to make but a known operator's, however open the box is otherwise.
pub(super) fn check_key(call: &Call) -> Result<(), Error> {
    match call.caller {
        Caller::Operator(_) => Ok(()),
        Caller::Anyone | Caller::Compat | Caller::Device(_) => {
            Err(Error::new(Code::Forbidden, "needs an operator key: set auth.operator_keys"))
        }
    }
}

impl From<DeskError> for Error {
    fn from(error: DeskError) -> Self {
        match error {
            DeskError::Store(error) => error.into(),
            DeskError::Unknown => Self::new(Code::NotFound, "there is no such device"),
            DeskError::Username(_)
            | DeskError::UsernameTaken(_)
            | DeskError::HasPassword
            | DeskError::NoPassword
            | DeskError::UnderWay(_) => Self::new(Code::DeviceConflict, error.to_string()),
        }
    }
}
