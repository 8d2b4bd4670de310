//! What a breeder expects of a bird of some age: body weight and feed eaten, by day.

use serde::{Deserialize, Serialize};

/// The sex of the birds a standard or a flock is of, in the cloud's words.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Sex {
    /// Both, as they hatch.
    AsHatched,
    /// Males only.
    Male,
    /// Females only.
    Female,
}

impl Sex {
    /// The text in the database.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::AsHatched => "AS_HATCHED",
            Self::Male => "MALE",
            Self::Female => "FEMALE",
        }
    }

    /// The sex of a text.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        [Self::AsHatched, Self::Male, Self::Female].into_iter().find(|sex| sex.as_str() == text)
    }
}

/// One day of a standard.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Day {
    /// Age; 0 is the day of placement.
    pub age_day: u16,
    /// Expected body weight, grams.
    pub body_weight_g: f64,
    /// Expected feed eaten since day 0, grams a bird; not every breeder says so of the first days.
    pub cum_feed_intake_g: Option<f64>,
    /// Of a standard that was made of flocks: how many have this day; 0 lies on the line between its neighbors.
    #[serde(skip)]
    pub flocks: Option<i32>,
}

/// A standard: its days from the first to the last without a gap, each heavier than the one before.
#[derive(Debug, Clone, PartialEq)]
pub struct Standard {
    days: Vec<Day>,
}

/// Why a table is not a standard.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NotAStandard {
    /// Fewer than two days.
    #[error("a standard needs at least two days")]
    TooShort,
    /// A day is missing, twice there, or not in its place.
    #[error("day {after} is not followed by day {}", .after + 1)]
    Gap {
        /// The day before the gap.
        after: u16,
    },
    /// A bird does not grow, or has eaten less than the day before, or a number is not one.
    #[error("day {day}: the body weight must be higher than the day before, and the feed eaten no lower")]
    Shrinks {
        /// The day it was found on.
        day: u16,
    },
}

impl Standard {
    /// A standard of these days.
    ///
    /// # Errors
    /// If the days are not consecutive or a bird shrinks: its inverse would not be a function.
    pub fn new(days: Vec<Day>) -> Result<Self, NotAStandard> {
        if days.len() < 2 {
            return Err(NotAStandard::TooShort);
        }
        for pair in days.windows(2) {
            let [before, after] = pair else { continue };
            if u32::from(after.age_day) != u32::from(before.age_day) + 1 {
                return Err(NotAStandard::Gap { after: before.age_day });
            }
            let grows = after.body_weight_g > before.body_weight_g && before.body_weight_g > 0.0;
            let is_eaten = |feed: f64| feed >= 0.0 && feed.is_finite();
            let eats = [before, after].iter().all(|day| day.cum_feed_intake_g.is_none_or(is_eaten))
                && before
                    .cum_feed_intake_g
                    .zip(after.cum_feed_intake_g)
                    .is_none_or(|(before, after)| after >= before);
            let is_finite = after.body_weight_g.is_finite();
            if !(grows && eats && is_finite) {
                return Err(NotAStandard::Shrinks { day: after.age_day });
            }
        }
        Ok(Self { days })
    }

    /// Its days.
    #[must_use]
    pub fn days(&self) -> &[Day] {
        &self.days
    }

    /// The body weight at an age, grams, linear between days; `None` outside of the table.
    #[must_use]
    pub fn body_weight_g(&self, age_days: f64) -> Option<f64> {
        self.at(age_days, |day| Some(day.body_weight_g))
    }

    /// The feed eaten up to an age, grams a bird, linear between days; `None` outside of what the table says.
    #[must_use]
    pub fn cum_feed_intake_g(&self, age_days: f64) -> Option<f64> {
        self.at(age_days, |day| day.cum_feed_intake_g)
    }

    /// The age at which a bird of the standard has this weight, days; `None` outside of the table.
    #[must_use]
    pub fn age_days(&self, body_weight_g: f64) -> Option<f64> {
        self.days.windows(2).find_map(|pair| {
            let [before, after] = pair else { return None };
            let is_inside = (before.body_weight_g..=after.body_weight_g).contains(&body_weight_g);
            let share = (body_weight_g - before.body_weight_g) / (after.body_weight_g - before.body_weight_g);
            is_inside.then(|| f64::from(before.age_day) + share)
        })
    }

    fn at(&self, age_days: f64, value: impl Fn(&Day) -> Option<f64>) -> Option<f64> {
        self.days.windows(2).find_map(|pair| {
            let [before, after] = pair else { return None };
            let (from, to) = (f64::from(before.age_day), f64::from(after.age_day));
            let share = age_days - from;
            let (before, after) = value(before).zip(value(after))?;
            (from..=to).contains(&age_days).then_some(before + share * (after - before))
        })
    }
}

#[cfg(test)]
mod tests;
