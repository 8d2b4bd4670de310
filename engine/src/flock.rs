//! `farmiq-edge flock`: keeps the book of the flocks from a shell.

use std::fmt::Write;

use actors::flock::desk::{FlockDesk, NewRecord, day_of_age};
use anyhow::Context;
use schema::clock::Clock;
use schema::store::flock::record::{Kind, Record};
use schema::store::flock::{Barn, Flock};
use serde_json::{Value, json};

use crate::author::author;
use crate::cli::flock::{FlockAdd, FlockCommand, FlockName, RecordArgs};
use crate::config::Config;
use crate::days::{csv_of, pairs};
use crate::device::with_database;
use crate::http::ComparisonLine;
use crate::tree;

/// Rows that a list shows.
const LIST_ROWS_MAX: i64 = 1000;

/// Does what is wished, and says what came of it.
///
/// # Errors
/// When there is no database, it has not the tables of this version, or the wish cannot be fulfilled.
pub async fn run(wish: FlockCommand, config: &Config) -> anyhow::Result<String> {
    let desk = desk(config)?;
    let author = author();
    Ok(match wish {
        FlockCommand::Barn(args) => {
            let barn = Barn {
                name: args.name.unwrap_or_else(|| args.barn.clone()),
                tenant_id: args.tenant,
                farm_id: args.farm,
                barn_id: args.barn,
                time_zone: args.time_zone,
                language: args.language,
                units: "METRIC".to_owned(),
                updated_at: desk.clock.now(),
            };
            desk.put_barn(&barn, &author).await?;
            format!("the days of {} begin at midnight in {}\n", barn.barn_id, barn.time_zone)
        }
        FlockCommand::Add(add) => {
            let flock = desk.create(flock_of(add, &desk), &author).await?;
            format!("{}\n", flock.id)
        }
        FlockCommand::List { tenant, present, json } => {
            let flocks = desk.flocks(tenant.as_deref(), None, present, LIST_ROWS_MAX).await?;
            flocks
                .iter()
                .map(|flock| if json { format!("{}\n", object(flock)) } else { line(flock) })
                .collect()
        }
        FlockCommand::Show(name) => show(&desk, &name).await?,
        FlockCommand::End { flock: name, day } => {
            let flock = desk.end(&name.tenant, name.flock, day, &author).await?;
            if name.json { format!("{}\n", object(&flock)) } else { line(&flock) }
        }
        FlockCommand::Record { flock: name, record } => {
            let record = desk.record(&name.tenant, name.flock, &record_of(record)?, &author).await?;
            written(&name, &record)
        }
        FlockCommand::Correct { flock: name, record, void: _, kind, value } => {
            let new = kind.map(|kind| new_record(&kind, value)).transpose()?;
            let record = desk.correct(&name.tenant, name.flock, record, new.as_ref(), &author).await?;
            written(&name, &record)
        }
        FlockCommand::Records(name) => {
            let records = desk.records(&name.tenant, name.flock, None, LIST_ROWS_MAX).await?;
            records.iter().map(|record| written(&name, record)).collect()
        }
        FlockCommand::Days { flock: name, csv } => {
            let (_, days) = desk.days(&name.tenant, name.flock).await?;
            if csv {
                csv_of(&days)
            } else if name.json {
                days.iter().map(|day| format!("{}\n", json!(day))).collect()
            } else {
                days_table(&days)
            }
        }
        FlockCommand::Forecast { flock: name, target_g } => forecast(&desk, &name, target_g).await?,
        FlockCommand::Compare(name) => compare(&desk, &name).await?,
    })
}

/// The book of the configured database, or of the private one of a `farmiq-edge up` that runs.
pub(crate) fn desk(config: &Config) -> anyhow::Result<FlockDesk> {
    let store = tree::store_alone(&with_database(config)?)?;
    Ok(FlockDesk { reads: store.reads(), store, clock: Clock::system() })
}

fn flock_of(add: FlockAdd, desk: &FlockDesk) -> Flock {
    let now = desk.clock.now();
    Flock {
        id: schema::id::new_id(),
        tenant_id: add.tenant,
        farm_id: add.farm,
        barn_id: add.barn,
        batch_id: add.batch,
        genetic_line_code: add.line,
        sex: add.sex,
        placed_on: add.placed_on,
        birds: add.birds,
        area_m2: add.area_m2,
        target_weight_g: add.target_g,
        standard_set_id: add.standard,
        ended_on: None,
        created_at: now,
        updated_at: now,
    }
}

fn new_record(kind: &str, value: Option<f64>) -> anyhow::Result<NewRecord> {
    let words = || Kind::ALL.map(Kind::as_str).join(", ");
    let kind = Kind::parse(kind).with_context(|| format!("--kind is one of {}", words()))?;
    Ok(NewRecord {
        kind,
        value,
        day: None,
        part: None,
        birds: None,
        cause: None,
        note: None,
        external_ref: None,
        source: "MANUAL",
    })
}

fn record_of(args: RecordArgs) -> anyhow::Result<NewRecord> {
    let RecordArgs { kind, value, day, part, birds, cause, note } = args;
    Ok(NewRecord { day, part, birds, cause, note, ..new_record(&kind, value)? })
}

async fn show(desk: &FlockDesk, name: &FlockName) -> anyhow::Result<String> {
    let (flock, days) = desk.days(&name.tenant, name.flock).await?;
    let last = days.last();
    if name.json {
        let mut object = object(&flock);
        object["last_day"] = json!(last);
        return Ok(format!("{object}\n"));
    }
    let mut text = line(&flock);
    for (name, value) in last.map(pairs).unwrap_or_default() {
        let _ = writeln!(text, "{name:<26} {value}");
    }
    Ok(text)
}

async fn forecast(desk: &FlockDesk, name: &FlockName, target_g: Option<f64>) -> anyhow::Result<String> {
    let (flock, target_g, told) = desk.forecast(&name.tenant, name.flock, target_g).await?;
    let Some((age_days, found)) = told else {
        anyhow::bail!(
            "nothing can be said: it needs a day with 30 weighings, and a standard that goes so far"
        );
    };
    let day =
        |age: f64| day_of_age(flock.placed_on, age).map_or_else(|| "-".to_owned(), |day| day.to_string());
    Ok(if name.json {
        let found = json!({"flock_id": flock.id, "target_weight_g": target_g, "told_on_age_days": age_days,
            "by_ratio_age_days": found.by_ratio, "by_lag_age_days": found.by_lag,
            "earliest_age_days": found.earliest, "latest_age_days": found.latest});
        format!("{found}\n")
    } else {
        format!(
            "{target_g:.0} g between {} (day {:.1}) and {} (day {:.1}), by the weighings up to day {age_days}\n",
            day(found.earliest),
            found.earliest,
            day(found.latest),
            found.latest,
        )
    })
}

async fn compare(desk: &FlockDesk, name: &FlockName) -> anyhow::Result<String> {
    let (_, lines) = desk.comparison(&name.tenant, name.flock).await?;
    if name.json {
        return Ok(lines
            .into_iter()
            .map(|line| format!("{}\n", json!(ComparisonLine::from(line))))
            .collect());
    }
    if lines.is_empty() {
        return Ok("no weighing has both a scale's weight and a camera's\n".to_owned());
    }
    let mut text = String::from(
        "DAY         CAMERA            MODEL                     N  BIAS KG       ±  LOWER KG  UPPER KG  BIAS %  LOWER %  UPPER %\n",
    );
    let number = |value: Option<f64>, digits: usize| {
        value.map_or_else(|| "-".to_owned(), |value| format!("{value:.digits$}"))
    };
    for line in lines {
        let (kilograms, percent) = (line.kilograms, line.percent);
        let _ = writeln!(
            text,
            "{:<10}  {:<16}  {:<18}  {:>7}  {:>7.3} {:>7}  {:>8}  {:>8}  {:>6.2}  {:>7}  {:>7}{}",
            line.day.map_or_else(|| "all".to_owned(), |day| day.to_string()),
            line.device_id.as_deref().unwrap_or("all"),
            line.model_version,
            line.n,
            kilograms.bias,
            number(kilograms.bias_half_width, 3),
            number(kilograms.lower, 3),
            number(kilograms.upper, 3),
            percent.bias,
            number(percent.lower, 2),
            number(percent.upper, 2),
            if line.is_n_too_small { "  too few" } else { "" },
        );
    }
    Ok(text)
}

fn line(flock: &Flock) -> String {
    let end = flock.ended_on.map_or_else(String::new, |end| format!(" to {end}"));
    format!(
        "{}  {}/{}/{}  {}  {} {}  {} birds  {}{end}\n",
        flock.id,
        flock.tenant_id,
        flock.farm_id,
        flock.barn_id,
        flock.batch_id,
        flock.genetic_line_code,
        flock.sex,
        flock.birds,
        flock.placed_on,
    )
}

fn object(flock: &Flock) -> Value {
    json!({"id": flock.id, "tenant_id": flock.tenant_id, "farm_id": flock.farm_id, "barn_id": flock.barn_id,
        "batch_id": flock.batch_id, "genetic_line_code": flock.genetic_line_code, "sex": flock.sex,
        "placed_on": flock.placed_on, "birds": flock.birds, "area_m2": flock.area_m2,
        "target_weight_g": flock.target_weight_g, "standard_set_id": flock.standard_set_id,
        "ended_on": flock.ended_on})
}

fn written(name: &FlockName, record: &Record) -> String {
    if name.json {
        let record = json!({"id": record.id, "kind": record.kind, "day": record.day, "part": record.part,
            "value": record.value, "birds": record.birds, "cause": record.cause, "note": record.note,
            "source": record.source, "corrects": record.corrects, "is_void": record.is_void});
        return format!("{record}\n");
    }
    let value = record.value.map_or_else(String::new, |value| format!(" {value}"));
    let void = if record.is_void { " taken away" } else { "" };
    let text = [&record.cause, &record.note]
        .into_iter()
        .flatten()
        .map(|text| format!("  {text}"))
        .collect::<String>();
    format!("{}  {}  {}{value}{void}{text}\n", record.id, record.day, record.kind)
}

fn days_table(days: &[actors::flock::book::DayFacts]) -> String {
    let number = |value: Option<f64>, digits: usize| {
        value.map_or_else(|| "-".to_owned(), |value| format!("{value:.digits$}"))
    };
    let mut text = String::from(
        "DAY         AGE     N   MEAN KG       ±     CV %  UNIF %  STD G   DEV %  VERDICT  BIRDS  MORT %\n",
    );
    for day in days {
        let _ = writeln!(
            text,
            "{}  {:>3} {:>5}  {:>8} {:>7}  {:>6}  {:>6}  {:>5}  {:>6}  {:<7} {:>6}  {:>6.3}",
            day.day,
            day.age_days,
            day.n,
            number(day.mean_corrected_kg.or(day.mean_kg), 3),
            number(day.half_width_kg, 3),
            number(day.cv_percent, 1),
            number(day.uniformity_percent, 1),
            number(day.standard_g, 0),
            number(day.deviation_percent, 2),
            day.verdict.unwrap_or("-"),
            day.birds,
            day.cum_mortality_percent,
        );
    }
    text
}
