//! What became of alarms, for whoever looks on while it happens: a short memory with numbers, from which each reads at its own pace.
//!
//! Whoever owns the alarms tells after the commit. Nobody makes it wait, and who comes back after a break asks for
//! what was told since; what is older than the memory is in the rows.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use schema::clock::Timestamp;
use tokio::sync::watch;
use uuid::Uuid;

use super::state::State;
use super::way::Class;

/// Notices that are remembered.
pub const NOTICES_MAX: usize = 512;

/// What became of an alarm.
#[derive(Debug, Clone, PartialEq)]
pub struct Notice {
    /// The alarm.
    pub alarm_id: Uuid,
    /// Tenant; empty for the box itself.
    pub tenant_id: String,
    /// Farm; empty for the box itself.
    pub farm_id: String,
    /// Barn; empty for the box itself.
    pub barn_id: String,
    /// Its rule.
    pub rule_id: String,
    /// A device, a metric, or empty for the whole house.
    pub place: String,
    /// How bad it is.
    pub class: Class,
    /// Its state now.
    pub state: State,
    /// What raised it, or the newest that kept it.
    pub value: Option<f64>,
    /// The limit of it.
    pub limit: Option<f64>,
    /// Their unit.
    pub unit: Option<String>,
    /// When this came to be.
    pub happened_at: Timestamp,
}

/// What was told after a number.
#[derive(Debug, Clone, PartialEq)]
pub enum Told {
    /// Everything, with the number of each; nothing when nothing was.
    All(Vec<(u64, Arc<Notice>)>),
    /// More than is remembered: the rows tell. This is the newest number.
    Gap(u64),
}

/// Each with its number, the newest last.
type Notices = VecDeque<(u64, Arc<Notice>)>;

/// Where the owner of the alarms tells, and others look on. Cloning shares it.
#[derive(Debug, Clone)]
pub struct AlarmFeed {
    notices: Arc<Mutex<Notices>>,
    newest: watch::Sender<u64>,
}

impl Default for AlarmFeed {
    fn default() -> Self {
        Self { notices: Arc::default(), newest: watch::Sender::new(0) }
    }
}

impl AlarmFeed {
    /// Tells what became of an alarm. It never waits.
    pub fn tell(&self, notice: Notice) {
        let mut notices = self.lock();
        let number = *self.newest.borrow() + 1;
        if notices.len() == NOTICES_MAX {
            notices.pop_front();
        }
        notices.push_back((number, Arc::new(notice)));
        self.newest.send_replace(number);
    }

    /// The number of the last notice, and word of each that follows.
    #[must_use]
    pub fn watch(&self) -> watch::Receiver<u64> {
        self.newest.subscribe()
    }

    /// What was told after a number.
    #[must_use]
    pub fn since(&self, number: u64) -> Told {
        let notices = self.lock();
        let newest = *self.newest.borrow();
        let first = notices.front().map_or(newest + 1, |(number, _)| *number);
        if number > newest || number + 1 < first {
            return Told::Gap(newest);
        }
        Told::All(notices.iter().filter(|(told, _)| *told > number).cloned().collect())
    }

    fn lock(&self) -> MutexGuard<'_, Notices> {
        // Every change is complete before anything can panic.
        self.notices.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn notice(place: &str) -> Notice {
        Notice {
            alarm_id: Uuid::nil(),
            tenant_id: "t".to_owned(),
            farm_id: "f".to_owned(),
            barn_id: "b".to_owned(),
            rule_id: "hot".to_owned(),
            place: place.to_owned(),
            class: Class::Critical,
            state: State::Unack,
            value: None,
            limit: None,
            unit: None,
            happened_at: Timestamp::UNIX_EPOCH,
        }
    }

    fn places(told: &Told) -> Option<Vec<&str>> {
        match told {
            Told::All(notices) => Some(notices.iter().map(|(_, notice)| &*notice.place).collect()),
            Told::Gap(_) => None,
        }
    }

    #[tokio::test]
    async fn who_looks_on_hears_of_each_notice_once() {
        let feed = AlarmFeed::default();
        let mut watch = feed.watch();
        assert_eq!(places(&feed.since(0)), Some(vec![]));
        feed.tell(notice("a"));
        feed.tell(notice("b"));
        watch.changed().await.expect("somebody tells");
        assert_eq!(places(&feed.since(0)), Some(vec!["a", "b"]));
        assert_eq!(places(&feed.since(1)), Some(vec!["b"]));
        assert_eq!(places(&feed.since(*watch.borrow())), Some(vec![]));
    }

    #[test]
    fn what_is_older_than_the_memory_is_a_gap_and_so_is_a_number_of_another_life() {
        let feed = AlarmFeed::default();
        for number in 0..NOTICES_MAX + 10 {
            feed.tell(notice(&number.to_string()));
        }
        let newest = u64::try_from(NOTICES_MAX + 10).expect("a few");
        assert_eq!(feed.since(9), Told::Gap(newest));
        let Told::All(all) = feed.since(10) else { panic!("they are remembered") };
        assert_eq!((all.len(), all[0].0), (NOTICES_MAX, 11));
        assert_eq!(feed.since(newest + 1), Told::Gap(newest));
    }
}
