//! The journal: changes of sessions and retained messages on their way to the store, many in one transaction.
//!
//! Each change has a place in it. An answer that promises something waits until the journal is stored up to the place of
//! what it promises; whoever changes something never waits here.

use std::error::Error;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, watch};
use tokio::time::sleep;

use crate::store::{Change, DoorStore};

/// Changes stored in one transaction.
const BATCH_CHANGES_MAX: usize = 1000;
/// Changes that wait before clients that cause them are not read any more.
const WAITING_CHANGES_MAX: usize = 20_000;
/// Wait before a failed transaction is tried again.
const STORE_RETRY: Duration = Duration::from_secs(1);

/// A place in the journal; [`Place::START`] is stored always.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Place(u64);

impl Place {
    /// Before the first change.
    pub(crate) const START: Self = Self(0);
}

/// Collects changes and stores them in order.
pub(crate) struct Journal {
    state: Mutex<State>,
    filled: Notify,
    stored: watch::Sender<Place>,
    store: Arc<dyn DoorStore>,
}

#[derive(Default)]
struct State {
    last: Place,
    waiting: Vec<Change>,
}

impl Journal {
    pub(crate) fn new(store: Arc<dyn DoorStore>) -> Self {
        Self { state: Mutex::default(), filled: Notify::new(), stored: watch::Sender::default(), store }
    }

    /// Appends a change and says its place.
    pub(crate) fn record(&self, change: Change) -> Place {
        let mut state = self.lock();
        state.last.0 += 1;
        state.waiting.push(change);
        let place = state.last;
        drop(state);
        self.filled.notify_one();
        place
    }

    /// Follows how far the journal is stored.
    pub(crate) fn follow(&self) -> watch::Receiver<Place> {
        self.stored.subscribe()
    }

    /// Whether the store is so far behind that nobody should add to it.
    pub(crate) fn is_behind(&self) -> bool {
        self.lock().waiting.len() >= WAITING_CHANGES_MAX
    }

    /// Stores changes as they come, until it is dropped.
    pub(crate) async fn keep(&self) {
        loop {
            self.filled.notified().await;
            self.store_all().await;
        }
    }

    /// Stores what waits, however often it takes.
    pub(crate) async fn store_all(&self) {
        while let Some((batch, last)) = self.next_batch() {
            while let Err(error) = self.store.apply(&batch).await {
                tracing::warn!(
                    error = &error as &dyn Error,
                    changes = batch.len(),
                    "sessions not stored yet"
                );
                sleep(STORE_RETRY).await;
            }
            self.advance(batch.len(), last);
        }
    }

    fn next_batch(&self) -> Option<(Vec<Change>, Place)> {
        let state = self.lock();
        let count = state.waiting.len().min(BATCH_CHANGES_MAX);
        let last = Place(state.last.0 - (state.waiting.len() - count) as u64);
        // Copied, not taken: whoever drops this future half way leaves nothing out.
        (count > 0).then(|| (state.waiting[..count].to_vec(), last))
    }

    fn advance(&self, count: usize, last: Place) {
        self.lock().waiting.drain(..count);
        self.stored.send_replace(last);
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use async_trait::async_trait;

    use super::*;
    use crate::store::{DoorStoreError, Stored};

    /// Refuses its first transaction.
    #[derive(Default)]
    struct Flaky(Mutex<(u32, Vec<Change>)>);

    #[async_trait]
    impl DoorStore for Flaky {
        async fn load(&self) -> Result<Stored, DoorStoreError> {
            Ok(Stored::default())
        }

        async fn apply(&self, changes: &[Change]) -> Result<(), DoorStoreError> {
            let mut state = self.0.lock().unwrap();
            state.0 += 1;
            if state.0 == 1 {
                return Err(DoorStoreError("away".into()));
            }
            state.1.extend_from_slice(changes);
            Ok(())
        }
    }

    #[tokio::test(start_paused = true)]
    async fn changes_are_stored_in_order_even_when_the_first_try_fails() {
        let store = Arc::new(Flaky::default());
        let journal = Journal::new(Arc::clone(&store) as Arc<dyn DoorStore>);
        let changes: Vec<Change> =
            (0..2500).map(|number| Change::Unretained(Arc::from(format!("t/{number}")))).collect();
        let places: Vec<Place> = changes.iter().map(|change| journal.record(change.clone())).collect();
        let stored = journal.follow();
        assert_eq!(*stored.borrow(), Place::START);
        journal.store_all().await;
        assert_eq!(*stored.borrow(), places[2499]);
        assert_eq!(store.0.lock().unwrap().1, changes);
    }
}
