//! The supervisor: a fixed list of children, one for one, with restart intensity and backoff.
//!
//! Owns: its children's lives.
//! Accepts: `Restart` from itself, `Shutdown` from its owner, `Answer` from whoever asks whether it lives.
//! Sends: nothing.
//! Dies: when its children fail more often than [`RESTARTS_MAX`] times in [`RESTART_WINDOW`].

use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use ractor::{Actor, ActorCell, ActorProcessingErr, ActorRef, RpcReplyPort, SpawnErr, SupervisionEvent};
use schema::metrics;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::address::Address;

/// Failures within [`RESTART_WINDOW`] that are answered by a restart; one more and the supervisor fails itself.
pub const RESTARTS_MAX: usize = 5;
/// The window in which failures are counted.
pub const RESTART_WINDOW: Duration = Duration::from_secs(60);
/// The wait before the first restart; it doubles with every failure in the window.
const RESTART_DELAY: Duration = Duration::from_millis(100);

type Starting = Pin<Box<dyn Future<Output = Result<ActorCell, SpawnErr>> + Send>>;

/// How to start one child, again and again.
pub struct ChildSpec {
    name: String,
    kind: &'static str,
    is_expendable: bool,
    start: Box<dyn Fn(ActorCell) -> Starting + Send + Sync>,
}

impl ChildSpec {
    /// A child of this `kind` (the metric label) named `kind/key` in logs, reached through `address`.
    pub fn new<A: Actor>(
        kind: &'static str,
        key: &str,
        address: &Address<A::Msg>,
        make: impl Fn() -> (A, A::Arguments) + Send + Sync + 'static,
    ) -> Self {
        let address = address.clone();
        let start = move |supervisor: ActorCell| -> Starting {
            let (actor, arguments) = make();
            let address = address.clone();
            Box::pin(async move {
                let (actor, _) = A::spawn_linked(None, actor, arguments, supervisor).await?;
                address.set(actor.clone());
                Ok(actor.get_cell())
            })
        };
        let name = if key.is_empty() { kind.to_owned() } else { format!("{kind}/{key}") };
        Self { name, kind, is_expendable: false, start: Box::new(start) }
    }

    /// A child whose failures do not count against its supervisor: what kills it is its input, and something else bounds
    /// how often that comes back.
    #[must_use]
    pub fn expendable(self) -> Self {
        Self { is_expendable: true, ..self }
    }
}

/// The actor; see the head of this file.
pub struct Supervisor;

/// What a supervisor is told.
#[derive(Debug)]
pub enum Msg {
    /// The backoff of a child is over.
    Restart {
        /// Its place in the list.
        index: usize,
    },
    /// Say which child is dead, if one is.
    Answer {
        /// Its name.
        reply: RpcReplyPort<Option<String>>,
    },
    /// Stop the children in reverse order, each with what is left of the time, then stop.
    Shutdown {
        /// For all children together.
        deadline: Duration,
        /// Answered when all are down.
        done: RpcReplyPort<()>,
    },
}

/// The children and their failures.
pub struct State {
    children: Vec<Child>,
    failures: VecDeque<Instant>,
    is_stopping: bool,
}

struct Child {
    spec: ChildSpec,
    cell: Option<ActorCell>,
}

/// A running supervisor, as its owner holds it.
pub struct Supervised {
    actor: ActorRef<Msg>,
    ended: JoinHandle<()>,
}

impl Supervised {
    /// Starts the children in their order.
    ///
    /// # Errors
    /// When one of them cannot be started; those before it are stopped again.
    pub async fn start(children: Vec<ChildSpec>) -> Result<Self, SpawnErr> {
        let (actor, ended) = Supervisor::spawn(None, Supervisor, children).await?;
        Ok(Self { actor, ended })
    }

    /// Waits until the supervisor has ended, which without a [`Supervised::shut_down`] means that it gave up.
    pub async fn ended(&mut self) {
        // A panic of the supervisor is an end like any other.
        let _ = (&mut self.ended).await;
    }

    /// By which others see whether it lives.
    #[must_use]
    pub fn pulse(&self) -> Pulse {
        Pulse(self.actor.clone())
    }

    /// Stops the children in reverse order.
    pub async fn shut_down(self, deadline: Duration) {
        let (done, answer) = ractor::concurrency::oneshot();
        if self.actor.send_message(Msg::Shutdown { deadline, done: done.into() }).is_ok() {
            // No answer means that it had ended before.
            let _ = answer.await;
        }
        let _ = self.ended.await;
    }
}

/// Asks a supervisor whether it lives.
#[derive(Clone)]
pub struct Pulse(ActorRef<Msg>);

impl Pulse {
    /// The name of a child that is dead, or `Some(None)`; `None` when the supervisor itself is. It waits for as long as the
    /// supervisor is busy.
    pub async fn answer(&self) -> Option<Option<String>> {
        let (reply, answer) = ractor::concurrency::oneshot();
        self.0.send_message(Msg::Answer { reply: reply.into() }).ok()?;
        answer.await.ok()
    }
}

impl Actor for Supervisor {
    type Msg = Msg;
    type State = State;
    type Arguments = Vec<ChildSpec>;

    async fn pre_start(
        &self,
        myself: ActorRef<Msg>,
        specs: Vec<ChildSpec>,
    ) -> Result<State, ActorProcessingErr> {
        let mut children = Vec::with_capacity(specs.len());
        for spec in specs {
            let cell = (spec.start)(myself.get_cell()).await?;
            children.push(Child { spec, cell: Some(cell) });
        }
        Ok(State { children, failures: VecDeque::new(), is_stopping: false })
    }

    async fn handle(
        &self,
        myself: ActorRef<Msg>,
        message: Msg,
        state: &mut State,
    ) -> Result<(), ActorProcessingErr> {
        match message {
            Msg::Restart { index } => state.restart(&myself, index).await,
            Msg::Answer { reply } => {
                // Whoever asked may have stopped waiting.
                let _ = reply.send(state.dead_child());
                Ok(())
            }
            Msg::Shutdown { deadline, done } => {
                state.shut_down(deadline).await;
                // Whoever asked may have stopped waiting.
                let _ = done.send(());
                myself.stop(None);
                Ok(())
            }
        }
    }

    async fn handle_supervisor_evt(
        &self,
        myself: ActorRef<Msg>,
        event: SupervisionEvent,
        state: &mut State,
    ) -> Result<(), ActorProcessingErr> {
        match event {
            SupervisionEvent::ActorFailed(cell, error) => {
                state.child_ended(&myself, &cell, &error.to_string())
            }
            SupervisionEvent::ActorTerminated(cell, _, reason) => {
                state.child_ended(&myself, &cell, reason.as_deref().unwrap_or("stopped by itself"))
            }
            SupervisionEvent::ActorStarted(_) | SupervisionEvent::ProcessGroupChanged(_) => Ok(()),
        }
    }
}

impl State {
    /// A child that is not expected to die, and is dead.
    fn dead_child(&self) -> Option<String> {
        let dead = self.children.iter().find(|child| child.cell.is_none() && !child.spec.is_expendable);
        dead.map(|child| child.spec.name.clone())
    }

    fn child_ended(
        &mut self,
        myself: &ActorRef<Msg>,
        cell: &ActorCell,
        reason: &str,
    ) -> Result<(), ActorProcessingErr> {
        let is_it = |child: &Child| child.cell.as_ref().is_some_and(|known| known.get_id() == cell.get_id());
        let Some(index) = self.children.iter().position(is_it) else { return Ok(()) };
        self.children[index].cell = None;
        if self.is_stopping {
            return Ok(());
        }
        self.failed(myself, index, reason)
    }

    fn failed(
        &mut self,
        myself: &ActorRef<Msg>,
        index: usize,
        reason: &str,
    ) -> Result<(), ActorProcessingErr> {
        let spec = &self.children[index].spec;
        metrics::engine_restarts(spec.kind).increment(1);
        if spec.is_expendable {
            tracing::error!(actor = spec.name, reason, "actor ended, restarting it");
            drop(myself.send_after(RESTART_DELAY, move || Msg::Restart { index }));
            return Ok(());
        }
        let now = Instant::now();
        self.failures.push_back(now);
        self.failures.retain(|at| now.duration_since(*at) <= RESTART_WINDOW);
        tracing::error!(
            actor = spec.name,
            reason,
            failures = self.failures.len(),
            "actor ended, restarting it"
        );
        if self.failures.len() > RESTARTS_MAX {
            return Err(format!("{} ended too often: {reason}", spec.name).into());
        }
        let doublings =
            u32::try_from(self.failures.len() - 1).expect("at most RESTARTS_MAX failures are kept");
        drop(myself.send_after(RESTART_DELAY * 2_u32.pow(doublings), move || Msg::Restart { index }));
        Ok(())
    }

    async fn restart(&mut self, myself: &ActorRef<Msg>, index: usize) -> Result<(), ActorProcessingErr> {
        if self.is_stopping {
            return Ok(());
        }
        match (self.children[index].spec.start)(myself.get_cell()).await {
            Ok(cell) => {
                self.children[index].cell = Some(cell);
                Ok(())
            }
            Err(error) => self.failed(myself, index, &error.to_string()),
        }
    }

    /// Each child finishes what is in its mailbox; one that does not in time is killed.
    async fn shut_down(&mut self, deadline: Duration) {
        self.is_stopping = true;
        let ends_at = Instant::now() + deadline;
        for child in self.children.iter_mut().rev() {
            let Some(cell) = child.cell.take() else { continue };
            let left = ends_at.saturating_duration_since(Instant::now());
            if cell.drain_and_wait(Some(left)).await.is_err() {
                tracing::warn!(actor = child.spec.name, "actor did not stop in time, killing it");
                cell.kill();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    /// An actor that panics when told to.
    struct Fragile;

    impl Actor for Fragile {
        type Msg = ();
        type State = ();
        type Arguments = Arc<AtomicUsize>;

        async fn pre_start(
            &self,
            _: ActorRef<()>,
            starts: Arc<AtomicUsize>,
        ) -> Result<(), ActorProcessingErr> {
            starts.fetch_add(1, Ordering::SeqCst);
            Ok(())
        }

        async fn handle(&self, _: ActorRef<()>, (): (), (): &mut ()) -> Result<(), ActorProcessingErr> {
            panic!("told to")
        }
    }

    async fn supervised() -> (Supervised, Address<()>, Arc<AtomicUsize>) {
        supervised_as(|spec| spec).await
    }

    async fn supervised_as(
        change: impl FnOnce(ChildSpec) -> ChildSpec,
    ) -> (Supervised, Address<()>, Arc<AtomicUsize>) {
        let (address, starts) = (Address::default(), Arc::new(AtomicUsize::new(0)));
        let counted = Arc::clone(&starts);
        let spec = ChildSpec::new("fragile", "0", &address, move || (Fragile, Arc::clone(&counted)));
        (Supervised::start(vec![change(spec)]).await.expect("it starts"), address, starts)
    }

    #[tokio::test(start_paused = true)]
    async fn an_expendable_child_is_restarted_however_often_it_fails() {
        let (supervisor, address, starts) = supervised_as(ChildSpec::expendable).await;
        for failure in 1..=RESTARTS_MAX * 3 {
            assert!(address.cast(()));
            while starts.load(Ordering::SeqCst) < failure + 1 {
                tokio::time::advance(RESTART_DELAY).await;
            }
        }
        assert_eq!(supervisor.actor.get_status(), ractor::ActorStatus::Running);
    }

    #[tokio::test(start_paused = true)]
    async fn a_panicking_child_is_restarted_behind_the_same_address() {
        let (supervisor, address, starts) = supervised().await;
        assert!(address.cast(()));
        while starts.load(Ordering::SeqCst) < 2 {
            tokio::time::advance(RESTART_DELAY).await;
        }
        assert!(address.cast(()), "the address leads to the new incarnation");
        assert_eq!(supervisor.actor.get_status(), ractor::ActorStatus::Running);
    }

    #[tokio::test(start_paused = true)]
    async fn too_many_failures_in_the_window_end_the_supervisor() {
        let (mut supervisor, address, starts) = supervised().await;
        for failure in 1..=RESTARTS_MAX {
            assert!(address.cast(()));
            while starts.load(Ordering::SeqCst) < failure + 1 {
                tokio::time::advance(RESTART_DELAY).await;
            }
        }
        assert!(address.cast(()));
        supervisor.ended().await;
        assert_eq!(starts.load(Ordering::SeqCst), RESTARTS_MAX + 1);
    }

    #[tokio::test(start_paused = true)]
    async fn shutdown_stops_the_children_without_a_restart() {
        let (supervisor, address, starts) = supervised().await;
        supervisor.shut_down(Duration::from_secs(1)).await;
        assert!(!address.cast(()));
        assert_eq!(starts.load(Ordering::SeqCst), 1);
    }
}
