//! The conservation ledger: what came in, what became of it, and whether that is all; what the cloud has of it, and how it
//! gets again what it has lost.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use chrono::{Days, Duration, DurationRound, NaiveDate};
use schema::clock::Timestamp;
use schema::id;
use schema::store::audit::Action;
use schema::store::ledger::{self, Day, HOURS_MAX, Hour, Line, Totals};
use schema::store::outbox::resend::{self, EVENTS_MAX, Range, Resent};
use schema::wire::time;
use serde::Serialize;
use serde_json::{Value, json};
use utoipa::{IntoParams, ToSchema};

use super::AppState;
use super::auth::Call;
use super::body::JsonBody;
use super::error::Error;
use super::query::{NOT_AN_ID, Params, Problems};
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

/// Whose hours are shown, and which.
#[derive(Debug, IntoParams)]
#[into_params(parameter_in = Query)]
#[expect(dead_code, reason = "documents the parameters that are read by hand")]
pub(super) struct HoursQuery {
    /// Tenant.
    #[param(example = "t-001")]
    tenant_id: String,
    /// First hour, by the time of the events: a time with nothing beyond the hour.
    #[param(example = "2026-02-12T09:00:00Z")]
    from: String,
    /// The hour after the last one; at most 744 hours after the first.
    #[param(example = "2026-02-12T10:00:00Z")]
    to: String,
}

/// What the cloud has acknowledged of one hour.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct DigestHour {
    /// Its first moment.
    hour: Time,
    /// Events.
    events: i64,
    /// The sum over their ids, a decimal number: of each id, as a text of lower case, the first 15 hexadecimal digits of its
    /// SHA-256.
    #[schema(example = "1743589113425998712")]
    hash: String,
}

impl From<Hour> for DigestHour {
    fn from(hour: Hour) -> Self {
        Self { hour: Time(hour.hour), events: hour.events, hash: hour.hash }
    }
}

/// What the cloud has acknowledged, by hour.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Digest {
    /// Tenant.
    #[schema(example = "t-001")]
    tenant_id: String,
    /// What was acknowledged before is not in it: the cloud may have more of the hours before.
    since: Option<Time>,
    /// Hours without an event are left out.
    hours: Vec<DigestHour>,
}

/// Shows what the cloud has acknowledged of each hour, as numbers that it can make of what it has.
#[utoipa::path(get, path = "/api/v1/ledger/digest", tag = "sync", params(HoursQuery),
    responses((status = 200, description = "The hours", body = Digest)))]
pub(super) async fn show_digest(
    State(state): State<Arc<AppState>>,
    call: Call,
    mut params: Params,
) -> Result<Json<Digest>, Error> {
    let tenant_id = params.required_id("tenant_id");
    let (from, to) = (params.text("from"), params.text("to"));
    let mut problems = Problems::default();
    let range = hours(from.as_deref(), to.as_deref(), &mut problems);
    params.finish()?;
    problems.finish()?;
    call.tenants(Some(&tenant_id))?;
    let read = async |conn: &mut schema::store::Conn| {
        Ok((ledger::digest_since(conn).await?, ledger::hours(conn, &tenant_id, range).await?))
    };
    let (since, hours) = state.reads.run("ledger_digest", read).await?;
    let hours = hours.into_iter().map(DigestHour::from).collect();
    Ok(Json(Digest { tenant_id, since: since.map(Time), hours }))
}

/// Reads a range of whole hours, at most [`HOURS_MAX`].
fn hours(from: Option<&str>, to: Option<&str>, problems: &mut Problems) -> (Timestamp, Timestamp) {
    let mut read = |name: &str, text: Option<&str>| {
        let at = text.and_then(time::parse);
        let hour = at.filter(|at| at.duration_trunc(Duration::hours(1)).is_ok_and(|hour| hour == *at));
        if hour.is_none() {
            problems.push(name, "must be a whole hour such as 2026-02-12T09:00:00Z");
        }
        hour
    };
    let range = (read("from", from), read("to", to));
    let (Some(from), Some(to)) = range else { return (Timestamp::UNIX_EPOCH, Timestamp::UNIX_EPOCH) };
    if to <= from || to - from > Duration::hours(HOURS_MAX) {
        problems.push("to", &format!("must be 1 to {HOURS_MAX} hours after from"));
    }
    (from, to)
}

/// What the cloud lacks.
#[derive(Debug, ToSchema)]
#[schema(example = json!({"tenant_id": "t-001", "from": "2026-02-12T09:00:00Z", "to": "2026-02-12T10:00:00Z", "dry_run": true}))]
pub(super) struct Resend {
    /// Tenant.
    tenant_id: String,
    /// First hour, by the time of the events.
    #[schema(value_type = String, format = DateTime)]
    from: Timestamp,
    /// The hour after the last one; at most 744 hours after the first.
    #[schema(value_type = String, format = DateTime)]
    to: Timestamp,
    /// Only says what would go.
    #[schema(default = false)]
    dry_run: bool,
}

impl Resend {
    fn of(body: &Value) -> Result<Self, Error> {
        let mut problems = Problems::default();
        let text = |name: &str| body.get(name).and_then(Value::as_str);
        let tenant_id = text("tenant_id").unwrap_or_default().to_owned();
        if !id::is_id(&tenant_id) {
            problems.push("tenant_id", NOT_AN_ID);
        }
        let (from, to) = hours(text("from"), text("to"), &mut problems);
        let dry_run = body.get("dry_run").filter(|value| !value.is_null());
        if dry_run.is_some_and(|value| !value.is_boolean()) {
            problems.push("dry_run", "must be true or false");
        }
        problems.finish()?;
        Ok(Self { tenant_id, from, to, dry_run: dry_run.and_then(Value::as_bool).unwrap_or(false) })
    }
}

/// What goes again.
#[derive(Debug, Serialize, ToSchema)]
#[schema(example = json!({"acked_count": 3600, "found_count": 3600, "resent_count": 3600, "gone_count": 0,
    "without_reading_count": 0, "message": "3600 events go again"}))]
pub(super) struct ResendAnswer {
    /// Events of these hours that the cloud has acknowledged, by the digest.
    acked_count: i64,
    /// Of these, events that are kept here still.
    found_count: i64,
    /// Events that were put back into the outbox.
    resent_count: i64,
    /// Events that the cloud has acknowledged and that are kept here no more: they cannot be resent.
    gone_count: i64,
    /// Events that are kept, but whose reading is deleted, and with it what they said: they cannot be resent.
    without_reading_count: i64,
    /// The same in words.
    message: String,
}

/// Sends the events of some hours again that the cloud has acknowledged, in their order and under the same ids: it takes those
/// it has for duplicates. What waits already or was acknowledged elsewhere stays as it is.
#[utoipa::path(post, path = "/api/v1/sync/resend", tag = "sync", request_body = Resend,
    responses((status = 200, description = "What goes again", body = ResendAnswer)))]
pub(super) async fn resend(
    State(state): State<Arc<AppState>>,
    call: Call,
    body: JsonBody,
) -> Result<Json<ResendAnswer>, Error> {
    let Resend { tenant_id, from, to, dry_run } = Resend::of(&body.object()?)?;
    call.tenants(Some(&tenant_id))?;
    if !dry_run {
        let detail = json!({"from": time::format(from), "to": time::format(to)});
        super::audit::note(&state, &call, Action::Resend, Some(std::slice::from_ref(&tenant_id)), detail)
            .await?;
    }
    let (now, range) = (state.clock.now(), Range { tenant_id: &tenant_id, from, to });
    let write = async |conn: &mut schema::store::Conn| {
        let hours = ledger::hours(conn, &tenant_id, (from, to)).await?;
        Ok((hours, resend::resend(conn, &range, dry_run, now).await?))
    };
    let (hours, Resent { found, without_reading, resent }) = state.store.run("resend", write).await?;
    if found > EVENTS_MAX {
        return Err(Error::validation(format!(
            "to: these hours have {found} events, and one call puts back at most {EVENTS_MAX}: name fewer hours"
        )));
    }
    state.sync.wake();
    let acked: i64 = hours.iter().map(|hour| hour.events).sum();
    let gone = (acked - found).max(0);
    let lost = gone + without_reading;
    let message = match (dry_run, lost) {
        (true, _) => format!("{} events would go again, {lost} are kept no more", found - without_reading),
        (false, 0) => format!("{resent} events go again"),
        (false, _) => format!("{resent} events go again, {lost} are kept no more and cannot"),
    };
    Ok(Json(ResendAnswer {
        acked_count: acked,
        found_count: found,
        resent_count: resent,
        gone_count: gone,
        without_reading_count: without_reading,
        message,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_resend_names_a_tenant_and_whole_hours() {
        let check = |change: Value, expected: Result<(bool, i64), &str>| {
            let mut body =
                json!({"tenant_id": "t-001", "from": "2026-02-12T09:00:00Z", "to": "2026-02-12T10:00:00Z"});
            body.as_object_mut().expect("an object").extend(change.as_object().expect("an object").clone());
            let read =
                Resend::of(&body).map(|resend| (resend.dry_run, (resend.to - resend.from).num_hours()));
            assert_eq!(
                read.map_err(|error| error.message.into_owned()),
                expected.map_err(str::to_owned),
                "{body}"
            );
        };
        check(json!({}), Ok((false, 1)));
        check(json!({"dry_run": true, "to": "2026-02-13T09:00:00+00:00"}), Ok((true, 24)));
        check(json!({"dry_run": 1}), Err("dry_run: must be true or false"));
        check(json!({"to": "2026-03-15T09:00:00Z"}), Ok((false, 744)));
        let range = "to: must be 1 to 744 hours after from";
        check(json!({"to": "2026-03-15T10:00:00Z"}), Err(range));
        check(json!({"to": "2026-02-12T09:00:00Z"}), Err(range));
        let hour = "must be a whole hour such as 2026-02-12T09:00:00Z";
        check(json!({"from": "2026-02-12T09:00:00.001Z"}), Err(&format!("from: {hour}")));
        check(json!({"to": null}), Err(&format!("to: {hour}")));
        check(json!({"tenant_id": ""}), Err(&format!("tenant_id: {NOT_AN_ID}")));
    }
}
