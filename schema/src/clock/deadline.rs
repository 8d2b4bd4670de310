//! Deadlines in wall time: one that lies further ahead than it can ever be set was set by a wrong clock, and counts as
//! passed.

use chrono::Duration;

use super::Timestamp;

/// By how much the clocks of two engines on one database may differ before each takes the other's deadlines for mistakes.
pub const CLOCKS_DIFFER_MAX: Duration = Duration::minutes(1);

/// Whether a deadline that can be set `longest` ahead at most has passed.
///
/// | the deadline is | it has |
/// |---|---|
/// | now or earlier | passed |
/// | ahead, by `longest` and [`CLOCKS_DIFFER_MAX`] at most | not passed |
/// | further ahead | passed |
#[must_use]
pub fn is_due(at: Timestamp, now: Timestamp, longest: Duration) -> bool {
    at <= now || at > farthest(now, longest)
}

/// The last instant at which such a deadline can truly lie: what [`waits!`] and [`due!`] are handed in SQL.
#[must_use]
pub fn farthest(now: Timestamp, longest: Duration) -> Timestamp {
    let ahead = longest.checked_add(&CLOCKS_DIFFER_MAX);
    ahead.and_then(|ahead| now.checked_add_signed(ahead)).unwrap_or(Timestamp::MAX_UTC)
}

/// The opposite of [`is_due`] as SQL: a column, the parameter with the present, the one with [`farthest`].
macro_rules! waits {
    ($at:literal, $now:literal, $farthest:literal) => {
        concat!("(", $at, " > ", $now, " AND ", $at, " <= ", $farthest, ")")
    };
}

/// [`is_due`] as SQL: a column, the parameter with the present, the one with [`farthest`].
macro_rules! due {
    ($at:literal, $now:literal, $farthest:literal) => {
        concat!("(", $at, " <= ", $now, " OR ", $at, " > ", $farthest, ")")
    };
}

pub(crate) use {due, waits};

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp::UNIX_EPOCH;
    const LONGEST: Duration = Duration::seconds(300);

    #[test]
    fn a_deadline_is_waited_for_only_where_it_can_have_been_set() {
        let is_due = |seconds| is_due(NOW + Duration::seconds(seconds), NOW, LONGEST);
        assert!(is_due(-1) && is_due(0));
        assert!(!is_due(1) && !is_due(300) && !is_due(360), "clocks of two engines differ a little");
        assert!(is_due(361) && is_due(86_400) && is_due(315_360_000));
    }

    #[test]
    fn no_length_of_a_wait_is_too_long() {
        assert!(!super::is_due(NOW + Duration::days(36_500), NOW, Duration::MAX));
        assert_eq!(farthest(Timestamp::MAX_UTC, LONGEST), Timestamp::MAX_UTC);
    }

    #[test]
    fn the_sql_says_the_same() {
        assert_eq!(waits!("a", "$1", "$2"), "(a > $1 AND a <= $2)");
        assert_eq!(due!("a", "$1", "$2"), "(a <= $1 OR a > $2)");
    }
}
