//! The pages of the devices.

use std::sync::Arc;
use std::time::Duration;

use actors::credentials::desk::{DeskError, Issued, Newcomer};
use actors::place::PlaceError;
use axum::extract::{Path, Request, State};
use axum::http::StatusCode;
use axum::http::header::HOST;
use axum::response::Response;
use schema::id::{BarnId, DeviceId, FarmId, StationId, TenantId};
use schema::store::credential::Known;
use schema::store::place::{Place as Spot, Role};
use schema::store::reject::{self as rejects, Recorded, Wanted};
use schema::store::{Conn, StoreError};
use schema::wire::topic::readings_of;

use super::super::AppState;
use super::super::error::Error;
use super::air::probes;
use super::answer::{page, see};
use super::form::Typed;
use super::visit::{Place, Visit};
use crate::console::air::Probe;
use crate::console::devices::{
    DevicePage, DeviceView, DevicesPage, IssuedPage, LabelPage, NewDevicePage, OneDevice, rows,
};
use crate::console::frame::Tab;
use crate::console::qr;
use crate::console::refusal::RefusalRow;
use crate::console::text::Texts;
use crate::console::weights::encoded;
use crate::console::words::span;

/// Devices of a list.
const DEVICES_MAX: i64 = 1000;
/// Refusals that the page of a device shows, the newest.
const REFUSALS_MAX: i64 = 10;
/// Places of a list: some metrics of a device have their own.
const SPOTS_MAX: i64 = 1000;

/// Lists the devices of the barn, those in trouble first.
pub(super) async fn list(State(state): State<Arc<AppState>>, visit: Visit) -> Response {
    let f = visit.frame(visit.t().devices, Tab::Devices);
    let Some(place) = &visit.place else { return visit.words().not_found() };
    let read = async {
        let tenants = [place.tenant_id.clone()];
        let known = state.desk.list(Some(&tenants), ("", ""), DEVICES_MAX).await?;
        let spots = state.place_desk.list(&place.tenant_id, None, None, SPOTS_MAX).await?;
        Ok::<_, StoreError>((known, spots))
    };
    let (known, spots) = match read.await {
        Ok(read) => read,
        Err(error) => return visit.words().failed(error.into()),
    };
    let mut said = probes(&state, place, visit.now);
    let here: Vec<(Known, Vec<Probe>)> = known
        .into_iter()
        .filter(|known| known.barn_id.as_ref().is_none_or(|barn| *barn == place.barn_id))
        .map(|known| {
            let own;
            (own, said) = said.drain(..).partition(|probe| probe.device_id == known.device_id);
            (known, own)
        })
        .collect();
    let spot = |known: &Known| spots.iter().find(|spot| spot.device_id == known.device_id);
    let devices: Vec<OneDevice<'_>> = here
        .iter()
        .map(|(known, probes)| OneDevice { known, probes, place: spot(known), now: visit.now })
        .collect();
    let v = rows(f.lang, &devices);
    page(StatusCode::OK, &DevicesPage { f, v })
}

struct Found {
    known: Known,
    probes: Vec<Probe>,
    spot: Option<Spot>,
    refused: Vec<Recorded>,
}

async fn found(state: &AppState, visit: &Visit, place: &Place, device_id: &str) -> Result<Found, Response> {
    let read = async {
        let known = state.desk.find(&place.tenant_id, device_id).await?;
        let spots = state.place_desk.list(&place.tenant_id, Some(device_id), None, SPOTS_MAX).await?;
        let tenants = [place.tenant_id.clone()];
        let wanted = Wanted { tenants: Some(&tenants), device_id: Some(device_id), ..Wanted::default() };
        let refused = async |conn: &mut Conn| rejects::list(conn, &wanted, None, REFUSALS_MAX).await;
        let refused = state.reads.run("console_refusals", refused).await?;
        Ok::<_, StoreError>((known, spots, refused))
    };
    let (known, spots, refused) = read.await.map_err(|error| visit.words().failed(error.into()))?;
    let known = known.ok_or_else(|| visit.words().not_found())?;
    let mut probes = probes(state, place, visit.now);
    probes.retain(|probe| probe.device_id == device_id);
    let spot = spots.into_iter().find(|spot| spot.metric_type.is_empty());
    Ok(Found { known, probes, spot, refused })
}

/// Shows a device with the steps of its installation.
pub(super) async fn show(
    State(state): State<Arc<AppState>>,
    visit: Visit,
    Path(id): Path<String>,
) -> Response {
    one(&state, &visit, &id, StatusCode::OK, None).await
}

async fn one(
    state: &AppState,
    visit: &Visit,
    id: &str,
    status: StatusCode,
    wrong: Option<&'static str>,
) -> Response {
    let Some(place) = &visit.place else { return visit.words().not_found() };
    match found(state, visit, place, id).await {
        Ok(Found { known, probes, spot, refused }) => {
            let f = visit.frame(visit.t().devices, Tab::Devices);
            let device = OneDevice { known: &known, probes: &probes, place: spot.as_ref(), now: visit.now };
            let refusals = refused.iter().map(|row| RefusalRow::of(&f, row, visit.now)).collect();
            let v = DeviceView { wrong, ..DeviceView::of(f.t, &device, refusals) };
            page(status, &DevicePage { f, v })
        }
        Err(response) => response,
    }
}

/// Asks which device is to be let in.
pub(super) async fn ask_new(visit: Visit) -> Response {
    new_page(&visit, StatusCode::OK, ("", ""), None)
}

fn new_page(
    visit: &Visit,
    status: StatusCode,
    (id, station): (&str, &str),
    wrong: Option<&'static str>,
) -> Response {
    let f = visit.frame(visit.t().let_in, Tab::Devices);
    page(status, &NewDevicePage { f, wrong, id: id.to_owned(), station: station.to_owned() })
}

/// Lets a device into the barn, and shows the password it comes with.
pub(super) async fn let_in(State(state): State<Arc<AppState>>, visit: Visit, typed: Typed) -> Response {
    let (Some(place), t) = (&visit.place, visit.t()) else { return visit.words().not_found() };
    let (id, station) = (typed.copy("id"), typed.copy("station"));
    let wrong = |status, text| new_page(&visit, status, (&id, &station), Some(text));
    let Some(newcomer) = newcomer(place, &id, &station) else {
        return wrong(StatusCode::UNPROCESSABLE_ENTITY, t.wrong_id);
    };
    match state.desk.add(&newcomer, &visit.author()).await {
        Ok(issued) => {
            tracing::info!(tenant_id = place.tenant_id, device_id = id, "device let in");
            show_issued(&visit, place, &id, issued)
        }
        Err(error) => match refusal(t, &error) {
            Some(text) => wrong(StatusCode::CONFLICT, text),
            None => visit.words().failed(Error::from(error)),
        },
    }
}

fn newcomer(place: &Place, id: &str, station: &str) -> Option<Newcomer> {
    let station_id = match station {
        "" => None,
        station => Some(StationId::new(station).ok()?),
    };
    Some(Newcomer {
        tenant_id: TenantId::new(&place.tenant_id).ok()?,
        device_id: DeviceId::new(id).ok()?,
        farm_id: FarmId::new(&place.farm_id).ok()?,
        barn_id: BarnId::new(&place.barn_id).ok()?,
        station_id,
        username: None,
    })
}

fn show_issued(visit: &Visit, place: &Place, id: &str, issued: Issued) -> Response {
    let f = visit.frame(visit.t().let_in, Tab::Devices);
    let Issued { username, password, old_is_good_until } = issued;
    let old_is_good = old_is_good_until.map(|until| span(f.t, (until - visit.now).num_seconds() as f64));
    let Place { tenant_id, farm_id, barn_id, .. } = place;
    let topic = readings_of([tenant_id, farm_id, barn_id], id);
    let (name, href) = (id.to_owned(), encoded(id));
    page(StatusCode::OK, &IssuedPage { f, name, href, username, password, topic, old_is_good })
}

/// What is said of a wish about a credential; `None` where it is no fault of the wish.
fn refusal(t: &Texts, error: &DeskError) -> Option<&'static str> {
    match error {
        DeskError::HasPassword => Some(t.wrong_has_password),
        DeskError::NoPassword => Some(t.wrong_no_password),
        DeskError::UnderWay(_) => Some(t.wrong_two_passwords),
        DeskError::UsernameTaken(_) => Some(t.wrong_user_taken),
        DeskError::Username(_) => Some(t.wrong_id),
        DeskError::Unknown | DeskError::Store(_) => None,
    }
}

/// Gives a device another password, beside which the one before stays good for a while, unless somebody wants its end.
pub(super) async fn rotate(
    State(state): State<Arc<AppState>>,
    visit: Visit,
    Path(id): Path<String>,
    typed: Typed,
) -> Response {
    let Some(place) = &visit.place else { return visit.words().not_found() };
    let overlap = typed.text("at-once").map(|_| Duration::ZERO);
    match state.desk.rotate(&place.tenant_id, &id, overlap, &visit.author()).await {
        Ok(issued) => {
            tracing::info!(tenant_id = place.tenant_id, device_id = id, "password of a device replaced");
            show_issued(&visit, place, &id, issued)
        }
        Err(error) => match refusal(visit.t(), &error) {
            Some(text) => one(&state, &visit, &id, StatusCode::CONFLICT, Some(text)).await,
            None => visit.words().failed(Error::from(error)),
        },
    }
}

/// Puts a device out, once somebody is sure.
pub(super) async fn revoke(
    State(state): State<Arc<AppState>>,
    visit: Visit,
    Path(id): Path<String>,
    typed: Typed,
) -> Response {
    let Some(place) = &visit.place else { return visit.words().not_found() };
    if typed.text("sure").is_none() {
        let wrong = Some(visit.t().wrong_fields);
        return one(&state, &visit, &id, StatusCode::UNPROCESSABLE_ENTITY, wrong).await;
    }
    match state.desk.revoke(&place.tenant_id, &id, &visit.author()).await {
        Ok(()) => {
            tracing::info!(tenant_id = place.tenant_id, device_id = id, "device revoked");
            see(&format!("/devices/{}?said=put-out", encoded(&id)))
        }
        Err(error) => visit.words().failed(Error::from(error)),
    }
}

/// Says where a device is.
pub(super) async fn put(
    State(state): State<Arc<AppState>>,
    visit: Visit,
    Path(id): Path<String>,
    typed: Typed,
) -> Response {
    let Some(place) = &visit.place else { return visit.words().not_found() };
    let role = typed.text("role").and_then(Role::parse).unwrap_or(Role::Inside);
    let Ok(height_cm) = typed.number("height") else { return see(&format!("/devices/{}", encoded(&id))) };
    let before = match found(&state, &visit, place, &id).await {
        Ok(found) => found.spot,
        Err(response) => return response,
    };
    let spot = Spot {
        tenant_id: place.tenant_id.clone(),
        device_id: id.clone(),
        metric_type: String::new(),
        role: role.as_str().to_owned(),
        zone: typed.text("zone").map(str::to_owned),
        height_cm: height_cm.filter(|height| *height <= 5000.0),
        weight: before.map_or(1.0, |before| before.weight),
        updated_at: visit.now,
    };
    match state.place_desk.put(spot, &visit.author()).await {
        Ok(_) => see(&format!("/devices/{}?said=written", encoded(&id))),
        Err(PlaceError::NoDevice | PlaceError::NoPlace) => visit.words().not_found(),
        Err(PlaceError::Store(error)) => visit.words().failed(Error::from(error)),
    }
}

/// Shows a label to print and to stick on a device.
pub(super) async fn label(
    State(state): State<Arc<AppState>>,
    visit: Visit,
    Path(id): Path<String>,
    request: Request,
) -> Response {
    let Some(place) = &visit.place else { return visit.words().not_found() };
    let found = match found(&state, &visit, place, &id).await {
        Ok(found) => found,
        Err(response) => return response,
    };
    let host = request.headers().get(HOST).and_then(|host| host.to_str().ok()).unwrap_or("localhost");
    let scheme = if state.settings.is_encrypted { "https" } else { "http" };
    let url = format!("{scheme}://{host}/devices/{}", encoded(&id));
    let code = qr::svg(&url, &url).unwrap_or_default();
    let f = visit.frame(visit.t().label, Tab::Devices);
    let zone = found.spot.and_then(|spot| spot.zone).unwrap_or_default();
    page(StatusCode::OK, &LabelPage { f, name: id.clone(), href: encoded(&id), zone, url, code })
}
