//! Tables that somebody brings in: looked at first, written once somebody is sure.

use std::collections::BTreeMap;
use std::sync::Arc;

use actors::flock::breeds::bundled;
use actors::flock::desk::{BookError, NewRecord, NewStandard};
use actors::flock::sheet;
use actors::flock::standard::Sex;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::Response;
use chrono::Datelike;
use schema::id::is_id;
use schema::store::flock::Flock;
use schema::store::flock::record::Kind;

use super::super::AppState;
use super::super::error::Error;
use super::answer::{page, see};
use super::book::{found, refusal};
use super::form::{TABLE, Typed};
use super::visit::Visit;
use crate::console::book::{kind_word, sexes};
use crate::console::frame::Tab;
use crate::console::import::{RecordsPage, StandardForm, StandardsPage};
use crate::console::words::number;

/// Standards of the list.
const STANDARDS_MAX: i64 = 200;
/// Years in which a standard may have been said.
const YEARS: std::ops::RangeInclusive<i32> = 1950..=2200;

/// Asks for a table of records.
pub(super) async fn ask_records(
    State(state): State<Arc<AppState>>,
    visit: Visit,
    Path(id): Path<String>,
) -> Response {
    match found(&state, &visit, &id).await {
        Ok(flock) => records_page(&visit, &flock, StatusCode::OK, Records::default()),
        Err(response) => response,
    }
}

/// What the page of a table of records says.
#[derive(Default)]
struct Records {
    csv: String,
    wrong: Option<String>,
    found: Vec<(&'static str, usize)>,
}

fn records_page(visit: &Visit, flock: &Flock, status: StatusCode, records: Records) -> Response {
    let f = visit.frame(visit.t().bring_records, Tab::Book);
    let Records { csv, wrong, found } = records;
    let kinds: Vec<&str> = Kind::ALL.into_iter().map(Kind::as_str).collect();
    let (id, name, kinds) = (flock.id, flock.batch_id.clone(), kinds.join(", "));
    page(status, &RecordsPage { f, id, name, kinds, csv, wrong, found })
}

/// Looks at a table of records, or writes it down.
pub(super) async fn bring_records(
    State(state): State<Arc<AppState>>,
    visit: Visit,
    Path(id): Path<String>,
    typed: Typed,
) -> Response {
    let flock = match found(&state, &visit, &id).await {
        Ok(flock) => flock,
        Err(response) => return response,
    };
    let csv = typed.copy(TABLE);
    let records = match sheet::read(&csv, &flock, visit.today()) {
        Ok(records) => records,
        Err(error) => {
            let wrong = Some(error.to_string());
            let records = Records { csv, wrong, ..Records::default() };
            return records_page(&visit, &flock, StatusCode::UNPROCESSABLE_ENTITY, records);
        }
    };
    if typed.text("sure").is_none() {
        let found = counted(&visit, &records);
        return records_page(&visit, &flock, StatusCode::OK, Records { csv, wrong: None, found });
    }
    for record in &records {
        // What is written stays: the same table again goes on where this one stopped.
        if let Err(error) = state.book.record(&flock.tenant_id, flock.id, record, &visit.author()).await {
            let Some(text) = refusal(visit.t(), &error) else {
                return visit.words().failed(Error::from(error));
            };
            let records = Records { csv, wrong: Some(text.to_owned()), ..Records::default() };
            return records_page(&visit, &flock, StatusCode::CONFLICT, records);
        }
    }
    see(&format!("/flocks/{}?said=brought", flock.id))
}

fn counted(visit: &Visit, records: &[NewRecord]) -> Vec<(&'static str, usize)> {
    let mut counts = BTreeMap::new();
    for record in records {
        *counts.entry(kind_word(visit.t(), record.kind)).or_insert(0) += 1;
    }
    counts.into_iter().collect()
}

/// Lists the standards, and asks for one more.
pub(super) async fn standards(State(state): State<Arc<AppState>>, visit: Visit) -> Response {
    standards_page(&state, &visit, StatusCode::OK, StandardForm::default(), (None, None)).await
}

async fn standards_page(
    state: &AppState,
    visit: &Visit,
    status: StatusCode,
    v: StandardForm,
    (wrong, found): (Option<String>, Option<String>),
) -> Response {
    let Some(place) = &visit.place else { return visit.words().not_found() };
    let sets = match state.book.standards(Some(&place.tenant_id), STANDARDS_MAX).await {
        Ok(sets) => sets,
        Err(error) => return visit.words().failed(error.into()),
    };
    let f = visit.frame(visit.t().standards, Tab::Book);
    let sexes = sexes(f.t);
    let sex_word = |sex: &str| sexes.iter().find(|(name, _)| *name == sex).map_or("", |(_, word)| *word);
    let standards = sets.iter().map(|set| {
        let says =
            format!("{} · {} · {} · {}", set.genetic_line_code, sex_word(&set.sex), set.source, set.year);
        (set.name.clone(), says)
    });
    let standards = standards.collect();
    let mut lines: Vec<String> = bundled().iter().map(|found| found.set.genetic_line_code.clone()).collect();
    lines.dedup();
    let v = if v.year.is_empty() { StandardForm { year: visit.today().year().to_string(), ..v } } else { v };
    page(status, &StandardsPage { f, standards, v, lines, sexes, wrong, found })
}

/// Looks at a standard, or keeps it.
pub(super) async fn bring_standard(
    State(state): State<Arc<AppState>>,
    visit: Visit,
    typed: Typed,
) -> Response {
    let v = StandardForm {
        name: typed.copy("name"),
        line: typed.copy("line"),
        sex: typed.copy("sex"),
        source: typed.copy("source"),
        year: typed.copy("year"),
        csv: typed.copy(TABLE),
    };
    let refused = StatusCode::UNPROCESSABLE_ENTITY;
    let Some(new) = new_standard(&visit, &v) else {
        let wrong = (Some(visit.t().wrong_fields.to_owned()), None);
        return standards_page(&state, &visit, refused, v, wrong).await;
    };
    let is_dry_run = typed.text("sure").is_none();
    match state.book.import_standard(&new, is_dry_run, &visit.author()).await {
        Ok(_) if !is_dry_run => see("/standards?said=brought"),
        Ok((_, standard)) => {
            let days = standard.days();
            let ends = days.first().zip(days.last());
            let found = ends.map(|(first, last)| {
                let weight = |grams| format!("{} {}", number(grams, 0), visit.t().g);
                let (first_g, last_g) = (weight(first.body_weight_g), weight(last.body_weight_g));
                format!("{} {}: {first_g} – {}: {last_g}", visit.t().day, first.age_day, last.age_day)
            });
            standards_page(&state, &visit, StatusCode::OK, v, (None, found)).await
        }
        Err(error) => {
            let wrong = match (&error, refusal(visit.t(), &error)) {
                (BookError::NotReadable(why), _) => why.to_string(),
                (_, Some(text)) => text.to_owned(),
                (_, None) => return visit.words().failed(Error::from(error)),
            };
            standards_page(&state, &visit, refused, v, (Some(wrong), None)).await
        }
    }
}

fn new_standard(visit: &Visit, v: &StandardForm) -> Option<NewStandard> {
    let given = |text: &str| Some(text.to_owned()).filter(|text| !text.is_empty());
    Some(NewStandard {
        tenant_id: visit.place.as_ref()?.tenant_id.clone(),
        name: given(&v.name)?,
        kind: "TARGET".to_owned(),
        genetic_line_code: given(&v.line).filter(|line| is_id(line))?,
        sex: Sex::parse(&v.sex)?,
        source: given(&v.source)?,
        year: v.year.parse().ok().filter(|year| YEARS.contains(year))?,
        csv: given(&v.csv)?,
    })
}
