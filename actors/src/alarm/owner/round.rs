//! What the owner does every second, and what it is told to do.

use ractor::{ActorRef, RpcReplyPort};
use schema::metrics;
use schema::store::alarm::Barn;
use schema::store::alarm::owner::Ownership;
use schema::store::alarm::telling::{DrillRow, ResultRow, TellingRow};
use schema::store::audit::{Action, Author};
use serde_json::json;
use tokio::time::Instant;
use uuid::Uuid;

use super::book::{Op, Waiter};
use super::{
    BARNS_EVERY, Done, EARLY_MAX, EARLY_WORDS_MAX, LOOK_EVERY, Msg, SCENE_EVERY, SLOW_EVERY, State, Told,
};
use crate::alarm::drill::ANSWER_MAX;
use crate::alarm::guard;
use crate::alarm::house::{Act, ActError, Due, House, Key, Said};
use crate::alarm::starting::{DRILL, ENGINE_DATABASE, ENGINE_WAY};
use crate::alarm::state::State as Shown;
use crate::alarm::trouble::Condition;
use crate::alarm::way::{Acknowledgment, Class, Failure, Message, MessageKind};
use crate::board::{Latest, View};

/// Who a drill of the schedule is begun by.
const SCHEDULE: &str = "schedule";

impl State {
    pub(super) fn tick(&mut self, myself: &ActorRef<Msg>) {
        self.vital.lives();
        let now = Instant::now();
        self.see_to_ownership(myself, now);
        self.see_to_unheard(myself);
        if self.ownership.is_some() && now >= self.due.barns {
            self.due.barns = now + BARNS_EVERY;
            self.look_for_barns(myself);
        }
        let is_scene_due = now >= self.due.scene;
        if is_scene_due {
            self.due.scene = now + SCENE_EVERY;
        }
        self.reread(myself, is_scene_due);
        if now >= self.due.slow && !self.houses.is_empty() {
            self.due.slow = now + SLOW_EVERY;
            self.look_slowly(myself);
        }
        self.say_troubles();
        self.say_faults();
        self.look();
        self.see_to_drills();
        self.tell();
        self.silence();
        self.show();
    }

    /// The right to the alarms ends with its connection. Until it is back, what is known goes on to ring.
    fn see_to_ownership(&mut self, myself: &ActorRef<Msg>, now: Instant) {
        if self.ownership.as_ref().is_some_and(|ownership| !ownership.is_connected()) {
            self.ownership = None;
        }
        if self.ownership.is_none() && now >= self.due.ownership {
            self.due.ownership = now + LOOK_EVERY;
            let store = self.args.store.clone();
            self.begin(myself, async move { Msg::Owns(Ownership::take(&store).await) });
        }
    }

    fn say_troubles(&mut self) {
        let conditions = self.conditions.borrow_and_update().clone();
        let Some(house) = self.houses.get_mut(&Barn::of_box()) else { return };
        for condition in conditions.iter() {
            let Condition { rule, place, stands, value, limit, unit: _ } = condition;
            let said = Said { stands: *stands, value: Some(*value), limit: Some(*limit), why: None };
            house.say(Key::new(rule, place), said);
        }
        for way in self.args.ways.iter() {
            let why = self.broken_ways.get(way.name()).cloned();
            let said = Said { why: why.clone(), ..Said::that(why.is_some()) };
            house.say(Key::new(ENGINE_WAY, way.name()), said);
        }
    }

    /// What is wrong with sensors is known to the board of latest values.
    fn say_faults(&mut self) {
        let now = self.args.clock.now();
        for (barn, house) in self.houses.iter_mut().filter(|(barn, _)| !barn.is_box()) {
            let view = View { farm_id: Some(&barn.farm_id), barn_id: Some(&barn.barn_id) };
            let (latest, _) = self.args.board.since(&barn.tenant_id, view, 0, now);
            let faults: Vec<_> = latest
                .into_iter()
                .flat_map(|Latest { device_id, metric_type, standing, .. }| {
                    let tests = standing.into_iter().map(|standing| standing.test);
                    tests.map(move |test| (device_id.clone(), metric_type.clone(), test))
                })
                .collect();
            house.set_faults(&faults);
        }
    }

    fn look(&mut self) {
        let moment = self.moment();
        let causes = self.houses.get(&Barn::of_box()).map(House::causes);
        for house in self.houses.values_mut() {
            if let Some(causes) = causes.as_ref().filter(|_| !house.barn.is_box()) {
                house.box_causes.clone_from(causes);
            }
            house.look(moment);
        }
    }

    /// Claims every telling that is due; it begins when its row is there.
    fn tell(&mut self) {
        let moment = self.moment();
        let (plans, ways) = (self.args.plans.clone(), self.args.ways.clone());
        let mut due = Vec::new();
        for house in self.houses.values_mut() {
            due.extend(house.due(&plans, &ways, moment));
            let over: Vec<_> = house
                .alarms()
                .filter(|(_, kept)| !kept.alarm.is_active && !kept.told_by.is_empty())
                .map(|(key, _)| key.clone())
                .collect();
            due.extend(over.iter().filter_map(|key| house.over(key, &ways, moment)));
        }
        self.claim(due);
    }

    fn claim(&mut self, due: Vec<Due>) {
        let now = Instant::now();
        // Transitions go before the tellings that they lead to.
        for house in self.houses.values_mut() {
            for change in house.take_changes() {
                self.book.push(Op::Change(Box::new(change)), now);
            }
        }
        for due in due {
            self.book.push(Op::Claim(Box::new((due.row.clone(), due.telling.clone()))), now);
            if !due.telling.is_grouped {
                self.book.wait(Waiter::Telling(Box::new(due)));
            }
        }
    }

    /// What waits no longer goes on.
    pub(super) fn let_go(&mut self, myself: &ActorRef<Msg>, waiter: Waiter, is_written: bool) {
        match waiter {
            Waiter::Telling(due) => self.begin_telling(myself, &due),
            Waiter::Reply(reply, row) => {
                let row = self.find(row.id).map_or(*row, |(_, _, row)| row);
                // Whoever asked may have given up.
                drop(reply.send(Ok(Done { row, is_written })));
            }
        }
    }

    fn begin_telling(&mut self, myself: &ActorRef<Msg>, due: &Due) {
        for name in &due.telling.ways {
            match self.sounders.get_mut(name) {
                Some(sounder) => sounder.say(due.message.clone()),
                None => self.tell_quietly(myself, name, due.message.clone()),
            }
        }
    }

    fn tell_quietly(&mut self, myself: &ActorRef<Msg>, name: &str, message: Message) {
        let (ways, way) = (self.args.ways.clone(), name.to_owned());
        self.begin(myself, async move {
            let outcome = ways.tell(&way, &message).await;
            Msg::Told(Box::new(told(way, &message, outcome, false)))
        });
    }

    /// A telling that was cut off with the last engine: the same number, to those of whom nothing is known.
    pub(super) fn tell_again(&mut self, barn: &Barn, telling: &TellingRow) {
        let Some(house) = self.houses.get(barn) else { return };
        let Some(key) = house.key_of(telling.alarm_id) else { return };
        let Some(kept) = house.alarm(&key).filter(|kept| kept.state() == Shown::Unack) else { return };
        let Some(message) = house.message_of(&key, MessageKind::Raised, telling.number) else { return };
        let row = kept.row.clone();
        let due = Due { key, row, telling: telling.clone(), message };
        self.book.wait(Waiter::Telling(Box::new(due)));
    }

    /// What sounds for nobody any more is told to be silent, also when an engine before this one made it sound.
    fn silence(&mut self) {
        if self.houses.is_empty() || !self.loading.is_empty() {
            return;
        }
        let mut said = Vec::new();
        for (name, sounder) in &self.sounders {
            let waiting = self
                .houses
                .values()
                .flat_map(|house| house.alarms())
                .any(|(_, kept)| kept.state() == Shown::Unack && kept.told_by.contains(name));
            if waiting || sounder.is_to_sound() == Some(false) {
                continue;
            }
            // It says of which alarm it falls silent.
            let last = self.houses.values().flat_map(|house| {
                house
                    .alarms()
                    .filter(|(_, kept)| kept.told_by.contains(name))
                    .map(move |(key, kept)| (kept.row.updated_at, house, key, kept))
            });
            let message = last.max_by_key(|(at, ..)| *at).and_then(|(_, house, key, kept)| {
                let kind = if kept.alarm.is_active { MessageKind::Acknowledged } else { MessageKind::Ended };
                house.message_of(key, kind, kept.row.tellings)
            });
            // What never was told anything is silent.
            if let Some(message) = message {
                said.push((name.clone(), Message { sounds: false, ..message }));
            }
        }
        for (name, message) in said {
            if let Some(sounder) = self.sounders.get_mut(&name) {
                sounder.say(message);
            }
        }
    }

    pub(super) fn say_to_sounders(&mut self, myself: &ActorRef<Msg>, now: Instant) {
        let names: Vec<_> = self.sounders.keys().cloned().collect();
        for name in names {
            let message = self.sounders.get_mut(&name).and_then(|sounder| sounder.take(now));
            let Some(message) = message else { continue };
            let ways = self.args.ways.clone();
            self.begin(myself, async move {
                let outcome = ways.tell(&name, &message).await;
                Msg::Told(Box::new(told(name, &message, outcome, true)))
            });
        }
    }

    /// What became of a telling is written down, and a way that does not work is an alarm.
    pub(super) fn note_told(&mut self, told: Told) {
        let now = Instant::now();
        let failure = told.outcome.as_ref().err().map(|error| error.failure);
        if let Some(sounder) = self.sounders.get_mut(&told.way).filter(|_| told.sounds) {
            // The command stays with the broker for a siren that is away: only what left us not at all is said again, and
            // a call that nobody confirmed.
            let is_call = told.number.is_some();
            let has_arrived = failure.is_none() || (!is_call && failure == Some(Failure::Unanswered));
            sounder.said(has_arrived, now);
        }
        let Some(number) = told.number else { return };
        match &told.outcome {
            Ok(_) => drop(self.broken_ways.remove(&told.way)),
            Err(error) => drop(self.broken_ways.insert(told.way.clone(), error.to_string())),
        }
        let moment = self.moment();
        let row = ResultRow {
            alarm_id: told.alarm_id,
            occurrence: told.occurrence,
            number,
            way: told.way,
            failure: failure.map(|failure| failure.as_str().to_owned()),
            detail: match &told.outcome {
                Ok(receipt) => receipt.detail.clone(),
                Err(error) => format!("{}; {}", error.what, error.advice),
            },
            confirmed_by: told.outcome.as_ref().ok().and_then(|receipt| receipt.confirmed_by.clone()),
            latency_ms: told
                .outcome
                .map_or(0, |receipt| i64::try_from(receipt.latency_ms).unwrap_or(i64::MAX)),
            ended_at: moment.wall,
        };
        self.book.push(Op::Result(Box::new(row)), now);
    }

    /// The alarm of an id, and where it is.
    fn find(&self, id: Uuid) -> Option<(Barn, Key, schema::store::alarm::AlarmRow)> {
        self.houses.iter().find_map(|(barn, house)| {
            let key = house.key_of(id)?;
            let row = house.alarm(&key)?.row.clone();
            Some((barn.clone(), key, row))
        })
    }

    pub(super) fn act(
        &mut self,
        tenant_id: Option<&str>,
        id: Uuid,
        act: &Act,
        author: &Author,
        reply: RpcReplyPort<Result<Done, ActError>>,
    ) {
        let outcome = self.try_act(tenant_id, id, act, author);
        self.answer(outcome, reply);
    }

    fn try_act(
        &mut self,
        tenant_id: Option<&str>,
        id: Uuid,
        act: &Act,
        author: &Author,
    ) -> Result<schema::store::alarm::AlarmRow, ActError> {
        if self.houses.is_empty() {
            return Err(ActError::NotOwner);
        }
        let (barn, key, _) = self.find(id).ok_or(ActError::NoAlarm)?;
        if tenant_id.is_some_and(|tenant_id| !barn.is_box() && barn.tenant_id != tenant_id) {
            return Err(ActError::NoAlarm);
        }
        let moment = self.moment();
        let house = self.houses.get_mut(&barn).ok_or(ActError::NoAlarm)?;
        let row = house.act(&key, act, author, moment)?;
        if matches!(act, Act::Acknowledge { .. }) {
            self.acknowledged(&barn, &key, &author.actor);
        }
        Ok(row)
    }

    /// What follows from somebody knowing.
    fn acknowledged(&mut self, barn: &Barn, key: &Key, by: &str) {
        let moment = self.moment();
        if key.rule == DRILL {
            self.end_drill(barn, Some(by));
        }
        if key.rule == ENGINE_DATABASE {
            let acknowledgment = Acknowledgment {
                way: String::new(),
                alarm_id: Some(guard::ALARM_ID),
                occurrence: None,
                by: by.to_owned(),
                at: moment.wall,
            };
            self.args.guard.acknowledge(&acknowledgment);
        }
        self.silence();
    }

    /// Somebody pressed a button: of the alarm that was told there, or of all that were.
    pub(super) fn acknowledge(&mut self, acknowledgment: &Acknowledgment) {
        let Acknowledgment { way, alarm_id, occurrence, by, .. } = acknowledgment;
        let moment = self.moment();
        let meant: Vec<_> = self
            .houses
            .iter()
            .flat_map(|(barn, house)| house.alarms().map(move |(key, kept)| (barn, key, kept)))
            .filter(|(_, _, kept)| kept.alarm.is_unacknowledged)
            .filter(|(_, _, kept)| match alarm_id {
                Some(id) => kept.row.id == *id,
                None => kept.told_by.contains(way),
            })
            .filter(|(_, _, kept)| occurrence.is_none_or(|occurrence| occurrence == kept.alarm.occurrence))
            .map(|(barn, key, _)| (barn.clone(), key.clone()))
            .collect();
        let is_reading = self.houses.is_empty() || !self.loading.is_empty();
        if meant.is_empty() && is_reading {
            self.early.retain(|(at, _)| at.elapsed() <= EARLY_MAX);
            if self.early.len() < EARLY_WORDS_MAX {
                self.early.push((Instant::now(), acknowledgment.clone()));
            }
        }
        for (barn, key) in meant {
            let Some(house) = self.houses.get_mut(&barn) else { continue };
            if house.acknowledge(&key, by, Some(&format!("by way {way}")), moment) {
                tracing::info!(rule = key.rule, place = key.place, by, "an alarm was acknowledged");
                self.acknowledged(&barn, &key, by);
            }
        }
    }

    /// What people said while the alarms were read.
    pub(super) fn take_early(&mut self) {
        for (at, acknowledgment) in std::mem::take(&mut self.early) {
            if at.elapsed() <= EARLY_MAX {
                self.acknowledge(&acknowledgment);
            }
        }
    }

    fn answer(
        &mut self,
        outcome: Result<schema::store::alarm::AlarmRow, ActError>,
        reply: RpcReplyPort<Result<Done, ActError>>,
    ) {
        match outcome {
            Ok(row) => {
                self.claim(Vec::new());
                self.book.wait(Waiter::Reply(reply, Box::new(row)));
            }
            // Whoever asked may have given up.
            Err(error) => drop(reply.send(Err(error))),
        }
    }

    pub(super) fn drill(
        &mut self,
        barn: &Barn,
        author: &Author,
        reply: RpcReplyPort<Result<Done, ActError>>,
    ) {
        let outcome = if self.houses.is_empty() {
            Err(ActError::NotOwner)
        } else {
            self.begin_drill(barn, author, false)
        };
        self.answer(outcome, reply);
    }

    fn begin_drill(
        &mut self,
        barn: &Barn,
        author: &Author,
        is_scheduled: bool,
    ) -> Result<schema::store::alarm::AlarmRow, ActError> {
        let moment = self.moment();
        let house = self.houses.get_mut(barn).filter(|_| !barn.is_box()).ok_or(ActError::NoBarn)?;
        let row = house.begin_drill(moment)?;
        let deed = crate::alarm::house::Deed {
            author: author.clone(),
            action: Action::AlarmDrill,
            detail: json!({"begins": true, "is_scheduled": is_scheduled, "occurrence": row.occurrence}),
        };
        let mut changes = house.take_changes();
        if let Some(change) = changes.last_mut() {
            change.deed = Some(deed);
        }
        let drill = DrillRow {
            id: schema::id::new_id(),
            tenant_id: barn.tenant_id.clone(),
            farm_id: barn.farm_id.clone(),
            barn_id: barn.barn_id.clone(),
            alarm_id: row.id,
            occurrence: row.occurrence,
            is_scheduled,
            author: author.actor.clone(),
            started_at: moment.wall,
            acknowledged_at: None,
            acknowledged_by: None,
            result: "waiting".to_owned(),
        };
        let now = Instant::now();
        changes.into_iter().for_each(|change| self.book.push(Op::Change(Box::new(change)), now));
        self.book.push(Op::Drill(Box::new(drill.clone())), now);
        self.drills.push(drill);
        self.last_drills.entry(barn.clone()).or_default().began_at = Some(moment.wall);
        Ok(row)
    }

    /// A drill has its answer, or none in time: the exercise is over.
    fn end_drill(&mut self, barn: &Barn, by: Option<&str>) {
        let moment = self.moment();
        let is_here = |drill: &DrillRow| [&drill.tenant_id, &drill.farm_id, &drill.barn_id] == barn.names();
        if let Some(house) = self.houses.get_mut(barn) {
            house.end_drill(moment);
        }
        self.claim(Vec::new());
        let Some(index) = self.drills.iter().position(is_here) else { return };
        let drill = self.drills.swap_remove(index);
        if by.is_some() {
            self.last_drills.entry(barn.clone()).or_default().answered_at = Some(moment.wall);
        }
        let (alarm_id, occurrence) = (drill.alarm_id, drill.occurrence);
        let answer =
            Op::Answer { alarm_id, occurrence, at: by.map(|_| moment.wall), by: by.map(str::to_owned) };
        self.book.push(answer, Instant::now());
        self.due.slow = Instant::now();
    }

    fn see_to_drills(&mut self) {
        let moment = self.moment();
        let is_late = |drill: &DrillRow| {
            moment
                .wall
                .signed_duration_since(drill.started_at)
                .to_std()
                .is_ok_and(|passed| passed >= ANSWER_MAX.to_std().unwrap_or_default())
        };
        let late: Vec<_> = self.drills.iter().filter(|drill| is_late(drill)).cloned().collect();
        for drill in late {
            let DrillRow { tenant_id, farm_id, barn_id, .. } = drill;
            tracing::warn!(barn_id, "nobody answered a drill");
            self.end_drill(&Barn { tenant_id, farm_id, barn_id }, None);
        }
        let Some(weekly) = self.args.drill_at else { return };
        let due: Vec<_> = self
            .houses
            .values()
            .filter(|house| !house.barn.is_box())
            .filter(|house| {
                let zone = house.scene.zone;
                let last = self.last_drills.get(&house.barn).and_then(|last| last.began_at);
                let last = last.map(|at| zone.local(at));
                weekly.is_due(zone.local(moment.wall), last)
            })
            .map(|house| house.barn.clone())
            .collect();
        for barn in due {
            let author = Author { actor: SCHEDULE.to_owned(), origin: self.args.edge_id.clone() };
            if let Err(error) = self.begin_drill(&barn, &author, true) {
                tracing::warn!(%error, "the drill of the week cannot begin");
                self.last_drills.entry(barn).or_default().began_at = Some(moment.wall);
            }
        }
    }

    fn show(&self) {
        let mut standing = [(Class::Low, 0), (Class::High, 0), (Class::Critical, 0)];
        let (mut unacknowledged, mut waiting) = (0, 0);
        for (_, kept) in self.houses.values().flat_map(|house| house.alarms()) {
            let is_shown = matches!(kept.state(), Shown::Unack | Shown::Acked);
            for (class, count) in &mut standing {
                *count += u32::from(is_shown && kept.class() == *class);
            }
            unacknowledged += u32::from(matches!(kept.state(), Shown::Unack | Shown::Rtnun));
            waiting += u32::from(kept.state() == Shown::Unack);
        }
        for (class, count) in standing {
            metrics::alarm_standing(class.as_str()).set(f64::from(count));
        }
        metrics::alarm_unacknowledged().set(f64::from(unacknowledged));
        metrics::alarm_unwritten().set(if self.book.is_empty() { 0.0 } else { 1.0 });
        let barns = self.houses.keys().filter(|barn| !barn.is_box());
        let answered = barns.map(|barn| self.last_drills.get(barn).and_then(|last| last.answered_at));
        // A barn that never had one has no age, which is an alarm of its own.
        if let Some(Some(oldest)) = answered.min() {
            let age = self.args.clock.now().signed_duration_since(oldest).num_seconds();
            metrics::alarm_drill_age_seconds().set(age as f64);
        }
        self.args.heart.set_alarms_waiting(waiting);
    }
}

fn told(
    way: String,
    message: &Message,
    outcome: Result<crate::alarm::way::Receipt, crate::alarm::way::WayError>,
    sounds: bool,
) -> Told {
    Told {
        way,
        alarm_id: message.alarm_id,
        occurrence: i64::try_from(message.occurrence).unwrap_or(i64::MAX),
        number: (message.is_call() || !sounds).then(|| i32::try_from(message.telling).unwrap_or(i32::MAX)),
        outcome,
        sounds,
    }
}
