//! The alarms of one barn, in memory: what its probes say, what its rules make of that, and what became of each alarm.
//!
//! It does no I/O. Whoever owns it hands it what was stored, and takes away the [`Change`]s that are to be written before
//! anybody is told. The box itself is a house, too, whose rules are about disks and databases.

mod act;
mod change;
mod due;
mod judge;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use schema::clock::Timestamp;
use schema::store::alarm::{AlarmRow, Barn};
use schema::store::audit::{Action, Author};
use serde_json::Value;

use super::flood::Flood;
use super::probe::Probe;
use super::rule::{LIGHT, Mode, Rule, SlowMeasure, TEMPERATURE, Test};
use super::starting::{SENSOR_IMPLAUSIBLE, SENSOR_STUCK};
use super::state::{Alarm, Event, Place};
use crate::flock::calendar::Zone;
use crate::quality::{self, Level, limits_of};

pub use act::{Act, ActError, SHELF_MINUTES_CRITICAL_MAX, SHELF_MINUTES_MAX};
pub use change::Change;
pub use due::Due;

/// Probes of one barn that are remembered: each has up to 20 KiB.
pub const PROBES_MAX: usize = 2000;
/// Alarms of one barn: rules by places.
const ALARMS_MAX: usize = schema::store::alarm::ALARMS_PER_BARN_MAX as usize;
/// Things that somebody else says of one barn.
const SAID_MAX: usize = 2000;

/// A moment by both clocks: rules wait by the steady one, which nobody can put right, and rows have the wall's time.
#[derive(Clone, Copy, Debug)]
pub struct Moment {
    /// Wall time of the start and what has passed since.
    pub steady: Timestamp,
    /// Wall time.
    pub wall: Timestamp,
}

impl Moment {
    /// What a steady time is on the wall.
    #[must_use]
    pub fn wall_of(&self, steady: Timestamp) -> Timestamp {
        let ahead = self.wall.signed_duration_since(self.steady);
        steady.checked_add_signed(ahead).unwrap_or(self.wall)
    }

    /// What a time of the wall is by the steady clock.
    #[must_use]
    pub fn steady_of(&self, wall: Timestamp) -> Timestamp {
        let behind = self.steady.signed_duration_since(self.wall);
        wall.checked_add_signed(behind).unwrap_or(self.steady)
    }
}

/// An alarm is one rule at one place: a device, a metric, or nothing for the whole house.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key {
    /// The rule.
    pub rule: String,
    /// The place.
    pub place: String,
}

impl Key {
    /// The alarm of a rule at a place.
    #[must_use]
    pub fn new(rule: &str, place: &str) -> Self {
        Self { rule: rule.to_owned(), place: place.to_owned() }
    }
}

/// What is known of a barn from its rows.
#[derive(Clone, Debug)]
pub struct Scene {
    /// What people call it.
    pub name: String,
    /// Where it is.
    pub zone: Zone,
    /// Its rules.
    pub rules: BTreeMap<String, Arc<Rule>>,
    /// What it is doing.
    pub mode: Mode,
    /// Age of the birds, days.
    pub age_days: Option<f64>,
    /// What a bird of the standard weighs now, grams.
    pub body_weight_g: Option<f64>,
    /// The devices that may speak; `None` when nobody says which.
    pub devices: Option<BTreeSet<String>>,
    /// The hour of the day there.
    pub hour: u32,
}

/// What another part of the program says.
#[derive(Clone, Debug, PartialEq)]
pub struct Said {
    /// Whether it is so.
    pub stands: bool,
    /// The value.
    pub value: Option<f64>,
    /// The limit.
    pub limit: Option<f64>,
    /// More about it.
    pub why: Option<String>,
}

impl Said {
    /// That something is so, or is not.
    #[must_use]
    pub fn that(stands: bool) -> Self {
        Self { stands, value: None, limit: None, why: None }
    }
}

/// An alarm, and what is told of it.
#[derive(Clone, Debug)]
pub struct Kept {
    /// What it is at.
    pub alarm: Alarm,
    /// Its row, as it was written last or will be.
    pub row: AlarmRow,
    /// By which ways somebody was told of this occurrence.
    pub told_by: BTreeSet<String>,
    /// When this round began.
    round_began_at: Timestamp,
    /// When somebody was told last.
    told_at: Option<Timestamp>,
}

/// The alarms of one barn; see the head of this file.
#[derive(Debug)]
pub struct House {
    /// Which barn.
    pub barn: Barn,
    /// What is known of it.
    pub scene: Scene,
    alarms: BTreeMap<Key, Kept>,
    /// By device and metric.
    probes: BTreeMap<(String, String), Probe>,
    said: BTreeMap<Key, Said>,
    slow: BTreeMap<SlowMeasure, f64>,
    /// Metrics of devices that cannot be believed.
    spoiled: BTreeSet<(String, String)>,
    flood: Flood<Key>,
    /// Rules of the box whose alarms are active.
    pub box_causes: BTreeSet<String>,
    changes: Vec<Change>,
}

impl House {
    /// A barn of which nothing has been heard.
    #[must_use]
    pub fn new(barn: Barn, scene: Scene) -> Self {
        Self {
            barn,
            scene,
            alarms: BTreeMap::new(),
            probes: BTreeMap::new(),
            said: BTreeMap::new(),
            slow: BTreeMap::new(),
            spoiled: BTreeSet::new(),
            flood: Flood::default(),
            box_causes: BTreeSet::new(),
            changes: Vec::new(),
        }
    }

    /// Takes up what stood when the engine ended: what is active has to be acknowledged anew. `told_by` is who was told.
    pub fn take_up(&mut self, row: AlarmRow, told_by: BTreeSet<String>, moment: Moment) {
        let key = Key::new(&row.rule_id, &row.place);
        let kept = Kept::of(row, told_by, moment);
        self.alarms.insert(key.clone(), kept);
        let rule = self.scene.rules.get(&key.rule).cloned();
        self.step(&key, rule.as_deref(), Event::Restart, change::Cause::engine(), moment);
        self.suppress(&key, moment);
    }

    /// Hears a reading of a device's time, and what the rules of its metric make of it.
    pub fn hear_reading(
        &mut self,
        device: &str,
        metric: &str,
        (value, at): (f64, Timestamp),
        moment: Moment,
    ) {
        self.hear_at(device, metric, (value, at, moment.steady), moment);
    }

    /// The same of what is read again from the rows, which came in when these say: only what is newer than what was heard.
    pub fn hear_again(
        &mut self,
        device: &str,
        metric: &str,
        (value, at, came_in_at): (f64, Timestamp, Timestamp),
        moment: Moment,
    ) {
        let probe = self.probes.get(&(device.to_owned(), metric.to_owned()));
        if probe.and_then(Probe::at).is_none_or(|newest| at > newest) {
            let heard_at = moment.steady_of(came_in_at).min(moment.steady);
            self.hear_at(device, metric, (value, at, heard_at), moment);
        }
    }

    fn hear_at(
        &mut self,
        device: &str,
        metric: &str,
        (value, at, heard_at): (f64, Timestamp, Timestamp),
        moment: Moment,
    ) {
        let name = (device.to_owned(), metric.to_owned());
        if !self.probes.contains_key(&name) && self.probes.len() >= PROBES_MAX {
            return;
        }
        if !self.probes.entry(name).or_default().hear(value, at, heard_at) {
            return;
        }
        let rules: Vec<_> = self.enabled().filter(|rule| judge::is_of_metric(&rule.test, metric)).collect();
        for rule in rules {
            if let Some(judgment) = self.judge_reading(&rule, device, metric, at) {
                self.apply(&rule, judgment, moment);
            }
        }
    }

    /// Hears an event of a device.
    pub fn hear_event(&mut self, device: &str, event_type: &str, at: Timestamp, moment: Moment) {
        let rules: Vec<_> = self.enabled().collect();
        for rule in rules {
            let Test::DeviceEvent { on, off } = &rule.test else { continue };
            let place = if on.iter().any(|name| name == event_type) {
                Place::Outside
            } else if off.iter().any(|name| name == event_type) {
                Place::Inside
            } else {
                continue;
            };
            self.apply(&rule, judge::Judgment::of(device, place, at), moment);
        }
    }

    /// Another part of the program says something.
    pub fn say(&mut self, key: Key, said: Said) {
        let is_known = self.said.contains_key(&key);
        let has_room = self.said.len() < SAID_MAX;
        if is_known || (said.stands && has_room) {
            self.said.insert(key, said);
        }
    }

    /// What is wrong with sensors, as the board of latest values knows: an alarm of its own, and no part of the means.
    pub fn set_faults(&mut self, faults: &[(String, String, quality::Test)]) {
        let places: BTreeSet<_> = faults
            .iter()
            .filter_map(|(device, metric, test)| Some((rule_of_fault(*test)?, format!("{device}/{metric}"))))
            .collect();
        let known: Vec<_> = self.said.keys().filter(|key| is_of_fault(&key.rule)).cloned().collect();
        for key in known {
            let stands = places.contains(&(key.rule.as_str(), key.place.clone()));
            self.say(key, Said::that(stands));
        }
        for (rule, place) in places {
            self.say(Key { rule: rule.to_owned(), place }, Said::that(true));
        }
        let spoils = faults.iter().filter(|(_, _, test)| test.spoils_means());
        self.spoiled = spoils.map(|(device, metric, _)| (device.clone(), metric.clone())).collect();
    }

    /// What takes hours and days to see was looked at.
    pub fn set_slow(&mut self, slow: BTreeMap<SlowMeasure, f64>) {
        self.slow = slow;
    }

    /// Another scene: other rules, another mode, other devices.
    pub fn set_scene(&mut self, scene: Scene) {
        if let Some(devices) = &scene.devices {
            self.probes.retain(|(device, _), _| devices.contains(device));
        }
        self.scene = scene;
    }

    /// Looks at everything, once a second.
    pub fn look(&mut self, moment: Moment) {
        self.pass_time(moment);
        let rules: Vec<_> = self.enabled().collect();
        for rule in &rules {
            for judgment in self.judge(rule, moment.steady) {
                self.apply(rule, judgment, moment);
            }
        }
        self.end_what_has_no_rule(moment);
        let keys: Vec<_> = self.alarms.keys().cloned().collect();
        for key in keys {
            self.suppress(&key, moment);
        }
    }

    /// The rules whose alarms stand, and are no consequence of others.
    #[must_use]
    pub fn causes(&self) -> BTreeSet<String> {
        let active = self.alarms.iter().filter(|(_, kept)| is_cause(&kept.alarm));
        active.map(|(key, _)| key.rule.clone()).collect()
    }

    /// What is to be written, in its order.
    pub fn take_changes(&mut self) -> Vec<Change> {
        std::mem::take(&mut self.changes)
    }

    /// Every alarm.
    pub fn alarms(&self) -> impl Iterator<Item = (&Key, &Kept)> {
        self.alarms.iter()
    }

    /// One of them.
    #[must_use]
    pub fn alarm(&self, key: &Key) -> Option<&Kept> {
        self.alarms.get(key)
    }

    /// The alarm of an id.
    #[must_use]
    pub fn key_of(&self, id: uuid::Uuid) -> Option<Key> {
        self.alarms.iter().find(|(_, kept)| kept.row.id == id).map(|(key, _)| key.clone())
    }

    /// Event types of devices that rules listen to.
    #[must_use]
    pub fn event_types(scene: &Scene) -> Vec<String> {
        let of_rule = |rule: &Arc<Rule>| match &rule.test {
            Test::DeviceEvent { on, off } => [on.clone(), off.clone()].concat(),
            Test::HouseTemperature { .. }
            | Test::Level { .. }
            | Test::Jump { .. }
            | Test::NoFlow { .. }
            | Test::Slow { .. }
            | Test::Silent {}
            | Test::LastSilent { .. }
            | Test::Said {} => Vec::new(),
        };
        scene.rules.values().flat_map(of_rule).collect()
    }

    fn enabled(&self) -> impl Iterator<Item = Arc<Rule>> + use<'_> {
        self.scene.rules.values().filter(|rule| rule.is_enabled).cloned()
    }

    /// The healthy probes of a metric: device and probe.
    fn healthy<'a>(&'a self, metric: &'a str, now: Timestamp) -> impl Iterator<Item = (&'a str, &'a Probe)> {
        let of_metric = self.probes.iter().filter(move |((_, name), _)| name == metric);
        let healthy = of_metric.filter(move |(name, probe)| {
            let is_measurable = probe.value().is_some_and(|value| is_measurable(metric, value));
            probe.silence(now).is_none() && is_measurable && !self.spoiled.contains(*name)
        });
        healthy.map(|((device, _), probe)| (device.as_str(), probe))
    }

    /// Whether the light is on, as far as anything says so; without a sensor by the hour.
    fn is_light(&self, now: Timestamp) -> bool {
        const DAY_HOURS: std::ops::Range<u32> = 6..20;
        let lux = self.healthy(LIGHT, now).filter_map(|(_, probe)| probe.value());
        match lux.reduce(f64::max) {
            Some(lux) => lux >= crate::flock::climate::DARK_LUX,
            None => DAY_HOURS.contains(&self.scene.hour),
        }
    }

    /// The mean temperature inside, °C.
    fn inside_c(&self, now: Timestamp) -> Option<f64> {
        let values: Vec<f64> =
            self.healthy(TEMPERATURE, now).filter_map(|(_, probe)| probe.value()).collect();
        crate::flock::climate::house_mean(&values)
    }
}

/// Whether a sensor can have measured such a value.
fn is_measurable(metric: &str, value: f64) -> bool {
    limits_of(metric).and_then(|limits| limits.range(value, false)) != Some(Level::Fail)
}

fn is_cause(alarm: &Alarm) -> bool {
    alarm.is_active && !alarm.is_suppressed && !alarm.is_out_of_service
}

/// The rule that tells of a fault; silence has its own, and a wrong clock or a quick change make no alarm.
fn rule_of_fault(test: quality::Test) -> Option<&'static str> {
    match test {
        quality::Test::Stuck => Some(SENSOR_STUCK),
        quality::Test::Range | quality::Test::Spike | quality::Test::Neighbors => Some(SENSOR_IMPLAUSIBLE),
        quality::Test::Rate | quality::Test::Gap | quality::Test::Clock => None,
    }
}

fn is_of_fault(rule: &str) -> bool {
    [SENSOR_STUCK, SENSOR_IMPLAUSIBLE].contains(&rule)
}

/// Who does something, and what is written down of it besides the alarm's own row.
#[derive(Clone, Debug)]
pub struct Deed {
    /// Who.
    pub author: Author,
    /// What.
    pub action: Action,
    /// How.
    pub detail: Value,
}

#[cfg(test)]
mod tests;
