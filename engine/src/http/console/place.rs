//! Which barn is looked at, and where everything else is.

use axum::http::StatusCode;
use axum::http::header::SET_COOKIE;
use axum::response::Response;

use super::super::auth::guest::set_cookie;
use super::answer::{page, see};
use super::form::Typed;
use super::visit::{PLACE_COOKIE, Visit};
use crate::console::frame::Tab;
use crate::console::place::{MorePage, PlaceRow, PlacesPage};

/// Seconds for which a browser remembers its barn.
const PLACE_SECONDS: i64 = 366 * 86_400;

/// Shows the barns.
pub(super) async fn show(visit: Visit) -> Response {
    let is_here = |place| visit.place.as_ref() == Some(place);
    let places = visit.places.iter().map(|place| PlaceRow {
        value: place.value(),
        name: place.name.clone(),
        path: format!("{} / {} / {}", place.tenant_id, place.farm_id, place.barn_id),
        is_here: is_here(place),
    });
    let places = places.collect();
    page(StatusCode::OK, &PlacesPage { f: visit.frame(visit.t().choose_barn, Tab::More), places })
}

/// Looks at another barn from now on. One that is not this one's is none.
pub(super) async fn choose(visit: Visit, typed: Typed) -> Response {
    let Some(place) = visit.places.iter().find(|place| typed.text("place") == Some(&*place.value())) else {
        return visit.words().not_found();
    };
    let mut response = see("/");
    let cookie = set_cookie(PLACE_COOKIE, &place.value(), PLACE_SECONDS, true, false);
    response.headers_mut().extend(cookie.map(|cookie| (SET_COOKIE, cookie)));
    response
}

/// Leads to the rest.
pub(super) async fn more(visit: Visit) -> Response {
    page(StatusCode::OK, &MorePage { f: visit.frame(visit.t().more, Tab::More) })
}
