//! Alarms over HTTP: what stands, what happened, and what a person does about it. Rules and modes are in [`rule`],
//! drills in [`drill`], the ways out of the barn in [`super::way`].

pub(super) mod drill;
pub(super) mod rule;

use std::collections::BTreeMap;
use std::sync::Arc;

use actors::alarm::desk::{AlarmError, RuleInForce, barn_of};
use actors::alarm::house::{Act, ActError};
use actors::alarm::owner::Done;
use actors::alarm::way::Words;
use axum::Json;
use axum::extract::{Path, State};
use schema::id::Uuid;
use schema::store::alarm::telling::{ResultRow, TellingRow};
use schema::store::alarm::{AlarmRow, Barn, EventRow, Figures, Filter};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::AppState;
use super::auth::Call;
use super::body::JsonBody;
use super::cursor::{self, AlarmEventKey, Key};
use super::error::{Code, Error};
use super::fields::Fields;
use super::flock::known;
use super::query::Params;
use super::time::Time;

/// Every state, the most urgent first.
const STATES: [&str; 7] = ["UNACK", "ACKED", "RTNUN", "SHLVD", "DSUPR", "OOSRV", "NORM"];

/// The same words in both languages.
#[derive(Clone, Debug, Default, Serialize, ToSchema)]
pub(super) struct AlarmWords {
    en: String,
    th: String,
}

impl From<&Words> for AlarmWords {
    fn from(words: &Words) -> Self {
        Self { en: words.en.clone(), th: words.th.clone() }
    }
}

/// An alarm: one rule at one place.
#[derive(Debug, Serialize, ToSchema)]
#[schema(example = json!({"id": "5b076387-9821-53d1-851f-284a7f1422d8", "tenant_id": "t-001", "farm_id": "f-001",
    "barn_id": "b-001", "rule_id": "house_hot", "place": "", "class": "critical", "state": "UNACK", "is_active": true,
    "is_unacknowledged": true, "is_latching": false, "occurrence": 3, "value": 35.2, "limit": 35.0, "unit": "°C",
    "why": null, "raised_at": "2026-02-12T09:32:15.052Z", "ended_at": null, "acknowledged_at": null,
    "acknowledged_by": null, "shelved_until": null, "shelved_by": null, "shelf_reason": null, "suppressed_by": null, "out_of_service_reason": null,
    "tellings": 1, "state_since": "2026-02-12T09:32:15.052Z", "title": {"en": "House too hot", "th": "โรงเรือนร้อนเกินไป"},
    "cause": {"en": "", "th": ""}, "first_action": {"en": "", "th": ""}}))]
pub(super) struct AlarmBody {
    id: Uuid,
    /// Empty for the box itself: its disk, its database.
    tenant_id: String,
    farm_id: String,
    barn_id: String,
    rule_id: String,
    /// A device, a metric, a way out of the barn, or empty for the whole house.
    place: String,
    /// `low`, `high` or `critical`.
    class: String,
    /// `NORM`, `UNACK`, `ACKED`, `RTNUN` (was, and nobody has seen it), `SHLVD` (put aside), `DSUPR` (hidden, since its cause is
    /// known) or `OOSRV` (out of service).
    state: String,
    /// Whether the condition stands.
    is_active: bool,
    is_unacknowledged: bool,
    /// Whether it stays until a person has seen that it is over.
    is_latching: bool,
    /// How often it was raised.
    occurrence: i64,
    /// What raised it.
    value: Option<f64>,
    limit: Option<f64>,
    unit: Option<String>,
    why: Option<String>,
    raised_at: Option<Time>,
    ended_at: Option<Time>,
    acknowledged_at: Option<Time>,
    acknowledged_by: Option<String>,
    shelved_until: Option<Time>,
    shelved_by: Option<String>,
    shelf_reason: Option<String>,
    /// `mode:` and what the house is doing, or `alarm:` and the rule that is the cause.
    suppressed_by: Option<String>,
    /// Why its sensor is out of service.
    out_of_service_reason: Option<String>,
    /// Tellings of this occurrence.
    tellings: i32,
    state_since: Time,
    /// What is wrong.
    title: AlarmWords,
    /// What it means, and what it usually comes from.
    cause: AlarmWords,
    /// What to do first.
    first_action: AlarmWords,
}

impl AlarmBody {
    fn of(row: AlarmRow, rules: &BTreeMap<Barn, BTreeMap<String, RuleInForce>>) -> Self {
        let rule = rules.get(&barn_of(&row)).and_then(|rules| rules.get(&row.rule_id));
        let words = |pick: fn(&RuleInForce) -> &Words| rule.map(|rule| pick(rule).into()).unwrap_or_default();
        Self {
            id: row.id,
            tenant_id: row.tenant_id,
            farm_id: row.farm_id,
            barn_id: row.barn_id,
            rule_id: row.rule_id,
            place: row.place,
            class: row.class,
            state: row.state,
            is_active: row.is_active,
            is_unacknowledged: row.is_unacknowledged,
            is_latching: row.is_latching,
            occurrence: row.occurrence,
            value: row.value,
            limit: row.limit_value,
            unit: row.unit,
            why: row.why,
            raised_at: row.raised_at.map(Time),
            ended_at: row.ended_at.map(Time),
            acknowledged_at: row.acknowledged_at.map(Time),
            acknowledged_by: row.acknowledged_by,
            shelved_until: row.shelved_until.map(Time),
            shelved_by: row.shelved_by,
            shelf_reason: row.shelf_reason,
            suppressed_by: row.suppressed_by,
            out_of_service_reason: row.out_of_service_reason,
            tellings: row.tellings,
            state_since: row.state_since.into(),
            title: words(|rule| &rule.rule.title),
            cause: words(|rule| &rule.rule.cause),
            first_action: words(|rule| &rule.rule.first_action),
        }
    }
}

/// Alarms, the most urgent states first.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct AlarmList {
    alarms: Vec<AlarmBody>,
    /// What to give as `after` for those behind; null at the end.
    next: Option<String>,
}

/// Which alarms.
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
#[expect(dead_code, reason = "documents the query that is read by hand")]
pub(super) struct AlarmQuery {
    /// Their tenant; `x-tenant-id` may say it instead, and a key for one tenant needs neither. Those of the box are always among
    /// them.
    tenant_id: Option<String>,
    /// Only those of this barn and of the box.
    barn_id: Option<String>,
    /// Only those of this rule.
    rule_id: Option<String>,
    /// Rows at most.
    #[param(minimum = 1, maximum = 1000, default = 100)]
    limit: Option<i64>,
}

/// In which states.
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
#[expect(dead_code, reason = "documents the query that is read by hand")]
pub(super) struct StateQuery {
    /// Only those in this state; unless given, all that are not `NORM`.
    state: Option<String>,
    /// Only what is behind this: `next` of the list before.
    after: Option<String>,
}

/// The parameters that all lists of alarms have.
struct Asked {
    tenant_id: Option<String>,
    barn_id: Option<String>,
    rule_id: Option<String>,
    limit: i64,
}

impl Asked {
    fn of(params: &mut Params) -> Self {
        Self {
            tenant_id: params.id("tenant_id"),
            barn_id: params.id("barn_id"),
            rule_id: params.id("rule_id"),
            limit: params.limit(),
        }
    }

    fn filter(&self) -> Filter<'_> {
        Filter {
            tenant_id: self.tenant_id.as_deref(),
            barn_id: self.barn_id.as_deref(),
            rule_id: self.rule_id.as_deref(),
        }
    }
}

/// The list of alarms is ordered by their states, and by their ids.
#[derive(Debug, Serialize, Deserialize)]
struct AlarmKey(String, Uuid);

impl Key for AlarmKey {
    const LIST: &'static str = "alarms";
}

/// Lists alarms, the most urgent states first.
#[utoipa::path(get, path = "/api/v1/alarms", tag = "alarms", params(AlarmQuery, StateQuery),
    responses((status = 200, description = "Alarms", body = AlarmList)))]
pub(super) async fn list_alarms(
    State(state): State<Arc<AppState>>,
    call: Call,
    mut params: Params,
) -> Result<Json<AlarmList>, Error> {
    let mut asked = Asked::of(&mut params);
    let states = STATES.map(|name| (name, name));
    let (one, after) = (params.one_of("state", &states), params.after::<AlarmKey>());
    params.finish()?;
    asked.tenant_id = call.read_tenant(asked.tenant_id.as_deref())?;
    let states: Vec<&str> = match one {
        Some(one) => vec![one],
        None => STATES.into_iter().filter(|name| *name != "NORM").collect(),
    };
    let after = after.map(|AlarmKey(state, id)| {
        let place = states.iter().position(|name| *name == state).map_or(0, |place| place + 1);
        format!("{place}/{id}")
    });
    let rows = state.alarms.list(asked.filter(), &states, after.as_deref(), asked.limit).await?;
    let next = cursor::behind(&rows, asked.limit, |row| AlarmKey(row.state.clone(), row.id));
    let rules = state.alarms.rules_of(&rows).await?;
    Ok(Json(AlarmList { alarms: rows.into_iter().map(|row| AlarmBody::of(row, &rules)).collect(), next }))
}

/// Something that happened to an alarm.
#[derive(Debug, Serialize, ToSchema)]
#[schema(example = json!({"id": "0198a6f2-7c1e-7d2a-9f35-0c8a5b1e2d3f", "alarm_id": "5b076387-9821-53d1-851f-284a7f1422d8",
    "tenant_id": "t-001", "farm_id": "f-001", "barn_id": "b-001", "rule_id": "house_hot", "place": "", "class": "critical",
    "occurrence": 3, "kind": "raised", "from_state": "NORM", "to_state": "UNACK", "value": 35.2, "limit": 35.0, "why": null,
    "author": "engine", "occurred_at": "2026-02-12T09:32:15.052Z", "happened_at": "2026-02-12T09:32:15.052Z"}))]
pub(super) struct AlarmEventBody {
    id: Uuid,
    alarm_id: Uuid,
    tenant_id: String,
    farm_id: String,
    barn_id: String,
    rule_id: String,
    place: String,
    class: String,
    occurrence: i64,
    /// `raised`, `ended`, `acknowledged`, `shelved`, `unshelved`, `suppressed`, `unsuppressed`, `out_of_service`, `in_service` or
    /// `restarted`.
    kind: String,
    from_state: String,
    to_state: String,
    value: Option<f64>,
    limit: Option<f64>,
    why: Option<String>,
    /// Who did it; `engine` where nobody did.
    author: String,
    /// The time of the reading that did it.
    occurred_at: Option<Time>,
    happened_at: Time,
}

impl From<EventRow> for AlarmEventBody {
    fn from(row: EventRow) -> Self {
        Self {
            id: row.id,
            alarm_id: row.alarm_id,
            tenant_id: row.tenant_id,
            farm_id: row.farm_id,
            barn_id: row.barn_id,
            rule_id: row.rule_id,
            place: row.place,
            class: row.class,
            occurrence: row.occurrence,
            kind: row.kind,
            from_state: row.from_state,
            to_state: row.to_state,
            value: row.value,
            limit: row.limit_value,
            why: row.why,
            author: row.author,
            occurred_at: row.occurred_at.map(Time),
            happened_at: row.happened_at.into(),
        }
    }
}

/// What happened, the newest first.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct AlarmEventList {
    events: Vec<AlarmEventBody>,
    /// What to give as `after` for what happened earlier; null at the end.
    next: Option<String>,
}

/// From where on.
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
#[expect(dead_code, reason = "documents the query that is read by hand")]
pub(super) struct AfterQuery {
    /// Only what is behind this: `next` of the list before.
    after: Option<String>,
}

/// Lists what happened to alarms, the newest first.
#[utoipa::path(get, path = "/api/v1/alarms/history", tag = "alarms", params(AlarmQuery, AfterQuery),
    responses((status = 200, description = "What happened", body = AlarmEventList)))]
pub(super) async fn alarm_history(
    State(state): State<Arc<AppState>>,
    call: Call,
    mut params: Params,
) -> Result<Json<AlarmEventList>, Error> {
    let mut asked = Asked::of(&mut params);
    let before = params.after::<AlarmEventKey>().map(Uuid::from);
    params.finish()?;
    asked.tenant_id = call.read_tenant(asked.tenant_id.as_deref())?;
    let rows = state.alarms.history(asked.filter(), before, asked.limit).await?;
    let next = cursor::behind(&rows, asked.limit, |row| AlarmEventKey::from(row.id));
    Ok(Json(AlarmEventList { events: rows.into_iter().map(AlarmEventBody::from).collect(), next }))
}

/// How many alarms there are, and which rules raise them.
#[derive(Debug, Serialize, ToSchema)]
#[schema(example = json!({"raised_24_hours": 2, "raised_30_days": 31, "longest_since": null, "longest_id": null,
    "top_causes": [{"rule_id": "sensor_silent", "raises": 12}]}))]
pub(super) struct AlarmFigures {
    raised_24_hours: i64,
    raised_30_days: i64,
    /// Since when the alarm stands that stands longest.
    longest_since: Option<Time>,
    longest_id: Option<Uuid>,
    /// The three rules with the most raises of 30 days.
    top_causes: Vec<AlarmCause>,
}

/// A rule and how often it was raised.
#[derive(Debug, Serialize, ToSchema)]
struct AlarmCause {
    rule_id: String,
    raises: i64,
}

/// Counts alarms of the last day and of the last 30 days.
#[utoipa::path(get, path = "/api/v1/alarms/figures", tag = "alarms", params(AlarmQuery),
    responses((status = 200, description = "Figures", body = AlarmFigures)))]
pub(super) async fn alarm_figures(
    State(state): State<Arc<AppState>>,
    call: Call,
    mut params: Params,
) -> Result<Json<AlarmFigures>, Error> {
    let mut asked = Asked::of(&mut params);
    params.finish()?;
    asked.tenant_id = call.read_tenant(asked.tenant_id.as_deref())?;
    let Figures { raised_today, longest_since, longest_id, top_causes, raised_lately } =
        state.alarms.figures(asked.filter()).await?;
    let causes =
        top_causes.into_iter().map(|cause| AlarmCause { rule_id: cause.rule_id, raises: cause.raises });
    Ok(Json(AlarmFigures {
        raised_24_hours: raised_today,
        raised_30_days: raised_lately,
        longest_since: longest_since.map(Time),
        longest_id,
        top_causes: causes.collect(),
    }))
}

/// Who was told, and how that went.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct AlarmTellingBody {
    /// The number of the telling of this occurrence, from 0.
    number: i32,
    /// `raised`, `reminder`, `ended` or `drill`.
    kind: String,
    /// Listed with the others of a flood, and told by no way.
    is_grouped: bool,
    ways: Vec<String>,
    begun_at: Time,
    results: Vec<AlarmResultBody>,
}

/// What became of a telling by one way.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct AlarmResultBody {
    way: String,
    /// Null when it was told; else `unreachable`, `timed_out`, `refused`, `unanswered`, `broken` or `unknown`.
    failure: Option<String>,
    /// What the other side said, or what to do.
    detail: String,
    confirmed_by: Option<String>,
    /// From the order to the confirmation.
    latency_ms: i64,
    ended_at: Time,
}

impl From<&ResultRow> for AlarmResultBody {
    fn from(row: &ResultRow) -> Self {
        Self {
            way: row.way.clone(),
            failure: row.failure.clone(),
            detail: row.detail.clone(),
            confirmed_by: row.confirmed_by.clone(),
            latency_ms: row.latency_ms,
            ended_at: row.ended_at.into(),
        }
    }
}

impl AlarmTellingBody {
    fn of(row: TellingRow, results: &[ResultRow]) -> Self {
        let of_number = results.iter().filter(|result| result.number == row.number);
        let results = of_number.map(AlarmResultBody::from).collect();
        let TellingRow { number, kind, is_grouped, ways, begun_at, .. } = row;
        Self { number, kind, is_grouped, ways, begun_at: begun_at.into(), results }
    }
}

/// An alarm, what happened to it, and who was told.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct ShownAlarm {
    alarm: AlarmBody,
    /// The newest first, 50 at most.
    events: Vec<AlarmEventBody>,
    /// Of the current occurrence, the newest first.
    tellings: Vec<AlarmTellingBody>,
}

/// Whose alarm.
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
#[expect(dead_code, reason = "documents the query that is read by hand")]
pub(super) struct OfTenant {
    /// Its tenant; `x-tenant-id` may say it instead, and a key for one tenant needs neither.
    tenant_id: Option<String>,
}

/// Shows an alarm, what happened to it, and who was told.
#[utoipa::path(get, path = "/api/v1/alarms/{id}", tag = "alarms",
    params(("id" = Uuid, Path, description = "The alarm"), OfTenant),
    responses((status = 200, description = "The alarm", body = ShownAlarm),
        (status = 404, description = "NOT_FOUND")))]
pub(super) async fn show_alarm(
    State(state): State<Arc<AppState>>,
    call: Call,
    Path(id): Path<String>,
    mut params: Params,
) -> Result<Json<ShownAlarm>, Error> {
    let tenant_id = params.id("tenant_id");
    params.finish()?;
    let tenant_id = call.read_tenant(tenant_id.as_deref())?;
    let shown = state.alarms.show(tenant_id.as_deref(), known(&id)?).await?;
    let rules = state.alarms.rules_of(std::slice::from_ref(&shown.row)).await?;
    let results = shown.results;
    Ok(Json(ShownAlarm {
        alarm: AlarmBody::of(shown.row, &rules),
        events: shown.events.into_iter().map(AlarmEventBody::from).collect(),
        tellings: shown.tellings.into_iter().map(|row| AlarmTellingBody::of(row, &results)).collect(),
    }))
}

/// An alarm after something was done about it.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct AlarmDone {
    alarm: AlarmBody,
    /// Whether that is written down; false while the database is away: it is done, and written when the database is back.
    is_written: bool,
}

async fn done_body(state: &AppState, done: Done) -> Result<AlarmDone, Error> {
    // It is done, also when its rule cannot be read now.
    let rules = state.alarms.rules_of(std::slice::from_ref(&done.row)).await.unwrap_or_default();
    Ok(AlarmDone { alarm: AlarmBody::of(done.row, &rules), is_written: done.is_written })
}

/// What is acknowledged.
#[derive(ToSchema)]
#[expect(dead_code, reason = "documents the body that is read by hand")]
#[schema(example = json!({"tenant_id": "t-001", "occurrence": 3}))]
pub(super) struct AcknowledgeAlarm {
    /// Its tenant; `x-tenant-id` may say it instead.
    tenant_id: Option<String>,
    /// The occurrence that was looked at: another one is not acknowledged by mistake.
    occurrence: Option<i64>,
}

/// Says that somebody knows: what sounds falls silent.
#[utoipa::path(post, path = "/api/v1/alarms/{id}/ack", tag = "alarms", request_body = AcknowledgeAlarm,
    params(("id" = Uuid, Path, description = "The alarm")),
    responses((status = 200, description = "The alarm", body = AlarmDone), (status = 404, description = "NOT_FOUND"),
        (status = 409, description = "ALARM_CONFLICT: it waits for nobody, or another occurrence was named")))]
pub(super) async fn acknowledge(
    State(state): State<Arc<AppState>>,
    call: Call,
    Path(id): Path<String>,
    body: JsonBody,
) -> Result<Json<AlarmDone>, Error> {
    let mut fields = Fields::of(&body)?;
    let (tenant_id, occurrence) = (fields.optional_id("tenant_id"), fields.whole("occurrence", 1, i32::MAX));
    fields.finish()?;
    let act = Act::Acknowledge { occurrence: occurrence.and_then(|number| u64::try_from(number).ok()) };
    do_it(&state, &call, tenant_id, &id, act).await
}

/// What is put aside.
#[derive(ToSchema)]
#[expect(dead_code, reason = "documents the body that is read by hand")]
#[schema(example = json!({"tenant_id": "t-001", "minutes": 30, "reason": "the house is washed"}))]
pub(super) struct ShelveAlarm {
    /// Its tenant; `x-tenant-id` may say it instead.
    tenant_id: Option<String>,
    /// For how long: 30 at most for a critical alarm, 480 for any other.
    minutes: i64,
    /// Why.
    reason: String,
}

/// Puts an alarm aside for a while. It comes back by itself, and rings if it still stands.
#[utoipa::path(post, path = "/api/v1/alarms/{id}/shelve", tag = "alarms", request_body = ShelveAlarm,
    params(("id" = Uuid, Path, description = "The alarm")),
    responses((status = 200, description = "The alarm", body = AlarmDone), (status = 404, description = "NOT_FOUND"),
        (status = 409, description = "ALARM_CONFLICT: there is nothing to put aside")))]
pub(super) async fn shelve(
    State(state): State<Arc<AppState>>,
    call: Call,
    Path(id): Path<String>,
    body: JsonBody,
) -> Result<Json<AlarmDone>, Error> {
    let mut fields = Fields::of(&body)?;
    let tenant_id = fields.optional_id("tenant_id");
    let (minutes, reason) = (fields.whole("minutes", 1, i32::MAX), fields.text("reason"));
    if minutes.is_none() {
        fields.problem("minutes", "is required");
    }
    fields.finish()?;
    let minutes = minutes.and_then(|minutes| u32::try_from(minutes).ok()).unwrap_or_default();
    do_it(&state, &call, tenant_id, &id, Act::Shelve { minutes, reason }).await
}

/// Whose alarm.
#[derive(ToSchema)]
#[expect(dead_code, reason = "documents the body that is read by hand")]
#[schema(example = json!({"tenant_id": "t-001"}))]
pub(super) struct OfAlarm {
    /// Its tenant; `x-tenant-id` may say it instead.
    tenant_id: Option<String>,
}

/// Takes an alarm up again that was put aside.
#[utoipa::path(post, path = "/api/v1/alarms/{id}/unshelve", tag = "alarms", request_body = OfAlarm,
    params(("id" = Uuid, Path, description = "The alarm")),
    responses((status = 200, description = "The alarm", body = AlarmDone), (status = 404, description = "NOT_FOUND"),
        (status = 409, description = "ALARM_CONFLICT: it is not put aside")))]
pub(super) async fn unshelve(
    State(state): State<Arc<AppState>>,
    call: Call,
    Path(id): Path<String>,
    body: JsonBody,
) -> Result<Json<AlarmDone>, Error> {
    let tenant_id = Fields::tenant_alone(&body)?;
    do_it(&state, &call, tenant_id, &id, Act::Unshelve).await
}

/// Whose sensor is taken out of service.
#[derive(ToSchema)]
#[expect(dead_code, reason = "documents the body that is read by hand")]
#[schema(example = json!({"tenant_id": "t-001", "reason": "the probe is at the workshop"}))]
pub(super) struct RetireAlarm {
    /// Its tenant; `x-tenant-id` may say it instead.
    tenant_id: Option<String>,
    /// Why.
    reason: String,
}

/// Takes the sensor of an alarm out of service: it is listed, and never heard, until somebody puts it back.
#[utoipa::path(post, path = "/api/v1/alarms/{id}/out-of-service", tag = "alarms", request_body = RetireAlarm,
    params(("id" = Uuid, Path, description = "The alarm")),
    responses((status = 200, description = "The alarm", body = AlarmDone), (status = 404, description = "NOT_FOUND"),
        (status = 409, description = "ALARM_CONFLICT: it is out of service already")))]
pub(super) async fn take_out_of_service(
    State(state): State<Arc<AppState>>,
    call: Call,
    Path(id): Path<String>,
    body: JsonBody,
) -> Result<Json<AlarmDone>, Error> {
    let mut fields = Fields::of(&body)?;
    let (tenant_id, reason) = (fields.optional_id("tenant_id"), fields.text("reason"));
    fields.finish()?;
    do_it(&state, &call, tenant_id, &id, Act::OutOfService { reason }).await
}

/// Puts the sensor of an alarm back into service. What stands rings.
#[utoipa::path(post, path = "/api/v1/alarms/{id}/in-service", tag = "alarms", request_body = OfAlarm,
    params(("id" = Uuid, Path, description = "The alarm")),
    responses((status = 200, description = "The alarm", body = AlarmDone), (status = 404, description = "NOT_FOUND"),
        (status = 409, description = "ALARM_CONFLICT: it is in service")))]
pub(super) async fn put_in_service(
    State(state): State<Arc<AppState>>,
    call: Call,
    Path(id): Path<String>,
    body: JsonBody,
) -> Result<Json<AlarmDone>, Error> {
    let mut fields = Fields::of(&body)?;
    let tenant_id = fields.optional_id("tenant_id");
    fields.finish()?;
    do_it(&state, &call, tenant_id, &id, Act::InService).await
}

async fn do_it(
    state: &AppState,
    call: &Call,
    tenant_id: Option<String>,
    id: &str,
    act: Act,
) -> Result<Json<AlarmDone>, Error> {
    let tenant_id = call.read_tenant(tenant_id.as_deref())?;
    let done = state.alarms.act(tenant_id.as_deref(), known(id)?, act, call.author()).await?;
    Ok(Json(done_body(state, done).await?))
}

impl From<AlarmError> for Error {
    fn from(error: AlarmError) -> Self {
        let text = error.to_string();
        match error {
            AlarmError::Store(error) => error.into(),
            AlarmError::NoRule | AlarmError::NoDrill => Self::new(Code::NotFound, text),
            AlarmError::Rule(_) => Self::validation(text),
            AlarmError::OtherVersion(_) | AlarmError::DrillOver(_) => Self::new(Code::AlarmConflict, text),
            AlarmError::Act(act) => match act {
                ActError::NoAlarm | ActError::NoBarn => Self::new(Code::NotFound, text),
                ActError::ShelfTooLong(_) => Self::validation(text),
                ActError::NotOwner => Self::new(Code::NotReady, text),
                ActError::NothingToAcknowledge(_)
                | ActError::OutOfService
                | ActError::InService
                | ActError::OtherOccurrence(..)
                | ActError::NothingToShelve
                | ActError::NotShelved
                | ActError::IsDrill
                | ActError::DrillGoesOn => Self::new(Code::AlarmConflict, text),
            },
        }
    }
}
