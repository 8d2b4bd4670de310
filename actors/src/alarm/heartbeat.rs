//! The heartbeat: signs of life of the supervision tree, for a second box, a phone or a relay that is to ring when they stop.
//!
//! | beats while | stops when |
//! |---|---|
//! | the supervisor answers, all of its parts that must live do, and each vital part has said lately that it lives | one of that is not so; the tree has not begun or has ended; the process hangs or dies |
//!
//! Nobody here rings. Whoever listens rings when it hears nothing for three beats: a word of death may be the last thing that
//! a dying engine cannot say.

pub mod url;

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use bytes::Bytes;
use schema::clock::Clock;
use schema::metrics;
use schema::wire::time::format;
use serde::Serialize;
use serde_json::json;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};

use super::way::line::{Line, LineError, LineSettings, Lines};
use super::way::siren::Post;
use crate::supervisor::Pulse;

/// Beats that may be missing before the heart counts as stopped.
pub const GRACE_BEATS: u32 = 3;
/// How long a vital part may be silent.
const VITAL_MAX: Duration = Duration::from_secs(30);
/// How long the supervisor may take to answer.
const ANSWER_MAX: Duration = Duration::from_secs(5);
/// How often the line is looked after: a relay that is fed by pulses gets one of this length.
const LINE_TICK: Duration = Duration::from_millis(500);
/// How long the sign of life by HTTP may take.
const SEND_MAX: Duration = Duration::from_secs(10);

/// The heart of an engine. Cloning shares it.
#[derive(Clone)]
pub struct Heart {
    inner: Arc<Inner>,
}

struct Inner {
    period: Duration,
    beats: AtomicU64,
    alarms_waiting: AtomicU32,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    beat_at: Option<Instant>,
    pulse: Option<Pulse>,
    vitals: BTreeMap<&'static str, Instant>,
    /// Why the last beat was left out.
    trouble: Option<String>,
}

/// What is shown of the heart.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Life {
    /// Whether it has beaten lately.
    pub is_alive: bool,
    /// Beats since the start of the process.
    pub beat: u64,
    /// Since the last one.
    pub age_ms: Option<u64>,
    /// Between two of them.
    pub period_seconds: u64,
    /// Why it does not beat.
    pub trouble: Option<String>,
    /// Alarms that ring and that nobody has acknowledged.
    pub alarms_waiting: u32,
}

impl Heart {
    /// A heart that has not beaten yet.
    #[must_use]
    pub fn new(period: Duration) -> Self {
        let inner = Inner {
            period,
            beats: AtomicU64::new(0),
            alarms_waiting: AtomicU32::new(0),
            state: Mutex::default(),
        };
        Self { inner: Arc::new(inner) }
    }

    /// Follows a tree that has started, or none.
    pub fn follow(&self, pulse: Option<Pulse>) {
        self.lock().pulse = pulse;
    }

    /// A part without which there is no life: it says so itself, more often than every 30 seconds.
    #[must_use]
    pub fn vital(&self, name: &'static str) -> Vital {
        let vital = Vital { name, heart: self.clone() };
        vital.lives();
        vital
    }

    /// How many alarms wait for somebody, for whoever hears the beats.
    pub fn set_alarms_waiting(&self, count: u32) {
        self.inner.alarms_waiting.store(count, Ordering::Relaxed);
    }

    /// How it is.
    #[must_use]
    pub fn life(&self) -> Life {
        let state = self.lock();
        let age = state.beat_at.map(|at| at.elapsed());
        Life {
            is_alive: age.is_some_and(|age| age < self.inner.period * GRACE_BEATS),
            beat: self.inner.beats.load(Ordering::Relaxed),
            age_ms: age.map(|age| u64::try_from(age.as_millis()).unwrap_or(u64::MAX)),
            period_seconds: self.inner.period.as_secs(),
            trouble: state.trouble.clone(),
            alarms_waiting: self.inner.alarms_waiting.load(Ordering::Relaxed),
        }
    }

    /// Beats for as long as it is polled and everything lives.
    pub async fn keep(&self, outlets: Outlets) -> Infallible {
        let mut sending = JoinSet::new();
        loop {
            let outcome = self.look().await;
            metrics::engine_heart_beats().set(if outcome.is_ok() { 1.0 } else { 0.0 });
            match outcome {
                Ok(()) => {
                    self.beat();
                    outlets.tell(self, &mut sending);
                }
                Err(trouble) => self.miss(trouble),
            }
            sleep(self.inner.period).await;
        }
    }

    /// Whether everything lives that must.
    async fn look(&self) -> Result<(), String> {
        let pulse = self.lock().pulse.clone().ok_or("the engine has not begun, or has ended")?;
        let answered = timeout(ANSWER_MAX, pulse.answer()).await;
        match answered {
            Ok(Some(None)) => {}
            Ok(Some(Some(dead))) => return Err(format!("{dead} is dead")),
            Ok(None) => return Err("the supervisor has ended".to_owned()),
            Err(_) => return Err("the supervisor does not answer".to_owned()),
        }
        let state = self.lock();
        match state.vitals.iter().find(|(_, lived_at)| lived_at.elapsed() > VITAL_MAX) {
            Some((name, _)) => Err(format!("{name} does not answer")),
            None => Ok(()),
        }
    }

    fn beat(&self) {
        self.inner.beats.fetch_add(1, Ordering::Relaxed);
        let mut state = self.lock();
        state.beat_at = Some(Instant::now());
        if state.trouble.take().is_some() {
            tracing::info!("the heart of the engine beats");
        }
    }

    /// Told once for each trouble; that nothing has begun is none.
    fn miss(&self, trouble: String) {
        let mut state = self.lock();
        if state.pulse.is_some() && state.trouble.as_ref() != Some(&trouble) {
            tracing::error!(trouble, "the heart of the engine misses beats");
        }
        state.trouble = Some(trouble);
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.inner.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A part without which there is no life.
#[derive(Clone)]
pub struct Vital {
    name: &'static str,
    heart: Heart,
}

impl Vital {
    /// It lives now.
    pub fn lives(&self) {
        self.heart.lock().vitals.insert(self.name, Instant::now());
    }
}

/// Where beats go, besides whoever asks.
pub struct Outlets {
    /// The name of the engine.
    pub edge_id: String,
    /// Wall time.
    pub clock: Clock,
    /// The broker, and the topic there.
    pub mqtt: (Arc<dyn Post>, String),
    /// Where each beat is posted.
    pub http: Option<Arc<dyn SendBeat>>,
}

/// Posts a beat somewhere.
pub trait SendBeat: Send + Sync {
    /// Posts it; the future is given up after a while.
    fn send(self: Arc<Self>, body: Vec<u8>) -> Pin<Box<dyn Future<Output = Result<(), String>> + Send>>;
}

/// What is published of an engine: alive, stopped in order, or lost.
#[must_use]
pub fn word(edge_id: &str, state: &str, life: Option<&Life>, clock: &Clock) -> Bytes {
    let mut word = json!({"edge_id": edge_id, "state": state});
    if let Some(life) = life {
        word["beat"] = life.beat.into();
        word["period_seconds"] = life.period_seconds.into();
        word["alarms_waiting"] = life.alarms_waiting.into();
        word["at"] = format(clock.now()).into();
    }
    word.to_string().into()
}

impl Outlets {
    fn tell(&self, heart: &Heart, sending: &mut JoinSet<()>) {
        let body = word(&self.edge_id, "alive", Some(&heart.life()), &self.clock);
        let (post, topic) = &self.mqtt;
        if let Err(error) = post.publish(topic, body.clone()) {
            tracing::debug!(%error, "a heartbeat was not published");
        }
        while sending.try_join_next().is_some() {}
        // One at a time: a receiver that hangs costs beats, and nothing else.
        if let Some(http) = self.http.clone().filter(|_| sending.is_empty()) {
            sending.spawn(async move {
                let sent = timeout(SEND_MAX, http.send(body.to_vec())).await;
                if let Err(error) = sent.unwrap_or_else(|_| Err("no answer in time".to_owned())) {
                    tracing::warn!(error, "a heartbeat was not taken by alarms.heartbeat_url");
                }
            });
        }
    }

    /// The last word of an engine that ends in order.
    pub fn part(&self) {
        let (post, topic) = &self.mqtt;
        // Whoever listens notices a broker that is gone by itself.
        let _ = post.publish(topic, word(&self.edge_id, "stopped", None, &self.clock));
    }
}

/// Holds the line of a relay for as long as the heart beats, in a thread of its own: a runtime that hangs lets it go, too.
pub struct HeldLine {
    is_over: Arc<AtomicBool>,
    thread: Option<thread::JoinHandle<()>>,
}

impl HeldLine {
    /// Takes the line, which is pulled once the heart beats.
    ///
    /// # Errors
    /// When the line cannot be taken, or no thread be had.
    pub fn start(
        heart: Heart,
        lines: Arc<dyn Lines>,
        settings: LineSettings,
        is_pulsed: bool,
    ) -> Result<Self, LineError> {
        let line = lines.hold(&settings)?;
        let is_over = Arc::new(AtomicBool::new(false));
        let stop = Arc::clone(&is_over);
        let thread = thread::Builder::new().name("heart-line".to_owned()).spawn(move || {
            look_after(&heart, &*lines, &settings, line, is_pulsed, &stop);
        });
        let thread = thread.map_err(|error| LineError(error.to_string()))?;
        Ok(Self { is_over, thread: Some(thread) })
    }
}

impl Drop for HeldLine {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.thread().unpark();
            // It has ended when nobody holds the line any more; a panic of it let the line go as well.
            let _ = thread.join();
        }
    }
}

fn look_after(
    heart: &Heart,
    lines: &dyn Lines,
    settings: &LineSettings,
    line: Box<dyn Line>,
    is_pulsed: bool,
    stop: &AtomicBool,
) {
    let mut held = Some(line);
    let mut is_high = false;
    while !stop.load(Ordering::Relaxed) {
        is_high = heart.life().is_alive && !(is_pulsed && is_high);
        held = held.or_else(|| lines.hold(settings).ok());
        if let Some(error) = held.as_ref().and_then(|line| line.set(is_high).err()) {
            tracing::error!(%error, %settings, "the relay of the heartbeat cannot be held");
            held = None;
        }
        thread::park_timeout(LINE_TICK);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::Ordering;

    use broker::NotPublished;
    use ractor::{Actor, ActorProcessingErr, ActorRef};

    use super::*;
    use crate::address::Address;
    use crate::alarm::way::line::doubles::Board;
    use crate::supervisor::{ChildSpec, Supervised};

    #[derive(Default)]
    struct Heard(Mutex<Vec<String>>);

    impl Post for Heard {
        fn publish(&self, _: &str, payload: Bytes) -> Result<(), NotPublished> {
            self.0.lock().unwrap().push(String::from_utf8(payload.to_vec()).unwrap());
            Ok(())
        }
    }

    /// A part that hangs at its start for as long as it is told to, which keeps its supervisor from answering.
    struct Sleeper;

    impl Actor for Sleeper {
        type Msg = ();
        type State = ();
        type Arguments = Arc<AtomicBool>;

        async fn pre_start(&self, _: ActorRef<()>, hangs: Arc<AtomicBool>) -> Result<(), ActorProcessingErr> {
            while hangs.load(Ordering::Relaxed) {
                sleep(Duration::from_millis(100)).await;
            }
            Ok(())
        }

        async fn handle(&self, _: ActorRef<()>, (): (), (): &mut ()) -> Result<(), ActorProcessingErr> {
            Err("it was told to die".into())
        }
    }

    fn outlets(heard: &Arc<Heard>) -> Outlets {
        Outlets {
            edge_id: "box".to_owned(),
            clock: Clock::system(),
            mqtt: (Arc::clone(heard) as Arc<dyn Post>, "iot/engine/box/heartbeat".to_owned()),
            http: None,
        }
    }

    #[tokio::test(start_paused = true)]
    async fn it_beats_while_the_tree_answers_and_stops_when_it_does_not_although_the_process_lives() {
        let (heart, heard) = (Heart::new(Duration::from_secs(10)), Arc::new(Heard::default()));
        let mut tasks = JoinSet::new();
        let (keeping, outlets) = (heart.clone(), outlets(&heard));
        tasks.spawn(async move {
            keeping.keep(outlets).await;
        });
        sleep(Duration::from_secs(60)).await;
        assert!(!heart.life().is_alive, "nothing has begun");

        let (hangs, address) = (Arc::new(AtomicBool::new(false)), Address::default());
        let make = {
            let hangs = Arc::clone(&hangs);
            move || (Sleeper, Arc::clone(&hangs))
        };
        let tree = Supervised::start(vec![ChildSpec::new("sleeper", "", &address, make)]).await.unwrap();
        heart.follow(Some(tree.pulse()));
        sleep(Duration::from_secs(11)).await;
        let life = heart.life();
        assert!(life.is_alive && life.beat > 0, "{life:?}");
        assert!(heard.0.lock().unwrap().last().unwrap().contains("\"state\":\"alive\""));

        hangs.store(true, Ordering::Relaxed);
        assert!(address.cast(()), "it lives");
        sleep(Duration::from_secs(60)).await;
        let life = heart.life();
        assert_eq!((life.is_alive, life.trouble.as_deref()), (false, Some("the supervisor does not answer")));

        hangs.store(false, Ordering::Relaxed);
        sleep(Duration::from_secs(20)).await;
        assert!(heart.life().is_alive);

        let vital = heart.vital("alarm");
        sleep(VITAL_MAX + Duration::from_secs(60)).await;
        let life = heart.life();
        assert_eq!((life.is_alive, life.trouble.as_deref()), (false, Some("alarm does not answer")));
        vital.lives();
        sleep(Duration::from_secs(11)).await;
        assert!(heart.life().is_alive);
    }

    fn until(what: &str, condition: impl Fn() -> bool) {
        let began_at = std::time::Instant::now();
        while !condition() {
            assert!(began_at.elapsed() < Duration::from_secs(20), "{what}");
            thread::yield_now();
        }
    }

    #[tokio::test]
    async fn a_relay_is_held_while_it_beats_and_let_go_when_it_does_not() {
        let (heart, board) = (Heart::new(Duration::from_millis(200)), Board::default());
        let settings = LineSettings { chip: "/dev/gpiochip0".into(), line: 4, active_low: false };
        let lines = Arc::new(board.clone());
        let held = HeldLine::start(heart.clone(), lines.clone(), settings.clone(), false).unwrap();
        until("it is taken", || board.is_pulled(4) == Some(false));
        assert!(HeldLine::start(heart.clone(), lines, settings, false).is_err(), "one holder");
        heart.beat();
        held.thread.as_ref().unwrap().thread().unpark();
        until("it is pulled", || board.is_pulled(4) == Some(true));
        // Nobody beats any more, as in a runtime that hangs: this test does not let any other task run.
        until("it is let go", || board.is_pulled(4) == Some(false));
        drop(held);
        assert_eq!(board.is_pulled(4), None);
    }
}
