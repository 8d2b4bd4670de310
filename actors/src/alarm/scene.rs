//! What the rows say of a barn: its rules, what it is doing, how old its birds are, and what takes hours and days to see.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use chrono::{Days, Duration, Timelike};
use schema::clock::Timestamp;
use schema::store::alarm::rule::{self as rules, ModeRow};
use schema::store::alarm::telling::{self, DrillRow, TellingRow};
use schema::store::alarm::{self as rows, AlarmRow, Barn, scene};
use schema::store::flock::{self as flocks, Flock};
use schema::store::{Conn, StoreError};

use super::house::{House, Scene};
use super::rule::{HUMIDITY, LIGHT, Mode, OUTSIDE_TEMPERATURE, Rule, SlowMeasure, WATER, WINDOW_MINUTES_MAX};
use super::starting;
use crate::flock::book::{Frame, reckon};
use crate::flock::calendar::{Zone, age_days};
use crate::flock::climate::{CoveredMean, Darkness, Held};
use crate::flock::source::{find_standard, summary_of};

/// Humidity counts while it is colder than this outside, °C.
const COLD_C: f64 = 10.0;
/// The hours over which water is compared.
const WATER_HOURS: i64 = 3;
/// With the same hours of so many days before.
const WATER_DAYS: i64 = 3;
/// Birds have their darkness from this age on, days.
const DARK_FROM_DAYS: f64 = 7.0;
/// A mean below this share of the standard is too low.
const GROWTH_SHARE: f64 = 0.95;
/// Days for a house in which nobody ever held a drill.
const NEVER_DAYS: f64 = 10_000.0;
const HOUR_SECONDS: f64 = 3600.0;
const DAY_SECONDS: f64 = 86_400.0;

/// The rules of a barn: those of the program, and in their place those that somebody edited. A row that this program cannot
/// read leaves the program's in force.
#[must_use]
pub fn rules_of(edited: &[rules::RuleRow]) -> BTreeMap<String, (Arc<Rule>, i32)> {
    let mut all: BTreeMap<_, _> =
        starting::rules().into_iter().map(|rule| (rule.id.clone(), (Arc::new(rule), 0))).collect();
    for row in edited {
        match serde_json::from_value::<Rule>(row.body.clone()) {
            Ok(rule) => drop(all.insert(row.rule_id.clone(), (Arc::new(rule), row.version))),
            Err(error) => {
                tracing::error!(rule_id = row.rule_id, version = row.version, %error, "a rule cannot be read");
            }
        }
    }
    all
}

/// What a house is doing, and who says so: a person, until a flock is placed or ends after that; else its flock.
#[must_use]
pub fn mode_of(said: Option<&ModeRow>, newest: Option<&Flock>, is_present: bool) -> Mode {
    let changed_at =
        newest.map(|flock| if flock.ended_on.is_some() { flock.updated_at } else { flock.created_at });
    let said = said.filter(|said| changed_at.is_none_or(|changed_at| said.since >= changed_at));
    if let Some(mode) = said.and_then(|said| Mode::parse(&said.mode)) {
        return mode;
    }
    // Where nobody keeps a book, there may be birds.
    if newest.is_none() || is_present { Mode::Growing } else { Mode::Empty }
}

/// What is known of a barn.
///
/// # Errors
/// When the database fails.
pub async fn scene_of(conn: &Conn, barn: &Barn, edge_id: &str, now: Timestamp) -> Result<Scene, StoreError> {
    let edited = rules::newest(conn, barn).await?;
    let is_of_place = |rule: &Rule| barn.is_box() == is_of_box(&rule.id);
    let rules = rules_of(&edited).into_iter().filter(|(_, (rule, _))| is_of_place(rule));
    let rules = rules.map(|(id, (rule, _))| (id, rule)).collect();
    let name = edge_id.to_owned();
    if barn.is_box() {
        let (zone, mode) = (Zone::UTC, Mode::Growing);
        let hour = zone.local(now).hour();
        return Ok(Scene {
            name,
            zone,
            rules,
            mode,
            age_days: None,
            body_weight_g: None,
            devices: None,
            hour,
        });
    }
    let known = flocks::barn(conn, barn.names()).await?;
    let zone = known.as_ref().and_then(|barn| Zone::parse(&barn.time_zone)).unwrap_or(Zone::UTC);
    let name = known.map_or_else(|| barn.barn_id.clone(), |barn| barn.name);
    let (present, newest) = flocks_of(conn, barn, zone, now).await?;
    let said = rules::mode(conn, barn).await?;
    let mode = mode_of(said.as_ref(), newest.as_ref(), present.is_some());
    let age = present.as_ref().map(|flock| age_days(flock.placed_on, zone.day(now)) as f64);
    let age = age.map(|days| days + f64::from(zone.local(now).hour()) / 24.0);
    let body_weight_g = match (&present, age) {
        (Some(flock), Some(age)) => weight_of(conn, flock, age).await?,
        _ => None,
    };
    let devices: BTreeSet<_> = scene::devices(conn, barn).await?.into_iter().collect();
    // Devices without a place in the allowlist say themselves where they are.
    let devices = Some(devices).filter(|devices| !devices.is_empty());
    Ok(Scene { name, zone, rules, mode, age_days: age, body_weight_g, devices, hour: zone.local(now).hour() })
}

/// Whether a rule is about the box, and not about a barn.
#[must_use]
pub fn is_of_box(rule_id: &str) -> bool {
    rule_id.starts_with("engine_")
}

/// The flock that is there now, and the newest one of all.
async fn flocks_of(
    conn: &Conn,
    barn: &Barn,
    zone: Zone,
    now: Timestamp,
) -> Result<(Option<Flock>, Option<Flock>), StoreError> {
    const NEWEST: i64 = 20;
    let present = flocks::at(conn, barn.names(), zone.day(now), None).await?;
    let all = flocks::list(conn, Some(&barn.tenant_id), Some(&barn.barn_id), false, NEWEST).await?;
    let newest = all.into_iter().find(|flock| flock.farm_id == barn.farm_id);
    Ok((present, newest))
}

async fn weight_of(conn: &Conn, flock: &Flock, age: f64) -> Result<Option<f64>, StoreError> {
    let Some(id) = flock.standard_set_id else { return Ok(None) };
    let standard = find_standard(conn, &flock.tenant_id, id).await?;
    Ok(standard.and_then(|(_, standard)| standard.body_weight_g(age)))
}

/// Everything that a house starts from.
#[derive(Debug)]
pub struct Loaded {
    /// Which barn.
    pub barn: Barn,
    /// What is known of it.
    pub scene: Scene,
    /// Its alarms, and by which ways somebody was told of what stands.
    pub alarms: Vec<(AlarmRow, BTreeSet<String>)>,
    /// What its devices said last.
    pub recent: Recent,
    /// Tellings that were cut off.
    pub cut_off: Vec<TellingRow>,
    /// Drills that wait.
    pub drills: Vec<DrillRow>,
    /// When a drill was last answered, and when one last began.
    pub last_drill: LastDrill,
}

/// When a drill was last answered, and when one last began.
#[derive(Clone, Copy, Debug, Default)]
pub struct LastDrill {
    /// Somebody answered.
    pub answered_at: Option<Timestamp>,
    /// One began.
    pub began_at: Option<Timestamp>,
}

/// What is known of a barn, read again.
#[derive(Debug)]
pub struct Reread {
    /// What is known of it.
    pub scene: Scene,
    /// What its devices said last, where some of that was missed.
    pub recent: Recent,
    /// Of drills.
    pub last_drill: LastDrill,
}

/// What devices said last, in the order of its own time.
#[derive(Debug, Default)]
pub struct Recent {
    /// Readings.
    pub readings: Vec<scene::ReadingRow>,
    /// Events that rules listen to.
    pub events: Vec<scene::DeviceEventRow>,
}

/// Reads everything that a house starts from.
///
/// # Errors
/// When the database fails.
pub async fn load(conn: &Conn, barn: Barn, edge_id: &str, now: Timestamp) -> Result<Loaded, StoreError> {
    let scene = scene_of(conn, &barn, edge_id, now).await?;
    let mut alarms = Vec::new();
    for row in rows::of_barn(conn, &barn).await? {
        let told_by = if row.tellings > 0 { told_by(conn, &row).await? } else { BTreeSet::new() };
        alarms.push((row, told_by));
    }
    let recent = recent(conn, &barn, &scene, now).await?;
    let cut_off = telling::cut_off(conn, &barn).await?;
    let drills = telling::waiting_drills(conn, &barn).await?;
    let last_drill = last_drill(conn, &barn).await?;
    Ok(Loaded { barn, scene, alarms, recent, cut_off, drills, last_drill })
}

/// What devices said is read again, or not.
#[derive(Clone, Copy, Debug)]
pub enum Wanted {
    /// Everything was heard.
    Nothing,
    /// What came in since then.
    Since(Timestamp),
    /// The last of each device.
    Last,
}

/// Reads again what is known of a barn; where something was missed, also what its devices said.
///
/// # Errors
/// When the database fails.
pub async fn reread(
    conn: &Conn,
    barn: &Barn,
    edge_id: &str,
    wanted: Wanted,
    now: Timestamp,
) -> Result<Reread, StoreError> {
    let scene = scene_of(conn, barn, edge_id, now).await?;
    let recent = match wanted {
        Wanted::Nothing => Recent::default(),
        Wanted::Since(since) => recent_since(conn, barn, &scene, since, now).await?,
        Wanted::Last => recent(conn, barn, &scene, now).await?,
    };
    let last_drill = last_drill(conn, barn).await?;
    Ok(Reread { scene, recent, last_drill })
}

async fn last_drill(conn: &Conn, barn: &Barn) -> Result<LastDrill, StoreError> {
    let [answered_at, began_at] = telling::last_drill(conn, barn).await?;
    Ok(LastDrill { answered_at, began_at })
}

async fn told_by(conn: &Conn, row: &AlarmRow) -> Result<BTreeSet<String>, StoreError> {
    let (tellings, _) = telling::of_occurrence(conn, row.id, row.occurrence).await?;
    let rang = tellings.into_iter().filter(|telling| !telling.is_grouped);
    Ok(rang.flat_map(|telling| telling.ways).collect())
}

/// What the devices of a barn said within the time that is remembered, and their last words on what rules listen to.
///
/// # Errors
/// When the database fails.
pub async fn recent(conn: &Conn, barn: &Barn, scene: &Scene, now: Timestamp) -> Result<Recent, StoreError> {
    let devices: Vec<String> = scene.devices.iter().flatten().cloned().collect();
    let (from, to) = (window_begins_at(now), now.checked_add_signed(Duration::days(1)).unwrap_or(now));
    let readings = scene::last_readings(conn, barn, &devices, (from, to)).await?;
    let events = last_events(conn, barn, scene, now).await?;
    Ok(Recent { readings, events })
}

/// The same of what came in since a moment; of too much, the last of each device.
async fn recent_since(
    conn: &Conn,
    barn: &Barn,
    scene: &Scene,
    since: Timestamp,
    now: Timestamp,
) -> Result<Recent, StoreError> {
    let since = since.max(window_begins_at(now));
    match scene::readings_since(conn, barn, since).await? {
        Some(readings) => Ok(Recent { readings, events: last_events(conn, barn, scene, now).await? }),
        None => recent(conn, barn, scene, now).await,
    }
}

fn window_begins_at(now: Timestamp) -> Timestamp {
    now.checked_sub_signed(Duration::minutes(i64::from(WINDOW_MINUTES_MAX))).unwrap_or(now)
}

async fn last_events(
    conn: &Conn,
    barn: &Barn,
    scene: &Scene,
    now: Timestamp,
) -> Result<Vec<scene::DeviceEventRow>, StoreError> {
    const EVENTS_FOR: Duration = Duration::days(7);
    let devices: Vec<String> = scene.devices.iter().flatten().cloned().collect();
    let from = now.checked_sub_signed(EVENTS_FOR).unwrap_or(now);
    let to = now.checked_add_signed(Duration::days(1)).unwrap_or(now);
    scene::last_events(conn, barn, &devices, &House::event_types(scene), (from, to)).await
}

/// What takes hours and days to see.
///
/// # Errors
/// When the database fails.
pub async fn slow_of(
    conn: &Conn,
    barn: &Barn,
    scene: &Scene,
    has_ways: bool,
    now: Timestamp,
) -> Result<BTreeMap<SlowMeasure, f64>, StoreError> {
    let mut found = BTreeMap::new();
    let mut put = |measure, value: Option<f64>| {
        if let Some(value) = value.filter(|value| value.is_finite()) {
            found.insert(measure, value);
        }
    };
    if has_ways {
        put(SlowMeasure::DaysSinceDrill, Some(days_since_drill(conn, barn, now).await?));
    }
    let devices: Vec<String> = scene.devices.iter().flatten().cloned().collect();
    put(SlowMeasure::WaterShare, water_share(conn, barn, &devices, now).await?);
    put(SlowMeasure::HumidityMean, humidity_mean(conn, barn, &devices, now).await?);
    if scene.age_days.is_some_and(|age| age >= DARK_FROM_DAYS) {
        put(SlowMeasure::DarkHours, dark_hours(conn, barn, &devices, scene.zone, now).await?);
    }
    if let (Some(flock), _) = flocks_of(conn, barn, scene.zone, now).await? {
        let [deaths, beyond, below] = of_flock(conn, &flock, scene.zone, now).await?;
        put(SlowMeasure::DeathsOfDay, deaths);
        put(SlowMeasure::DeathsBeyondGuide, beyond);
        put(SlowMeasure::DaysBelowStandard, below);
    }
    Ok(found)
}

async fn days_since_drill(conn: &Conn, barn: &Barn, now: Timestamp) -> Result<f64, StoreError> {
    let LastDrill { answered_at, .. } = last_drill(conn, barn).await?;
    Ok(answered_at.map_or(NEVER_DAYS, |at| now.signed_duration_since(at).num_seconds() as f64 / DAY_SECONDS))
}

async fn water_share(
    conn: &Conn,
    barn: &Barn,
    devices: &[String],
    now: Timestamp,
) -> Result<Option<f64>, StoreError> {
    let to = now.timestamp().div_euclid(3600) * 3600;
    let to = Timestamp::from_timestamp(to, 0).unwrap_or(now);
    let span = |days: i64| {
        let end = to - Duration::days(days);
        (end - Duration::hours(WATER_HOURS), end)
    };
    let mut sums = Vec::new();
    for days in 0..=WATER_DAYS {
        let hours = scene::hours(conn, &barn.tenant_id, devices, WATER, span(days)).await?;
        let is_whole = i64::try_from(hours.len()) == Ok(WATER_HOURS);
        sums.push(is_whole.then(|| hours.iter().map(|hour| hour.sum).sum::<f64>()));
    }
    let Some(Some(today)) = sums.first().copied() else { return Ok(None) };
    let before: Option<Vec<f64>> = sums[1..].iter().copied().collect();
    let before = before.map(|before| before.iter().sum::<f64>() / WATER_DAYS as f64);
    Ok(before.filter(|before| *before > 0.0).map(|before| 100.0 * today / before))
}

async fn humidity_mean(
    conn: &Conn,
    barn: &Barn,
    devices: &[String],
    now: Timestamp,
) -> Result<Option<f64>, StoreError> {
    const WINDOW: Duration = Duration::hours(48);
    let span = (now - WINDOW, now);
    let outside = scene::hours(conn, &barn.tenant_id, devices, OUTSIDE_TEMPERATURE, span).await?;
    if outside.last().is_none_or(|hour| hour.mean >= COLD_C) {
        return Ok(None);
    }
    let hours = scene::hours(conn, &barn.tenant_id, devices, HUMIDITY, span).await?;
    let held: Vec<_> = hours.iter().map(|hour| Held { value: hour.mean, seconds: HOUR_SECONDS }).collect();
    let mean = CoveredMean::of(&held, WINDOW.num_seconds() as f64);
    Ok(mean.filter(CoveredMean::is_enough).map(|mean| mean.mean))
}

/// The 24 hours up to the last noon there. Less than six in all, or none of four on end, is what the longest of both is
/// short of: then six count as too few.
async fn dark_hours(
    conn: &Conn,
    barn: &Barn,
    devices: &[String],
    zone: Zone,
    now: Timestamp,
) -> Result<Option<f64>, StoreError> {
    const MINUTES_MIN: usize = 24 * 60 * 3 / 4;
    let noon_of = |day| zone.span(day).0 + Duration::hours(12);
    let today = zone.day(now);
    let noon = if noon_of(today) <= now {
        noon_of(today)
    } else {
        noon_of(today.checked_sub_days(Days::new(1)).unwrap_or(today))
    };
    let span = (noon - Duration::hours(24), noon);
    let minutes = scene::minutes(conn, &barn.tenant_id, devices, LIGHT, span).await?;
    if minutes.len() < MINUTES_MIN {
        return Ok(None);
    }
    let spans: Vec<_> = minutes.iter().map(|minute| Held { value: minute.mean, seconds: 60.0 }).collect();
    let dark = Darkness::of(&spans);
    let is_broken = dark.hours >= 6.0 && !dark.is_enough();
    Ok(Some(if is_broken { dark.longest_hours } else { dark.hours }))
}

/// Deaths of today or yesterday, those beyond the guide, and days running below the standard.
async fn of_flock(
    conn: &Conn,
    flock: &Flock,
    zone: Zone,
    now: Timestamp,
) -> Result<[Option<f64>; 3], StoreError> {
    let days = flocks::days(conn, &flock.tenant_id, flock.id, (flock.placed_on, zone.day(now))).await?;
    let standard = match flock.standard_set_id {
        Some(id) => find_standard(conn, &flock.tenant_id, id).await?.map(|(_, standard)| standard),
        None => None,
    };
    let frame = Frame {
        placed_on: flock.placed_on,
        birds: u32::try_from(flock.birds).unwrap_or_default(),
        area_m2: flock.area_m2,
        target_weight_g: flock.target_weight_g,
        standard,
    };
    let days: Vec<_> = days.into_iter().map(|day| (day.day, summary_of(day.summary))).collect();
    let facts = reckon(&frame, &days);
    let Some(last) = facts.last() else { return Ok([None; 3]) };
    let lately = facts.iter().rev().take(2).map(|day| day.mortality_percent).reduce(f64::max);
    let is_below = |mean_kg: f64, half_width_kg: f64, standard_g: f64| {
        (mean_kg + half_width_kg) * 1000.0 < GROWTH_SHARE * standard_g
    };
    // A day that says nothing of weights interrupts nothing.
    let judged = facts.iter().rev().filter_map(|day| {
        Some(is_below(day.mean_corrected_kg.or(day.mean_kg)?, day.half_width_kg?, day.standard_g?))
    });
    let below = judged.take_while(|is_below| *is_below).count();
    Ok([
        lately,
        Some(last.cum_mortality_percent - last.mortality_guide_percent),
        Some(crate::flock::sample::count(below)),
    ])
}
