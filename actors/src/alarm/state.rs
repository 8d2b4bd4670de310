//! What becomes of one alarm: ISA-18.2 / IEC 62682 without what a barn has no use for.
//!
//! | condition | acknowledged | state | sound |
//! |---|---|---|---|
//! | normal | yes | `NORM` | no |
//! | active | no | `UNACK` | yes, until somebody acknowledges it |
//! | active | yes | `ACKED` | a reminder now and then |
//! | normal again | no | `RTNUN` | no: it was, and nobody has seen it yet |
//! | any | any | `SHLVD`: put aside by a person, until a time | no |
//! | any | any | `DSUPR`: its cause has an alarm of its own, or the house is in a mode without it | no |
//! | any | any | `OOSRV`: an engineer took the sensor out of service | no |
//!
//! | event | what it changes |
//! |---|---|
//! | condition true for `on_seconds` | active; not acknowledged; a new occurrence |
//! | condition false, beyond the hysteresis, for `off_seconds` | normal, unless it latches |
//! | acknowledge | acknowledged; a latched one whose condition is normal again is normal |
//! | shelve | put aside, if there is something to put aside; its end comes by itself |
//! | unshelve, or the end of the shelf, the suppression or the service | if active, not acknowledged |
//! | restart of the engine | if active, not acknowledged |
//! | silence of the sensor | nothing, until its next word, whose time says how long it has been so; silence is an alarm of its own |
//!
//! An alarm that is raised [`CHATTER_RAISES`] times within [`CHATTER_MINUTES`] chatters: for [`CHATTER_REST_MINUTES`] it
//! takes [`CHATTER_FACTOR`] times as long to be normal again.
//!
//! There are two times. A reading has its device's time, and timers run on that from reading to reading. Between readings
//! they run on the engine's clock, from the moment at which the last reading was heard.

use chrono::Duration;
use schema::clock::Timestamp;
use serde::{Deserialize, Serialize};

/// So many raises within [`CHATTER_MINUTES`] are chatter.
pub const CHATTER_RAISES: usize = 3;
/// The time in which they are counted.
pub const CHATTER_MINUTES: i64 = 10;
/// For how long a rule that chattered is slower to end.
pub const CHATTER_REST_MINUTES: i64 = 60;
/// By how much.
pub const CHATTER_FACTOR: i64 = 4;

/// The state of an alarm, by its standard's name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum State {
    /// Normal.
    Norm,
    /// Active, and nobody has said that he knows.
    Unack,
    /// Active, and somebody knows.
    Acked,
    /// Normal again before anybody knew.
    Rtnun,
    /// Shelved.
    Shlvd,
    /// Suppressed by design.
    Dsupr,
    /// Out of service.
    Oosrv,
}

impl State {
    /// Every state, the most urgent first.
    pub const ALL: [Self; 7] =
        [Self::Unack, Self::Acked, Self::Rtnun, Self::Shlvd, Self::Dsupr, Self::Oosrv, Self::Norm];

    /// The text in the database.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Norm => "NORM",
            Self::Unack => "UNACK",
            Self::Acked => "ACKED",
            Self::Rtnun => "RTNUN",
            Self::Shlvd => "SHLVD",
            Self::Dsupr => "DSUPR",
            Self::Oosrv => "OOSRV",
        }
    }

    /// Reads it.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.as_str() == text)
    }
}

/// Where the values of a limit are bad.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Limit {
    /// The side that is bad.
    pub side: Side,
    /// The limit.
    pub value: f64,
    /// By how much a value must be back inside to be normal again; between, nothing changes.
    pub hysteresis: f64,
}

/// The bad side of a limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Side {
    /// Above it.
    Above,
    /// Below it.
    Below,
}

/// What a value says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// The condition is true.
    Outside,
    /// Neither: within the hysteresis.
    Between,
    /// The condition is false.
    Inside,
}

impl Place {
    /// What a condition says that knows nothing between.
    #[must_use]
    pub fn of(is_true: bool) -> Self {
        if is_true { Self::Outside } else { Self::Inside }
    }
}

impl Limit {
    /// Where a value is; `None` of one that is no number.
    #[must_use]
    pub fn place(&self, value: f64) -> Option<Place> {
        let beyond = match self.side {
            Side::Above => value - self.value,
            Side::Below => self.value - value,
        };
        if !beyond.is_finite() {
            return None;
        }
        Some(if beyond > 0.0 {
            Place::Outside
        } else if beyond >= -self.hysteresis {
            Place::Between
        } else {
            Place::Inside
        })
    }
}

/// How long a condition must stand, and what becomes of it then.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timing {
    /// For how long it must be true.
    pub on_seconds: u32,
    /// For how long it must be false again.
    pub off_seconds: u32,
    /// Whether it stays until a person has seen that it is over.
    pub is_latching: bool,
}

/// One alarm: everything that must survive a restart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Alarm {
    /// Whether the condition stands.
    pub is_active: bool,
    /// Whether somebody must still say that he knows.
    pub is_unacknowledged: bool,
    /// How often it was raised. One occurrence is rung once.
    pub occurrence: u64,
    /// How often somebody had to be told anew: it was raised, or came back from where it was not heard.
    pub rounds: u64,
    /// Since when the readings say the opposite of `is_active`, by their own time.
    pub turning_since: Option<Timestamp>,
    /// The newest reading that was looked at, by its own time; an older one changes nothing.
    pub looked_until: Option<Timestamp>,
    /// When that one was heard, by the engine's clock.
    pub heard_at: Option<Timestamp>,
    /// The end of its shelf.
    pub shelved_until: Option<Timestamp>,
    /// Whether its cause is known.
    pub is_suppressed: bool,
    /// Whether its sensor is out of service.
    pub is_out_of_service: bool,
    /// When it was raised lately, the newest last.
    pub raised_lately: [Option<Timestamp>; CHATTER_RAISES],
    /// Until when it is slower to end, because it chattered.
    pub chatters_until: Option<Timestamp>,
}

/// What happens to an alarm.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Event {
    /// A reading of this time says so.
    Reading(Place, Timestamp),
    /// Time passes while the sensor speaks.
    Tick,
    /// The sensor was silent for too long.
    Silence,
    /// A person knows.
    Acknowledge,
    /// A person puts it aside until then.
    Shelve(Timestamp),
    /// A person takes it up again.
    Unshelve,
    /// Its cause has an alarm, or no longer.
    Suppress(bool),
    /// Its sensor is taken out of service, or put back.
    OutOfService(bool),
    /// The engine starts.
    Restart,
}

impl Alarm {
    /// The state that is shown.
    #[must_use]
    pub fn state(&self) -> State {
        if self.is_out_of_service {
            return State::Oosrv;
        }
        if self.is_suppressed {
            return State::Dsupr;
        }
        if self.shelved_until.is_some() {
            return State::Shlvd;
        }
        match (self.is_active, self.is_unacknowledged) {
            (false, false) => State::Norm,
            (true, true) => State::Unack,
            (true, false) => State::Acked,
            (false, true) => State::Rtnun,
        }
    }

    /// Whether it is slower to end at `now`.
    #[must_use]
    pub fn is_chattering(&self, now: Timestamp) -> bool {
        self.chatters_until.is_some_and(|until| now < until)
    }

    /// What becomes of it at `now`, by the engine's clock.
    #[must_use]
    pub fn decide(mut self, timing: &Timing, event: Event, now: Timestamp) -> Self {
        self.end_shelf(now);
        match event {
            Event::Reading(place, at) => self.read(timing, place, at, now),
            Event::Tick => self.tick(timing, now),
            Event::Silence => {}
            Event::Acknowledge => self.acknowledge(timing),
            Event::Shelve(until) => self.shelve(until, now),
            Event::Unshelve => {
                let ends = self.shelved_until.take().is_some();
                self.come_back_if(ends);
            }
            Event::Suppress(is_suppressed) => {
                let ends = self.is_suppressed && !is_suppressed;
                self.is_suppressed = is_suppressed;
                self.come_back_if(ends);
            }
            Event::OutOfService(is_out_of_service) => {
                let ends = self.is_out_of_service && !is_out_of_service;
                self.is_out_of_service = is_out_of_service;
                self.come_back_if(ends);
            }
            Event::Restart => self.come_back_if(!self.is_unacknowledged),
        }
        self
    }

    /// A replayed buffer must not raise yesterday's alarm: a reading older than the newest one says nothing.
    fn read(&mut self, timing: &Timing, place: Place, at: Timestamp, now: Timestamp) {
        if self.looked_until.is_some_and(|newest| at < newest) {
            return;
        }
        self.looked_until = Some(at);
        self.heard_at = Some(now);
        let says_opposite = match place {
            Place::Outside => !self.is_active,
            Place::Inside => self.is_active,
            Place::Between => false,
        };
        if says_opposite {
            self.turning_since.get_or_insert(at);
        } else {
            self.turning_since = None;
        }
        self.turn_when_due(timing, at, now);
    }

    /// What the sensor's time would be now.
    fn tick(&mut self, timing: &Timing, now: Timestamp) {
        let (Some(looked_until), Some(heard_at)) = (self.looked_until, self.heard_at) else { return };
        let passed = now.signed_duration_since(heard_at).max(Duration::zero());
        if let Some(at) = looked_until.checked_add_signed(passed) {
            self.turn_when_due(timing, at, now);
        }
    }

    fn turn_when_due(&mut self, timing: &Timing, at: Timestamp, now: Timestamp) {
        let wait_seconds = match (self.is_active, self.is_chattering(now)) {
            (false, _) => i64::from(timing.on_seconds),
            (true, false) => i64::from(timing.off_seconds),
            (true, true) => i64::from(timing.off_seconds) * CHATTER_FACTOR,
        };
        let is_due = self
            .turning_since
            .is_some_and(|since| at.signed_duration_since(since) >= Duration::seconds(wait_seconds));
        let is_held = self.is_active && timing.is_latching;
        if is_due && !is_held {
            self.turn(now);
        }
    }

    fn turn(&mut self, now: Timestamp) {
        self.turning_since = None;
        self.is_active = !self.is_active;
        if self.is_active {
            self.occurrence += 1;
            self.ring();
            self.note_raise(now);
        }
    }

    fn ring(&mut self) {
        self.is_unacknowledged = true;
        self.rounds += 1;
    }

    fn note_raise(&mut self, now: Timestamp) {
        self.raised_lately.rotate_left(1);
        self.raised_lately[CHATTER_RAISES - 1] = Some(now);
        let window = Duration::minutes(CHATTER_MINUTES);
        if self.raised_lately[0].is_some_and(|oldest| now.signed_duration_since(oldest) <= window) {
            self.chatters_until = now.checked_add_signed(Duration::minutes(CHATTER_REST_MINUTES));
        }
    }

    fn acknowledge(&mut self, timing: &Timing) {
        self.is_unacknowledged = false;
        if timing.is_latching && self.is_active && self.turning_since.is_some() {
            (self.is_active, self.turning_since) = (false, None);
        }
    }

    /// There is nothing to put aside in a normal alarm.
    fn shelve(&mut self, until: Timestamp, now: Timestamp) {
        if until > now && (self.is_active || self.is_unacknowledged) {
            self.shelved_until = Some(until);
        }
    }

    fn end_shelf(&mut self, now: Timestamp) {
        let ends = self.shelved_until.is_some_and(|until| until <= now);
        if ends {
            self.shelved_until = None;
        }
        self.come_back_if(ends);
    }

    fn come_back_if(&mut self, ends: bool) {
        if ends && self.is_active {
            self.ring();
        }
    }
}

#[cfg(test)]
mod tests;
