//! The directory: one child per key, found or started, passivated when idle, capped in number.
//!
//! There is never more than one child of a key at work: one that was told to stop may still have much to finish, when
//! the database is away for example, and what comes for its key meanwhile waits for its end. So the messages of a key
//! are worked through in their order.
//!
//! Messages reach a child that is at work past the directory, as long as none is on its way through it: see [`Children`].
//!
//! Owns: the children of one kind, when each was last used, and the messages for those that are stopping.
//! Accepts: `Send` of a message for a key, `Sweep` from itself.
//! Sends: the messages on to the children.
//! Dies: with its supervisor; a failed child is forgotten and started again by the next message for its key.

use std::collections::{HashMap, VecDeque};
use std::hash::Hash;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::Duration;

use ractor::{Actor, ActorId, ActorProcessingErr, ActorRef, Message, SupervisionEvent};
use schema::metrics;
use tokio::time::Instant;

use crate::address::Address;

/// At its cap, a directory stops one child in so many.
const EVICTED_SHARE: usize = 16;

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
    /// Children alive before the longest unused ones are stopped. Those that are stopping and still at work come on top;
    /// what bounds the messages in flight bounds them.
    pub children_max: usize,
}

/// The actor; see the head of this file.
pub struct Directory<K: Keyed>(std::marker::PhantomData<K>);

impl<K: Keyed> Default for Directory<K> {
    fn default() -> Self {
        Self(std::marker::PhantomData)
    }
}

/// The children of a directory as others reach them. Cloning shares them.
pub struct Children<K: Keyed> {
    directory: Address<Msg<K>>,
    open: Arc<Open<K>>,
}

/// The children that take messages, and how many messages are on their way to them through the directory.
struct Open<K: Keyed> {
    started_at: Instant,
    children: RwLock<ByKey<K>>,
    passing: AtomicUsize,
}

type ByKey<K> = HashMap<<K as Keyed>::Key, Arc<Known<MsgOf<K>>>>;

/// A child, and when it was last used.
struct Known<M> {
    actor: ActorRef<M>,
    /// Milliseconds since the directory was made.
    used_at: AtomicU64,
}

/// A message on its way through the directory, until this is dropped.
pub struct Passing<K: Keyed>(Arc<Open<K>>);

impl<K: Keyed> Children<K> {
    /// Where their directory is started.
    #[must_use]
    pub fn address(&self) -> &Address<Msg<K>> {
        &self.directory
    }

    /// Hands a message to the child of a key. When nobody takes it, it is dropped.
    ///
    /// A child at work gets it at once, unless a message is on its way through the directory. Whoever sends one message
    /// after the other has its own earlier ones among those, so that none of them is passed.
    pub fn send(&self, key: K::Key, message: MsgOf<K>) {
        if let Err(message) = self.open.try_send(&key, message) {
            let passing = self.open.pass();
            self.directory.cast(Msg::Send { key, message, passing });
        }
    }
}

impl<K: Keyed> Default for Children<K> {
    fn default() -> Self {
        let (children, passing) = <(RwLock<ByKey<K>>, AtomicUsize)>::default();
        let open = Open { started_at: Instant::now(), children, passing };
        Self { directory: Address::default(), open: Arc::new(open) }
    }
}

impl<K: Keyed> Clone for Children<K> {
    fn clone(&self) -> Self {
        Self { directory: self.directory.clone(), open: Arc::clone(&self.open) }
    }
}

impl<K: Keyed> Open<K> {
    fn pass(self: &Arc<Self>) -> Passing<K> {
        self.passing.fetch_add(1, Ordering::Relaxed);
        Passing(Arc::clone(self))
    }

    /// Gives the message back when it has to go through the directory.
    fn try_send(&self, key: &K::Key, message: MsgOf<K>) -> Result<(), MsgOf<K>> {
        // Acquire: what the directory let go of is in the mailbox of its child.
        if self.passing.load(Ordering::Acquire) > 0 {
            return Err(message);
        }
        // Under the lock: a child is told to stop after it was taken out, so that nothing comes behind that.
        let children = self.read();
        let Some(child) = children.get(key) else { return Err(message) };
        child.used_at.store(self.millis(), Ordering::Relaxed);
        child.send(message);
        Ok(())
    }

    fn millis(&self) -> u64 {
        u64::try_from(self.started_at.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    fn read(&self) -> RwLockReadGuard<'_, ByKey<K>> {
        self.children.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, ByKey<K>> {
        self.children.write().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<M: Message> Known<M> {
    /// A child that died with messages in its mailbox has dropped them; so is this one then, and handed back.
    fn send(&self, message: M) {
        drop(self.actor.send_message(message));
    }
}

impl<K: Keyed> Drop for Passing<K> {
    fn drop(&mut self) {
        self.0.passing.fetch_sub(1, Ordering::Release);
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
        /// Until the child has it.
        passing: Passing<K>,
    },
    /// Stop the children that have been idle for too long.
    Sweep,
}

/// The children.
pub struct State<K: Keyed> {
    keyed: K,
    settings: DirectorySettings,
    open: Arc<Open<K>>,
    children: HashMap<K::Key, Child<MsgOf<K>>>,
    keys: HashMap<ActorId, K::Key>,
}

struct Child<M> {
    known: Arc<Known<M>>,
    /// Messages that wait for its end; `None` unless it was told to stop.
    held: Option<VecDeque<M>>,
}

impl<K: Keyed> Actor for Directory<K> {
    type Msg = Msg<K>;
    type State = State<K>;
    type Arguments = (K, DirectorySettings, Children<K>);

    async fn pre_start(
        &self,
        myself: ActorRef<Msg<K>>,
        (keyed, settings, Children { open, .. }): Self::Arguments,
    ) -> Result<State<K>, ActorProcessingErr> {
        drop(myself.send_interval(settings.idle / 2, || Msg::Sweep));
        open.write().clear();
        Ok(State { keyed, settings, open, children: HashMap::new(), keys: HashMap::new() })
    }

    async fn handle(
        &self,
        myself: ActorRef<Msg<K>>,
        message: Msg<K>,
        state: &mut State<K>,
    ) -> Result<(), ActorProcessingErr> {
        match message {
            Msg::Send { key, message, passing } => {
                let sent = state.send(&myself, key, message).await;
                drop(passing);
                sent
            }
            Msg::Sweep => {
                state.sweep();
                Ok(())
            }
        }
    }

    async fn handle_supervisor_evt(
        &self,
        myself: ActorRef<Msg<K>>,
        event: SupervisionEvent,
        state: &mut State<K>,
    ) -> Result<(), ActorProcessingErr> {
        match event {
            SupervisionEvent::ActorFailed(cell, error) => {
                metrics::engine_restarts(K::KIND).increment(1);
                tracing::error!(actor = K::KIND, %error, "actor failed; its next message starts it again");
                state.ended(&myself, cell.get_id()).await
            }
            SupervisionEvent::ActorTerminated(cell, _, _) => state.ended(&myself, cell.get_id()).await,
            SupervisionEvent::ActorStarted(_) | SupervisionEvent::ProcessGroupChanged(_) => Ok(()),
        }
    }
}

impl<M> Child<M> {
    fn used_at(&self) -> u64 {
        self.known.used_at.load(Ordering::Relaxed)
    }
}

impl<K: Keyed> State<K> {
    async fn send(
        &mut self,
        myself: &ActorRef<Msg<K>>,
        key: K::Key,
        message: MsgOf<K>,
    ) -> Result<(), ActorProcessingErr> {
        if let Some(child) = self.children.get_mut(&key) {
            child.known.used_at.store(self.open.millis(), Ordering::Relaxed);
            match &mut child.held {
                Some(held) => held.push_back(message),
                None => child.known.send(message),
            }
            return Ok(());
        }
        self.make_room();
        self.start(myself, key, [message].into()).await
    }

    async fn start(
        &mut self,
        myself: &ActorRef<Msg<K>>,
        key: K::Key,
        messages: VecDeque<MsgOf<K>>,
    ) -> Result<(), ActorProcessingErr> {
        let (actor, arguments) = self.keyed.make(&key);
        let (actor, _) = K::Child::spawn_linked(None, actor, arguments, myself.get_cell()).await?;
        for message in messages {
            drop(actor.send_message(message));
        }
        self.keys.insert(actor.get_id(), key.clone());
        let known = Arc::new(Known { actor, used_at: AtomicU64::new(self.open.millis()) });
        self.open.write().insert(key.clone(), Arc::clone(&known));
        self.children.insert(key, Child { known, held: None });
        Ok(())
    }

    /// At the cap, the longest unused children are told to stop: a share of them at once, so that a directory that stays
    /// at its cap looks for them once in many messages.
    fn make_room(&mut self) {
        if self.children.len() < self.settings.children_max {
            return;
        }
        let mut staying: Vec<(u64, &K::Key)> = (self.children.iter())
            .filter_map(|(key, child)| child.held.is_none().then_some((child.used_at(), key)))
            .collect();
        if staying.len() < self.settings.children_max {
            return;
        }
        let going = (self.settings.children_max / EVICTED_SHARE).clamp(1, staying.len());
        staying.select_nth_unstable_by_key(going - 1, |(used_at, _)| *used_at);
        let keys: Vec<K::Key> = staying[..going].iter().map(|(_, key)| (*key).clone()).collect();
        keys.iter().for_each(|key| self.passivate(key));
    }

    fn sweep(&mut self) {
        let idle = u64::try_from(self.settings.idle.as_millis()).unwrap_or(u64::MAX);
        let now = self.open.millis();
        let expired = self.children.iter().filter(|(_, child)| now >= child.used_at().saturating_add(idle));
        let keys: Vec<K::Key> = expired.map(|(key, _)| key.clone()).collect();
        keys.iter().for_each(|key| self.passivate(key));
    }

    /// The child finishes its mailbox and stops. What comes for its key until then waits, and starts the next one.
    fn passivate(&mut self, key: &K::Key) {
        if let Some(child) = self.children.get_mut(key)
            && child.held.is_none()
        {
            child.held = Some(VecDeque::new());
            self.open.write().remove(key);
            drop(child.known.actor.drain());
        }
    }

    /// A child is gone: what waited for its end goes to the next one.
    async fn ended(&mut self, myself: &ActorRef<Msg<K>>, id: ActorId) -> Result<(), ActorProcessingErr> {
        let Some(key) = self.keys.remove(&id) else { return Ok(()) };
        self.open.write().remove(&key);
        let held = self.children.remove(&key).and_then(|child| child.held).unwrap_or_default();
        if held.is_empty() { Ok(()) } else { self.start(myself, key, held).await }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use tokio::sync::{Semaphore, mpsc};

    use super::*;

    const IDLE: Duration = Duration::from_secs(60);

    /// Writes down what it is told, each time after it got a permit, as if from a database that is away.
    struct Slow;

    #[derive(Clone)]
    struct Desk {
        permits: Arc<Semaphore>,
        written: mpsc::UnboundedSender<(char, u32)>,
        starts: Arc<Mutex<Vec<char>>>,
    }

    impl Actor for Slow {
        type Msg = u32;
        type State = (char, Desk);
        type Arguments = (char, Desk);

        async fn pre_start(
            &self,
            _: ActorRef<u32>,
            (key, desk): Self::Arguments,
        ) -> Result<Self::State, ActorProcessingErr> {
            desk.starts.lock().expect("nothing panics").push(key);
            Ok((key, desk))
        }

        async fn handle(
            &self,
            _: ActorRef<u32>,
            number: u32,
            (key, desk): &mut Self::State,
        ) -> Result<(), ActorProcessingErr> {
            desk.permits.acquire().await?.forget();
            desk.written.send((*key, number))?;
            Ok(())
        }
    }

    impl Keyed for Desk {
        type Key = char;
        type Child = Slow;
        const KIND: &'static str = "slow";

        fn make(&self, key: &char) -> (Slow, (char, Self)) {
            (Slow, (*key, self.clone()))
        }
    }

    struct Fixture {
        children: Children<Desk>,
        desk: Desk,
        written: mpsc::UnboundedReceiver<(char, u32)>,
    }

    impl Fixture {
        async fn new(children_max: usize) -> Self {
            let (sender, written) = mpsc::unbounded_channel();
            let desk = Desk { permits: Arc::new(Semaphore::new(0)), written: sender, starts: Arc::default() };
            let settings = DirectorySettings { idle: IDLE, children_max };
            let children = Children::default();
            let arguments = (desk.clone(), settings, children.clone());
            let started = Directory::spawn(None, Directory::default(), arguments).await;
            children.address().set(started.expect("it starts").0);
            Self { children, desk, written }
        }

        fn send(&self, key: char, message: u32) {
            self.children.send(key, message);
        }

        /// What was written, once there is so much.
        async fn written(&mut self, count: usize) -> Vec<(char, u32)> {
            self.desk.permits.add_permits(count);
            let mut written = Vec::new();
            while written.len() < count {
                written.push(self.written.recv().await.expect("somebody writes"));
            }
            written
        }

        /// How many messages are on their way through the directory.
        fn passing(&self) -> usize {
            self.children.open.passing.load(Ordering::Relaxed)
        }

        fn starts(&self) -> Vec<char> {
            self.desk.starts.lock().expect("nothing panics").clone()
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_child_that_still_works_after_a_minute_is_not_passed_by_what_comes_later() {
        let mut fixture = Fixture::new(10).await;
        (0..3).for_each(|number| fixture.send('a', number));
        tokio::time::sleep(IDLE * 2).await;
        (3..6).for_each(|number| fixture.send('a', number));
        tokio::time::sleep(IDLE * 2).await;
        let expected: Vec<(char, u32)> = (0..6).map(|number| ('a', number)).collect();
        assert_eq!(fixture.written(6).await, expected);
        assert_eq!(
            fixture.starts(),
            ['a', 'a'],
            "what came later went to a child of its own, one after the other"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_child_that_still_works_is_not_passed_by_when_it_had_to_make_room() {
        let mut fixture = Fixture::new(1).await;
        fixture.send('a', 0);
        fixture.send('b', 0);
        fixture.send('a', 1);
        fixture.send('b', 1);
        let mut written = fixture.written(4).await;
        written.sort_by_key(|(key, _)| *key);
        assert_eq!(written, [('a', 0), ('a', 1), ('b', 0), ('b', 1)]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_child_at_work_is_reached_past_the_directory_and_no_message_passes_another() {
        let mut fixture = Fixture::new(10).await;
        (0..3).for_each(|number| fixture.send('a', number));
        assert_eq!(fixture.passing(), 3, "nobody knows the child");
        assert_eq!(fixture.written(1).await, [('a', 0)]);
        assert_eq!(fixture.passing(), 0);
        (3..6).for_each(|number| fixture.send('a', number));
        assert_eq!(fixture.passing(), 0, "the child has them");
        fixture.send('b', 0);
        fixture.send('a', 6);
        assert_eq!(fixture.passing(), 2, "while one is on its way, all go that way");
        let mut written = fixture.written(7).await;
        written.retain(|(key, _)| *key == 'a');
        assert_eq!(written, (1..7).map(|number| ('a', number)).collect::<Vec<_>>());
    }

    #[tokio::test(start_paused = true)]
    async fn a_child_that_is_used_past_the_directory_is_not_idle() {
        let mut fixture = Fixture::new(10).await;
        for number in 0..8 {
            fixture.send('a', number);
            assert_eq!(fixture.written(1).await, [('a', number)]);
            tokio::time::sleep(IDLE / 2).await;
        }
        assert_eq!(fixture.starts(), ['a']);
    }

    #[tokio::test(start_paused = true)]
    async fn an_idle_child_goes_and_comes_back() {
        let mut fixture = Fixture::new(10).await;
        fixture.send('a', 0);
        assert_eq!(fixture.written(1).await, [('a', 0)]);
        tokio::time::sleep(IDLE * 2).await;
        fixture.send('a', 1);
        assert_eq!(fixture.written(1).await, [('a', 1)]);
        assert_eq!(fixture.starts(), ['a', 'a']);
    }
}
