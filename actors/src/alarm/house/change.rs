//! What happens to an alarm, and the rows that tell of it.

use std::collections::BTreeSet;

use chrono::Duration;
use schema::clock::Timestamp;
use schema::id::new_id;
use schema::store::alarm::{AlarmRow, EventRow};

use super::judge::{Judgment, metric_of};
use super::{ALARMS_MAX, Deed, House, Kept, Key, Moment};
use crate::alarm::rule::{Rule, Test};
use crate::alarm::state::{Alarm, CHATTER_RAISES, Event, Place, State, Timing};
use crate::alarm::way::Class;

/// Who is written down where no person did it.
pub(super) const ENGINE: &str = "engine";
/// How an alarm ends that nothing looks after any more.
const AT_ONCE: Timing = Timing { on_seconds: 0, off_seconds: 0, is_latching: false };

/// One step of one alarm: its row as it is from now on, and what happened.
#[derive(Clone, Debug)]
pub struct Change {
    /// The row; its revision is the one before.
    pub row: AlarmRow,
    /// What happened; several where one word of a person does several things.
    pub events: Vec<EventRow>,
    /// What is written down of whoever did it.
    pub deed: Option<Deed>,
}

/// What makes something happen.
#[derive(Clone, Debug, Default)]
pub(super) struct Cause {
    pub(super) author: Option<String>,
    pub(super) value: Option<f64>,
    pub(super) limit: Option<f64>,
    pub(super) why: Option<String>,
    pub(super) occurred_at: Option<Timestamp>,
    pub(super) deed: Option<Deed>,
}

impl Cause {
    pub(super) fn engine() -> Self {
        Self::default()
    }

    fn because(why: &str) -> Self {
        Self { why: Some(why.to_owned()), ..Self::default() }
    }
}

/// What happened between two states of an alarm, in the words of its rows.
fn kinds(before: &Alarm, after: &Alarm) -> Vec<&'static str> {
    let mut kinds = Vec::new();
    let mut when = |is_so: bool, kind| {
        if is_so {
            kinds.push(kind);
        }
    };
    let was_shelved = before.shelved_until.is_some();
    when(was_shelved && after.shelved_until.is_none(), "unshelved");
    when(!was_shelved && after.shelved_until.is_some(), "shelved");
    when(before.is_out_of_service && !after.is_out_of_service, "in_service");
    when(!before.is_out_of_service && after.is_out_of_service, "out_of_service");
    when(before.is_suppressed && !after.is_suppressed, "unsuppressed");
    when(after.occurrence > before.occurrence, "raised");
    when(before.is_unacknowledged && !after.is_unacknowledged, "acknowledged");
    when(before.is_active && !after.is_active, "ended");
    when(!before.is_suppressed && after.is_suppressed, "suppressed");
    if kinds.is_empty() && after.rounds > before.rounds {
        kinds.push("restarted");
    }
    kinds
}

impl Kept {
    pub(super) fn of(row: AlarmRow, told_by: BTreeSet<String>, moment: Moment) -> Self {
        let steady = |at: Option<Timestamp>| at.map(|at| moment.steady_of(at));
        let mut raised_lately = [None; CHATTER_RAISES];
        for (kept, at) in raised_lately.iter_mut().rev().zip(row.raised_lately.iter().rev()) {
            *kept = steady(Some(*at));
        }
        let alarm = Alarm {
            is_active: row.is_active,
            is_unacknowledged: row.is_unacknowledged,
            occurrence: u64::try_from(row.occurrence).unwrap_or_default(),
            rounds: u64::try_from(row.rounds).unwrap_or_default(),
            // The last readings are looked at again, in their own time.
            turning_since: None,
            looked_until: None,
            heard_at: None,
            shelved_until: steady(row.shelved_until),
            is_suppressed: row.suppressed_by.is_some(),
            is_out_of_service: row.out_of_service_reason.is_some(),
            raised_lately,
            chatters_until: steady(row.chatters_until),
        };
        let round_began_at = steady(row.round_began_at).unwrap_or(moment.steady);
        Self { alarm, row, told_by, round_began_at: round_began_at.min(moment.steady), told_at: None }
    }

    /// What is shown of it.
    #[must_use]
    pub fn state(&self) -> State {
        self.alarm.state()
    }

    fn fill(&mut self, moment: Moment) {
        let (alarm, wall) = (self.alarm, |at: Option<Timestamp>| at.map(|at| moment.wall_of(at)));
        let row = &mut self.row;
        row.state = alarm.state().as_str().to_owned();
        row.is_active = alarm.is_active;
        row.is_unacknowledged = alarm.is_unacknowledged;
        row.occurrence = i64::try_from(alarm.occurrence).unwrap_or(i64::MAX);
        row.rounds = i64::try_from(alarm.rounds).unwrap_or(i64::MAX);
        row.turning_since = alarm.turning_since;
        row.looked_until = alarm.looked_until;
        row.shelved_until = wall(alarm.shelved_until);
        row.raised_lately = alarm.raised_lately.iter().flatten().map(|at| moment.wall_of(*at)).collect();
        row.chatters_until = wall(alarm.chatters_until);
        row.round_began_at = Some(moment.wall_of(self.round_began_at));
        row.updated_at = moment.wall;
    }

    /// The row to write now. What is written next names this one's revision.
    pub(super) fn take_row(&mut self, moment: Moment) -> AlarmRow {
        self.fill(moment);
        let row = self.row.clone();
        self.row.revision += 1;
        row
    }
}

impl House {
    /// Lets time pass for every alarm; the timers of a silent sensor begin anew with its next word.
    pub(super) fn pass_time(&mut self, moment: Moment) {
        let keys: Vec<_> = self.alarms.keys().cloned().collect();
        for key in keys {
            let rule = self.scene.rules.get(&key.rule).cloned();
            let metric = rule.as_deref().and_then(|rule| metric_of(&rule.test));
            let probe = metric.and_then(|metric| self.probes.get(&(key.place.clone(), metric.to_owned())));
            let is_silent = probe.is_some_and(|probe| probe.silence(moment.steady).is_some());
            let event = if is_silent { Event::Silence } else { Event::Tick };
            self.step(&key, rule.as_deref(), event, Cause::engine(), moment);
        }
    }

    /// What a rule says of a place. An alarm that was never raised is not there.
    pub(super) fn apply(&mut self, rule: &Rule, judgment: Judgment, moment: Moment) {
        let key = Key::new(&rule.id, &judgment.place);
        if !self.alarms.contains_key(&key) {
            if judgment.verdict != Some(Place::Outside) || self.alarms.len() >= ALARMS_MAX {
                return;
            }
            self.alarms.insert(key.clone(), self.new_alarm(rule, &judgment.place, moment));
        }
        let event = judgment.event();
        let Judgment { value, limit, why, at, .. } = judgment;
        let cause = Cause { value, limit, why, occurred_at: Some(at), ..Cause::default() };
        self.step(&key, Some(rule), event, cause, moment);
        self.suppress(&key, moment);
    }

    fn new_alarm(&self, rule: &Rule, place: &str, moment: Moment) -> Kept {
        let row = AlarmRow {
            class: rule.class.as_str().to_owned(),
            is_latching: rule.is_latching,
            unit: rule.test.unit().map(str::to_owned),
            ..AlarmRow::unraised(&self.barn, &rule.id, place, moment.wall)
        };
        Kept::of(row, BTreeSet::new(), moment)
    }

    /// Lets something happen to an alarm. `false`: nothing did.
    pub(super) fn step(
        &mut self,
        key: &Key,
        rule: Option<&Rule>,
        event: Event,
        cause: Cause,
        moment: Moment,
    ) -> bool {
        let Some(kept) = self.alarms.get_mut(key) else { return false };
        let before = kept.alarm;
        let after = before.decide(&rule.map_or(AT_ONCE, Rule::timing), event, moment.steady);
        kept.alarm = after;
        let kinds = kinds(&before, &after);
        if kinds.is_empty() {
            return false;
        }
        if let Some(rule) = rule {
            kept.row.class = rule.class.as_str().to_owned();
            kept.row.is_latching = rule.is_latching;
        }
        if before.state() != after.state() {
            kept.row.state_since = moment.wall;
        }
        note(kept, &kinds, &cause, moment);
        if after.rounds > before.rounds {
            let is_new = after.occurrence > before.occurrence;
            kept.begin_round(is_new, moment);
        }
        let row = kept.take_row(moment);
        let events =
            kinds.iter().map(|kind| event_row(&row, kind, &before, &after, &cause, moment)).collect();
        self.changes.push(Change { row, events, deed: cause.deed });
        if kinds.contains(&"raised") && after.state() == State::Unack {
            self.flood.raise(moment.steady);
        }
        if after.state() != State::Unack {
            self.flood.falls_silent(key);
        }
        true
    }

    /// Hides what is no news: the house is in a mode without it, or its cause has an alarm of its own.
    pub(super) fn suppress(&mut self, key: &Key, moment: Moment) {
        let Some(kept) = self.alarms.get(key) else { return };
        let is_anything = kept.alarm.is_active || kept.alarm.is_unacknowledged;
        let rule = self.scene.rules.get(&key.rule).cloned();
        let reason = rule.as_deref().filter(|_| is_anything).and_then(|rule| self.reason_to_hide(rule));
        let is_hidden = kept.alarm.is_suppressed;
        if reason.is_some() == is_hidden {
            return;
        }
        if let Some(kept) = self.alarms.get_mut(key) {
            kept.row.suppressed_by.clone_from(&reason);
        }
        let cause = Cause { why: reason.clone(), ..Cause::default() };
        self.step(key, rule.as_deref(), Event::Suppress(reason.is_some()), cause, moment);
    }

    fn reason_to_hide(&self, rule: &Rule) -> Option<String> {
        if !self.barn.is_box() && !rule.modes.contains(&self.scene.mode) {
            return Some(format!("mode:{}", self.scene.mode.as_str()));
        }
        let stands = |name: &&String| {
            self.box_causes.contains(*name)
                || self
                    .alarms
                    .range(Key::new(name, "")..)
                    .take_while(|(key, _)| key.rule == **name)
                    .any(|(_, kept)| super::is_cause(&kept.alarm))
        };
        rule.hushed_by.iter().find(stands).map(|name| format!("alarm:{name}"))
    }

    /// Ends alarms whose rule is switched off, or whose device is gone: nothing would ever say that they are over.
    pub(super) fn end_what_has_no_rule(&mut self, moment: Moment) {
        let is_live = |alarm: &Alarm| alarm.is_active || alarm.is_unacknowledged || alarm.is_out_of_service;
        let orphans: Vec<_> = self
            .alarms
            .iter()
            .filter(|(_, kept)| is_live(&kept.alarm))
            .filter_map(|(key, _)| self.orphaned(key).map(|why| (key.clone(), why)))
            .collect();
        for (key, why) in orphans {
            let after_all = self.alarms.get(&key).and_then(|kept| kept.alarm.looked_until);
            let at = after_all.map_or(moment.steady, |newest| newest.max(moment.steady));
            self.step(&key, None, Event::Reading(Place::Inside, at), Cause::because(why), moment);
            self.step(&key, None, Event::Acknowledge, Cause::because(why), moment);
            self.step(&key, None, Event::OutOfService(false), Cause::because(why), moment);
        }
    }

    fn orphaned(&self, key: &Key) -> Option<&'static str> {
        let Some(rule) = self.scene.rules.get(&key.rule).filter(|rule| rule.is_enabled) else {
            return Some("the rule is switched off");
        };
        let is_of_device = match &rule.test {
            Test::Silent {} | Test::Level { .. } | Test::Jump { .. } | Test::NoFlow { .. } => true,
            Test::DeviceEvent { .. } => true,
            Test::HouseTemperature { .. } | Test::Slow { .. } | Test::LastSilent { .. } | Test::Said {} => {
                false
            }
        };
        let device = key.place.split('/').next().unwrap_or_default();
        let is_gone = self.scene.devices.as_ref().is_some_and(|devices| !devices.contains(device));
        (is_of_device && is_gone).then_some("the device is no longer let in")
    }
}

fn note(kept: &mut Kept, kinds: &[&str], cause: &Cause, moment: Moment) {
    let (row, wall) = (&mut kept.row, Some(moment.wall));
    for kind in kinds {
        match *kind {
            "raised" => {
                (row.value, row.limit_value, row.why) = (cause.value, cause.limit, cause.why.clone());
                (row.raised_at, row.ended_at) = (wall, None);
                (row.acknowledged_at, row.acknowledged_by) = (None, None);
            }
            "ended" => row.ended_at = wall,
            "acknowledged" => {
                row.acknowledged_at = wall;
                row.acknowledged_by = Some(cause.author.clone().unwrap_or_else(|| ENGINE.to_owned()));
            }
            "shelved" => (row.shelved_by, row.shelf_reason) = (cause.author.clone(), cause.why.clone()),
            "unshelved" => (row.shelved_by, row.shelf_reason) = (None, None),
            "unsuppressed" => row.suppressed_by = None,
            // Without a reason it would be in service again after a restart.
            "out_of_service" => row.out_of_service_reason = Some(cause.why.clone().unwrap_or_default()),
            "in_service" => row.out_of_service_reason = None,
            _ => {}
        }
    }
}

fn event_row(
    row: &AlarmRow,
    kind: &str,
    before: &Alarm,
    after: &Alarm,
    cause: &Cause,
    moment: Moment,
) -> EventRow {
    EventRow {
        id: new_id(),
        alarm_id: row.id,
        tenant_id: row.tenant_id.clone(),
        farm_id: row.farm_id.clone(),
        barn_id: row.barn_id.clone(),
        rule_id: row.rule_id.clone(),
        place: row.place.clone(),
        class: row.class.clone(),
        occurrence: row.occurrence,
        kind: kind.to_owned(),
        from_state: before.state().as_str().to_owned(),
        to_state: after.state().as_str().to_owned(),
        value: cause.value,
        limit_value: cause.limit,
        why: cause.why.clone(),
        author: cause.author.clone().unwrap_or_else(|| ENGINE.to_owned()),
        occurred_at: cause.occurred_at,
        happened_at: moment.wall,
    }
}

impl Kept {
    fn begin_round(&mut self, is_new_occurrence: bool, moment: Moment) {
        if is_new_occurrence {
            self.row.tellings = 0;
            self.told_by.clear();
            self.told_at = None;
        }
        self.row.round_first = self.row.tellings;
        self.round_began_at = moment.steady;
    }

    /// How long ago this round began.
    pub(super) fn round_age(&self, moment: Moment) -> Duration {
        moment.steady.signed_duration_since(self.round_began_at)
    }

    /// The class that its row has.
    #[must_use]
    pub fn class(&self) -> Class {
        Class::parse(&self.row.class).unwrap_or(Class::Critical)
    }
}
