//! Retained messages: the last one of each topic that was published to be kept.
//!
//! Subscribers never get copies of the set: a [`Search`] remembers how far it came, and looks the next messages up when there
//! is room for them. So what waits for a slow subscriber is always the latest message of its topic, and costs nothing.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::ops::Bound;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use schema::clock::Timestamp;
use schema::wire::topic::{Topic, canonical, is_canonical};
use tokio::task::yield_now;

use crate::door::journal::{Journal, Lsn};
use crate::filter;
use crate::gatekeeper::Identity;
use crate::publication::Publication;
use crate::share::{Budget, Permit, Share, Spent};
use crate::stats::DoorStats;
use crate::store::{Change, Owner};

/// Messages, and bytes of them, that are retained together. What finds no room is shown to those who are there, and the
/// message before it stays.
const RETAINED_MESSAGES_MAX: usize = 100_000;
const RETAINED_BYTES_MAX: usize = 64 << 20;
/// What every owner may retain while there is any room: one part in so many.
const FLOOR_PART: usize = 1000;
/// Searches that are under way for all clients together, and for each owner while there is any room.
const SEARCHES_MAX: usize = 30_000;
const OWNER_SEARCHES_MIN: usize = 100;
/// Messages that are looked at before somebody else gets the lock of the set.
const LOOKED_AT_MAX: usize = 256;

/// The retained messages of the door.
pub(crate) struct Retained {
    messages: Mutex<BTreeMap<Arc<str>, Kept>>,
    count: Share<Owner>,
    bytes: Share<Owner>,
    searches: Share<Owner>,
    journal: Arc<Journal>,
    stats: Arc<DoorStats>,
}

struct Kept {
    publication: Arc<Publication>,
    bytes: Permit<Owner>,
    _one: Permit<Owner>,
}

/// The retained messages that match a filter, as far as they were not looked up yet.
#[derive(Debug)]
pub(crate) struct Search {
    filter: Arc<str>,
    /// The topic that was looked at last.
    after: Option<Arc<str>>,
    _permit: Permit<Owner>,
}

/// How far a search came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Progress {
    /// Nothing is left of it.
    Over,
    /// There was no room for the message that comes next.
    NoRoom,
    /// So many messages were looked at that others come first.
    Paused,
}

impl Search {
    /// What is searched for.
    pub(crate) fn filter(&self) -> &str {
        &self.filter
    }
}

impl Retained {
    /// What was stored. Rows of several spellings of one topic become one row.
    pub(crate) fn new(stored: Vec<Publication>, journal: Arc<Journal>, stats: Arc<DoorStats>) -> Self {
        let share = |budget, max| Share::new(budget, max, max / FLOOR_PART);
        let retained = Self {
            messages: Mutex::default(),
            count: share(Budget::RetainedMessages, RETAINED_MESSAGES_MAX),
            bytes: share(Budget::RetainedBytes, RETAINED_BYTES_MAX),
            searches: Share::new(Budget::RetainedPending, SEARCHES_MAX, OWNER_SEARCHES_MIN),
            journal,
            stats,
        };
        for publication in retained.fold(stored).into_values() {
            retained.restore(publication);
        }
        retained
    }

    /// Replaces the message of a topic; an empty payload removes it. Says where that is in the journal.
    pub(crate) fn set(&self, publication: &Arc<Publication>) -> Lsn {
        let mut messages = self.lock();
        if publication.payload.is_empty() {
            return match messages.remove(&publication.topic) {
                Some(_) => self.journal.record(Change::Unretained(Arc::clone(&publication.topic))),
                None => Lsn::START,
            };
        }
        match self.keep(&mut messages, publication) {
            Ok(()) => self.journal.record(Change::Retained(Arc::clone(publication))),
            Err(spent) => {
                self.stats.count_not_retained();
                self.stats.count_spent(spent);
                Lsn::START
            }
        }
    }

    /// Begins a search for a client of this owner.
    pub(crate) fn search(&self, owner: &Owner, filter: &Arc<str>) -> Result<Search, Spent> {
        let permit = self.searches.take(owner, 1).inspect_err(|spent| self.stats.count_spent(*spent))?;
        Ok(Search { filter: Arc::clone(filter), after: None, _permit: permit })
    }

    /// Hands the next messages of a search to `take` until it says that it has no room for one.
    pub(crate) fn look_up(
        &self,
        search: &mut Search,
        now: Timestamp,
        mut take: impl FnMut(&Arc<Publication>) -> bool,
    ) -> Progress {
        let filter = Arc::clone(&search.filter);
        let mut take_matching = |publication: &Arc<Publication>| {
            let is_found = filter::matches(&filter, &publication.topic) && !publication.is_expired(now);
            !is_found || take(publication)
        };
        if filter.contains(['+', '#']) {
            return self.walk(common_prefix(&filter), &mut search.after, take_matching);
        }
        let messages = self.lock();
        let has_room = messages.get(&filter).is_none_or(|kept| take_matching(&kept.publication));
        if has_room { Progress::Over } else { Progress::NoRoom }
    }

    /// Forgets what nobody wants any more.
    pub(crate) async fn drop_expired(&self, now: Timestamp) {
        let mut after = None;
        loop {
            let mut expired = Vec::new();
            let progress = self.walk("", &mut after, |publication| {
                expired.extend(publication.is_expired(now).then(|| Arc::clone(publication)));
                true
            });
            for publication in expired {
                self.remove_if_same(&publication);
            }
            if progress == Progress::Over {
                return;
            }
            yield_now().await;
        }
    }

    /// Goes on through the topics with a prefix, for so long that nobody waits for the lock.
    fn walk(
        &self,
        prefix: &str,
        after: &mut Option<Arc<str>>,
        mut visit: impl FnMut(&Arc<Publication>) -> bool,
    ) -> Progress {
        let messages = self.lock();
        let from = match after {
            Some(after) => Bound::Excluded(&**after),
            None => Bound::Included(prefix),
        };
        let mut progress = Progress::Over;
        let mut last = None;
        for (looked_at, (topic, kept)) in messages.range::<str, _>((from, Bound::Unbounded)).enumerate() {
            if !topic.starts_with(prefix) {
                break;
            }
            if looked_at == LOOKED_AT_MAX {
                progress = Progress::Paused;
                break;
            }
            if !visit(&kept.publication) {
                progress = Progress::NoRoom;
                break;
            }
            last = Some(topic);
        }
        if let Some(last) = last {
            *after = Some(Arc::clone(last));
        }
        progress
    }

    fn remove_if_same(&self, publication: &Arc<Publication>) {
        let mut messages = self.lock();
        let known = messages.get(&publication.topic);
        if known.is_some_and(|kept| Arc::ptr_eq(&kept.publication, publication)) {
            messages.remove(&publication.topic);
            self.journal.note(Change::Unretained(Arc::clone(&publication.topic)));
        }
    }

    /// Puts what was stored under a spelling of its own under the canonical one, unless there is a message already.
    fn fold(&self, stored: Vec<Publication>) -> BTreeMap<Arc<str>, Publication> {
        let (others, known): (Vec<_>, Vec<_>) =
            stored.into_iter().partition(|known| has_another_name(&known.topic));
        let mut folded: BTreeMap<Arc<str>, Publication> =
            known.into_iter().map(|publication| (Arc::clone(&publication.topic), publication)).collect();
        for publication in others {
            self.journal.note(Change::Unretained(Arc::clone(&publication.topic)));
            let topic: Arc<str> = Arc::from(canonical(&publication.topic));
            if let Entry::Vacant(vacant) = folded.entry(Arc::clone(&topic)) {
                let publication = vacant.insert(Publication { topic, ..publication });
                self.journal.note(Change::Retained(Arc::new(publication.clone())));
            }
        }
        folded
    }

    /// Takes up what was stored, whatever the limits are now.
    fn restore(&self, publication: Publication) {
        let owner = owner_of(&publication.topic);
        let kept = Kept {
            bytes: self.bytes.account(&owner).take_anyway(publication.cost_bytes()),
            _one: self.count.account(&owner).take_anyway(1),
            publication: Arc::new(publication),
        };
        self.lock().insert(Arc::clone(&kept.publication.topic), kept);
    }

    fn keep(
        &self,
        messages: &mut BTreeMap<Arc<str>, Kept>,
        publication: &Arc<Publication>,
    ) -> Result<(), Spent> {
        let cost = publication.cost_bytes();
        if let Some(kept) = messages.get_mut(&publication.topic) {
            kept.bytes.resize(cost)?;
            kept.publication = Arc::clone(publication);
            return Ok(());
        }
        let owner = owner_of(&publication.topic);
        let kept = Kept {
            publication: Arc::clone(publication),
            bytes: self.bytes.take(&owner, cost)?,
            _one: self.count.take(&owner, 1)?,
        };
        messages.insert(Arc::clone(&publication.topic), kept);
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<Arc<str>, Kept>> {
        self.messages.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What all topics begin with that a filter matches.
fn common_prefix(filter: &str) -> &str {
    let literal = filter.find(['+', '#']).map_or(filter, |end| &filter[..end]);
    // `a/#` matches `a` as well.
    if filter.ends_with('#') { literal.strip_suffix('/').unwrap_or(literal) } else { literal }
}

/// Whose share a retained message is part of: the device whose status it is. What has no meaning here can only come from
/// clients without a credential.
fn owner_of(topic: &str) -> Owner {
    let Ok(topic) = Topic::parse(topic) else { return Owner::Anonymous };
    let tenant_id = topic.place().tenant_id.clone();
    topic.device_id().map_or(Owner::Anonymous, |device_id| Owner::Device(Identity { tenant_id, device_id }))
}

fn has_another_name(topic: &str) -> bool {
    Topic::parse(topic).is_ok() && !is_canonical(topic)
}

#[cfg(test)]
#[path = "retained_tests.rs"]
mod tests;
