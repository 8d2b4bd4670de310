//! A subscriber: takes what a broker sends, acknowledges it once it was dealt with, and connects again when it must.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use bytes::{Buf, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::watch;

use crate::mqtt::listen::{self, Delivered, Event};
use crate::mqtt::{self, refusal};
use crate::publisher::Link;
use crate::stream::Stream;

/// Longest wait before the next try to reconnect.
const RECONNECT_WAIT_MAX: Duration = Duration::from_secs(5);
/// First wait before a reconnect.
const RECONNECT_WAIT_MIN: Duration = Duration::from_millis(100);
/// How long a broker may take to let a listener in.
const OPEN_WAIT_MAX: Duration = Duration::from_secs(30);
/// How often a listener with nothing to hear is called.
const TICK: Duration = Duration::from_millis(250);

/// What to listen to.
#[derive(Clone, Debug)]
pub struct Subscription {
    /// Topic filters.
    pub filters: Vec<String>,
    /// QoS asked for.
    pub qos: u8,
    /// Whether messages kept from before are wanted; only MQTT 5 can do without.
    pub wants_retained: bool,
}

/// Who takes the messages.
pub trait Sink: Send {
    /// A message came. It is acknowledged after this returns.
    ///
    /// # Errors
    /// When it cannot be dealt with; the listener then ends.
    fn take(&mut self, delivered: Delivered) -> Result<()>;

    /// Called several times a second.
    ///
    /// # Errors
    /// When the listener shall end.
    fn tick(&mut self) -> Result<()> {
        Ok(())
    }

    /// The subscription stands, again if this is not the first time.
    fn subscribed(&mut self) {}

    /// The connection is gone; it is opened again.
    fn lost(&mut self, _error: &anyhow::Error) {}
}

/// Listens until `stop` becomes true. A lost connection is opened again for ever; only the first may fail.
///
/// # Errors
/// When the first connect fails, the broker refuses the subscription, or the sink fails.
pub async fn listen<S: Sink>(
    link: &Link,
    subscription: &Subscription,
    sink: &mut S,
    mut stop: watch::Receiver<bool>,
) -> Result<()> {
    let mut stream = open(link, subscription).await?;
    loop {
        let mut session = Session { link, stream, inbox: BytesMut::new() };
        match session.serve(sink, &mut stop).await {
            Err(End::Lost(error)) => sink.lost(&error),
            Err(End::Failed(error)) => return Err(error),
            Ok(()) => return Ok(()),
        }
        let mut wait = RECONNECT_WAIT_MIN;
        stream = loop {
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                _ = stop.wait_for(|is_stopped| *is_stopped) => return Ok(()),
            }
            sink.tick()?;
            match open(link, subscription).await {
                Ok(stream) => break stream,
                Err(_) => wait = (wait * 2).min(RECONNECT_WAIT_MAX),
            }
        };
    }
}

/// Connects, logs in and subscribes.
async fn open(link: &Link, subscription: &Subscription) -> Result<Stream> {
    let opening = async {
        let mut stream = Stream::open(&link.broker, link.tls.as_ref()).await?;
        let welcome = mqtt::introduce(&mut stream, &link.login).await;
        welcome.with_context(|| format!("log in at {} as {}", link.broker, link.login.client_id))?;
        let version = link.login.version;
        let Subscription { filters, qos, wants_retained } = subscription;
        let packet = listen::subscribe(version, filters, *qos, *wants_retained)?;
        stream.write_all(&packet).await.context("subscribe")?;
        stream.flush().await.context("subscribe")?;
        Ok::<_, anyhow::Error>(stream)
    };
    tokio::time::timeout(OPEN_WAIT_MAX, opening)
        .await
        .with_context(|| format!("{} did not answer in time", link.broker))?
}

/// Why a connection is no longer served.
enum End {
    Lost(anyhow::Error),
    Failed(anyhow::Error),
}

struct Session<'a> {
    link: &'a Link,
    stream: Stream,
    inbox: BytesMut,
}

impl Session<'_> {
    async fn serve<S: Sink>(&mut self, sink: &mut S, stop: &mut watch::Receiver<bool>) -> Result<(), End> {
        let keepalive = Duration::from_secs(u64::from(self.link.login.keepalive_seconds.max(2)));
        let mut heard_at = Instant::now();
        let mut said_at = Instant::now();
        let mut out = Vec::new();
        loop {
            while let Some(event) = self.next_event()? {
                answer(event, sink, &mut out)?;
            }
            if said_at.elapsed() >= keepalive / 2 {
                out.extend(mqtt::PINGREQ);
            }
            if !out.is_empty() {
                said_at = Instant::now();
                self.write(&out).await.map_err(End::Lost)?;
                out.clear();
            }
            if heard_at.elapsed() > keepalive * 2 {
                return Err(End::Lost(anyhow::anyhow!("nothing was heard for two keepalives")));
            }
            tokio::select! {
                got = self.stream.read_buf(&mut self.inbox) => match got {
                    Ok(0) => return Err(End::Lost(anyhow::anyhow!("the broker closed the connection"))),
                    Ok(_) => heard_at = Instant::now(),
                    Err(error) => return Err(End::Lost(error.into())),
                },
                () = tokio::time::sleep(TICK) => sink.tick().map_err(End::Failed)?,
                _ = stop.wait_for(|is_stopped| *is_stopped) => break,
            }
        }
        // A broker that is gone needs no good-bye.
        drop(self.write(&mqtt::DISCONNECT).await);
        Ok(())
    }

    fn next_event(&mut self) -> Result<Option<Event>, End> {
        match listen::take_event(self.link.login.version, &self.inbox) {
            Ok(Some((event, bytes))) => {
                self.inbox.advance(bytes);
                Ok(Some(event))
            }
            Ok(None) => Ok(None),
            Err(error) => Err(End::Lost(error)),
        }
    }

    async fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.stream.write_all(bytes).await?;
        self.stream.flush().await?;
        Ok(())
    }
}

/// Deals with one packet; at QoS 2 a message is taken when it arrives, and its release only answered.
fn answer<S: Sink>(event: Event, sink: &mut S, out: &mut Vec<u8>) -> Result<(), End> {
    match event {
        Event::Delivered(delivered) => {
            let mut answer = Vec::new();
            listen::put_answer(&mut answer, &delivered);
            sink.take(delivered).map_err(End::Failed)?;
            out.extend(answer);
        }
        Event::Release(packet_id) => listen::put_completion(out, packet_id),
        Event::Subscribed(codes) => {
            check(&codes).map_err(End::Failed)?;
            sink.subscribed();
        }
        Event::PingResp => {}
    }
    Ok(())
}

fn check(codes: &[u8]) -> Result<()> {
    match codes.iter().find(|code| **code >= 0x80) {
        Some(code) => bail!("the broker refused a subscription with code {code:#04x}: {}", refusal(*code)),
        None => Ok(()),
    }
}
