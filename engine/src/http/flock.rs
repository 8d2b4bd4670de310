//! The flock's book over HTTP: barns, flocks, records, days, statistics. Standards are in [`super::standard`].

use std::sync::Arc;

use actors::flock::desk::{BookError, NewRecord, day_of_age};
use actors::flock::standard::Sex;
use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use chrono::NaiveDate;
use schema::id::Uuid;
use schema::store::flock::record::{Kind, Record};
use schema::store::flock::{Barn, Flock};
use serde::Serialize;
use serde_json::{Value, json};
use utoipa::{IntoParams, ToSchema};

use super::AppState;
use super::auth::Call;
use super::body::JsonBody;
use super::cursor::{self, BarnKey, FlockKey, RecordKey};
use super::error::{Code, Error};
use super::fields::Fields;
use super::query::Params;
use super::time::Time;
use crate::days::csv_of;

/// A barn and how its people tell time and weight.
#[derive(Debug, Serialize, ToSchema)]
#[schema(example = json!({"tenant_id": "t-001", "farm_id": "f-001", "barn_id": "b-001", "name": "House 1",
    "time_zone": "Asia/Bangkok", "language": "th-TH", "units": "METRIC", "updated_at": "2026-02-12T09:32:15.052Z"}))]
pub(super) struct BarnBody {
    tenant_id: String,
    farm_id: String,
    barn_id: String,
    name: String,
    /// A name of the IANA database. Days of birds begin at midnight here; without it, in UTC.
    time_zone: String,
    language: String,
    /// `METRIC` or `IMPERIAL`: how people are shown what the API says in metric units.
    units: String,
    updated_at: Time,
}

impl From<Barn> for BarnBody {
    fn from(row: Barn) -> Self {
        let Barn { tenant_id, farm_id, barn_id, name, time_zone, language, units, updated_at } = row;
        Self { tenant_id, farm_id, barn_id, name, time_zone, language, units, updated_at: updated_at.into() }
    }
}

/// Barns.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct BarnList {
    barns: Vec<BarnBody>,
    /// What to give as `after` for those that follow; null at the end.
    next: Option<String>,
}

/// Where a list goes on.
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
#[expect(dead_code, reason = "documents the query that is read by hand")]
pub(super) struct AfterQuery {
    /// Only what stands behind: `next` of the list before.
    after: Option<String>,
}

/// Whose rows, and how many.
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
#[expect(dead_code, reason = "documents the query that is read by hand")]
pub(super) struct BookQuery {
    /// Their tenant; `x-tenant-id` may say it instead, and a key for one tenant needs neither.
    tenant_id: Option<String>,
    /// Rows at most.
    #[param(minimum = 1, maximum = 1000, default = 100)]
    limit: Option<i64>,
}

/// Lists what is known of barns.
#[utoipa::path(get, path = "/api/v1/barns", tag = "flocks", params(BookQuery, AfterQuery),
    responses((status = 200, description = "Barns", body = BarnList)))]
pub(super) async fn list_barns(
    State(state): State<Arc<AppState>>,
    call: Call,
    mut params: Params,
) -> Result<Json<BarnList>, Error> {
    let (tenant_id, limit) = (params.id("tenant_id"), params.limit());
    let BarnKey(after_tenant, after_farm, after_barn) = params.after().unwrap_or_default();
    params.finish()?;
    let tenant_id = call.read_tenant(tenant_id.as_deref())?;
    let after = [&*after_tenant, &*after_farm, &*after_barn];
    let barns = state.book.barns_behind(tenant_id.as_deref(), after, limit).await?;
    let key = |last: &Barn| BarnKey(last.tenant_id.clone(), last.farm_id.clone(), last.barn_id.clone());
    let next = cursor::behind(&barns, limit, key);
    Ok(Json(BarnList { barns: barns.into_iter().map(BarnBody::from).collect(), next }))
}

/// What is to be known of a barn.
#[derive(ToSchema)]
#[expect(dead_code, reason = "documents the body that is read by hand")]
#[schema(example = json!({"tenant_id": "t-001", "farm_id": "f-001", "barn_id": "b-001", "name": "House 1",
    "time_zone": "Asia/Bangkok", "language": "th-TH", "units": "METRIC"}))]
pub(super) struct NewBarn {
    /// Tenant; `x-tenant-id` may say it instead.
    tenant_id: Option<String>,
    farm_id: String,
    barn_id: String,
    /// Its id unless given.
    name: Option<String>,
    /// A name of the IANA database.
    time_zone: String,
    /// `en` unless given.
    language: Option<String>,
    /// `METRIC` unless given, or `IMPERIAL`.
    units: Option<String>,
}

/// Writes what is known of a barn, new or not. In another time zone the days of its flocks are made anew.
#[utoipa::path(post, path = "/api/v1/barns", tag = "flocks", request_body = NewBarn,
    responses((status = 200, description = "The barn", body = BarnBody)))]
pub(super) async fn put_barn(
    State(state): State<Arc<AppState>>,
    call: Call,
    body: JsonBody,
) -> Result<Json<BarnBody>, Error> {
    let mut fields = Fields::of(&body)?;
    let tenant_id = fields.optional_id("tenant_id");
    let (farm_id, barn_id) = (fields.id("farm_id"), fields.id("barn_id"));
    let (name, time_zone) = (fields.optional_text("name"), fields.text("time_zone"));
    let language = fields.optional_text("language");
    let units = fields.optional_word("units", &["METRIC", "IMPERIAL"]);
    fields.finish()?;
    let barn = Barn {
        tenant_id: call.tenant(tenant_id.as_deref())?,
        name: name.unwrap_or_else(|| barn_id.clone()),
        farm_id,
        barn_id,
        time_zone,
        language: language.unwrap_or_else(|| "en".to_owned()),
        units: units.unwrap_or_else(|| "METRIC".to_owned()),
        updated_at: state.clock.now(),
    };
    state.book.put_barn(&barn, &call.author()).await?;
    Ok(Json(barn.into()))
}

/// A flock: birds that were placed in a barn on one day.
#[derive(Debug, Serialize, ToSchema)]
#[schema(example = json!({"id": "0198a6f2-7c1e-7d2a-9f35-0c8a5b1e2d3f", "tenant_id": "t-001", "farm_id": "f-001",
    "barn_id": "b-001", "batch_id": "2026-01", "genetic_line_code": "ROSS308", "sex": "AS_HATCHED",
    "placed_on": "2026-01-05", "birds": 20000, "area_m2": 1350.0, "target_weight_g": 2800.0,
    "standard_set_id": "0198a6f2-7c1e-5d2a-9f35-0c8a5b1e2d3f", "ended_on": null,
    "created_at": "2026-01-05T09:32:15.052Z"}))]
pub(super) struct FlockBody {
    id: Uuid,
    tenant_id: String,
    farm_id: String,
    barn_id: String,
    /// The name that weighing sessions and the cloud know it by.
    batch_id: String,
    genetic_line_code: String,
    /// `AS_HATCHED`, `MALE` or `FEMALE`.
    sex: String,
    /// Day 0.
    #[schema(value_type = String, format = Date)]
    placed_on: NaiveDate,
    /// Birds placed.
    birds: i32,
    /// Usable floor.
    area_m2: Option<f64>,
    target_weight_g: Option<f64>,
    /// What it is compared with.
    standard_set_id: Option<Uuid>,
    /// The last day with birds; null while there are some.
    #[schema(value_type = Option<String>, format = Date)]
    ended_on: Option<NaiveDate>,
    created_at: Time,
}

impl From<Flock> for FlockBody {
    fn from(row: Flock) -> Self {
        Self {
            id: row.id,
            tenant_id: row.tenant_id,
            farm_id: row.farm_id,
            barn_id: row.barn_id,
            batch_id: row.batch_id,
            genetic_line_code: row.genetic_line_code,
            sex: row.sex,
            placed_on: row.placed_on,
            birds: row.birds,
            area_m2: row.area_m2,
            target_weight_g: row.target_weight_g,
            standard_set_id: row.standard_set_id,
            ended_on: row.ended_on,
            created_at: row.created_at.into(),
        }
    }
}

/// Flocks, the newest first.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct FlockList {
    flocks: Vec<FlockBody>,
    /// What to give as `after` for those that follow; null at the end.
    next: Option<String>,
}

/// Which flocks.
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
#[expect(dead_code, reason = "documents the query that is read by hand")]
pub(super) struct FlockQuery {
    /// Only those of this barn.
    barn_id: Option<String>,
    /// `true`: only those that have not ended.
    present: Option<bool>,
}

/// Lists flocks, the newest first.
#[utoipa::path(get, path = "/api/v1/flocks", tag = "flocks", params(BookQuery, FlockQuery, AfterQuery),
    responses((status = 200, description = "Flocks", body = FlockList)))]
pub(super) async fn list_flocks(
    State(state): State<Arc<AppState>>,
    call: Call,
    mut params: Params,
) -> Result<Json<FlockList>, Error> {
    let (tenant_id, barn_id, limit) = (params.id("tenant_id"), params.id("barn_id"), params.limit());
    let is_present_only = params.one_of("present", &[("true", true), ("false", false)]).unwrap_or_default();
    let after = params.after().map(|FlockKey(placed_on, id)| (placed_on, id));
    params.finish()?;
    let tenant_id = call.read_tenant(tenant_id.as_deref())?;
    let (tenant, barn) = (tenant_id.as_deref(), barn_id.as_deref());
    let flocks = state.book.flocks_behind(tenant, barn, is_present_only, after, limit).await?;
    let next = cursor::behind(&flocks, limit, |last| FlockKey(last.placed_on, last.id));
    Ok(Json(FlockList { flocks: flocks.into_iter().map(FlockBody::from).collect(), next }))
}

/// A flock to place.
#[derive(ToSchema)]
#[expect(dead_code, reason = "documents the body that is read by hand")]
#[schema(example = json!({"tenant_id": "t-001", "farm_id": "f-001", "barn_id": "b-001", "batch_id": "2026-01",
    "genetic_line_code": "ROSS308", "sex": "AS_HATCHED", "placed_on": "2026-01-05", "birds": 20000, "area_m2": 1350,
    "target_weight_g": 2800}))]
pub(super) struct NewFlock {
    /// Tenant; `x-tenant-id` may say it instead.
    tenant_id: Option<String>,
    farm_id: String,
    barn_id: String,
    batch_id: String,
    genetic_line_code: String,
    /// `AS_HATCHED` unless given, or `MALE` or `FEMALE`.
    sex: Option<String>,
    placed_on: String,
    birds: i32,
    area_m2: Option<f64>,
    target_weight_g: Option<f64>,
    /// Unless given, the breeder's of its line and sex, where there is one.
    standard_set_id: Option<Uuid>,
}

/// Places a flock. Its barn has one at a time.
#[utoipa::path(post, path = "/api/v1/flocks", tag = "flocks", request_body = NewFlock,
    responses((status = 201, description = "The flock", body = FlockBody),
        (status = 409, description = "BOOK_CONFLICT: the barn has another flock on one of its days")))]
pub(super) async fn create_flock(
    State(state): State<Arc<AppState>>,
    call: Call,
    body: JsonBody,
) -> Result<(StatusCode, Json<FlockBody>), Error> {
    let mut fields = Fields::of(&body)?;
    let tenant_id = fields.optional_id("tenant_id");
    let now = state.clock.now();
    let flock = Flock {
        id: schema::id::new_id(),
        tenant_id: String::new(),
        farm_id: fields.id("farm_id"),
        barn_id: fields.id("barn_id"),
        batch_id: fields.event_id("batch_id"),
        genetic_line_code: fields.id("genetic_line_code"),
        sex: fields.optional_word("sex", &SEXES).unwrap_or_else(|| Sex::AsHatched.as_str().to_owned()),
        placed_on: fields.day("placed_on"),
        birds: fields.birds("birds").unwrap_or_default(),
        area_m2: fields.optional_number("area_m2", 0.01, 1e6),
        target_weight_g: fields.optional_number("target_weight_g", 1.0, 50_000.0),
        standard_set_id: fields.optional_uuid("standard_set_id"),
        ended_on: None,
        created_at: now,
        updated_at: now,
    };
    if flock.birds == 0 {
        fields.problem("birds", "is required");
    }
    fields.finish()?;
    let flock = Flock { tenant_id: call.tenant(tenant_id.as_deref())?, ..flock };
    let flock = state.book.create(flock, &call.author()).await?;
    Ok((StatusCode::CREATED, Json(flock.into())))
}

/// The words for sexes.
pub(super) const SEXES: [&str; 3] = ["AS_HATCHED", "MALE", "FEMALE"];

/// Whose flock.
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
#[expect(dead_code, reason = "documents the query that is read by hand")]
pub(super) struct OfTenant {
    /// Its tenant; `x-tenant-id` may say it instead, and a key for one tenant needs neither.
    tenant_id: Option<String>,
}

/// Shows one flock.
#[utoipa::path(get, path = "/api/v1/flocks/{id}", tag = "flocks",
    params(("id" = Uuid, Path, description = "The flock"), OfTenant),
    responses((status = 200, description = "The flock", body = FlockBody)))]
pub(super) async fn show_flock(
    State(state): State<Arc<AppState>>,
    call: Call,
    Path(id): Path<String>,
    mut params: Params,
) -> Result<Json<FlockBody>, Error> {
    let tenant_id = params.id("tenant_id");
    params.finish()?;
    let tenant_id = call.tenant(tenant_id.as_deref())?;
    Ok(Json(state.book.flock(&tenant_id, known(&id)?).await?.into()))
}

/// When a flock ended.
#[derive(ToSchema)]
#[expect(dead_code, reason = "documents the body that is read by hand")]
#[schema(example = json!({"tenant_id": "t-001", "ended_on": "2026-02-16"}))]
pub(super) struct EndFlock {
    /// Tenant; `x-tenant-id` may say it instead.
    tenant_id: Option<String>,
    /// The last day with birds.
    ended_on: String,
}

/// Ends a flock.
#[utoipa::path(post, path = "/api/v1/flocks/{id}/end", tag = "flocks", request_body = EndFlock,
    params(("id" = Uuid, Path, description = "The flock")),
    responses((status = 200, description = "The flock", body = FlockBody),
        (status = 409, description = "BOOK_CONFLICT: it has ended, or was placed later")))]
pub(super) async fn end_flock(
    State(state): State<Arc<AppState>>,
    call: Call,
    Path(id): Path<String>,
    body: JsonBody,
) -> Result<Json<FlockBody>, Error> {
    let mut fields = Fields::of(&body)?;
    let (tenant_id, ended_on) = (fields.optional_id("tenant_id"), fields.day("ended_on"));
    fields.finish()?;
    let tenant_id = call.tenant(tenant_id.as_deref())?;
    Ok(Json(state.book.end(&tenant_id, known(&id)?, ended_on, &call.author()).await?.into()))
}

/// What was written down of a flock. Rows are never changed: a correction is a row that names the one it takes the place of.
#[derive(Debug, Serialize, ToSchema)]
#[schema(example = json!({"id": "0198a6f2-7c1e-7d2a-9f35-0c8a5b1e2d3f", "kind": "MORTALITY", "day": "2026-01-12",
    "part": "MORNING", "value": 12.0, "birds": null, "cause": "heat", "note": null, "source": "MANUAL",
    "external_ref": null, "corrects": null, "is_void": false, "author": "operator:console",
    "occurred_at": "2026-01-12T01:00:00.000Z", "created_at": "2026-01-12T01:00:00.000Z"}))]
pub(super) struct RecordBody {
    id: Uuid,
    kind: String,
    #[schema(value_type = String, format = Date)]
    day: NaiveDate,
    part: Option<String>,
    value: Option<f64>,
    birds: Option<i32>,
    cause: Option<String>,
    note: Option<String>,
    /// `MANUAL`, `API_IMPORT`, `MQTT_DISPENSED` or `SILO_AUTO`.
    source: String,
    external_ref: Option<String>,
    /// The row that it takes the place of.
    corrects: Option<Uuid>,
    /// Whether it only takes that one away.
    is_void: bool,
    author: String,
    occurred_at: Time,
    created_at: Time,
}

impl From<Record> for RecordBody {
    fn from(row: Record) -> Self {
        Self {
            id: row.id,
            kind: row.kind,
            day: row.day,
            part: row.part,
            value: row.value,
            birds: row.birds,
            cause: row.cause,
            note: row.note,
            source: row.source,
            external_ref: row.external_ref,
            corrects: row.corrects,
            is_void: row.is_void,
            author: row.author,
            occurred_at: row.occurred_at.into(),
            created_at: row.created_at.into(),
        }
    }
}

/// Records, newest first.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct RecordList {
    records: Vec<RecordBody>,
    /// What to give as `after` for those that follow; null at the end.
    next: Option<String>,
}

/// Which records.
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
#[expect(dead_code, reason = "documents the query that is read by hand")]
pub(super) struct RecordQuery {
    /// Only what stands behind: `next` of the list before.
    after: Option<String>,
    /// Another name of `after`, which also takes the id of a row.
    before: Option<String>,
}

/// Lists what was written down of a flock, newest first.
#[utoipa::path(get, path = "/api/v1/flocks/{id}/records", tag = "flocks",
    params(("id" = Uuid, Path, description = "The flock"), BookQuery, RecordQuery),
    responses((status = 200, description = "Records", body = RecordList)))]
pub(super) async fn list_records(
    State(state): State<Arc<AppState>>,
    call: Call,
    Path(id): Path<String>,
    mut params: Params,
) -> Result<Json<RecordList>, Error> {
    let (tenant_id, limit) = (params.id("tenant_id"), params.limit());
    let before = params.after_or_before::<RecordKey>().map(Uuid::from);
    params.finish()?;
    let tenant_id = call.tenant(tenant_id.as_deref())?;
    let records = state.book.records(&tenant_id, known(&id)?, before, limit).await?;
    let next = cursor::behind(&records, limit, |last| RecordKey::from(last.id));
    Ok(Json(RecordList { records: records.into_iter().map(RecordBody::from).collect(), next }))
}

/// Something to write down.
#[derive(ToSchema)]
#[expect(dead_code, reason = "documents the body that is read by hand")]
#[schema(example = json!({"tenant_id": "t-001", "kind": "MORTALITY", "day": "2026-01-12", "part": "MORNING", "value": 12,
    "cause": "heat"}))]
pub(super) struct NewRecordBody {
    /// Tenant; `x-tenant-id` may say it instead.
    tenant_id: Option<String>,
    /// `MORTALITY`, `CULL`, `THINNING` (birds), `FEED_DELIVERED`, `FEED_LEFT`, `FEED_RETURNED`, `FEED_INTAKE` (kg),
    /// `WATER_METER` (what it shows, liters), `HAND_WEIGHING` (mean of a bird, kg) or `NOTE`.
    kind: String,
    /// Today unless given, where the barn is.
    day: Option<String>,
    /// `MORNING` or `EVENING`.
    part: Option<String>,
    value: Option<f64>,
    /// Birds of a hand weighing.
    birds: Option<i32>,
    cause: Option<String>,
    note: Option<String>,
    /// What makes a repetition known: the record that came with it is given back.
    external_ref: Option<String>,
    /// `MANUAL` unless given, or `API_IMPORT`.
    source: Option<String>,
}

/// Writes something down of a flock; the day it tells of is made anew.
#[utoipa::path(post, path = "/api/v1/flocks/{id}/records", tag = "flocks", request_body = NewRecordBody,
    params(("id" = Uuid, Path, description = "The flock")),
    responses((status = 201, description = "The record", body = RecordBody)))]
pub(super) async fn add_record(
    State(state): State<Arc<AppState>>,
    call: Call,
    Path(id): Path<String>,
    body: JsonBody,
) -> Result<(StatusCode, Json<RecordBody>), Error> {
    let mut fields = Fields::of(&body)?;
    let (tenant_id, record) = (fields.optional_id("tenant_id"), record_of(&mut fields));
    fields.finish()?;
    let tenant_id = call.tenant(tenant_id.as_deref())?;
    let record = state.book.record(&tenant_id, known(&id)?, &record, &call.author()).await?;
    Ok((StatusCode::CREATED, Json(record.into())))
}

/// What a record should have said: the keys of a record, or nothing but `void`.
#[derive(ToSchema)]
#[expect(dead_code, reason = "documents the body that is read by hand")]
#[schema(example = json!({"tenant_id": "t-001", "kind": "MORTALITY", "value": 10}))]
pub(super) struct Correction {
    /// Tenant; `x-tenant-id` may say it instead.
    tenant_id: Option<String>,
    /// `true`: there was nothing to write down; the other keys are not read.
    void: Option<bool>,
    kind: Option<String>,
    /// That of the wrong one unless given.
    day: Option<String>,
    part: Option<String>,
    value: Option<f64>,
    birds: Option<i32>,
    cause: Option<String>,
    note: Option<String>,
}

/// Corrects a record by a new row that takes its place; both days are made anew where they differ.
#[utoipa::path(post, path = "/api/v1/flocks/{id}/records/{record_id}/correct", tag = "flocks", request_body = Correction,
    params(("id" = Uuid, Path, description = "The flock"), ("record_id" = Uuid, Path, description = "The wrong record")),
    responses((status = 201, description = "The record that holds now", body = RecordBody),
        (status = 409, description = "BOOK_CONFLICT: it has been corrected")))]
pub(super) async fn correct_record(
    State(state): State<Arc<AppState>>,
    call: Call,
    Path((id, record_id)): Path<(String, String)>,
    body: JsonBody,
) -> Result<(StatusCode, Json<RecordBody>), Error> {
    let mut fields = Fields::of(&body)?;
    let (tenant_id, is_void) = (fields.optional_id("tenant_id"), fields.flag("void"));
    let record = (!is_void).then(|| record_of(&mut fields));
    fields.finish()?;
    let tenant_id = call.tenant(tenant_id.as_deref())?;
    let (id, record_id) = (known(&id)?, known(&record_id)?);
    let record = state.book.correct(&tenant_id, id, record_id, record.as_ref(), &call.author()).await?;
    Ok((StatusCode::CREATED, Json(record.into())))
}

fn record_of(fields: &mut Fields) -> NewRecord {
    let words = Kind::ALL.map(Kind::as_str);
    let kind = fields.optional_word("kind", &words);
    if kind.is_none() && !fields.is_given("kind") {
        fields.problem("kind", "is required");
    }
    let source = fields.optional_word("source", &["MANUAL", "API_IMPORT"]);
    NewRecord {
        kind: kind.as_deref().and_then(Kind::parse).unwrap_or(Kind::Note),
        day: fields.optional_day("day"),
        part: fields.optional_word("part", &["MORNING", "EVENING"]),
        value: fields.optional_number("value", 0.0, 1e9),
        birds: fields.birds("birds"),
        cause: fields.optional_text("cause"),
        note: fields.optional_text("note"),
        external_ref: fields.optional_event_id("external_ref"),
        source: if source.as_deref() == Some("API_IMPORT") { "API_IMPORT" } else { "MANUAL" },
    }
}

/// The days of a flock.
#[derive(Debug, Serialize, ToSchema)]
#[schema(example = json!({"flock_id": "0198a6f2-7c1e-7d2a-9f35-0c8a5b1e2d3f", "days": [{"day": "2026-02-09", "age_days": 35,
    "n": 1943, "mean_kg": 2.231, "half_width_kg": 0.009, "cv_percent": 9.4, "uniformity_percent": 70.1,
    "standard_g": 2296.0, "deviation_percent": -2.83, "verdict": "BELOW", "birds": 19412}]}))]
pub(super) struct DayList {
    flock_id: Uuid,
    /// One object for each day since the placement. What cannot be said is null; docs/flock.md has all keys.
    #[schema(value_type = Vec<Object>)]
    days: Vec<Value>,
}

/// The days of a flock: what its scales, its book and its air come to, beside its standard.
#[utoipa::path(get, path = "/api/v1/flocks/{id}/days", tag = "flocks",
    params(("id" = Uuid, Path, description = "The flock"), OfTenant),
    responses((status = 200, description = "Days", body = DayList)))]
pub(super) async fn list_days(
    State(state): State<Arc<AppState>>,
    call: Call,
    Path(id): Path<String>,
    mut params: Params,
) -> Result<Json<DayList>, Error> {
    let tenant_id = params.id("tenant_id");
    params.finish()?;
    let tenant_id = call.tenant(tenant_id.as_deref())?;
    let (flock, days) = state.book.days(&tenant_id, known(&id)?).await?;
    let days = days.iter().map(|day| json!(day)).collect();
    Ok(Json(DayList { flock_id: flock.id, days }))
}

/// The days of a flock as CSV, with the same names.
#[utoipa::path(get, path = "/api/v1/flocks/{id}/days.csv", tag = "flocks",
    params(("id" = Uuid, Path, description = "The flock"), OfTenant),
    responses((status = 200, description = "Days", body = String, content_type = "text/csv")))]
pub(super) async fn days_csv(
    State(state): State<Arc<AppState>>,
    call: Call,
    Path(id): Path<String>,
    mut params: Params,
) -> Result<Response, Error> {
    let tenant_id = params.id("tenant_id");
    params.finish()?;
    let tenant_id = call.tenant(tenant_id.as_deref())?;
    let (_, days) = state.book.days(&tenant_id, known(&id)?).await?;
    Ok(([(CONTENT_TYPE, "text/csv; charset=utf-8")], csv_of(&days)).into_response())
}

/// When a flock will have its target weight: a range, since nobody knows the day.
#[derive(Debug, Serialize, ToSchema)]
#[schema(example = json!({"flock_id": "0198a6f2-7c1e-7d2a-9f35-0c8a5b1e2d3f", "target_weight_g": 2800.0, "told_on_age_days": 28,
    "by_ratio_age_days": 41.03, "by_lag_age_days": 40.63, "earliest_age_days": 40.63, "latest_age_days": 41.38,
    "earliest_day": "2026-02-15", "latest_day": "2026-02-16"}))]
pub(super) struct ForecastBody {
    flock_id: Uuid,
    target_weight_g: f64,
    /// The last day with 30 weighings and more; null, like what follows, when there is none or the standard ends too early.
    told_on_age_days: Option<i64>,
    /// If it keeps its ratio to the standard.
    by_ratio_age_days: Option<f64>,
    /// If it keeps its lag.
    by_lag_age_days: Option<f64>,
    earliest_age_days: Option<f64>,
    latest_age_days: Option<f64>,
    #[schema(value_type = Option<String>, format = Date)]
    earliest_day: Option<NaiveDate>,
    #[schema(value_type = Option<String>, format = Date)]
    latest_day: Option<NaiveDate>,
}

/// For which weight.
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
#[expect(dead_code, reason = "documents the query that is read by hand")]
pub(super) struct ForecastQuery {
    /// Grams; that of the flock unless given.
    target_weight_g: Option<f64>,
}

/// Says when a flock will have its target weight.
#[utoipa::path(get, path = "/api/v1/flocks/{id}/forecast", tag = "flocks",
    params(("id" = Uuid, Path, description = "The flock"), OfTenant, ForecastQuery),
    responses((status = 200, description = "The forecast", body = ForecastBody)))]
pub(super) async fn show_forecast(
    State(state): State<Arc<AppState>>,
    call: Call,
    Path(id): Path<String>,
    mut params: Params,
) -> Result<Json<ForecastBody>, Error> {
    let (tenant_id, target) = (params.id("tenant_id"), params.number("target_weight_g", 1.0, 50_000.0));
    params.finish()?;
    let tenant_id = call.tenant(tenant_id.as_deref())?;
    let (flock, target_weight_g, told) = state.book.forecast(&tenant_id, known(&id)?, target).await?;
    let forecast = told.map(|(_, forecast)| forecast);
    let (earliest, latest) = (forecast.map(|found| found.earliest), forecast.map(|found| found.latest));
    let day = |age: Option<f64>| age.and_then(|age| day_of_age(flock.placed_on, age));
    Ok(Json(ForecastBody {
        flock_id: flock.id,
        target_weight_g,
        told_on_age_days: told.map(|(age_days, _)| age_days),
        by_ratio_age_days: forecast.map(|found| found.by_ratio),
        by_lag_age_days: forecast.map(|found| found.by_lag),
        earliest_age_days: earliest,
        latest_age_days: latest,
        earliest_day: day(earliest),
        latest_day: day(latest),
    }))
}

/// A bar.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct BinBody {
    from_kg: f64,
    to_kg: f64,
    count: usize,
}

/// The weights of a day that are believed, in bins of 5 % of their mean: ±10 % are four of them.
#[derive(Debug, Serialize, ToSchema)]
#[schema(example = json!({"day": "2026-02-09", "n": 10, "mean_kg": 2.32, "bins": [{"from_kg": 2.204, "to_kg": 2.32, "count": 3}]}))]
pub(super) struct HistogramBody {
    #[schema(value_type = String, format = Date)]
    day: NaiveDate,
    n: usize,
    mean_kg: Option<f64>,
    bins: Vec<BinBody>,
}

/// Of which day.
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
#[expect(dead_code, reason = "documents the query that is read by hand")]
pub(super) struct HistogramQuery {
    /// A day of the flock.
    #[param(example = "2026-02-09")]
    day: String,
}

/// Shows how the weights of a day are spread.
#[utoipa::path(get, path = "/api/v1/flocks/{id}/histogram", tag = "flocks",
    params(("id" = Uuid, Path, description = "The flock"), OfTenant, HistogramQuery),
    responses((status = 200, description = "The histogram", body = HistogramBody)))]
pub(super) async fn show_histogram(
    State(state): State<Arc<AppState>>,
    call: Call,
    Path(id): Path<String>,
    mut params: Params,
) -> Result<Json<HistogramBody>, Error> {
    let (tenant_id, day) = (params.id("tenant_id"), params.required_day("day"));
    params.finish()?;
    let tenant_id = call.tenant(tenant_id.as_deref())?;
    let found = state.book.histogram(&tenant_id, known(&id)?, day).await?;
    let bin =
        |bin: &actors::flock::sample::Bin| BinBody { from_kg: bin.from, to_kg: bin.to, count: bin.count };
    Ok(Json(HistogramBody {
        day,
        n: found.summary.map_or(0, |summary| summary.n),
        mean_kg: found.summary.map(|summary| summary.mean),
        bins: found.bins.iter().map(bin).collect(),
    }))
}

/// The id of a row; whatever is no UUID is nobody's.
pub(super) fn known(id: &str) -> Result<Uuid, Error> {
    Uuid::try_parse(id).map_err(|_| Error::new(Code::NotFound, "nothing is stored under such a name"))
}

impl From<BookError> for Error {
    fn from(error: BookError) -> Self {
        match error {
            BookError::Store(error) => error.into(),
            BookError::NoFlock | BookError::NoRecord => Self::new(Code::NotFound, error.to_string()),
            BookError::NoStandard => Self::new(Code::NotFound, error.to_string()),
            BookError::BarnTaken
            | BookError::Ended
            | BookError::Corrected
            | BookError::ReferenceTaken
            | BookError::StandardTaken => Self::new(Code::BookConflict, error.to_string()),
            BookError::OtherDay(..)
            | BookError::Value(_)
            | BookError::NotReadable(_)
            | BookError::NotOwn(_)
            | BookError::Zone(_) => Self::validation(error.to_string()),
        }
    }
}
