//! Whether what a sensor says can be believed. Findings annotate readings: none is changed, held back or deleted.
//!
//! The tests are those of QARTOD (IOOS, manual for temperature and salinity), with limits for a barn. Each looks at the readings of
//! one metric of one device in the order of their time ([`series`]).
//!
//! | test | suspect | fail | out of the means of the house |
//! |---|---|---|---|
//! | `range` | not what a barn can be | not what the sensor can measure | yes |
//! | `spike` | far from the middle of the readings before and after it | farther | yes |
//! | `rate` | faster than air changes | – | no: a door may be open |
//! | `stuck` | the same value for long | for twice as long | yes |
//! | `neighbors` | for 15 min far from the median of three and more inside | – | yes |
//! | `clock` | stamped more than 10 min ahead, or 24 h behind | – | no: the value is none the worse |
//! | `gap` | – (`missing`: nothing for three usual intervals, and 3 min at least) | – | there is nothing |
//!
//! A device that nobody placed is taken for one inside. What a probe outside says is held against what its sensor can measure,
//! and not against what a barn can be.

pub mod rhythm;
pub mod series;
pub mod stretch;

use std::ops::RangeInclusive;

use chrono::Duration;

use crate::alarm::rule::{AMMONIA, CARBON_DIOXIDE, HUMIDITY, LIGHT, TEMPERATURE};

/// Weight of a bird on a scale, kg.
const WEIGHT: &str = "weight";

/// A test.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Test {
    /// What can be.
    Range,
    /// One reading apart from those beside it.
    Spike,
    /// How fast it changes.
    Rate,
    /// Whether it changes at all.
    Stuck,
    /// Whether it speaks.
    Gap,
    /// Whether others say the same.
    Neighbors,
    /// Whether its time can be.
    Clock,
}

impl Test {
    /// All of them.
    pub const ALL: [Self; 7] =
        [Self::Range, Self::Spike, Self::Rate, Self::Stuck, Self::Gap, Self::Neighbors, Self::Clock];

    /// The text in the database.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Range => "range",
            Self::Spike => "spike",
            Self::Rate => "rate",
            Self::Stuck => "stuck",
            Self::Gap => "gap",
            Self::Neighbors => "neighbors",
            Self::Clock => "clock",
        }
    }

    /// Reads it.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|test| test.as_str() == text)
    }

    /// Whether what it finds keeps a reading out of the means of the house; the last column of the table.
    #[must_use]
    pub fn spoils_means(self) -> bool {
        match self {
            Self::Range | Self::Spike | Self::Stuck | Self::Neighbors => true,
            Self::Rate | Self::Gap | Self::Clock => false,
        }
    }
}

/// How sure a test is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Level {
    /// It may be so, and a person should look.
    Suspect,
    /// There is nothing.
    Missing,
    /// It cannot be so.
    Fail,
}

impl Level {
    /// All of them, the worst last.
    pub const ALL: [Self; 3] = [Self::Suspect, Self::Missing, Self::Fail];

    /// The text in the database.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Suspect => "suspect",
            Self::Missing => "missing",
            Self::Fail => "fail",
        }
    }

    /// Reads it.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|level| level.as_str() == text)
    }
}

/// Values that one test may find something in.
#[derive(Debug, Clone)]
pub struct Limits {
    /// What a sensor can measure.
    measurable: RangeInclusive<f64>,
    /// What a barn can be.
    barn: RangeInclusive<f64>,
    /// How far a reading may be from the middle of its neighbors in time: beyond the first suspect, beyond the second a failure.
    spike: Option<[f64; 2]>,
    /// The most that it changes in a minute.
    rate_per_minute: Option<f64>,
    /// When it is stuck.
    stuck: Option<Stuck>,
    /// How far it may be from the median of the others.
    apart: Option<f64>,
}

/// When a value that stays is no value any more.
#[derive(Debug, Clone)]
struct Stuck {
    /// By so much it may differ and is the same all the same.
    tolerance: f64,
    /// Minutes after which it is suspect; a failure after twice as many.
    minutes: i64,
    /// Values that stay by right: at the end of what the sensor can say.
    but_not: fn(f64) -> bool,
}

const TEMPERATURE_LIMITS: Limits = Limits {
    measurable: -20.0..=60.0,
    barn: 5.0..=45.0,
    spike: Some([2.0, 5.0]),
    rate_per_minute: Some(1.0),
    stuck: Some(Stuck { tolerance: 0.01, minutes: 30, but_not: |_| false }),
    apart: Some(4.0),
};
const HUMIDITY_LIMITS: Limits = Limits {
    measurable: 0.0..=100.0,
    barn: 15.0..=100.0,
    spike: Some([10.0, 25.0]),
    rate_per_minute: Some(10.0),
    // A wet sensor says 100 and is right.
    stuck: Some(Stuck { tolerance: 0.01, minutes: 60, but_not: |percent| percent >= 99.0 }),
    apart: None,
};
const AMMONIA_LIMITS: Limits = Limits {
    measurable: 0.0..=200.0,
    barn: 0.0..=80.0,
    spike: Some([15.0, 40.0]),
    rate_per_minute: None,
    // Fresh litter gives off less than a sensor can see.
    stuck: Some(Stuck { tolerance: 0.01, minutes: 360, but_not: |ppm| ppm <= 1.0 }),
    apart: None,
};
const CARBON_DIOXIDE_LIMITS: Limits = Limits {
    measurable: 0.0..=20_000.0,
    barn: 300.0..=10_000.0,
    spike: Some([1_000.0, 3_000.0]),
    rate_per_minute: Some(1_000.0),
    stuck: Some(Stuck { tolerance: 0.01, minutes: 60, but_not: |_| false }),
    apart: None,
};
/// Lamps are switched and stay as they are, and nights are dark.
const LIGHT_LIMITS: Limits = Limits {
    measurable: 0.0..=200_000.0,
    barn: 0.0..=2_000.0,
    spike: None,
    rate_per_minute: None,
    stuck: None,
    apart: None,
};
const WEIGHT_LIMITS: Limits = Limits {
    measurable: 0.0..=100.0,
    barn: 0.02..=8.0,
    spike: None,
    rate_per_minute: None,
    stuck: None,
    apart: None,
};

/// The limits of a metric; `None`: nothing is known of it, and only its rhythm and its clock are looked at. Water is such:
/// it does not flow at night.
#[must_use]
pub fn limits_of(metric: &str) -> Option<&'static Limits> {
    match metric {
        TEMPERATURE => Some(&TEMPERATURE_LIMITS),
        HUMIDITY => Some(&HUMIDITY_LIMITS),
        AMMONIA => Some(&AMMONIA_LIMITS),
        CARBON_DIOXIDE => Some(&CARBON_DIOXIDE_LIMITS),
        LIGHT => Some(&LIGHT_LIMITS),
        WEIGHT => Some(&WEIGHT_LIMITS),
        _ => None,
    }
}

impl Limits {
    /// What the range test says of a value.
    #[must_use]
    pub fn range(&self, value: f64, is_outside: bool) -> Option<Level> {
        if !self.measurable.contains(&value) {
            return Some(Level::Fail);
        }
        (!is_outside && !self.barn.contains(&value)).then_some(Level::Suspect)
    }

    /// What the spike test says of a reading between two others.
    #[must_use]
    pub fn spike(&self, before: f64, value: f64, after: f64) -> Option<Level> {
        spike(self.spike?, before, value, after)
    }

    /// Whether it changes too fast: readings closer than a minute are held against what may change in one.
    #[must_use]
    pub fn is_too_fast(&self, change: f64, interval: Duration) -> bool {
        let minutes = (interval.num_milliseconds() as f64 / 60_000.0).max(1.0);
        self.rate_per_minute.is_some_and(|rate| change.abs() / minutes > rate)
    }

    /// Whether others are asked for what they say.
    #[must_use]
    pub fn has_neighbors(&self) -> bool {
        self.apart.is_some()
    }

    /// Whether a value is too far from the median of all.
    #[must_use]
    pub fn is_apart(&self, value: f64, median: f64) -> bool {
        self.apart.is_some_and(|apart| (value - median).abs() > apart)
    }
}

/// The spike test by its limits: how far a reading is from the middle of its neighbors in time.
#[must_use]
pub fn spike([suspect, fail]: [f64; 2], before: f64, value: f64, after: f64) -> Option<Level> {
    let apart = (value - f64::midpoint(before, after)).abs();
    match apart {
        apart if apart > fail => Some(Level::Fail),
        apart if apart > suspect => Some(Level::Suspect),
        _ => None,
    }
}

/// A temperature as the limits have it: devices may give it in Fahrenheit.
#[must_use]
pub fn in_celsius(metric: &str, value: f64, unit: Option<&str>) -> f64 {
    let is_fahrenheit = metric == TEMPERATURE
        && unit.is_some_and(|unit| {
            matches!(unit.trim_start_matches('°').to_ascii_lowercase().as_str(), "f" | "fahrenheit" | "degf")
        });
    if is_fahrenheit { (value - 32.0) / 1.8 } else { value }
}

/// The median; `None` of fewer than three.
#[must_use]
pub fn median_of_three_and_more(values: &mut [f64]) -> Option<f64> {
    if values.len() < 3 {
        return None;
    }
    values.sort_unstable_by(f64::total_cmp);
    let middle = values.len() / 2;
    let upper = *values.get(middle)?;
    let lower = *values.get(middle.checked_sub(1)?)?;
    Some(if values.len() % 2 == 1 { upper } else { f64::midpoint(lower, upper) })
}

#[cfg(test)]
mod tests;
