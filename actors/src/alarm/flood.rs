//! A flood: so many alarms at once that each of them ringing helps nobody. It is sounded once, and all are listed.

use std::collections::VecDeque;

use chrono::Duration;
use schema::clock::Timestamp;

use super::way::Class;

/// So many raises within [`FLOOD_MINUTES`] are a flood.
pub const FLOOD_RAISES: usize = 10;
/// The time in which they are counted.
pub const FLOOD_MINUTES: i64 = 10;

/// The raises of the last minutes, and who speaks for all.
#[derive(Debug, Clone)]
pub struct Flood<K> {
    raised: VecDeque<Timestamp>,
    voice: Option<(K, Class)>,
}

impl<K> Default for Flood<K> {
    fn default() -> Self {
        Self { raised: VecDeque::new(), voice: None }
    }
}

impl<K: PartialEq + Clone> Flood<K> {
    /// An alarm was raised.
    pub fn raise(&mut self, now: Timestamp) {
        if self.raised.len() == FLOOD_RAISES {
            self.raised.pop_front();
        }
        self.raised.push_back(now);
    }

    /// Whether there is one.
    #[must_use]
    pub fn is_on(&self, now: Timestamp) -> bool {
        let window = Duration::minutes(FLOOD_MINUTES);
        self.raised.len() == FLOOD_RAISES
            && self.raised.front().is_some_and(|oldest| now.signed_duration_since(*oldest) <= window)
    }

    /// Whether an alarm is listed only, because another one that is as bad at least rings for all of them.
    #[must_use]
    pub fn is_grouped(&self, alarm: &K, class: Class, now: Timestamp) -> bool {
        self.is_on(now) && self.voice.as_ref().is_some_and(|(voice, loud)| voice != alarm && *loud >= class)
    }

    /// An alarm rings.
    pub fn rings(&mut self, alarm: &K, class: Class) {
        if self.voice.as_ref().is_none_or(|(_, loud)| *loud < class) {
            self.voice = Some((alarm.clone(), class));
        }
    }

    /// An alarm waits for nobody any more.
    pub fn falls_silent(&mut self, alarm: &K) {
        if self.voice.as_ref().is_some_and(|(voice, _)| voice == alarm) {
            self.voice = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_timestamp(1_790_000_000 + second, 0).unwrap()
    }

    fn flooded() -> Flood<&'static str> {
        let mut flood = Flood::default();
        flood.rings(&"fan 1", Class::High);
        for second in 0..10 {
            assert!(!flood.is_on(at(second)), "before raise {second}");
            flood.raise(at(second));
        }
        flood
    }

    #[test]
    fn ten_within_ten_minutes_are_a_flood_and_one_speaks_for_all() {
        let mut flood = flooded();
        assert!(flood.is_on(at(600)) && !flood.is_on(at(601)));
        assert!(flood.is_grouped(&"fan 2", Class::High, at(20)));
        assert!(!flood.is_grouped(&"fan 1", Class::High, at(20)), "the voice goes on");
        assert!(!flood.is_grouped(&"house hot", Class::Critical, at(20)), "what is worse is heard");
        flood.rings(&"house hot", Class::Critical);
        assert!(flood.is_grouped(&"fan 1", Class::High, at(20)));
        flood.falls_silent(&"house hot");
        assert!(!flood.is_grouped(&"fan 2", Class::High, at(20)), "somebody has to speak");
    }

    #[test]
    fn without_a_flood_everybody_speaks() {
        let flood = flooded();
        assert!(!flood.is_grouped(&"fan 2", Class::High, at(700)));
    }
}
