//! The health of the database, as everything that writes to it finds it.

pub mod probe;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use schema::metrics;
use schema::store::StoreError;
use tokio::time::Instant;

/// How long nothing is committed before a row is written to see whether that is possible.
const PROBE: Duration = Duration::from_secs(2);
/// After a commit failed, the probe has no say for so long: whoever has something to commit tries again before that, and
/// knows better.
const QUIET: Duration = Duration::from_secs(10);

/// Since when nothing could be committed. Cloning shares the knowledge.
#[derive(Clone, Debug, Default)]
pub struct DatabaseHealth {
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    /// When something was committed last.
    worked_at: Option<Instant>,
    /// Since when nothing was, although somebody tried.
    failing_since: Option<Instant>,
    /// When a commit failed last.
    failed_at: Option<Instant>,
    /// Whether the trouble is that there is no room.
    lacks_room: bool,
}

impl DatabaseHealth {
    /// Something was committed.
    pub fn works(&self) {
        let mut state = self.lock();
        if let Some(since) = state.failing_since {
            tracing::info!(seconds = since.elapsed().as_secs(), "the database takes writes again");
        }
        *state = State { worked_at: Some(Instant::now()), ..State::default() };
        metrics::db_up().set(1.0);
    }

    /// A commit failed, and not for its data.
    pub fn fails(&self, error: &StoreError) {
        let mut state = self.lock();
        state.failed_at = Some(Instant::now());
        state.fail(error);
    }

    /// How long it has been failing; zero while it works.
    #[must_use]
    pub fn stalled_for(&self) -> Duration {
        self.lock().failing_since.map_or(Duration::ZERO, |since| since.elapsed())
    }

    /// Whether what was tried last was committed.
    #[must_use]
    pub fn is_up(&self) -> bool {
        let state = self.lock();
        state.worked_at.is_some() && state.failing_since.is_none()
    }

    /// What a probe has found, which says less than a commit: see [`QUIET`].
    fn probed(&self, outcome: &Result<(), StoreError>) {
        let has_say = self.lock().failed_at.is_none_or(|at| at.elapsed() >= QUIET);
        match outcome {
            Ok(()) if has_say => self.works(),
            Ok(()) => {}
            Err(error) => self.lock().fail(error),
        }
    }

    /// What a probe has to find out; `None` while commits tell enough.
    fn question(&self) -> Option<Question> {
        let state = self.lock();
        let is_known =
            state.failing_since.is_none() && state.worked_at.is_some_and(|at| at.elapsed() < PROBE);
        (!is_known).then_some(Question { needs_room: state.lacks_room })
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().expect("nothing panics while it holds the lock")
    }
}

impl State {
    /// Said once for each trouble.
    fn fail(&mut self, error: &StoreError) {
        self.lacks_room |= error.is_lack_of_room();
        if self.failing_since.is_none() {
            self.failing_since = Some(Instant::now());
            let cause = schema::store::cause(error);
            tracing::warn!(%error, cause, "the database takes no writes, nothing is acknowledged meanwhile");
        }
        metrics::db_up().set(0.0);
    }
}

/// What a probe has to find out.
#[derive(Debug, PartialEq, Eq)]
struct Question {
    /// Whether there is room for more than a row.
    needs_room: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error() -> StoreError {
        StoreError::Unanswered { name: "test" }
    }

    #[tokio::test(start_paused = true)]
    async fn after_a_commit_failed_only_a_commit_says_that_the_database_works() {
        let health = DatabaseHealth::default();
        assert!(!health.is_up(), "nobody knows");
        health.works();
        health.fails(&error());
        tokio::time::advance(Duration::from_secs(4)).await;
        health.probed(&Ok(()));
        assert!(!health.is_up());
        assert_eq!(health.stalled_for(), Duration::from_secs(4));
        health.works();
        assert!(health.is_up());
    }

    #[tokio::test(start_paused = true)]
    async fn when_nobody_tries_any_more_the_probe_says_it() {
        let health = DatabaseHealth::default();
        health.fails(&error());
        tokio::time::advance(QUIET).await;
        health.probed(&Err(error()));
        assert!(!health.is_up());
        health.probed(&Ok(()));
        assert!(health.is_up());
    }

    #[tokio::test(start_paused = true)]
    async fn nothing_is_probed_while_others_write() {
        let health = DatabaseHealth::default();
        assert_eq!(health.question(), Some(Question { needs_room: false }));
        health.works();
        assert_eq!(health.question(), None);
        tokio::time::advance(PROBE).await;
        assert!(health.question().is_some());
        health.works();
        health.fails(&error());
        assert!(health.question().is_some());
    }
}
