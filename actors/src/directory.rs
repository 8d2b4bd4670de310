//! The directory: one child per key, found or started, passivated when idle, capped in number.
//!
//! Owns: the children of one kind, and when each was last used.
//! Accepts: `Send` of a message for a key, `Sweep` from itself.
//! Sends: the messages on to the children.
//! Dies: with its supervisor; a failed child is forgotten and started again by the next message for its key.

use std::collections::HashMap;
use std::hash::Hash;
use std::time::Duration;

use ractor::{Actor, ActorId, ActorProcessingErr, ActorRef, SupervisionEvent};
use schema::metrics;
use tokio::time::Instant;

/// Makes the children of a directory.
pub trait Keyed: Send + Sync + 'static {
    /// What tells the children apart.
    type Key: Hash + Eq + Clone + Send + Sync + 'static;
    /// The kind of actor.
    type Child: Actor;
    /// The kind in metrics and logs.
    const KIND: &'static str;

    /// A child and what it starts with.
    fn make(&self, key: &Self::Key) -> (Self::Child, <Self::Child as Actor>::Arguments);
}

type MsgOf<K> = <<K as Keyed>::Child as Actor>::Msg;

/// How long children live.
#[derive(Clone, Copy, Debug)]
pub struct DirectorySettings {
    /// A child unused for so long is stopped.
    pub idle: Duration,
    /// Children alive at most; beyond it the longest unused one goes first.
    pub children_max: usize,
}

/// The actor; see the head of this file.
pub struct Directory<K: Keyed>(std::marker::PhantomData<K>);

impl<K: Keyed> Default for Directory<K> {
    fn default() -> Self {
        Self(std::marker::PhantomData)
    }
}

/// What a directory is told.
pub enum Msg<K: Keyed> {
    /// Hand `message` to the child of `key`.
    Send {
        /// The child.
        key: K::Key,
        /// The message.
        message: MsgOf<K>,
    },
    /// Stop the children that have been idle for too long.
    Sweep,
}

/// The children.
pub struct State<K: Keyed> {
    keyed: K,
    settings: DirectorySettings,
    children: HashMap<K::Key, Child<MsgOf<K>>>,
    keys: HashMap<ActorId, K::Key>,
}

struct Child<M> {
    actor: ActorRef<M>,
    used_at: Instant,
}

impl<K: Keyed> Actor for Directory<K> {
    type Msg = Msg<K>;
    type State = State<K>;
    type Arguments = (K, DirectorySettings);

    async fn pre_start(
        &self,
        myself: ActorRef<Msg<K>>,
        (keyed, settings): Self::Arguments,
    ) -> Result<State<K>, ActorProcessingErr> {
        drop(myself.send_interval(settings.idle / 2, || Msg::Sweep));
        Ok(State { keyed, settings, children: HashMap::new(), keys: HashMap::new() })
    }

    async fn handle(
        &self,
        myself: ActorRef<Msg<K>>,
        message: Msg<K>,
        state: &mut State<K>,
    ) -> Result<(), ActorProcessingErr> {
        match message {
            Msg::Send { key, message } => state.send(&myself, key, message).await,
            Msg::Sweep => {
                state.sweep();
                Ok(())
            }
        }
    }

    async fn handle_supervisor_evt(
        &self,
        _: ActorRef<Msg<K>>,
        event: SupervisionEvent,
        state: &mut State<K>,
    ) -> Result<(), ActorProcessingErr> {
        match event {
            SupervisionEvent::ActorFailed(cell, error) => {
                metrics::engine_restarts(K::KIND).increment(1);
                tracing::error!(actor = K::KIND, %error, "actor failed; its next message starts it again");
                state.forget(cell.get_id());
            }
            SupervisionEvent::ActorTerminated(cell, _, _) => state.forget(cell.get_id()),
            SupervisionEvent::ActorStarted(_) | SupervisionEvent::ProcessGroupChanged(_) => {}
        }
        Ok(())
    }
}

impl<K: Keyed> State<K> {
    async fn send(
        &mut self,
        myself: &ActorRef<Msg<K>>,
        key: K::Key,
        message: MsgOf<K>,
    ) -> Result<(), ActorProcessingErr> {
        let used_at = Instant::now();
        if let Some(child) = self.children.get_mut(&key) {
            child.used_at = used_at;
            // A child that died with messages in its mailbox has dropped them; so is this one, and handed back.
            drop(child.actor.send_message(message));
            return Ok(());
        }
        self.make_room();
        let (actor, arguments) = self.keyed.make(&key);
        let (actor, _) = K::Child::spawn_linked(None, actor, arguments, myself.get_cell()).await?;
        drop(actor.send_message(message));
        self.keys.insert(actor.get_id(), key.clone());
        self.children.insert(key, Child { actor, used_at });
        Ok(())
    }

    /// At the cap, the longest unused child goes.
    fn make_room(&mut self) {
        if self.children.len() < self.settings.children_max {
            return;
        }
        let oldest = self.children.iter().min_by_key(|(_, child)| child.used_at).map(|(key, _)| key.clone());
        if let Some(key) = oldest {
            self.passivate(&key);
        }
    }

    fn sweep(&mut self) {
        let idle = self.settings.idle;
        let expired = self.children.iter().filter(|(_, child)| child.used_at.elapsed() >= idle);
        let keys: Vec<K::Key> = expired.map(|(key, _)| key.clone()).collect();
        keys.iter().for_each(|key| self.passivate(key));
    }

    /// The child finishes its mailbox and stops; the next message for its key starts a new one.
    fn passivate(&mut self, key: &K::Key) {
        if let Some(child) = self.children.remove(key) {
            self.keys.remove(&child.actor.get_id());
            drop(child.actor.drain());
        }
    }

    fn forget(&mut self, id: ActorId) {
        if let Some(key) = self.keys.remove(&id) {
            self.children.remove(&key);
        }
    }
}
