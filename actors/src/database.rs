//! The health of the database, as everything that asks it finds it.

use std::error::Error;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use schema::metrics;
use schema::store::{Store, StoreError};
use tokio::time::Instant;

use crate::cause::cause_of;
use crate::chore::Chore;

/// How often the database is asked when nobody else asks it.
const PROBE: Duration = Duration::from_secs(2);
/// A database that takes longer for nothing at all is in trouble.
const ANSWER_MAX: Duration = Duration::from_secs(3);

/// Since when nothing could be committed. Cloning shares the knowledge.
#[derive(Clone, Debug, Default)]
pub struct DatabaseHealth {
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    was_asked: bool,
    failing_since: Option<Instant>,
}

impl DatabaseHealth {
    /// Work succeeded.
    pub fn works(&self) {
        let mut state = self.lock();
        if let Some(since) = state.failing_since.take() {
            tracing::info!(seconds = since.elapsed().as_secs(), "database is back");
        }
        state.was_asked = true;
        metrics::db_up().set(1.0);
    }

    /// Work failed, and not for its data.
    pub fn fails(&self, error: &dyn Error) {
        let mut state = self.lock();
        state.was_asked = true;
        if state.failing_since.is_none() {
            state.failing_since = Some(Instant::now());
            tracing::warn!(%error, cause = cause_of(error), "database fails, waiting for it");
        }
        metrics::db_up().set(0.0);
    }

    /// How long it has been failing; zero while it works.
    #[must_use]
    pub fn stalled_for(&self) -> Duration {
        self.lock().failing_since.map_or(Duration::ZERO, |since| since.elapsed())
    }

    /// Whether the last thing asked of it succeeded.
    #[must_use]
    pub fn is_up(&self) -> bool {
        let state = self.lock();
        state.was_asked && state.failing_since.is_none()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().expect("nothing panics while it holds the lock")
    }
}

/// Asks the database when nobody else does.
#[derive(Clone)]
pub struct DatabaseProbe {
    /// The database.
    pub store: Store,
    /// Who is told.
    pub health: DatabaseHealth,
}

impl Chore for DatabaseProbe {
    const NAME: &'static str = "database";
    const RETRY: Duration = PROBE;
    const RETRY_MAX: Duration = PROBE;
    type Error = StoreError;

    async fn run(&mut self) -> Result<Duration, StoreError> {
        let silent = Err(StoreError::Unanswered { name: "ping" });
        let outcome = tokio::time::timeout(ANSWER_MAX, self.store.ping()).await.unwrap_or(silent);
        match &outcome {
            Ok(()) => self.health.works(),
            Err(error) => self.health.fails(error),
        }
        let (in_use, _) = self.store.pool_in_use();
        metrics::db_pool_in_use().set(f64::from(u32::try_from(in_use).unwrap_or(u32::MAX)));
        outcome.map(|()| PROBE)
    }
}
