//! Records what goes through a broker, as a subscriber, into files that `replay` plays.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use tokio::sync::watch;

use schema::clock::{Clock, Timestamp};

use crate::connection::{Connection, Device};
use crate::listener::{self, Sink, Subscription};
use crate::mqtt::Version;
use crate::mqtt::listen::Delivered;
use crate::recording::writer::{Rotation, Writer};
use crate::recording::{FORMAT, Header, Message, VERSION};
use crate::redact::Redactor;
use crate::report::{self, Live};
use crate::traffic::Said;

/// What to record.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The broker, and the login of somebody who may listen.
    pub connection: Connection,
    /// Topics and QoS.
    pub subscription: Subscription,
    /// MQTT client id.
    pub client_id: String,
    /// The name of the files up to their number.
    pub stem: PathBuf,
    /// Whether the files are compressed.
    pub is_compressed: bool,
    /// When a file is full.
    pub rotation: Rotation,
    /// What replaces ids and values, if anything does.
    pub redactor: Option<Redactor>,
    /// How long to record; `None` until Ctrl-C.
    pub duration: Option<Duration>,
    /// Messages after which it ends.
    pub messages_max: Option<u64>,
}

/// Records until its time is over or `stop` becomes true, and ends the file in order.
///
/// # Errors
/// When the broker is not there at first or refuses, or the disk does not take the files.
pub async fn run(settings: Settings, stop: watch::Receiver<bool>) -> Result<()> {
    let clock = Clock::system();
    let header = Header {
        format: FORMAT.to_owned(),
        version: VERSION,
        started: clock.now(),
        broker: if settings.redactor.is_some() { String::new() } else { settings.connection.broker.clone() },
        mqtt: match settings.connection.version {
            Version::V311 => "3.1.1".to_owned(),
            Version::V5 => "5".to_owned(),
        },
        topics: match settings.redactor {
            Some(_) => Vec::new(),
            None => settings.subscription.filters.clone(),
        },
        redacted: settings.redactor.is_some(),
        part: 0,
    };
    let nobody = Device { tenant: String::new(), id: String::new() };
    let link = settings.connection.link(&nobody, settings.client_id.clone(), 1)?;
    settings.connection.probe().await?;
    let (started, started_at) = (Instant::now(), header.started);
    let writer = Writer::create(&settings.stem, settings.is_compressed, settings.rotation, header)?;
    let is_full = Arc::new(AtomicBool::new(false));
    let mut recorder = Recorder {
        writer,
        redactor: settings.redactor.clone(),
        started_at,
        started,
        ends_at: settings.duration.map(|duration| started + duration),
        messages_max: settings.messages_max,
        live: Live::start(settings.messages_max),
        messages: 0,
        bytes: 0,
        lost_at: None,
        gaps: 0,
        is_full: Arc::clone(&is_full),
    };
    let listened = listener::listen(&link, &settings.subscription, &mut recorder, stop).await;
    let Recorder { writer, live, messages, bytes, gaps, .. } = recorder;
    live.finish();
    let files = writer.finish()?;
    match listened {
        Err(error) if !is_full.load(Ordering::Relaxed) => return Err(error),
        Err(_) | Ok(()) => {}
    }
    let names: Vec<_> = files.iter().map(|file| file.display().to_string()).collect();
    report::say(format!("recorded {messages} messages, {bytes} bytes of payload, {gaps} gaps"));
    report::say(names.join("\n"));
    Ok(())
}

struct Recorder {
    writer: Writer,
    redactor: Option<Redactor>,
    started_at: Timestamp,
    started: Instant,
    ends_at: Option<Instant>,
    messages_max: Option<u64>,
    live: Live,
    messages: u64,
    bytes: u64,
    lost_at: Option<Timestamp>,
    gaps: u64,
    /// Set when what ends the recording is no failure.
    is_full: Arc<AtomicBool>,
}

impl Recorder {
    /// The time of now, counted by a clock that does not jump.
    fn now(&self) -> Timestamp {
        self.started_at + chrono::Duration::from_std(self.started.elapsed()).unwrap_or_default()
    }

    fn end(&self) -> Result<()> {
        self.is_full.store(true, Ordering::Relaxed);
        bail!("the recording is as long as it shall be")
    }
}

impl Sink for Recorder {
    fn take(&mut self, delivered: Delivered) -> Result<()> {
        let Delivered { topic, payload, qos, is_retained, properties, .. } = delivered;
        self.bytes += payload.len() as u64;
        let client = Said::of(&topic, &payload).sender().map(|sender| sender.id);
        let message = Message { at: self.now(), topic, qos, is_retained, payload, properties, client };
        let message = match &self.redactor {
            Some(redactor) => redactor.redact(message),
            None => message,
        };
        self.writer.write(&message).context("write the recording")?;
        self.messages += 1;
        if self.messages_max.is_some_and(|max| self.messages >= max) {
            return self.end();
        }
        Ok(())
    }

    fn tick(&mut self) -> Result<()> {
        self.writer.flush_when_due()?;
        let rate = report::per_second(self.messages, self.started.elapsed());
        let file = self.writer.files().last().map(|file| file.display().to_string()).unwrap_or_default();
        self.live.show(self.messages, &format!("recorded {}, {rate:.0}/s, {file}", self.messages));
        if self.ends_at.is_some_and(|ends_at| Instant::now() >= ends_at) {
            return self.end();
        }
        Ok(())
    }

    fn subscribed(&mut self) {
        let Some(lost_at) = self.lost_at.take() else {
            self.live.keep("connected");
            return;
        };
        self.gaps += 1;
        let now = self.now();
        self.live.keep(&format!("connected again after {} ms", (now - lost_at).num_milliseconds()));
        // A disk that does not take the gap does not take the next message either, and that is told.
        drop(self.writer.write_gap(lost_at, now));
    }

    fn lost(&mut self, error: &anyhow::Error) {
        self.lost_at = Some(self.now());
        self.live.keep(&format!("connection lost: {error:#}"));
    }
}
