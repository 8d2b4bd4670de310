//! The air of a house on a day: its temperature, its humidity, its gases and its light, by its sound probes alone, each by the
//! weight of its place. Everything says how much of the day it covers.

pub mod keeper;

use std::collections::BTreeMap;

use chrono::Duration;
use schema::clock::Timestamp;
use schema::store::flock::AirHour;
use schema::store::house::{LeftOut, Minute};
use serde::{Deserialize, Serialize};

use super::climate::{COVERAGE_MIN, CoveredMean, DARK_LUX, Darkness, Held, heat_index};
use crate::alarm::rule::{AMMONIA, CARBON_DIOXIDE, HUMIDITY, LIGHT, TEMPERATURE};
use crate::quality::Test;

/// The metrics of a house.
pub const METRICS: [&str; 5] = [TEMPERATURE, HUMIDITY, AMMONIA, CARBON_DIOXIDE, LIGHT];
/// A value holds until the next one, but no longer than this.
const HOLDS_FOR: Duration = Duration::minutes(10);
/// Temperature and humidity are of the same time within this.
const HEAT_SLOT: Duration = Duration::minutes(5);
/// Gases are held against their limits as means of this.
const GAS_SLOT: Duration = Duration::minutes(15);
/// Ammonia at the height of the birds, ppm (Directive 2007/43/EC, annex II).
const AMMONIA_PPM_MAX: f64 = 20.0;
/// Carbon dioxide at the height of the birds, ppm (as before).
const CARBON_DIOXIDE_PPM_MAX: f64 = 3000.0;

/// A metric over a day.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Figure {
    /// Mean over the time that was covered.
    pub mean: f64,
    /// Smallest value of any sound probe.
    pub min: f64,
    /// Largest.
    pub max: f64,
    /// The share of the time that was covered.
    pub coverage: f64,
    /// Most probes that spoke in one minute.
    pub probes: i32,
}

/// Heat as a bird feels it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Heat {
    /// Mean of the temperature-humidity index.
    pub mean: f64,
    /// Its highest five minutes.
    pub max: f64,
    /// The share of the time that has both.
    pub coverage: f64,
}

/// The light of a day.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Light {
    /// Hours with light.
    pub light_hours: f64,
    /// Hours of dark.
    pub dark_hours: f64,
    /// The longest of them without light. What was not measured ends it.
    pub dark_longest_hours: f64,
    /// The share of the day that was measured.
    pub coverage: f64,
    /// Whether the dark is long enough (Directive 2007/43/EC, annex I, which asks for it from day 7 on); `None` when too little
    /// was measured.
    pub is_dark_enough: Option<bool>,
}

/// The air of a house on a day. What was not measured is `None`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct HouseDay {
    /// Hours of the day: 23 or 25 when the clocks change.
    pub hours: f64,
    /// °C.
    pub temperature_c: Option<Figure>,
    /// Percent.
    pub humidity_percent: Option<Figure>,
    /// Outside, °C.
    pub outside_temperature_c: Option<Figure>,
    /// Temperature-humidity index (Tao and Xin 2003).
    pub heat_index: Option<Heat>,
    /// ppm.
    pub ammonia_ppm: Option<Figure>,
    /// Minutes in means of 15 minutes above 20 ppm.
    pub ammonia_minutes_over: Option<f64>,
    /// ppm.
    pub carbon_dioxide_ppm: Option<Figure>,
    /// Minutes in means of 15 minutes above 3,000 ppm.
    pub carbon_dioxide_minutes_over: Option<f64>,
    /// Lux.
    pub light: Option<Light>,
}

/// Which faults keep a probe out of the means of its house.
#[must_use]
pub fn left_out() -> (Vec<&'static str>, Vec<&'static str>) {
    let (always, failures): (Vec<Test>, Vec<Test>) =
        Test::ALL.into_iter().partition(|test| test.spoils_means());
    let names = |tests: Vec<Test>| tests.into_iter().map(Test::as_str).collect();
    (names(always), names(failures.into_iter().filter(|test| *test != Test::Gap).collect()))
}

/// The same, as a statement takes it.
#[must_use]
pub fn as_left_out<'a>((always, failures): &'a (Vec<&'static str>, Vec<&'static str>)) -> LeftOut<'a> {
    LeftOut { always, failures }
}

/// What the minutes of a day come to.
#[must_use]
pub fn summarize(minutes: &[Minute], (from, to): (Timestamp, Timestamp)) -> HouseDay {
    let of = |metric: &str, is_of_house: bool| {
        let own =
            minutes.iter().filter(|minute| minute.metric_type == metric && minute.is_of_house == is_of_house);
        Course::of(own, (from, to))
    };
    let (temperature, humidity) = (of(TEMPERATURE, true), of(HUMIDITY, true));
    let (ammonia, carbon_dioxide) = (of(AMMONIA, true), of(CARBON_DIOXIDE, true));
    HouseDay {
        hours: hours(to.signed_duration_since(from)),
        temperature_c: temperature.figure(),
        humidity_percent: humidity.figure(),
        outside_temperature_c: of(TEMPERATURE, false).figure(),
        heat_index: heat(&temperature, &humidity),
        ammonia_ppm: ammonia.figure(),
        ammonia_minutes_over: ammonia.minutes_over(AMMONIA_PPM_MAX),
        carbon_dioxide_ppm: carbon_dioxide.figure(),
        carbon_dioxide_minutes_over: carbon_dioxide.minutes_over(CARBON_DIOXIDE_PPM_MAX),
        light: of(LIGHT, true).light(),
    }
}

/// The hours of a house, as a flock's day takes them.
#[must_use]
pub fn air_hours(minutes: &[Minute]) -> Vec<AirHour> {
    let mut hours: BTreeMap<i64, [(f64, f64); 2]> = BTreeMap::new();
    for minute in minutes.iter().filter(|minute| minute.is_of_house) {
        let place = match minute.metric_type.as_str() {
            TEMPERATURE => 0,
            HUMIDITY => 1,
            _ => continue,
        };
        let sums = hours.entry(minute.begins_at.timestamp().div_euclid(3600)).or_default();
        sums[place] = (sums[place].0 + minute.mean, sums[place].1 + 1.0);
    }
    let mean = |(sum, count): (f64, f64)| (count > 0.0).then(|| sum / count);
    let hour = |(hour, [temperature, humidity]): (i64, [(f64, f64); 2])| AirHour {
        begins_at: Timestamp::from_timestamp(hour * 3600, 0).unwrap_or_default(),
        temperature_c: mean(temperature),
        humidity_percent: mean(humidity),
    };
    hours.into_iter().map(hour).collect()
}

/// The mean humidity of two days that follow each other, which the directive asks for.
#[must_use]
pub fn two_days(before: &HouseDay, day: &HouseDay) -> Option<CoveredMean> {
    let held = [before, day].map(|day| {
        let figure = day.humidity_percent?;
        Some(Held { value: figure.mean, seconds: figure.coverage * day.hours * 3600.0 })
    });
    let held: Vec<Held> = held.into_iter().flatten().collect();
    CoveredMean::of(&held, (before.hours + day.hours) * 3600.0)
}

/// One metric in the order of time: each value from when it was measured until the next one, at most for a while.
struct Course {
    spans: Vec<Span>,
    from: Timestamp,
    to: Timestamp,
    min: f64,
    max: f64,
    probes: i32,
}

#[derive(Clone, Copy)]
struct Span {
    value: f64,
    from: Timestamp,
    until: Timestamp,
}

impl Course {
    fn of<'a>(minutes: impl Iterator<Item = &'a Minute>, (from, to): (Timestamp, Timestamp)) -> Self {
        let mut course = Self { spans: Vec::new(), from, to, min: f64::MAX, max: f64::MIN, probes: 0 };
        for minute in minutes {
            if let Some(last) = course.spans.last_mut() {
                last.until = last.until.min(minute.begins_at);
            }
            let until = (minute.begins_at + HOLDS_FOR).min(to);
            course.spans.push(Span { value: minute.mean, from: minute.begins_at, until });
            course.min = course.min.min(minute.min);
            course.max = course.max.max(minute.max);
            course.probes = course.probes.max(minute.probes);
        }
        course
    }

    fn held(&self) -> Vec<Held> {
        self.spans
            .iter()
            .map(|span| Held { value: span.value, seconds: seconds(span.until - span.from) })
            .collect()
    }

    fn figure(&self) -> Option<Figure> {
        let mean = CoveredMean::of(&self.held(), seconds(self.to - self.from))?;
        Some(Figure {
            mean: mean.mean,
            min: self.min,
            max: self.max,
            coverage: mean.coverage,
            probes: self.probes,
        })
    }

    /// Means of equal parts of the day, with the seconds of each that are covered.
    fn slots(&self, length: Duration) -> BTreeMap<i64, Held> {
        let mut slots: BTreeMap<i64, Held> = BTreeMap::new();
        let step = length.num_seconds().max(1);
        for span in &self.spans {
            let mut from = span.from;
            while from < span.until {
                let slot = (from - self.from).num_seconds().div_euclid(step);
                let end = (self.from + Duration::seconds((slot + 1) * step)).min(span.until);
                let held = slots.entry(slot).or_insert(Held { value: 0.0, seconds: 0.0 });
                let more = seconds(end - from);
                held.value =
                    (held.value * held.seconds + span.value * more) / (held.seconds + more).max(1e-9);
                held.seconds += more;
                from = end;
            }
        }
        slots
    }

    fn minutes_over(&self, limit: f64) -> Option<f64> {
        if self.spans.is_empty() {
            return None;
        }
        let over = self.slots(GAS_SLOT).into_values().filter(|held| held.value > limit);
        Some(over.map(|held| held.seconds / 60.0).sum())
    }

    fn light(&self) -> Option<Light> {
        let covered = CoveredMean::of(&self.held(), seconds(self.to - self.from))?;
        // What was not measured counts as lit: nobody can say that it was dark.
        let mut known = Vec::new();
        let mut at = self.from;
        for span in &self.spans {
            known.push(Held { value: f64::MAX, seconds: seconds(span.from - at) });
            known.push(Held { value: span.value, seconds: seconds(span.until - span.from) });
            at = span.until;
        }
        known.retain(|held| held.seconds > 0.0);
        let darkness = Darkness::of(&known);
        let lit = self.held().into_iter().filter(|held| held.value >= DARK_LUX);
        Some(Light {
            light_hours: lit.map(|held| held.seconds).sum::<f64>() / 3600.0,
            dark_hours: darkness.hours,
            dark_longest_hours: darkness.longest_hours,
            coverage: covered.coverage,
            is_dark_enough: (covered.coverage >= COVERAGE_MIN).then(|| darkness.is_enough()),
        })
    }
}

fn heat(temperature: &Course, humidity: &Course) -> Option<Heat> {
    let (air, wet) = (temperature.slots(HEAT_SLOT), humidity.slots(HEAT_SLOT));
    let felt: Vec<Held> = air
        .iter()
        .filter_map(|(slot, air)| {
            let wet = wet.get(slot)?;
            let value = heat_index(air.value, wet.value.clamp(0.0, 100.0));
            Some(Held { value, seconds: air.seconds.min(wet.seconds) })
        })
        .collect();
    let mean = CoveredMean::of(&felt, seconds(temperature.to - temperature.from))?;
    let max = felt.iter().map(|held| held.value).fold(f64::MIN, f64::max);
    Some(Heat { mean: mean.mean, max, coverage: mean.coverage })
}

fn seconds(time: Duration) -> f64 {
    time.num_milliseconds() as f64 / 1000.0
}

fn hours(time: Duration) -> f64 {
    seconds(time) / 3600.0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(minute: i64) -> Timestamp {
        Timestamp::from_timestamp(1_790_000_400 + 60 * minute, 0).unwrap()
    }

    fn minute(metric: &str, minute: i64, mean: f64) -> Minute {
        Minute {
            metric_type: metric.to_owned(),
            is_of_house: true,
            begins_at: at(minute),
            mean,
            min: mean - 0.5,
            max: mean + 0.5,
            probes: 3,
        }
    }

    fn is_near(value: f64, wanted: f64) {
        assert!((value - wanted).abs() < 1e-6, "{value} is not {wanted}");
    }

    const DAY: i64 = 1440;

    #[test]
    fn a_mean_is_over_time_and_says_what_it_covers() {
        // 30 of 48 hours at 72 %, 12 at 64 %, 6 without a word: the example of the directive, as two days.
        let of = |range: std::ops::Range<i64>, value: f64| range.map(move |at| minute(HUMIDITY, at, value));
        let first: Vec<_> = of(0..DAY, 72.0).collect();
        let second: Vec<_> = of(0..360, 72.0).chain(of(720..DAY, 64.0)).collect();
        let span = (at(0), at(DAY));
        let days = [summarize(&first, span), summarize(&second, span)];
        let covered = days[1].humidity_percent.unwrap().coverage;
        // The last value before the silence holds for ten minutes.
        is_near(covered, (360.0 + 9.0 + 720.0) / 1440.0);
        let both = two_days(&days[0], &days[1]).unwrap();
        assert!((both.mean - 69.71).abs() < 0.05 && (both.coverage - 0.875).abs() < 0.01, "{both:?}");
        assert!(both.is_enough());
        assert_eq!(days[0].temperature_c, None);
    }

    #[test]
    fn slow_sensors_cover_the_whole_day_and_rare_ones_do_not() {
        let every =
            |step: i64| -> Vec<_> { (0..DAY / step).map(|n| minute(TEMPERATURE, n * step, 25.0)).collect() };
        let coverage = |step| summarize(&every(step), (at(0), at(DAY))).temperature_c.unwrap().coverage;
        is_near(coverage(1), 1.0);
        is_near(coverage(10), 1.0);
        is_near(coverage(20), 0.5);
    }

    #[test]
    fn a_night_is_dark_and_a_silent_sensor_is_no_night() {
        // Dark from 21:30 to 02:30 and from 03:00 to 04:00, as minutes of a day that begins at noon.
        let is_dark = |at: i64| (570..870).contains(&at) || (900..960).contains(&at);
        let lux = |at: i64| if is_dark(at) { 0.0 } else { 20.0 };
        let day: Vec<_> = (0..DAY).map(|at| minute(LIGHT, at, lux(at))).collect();
        let light = summarize(&day, (at(0), at(DAY))).light.unwrap();
        is_near(light.dark_hours, 6.0);
        is_near(light.dark_longest_hours, 5.0);
        is_near(light.light_hours, 18.0);
        assert_eq!(light.is_dark_enough, Some(true));
        let torn: Vec<_> =
            day.iter().filter(|minute| !(at(700)..at(720)).contains(&minute.begins_at)).cloned().collect();
        let light = summarize(&torn, (at(0), at(DAY))).light.unwrap();
        assert!(light.dark_longest_hours < 3.0, "{light:?}");
        let few: Vec<_> = day.iter().take(600).cloned().collect();
        assert_eq!(summarize(&few, (at(0), at(DAY))).light.unwrap().is_dark_enough, None);
    }

    #[test]
    fn heat_is_of_times_that_have_both() {
        let mut day: Vec<_> = (0..DAY).map(|at| minute(TEMPERATURE, at, 32.0)).collect();
        day.extend((0..DAY / 2).map(|at| minute(HUMIDITY, at, 75.0)));
        let heat = summarize(&day, (at(0), at(DAY))).heat_index.unwrap();
        assert!((heat.mean - 31.44).abs() < 0.01 && (heat.max - 31.44).abs() < 0.01, "{heat:?}");
        assert!((heat.coverage - 0.5).abs() < 0.01);
    }

    #[test]
    fn gases_are_over_their_limits_as_means_of_a_quarter_of_an_hour() {
        // One minute at 100 ppm is none over it as a mean; half an hour at 25 ppm is.
        let ppm = |at: i64| match at {
            100 => 100.0,
            300..330 => 25.0,
            _ => 10.0,
        };
        let day: Vec<_> = (0..DAY).map(|at| minute(AMMONIA, at, ppm(at))).collect();
        let house = summarize(&day, (at(0), at(DAY)));
        is_near(house.ammonia_minutes_over.unwrap(), 30.0);
        assert_eq!(house.carbon_dioxide_minutes_over, None);
    }

    #[test]
    fn hours_of_a_flock_are_means_of_their_minutes() {
        let minutes: Vec<_> =
            (0..120).map(|at| minute(TEMPERATURE, at, if at < 60 { 20.0 } else { 30.0 })).collect();
        let hours = air_hours(&minutes);
        let sum: f64 = hours.iter().filter_map(|hour| hour.temperature_c).sum();
        assert!((2..=3).contains(&hours.len()) && sum > 0.0, "{hours:?}");
        assert!(hours.iter().all(|hour| hour.humidity_percent.is_none()));
    }

    #[test]
    fn what_is_left_out_is_by_the_table_of_the_tests() {
        let (always, failures) = left_out();
        assert_eq!(always, ["range", "spike", "stuck", "neighbors"]);
        assert_eq!(failures, ["rate", "clock"]);
    }
}
