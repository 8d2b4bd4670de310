//! The page of what goes to the cloud, and another chance for what was given up.

use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use bytes::Bytes;
use schema::id::Uuid;
use schema::store::outbox::queries::{self, DeadFilter};
use schema::store::{Conn, StoreError, ledger, sync_state};
use serde_json::json;

use super::super::AppState;
use super::super::body::JsonBody;
use super::super::error::Error;
use super::super::sync;
use super::answer::{page, see};
use super::form::Typed;
use super::visit::Visit;
use crate::console::delivery::{Delivery, DeliveryPage, Known, RedrivePage};
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
    let (tenants, now) = (tenants.as_slice(), visit.now);
    let pause_max = state.sync.pause_max();
    let read = async |conn: &mut Conn| {
        let counts = queries::counts(conn, tenants).await?;
        let summary = sync_state::summary(conn, tenants, now, pause_max).await?;
        let totals = ledger::totals(conn, tenants).await?;
        let of_tenants = DeadFilter { tenants, ..DeadFilter::default() };
        let dead = queries::dead(conn, &of_tenants, None, DEAD_ROWS_MAX).await?;
        Ok::<_, StoreError>((counts, summary, totals, dead))
    };
    let (counts, summary, totals, dead) = match state.reads.run("console_delivery", read).await {
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
        runway: Runway::read(&state.settings.data_dir),
        version: &state.settings.version,
        edge_id: &state.settings.edge_id,
        may_redrive,
        now,
    };
    let v = Delivery::of(f.t, &known);
    page(StatusCode::OK, &DeliveryPage { f, v })
}

/// Gives what was given up another chance: says first what would be done, and does it once somebody is sure.
pub(super) async fn redrive(state: State<Arc<AppState>>, visit: Visit, typed: Typed) -> Response {
    let is_all = typed.text("which") == Some("all");
    let ids: Vec<Uuid> = typed.all("id").filter_map(|id| Uuid::try_parse(id).ok()).collect();
    if !is_all && ids.is_empty() {
        return see("/delivery");
    }
    if typed.text("sure").is_none() {
        let f = visit.frame(visit.t().delivery, Tab::Delivery);
        let says = if is_all {
            f.t.redrive_all_says.to_owned()
        } else {
            format!("{} {}", number(ids.len() as f64, 0), f.t.redrive_chosen_says)
        };
        let which = if is_all { "all" } else { "chosen" };
        return page(StatusCode::OK, &RedrivePage { f, says, ids, which });
    }
    let body = if is_all { json!({"allDlq": true}) } else { json!({"ids": ids}) };
    let words = visit.words();
    match sync::redrive(state, visit.call, JsonBody(Bytes::from(body.to_string()))).await {
        Ok(_) => see("/delivery?said=done"),
        Err(error) => words.failed(Error { cause: None, ..error }),
    }
}
