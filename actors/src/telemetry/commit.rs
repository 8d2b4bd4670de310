//! What one commit writes: units by table, in one transaction.

use std::collections::{BTreeMap, HashSet};
use std::sync::atomic::{AtomicU32, Ordering};

use schema::clock::{Clock, Timestamp};
use schema::store::device::{Seen, StatusReport};
use schema::store::flock::signal;
use schema::store::ledger::{self, Arrivals, Inbound};
use schema::store::reject::Refusal;
use schema::store::telemetry::copy::COPY_ROWS_MIN;
use schema::store::telemetry::{self as rows, DeviceEvent, Reading, Replays, WriteContext};
use schema::store::{self, Conn, Store, StoreError};

use super::{Put, Stored, Unit};

/// Commits that expect readings which were stored before, after one of them met such a reading: clients send again what they
/// missed an answer for, and then much of it at once.
const WARY_COMMITS: u32 = 50;

/// Writes batches.
pub(super) struct Committer {
    /// Where to write.
    store: Store,
    /// Wall time.
    clock: Clock,
    /// How long dedupe marks live.
    dedupe_ttl: chrono::Duration,
    /// The writer's number.
    shard: i32,
    /// Commits left that expect readings which were stored before.
    wary_commits: AtomicU32,
}

/// A part of a batch that was tried as a whole: all of it, unless one of its rows is poison.
pub(super) struct Part {
    /// What was to be written.
    pub(super) puts: Vec<Put>,
    /// What became of it.
    pub(super) outcome: Result<Committed, StoreError>,
}

/// What a commit did.
pub(super) struct Committed {
    /// What became of each put, in their order.
    pub(super) stored: Vec<Stored>,
    /// Which units were stored now, all puts behind each other.
    pub(super) is_new: Vec<bool>,
    /// When they were stored.
    pub(super) stored_at: Timestamp,
    /// Readings that are new.
    pub(super) readings: u64,
    /// Duplicates whose body or topic differs from what was stored.
    pub(super) conflicts: u64,
}

impl Committer {
    pub(super) fn new(store: Store, clock: Clock, dedupe_ttl: chrono::Duration, shard: i32) -> Self {
        Self { store, clock, dedupe_ttl, shard, wary_commits: AtomicU32::new(0) }
    }

    /// Commits a batch. When the database refuses one of its rows, the batch is halved until that row stands alone. When
    /// nothing can be committed at all, the last part is the rest of the batch.
    pub(super) async fn commit(&self, batch: Vec<Put>) -> Vec<Part> {
        let mut parts = Vec::new();
        let mut waiting = vec![batch];
        while let Some(mut puts) = waiting.pop() {
            let outcome = self.commit_part(&puts).await;
            match &outcome {
                Err(error) if error.is_data() && puts.len() > 1 => {
                    let second = puts.split_off(puts.len() / 2);
                    waiting.push(second);
                    waiting.push(puts);
                    continue;
                }
                Err(error) if !error.is_data() => puts.extend(waiting.drain(..).rev().flatten()),
                Ok(_) | Err(_) => {}
            }
            parts.push(Part { puts, outcome });
        }
        parts
    }

    async fn commit_part(&self, puts: &[Put]) -> Result<Committed, StoreError> {
        let Written { is_new, stored_at, readings } = self.write(&Rows::of(puts)).await?;
        let (stored, duplicates) = outcomes(puts, &is_new);
        let conflicts = self.count_conflicts(&duplicates).await;
        Ok(Committed { stored, is_new, stored_at, readings, conflicts })
    }

    /// Nearly every reading is new: a batch is written without looking for what was stored before, and once more with a look
    /// when that fails.
    async fn write(&self, rows: &Rows<'_>) -> Result<Written, StoreError> {
        let wary_commits = self.wary_commits.load(Ordering::Relaxed);
        if wary_commits > 0 {
            self.wary_commits.store(wary_commits - 1, Ordering::Relaxed);
            return self.try_write(rows, Replays::PassOver).await;
        }
        match self.try_write(rows, Replays::Fail).await {
            Err(error) if error.is_replay() => {
                self.wary_commits.store(WARY_COMMITS, Ordering::Relaxed);
                self.try_write(rows, Replays::PassOver).await
            }
            outcome => outcome,
        }
    }

    async fn try_write(&self, rows: &Rows<'_>, replays: Replays) -> Result<Written, StoreError> {
        let Self { store, clock, dedupe_ttl, shard, .. } = self;
        let at = WriteContext {
            now: clock.now(),
            dedupe_ttl: *dedupe_ttl,
            shard: *shard,
            replays,
            copy_rows_min: COPY_ROWS_MIN,
        };
        store.run("ingest", async |conn| rows.write(conn, at).await).await
    }

    /// A count for people; when it cannot be had, nothing is lost.
    async fn count_conflicts(&self, duplicates: &[[&str; 4]]) -> u64 {
        if duplicates.is_empty() {
            return 0;
        }
        let counted =
            self.store.run("dedupe_conflicts", async |conn| store::dedupe::conflicts(conn, duplicates).await);
        counted.await.map_or(0, i64::unsigned_abs)
    }
}

/// What was written, by position of the units in the batch.
struct Written {
    is_new: Vec<bool>,
    stored_at: Timestamp,
    readings: u64,
}

/// What became of each put, and the keys of the units that had been seen before.
fn outcomes<'a>(puts: &'a [Put], is_new: &[bool]) -> (Vec<Stored>, Vec<[&'a str; 4]>) {
    let mut duplicates = Vec::new();
    let mut is_new = is_new.iter();
    let outcome = |put: &'a Put| {
        let mut stored = Stored::default();
        for (unit, is_new) in put.units.iter().zip(&mut is_new) {
            match unit.key() {
                Some(key) if !is_new => {
                    stored.duplicates += 1;
                    duplicates.push(key);
                }
                Some(_) => stored.new += 1,
                None if unit.is_taken() => stored.new += 1,
                None => {}
            }
        }
        stored
    };
    (puts.iter().map(outcome).collect(), duplicates)
}

/// The units of a batch by table, each with its position. Of equal keys only the first is written.
#[derive(Default)]
struct Rows<'a> {
    count: usize,
    readings: Vec<(usize, &'a Reading)>,
    events: Vec<(usize, &'a DeviceEvent)>,
    statuses: Vec<&'a StatusReport>,
    refusals: Vec<&'a Refusal>,
    seen: Vec<&'a Seen>,
    /// For the ledger: readings and events that came, of which the statements that store them tell what is new.
    readings_came: Came<'a>,
    events_came: Came<'a>,
    /// For the ledger: everything else.
    settled: BTreeMap<String, Inbound>,
}

/// Units by tenant: those that came, and those among them that repeat another one of the batch.
type Came<'a> = BTreeMap<&'a str, [i64; 2]>;

fn arrivals<'a>(came: &Came<'a>) -> Vec<Arrivals<'a>> {
    let arrivals = |(tenant_id, [received, repeated]): (&&'a str, &[i64; 2])| Arrivals {
        tenant_id,
        received: *received,
        repeated: *repeated,
    };
    came.iter().map(arrivals).collect()
}

impl<'a> Rows<'a> {
    fn of(batch: &'a [Put]) -> Self {
        let mut rows = Self::default();
        let mut keys = HashSet::new();
        for unit in batch.iter().flat_map(|put| &put.units) {
            let position = rows.count;
            rows.count += 1;
            rows.receive(unit);
            if let Some([tenant_id, event_id, ..]) = unit.key()
                && !keys.insert((tenant_id, event_id))
            {
                rows.repeat(unit);
                continue;
            }
            if let Some(outcome) = unit.outcome() {
                rows.settled.entry(unit.tenant_id().to_owned()).or_default().settle(outcome);
            }
            match unit {
                Unit::Reading(reading) => rows.readings.push((position, reading)),
                Unit::Event(event) => rows.events.push((position, event)),
                Unit::Status(report) => rows.statuses.push(report),
                Unit::Refusal(refusal) => rows.refusals.push(refusal),
                Unit::Counted { .. } => {}
            }
        }
        let mut devices = HashSet::new();
        let signs = batch.iter().rev().filter_map(|put| put.seen.as_ref());
        rows.seen = signs.filter(|sign| devices.insert((&sign.tenant_id, &sign.device_id))).collect();
        rows
    }

    fn receive(&mut self, unit: &'a Unit) {
        match unit {
            Unit::Reading(reading) => self.readings_came.entry(&reading.tenant_id).or_default()[0] += 1,
            Unit::Event(event) => self.events_came.entry(&event.tenant_id).or_default()[0] += 1,
            Unit::Status(_) | Unit::Refusal(_) | Unit::Counted { .. } => {
                self.settled.entry(unit.tenant_id().to_owned()).or_default().received += 1;
            }
        }
    }

    fn repeat(&mut self, unit: &'a Unit) {
        match unit {
            Unit::Reading(reading) => self.readings_came.entry(&reading.tenant_id).or_default()[1] += 1,
            Unit::Event(event) => self.events_came.entry(&event.tenant_id).or_default()[1] += 1,
            Unit::Status(_) | Unit::Refusal(_) | Unit::Counted { .. } => {}
        }
    }

    /// Some readings alone are one statement; anything else makes it a transaction.
    async fn write(&self, conn: &mut Conn, at: WriteContext) -> Result<Written, StoreError> {
        let is_one_statement = self.events_came.is_empty()
            && self.settled.is_empty()
            && self.seen.is_empty()
            && !at.is_copied(self.readings.len())
            && !self.readings.iter().any(|(_, reading)| signal::is_of_silo(reading));
        if is_one_statement {
            return self.write_in(conn, at).await;
        }
        conn.transaction("ingest", async |conn| self.write_in(conn, at).await).await
    }

    async fn write_in(&self, conn: &Conn, at: WriteContext) -> Result<Written, StoreError> {
        let mut is_new = vec![false; self.count];
        let mut stored = 0;
        if !self.readings_came.is_empty() {
            let readings: Vec<&Reading> = self.readings.iter().map(|(_, reading)| *reading).collect();
            let new = rows::store_readings(conn, &readings, &arrivals(&self.readings_came), at).await?;
            stored = u64::try_from(new.len()).expect("a count fits");
            new.into_iter().for_each(|i| is_new[self.readings[i].0] = true);
            for (position, reading) in self.readings.iter().filter(|(_, reading)| signal::is_of_silo(reading))
            {
                if is_new[*position] {
                    signal::put_silo(conn, reading, at.now).await?;
                }
            }
        }
        if !self.events_came.is_empty() {
            let events: Vec<&DeviceEvent> = self.events.iter().map(|(_, event)| *event).collect();
            let new = rows::store_events(conn, &events, &arrivals(&self.events_came), at).await?;
            new.into_iter().for_each(|i| is_new[self.events[i].0] = true);
            for (position, event) in self.events.iter().filter(|(_, event)| signal::is_dispensed(event)) {
                if is_new[*position] {
                    signal::put_dispensed(conn, event, at.now).await?;
                }
            }
        }
        for report in &self.statuses {
            store::device::apply_status(conn, report).await?;
        }
        if !self.seen.is_empty() {
            store::device::seen(conn, &self.seen, at.now).await?;
        }
        if !self.refusals.is_empty() {
            store::reject::record(conn, &self.refusals).await?;
        }
        ledger::count(conn, &self.settled, at.now).await?;
        Ok(Written { is_new, stored_at: at.now, readings: stored })
    }
}
