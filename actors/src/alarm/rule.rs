//! A rule: what must never pass unnoticed, how bad it is, and what to do first.
//!
//! A rule is data. The program brings a set of its own ([`super::starting`]); whoever edits one writes a new version, and
//! the old ones are kept. [`Rule::read`] refuses a rule that could not work, with everything that is wrong with it.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::state::{Side, Timing};
use super::way::{Class, Words};

/// Seconds that a condition may have to stand, a day.
const SECONDS_MAX: u32 = 86_400;
/// Minutes over which values are looked at in memory.
pub const WINDOW_MINUTES_MAX: u32 = 60;
/// Points of a set-point curve.
const CURVE_POINTS_MAX: usize = 100;
/// Bytes of a text of a rule.
const TEXT_BYTES_MAX: usize = 500;
/// Bytes of the name of a rule.
const ID_BYTES_MAX: usize = 64;
/// Names in one list of a rule.
const NAMES_MAX: usize = 20;

/// What a house is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// No birds.
    Empty,
    /// It is being heated before the birds come.
    PreHeat,
    /// Birds grow.
    Growing,
    /// Birds are being caught; doors are open.
    Catching,
}

impl Mode {
    /// Every mode.
    pub const ALL: [Self; 4] = [Self::Empty, Self::PreHeat, Self::Growing, Self::Catching];

    /// The text in the database.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Empty => "empty",
            Self::PreHeat => "pre_heat",
            Self::Growing => "growing",
            Self::Catching => "catching",
        }
    }

    /// Reads it.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|mode| mode.as_str() == text)
    }
}

/// A set point on a day of a flock.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CurvePoint {
    /// Age of the birds, days.
    pub day: u32,
    /// Air temperature, °C.
    pub celsius: f64,
}

/// What is measured over hours and days, by the rows of the database.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SlowMeasure {
    /// Mean relative humidity of 48 hours, percent, while it is below 10 °C outside.
    HumidityMean,
    /// Water of the last three hours, percent of the same hours of the three days before.
    WaterShare,
    /// Hours of darkness in the 24 hours up to noon, from day 7 of a flock on.
    DarkHours,
    /// Dead and culled birds of a day, percent of those present.
    DeathsOfDay,
    /// Dead and culled birds since the placement, percent beyond 1 + 0.06 a day.
    DeathsBeyondGuide,
    /// Days running on which the whole interval of the mean weight lies below 95 % of the standard.
    DaysBelowStandard,
    /// Days since the last drill that somebody acknowledged.
    DaysSinceDrill,
}

impl SlowMeasure {
    /// The unit of its values.
    #[must_use]
    pub fn unit(self) -> &'static str {
        match self {
            Self::HumidityMean | Self::WaterShare | Self::DeathsOfDay | Self::DeathsBeyondGuide => "%",
            Self::DarkHours => "h",
            Self::DaysBelowStandard | Self::DaysSinceDrill => "d",
        }
    }
}

/// When a rule's condition is true.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum Test {
    /// The mean of the healthy inside probes is too far from the set point of the day, or beyond an absolute limit.
    HouseTemperature {
        /// Too hot or too cold.
        side: Side,
        /// By how much it may differ from the set point; above, from the temperature outside where that is higher.
        margin_c: f64,
        /// The same for chicks of seven days at most.
        chick_margin_c: Option<f64>,
        /// A limit that holds whatever the set point is.
        absolute_c: Option<f64>,
        /// By how much it must be back inside.
        hysteresis_c: f64,
        /// The farmer's own set points. Empty: those of the standard's weight of the day and the humidity.
        curve: Vec<CurvePoint>,
    },
    /// A device's value, or the mean of its last minutes, is beyond a limit.
    Level {
        /// The metric.
        metric: String,
        /// The bad side.
        side: Side,
        /// The limit.
        limit: f64,
        /// By how much it must be back inside.
        hysteresis: f64,
        /// Over how many minutes; 0 for each reading by itself.
        mean_minutes: u32,
    },
    /// A device's values differ by more than this within some minutes.
    Jump {
        /// The metric.
        metric: String,
        /// By more than this.
        by: f64,
        /// Minutes.
        within_minutes: u32,
    },
    /// A device measures nothing that flows, while the light is on.
    NoFlow {
        /// The metric.
        metric: String,
        /// For so many minutes.
        minutes: u32,
        /// Whether its value is a meter that only grows, instead of what has flowed since the reading before.
        is_counter: bool,
    },
    /// Something that takes hours and days to see is beyond a limit.
    Slow {
        /// What.
        measure: SlowMeasure,
        /// The bad side.
        side: Side,
        /// The limit.
        limit: f64,
        /// By how much it must be back inside.
        hysteresis: f64,
    },
    /// A device, or one of its metrics, was not heard for three times its usual interval and three minutes at least.
    Silent {},
    /// No healthy probe of a metric speaks any more.
    LastSilent {
        /// The metrics.
        metrics: Vec<String>,
    },
    /// A device says so by an event.
    DeviceEvent {
        /// Event types that say that it is so.
        on: Vec<String>,
        /// Event types that say that it is over.
        off: Vec<String>,
    },
    /// Another part of the program says so.
    Said {},
}

impl Test {
    /// Its kind, as it is written.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::HouseTemperature { .. } => "house_temperature",
            Self::Level { .. } => "level",
            Self::Jump { .. } => "jump",
            Self::NoFlow { .. } => "no_flow",
            Self::Slow { .. } => "slow",
            Self::Silent {} => "silent",
            Self::LastSilent { .. } => "last_silent",
            Self::DeviceEvent { .. } => "device_event",
            Self::Said {} => "said",
        }
    }

    /// The unit of its values, where it is known.
    #[must_use]
    pub fn unit(&self) -> Option<&'static str> {
        match self {
            Self::HouseTemperature { .. } => Some("°C"),
            Self::Level { metric, .. } | Self::Jump { metric, .. } => unit_of(metric),
            Self::NoFlow { .. } => Some("min"),
            Self::Slow { measure, .. } => Some(measure.unit()),
            Self::Silent {} => Some("s"),
            Self::LastSilent { .. } | Self::DeviceEvent { .. } | Self::Said {} => None,
        }
    }
}

/// The unit that devices give a metric in.
#[must_use]
pub fn unit_of(metric: &str) -> Option<&'static str> {
    match metric {
        TEMPERATURE | OUTSIDE_TEMPERATURE => Some("°C"),
        HUMIDITY => Some("%"),
        AMMONIA | CARBON_DIOXIDE => Some("ppm"),
        LIGHT => Some("lux"),
        WATER => Some("L"),
        _ => None,
    }
}

/// Air temperature, °C.
pub const TEMPERATURE: &str = "temperature";
/// Air temperature outside of the house, °C.
pub const OUTSIDE_TEMPERATURE: &str = "outside_temperature";
/// Relative humidity, percent.
pub const HUMIDITY: &str = "humidity";
/// Ammonia, ppm.
pub const AMMONIA: &str = "ammonia";
/// Carbon dioxide, ppm.
pub const CARBON_DIOXIDE: &str = "co2";
/// Light, lux.
pub const LIGHT: &str = "light_intensity";
/// Water, liters.
pub const WATER: &str = "water_consumption";

/// A rule.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rule {
    /// Its name.
    pub id: String,
    /// How bad it is.
    pub class: Class,
    /// Whether it is looked at.
    pub is_enabled: bool,
    /// When its condition is true.
    pub test: Test,
    /// For how long the condition must be true.
    pub on_seconds: u32,
    /// For how long it must be false again.
    pub off_seconds: u32,
    /// Whether it stays until a person has seen that it is over.
    pub is_latching: bool,
    /// In which modes of the house it is heard.
    pub modes: Vec<Mode>,
    /// Rules whose active alarm is the known cause of this one, which then is listed and not sounded.
    pub hushed_by: Vec<String>,
    /// What is wrong, in a few words.
    pub title: Words,
    /// What it means for the birds, and what it usually comes from.
    pub cause: Words,
    /// What to do first.
    pub first_action: Words,
}

/// Why a rule is refused: everything that is wrong with it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct BadRule(pub String);

impl Rule {
    /// How long its condition must stand.
    #[must_use]
    pub fn timing(&self) -> Timing {
        Timing { on_seconds: self.on_seconds, off_seconds: self.off_seconds, is_latching: self.is_latching }
    }

    /// Reads an edited rule. `before` is the rule that it is a new version of, `known` are the names of all rules.
    ///
    /// # Errors
    /// Everything that is wrong with it.
    pub fn read(value: &Value, before: Option<&Self>, known: &BTreeSet<String>) -> Result<Self, BadRule> {
        let rule: Self = serde_json::from_value(value.clone()).map_err(|error| BadRule(error.to_string()))?;
        let mut problems = Problems::default();
        rule.check(&mut problems, known);
        if let Some(before) = before.filter(|before| before.test.kind() != rule.test.kind()) {
            let kind = before.test.kind();
            problems.push("test.kind", format!("{} stays {kind}; write a rule of another name", rule.id));
        }
        problems.finish().map(|()| rule)
    }

    fn check(&self, problems: &mut Problems, known: &BTreeSet<String>) {
        let is_name = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
        if self.id.is_empty() || self.id.len() > ID_BYTES_MAX || !self.id.chars().all(is_name) {
            problems.push("id", format!("must have 1 to {ID_BYTES_MAX} of a-z, 0-9 and _"));
        }
        for (name, seconds) in [("on_seconds", self.on_seconds), ("off_seconds", self.off_seconds)] {
            if seconds > SECONDS_MAX {
                problems.push(name, format!("must be {SECONDS_MAX} at most"));
            }
        }
        if self.modes.is_empty() {
            problems.push("modes", "name at least one, or set is_enabled to false");
        }
        for name in &self.hushed_by {
            if *name == self.id {
                problems.push("hushed_by", "a rule is not its own cause");
            } else if !known.contains(name) {
                problems.push("hushed_by", format!("there is no rule {name}"));
            }
        }
        if self.hushed_by.len() > NAMES_MAX {
            problems.push("hushed_by", format!("{NAMES_MAX} at most"));
        }
        let texts = [("title", &self.title), ("cause", &self.cause), ("first_action", &self.first_action)];
        for (name, words) in texts {
            if words.en.trim().is_empty() {
                problems.push(name, "the English words are missing");
            }
            if words.en.len().max(words.th.len()) > TEXT_BYTES_MAX {
                problems.push(name, format!("must have {TEXT_BYTES_MAX} bytes at most"));
            }
        }
        self.test.check(problems);
    }
}

impl Test {
    fn check(&self, problems: &mut Problems) {
        match self {
            Self::HouseTemperature { side, margin_c, chick_margin_c, absolute_c, hysteresis_c, curve } => {
                problems.number("test.margin_c", *margin_c, 0.5, 20.0);
                if let Some(margin_c) = chick_margin_c {
                    problems.number("test.chick_margin_c", *margin_c, 0.5, 20.0);
                }
                problems.number("test.hysteresis_c", *hysteresis_c, 0.0, 5.0);
                match (side, absolute_c) {
                    (Side::Above, None) => {
                        problems
                            .push("test.absolute_c", "a house is never too hot without an absolute limit");
                    }
                    (Side::Above, Some(limit)) => problems.number("test.absolute_c", *limit, 25.0, 45.0),
                    (Side::Below, Some(limit)) => problems.number("test.absolute_c", *limit, -20.0, 30.0),
                    (Side::Below, None) => {}
                }
                check_curve(curve, problems);
            }
            Self::Level { metric, limit, hysteresis, mean_minutes, side: _ } => {
                problems.name("test.metric", metric);
                problems.number("test.limit", *limit, -1e9, 1e9);
                problems.number("test.hysteresis", *hysteresis, 0.0, 1e9);
                problems.minutes("test.mean_minutes", *mean_minutes, 0);
            }
            Self::Jump { metric, by, within_minutes } => {
                problems.name("test.metric", metric);
                problems.number("test.by", *by, 1e-9, 1e9);
                problems.minutes("test.within_minutes", *within_minutes, 1);
            }
            Self::NoFlow { metric, minutes, is_counter: _ } => {
                problems.name("test.metric", metric);
                problems.minutes("test.minutes", *minutes, 1);
            }
            Self::Slow { limit, hysteresis, measure: _, side: _ } => {
                problems.number("test.limit", *limit, -1e6, 1e6);
                problems.number("test.hysteresis", *hysteresis, 0.0, 1e6);
            }
            Self::LastSilent { metrics } => problems.names("test.metrics", metrics),
            Self::DeviceEvent { on, off } => {
                problems.names("test.on", on);
                problems.names("test.off", off);
                if on.iter().any(|name| off.contains(name)) {
                    problems.push("test", "an event cannot say both that it is so and that it is over");
                }
            }
            Self::Silent {} | Self::Said {} => {}
        }
    }
}

fn check_curve(curve: &[CurvePoint], problems: &mut Problems) {
    if curve.len() > CURVE_POINTS_MAX {
        problems.push("test.curve", format!("must have {CURVE_POINTS_MAX} points at most"));
    }
    for point in curve {
        problems.number("test.curve.celsius", point.celsius, 0.0, 45.0);
    }
    if !curve.windows(2).all(|pair| pair[0].day < pair[1].day) {
        problems.push("test.curve", "days must grow from point to point");
    }
}

/// The set point of a curve at an age: linear between its points, level outside of them.
#[must_use]
pub fn on_curve(curve: &[CurvePoint], age_days: f64) -> Option<f64> {
    let (first, last) = (curve.first()?, curve.last()?);
    if age_days <= f64::from(first.day) {
        return Some(first.celsius);
    }
    for pair in curve.windows(2) {
        let (from, to) = (f64::from(pair[0].day), f64::from(pair[1].day));
        if age_days <= to {
            let share = (age_days - from) / (to - from);
            return Some(pair[0].celsius + share * (pair[1].celsius - pair[0].celsius));
        }
    }
    Some(last.celsius)
}

#[derive(Default)]
struct Problems(Vec<String>);

impl Problems {
    fn push(&mut self, name: &str, problem: impl AsRef<str>) {
        self.0.push(format!("{name}: {}", problem.as_ref()));
    }

    fn number(&mut self, name: &str, value: f64, min: f64, max: f64) {
        if !(min..=max).contains(&value) {
            self.push(name, format!("must be a number from {min} to {max}"));
        }
    }

    fn minutes(&mut self, name: &str, minutes: u32, min: u32) {
        if !(min..=WINDOW_MINUTES_MAX).contains(&minutes) {
            self.push(name, format!("must be {min} to {WINDOW_MINUTES_MAX}"));
        }
    }

    fn name(&mut self, name: &str, text: &str) {
        if !schema::id::is_id(text) {
            self.push(name, "must have 1 to 128 bytes and neither control characters nor any of / + #");
        }
    }

    fn names(&mut self, name: &str, texts: &[String]) {
        if texts.is_empty() || texts.len() > NAMES_MAX {
            self.push(name, format!("must have 1 to {NAMES_MAX} names"));
        }
        texts.iter().for_each(|text| self.name(name, text));
    }

    fn finish(self) -> Result<(), BadRule> {
        if self.0.is_empty() { Ok(()) } else { Err(BadRule(self.0.join("; "))) }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::starting;
    use super::*;

    fn known() -> BTreeSet<String> {
        starting::rules().iter().map(|rule| rule.id.clone()).collect()
    }

    fn rule(id: &str) -> Rule {
        starting::rules().into_iter().find(|rule| rule.id == id).unwrap()
    }

    #[test]
    fn every_rule_of_the_program_would_be_taken_from_anybody() {
        for rule in starting::rules() {
            let value = serde_json::to_value(&rule).unwrap();
            assert_eq!(Rule::read(&value, Some(&rule), &known()), Ok(rule));
        }
    }

    #[test]
    fn a_bad_rule_is_refused_with_everything_that_is_wrong() {
        let check = |id: &str, pointer: &str, value: Value, problem: &str| {
            let before = rule(id);
            let mut body = serde_json::to_value(&before).unwrap();
            *body.pointer_mut(pointer).unwrap() = value;
            let refused = Rule::read(&body, Some(&before), &known()).expect_err(problem);
            assert!(refused.0.contains(problem), "{pointer}: {refused}");
        };
        check("house_hot", "/id", json!("House hot"), "id: must have");
        check("house_hot", "/class", json!("deadly"), "unknown variant");
        check("house_hot", "/on_seconds", json!(90_000), "on_seconds: must be 86400 at most");
        check("house_hot", "/on_seconds", json!(-1), "invalid value");
        check("house_hot", "/modes", json!([]), "modes: name at least one");
        check("house_hot", "/modes", json!(["sleeping"]), "unknown variant");
        check("house_hot", "/hushed_by", json!(["house_hot"]), "not its own cause");
        check("house_hot", "/hushed_by", json!(["ghost"]), "there is no rule ghost");
        check("house_hot", "/title/en", json!(" "), "title: the English words are missing");
        check("house_hot", "/cause/th", json!("ก".repeat(200)), "cause: must have 500 bytes at most");
        check("house_hot", "/test/margin_c", json!(0.0), "test.margin_c: must be a number from 0.5 to 20");
        check("house_hot", "/test/absolute_c", json!(null), "never too hot without an absolute limit");
        check("house_hot", "/test/absolute_c", json!(60), "test.absolute_c: must be a number from 25 to 45");
        check("house_hot", "/test/hysteresis_c", json!("much"), "invalid type");
        check("house_hot", "/test/kind", json!("said"), "unknown field");
        let points = json!([{"day": 7, "celsius": 30}, {"day": 7, "celsius": 29}]);
        check("house_hot", "/test/curve", points, "days must grow");
        check("ammonia", "/test/metric", json!("a/b"), "test.metric: must have 1 to 128 bytes");
        check("ammonia", "/test/mean_minutes", json!(61), "test.mean_minutes: must be 0 to 60");
        check("temperature_jump", "/test/by", json!(0), "test.by: must be a number");
        check("mains_lost", "/test/off", json!(["power.mains.lost"]), "cannot say both");
        check("mains_lost", "/test/on", json!([]), "test.on: must have 1 to 20 names");
        check("growth", "/test/limit", json!(1e300), "test.limit: must be a number");
        let mut body = serde_json::to_value(rule("drill")).unwrap();
        body["surprise"] = json!(1);
        assert!(Rule::read(&body, None, &known()).unwrap_err().0.contains("unknown field"));
        let other = Rule { test: Test::Said {}, ..rule("house_hot") };
        let other = serde_json::to_value(other).unwrap();
        let refused = Rule::read(&other, Some(&rule("house_hot")), &known()).unwrap_err();
        assert!(refused.0.contains("house_hot stays house_temperature"), "{refused}");
    }

    #[test]
    fn a_curve_is_linear_between_its_points_and_level_outside() {
        let curve = [CurvePoint { day: 1, celsius: 33.0 }, CurvePoint { day: 11, celsius: 28.0 }];
        for (age, celsius) in [(0.0, 33.0), (1.0, 33.0), (6.0, 30.5), (11.0, 28.0), (40.0, 28.0)] {
            assert_eq!(on_curve(&curve, age), Some(celsius), "day {age}");
        }
        assert_eq!(on_curve(&[], 3.0), None);
    }
}
