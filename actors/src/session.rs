//! A weighing session: takes its orders one after the other, from stations and over HTTP alike.
//!
//! Owns: the order in which its commands are applied. The rows are read anew for each, under the session's lock, since
//! another engine may write them as well.
//! Accepts: `Apply` from devices, HTTP and the upkeep.
//! Sends: a wake-up to the sync partitions and to the watcher of images after a commit.
//! Dies: when idle; the next order starts it again. What it held when it failed is handed back and comes again.

use std::sync::Arc;
use std::time::Duration;

use broker::Delivery;
use ractor::{Actor, ActorProcessingErr, ActorRef, RpcReplyPort};
use rand::Rng;
use schema::clock::Clock;
use schema::id::Uuid;
use schema::store::dead_letter::{self, OpenLetters, Source};
use schema::store::device::Seen;
use schema::store::session::{Image, Session, Weight};
use schema::store::{Store, StoreError};
use schema::wire::event::{SESSION_AMENDED, SESSION_CREATED, SESSION_FINALIZED};
use schema::wire::reject::{Reason, Reject};
use schema::wire::topic::Kind;
use schema::{id, metrics};
use tokio::sync::Semaphore;
use tokio::time::Instant;

use crate::budget::Share;
use crate::database::DatabaseHealth;
use crate::directory::{Children, Keyed};
use crate::ingress::stats::IngressStats;
use crate::media;
use crate::refusal;
use crate::sync::SyncWake;
use crate::telemetry::TelemetryWriters;
use crate::wake::Wake;

pub mod apply;
pub mod flag;
pub mod mark;
pub mod order;
pub mod state;
pub mod upkeep;

use apply::{Applied, Outcome};
use order::{Command, Order};
use state::At;

/// Transactions of all sessions side by side, so that many sessions leave connections to the others.
const TRANSACTIONS_MAX: usize = 6;
/// The first wait after a failed transaction; it doubles up to [`RETRY_DELAY_MAX`].
const RETRY_DELAY: Duration = Duration::from_millis(100);
/// The longest wait after a failed transaction.
const RETRY_DELAY_MAX: Duration = Duration::from_secs(2);

/// What all sessions share.
pub struct SessionContext {
    /// The database.
    pub store: Store,
    /// Wall time.
    pub clock: Clock,
    /// Told of success and failure.
    pub database: DatabaseHealth,
    /// Counters.
    pub stats: Arc<IngressStats>,
    /// Where refusals are recorded.
    pub writers: TelemetryWriters,
    /// Told that there may be new outbox rows.
    pub wake_sync: SyncWake,
    /// Told that an image was bound.
    pub wake_media: Wake,
    /// How sessions are treated.
    pub settings: SessionSettings,
    /// Bounds the transactions side by side.
    turns: Semaphore,
}

/// How sessions are treated.
#[derive(Clone, Copy, Debug)]
pub struct SessionSettings {
    /// How long dedupe marks live.
    pub dedupe_ttl: chrono::Duration,
    /// How long a finalize waits for its session.
    pub finalize_wait: chrono::Duration,
}

impl SessionContext {
    /// The context of the sessions of one engine.
    #[must_use]
    #[expect(clippy::too_many_arguments, reason = "they are the parts of an engine, each named once")]
    pub fn new(
        store: Store,
        clock: Clock,
        database: DatabaseHealth,
        stats: Arc<IngressStats>,
        writers: TelemetryWriters,
        wake_sync: SyncWake,
        wake_media: Wake,
        settings: SessionSettings,
    ) -> Self {
        let turns = Semaphore::new(TRANSACTIONS_MAX);
        Self { store, clock, database, stats, writers, wake_sync, wake_media, settings, turns }
    }
}

/// Tells sessions apart.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct SessionKey {
    /// Tenant.
    pub tenant_id: String,
    /// Session.
    pub session_id: String,
}

/// Makes session actors.
pub struct SessionActors(pub Arc<SessionContext>);

impl Keyed for SessionActors {
    type Key = SessionKey;
    type Child = SessionActor;
    const KIND: &'static str = "session";

    fn make(&self, _: &SessionKey) -> (SessionActor, Arc<SessionContext>) {
        (SessionActor, Arc::clone(&self.0))
    }
}

/// The sessions as others reach them. Cloning shares them.
#[derive(Clone, Default)]
pub struct Sessions(Children<SessionActors>);

impl Sessions {
    /// The children of their directory.
    #[must_use]
    pub fn children(&self) -> &Children<SessionActors> {
        &self.0
    }

    /// Has a device's order applied and acknowledges its delivery then. When nobody takes it, it is handed back.
    pub fn deliver(&self, order: Order, seen: Option<Seen>, delivery: Delivery) {
        self.cast(Msg::Apply { order: Box::new(order), seen, receipt: Receipt::Delivery(delivery) });
    }

    /// Has an order of the engine's own applied and waits for the commit.
    ///
    /// # Errors
    /// The refusal; `None` when the session's actor failed meanwhile: ask again.
    pub async fn ask(&self, order: Order) -> Option<Result<Reply, Reject>> {
        self.send(order, None).await
    }

    /// Has the order of a call applied, which has its share of what calls may have in hand, and waits for the commit.
    ///
    /// # Errors
    /// As [`Sessions::ask`].
    pub async fn call(&self, order: Order, share: Share) -> Option<Result<Reply, Reject>> {
        self.send(order, Some(share)).await
    }

    async fn send(&self, order: Order, share: Option<Share>) -> Option<Result<Reply, Reject>> {
        let (send, reply) = ractor::concurrency::oneshot();
        let (asked_at, is_finalize) = (Instant::now(), matches!(order.command, Command::Finalize { .. }));
        self.cast(Msg::Apply {
            order: Box::new(order),
            seen: None,
            receipt: Receipt::Reply(RpcReplyPort::from(send), share),
        });
        let reply = reply.await.ok();
        if is_finalize && matches!(reply, Some(Ok(_))) {
            metrics::session_finalize_seconds().record(asked_at.elapsed());
        }
        reply
    }

    /// Applies dead letters again: these ids or all, of these tenants or of all. Returns how many could be applied.
    ///
    /// # Errors
    /// When the letters cannot be read.
    pub async fn redrive(
        &self,
        store: &Store,
        ids: Option<&[Uuid]>,
        tenants: Option<&[String]>,
    ) -> Result<u64, StoreError> {
        let (mut open, mut redriven) = (OpenLetters::new(Source::Session, ids, tenants), 0);
        loop {
            let page = store.run("dead_letters", async |conn| open.next(conn).await).await?;
            if page.is_empty() {
                return Ok(redriven);
            }
            for letter in page {
                redriven += u64::from(self.redrive_one(letter).await);
            }
        }
    }

    async fn redrive_one(&self, letter: dead_letter::OpenLetter) -> bool {
        let order = match serde_json::from_value::<Order>(letter.body) {
            Ok(order) => Order { letter_id: Some(letter.id), ..order },
            Err(error) => {
                tracing::warn!(id = %letter.id, %error, "a dead letter cannot be read");
                return false;
            }
        };
        matches!(self.ask(order).await, Some(Ok(Reply::Redriven)))
    }

    fn cast(&self, message: Msg) {
        let Msg::Apply { order, .. } = &message;
        let key = SessionKey { tenant_id: order.tenant_id.clone(), session_id: order.session_id.clone() };
        self.0.send(key, message);
    }
}

/// The actor; see the head of this file.
pub struct SessionActor;

/// What a session is told.
#[derive(Debug)]
pub enum Msg {
    /// Apply an order.
    Apply {
        /// What to do.
        order: Box<Order>,
        /// A sign of life to write along.
        seen: Option<Seen>,
        /// Who is told of the commit.
        receipt: Receipt,
    },
}

/// Who waits for a commit.
#[derive(Debug)]
pub enum Receipt {
    /// A device, for its acknowledgement.
    Delivery(Delivery),
    /// A request, with its share of what requests may have in hand; the engine's own needs none.
    Reply(RpcReplyPort<Result<Reply, Reject>>, Option<Share>),
}

impl Receipt {
    /// Whether the order is not to be applied: a request that was given up, so that those of a long outage do not pile
    /// up, and a message that would pass one before it, which is handed back and comes again.
    fn is_void(&self) -> bool {
        match self {
            Self::Delivery(delivery) => delivery.is_out_of_turn(),
            Self::Reply(reply, _) => reply.is_closed(),
        }
    }
}

/// What is there after an order was applied.
#[derive(Clone, Debug, PartialEq)]
pub enum Reply {
    /// The session.
    Session(Box<Session>),
    /// The weight.
    Weight(Weight),
    /// The image.
    Image(Image),
    /// The session, and the image that was attached.
    Attached(Box<Session>, Option<Image>),
    /// The finalize waits for its session.
    Parked,
    /// The dead letter was applied.
    Redriven,
    /// Nothing that the order speaks of: its event id is that of another event, or there is no such session.
    Nothing,
}

impl Actor for SessionActor {
    type Msg = Msg;
    type State = Arc<SessionContext>;
    type Arguments = Arc<SessionContext>;

    async fn pre_start(
        &self,
        _: ActorRef<Msg>,
        context: Arc<SessionContext>,
    ) -> Result<Arc<SessionContext>, ActorProcessingErr> {
        Ok(context)
    }

    async fn handle(
        &self,
        _: ActorRef<Msg>,
        message: Msg,
        context: &mut Arc<SessionContext>,
    ) -> Result<(), ActorProcessingErr> {
        let Msg::Apply { order, seen, receipt } = message;
        context.apply(&order, seen.as_ref(), receipt).await;
        Ok(())
    }
}

impl SessionContext {
    /// Applies an order, however long that takes: a failure is not a refusal.
    async fn apply(&self, order: &Order, seen: Option<&Seen>, receipt: Receipt) {
        let mut attempt = 0;
        while !receipt.is_void() {
            match self.try_apply(order, seen).await {
                Ok(applied) => return self.settle(order, applied, receipt),
                Err(error) if error.is_data() => {
                    let cause = schema::store::cause(&error);
                    tracing::error!(%error, cause, session_id = order.session_id, trace_id = order.trace_id, "the database refused an order for its data");
                    let reject = Reject::of(Reason::PayloadKeyInvalid, "database");
                    return self.answer(order, Err(reject), receipt);
                }
                Err(error) => {
                    attempt += 1;
                    self.database.fails(&error);
                    self.stats.processing_failed();
                    tracing::debug!(%error, attempt, "order not applied, trying again");
                    tokio::time::sleep(retry_delay(attempt)).await;
                }
            }
        }
    }

    async fn try_apply(&self, order: &Order, seen: Option<&Seen>) -> Result<Applied, StoreError> {
        let _turn = self.turns.acquire().await.expect("it is never closed");
        let at =
            At { now: self.clock.now(), row_id: id::new_id(), finalize_wait: self.settings.finalize_wait };
        let ttl = self.settings.dedupe_ttl;
        let work = async |conn: &mut schema::store::Conn| {
            conn.transaction("session_apply", async |conn| apply::apply(conn, order, seen, at, ttl).await)
                .await
        };
        self.store.run("session_apply", work).await
    }

    fn settle(&self, order: &Order, applied: Applied, receipt: Receipt) {
        self.database.works();
        count(&applied);
        if !applied.events.is_empty() {
            self.wake_sync.wake();
        }
        if applied.has_bound_image {
            self.wake_media.wake();
        }
        if let Some(image) = &applied.other_image {
            media::report_other_than_declared(image);
        }
        let is_duplicate = matches!(applied.outcome, Outcome::Duplicate { .. });
        if let Outcome::Duplicate { is_conflict: true } = applied.outcome {
            metrics::ingress_dedupe_conflict(Kind::WeighVision).increment(1);
        }
        if let Outcome::Refused(reject) = applied.outcome {
            return self.answer(order, Err(reject), receipt);
        }
        if let (Command::Finalize { .. }, Receipt::Delivery(delivery)) = (&order.command, &receipt) {
            metrics::session_finalize_seconds().record(delivery.received_at.elapsed());
        }
        if order.mark.is_some() {
            if matches!(receipt, Receipt::Reply(..)) {
                self.stats.valid_over_http(Kind::WeighVision, 1);
            }
            self.stats.stored(Kind::WeighVision, 1, u64::from(is_duplicate));
        }
        self.answer(order, Ok(applied.reply), receipt);
    }

    fn answer(&self, order: &Order, answer: Result<Reply, Reject>, receipt: Receipt) {
        match (receipt, answer) {
            (Receipt::Delivery(delivery), Ok(_)) => delivery.done(),
            (Receipt::Delivery(delivery), Err(reject)) => {
                let event_id = Some(order.event_id.clone());
                refusal::refuse(&self.stats, &self.writers, delivery, reject, event_id);
            }
            // The request may have been given up; what it asked for is done all the same.
            (Receipt::Reply(reply, _), answer) => drop(reply.send(answer)),
        }
    }
}

/// Counts what was committed.
fn count(applied: &Applied) {
    for event_type in &applied.events {
        match *event_type {
            SESSION_CREATED => metrics::session_created().increment(1),
            SESSION_FINALIZED => metrics::session_finalized().increment(1),
            SESSION_AMENDED => metrics::session_amended().increment(1),
            _ => {}
        }
    }
    if applied.is_cancelled {
        metrics::session_cancelled().increment(1);
    }
    if applied.outcome == Outcome::Refused(Reason::SessionConflict.into()) {
        metrics::session_conflict().increment(1);
    }
    for reason in &applied.letters {
        metrics::dead_letters_added(Source::Session, reason).increment(1);
    }
}

fn retry_delay(attempt: u32) -> Duration {
    let delay = RETRY_DELAY.saturating_mul(2_u32.saturating_pow(attempt - 1)).min(RETRY_DELAY_MAX);
    delay.mul_f64(rand::rng().random_range(0.5..=1.0))
}
