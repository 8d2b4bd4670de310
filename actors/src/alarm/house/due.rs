//! Who is to be told now.

use chrono::Duration;
use schema::clock::Timestamp;
use schema::store::alarm::AlarmRow;
use schema::store::alarm::telling::TellingRow;

use super::{House, Kept, Key, Moment};
use crate::alarm::escalation::{Plan, Plans, expand};
use crate::alarm::rule::Rule;
use crate::alarm::starting::{DRILL, ENGINE_DATABASE};
use crate::alarm::state::State;
use crate::alarm::way::{Class, Message, MessageKind, Ways, Words};

/// A telling that is due: what is written before anybody is told, and what is said.
#[derive(Clone, Debug)]
pub struct Due {
    /// The alarm.
    pub key: Key,
    /// Its row, with the telling counted.
    pub row: AlarmRow,
    /// The claim.
    pub telling: TellingRow,
    /// What is said.
    pub message: Message,
}

impl House {
    /// The tellings that are due, each of which counts as begun from here on.
    pub fn due(&mut self, plans: &Plans, ways: &Ways, moment: Moment) -> Vec<Due> {
        let keys: Vec<_> = self.alarms.keys().cloned().collect();
        keys.into_iter().filter_map(|key| self.due_of(&key, plans, ways, moment)).collect()
    }

    fn due_of(&mut self, key: &Key, plans: &Plans, ways: &Ways, moment: Moment) -> Option<Due> {
        // It is told by a guard that needs no row for it.
        if key.rule == ENGINE_DATABASE {
            return None;
        }
        let (kept, rule) = (self.alarms.get(key)?, self.scene.rules.get(&key.rule)?.clone());
        let plan = if key.rule == DRILL { &plans.drill } else { plans.of(kept.class()) };
        let (kind, names) = match kept.state() {
            State::Unack => (MessageKind::Raised, kept.step_due(plan, moment)?),
            State::Acked => (MessageKind::Reminder, kept.reminder_due(plan, moment)?),
            State::Norm | State::Rtnun | State::Shlvd | State::Dsupr | State::Oosrv => return None,
        };
        let kind = if key.rule == DRILL { MessageKind::Drill } else { kind };
        let told: Vec<_> = expand(&names, ways);
        // A reminder is no call: what sounds was silenced by whoever knows.
        let is_quiet = kind == MessageKind::Reminder;
        let told: Vec<_> = told
            .into_iter()
            .filter(|name| !(is_quiet && ways.get(name).is_some_and(|way| way.sounds())))
            .collect();
        if told.is_empty() {
            return None;
        }
        let class = kept.class();
        let is_grouped = kind == MessageKind::Raised && self.flood.is_grouped(key, class, moment.steady);
        if !is_grouped && kind != MessageKind::Reminder {
            self.flood.rings(key, class);
        }
        let others = if is_grouped { 0 } else { self.grouped_with(key, moment) };
        self.claim(key, &rule, (kind, told, is_grouped, others), moment)
    }

    /// So many others are listed only while this one rings for all.
    fn grouped_with(&self, key: &Key, moment: Moment) -> usize {
        if !self.flood.is_on(moment.steady) {
            return 0;
        }
        self.alarms.iter().filter(|(other, kept)| *other != key && kept.state() == State::Unack).count()
    }

    /// That an occurrence is over, for everybody who was told of it and is not told to be silent.
    pub fn over(&mut self, key: &Key, ways: &Ways, moment: Moment) -> Option<Due> {
        let kept = self.alarms.get(key)?;
        let is_quiet = |name: &&String| ways.get(name).is_some_and(|way| !way.sounds());
        let told: Vec<_> = kept.told_by.iter().filter(is_quiet).cloned().collect();
        let rule = self.scene.rules.get(&key.rule)?.clone();
        if told.is_empty() || key.rule == ENGINE_DATABASE {
            return None;
        }
        let due = self.claim(key, &rule, (MessageKind::Ended, told, false, 0), moment);
        if let Some(kept) = self.alarms.get_mut(key) {
            kept.told_by.retain(|name| ways.get(name).is_some_and(|way| way.sounds()));
        }
        due
    }

    fn claim(
        &mut self,
        key: &Key,
        rule: &Rule,
        (kind, told, is_grouped, others): (MessageKind, Vec<String>, bool, usize),
        moment: Moment,
    ) -> Option<Due> {
        let name = self.scene.name.clone();
        let kept = self.alarms.get_mut(key)?;
        let number = kept.row.tellings;
        kept.row.tellings = number.saturating_add(1);
        kept.told_at = Some(moment.steady);
        if !is_grouped {
            kept.told_by.extend(told.iter().cloned());
        }
        let mut message = message(kept, rule, &name, (kind, number));
        if others > 0 {
            message.text.en.push_str(&format!(" {others} more alarms stand: look at the list."));
            message.text.th.push_str(&format!(" มีสัญญาณเตือนอื่นอีก {others} รายการ"));
        }
        let telling = TellingRow {
            alarm_id: kept.row.id,
            occurrence: kept.row.occurrence,
            number,
            kind: kind.as_str().to_owned(),
            is_grouped,
            ways: told,
            begun_at: moment.wall,
        };
        let row = kept.take_row(moment);
        Some(Due { key: key.clone(), row, telling, message })
    }

    /// What is said of an alarm now: to those who were cut off, or to what must be silent.
    #[must_use]
    pub fn message_of(&self, key: &Key, kind: MessageKind, number: i32) -> Option<Message> {
        let (kept, rule) = (self.alarms.get(key)?, self.scene.rules.get(&key.rule)?);
        let kind = if key.rule == DRILL && kind == MessageKind::Raised { MessageKind::Drill } else { kind };
        Some(message(kept, rule, &self.scene.name, (kind, number)))
    }
}

impl Kept {
    fn step_due(&self, plan: &Plan, moment: Moment) -> Option<Vec<String>> {
        let number = u32::try_from(self.row.tellings - self.row.round_first).ok()?;
        let (after, ways) = plan.telling(number)?;
        (self.round_age(moment) >= after).then(|| ways.to_vec())
    }

    fn reminder_due(&self, plan: &Plan, moment: Moment) -> Option<Vec<String>> {
        let since = [self.told_at, self.acknowledged_at(moment)].into_iter().flatten().max()?;
        let passed: Duration = moment.steady.signed_duration_since(since);
        let last = plan.steps.last()?;
        (passed >= plan.reminder()?).then(|| last.ways.clone())
    }

    fn acknowledged_at(&self, moment: Moment) -> Option<Timestamp> {
        self.row.acknowledged_at.map(|at| moment.steady_of(at))
    }
}

fn message(kept: &Kept, rule: &Rule, barn: &str, (kind, number): (MessageKind, i32)) -> Message {
    let row = &kept.row;
    let measured = match (row.value, row.limit_value, row.unit.as_deref()) {
        (Some(value), Some(limit), unit) => {
            let unit = unit.unwrap_or_default();
            let is =
                |en: &str, th: &str| (format!("{value:.1} {unit}, {en} {limit:.1} {unit}. "), th.to_owned());
            let (en, th) = is("limit", "เกณฑ์");
            (en, format!("{value:.1} {unit} ({th} {limit:.1} {unit}) "))
        }
        (Some(_) | None, _, _) => Default::default(),
    };
    Message {
        alarm_id: row.id,
        occurrence: kept.alarm.occurrence,
        telling: u32::try_from(number).unwrap_or_default(),
        kind,
        class: if rule.id == DRILL { Class::Critical } else { kept.class() },
        rule: rule.id.clone(),
        barn: barn.to_owned(),
        place: (!row.place.is_empty()).then(|| row.place.clone()),
        value: row.value,
        limit: row.limit_value,
        unit: row.unit.clone(),
        since: row.raised_at.unwrap_or(row.state_since),
        title: rule.title.clone(),
        text: Words::new(measured.0 + &rule.cause.en, measured.1 + &rule.cause.th),
        first_action: rule.first_action.clone(),
        sounds: matches!(kind, MessageKind::Raised | MessageKind::Drill | MessageKind::Reminder),
    }
}
