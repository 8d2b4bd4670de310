//! The journal: changes of sessions and retained messages on their way to the store, many in one transaction.
//!
//! Each change has a log sequence number. What a client is told of a change waits until the journal is stored up to that
//! number; the code that makes the change never waits here.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::error::Error;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard};
use std::time::Duration;

use tokio::sync::{Notify, watch};
use tokio::time::sleep;
use uuid::Uuid;

use crate::lines::Lines;
use crate::store::{Change, DoorStore, DoorStoreError, Fault};

/// Changes, and bytes of them, stored in one transaction; one change at least.
const BATCH_CHANGES_MAX: usize = 1000;
const BATCH_BYTES_MAX: usize = 2 << 20;
/// Changes that wait before clients that cause them are not read any more.
const WAITING_CHANGES_MAX: usize = 20_000;
/// Wait before a failed transaction is tried again.
const STORE_RETRY: Duration = Duration::from_secs(1);

/// A log sequence number: how far the journal must be stored before a client may see what was changed.
/// [`Lsn::START`] is stored always.
#[must_use = "what a client sees of a change waits for its number; a change that no client sees is for `Journal::note`"]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Lsn(u64);

impl Lsn {
    /// Before the first change.
    pub(crate) const START: Self = Self(0);

    /// The number of the change after this one.
    pub(crate) fn next(self) -> Self {
        Self(self.0 + 1)
    }

    /// No client is told of the change: after a kill it may not have happened.
    pub(crate) fn unseen(self) {}

    #[cfg(test)]
    pub(crate) fn at(number: u64) -> Self {
        Self(number)
    }
}

/// Another door keeps the sessions: nothing is stored any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Replaced;

/// What the log is told of the store, a few times a minute.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Trouble {
    /// A change was refused.
    Refused,
    /// Sessions are gone.
    Gone,
}

/// Collects changes and stores them in order.
pub(crate) struct Journal {
    state: Mutex<State>,
    /// Shared by those who record changes that belong together; whoever takes a batch to store it has it alone.
    whole: RwLock<()>,
    /// Changes that are not stored yet: read by every connection in every turn, so that it has no lock.
    waiting: AtomicUsize,
    filled: Notify,
    stored: watch::Sender<Lsn>,
    lost: Notify,
    lines: Lines<Trouble>,
    store: Arc<dyn DoorStore>,
}

#[derive(Default)]
struct State {
    last: Lsn,
    /// Those who record changes that belong together.
    wholes: usize,
    /// Changes that wait, in batches of one transaction each; only the last batch still grows.
    batches: VecDeque<Batch>,
    /// Sessions that the store does not have any more.
    gone: Vec<Uuid>,
}

/// Changes of one transaction. A batch that is being stored is shared with whoever stores it, and grows no more.
struct Batch {
    changes: Arc<Vec<Change>>,
    bytes: usize,
}

impl Batch {
    fn of(change: Change) -> Self {
        Self { bytes: change.cost_bytes(), changes: Arc::new(vec![change]) }
    }

    /// Takes one more change, or gives it back when the batch is being stored or, unless it `must_grow`, is full.
    fn add(&mut self, change: Change, must_grow: bool) -> Result<(), Change> {
        let bytes = self.bytes + change.cost_bytes();
        let has_room = self.changes.len() < BATCH_CHANGES_MAX && bytes <= BATCH_BYTES_MAX;
        match Arc::get_mut(&mut self.changes) {
            Some(changes) if has_room || must_grow => {
                changes.push(change);
                self.bytes = bytes;
                Ok(())
            }
            Some(_) | None => Err(change),
        }
    }
}

impl Journal {
    pub(crate) fn new(store: Arc<dyn DoorStore>) -> Self {
        Self {
            state: Mutex::default(),
            whole: RwLock::default(),
            waiting: AtomicUsize::new(0),
            filled: Notify::new(),
            stored: watch::Sender::default(),
            lost: Notify::new(),
            lines: Lines::default(),
            store,
        }
    }

    /// Appends a change that some client is told of, and says what to wait for before it is.
    pub(crate) fn record(&self, change: Change) -> Lsn {
        let mut state = self.lock();
        state.last.0 += 1;
        let lsn = state.last;
        let must_grow = state.wholes > 0;
        let left = match state.batches.back_mut() {
            Some(batch) => batch.add(change, must_grow).err(),
            None => Some(change),
        };
        state.batches.extend(left.map(Batch::of));
        self.waiting.fetch_add(1, Ordering::Relaxed);
        drop(state);
        self.filled.notify_one();
        lsn
    }

    /// Appends a change that no client is told of: after a kill it may not have happened.
    pub(crate) fn note(&self, change: Change) {
        self.record(change).unseen();
    }

    /// The number of the last change: what a client is told that depends on any change so far waits for it.
    pub(crate) fn last(&self) -> Lsn {
        self.lock().last
    }

    /// What is recorded while this lives is stored in one transaction, all or nothing. It must not live across an `await`.
    pub(crate) fn whole(&self) -> Whole<'_> {
        let guard = self.whole.read().unwrap_or_else(PoisonError::into_inner);
        self.lock().wholes += 1;
        Whole { journal: self, _guard: guard }
    }

    /// Follows how far the journal is stored.
    pub(crate) fn follow(&self) -> watch::Receiver<Lsn> {
        self.stored.subscribe()
    }

    /// Waits until the journal is stored up to there.
    pub(crate) async fn reaches(&self, lsn: Lsn) {
        // The sender lives as long as this.
        let _ = self.follow().wait_for(|stored| *stored >= lsn).await;
    }

    /// Whether the store is so far behind that nobody should add to it.
    pub(crate) fn is_behind(&self) -> bool {
        self.waiting.load(Ordering::Relaxed) >= WAITING_CHANGES_MAX
    }

    /// Stores changes as they come, until another door keeps the sessions.
    pub(crate) async fn keep(&self) -> Replaced {
        loop {
            self.filled.notified().await;
            if let Err(replaced) = self.store_all().await {
                return replaced;
            }
        }
    }

    /// Has it said once a minute what was too much for the log.
    pub(crate) async fn sum_up(&self) -> Infallible {
        self.lines.sum_up(say_more).await
    }

    /// Waits for sessions that the store does not have any more, and names them.
    pub(crate) async fn gone(&self) -> Vec<Uuid> {
        loop {
            let gone = std::mem::take(&mut self.lock().gone);
            if !gone.is_empty() {
                return gone;
            }
            self.lost.notified().await;
        }
    }

    /// Stores what waits, however often it takes. Whoever drops the future leaves no change out: a batch stays in its place
    /// until it is stored.
    pub(crate) async fn store_all(&self) -> Result<(), Replaced> {
        while let Some(batch) = self.next_batch() {
            self.store_batch(&batch).await?;
            self.advance(batch.len());
        }
        Ok(())
    }

    /// Stores a batch. A change that the store refuses for what it is must not keep all others from it for ever: the batch is
    /// halved until that change stands alone, and it is left out.
    async fn store_batch(&self, batch: &[Change]) -> Result<(), Replaced> {
        let mut parts = vec![batch];
        while let Some(part) = parts.pop() {
            let Some(error) = self.store_part(part).await? else { continue };
            if part.len() > 1 {
                let (first, second) = part.split_at(part.len() / 2);
                parts.extend([second, first]);
            } else if self.lines.has_room(Trouble::Refused) {
                tracing::error!(
                    error = &error as &dyn Error,
                    "a change of a session is lost: the store refuses it"
                );
            }
        }
        Ok(())
    }

    /// Stores changes in one transaction, however often it takes; an error says that they are refused for what they are.
    async fn store_part(&self, changes: &[Change]) -> Result<Option<DoorStoreError>, Replaced> {
        let mut failures = 0u32;
        loop {
            let error = match self.store.apply(changes).await {
                Ok(gone) => {
                    self.lose(gone);
                    if failures > 0 {
                        tracing::info!(failures, "sessions are stored again");
                    }
                    return Ok(None);
                }
                Err(error) => error,
            };
            match error.fault {
                Fault::Change => return Ok(Some(error)),
                Fault::Replaced => return Err(Replaced),
                Fault::Away => {}
            }
            if failures == 0 {
                tracing::warn!(
                    error = &error as &dyn Error,
                    changes = changes.len(),
                    "sessions not stored yet"
                );
            }
            failures += 1;
            sleep(STORE_RETRY).await;
        }
    }

    /// Remembers sessions that the store does not have any more.
    fn lose(&self, gone: Vec<Uuid>) {
        if gone.is_empty() {
            return;
        }
        if self.lines.has_room(Trouble::Gone) {
            tracing::warn!(sessions = gone.len(), "sessions ended: their rows were deleted");
        }
        self.lock().gone.extend(gone);
        self.lost.notify_one();
    }

    fn next_batch(&self) -> Option<Arc<Vec<Change>>> {
        let _nobody_records_a_part = self.whole.write().unwrap_or_else(PoisonError::into_inner);
        self.lock().batches.front().map(|batch| Arc::clone(&batch.changes))
    }

    fn advance(&self, count: usize) {
        self.lock().batches.pop_front();
        self.waiting.fetch_sub(count, Ordering::Relaxed);
        self.stored.send_modify(|stored| stored.0 += count as u64);
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn say_more(trouble: Trouble, more: u32) {
    tracing::warn!(?trouble, more, "more of the store's troubles in the last minute");
}

/// Changes that belong together are being recorded.
pub(crate) struct Whole<'a> {
    journal: &'a Journal,
    _guard: RwLockReadGuard<'a, ()>,
}

impl Drop for Whole<'_> {
    fn drop(&mut self) {
        self.journal.lock().wholes -= 1;
    }
}

#[cfg(test)]
mod tests {
    use async_trait::async_trait;

    use super::*;
    use crate::store::Stored;

    /// Is away for its first transaction, refuses to store a certain topic at all, and does not know a certain session.
    #[derive(Default)]
    struct Flaky(Mutex<(u32, Vec<Vec<Change>>)>);

    const POISON: &str = "t/1234";
    const GONE: Uuid = Uuid::from_u128(7);

    impl Flaky {
        fn stored(&self) -> Vec<Change> {
            self.0.lock().unwrap().1.concat()
        }
    }

    #[async_trait]
    impl DoorStore for Flaky {
        async fn keeps_sessions(&self) -> Result<bool, DoorStoreError> {
            Ok(true)
        }

        async fn load(&self) -> Result<Stored, DoorStoreError> {
            Ok(Stored::default())
        }

        async fn apply(&self, changes: &[Change]) -> Result<Vec<Uuid>, DoorStoreError> {
            let mut state = self.0.lock().unwrap();
            state.0 += 1;
            if state.0 == 1 {
                return Err(DoorStoreError { fault: Fault::Away, source: "away".into() });
            }
            if changes.contains(&Change::Unretained(Arc::from(POISON))) {
                return Err(DoorStoreError { fault: Fault::Change, source: "unheard of".into() });
            }
            let (gone, known): (Vec<_>, Vec<_>) =
                changes.iter().cloned().partition(|change| *change == Change::Ended { id: GONE });
            state.1.push(known);
            Ok(gone.iter().map(|_| GONE).collect())
        }
    }

    fn unretained(number: usize) -> Change {
        Change::Unretained(Arc::from(format!("t/{number}")))
    }

    fn journal() -> (Arc<Flaky>, Journal) {
        let store = Arc::new(Flaky::default());
        (Arc::clone(&store), Journal::new(store))
    }

    #[tokio::test(start_paused = true)]
    async fn changes_are_stored_in_order_whatever_one_of_them_is_and_when_the_first_try_fails() {
        let (store, journal) = journal();
        let mut changes: Vec<Change> = (0..2500).map(unretained).collect();
        let numbers: Vec<Lsn> = changes.iter().map(|change| journal.record(change.clone())).collect();
        let stored = journal.follow();
        assert_eq!(*stored.borrow(), Lsn::START);
        assert_eq!(journal.store_all().await, Ok(()));
        assert_eq!(*stored.borrow(), numbers[2499]);
        changes.retain(|change| *change != Change::Unretained(Arc::from(POISON)));
        assert_eq!(store.stored(), changes);
        let tries = store.0.lock().unwrap().0;
        assert!(tries < 30, "one bad change does not cost a transaction for each of the others: {tries}");
    }

    #[tokio::test(start_paused = true)]
    async fn sessions_that_the_store_does_not_have_are_named_and_stop_nobody() {
        let (store, journal) = journal();
        for change in [unretained(1), Change::Ended { id: GONE }, unretained(2)] {
            journal.note(change);
        }
        assert_eq!(journal.store_all().await, Ok(()));
        assert_eq!(journal.gone().await, [GONE]);
        assert_eq!(store.stored(), [unretained(1), unretained(2)]);
    }

    #[tokio::test(start_paused = true)]
    async fn what_belongs_together_is_stored_in_one_transaction() {
        let (store, journal) = journal();
        for number in 0..BATCH_CHANGES_MAX - 1 {
            journal.note(unretained(number + 2000));
        }
        let whole = journal.whole();
        journal.note(unretained(1));
        journal.note(unretained(2));
        drop(whole);
        journal.note(unretained(3));
        assert_eq!(journal.store_all().await, Ok(()));
        let batches = store.0.lock().unwrap().1.clone();
        let lengths: Vec<usize> = batches.iter().map(Vec::len).collect();
        assert_eq!(lengths, [BATCH_CHANGES_MAX + 1, 1]);
    }
}
