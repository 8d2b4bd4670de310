//! The upkeep of the running counts and of the ledger: takes over those of server processes that are gone, and counts each
//! table anew once in a while, in case somebody changed rows past the triggers.

use std::time::Duration;

use chrono::Days;
use schema::clock::{Clock, Timestamp};
use schema::store::{Store, StoreError, ledger, tally};
use tokio::time::Instant;

use crate::chore::Chore;

/// How often it looks.
const EVERY: Duration = Duration::from_secs(600);
/// Each table is counted anew after so many days.
const CHECK_DAYS: u64 = 7;
/// Between two counts it rests this many times as long as the last one took: counting takes a hundredth of the time.
const REST_FACTOR: u32 = 100;

/// The upkeep.
#[derive(Clone)]
pub struct Tallies {
    /// The database.
    pub store: Store,
    /// Wall time.
    pub clock: Clock,
}

impl Chore for Tallies {
    const NAME: &'static str = "tallies";
    type Error = StoreError;

    async fn run(&mut self) -> Result<Duration, StoreError> {
        self.store.run("tally_fold", async |conn| tally::fold(conn).await).await?;
        self.store.run("ledger_fold", async |conn| ledger::fold(conn).await).await?;
        self.store.run("ledger_fold_hours", async |conn| ledger::fold_hours(conn).await).await?;
        let now = self.clock.now();
        let before = now.checked_sub_days(Days::new(CHECK_DAYS)).unwrap_or(now);
        self.check_ledger(before, now).await?;
        let stalest = async |conn: &mut _| tally::stalest(conn, before, now).await;
        let Some(table) = self.store.run("tally_stalest", stalest).await? else { return Ok(EVERY) };
        let started = Instant::now();
        let check = async |conn: &mut _| tally::check(conn, &table, now).await;
        let rows = self.store.run_at_leisure("tally_check", check).await?;
        let took = started.elapsed();
        tracing::info!(
            table,
            rows,
            seconds = took.as_secs(),
            "rows counted anew, the running count was off by so many"
        );
        Ok(took * REST_FACTOR)
    }
}

impl Tallies {
    /// Enters into the ledger what waited before it, and compares the two once in a while.
    async fn check_ledger(&self, before: Timestamp, now: Timestamp) -> Result<(), StoreError> {
        let standing = async |conn: &mut _| ledger::standing(conn, before, now).await;
        let standing = self.store.run("ledger_standing", standing).await?;
        if standing.opened_at.is_some() && !standing.is_due {
            return Ok(());
        }
        let check = async |conn: &mut _| ledger::check(conn, now).await;
        let rows = self.store.run_at_leisure("ledger_check", check).await?;
        if rows > 0 {
            tracing::error!(rows, "the outbox does not have the rows that the ledger says it has");
        }
        Ok(())
    }
}
