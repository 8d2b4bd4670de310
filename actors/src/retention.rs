//! Retention: deletes what has become old enough, and makes room when the disk is full.
//!
//! Owns: the rhythm of the passes, and the pass under way.
//! Accepts: `Ended` from its own work; orders come through [`RetentionHub`] and need no mailbox.
//! Sends: nothing.
//! Dies: of a bug only. A pass may be cut at any point: the next one finds what is left.

pub mod disk;
mod held;
mod images;
mod janitor;
mod mark;
mod orphans;
mod pass;
pub mod report;
mod room;
pub mod trouble;
pub mod upkeep;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwapOption;
use ractor::{Actor, ActorProcessingErr, ActorRef};
use schema::clock::watch::ClockWatch;
use schema::store::Store;
use tokio::sync::{Mutex, OwnedMutexGuard, mpsc, oneshot};
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::ending::Ending;
use crate::media::store::MediaStore;
use crate::media::thumbnail::Thumbnails;
use crate::wake::Wake;
use janitor::Janitor;
use report::Report;
use trouble::Trouble;

/// From the start to the first pass.
const FIRST_PASS_AFTER: Duration = Duration::from_secs(60);
/// Orders that wait while a pass is under way; more are refused.
const ORDERS_MAX: usize = 8;
/// How often it is looked whose the store of images is. Another database that keeps images there is noticed so soon.
const STORE_EVERY: Duration = Duration::from_secs(600);
/// How long an order waits for its result.
const RESULT_WAIT_MAX: Duration = Duration::from_secs(50);

/// What is kept, and for how long.
#[derive(Clone, Debug)]
pub struct RetentionSettings {
    /// Days for which readings and device events are kept.
    pub telemetry_raw_days: u64,
    /// Days for which aggregates are kept.
    pub telemetry_agg_days: u64,
    /// Days for which images are kept.
    pub media_days: u64,
    /// Days for which acknowledged outbox rows are kept.
    pub outbox_acked_days: u64,
    /// Minutes between two passes.
    pub interval_minutes: u64,
    /// Whether a pass that nobody ordered only says what it would delete.
    pub is_dry_run: bool,
    /// Whether images of finalized sessions go before their time when room is needed.
    pub is_emergency_delete: bool,
    /// Free bytes of the media volume below which room is needed.
    pub free_bytes_min: u64,
    /// Free bytes of the volume of the database below which room is needed there.
    pub database_free_bytes_min: u64,
    /// The directory of the images; `None` when they lie in a bucket.
    pub media_root: Option<PathBuf>,
    /// The bucket of the images; a name with either backend.
    pub bucket: String,
    /// Small copies, which go with their images.
    pub thumbnails: Thumbnails,
}

/// How a pass is run, and what a person takes upon himself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PassOrder {
    /// Whether it only says what it would delete; as configured when absent.
    pub is_dry_run: Option<bool>,
    /// The clock is right, however far ahead it seems.
    pub confirms_clock: bool,
    /// Files that no row knows may go however many they are.
    pub confirms_orphans: bool,
    /// The images in the store are those of this database, whatever its marker says.
    pub adopts_store: bool,
}

/// What is ordered: a pass, and who wants to hear of it.
struct Order {
    pass: PassOrder,
    reply: oneshot::Sender<Arc<Report>>,
}

/// Retention as others reach it. Cloning shares it.
#[derive(Clone)]
pub struct RetentionHub(Arc<Shared>);

struct Shared {
    janitor: Janitor,
    interval: Duration,
    last: ArcSwapOption<Report>,
    orders: mpsc::Sender<Order>,
    /// Locked by the actor for as long as it lives.
    inbox: Arc<Mutex<mpsc::Receiver<Order>>>,
    room: Wake,
    /// Where the database lies, when its volume needs room.
    database_place: ArcSwapOption<PathBuf>,
    database_room: Wake,
}

impl RetentionHub {
    /// A hub over a database and a place of images.
    #[must_use]
    pub fn new(
        settings: RetentionSettings,
        store: Store,
        watch: ClockWatch,
        media: Arc<dyn MediaStore>,
    ) -> Self {
        let (orders, inbox) = mpsc::channel(ORDERS_MAX);
        Self(Arc::new(Shared {
            interval: Duration::from_secs(settings.interval_minutes * 60),
            janitor: Janitor::new(settings, store, watch, media),
            last: ArcSwapOption::empty(),
            orders,
            inbox: Arc::new(Mutex::new(inbox)),
            room: Wake::default(),
            database_place: ArcSwapOption::empty(),
            database_room: Wake::default(),
        }))
    }

    /// What the last pass of this engine did; `None` before the first.
    #[must_use]
    pub fn last(&self) -> Option<Arc<Report>> {
        self.0.last.load_full()
    }

    /// What keeps passes from deleting until somebody acts, by what is kept.
    #[must_use]
    pub fn troubles(&self) -> BTreeMap<&'static str, Trouble> {
        self.0.janitor.troubles.all()
    }

    /// The months and days that are over and kept, and why.
    #[must_use]
    pub fn held_tables(&self) -> BTreeMap<String, &'static str> {
        self.0.janitor.held.all()
    }

    /// Orders a pass, which follows the one under way, and waits for its result. `None`: there is none yet, too many
    /// orders wait already, or the actor does not run.
    pub async fn order(&self, pass: PassOrder) -> Option<Arc<Report>> {
        if self.0.inbox.try_lock().is_ok() {
            return None;
        }
        let (reply, result) = oneshot::channel();
        self.0.orders.try_send(Order { pass, reply }).ok()?;
        tokio::time::timeout(RESULT_WAIT_MAX, result).await.ok()?.ok()
    }

    /// Runs one pass right here, beside the rhythm of the actor.
    pub async fn pass(&self, order: PassOrder) -> Arc<Report> {
        let report = Arc::new(self.0.janitor.pass(order).await);
        self.0.last.store(Some(Arc::clone(&report)));
        report
    }

    async fn run(&self, mut inbox: OwnedMutexGuard<mpsc::Receiver<Order>>) {
        let mut due = Instant::now() + FIRST_PASS_AFTER;
        let mut store_due = Instant::now();
        loop {
            tokio::select! {
                order = inbox.recv() => {
                    let order = order.expect("the hub holds a sender");
                    // Nobody waits for it any more.
                    if order.reply.is_closed() {
                        continue;
                    }
                    // Whoever ordered it may have gone meanwhile.
                    let _ = order.reply.send(self.pass(order.pass).await);
                }
                () = tokio::time::sleep_until(store_due) => {
                    // What fails now is said by the next pass.
                    let _ = self.0.janitor.ask_of_clock().await;
                    let _ = self.0.janitor.look_at_store(false).await;
                    store_due = Instant::now() + STORE_EVERY;
                }
                () = self.0.room.wait(Duration::MAX) => self.0.janitor.make_room_now().await,
                () = self.0.database_room.wait(Duration::MAX) => {
                    if let Some(place) = self.0.database_place.load_full() {
                        self.0.janitor.make_database_room(&place).await;
                    }
                }
                () = tokio::time::sleep_until(due) => {
                    self.pass(PassOrder::default()).await;
                    due = Instant::now() + self.0.interval;
                }
            }
        }
    }
}

/// The actor; see the head of this file.
pub struct Retention;

/// What it is told.
#[derive(Debug)]
pub enum Msg {
    /// Its work ended, which only a bug brings about.
    Ended,
}

impl Actor for Retention {
    type Msg = Msg;
    type State = JoinSet<()>;
    type Arguments = RetentionHub;

    async fn pre_start(
        &self,
        myself: ActorRef<Msg>,
        hub: RetentionHub,
    ) -> Result<JoinSet<()>, ActorProcessingErr> {
        let inbox = Arc::clone(&hub.0.inbox).lock_owned().await;
        let mut work = JoinSet::new();
        let ending = Ending::new(myself, Msg::Ended);
        work.spawn(async move {
            let _ending = ending;
            hub.run(inbox).await;
        });
        Ok(work)
    }

    async fn handle(
        &self,
        _: ActorRef<Msg>,
        Msg::Ended: Msg,
        _: &mut JoinSet<()>,
    ) -> Result<(), ActorProcessingErr> {
        Err("the work of retention ended".into())
    }

    /// Cuts the pass under way.
    async fn post_stop(&self, _: ActorRef<Msg>, work: &mut JoinSet<()>) -> Result<(), ActorProcessingErr> {
        work.shutdown().await;
        Ok(())
    }
}
