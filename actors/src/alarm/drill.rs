//! When a drill is due by the schedule: once a week, at an hour of the barn.

use chrono::{Datelike, Days, Duration, NaiveDateTime, NaiveTime, Weekday};

/// A drill that was missed, since the engine did not run, is held within this time and then no more.
const LATE_MAX: Duration = Duration::hours(6);
/// After so long without an answer it has none.
pub const ANSWER_MAX: Duration = Duration::minutes(30);

/// A time of the week.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Weekly {
    day: Weekday,
    time: NaiveTime,
}

/// Why a time of the week cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a time of the week: write a day and a time such as mon 10:00")]
pub struct BadWeekly(String);

impl std::str::FromStr for Weekly {
    type Err = BadWeekly;

    fn from_str(text: &str) -> Result<Self, BadWeekly> {
        let bad = || BadWeekly(text.to_owned());
        let (day, time) = text.trim().split_once(' ').ok_or_else(bad)?;
        let day = day.parse().map_err(|_| bad())?;
        let time = NaiveTime::parse_from_str(time.trim(), "%H:%M").map_err(|_| bad())?;
        Ok(Self { day, time })
    }
}

impl std::fmt::Display for Weekly {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}", self.day.to_string().to_lowercase(), self.time.format("%H:%M"))
    }
}

impl Weekly {
    /// Whether a drill is due at this time of the barn, where the last one began at `last_began`.
    #[must_use]
    pub fn is_due(&self, now: NaiveDateTime, last_began: Option<NaiveDateTime>) -> bool {
        let back = (7 + now.weekday().num_days_from_monday() - self.day.num_days_from_monday()) % 7;
        let Some(day) = now.date().checked_sub_days(Days::new(u64::from(back))) else { return false };
        let planned = day.and_time(self.time);
        let late = now.signed_duration_since(planned);
        let is_held = last_began.is_some_and(|began| began >= planned);
        (Duration::zero()..=LATE_MAX).contains(&late) && !is_held
    }

    /// The next one after a time of the barn.
    #[must_use]
    pub fn next(&self, now: NaiveDateTime) -> Option<NaiveDateTime> {
        let ahead = (7 + self.day.num_days_from_monday() - now.weekday().num_days_from_monday()) % 7;
        let planned = now.date().checked_add_days(Days::new(u64::from(ahead)))?.and_time(self.time);
        if planned > now { Some(planned) } else { planned.checked_add_days(Days::new(7)) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_next_drill_is_within_a_week() {
        let weekly: Weekly = "mon 10:00".parse().unwrap();
        let at = |text: &str| NaiveDateTime::parse_from_str(text, "%Y-%m-%d %H:%M").unwrap();
        for (now, next) in [
            ("2026-11-30 09:59", "2026-11-30 10:00"),
            ("2026-11-30 10:00", "2026-12-07 10:00"),
            ("2026-12-06 23:00", "2026-12-07 10:00"),
        ] {
            assert_eq!(weekly.next(at(now)), Some(at(next)), "{now}");
        }
    }

    #[test]
    fn a_drill_is_due_once_a_week_and_not_long_after() {
        let weekly: Weekly = "mon 10:00".parse().unwrap();
        assert_eq!(weekly.to_string(), "mon 10:00");
        let at = |text: &str| NaiveDateTime::parse_from_str(text, "%Y-%m-%d %H:%M").unwrap();
        // 2026-11-30 is a Monday.
        for (now, last, is_due) in [
            ("2026-11-30 09:59", None, false),
            ("2026-11-30 10:00", None, true),
            ("2026-11-30 16:00", None, true),
            ("2026-11-30 16:01", None, false),
            ("2026-12-01 10:00", None, false),
            ("2026-11-30 10:01", Some("2026-11-30 10:00"), false),
            ("2026-11-30 10:01", Some("2026-11-29 18:00"), true),
            ("2026-12-07 10:00", Some("2026-11-30 10:00"), true),
        ] {
            assert_eq!(weekly.is_due(at(now), last.map(at)), is_due, "{now} {last:?}");
        }
        for text in ["", "mon", "10:00", "someday 10:00", "mon 25:00"] {
            assert!(text.parse::<Weekly>().is_err(), "{text}");
        }
    }
}
