//! The board: the latest value of each metric of each device, with what is wrong with it. It is memory, fed after each commit and
//! made again from rows: losing it loses nothing.
//!
//! Every change has a number that grows. Whoever has seen everything up to one asks for what changed since, so that a slow
//! reader costs nothing but its own time.

pub mod keeper;

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use chrono::Duration;
use schema::clock::Timestamp;
use schema::metrics;
use schema::store::board::{Device, LastMinute};
use schema::store::fault::Fault;
use schema::store::place::Role;
use schema::store::telemetry::Reading;

use crate::alarm::probe::counted_at;
use crate::place::Places;
use crate::quality::series::{Heard, Series, Standing};
use crate::quality::stretch::Stretches;
use crate::quality::{Level, Limits, Test, in_celsius, limits_of, median_of_three_and_more};

/// Series (a metric of a device) of one tenant at most.
pub const SERIES_PER_TENANT_MAX: usize = 5_000;
/// Series of all tenants at most; each takes about a kilobyte.
pub const SERIES_MAX: usize = 20_000;
/// Where there is no room, what was not heard for so long makes some.
const FORGOTTEN_AFTER: Duration = Duration::hours(24);
/// How often it is looked for that.
const FORGOTTEN_EVERY: Duration = Duration::minutes(1);
/// A unit that is longer is none.
const UNIT_BYTES_MAX: usize = 32;
/// Values of other probes are of the same moment if they are no farther apart.
const SAME_MOMENT: Duration = Duration::minutes(5);
/// Probes that one is held against.
const NEIGHBORS_MAX: usize = 64;

/// The board. Cloning shares it.
#[derive(Clone, Default)]
pub struct Board(Arc<Mutex<Inner>>);

#[derive(Default)]
struct Inner {
    tenants: HashMap<String, Tenant>,
    series: usize,
    /// The number of the last change.
    version: u64,
}

#[derive(Default)]
struct Tenant {
    entries: HashMap<Key, Entry>,
    /// By metric and barn, the devices whose values are held against each other.
    neighbors: HashMap<NeighborhoodKey, BTreeSet<String>>,
    version: u64,
    /// When it was last looked for series that are old.
    forgot_at: Option<Timestamp>,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct Key {
    device_id: String,
    metric_type: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct NeighborhoodKey {
    farm_id: String,
    barn_id: String,
    metric_type: String,
}

struct Entry {
    farm_id: Option<String>,
    barn_id: Option<String>,
    value: f64,
    unit: Option<String>,
    occurred_at: Timestamp,
    received_at: Timestamp,
    at: Timestamp,
    is_from_rows: bool,
    version: u64,
    was_silent: bool,
    series: Series,
    stretches: Stretches,
}

/// A value of the board.
#[derive(Clone, Debug, PartialEq)]
pub struct Latest {
    /// Farm, where known.
    pub farm_id: Option<String>,
    /// Barn, where known.
    pub barn_id: Option<String>,
    /// The device.
    pub device_id: String,
    /// The metric.
    pub metric_type: String,
    /// The value; of rows, the mean of a minute.
    pub value: f64,
    /// Its unit as the device names it, where known.
    pub unit: Option<String>,
    /// When it was measured, by its device.
    pub occurred_at: Timestamp,
    /// When it came in.
    pub received_at: Timestamp,
    /// Whether it was read from rows when the engine started, instead of heard.
    pub is_from_rows: bool,
    /// What is wrong with it, the worst first.
    pub standing: Vec<Standing>,
    /// The number of its last change.
    pub version: u64,
}

/// Which values are asked for.
#[derive(Clone, Copy, Debug, Default)]
pub struct View<'a> {
    /// Only those of this farm.
    pub farm_id: Option<&'a str>,
    /// Only those of this barn.
    pub barn_id: Option<&'a str>,
}

impl Board {
    /// The number of the last change.
    #[must_use]
    pub fn version(&self) -> u64 {
        self.lock().version
    }

    /// The values of a tenant that changed after a number, in the order of their changes, and the number up to which these are all.
    #[must_use]
    pub fn since(&self, tenant_id: &str, view: View<'_>, version: u64, now: Timestamp) -> (Vec<Latest>, u64) {
        let inner = self.lock();
        let newest = inner.version;
        let Some(tenant) = inner.tenants.get(tenant_id).filter(|tenant| tenant.version > version) else {
            return (Vec::new(), newest);
        };
        let is_seen = |own: Option<&str>, asked: Option<&str>| asked.is_none_or(|asked| own == Some(asked));
        let changed = tenant.entries.iter().filter(|(_, entry)| {
            entry.version > version
                && is_seen(entry.farm_id.as_deref(), view.farm_id)
                && is_seen(entry.barn_id.as_deref(), view.barn_id)
        });
        let mut latest: Vec<_> = changed.map(|(key, entry)| entry.latest(key, now)).collect();
        drop(inner);
        latest.sort_unstable_by_key(|latest| latest.version);
        (latest, newest)
    }

    /// Takes the readings of one commit, which are in the order of their coming for each device.
    pub fn hear<'a>(
        &self,
        readings: impl IntoIterator<Item = &'a Reading>,
        stored_at: Timestamp,
        places: &Places,
    ) {
        let mut inner = self.lock();
        for reading in readings {
            inner.hear(reading, stored_at, places);
        }
        metrics::board_series().set(count(inner.series));
    }

    /// Takes what rows say of devices, where nothing newer was heard.
    pub fn read(&self, minutes: &[LastMinute], devices: &[Device], now: Timestamp) {
        let place: HashMap<_, _> =
            devices.iter().map(|device| ((&*device.tenant_id, &*device.device_id), device)).collect();
        let mut inner = self.lock();
        for minute in minutes {
            if let Some(device) = place.get(&(&*minute.tenant_id, &*minute.device_id)) {
                inner.read(minute, device, now);
            }
        }
        metrics::board_series().set(count(inner.series));
    }

    /// Goes on with what was stuck when the engine ended.
    pub fn resume(&self, faults: &[Fault]) {
        let mut inner = self.lock();
        for fault in faults {
            let stuck = Test::parse(&fault.test).filter(|test| *test == Test::Stuck);
            let Some(((_, level), value)) = stuck.zip(Level::parse(&fault.level)).zip(fault.value) else {
                continue;
            };
            let key = Key { device_id: fault.device_id.clone(), metric_type: fault.metric_type.clone() };
            let tenant = inner.tenants.get_mut(&fault.tenant_id);
            if let Some(entry) = tenant.and_then(|tenant| tenant.entries.get_mut(&key))
                && entry.is_from_rows
            {
                entry.series.resume_stuck(value, fault.from_at, level);
            }
        }
    }

    /// Notes that readings came in that were not heard.
    pub fn was_deaf(&self, now: Timestamp) {
        let mut inner = self.lock();
        let entries = inner.tenants.values_mut().flat_map(|tenant| tenant.entries.values_mut());
        entries.for_each(|entry| entry.series.was_deaf(now));
    }

    /// Looks for what fell silent, and gives out what was found since it was asked last.
    #[must_use]
    pub fn sweep(&self, now: Timestamp) -> Vec<Fault> {
        let mut inner = self.lock();
        let Inner { tenants, version, .. } = &mut *inner;
        let mut faults = Vec::new();
        for (tenant_id, tenant) in tenants {
            for (key, entry) in &mut tenant.entries {
                let is_silent = entry.series.silent_since(now).is_some();
                if std::mem::replace(&mut entry.was_silent, is_silent) != is_silent {
                    *version += 1;
                    (entry.version, tenant.version) = (*version, *version);
                }
                let changed = entry.stretches.take_changed(entry.at);
                faults.extend(changed.into_iter().map(|stretch| Fault {
                    tenant_id: tenant_id.clone(),
                    device_id: key.device_id.clone(),
                    metric_type: key.metric_type.clone(),
                    test: stretch.test.as_str().to_owned(),
                    level: stretch.level.as_str().to_owned(),
                    from_at: stretch.from,
                    until_at: stretch.until,
                    readings: stretch.readings,
                    value: stretch.value,
                    updated_at: now,
                }));
            }
        }
        faults
    }

    /// How many series there are.
    #[must_use]
    pub fn series(&self) -> usize {
        self.lock().series
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // Every change is complete before anything can panic.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn hear(&mut self, reading: &Reading, stored_at: Timestamp, places: &Places) {
        let key = Key { device_id: reading.device_id.clone(), metric_type: reading.metric.clone() };
        if !self.has_room(&reading.tenant_id, &key, stored_at) {
            metrics::board_refused().increment(1);
            return;
        }
        let at = counted_at(reading.occurred_at, stored_at);
        let is_outside = places
            .of(&reading.tenant_id, &reading.device_id, &reading.metric)
            .is_some_and(|place| place.role() == Role::Outside);
        let tenant = self.tenants.entry(reading.tenant_id.clone()).or_default();
        let entry = tenant.entries.entry(key.clone()).or_insert_with(|| {
            self.series += 1;
            Entry::of(reading, stored_at, at)
        });
        let value = in_celsius(&reading.metric, reading.value, reading.unit.as_deref());
        let (occurred_at, received_at) = (reading.occurred_at, stored_at);
        let findings = entry.series.hear(&Heard { value, occurred_at, received_at, at }, is_outside);
        for finding in &findings {
            metrics::quality_flagged(finding.test.as_str()).increment(u64::from(finding.readings.max(1)));
            entry.stretches.note(finding);
        }
        let is_newest = at >= entry.at;
        if is_newest {
            entry.take(reading, stored_at, at);
        }
        if is_newest || !findings.is_empty() {
            self.version += 1;
            (entry.version, tenant.version) = (self.version, self.version);
        }
        entry.was_silent = false;
        let wants_comparison = entry.series.wants_comparison();
        if limits_of(&reading.metric).is_some_and(Limits::has_neighbors) {
            tenant.live_beside(reading, &key, places, wants_comparison);
        }
    }

    fn read(&mut self, minute: &LastMinute, device: &Device, now: Timestamp) {
        let key = Key { device_id: minute.device_id.clone(), metric_type: minute.metric_type.clone() };
        let at = counted_at(minute.bucket_end_at, now);
        let known = self.tenants.get(&minute.tenant_id).and_then(|tenant| tenant.entries.get(&key));
        if known.is_some_and(|entry| !entry.is_from_rows || entry.at >= at)
            || !self.has_room(&minute.tenant_id, &key, now)
        {
            return;
        }
        self.version += 1;
        let (version, tenant) = (self.version, self.tenants.entry(minute.tenant_id.clone()).or_default());
        let entry = Entry {
            farm_id: device.farm_id.clone(),
            barn_id: device.barn_id.clone(),
            value: minute.avg_value,
            unit: None,
            occurred_at: minute.bucket_end_at,
            // Nobody knows when its last reading came in; not before its minute was over.
            received_at: at.min(now),
            at,
            is_from_rows: true,
            version,
            was_silent: false,
            series: Series::new(&minute.metric_type),
            stretches: Stretches::default(),
        };
        tenant.version = version;
        if tenant.entries.insert(key, entry).is_none() {
            self.series += 1;
        }
    }

    /// Whether a series is there, or may come. Where there is no room, what was long not heard makes some.
    fn has_room(&mut self, tenant_id: &str, key: &Key, now: Timestamp) -> bool {
        let of_tenant = self.tenants.get(tenant_id).map_or(0, |tenant| tenant.entries.len());
        if self.tenants.get(tenant_id).is_some_and(|tenant| tenant.entries.contains_key(key)) {
            return true;
        }
        if of_tenant < SERIES_PER_TENANT_MAX && self.series < SERIES_MAX {
            return true;
        }
        self.forget(tenant_id, now);
        let of_tenant = self.tenants.get(tenant_id).map_or(0, |tenant| tenant.entries.len());
        of_tenant < SERIES_PER_TENANT_MAX && self.series < SERIES_MAX
    }

    /// Forgets what was long not heard of a tenant.
    fn forget(&mut self, tenant_id: &str, now: Timestamp) {
        let Some(tenant) = self.tenants.get_mut(tenant_id) else { return };
        if tenant.forgot_at.is_some_and(|at| now.signed_duration_since(at).abs() < FORGOTTEN_EVERY) {
            return;
        }
        tenant.forgot_at = Some(now);
        let before = tenant.entries.len();
        let is_old = |entry: &Entry| now.signed_duration_since(entry.received_at) > FORGOTTEN_AFTER;
        tenant.entries.retain(|_, entry| !is_old(entry));
        let entries = &tenant.entries;
        for (place, devices) in &mut tenant.neighbors {
            let metric_type = &place.metric_type;
            devices.retain(|device_id| {
                let key = Key { device_id: device_id.clone(), metric_type: metric_type.clone() };
                entries.contains_key(&key)
            });
        }
        tenant.neighbors.retain(|_, devices| !devices.is_empty());
        self.series -= before - tenant.entries.len();
    }
}

impl Tenant {
    /// Keeps who lives beside whom, and holds a value against the others when that is due.
    fn live_beside(&mut self, reading: &Reading, key: &Key, places: &Places, is_due: bool) {
        let neighborhood = NeighborhoodKey {
            farm_id: reading.farm_id.clone(),
            barn_id: reading.barn_id.clone(),
            metric_type: reading.metric.clone(),
        };
        let devices = self.neighbors.entry(neighborhood).or_default();
        if !devices.contains(&key.device_id) {
            devices.insert(key.device_id.clone());
        }
        let is_of_house = |device_id: &str| {
            let place = places.of(&reading.tenant_id, device_id, &reading.metric);
            place.is_none_or(|place| place.role().is_of_house())
        };
        if !is_due {
            return;
        }
        let Some((_, at)) = self.entries.get(key).and_then(|entry| entry.series.newest()) else { return };
        let value_of = |device_id: &String| {
            let key = Key { device_id: device_id.clone(), metric_type: key.metric_type.clone() };
            let entry = self.entries.get(&key)?;
            let is_here = entry.barn_id.as_deref() == Some(&*reading.barn_id);
            let (value, of) = entry.series.newest().filter(|_| is_here)?;
            (of.signed_duration_since(at).abs() <= SAME_MOMENT && is_of_house(device_id)).then_some(value)
        };
        let is_own_inside = is_of_house(&key.device_id);
        let others = devices.iter().filter(|device_id| **device_id != key.device_id);
        let mut values: Vec<f64> = others.filter_map(value_of).take(NEIGHBORS_MAX).collect();
        values.extend(value_of(&key.device_id));
        let median = if is_own_inside { median_of_three_and_more(&mut values) } else { None };
        let Some(entry) = self.entries.get_mut(key) else { return };
        if let Some(finding) = entry.series.compare(median) {
            entry.stretches.note(&finding);
        }
    }
}

impl Entry {
    fn of(reading: &Reading, stored_at: Timestamp, at: Timestamp) -> Self {
        Self {
            farm_id: Some(reading.farm_id.clone()),
            barn_id: Some(reading.barn_id.clone()),
            value: reading.value,
            unit: unit_of(reading),
            occurred_at: reading.occurred_at,
            received_at: stored_at,
            at,
            is_from_rows: false,
            version: 0,
            was_silent: false,
            series: Series::new(&reading.metric),
            stretches: Stretches::default(),
        }
    }

    fn take(&mut self, reading: &Reading, stored_at: Timestamp, at: Timestamp) {
        if self.farm_id.as_deref() != Some(&*reading.farm_id) {
            self.farm_id = Some(reading.farm_id.clone());
        }
        if self.barn_id.as_deref() != Some(&*reading.barn_id) {
            self.barn_id = Some(reading.barn_id.clone());
        }
        if self.unit != reading.unit {
            self.unit = unit_of(reading);
        }
        (self.value, self.occurred_at, self.received_at) = (reading.value, reading.occurred_at, stored_at);
        (self.at, self.is_from_rows) = (at, false);
    }

    fn latest(&self, key: &Key, now: Timestamp) -> Latest {
        Latest {
            farm_id: self.farm_id.clone(),
            barn_id: self.barn_id.clone(),
            device_id: key.device_id.clone(),
            metric_type: key.metric_type.clone(),
            value: self.value,
            unit: self.unit.clone(),
            occurred_at: self.occurred_at,
            received_at: self.received_at,
            is_from_rows: self.is_from_rows,
            standing: self.series.standing(now),
            version: self.version,
        }
    }
}

fn unit_of(reading: &Reading) -> Option<String> {
    reading.unit.clone().filter(|unit| unit.len() <= UNIT_BYTES_MAX)
}

#[expect(clippy::cast_precision_loss, reason = "there are some thousands")]
fn count(series: usize) -> f64 {
    series as f64
}

#[cfg(test)]
mod tests;
