//! A model of the cloud: what it takes, in which order, and the ways in which its answers fail.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

use actors::sync::answer::Answer;
use actors::sync::ports::{Later, Line};
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};
use schema::wire::event::{SESSION_CREATED, SESSION_FINALIZED};
use serde_json::{Value, json};
use uuid::Uuid;

use super::REJECTIONS_MAX;

/// Why the cloud does not take an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dislike {
    /// It rejects it by name so many times, and takes it then.
    Times(u32),
    /// It rejects it by name, always.
    Always,
    /// It says that a field is missing.
    Missing,
    /// It refuses every request that has it.
    Poison,
}

impl Dislike {
    pub(super) fn any(random: &mut StdRng) -> Self {
        *[Self::Times(1), Self::Times(2), Self::Always, Self::Missing, Self::Poison]
            .choose(random)
            .expect("not empty")
    }

    /// Whether it never takes it.
    #[must_use]
    pub fn is_final(&self) -> bool {
        match self {
            Self::Times(_) => false,
            Self::Always | Self::Missing | Self::Poison => true,
        }
    }
}

/// What may become of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mishap {
    /// It never arrives.
    Lost,
    /// It is taken, and the answer never arrives.
    AnswerLost,
    Unavailable,
    Throttled,
    Unauthorized,
    /// Somebody else answers.
    Captive,
}

const MISHAPS: [Mishap; 6] = [
    Mishap::Lost,
    Mishap::AnswerLost,
    Mishap::Unavailable,
    Mishap::Throttled,
    Mishap::Unauthorized,
    Mishap::Captive,
];

/// How the cloud is for a while.
#[derive(Clone, Debug, Default)]
pub struct Weather {
    /// The share of requests that meet with a mishap, and with which.
    share: f64,
    mishaps: Vec<Mishap>,
    /// The longest way there and back, seconds.
    seconds_max: f64,
}

impl Weather {
    pub(super) fn storm(random: &mut StdRng, share: f64) -> Self {
        let mishaps = (0..3).map(|_| *MISHAPS.choose(random).expect("not empty")).collect();
        Self { share, mishaps, seconds_max: *[0.01, 1.0, 40.0, 120.0].choose(random).expect("not empty") }
    }
}

/// What holds in a life.
#[derive(Clone, Copy, Debug)]
pub struct Rules {
    /// How long a sender waits for an answer.
    pub timeout: Duration,
    /// There is one engine: what waits after a rejection is not passed by its lane.
    pub is_alone: bool,
    /// The database never fails, so no lease is ever lost: nothing is under way twice.
    pub is_steady: bool,
}

/// The cloud.
#[derive(Debug)]
pub struct ModelCloud {
    rules: Rules,
    inner: Mutex<Inner>,
}

#[derive(Debug)]
struct Inner {
    random: StdRng,
    weather: Weather,
    dislikes: HashMap<Uuid, Dislike>,
    rejected: HashMap<Uuid, u32>,
    taken: HashSet<Uuid>,
    /// The last event that was taken of each lane, by its number there.
    lanes: HashMap<String, u64>,
    sessions: HashSet<String>,
    /// Events that were rejected and may come again, by lane.
    held: HashMap<String, BTreeMap<u64, Uuid>>,
    /// In how many requests an event is under way.
    under_way: HashMap<Uuid, u32>,
    requests: u64,
    duplicates: u64,
    fault: Option<String>,
}

/// What the cloud does before it answers.
struct Course {
    there: Duration,
    back: Duration,
    mishap: Option<Mishap>,
}

impl ModelCloud {
    pub(super) fn new(dislikes: HashMap<Uuid, Dislike>, rules: Rules, seed: u64) -> Self {
        let inner = Inner {
            random: StdRng::seed_from_u64(seed),
            weather: Weather::default(),
            dislikes,
            rejected: HashMap::new(),
            taken: HashSet::new(),
            lanes: HashMap::new(),
            sessions: HashSet::new(),
            held: HashMap::new(),
            under_way: HashMap::new(),
            requests: 0,
            duplicates: 0,
            fault: None,
        };
        Self { rules, inner: Mutex::new(inner) }
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().expect("nobody panics while it is held")
    }

    pub(super) fn change(&self, weather: Weather) {
        self.inner().weather = weather;
    }

    pub(super) fn has(&self, id: Uuid) -> bool {
        self.inner().taken.contains(&id)
    }

    pub(super) fn fault(&self) -> Option<String> {
        self.inner().fault.clone()
    }

    pub(super) fn counts(&self) -> (u64, u64) {
        let inner = self.inner();
        (inner.requests, inner.duplicates)
    }

    async fn answer(&self, body: String) -> Answer {
        let Course { there, back, mishap } = self.inner().course();
        tokio::time::sleep(there).await;
        let lost = |text: &str| Answer::Lost { is_timeout: false, text: text.to_owned() };
        let response = |status, body: Value| Answer::Response {
            status,
            retry_after: None,
            body: body.to_string().into_bytes(),
        };
        let answer = match mishap {
            Some(Mishap::Lost) => return lost("lost on the way"),
            Some(Mishap::Unavailable) => response(503, json!({})),
            Some(Mishap::Unauthorized) => response(401, json!({})),
            Some(Mishap::Captive) => {
                Answer::Response { status: 200, retry_after: None, body: b"<html>".to_vec() }
            }
            Some(Mishap::Throttled) => {
                Answer::Response { status: 429, retry_after: Some("7".to_owned()), body: b"{}".to_vec() }
            }
            Some(Mishap::AnswerLost) => {
                self.inner().take(&body, self.rules);
                return lost("the answer is lost");
            }
            None => {
                let (status, body) = self.inner().take(&body, self.rules);
                response(status, body)
            }
        };
        tokio::time::sleep(back).await;
        answer
    }
}

impl Line for ModelCloud {
    fn post<'a>(&'a self, _: &'a str, _: Uuid, body: String) -> Later<'a, Answer> {
        Box::pin(async move {
            let _under_way = UnderWay::begin(self, &body);
            let timed = tokio::time::timeout(self.rules.timeout, self.answer(body)).await;
            timed.unwrap_or_else(|_| Answer::Lost { is_timeout: true, text: "no answer in time".to_owned() })
        })
    }
}

/// The events of a request that is under way; it ends with its sender at the latest.
struct UnderWay<'a> {
    cloud: &'a ModelCloud,
    ids: Vec<Uuid>,
}

impl<'a> UnderWay<'a> {
    fn begin(cloud: &'a ModelCloud, body: &str) -> Self {
        let body: Value = serde_json::from_str(body).expect("a batch is JSON");
        let ids: Vec<Uuid> = body["events"].as_array().expect("a batch has events").iter().map(id).collect();
        let mut inner = cloud.inner();
        for id in &ids {
            let count = inner.under_way.entry(*id).or_default();
            *count += 1;
            if *count > 1 && cloud.rules.is_steady {
                inner.fault.get_or_insert(format!("{id} is under way twice"));
            }
        }
        drop(inner);
        Self { cloud, ids }
    }
}

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        let mut inner = self.cloud.inner();
        for id in &self.ids {
            if let Some(count) = inner.under_way.get_mut(id) {
                *count -= 1;
            }
        }
    }
}

fn id(event: &Value) -> Uuid {
    Uuid::try_parse(event["event_id"].as_str().expect("an id")).expect("a UUID")
}

fn lane(event: &Value) -> String {
    event["session_id"].as_str().or(event["device_id"].as_str()).expect("a lane").to_owned()
}

fn number(event: &Value) -> u64 {
    event["payload"]["number"].as_u64().expect("every simulated event has a number")
}

impl Inner {
    fn course(&mut self) -> Course {
        let Self { random, weather, .. } = self;
        let mut way =
            || Duration::from_secs_f64(random.random_range(0.0..=weather.seconds_max.max(0.001)) / 2.0);
        let (there, back) = (way(), way());
        let is_stormy = random.random_bool(weather.share);
        let mishap = if is_stormy { weather.mishaps.choose(random).copied() } else { None };
        Course { there, back, mishap }
    }

    fn take(&mut self, body: &str, rules: Rules) -> (u16, Value) {
        self.requests += 1;
        let body: Value = serde_json::from_str(body).expect("a batch is JSON");
        let events = body["events"].as_array().expect("a batch has events");
        let ids: HashSet<Uuid> = events.iter().map(id).collect();
        if events.iter().any(|event| self.dislikes.get(&id(event)) == Some(&Dislike::Poison)) {
            return (400, json!({"error": "bad request"}));
        }
        let (mut accepted, mut duplicated, mut errors) = (0, 0, Vec::new());
        let mut created = Vec::new();
        for event in events {
            let id = id(event);
            if self.taken.contains(&id) {
                duplicated += 1;
                continue;
            }
            if let Some(text) = self.refusal(id) {
                self.held.entry(lane(event)).or_default().insert(number(event), id);
                errors.push(json!({"event_id": id.to_string(), "error": text}));
                continue;
            }
            self.check(event, id, &ids, rules);
            self.taken.insert(id);
            accepted += 1;
            if event["event_type"] == SESSION_CREATED {
                created.extend(event["session_id"].as_str().map(str::to_owned));
            }
        }
        // Whoever comes in the same batch as its session comes too early.
        self.sessions.extend(created);
        self.duplicates += duplicated;
        let rejected = errors.len();
        (200, json!({"accepted": accepted, "duplicated": duplicated, "rejected": rejected, "errors": errors}))
    }

    fn refusal(&mut self, id: Uuid) -> Option<&'static str> {
        let dislike = *self.dislikes.get(&id)?;
        let rejected = self.rejected.entry(id).or_default();
        *rejected += 1;
        match dislike {
            Dislike::Times(times) if *rejected > times => None,
            Dislike::Times(_) | Dislike::Always | Dislike::Poison => Some("no"),
            Dislike::Missing => Some("Missing farm_id"),
        }
    }

    /// An event that is taken follows those of its lane that were taken before, unless it was rejected once; it does not pass
    /// one that was rejected and waits; and no end comes before its beginning.
    fn check(&mut self, event: &Value, id: Uuid, beside: &HashSet<Uuid>, rules: Rules) {
        let (lane, number) = (lane(event), number(event));
        let last = self.lanes.entry(lane.clone()).or_default();
        let (before, is_excused) = (*last, self.rejected.contains_key(&id));
        *last = before.max(number);
        if before > number && !is_excused {
            self.fault.get_or_insert(format!("{lane}: event {number} is taken after {before}"));
        }
        let waits = |waiting: &Uuid| {
            let is_given_up = self.rejected.get(waiting).is_none_or(|times| *times >= REJECTIONS_MAX);
            let is_missing = self.dislikes.get(waiting) == Some(&Dislike::Missing);
            !is_given_up && !is_missing && !self.taken.contains(waiting) && !beside.contains(waiting)
        };
        let passed = self.held.get(&lane).and_then(|held| held.range(..number).find(|(_, id)| waits(id)));
        if let Some((passed, _)) = passed.filter(|_| rules.is_alone) {
            let fault = format!("{lane}: event {number} is sent while {passed} waits after a rejection");
            self.fault.get_or_insert(fault);
        }
        if event["event_type"] == SESSION_FINALIZED && !self.sessions.contains(&lane) {
            self.fault.get_or_insert(format!("{lane}: finalized before created was acknowledged"));
        }
    }
}
