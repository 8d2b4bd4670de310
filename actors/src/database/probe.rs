//! The probe of the database: writes a row when nobody else writes, so that its health is known.

use std::time::Duration;

use schema::clock::Clock;
use schema::metrics;
use schema::store::{Store, StoreError, health};

use super::{DatabaseHealth, PROBE, Question};
use crate::chore::Chore;

/// A database that takes longer for one row is in trouble.
const ANSWER_MAX: Duration = Duration::from_secs(3);

/// Writes a row when nobody else writes.
#[derive(Clone)]
pub struct DatabaseProbe {
    /// The database.
    pub store: Store,
    /// Wall time.
    pub clock: Clock,
    /// Who is told.
    pub health: DatabaseHealth,
}

impl Chore for DatabaseProbe {
    const NAME: &'static str = "database";
    // What fails is told to the health, which says it once.
    type Error = std::convert::Infallible;

    async fn run(&mut self) -> Result<Duration, Self::Error> {
        if let Some(Question { needs_room }) = self.health.question() {
            let now = self.clock.now();
            let write = self.store.run("probe", async |conn| health::probe(conn, needs_room, now).await);
            let silent = Err(StoreError::Unanswered { name: "probe" });
            self.health.probed(&tokio::time::timeout(ANSWER_MAX, write).await.unwrap_or(silent));
        }
        let in_use = self.store.in_use();
        for (pool, count) in [("work", in_use.work), ("reads", in_use.reads), ("kept", in_use.kept)] {
            metrics::db_pool_in_use(pool).set(f64::from(u32::try_from(count).unwrap_or(u32::MAX)));
        }
        Ok(PROBE)
    }
}
