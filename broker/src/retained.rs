//! Retained status messages: kept in memory for subscribers, written through to a store in the background.

use std::collections::{HashMap, HashSet};
use std::error::Error;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use tokio::sync::Notify;
use tokio::time::sleep;

use crate::filter;

/// Bytes of all retained messages together; a message beyond is not retained.
const RETAINED_BYTES_MAX: usize = 64 << 20;
/// Bytes an entry costs beside topic and payload.
const ENTRY_OVERHEAD_BYTES: usize = 128;
/// Wait before a failed write is tried again.
const STORE_RETRY: Duration = Duration::from_secs(1);

/// The retained message of one topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RetainedMessage {
    /// The topic.
    pub topic: Arc<str>,
    /// The body; never empty.
    pub payload: Bytes,
}

/// The store could not be read or written.
#[derive(Debug, thiserror::Error)]
#[error("reach the store of retained messages")]
pub struct RetainedError(#[source] pub Box<dyn Error + Send + Sync>);

/// Where retained messages last.
#[async_trait]
pub trait RetainedStore: Send + Sync {
    /// Everything retained; read once, before the door opens.
    async fn load_all(&self) -> Result<Vec<RetainedMessage>, RetainedError>;
    /// Inserts or replaces the message of its topic.
    async fn put(&self, message: &RetainedMessage) -> Result<(), RetainedError>;
    /// Removes the message of a topic, if there is one.
    async fn remove(&self, topic: &str) -> Result<(), RetainedError>;
}

/// Keeps nothing: retained messages last as long as the process.
#[derive(Clone, Copy, Debug, Default)]
pub struct MemoryRetained;

#[async_trait]
impl RetainedStore for MemoryRetained {
    async fn load_all(&self) -> Result<Vec<RetainedMessage>, RetainedError> {
        Ok(Vec::new())
    }

    async fn put(&self, _message: &RetainedMessage) -> Result<(), RetainedError> {
        Ok(())
    }

    async fn remove(&self, _topic: &str) -> Result<(), RetainedError> {
        Ok(())
    }
}

/// The retained messages of the door.
pub(crate) struct Retained {
    state: Mutex<State>,
    changed: Notify,
    store: Arc<dyn RetainedStore>,
}

#[derive(Default)]
struct State {
    messages: HashMap<Arc<str>, Bytes>,
    bytes: usize,
    /// Topics whose message the store does not have yet.
    unsaved: HashSet<Arc<str>>,
}

impl Retained {
    /// Loads what the store has.
    pub(crate) async fn load(store: Arc<dyn RetainedStore>) -> Result<Self, RetainedError> {
        let mut state = State::default();
        for RetainedMessage { topic, payload } in store.load_all().await? {
            state.set(&topic, payload);
        }
        state.unsaved.clear();
        Ok(Self { state: Mutex::new(state), changed: Notify::new(), store })
    }

    /// Replaces the message of a topic; an empty payload removes it.
    pub(crate) fn set(&self, topic: &Arc<str>, payload: Bytes) {
        self.lock().set(topic, payload);
        self.changed.notify_one();
    }

    /// The messages a new subscription gets.
    pub(crate) fn matching(&self, filter: &str) -> Vec<RetainedMessage> {
        let state = self.lock();
        let matching = state.messages.iter().filter(|(topic, _)| filter::matches(filter, topic));
        matching
            .map(|(topic, payload)| RetainedMessage { topic: Arc::clone(topic), payload: payload.clone() })
            .collect()
    }

    /// Writes changes to the store until it is dropped.
    pub(crate) async fn keep(&self) {
        loop {
            self.changed.notified().await;
            while !self.save().await {
                sleep(STORE_RETRY).await;
            }
        }
    }

    /// Writes what the store does not have yet; false when some of it is still missing.
    pub(crate) async fn save(&self) -> bool {
        let unsaved = std::mem::take(&mut self.lock().unsaved);
        let mut is_saved = true;
        for topic in unsaved {
            if let Err(error) = self.save_one(&topic).await {
                tracing::warn!(error = &error as &dyn Error, "retained message not stored yet");
                self.lock().unsaved.insert(topic);
                is_saved = false;
            }
        }
        is_saved
    }

    async fn save_one(&self, topic: &Arc<str>) -> Result<(), RetainedError> {
        let payload = self.lock().messages.get(topic).cloned();
        match payload {
            Some(payload) => self.store.put(&RetainedMessage { topic: Arc::clone(topic), payload }).await,
            None => self.store.remove(topic).await,
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn set(&mut self, topic: &Arc<str>, payload: Bytes) {
        let old = self.messages.remove(topic);
        if let Some(old) = &old {
            self.bytes -= cost(topic, old);
        }
        let needed = cost(topic, &payload);
        let fits = !payload.is_empty() && self.bytes + needed <= RETAINED_BYTES_MAX;
        if fits {
            self.bytes += needed;
            self.messages.insert(Arc::clone(topic), payload);
        }
        if fits || old.is_some() {
            self.unsaved.insert(Arc::clone(topic));
        }
    }
}

fn cost(topic: &str, payload: &Bytes) -> usize {
    topic.len() + payload.len() + ENTRY_OVERHEAD_BYTES
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Refuses its first write.
    #[derive(Default)]
    struct Flaky(Mutex<(u32, HashMap<String, Bytes>)>);

    #[async_trait]
    impl RetainedStore for Flaky {
        async fn load_all(&self) -> Result<Vec<RetainedMessage>, RetainedError> {
            Ok(vec![RetainedMessage { topic: Arc::from("old"), payload: Bytes::from_static(b"o") }])
        }

        async fn put(&self, message: &RetainedMessage) -> Result<(), RetainedError> {
            let mut state = self.0.lock().unwrap();
            state.0 += 1;
            if state.0 == 1 {
                return Err(RetainedError("away".into()));
            }
            state.1.insert(message.topic.to_string(), message.payload.clone());
            Ok(())
        }

        async fn remove(&self, topic: &str) -> Result<(), RetainedError> {
            self.0.lock().unwrap().1.remove(topic);
            Ok(())
        }
    }

    #[tokio::test]
    async fn a_change_reaches_the_store_even_when_the_first_write_fails() {
        let store = Arc::new(Flaky::default());
        let retained = Retained::load(Arc::clone(&store) as Arc<dyn RetainedStore>).await.unwrap();
        retained.set(&Arc::from("iot/a"), Bytes::from_static(b"1"));
        assert!(!retained.save().await);
        assert!(retained.save().await);
        assert_eq!(store.0.lock().unwrap().1.get("iot/a").unwrap(), "1");
        retained.set(&Arc::from("iot/a"), Bytes::new());
        assert!(retained.save().await);
        assert!(store.0.lock().unwrap().1.is_empty());
        assert_eq!(retained.matching("#").len(), 1, "what was loaded is still there");
    }
}
