//! The link to RabbitMQ: carries work orders to the server and from it, and connects again for as long as it takes.
//!
//! Owns: the connections, and what was sent and is not confirmed.
//! Accepts: `Ended` from its own work; orders come through [`Orders`] and need no mailbox.
//! Sends: hints to the workers.
//! Dies: of a bug only. Orders that were not settled are handed out again by the server.

use std::time::Duration;

use ractor::{Actor, ActorProcessingErr, ActorRef};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};

pub use super::connect::{Args, LinkError};
use super::connect::{answer, connect};
use super::session::{self, Session};
use super::{Outgoing, RabbitUrl};
use crate::ending::Ending;
use crate::sync::backoff;

/// The longest wait between two tries to connect.
const BACKOFF_MAX: Duration = Duration::from_secs(30);
/// A connection that stood so long was a good one: the waits begin anew.
const STABLE_AFTER: Duration = Duration::from_secs(60);
/// From the wish to stop to the end of the connection.
const CLOSE_MAX: Duration = Duration::from_secs(2);

/// The actor; see the head of this file.
pub struct RabbitLink;

/// What a link is told.
#[derive(Debug)]
pub enum Msg {
    /// Its work has ended by itself.
    Ended,
}

/// A link at work.
pub struct State {
    stopping: watch::Sender<bool>,
    // Dropped with the actor, which cuts off what runs.
    running: JoinSet<()>,
}

impl Actor for RabbitLink {
    type Msg = Msg;
    type State = State;
    type Arguments = Args;

    async fn pre_start(&self, myself: ActorRef<Msg>, args: Args) -> Result<State, ActorProcessingErr> {
        let (stopping, stop) = watch::channel(false);
        let link = Link { args, stop, failures: 0, is_away: false };
        let ending = Ending::new(myself, Msg::Ended);
        let mut running = JoinSet::new();
        running.spawn(async move {
            let _ending = ending;
            link.run().await;
        });
        Ok(State { stopping, running })
    }

    async fn handle(
        &self,
        _: ActorRef<Msg>,
        Msg::Ended: Msg,
        _: &mut State,
    ) -> Result<(), ActorProcessingErr> {
        Err("the link to RabbitMQ ended by itself".into())
    }

    async fn post_stop(&self, _: ActorRef<Msg>, state: &mut State) -> Result<(), ActorProcessingErr> {
        state.stopping.send_replace(true);
        // What is not settled by then is handed out again by the server.
        drop(timeout(CLOSE_MAX, state.running.join_next()).await);
        Ok(())
    }
}

/// Connects to a server, makes the queues as a link does, and takes leave again.
///
/// # Errors
/// When it cannot be reached or refuses.
pub async fn probe(url: &RabbitUrl) -> Result<(), LinkError> {
    let connection = connect(url, "farmiq-edge doctor").await?;
    let trying = async { session::declare(&connection.create_channel().await?).await };
    let tried = answer(trying).await.and_then(|tried| tried.map_err(LinkError::prepare));
    session::leave(&connection).await;
    tried
}

struct Link {
    args: Args,
    stop: watch::Receiver<bool>,
    /// Failures in a row.
    failures: u32,
    /// Whether it was said that the server is away.
    is_away: bool,
}

impl Link {
    /// Runs until it is stopped.
    async fn run(mut self) {
        let orders = self.args.orders.clone();
        orders.set_connected(false);
        let mut outgoing = orders.0.outgoing_end.lock().await;
        while !*self.stop.borrow() {
            let started = Instant::now();
            let outcome = self.connect_and_carry(&mut outgoing).await;
            orders.set_connected(false);
            orders.incoming().clear();
            let Err(error) = outcome else { return };
            if started.elapsed() >= STABLE_AFTER {
                self.failures = 0;
            }
            self.failures = self.failures.saturating_add(1);
            self.note_away(&error);
            let wait = backoff::wait(self.failures, BACKOFF_MAX);
            // The sender lives as long as the actor.
            drop(timeout(wait, self.stop.wait_for(|is_stopping| *is_stopping)).await);
        }
    }

    async fn connect_and_carry(&mut self, outgoing: &mut mpsc::Receiver<Outgoing>) -> Result<(), LinkError> {
        let session = Session::open(&self.args).await?;
        self.is_away = false;
        self.args.orders.set_connected(true);
        tracing::info!(server = %self.args.url, "rabbitmq carries the work orders");
        session.carry(outgoing, &mut self.stop).await
    }

    /// Says so once; jobs are done all the same.
    fn note_away(&mut self, error: &LinkError) {
        let cause = schema::store::cause(error);
        let server = &self.args.url;
        if std::mem::replace(&mut self.is_away, true) {
            tracing::debug!(%server, %error, cause, "rabbitmq is still away");
        } else {
            tracing::warn!(%server, %error, cause, "rabbitmq is away, workers look for jobs in the database");
        }
    }
}
