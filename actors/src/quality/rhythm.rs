//! How often something speaks, and from when on it is silent.

use std::collections::VecDeque;

use chrono::Duration;

/// Intervals of which the usual one is the median.
const INTERVALS_MAX: usize = 50;
/// So many must be known before anything is called silent.
const INTERVALS_MIN: usize = 3;
/// Silent after so many usual intervals,
const SILENT_INTERVALS: i64 = 3;
/// and after so many milliseconds at least.
const SILENT_MS_MIN: i64 = 3 * 60 * 1000;

/// The last intervals of what speaks again and again.
#[derive(Debug, Clone, Default)]
pub struct Rhythm {
    /// Milliseconds, those of 49 days and more as 49 days.
    intervals_ms: VecDeque<u32>,
    silent_after_ms: Option<i64>,
}

impl Rhythm {
    /// Notes the time between two readings. Readings of the same moment, of a batch perhaps, are no interval.
    pub fn note(&mut self, interval: Duration) {
        if interval <= Duration::zero() {
            return;
        }
        if self.intervals_ms.len() == INTERVALS_MAX {
            self.intervals_ms.pop_front();
        }
        self.intervals_ms.push_back(u32::try_from(interval.num_milliseconds()).unwrap_or(u32::MAX));
        if self.intervals_ms.len() < INTERVALS_MIN {
            return;
        }
        let mut sorted: Vec<u32> = self.intervals_ms.iter().copied().collect();
        let middle = sorted.len() / 2;
        let (_, median, _) = sorted.select_nth_unstable(middle);
        self.silent_after_ms = Some((i64::from(*median) * SILENT_INTERVALS).max(SILENT_MS_MIN));
    }

    /// After how long it is silent; `None` while too little is known.
    #[must_use]
    pub fn silent_after(&self) -> Option<Duration> {
        self.silent_after_ms.map(Duration::milliseconds)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn silent_after_seconds(intervals: &[i64]) -> Option<i64> {
        let mut rhythm = Rhythm::default();
        intervals.iter().for_each(|seconds| rhythm.note(Duration::seconds(*seconds)));
        rhythm.silent_after().map(|silent| silent.num_seconds())
    }

    #[test]
    fn silence_is_three_usual_intervals_and_three_minutes_at_least() {
        assert_eq!(silent_after_seconds(&[60, 60]), None);
        assert_eq!(silent_after_seconds(&[60, 60, 60]), Some(180));
        assert_eq!(silent_after_seconds(&[5; 60]), Some(180));
        assert_eq!(silent_after_seconds(&[600, 600, 600]), Some(1800));
        assert_eq!(silent_after_seconds(&[600, 0, -5, 600, 600]), Some(1800));
    }

    #[test]
    fn one_long_break_does_not_make_a_habit() {
        assert_eq!(silent_after_seconds(&[60, 60, 60, 86_400 * 100, 60]), Some(180));
        assert_eq!(silent_after_seconds(&[86_400 * 365; 3]), Some(3 * i64::from(u32::MAX) / 1000));
    }
}
