//! Chores: work that comes round again, one actor each.
//!
//! Owns: one chore and its rhythm.
//! Accepts: `Due` from itself.
//! Sends: nothing.
//! Dies: never of a failed run, which is logged and comes round again.

use std::error::Error;
use std::future::Future;
use std::time::Duration;

use ractor::{Actor, ActorProcessingErr, ActorRef};

/// Work that comes round again.
pub trait Chore: Send + Sync + 'static {
    /// Its name in logs.
    const NAME: &'static str;
    /// What may go wrong.
    type Error: Error + Send;

    /// Does the work once and says how long to wait until the next time.
    fn run(&mut self) -> impl Future<Output = Result<Duration, Self::Error>> + Send;

    /// How long to wait after a failed run.
    fn retry_after(&self) -> Duration {
        Duration::from_secs(5)
    }
}

/// The actor; see the head of this file.
pub struct ChoreActor<C>(std::marker::PhantomData<C>);

impl<C> Default for ChoreActor<C> {
    fn default() -> Self {
        Self(std::marker::PhantomData)
    }
}

/// What a chore's actor is told.
#[derive(Debug)]
pub enum Msg {
    /// It is time.
    Due,
}

impl<C: Chore> Actor for ChoreActor<C> {
    type Msg = Msg;
    type State = C;
    type Arguments = C;

    async fn pre_start(&self, myself: ActorRef<Msg>, chore: C) -> Result<C, ActorProcessingErr> {
        myself.send_message(Msg::Due)?;
        Ok(chore)
    }

    async fn handle(
        &self,
        myself: ActorRef<Msg>,
        Msg::Due: Msg,
        chore: &mut C,
    ) -> Result<(), ActorProcessingErr> {
        let wait = match chore.run().await {
            Ok(wait) => wait,
            Err(error) => {
                let cause = error.source().map(ToString::to_string);
                tracing::warn!(chore = C::NAME, %error, cause, "chore failed, trying again");
                chore.retry_after()
            }
        };
        drop(myself.send_after(wait, || Msg::Due));
        Ok(())
    }
}
