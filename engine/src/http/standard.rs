//! Standards over HTTP: what a bird of some age is expected to weigh and to have eaten.

use std::sync::Arc;

use actors::flock::desk::NewStandard;
use actors::flock::desk::own::OwnStandard;
use actors::flock::own::{FLOCKS_MAX, FLOCKS_MIN};
use actors::flock::standard::{Day, Sex, Standard};
use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use schema::id::Uuid;
use schema::store::flock::standard::StandardSet;
use serde::Serialize;
use utoipa::ToSchema;

use super::AppState;
use super::auth::Call;
use super::body::JsonBody;
use super::error::Error;
use super::fields::Fields;
use super::flock::{BookQuery, OfTenant, SEXES, known};
use super::query::Params;

/// A standard, without its days.
#[derive(Debug, Serialize, ToSchema)]
#[schema(example = json!({"id": "0198a6f2-7c1e-5d2a-9f35-0c8a5b1e2d3f", "tenant_id": null, "name": "ROSS308 objective 2022",
    "kind": "REFERENCE", "genetic_line_code": "ROSS308", "sex": "AS_HATCHED",
    "source": "Aviagen, Ross 308/308 FF Broiler Performance Objectives", "year": 2022}))]
pub(super) struct SetBody {
    id: Uuid,
    /// Null for those that come with the program.
    tenant_id: Option<String>,
    name: String,
    /// `REFERENCE` (a breeder's objective), `STANDARD` or `TARGET` (the farm's own).
    kind: String,
    genetic_line_code: String,
    sex: String,
    /// Who says so.
    source: String,
    year: i32,
}

impl From<StandardSet> for SetBody {
    fn from(row: StandardSet) -> Self {
        Self {
            id: row.id,
            tenant_id: Some(row.tenant_id).filter(|tenant_id| !tenant_id.is_empty()),
            name: row.name,
            kind: row.kind,
            genetic_line_code: row.genetic_line_code,
            sex: row.sex,
            source: row.source,
            year: row.year,
        }
    }
}

/// Standards.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct SetList {
    standards: Vec<SetBody>,
}

/// Lists the breeders' standards and those of a tenant.
#[utoipa::path(get, path = "/api/v1/standards", tag = "flocks", params(BookQuery),
    responses((status = 200, description = "Standards", body = SetList)))]
pub(super) async fn list_standards(
    State(state): State<Arc<AppState>>,
    call: Call,
    mut params: Params,
) -> Result<Json<SetList>, Error> {
    let (tenant_id, limit) = (params.id("tenant_id"), params.limit());
    params.finish()?;
    let tenant_id = call.read_tenant(tenant_id.as_deref())?;
    let sets = state.book.standards(tenant_id.as_deref(), limit).await?;
    Ok(Json(SetList { standards: sets.into_iter().map(SetBody::from).collect() }))
}

/// A day of a standard.
#[derive(Debug, Serialize, ToSchema)]
#[schema(example = json!({"age_day": 35, "body_weight_g": 2296.0, "cum_feed_intake_g": 3211.0}))]
pub(super) struct DayBody {
    age_day: u16,
    body_weight_g: f64,
    /// Null where the standard does not say.
    cum_feed_intake_g: Option<f64>,
    /// Of a standard that was made of a site's own flocks: how many have this day; 0 lies on the line between its neighbors.
    #[serde(skip_serializing_if = "Option::is_none")]
    flocks: Option<i32>,
}

/// A standard and its days.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct StandardBody {
    #[serde(flatten)]
    set: SetBody,
    days: Vec<DayBody>,
    /// Whether nothing was written.
    is_dry_run: bool,
}

impl StandardBody {
    fn of((set, standard): (StandardSet, Standard), is_dry_run: bool) -> Self {
        let day = |day: &Day| DayBody {
            age_day: day.age_day,
            body_weight_g: day.body_weight_g,
            cum_feed_intake_g: day.cum_feed_intake_g,
            flocks: day.flocks,
        };
        Self { set: set.into(), days: standard.days().iter().map(day).collect(), is_dry_run }
    }
}

/// Shows a standard with its days.
#[utoipa::path(get, path = "/api/v1/standards/{id}", tag = "flocks",
    params(("id" = Uuid, Path, description = "The standard"), OfTenant),
    responses((status = 200, description = "The standard", body = StandardBody)))]
pub(super) async fn show_standard(
    State(state): State<Arc<AppState>>,
    call: Call,
    Path(id): Path<String>,
    mut params: Params,
) -> Result<Json<StandardBody>, Error> {
    let tenant_id = params.id("tenant_id");
    params.finish()?;
    let tenant_id = call.tenant(tenant_id.as_deref())?;
    Ok(Json(StandardBody::of(state.book.standard(&tenant_id, known(&id)?).await?, false)))
}

/// A standard to bring.
#[derive(ToSchema)]
#[expect(dead_code, reason = "documents the body that is read by hand")]
#[schema(example = json!({"tenant_id": "t-001", "name": "Own target 2026", "kind": "TARGET", "genetic_line_code": "ROSS308",
    "sex": "AS_HATCHED", "source": "our last six flocks", "year": 2026, "dry_run": true,
    "csv": "age_day,body_weight_g,cum_feed_intake_g\n0,44,0\n1,62,12\n"}))]
pub(super) struct ImportStandard {
    /// Tenant; `x-tenant-id` may say it instead.
    tenant_id: Option<String>,
    name: String,
    /// `TARGET` unless given, or `STANDARD` or `REFERENCE`.
    kind: Option<String>,
    genetic_line_code: String,
    /// `AS_HATCHED` unless given, or `MALE` or `FEMALE`.
    sex: Option<String>,
    source: String,
    year: i32,
    /// The columns `age_day`, `body_weight_g` and `cum_feed_intake_g`, one line a day without a gap.
    csv: String,
    /// `true`: only says whether it could be brought.
    dry_run: Option<bool>,
}

/// Brings a standard as CSV, or only says whether it could be brought.
#[utoipa::path(post, path = "/api/v1/standards/import", tag = "flocks", request_body = ImportStandard,
    responses((status = 200, description = "What it would be", body = StandardBody),
        (status = 201, description = "The standard", body = StandardBody),
        (status = 409, description = "BOOK_CONFLICT: there is one of this name and sex")))]
pub(super) async fn import_standard(
    State(state): State<Arc<AppState>>,
    call: Call,
    body: JsonBody,
) -> Result<(StatusCode, Json<StandardBody>), Error> {
    let mut fields = Fields::of(&body)?;
    let tenant_id = fields.optional_id("tenant_id");
    let sex = sex_of(&mut fields);
    let kind = fields.optional_word("kind", &["TARGET", "STANDARD", "REFERENCE"]);
    let new = NewStandard {
        tenant_id: String::new(),
        name: fields.text("name"),
        kind: kind.unwrap_or_else(|| "TARGET".to_owned()),
        genetic_line_code: fields.id("genetic_line_code"),
        sex,
        source: fields.text("source"),
        year: fields.year("year"),
        csv: fields.long_text("csv"),
    };
    let is_dry_run = fields.flag("dry_run");
    fields.finish()?;
    let new = NewStandard { tenant_id: call.tenant(tenant_id.as_deref())?, ..new };
    let found = state.book.import_standard(&new, is_dry_run, &call.author()).await?;
    Ok(answer(found, is_dry_run))
}

fn sex_of(fields: &mut Fields) -> Sex {
    fields.optional_word("sex", &SEXES).as_deref().and_then(Sex::parse).unwrap_or(Sex::AsHatched)
}

fn answer(found: (StandardSet, Standard), is_dry_run: bool) -> (StatusCode, Json<StandardBody>) {
    let status = if is_dry_run { StatusCode::OK } else { StatusCode::CREATED };
    (status, Json(StandardBody::of(found, is_dry_run)))
}

/// Which finished flocks a standard is to be made of.
#[derive(ToSchema)]
#[expect(dead_code, reason = "documents the body that is read by hand")]
#[schema(example = json!({"tenant_id": "t-001", "farm_id": "f-001", "genetic_line_code": "ROSS308", "sex": "AS_HATCHED",
    "name": "Own target 2026", "flocks_min": 3, "dry_run": true}))]
pub(super) struct DeriveStandard {
    /// Tenant; `x-tenant-id` may say it instead.
    tenant_id: Option<String>,
    /// Only flocks of this farm.
    farm_id: Option<String>,
    /// Only flocks of this barn.
    barn_id: Option<String>,
    name: String,
    genetic_line_code: String,
    /// `AS_HATCHED` unless given, or `MALE` or `FEMALE`.
    sex: Option<String>,
    /// Fewest flocks that a day is made of, 2 unless given.
    #[schema(minimum = 1, maximum = 50)]
    flocks_min: Option<i32>,
    /// `true`: only says what it would be.
    dry_run: Option<bool>,
}

/// Makes a standard of a site's own finished flocks: the mean of those with 30 weighings and more, day by day.
#[utoipa::path(post, path = "/api/v1/standards/derive", tag = "flocks", request_body = DeriveStandard,
    responses((status = 200, description = "What it would be", body = StandardBody),
        (status = 201, description = "The standard", body = StandardBody),
        (status = 409, description = "BOOK_CONFLICT: there is one of this name and sex")))]
pub(super) async fn derive_standard(
    State(state): State<Arc<AppState>>,
    call: Call,
    body: JsonBody,
) -> Result<(StatusCode, Json<StandardBody>), Error> {
    let mut fields = Fields::of(&body)?;
    let tenant_id = fields.optional_id("tenant_id");
    let sex = sex_of(&mut fields);
    let wish = OwnStandard {
        tenant_id: String::new(),
        farm_id: fields.optional_id("farm_id"),
        barn_id: fields.optional_id("barn_id"),
        name: fields.text("name"),
        genetic_line_code: fields.id("genetic_line_code"),
        sex,
        flocks_min: fields
            .whole("flocks_min", 1, i32::try_from(FLOCKS_MAX).unwrap_or(i32::MAX))
            .and_then(|flocks| usize::try_from(flocks).ok())
            .unwrap_or(FLOCKS_MIN),
    };
    let is_dry_run = fields.flag("dry_run");
    fields.finish()?;
    let wish = OwnStandard { tenant_id: call.tenant(tenant_id.as_deref())?, ..wish };
    let found = state.book.derive_standard(&wish, is_dry_run, &call.author()).await?;
    Ok(answer(found, is_dry_run))
}
