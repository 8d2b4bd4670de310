//! A visit of somebody who has logged in: who it is, which barn is looked at, and what surrounds the page.

use std::sync::Arc;

use actors::flock::calendar::Zone;
use actors::flock::desk::age_today;
use axum::extract::FromRequestParts;
use axum::http::HeaderMap;
use axum::http::request::Parts;
use axum::response::Response;
use chrono::{NaiveDate, NaiveDateTime};
use schema::clock::Timestamp;
use schema::store::StoreError;
use schema::store::alarm::{AlarmRow, Filter};
use schema::store::audit::Author;
use schema::store::flock::{Barn, Flock};

use super::super::AppState;
use super::super::auth::guest::cookie;
use super::super::auth::{Call, Caller, Class, Operator, Tenants, may};
use super::super::error::Error;
use super::answer::{Words, language};
use crate::console::alarms::{STANDING, status, urgency};
use crate::console::frame::{Flash, Frame, Rights, Status, Tab};
use crate::console::text::{Lang, Texts};
use crate::console::weights::encoded;

/// The cookie of the barn that is looked at.
pub(super) const PLACE_COOKIE: &str = "farmiq_place";
/// Barns that one can choose from.
const PLACES_MAX: i64 = 200;
/// Alarms that the word for the barn rests on.
const STANDING_MAX: i64 = 100;
/// Tenants of a key whose barns are listed.
const TENANTS_MAX: usize = 20;

/// A barn.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Place {
    /// Tenant.
    pub tenant_id: String,
    /// Farm.
    pub farm_id: String,
    /// Barn.
    pub barn_id: String,
    /// What it is called.
    pub name: String,
    /// The name of its time zone; `None` while nobody has said.
    pub time_zone: Option<String>,
}

impl Place {
    /// How a browser remembers it.
    pub(super) fn value(&self) -> String {
        [&self.tenant_id, &self.farm_id, &self.barn_id].map(|id| encoded(id)).join("/")
    }

    /// Where its news come from.
    fn stream(&self) -> String {
        let [tenant, farm, barn] = [&self.tenant_id, &self.farm_id, &self.barn_id].map(|id| encoded(id));
        format!("/api/v1/stream?tenant_id={tenant}&farm_id={farm}&barn_id={barn}")
    }

    /// Its time zone.
    pub(super) fn zone(&self) -> Zone {
        self.time_zone.as_deref().and_then(Zone::parse).unwrap_or(Zone::UTC)
    }

    fn of_barn(barn: Barn) -> Self {
        let Barn { tenant_id, farm_id, barn_id, name, time_zone, .. } = barn;
        Self { tenant_id, farm_id, barn_id, name, time_zone: Some(time_zone) }
    }

    fn bare(tenant_id: String, farm_id: String, barn_id: String) -> Self {
        Self { tenant_id, farm_id, name: barn_id.clone(), barn_id, time_zone: None }
    }

    fn is(&self, other: &Self) -> bool {
        (&self.tenant_id, &self.farm_id, &self.barn_id) == (&other.tenant_id, &other.farm_id, &other.barn_id)
    }
}

/// A visit.
pub(super) struct Visit {
    /// Who calls, from where.
    pub call: Call,
    /// In which language.
    pub lang: Lang,
    /// Barns that this one may see.
    pub places: Vec<Place>,
    /// The one that is looked at.
    pub place: Option<Place>,
    /// The flock that is in it.
    pub flock: Option<Flock>,
    /// Alarms of the barn and of the box that stand, the most urgent first; `None` where nobody can say.
    pub standing: Option<Vec<AlarmRow>>,
    /// Now.
    pub now: Timestamp,
    path: String,
    said: Option<String>,
    operator: Operator,
}

impl FromRequestParts<Arc<AppState>> for Visit {
    type Rejection = Response;

    async fn from_request_parts(parts: &mut Parts, state: &Arc<AppState>) -> Result<Self, Response> {
        let path = parts.uri.path_and_query().map_or("/", |path| path.as_str()).to_owned();
        let words = Words::in_language(language(&parts.headers), &path);
        let failed = |error: Error| words.failed(error);
        let call = Call::from_request_parts(parts, state).await.map_err(failed)?;
        let Caller::Operator(operator) = call.caller.clone() else { return Err(words.not_allowed()) };
        let found = places(state, &operator, &parts.headers).await.map_err(|error| failed(error.into()))?;
        let standing = standing(state, found.place.as_ref()).await;
        let said = parts.uri.query().into_iter().flat_map(|query| query.split('&'));
        let said = said.filter_map(|pair| pair.strip_prefix("said=")).next().map(str::to_owned);
        Ok(Self {
            lang: language(&parts.headers),
            places: found.places,
            place: found.place,
            flock: found.flock,
            standing,
            now: state.clock.now(),
            path,
            said,
            operator,
            call,
        })
    }
}

struct Found {
    places: Vec<Place>,
    place: Option<Place>,
    flock: Option<Flock>,
}

/// The barns that an operator may see: those of the book, else those that devices stand in; and the one that is looked at,
/// which is the one chosen, else the one with the newest flock.
async fn places(state: &AppState, operator: &Operator, headers: &HeaderMap) -> Result<Found, StoreError> {
    let tenants: Vec<Option<&str>> = match &operator.tenants {
        Tenants::All => vec![None],
        Tenants::Of(tenants) => {
            tenants.iter().take(TENANTS_MAX).map(|tenant| Some(tenant.as_str())).collect()
        }
    };
    let (mut places, mut flocks) = (Vec::new(), Vec::new());
    for tenant in tenants {
        places.extend(state.book.barns(tenant, PLACES_MAX).await?.into_iter().map(Place::of_barn));
        flocks.extend(state.book.flocks(tenant, None, true, PLACES_MAX).await?);
    }
    for flock in &flocks {
        let bare = Place::bare(flock.tenant_id.clone(), flock.farm_id.clone(), flock.barn_id.clone());
        add(&mut places, bare);
    }
    if places.is_empty() {
        let devices = state.desk.list(operator.tenants.as_slice(), ("", ""), PLACES_MAX).await?;
        for device in devices {
            if let (Some(farm_id), Some(barn_id)) = (device.farm_id, device.barn_id) {
                add(&mut places, Place::bare(device.tenant_id, farm_id, barn_id));
            }
        }
    }
    let chosen = cookie(headers, PLACE_COOKIE);
    let is_of = |flock: &Flock, place: &Place| {
        (&flock.tenant_id, &flock.farm_id, &flock.barn_id)
            == (&place.tenant_id, &place.farm_id, &place.barn_id)
    };
    let newest = || {
        let flock = flocks.iter().max_by_key(|flock| flock.placed_on)?;
        places.iter().find(|place| is_of(flock, place))
    };
    let place = places.iter().find(|place| chosen == Some(&*place.value()));
    let place = place.or_else(newest).or(places.first()).cloned();
    let flock = place.as_ref().and_then(|place| flocks.into_iter().find(|flock| is_of(flock, place)));
    Ok(Found { places, place, flock })
}

/// The alarms of a barn and of the box; of the box alone where no barn is looked at.
fn alarms_of(place: Option<&Place>) -> Filter<'_> {
    Filter {
        tenant_id: Some(place.map_or("", |place| &place.tenant_id)),
        barn_id: place.map(|place| &*place.barn_id),
        rule_id: None,
    }
}

async fn standing(state: &AppState, place: Option<&Place>) -> Option<Vec<AlarmRow>> {
    let mut rows = state.alarms.list(alarms_of(place), &STANDING, None, STANDING_MAX).await.ok()?;
    rows.sort_by_key(urgency);
    Some(rows)
}

fn add(places: &mut Vec<Place>, place: Place) {
    if !places.iter().any(|known| known.is(&place)) {
        places.push(place);
    }
}

impl Visit {
    /// What is said in the language of the visit.
    pub(super) fn t(&self) -> &'static Texts {
        self.lang.texts()
    }

    /// What is said instead of a page.
    pub(super) fn words(&self) -> Words {
        Words::in_language(self.lang, &self.path)
    }

    /// Who is written down.
    pub(super) fn author(&self) -> Author {
        self.call.author()
    }

    /// The time zone of the barn.
    pub(super) fn zone(&self) -> Zone {
        self.place.as_ref().map_or(Zone::UTC, Place::zone)
    }

    /// Today in the barn.
    pub(super) fn today(&self) -> NaiveDate {
        self.zone().day(self.now)
    }

    /// What the clocks of the barn show.
    pub(super) fn local(&self, at: Timestamp) -> NaiveDateTime {
        self.zone().local(at)
    }

    /// The alarms of the barn that is looked at, and those of the box.
    pub(super) fn alarm_filter(&self) -> Filter<'_> {
        alarms_of(self.place.as_ref())
    }

    /// What surrounds a page.
    pub(super) fn frame(&self, title: &'static str, tab: Tab) -> Frame {
        let t = self.t();
        let role = self.operator.role;
        Frame {
            lang: self.lang,
            t,
            title,
            tab,
            path: self.path.clone(),
            barn_name: self.place.as_ref().map_or_else(|| t.barn.to_owned(), |place| place.name.clone()),
            age: self.flock.as_ref().map(|flock| age_today(flock, self.zone(), self.now)),
            now_hm: self.local(self.now).format("%H:%M").to_string(),
            now_iso: schema::wire::time::format(self.now),
            status: self.standing.as_deref().map_or(Status::Unknown, status),
            flash: self.said.as_deref().and_then(|said| flash(t, said)),
            who: self.operator.name.rsplit('/').next().unwrap_or_default().to_owned(),
            rights: Rights {
                write: may(Class::Write, role),
                act: may(Class::Act, role),
                admin: may(Class::Admin, role),
            },
            stream: self.place.as_ref().map(Place::stream),
        }
    }
}

/// What a page says of what was just done: of a closed list, since anybody can write an address.
fn flash(t: &Texts, said: &str) -> Option<Flash> {
    let text = match said {
        "choose" => return Some(Flash { class: "look", text: t.wrong_choose.to_owned() }),
        "written" => t.said_written,
        "taken-back" => t.said_taken_back,
        "placed" => t.said_placed,
        "ended" => t.said_ended,
        "done" => t.said_done,
        "put-out" => t.said_put_out,
        "tried-again" => t.said_tried_again,
        "discarded" => t.said_discarded,
        "brought" => t.said_brought,
        _ => return None,
    };
    Some(Flash { class: "good", text: text.to_owned() })
}
