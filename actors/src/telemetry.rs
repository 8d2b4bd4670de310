//! The telemetry writer: whatever queues up during a commit shares the next one.
//!
//! Owns: the units of work that are not committed yet.
//! Accepts: `Put` from devices and HTTP, `Flush` and `Committed` from itself.
//! Sends: a wake-up to the sync partitions after each commit, and what is new to whoever listens.
//! Dies: of a bug only; what it held is handed back to the door and delivered again.

mod commit;
pub mod tap;

use std::collections::VecDeque;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU32, Ordering};
use std::time::Duration;

use broker::Delivery;
use ractor::{Actor, ActorProcessingErr, ActorRef, RpcReplyPort};
use rand::Rng;
use schema::clock::Clock;
use schema::metrics;
use schema::store::device::{Seen, StatusReport};
use schema::store::ledger::Outcome;
use schema::store::reject::Refusal;
use schema::store::telemetry::{DeviceEvent, Reading};
use schema::store::{Store, StoreError};
use schema::wire::reject::{Reason, Reject};
use schema::wire::topic::Kind;
use tokio::task::JoinSet;

use crate::address::Address;
use crate::budget::Share;
use crate::database::DatabaseHealth;
use crate::ending::Ending;
use crate::ingress::stats::IngressStats;
use crate::sync::SyncWake;
use crate::telemetry::commit::{Committed, Committer, Part};
use crate::telemetry::tap::{Fresh, Tap};

/// Rows in one commit at most.
pub const BATCH_ROWS_MAX: usize = 1000;
/// The first wait after a failed commit; it doubles up to [`RETRY_DELAY_MAX`].
const RETRY_DELAY: Duration = Duration::from_millis(100);
/// The longest wait after a failed commit.
const RETRY_DELAY_MAX: Duration = Duration::from_secs(2);
/// Refusals described per second at most; beyond it they are only counted.
const REFUSALS_PER_SECOND_MAX: u32 = 50;

/// One thing to write down.
#[derive(Clone, Debug)]
pub enum Unit {
    /// A reading.
    Reading(Reading),
    /// A generic event.
    Event(DeviceEvent),
    /// The state of a device.
    Status(StatusReport),
    /// A refused message.
    Refusal(Refusal),
    /// A message of which the ledger alone tells.
    Counted {
        /// Its tenant, as far as it names one.
        tenant_id: String,
        /// What became of it.
        outcome: Outcome,
    },
}

/// Units that are committed together, and who is told.
#[derive(Debug)]
pub struct Put {
    /// The kind of topic it came from.
    pub kind: Kind,
    /// At most [`BATCH_ROWS_MAX`].
    pub units: Vec<Unit>,
    /// A sign of life to write along.
    pub seen: Option<Seen>,
    /// Who is told of the commit.
    pub receipt: Receipt,
}

/// Who waits for a commit.
#[derive(Debug)]
pub enum Receipt {
    /// A device, for its acknowledgement.
    Delivery(Delivery),
    /// A request, with its share of what requests may have in hand.
    Reply(RpcReplyPort<Result<Stored, Refused>>, Share),
}

impl Receipt {
    /// A request that was given up is not stored any more, so that those of a long outage do not pile up.
    fn is_given_up(&self) -> bool {
        match self {
            Self::Delivery(_) => false,
            Self::Reply(reply, _) => reply.is_closed(),
        }
    }

    fn is_out_of_turn(&self) -> bool {
        match self {
            Self::Delivery(delivery) => delivery.is_out_of_turn(),
            Self::Reply(..) => false,
        }
    }
}

/// How many units of a [`Put`] were new and how many had been seen before.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stored {
    /// Stored now.
    pub new: usize,
    /// Stored before.
    pub duplicates: usize,
}

/// The database cannot hold what was put.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the database refused the data")]
pub struct Refused;

/// The writers, each with its share of the devices. Cloning shares them.
#[derive(Clone)]
pub struct TelemetryWriters {
    writers: Arc<[Address<Msg>]>,
    refusals: Arc<RefusalBudget>,
    clock: Clock,
}

impl TelemetryWriters {
    /// Addresses of `count` writers, to be started by their supervisor.
    #[must_use]
    pub fn new(count: usize, clock: Clock) -> Self {
        let writers = (0..count.max(1)).map(|_| Address::default()).collect();
        Self { writers, refusals: Arc::default(), clock }
    }

    /// The address of each writer, in the order of their numbers.
    #[must_use]
    pub fn addresses(&self) -> &[Address<Msg>] {
        &self.writers
    }

    /// Hands units to the writer of their device. Dropped while that writer restarts: the delivery is handed back.
    pub fn put(&self, put: Put) {
        let key = put.units.first().map(Unit::device);
        let mut hasher = DefaultHasher::new();
        key.hash(&mut hasher);
        let writers = u64::try_from(self.writers.len()).expect("a count fits");
        let index = usize::try_from(hasher.finish() % writers).expect("less than the number of writers");
        self.writers[index].cast(Msg::Put(put));
    }

    /// Records a refusal and acknowledges its message then; beyond the budget it is counted and not described.
    pub fn refuse(&self, refusal: Refusal, delivery: Delivery) {
        let unit = if self.refusals.take(self.clock.now().timestamp()) {
            Unit::Refusal(refusal)
        } else {
            Unit::Counted { tenant_id: refusal.tenant_id.unwrap_or_default(), outcome: Outcome::Refused }
        };
        self.settle(unit, delivery);
    }

    /// Counts a message that takes something back and leaves nothing, and acknowledges it then.
    pub fn remove(&self, tenant_id: &str, delivery: Delivery) {
        self.settle(Unit::Counted { tenant_id: tenant_id.to_owned(), outcome: Outcome::Removed }, delivery);
    }

    fn settle(&self, unit: Unit, delivery: Delivery) {
        let receipt = Receipt::Delivery(delivery);
        self.put(Put { kind: Kind::Event, units: vec![unit], seen: None, receipt });
    }

    /// Stores units and waits for the commit. Whoever stops waiting may have them stored or not.
    ///
    /// # Errors
    /// [`Refused`] when the database cannot hold them; `None` when the writer restarted meanwhile: ask again.
    pub async fn store(&self, kind: Kind, units: Vec<Unit>, share: Share) -> Option<Result<Stored, Refused>> {
        let (send, reply) = ractor::concurrency::oneshot();
        self.put(Put { kind, units, seen: None, receipt: Receipt::Reply(send.into(), share) });
        reply.await.ok()
    }
}

/// How many refusals were recorded in the current second.
#[derive(Debug, Default)]
struct RefusalBudget {
    second: AtomicI64,
    taken: AtomicU32,
}

impl RefusalBudget {
    fn take(&self, second: i64) -> bool {
        if self.second.swap(second, Ordering::Relaxed) != second {
            self.taken.store(0, Ordering::Relaxed);
        }
        self.taken.fetch_add(1, Ordering::Relaxed) < REFUSALS_PER_SECOND_MAX
    }
}

impl Unit {
    /// What spreads the units over the writers: one device's units stay in order.
    fn device(&self) -> (&str, &str) {
        match self {
            Self::Reading(reading) => (&reading.tenant_id, &reading.device_id),
            Self::Event(event) => (&event.tenant_id, &event.device_id),
            Self::Status(report) => (&report.tenant_id, &report.device_id),
            Self::Refusal(refusal) => (&refusal.topic, ""),
            Self::Counted { tenant_id, .. } => (tenant_id, ""),
        }
    }

    /// The dedupe key and body of units that have one.
    fn key(&self) -> Option<[&str; 4]> {
        match self {
            Self::Reading(reading) => {
                Some([&reading.tenant_id, &reading.event_id, &reading.topic, &reading.hash])
            }
            Self::Event(event) => Some([&event.tenant_id, &event.event_id, &event.topic, &event.hash]),
            Self::Status(_) | Self::Refusal(_) | Self::Counted { .. } => None,
        }
    }

    /// What the ledger says of it when it is written; `None` when that depends on what was stored before.
    fn outcome(&self) -> Option<Outcome> {
        match self {
            Self::Reading(_) | Self::Event(_) => None,
            Self::Status(_) => Some(Outcome::Stored),
            Self::Refusal(_) => Some(Outcome::Refused),
            Self::Counted { outcome, .. } => Some(*outcome),
        }
    }

    /// Its tenant, as far as it names one.
    fn tenant_id(&self) -> &str {
        match self {
            Self::Reading(reading) => &reading.tenant_id,
            Self::Event(event) => &event.tenant_id,
            Self::Status(report) => &report.tenant_id,
            Self::Refusal(refusal) => refusal.tenant_id.as_deref().unwrap_or_default(),
            Self::Counted { tenant_id, .. } => tenant_id,
        }
    }

    /// Whether it is one that was taken, of which there is something to store.
    fn is_taken(&self) -> bool {
        match self {
            Self::Reading(_) | Self::Event(_) | Self::Status(_) => true,
            Self::Refusal(_) | Self::Counted { .. } => false,
        }
    }

    /// Whether listeners are told of it, by whether its key is new; a state has none and is told each time.
    fn is_fresh(&self, is_new: bool) -> bool {
        self.is_taken() && (is_new || self.key().is_none())
    }
}

/// The actor; see the head of this file.
pub struct TelemetryWriter;

/// What a writer is told.
#[derive(Debug)]
#[expect(
    clippy::large_enum_variant,
    reason = "nearly every message is a put, and boxing it would cost an allocation each"
)]
pub enum Msg {
    /// Write this down.
    Put(Put),
    /// Commit what is there.
    Flush,
    /// A commit ended.
    Committed,
}

/// What a writer needs.
#[derive(Clone)]
pub struct Args {
    /// Where to write.
    pub store: Store,
    /// Wall time.
    pub clock: Clock,
    /// Told of success and failure.
    pub database: DatabaseHealth,
    /// Counters; shared with the devices.
    pub stats: Arc<IngressStats>,
    /// Told that there may be new outbox rows.
    pub wake_sync: SyncWake,
    /// Told of what is new after each commit.
    pub tap: Tap,
    /// How long dedupe marks live.
    pub dedupe_ttl: chrono::Duration,
    /// This writer's number.
    pub shard: i32,
}

/// What is not committed yet.
pub struct State {
    args: Args,
    committer: Arc<Committer>,
    queue: VecDeque<Put>,
    /// The commit that is under way: one at a time, so that a device's units are written in their order.
    committing: JoinSet<Vec<Part>>,
    is_flush_due: bool,
    failures: u32,
}

impl Actor for TelemetryWriter {
    type Msg = Msg;
    type State = State;
    type Arguments = Args;

    async fn pre_start(&self, _: ActorRef<Msg>, args: Args) -> Result<State, ActorProcessingErr> {
        let Args { store, clock, dedupe_ttl, shard, .. } = args.clone();
        let committer = Arc::new(Committer::new(store, clock, dedupe_ttl, shard));
        let (queue, committing) = (VecDeque::new(), JoinSet::new());
        Ok(State { args, committer, queue, committing, is_flush_due: false, failures: 0 })
    }

    async fn handle(
        &self,
        myself: ActorRef<Msg>,
        message: Msg,
        state: &mut State,
    ) -> Result<(), ActorProcessingErr> {
        match message {
            // What would pass a message before it is handed back, and comes again.
            Msg::Put(put) if put.receipt.is_out_of_turn() => drop(put),
            Msg::Put(put) => state.queue.push_back(put),
            Msg::Flush => {
                state.is_flush_due = false;
                state.begin(&myself);
            }
            Msg::Committed => {
                let Some(parts) = state.committing.join_next().await.transpose()? else { return Ok(()) };
                // The server goes on while what it has written is settled.
                if parts.iter().all(|part| part.outcome.is_ok()) {
                    state.begin(&myself);
                }
                state.settle(parts);
            }
        }
        state.schedule_flush(&myself)
    }

    async fn post_stop(&self, _: ActorRef<Msg>, state: &mut State) -> Result<(), ActorProcessingErr> {
        if let Some(parts) = state.committing.join_next().await.transpose()? {
            state.settle(parts);
        }
        // One last try for what came in before the end. What fails now is dropped and thereby handed back.
        while state.failures == 0 {
            let batch = state.take_batch();
            if batch.is_empty() {
                break;
            }
            state.settle(state.committer.commit(batch).await);
        }
        Ok(())
    }
}

impl State {
    /// The flush goes behind everything that waits in the mailbox already, so that all of it shares one commit.
    fn schedule_flush(&mut self, myself: &ActorRef<Msg>) -> Result<(), ActorProcessingErr> {
        if self.queue.is_empty() || self.is_flush_due || !self.committing.is_empty() {
            return Ok(());
        }
        self.is_flush_due = true;
        if self.failures == 0 {
            myself.send_message(Msg::Flush)?;
        } else {
            drop(myself.send_after(self.retry_delay(), || Msg::Flush));
        }
        Ok(())
    }

    /// Begins to commit what is there. The writer takes more in meanwhile.
    fn begin(&mut self, myself: &ActorRef<Msg>) {
        if !self.committing.is_empty() {
            return;
        }
        let batch = self.take_batch();
        if batch.is_empty() {
            return;
        }
        let committer = Arc::clone(&self.committer);
        let ending = Ending::new(myself.clone(), Msg::Committed);
        self.committing.spawn(async move {
            let _ending = ending;
            committer.commit(batch).await
        });
    }

    fn retry_delay(&self) -> Duration {
        let delay = RETRY_DELAY.saturating_mul(2_u32.saturating_pow(self.failures - 1)).min(RETRY_DELAY_MAX);
        delay.mul_f64(rand::rng().random_range(0.5..=1.0))
    }

    /// What goes into the next commit: at most so many rows, unless the first put alone has more.
    fn take_batch(&mut self) -> Vec<Put> {
        let (mut batch, mut rows) = (Vec::new(), 0);
        while let Some(put) = self.queue.front() {
            if put.receipt.is_given_up() {
                self.queue.pop_front();
                continue;
            }
            rows += put.units.len();
            if !batch.is_empty() && rows > BATCH_ROWS_MAX {
                break;
            }
            batch.extend(self.queue.pop_front());
        }
        batch
    }

    /// A failure leaves the batch at the head of the queue, but for what nobody waits for any more.
    fn failed(&mut self, batch: Vec<Put>, error: &StoreError) {
        self.failures = self.failures.saturating_add(1);
        self.args.database.fails(error);
        self.args.stats.processing_failed();
        let (cause, rows, attempt) = (schema::store::cause(error), batch.len(), self.failures);
        if attempt == 1 && !error.is_outage() {
            tracing::warn!(%error, cause, rows, "commit failed, trying again and again");
        } else {
            tracing::debug!(%error, cause, rows, attempt, "commit failed, trying again");
        }
        for put in batch.into_iter().rev() {
            self.queue.push_front(put);
        }
        self.queue.retain(|put| !put.receipt.is_given_up());
    }

    fn refuse_poison(&mut self, batch: Vec<Put>, error: &StoreError) {
        let reject = Reject::of(Reason::PayloadKeyInvalid, "database");
        let cause = schema::store::cause(error);
        for put in batch {
            tracing::error!(%error, cause, topic_kind = put.kind.as_str(), "the database refused a message for its data");
            self.args.stats.refused(reject);
            match put.receipt {
                Receipt::Reply(reply, _) => drop(reply.send(Err(Refused))),
                Receipt::Delivery(delivery) => {
                    let unit =
                        put.units.first().and_then(|unit| refusal_of(unit, reject, self.args.clock.now()));
                    match unit {
                        Some(unit) => self.queue.push_front(Put {
                            kind: put.kind,
                            units: vec![unit],
                            seen: None,
                            receipt: Receipt::Delivery(delivery),
                        }),
                        None => delivery.reject(),
                    }
                }
            }
        }
    }

    fn settle(&mut self, parts: Vec<Part>) {
        for Part { puts, outcome } in parts {
            match outcome {
                Ok(committed) => self.acknowledge_all(puts, committed),
                Err(error) if error.is_data() => self.refuse_poison(puts, &error),
                Err(error) => self.failed(puts, &error),
            }
        }
    }

    fn acknowledge_all(&mut self, puts: Vec<Put>, committed: Committed) {
        let Committed { stored, is_new, stored_at, readings, conflicts } = committed;
        self.failures = 0;
        self.args.database.works();
        if conflicts > 0 {
            metrics::ingress_dedupe_conflict(Kind::Telemetry).increment(conflicts);
        }
        metrics::telemetry_stored().increment(readings);
        let is_heard = self.args.tap.is_open();
        let (mut units, mut is_new) = (Vec::new(), is_new.into_iter());
        for (put, stored) in puts.into_iter().zip(stored) {
            let came = self.acknowledge(put, stored);
            if is_heard {
                let fresh = came.into_iter().zip(&mut is_new).filter(|(unit, is_new)| unit.is_fresh(*is_new));
                units.extend(fresh.map(|(unit, _)| unit));
            }
        }
        self.args.wake_sync.wake();
        if !units.is_empty() {
            self.args.tap.tell(Fresh { units, stored_at });
        }
    }

    /// Acknowledges a put and gives back what it held.
    fn acknowledge(&self, put: Put, stored: Stored) -> Vec<Unit> {
        let first = put.units.first();
        let is_refusal = first.is_some_and(|unit| unit.outcome() == Some(Outcome::Refused));
        if first.is_some_and(Unit::is_taken) {
            let count = |count: usize| u64::try_from(count).expect("a count fits");
            self.args.stats.stored(put.kind, count(stored.new + stored.duplicates), count(stored.duplicates));
        }
        match put.receipt {
            Receipt::Delivery(delivery) if is_refusal => delivery.reject(),
            Receipt::Delivery(delivery) => delivery.done(),
            Receipt::Reply(reply, _) => {
                let taken = put.units.iter().filter(|unit| unit.is_taken()).count();
                self.args.stats.valid_over_http(put.kind, taken);
                // The request may have been given up; what it asked for is stored all the same.
                drop(reply.send(Ok(stored)));
            }
        }
        put.units
    }
}

/// What is written of a message whose unit the database refused: a refusal, or its count when the refusal itself is at fault.
fn refusal_of(unit: &Unit, reject: Reject, now: schema::clock::Timestamp) -> Option<Unit> {
    let counted = Unit::Counted { tenant_id: String::new(), outcome: Outcome::Refused };
    let Some([_, event_id, topic, hash]) = unit.key() else {
        return (!matches!(unit, Unit::Counted { .. })).then_some(counted);
    };
    let (tenant_id, device_id) = unit.device();
    Some(Unit::Refusal(Refusal {
        reject,
        topic: topic.to_owned(),
        tenant_id: Some(tenant_id.to_owned()),
        device_id: Some(device_id.to_owned()),
        event_id: Some(event_id.to_owned()),
        size_bytes: 0,
        sha256: hash.to_owned(),
        rejected_at: now,
    }))
}
