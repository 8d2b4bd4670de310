//! The ways an alarm leaves the barn: what is told, to what, and what comes back.
//!
//! Whoever owns the alarms decides *that* something is told, *when* and *by which ways*; a way only carries it. It needs no
//! database: what rings must ring while everything else is broken. Nothing here retries for longer than the telling lasts;
//! the next telling is the owner's.

pub mod email;
pub mod line;
pub mod ntfy;
pub(in crate::alarm) mod post;
pub mod program;
pub mod relay;
mod secret;
pub mod siren;
pub mod webhook;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use schema::clock::Timestamp;
use schema::metrics;
use serde::{Deserialize, Serialize};
use tokio::time::{Instant, timeout};
use uuid::Uuid;

/// The longest that any way may take, its own tries included: less than a call over HTTP may.
pub const TELL_MAX: Duration = Duration::from_secs(45);
/// The longest that the question whether a way can be reached may take.
pub const REACH_MAX: Duration = Duration::from_secs(10);
/// Bytes of what a way answered that are kept.
pub const DETAIL_BYTES_MAX: usize = 2048;

/// How bad an alarm is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Class {
    /// To be looked at in passing.
    Low,
    /// To be dealt with today.
    High,
    /// Birds may die within the hour.
    Critical,
}

impl Class {
    /// Its name in messages and settings.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Low => "low",
            Self::High => "high",
            Self::Critical => "critical",
        }
    }

    /// Reads it.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        [Self::Low, Self::High, Self::Critical].into_iter().find(|class| class.as_str() == text)
    }
}

/// What a message says of its alarm.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MessageKind {
    /// It rings, and nobody has acknowledged it yet.
    Raised,
    /// It was acknowledged and stands all the same.
    Reminder,
    /// Somebody acknowledged it: what sounds falls silent.
    Acknowledged,
    /// It is over.
    Ended,
    /// An exercise of the whole chain, which wants an acknowledgment like a real one.
    Drill,
    /// One way is tried out, and nothing is expected of anybody.
    Trial,
}

impl MessageKind {
    /// Its name in messages.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Raised => "raised",
            Self::Reminder => "reminder",
            Self::Acknowledged => "acknowledged",
            Self::Ended => "ended",
            Self::Drill => "drill",
            Self::Trial => "trial",
        }
    }
}

/// The languages of the people in a barn.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Language {
    /// English.
    #[default]
    En,
    /// Thai.
    Th,
}

/// The same words in both languages.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Words {
    /// In English.
    pub en: String,
    /// In Thai.
    pub th: String,
}

impl Words {
    /// Words of two languages.
    pub fn new(en: impl Into<String>, th: impl Into<String>) -> Self {
        Self { en: en.into(), th: th.into() }
    }

    /// The words in one language; the English ones where the others are missing.
    #[must_use]
    pub fn of(&self, language: Language) -> &str {
        match language {
            Language::Th if !self.th.is_empty() => &self.th,
            Language::En | Language::Th => &self.en,
        }
    }
}

/// One telling, complete: whoever gets it needs to ask nobody.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Message {
    /// Which alarm.
    pub alarm_id: Uuid,
    /// Which of its occurrences, from 1.
    pub occurrence: u64,
    /// Which telling of this occurrence, from 0: the same number is the same telling, also after a crash.
    pub telling: u32,
    /// What is said of it.
    pub kind: MessageKind,
    /// How bad it is.
    pub class: Class,
    /// The name of its rule, such as `house_hot`.
    pub rule: String,
    /// The barn, as people call it.
    pub barn: String,
    /// The place in the barn, or the device; `None` for the whole of it.
    pub place: Option<String>,
    /// The value that raised it.
    pub value: Option<f64>,
    /// The limit it went beyond.
    pub limit: Option<f64>,
    /// The unit of both, such as `°C`.
    pub unit: Option<String>,
    /// Since when it stands.
    pub since: Timestamp,
    /// What is wrong, in a few words.
    pub title: Words,
    /// What is wrong, in a sentence or two.
    pub text: Words,
    /// What to do first.
    pub first_action: Words,
    /// Whether what makes noise or light is to do so from now on. Sirens and relays follow this alone, so the owner says yes
    /// as long as *any* alarm that was told by this way waits for somebody, and no with the last one.
    pub sounds: bool,
}

impl Message {
    /// The message by which a way is tried out.
    #[must_use]
    pub fn trial(barn: &str) -> Self {
        Self {
            alarm_id: Uuid::nil(),
            occurrence: 1,
            telling: 0,
            kind: MessageKind::Trial,
            class: Class::Critical,
            rule: "trial".to_owned(),
            barn: barn.to_owned(),
            place: None,
            value: None,
            limit: None,
            unit: None,
            since: Timestamp::UNIX_EPOCH,
            title: Words::new("this way out is tried", "กำลังทดสอบช่องทางแจ้งเตือน"),
            text: Words::new(
                "Somebody tries whether alarms reach you. All is well.",
                "กำลังทดสอบว่าสัญญาณเตือนมาถึงคุณหรือไม่ ทุกอย่างปกติดี",
            ),
            first_action: Words::new("There is nothing to do.", "ไม่ต้องทำอะไร"),
            sounds: false,
        }
    }

    /// The mark before the title of what is not meant in earnest, or is not the first word.
    #[must_use]
    pub fn mark(&self, language: Language) -> &'static str {
        match (self.kind, language) {
            (MessageKind::Raised, _) => "",
            (MessageKind::Reminder, Language::En) => "STILL: ",
            (MessageKind::Reminder, Language::Th) => "ยังคงอยู่: ",
            (MessageKind::Acknowledged, Language::En) => "ACKNOWLEDGED: ",
            (MessageKind::Acknowledged, Language::Th) => "รับทราบแล้ว: ",
            (MessageKind::Ended, Language::En) => "OVER: ",
            (MessageKind::Ended, Language::Th) => "สิ้นสุดแล้ว: ",
            (MessageKind::Drill, Language::En) => "DRILL: ",
            (MessageKind::Drill, Language::Th) => "ซ้อม: ",
            (MessageKind::Trial, Language::En) => "TEST: ",
            (MessageKind::Trial, Language::Th) => "ทดสอบ: ",
        }
    }

    /// Barn, mark and title in one line.
    #[must_use]
    pub fn headline(&self, language: Language) -> String {
        format!("{}{}: {}", self.mark(language), self.barn, self.title.of(language))
    }

    /// Everything a person needs, in lines.
    #[must_use]
    pub fn body(&self, language: Language) -> String {
        let mut lines = vec![self.text.of(language).to_owned()];
        lines.extend(self.place.clone());
        lines.push(self.first_action.of(language).to_owned());
        lines.retain(|line| !line.is_empty());
        lines.join("\n")
    }

    /// Whether somebody is to do something.
    #[must_use]
    pub fn is_call(&self) -> bool {
        match self.kind {
            MessageKind::Raised | MessageKind::Reminder | MessageKind::Drill => true,
            MessageKind::Acknowledged | MessageKind::Ended | MessageKind::Trial => false,
        }
    }
}

/// What a way gives back when it took a message.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Receipt {
    /// The name of the way.
    pub way: String,
    /// What the other side said, at most [`DETAIL_BYTES_MAX`] bytes.
    pub detail: String,
    /// Who confirmed that it arrived, where the way can tell: the siren's device id, for instance.
    pub confirmed_by: Option<String>,
    /// From the order to the confirmation.
    pub latency_ms: u64,
}

/// Why a message did not get out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Failure {
    /// There is no way of this name.
    Unknown,
    /// Nobody answers at its address.
    Unreachable,
    /// It took longer than it may.
    TimedOut,
    /// The other side answered no.
    Refused,
    /// It was sent, and the device did not say that it acts: `siren broken`.
    Unanswered,
    /// A file, a program or a line of this machine cannot be used.
    Broken,
}

impl Failure {
    /// Its name in metrics and answers.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::Unreachable => "unreachable",
            Self::TimedOut => "timed_out",
            Self::Refused => "refused",
            Self::Unanswered => "unanswered",
            Self::Broken => "broken",
        }
    }
}

/// A message that did not get out, and what an operator must do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, thiserror::Error)]
#[error("way {way}: {what}; {advice}")]
pub struct WayError {
    /// The name of the way.
    pub way: String,
    /// The kind of failure.
    pub failure: Failure,
    /// What happened, at most [`DETAIL_BYTES_MAX`] bytes; never a secret.
    pub what: String,
    /// What to do about it.
    pub advice: String,
}

impl WayError {
    /// A failure of a way.
    pub fn new(way: &str, failure: Failure, what: impl fmt::Display, advice: impl Into<String>) -> Self {
        Self { way: way.to_owned(), failure, what: bounded(&what.to_string()), advice: advice.into() }
    }
}

/// Text as far as it is kept.
#[must_use]
pub fn bounded(text: &str) -> String {
    let end = text.floor_char_boundary(DETAIL_BYTES_MAX);
    text[..end].trim().to_owned()
}

/// One way out of the barn.
#[async_trait]
pub trait Way: Send + Sync {
    /// Its name in the settings.
    fn name(&self) -> &str;

    /// What it is, such as `mqtt`, `sms` or `relay`.
    fn kind(&self) -> &'static str;

    /// How long it may take, its tries included; at most [`TELL_MAX`].
    fn patience(&self) -> Duration;

    /// Whether it makes noise or light until it is told to stop. Only such a way is told that an alarm was acknowledged.
    fn sounds(&self) -> bool {
        false
    }

    /// Carries a message. The same telling twice does no harm.
    ///
    /// # Errors
    /// When it did not get out, with what to do about it.
    async fn tell(&self, message: &Message) -> Result<Receipt, WayError>;

    /// Whether it could be told now, in words, without anybody hearing of it.
    ///
    /// # Errors
    /// When it could not, with what to do about it.
    async fn reach(&self) -> Result<String, WayError>;
}

/// Somebody says by a way that he knows: a button at a siren, a message of a device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Acknowledgment {
    /// The way it came by.
    pub way: String,
    /// The alarm; `None` for everything that was told by this way and waits.
    pub alarm_id: Option<Uuid>,
    /// The occurrence, where it was said: an old button press must not acknowledge a new occurrence.
    pub occurrence: Option<u64>,
    /// Who, as far as the way can tell.
    pub by: String,
    /// When it came in.
    pub at: Timestamp,
}

/// Where acknowledgments go; never waits.
pub type Acknowledge = Arc<dyn Fn(Acknowledgment) + Send + Sync>;

/// All ways of this barn. Cloning shares them.
#[derive(Clone, Default)]
pub struct Ways {
    ways: Arc<BTreeMap<String, Arc<dyn Way>>>,
}

impl Ways {
    /// These ways, by their names.
    #[must_use]
    pub fn new(ways: impl IntoIterator<Item = Arc<dyn Way>>) -> Self {
        let named = ways.into_iter().map(|way| (way.name().to_owned(), way));
        Self { ways: Arc::new(named.collect()) }
    }

    /// Every way, in the order of the names.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<dyn Way>> {
        self.ways.values()
    }

    /// The way of this name.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&Arc<dyn Way>> {
        self.ways.get(name)
    }

    /// Tells one way, within its patience, and counts what became of it.
    ///
    /// # Errors
    /// When there is no such way, or the message did not get out.
    pub async fn tell(&self, name: &str, message: &Message) -> Result<Receipt, WayError> {
        let Some(way) = self.get(name) else { return Err(self.unknown(name)) };
        let patience = way.patience().min(TELL_MAX);
        let began_at = Instant::now();
        let told = timeout(patience, way.tell(message)).await;
        let told = told.unwrap_or_else(|_| Err(too_slow(name, patience)));
        let result = told.as_ref().map_or_else(|error| error.failure.as_str(), |_| "told");
        metrics::alarm_tellings_total(way.kind(), result).increment(1);
        let told = told.map(|receipt| {
            let latency_ms = u64::try_from(began_at.elapsed().as_millis()).unwrap_or(u64::MAX);
            Receipt { latency_ms, detail: bounded(&receipt.detail), ..receipt }
        });
        match &told {
            Ok(receipt) => tracing::info!(way = name, latency_ms = receipt.latency_ms, "an alarm was told"),
            Err(error) => tracing::error!(way = name, %error, "an alarm could not be told by this way"),
        }
        told
    }

    /// Whether one way could be told now, within a bounded time.
    ///
    /// # Errors
    /// When there is no such way, or it could not.
    pub async fn reach(&self, name: &str) -> Result<String, WayError> {
        let Some(way) = self.get(name) else { return Err(self.unknown(name)) };
        let reached = timeout(REACH_MAX, way.reach()).await;
        reached.unwrap_or_else(|_| Err(too_slow(name, REACH_MAX)))
    }

    fn unknown(&self, name: &str) -> WayError {
        let known: Vec<&str> = self.ways.keys().map(String::as_str).collect();
        let advice = if known.is_empty() {
            "name one below alarms.ways in the configuration".to_owned()
        } else {
            format!("the ways of this barn are {}", known.join(", "))
        };
        WayError::new(name, Failure::Unknown, "there is no way of this name", advice)
    }
}

fn too_slow(name: &str, patience: Duration) -> WayError {
    let what = format!("nothing came back within {} s", patience.as_secs());
    WayError::new(name, Failure::TimedOut, what, "see that what it leads to is switched on and connected")
}

#[cfg(test)]
pub(crate) mod doubles {
    //! A message of the tests.

    use super::*;

    pub(crate) fn message(kind: MessageKind) -> Message {
        Message {
            kind,
            rule: "house_hot".to_owned(),
            place: Some("north".to_owned()),
            value: Some(35.2),
            limit: Some(35.0),
            unit: Some("°C".to_owned()),
            title: Words::new("too hot", "ร้อนเกินไป"),
            text: Words::new("35.2 °C, the limit is 35 °C.", ""),
            first_action: Words::new("Look at the fans.", "ตรวจพัดลม"),
            sounds: kind != MessageKind::Trial,
            ..Message::trial("Barn 1")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::doubles::message;
    use super::*;

    struct Hanging;

    #[async_trait]
    impl Way for Hanging {
        fn name(&self) -> &str {
            "hanging"
        }
        fn kind(&self) -> &'static str {
            "webhook"
        }
        fn patience(&self) -> Duration {
            Duration::from_secs(5)
        }
        async fn tell(&self, _: &Message) -> Result<Receipt, WayError> {
            std::future::pending().await
        }
        async fn reach(&self) -> Result<String, WayError> {
            std::future::pending().await
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_way_that_hangs_is_given_up_in_its_time() {
        let ways = Ways::new([Arc::new(Hanging) as Arc<dyn Way>]);
        let began_at = Instant::now();
        let error = ways.tell("hanging", &message(MessageKind::Raised)).await.unwrap_err();
        assert_eq!((error.failure, began_at.elapsed()), (Failure::TimedOut, Duration::from_secs(5)));
        assert_eq!(ways.reach("hanging").await.unwrap_err().failure, Failure::TimedOut);
        let error = ways.tell("telegram", &message(MessageKind::Raised)).await.unwrap_err();
        assert_eq!(error.failure, Failure::Unknown);
        assert!(error.advice.contains("hanging"), "{error}");
    }

    #[test]
    fn a_message_speaks_both_languages_and_says_what_it_is() {
        let raised = message(MessageKind::Raised);
        assert_eq!(raised.headline(Language::En), "Barn 1: too hot");
        assert_eq!(raised.headline(Language::Th), "Barn 1: ร้อนเกินไป");
        assert_eq!(raised.body(Language::Th), "35.2 °C, the limit is 35 °C.\nnorth\nตรวจพัดลม");
        let drill = Message { kind: MessageKind::Drill, ..raised };
        assert_eq!(drill.headline(Language::En), "DRILL: Barn 1: too hot");
    }

    #[test]
    fn what_is_kept_of_an_answer_is_bounded_between_letters() {
        let text = "ก".repeat(DETAIL_BYTES_MAX);
        assert!(bounded(&text).len() <= DETAIL_BYTES_MAX);
    }
}
