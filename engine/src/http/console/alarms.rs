//! The pages of the alarms, and what a person does about one.

use std::sync::Arc;

use actors::alarm::desk::{AlarmError, barn_of};
use actors::alarm::house::{Act, ActError};
use actors::alarm::rule::Mode;
use actors::alarm::starting::DRILL_OVERDUE;
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use axum::response::Response;
use chrono::Duration;
use schema::id::Uuid;
use schema::store::StoreError;
use schema::store::alarm::telling::DrillRow;
use schema::store::alarm::{Barn, Filter};
use serde::Deserialize;

use super::super::AppState;
use super::super::error::Error;
use super::answer::{page, see};
use super::form::Typed;
use super::visit::Visit;
use crate::console::alarms::{
    AlarmPage, AlarmView, Alarms, AlarmsPage, EventView, Rules, STANDING, drill, figures, mode, rule,
    urgency, wrong,
};
use crate::console::frame::{Frame, Tab};
use crate::console::words::date;

/// Alarms of a list.
const ALARMS_MAX: i64 = 200;
/// Events of a list.
const EVENTS_MAX: i64 = 100;
/// How long after a drill that somebody answered the next one is due.
const DRILL_EVERY: Duration = Duration::days(7);
/// Drills of a list.
const DRILLS_MAX: i64 = 20;
/// States of what is put aside.
const ASIDE: [&str; 3] = ["SHLVD", "DSUPR", "OOSRV"];

/// What is shown.
#[derive(Debug, Deserialize)]
pub(super) struct Wish {
    #[serde(default)]
    show: String,
}

/// Shows the alarms of the barn and of the box.
pub(super) async fn show(
    State(state): State<Arc<AppState>>,
    visit: Visit,
    Query(wish): Query<Wish>,
) -> Response {
    shown(&state, &visit, &wish.show, StatusCode::OK, None).await
}

async fn shown(
    state: &AppState,
    visit: &Visit,
    show: &str,
    status: StatusCode,
    wrong: Option<&'static str>,
) -> Response {
    let f = visit.frame(visit.t().alarms, Tab::Alarms);
    match view(state, visit, &f, show).await {
        Ok(v) => page(status, &AlarmsPage { f, v, wrong }),
        Err(error) => visit.words().failed(error.into()),
    }
}

async fn view(state: &AppState, visit: &Visit, f: &Frame, show: &str) -> Result<Alarms, StoreError> {
    let t = f.t;
    let filter = visit.alarm_filter();
    let names = [
        ("now", t.tab_now),
        ("aside", t.tab_aside),
        ("history", t.tab_history),
        ("drill", t.drill),
        ("rules", t.tab_rules),
    ];
    let show = names.iter().map(|(name, _)| *name).find(|name| *name == show).unwrap_or("now");
    let tabs = names.into_iter().map(|(name, word)| (name, word, name == show)).collect();
    let mut v = Alarms { show, tabs, ..Alarms::default() };
    match show {
        "history" => {
            let events = state.alarms.history(filter, None, EVENTS_MAX).await?;
            let rules = rules_of_barn(state, visit).await?;
            v.events = events
                .iter()
                .map(|event| EventView::of(f, event, Some(&rules), when(visit, event.happened_at)))
                .collect();
        }
        "drill" => {
            v.shows_drills = true;
            if let Some(place) = &visit.place {
                let (tenant, barn) = (Some(&*place.tenant_id), Some(&*place.barn_id));
                let drills = state.alarms.drills(tenant, barn, None, DRILLS_MAX).await?;
                v.drills = drills
                    .iter()
                    .map(|(row, results)| drill(t, row, results, when(visit, row.started_at)))
                    .collect();
                v.next_drill = next_drill(state, visit, f, drills.iter().map(|(row, _)| row));
                let filter = Filter { rule_id: Some(DRILL_OVERDUE), ..filter };
                let overdue = state.alarms.list(filter, &STANDING, None, ALARMS_MAX).await?;
                v.is_overdue = overdue.iter().any(|row| row.is_active && row.tenant_id == place.tenant_id);
            }
        }
        "rules" => {
            v.rules = rules_of_barn(state, visit).await?.values().map(|found| rule(f, found)).collect();
            if let Some(barn) = barn(visit) {
                let (now, said) = state.alarms.mode(&barn).await?;
                v.mode = Some(mode(t, now, said.as_ref().map(|row| (row, when(visit, row.since)))));
            }
        }
        _ => {
            let states = if show == "aside" { ASIDE } else { STANDING };
            let mut rows = state.alarms.list(filter, &states, None, ALARMS_MAX).await?;
            rows.sort_by_key(urgency);
            let rules = state.alarms.rules_of(&rows).await?;
            let rules_of = |row| rules.get(&barn_of(row));
            v.shows_alarms = true;
            v.alarms = rows.iter().map(|row| AlarmView::of(f, row, rules_of(row), visit.now)).collect();
            if show == "now" {
                let known = state.alarms.figures(filter).await?;
                v.figures = Some(figures(f, &rules_of_barn(state, visit).await?, &known, visit.now));
            }
        }
    }
    Ok(v)
}

/// The rules of the barn, and those of the box.
async fn rules_of_barn(state: &AppState, visit: &Visit) -> Result<Rules, StoreError> {
    let mut rules = match barn(visit) {
        Some(barn) => state.alarms.rules(&barn).await?,
        None => Rules::new(),
    };
    rules.extend(state.alarms.rules(&Barn::of_box()).await?);
    Ok(rules)
}

fn barn(visit: &Visit) -> Option<Barn> {
    let place = visit.place.as_ref()?;
    let (tenant_id, farm_id, barn_id) =
        (place.tenant_id.clone(), place.farm_id.clone(), place.barn_id.clone());
    Some(Barn { tenant_id, farm_id, barn_id })
}

/// When the next drill is: by the schedule, else so long after the last that somebody answered.
fn next_drill<'a>(
    state: &AppState,
    visit: &Visit,
    f: &Frame,
    mut drills: impl Iterator<Item = &'a DrillRow>,
) -> Option<String> {
    let planned = state.alarms.drill_at.and_then(|weekly| weekly.next(visit.local(visit.now)));
    if let Some(planned) = planned {
        let day = date(f.lang, planned.date());
        return Some(format!("{} {day} {}", f.t.drill_planned, planned.format("%H:%M")));
    }
    let last = drills.find_map(|drill| drill.acknowledged_at)?;
    let due = last.checked_add_signed(DRILL_EVERY)?;
    Some(format!("{} {}", f.t.drill_due, date(f.lang, visit.local(due).date())))
}

/// When something was, by the clocks of the barn.
pub(super) fn when(visit: &Visit, at: schema::clock::Timestamp) -> String {
    let local = visit.local(at);
    format!("{} {}", date(visit.lang, local.date()), local.format("%H:%M"))
}

/// Shows one alarm, with what to do.
pub(super) async fn show_one(
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
    wrong: Option<String>,
) -> Response {
    let (Some(place), Ok(id)) = (&visit.place, Uuid::try_parse(id)) else { return visit.words().not_found() };
    let f = visit.frame(visit.t().alarms, Tab::Alarms);
    let read = async {
        let shown = state.alarms.show(Some(&place.tenant_id), id).await?;
        let rules = state.alarms.rules_of(std::slice::from_ref(&shown.row)).await?;
        Ok::<_, AlarmError>((shown, rules))
    };
    let (shown, rules) = match read.await {
        Ok(read) => read,
        Err(error) => return visit.words().failed(Error::from(error)),
    };
    let rules = rules.get(&barn_of(&shown.row));
    let a = AlarmView::of(&f, &shown.row, rules, visit.now);
    let events = shown
        .events
        .iter()
        .map(|event| EventView::of(&f, event, rules, when(visit, event.happened_at)))
        .collect();
    page(status, &AlarmPage { f, a, wrong, events })
}

/// Somebody says that he knows.
pub(super) async fn acknowledge(
    state: State<Arc<AppState>>,
    visit: Visit,
    Path(id): Path<String>,
    typed: Typed,
) -> Response {
    let occurrence = typed.text("occurrence").and_then(|text| text.parse().ok());
    let is_from_one = typed.text("back") == Some("alarm");
    act(&state, &visit, &id, Act::Acknowledge { occurrence }, is_from_one).await
}

/// Puts an alarm aside for a while.
pub(super) async fn shelve(
    state: State<Arc<AppState>>,
    visit: Visit,
    Path(id): Path<String>,
    typed: Typed,
) -> Response {
    let minutes = typed.text("minutes").and_then(|text| text.parse().ok());
    let (Some(minutes), Some(reason)) = (minutes, typed.text("reason")) else {
        let wrong = visit.t().wrong_fields.to_owned();
        return one(&state, &visit, &id, StatusCode::UNPROCESSABLE_ENTITY, Some(wrong)).await;
    };
    act(&state, &visit, &id, Act::Shelve { minutes, reason: reason.to_owned() }, true).await
}

/// Takes an alarm up again.
pub(super) async fn unshelve(state: State<Arc<AppState>>, visit: Visit, Path(id): Path<String>) -> Response {
    act(&state, &visit, &id, Act::Unshelve, true).await
}

async fn act(state: &AppState, visit: &Visit, id: &str, act: Act, is_from_one: bool) -> Response {
    let (Some(place), Ok(known)) = (&visit.place, Uuid::try_parse(id)) else {
        return visit.words().not_found();
    };
    match state.alarms.act(Some(&place.tenant_id), known, act, visit.author()).await {
        Ok(_) if is_from_one => see(&format!("/alarms/{known}?said=done")),
        Ok(_) => see("/alarms?said=done"),
        Err(error) => match wrong(visit.t(), &error) {
            Some(words) => one(state, visit, id, status_of(&error), Some(words.to_owned())).await,
            None => visit.words().failed(Error::from(error)),
        },
    }
}

fn status_of(error: &AlarmError) -> StatusCode {
    if matches!(error, AlarmError::Act(ActError::NotOwner)) {
        StatusCode::SERVICE_UNAVAILABLE
    } else if matches!(error, AlarmError::Act(ActError::ShelfTooLong(_))) {
        StatusCode::UNPROCESSABLE_ENTITY
    } else {
        StatusCode::CONFLICT
    }
}

/// Begins a drill.
pub(super) async fn begin_drill(State(state): State<Arc<AppState>>, visit: Visit) -> Response {
    let Some(barn) = barn(&visit) else { return visit.words().not_found() };
    let done = state.alarms.drill(barn, visit.author()).await;
    drilled(&state, &visit, done.map(drop)).await
}

/// Somebody answers a drill.
pub(super) async fn answer_drill(
    State(state): State<Arc<AppState>>,
    visit: Visit,
    Path(id): Path<String>,
) -> Response {
    let (Some(place), Ok(id)) = (&visit.place, Uuid::try_parse(&id)) else {
        return visit.words().not_found();
    };
    let done = state.alarms.answer_drill(Some(&place.tenant_id), id, visit.author()).await;
    drilled(&state, &visit, done.map(drop)).await
}

async fn drilled(state: &AppState, visit: &Visit, done: Result<(), AlarmError>) -> Response {
    match done {
        Ok(()) => see("/alarms?show=drill&said=done"),
        Err(error) => match wrong(visit.t(), &error) {
            Some(words) => shown(state, visit, "drill", status_of(&error), Some(words)).await,
            None => visit.words().failed(Error::from(error)),
        },
    }
}

/// Says what the house is doing.
pub(super) async fn put_mode(State(state): State<Arc<AppState>>, visit: Visit, typed: Typed) -> Response {
    let Some(barn) = barn(&visit) else { return visit.words().not_found() };
    let Some(mode) = typed.text("mode").and_then(Mode::parse) else {
        let wrong = Some(visit.t().wrong_fields);
        return shown(&state, &visit, "rules", StatusCode::UNPROCESSABLE_ENTITY, wrong).await;
    };
    let reason = typed.text("reason").map(str::to_owned);
    match state.alarms.put_mode(&barn, mode, reason, &visit.author()).await {
        Ok(_) => see("/alarms?show=rules&said=written"),
        Err(error) => visit.words().failed(Error::from(error)),
    }
}
