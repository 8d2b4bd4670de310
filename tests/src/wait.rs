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

/// How long nothing must change until nothing more is expected; far more than any message takes.
const STILL: Duration = Duration::from_secs(1);

/// Waits until a figure has stood still for a while, and returns it.
///
/// # Panics
/// When it never does.
pub async fn still<T: PartialEq>(what: &str, mut figure: impl AsyncFnMut() -> T) -> T {
    let waiting = async {
        let (mut last, mut since) = (figure().await, tokio::time::Instant::now());
        while since.elapsed() < STILL {
            tokio::time::sleep(LOOK_EVERY).await;
            let now = figure().await;
            if now != last {
                (last, since) = (now, tokio::time::Instant::now());
            }
        }
        last
    };
    tokio::time::timeout(PATIENCE, waiting).await.unwrap_or_else(|_| panic!("never stood still: {what}"))
}
