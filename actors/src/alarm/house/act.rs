//! What a person does about an alarm.

use chrono::Duration;
use schema::store::alarm::AlarmRow;
use schema::store::audit::{Action, Author};
use serde_json::json;

use super::change::Cause;
use super::{Deed, House, Key, Moment, Said};
use crate::alarm::starting::DRILL;
use crate::alarm::state::Event;
use crate::alarm::way::Class;

/// For how many minutes a critical alarm may be put aside.
pub const SHELF_MINUTES_CRITICAL_MAX: u32 = 30;
/// For how many any other.
pub const SHELF_MINUTES_MAX: u32 = 8 * 60;

/// What a person does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Act {
    /// Says that he knows. An occurrence that was named and is over is not acknowledged.
    Acknowledge {
        /// Which one, where he named it.
        occurrence: Option<u64>,
    },
    /// Puts it aside.
    Shelve {
        /// For how long.
        minutes: u32,
        /// Why.
        reason: String,
    },
    /// Takes it up again.
    Unshelve,
    /// Takes its sensor out of service, until somebody puts it back.
    OutOfService {
        /// Why.
        reason: String,
    },
    /// Puts its sensor back into service.
    InService,
}

/// Why nothing was done.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ActError {
    /// There is no such alarm.
    #[error("there is no such alarm")]
    NoAlarm,
    /// It waits for nobody.
    #[error("nobody has to acknowledge it: its state is {0}")]
    NothingToAcknowledge(String),
    /// Another occurrence was named.
    #[error("the occurrence {0} is not the current one, which is {1}: look at it again")]
    OtherOccurrence(u64, u64),
    /// There is nothing to put aside.
    #[error("a normal alarm cannot be put aside")]
    NothingToShelve,
    /// For too long, or not at all.
    #[error("minutes: must be 1 to {0} for an alarm of this class: what is put aside comes back by itself")]
    ShelfTooLong(u32),
    /// It is not put aside.
    #[error("it is not put aside")]
    NotShelved,
    /// Its sensor is out of service.
    #[error("it is out of service already")]
    OutOfService,
    /// Its sensor is in service.
    #[error("it is in service")]
    InService,
    /// The rule of exercises.
    #[error("a drill is not put aside: answer it")]
    IsDrill,
    /// An exercise goes on.
    #[error("a drill of this barn waits for its answer")]
    DrillGoesOn,
    /// There is no such barn.
    #[error("there is no such barn: it has neither a name nor devices")]
    NoBarn,
    /// Another engine owns the alarms.
    #[error("another engine on this database owns the alarms, or this one has only begun")]
    NotOwner,
}

impl House {
    /// Does it, and gives the row as it is then.
    ///
    /// # Errors
    /// Why nothing was done.
    pub fn act(
        &mut self,
        key: &Key,
        act: &Act,
        author: &Author,
        moment: Moment,
    ) -> Result<AlarmRow, ActError> {
        let Some(kept) = self.alarms.get(key) else { return Err(ActError::NoAlarm) };
        let (alarm, class) = (kept.alarm, kept.class());
        let mut detail = json!({"rule": key.rule, "place": key.place, "occurrence": alarm.occurrence});
        let (event, action, why) = match act {
            Act::Acknowledge { occurrence } => {
                if let Some(named) = occurrence.filter(|named| *named != alarm.occurrence) {
                    return Err(ActError::OtherOccurrence(named, alarm.occurrence));
                }
                let waits = alarm.is_unacknowledged || (alarm.is_active && kept.row.is_latching);
                if !waits {
                    return Err(ActError::NothingToAcknowledge(alarm.state().as_str().to_owned()));
                }
                (Event::Acknowledge, Action::AlarmAcknowledge, None)
            }
            Act::Shelve { minutes, reason } => {
                if key.rule == DRILL {
                    return Err(ActError::IsDrill);
                }
                let minutes_max = match class {
                    Class::Critical => SHELF_MINUTES_CRITICAL_MAX,
                    Class::High | Class::Low => SHELF_MINUTES_MAX,
                };
                if !(1..=minutes_max).contains(minutes) {
                    return Err(ActError::ShelfTooLong(minutes_max));
                }
                if !(alarm.is_active || alarm.is_unacknowledged) {
                    return Err(ActError::NothingToShelve);
                }
                detail["minutes"] = (*minutes).into();
                detail["reason"] = reason.as_str().into();
                let until = moment.steady.checked_add_signed(Duration::minutes(i64::from(*minutes)));
                let until = until.unwrap_or(moment.steady);
                (Event::Shelve(until), Action::AlarmShelve, Some(reason.clone()))
            }
            Act::Unshelve => {
                if alarm.shelved_until.is_none() {
                    return Err(ActError::NotShelved);
                }
                (Event::Unshelve, Action::AlarmUnshelve, None)
            }
            Act::OutOfService { reason } => {
                if key.rule == DRILL {
                    return Err(ActError::IsDrill);
                }
                if alarm.is_out_of_service {
                    return Err(ActError::OutOfService);
                }
                detail["reason"] = reason.as_str().into();
                (Event::OutOfService(true), Action::AlarmOutOfService, Some(reason.clone()))
            }
            Act::InService => {
                if !alarm.is_out_of_service {
                    return Err(ActError::InService);
                }
                (Event::OutOfService(false), Action::AlarmInService, None)
            }
        };
        let deed = Some(Deed { author: author.clone(), action, detail });
        let cause = Cause { author: Some(author.actor.clone()), why, deed, ..Cause::default() };
        let rule = self.scene.rules.get(&key.rule).cloned();
        self.step(key, rule.as_deref(), event, cause, moment);
        let kept = self.alarms.get(key).ok_or(ActError::NoAlarm)?;
        Ok(kept.row.clone())
    }

    /// Acknowledges an alarm because of the engine, or of somebody at a way out of the barn.
    pub fn acknowledge(&mut self, key: &Key, by: &str, why: Option<&str>, moment: Moment) -> bool {
        let rule = self.scene.rules.get(&key.rule).cloned();
        let cause = Cause { author: Some(by.to_owned()), why: why.map(str::to_owned), ..Cause::default() };
        self.step(key, rule.as_deref(), Event::Acknowledge, cause, moment)
    }

    /// Begins an exercise, and gives the row of its alarm.
    ///
    /// # Errors
    /// When one goes on.
    pub fn begin_drill(&mut self, moment: Moment) -> Result<AlarmRow, ActError> {
        let key = Key::new(DRILL, "");
        if self.alarms.get(&key).is_some_and(|kept| kept.alarm.is_active || kept.alarm.is_unacknowledged) {
            return Err(ActError::DrillGoesOn);
        }
        self.say(key.clone(), Said::that(true));
        let Some(rule) = self.scene.rules.get(DRILL).cloned() else { return Err(ActError::NoAlarm) };
        for judgment in self.judge(&rule, moment.steady) {
            self.apply(&rule, judgment, moment);
        }
        let kept = self.alarms.get(&key).filter(|kept| kept.alarm.is_active);
        kept.map(|kept| kept.row.clone()).ok_or(ActError::NoAlarm)
    }

    /// Ends an exercise, whether somebody has answered it or not.
    pub fn end_drill(&mut self, moment: Moment) {
        let key = Key::new(DRILL, "");
        self.say(key.clone(), Said::that(false));
        let Some(rule) = self.scene.rules.get(DRILL).cloned() else { return };
        for judgment in self.judge(&rule, moment.steady) {
            self.apply(&rule, judgment, moment);
        }
        if self.alarms.get(&key).is_some_and(|kept| kept.alarm.is_unacknowledged) {
            self.acknowledge(&key, super::change::ENGINE, Some("nobody answered in time"), moment);
        }
    }
}
