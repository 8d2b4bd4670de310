//! The conservation ledger: what came in, what became of it, and whether that is all.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use chrono::{Days, NaiveDate};
use schema::store::ledger::{self, Day, Line, Totals};
use serde::Serialize;
use utoipa::{IntoParams, ToSchema};

use super::AppState;
use super::auth::Call;
use super::error::Error;
use super::query::Params;
use super::telemetry::TenantQuery;
use super::time::Time;

/// Days shown when the caller does not say, today included.
const DAYS_DEFAULT: u64 = 7;

/// Which days are shown.
#[derive(Debug, IntoParams)]
#[into_params(parameter_in = Query)]
#[expect(dead_code, reason = "documents the parameters that are read by hand")]
pub(super) struct DaysQuery {
    /// First day, UTC. Absent: six days before the last one.
    #[param(example = "2026-02-06")]
    from: Option<String>,
    /// Last day, UTC. Absent: today.
    #[param(example = "2026-02-12")]
    to: Option<String>,
}

/// What came in and what became of it.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct LedgerLine {
    /// Messages that came in and were settled.
    received: i64,
    /// Of these: stored.
    stored: i64,
    /// Seen before.
    duplicate: i64,
    /// Refused for good.
    refused: i64,
    /// Took a retained status back and left nothing.
    removed: i64,
    /// Events for the cloud.
    queued: i64,
    /// Put back after the cloud had acknowledged them.
    resent: i64,
    /// Acknowledgements of the cloud.
    acked: i64,
    /// Wait for the cloud, or are on their way.
    waiting: i64,
    /// Were refused by the cloud and wait for a person.
    failed: i64,
    /// Set aside by a person.
    discarded: i64,
    /// Losses that a person has explained and closed.
    written_off: i64,
    /// `received - stored - duplicate - refused - removed`: zero when no message was lost.
    difference_in: i64,
    /// `queued + resent - acked - waiting - failed - discarded - written_off`: zero when no event was lost.
    difference_out: i64,
}

impl From<&Line> for LedgerLine {
    fn from(line: &Line) -> Self {
        Self {
            received: line.received,
            stored: line.stored,
            duplicate: line.duplicate,
            refused: line.refused,
            removed: line.removed,
            queued: line.queued,
            resent: line.resent,
            acked: line.acked,
            waiting: line.waiting,
            failed: line.failed,
            discarded: line.discarded,
            written_off: line.written_off,
            difference_in: line.difference_in(),
            difference_out: line.difference_out(),
        }
    }
}

/// One tenant's day.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct LedgerDay {
    /// Tenant; empty for what was refused and belongs to none that is known here.
    #[schema(example = "t-001")]
    tenant_id: String,
    /// Day, UTC: of messages, when they were settled; of events, when they were queued.
    #[schema(format = Date, example = "2026-02-12")]
    day: String,
    #[serde(flatten)]
    line: LedgerLine,
}

impl From<&Day> for LedgerDay {
    fn from(day: &Day) -> Self {
        let (tenant_id, line) = (day.tenant_id.clone(), LedgerLine::from(&day.line));
        Self { tenant_id, day: day.day.to_string(), line }
    }
}

/// The ledger.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Ledger {
    /// Whether nothing was lost: the difference is zero.
    is_whole: bool,
    /// The differences of each tenant's day without their signs, summed over all days.
    difference: i64,
    /// When the ledger was opened: what was acknowledged before is not in it. Null until what waited then is entered.
    opened_at: Option<Time>,
    /// All days.
    total: LedgerLine,
    /// The days that were asked for, newest first; at most 1000 lines.
    days: Vec<LedgerDay>,
}

/// Shows what came in, what became of it, and whether that is all.
#[utoipa::path(get, path = "/api/v1/ledger", tag = "sync", params(TenantQuery, DaysQuery),
    responses((status = 200, description = "The ledger", body = Ledger)))]
pub(super) async fn show_ledger(
    State(state): State<Arc<AppState>>,
    call: Call,
    mut params: Params,
) -> Result<Json<Ledger>, Error> {
    let named = params.id("tenant_id");
    let now = state.clock.now();
    let last = params.day("to").unwrap_or(now.date_naive());
    let first = params.day("from").unwrap_or(last - Days::new(DAYS_DEFAULT - 1));
    params.finish()?;
    let tenants = call.tenants(named.as_deref())?;
    let (totals, standing, days) = read(&state, tenants.as_slice(), (first, last)).await?;
    let Totals { line, difference } = &totals;
    Ok(Json(Ledger {
        is_whole: *difference == 0,
        difference: *difference,
        opened_at: standing.opened_at.map(Time),
        total: line.into(),
        days: days.iter().map(LedgerDay::from).collect(),
    }))
}

async fn read(
    state: &AppState,
    tenants: Option<&[String]>,
    range: (NaiveDate, NaiveDate),
) -> Result<(Totals, ledger::Standing, Vec<Day>), Error> {
    let now = state.clock.now();
    let read = async |conn: &mut schema::store::Conn| {
        let totals = ledger::totals(conn, tenants).await?;
        Ok((totals, ledger::standing(conn, now, now).await?, ledger::days(conn, tenants, range).await?))
    };
    Ok(state.reads.run("ledger", read).await?)
}
