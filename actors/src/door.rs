//! The way in: the embedded broker's door, or the link to an external broker.
//!
//! Owns: the listening socket or the connection to the broker, and everything read from them.
//! Accepts: `Ended` from itself.
//! Sends: deliveries to the ingress.
//! Dies: when the door or the link ends by itself; its supervisor opens it again. A door that ended since it keeps sessions
//! from now on, or not any more, is opened again without that.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwapOption;
use broker::{
    Addresses, Door, DoorParts, DoorSettings, DoorStats, Identity, Link, LinkParts, LinkSettings,
    NotPublished,
};
use bytes::Bytes;
use ractor::{Actor, ActorProcessingErr, ActorRef};
use tokio::task::JoinSet;

use crate::ending::Ending;

/// Which way in.
#[derive(Clone)]
#[expect(clippy::large_enum_variant, reason = "there is one of it, and it is handed over once")]
pub enum WayIn {
    /// The engine is the broker.
    Embedded(DoorSettings, DoorParts),
    /// The engine is a client of a broker.
    External(LinkSettings, LinkParts),
}

/// What others see of the way in. Cloning shares the view.
#[derive(Clone, Default)]
pub struct WayInView {
    current: Arc<ArcSwapOption<View>>,
}

struct View {
    stats: Arc<DoorStats>,
    addresses: Addresses,
    open: Open,
}

impl View {
    fn door(&self) -> Option<&Arc<Door>> {
        match &self.open {
            Open::Door(door) => Some(door),
            Open::Link(_) => None,
        }
    }
}

impl WayInView {
    /// Whether messages can come in: the door is open, or the broker is connected.
    #[must_use]
    pub fn is_connected(&self) -> bool {
        self.current.load().as_deref().is_some_and(|view| view.stats.is_connected())
    }

    /// Whether sessions outlive their connections at this engine, or at another one on its database; `None` with an external
    /// broker, which has sessions of its own.
    #[must_use]
    pub fn keeps_sessions(&self) -> Option<bool> {
        let view = self.current.load();
        let view = view.as_deref().filter(|view| view.door().is_some())?;
        Some(view.stats.keeps_sessions())
    }

    /// Has the door judge its connections again, all or those of one device; with an external broker there are none.
    pub async fn recheck(&self, of: Option<&Identity>) {
        let door = self.current.load().as_deref().and_then(|view| view.door().cloned());
        if let Some(door) = door {
            door.recheck(of).await;
        }
    }

    /// Publishes what the engine itself has to say, at QoS 1 and retained.
    ///
    /// # Errors
    /// While the way in is not open, or the external broker is away.
    pub fn publish(&self, topic: &str, payload: Bytes) -> Result<(), NotPublished> {
        match self.current.load().as_deref().map(|view| &view.open) {
            Some(Open::Door(door)) => door.publish(topic, payload),
            Some(Open::Link(link)) => link.publish(topic, payload),
            None => Err(NotPublished),
        }
    }

    /// Where the door listens; nowhere with an external broker.
    #[must_use]
    pub fn addresses(&self) -> Addresses {
        self.current.load().as_deref().map(|view| view.addresses).unwrap_or_default()
    }
}

/// The actor; see the head of this file.
pub struct DoorActor;

/// What the way in is told.
#[derive(Debug)]
pub enum Msg {
    /// The door or the link has ended by itself.
    Ended,
}

/// What the way in starts with.
#[derive(Clone)]
pub struct Args {
    /// Which one.
    pub way_in: WayIn,
    /// Shown to others.
    pub view: WayInView,
    /// For what is in hand at the end.
    pub drain_max: Duration,
}

/// The open way in.
pub struct State {
    open: Open,
    args: Args,
    // Dropped with the actor, which cuts off what runs.
    running: JoinSet<()>,
}

#[derive(Clone)]
enum Open {
    Door(Arc<Door>),
    Link(Arc<Link>),
}

impl Open {
    async fn run(self) {
        match self {
            Self::Door(door) => door.run().await,
            Self::Link(link) => link.run().await,
        }
    }

    fn is_to_reopen(&self) -> bool {
        match self {
            Self::Door(door) => door.is_to_reopen(),
            Self::Link(_) => false,
        }
    }

    async fn shut_down(&self, deadline: Duration) -> usize {
        match self {
            Self::Door(door) => door.shutdown(deadline).await,
            Self::Link(link) => link.shutdown(deadline).await,
        }
    }
}

impl Actor for DoorActor {
    type Msg = Msg;
    type State = State;
    type Arguments = Args;

    async fn pre_start(&self, myself: ActorRef<Msg>, args: Args) -> Result<State, ActorProcessingErr> {
        let mut running = JoinSet::new();
        let open = open(myself, &args, &mut running).await?;
        Ok(State { open, args, running })
    }

    async fn handle(
        &self,
        myself: ActorRef<Msg>,
        Msg::Ended: Msg,
        state: &mut State,
    ) -> Result<(), ActorProcessingErr> {
        if !state.open.is_to_reopen() {
            return Err("the way in ended by itself".into());
        }
        state.open = open(myself, &state.args, &mut state.running).await?;
        Ok(())
    }

    async fn post_stop(&self, _: ActorRef<Msg>, state: &mut State) -> Result<(), ActorProcessingErr> {
        let cut_off = state.open.shut_down(state.args.drain_max).await;
        if cut_off > 0 {
            tracing::warn!(cut_off, "deliveries were not settled in time; their devices send them again");
        }
        state.running.shutdown().await;
        Ok(())
    }
}

/// Opens the way in, runs it and shows it.
async fn open(
    myself: ActorRef<Msg>,
    args: &Args,
    running: &mut JoinSet<()>,
) -> Result<Open, ActorProcessingErr> {
    let (open, stats, addresses) = match args.way_in.clone() {
        WayIn::Embedded(settings, parts) => {
            let door = Door::bind(settings, parts).await?;
            let (stats, addresses) = (door.stats(), door.addresses());
            (Open::Door(Arc::new(door)), stats, addresses)
        }
        WayIn::External(settings, parts) => {
            let link = Link::new(settings, parts);
            let stats = link.stats();
            (Open::Link(Arc::new(link)), stats, Addresses::default())
        }
    };
    let (run, ending) = (open.clone().run(), Ending::new(myself, Msg::Ended));
    running.spawn(async move {
        let _ending = ending;
        run.await;
    });
    args.view.current.store(Some(Arc::new(View { stats, addresses, open: open.clone() })));
    Ok(open)
}
