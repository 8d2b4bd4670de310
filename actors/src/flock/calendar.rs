//! Days as birds live them: from midnight to midnight where their barn is, 23 or 25 hours long when the clocks change.

use chrono::{Days, Duration, NaiveDate, NaiveDateTime, Offset, TimeZone};
use schema::clock::Timestamp;

/// The time zone of a barn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Zone(chrono_tz::Tz);

impl Zone {
    /// Where nobody has said where the barn is.
    pub const UTC: Self = Self(chrono_tz::Tz::UTC);

    /// The zone of a name of the IANA database, such as `Asia/Bangkok`.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        name.parse().ok().map(Self)
    }

    /// The day that a moment is of.
    #[must_use]
    pub fn day(self, at: Timestamp) -> NaiveDate {
        at.with_timezone(&self.0).date_naive()
    }

    /// What the clocks of the barn show at a moment.
    #[must_use]
    pub fn local(self, at: Timestamp) -> NaiveDateTime {
        at.with_timezone(&self.0).naive_local()
    }

    /// When a day begins and when it has ended.
    #[must_use]
    pub fn span(self, day: NaiveDate) -> (Timestamp, Timestamp) {
        (self.begin(day), self.begin(day.checked_add_days(Days::new(1)).unwrap_or(day)))
    }

    /// The last moment up to `at` at which so many seconds, a part of an hour or an hour, begin there.
    #[must_use]
    pub fn floor(self, at: Timestamp, seconds: i64) -> Timestamp {
        let offset = i64::from(at.with_timezone(&self.0).offset().fix().local_minus_utc());
        let into = (at.timestamp() + offset).rem_euclid(seconds.max(1));
        Timestamp::from_timestamp(at.timestamp() - into, 0).unwrap_or(at)
    }

    /// Its name in the IANA database.
    #[must_use]
    pub fn name(self) -> &'static str {
        self.0.name()
    }

    /// Midnight, or the first moment after it where the clocks jump over it.
    fn begin(self, day: NaiveDate) -> Timestamp {
        const STEP_MINUTES: i64 = 15;
        const STEPS_MAX: i64 = 12;
        let midnight = day.and_time(chrono::NaiveTime::MIN);
        let tries = (0..STEPS_MAX).map(|step| midnight + Duration::minutes(step * STEP_MINUTES));
        let found = tries.filter_map(|time| self.0.from_local_datetime(&time).earliest()).next();
        found.map_or_else(|| midnight.and_utc(), |time| time.to_utc())
    }
}

/// The age of a flock on a day, days; 0 on the day of placement, negative before.
#[must_use]
pub fn age_days(placed_on: NaiveDate, day: NaiveDate) -> i64 {
    day.signed_duration_since(placed_on).num_days()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn date(text: &str) -> NaiveDate {
        text.parse().unwrap()
    }

    #[test]
    fn a_bird_is_as_old_as_its_barn_says() {
        let at = schema::wire::time::parse("2026-02-08T18:30:00Z").unwrap();
        let age = |zone: Zone| age_days(date("2026-01-05"), zone.day(at));
        assert_eq!(age(Zone::parse("Asia/Bangkok").unwrap()), 35);
        assert_eq!(age(Zone::UTC), 34);
    }

    #[test]
    fn a_day_has_as_many_hours_as_its_clocks() {
        let hours = |zone: &str, day: &str| {
            let (from, to) = Zone::parse(zone).unwrap().span(date(day));
            (to - from).num_hours()
        };
        assert_eq!(hours("Europe/Berlin", "2026-03-29"), 23);
        assert_eq!(hours("Europe/Berlin", "2026-10-25"), 25);
        assert_eq!(hours("Asia/Bangkok", "2026-03-29"), 24);
        assert_eq!(hours("Africa/Cairo", "2026-04-24"), 23, "the clocks jump over midnight");
    }

    #[test]
    fn days_lie_end_to_end() {
        for zone in ["Europe/Berlin", "Africa/Cairo", "America/Santiago", "Asia/Kathmandu", "UTC"] {
            let zone = Zone::parse(zone).unwrap();
            let mut day = date("2026-01-01");
            while day < date("2027-01-01") {
                let next = day.succ_opt().unwrap();
                let (from, to) = zone.span(day);
                assert_eq!((to, zone.day(from)), (zone.span(next).0, day));
                day = next;
            }
        }
        assert_eq!(Zone::parse("Mars/Olympus"), None);
    }
}
