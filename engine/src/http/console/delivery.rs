//! The page of what goes to the cloud, and another chance for what was given up.

use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use bytes::Bytes;
use schema::id::Uuid;
use schema::store::outbox::queries::{self, DeadFilter};
use schema::store::{Conn, StoreError, ledger, sync_state};
use serde_json::{Value, json};

use super::super::AppState;
use super::super::body::JsonBody;
use super::super::error::Error;
use super::super::ops::doctor;
use super::super::sync;
use super::answer::{page, see};
use super::form::Typed;
use super::visit::Visit;
use crate::console::delivery::{Delivery, DeliveryPage, Known, SurePage};
use crate::console::frame::Tab;
use crate::console::words::number;
use crate::runway::Runway;

/// What was given up, as far as the page shows it.
const DEAD_ROWS_MAX: i64 = 100;

/// Shows what waits, what was lost (nothing), and what was given up.
pub(super) async fn show(State(state): State<Arc<AppState>>, visit: Visit) -> Response {
    let tenants = match visit.call.tenants(None) {
        Ok(tenants) => tenants,
        Err(error) => return visit.words().failed(error),
    };
    let findings = doctor::findings(&state, &tenants).await;
    let (tenants, now) = (tenants.as_slice(), visit.now);
    let pause_max = state.sync.pause_max();
    let read = async |conn: &mut Conn| {
        let counts = queries::counts(conn, tenants).await?;
        let summary = sync_state::summary(conn, tenants, now, pause_max).await?;
        let totals = ledger::totals(conn, tenants).await?;
        let of_tenants = DeadFilter { tenants, ..DeadFilter::default() };
        let dead = queries::dead(conn, &of_tenants, None, DEAD_ROWS_MAX).await?;
        let by_type = queries::waiting_by_type(conn, tenants).await?;
        Ok::<_, StoreError>((counts, summary, totals, dead, by_type))
    };
    let (counts, summary, totals, dead, by_type) = match state.reads.run("console_delivery", read).await {
        Ok(read) => read,
        Err(error) => return visit.words().failed(error.into()),
    };
    let f = visit.frame(visit.t().delivery, Tab::Delivery);
    let may_redrive = f.rights.admin && state.authority.now().is_admin_enabled();
    let known = Known {
        counts: &counts,
        summary: &summary,
        cloud: &state.sync.view(),
        totals: &totals,
        dead: &dead,
        by_type: &by_type,
        findings: &findings,
        runway: Runway::read(&state.settings.data_dir),
        version: &state.settings.version,
        edge_id: &state.settings.edge_id,
        may_redrive,
        now,
    };
    let v = Delivery::of(f.t, &known);
    page(StatusCode::OK, &DeliveryPage { f, v })
}

/// What is to be done with what was given up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Which {
    Chosen,
    All,
    Discard,
}

impl Which {
    fn name(self) -> &'static str {
        match self {
            Self::Chosen => "chosen",
            Self::All => "all",
            Self::Discard => "discard",
        }
    }
}

/// Gives what was given up another chance, or sets it aside for good: says first what would be done, and does it once
/// somebody is sure.
pub(super) async fn redrive(state: State<Arc<AppState>>, visit: Visit, typed: Typed) -> Response {
    let which = match typed.text("which") {
        Some("all") => Which::All,
        Some("discard") => Which::Discard,
        _ => Which::Chosen,
    };
    let ids: Vec<Uuid> = typed.all("id").filter_map(|id| Uuid::try_parse(id).ok()).collect();
    if which != Which::All && ids.is_empty() {
        return see("/delivery?said=choose");
    }
    let is_reasoned = which != Which::Discard || typed.text("reason").is_some();
    if typed.text("sure").is_none() || !is_reasoned {
        let wrong = typed.text("sure").map(|_| visit.t().wrong_fields);
        return ask(&state, &visit, which, ids, wrong).await;
    }
    let (words, call) = (visit.words(), visit.call);
    let body = |value: Value| JsonBody(Bytes::from(value.to_string()));
    let done = match which {
        Which::All => sync::redrive(state, call, body(json!({"allDlq": true}))).await.map(drop),
        Which::Chosen => sync::redrive(state, call, body(json!({"ids": ids}))).await.map(drop),
        Which::Discard => {
            let discard = json!({"ids": ids, "reason": typed.copy("reason")});
            sync::discard(state, call, body(discard)).await.map(drop)
        }
    };
    match done {
        Ok(()) if which == Which::Discard => see("/delivery?said=discarded"),
        Ok(()) => see("/delivery?said=tried-again"),
        Err(error) => words.failed(Error { cause: None, ..error }),
    }
}

/// Asks whether it is meant, with how many it would be.
async fn ask(
    state: &AppState,
    visit: &Visit,
    which: Which,
    ids: Vec<Uuid>,
    wrong: Option<&'static str>,
) -> Response {
    let f = visit.frame(visit.t().delivery, Tab::Delivery);
    let chosen = number(ids.len() as f64, 0);
    let says = match which {
        Which::Chosen => format!("{chosen} {}", f.t.redrive_chosen_says),
        Which::Discard => format!("{chosen} {}", f.t.discard_says),
        Which::All => match count(state, visit).await {
            Ok(rows) => format!("{} {} {}.", f.t.redrive_all_says, f.t.there_are, number(rows as f64, 0)),
            Err(error) => return visit.words().failed(error),
        },
    };
    let question = if which == Which::Discard { f.t.discard_sure } else { f.t.redrive_sure };
    let status = if wrong.is_some() { StatusCode::UNPROCESSABLE_ENTITY } else { StatusCode::OK };
    page(status, &SurePage { f, question, says, wrong, ids, which: which.name() })
}

async fn count(state: &AppState, visit: &Visit) -> Result<i64, Error> {
    let tenants = visit.call.tenants(None)?;
    let filter = DeadFilter { tenants: tenants.as_slice(), ..DeadFilter::default() };
    let read = async |conn: &mut Conn| queries::count_dead(conn, &filter).await;
    let counts = state.reads.run("dlq_count", read).await?;
    Ok(counts.iter().map(|(_, count)| count).sum())
}
