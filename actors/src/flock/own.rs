//! A standard of a site's own: what its finished flocks weighed, day by day.

use std::collections::BTreeMap;

use super::sample::count;
use super::standard::{Day, NotAStandard, Standard};

/// Flocks that a standard is made of, the newest ones.
pub const FLOCKS_MAX: usize = 50;
/// Fewest flocks that a day is made of, unless somebody says otherwise: one flock is no standard.
pub const FLOCKS_MIN: usize = 2;

/// A day of a finished flock with enough weighings for a verdict.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct OwnDay {
    /// Age.
    pub age_day: u16,
    /// What a bird weighed, grams.
    pub mean_g: f64,
    /// What a bird had eaten since day 0, grams, where all of it is known.
    pub cum_feed_intake_g: Option<f64>,
}

/// Why flocks make no standard.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotOwn {
    /// Too few flocks.
    #[error(
        "{found} finished flocks of this line and sex have days of 30 weighings and more, and {wanted} are needed"
    )]
    Flocks {
        /// Those that there are.
        found: usize,
        /// Those that are needed.
        wanted: usize,
    },
    /// Too few days.
    #[error("fewer than two days have {0} flocks with 30 weighings and more")]
    Days(usize),
    /// The means are no standard.
    #[error("the flocks differ too much: {0}; take more flocks, or ask for more of them on each day")]
    Uneven(NotAStandard),
}

/// The mean of the flocks by day: from the first day to the last that so many of them have. A day between that fewer have
/// lies on the line between its neighbors and says that it is of none. Feed is told up to the day before the first of
/// which it is known of fewer flocks, or on which less was eaten in all than the day before.
///
/// # Errors
/// [`NotOwn`].
pub fn derive(flocks: &[Vec<OwnDay>], flocks_min: usize) -> Result<Standard, NotOwn> {
    let found = flocks.iter().filter(|days| !days.is_empty()).count();
    if found < flocks_min {
        return Err(NotOwn::Flocks { found, wanted: flocks_min });
    }
    let mut by_age: BTreeMap<u16, Vec<OwnDay>> = BTreeMap::new();
    for day in flocks.iter().flatten() {
        by_age.entry(day.age_day).or_default().push(*day);
    }
    let known: Vec<Day> = by_age
        .iter()
        .filter(|(_, days)| days.len() >= flocks_min)
        .map(|(age, days)| mean(*age, days))
        .collect();
    if known.len() < 2 {
        return Err(NotOwn::Days(flocks_min));
    }
    let mut days: Vec<Day> = Vec::new();
    for day in known {
        if let Some(before) = days.last().copied() {
            days.extend((before.age_day + 1..day.age_day).map(|age_day| between(age_day, &before, &day)));
        }
        days.push(day);
    }
    keep_feed(&mut days, flocks_min, &by_age);
    Standard::new(days).map_err(NotOwn::Uneven)
}

fn mean(age_day: u16, days: &[OwnDay]) -> Day {
    let of = |values: &[f64]| (!values.is_empty()).then(|| values.iter().sum::<f64>() / count(values.len()));
    let weights: Vec<f64> = days.iter().map(|day| day.mean_g).collect();
    let feed: Vec<f64> = days.iter().filter_map(|day| day.cum_feed_intake_g).collect();
    Day {
        age_day,
        body_weight_g: of(&weights).unwrap_or_default(),
        cum_feed_intake_g: of(&feed),
        flocks: i32::try_from(days.len()).ok(),
    }
}

fn between(age_day: u16, before: &Day, after: &Day) -> Day {
    let share = f64::from(age_day - before.age_day) / f64::from(after.age_day - before.age_day);
    let line = |from: f64, to: f64| from + share * (to - from);
    Day {
        age_day,
        body_weight_g: line(before.body_weight_g, after.body_weight_g),
        cum_feed_intake_g: before
            .cum_feed_intake_g
            .zip(after.cum_feed_intake_g)
            .map(|(from, to)| line(from, to)),
        flocks: Some(0),
    }
}

fn keep_feed(days: &mut [Day], flocks_min: usize, by_age: &BTreeMap<u16, Vec<OwnDay>>) {
    let (mut before_g, mut is_known) = (0.0, true);
    for day in days {
        let fed =
            by_age.get(&day.age_day).into_iter().flatten().filter(|day| day.cum_feed_intake_g.is_some());
        let is_told = day.flocks == Some(0) || fed.count() >= flocks_min;
        is_known &= is_told && day.cum_feed_intake_g.is_some_and(|feed_g| feed_g >= before_g);
        day.cum_feed_intake_g = day.cum_feed_intake_g.filter(|_| is_known);
        before_g = day.cum_feed_intake_g.unwrap_or(before_g);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flock(factor: f64, ages: impl IntoIterator<Item = u16>) -> Vec<OwnDay> {
        ages.into_iter()
            .map(|age_day| OwnDay {
                age_day,
                mean_g: factor * (40.0 + 50.0 * f64::from(age_day)),
                cum_feed_intake_g: Some(factor * 80.0 * f64::from(age_day)),
            })
            .collect()
    }

    #[test]
    fn a_day_is_the_mean_of_the_flocks_that_have_it() {
        let own = derive(&[flock(0.9, 7..=10), flock(1.1, 8..=12), flock(1.3, 9..=10)], 2).unwrap();
        let days: Vec<_> =
            own.days().iter().map(|day| (day.age_day, day.body_weight_g.round(), day.flocks)).collect();
        assert_eq!(days, [(8, 440.0, Some(2)), (9, 539.0, Some(3)), (10, 594.0, Some(3))]);
        assert_eq!(own.cum_feed_intake_g(8.0).map(f64::round), Some(640.0));
    }

    #[test]
    fn a_day_that_nobody_weighed_on_lies_between_its_neighbors_and_says_so() {
        let own = derive(&[flock(1.0, [7, 8, 11]), flock(1.0, [7, 8, 9, 11])], 2).unwrap();
        let flocks: Vec<_> = own.days().iter().map(|day| (day.age_day, day.flocks)).collect();
        assert_eq!(flocks, [(7, Some(2)), (8, Some(2)), (9, Some(0)), (10, Some(0)), (11, Some(2))]);
        assert_eq!(own.body_weight_g(10.0), Some(540.0));
    }

    #[test]
    fn feed_ends_where_fewer_flocks_know_of_it() {
        let mut other = flock(1.0, 7..=10);
        other[2].cum_feed_intake_g = None;
        let own = derive(&[flock(1.0, 7..=10), other], 2).unwrap();
        let feed: Vec<_> = own.days().iter().map(|day| day.cum_feed_intake_g).collect();
        assert_eq!(feed, [Some(560.0), Some(640.0), None, None]);
    }

    #[test]
    fn what_makes_no_standard_is_said() {
        assert_eq!(derive(&[flock(1.0, 7..=9), Vec::new()], 2), Err(NotOwn::Flocks { found: 1, wanted: 2 }));
        assert_eq!(derive(&[flock(1.0, 7..=8), flock(1.0, 8..=9)], 2), Err(NotOwn::Days(2)));
        // A flock that weighs twice as much, and has only the first day.
        let uneven = derive(&[flock(1.0, 7..=9), flock(1.0, 8..=9), flock(2.0, [7])], 2);
        assert!(matches!(uneven, Err(NotOwn::Uneven(NotAStandard::Shrinks { day: 8 }))), "{uneven:?}");
    }
}
