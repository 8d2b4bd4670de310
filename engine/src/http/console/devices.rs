//! The pages of the devices.

use std::sync::Arc;

use actors::place::PlaceError;
use axum::extract::{Path, Request, State};
use axum::http::StatusCode;
use axum::http::header::HOST;
use axum::response::Response;
use schema::store::credential::Known;
use schema::store::place::{Place as Spot, Role};

use super::super::AppState;
use super::super::error::Error;
use super::air::probes;
use super::answer::{page, see};
use super::form::Typed;
use super::visit::{Place, Visit};
use crate::console::air::Probe;
use crate::console::devices::{DevicePage, DeviceView, DevicesPage, LabelPage, OneDevice, rows};
use crate::console::frame::Tab;
use crate::console::qr;
use crate::console::weights::encoded;

/// Devices of a list.
const DEVICES_MAX: i64 = 1000;
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
        Ok::<_, schema::store::StoreError>((known, spots))
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
    let v = rows(f.t, &devices);
    page(StatusCode::OK, &DevicesPage { f, v })
}

struct Found {
    known: Known,
    probes: Vec<Probe>,
    spot: Option<Spot>,
}

async fn found(state: &AppState, visit: &Visit, place: &Place, device_id: &str) -> Result<Found, Response> {
    let read = async {
        let known = state.desk.find(&place.tenant_id, device_id).await?;
        let spots = state.place_desk.list(&place.tenant_id, Some(device_id), None, SPOTS_MAX).await?;
        Ok::<_, schema::store::StoreError>((known, spots))
    };
    let (known, spots) = read.await.map_err(|error| visit.words().failed(error.into()))?;
    let known = known.ok_or_else(|| visit.words().not_found())?;
    let mut probes = probes(state, place, visit.now);
    probes.retain(|probe| probe.device_id == device_id);
    Ok(Found { known, probes, spot: spots.into_iter().find(|spot| spot.metric_type.is_empty()) })
}

/// Shows a device with the steps of its installation.
pub(super) async fn show(
    State(state): State<Arc<AppState>>,
    visit: Visit,
    Path(id): Path<String>,
) -> Response {
    let Some(place) = &visit.place else { return visit.words().not_found() };
    match found(&state, &visit, place, &id).await {
        Ok(Found { known, probes, spot }) => {
            let f = visit.frame(visit.t().devices, Tab::Devices);
            let device = OneDevice { known: &known, probes: &probes, place: spot.as_ref(), now: visit.now };
            let v = DeviceView::of(f.t, &device);
            page(StatusCode::OK, &DevicePage { f, v })
        }
        Err(response) => response,
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
