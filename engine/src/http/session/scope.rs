//! Who may change which session: tenant, then credential, then allowlist.

use schema::id::{BarnId, FarmId, TenantId};
use schema::store::session as rows;
use schema::wire::reject::{Reason, Reject};
use schema::wire::topic::Place;
use tokio::time::Instant;

use super::request::CreateBody;
use crate::http::AppState;
use crate::http::auth::{Call, agrees_with_token, refused, scope_mismatch, tenant_mismatch};
use crate::http::error::{Code, Error};

/// Whether the caller may begin this session.
///
/// # Errors
/// `TENANT_MISMATCH`, `SCOPE_MISMATCH`, `STATION_NOT_ALLOWED`, `DEVICE_NOT_ALLOWED`; when the allowlist cannot be read.
pub(super) async fn check_create(state: &AppState, call: &Call, create: &CreateBody) -> Result<(), Error> {
    check_tenant(call, &create.tenant_id)?;
    let named = [&*create.farm_id, &create.barn_id, &create.device_id, &create.station_id];
    check_credential(state, call, named).await?;
    let place = Place {
        tenant_id: TenantId::new(&create.tenant_id).expect("the body was checked"),
        farm_id: FarmId::new(&create.farm_id).expect("the body was checked"),
        barn_id: BarnId::new(&create.barn_id).expect("the body was checked"),
    };
    let allowlist = &state.allowlist;
    let asked_at = Instant::now();
    allowlist.station(&place, &create.station_id, asked_at).await?.map_err(not_allowed)?;
    let is_known = allowlist.known_device(&create.tenant_id, &create.device_id).is_some();
    if is_known || state.settings.is_weighvision_device_required {
        allowlist.device(&place, &create.device_id, asked_at).await?.map_err(not_allowed)?;
    }
    Ok(())
}

/// Whether the caller may change this session. One that is not there yet is open to every device of the tenant that is
/// not shut out: the call names no place that could be compared.
///
/// # Errors
/// `TENANT_MISMATCH`, `SCOPE_MISMATCH`, `DEVICE_NOT_ALLOWED`; when the database cannot be asked.
pub(super) async fn check_session(
    state: &AppState,
    call: &Call,
    tenant_id: &str,
    session_id: &str,
) -> Result<(), Error> {
    check_tenant(call, tenant_id)?;
    let Some(scope) = call.scope() else { return Ok(()) };
    let read = async |conn: &mut _| rows::find(conn, tenant_id, session_id).await;
    if let Some(session) = state.store.run("session_scope", read).await? {
        let named = [&*session.farm_id, &session.barn_id, &session.device_id, &session.station_id];
        check_credential(state, call, named).await?;
    }
    let row = state.allowlist.device_row(&scope.tenant_id, &scope.device_id, Instant::now()).await?;
    let is_shut_out = row.is_some_and(|row| !row.is_enabled);
    if is_shut_out { Err(not_allowed(Reason::DeviceNotAllowed.into())) } else { Ok(()) }
}

fn check_tenant(call: &Call, tenant_id: &str) -> Result<(), Error> {
    if call.may_act_for(tenant_id) { Ok(()) } else { Err(tenant_mismatch()) }
}

/// Farm, barn, device and station against the credential; what that leaves open, the device's row says.
async fn check_credential(
    state: &AppState,
    call: &Call,
    [farm_id, barn_id, device_id, station_id]: [&str; 4],
) -> Result<(), Error> {
    let Some(scope) = call.scope() else { return Ok(()) };
    let row = state.allowlist.device_row(&scope.tenant_id, &scope.device_id, Instant::now()).await?;
    let claim = |claim: &Option<String>, row: Option<&Option<String>>| {
        claim.clone().or_else(|| row.cloned().flatten())
    };
    let farm = claim(&scope.farm_id, row.as_ref().map(|row| &row.farm_id));
    let barn = claim(&scope.barn_id, row.as_ref().map(|row| &row.barn_id));
    let station = claim(&scope.station_id, row.as_ref().map(|row| &row.station_id));
    let is_own = scope.device_id == device_id
        && agrees_with_token(farm.as_deref(), Some(farm_id))
        && agrees_with_token(barn.as_deref(), Some(barn_id))
        && agrees_with_token(station.as_deref(), Some(station_id));
    if is_own { Ok(()) } else { Err(scope_mismatch()) }
}

fn not_allowed(reject: Reject) -> Error {
    if matches!(reject.reason, Reason::StationNotAllowed | Reason::StationPending) {
        refused(Code::StationNotAllowed, "station", "station is not enabled")
    } else if matches!(reject.reason, Reason::DeviceNotAllowed | Reason::DevicePending) {
        refused(Code::DeviceNotAllowed, "device", "device is not enabled")
    } else {
        scope_mismatch()
    }
}
