//! What is known of the cloud without asking it.

use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

use schema::clock::Timestamp;
use schema::metrics;
use tokio::time::Instant;

/// How often a batch that is taken after a failure ends the pauses of others.
const RECOVERY_EVERY: Duration = Duration::from_secs(60);

/// Whether the cloud answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CloudState {
    /// The last exchange succeeded.
    Up,
    /// The last exchange failed.
    Down,
    /// There was none yet.
    Unknown,
    /// None is configured, or nothing is sent.
    Disabled,
}

impl CloudState {
    /// The word for it on the wire and in logs.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Up => "up",
            Self::Down => "down",
            Self::Unknown => "unknown",
            Self::Disabled => "disabled",
        }
    }
}

/// What is known of the cloud.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CloudView {
    /// Whether it answers.
    pub state: CloudState,
    /// When it last took a batch.
    pub last_success_at: Option<Timestamp>,
    /// When it last did not.
    pub last_error_at: Option<Timestamp>,
    /// Why.
    pub last_error: Option<String>,
}

/// The view that the partitions keep up to date.
#[derive(Debug)]
pub(crate) struct SyncStatus {
    inner: Mutex<Inner>,
}

#[derive(Debug)]
struct Inner {
    view: CloudView,
    exchanged_at: Option<Instant>,
    /// When a batch was last taken after a failure.
    recovered_at: Option<Instant>,
}

impl SyncStatus {
    pub(crate) fn new(is_enabled: bool) -> Self {
        let state = if is_enabled { CloudState::Unknown } else { CloudState::Disabled };
        let view = CloudView { state, last_success_at: None, last_error_at: None, last_error: None };
        Self { inner: Mutex::new(Inner { view, exchanged_at: None, recovered_at: None }) }
    }

    pub(crate) fn view(&self) -> CloudView {
        self.lock().view.clone()
    }

    /// What an earlier life of the engine knew.
    pub(crate) fn remember(&self, last_success_at: Option<Timestamp>) {
        let mut inner = self.lock();
        inner.view.last_success_at = inner.view.last_success_at.max(last_success_at);
    }

    /// The cloud has taken a batch; says whether that is news to those who wait for it. Where one tenant's batches pass
    /// and another's fail, it is news once in [`RECOVERY_EVERY`].
    pub(crate) fn took_batch(&self, now: Timestamp) -> bool {
        let is_news = {
            let mut inner = self.lock();
            inner.view.last_success_at = Some(now);
            let is_back = inner.view.state == CloudState::Down
                && inner.recovered_at.is_none_or(|at| at.elapsed() >= RECOVERY_EVERY);
            if is_back {
                inner.recovered_at = Some(Instant::now());
            }
            is_back
        };
        self.answered();
        is_news
    }

    /// The cloud has answered as it should.
    pub(crate) fn answered(&self) {
        self.change(CloudState::Up);
    }

    /// It has not.
    pub(crate) fn failed(&self, now: Timestamp, error: String) {
        {
            let mut inner = self.lock();
            inner.view.last_error_at = Some(now);
            inner.view.last_error = Some(error);
        }
        self.change(CloudState::Down);
    }

    /// Since when there was no exchange; `None` when there was none at all.
    pub(crate) fn exchanged_at(&self) -> Option<Instant> {
        self.lock().exchanged_at
    }

    fn change(&self, state: CloudState) {
        let mut inner = self.lock();
        inner.exchanged_at = Some(Instant::now());
        if inner.view.state != state {
            let error = inner.view.last_error.as_deref().filter(|_| state == CloudState::Down);
            tracing::info!(state = state.as_str(), error, "the cloud's state changed");
        }
        inner.view.state = state;
        metrics::sync_cloud_up().set(if state == CloudState::Up { 1.0 } else { 0.0 });
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().expect("nothing panics while it holds the lock")
    }
}
