//! Keeps the board: hears what was committed, reads what an earlier life of the engine left, writes what the tests found.
//!
//! Owns: the two tasks that do it, and what was found and is not written yet.
//! Accepts: `Ended` from itself.
//! Sends: nothing.
//! Dies: of a bug only; the board stays.

use std::time::Duration;

use ractor::{Actor, ActorProcessingErr, ActorRef};
use schema::clock::Clock;
use schema::metrics;
use schema::store::board::{self as rows, LastMinute};
use schema::store::fault::{self, Fault};
use schema::store::{Store, StoreError, cause};
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};

use super::Board;
use crate::ending::Ending;
use crate::place::Places;
use crate::telemetry::Unit;
use crate::telemetry::tap::{Fresh, Heard, Listener, Tap};

/// How often it is looked for what fell silent, and written what was found.
const SWEEP_EVERY: Duration = Duration::from_secs(10);
/// The first wait after the database failed; it doubles up to [`RETRY_MAX`].
const RETRY: Duration = Duration::from_secs(1);
/// The longest.
const RETRY_MAX: Duration = Duration::from_secs(60);
/// After commits were missed, their minutes are closed within this time.
const CLOSED_WITHIN: Duration = Duration::from_secs(90);
/// How old the last minute of a device may be to be shown.
const LAST_WITHIN: chrono::Duration = chrono::Duration::days(7);
/// A fault that was written so lately had not ended.
const ENDED_WITHIN: chrono::Duration = chrono::Duration::minutes(15);
/// The longest that the last of it may take to be written when the engine ends.
const LAST_WRITE_MAX: Duration = Duration::from_secs(1);
/// Faults of one statement.
const FAULTS_PER_WRITE_MAX: usize = 1000;

/// What the keeper needs.
#[derive(Clone)]
pub struct Args {
    /// The board.
    pub board: Board,
    /// Where commits are told.
    pub tap: Tap,
    /// Where devices are.
    pub places: Places,
    /// The database.
    pub store: Store,
    /// Wall time.
    pub clock: Clock,
}

/// The actor; see the head of this file.
pub struct BoardKeeper;

/// What the actor is told.
#[derive(Debug)]
pub enum Msg {
    /// A task has ended by itself.
    Ended,
}

/// The tasks at work.
pub struct State {
    args: Args,
    tasks: JoinSet<()>,
}

impl Actor for BoardKeeper {
    type Msg = Msg;
    type State = State;
    type Arguments = Args;

    async fn pre_start(&self, myself: ActorRef<Msg>, args: Args) -> Result<State, ActorProcessingErr> {
        // It listens before it reads, so that nothing lies between.
        let listener = args.tap.listen();
        let missed = std::sync::Arc::new(Notify::new());
        let mut tasks = JoinSet::new();
        let (ending, told) = (Ending::new(myself.clone(), Msg::Ended), std::sync::Arc::clone(&missed));
        let hearing = args.clone();
        tasks.spawn(async move {
            let _ending = ending;
            hearing.hear_all(listener, &told).await;
        });
        let (ending, keeping) = (Ending::new(myself, Msg::Ended), args.clone());
        tasks.spawn(async move {
            let _ending = ending;
            keeping.keep(&missed).await;
        });
        Ok(State { args, tasks })
    }

    async fn handle(
        &self,
        _: ActorRef<Msg>,
        Msg::Ended: Msg,
        _: &mut State,
    ) -> Result<(), ActorProcessingErr> {
        Err("a task of the board ended by itself".into())
    }

    async fn post_stop(&self, _: ActorRef<Msg>, state: &mut State) -> Result<(), ActorProcessingErr> {
        state.tasks.shutdown().await;
        let mut keeper = Keeper { args: &state.args, unwritten: Vec::new(), failures: 0 };
        if !matches!(timeout(LAST_WRITE_MAX, keeper.sweep()).await, Ok(Ok(()))) {
            tracing::debug!("what the tests of the sensors found last could not be written");
        }
        Ok(())
    }
}

impl Args {
    /// Hears for as long as there are writers. It never waits for the database, so that nothing is missed.
    async fn hear_all(&self, mut listener: Listener, missed: &Notify) {
        while let Some(heard) = listener.next().await {
            match heard {
                Heard::Fresh(fresh) => self.hear(&fresh),
                Heard::Missed(batches) => {
                    metrics::board_missed().increment(batches);
                    tracing::debug!(batches, "commits were missed, the board reads rows");
                    self.board.was_deaf(self.clock.now());
                    missed.notify_one();
                }
            }
        }
    }

    fn hear(&self, fresh: &Fresh) {
        let reading = |unit: &'_ Unit| matches!(unit, Unit::Reading(_));
        if fresh.units.iter().any(reading) {
            let readings = fresh.units.iter().filter_map(|unit| match unit {
                Unit::Reading(reading) => Some(reading),
                Unit::Event(_) | Unit::Status(_) | Unit::Refusal(_) | Unit::Counted { .. } => None,
            });
            self.board.hear(readings, fresh.stored_at, &self.places);
        }
    }

    /// Reads rows when that is due, and writes what was found; for ever.
    async fn keep(&self, missed: &Notify) {
        let mut keeper = Keeper { args: self, unwritten: Vec::new(), failures: 0 };
        let mut read_at = Some(Instant::now());
        loop {
            let outcome = match read_at {
                Some(at) if at <= Instant::now() => keeper.read().await.map(|()| read_at = None),
                Some(_) | None => Ok(()),
            };
            let outcome = match outcome {
                Ok(()) => keeper.sweep().await,
                Err(error) => Err(error),
            };
            let wait = keeper.settled(outcome);
            tokio::select! {
                () = missed.notified() => read_at = Some(Instant::now() + CLOSED_WITHIN),
                () = sleep(wait) => {}
            }
        }
    }
}

struct Keeper<'a> {
    args: &'a Args,
    /// Found and not written yet: what one sweep gave out at most.
    unwritten: Vec<Fault>,
    failures: u32,
}

impl Keeper<'_> {
    /// Reads the last minutes of every device, page by page, and what was stuck.
    async fn read(&self) -> Result<(), StoreError> {
        let Args { board, store, clock, places, .. } = self.args;
        let reads = store.reads();
        places.refresh().await?;
        let mut after = (String::new(), String::new());
        loop {
            let now = clock.now();
            let page = reads
                .run("board", async |conn| {
                    let devices = rows::devices(conn, (&after.0, &after.1)).await?;
                    let minutes: Vec<LastMinute> =
                        rows::last_minutes(conn, &devices, (now - LAST_WITHIN, now)).await?;
                    Ok((devices, minutes))
                })
                .await?;
            let (devices, minutes) = page;
            board.read(&minutes, &devices, now);
            match devices.last() {
                Some(last)
                    if devices.len() >= usize::try_from(rows::DEVICES_PER_PAGE).unwrap_or_default() =>
                {
                    after = (last.tenant_id.clone(), last.device_id.clone());
                }
                Some(_) | None => break,
            }
        }
        let since = clock.now() - ENDED_WITHIN;
        let faults = reads.run("board_faults", async |conn| fault::latest(conn, since).await).await?;
        board.resume(&faults);
        tracing::debug!(series = board.series(), "the board has read its rows");
        Ok(())
    }

    /// Writes what was found. What could not be written is tried again before anything else is taken.
    async fn sweep(&mut self) -> Result<(), StoreError> {
        let now = self.args.clock.now();
        if self.unwritten.is_empty() {
            self.unwritten = self.args.board.sweep(now);
        }
        while !self.unwritten.is_empty() {
            let some = &self.unwritten[..self.unwritten.len().min(FAULTS_PER_WRITE_MAX)];
            self.args.store.run("faults", async |conn| fault::put(conn, some, now).await).await?;
            let written = some.len();
            self.unwritten.drain(..written);
        }
        Ok(())
    }

    /// How long to wait until the next time. A failure is logged when it begins.
    fn settled(&mut self, outcome: Result<(), StoreError>) -> Duration {
        let Err(error) = outcome else {
            self.failures = 0;
            return SWEEP_EVERY;
        };
        let wait = RETRY.saturating_mul(2_u32.saturating_pow(self.failures)).min(RETRY_MAX);
        if self.failures == 0 && !error.is_outage() {
            let cause = cause(&error);
            tracing::warn!(%error, cause, "the board cannot read or write its rows, trying again and again");
        }
        self.failures += 1;
        wait
    }
}
