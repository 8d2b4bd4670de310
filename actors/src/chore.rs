//! Chores: work that comes round again, one actor each.
//!
//! Owns: one chore and its rhythm.
//! Accepts: `Due` from itself.
//! Sends: nothing.
//! Dies: never of a failed run. Failures in a row are one trouble: it is logged when it begins and when it is over, and
//! the waits between the tries grow. While the database is away nothing is logged here, since [`DatabaseHealth`] does.

use std::convert::Infallible;
use std::error::Error;
use std::future::Future;
use std::time::Duration;

use ractor::{Actor, ActorProcessingErr, ActorRef};
use schema::clock::Clock;
use schema::metrics;
use schema::store::StoreError;
use tokio::time::Instant;

use crate::database::DatabaseHealth;
use schema::store::cause;

/// Work that comes round again.
pub trait Chore: Send + Sync + 'static {
    /// Its name in logs and metrics.
    const NAME: &'static str;
    /// The wait after a failed run. It doubles with each further failure,
    const RETRY: Duration = Duration::from_secs(5);
    /// up to this.
    const RETRY_MAX: Duration = Duration::from_secs(300);
    /// What may go wrong.
    type Error: ChoreError;

    /// Does the work once and says how long to wait until the next time.
    fn run(&mut self) -> impl Future<Output = Result<Duration, Self::Error>> + Send;
}

/// What may go wrong with a chore.
pub trait ChoreError: Error + Send + 'static {
    /// Whether the database is away, which is nobody's fault here.
    fn is_outage(&self) -> bool;
}

impl ChoreError for StoreError {
    fn is_outage(&self) -> bool {
        Self::is_outage(self)
    }
}

impl ChoreError for Infallible {
    fn is_outage(&self) -> bool {
        match *self {}
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

/// What a chore's actor is made of.
#[derive(Clone)]
pub struct Args<C> {
    /// The work.
    pub chore: C,
    /// Whether the database answers.
    pub database: DatabaseHealth,
    /// Wall time.
    pub clock: Clock,
}

/// A chore and how it fares.
pub struct State<C> {
    args: Args<C>,
    trouble: Option<Trouble>,
}

/// Failures in a row.
struct Trouble {
    began_at: Instant,
    failures: u32,
    /// Whether its beginning was logged, and its end is to be.
    is_told: bool,
}

impl<C: Chore> Actor for ChoreActor<C> {
    type Msg = Msg;
    type State = State<C>;
    type Arguments = Args<C>;

    async fn pre_start(&self, myself: ActorRef<Msg>, args: Args<C>) -> Result<State<C>, ActorProcessingErr> {
        myself.send_message(Msg::Due)?;
        Ok(State { args, trouble: None })
    }

    async fn handle(
        &self,
        myself: ActorRef<Msg>,
        Msg::Due: Msg,
        state: &mut State<C>,
    ) -> Result<(), ActorProcessingErr> {
        let wait = match state.args.chore.run().await {
            Ok(wait) => {
                state.succeeded();
                wait
            }
            Err(error) => state.failed(&error),
        };
        drop(myself.send_after(wait, || Msg::Due));
        Ok(())
    }
}

impl<C: Chore> State<C> {
    fn succeeded(&mut self) {
        let now = self.args.clock.now().timestamp();
        metrics::engine_chore_last_success_seconds(C::NAME).set(now as f64);
        if let Some(Trouble { began_at, failures, is_told: true }) = self.trouble.take() {
            let seconds = began_at.elapsed().as_secs();
            tracing::info!(chore = C::NAME, failures, seconds, "chore works again");
        }
    }

    /// Notes a failed run and says how long to wait until the next one.
    fn failed(&mut self, error: &C::Error) -> Duration {
        let trouble = self.trouble.get_or_insert_with(|| Trouble {
            began_at: Instant::now(),
            failures: 0,
            is_told: false,
        });
        // Once the database is back, everybody is to be at work again soon.
        if error.is_outage() || !self.args.database.is_up() {
            tracing::debug!(chore = C::NAME, %error, cause = cause(error), "chore waits for the database");
            return C::RETRY;
        }
        let wait = retry_after(trouble.failures, C::RETRY, C::RETRY_MAX);
        trouble.failures += 1;
        let (cause, wait_seconds) = (cause(error), wait.as_secs());
        if std::mem::replace(&mut trouble.is_told, true) {
            tracing::debug!(chore = C::NAME, %error, cause, wait_seconds, "chore failed again");
        } else {
            tracing::warn!(chore = C::NAME, %error, cause, "chore failed, trying again and again");
        }
        wait
    }
}

/// The wait after a failure that follows on so many others.
fn retry_after(failures: u32, first: Duration, longest: Duration) -> Duration {
    first.saturating_mul(2_u32.saturating_pow(failures)).min(longest.max(first))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_the_longest() {
        let seconds = Duration::from_secs;
        let waits: Vec<_> = (0..9).map(|n| retry_after(n, seconds(5), seconds(300)).as_secs()).collect();
        assert_eq!(waits, [5, 10, 20, 40, 80, 160, 300, 300, 300]);
        assert_eq!(retry_after(u32::MAX, seconds(5), seconds(300)), seconds(300));
        assert_eq!(retry_after(3, seconds(5), seconds(2)), seconds(5));
    }
}
