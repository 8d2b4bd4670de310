//! The flock's book: flocks, what is written down of them, and the sheet to print.

use std::sync::Arc;

use actors::flock::breeds::bundled;
use actors::flock::desk::{BookError, NewRecord};
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::Response;
use schema::id::{Uuid, is_event_id, new_id};
use schema::store::flock::record::{Kind, Record};
use schema::store::flock::{Barn, Flock};

use super::super::AppState;
use super::super::error::Error;
use super::alarms::when;
use super::answer::{page, see};
use super::form::{NotANumber, Typed};
use super::visit::{Place, Visit};
use super::weights;
use crate::console::alarms::drill;
use crate::console::book::{
    FlockPage, FlockRow, FlockView, FlocksPage, LossForm, NewFlockForm, NewFlockPage, Sheet, SheetPage,
    SheetRow, facts, other_kinds, record_rows, sexes,
};
use crate::console::frame::Tab;
use crate::console::text::Texts;
use crate::console::words::{date, number};

/// Flocks in the list.
const FLOCKS_MAX: i64 = 100;
/// Records that the page of a flock shows.
const RECORDS_MAX: i64 = 60;
/// Records that are looked through for the sheet to print.
const SHEET_RECORDS_READ: i64 = 1000;
/// Records on the sheet, beside its table.
const SHEET_RECORDS_MAX: usize = 30;
/// Drills on it.
const SHEET_DRILLS_MAX: i64 = 20;
/// Grams of a kilogram.
const GRAMS: f64 = 1000.0;
/// The zone that is offered for a barn of which nobody has said where it is.
const ZONE: &str = "Asia/Bangkok";

/// Lists the flocks of the barn.
pub(super) async fn list(State(state): State<Arc<AppState>>, visit: Visit) -> Response {
    let f = visit.frame(visit.t().flock_book, Tab::Book);
    let flocks = match &visit.place {
        Some(place) => {
            state.book.flocks(Some(&place.tenant_id), Some(&place.barn_id), false, FLOCKS_MAX).await
        }
        None => Ok(Vec::new()),
    };
    match flocks {
        Ok(flocks) => {
            let flocks = flocks.iter().map(|flock| FlockRow::of(&f, flock)).collect();
            page(StatusCode::OK, &FlocksPage { f, flocks })
        }
        Err(error) => visit.words().failed(error.into()),
    }
}

/// Asks what flock is placed.
pub(super) async fn ask_new(visit: Visit) -> Response {
    let form = NewFlockForm {
        placed_on: visit.today().to_string(),
        birds: "20000".to_owned(),
        line: "COBB500".to_owned(),
        batch: visit.today().format("%Y-%m").to_string(),
        target: "2.8".to_owned(),
        zone: ZONE.to_owned(),
        name: visit.place.as_ref().map(|place| place.name.clone()).unwrap_or_default(),
        ..NewFlockForm::default()
    };
    new_page(&visit, StatusCode::OK, form, None)
}

fn new_page(visit: &Visit, status: StatusCode, v: NewFlockForm, wrong: Option<&'static str>) -> Response {
    let Some(place) = &visit.place else { return visit.words().not_found() };
    let mut lines: Vec<String> = bundled().iter().map(|found| found.set.genetic_line_code.clone()).collect();
    lines.dedup();
    let f = visit.frame(visit.t().place_flock, Tab::Book);
    let sexes = sexes(f.t);
    page(status, &NewFlockPage { f, wrong, v, lines, sexes, asks_zone: place.time_zone.is_none() })
}

/// Places a flock; the barn is written down first, if nobody has.
pub(super) async fn create(State(state): State<Arc<AppState>>, visit: Visit, typed: Typed) -> Response {
    let Some(place) = visit.place.clone() else { return visit.words().not_found() };
    let form = NewFlockForm {
        placed_on: typed.copy("placed_on"),
        birds: typed.copy("birds"),
        line: typed.copy("line"),
        sex: typed.copy("sex"),
        batch: typed.copy("batch"),
        target: typed.copy("target"),
        area: typed.copy("area"),
        zone: typed.copy("zone"),
        name: typed.copy("name"),
    };
    let wrong = |text| new_page(&visit, StatusCode::UNPROCESSABLE_ENTITY, form.clone(), Some(text));
    let flock = match new_flock(&visit, &place, &typed) {
        Ok(flock) => flock,
        Err(text) => return wrong(text),
    };
    let placed = async {
        if place.time_zone.is_none() {
            let barn = Barn {
                tenant_id: place.tenant_id.clone(),
                farm_id: place.farm_id.clone(),
                barn_id: place.barn_id.clone(),
                name: typed.text("name").unwrap_or(&place.name).to_owned(),
                time_zone: typed.copy("zone"),
                language: visit.lang.code().to_owned(),
                units: "METRIC".to_owned(),
                updated_at: visit.now,
            };
            state.book.put_barn(&barn, &visit.author()).await?;
        }
        state.book.create(flock, &visit.author()).await
    };
    match placed.await {
        Ok(flock) => see(&format!("/flocks/{}?said=placed", flock.id)),
        Err(error) => match refusal(visit.t(), &error) {
            Some(text) => wrong(text),
            None => visit.words().failed(Error::from(error)),
        },
    }
}

fn new_flock(visit: &Visit, place: &Place, typed: &Typed) -> Result<Flock, &'static str> {
    let t = visit.t();
    let number = |NotANumber| t.wrong_number;
    let is_sex = |sex: &&str| sexes(t).iter().any(|(known, _)| known == sex);
    let batch_id = typed.text("batch").filter(|batch| is_event_id(batch)).ok_or(t.wrong_fields)?;
    let line = typed.text("line").filter(|line| schema::id::is_id(line)).ok_or(t.wrong_fields)?;
    let target_g = typed.number("target").map_err(number)?.map(|kilograms| kilograms * GRAMS);
    let area_m2 = typed.number("area").map_err(number)?;
    let fits = target_g.is_none_or(|grams| (1.0..=50_000.0).contains(&grams))
        && area_m2.is_none_or(|area| (0.01..=1e6).contains(&area));
    if !fits {
        return Err(t.wrong_number);
    }
    Ok(Flock {
        id: new_id(),
        tenant_id: place.tenant_id.clone(),
        farm_id: place.farm_id.clone(),
        barn_id: place.barn_id.clone(),
        batch_id: batch_id.to_owned(),
        genetic_line_code: line.to_owned(),
        sex: typed.text("sex").filter(is_sex).ok_or(t.wrong_fields)?.to_owned(),
        placed_on: typed.day("placed_on").ok_or(t.wrong_day)?,
        birds: typed.birds("birds").map_err(number)?.ok_or(t.wrong_number)?,
        area_m2,
        target_weight_g: target_g,
        standard_set_id: None,
        ended_on: None,
        created_at: visit.now,
        updated_at: visit.now,
    })
}

/// What is said of a wish that the book cannot fulfill; `None` where it is no fault of the wish.
pub(super) fn refusal(t: &Texts, error: &BookError) -> Option<&'static str> {
    Some(match error {
        BookError::BarnTaken => t.wrong_barn_taken,
        BookError::Ended => t.wrong_ended,
        BookError::Corrected => t.wrong_corrected,
        BookError::OtherDay(..) => t.wrong_day,
        BookError::Value(_) => t.wrong_number,
        BookError::Zone(_) => t.wrong_zone,
        BookError::StandardTaken => t.wrong_standard_taken,
        BookError::ReferenceTaken | BookError::NotReadable(_) | BookError::NotOwn(_) => t.wrong_fields,
        BookError::NoFlock | BookError::NoRecord | BookError::NoStandard | BookError::Store(_) => {
            return None;
        }
    })
}

/// The flock of an address: one of the barn's tenant, whatever the address says.
pub(super) async fn found(state: &AppState, visit: &Visit, id: &str) -> Result<Flock, Response> {
    let (Some(place), Ok(id)) = (&visit.place, Uuid::try_parse(id)) else {
        return Err(visit.words().not_found());
    };
    state.book.flock(&place.tenant_id, id).await.map_err(|error| visit.words().failed(Error::from(error)))
}

/// Shows a flock.
pub(super) async fn show(
    State(state): State<Arc<AppState>>,
    visit: Visit,
    Path(id): Path<String>,
) -> Response {
    match found(&state, &visit, &id).await {
        Ok(flock) => flock_page(&state, &visit, &flock, StatusCode::OK, None).await,
        Err(response) => response,
    }
}

async fn flock_page(
    state: &AppState,
    visit: &Visit,
    flock: &Flock,
    status: StatusCode,
    wrong: Option<&'static str>,
) -> Response {
    let read = async {
        let (_, days) = state.book.days(&flock.tenant_id, flock.id).await?;
        let records = state.book.records(&flock.tenant_id, flock.id, None, RECORDS_MAX).await?;
        Ok::<_, BookError>((days, records))
    };
    let (days, records) = match read.await {
        Ok(read) => read,
        Err(error) => return visit.words().failed(Error::from(error)),
    };
    let (t, today) = (visit.t(), visit.today());
    let f = visit.frame(t.flock, Tab::Book);
    let loss = |kind: Kind, label| LossForm {
        kind: kind.as_str(),
        label,
        so_far: format!("{}: {}", t.so_far, number(so_far(&records, kind, today), 0)),
        reference: new_id().to_string(),
    };
    let v = FlockView {
        id: flock.id,
        name: flock.batch_id.clone(),
        day_word: days.last().map_or_else(
            || t.today.to_owned(),
            |day| format!("{} {} · {}", t.day, day.age_days, date(f.lang, day.day)),
        ),
        facts: facts(&f, flock, days.last()),
        is_writable: f.rights.write && flock.ended_on.is_none(),
        is_ending: false,
        wrong,
        losses: vec![loss(Kind::Mortality, t.dead), loss(Kind::Cull, t.culled)],
        reference: new_id().to_string(),
        kinds: other_kinds(t),
        placed_on: flock.placed_on,
        today,
        records: record_rows(&f, &records),
    };
    page(status, &FlockPage { f, v })
}

/// What was written down of a kind today, without what was taken back.
fn so_far(records: &[Record], kind: Kind, today: chrono::NaiveDate) -> f64 {
    let is_corrected = |id| records.iter().any(|record| record.corrects == Some(id));
    records
        .iter()
        .filter(|record| record.kind == kind.as_str() && record.day == today)
        .filter(|record| !record.is_void && !is_corrected(record.id))
        .filter_map(|record| record.value)
        .sum()
}

/// Writes something down. A form that is sent twice is written down once.
pub(super) async fn record(
    State(state): State<Arc<AppState>>,
    visit: Visit,
    Path(id): Path<String>,
    typed: Typed,
) -> Response {
    let flock = match found(&state, &visit, &id).await {
        Ok(flock) => flock,
        Err(response) => return response,
    };
    let wrong = match new_record(visit.t(), &typed) {
        Ok(new) => match state.book.record(&flock.tenant_id, flock.id, &new, &visit.author()).await {
            Ok(_) if typed.text("home").is_some() => return see("/?said=written"),
            Ok(_) => return see(&format!("/flocks/{}?said=written", flock.id)),
            Err(error) => match refusal(visit.t(), &error) {
                Some(text) => text,
                None => return visit.words().failed(Error::from(error)),
            },
        },
        Err(text) => text,
    };
    flock_page(&state, &visit, &flock, StatusCode::UNPROCESSABLE_ENTITY, Some(wrong)).await
}

fn new_record(t: &Texts, typed: &Typed) -> Result<NewRecord, &'static str> {
    let number = |NotANumber| t.wrong_number;
    let kind = typed.text("kind").and_then(Kind::parse).ok_or(t.wrong_fields)?;
    let part = typed.text("part").filter(|part| matches!(*part, "MORNING" | "EVENING"));
    let reference = typed.text("ref").filter(|reference| Uuid::try_parse(reference).is_ok());
    Ok(NewRecord {
        kind,
        day: typed.day("day"),
        part: part.map(str::to_owned),
        value: typed.number("value").map_err(number)?,
        birds: typed.birds("birds").map_err(number)?.filter(|_| kind == Kind::HandWeighing),
        cause: None,
        note: typed.text("note").map(str::to_owned),
        external_ref: reference.map(|reference| format!("console:{reference}")),
        source: "MANUAL",
    })
}

/// Takes back what was written down. The book keeps both.
pub(super) async fn take_back(
    State(state): State<Arc<AppState>>,
    visit: Visit,
    Path((id, record_id)): Path<(String, String)>,
) -> Response {
    let flock = match found(&state, &visit, &id).await {
        Ok(flock) => flock,
        Err(response) => return response,
    };
    let Ok(record_id) = Uuid::try_parse(&record_id) else { return visit.words().not_found() };
    match state.book.correct(&flock.tenant_id, flock.id, record_id, None, &visit.author()).await {
        Ok(_) => see(&format!("/flocks/{}?said=taken-back", flock.id)),
        Err(error) => match refusal(visit.t(), &error) {
            Some(text) => flock_page(&state, &visit, &flock, StatusCode::CONFLICT, Some(text)).await,
            None => visit.words().failed(Error::from(error)),
        },
    }
}

/// Ends a flock.
pub(super) async fn end(
    State(state): State<Arc<AppState>>,
    visit: Visit,
    Path(id): Path<String>,
    typed: Typed,
) -> Response {
    let flock = match found(&state, &visit, &id).await {
        Ok(flock) => flock,
        Err(response) => return response,
    };
    let day = typed.day("ended_on").filter(|_| typed.text("sure").is_some());
    let Some(day) = day else {
        let wrong = Some(visit.t().wrong_day);
        return flock_page(&state, &visit, &flock, StatusCode::UNPROCESSABLE_ENTITY, wrong).await;
    };
    match state.book.end(&flock.tenant_id, flock.id, day, &visit.author()).await {
        Ok(_) => see(&format!("/flocks/{}?said=ended", flock.id)),
        Err(error) => match refusal(visit.t(), &error) {
            Some(text) => flock_page(&state, &visit, &flock, StatusCode::CONFLICT, Some(text)).await,
            None => visit.words().failed(Error::from(error)),
        },
    }
}

/// Whether a record stands on the sheet by itself: what the table of the days sums up does not.
fn is_told_on_sheet(record: &Record) -> bool {
    let own = [Kind::HandWeighing, Kind::Note, Kind::Thinning, Kind::FeedDelivered, Kind::FeedReturned];
    own.iter().any(|kind| kind.as_str() == record.kind)
}

/// Shows the sheet to print.
pub(super) async fn sheet(
    State(state): State<Arc<AppState>>,
    visit: Visit,
    Path(id): Path<String>,
) -> Response {
    let flock = match found(&state, &visit, &id).await {
        Ok(flock) => flock,
        Err(response) => return response,
    };
    let f = visit.frame(visit.t().print_sheet, Tab::Book);
    let read = async {
        let weights = weights::view(&state, &visit, &f, &flock).await?;
        let (_, days) = state.book.days(&flock.tenant_id, flock.id).await?;
        let mut records = state.book.records(&flock.tenant_id, flock.id, None, SHEET_RECORDS_READ).await?;
        records.retain(is_told_on_sheet);
        records.truncate(SHEET_RECORDS_MAX);
        let (tenant, barn) = (Some(&*flock.tenant_id), Some(&*flock.barn_id));
        let mut drills = state.alarms.drills(tenant, barn, None, SHEET_DRILLS_MAX).await?;
        drills.retain(|(row, _)| {
            let day = visit.local(row.started_at).date();
            day >= flock.placed_on && flock.ended_on.is_none_or(|ended_on| day <= ended_on)
        });
        Ok::<_, BookError>((weights, days, records, drills))
    };
    let (weights, days, records, drills) = match read.await {
        Ok(read) => read,
        Err(error) => return visit.words().failed(Error::from(error)),
    };
    let v = Sheet {
        id: flock.id,
        name: flock.batch_id.clone(),
        printed: format!("{} {} {}", f.t.printed, date(f.lang, visit.today()), f.now_hm),
        facts: facts(&f, &flock, days.last()),
        growth: weights.growth,
        days: days.iter().map(|day| SheetRow::of(&f, day)).collect(),
        records: record_rows(&f, &records),
        drills: drills
            .iter()
            .map(|(row, results)| drill(f.t, row, results, when(&visit, row.started_at)))
            .collect(),
    };
    page(StatusCode::OK, &SheetPage { f, v })
}
