//! Who may change which session: tenant, then credential, then allowlist.

use schema::id::{BarnId, FarmId, TenantId, Uuid};
use schema::store::session::{self as rows, Sender};
use schema::store::{Conn, inference};
use schema::wire::reject::{Reason, Reject};
use schema::wire::topic::Place;
use tokio::time::Instant;

use super::request::CreateBody;
use crate::http::AppState;
use crate::http::auth::{
    Call, DevicePlace, agrees_with_token, device_not_allowed, refused, scope_mismatch, tenant_mismatch,
};
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

/// Whether the caller may change this session, which need not be there yet, and as whom: what it leaves for a session that
/// is still to come is bound to that only if the two fit.
///
/// # Errors
/// `TENANT_MISMATCH`, `SCOPE_MISMATCH`, `STATION_NOT_ALLOWED`; when the database cannot be asked.
pub(super) async fn check_session(
    state: &AppState,
    call: &Call,
    tenant_id: &str,
    session_id: &str,
) -> Result<Sender, Error> {
    check_tenant(call, tenant_id)?;
    let read = async |conn: &mut _| rows::find(conn, tenant_id, session_id).await;
    let session = state.reads.run("session_scope", read).await?;
    if let Some(session) = &session {
        let named = [&*session.farm_id, &session.barn_id, &session.device_id, &session.station_id];
        check_credential(state, call, named).await?;
    }
    let sender = sender(state, call).await?;
    let station_id = session.as_ref().map(|session| &session.station_id).or(sender.station_id.as_ref());
    if let Some(station_id) = station_id {
        let row = state.allowlist.station_row(tenant_id, station_id, Instant::now()).await?;
        if !row.is_some_and(|row| row.is_enabled) {
            return Err(not_allowed(Reason::StationNotAllowed.into()));
        }
    }
    Ok(sender)
}

/// Whether an image of this place may go to the session that is named for it, if that is there.
///
/// # Errors
/// `SCOPE_MISMATCH`; when the database cannot be asked.
pub(in crate::http) async fn check_named(
    state: &AppState,
    call: &Call,
    place: DevicePlace<'_>,
    session_id: Option<&str>,
) -> Result<(), Error> {
    let Some(session_id) = session_id else { return Ok(()) };
    let read = async |conn: &mut _| rows::find(conn, place.tenant_id, session_id).await;
    let Some(session) = state.store.run("session_scope", read).await? else { return Ok(()) };
    let row = state.allowlist.device_row(place.tenant_id, place.device_id, Instant::now()).await?;
    let claim = call.scope().and_then(|scope| scope.station_id.as_deref());
    let stations = [place.station_id, claim, row.as_ref().and_then(|row| row.station_id.as_deref())];
    let fits = session.farm_id == place.farm_id
        && session.barn_id == place.barn_id
        && stations.into_iter().all(|station| agrees_with_token(station, Some(&session.station_id)));
    if fits { Ok(()) } else { Err(scope_mismatch()) }
}

/// Whether an image or a result, where they are there, are of the barn of a session, or of who speaks of it.
///
/// # Errors
/// `SCOPE_MISMATCH`; when the database cannot be asked.
pub(super) async fn check_parts(
    state: &AppState,
    (tenant_id, session_id): (&str, &str),
    sender: &Sender,
    media_id: Option<&str>,
    result_id: Option<&str>,
) -> Result<(), Error> {
    let (media_id, result_id) = (uuid(media_id), uuid(result_id));
    let read = async |conn: &mut Conn| {
        let image = match media_id {
            Some(id) => inference::image(conn, tenant_id, Some(id), "").await?,
            None => None,
        };
        let result = match result_id {
            Some(id) => inference::result_place(conn, tenant_id, id).await?,
            None => None,
        };
        let places = image.map(|image| (image.farm_id, image.barn_id)).into_iter().chain(result);
        for (farm_id, barn_id) in places {
            let named = (tenant_id, session_id);
            if !sender.is_at_home(&farm_id, &barn_id)
                || rows::is_elsewhere(conn, named, &farm_id, &barn_id).await?
            {
                return Ok(false);
            }
        }
        Ok(true)
    };
    if state.store.run("session_parts", read).await? { Ok(()) } else { Err(scope_mismatch()) }
}

fn uuid(text: Option<&str>) -> Option<Uuid> {
    text.and_then(|text| Uuid::try_parse(text).ok())
}

/// Who calls, by its credential and what the device's row adds to that; an operator and compat mode leave it open.
async fn sender(state: &AppState, call: &Call) -> Result<Sender, Error> {
    let Some(scope) = call.scope() else { return Ok(Sender::default()) };
    let row = state.allowlist.device_row(&scope.tenant_id, &scope.device_id, Instant::now()).await?;
    let claim = |claim: &Option<String>, row: Option<&Option<String>>| {
        claim.clone().or_else(|| row.cloned().flatten())
    };
    Ok(Sender {
        device_id: Some(scope.device_id.clone()),
        farm_id: claim(&scope.farm_id, row.as_ref().map(|row| &row.farm_id)),
        barn_id: claim(&scope.barn_id, row.as_ref().map(|row| &row.barn_id)),
        station_id: claim(&scope.station_id, row.as_ref().map(|row| &row.station_id)),
    })
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
    let sender = sender(state, call).await?;
    let is_own = agrees_with_token(sender.device_id.as_deref(), Some(device_id))
        && sender.is_at_home(farm_id, barn_id)
        && agrees_with_token(sender.station_id.as_deref(), Some(station_id));
    if is_own { Ok(()) } else { Err(scope_mismatch()) }
}

fn not_allowed(reject: Reject) -> Error {
    if matches!(reject.reason, Reason::StationNotAllowed | Reason::StationPending) {
        refused(Code::StationNotAllowed, "station", "station is not enabled")
    } else if matches!(reject.reason, Reason::DeviceNotAllowed | Reason::DevicePending) {
        device_not_allowed()
    } else {
        scope_mismatch()
    }
}
