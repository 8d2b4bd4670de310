//! Whether the wall clock may be believed where something would be lost by a wrong one: a pure decision.

use chrono::{DateTime, Duration};

use super::Timestamp;

/// How far past the newest time that is known to be right the clock may stand.
pub const AHEAD_MAX: Duration = Duration::days(7);
/// No engine of this kind ran before 2026: a clock that stands there has no battery, and bears nothing out.
pub const FIRST_YEAR: Timestamp =
    DateTime::from_timestamp(1_767_225_600, 0).expect("2026 is in the calendar");

/// What there is to judge the clock by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Believable {
    /// What the clock says.
    pub now: Timestamp,
    /// When the last pass that deleted by age ran, as the database has it.
    pub last_pass: Option<Timestamp>,
    /// The newest time that is known to be right, carried on to the present by the monotonic clock
    /// ([`super::watch::ClockWatch::newest_seen`]).
    pub newest_seen: Option<Timestamp>,
}

/// Why the clock is not believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unbelievable {
    /// It stands further ahead than anything bears out.
    #[error("the clock says {now}, {} days past {newest}, the newest time known to be right", (*now - *newest).num_days())]
    Ahead {
        /// What it says.
        now: Timestamp,
        /// The newest time known to be right.
        newest: Timestamp,
    },
    /// It stands before the first engine was made.
    #[error("the clock says {now}, which cannot be")]
    NeverSet {
        /// What it says.
        now: Timestamp,
    },
    /// What the database knows was not asked for yet.
    #[error("what the database knows of the time was not read yet")]
    Unasked,
}

impl Believable {
    /// Decides.
    ///
    /// | the clock stands | it is |
    /// |---|---|
    /// | before [`FIRST_YEAR`] | not believed |
    /// | anywhere later, and no time is known to be right | believed: such a database is new |
    /// | before the newest time known to be right, or up to [`AHEAD_MAX`] past it | believed: what is young by it is young |
    /// | further ahead | not believed |
    ///
    /// # Errors
    /// Why it is not believed.
    pub fn judge(self) -> Result<(), Unbelievable> {
        let Self { now, last_pass, newest_seen } = self;
        if now < FIRST_YEAR {
            return Err(Unbelievable::NeverSet { now });
        }
        match last_pass.max(newest_seen) {
            Some(newest) if now - newest > AHEAD_MAX => Err(Unbelievable::Ahead { now, newest }),
            Some(_) | None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(days: i64) -> Timestamp {
        FIRST_YEAR + Duration::days(300 + days)
    }

    fn judge(now: Timestamp, last_pass: Option<i64>, newest_seen: Option<i64>) -> bool {
        let (last_pass, newest_seen) = (last_pass.map(at), newest_seen.map(at));
        Believable { now, last_pass, newest_seen }.judge().is_ok()
    }

    #[test]
    fn a_clock_is_believed_for_a_week_past_what_is_known() {
        assert!(judge(at(0), None, None));
        assert!(judge(at(7), Some(0), None));
        assert!(judge(at(7), Some(-400), Some(0)), "the newest counts");
        assert!(!judge(at(8), Some(0), None));
        assert!(!judge(at(400), Some(0), Some(0)));
        assert!(judge(at(0), Some(400), None), "nothing is too old by a clock that is behind");
    }

    #[test]
    fn a_clock_without_a_battery_is_not_believed() {
        assert!(!judge(Timestamp::UNIX_EPOCH, None, None));
        assert!(!judge(FIRST_YEAR - Duration::seconds(1), Some(0), None));
        assert!(judge(FIRST_YEAR, None, None));
    }

    #[test]
    fn the_reason_names_the_distance() {
        let verdict = Believable { now: at(400), last_pass: Some(at(0)), newest_seen: None }.judge();
        let text = verdict.expect_err("it is far ahead").to_string();
        assert!(text.contains("400 days past 2026-10-28"), "{text}");
    }
}
