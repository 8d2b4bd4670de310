//! The journal: changes of sessions and retained messages on their way to the store, many in one transaction.
//!
//! Each change has a place in it. An answer that promises something waits until the journal is stored up to the place of
//! what it promises; whoever changes something never waits here.

use std::error::Error;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, watch};
use tokio::time::sleep;

use crate::store::{Change, DoorStore, DoorStoreError};

/// Changes, and bytes of them, stored in one transaction; one change at least.
const BATCH_CHANGES_MAX: usize = 1000;
const BATCH_BYTES_MAX: usize = 8 << 20;
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
            self.store_batch(&batch).await;
            self.advance(batch.len(), last);
        }
    }

    /// Stores a batch. A change that the store refuses for what it is must not keep all others from it for ever: the batch is
    /// stored one by one then, and that change is left out.
    async fn store_batch(&self, batch: &[Change]) {
        let mut refused = match self.store_part(batch).await {
            Ok(()) => return,
            Err(error) if batch.len() > 1 => {
                tracing::warn!(
                    error = &error as &dyn Error,
                    "some change of a session is refused by the store"
                );
                Vec::new()
            }
            Err(error) => vec![error],
        };
        for change in batch.iter().filter(|_| batch.len() > 1) {
            refused.extend(self.store_part(std::slice::from_ref(change)).await.err());
        }
        for error in refused {
            tracing::error!(
                error = &error as &dyn Error,
                "a change of a session is lost: the store refuses it"
            );
        }
    }

    /// Stores changes in one transaction, however often it takes; an error says that they are refused for what they are.
    async fn store_part(&self, changes: &[Change]) -> Result<(), DoorStoreError> {
        loop {
            match self.store.apply(changes).await {
                Err(error) if !error.is_data => {
                    tracing::warn!(
                        error = &error as &dyn Error,
                        changes = changes.len(),
                        "sessions not stored yet"
                    );
                    sleep(STORE_RETRY).await;
                }
                outcome => return outcome,
            }
        }
    }

    fn next_batch(&self) -> Option<(Vec<Change>, Place)> {
        let state = self.lock();
        let mut bytes = 0;
        let fits = state.waiting.iter().take(BATCH_CHANGES_MAX).take_while(|change| {
            let is_first = bytes == 0;
            bytes += change.cost_bytes() + 1;
            is_first || bytes <= BATCH_BYTES_MAX
        });
        let count = fits.count();
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

    /// Is away for its first transaction, and refuses to store a certain topic at all.
    #[derive(Default)]
    struct Flaky(Mutex<(u32, Vec<Change>)>);

    const POISON: &str = "t/1234";

    #[async_trait]
    impl DoorStore for Flaky {
        async fn load(&self) -> Result<Stored, DoorStoreError> {
            Ok(Stored::default())
        }

        async fn apply(&self, changes: &[Change]) -> Result<(), DoorStoreError> {
            let mut state = self.0.lock().unwrap();
            state.0 += 1;
            if state.0 == 1 {
                return Err(DoorStoreError { is_data: false, source: "away".into() });
            }
            if changes.contains(&Change::Unretained(Arc::from(POISON))) {
                return Err(DoorStoreError { is_data: true, source: "unheard of".into() });
            }
            state.1.extend_from_slice(changes);
            Ok(())
        }
    }

    #[tokio::test(start_paused = true)]
    async fn changes_are_stored_in_order_whatever_one_of_them_is_and_when_the_first_try_fails() {
        let store = Arc::new(Flaky::default());
        let journal = Journal::new(Arc::clone(&store) as Arc<dyn DoorStore>);
        let mut changes: Vec<Change> =
            (0..2500).map(|number| Change::Unretained(Arc::from(format!("t/{number}")))).collect();
        let places: Vec<Place> = changes.iter().map(|change| journal.record(change.clone())).collect();
        let stored = journal.follow();
        assert_eq!(*stored.borrow(), Place::START);
        journal.store_all().await;
        assert_eq!(*stored.borrow(), places[2499]);
        changes.retain(|change| *change != Change::Unretained(Arc::from(POISON)));
        assert_eq!(store.0.lock().unwrap().1, changes);
    }
}
