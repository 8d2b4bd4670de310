//! The air of a made barn: hours of its past as some probes tell it, with a heat wave and with what is wrong with each probe,
//! played into an engine over HTTP in the order of time, and compared with the flags and the alarms of the engine.
//!
//! All probes are played side by side, a few minutes at once, so that they can be held against each other.

use std::collections::{BTreeMap, BTreeSet};
use std::f64::consts::TAU;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use chrono::{Duration as Span, SubsecRound};
use rand::SeedableRng;
use rand::rngs::StdRng;
use schema::clock::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use super::Book;
use super::judge::Judgment;
use crate::device::Place;
use crate::ids::new_event_id;
use crate::render;

/// Hours that may be played: less than a day, so that no reading is too old to be believed.
pub const HOURS: std::ops::RangeInclusive<i64> = 7..=20;
/// Minutes of one call.
const MINUTES_PER_CALL: i64 = 5;
/// The heat wave: minutes before the end at which it begins, by how much it grows in a minute, and how far, °C.
const WAVE: (i64, f64, f64) = (150, 0.2, 11.0);
/// Noise of a probe: standard deviation of °C and of percent.
const NOISE: (f64, f64) = (0.08, 0.5);
/// A probe that always says so much too much, °C: nobody can see that.
const BIAS_C: f64 = 1.5;
/// Minutes of the past at which a probe falls silent, and for how long.
const GAP: (i64, i64) = (90, 25);
/// The minute of the past of a reading that is so far off, °C.
const SPIKE: (i64, f64) = (120, 8.0);
/// Minutes before the end from which on a probe says the same.
const STUCK: i64 = 120;
/// Minutes before the end from which on a probe drifts, and °C a minute.
const DRIFT: (i64, f64) = (360, 0.02);
/// How far apart it must be to be seen, °C.
const APART_C: f64 = 4.0;
/// Minutes before the end from which on the clock of a device is wrong, and how far it is ahead, minutes.
const CLOCK: (i64, i64) = (60, 120);
/// Time between two looks at an engine that still works.
const LOOK_AGAIN: Duration = Duration::from_secs(2);
/// Rules that are judged: what must not be raised of a probe that is sound.
const OF_SENSORS: [&str; 2] = ["sensor_stuck", "sensor_implausible"];

/// What is wrong with a probe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    Bias,
    Gap,
    Spike,
    Stuck,
    Drift,
    Clock,
}

/// Each probe has one.
const FAULTS: [Fault; 6] = [Fault::Bias, Fault::Gap, Fault::Spike, Fault::Stuck, Fault::Drift, Fault::Clock];

/// The ids of the probes: `air-01`, `air-02`, ...
pub fn probe_ids() -> impl Iterator<Item = String> {
    (1..=FAULTS.len()).map(|number| format!("air-{number:02}"))
}

/// What is true of the air that was played.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TrueAir {
    /// Farm of the probes.
    pub farm_id: String,
    /// Barn of the probes.
    pub barn_id: String,
    /// The first reading.
    pub from: Timestamp,
    /// The last.
    pub until: Timestamp,
    /// When the heat wave begins, which lasts to the end.
    pub heat_wave_from: Timestamp,
    /// The probes.
    pub probes: Vec<TrueProbe>,
    /// What must have been raised.
    pub alarms: Vec<TrueAlarm>,
}

/// What is true of a probe.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TrueProbe {
    /// Its device.
    pub device_id: String,
    /// What is wrong with it, in a word.
    pub fault: String,
    /// What must be flagged.
    pub flags: Vec<TrueFlag>,
    /// Tests that may find something, too, and may not.
    pub may: Vec<String>,
}

/// A stretch of time in which something must be flagged.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TrueFlag {
    /// The metric.
    pub metric_type: String,
    /// By which test.
    pub test: String,
    /// Not before,
    pub from: Timestamp,
    /// and not after.
    pub until: Timestamp,
}

/// An alarm that must have been raised.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct TrueAlarm {
    /// Its rule.
    pub rule_id: String,
    /// Where.
    pub place: String,
}

/// The air of a barn over some hours.
#[derive(Debug)]
struct Air {
    seed: u64,
    from: Timestamp,
    minutes: i64,
}

impl Air {
    fn at(&self, minute: i64) -> Timestamp {
        self.from + Span::minutes(minute)
    }

    /// How long before the end a minute is.
    fn left(&self, minute: i64) -> i64 {
        self.minutes - minute
    }

    /// What is true of the air, °C.
    fn true_c(&self, minute: i64) -> f64 {
        let (before_end, per_minute, most) = WAVE;
        let hour = self.at(minute).timestamp().rem_euclid(86_400) as f64 / 3600.0;
        let wave = (per_minute * (before_end - self.left(minute)).max(0) as f64).min(most);
        27.0 + ((hour - 9.0) / 24.0 * TAU).sin() + wave
    }

    /// The readings of a probe: its minute, the time it says, and what it says; °C and percent.
    fn readings(&self, probe: usize) -> Vec<(i64, Timestamp, f64, f64)> {
        let fault = FAULTS[probe];
        let mut random = StdRng::seed_from_u64(self.seed.wrapping_mul(31).wrapping_add(probe as u64));
        let mut noise = |deviation: f64| f64::from(render::normal(&mut random)) * deviation;
        let mut kept = None;
        let mut readings = Vec::new();
        // Devices do not speak in step.
        let step = Span::seconds(5 * probe as i64);
        for minute in 0..self.minutes {
            let (mut celsius, percent) = (self.true_c(minute) + noise(NOISE.0), 60.0 + noise(NOISE.1));
            let left = self.left(minute);
            let mut at = self.at(minute) + step;
            match fault {
                Fault::Bias => celsius += BIAS_C,
                Fault::Gap if (GAP.0..GAP.0 + GAP.1).contains(&minute) => continue,
                Fault::Spike if minute == SPIKE.0 => celsius += SPIKE.1,
                Fault::Stuck if left <= STUCK => celsius = *kept.get_or_insert(celsius),
                Fault::Drift => celsius += DRIFT.1 * (DRIFT.0 - left).max(0) as f64,
                Fault::Clock if left <= CLOCK.0 => at += Span::minutes(CLOCK.1),
                Fault::Gap | Fault::Spike | Fault::Stuck | Fault::Clock => {}
            }
            let rounded = |value: f64| (value * 100.0).round() / 100.0;
            readings.push((minute, at, rounded(celsius), rounded(percent)));
        }
        readings
    }

    fn truth(&self, place: &Place) -> TrueAir {
        let before_end = |minutes: i64| self.at(self.minutes - minutes);
        let end = self.at(self.minutes);
        let near = |from: i64, until: i64| (self.at(from - 3), self.at(until + 3));
        let both = ["temperature", "humidity"];
        let probe = |(device_id, fault): (String, Fault)| {
            let (name, metrics, test, (from, until), may): (_, &[&str], _, _, &[&str]) = match fault {
                Fault::Bias => ("bias", &[], "", (end, end), &[]),
                Fault::Gap => ("gap", &both, "gap", near(GAP.0, GAP.0 + GAP.1), &[]),
                // What lies beside a spike differs from the middle of its neighbors, too.
                Fault::Spike => ("spike", &both[..1], "spike", near(SPIKE.0, SPIKE.0), &["rate"]),
                // It says the same while the air grows hot.
                Fault::Stuck => ("stuck", &both[..1], "stuck", (before_end(STUCK + 1), end), &["neighbors"]),
                Fault::Drift => {
                    let seen_after = (APART_C / DRIFT.1) as i64;
                    let from = before_end(DRIFT.0 - seen_after + 45);
                    ("drift", &both[..1], "neighbors", (from, end), &[])
                }
                // What is far ahead counts for when it came in, and nothing came from before that.
                Fault::Clock => {
                    let span = (before_end(CLOCK.0), end + Span::minutes(2 * CLOCK.1));
                    ("clock", &both, "clock", span, &["gap", "rate", "neighbors"])
                }
            };
            let flag = |metric: &&str| TrueFlag {
                metric_type: (*metric).to_owned(),
                test: test.to_owned(),
                from,
                until,
            };
            TrueProbe {
                device_id,
                fault: name.to_owned(),
                flags: metrics.iter().map(flag).collect(),
                may: may.iter().map(|test| (*test).to_owned()).collect(),
            }
        };
        let probes: Vec<TrueProbe> = probe_ids().zip(FAULTS).map(probe).collect();
        let of = |fault: &str| {
            let probe = probes.iter().find(|probe| probe.fault == fault);
            probe.map_or_else(String::new, |probe| format!("{}/temperature", probe.device_id))
        };
        let alarm = |rule_id: &str, place: String| TrueAlarm { rule_id: rule_id.to_owned(), place };
        TrueAir {
            farm_id: place.farm.clone(),
            barn_id: place.barn.clone(),
            from: self.from,
            until: end,
            heat_wave_from: before_end(WAVE.0),
            alarms: vec![
                alarm("house_hot", String::new()),
                alarm("sensor_stuck", of("stuck")),
                alarm("sensor_implausible", of("drift")),
            ],
            probes,
        }
    }
}

/// Plays the last hours of a barn's air, up to now, and says what is true of it.
///
/// # Errors
/// When the engine does not take a reading.
pub async fn play(book: &Book, place: &Place, seed: u64, hours: u16, now: Timestamp) -> Result<TrueAir> {
    let minutes = i64::from(hours) * 60;
    let air = Air { seed, from: now.trunc_subsecs(0) - Span::minutes(minutes), minutes };
    let probes: Vec<_> = probe_ids().enumerate().map(|(number, id)| (id, air.readings(number))).collect();
    let mut ids = StdRng::from_os_rng();
    for first in (0..minutes).step_by(usize::try_from(MINUTES_PER_CALL).unwrap_or(1)) {
        let mut events: Vec<(Timestamp, Value)> = Vec::new();
        for (device_id, readings) in &probes {
            let due =
                readings.iter().filter(|(minute, ..)| (first..first + MINUTES_PER_CALL).contains(minute));
            for (minute, at, celsius, percent) in due {
                for (metric, value, unit) in [("temperature", celsius, "celsius"), ("humidity", percent, "%")]
                {
                    let event = json!({"event_id": new_event_id(&mut ids), "tenant_id": place.tenant,
                        "farm_id": place.farm, "barn_id": place.barn, "device_id": device_id,
                        "event_type": "telemetry.reading", "ts": at,
                        "payload": {"metric": metric, "value": value, "unit": unit}});
                    events.push((air.at(*minute), event));
                }
            }
        }
        events.sort_by_key(|(at, _)| *at);
        let events: Vec<Value> = events.into_iter().map(|(_, event)| event).collect();
        let answer = book.post("/api/v1/telemetry/readings", &json!({"events": events})).await?;
        if let Some(first) = answer["rejected"].as_array().and_then(|rejected| rejected.first()) {
            bail!("the engine refuses a reading of the air: {first}");
        }
    }
    Ok(air.truth(place))
}

/// Something that the engine flagged.
#[derive(Clone, Debug, Deserialize)]
struct Flagged {
    test: String,
    from: Timestamp,
    until: Timestamp,
}

/// What the engine says of the air.
#[derive(Clone, Debug, Default)]
struct Said {
    /// By device and metric.
    flags: BTreeMap<(String, String), Vec<Flagged>>,
    /// What was raised.
    alarms: BTreeSet<TrueAlarm>,
}

/// Asks the engine for flags and alarms until all that must be are there, or the wait is over, and compares.
///
/// # Errors
/// When the engine does not answer.
pub async fn judge(book: &Book, truth: &TrueAir, wait: Duration) -> Result<Judgment> {
    let until = Instant::now() + wait;
    loop {
        let judgment = compare(truth, &ask(book, truth).await?);
        if judgment.wrong.is_empty() || Instant::now() >= until {
            return Ok(judgment);
        }
        sleep(LOOK_AGAIN).await;
    }
}

async fn ask(book: &Book, truth: &TrueAir) -> Result<Said> {
    let mut said = Said::default();
    let time = schema::wire::time::format;
    let (from, to) = (truth.from - Span::hours(1), truth.until + Span::hours(4));
    for probe in &truth.probes {
        let path = format!(
            "/api/v1/telemetry/aggregates?tenant_id={}&device_id={}&bucket=1h&start_time={}&end_time={}",
            book.tenant,
            probe.device_id,
            time(from),
            time(to)
        );
        let answer = book.get(&path).await?;
        for series in answer["series"].as_array().into_iter().flatten() {
            let metric = series["metric_type"].as_str().unwrap_or_default().to_owned();
            let faults = serde_json::from_value(series["faults"].clone()).context("read the faults")?;
            said.flags.insert((probe.device_id.clone(), metric), faults);
        }
    }
    let path =
        format!("/api/v1/alarms/history?tenant_id={}&barn_id={}&limit=1000", book.tenant, truth.barn_id);
    let answer = book.get(&path).await?;
    let raised = answer["events"].as_array().into_iter().flatten().filter(|event| event["kind"] == "raised");
    let text = |event: &Value, name: &str| event[name].as_str().unwrap_or_default().to_owned();
    said.alarms = raised
        .map(|event| TrueAlarm { rule_id: text(event, "rule_id"), place: text(event, "place") })
        .collect();
    Ok(said)
}

fn compare(truth: &TrueAir, said: &Said) -> Judgment {
    let mut judgment = Judgment::default();
    let mut found = 0;
    for probe in &truth.probes {
        for flag in &probe.flags {
            let key = (probe.device_id.clone(), flag.metric_type.clone());
            let flagged = said.flags.get(&key).into_iter().flatten();
            let is_found = flagged
                .filter(|flagged| flagged.test == flag.test)
                .any(|flagged| flagged.from <= flag.until && flagged.until >= flag.from);
            if is_found {
                found += 1;
            } else {
                let TrueFlag { metric_type, test, from, until } = flag;
                judgment
                    .wrong
                    .push(format!("{} {metric_type}: no {test} between {from} and {until}", probe.device_id));
            }
        }
        let is_right = |test: &str| {
            probe.flags.iter().any(|flag| flag.test == test) || probe.may.iter().any(|may| may == test)
        };
        for ((_, metric), flagged) in said.flags.iter().filter(|((device, _), _)| *device == probe.device_id)
        {
            for Flagged { test, from, until } in flagged.iter().filter(|flagged| !is_right(&flagged.test)) {
                judgment.wrong.push(format!(
                    "{} {metric}: {test} from {from} until {until} is not true",
                    probe.device_id
                ));
            }
        }
    }
    judgment
        .seen
        .push(format!("sensors: {found} stretches flagged as they are, of {} probes", truth.probes.len()));
    let missing = truth.alarms.iter().filter(|alarm| !said.alarms.contains(alarm));
    for TrueAlarm { rule_id, place } in missing {
        judgment.wrong.push(format!("{rule_id} {place}: was not raised"));
    }
    let false_ones = said
        .alarms
        .iter()
        .filter(|alarm| OF_SENSORS.contains(&&*alarm.rule_id) && !is_explained(truth, alarm));
    for TrueAlarm { rule_id, place } in false_ones {
        judgment.wrong.push(format!("{rule_id} {place}: was raised, and is not true"));
    }
    let raised = truth.alarms.iter().filter(|alarm| said.alarms.contains(alarm)).count();
    judgment.seen.push(format!("alarms: {raised} of {} raised", truth.alarms.len()));
    judgment
}

/// Whether something is wrong with the probe that such an alarm may tell of.
fn is_explained(truth: &TrueAir, alarm: &TrueAlarm) -> bool {
    let told_by: &[&str] =
        if alarm.rule_id == "sensor_stuck" { &["stuck"] } else { &["range", "spike", "neighbors"] };
    let device = alarm.place.split('/').next().unwrap_or_default();
    truth.probes.iter().filter(|probe| probe.device_id == device).any(|probe| {
        let flags = probe.flags.iter().map(|flag| &*flag.test);
        flags.chain(probe.may.iter().map(|may| &**may)).any(|test| told_by.contains(&test))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn truth() -> TrueAir {
        let from = schema::wire::time::parse("2026-02-12T00:00:00Z").expect("a time");
        let place = Place { tenant: "t-001".into(), farm: "f-001".into(), barn: "b-001".into() };
        Air { seed: 1, from, minutes: 8 * 60 }.truth(&place)
    }

    /// What an engine says that flags what is true.
    fn truthful(truth: &TrueAir) -> Said {
        let mut said = Said { alarms: truth.alarms.iter().cloned().collect(), ..Said::default() };
        for probe in &truth.probes {
            for TrueFlag { metric_type, test, from, until } in &probe.flags {
                let flagged = Flagged { test: test.clone(), from: *from, until: *until };
                said.flags.entry((probe.device_id.clone(), metric_type.clone())).or_default().push(flagged);
            }
        }
        said
    }

    #[test]
    fn an_engine_that_sees_what_is_there_is_right() {
        let truth = truth();
        assert_eq!(compare(&truth, &truthful(&truth)).wrong, Vec::<String>::new());
    }

    #[test]
    fn what_is_missing_and_what_is_not_true_is_named() {
        let truth = truth();
        let check = |change: &dyn Fn(&mut Said), expected: &str| {
            let mut said = truthful(&truth);
            change(&mut said);
            let wrong = compare(&truth, &said).wrong.join("\n");
            assert!(wrong.contains(expected), "{expected}: {wrong}");
        };
        let of = |device: &str, metric: &str| (device.to_owned(), metric.to_owned());
        check(&|said| drop(said.flags.remove(&of("air-02", "humidity"))), "air-02 humidity: no gap between");
        let at = truth.from;
        let flag = |test: &str| Flagged { test: test.to_owned(), from: at, until: at };
        check(
            &|said| said.flags.entry(of("air-01", "temperature")).or_default().push(flag("neighbors")),
            "air-01 temperature: neighbors from",
        );
        check(&|said| said.alarms.retain(|alarm| alarm.rule_id != "house_hot"), "house_hot : was not raised");
        let alarm = TrueAlarm { rule_id: "sensor_stuck".to_owned(), place: "air-02/temperature".to_owned() };
        check(&|said| said.alarms.extend([alarm.clone()]), "sensor_stuck air-02/temperature: was raised");
    }

    #[test]
    fn each_probe_has_its_fault_and_the_others_have_not() {
        let from = schema::wire::time::parse("2026-02-12T00:00:00Z").expect("a time");
        let air = Air { seed: 3, from, minutes: 8 * 60 };
        let sound = |minute: i64| air.true_c(minute);
        let last = air.minutes - 1;
        let off = |probe: usize, minute: i64| {
            let readings = air.readings(probe);
            let found = readings.iter().find(|(at, ..)| *at == minute);
            found.map(|(_, _, celsius, _)| celsius - sound(minute))
        };
        assert!(off(0, 10).is_some_and(|off| (off - BIAS_C).abs() < 0.5));
        assert_eq!(off(1, GAP.0 + 1), None);
        assert!(
            off(2, SPIKE.0).is_some_and(|off| off > 7.0)
                && off(2, SPIKE.0 + 1).is_some_and(|off| off.abs() < 0.5)
        );
        assert!(off(4, last).is_some_and(|off| off > 6.5) && off(4, 10).is_some_and(|off| off.abs() < 0.5));
        let stuck = air.readings(3);
        let tail: BTreeSet<String> =
            stuck.iter().rev().take(100).map(|(_, _, celsius, _)| celsius.to_string()).collect();
        assert_eq!(tail.len(), 1);
        let ahead = air.readings(5).last().map(|(minute, at, ..)| *at - air.at(*minute));
        assert!(ahead.is_some_and(|ahead| ahead >= Span::minutes(CLOCK.1)));
        assert!(sound(last) > 36.0, "the heat wave is there at the end");
        assert!((1..air.minutes).all(|minute| sound(minute) - sound(minute - 1) < 0.3), "air changes slowly");
    }
}
