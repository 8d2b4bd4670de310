//! Log lines of strangers' making: each is counted, and a flood of them does not flood the log.

use std::collections::HashMap;
use std::convert::Infallible;
use std::hash::Hash;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::sleep;

/// Lines of one reason in a minute.
const LINES_PER_MINUTE_MAX: u32 = 10;
const MINUTE: Duration = Duration::from_secs(60);

/// How often each reason was given in this minute. Reasons are a closed list.
pub struct Lines<K>(Mutex<HashMap<K, u32>>);

impl<K> Default for Lines<K> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<K: Copy + Eq + Hash> Lines<K> {
    /// Notes that there is something to say; says whether it gets a line of its own.
    pub fn has_room(&self, reason: K) -> bool {
        let mut counts = self.lock();
        let count = counts.entry(reason).or_default();
        *count = count.saturating_add(1);
        *count <= LINES_PER_MINUTE_MAX
    }

    /// Has it said once a minute, for ever, for which reasons there was more than lines, and how much more.
    pub async fn sum_up(&self, say: impl Fn(K, u32)) -> Infallible {
        loop {
            sleep(MINUTE).await;
            self.begin_minute().into_iter().for_each(|(reason, more)| say(reason, more));
        }
    }

    /// Forgets the last minute; says for which reasons how many lines were left out in it.
    fn begin_minute(&self) -> Vec<(K, u32)> {
        let counts = std::mem::take(&mut *self.lock());
        let left_out = |(reason, count): (K, u32)| (reason, count.saturating_sub(LINES_PER_MINUTE_MAX));
        counts.into_iter().map(left_out).filter(|(_, more)| *more > 0).collect()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<K, u32>> {
        // A count is right whoever panics.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ten_lines_a_minute_and_then_a_number() {
        let lines = Lines::default();
        let shown = (0..25).filter(|_| lines.has_room("full")).count();
        assert_eq!(shown, 10);
        assert!(lines.has_room("acl"), "each reason has lines of its own");
        assert_eq!(lines.begin_minute(), [("full", 15)]);
        assert!(lines.has_room("full"));
        assert_eq!(lines.begin_minute(), []);
    }
}
