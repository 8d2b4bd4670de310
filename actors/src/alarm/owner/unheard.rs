//! What reaches an engine that does not own the alarms: it notes since when in the database, and the owner reads the rows.

use std::collections::BTreeMap;

use ractor::ActorRef;
use schema::clock::Timestamp;
use schema::store::alarm::{Barn, scene as rows, unheard};
use schema::store::{Conn, StoreError};

use super::{HOUSES_MAX, Msg, State, barn_of};
use crate::telemetry::tap::Heard;

/// What is to be noted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Word {
    /// Since when, by barn.
    barns: BTreeMap<Barn, Timestamp>,
    /// Since when something of nobody knows which barn came in.
    all: Option<Timestamp>,
}

impl Word {
    fn note(&mut self, barn: Barn, since: Timestamp) {
        if self.barns.len() < HOUSES_MAX || self.barns.contains_key(&barn) {
            let known = self.barns.entry(barn).or_insert(since);
            *known = since.min(*known);
        } else {
            self.note_all(since);
        }
    }

    fn note_all(&mut self, since: Timestamp) {
        self.all = Some(self.all.map_or(since, |known| known.min(since)));
    }

    fn add(&mut self, other: Self) {
        for (barn, since) in other.barns {
            self.note(barn, since);
        }
        if let Some(since) = other.all {
            self.note_all(since);
        }
    }

    fn is_empty(&self) -> bool {
        self.barns.is_empty() && self.all.is_none()
    }
}

/// What this engine has heard while it does not own the alarms, and what it was told as their owner.
#[derive(Debug)]
pub(super) struct Unheard {
    word: Word,
    /// The newest commit that was heard.
    heard_until: Timestamp,
    is_noting: bool,
    is_taking: bool,
    /// Whether what was noted may have been taken without being read.
    is_unsure: bool,
}

impl Unheard {
    /// Nothing yet.
    pub(super) fn since(now: Timestamp) -> Self {
        Self { word: Word::default(), heard_until: now, is_noting: false, is_taking: false, is_unsure: false }
    }

    /// A commit, of an engine that owns the alarms or not.
    pub(super) fn hear(&mut self, heard: &Heard, is_owner: bool) {
        match heard {
            Heard::Fresh(fresh) => {
                if !is_owner {
                    for barn in fresh.units.iter().filter_map(barn_of) {
                        self.word.note(barn, fresh.stored_at);
                    }
                }
                self.heard_until = fresh.stored_at;
            }
            Heard::Missed(_) if !is_owner => self.word.note_all(self.heard_until),
            Heard::Missed(_) => {}
        }
    }

    /// The barns of which something was heard and not noted: whoever owns the alarms now reads them itself.
    pub(super) fn take_barns(&mut self) -> impl Iterator<Item = Barn> {
        std::mem::take(&mut self.word).barns.into_keys()
    }
}

impl State {
    /// Says to the owner what it cannot hear, or hears what others have to say.
    pub(super) fn see_to_unheard(&mut self, myself: &ActorRef<Msg>) {
        if self.ownership.is_some() {
            if !self.unheard.is_taking {
                self.unheard.is_taking = true;
                let store = self.args.store.clone();
                let take = async |conn: &mut Conn| unheard::take(conn).await;
                self.begin(myself, async move { Msg::Unheard(store.run("alarm_unheard_take", take).await) });
            }
        } else if !self.unheard.is_noting && !self.unheard.word.is_empty() {
            self.unheard.is_noting = true;
            let (store, word) = (self.args.store.clone(), std::mem::take(&mut self.unheard.word));
            self.begin(myself, async move {
                let noted = store.run("alarm_unheard_note", async |conn| note(conn, &word).await).await;
                Msg::Noted(word, noted)
            });
        }
    }

    pub(super) fn noted(&mut self, word: Word, outcome: Result<(), StoreError>) {
        self.unheard.is_noting = false;
        if let Err(error) = outcome {
            tracing::debug!(%error, "the owner of the alarms cannot be told now");
            self.unheard.word.add(word);
        }
    }

    /// Others have stored something. When nobody knows whether that was taken, everything is read again.
    pub(super) fn take_unheard(&mut self, outcome: Result<Vec<(Barn, Timestamp)>, StoreError>) {
        self.unheard.is_taking = false;
        let Ok(noted) = outcome else {
            self.unheard.is_unsure = true;
            return;
        };
        if std::mem::take(&mut self.unheard.is_unsure) {
            self.missed.extend(self.houses.keys().cloned());
        }
        for (barn, since) in noted {
            if self.houses.contains_key(&barn) {
                let known = self.since.entry(barn).or_insert(since);
                *known = since.min(*known);
            } else {
                self.missed.insert(barn);
            }
        }
    }
}

async fn note(conn: &Conn, word: &Word) -> Result<(), StoreError> {
    let mut barns = word.barns.clone();
    if let Some(since) = word.all {
        for barn in rows::barns(conn).await? {
            let known = barns.entry(barn).or_insert(since);
            *known = since.min(*known);
        }
    }
    unheard::note(conn, &barns.into_iter().collect::<Vec<_>>()).await
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use schema::store::telemetry::Reading;

    use super::*;
    use crate::telemetry::Unit;
    use crate::telemetry::tap::Fresh;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_timestamp(1_790_000_000 + second, 0).unwrap()
    }

    fn fresh(barn: &str, second: i64) -> Heard {
        let name = |name: &str| name.to_owned();
        let reading = Reading {
            id: schema::id::new_id(),
            outbox_id: schema::id::new_id(),
            tenant_id: name("t-001"),
            farm_id: name("f-001"),
            barn_id: name(barn),
            device_id: name("d-1"),
            event_id: name("e"),
            metric: name("temperature"),
            value: 31.0,
            unit: None,
            occurred_at: at(second),
            trace_id: name("tr"),
            topic: name("topic"),
            hash: name("hash"),
        };
        Heard::Fresh(Arc::new(Fresh { units: vec![Unit::Reading(reading)], stored_at: at(second) }))
    }

    fn barn(name: &str) -> Barn {
        Barn { tenant_id: "t-001".to_owned(), farm_id: "f-001".to_owned(), barn_id: name.to_owned() }
    }

    #[test]
    fn a_barn_is_noted_since_its_first_commit() {
        let mut unheard = Unheard::since(at(0));
        for heard in [fresh("b-1", 5), fresh("b-2", 6), fresh("b-1", 7)] {
            unheard.hear(&heard, false);
        }
        let noted: Vec<_> = unheard.word.barns.clone().into_iter().collect();
        assert_eq!(noted, [(barn("b-1"), at(5)), (barn("b-2"), at(6))]);
        // What could not be noted is noted with what came meanwhile.
        let failed = std::mem::take(&mut unheard.word);
        unheard.hear(&fresh("b-1", 9), false);
        unheard.word.add(failed);
        assert_eq!(unheard.word.barns[&barn("b-1")], at(5));
    }

    #[test]
    fn of_what_was_missed_nobody_knows_the_barn_and_it_came_behind_the_last_that_was_heard() {
        let mut unheard = Unheard::since(at(0));
        unheard.hear(&fresh("b-1", 5), true);
        assert!(unheard.word.is_empty(), "the owner heard it itself");
        unheard.hear(&Heard::Missed(3), false);
        assert_eq!(unheard.word.all, Some(at(5)));
    }

    #[test]
    fn of_more_barns_than_there_may_be_all_are_noted() {
        let mut word = Word::default();
        for number in 0..=HOUSES_MAX {
            word.note(barn(&number.to_string()), at(3));
        }
        assert_eq!((word.barns.len(), word.all), (HOUSES_MAX, Some(at(3))));
    }
}
