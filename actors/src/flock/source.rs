//! Rows of the database as what the pure functions take.

use chrono::{Days, NaiveDate};
use schema::clock::Timestamp;
use schema::store::flock::standard::{self as sets, StandardSet};
use schema::store::flock::{self as rows, AirHour, Flock, record};
use schema::store::house::{Barn, minutes};
use schema::store::{Conn, StoreError};
use serde_json::Value;
use uuid::Uuid;

use super::book::expected_kg;
use super::breeds::{self, male_to_female};
use super::calendar::{Zone, age_days};
use super::day::{DaySummary, Inputs};
use super::house::{air_hours, as_left_out, left_out};
use super::standard::{Sex, Standard};
use crate::alarm::rule::{HUMIDITY, TEMPERATURE};

/// A set and its days.
pub(crate) type FoundStandard = (StandardSet, Standard);

/// What a day was, as the database has it.
pub(crate) fn summary_of(value: Value) -> DaySummary {
    serde_json::from_value(value).unwrap_or_default()
}

/// The time zone of a barn; UTC where nobody has said.
pub(super) async fn zone_of(conn: &Conn, place: [&str; 3]) -> Result<Zone, StoreError> {
    let barn = rows::barn(conn, place).await?;
    Ok(barn.and_then(|barn| Zone::parse(&barn.time_zone)).unwrap_or(Zone::UTC))
}

/// A standard of the program or of a tenant.
pub(crate) async fn find_standard(
    conn: &Conn,
    tenant_id: &str,
    id: Uuid,
) -> Result<Option<FoundStandard>, StoreError> {
    if let Some(bundled) = breeds::bundled().iter().find(|bundled| bundled.set.id == id) {
        return Ok(Some((bundled.set.clone(), bundled.standard.clone())));
    }
    let found = sets::find(conn, tenant_id, id).await?;
    Ok(found.and_then(|(set, rows)| Some((set, breeds::of_rows(&rows)?))))
}

/// A day as it was last made.
pub(super) async fn day_of(
    conn: &Conn,
    flock: &Flock,
    day: NaiveDate,
) -> Result<Option<DaySummary>, StoreError> {
    let days = rows::days(conn, &flock.tenant_id, flock.id, (day, day)).await?;
    Ok(days.into_iter().next().map(|day| summary_of(day.summary)))
}

/// The air of a flock's barn, hour by hour: by its sound probes, or where their minutes are gone by the hours that are left.
async fn air(conn: &Conn, flock: &Flock, span: (Timestamp, Timestamp)) -> Result<Vec<AirHour>, StoreError> {
    let barn = Barn {
        tenant_id: flock.tenant_id.clone(),
        farm_id: flock.farm_id.clone(),
        barn_id: flock.barn_id.clone(),
    };
    let faults = left_out();
    let minutes = minutes(conn, &barn, &[TEMPERATURE, HUMIDITY], span, as_left_out(&faults)).await?;
    if minutes.is_empty() { rows::climate(conn, flock, span).await } else { Ok(air_hours(&minutes)) }
}

/// What a day of a flock is made from.
///
/// # Errors
/// When the database fails.
pub(super) async fn inputs(conn: &Conn, flock: &Flock, day: NaiveDate) -> Result<Inputs, StoreError> {
    let zone = zone_of(conn, [&flock.tenant_id, &flock.farm_id, &flock.barn_id]).await?;
    let span = zone.span(day);
    let standard = match flock.standard_set_id {
        Some(id) => find_standard(conn, &flock.tenant_id, id).await?.map(|(_, standard)| standard),
        None => None,
    };
    let yesterday = day.checked_sub_days(Days::new(1)).unwrap_or(day);
    let yesterday = day_of(conn, flock, yesterday).await?;
    let age = age_days(flock.placed_on, day);
    let (age_f, hours) = (age as f64, (span.1 - span.0).num_minutes() as f64 / 60.0);
    Ok(Inputs {
        weighings: rows::weights(conn, flock, span).await?,
        pairs: rows::pair::pairs(conn, flock, span).await?,
        records: record::of_day(conn, &flock.tenant_id, flock.id, day).await?,
        air: air(conn, flock, span).await?,
        hours,
        expected_kg: expected_kg(standard.as_ref(), age, yesterday.as_ref()),
        is_mixed: flock.sex == Sex::AsHatched.as_str(),
        male_to_female: male_to_female(&flock.genetic_line_code, age_f),
    })
}
