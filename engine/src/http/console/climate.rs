//! The page of the climate.

use std::sync::Arc;

use actors::alarm::rule::LIGHT;
use actors::chart::ChartError;
use actors::flock::house::HouseDay;
use axum::extract::{Query, State};
use axum::http::StatusCode;
use axum::response::Response;
use chrono::Duration;
use schema::store::house::{self, Barn as House};
use serde::Deserialize;

use super::super::AppState;
use super::super::error::Error;
use super::air::{Span, lines, probes};
use super::answer::page;
use super::visit::{Place, Visit};
use crate::console::air::{Metric, course};
use crate::console::climate::{Climate, ClimatePage, MetricChart, ProbeRow, house_facts};
use crate::console::frame::{Frame, Tab};
use crate::console::weights::Fact;
use crate::console::words::short_date;

/// How long.
#[derive(Debug, Deserialize)]
pub(super) struct Wish {
    #[serde(default)]
    span: String,
}

/// Shows the climate.
pub(super) async fn show(
    State(state): State<Arc<AppState>>,
    visit: Visit,
    Query(wish): Query<Wish>,
) -> Response {
    let f = visit.frame(visit.t().climate, Tab::Climate);
    let span = Span::ALL.into_iter().find(|span| span.name() == wish.span).unwrap_or(Span::Day);
    match view(&state, &visit, &f, span).await {
        Ok(v) => page(StatusCode::OK, &ClimatePage { f, v }),
        Err(error) => visit.words().failed(error),
    }
}

async fn view(state: &AppState, visit: &Visit, f: &Frame, span: Span) -> Result<Climate, Error> {
    let found = visit.place.as_ref().map(|place| probes(state, place, visit.now)).unwrap_or_default();
    let mut v = Climate {
        spans: spans(f, span),
        throttle: if span == Span::Day { 15 } else { 300 },
        charts: Vec::new(),
        house: Vec::new(),
        probes: found.iter().map(|probe| ProbeRow::of(f.t, probe)).collect(),
    };
    let Some(place) = &visit.place else { return Ok(v) };
    let lit = read(state, visit, place, span, LIGHT).await?.map(|(lit, _)| lit).unwrap_or_default();
    for metric in Metric::ALL {
        let Some((mut all, window)) = read(state, visit, place, span, metric.name()).await? else { continue };
        if metric != Metric::Light && span == Span::Day {
            all.extend(lit.iter().cloned());
        }
        let from = visit.now - Duration::milliseconds((window.seconds * 1000.0) as i64);
        let when = |seconds: f64| {
            let local = visit.local(from + Duration::seconds(seconds as i64));
            format!("{} {}", short_date(f.lang, local.date()), local.format("%H:%M"))
        };
        let told = course(f, metric.name(), metric, &window, &all, None);
        v.charts.extend(told.map(|told| MetricChart::of(f, metric, told, &found, when)));
    }
    v.house = today(state, visit, f, place).await?;
    Ok(v)
}

type Read = (Vec<crate::console::air::Line>, crate::console::air::Window);

async fn read(
    state: &AppState,
    visit: &Visit,
    place: &Place,
    span: Span,
    metric: &'static str,
) -> Result<Option<Read>, Error> {
    match lines(state, visit, place, span, metric).await {
        Ok(read) => Ok(Some(read)),
        Err(ChartError::Store(error)) => Err(error.into()),
        // Too many probes for one picture: the table has them all.
        Err(_) => Ok(None),
    }
}

fn spans(f: &Frame, here: Span) -> Vec<(&'static str, String, bool)> {
    let word = |span: Span| match span {
        Span::Day => format!("24 {}", f.t.unit_h),
        Span::Week => format!("7 {}", f.t.unit_d),
        Span::Flock => f.t.flock.to_owned(),
    };
    Span::ALL.into_iter().map(|span| (span.name(), word(span), span == here)).collect()
}

/// The air of today, as it was reckoned last.
async fn today(state: &AppState, visit: &Visit, f: &Frame, place: &Place) -> Result<Vec<Fact>, Error> {
    let house = House {
        tenant_id: place.tenant_id.clone(),
        farm_id: place.farm_id.clone(),
        barn_id: place.barn_id.clone(),
    };
    let day = visit.today();
    let read = async |conn: &mut schema::store::Conn| house::days(conn, &house, (day, day)).await;
    let days = state.reads.run("console_house", read).await?;
    let day: Option<HouseDay> =
        days.into_iter().next().and_then(|day| serde_json::from_value(day.summary).ok());
    Ok(day.map(|day| house_facts(f.t, &day)).unwrap_or_default())
}
