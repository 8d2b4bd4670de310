//! The page of the weights, of the flock in the barn or of one that is named.

use std::sync::Arc;

use actors::flock::desk::{BookError, DayHistogram};
use axum::extract::{Query, State};
use axum::http::StatusCode;
use axum::response::Response;
use schema::id::Uuid;
use schema::store::flock::Flock;
use serde::Deserialize;

use super::super::AppState;
use super::super::error::Error;
use super::answer::page;
use super::visit::Visit;
use crate::console::frame::{Frame, Tab};
use crate::console::weights::{Known, Weights, WeightsPage, day_on_show};
use crate::console::words::{date, number};

/// Of which flock.
#[derive(Debug, Deserialize)]
pub(super) struct Wish {
    flock: Option<Uuid>,
}

/// Shows the weights.
pub(super) async fn show(
    State(state): State<Arc<AppState>>,
    visit: Visit,
    Query(wish): Query<Wish>,
) -> Response {
    let f = visit.frame(visit.t().weights, Tab::Weights);
    let flock = match (wish.flock, &visit.place) {
        (Some(id), Some(place)) => match state.book.flock(&place.tenant_id, id).await {
            Ok(flock) => Some(flock),
            Err(error) => return visit.words().failed(Error::from(error)),
        },
        (Some(_), None) => return visit.words().not_found(),
        (None, _) => visit.flock.clone(),
    };
    let Some(flock) = flock else {
        return page(StatusCode::OK, &WeightsPage { f, flock: None, view: None });
    };
    match view(&state, &visit, &f, &flock).await {
        Ok(view) => {
            let line = format!(
                "{} {} · {} · {} {}",
                f.t.flock,
                flock.batch_id,
                date(f.lang, flock.placed_on),
                number(f64::from(flock.birds), 0),
                f.t.birds_unit
            );
            page(StatusCode::OK, &WeightsPage { f, flock: Some(line), view: Some(view) })
        }
        Err(error) => visit.words().failed(Error::from(error)),
    }
}

/// What is to be seen of a flock's weights.
pub(super) async fn view(
    state: &AppState,
    visit: &Visit,
    f: &Frame,
    flock: &Flock,
) -> Result<Weights, BookError> {
    let (_, days) = state.book.days(&flock.tenant_id, flock.id).await?;
    let standard = match flock.standard_set_id {
        Some(id) => match state.book.standard(&flock.tenant_id, id).await {
            Ok((set, standard)) => Some((named(&set.name, set.year), standard)),
            Err(BookError::NoStandard) => None,
            Err(error) => return Err(error),
        },
        None => None,
    };
    let told = match state.book.forecast(&flock.tenant_id, flock.id, None).await {
        Ok((_, target_g, told)) => Some((target_g, told)),
        Err(BookError::Value(_)) => None,
        Err(error) => return Err(error),
    };
    let spread = match day_on_show(&days) {
        Some(day) => Some(state.book.histogram(&flock.tenant_id, flock.id, day.day).await?),
        None => None,
    };
    let scales = match day_on_show(&days) {
        Some(day) => state.book.scales(&flock.tenant_id, flock.id, day.day).await?,
        None => Vec::new(),
    };
    let known = Known {
        flock,
        days: &days,
        standard: standard.as_ref().map(|(name, standard)| (name.as_str(), standard)),
        forecast: told.and_then(|(_, told)| told).filter(|_| flock.ended_on.is_none()),
        target_g: told.map(|(target_g, _)| target_g),
        spread: spread.as_ref().and_then(|DayHistogram { summary, bins }| Some((summary.as_ref()?, &**bins))),
        scales: &scales,
        today: visit.today(),
    };
    Ok(Weights::of(f, &known))
}

/// A standard with its year, once: the names of many have it in them.
fn named(name: &str, year: i32) -> String {
    let year = year.to_string();
    if name.contains(&year) { name.to_owned() } else { format!("{name} {year}") }
}

#[cfg(test)]
mod tests {
    use super::named;

    #[test]
    fn the_year_of_a_standard_is_said_once() {
        assert_eq!(named("COBB500 objective 2022", 2022), "COBB500 objective 2022");
        assert_eq!(named("our own", 2026), "our own 2026");
    }
}
