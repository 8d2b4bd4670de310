//! A store of the door in memory that lags, fails, hangs and outlives the door: what a kill leaves behind.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::watch;
use tokio::time::sleep;
use uuid::Uuid;

use crate::publication::Publication;
use crate::store::{Change, DoorStore, DoorStoreError, Fault, Queued, Stored, StoredSession, WaitingWill};

/// What the store does with the changes it is given.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Mood {
    /// Stores them at once.
    #[default]
    Well,
    /// Stores them after a second.
    Slow,
    /// Stores nothing and says so.
    Away,
    /// Stores them and says that it did not.
    Forgetting,
    /// Says nothing until the mood changes, and stores nothing before.
    HangingBefore,
    /// Stores them, and says nothing until the mood changes.
    HangingAfter,
}

impl Mood {
    pub(super) const ALL: [Self; 6] =
        [Self::Well, Self::Slow, Self::Away, Self::Forgetting, Self::HangingBefore, Self::HangingAfter];
}

/// The rows, and the mood of their store.
#[derive(Debug, Default)]
pub(super) struct Rows {
    tables: Mutex<Tables>,
    mood: watch::Sender<Mood>,
}

#[derive(Clone, Debug, Default)]
struct Tables {
    sessions: BTreeMap<Uuid, StoredSession>,
    queues: BTreeMap<(Uuid, u64), Queued>,
    wills: BTreeMap<Uuid, WaitingWill>,
    retained: BTreeMap<Arc<str>, Publication>,
}

impl Rows {
    pub(super) fn set_mood(&self, mood: Mood) {
        self.mood.send_replace(mood);
    }

    fn lock(&self) -> MutexGuard<'_, Tables> {
        self.tables.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn store(&self, changes: &[Change]) -> Vec<Uuid> {
        let mut tables = self.lock();
        changes.iter().filter_map(|change| tables.apply(change).err()).collect()
    }

    async fn mood_changes(&self, from: Mood) {
        // The sender lives as long as this.
        let _ = self.mood.subscribe().wait_for(|mood| *mood != from).await;
    }
}

#[async_trait]
impl DoorStore for Rows {
    async fn keeps_sessions(&self) -> Result<bool, DoorStoreError> {
        Ok(true)
    }

    async fn load(&self) -> Result<Stored, DoorStoreError> {
        let tables = self.lock().clone();
        let mut sessions = tables.sessions;
        for ((id, _), queued) in tables.queues {
            sessions.get_mut(&id).expect("a queue belongs to a session").queue.push(queued);
        }
        Ok(Stored {
            sessions: sessions.into_values().collect(),
            wills: tables.wills.into_values().collect(),
            retained: tables.retained.into_values().collect(),
        })
    }

    async fn apply(&self, changes: &[Change]) -> Result<Vec<Uuid>, DoorStoreError> {
        let mood = *self.mood.borrow();
        let away = || Err(DoorStoreError { fault: Fault::Away, source: "as it was told".into() });
        match mood {
            Mood::Well => Ok(self.store(changes)),
            Mood::Slow => {
                sleep(Duration::from_secs(1)).await;
                Ok(self.store(changes))
            }
            Mood::Away => away(),
            Mood::Forgetting => {
                self.store(changes);
                away()
            }
            Mood::HangingBefore => {
                self.mood_changes(mood).await;
                away()
            }
            Mood::HangingAfter => {
                let gone = self.store(changes);
                self.mood_changes(mood).await;
                Ok(gone)
            }
        }
    }
}

impl Tables {
    /// Makes one change; an error names a session that is not there. What is there twice changes nothing.
    fn apply(&mut self, change: &Change) -> Result<(), Uuid> {
        match change {
            Change::Session { id, client, expiry_seconds, left_at } => {
                let session = self.sessions.entry(*id).or_insert_with(|| StoredSession {
                    id: *id,
                    client: client.clone(),
                    expiry_seconds: *expiry_seconds,
                    left_at: *left_at,
                    subscriptions: Vec::new(),
                    received: Vec::new(),
                    queue: Vec::new(),
                });
                (session.expiry_seconds, session.left_at) = (*expiry_seconds, *left_at);
            }
            Change::Ended { id } => {
                self.sessions.remove(id);
                self.queues.retain(|(session, _), _| session != id);
            }
            Change::Subscribed { id, subscription } => {
                let subscriptions = &mut self.session(id)?.subscriptions;
                subscriptions.retain(|known| known.filter != subscription.filter);
                subscriptions.push(subscription.clone());
            }
            Change::Unsubscribed { id, filter } => {
                self.session(id)?.subscriptions.retain(|known| known.filter != *filter);
            }
            Change::Received { id, received } => {
                let known = &mut self.session(id)?.received;
                known.retain(|known| known.packet_id != received.packet_id);
                known.push(*received);
            }
            Change::Released { id, packet_id } => {
                self.session(id)?.received.retain(|known| known.packet_id != *packet_id);
            }
            Change::Queued { id, queued } => {
                self.session(id)?;
                self.queues.entry((*id, queued.sequence)).or_insert_with(|| queued.clone());
            }
            Change::Taken { id, sequence } => {
                if let Some(queued) = self.queues.get_mut(&(*id, *sequence)) {
                    queued.is_received = true;
                }
            }
            Change::Dequeued { id, sequence } => {
                self.queues.remove(&(*id, *sequence));
            }
            Change::WillWaits(will) => {
                self.wills.insert(will.id, WaitingWill::clone(will));
            }
            Change::WillGone { id } => {
                self.wills.remove(id);
            }
            Change::Retained(publication) => {
                self.retained.insert(Arc::clone(&publication.topic), Publication::clone(publication));
            }
            Change::Unretained(topic) => {
                self.retained.remove(topic);
            }
        }
        Ok(())
    }

    fn session(&mut self, id: &Uuid) -> Result<&mut StoredSession, Uuid> {
        self.sessions.get_mut(id).ok_or(*id)
    }
}
