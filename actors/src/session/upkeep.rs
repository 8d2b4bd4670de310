//! What comes round again for sessions: finalizes and children that waited too long, sessions that fell silent, and the gauges.

use std::time::Duration;

use schema::clock::watch::ClockWatch;
use schema::metrics;
use schema::store::session::{self, Due};
use schema::store::{Store, StoreError, dead_letter};

use super::Sessions;
use super::order::{Command, Order};
use super::state::CHILD_WAIT_DAYS;
use crate::chore::Chore;
use crate::gauges::Measured;

/// How often it looks.
const EVERY: Duration = Duration::from_secs(10);
/// Sessions seen to in one round; when there are more, the next round follows soon.
const SESSIONS_PER_ROUND: i64 = 500;
/// The pause before that.
const NEXT_ROUND: Duration = Duration::from_millis(500);

/// The upkeep of sessions.
#[derive(Clone)]
pub struct SessionUpkeep {
    /// The database.
    pub store: Store,
    /// Wall time, and whether something may be given up by it.
    pub watch: ClockWatch,
    /// Who does what is due.
    pub sessions: Sessions,
    /// How long a finalize waits for its session.
    pub finalize_wait: chrono::Duration,
    /// How long an open session may be silent; `None` means for ever.
    pub idle_cancel: Option<chrono::Duration>,
    /// What of it is shown.
    pub gauges: Measured,
}

impl Chore for SessionUpkeep {
    const NAME: &'static str = "session_upkeep";
    type Error = StoreError;

    async fn run(&mut self) -> Result<Duration, StoreError> {
        let mut has_more = false;
        if let Some(now) = self.watch.may_give_up(self.finalize_wait) {
            let wait = self.finalize_wait;
            let work = async |conn: &mut _| {
                session::redate_parked(conn, now, wait).await?;
                session::expired(conn, now, SESSIONS_PER_ROUND).await
            };
            let expired = self.store.run("session_expired", work).await?;
            has_more |= is_full(&expired);
            self.tell(expired, &Command::Expire).await;
        }
        let child_wait = chrono::Duration::days(CHILD_WAIT_DAYS);
        if let Some(now) = self.watch.may_give_up(child_wait) {
            let since = now - child_wait;
            let read = async |conn: &mut _| session::forsaken(conn, since, SESSIONS_PER_ROUND).await;
            let forsaken = self.store.run("session_forsaken", read).await?;
            has_more |= is_full(&forsaken);
            self.tell(forsaken, &Command::Expire).await;
        }
        if let Some(idle_cancel) = self.idle_cancel
            && let Some(now) = self.watch.may_give_up(idle_cancel)
        {
            let idle_since = now - idle_cancel;
            let read = async |conn: &mut _| session::idle(conn, idle_since, SESSIONS_PER_ROUND).await;
            let idle = self.store.run("session_idle", read).await?;
            has_more |= is_full(&idle);
            self.tell(idle, &Command::Cancel { idle_since }).await;
        }
        self.measure().await;
        Ok(if has_more { NEXT_ROUND } else { EVERY })
    }
}

impl SessionUpkeep {
    async fn tell(&self, due: Vec<Due>, command: &Command) {
        for Due { tenant_id, session_id } in due {
            let order = Order::own(&tenant_id, &session_id, command.clone(), self.watch.now());
            // Whatever is not done now is due in the next round.
            drop(self.sessions.ask(order).await);
        }
    }

    async fn measure(&mut self) {
        let read = async |conn: &mut _| Ok((session::waiting(conn).await?, dead_letter::counts(conn).await?));
        let read = self.store.reads().run("session_gauges", read).await;
        let of_letters = dead_letter::Source::ALL.map(metrics::dead_letters_open);
        let gauges = [metrics::session_parked(), metrics::session_unbound_children()];
        let found = self.gauges.found(read, gauges.into_iter().chain(of_letters));
        let Some(([parked, unbound], letters)) = found else { return };
        metrics::session_parked().set(gauge(parked));
        metrics::session_unbound_children().set(gauge(unbound));
        for (source, count) in letters {
            metrics::dead_letters_open(source).set(gauge(count));
        }
    }
}

fn is_full(due: &[Due]) -> bool {
    i64::try_from(due.len()).is_ok_and(|count| count >= SESSIONS_PER_ROUND)
}

fn gauge(count: i64) -> f64 {
    f64::from(i32::try_from(count).unwrap_or(i32::MAX))
}
