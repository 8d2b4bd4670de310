//! The owner of all alarms of this engine's barn: what stands, who was told, and what is written of it.
//!
//! Owns: a [`House`] for each barn that this engine serves, and one for the box itself; the rows that are to be written; what
//! is to be said by each way out.
//! Accepts: `Heard` from the feed of commits, `Tick` and the ends of its own tasks, `Act` and `Drill` from people,
//! `Acknowledged` from ways out of the barn, `Refresh` when rules or modes change.
//! Sends: messages by the ways, each after its row is written, or at once when the database does not take it.
//! Dies: of a bug only. The next one takes up what stood from the rows; what was being told is told again under the same
//! number.
//!
//! Of several engines on one database one owns the alarms; see [`Ownership`].

mod book;
mod round;
mod sounder;
mod unheard;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use ractor::{Actor, ActorProcessingErr, ActorRef, RpcReplyPort};
use schema::clock::{Clock, Timestamp};
use schema::store::alarm::owner::Ownership;
use schema::store::alarm::telling::DrillRow;
use schema::store::alarm::{AlarmRow, Barn, scene as rows};
use schema::store::audit::Author;
use schema::store::place::Role;
use schema::store::{Store, StoreError};
use tokio::sync::oneshot;
use tokio::task::JoinSet;
use tokio::time::Instant;
use uuid::Uuid;

use self::book::{Book, Op};
use self::sounder::Sounder;
use self::unheard::{Unheard, Word};
use super::drill::Weekly;
use super::escalation::Plans;
use super::feed::{AlarmFeed, Notice};
use super::guard::DatabaseGuard;
use super::heartbeat::{Heart, Vital};
use super::house::{Act, ActError, House, Key, Moment, Said};
use super::probe::counted_at;
use super::rule::{OUTSIDE_TEMPERATURE, SlowMeasure, TEMPERATURE};
use super::scene::{self, LastDrill, Loaded, Recent, Wanted};
use super::starting::{DRILL, ENGINE_WAY};
use super::trouble::{Condition, Troubles};
use super::way::{Acknowledgment, Class, Receipt, WayError, Ways};
use crate::board::Board;
use crate::place::Places;
use crate::telemetry::Unit;
use crate::telemetry::tap::{Heard, Listener, Tap};
use tokio::sync::watch;

/// How often everything is looked at.
pub const LOOK_EVERY: Duration = Duration::from_secs(1);
/// How often rules, modes and devices are read again.
const SCENE_EVERY: Duration = Duration::from_secs(10);
/// How often what takes hours and days is looked at.
const SLOW_EVERY: Duration = Duration::from_secs(60);
/// Barns of one engine.
const HOUSES_MAX: usize = rows::BARNS_MAX as usize;
/// After so long whoever has the right to the alarms is another engine, and no connection of ours that broke.
const GHOST_MAX: Duration = Duration::from_secs(60);
/// A button that was pressed while the alarms were read counts for so long.
const EARLY_MAX: Duration = Duration::from_secs(30);
/// Presses that wait for alarms to be read.
const EARLY_WORDS_MAX: usize = 32;
/// How often barns are looked for that are new.
const BARNS_EVERY: Duration = Duration::from_secs(10);

/// What the owner is made of.
#[derive(Clone)]
pub struct Args {
    /// The database.
    pub store: Store,
    /// Wall time.
    pub clock: Clock,
    /// What commits store.
    pub tap: Tap,
    /// The name of the engine, which is what the box is called.
    pub edge_id: String,
    /// The ways out of the barn.
    pub ways: Ways,
    /// The engine's own trouble.
    pub troubles: Troubles,
    /// Rings by itself while the database is away.
    pub guard: DatabaseGuard,
    /// The sign of life.
    pub heart: Heart,
    /// Who is told when.
    pub plans: Arc<Plans>,
    /// When drills are held.
    pub drill_at: Option<Weekly>,
    /// Where devices are.
    pub places: Places,
    /// What is wrong with sensors.
    pub board: Board,
    /// Where others look on.
    pub feed: AlarmFeed,
}

/// What was done, as it is then.
#[derive(Clone, Debug)]
pub struct Done {
    /// The alarm.
    pub row: AlarmRow,
    /// Whether that is written down; else it will be when the database is back.
    pub is_written: bool,
}

/// What the owner is told.
pub enum Msg {
    /// It is time to look.
    Tick,
    /// A commit, and whom to tell that it was looked at.
    Heard(Heard, oneshot::Sender<()>),
    /// Whether this engine owns the alarms.
    Owns(Result<Option<Ownership>, StoreError>),
    /// Which barns there are.
    Barns(Result<Vec<Barn>, StoreError>),
    /// What a house starts from.
    Loaded(Barn, Box<Result<Loaded, StoreError>>),
    /// What was missed, or is known anew, of a barn.
    Read(Barn, Box<Result<scene::Reread, StoreError>>),
    /// What takes hours and days to see.
    Slow(Barn, Result<BTreeMap<SlowMeasure, f64>, StoreError>),
    /// A transaction of so many rows has ended.
    Written(usize, Result<(), StoreError>),
    /// The owner of the alarms was told what this engine has stored, or could not be.
    Noted(Word, Result<(), StoreError>),
    /// What engines have stored that do not own the alarms.
    Unheard(Result<Vec<(Barn, Timestamp)>, StoreError>),
    /// A telling by a way has ended.
    Told(Box<Told>),
    /// A person does something about an alarm.
    Act {
        /// Whose alarms he may touch; `None` for everybody's.
        tenant_id: Option<String>,
        /// Which alarm.
        id: Uuid,
        /// What.
        act: Act,
        /// Who.
        author: Author,
        /// Told when it is written.
        reply: RpcReplyPort<Result<Done, ActError>>,
    },
    /// A person begins a drill.
    Drill {
        /// Where.
        barn: Barn,
        /// Who.
        author: Author,
        /// Told when it is written.
        reply: RpcReplyPort<Result<Done, ActError>>,
    },
    /// Somebody says by a way that he knows.
    Acknowledged(Acknowledgment),
    /// Rules or modes have changed.
    Refresh,
}

impl std::fmt::Debug for Msg {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Tick => "Tick",
            Self::Heard(..) => "Heard",
            Self::Owns(_) => "Owns",
            Self::Barns(_) => "Barns",
            Self::Loaded(..) => "Loaded",
            Self::Read(..) => "Read",
            Self::Slow(..) => "Slow",
            Self::Written(..) => "Written",
            Self::Noted(..) => "Noted",
            Self::Unheard(_) => "Unheard",
            Self::Told(_) => "Told",
            Self::Act { .. } => "Act",
            Self::Drill { .. } => "Drill",
            Self::Acknowledged(_) => "Acknowledged",
            Self::Refresh => "Refresh",
        })
    }
}

/// What became of a telling by one way.
#[derive(Debug)]
pub struct Told {
    way: String,
    alarm_id: Uuid,
    occurrence: i64,
    /// `None` for a word that nobody counts, such as to be silent.
    number: Option<i32>,
    outcome: Result<Receipt, WayError>,
    sounds: bool,
}

/// The actor; see the head of this file.
pub struct AlarmOwner;

/// Its state.
pub struct State {
    args: Args,
    /// Goes on from the wall's time at the start, whatever is done to the wall's.
    steady: Clock,
    ownership: Option<Ownership>,
    houses: BTreeMap<Barn, House>,
    loading: BTreeSet<Barn>,
    /// Barns of which something was missed.
    missed: BTreeSet<Barn>,
    /// Words of people who know, that came before their alarms were read.
    early: Vec<(Instant, Acknowledgment)>,
    /// Barns of which other engines have stored something, and since when.
    since: BTreeMap<Barn, Timestamp>,
    unheard: Unheard,
    reading: BTreeSet<Barn>,
    conditions: watch::Receiver<Arc<[Condition]>>,
    book: Book,
    sounders: BTreeMap<String, Sounder>,
    /// Ways by which the last telling failed.
    broken_ways: BTreeMap<String, String>,
    drills: Vec<DrillRow>,
    last_drills: BTreeMap<Barn, LastDrill>,
    /// Since when the right to the alarms is refused.
    refused_since: Option<Instant>,
    due: Due,
    tasks: JoinSet<()>,
    vital: Vital,
}

/// When something is to be done next.
struct Due {
    ownership: Instant,
    barns: Instant,
    scene: Instant,
    slow: Instant,
}

impl Actor for AlarmOwner {
    type Msg = Msg;
    type State = State;
    type Arguments = Args;

    async fn pre_start(&self, myself: ActorRef<Msg>, args: Args) -> Result<State, ActorProcessingErr> {
        let (listener, mut tasks) = (args.tap.listen(), JoinSet::new());
        tasks.spawn(listen(listener, myself.clone()));
        myself.send_message(Msg::Tick)?;
        drop(myself.send_interval(LOOK_EVERY, || Msg::Tick));
        let now = Instant::now();
        Ok(State {
            steady: Clock::following(args.clock.now()),
            unheard: Unheard::since(args.clock.now()),
            conditions: args.troubles.subscribe(),
            vital: args.heart.vital("alarms"),
            sounders: sounders(&args.ways),
            args,
            ownership: None,
            houses: BTreeMap::new(),
            loading: BTreeSet::new(),
            missed: BTreeSet::new(),
            early: Vec::new(),
            since: BTreeMap::new(),
            reading: BTreeSet::new(),
            book: Book::default(),
            broken_ways: BTreeMap::new(),
            drills: Vec::new(),
            last_drills: BTreeMap::new(),
            refused_since: None,
            due: Due { ownership: now, barns: now, scene: now, slow: now },
            tasks,
        })
    }

    async fn handle(
        &self,
        myself: ActorRef<Msg>,
        msg: Msg,
        state: &mut State,
    ) -> Result<(), ActorProcessingErr> {
        match msg {
            Msg::Tick => state.tick(&myself),
            Msg::Heard(heard, looked) => {
                state.hear(&heard);
                // Whoever listens for us may have ended.
                let _ = looked.send(());
            }
            Msg::Owns(outcome) => state.own(&myself, outcome),
            Msg::Barns(outcome) => state.enter_barns(&myself, outcome),
            Msg::Loaded(barn, outcome) => state.enter(&barn, *outcome),
            Msg::Read(barn, outcome) => state.read_again(&barn, *outcome),
            Msg::Slow(barn, outcome) => state.set_slow(&barn, outcome),
            Msg::Written(count, outcome) => {
                for row in state.book.written(count, outcome) {
                    state.args.feed.tell(notice(row));
                }
            }
            Msg::Noted(word, outcome) => state.noted(word, outcome),
            Msg::Unheard(outcome) => state.take_unheard(outcome),
            Msg::Told(told) => state.note_told(*told),
            Msg::Act { tenant_id, id, act, author, reply } => {
                state.act(tenant_id.as_deref(), id, &act, &author, reply);
            }
            Msg::Drill { barn, author, reply } => state.drill(&barn, &author, reply),
            Msg::Acknowledged(acknowledgment) => state.acknowledge(&acknowledgment),
            Msg::Refresh => state.due.scene = Instant::now(),
        }
        state.settle(&myself);
        Ok(())
    }
}

/// What whoever looks on hears of a row that is written.
fn notice(row: AlarmRow) -> Notice {
    Notice {
        alarm_id: row.id,
        tenant_id: row.tenant_id,
        farm_id: row.farm_id,
        barn_id: row.barn_id,
        rule_id: row.rule_id,
        place: row.place,
        class: Class::parse(&row.class).unwrap_or(Class::Critical),
        state: super::state::State::parse(&row.state).unwrap_or(super::state::State::Norm),
        value: row.value,
        limit: row.limit_value,
        unit: row.unit,
        happened_at: row.updated_at,
    }
}

fn sounders(ways: &Ways) -> BTreeMap<String, Sounder> {
    let sounding = ways.iter().filter(|way| way.sounds());
    sounding.map(|way| (way.name().to_owned(), Sounder::default())).collect()
}

/// Hands commits on, one at a time: what waits beyond that waits in the feed, which is bounded.
async fn listen(mut listener: Listener, owner: ActorRef<Msg>) {
    while let Some(heard) = listener.next().await {
        let (looked, has_looked) = oneshot::channel();
        if owner.send_message(Msg::Heard(heard, looked)).is_err() || has_looked.await.is_err() {
            return;
        }
    }
}

impl State {
    fn moment(&self) -> Moment {
        Moment { steady: self.steady.now(), wall: self.args.clock.now() }
    }

    /// Begins a task whose end is a message.
    fn begin(&mut self, myself: &ActorRef<Msg>, work: impl Future<Output = Msg> + Send + 'static) {
        let owner = myself.clone();
        self.tasks.spawn(async move {
            // An owner that has ended needs no answer.
            drop(owner.send_message(work.await));
        });
        while self.tasks.try_join_next().is_some() {}
    }

    fn own(&mut self, myself: &ActorRef<Msg>, outcome: Result<Option<Ownership>, StoreError>) {
        match outcome {
            Ok(Some(ownership)) => {
                tracing::info!("this engine owns the alarms");
                (self.ownership, self.refused_since) = (Some(ownership), None);
                self.missed.extend(self.unheard.take_barns());
                self.look_for_barns(myself);
            }
            // It may be our own connection of before, which the server has not missed yet.
            Ok(None) => {
                let since = *self.refused_since.get_or_insert_with(Instant::now);
                if !self.houses.is_empty() && since.elapsed() >= GHOST_MAX {
                    tracing::warn!("another engine on this database owns the alarms now");
                    self.houses.clear();
                    self.drills.clear();
                    self.book = Book::default();
                }
            }
            Err(error) => tracing::debug!(%error, "the alarms cannot be owned now"),
        }
    }

    fn look_for_barns(&mut self, myself: &ActorRef<Msg>) {
        let store = self.args.store.clone();
        self.begin(myself, async move {
            Msg::Barns(store.run("alarm_barns", async |conn| rows::barns(conn).await).await)
        });
    }

    fn enter_barns(&mut self, myself: &ActorRef<Msg>, outcome: Result<Vec<Barn>, StoreError>) {
        let Ok(barns) = outcome else { return };
        for barn in std::iter::once(Barn::of_box()).chain(barns) {
            if !self.houses.contains_key(&barn) && self.ownership.is_some() {
                self.load(myself, barn);
            }
        }
    }

    fn load(&mut self, myself: &ActorRef<Msg>, barn: Barn) {
        if !self.loading.insert(barn.clone()) {
            return;
        }
        let (store, edge_id, now) =
            (self.args.store.clone(), self.args.edge_id.clone(), self.args.clock.now());
        self.begin(myself, async move {
            let read = {
                let barn = barn.clone();
                async |conn: &mut schema::store::Conn| scene::load(conn, barn, &edge_id, now).await
            };
            let loaded = store.run("alarm_load", read).await;
            Msg::Loaded(barn, Box::new(loaded))
        });
    }

    /// A house begins where it ended.
    fn enter(&mut self, barn: &Barn, outcome: Result<Loaded, StoreError>) {
        self.loading.remove(barn);
        let loaded = match outcome {
            Ok(loaded) => loaded,
            Err(error) => {
                tracing::warn!(%error, "the alarms of a barn cannot be read now");
                return;
            }
        };
        if self.ownership.is_none() {
            return;
        }
        let moment = self.moment();
        let mut house = House::new(loaded.barn, loaded.scene);
        for (row, told_by) in loaded.alarms {
            if row.rule_id == ENGINE_WAY && row.is_active {
                // It is broken until it has told something.
                self.broken_ways.insert(row.place.clone(), row.why.clone().unwrap_or_default());
            }
            house.take_up(row, told_by, moment);
        }
        hear_again(&mut house, &loaded.recent, &self.args.places, moment);
        self.drills.extend(loaded.drills.iter().cloned());
        if !loaded.drills.is_empty() {
            house.say(Key::new(DRILL, ""), Said::that(true));
        }
        self.last_drills.insert(barn.clone(), loaded.last_drill);
        self.houses.insert(barn.clone(), house);
        for telling in loaded.cut_off {
            self.tell_again(barn, &telling);
        }
        // What came in meanwhile was not heard.
        self.missed.insert(barn.clone());
        if self.loading.is_empty() {
            self.take_early();
        }
    }

    fn hear(&mut self, heard: &Heard) {
        let moment = self.moment();
        self.unheard.hear(heard, self.ownership.is_some());
        let fresh = match heard {
            Heard::Fresh(fresh) => fresh,
            Heard::Missed(batches) => {
                tracing::debug!(batches, "commits were not heard, their rows are read");
                self.missed.extend(self.houses.keys().cloned());
                return;
            }
        };
        for unit in &fresh.units {
            let Some(barn) = barn_of(unit) else { continue };
            match self.houses.get_mut(&barn) {
                Some(house) => hear_unit(house, unit, fresh.stored_at, &self.args.places, moment),
                None if self.ownership.is_some() => drop(self.missed.insert(barn)),
                None => {}
            }
        }
        let lag = moment.wall.signed_duration_since(fresh.stored_at).to_std().unwrap_or_default();
        schema::metrics::alarm_evaluation_lag_seconds().set(lag.as_secs_f64());
    }

    /// Reads again what is known of each barn, and of those of which something was missed, what their devices said.
    fn reread(&mut self, myself: &ActorRef<Msg>, is_scene_due: bool) {
        let (missed, since) = (std::mem::take(&mut self.missed), std::mem::take(&mut self.since));
        for barn in missed.iter().filter(|_| self.ownership.is_some()).cloned().collect::<Vec<_>>() {
            let has_room = self.houses.len() + self.loading.len() < HOUSES_MAX;
            if !self.houses.contains_key(&barn) && has_room {
                self.load(myself, barn);
            }
        }
        let barns: Vec<_> = self.houses.keys().cloned().collect();
        for barn in barns {
            let wanted = match since.get(&barn) {
                _ if missed.contains(&barn) => Wanted::Last,
                Some(since) => Wanted::Since(*since),
                None => Wanted::Nothing,
            };
            if matches!(wanted, Wanted::Nothing) && !is_scene_due {
                continue;
            }
            if !self.reading.insert(barn.clone()) {
                match wanted {
                    Wanted::Nothing => {}
                    Wanted::Since(at) => drop(self.since.insert(barn, at)),
                    Wanted::Last => drop(self.missed.insert(barn)),
                }
                continue;
            }
            let (store, edge_id, now) =
                (self.args.store.clone(), self.args.edge_id.clone(), self.args.clock.now());
            self.begin(myself, async move {
                let read = async |conn: &mut schema::store::Conn| {
                    scene::reread(conn, &barn, &edge_id, wanted, now).await
                };
                let found = store.run("alarm_scene", read).await;
                Msg::Read(barn, Box::new(found))
            });
        }
    }

    fn read_again(&mut self, barn: &Barn, outcome: Result<scene::Reread, StoreError>) {
        self.reading.remove(barn);
        let moment = self.moment();
        let Some(house) = self.houses.get_mut(barn) else { return };
        match outcome {
            Ok(scene::Reread { scene, recent, last_drill }) => {
                house.set_scene(scene);
                hear_again(house, &recent, &self.args.places, moment);
                let known = self.last_drills.entry(barn.clone()).or_default();
                // One that begins just now may not be written yet.
                known.answered_at = known.answered_at.max(last_drill.answered_at);
                known.began_at = known.began_at.max(last_drill.began_at);
            }
            Err(error) => {
                tracing::debug!(%error, "what is known of a barn cannot be read now");
                // Also what was missed is missed still.
                self.missed.insert(barn.clone());
            }
        }
    }

    fn look_slowly(&mut self, myself: &ActorRef<Msg>) {
        let houses: Vec<_> = self.houses.iter().filter(|(barn, _)| !barn.is_box()).collect();
        let asked: Vec<_> =
            houses.into_iter().map(|(barn, house)| (barn.clone(), house.scene.clone())).collect();
        let (has_ways, now) = (self.args.ways.iter().next().is_some(), self.args.clock.now());
        for (barn, scene) in asked {
            let store = self.args.store.clone();
            self.begin(myself, async move {
                let read = async |conn: &mut schema::store::Conn| {
                    scene::slow_of(conn, &barn, &scene, has_ways, now).await
                };
                let found = store.run("alarm_slow", read).await;
                Msg::Slow(barn, found)
            });
        }
    }

    fn set_slow(&mut self, barn: &Barn, outcome: Result<BTreeMap<SlowMeasure, f64>, StoreError>) {
        match (self.houses.get_mut(barn), outcome) {
            (Some(house), Ok(slow)) => house.set_slow(slow),
            (None, Ok(_)) => {}
            (_, Err(error)) => tracing::debug!(%error, "what takes hours to see cannot be looked at now"),
        }
    }

    /// Puts what the houses did into the book, and lets everybody go on who need not wait any longer.
    fn settle(&mut self, myself: &ActorRef<Msg>) {
        let now = Instant::now();
        for house in self.houses.values_mut() {
            for change in house.take_changes() {
                self.book.push(Op::Change(Box::new(change)), now);
            }
        }
        if self.ownership.is_some()
            && let Some(batch) = self.book.next_batch()
        {
            let store = self.args.store.clone();
            self.begin(myself, async move {
                let outcome = book::write(&store, &batch).await;
                Msg::Written(batch.len(), outcome)
            });
        }
        for (waiter, is_written) in self.book.take_ready(now) {
            self.let_go(myself, waiter, is_written);
        }
        self.say_to_sounders(myself, now);
    }
}

/// The metric that a reading counts for: what a probe in the weather says of its air is no air of the house.
fn metric_of<'a>(house: &House, device: &str, metric: &'a str, places: &Places) -> &'a str {
    let place = (metric == TEMPERATURE).then(|| places.of(&house.barn.tenant_id, device, metric)).flatten();
    let is_outside = place.is_some_and(|place| place.role() == Role::Outside);
    if is_outside { OUTSIDE_TEMPERATURE } else { metric }
}

/// Hears what a commit has stored.
fn hear_unit(house: &mut House, unit: &Unit, received_at: Timestamp, places: &Places, moment: Moment) {
    match unit {
        Unit::Reading(reading) => {
            let at = counted_at(reading.occurred_at, received_at);
            let metric = metric_of(house, &reading.device_id, &reading.metric, places);
            house.hear_reading(&reading.device_id, metric, (reading.value, at), moment);
        }
        Unit::Event(event) => {
            let at = counted_at(event.occurred_at, received_at);
            house.hear_event(&event.device_id, &event.event_type, at, moment);
        }
        Unit::Status(_) | Unit::Refusal(_) | Unit::Counted { .. } => {}
    }
}

fn hear_again(house: &mut House, recent: &Recent, places: &Places, moment: Moment) {
    for reading in &recent.readings {
        let at = counted_at(reading.occurred_at, reading.ingested_at);
        let metric = metric_of(house, &reading.device_id, &reading.metric_type, places);
        let heard = (reading.metric_value, at, reading.ingested_at);
        house.hear_again(&reading.device_id, metric, heard, moment);
    }
    for event in &recent.events {
        let at = counted_at(event.occurred_at, event.ingested_at);
        house.hear_event(&event.device_id, &event.event_type, at, moment);
    }
}

fn barn_of(unit: &Unit) -> Option<Barn> {
    let names = match unit {
        Unit::Reading(reading) => [&reading.tenant_id, &reading.farm_id, &reading.barn_id],
        Unit::Event(event) => [&event.tenant_id, &event.farm_id, &event.barn_id],
        Unit::Status(_) | Unit::Refusal(_) | Unit::Counted { .. } => return None,
    };
    let [tenant_id, farm_id, barn_id] = names.map(String::clone);
    Some(Barn { tenant_id, farm_id, barn_id })
}
