//! Keeps the book: takes what came in, and makes the days of flocks anew whose inputs have changed, and no others.
//!
//! A mark is written in the transaction of what it tells of, and taken away in that of the new day, before the inputs are
//! read: a change that is committed later leaves a mark of its own. A day whose mean has changed has the next one made
//! anew, since that is judged by it; that ends where a mean stays as it was.

use std::time::Duration;

use chrono::{Days, NaiveDate};
use schema::clock::{Clock, Timestamp};
use schema::store::flock::record::{self, Kind, Record};
use schema::store::flock::signal::{self, Signal};
use schema::store::flock::{self as rows, DirtyDay, Flock};
use schema::store::outbox::put::{NewEvent, put};
use schema::store::{Conn, Store, StoreError};
use serde_json::json;

use super::day::{DaySummary, summarize};
use super::silo;
use super::source::{day_of, inputs, zone_of};
use crate::chore::Chore;
use crate::sync::SyncWake;

/// How often it looks.
const EVERY: Duration = Duration::from_secs(5);
/// The pause when there is more to do.
const NEXT_ROUND: Duration = Duration::from_millis(100);
/// Of what came in, taken in one round.
const SIGNALS_PER_ROUND: i64 = 500;
/// Days made anew in one round, each in a transaction of its own.
const DAYS_PER_ROUND: i64 = 20;
/// Means that differ by no more are the same, kg: a number may lose its last bit on its way through a text.
const SAME_KG: f64 = 1e-9;
/// How often the days that are not over get the air of their last hours.
const AIR_EVERY_MINUTES: i64 = 15;
/// Flocks whose air is seen to.
const FLOCKS_MAX: i64 = 1000;

/// The chore.
#[derive(Clone)]
pub struct FlockKeeper {
    store: Store,
    clock: Clock,
    wake_sync: SyncWake,
    aired_at: Option<Timestamp>,
}

impl FlockKeeper {
    /// One that has seen to nothing yet.
    #[must_use]
    pub fn new(store: Store, clock: Clock, wake_sync: SyncWake) -> Self {
        Self { store, clock, wake_sync, aired_at: None }
    }

    /// Has today and yesterday of every flock made anew now and then: nobody tells of the air.
    async fn air(&mut self, now: Timestamp) -> Result<(), StoreError> {
        let is_due = self.aired_at.is_none_or(|aired_at| {
            let minutes = now.signed_duration_since(aired_at).num_minutes();
            !(0..AIR_EVERY_MINUTES).contains(&minutes)
        });
        if !is_due {
            return Ok(());
        }
        let mark = async |conn: &Conn| {
            for flock in rows::list(conn, None, None, true, FLOCKS_MAX).await? {
                let zone = zone_of(conn, [&flock.tenant_id, &flock.farm_id, &flock.barn_id]).await?;
                let today = zone.day(now);
                let yesterday = today.checked_sub_days(Days::new(1)).unwrap_or(today);
                for day in [yesterday, today].into_iter().filter(|day| *day >= flock.placed_on) {
                    rows::mark(
                        conn,
                        &DirtyDay { tenant_id: flock.tenant_id.clone(), flock_id: flock.id, day },
                    )
                    .await?;
                }
            }
            Ok(())
        };
        self.store.run("flock_air", async |conn| conn.transaction("flock_air", mark).await).await?;
        self.aired_at = Some(now);
        Ok(())
    }

    /// Takes what came in; says whether there is more.
    async fn take_signals(&self, now: Timestamp) -> Result<bool, StoreError> {
        let take = async |conn: &Conn| {
            if !rows::try_lock(conn).await? {
                return Ok((false, false));
            }
            let signals = signal::next(conn, SIGNALS_PER_ROUND).await?;
            let mut has_event = false;
            for signal in &signals {
                has_event |= take(conn, signal, now).await?;
            }
            let seqs: Vec<i64> = signals.iter().map(|signal| signal.seq).collect();
            signal::drop_all(conn, &seqs).await?;
            Ok((i64::try_from(signals.len()) == Ok(SIGNALS_PER_ROUND), has_event))
        };
        let work = async |conn: &mut Conn| conn.transaction("flock_signals", take).await;
        let (has_more, has_event) = self.store.run("flock_signals", work).await?;
        if has_event {
            self.wake_sync.wake();
        }
        Ok(has_more)
    }

    /// Makes days anew; says whether there are more.
    async fn rebuild(&self, now: Timestamp) -> Result<bool, StoreError> {
        let read = async |conn: &mut Conn| rows::dirty(conn, DAYS_PER_ROUND).await;
        let days = self.store.run("flock_dirty", read).await?;
        for dirty in &days {
            let work = async |conn: &Conn| rebuild_day(conn, dirty, now).await;
            self.store.run("flock_day", async |conn| conn.transaction("flock_day", work).await).await?;
        }
        Ok(!days.is_empty())
    }
}

impl Chore for FlockKeeper {
    const NAME: &'static str = "flock";
    type Error = StoreError;

    async fn run(&mut self) -> Result<Duration, StoreError> {
        let now = self.clock.now();
        self.air(now).await?;
        let has_signals = self.take_signals(now).await?;
        let has_days = self.rebuild(now).await?;
        Ok(if has_signals || has_days { NEXT_ROUND } else { EVERY })
    }
}

/// Takes one thing that came in; says whether the cloud is told of it.
async fn take(conn: &Conn, signal: &Signal, now: Timestamp) -> Result<bool, StoreError> {
    let place = [&*signal.tenant_id, &*signal.farm_id, &*signal.barn_id];
    let day = zone_of(conn, place).await?.day(signal.occurred_at);
    let eaten_kg = match signal.kind.as_str() {
        "FEED_DISPENSED" => signal.quantity_kg,
        "SILO_WEIGHT" => eaten_from_silo(conn, signal).await?,
        _ => None,
    };
    let flock = rows::at(conn, place, day, signal.batch_id.as_deref()).await?;
    let Some(flock) = flock else { return Ok(false) };
    let is_event = match eaten_kg {
        Some(eaten_kg) => write_feed(conn, &flock, signal, (day, eaten_kg), now).await?,
        None => false,
    };
    if is_event || signal.kind == "WEIGHING" {
        rows::mark(conn, &DirtyDay { tenant_id: flock.tenant_id, flock_id: flock.id, day }).await?;
    }
    Ok(is_event)
}

/// What a silo's weight says was eaten; a weight that is not newer than the last says nothing.
async fn eaten_from_silo(conn: &Conn, signal: &Signal) -> Result<Option<f64>, StoreError> {
    let Some(weight_kg) = signal.quantity_kg else { return Ok(None) };
    let before = signal::snapshot(conn, &signal.tenant_id, &signal.device_id).await?;
    if before.is_some_and(|(_, seen_at)| seen_at >= signal.occurred_at) {
        return Ok(None);
    }
    let step = silo::step(before.map(|(lowest_kg, _)| lowest_kg), weight_kg);
    signal::put_snapshot(conn, signal, step.lowest_kg).await?;
    Ok(step.eaten_kg)
}

/// Writes what was eaten into the book and for the cloud; `false` if it is there.
async fn write_feed(
    conn: &Conn,
    flock: &Flock,
    signal: &Signal,
    (day, eaten_kg): (NaiveDate, f64),
    now: Timestamp,
) -> Result<bool, StoreError> {
    let source = if signal.kind == "SILO_WEIGHT" { "SILO_AUTO" } else { "MQTT_DISPENSED" };
    let id = signal::record_id(signal);
    let record = Record {
        id,
        tenant_id: signal.tenant_id.clone(),
        flock_id: flock.id,
        kind: Kind::FeedIntake.as_str().to_owned(),
        day,
        part: None,
        value: Some(eaten_kg),
        birds: None,
        cause: None,
        note: None,
        source: source.to_owned(),
        external_ref: Some(format!("{}/{}", signal.device_id, signal.event_id)),
        corrects: None,
        is_void: false,
        author: format!("device:{}/{}", signal.tenant_id, signal.device_id),
        occurred_at: signal.occurred_at,
        created_at: now,
    };
    if !record::add(conn, &record).await? {
        return Ok(false);
    }
    let payload = json!({"feed_intake_id": id, "tenant_id": signal.tenant_id, "farm_id": signal.farm_id,
        "barn_id": signal.barn_id, "device_id": signal.device_id, "batch_id": flock.batch_id, "source": source,
        "quantity_kg": eaten_kg, "occurred_at": schema::wire::time::format(signal.occurred_at)});
    let event = NewEvent {
        id,
        tenant_id: signal.tenant_id.clone(),
        farm_id: signal.farm_id.clone(),
        barn_id: signal.barn_id.clone(),
        device_id: signal.device_id.clone(),
        station_id: None,
        session_id: None,
        event_type: "feed.intake.recorded",
        occurred_at: signal.occurred_at,
        order_at: None,
        trace_id: signal.trace_id.clone().unwrap_or_else(|| id.to_string()),
        payload,
    };
    put(conn, &[event], now).await?;
    Ok(true)
}

async fn rebuild_day(conn: &Conn, dirty: &DirtyDay, now: Timestamp) -> Result<(), StoreError> {
    // Another engine is at it, and takes the mark away.
    if !rows::try_lock(conn).await? {
        return Ok(());
    }
    rows::clean(conn, dirty).await?;
    let Some(flock) = rows::find(conn, &dirty.tenant_id, dirty.flock_id).await? else { return Ok(()) };
    let is_own = dirty.day >= flock.placed_on && flock.ended_on.is_none_or(|end| dirty.day <= end);
    if !is_own {
        return Ok(());
    }
    let before = day_of(conn, &flock, dirty.day).await?;
    let inputs = inputs(conn, &flock, dirty.day).await?;
    let summary = tokio::task::spawn_blocking(move || summarize(&inputs)).await.expect("it does not panic");
    let value = serde_json::to_value(&summary).expect("numbers and texts always serialize");
    rows::put_day(conn, dirty, &value, now).await?;
    let next = dirty.day.checked_add_days(Days::new(1)).unwrap_or(dirty.day);
    let firm = |day: &DaySummary| day.weighings.firm_mean_kg();
    let has_changed = match (before.as_ref().and_then(firm), firm(&summary)) {
        (Some(before), Some(after)) => (before - after).abs() > SAME_KG,
        (before, after) => before.is_some() != after.is_some(),
    };
    if has_changed && day_of(conn, &flock, next).await?.is_some_and(|next| next.weighings.seen > 0) {
        rows::mark(conn, &DirtyDay { day: next, ..dirty.clone() }).await?;
    }
    Ok(())
}
