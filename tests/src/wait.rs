//! Waiting for something to become true, with an end to patience.

use std::time::Duration;

/// How long a test waits for what must come; far more than any machine needs.
pub const PATIENCE: Duration = Duration::from_secs(90);
/// How often it looks.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// Waits until something is true.
///
/// # Panics
/// When it never becomes true.
pub async fn until(what: &str, mut is_true: impl AsyncFnMut() -> bool) {
    let waiting = async {
        while !is_true().await {
            tokio::time::sleep(LOOK_EVERY).await;
        }
    };
    tokio::time::timeout(PATIENCE, waiting).await.unwrap_or_else(|_| panic!("never came true: {what}"));
}
