//! The air of a house day by day, over HTTP.

use std::sync::Arc;

use actors::flock::calendar::Zone;
use actors::flock::house::{HouseDay, two_days};
use axum::Json;
use axum::extract::State;
use chrono::{Days, NaiveDate};
use schema::store::flock::barn;
use schema::store::house::{self as rows, Barn, Day};
use schema::store::{Conn, StoreError};
use serde::Serialize;
use serde_json::{Value, json};
use utoipa::{IntoParams, ToSchema};

use super::AppState;
use super::auth::Call;
use super::error::{Code, Error};
use super::query::Params;
use super::time::Time;

/// Days of one answer: one less than a statement reads, for the two days that the first needs.
const DAYS_MAX: i64 = rows::DAYS_MAX - 1;
/// Days that are shown when nobody says which.
const USUAL_DAYS: u64 = 6;

/// Which days of which barn.
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
#[expect(dead_code, reason = "documents the query that is read by hand")]
pub(super) struct ClimateQuery {
    /// Tenant; `x-tenant-id` may say it instead, and a key for one tenant needs neither.
    tenant_id: Option<String>,
    #[param(example = "b-001")]
    barn_id: String,
    /// Where several farms have a barn of this name.
    farm_id: Option<String>,
    /// One day, where the barn is.
    #[param(format = Date, example = "2026-02-12")]
    date: Option<String>,
    /// The first of several; a week up to today unless said.
    #[param(format = Date, example = "2026-02-06")]
    from: Option<String>,
    /// The last of them; today unless said.
    #[param(format = Date, example = "2026-02-12")]
    to: Option<String>,
}

/// The air of a house, day by day.
#[derive(Debug, Serialize, ToSchema)]
#[schema(example = json!({"farm_id": "f-001", "barn_id": "b-001", "time_zone": "Asia/Bangkok", "days": [{"day": "2026-02-12",
    "hours": 24.0, "temperature_c": {"mean": 27.4, "min": 25.1, "max": 30.2, "coverage": 0.99, "probes": 3},
    "heat_index": {"mean": 26.1, "max": 29.0, "coverage": 0.97}, "rebuilt_at": "2026-02-12T09:32:15.052Z"}]}))]
pub(super) struct ClimateBody {
    farm_id: String,
    barn_id: String,
    /// Where its days begin.
    time_zone: String,
    /// One object for each day that was reckoned. What was not measured is null; docs/live.md has all keys.
    #[schema(value_type = Vec<Object>)]
    days: Vec<Value>,
}

/// Shows the air of a house day by day: means of its sound probes by the weights of their places, heat, gases, light, and how
/// much of each day was measured. Today and yesterday are made anew every few minutes.
#[utoipa::path(get, path = "/api/v1/climate", tag = "flocks", params(ClimateQuery),
    responses((status = 200, description = "The days", body = ClimateBody),
        (status = 404, description = "NOT_FOUND: the tenant has no such barn")))]
pub(super) async fn show_climate(
    State(state): State<Arc<AppState>>,
    call: Call,
    mut params: Params,
) -> Result<Json<ClimateBody>, Error> {
    let (tenant_id, farm_id, barn_id) =
        (params.id("tenant_id"), params.id("farm_id"), params.required_id("barn_id"));
    let (date, from, to) = (params.day("date"), params.day("from"), params.day("to"));
    params.finish()?;
    let tenant_id = call.tenant(tenant_id.as_deref())?;
    let now = state.clock.now();
    let read = async |conn: &mut Conn| {
        let barns = rows::named(conn, &tenant_id, &barn_id, farm_id.as_deref()).await?;
        let [place] = &barns[..] else { return Ok(Err(barns.len())) };
        let zone = zone_of(conn, place).await?;
        let today = zone.day(now);
        let last = date.or(to).unwrap_or(today);
        let first =
            date.or(from).unwrap_or_else(|| last.checked_sub_days(Days::new(USUAL_DAYS)).unwrap_or(last));
        let is_too_long = (last - first).num_days() >= DAYS_MAX;
        if is_too_long || last < first {
            return Ok(Ok((place.clone(), zone, None, first)));
        }
        let before = first.checked_sub_days(Days::new(1)).unwrap_or(first);
        let days = rows::days(conn, place, (before, last)).await?;
        Ok(Ok((place.clone(), zone, Some(days), first)))
    };
    let (place, zone, days, first) = match state.reads.run("climate", read).await? {
        Ok(found) => found,
        Err(0) => return Err(Error::new(Code::NotFound, "there is no such barn")),
        Err(_) => return Err(Error::validation("farm_id: several farms have a barn of this name")),
    };
    let Some(days) = days else {
        let message = format!("from, to: {DAYS_MAX} days at most, the first before the last");
        return Err(Error::validation(message));
    };
    let Barn { farm_id, barn_id, .. } = place;
    let time_zone = zone.name().to_owned();
    Ok(Json(ClimateBody { farm_id, barn_id, time_zone, days: told(days, first) }))
}

async fn zone_of(conn: &Conn, place: &Barn) -> Result<Zone, StoreError> {
    let known = barn(conn, [&place.tenant_id, &place.farm_id, &place.barn_id]).await?;
    Ok(known.and_then(|barn| Zone::parse(&barn.time_zone)).unwrap_or(Zone::UTC))
}

/// The days from the first on; that before it is for its two days.
fn told(days: Vec<Day>, first: NaiveDate) -> Vec<Value> {
    let mut before: Option<(NaiveDate, HouseDay)> = None;
    let mut told = Vec::new();
    for row in days {
        let house: HouseDay = serde_json::from_value(row.summary).unwrap_or_default();
        let yesterday = before.filter(|(day, _)| day.succ_opt() == Some(row.day)).map(|(_, house)| house);
        let humid = yesterday.and_then(|yesterday| two_days(&yesterday, &house));
        let mut day = json!(house);
        day["day"] = json!(row.day);
        day["rebuilt_at"] = json!(Time(row.rebuilt_at));
        day["humidity_48h_percent"] = json!(humid.map(|humid| humid.mean));
        day["humidity_48h_coverage"] = json!(humid.map(|humid| humid.coverage));
        if row.day >= first {
            told.push(day);
        }
        before = Some((row.day, house));
    }
    told
}
