//! Plays a flock's past into an engine: the book over HTTP, the weighings by the scales over MQTT.

use std::collections::VecDeque;
use std::ops::Range;

use anyhow::{Context, Result};
use chrono::{FixedOffset, NaiveTime, TimeZone, Utc};
use rand::SeedableRng;
use rand::rngs::StdRng;
use schema::clock::Timestamp;
use schema::id::Uuid;
use serde_json::{Value, json};

use super::Book;
use super::truth::{Flock, TrueDay, Truth, Wish, scale_kg};
use crate::device::{Message, Place, Station, Weighing};
use crate::ids::new_event_id;

/// Where the barn is, and its offset, hours: a zone that never changes its clocks.
pub const TIME_ZONE: &str = "Asia/Bangkok";
const OFFSET_HOURS: i32 = 7;
/// Birds on a square meter.
const BIRDS_PER_M2: f64 = 14.8;
/// How many days after the last the forecast is asked for.
const TARGET_IN_DAYS: f64 = 5.0;
/// Over how many days a scale that drifts gets as wrong as it is at the end.
const DRIFT_DAYS: f64 = 10.0;

/// The day it is where the barn is.
#[must_use]
pub fn today(now: Timestamp) -> chrono::NaiveDate {
    now.with_timezone(&zone()).date_naive()
}

fn zone() -> FixedOffset {
    FixedOffset::east_opt(OFFSET_HOURS * 3600).expect("an offset of less than a day")
}

/// A flock that was placed at an engine.
#[derive(Debug)]
pub struct Placed {
    /// The birds.
    pub flock: Flock,
    /// What is true of them.
    pub truth: Truth,
    /// The name that weighings carry.
    pub batch_id: String,
    /// Day 0.
    pub placed_on: chrono::NaiveDate,
}

/// Places a flock and writes its book: deaths in the morning and in the evening, feed, and the water meter.
///
/// # Errors
/// When the engine does not take it.
pub async fn place(book: &Book, place: &Place, wish: Wish, mut progress: impl FnMut(u16)) -> Result<Placed> {
    let (seed, days, birds) = (wish.seed, wish.days, wish.birds);
    let placed_on = wish.placed_on;
    let flock = Flock::draw(wish);
    let Place { tenant, farm, barn } = place;
    let target_age_days = f64::from(days) - 1.0 + TARGET_IN_DAYS;
    let target_weight_g = (flock.mean_kg(target_age_days) * 1000.0).round();
    let batch_id = format!("{placed_on}-{seed}");
    let of_barn = json!({"tenant_id": tenant, "farm_id": farm, "barn_id": barn, "name": format!("House {barn}"),
        "time_zone": TIME_ZONE, "language": "th-TH"});
    book.post("/api/v1/barns", &of_barn).await?;
    let new = json!({"tenant_id": tenant, "farm_id": farm, "barn_id": barn, "batch_id": batch_id,
        "genetic_line_code": "ROSS308", "sex": "AS_HATCHED", "placed_on": placed_on, "birds": birds,
        "area_m2": (f64::from(birds) / BIRDS_PER_M2).round(), "target_weight_g": target_weight_g});
    let placed = book.post("/api/v1/flocks", &new).await?;
    let flock_id = placed["id"].as_str().and_then(|id| Uuid::try_parse(id).ok());
    let flock_id = flock_id.context("the engine named no id of the flock")?;
    let true_days = flock.days();
    let path = format!("/api/v1/flocks/{flock_id}/records");
    for day in &true_days {
        for record in records(tenant, flock_id, day) {
            book.post(&path, &record).await?;
        }
        progress(day.age_days);
    }
    let truth = Truth {
        flock_id,
        tenant_id: tenant.clone(),
        seed,
        target_weight_g,
        target_age_days,
        days: true_days,
        air: None,
    };
    Ok(Placed { flock, truth, batch_id, placed_on })
}

fn records(tenant: &str, flock_id: Uuid, day: &TrueDay) -> Vec<Value> {
    let record = |kind: &str, part: Option<&str>, value: f64| {
        // A reference is one record's in a tenant.
        let reference = format!("{flock_id}-{kind}-{}-{}", day.day, part.unwrap_or("DAY"));
        json!({"tenant_id": tenant, "kind": kind, "day": day.day, "part": part, "value": value,
            "external_ref": reference, "source": "API_IMPORT"})
    };
    let morning = day.dead / 2;
    [
        Some(record("MORTALITY", Some("MORNING"), f64::from(morning))).filter(|_| morning > 0),
        Some(record("MORTALITY", Some("EVENING"), f64::from(day.dead - morning)))
            .filter(|_| day.dead > morning),
        Some(record("FEED_INTAKE", None, day.feed_kg)),
        Some(record("WATER_METER", None, day.water_meter_l)),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// The past of one scale, message by message.
#[derive(Debug)]
pub struct History {
    station: Station,
    flock: Flock,
    batch_id: String,
    placed_on: chrono::NaiveDate,
    /// Days that are still to come.
    ages: Range<u16>,
    /// Which scale of how many.
    scale: (usize, usize),
    /// How much too much the scale says at the end, as a share.
    drift: f64,
    queue: VecDeque<Message>,
    random: StdRng,
}

impl History {
    /// The past of a scale among so many.
    #[must_use]
    pub fn new(station: Station, placed: &Placed, scale: (usize, usize)) -> Self {
        let days = &placed.truth.days;
        Self {
            station,
            flock: placed.flock.clone(),
            batch_id: placed.batch_id.clone(),
            placed_on: placed.placed_on,
            ages: 0..u16::try_from(days.len()).unwrap_or(u16::MAX),
            scale,
            drift: 0.0,
            queue: VecDeque::new(),
            // Ids never repeat, whatever the seed of the birds.
            random: StdRng::from_os_rng(),
        }
    }

    /// The same of a scale that drifts: over the last ten days it comes to say so much too much, as a share.
    #[must_use]
    pub fn drifting(self, drift: f64) -> Self {
        Self { drift, ..self }
    }

    /// Days of the past that are still to come.
    #[must_use]
    pub fn days_left(&self) -> usize {
        self.ages.len()
    }

    /// The next message; `None` when the past is over.
    pub fn message(&mut self) -> Option<Message> {
        while self.queue.is_empty() {
            let age_days = self.ages.next()?;
            let drifted = 1.0 + self.drift * (1.0 - self.ages.len() as f64 / DRIFT_DAYS).max(0.0);
            let day = self.placed_on + chrono::Days::new(u64::from(age_days));
            for (second, weight_kg) in self.flock.weighings(age_days, self.scale.0, self.scale.1) {
                let time = NaiveTime::from_num_seconds_from_midnight_opt(second, 0).unwrap_or_default();
                let at = zone().from_local_datetime(&day.and_time(time)).single();
                let Some(at) = at.map(|at| at.with_timezone(&Utc)) else { continue };
                let session = new_event_id(&mut self.random);
                let weighing = Weighing { session: &session, weight_kg: scale_kg(weight_kg * drifted), at };
                self.queue.extend(self.station.bare_messages(weighing, &self.batch_id, &mut self.random));
            }
        }
        self.queue.pop_front()
    }
}
