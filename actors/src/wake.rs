//! A hint that rows may be due. A lost one costs a poll interval, many at once count as one.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;

/// What one actor tells another to have it look at its rows. Cloning shares it.
#[derive(Clone, Debug, Default)]
pub struct Wake(Arc<Notify>);

impl Wake {
    /// Rows may be due.
    pub fn wake(&self) {
        self.0.notify_one();
    }

    /// Waits for a hint, at most so long.
    pub async fn wait(&self, at_most: Duration) {
        drop(tokio::time::timeout(at_most, self.0.notified()).await);
    }
}
