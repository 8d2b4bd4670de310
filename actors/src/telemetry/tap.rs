//! What is told after each commit of readings: everything that is new now, and nothing that was stored before.
//!
//! Whoever listens gets whole batches, shared and never copied; when nobody does, none is made. Nobody makes a writer wait:
//! who is slower than [`BATCHES_MAX`] batches is told how many it missed and reads the rows, which are the truth.

use std::sync::Arc;

use schema::clock::Timestamp;
use tokio::sync::broadcast;
use tokio::sync::broadcast::error::TryRecvError;

use super::Unit;

/// Batches that wait for the slowest listener at most. One has up to [`super::BATCH_ROWS_MAX`] units.
pub const BATCHES_MAX: usize = 32;

/// What one commit stored.
#[derive(Debug)]
pub struct Fresh {
    /// Readings, events and states of devices that are new, those of one device in the order of their arrival.
    pub units: Vec<Unit>,
    /// When they were stored: `ingested_at` of their rows.
    pub stored_at: Timestamp,
}

/// Where writers tell and others listen. Cloning shares it.
#[derive(Clone, Debug)]
pub struct Tap(broadcast::Sender<Arc<Fresh>>);

impl Default for Tap {
    fn default() -> Self {
        Self(broadcast::Sender::new(BATCHES_MAX))
    }
}

impl Tap {
    /// Listens to commits from now on.
    #[must_use]
    pub fn listen(&self) -> Listener {
        Listener(self.0.subscribe())
    }

    /// Whether anybody listens.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.0.receiver_count() > 0
    }

    /// Tells of a commit. It never waits.
    pub fn tell(&self, fresh: Fresh) {
        // Nobody may listen any more.
        let _ = self.0.send(Arc::new(fresh));
    }
}

/// What a listener hears.
#[derive(Debug)]
pub enum Heard {
    /// A commit.
    Fresh(Arc<Fresh>),
    /// So many commits are lost to this listener: it reads their rows.
    Missed(u64),
}

/// Hears of commits in their order.
#[derive(Debug)]
pub struct Listener(broadcast::Receiver<Arc<Fresh>>);

impl Listener {
    /// Waits for the next commit; `None` when there are no writers any more. Giving up a wait loses nothing.
    pub async fn next(&mut self) -> Option<Heard> {
        match self.0.recv().await {
            Ok(fresh) => Some(Heard::Fresh(fresh)),
            Err(broadcast::error::RecvError::Lagged(batches)) => Some(Heard::Missed(batches)),
            Err(broadcast::error::RecvError::Closed) => None,
        }
    }

    /// What has been told and not heard yet; `None` when there is nothing.
    pub fn try_next(&mut self) -> Option<Heard> {
        match self.0.try_recv() {
            Ok(fresh) => Some(Heard::Fresh(fresh)),
            Err(TryRecvError::Lagged(batches)) => Some(Heard::Missed(batches)),
            Err(TryRecvError::Empty | TryRecvError::Closed) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use chrono::DateTime;

    use super::*;

    fn fresh(seconds: i64) -> Fresh {
        Fresh { units: Vec::new(), stored_at: DateTime::from_timestamp(seconds, 0).unwrap() }
    }

    #[test]
    fn without_a_listener_nothing_is_open() {
        let tap = Tap::default();
        assert!(!tap.is_open());
        tap.tell(fresh(1));
        let mut listener = tap.listen();
        assert!(tap.is_open());
        assert!(listener.try_next().is_none(), "what was told before is not heard");
        drop(listener);
        assert!(!tap.is_open());
    }

    #[tokio::test]
    async fn a_slow_listener_hears_how_much_it_missed_and_then_the_rest() {
        let tap = Tap::default();
        let mut listener = tap.listen();
        let batches = i64::try_from(BATCHES_MAX).unwrap();
        for seconds in 0..batches + 3 {
            tap.tell(fresh(seconds));
        }
        assert!(matches!(listener.next().await, Some(Heard::Missed(3))));
        for seconds in 3..batches + 3 {
            let Some(Heard::Fresh(heard)) = listener.next().await else { panic!("it is there") };
            assert_eq!(heard.stored_at.timestamp(), seconds);
        }
        assert!(listener.try_next().is_none());
        drop(tap);
        assert!(listener.next().await.is_none(), "there are no writers any more");
    }
}
