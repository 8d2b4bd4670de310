//! The first page: alarms, tiles, the air of a day, and what was lost today.

use std::sync::Arc;

use actors::alarm::desk::barn_of;
use actors::alarm::rule::{LIGHT, TEMPERATURE};
use actors::chart::ChartError;
use actors::flock::book::DayFacts;
use actors::flock::climate::set_point;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use schema::id::new_id;
use schema::store::StoreError;
use schema::store::outbox::queries;

use super::super::AppState;
use super::super::error::Error;
use super::air::{Span, lines, probes};
use super::answer::page;
use super::visit::{Place, Visit};
use crate::console::air::{Metric, Told, course, now_of};
use crate::console::alarms::AlarmView;
use crate::console::barn::{ALARMS_FIRST, Barn, BarnPage, Losses, WANTED_HALF, air_tiles, weight_tile};
use crate::console::frame::{Frame, Tab};
use crate::console::words::{number, span};

/// Rows that may wait for the cloud before the page says so.
const WAITING_QUIET: i64 = 100;
/// Humidity that a set point is meant for where none is measured, percent.
const HUMIDITY_USUAL: f64 = 60.0;

/// Shows the barn.
pub(super) async fn show(State(state): State<Arc<AppState>>, visit: Visit) -> Response {
    let f = visit.frame(visit.t().barn, Tab::Barn);
    match view(&state, &visit, &f).await {
        Ok(v) => page(StatusCode::OK, &BarnPage { f, v }),
        Err(error) => visit.words().failed(error),
    }
}

async fn view(state: &AppState, visit: &Visit, f: &Frame) -> Result<Barn, Error> {
    let t = f.t;
    let days = match &visit.flock {
        Some(flock) => state.book.days(&flock.tenant_id, flock.id).await?.1,
        None => Vec::new(),
    };
    let found = visit.place.as_ref().map(|place| probes(state, place, visit.now)).unwrap_or_default();
    let humidity = now_of(&found, Metric::Humidity).map_or(HUMIDITY_USUAL, |now| now.mean);
    let wanted_c = weight_g(&days).map(|grams| set_point(grams, humidity).air_c);
    let told = match &visit.place {
        Some(place) => of_day(state, visit, f, place, wanted_c).await?,
        None => None,
    };
    let mut tiles = air_tiles(t, &found, wanted_c, told.as_ref().map_or(&[][..], |told| &told.mean));
    tiles.push(weight_tile(t, &days, visit.today()));
    let today = days.last().filter(|day| day.day == visit.today());
    let losses = visit.flock.as_ref().map(|flock| Losses::of(t, flock.id, today, new_id().to_string()));
    Ok(Barn {
        standing: visit.standing.as_ref().map_or(0, Vec::len),
        alarms: alarms(state, visit, f).await?,
        tiles,
        course_says: told.as_ref().map(|told| told.finding.clone()).unwrap_or_default(),
        course: told.map(|told| told.picture),
        has_wanted: wanted_c.is_some(),
        waiting: waiting(state, visit).await?,
        losses,
    })
}

/// What the birds weigh, by the last scale or else by their standard.
fn weight_g(days: &[DayFacts]) -> Option<f64> {
    let last = days.last()?;
    last.mean_corrected_kg.or(last.mean_kg).map(|kilograms| kilograms * 1000.0).or(last.standard_g)
}

async fn of_day(
    state: &AppState,
    visit: &Visit,
    f: &Frame,
    place: &Place,
    wanted_c: Option<f64>,
) -> Result<Option<Told>, Error> {
    let read = async {
        let (mut all, window) = lines(state, visit, place, Span::Day, TEMPERATURE).await?;
        all.extend(lines(state, visit, place, Span::Day, LIGHT).await?.0);
        Ok((all, window))
    };
    let (all, window) = match read.await {
        Ok(read) => read,
        Err(ChartError::Store(error)) => return Err(error.into()),
        // A barn with too many probes has its page all the same.
        Err(_) => return Ok(None),
    };
    let wanted = wanted_c.map(|wanted| (wanted - WANTED_HALF, wanted + WANTED_HALF));
    Ok(course(f, "day", Metric::Temperature, &window, &all, wanted))
}

async fn alarms(state: &AppState, visit: &Visit, f: &Frame) -> Result<Vec<AlarmView>, StoreError> {
    let rows = visit.standing.as_deref().unwrap_or_default();
    let rows = &rows[..rows.len().min(ALARMS_FIRST)];
    let rules = state.alarms.rules_of(rows).await?;
    Ok(rows.iter().map(|row| AlarmView::of(f, row, rules.get(&barn_of(row)), visit.now)).collect())
}

/// What is said of rows that wait for the cloud; nothing while only a few do.
async fn waiting(state: &AppState, visit: &Visit) -> Result<Option<String>, StoreError> {
    let tenants = visit.place.as_ref().map(|place| vec![place.tenant_id.clone()]).unwrap_or_default();
    let read = async |conn: &mut schema::store::Conn| queries::counts(conn, Some(&tenants)).await;
    let counts = state.reads.run("console_waiting", read).await?;
    let t = visit.t();
    let oldest = counts.oldest_pending_at.map(|at| (visit.now - at).num_seconds() as f64);
    Ok((counts.pending > WAITING_QUIET).then(|| {
        let oldest = oldest.map(|seconds| format!(" · {} {}", t.oldest, span(t, seconds)));
        format!(
            "{}: {} {}{}",
            t.data_safe,
            number(counts.pending as f64, 0),
            t.wait,
            oldest.unwrap_or_default()
        )
    }))
}
