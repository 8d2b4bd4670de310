//! A siren that is a device of the barn: a command on a retained topic of its own, and an answer as one of its events.
//!
//! The command says whether it is to sound from now on, so that a siren which was away or restarts finds out when it
//! subscribes. The answer comes as the event `siren.answered` with the `command_id`; the event `siren.acknowledged` is its
//! button. Both are looked at before anything is stored: a siren works while the database does not.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use broker::NotPublished;
use bytes::Bytes;
use schema::clock::Clock;
use schema::id::{DeviceId, TenantId, new_id};
use schema::wire::topic::{Place, Topic, command_topic};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::sync::oneshot;
use tokio::time::{sleep, timeout};
use uuid::Uuid;

use super::{Acknowledge, Acknowledgment, Failure, Message, MessageKind, Receipt, Way, WayError};
use crate::door::WayInView;

/// The event by which a siren says that it does what it was told.
pub const ANSWERED: &str = "siren.answered";
/// The event by which somebody says at the siren that he knows.
pub const ACKNOWLEDGED: &str = "siren.acknowledged";
/// What the topics of both have in them.
pub const SIREN_EVENTS: &str = "/siren.";
/// The name of the command, the last part of its topic.
pub const COMMAND: &str = "siren";
/// How long it sounds when it is tried out; the command says so, too.
const TRIAL: Duration = Duration::from_secs(2);
/// Bytes of an answer that are read.
const ANSWER_BYTES_MAX: usize = 4096;

/// What a siren is set to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SirenSettings {
    /// Its tenant.
    pub tenant: String,
    /// Its farm.
    pub farm: String,
    /// Its barn.
    pub barn: String,
    /// Its device id.
    pub device: String,
    /// How long it has to answer; then it counts as broken.
    #[serde(default = "answer_seconds")]
    pub answer_seconds: u64,
}

fn answer_seconds() -> u64 {
    5
}

/// Publishes what the engine itself has to say.
pub trait Post: Send + Sync {
    /// Publishes to a topic at QoS 1, retained.
    ///
    /// # Errors
    /// When there is no broker to publish to now.
    fn publish(&self, topic: &str, payload: Bytes) -> Result<(), NotPublished>;
}

impl Post for WayInView {
    fn publish(&self, topic: &str, payload: Bytes) -> Result<(), NotPublished> {
        Self::publish(self, topic, payload)
    }
}

/// Where the answers of all sirens come in. Cloning shares it.
#[derive(Clone, Default)]
pub struct SirenDesk {
    inner: Arc<Mutex<Inner>>,
}

#[derive(Default)]
struct Inner {
    sirens: BTreeMap<(TenantId, DeviceId), Known>,
    acknowledge: Option<Acknowledge>,
}

/// A siren as far as its answers go.
struct Known {
    way: String,
    /// The command that waits for an answer.
    waiting: Option<(Uuid, oneshot::Sender<()>)>,
    /// What it was told last: the alarm that its button acknowledges.
    told: Option<Told>,
}

#[derive(Clone, Copy)]
struct Told {
    command_id: Uuid,
    alarm_id: Uuid,
    occurrence: u64,
}

impl SirenDesk {
    /// Whom to tell of buttons; until then they go nowhere.
    pub fn acknowledge_by(&self, acknowledge: Acknowledge) {
        self.lock().acknowledge = Some(acknowledge);
    }

    /// Looks at an event of a device, which goes on its way whatever it says.
    pub fn hear(&self, topic: &Topic, payload: &[u8], clock: &Clock) {
        let Topic::Event { place, device_id, event_type } = topic else { return };
        let is_button = match event_type.as_str() {
            ANSWERED => false,
            ACKNOWLEDGED => true,
            _ => return,
        };
        if payload.len() > ANSWER_BYTES_MAX {
            return;
        }
        let said: Value = serde_json::from_slice(payload).unwrap_or_default();
        let command_id = command_id(&said);
        let mut inner = self.lock();
        let key = (place.tenant_id.clone(), device_id.clone());
        let Some(siren) = inner.sirens.get_mut(&key) else { return };
        if !is_button {
            siren.answered(command_id);
            return;
        }
        // A button that names a command means that one; one that names none, what it was told last. What it was told by an
        // engine before this one is in the rows alone: then it means whatever this way has told.
        let told = siren.told;
        if told.is_some_and(|told| command_id.is_some_and(|id| id != told.command_id)) {
            return;
        }
        let way = siren.way.clone();
        if let Some(acknowledge) = inner.acknowledge.clone() {
            drop(inner);
            acknowledge(Acknowledgment {
                by: format!("{device_id} (button)"),
                way,
                alarm_id: told.map(|told| told.alarm_id),
                occurrence: told.map(|told| told.occurrence),
                at: clock.now(),
            });
        }
    }

    fn enter(&self, key: &(TenantId, DeviceId), way: &str) {
        let known = Known { way: way.to_owned(), waiting: None, told: None };
        self.lock().sirens.entry(key.clone()).or_insert(known);
    }

    /// Waits for the answer to a command from now on; an earlier one is not waited for any more.
    fn expect(&self, key: &(TenantId, DeviceId), command_id: Uuid) -> oneshot::Receiver<()> {
        let (answer, answered) = oneshot::channel();
        if let Some(siren) = self.lock().sirens.get_mut(key) {
            siren.waiting = Some((command_id, answer));
        }
        answered
    }

    fn told(&self, key: &(TenantId, DeviceId), told: Told) {
        if let Some(siren) = self.lock().sirens.get_mut(key) {
            siren.told = Some(told);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Known {
    /// An answer to another command is none: the siren may have been away in between.
    fn answered(&mut self, command_id: Option<Uuid>) {
        if let Some((_, answer)) = self.waiting.take_if(|(waiting, _)| command_id == Some(*waiting)) {
            // Whoever waited may have given up in this moment.
            let _ = answer.send(());
        }
    }
}

/// The id that an answer repeats: in the payload of its envelope, or on top.
fn command_id(said: &Value) -> Option<Uuid> {
    let text = said["payload"]["command_id"].as_str().or_else(|| said["command_id"].as_str())?;
    text.parse().ok()
}

/// A siren.
pub struct Siren {
    name: String,
    key: (TenantId, DeviceId),
    topic: String,
    answer_max: Duration,
    desk: SirenDesk,
    post: Arc<dyn Post>,
    clock: Clock,
    /// One command at a time, so that each gets its answer, and what it was told last in earnest.
    sounds: tokio::sync::Mutex<bool>,
}

impl Siren {
    /// A way of this name; `None` when the settings hold what cannot be an id.
    #[must_use]
    pub fn new(
        name: &str,
        settings: &SirenSettings,
        desk: SirenDesk,
        post: Arc<dyn Post>,
        clock: Clock,
    ) -> Option<Self> {
        let place = Place::new(&settings.tenant, &settings.farm, &settings.barn)?;
        let device_id = DeviceId::new(&settings.device).ok()?;
        let topic = command_topic(&place, &device_id, COMMAND);
        let key = (place.tenant_id, device_id);
        desk.enter(&key, name);
        Some(Self {
            name: name.to_owned(),
            key,
            topic,
            answer_max: Duration::from_secs(settings.answer_seconds),
            desk,
            post,
            clock,
            sounds: tokio::sync::Mutex::new(false),
        })
    }

    /// Gives one command and waits for its answer.
    async fn command(&self, message: &Message, sounds: bool, trial: bool) -> Result<(), WayError> {
        let command_id = new_id();
        let answered = self.desk.expect(&self.key, command_id);
        if message.is_call() {
            let Message { alarm_id, occurrence, .. } = *message;
            self.desk.told(&self.key, Told { command_id, alarm_id, occurrence });
        }
        let command = json!({
            "command_id": command_id,
            "sounds": sounds,
            "seconds_max": trial.then_some(TRIAL.as_secs()),
            "issued_at": schema::wire::time::format(self.clock.now()),
            "kind": message.kind,
            "class": message.class,
            "rule": message.rule,
            "alarm_id": message.alarm_id,
            "occurrence": message.occurrence,
            "title": message.title,
        });
        self.post.publish(&self.topic, command.to_string().into()).map_err(|error| {
            let advice = "see /api/v1/ops/edge/status: the broker is away, or the engine has only begun";
            WayError::new(&self.name, Failure::Unreachable, error, advice)
        })?;
        match timeout(self.answer_max, answered).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) | Err(_) => Err(WayError::new(
                &self.name,
                Failure::Unanswered,
                format!("{} did not answer within {} s", self.key.1, self.answer_max.as_secs()),
                format!(
                    "go and look at the siren: its power, its network, its login; it listens at {}",
                    self.topic
                ),
            )),
        }
    }
}

#[async_trait]
impl Way for Siren {
    fn name(&self) -> &str {
        &self.name
    }

    fn kind(&self) -> &'static str {
        "siren"
    }

    fn patience(&self) -> Duration {
        self.answer_max * 2 + TRIAL + Duration::from_secs(1)
    }

    fn sounds(&self) -> bool {
        true
    }

    async fn tell(&self, message: &Message) -> Result<Receipt, WayError> {
        let mut standing = self.sounds.lock().await;
        if message.kind == MessageKind::Trial {
            let tried = self.command(message, true, true).await;
            sleep(TRIAL).await;
            // The topic keeps what stands, whether the siren has answered or not.
            let back = self.command(message, *standing, false).await;
            tried.and(back)?;
        } else {
            *standing = message.sounds;
            self.command(message, message.sounds, false).await?;
        }
        let confirmed_by = Some(self.key.1.to_string());
        let detail = format!("{} answered", self.key.1);
        Ok(Receipt { way: self.name.clone(), detail, confirmed_by, latency_ms: 0 })
    }

    /// A siren is only known to be there when it answers, and it only answers a command: the one that stands, once more.
    async fn reach(&self) -> Result<String, WayError> {
        let standing = self.sounds.lock().await;
        let message = Message { kind: MessageKind::Trial, ..Message::trial("") };
        self.command(&message, *standing, false).await?;
        Ok(format!("{} answers", self.key.1))
    }
}
