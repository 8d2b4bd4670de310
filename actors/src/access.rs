//! Revocation: whoever is put out in the database is out here at once, on every replica.
//!
//! Owns: the connection on which the database tells of changed access.
//! Accepts: `Ended` from itself.
//! Sends: nothing; it refreshes the allowlist, forgets old passwords, and has the door judge its connections again.
//! Dies: never of a database that is away, which it waits for.

use std::collections::HashSet;
use std::convert::Infallible;
use std::time::Duration;

use broker::Identity;
use ractor::{Actor, ActorProcessingErr, ActorRef};
use schema::clock::watch::ClockWatch;
use schema::id::{DeviceId, TenantId};
use schema::metrics;
use schema::store::access::{AccessNews, Touched};
use schema::store::{Store, StoreError, device};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout_at};

use crate::allowlist::Allowlist;
use crate::credentials::Credentials;
use crate::door::WayInView;
use crate::ending::Ending;

/// Wait after the first failure to listen; it doubles up to the limit.
const BACKOFF_FIRST: Duration = Duration::from_millis(100);
const BACKOFF_MAX: Duration = Duration::from_secs(10);
/// Word that comes so close together is acted on together.
const GATHER: Duration = Duration::from_millis(20);
/// After a leap of the clock nothing is tidied away for so long.
const TIDY_AFTER: chrono::Duration = chrono::Duration::days(7);
/// Devices that are judged one by one; more of them are judged with everybody.
const DEVICES_MAX: usize = 100;

/// Watches over who may be here.
#[derive(Clone)]
pub struct AccessWatch {
    /// The database.
    pub store: Store,
    /// Wall time, and whether something may be tidied away by it.
    pub watch: ClockWatch,
    /// Who may speak.
    pub allowlist: Allowlist,
    /// Who is who.
    pub credentials: Credentials,
    /// The door, when there is one.
    pub way_in: WayInView,
    /// Everybody is judged again so often, whether the database tells of changes or not.
    pub refresh_every: Duration,
}

/// The actor; see the head of this file.
pub struct AccessActor;

/// What the actor is told.
#[derive(Debug)]
pub enum Msg {
    /// The watch has ended by itself.
    Ended,
}

impl Actor for AccessActor {
    type Msg = Msg;
    // Dropped with the actor, which ends the watch.
    type State = JoinSet<()>;
    type Arguments = AccessWatch;

    async fn pre_start(
        &self,
        myself: ActorRef<Msg>,
        watch: AccessWatch,
    ) -> Result<JoinSet<()>, ActorProcessingErr> {
        let mut running = JoinSet::new();
        let ending = Ending::new(myself, Msg::Ended);
        running.spawn(async move {
            let _ending = ending;
            watch.run().await;
        });
        Ok(running)
    }

    async fn handle(
        &self,
        _: ActorRef<Msg>,
        Msg::Ended: Msg,
        _: &mut JoinSet<()>,
    ) -> Result<(), ActorProcessingErr> {
        Err("the watch over access ended by itself".into())
    }
}

/// Whom to judge.
#[derive(Debug, PartialEq, Eq)]
enum Whom {
    Devices(HashSet<Identity>),
    Everybody,
}

impl Whom {
    fn add(&mut self, touched: Touched) {
        let identity = match touched {
            Touched::Anybody => None,
            Touched::Device { tenant_id, device_id } => {
                let ids = TenantId::new(&tenant_id).ok().zip(DeviceId::new(&device_id).ok());
                ids.map(|(tenant_id, device_id)| Identity { tenant_id, device_id })
            }
        };
        match (&mut *self, identity) {
            (Self::Everybody, _) => {}
            (Self::Devices(devices), Some(identity))
                if devices.len() < DEVICES_MAX || devices.contains(&identity) =>
            {
                devices.insert(identity);
            }
            (Self::Devices(_), _) => *self = Self::Everybody,
        }
    }
}

impl AccessWatch {
    /// Listens, and listens again when the connection is lost.
    async fn run(&self) {
        let mut backoff = BACKOFF_FIRST;
        loop {
            let error = match self.store.access_news().await {
                Ok(news) => {
                    backoff = BACKOFF_FIRST;
                    metrics::access_listening().set(1.0);
                    let Err(error) = self.follow(news).await;
                    metrics::access_listening().set(0.0);
                    error
                }
                Err(error) => error,
            };
            if backoff == BACKOFF_FIRST {
                let cause = schema::store::cause(&error);
                tracing::warn!(%error, cause, "the database does not tell of changed access, asking it now and then");
            }
            sleep(backoff).await;
            backoff = (backoff * 2).min(BACKOFF_MAX).min(self.refresh_every);
            self.judge(&Whom::Everybody).await;
        }
    }

    /// Judges everybody, since nobody knows what was missed, and from then on whoever is touched; now and then everybody.
    async fn follow(&self, mut news: AccessNews) -> Result<Infallible, StoreError> {
        loop {
            self.judge(&Whom::Everybody).await;
            let due_at = Instant::now() + self.refresh_every;
            while let Ok(touched) = timeout_at(due_at, news.next()).await {
                let mut whom = Whom::Devices(HashSet::new());
                whom.add(touched?);
                let gathered_at = Instant::now() + GATHER;
                while let Ok(touched) = timeout_at(gathered_at, news.next()).await {
                    whom.add(touched?);
                }
                self.judge(&whom).await;
            }
        }
    }

    /// Looks at the rows and closes the connections of whoever is not accepted any more.
    async fn judge(&self, whom: &Whom) {
        self.credentials.forget_current();
        if let Err(error) = self.look().await {
            let cause = schema::store::cause(&error);
            tracing::debug!(%error, cause, "access could not be looked up, trying again");
        }
        match whom {
            Whom::Everybody => self.way_in.recheck(None).await,
            Whom::Devices(devices) => {
                for identity in devices {
                    self.way_in.recheck(Some(identity)).await;
                }
            }
        }
    }

    async fn look(&self) -> Result<(), StoreError> {
        // A password that was tidied away by a wrong clock would be gone for good.
        if let Some(now) = self.watch.may_give_up(TIDY_AFTER) {
            self.store.run("end_overlaps", async |conn| device::end_overlaps(conn, now).await).await?;
        }
        self.allowlist.refresh().await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn touched(device: &str) -> Touched {
        Touched::Device { tenant_id: "t".to_owned(), device_id: device.to_owned() }
    }

    #[test]
    fn a_few_devices_are_judged_alone_and_many_with_everybody() {
        let mut whom = Whom::Devices(HashSet::new());
        for number in 0..DEVICES_MAX {
            whom.add(touched(&format!("d-{number}")));
            whom.add(touched("d-0"));
        }
        assert!(matches!(&whom, Whom::Devices(devices) if devices.len() == DEVICES_MAX));
        whom.add(touched("one more"));
        assert_eq!(whom, Whom::Everybody);
        whom.add(touched("d-0"));
        assert_eq!(whom, Whom::Everybody);
    }

    #[test]
    fn word_that_names_no_device_is_about_everybody() {
        for word in [Touched::Anybody, touched(""), touched(&"x".repeat(129))] {
            let mut whom = Whom::Devices(HashSet::new());
            whom.add(word);
            assert_eq!(whom, Whom::Everybody);
        }
    }
}
