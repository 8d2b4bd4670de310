//! What is remembered of one metric of one device: its newest value, how often it speaks, and its last hour.

use std::collections::VecDeque;

use chrono::Duration;
use schema::clock::Timestamp;

use super::rule::WINDOW_MINUTES_MAX;
use crate::quality::rhythm::Rhythm;

/// Seconds that share one entry of the window.
const BUCKET_SECONDS: i64 = 10;
/// Entries of the window.
const BUCKETS_MAX: usize = (WINDOW_MINUTES_MAX as usize * 60 / BUCKET_SECONDS as usize) + 1;
/// A device's clock that is further ahead is wrong: the time at which its reading came in counts.
const CLOCK_AHEAD_MAX: Duration = Duration::minutes(10);

/// The time that a reading counts for.
#[must_use]
pub fn counted_at(occurred_at: Timestamp, received_at: Timestamp) -> Timestamp {
    let ahead = occurred_at.signed_duration_since(received_at);
    if ahead > CLOCK_AHEAD_MAX { received_at } else { occurred_at }
}

/// One metric of one device.
#[derive(Debug, Clone, Default)]
pub struct Probe {
    newest: Option<Newest>,
    rhythm: Rhythm,
    window: VecDeque<Bucket>,
}

#[derive(Debug, Clone, Copy)]
struct Newest {
    value: f64,
    at: Timestamp,
    heard_at: Timestamp,
}

#[derive(Debug, Clone, Copy)]
struct Bucket {
    begins_at: Timestamp,
    count: u32,
    sum: f64,
    positive_sum: f64,
    min: f64,
    max: f64,
}

impl Probe {
    /// Takes a reading of the device's time `at`, heard at `now` by the engine's clock. `false`: it is not newer than the
    /// newest, and says nothing.
    pub fn hear(&mut self, value: f64, at: Timestamp, now: Timestamp) -> bool {
        if let Some(newest) = self.newest {
            if at < newest.at {
                return false;
            }
            self.rhythm.note(at.signed_duration_since(newest.at));
        }
        self.newest = Some(Newest { value, at, heard_at: now });
        self.remember(value, at);
        true
    }

    fn remember(&mut self, value: f64, at: Timestamp) {
        let seconds = at.timestamp().div_euclid(BUCKET_SECONDS) * BUCKET_SECONDS;
        let begins_at = Timestamp::from_timestamp(seconds, 0).unwrap_or(at);
        let positive = value.max(0.0);
        if let Some(bucket) = self.window.back_mut().filter(|bucket| bucket.begins_at == begins_at) {
            bucket.count = bucket.count.saturating_add(1);
            bucket.sum += value;
            bucket.positive_sum += positive;
            bucket.min = bucket.min.min(value);
            bucket.max = bucket.max.max(value);
            return;
        }
        if self.window.len() == BUCKETS_MAX {
            self.window.pop_front();
        }
        self.window.push_back(Bucket {
            begins_at,
            count: 1,
            sum: value,
            positive_sum: positive,
            min: value,
            max: value,
        });
    }

    /// The newest value.
    #[must_use]
    pub fn value(&self) -> Option<f64> {
        self.newest.map(|newest| newest.value)
    }

    /// The time of the newest value, by its device.
    #[must_use]
    pub fn at(&self) -> Option<Timestamp> {
        self.newest.map(|newest| newest.at)
    }

    /// For how long it has been silent at `now`, where that is too long.
    #[must_use]
    pub fn silence(&self, now: Timestamp) -> Option<Duration> {
        let passed = now.signed_duration_since(self.newest?.heard_at);
        (passed >= self.rhythm.silent_after()?).then_some(passed)
    }

    fn within(&self, minutes: u32) -> impl Iterator<Item = &Bucket> {
        let newest = self.newest.map_or(Timestamp::MIN_UTC, |newest| newest.at);
        let from = newest.checked_sub_signed(Duration::minutes(i64::from(minutes)));
        let from = from.unwrap_or(Timestamp::MIN_UTC);
        self.window.iter().filter(move |bucket| bucket.begins_at >= from)
    }

    /// The mean of the last minutes; of none, the newest value.
    #[must_use]
    pub fn mean(&self, minutes: u32) -> Option<f64> {
        if minutes == 0 {
            return self.value();
        }
        let (sum, count) = self
            .within(minutes)
            .fold((0.0, 0.0), |(sum, count), bucket| (sum + bucket.sum, count + f64::from(bucket.count)));
        (count > 0.0).then(|| sum / count)
    }

    /// By how much the newest value differs from those of the last minutes at most.
    #[must_use]
    pub fn jump(&self, minutes: u32) -> Option<f64> {
        let value = self.value()?;
        let differences =
            self.within(minutes).map(|bucket| (value - bucket.min).abs().max((bucket.max - value).abs()));
        differences.fold(None, |most: Option<f64>, by| Some(most.map_or(by, |most| most.max(by))))
    }

    /// What flowed in the last minutes; `None` when it was not heard for so long yet.
    #[must_use]
    pub fn flow(&self, minutes: u32, is_counter: bool) -> Option<f64> {
        let reach = Duration::minutes(i64::from(minutes)) - Duration::seconds(2 * BUCKET_SECONDS);
        let (first, newest) = (self.window.front()?, self.newest?);
        if newest.at.signed_duration_since(first.begins_at) < reach {
            return None;
        }
        if !is_counter {
            return Some(self.within(minutes).map(|bucket| bucket.positive_sum).sum());
        }
        let range = self.within(minutes).fold(None, |range: Option<(f64, f64)>, bucket| {
            let (min, max) = range.unwrap_or((bucket.min, bucket.max));
            Some((min.min(bucket.min), max.max(bucket.max)))
        });
        range.map(|(min, max)| max - min)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_timestamp(1_790_000_000 + second, 0).unwrap()
    }

    fn probe(values: &[(i64, f64)]) -> Probe {
        let mut probe = Probe::default();
        for (second, value) in values {
            probe.hear(*value, at(*second), at(*second));
        }
        probe
    }

    #[test]
    fn a_sensor_of_every_minute_is_silent_after_three() {
        let probe = probe(&[(0, 1.0), (60, 1.0), (120, 1.0), (180, 1.0)]);
        assert_eq!(probe.silence(at(180 + 179)), None);
        assert_eq!(probe.silence(at(180 + 180)), Some(Duration::seconds(180)));
    }

    #[test]
    fn a_slow_sensor_has_three_of_its_intervals_and_an_unknown_one_all_the_time() {
        let slow = probe(&[(0, 1.0), (600, 1.0), (1200, 1.0), (1800, 1.0)]);
        assert_eq!(slow.silence(at(1800 + 1799)), None);
        assert!(slow.silence(at(1800 + 1800)).is_some());
        assert_eq!(probe(&[(0, 1.0), (60, 1.0)]).silence(at(1_000_000)), None);
    }

    #[test]
    fn an_older_reading_says_nothing() {
        let mut probe = probe(&[(100, 5.0)]);
        assert!(!probe.hear(9.0, at(99), at(101)));
        assert_eq!(probe.value(), Some(5.0));
        assert!(probe.hear(6.0, at(100), at(101)), "of the same moment the last one counts");
    }

    #[test]
    fn the_window_is_of_minutes_and_bounded() {
        let mut probe = probe(&[]);
        for second in 0..20_000 {
            probe.hear(if second < 19_100 { 10.0 } else { 30.0 }, at(second), at(second));
        }
        assert_eq!(probe.window.len(), BUCKETS_MAX);
        assert_eq!(probe.mean(0), Some(30.0));
        let mean = probe.mean(15).unwrap();
        assert!((mean - 30.0).abs() < 0.5, "{mean}");
        assert_eq!(probe.jump(10), Some(0.0));
        assert_eq!(probe.jump(30), Some(20.0));
    }

    #[test]
    fn no_flow_is_known_after_the_whole_time_only() {
        let values: Vec<_> =
            (0..31).map(|minute| (minute * 60, if minute < 1 { 2.0 } else { 0.0 })).collect();
        assert_eq!(probe(&values[..20]).flow(30, false), None);
        assert_eq!(probe(&values).flow(20, false), Some(0.0));
        let meter: Vec<_> = (0..31).map(|minute| (minute * 60, 100.0 + f64::from(minute as i32))).collect();
        assert_eq!(probe(&meter).flow(30, true), Some(30.0));
        let still: Vec<_> = (0..31).map(|minute| (minute * 60, 100.0)).collect();
        assert_eq!(probe(&still).flow(30, true), Some(0.0));
    }

    #[test]
    fn a_clock_far_ahead_counts_for_when_it_came_in() {
        assert_eq!(counted_at(at(25_200), at(0)), at(0));
        assert_eq!(counted_at(at(600), at(0)), at(600));
        assert_eq!(counted_at(at(-86_400), at(0)), at(-86_400));
    }
}
