//! Rings while the database is away: then no alarm can be raised from a reading, and nobody who waits for a row would say so.
//!
//! Everything else about alarms is stored before it is told. This one thing is not: it lives in memory, looks at the health of
//! the database that its writers report, and tells every way by itself. Whoever acknowledges it by a way silences what sounds.

use std::convert::Infallible;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use schema::clock::Clock;
use schema::id::Uuid;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use super::trouble::{Condition, Troubles};
use super::way::{Acknowledgment, Class, Message, MessageKind, Ways, Words};

/// The rule that this is.
pub const RULE: &str = "engine_database";
/// The id of its alarm in messages: it has no row.
pub const ALARM_ID: Uuid = Uuid::from_u128(0x4f41_5f64_6174_8000_8000_6261_7365_0001);
/// Until it is told again while nobody acknowledges it.
const REPEAT: Duration = Duration::from_secs(600);
/// Until it is told again after somebody did.
const REMIND: Duration = Duration::from_secs(3600);
/// Between two looks.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Watches over the database. Cloning shares it.
#[derive(Clone)]
pub struct DatabaseGuard {
    /// What this barn is called.
    barn: String,
    ways: Ways,
    troubles: Troubles,
    clock: Clock,
    state: Arc<Mutex<State>>,
    occurrence: Arc<AtomicU64>,
}

/// What rings.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct State {
    /// When it was told last, and how often.
    told: Option<(Instant, u32)>,
    is_acknowledged: bool,
    /// Whether what sounds was told to be silent after the acknowledgment.
    is_silenced: bool,
}

/// What is to be said now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Nothing,
    Tell(MessageKind, u32),
    Silence,
    End(u32),
}

impl State {
    /// | database | told | acknowledged | step |
    /// |---|---|---|---|
    /// | away | never, or ten minutes ago | no | tell |
    /// | away | yes | just now | silence what sounds |
    /// | away | an hour ago | yes | remind |
    /// | there | yes | any | say that it is over |
    /// | any | else | any | nothing |
    fn step(&self, is_away: bool, now: Instant) -> Step {
        match (is_away, self.told) {
            (false, None) => Step::Nothing,
            (false, Some((_, number))) => Step::End(number),
            (true, None) => Step::Tell(MessageKind::Raised, 0),
            (true, Some(_)) if self.is_acknowledged && !self.is_silenced => Step::Silence,
            (true, Some((at, number))) => {
                let (wait, kind) = if self.is_acknowledged {
                    (REMIND, MessageKind::Reminder)
                } else {
                    (REPEAT, MessageKind::Raised)
                };
                if now.duration_since(at) >= wait { Step::Tell(kind, number + 1) } else { Step::Nothing }
            }
        }
    }
}

impl DatabaseGuard {
    /// A guard that has nothing to say yet.
    #[must_use]
    pub fn new(barn: &str, ways: Ways, troubles: Troubles, clock: Clock) -> Self {
        Self {
            barn: barn.to_owned(),
            ways,
            troubles,
            clock,
            state: Arc::default(),
            occurrence: Arc::new(AtomicU64::new(1)),
        }
    }

    /// Takes an acknowledgment that is about this, or about everything. `false`: it is about another alarm alone.
    pub fn acknowledge(&self, acknowledgment: &Acknowledgment) -> bool {
        if acknowledgment.alarm_id.is_some_and(|id| id != ALARM_ID) {
            return false;
        }
        let mut state = self.lock();
        if state.told.is_some() && !state.is_acknowledged {
            tracing::warn!(by = acknowledgment.by, "somebody knows that the database is away");
            state.is_acknowledged = true;
        }
        acknowledgment.alarm_id.is_some()
    }

    /// Watches for as long as it is polled.
    pub async fn keep(&self) -> Infallible {
        let conditions = self.troubles.subscribe();
        loop {
            let away = conditions.borrow().iter().any(is_away);
            let step = self.lock().step(away, Instant::now());
            match step {
                Step::Nothing => {}
                Step::Tell(kind, number) => {
                    self.note(|state| state.told = Some((Instant::now(), number)));
                    let sounds = kind == MessageKind::Raised;
                    self.tell(self.message(kind, number, sounds), false).await;
                }
                Step::Silence => {
                    self.note(|state| state.is_silenced = true);
                    self.tell(self.message(MessageKind::Acknowledged, 0, false), true).await;
                }
                Step::End(number) => {
                    self.note(|state| *state = State::default());
                    self.tell(self.message(MessageKind::Ended, number, false), false).await;
                    self.occurrence.fetch_add(1, Ordering::Relaxed);
                }
            }
            sleep(LOOK_EVERY).await;
        }
    }

    /// Tells all ways at once; each has its own patience, and none waits for another.
    async fn tell(&self, message: Message, only_what_sounds: bool) {
        let mut telling = JoinSet::new();
        for way in self.ways.iter().filter(|way| way.sounds() || !only_what_sounds) {
            let (ways, name, message) = (self.ways.clone(), way.name().to_owned(), message.clone());
            telling.spawn(async move { drop(ways.tell(&name, &message).await) });
        }
        // What became of each is logged and counted where it is told.
        while telling.join_next().await.is_some() {}
    }

    fn message(&self, kind: MessageKind, telling: u32, sounds: bool) -> Message {
        Message {
            alarm_id: ALARM_ID,
            occurrence: self.occurrence.load(Ordering::Relaxed),
            telling,
            kind,
            class: Class::Critical,
            rule: RULE.to_owned(),
            since: self.clock.now(),
            title: Words::new("database away", "ฐานข้อมูลไม่ตอบ"),
            text: Words::new(
                "Nothing is stored, and alarms of readings cannot ring.",
                "เก็บข้อมูลไม่ได้ และสัญญาณเตือนจากค่าวัดจะไม่ดัง",
            ),
            first_action: Words::new(
                "Look after the birds yourself, then at the box: power, disk, farmiq-edge doctor.",
                "ไปดูไก่ด้วยตนเอง แล้วตรวจเครื่อง: ไฟ ดิสก์ และคำสั่ง farmiq-edge doctor",
            ),
            sounds,
            ..Message::trial(&self.barn)
        }
    }

    fn note(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.lock());
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn is_away(condition: &Condition) -> bool {
    condition.rule == RULE && condition.stands
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::alarm::trouble::Gauges;
    use crate::alarm::way::Way;
    use crate::alarm::way::line::LineSettings;
    use crate::alarm::way::line::doubles::Board;
    use crate::alarm::way::relay::Relay;
    use std::sync::atomic::AtomicBool;

    #[test]
    fn a_step_follows_from_what_was_said() {
        let now = Instant::now();
        let told = |seconds, number| Some((now - Duration::from_secs(seconds), number));
        let check = |told, is_acknowledged, is_silenced, is_away, expected| {
            let state = State { told, is_acknowledged, is_silenced };
            assert_eq!(state.step(is_away, now), expected, "{state:?}");
        };
        check(None, false, false, false, Step::Nothing);
        check(None, false, false, true, Step::Tell(MessageKind::Raised, 0));
        check(told(599, 0), false, false, true, Step::Nothing);
        check(told(600, 0), false, false, true, Step::Tell(MessageKind::Raised, 1));
        check(told(5, 0), true, false, true, Step::Silence);
        check(told(3599, 1), true, true, true, Step::Nothing);
        check(told(3600, 1), true, true, true, Step::Tell(MessageKind::Reminder, 2));
        check(told(5, 1), true, true, false, Step::End(1));
        check(told(5, 1), false, false, false, Step::End(1));
    }

    struct Up(AtomicBool);

    impl Gauges for Up {
        fn read(&self, name: &str) -> Vec<(String, f64)> {
            let up = if self.0.load(Ordering::Relaxed) { 1.0 } else { 0.0 };
            if name == "db.up" { vec![(String::new(), up)] } else { Vec::new() }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_database_that_is_away_rings_without_it_until_somebody_knows_or_it_is_back() {
        let board = Board::default();
        let settings = LineSettings { chip: "/dev/gpiochip0".into(), line: 17, active_low: false };
        let relay = Relay::new("horn", settings, Arc::new(board.clone()));
        let ways = Ways::new([Arc::new(relay) as Arc<dyn Way>]);
        let (troubles, up) = (Troubles::default(), Arc::new(Up(AtomicBool::new(true))));
        let guard = DatabaseGuard::new("Barn 1", ways, troubles.clone(), Clock::system());
        let (keeping, gauges) = (guard.clone(), Arc::clone(&up) as Arc<dyn Gauges>);
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            tokio::join!(keeping.keep(), troubles.keep(gauges));
        });
        sleep(Duration::from_secs(120)).await;
        assert_eq!(board.is_pulled(17), None, "all is well");
        up.0.store(false, Ordering::Relaxed);
        sleep(Duration::from_secs(55)).await;
        assert_eq!(board.is_pulled(17), None, "a restart of the database is no alarm");
        sleep(Duration::from_secs(20)).await;
        assert_eq!(board.is_pulled(17), Some(true));
        let other = Acknowledgment {
            way: "horn".to_owned(),
            alarm_id: Some(Uuid::nil()),
            occurrence: None,
            by: "Somchai".to_owned(),
            at: Clock::system().now(),
        };
        assert!(!guard.acknowledge(&other));
        sleep(Duration::from_secs(2)).await;
        assert_eq!(board.is_pulled(17), Some(true), "another alarm was meant");
        assert!(guard.acknowledge(&Acknowledgment { alarm_id: Some(ALARM_ID), ..other }));
        sleep(Duration::from_secs(2)).await;
        assert_eq!(board.is_pulled(17), Some(false));
        up.0.store(true, Ordering::Relaxed);
        sleep(Duration::from_secs(10)).await;
        up.0.store(false, Ordering::Relaxed);
        sleep(Duration::from_secs(75)).await;
        assert_eq!(board.is_pulled(17), Some(true), "another occurrence rings again");
    }
}
