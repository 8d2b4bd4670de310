//! Rules of alarms over HTTP, and what a house is doing.

use std::sync::Arc;

use actors::alarm::desk::{RuleEdit, RuleInForce};
use actors::alarm::rule::Mode;
use axum::Json;
use axum::extract::{Path, State};
use schema::store::alarm::Barn;
use schema::store::alarm::rule::{ModeRow, RuleRow};
use serde::Serialize;
use serde_json::Value;
use utoipa::{IntoParams, ToSchema};

use crate::http::AppState;
use crate::http::auth::{Call, Caller, refused};
use crate::http::body::JsonBody;
use crate::http::error::{Code, Error};
use crate::http::fields::Fields;
use crate::http::query::Params;
use crate::http::time::Time;

/// A rule that is in force.
#[derive(Debug, Serialize, ToSchema)]
#[schema(example = json!({"rule": {"id": "ammonia", "class": "high", "is_enabled": true, "test": {"kind": "level",
    "metric": "ammonia", "side": "above", "limit": 20.0, "hysteresis": 2.0, "mean_minutes": 15}, "on_seconds": 900,
    "off_seconds": 900, "is_latching": false, "modes": ["growing", "catching"], "hushed_by": [],
    "title": {"en": "Too much ammonia", "th": ""}, "cause": {"en": "More than 20 ppm harms eyes and lungs.", "th": ""},
    "first_action": {"en": "Raise the minimum ventilation.", "th": ""}}, "version": 0, "author": null, "reason": null,
    "created_at": null}))]
pub(in crate::http) struct RuleBody {
    /// The whole rule: edit it and send it back.
    #[schema(value_type = Object)]
    rule: Value,
    /// 0 for the program's, which nobody has edited.
    version: i32,
    author: Option<String>,
    reason: Option<String>,
    created_at: Option<Time>,
}

impl From<RuleInForce> for RuleBody {
    fn from(found: RuleInForce) -> Self {
        let row = found.row.as_ref();
        Self {
            rule: serde_json::to_value(&*found.rule).unwrap_or_default(),
            version: found.version,
            author: row.map(|row| row.author.clone()),
            reason: row.and_then(|row| row.reason.clone()),
            created_at: row.map(|row| row.created_at.into()),
        }
    }
}

impl From<RuleRow> for RuleBody {
    fn from(row: RuleRow) -> Self {
        Self {
            rule: row.body,
            version: row.version,
            author: Some(row.author),
            reason: row.reason,
            created_at: Some(row.created_at.into()),
        }
    }
}

/// Rules by their names.
#[derive(Debug, Serialize, ToSchema)]
pub(in crate::http) struct RuleList {
    rules: Vec<RuleBody>,
}

/// Of which barn.
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
#[expect(dead_code, reason = "documents the query that is read by hand")]
pub(in crate::http) struct BarnQuery {
    /// Its tenant; `x-tenant-id` may say it instead, and a key for one tenant needs neither.
    tenant_id: Option<String>,
    farm_id: String,
    barn_id: String,
}

/// The barn that a query names.
pub(super) fn barn_of(call: &Call, mut params: Params) -> Result<Barn, Error> {
    let tenant_id = params.id("tenant_id");
    let (farm_id, barn_id) = (params.required_id("farm_id"), params.required_id("barn_id"));
    params.finish()?;
    Ok(Barn { tenant_id: call.tenant(tenant_id.as_deref())?, farm_id, barn_id })
}

/// Lists the rules of a barn, and those of the box.
#[utoipa::path(get, path = "/api/v1/alarms/rules", tag = "alarms", params(BarnQuery),
    responses((status = 200, description = "The rules", body = RuleList)))]
pub(in crate::http) async fn list_rules(
    State(state): State<Arc<AppState>>,
    call: Call,
    params: Params,
) -> Result<Json<RuleList>, Error> {
    let barn = barn_of(&call, params)?;
    let mut rules = state.alarms.rules(&barn).await?;
    rules.extend(state.alarms.rules(&Barn::of_box()).await?);
    Ok(Json(RuleList { rules: rules.into_values().map(RuleBody::from).collect() }))
}

/// Lists the versions of a rule, the newest first. One that nobody edited has none.
#[utoipa::path(get, path = "/api/v1/alarms/rules/{rule_id}/history", tag = "alarms",
    params(("rule_id" = String, Path, description = "The rule"), BarnQuery),
    responses((status = 200, description = "The versions", body = RuleList)))]
pub(in crate::http) async fn rule_history(
    State(state): State<Arc<AppState>>,
    call: Call,
    Path(rule_id): Path<String>,
    params: Params,
) -> Result<Json<RuleList>, Error> {
    let barn = barn_of(&call, params)?;
    let barn = if actors::alarm::scene::is_of_box(&rule_id) { Barn::of_box() } else { barn };
    let rows = state.alarms.rule_history(&barn, &rule_id).await?;
    Ok(Json(RuleList { rules: rows.into_iter().map(RuleBody::from).collect() }))
}

/// A new version of a rule.
#[derive(ToSchema)]
#[expect(dead_code, reason = "documents the body that is read by hand")]
#[schema(example = json!({"tenant_id": "t-001", "farm_id": "f-001", "barn_id": "b-001", "version": 0,
    "reason": "the vet says 15 ppm", "rule": {"id": "ammonia"}}))]
pub(in crate::http) struct NewRule {
    /// Tenant; `x-tenant-id` may say it instead.
    tenant_id: Option<String>,
    farm_id: String,
    barn_id: String,
    /// The whole rule, as the list shows it. One of another name is a new rule.
    #[schema(value_type = Object)]
    rule: Value,
    /// The version that was edited: if there is a newer one by now, nothing is written.
    version: Option<i32>,
    /// Why.
    reason: Option<String>,
}

/// Writes a new version of a rule. Rules of the box need a key for every tenant.
#[utoipa::path(post, path = "/api/v1/alarms/rules", tag = "alarms", request_body = NewRule,
    responses((status = 200, description = "The rule as it is in force now", body = RuleBody),
        (status = 409, description = "ALARM_CONFLICT: somebody else edited it meanwhile")))]
pub(in crate::http) async fn put_rule(
    State(state): State<Arc<AppState>>,
    call: Call,
    body: JsonBody,
) -> Result<Json<RuleBody>, Error> {
    let mut fields = Fields::of(&body)?;
    let tenant_id = fields.optional_id("tenant_id");
    let (farm_id, barn_id) = (fields.id("farm_id"), fields.id("barn_id"));
    let (follows, reason) = (fields.whole("version", 0, i32::MAX), fields.optional_text("reason"));
    let rule = body.object()?["rule"].clone();
    if !rule.is_object() {
        fields.problem("rule", "must be an object, as the list of rules shows it");
    }
    fields.finish()?;
    let barn = Barn { tenant_id: call.tenant(tenant_id.as_deref())?, farm_id, barn_id };
    let is_of_box = rule["id"].as_str().is_some_and(actors::alarm::scene::is_of_box);
    if is_of_box && !is_for_all(&call) {
        return Err(refused(Code::Forbidden, "tenant", "rules of the box need a key for every tenant"));
    }
    let barn = if is_of_box { Barn::of_box() } else { barn };
    let edit = RuleEdit { body: rule, follows, reason };
    Ok(Json(state.alarms.put_rule(&barn, &edit, &call.author()).await?.into()))
}

fn is_for_all(call: &Call) -> bool {
    match &call.caller {
        Caller::Operator(operator) => operator.tenants.as_slice().is_none(),
        Caller::Anyone | Caller::Compat => true,
        Caller::Device(_) => false,
    }
}

/// What a house is doing.
#[derive(Debug, Serialize, ToSchema)]
#[schema(example = json!({"mode": "growing", "said": null}))]
pub(in crate::http) struct ModeBody {
    /// `empty`, `pre_heat`, `growing` or `catching`.
    mode: &'static str,
    /// What a person said last; in force until a flock is placed or ends after that.
    said: Option<SaidMode>,
}

/// What a person said.
#[derive(Debug, Serialize, ToSchema)]
struct SaidMode {
    mode: String,
    reason: Option<String>,
    author: String,
    since: Time,
}

impl From<ModeRow> for SaidMode {
    fn from(row: ModeRow) -> Self {
        let ModeRow { mode, reason, author, since } = row;
        Self { mode, reason, author, since: since.into() }
    }
}

/// Shows what a house is doing, which decides what alarms are heard.
#[utoipa::path(get, path = "/api/v1/alarms/mode", tag = "alarms", params(BarnQuery),
    responses((status = 200, description = "The mode", body = ModeBody)))]
pub(in crate::http) async fn show_mode(
    State(state): State<Arc<AppState>>,
    call: Call,
    params: Params,
) -> Result<Json<ModeBody>, Error> {
    let barn = barn_of(&call, params)?;
    let (mode, said) = state.alarms.mode(&barn).await?;
    Ok(Json(ModeBody { mode: mode.as_str(), said: said.map(SaidMode::from) }))
}

/// What a house is doing from now on.
#[derive(ToSchema)]
#[expect(dead_code, reason = "documents the body that is read by hand")]
#[schema(example = json!({"tenant_id": "t-001", "farm_id": "f-001", "barn_id": "b-001", "mode": "catching"}))]
pub(in crate::http) struct NewMode {
    /// Tenant; `x-tenant-id` may say it instead.
    tenant_id: Option<String>,
    farm_id: String,
    barn_id: String,
    /// `empty`, `pre_heat`, `growing` or `catching`.
    mode: String,
    /// Why.
    reason: Option<String>,
}

/// Says what a house is doing. It is in force until somebody says something else, or a flock is placed or ends.
#[utoipa::path(post, path = "/api/v1/alarms/mode", tag = "alarms", request_body = NewMode,
    responses((status = 200, description = "The mode", body = ModeBody)))]
pub(in crate::http) async fn put_mode(
    State(state): State<Arc<AppState>>,
    call: Call,
    body: JsonBody,
) -> Result<Json<ModeBody>, Error> {
    let mut fields = Fields::of(&body)?;
    let tenant_id = fields.optional_id("tenant_id");
    let (farm_id, barn_id) = (fields.id("farm_id"), fields.id("barn_id"));
    let words = Mode::ALL.map(Mode::as_str);
    let (mode, reason) = (fields.optional_word("mode", &words), fields.optional_text("reason"));
    let mode = mode.as_deref().and_then(Mode::parse);
    if mode.is_none() && !fields.is_given("mode") {
        fields.problem("mode", "is required");
    }
    fields.finish()?;
    let barn = Barn { tenant_id: call.tenant(tenant_id.as_deref())?, farm_id, barn_id };
    let mode = mode.unwrap_or(Mode::Growing);
    let said = state.alarms.put_mode(&barn, mode, reason, &call.author()).await?;
    Ok(Json(ModeBody { mode: mode.as_str(), said: Some(said.into()) }))
}
