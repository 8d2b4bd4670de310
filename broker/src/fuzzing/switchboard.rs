//! Live fan-out without a router: a list of filters for each subscriber, in place of threads that outlive an input.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use crate::fanout::{Fanout, Feed, Forward, RouterGone};
use crate::filter;
use crate::publication::Publication;

/// What a subscriber listens to, and how it hears it.
#[derive(Debug)]
struct Line {
    filters: Mutex<Vec<String>>,
    sender: UnboundedSender<Forward>,
}

#[derive(Debug, Default)]
pub(crate) struct Switchboard {
    lines: Mutex<Vec<Arc<Line>>>,
    next_number: AtomicU64,
}

struct Listening {
    line: Arc<Line>,
    receiver: UnboundedReceiver<Forward>,
}

#[async_trait]
impl Fanout for Switchboard {
    fn is_wanted(&self) -> bool {
        !lock(&self.lines).is_empty()
    }

    fn publish(&self, publication: &Publication) {
        let number = self.next_number.fetch_add(1, Ordering::Relaxed);
        for line in lock(&self.lines).iter() {
            for _ in lock(&line.filters).iter().filter(|known| filter::matches(known, &publication.topic)) {
                let _ = line.sender.send(Forward { number, publication: publication.clone() });
            }
        }
    }

    async fn open(&self) -> Result<Box<dyn Feed>, RouterGone> {
        let (sender, receiver) = unbounded_channel();
        let line = Arc::new(Line { filters: Mutex::default(), sender });
        lock(&self.lines).push(Arc::clone(&line));
        Ok(Box::new(Listening { line, receiver }))
    }

    async fn watch(&self) {
        std::future::pending().await
    }
}

#[async_trait]
impl Feed for Listening {
    async fn subscribe(&mut self, filter: &str) -> Result<(), RouterGone> {
        lock(&self.line.filters).push(filter.to_owned());
        Ok(())
    }

    async fn unsubscribe(&mut self, filter: &str) -> Result<(), RouterGone> {
        lock(&self.line.filters).retain(|known| known != filter);
        Ok(())
    }

    async fn next(&mut self) -> Result<Forward, RouterGone> {
        self.receiver.recv().await.ok_or(RouterGone)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
