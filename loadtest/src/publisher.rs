//! A publisher that keeps a window of messages open, times every acknowledgement and resends what a lost connection took.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use bytes::{Buf, BytesMut};
use hdrhistogram::Histogram;
use tokio::io::{AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::{Notify, watch};

use crate::mqtt::{self, Heard, Login, Publish, Refused, Welcome};
use crate::stream::{Stream, Tls};

/// Bytes encoded ahead of the socket.
const OUT_BYTES_MAX: usize = 64 * 1024;
/// Longest wait before the next try to reconnect.
const RECONNECT_WAIT_MAX: Duration = Duration::from_secs(5);
/// First wait before a reconnect.
const RECONNECT_WAIT_MIN: Duration = Duration::from_millis(100);
/// How long a broker may take to let a device in.
const OPEN_WAIT_MAX: Duration = Duration::from_secs(60);
/// How long outstanding PUBACKs are waited for after a stop.
const DRAIN_WAIT_MAX: Duration = Duration::from_secs(5);
/// Longest latency the histogram can tell apart: ten minutes.
const LATENCY_MICROS_MAX: u64 = 600_000_000;

/// What a source wants next.
#[derive(Debug)]
pub enum Turn {
    /// Publish this now; the tag comes back with the acknowledgement.
    Publish(u64, Publish),
    /// Nothing until then.
    WaitUntil(Instant),
    /// The connection breaks without a good-bye, and is opened again.
    Drop,
    /// Nothing more, ever.
    Done,
}

/// Where a publisher's messages come from.
pub trait Source: Send {
    /// The next step; called only while the window has room.
    fn turn(&mut self, now: Instant) -> Turn;

    /// These messages were acknowledged.
    ///
    /// # Errors
    /// When the acknowledgement cannot be written down; the publisher then ends.
    fn acknowledged(&mut self, tags: &[u64]) -> Result<()>;

    /// The broker refused this message for good, with a reason code of MQTT 5.
    ///
    /// # Errors
    /// When the refusal cannot be written down; the publisher then ends.
    fn refused(&mut self, _tag: u64, _code: u8) -> Result<()> {
        Ok(())
    }

    /// These messages were sent and not answered when the publisher ended.
    ///
    /// # Errors
    /// When that cannot be written down.
    fn left_open(&mut self, _tags: &[u64]) -> Result<()> {
        Ok(())
    }

    /// A connection stands, opened in so much time.
    fn connected(&mut self, _took: Duration) {}

    /// The broker refused the login. True gives up: [`publish_patiently`] then returns.
    fn gives_up(&mut self, _refused: Refused) -> bool {
        false
    }

    /// Told when [`Source::turn`] may answer something else than before, earlier than it said.
    fn wake(&self) -> Option<Arc<Notify>> {
        None
    }

    /// Published first on every new connection.
    fn hello(&mut self) -> Option<Publish> {
        None
    }

    /// Published last before a clean good-bye.
    fn farewell(&mut self) -> Option<Publish> {
        None
    }
}

/// Where to connect and how much to keep in flight.
#[derive(Clone, Debug)]
pub struct Link {
    /// `host:port`, or a URL as [`Stream::open`] takes it.
    pub broker: String,
    /// How to encrypt.
    pub tls: Option<Tls>,
    /// Identity.
    pub login: Login,
    /// Unacknowledged messages at most.
    pub window: usize,
}

impl Link {
    /// Connects and logs in.
    async fn open(&self) -> Result<(Stream, Welcome)> {
        let opening = async {
            let mut stream = Stream::open(&self.broker, self.tls.as_ref()).await?;
            let welcome = mqtt::introduce(&mut stream, &self.login)
                .await
                .with_context(|| format!("log in at {} as {}", self.broker, self.login.client_id))?;
            Ok((stream, welcome))
        };
        tokio::time::timeout(OPEN_WAIT_MAX, opening)
            .await
            .with_context(|| format!("{} did not answer in time", self.broker))?
    }
}

/// What many publishers count together.
#[derive(Debug)]
pub struct Meter {
    /// Messages handed to a socket for the first time.
    pub published: AtomicU64,
    /// PUBACKs that belong to a message.
    pub acknowledged: AtomicU64,
    /// Messages sent at QoS 0, which nobody acknowledges.
    pub fire_and_forget: AtomicU64,
    /// Messages sent again after a reconnect.
    pub resent: AtomicU64,
    /// Connections lost and opened again.
    pub reconnects: AtomicU64,
    /// Messages that the broker refused for good.
    pub refused: AtomicU64,
    /// Logins that were refused because the broker could not do its work.
    pub unavailable: AtomicU64,
    /// PUBACKs nobody waited for.
    pub stray_acks: AtomicU64,
    latency_micros: Mutex<Histogram<u64>>,
    last_error: Mutex<Option<String>>,
}

impl Default for Meter {
    fn default() -> Self {
        let latency = Histogram::new_with_bounds(1, LATENCY_MICROS_MAX, 3).expect("the bounds are in order");
        Self {
            published: AtomicU64::new(0),
            acknowledged: AtomicU64::new(0),
            fire_and_forget: AtomicU64::new(0),
            resent: AtomicU64::new(0),
            reconnects: AtomicU64::new(0),
            refused: AtomicU64::new(0),
            unavailable: AtomicU64::new(0),
            stray_acks: AtomicU64::new(0),
            latency_micros: Mutex::new(latency),
            last_error: Mutex::new(None),
        }
    }
}

impl Meter {
    /// Messages acknowledged so far.
    pub fn acknowledged(&self) -> u64 {
        self.acknowledged.load(Ordering::Relaxed)
    }

    /// Messages published so far, QoS 0 included.
    pub fn published(&self) -> u64 {
        self.published.load(Ordering::Relaxed)
    }

    /// Messages sent at QoS 0 so far.
    pub fn fire_and_forget(&self) -> u64 {
        self.fire_and_forget.load(Ordering::Relaxed)
    }

    /// Milliseconds from publish to PUBACK at this quantile (0 to 1).
    pub fn latency_ms(&self, quantile: f64) -> f64 {
        let latency = self.latency_micros.lock().expect("no recorder panics");
        #[expect(clippy::cast_precision_loss, reason = "latencies stay far below 2^52 microseconds")]
        let micros = latency.value_at_quantile(quantile) as f64;
        micros / 1000.0
    }

    /// Records how long a message waited for its PUBACK.
    pub(crate) fn record(&self, latency: Duration) {
        let micros = u64::try_from(latency.as_micros()).unwrap_or(LATENCY_MICROS_MAX);
        self.latency_micros.lock().expect("no recorder panics").saturating_record(micros);
    }

    /// Why the last connection was lost, once.
    pub fn take_error(&self) -> Option<String> {
        self.last_error.lock().expect("no writer panics").take()
    }

    /// Forgets the latencies recorded so far.
    pub fn reset_latency(&self) {
        self.latency_micros.lock().expect("no recorder panics").reset();
    }
}

fn count(counter: &AtomicU64, n: usize) {
    counter.fetch_add(n as u64, Ordering::Relaxed);
}

/// Publishes everything of `source` and waits for every answer. Returns early, after a bounded drain, when `stop`
/// becomes true. A lost connection is opened again for ever; only the first connect may fail.
///
/// # Errors
/// When the first connect fails, or the source cannot write down an acknowledgement.
pub async fn publish_all<S: Source>(
    link: &Link,
    source: &mut S,
    meter: &Meter,
    stop: watch::Receiver<bool>,
) -> Result<()> {
    let opening = Instant::now();
    let (stream, welcome) = link.open().await?;
    let mut publisher = Publisher::new(link, source, meter, stop);
    publisher.enter(welcome, opening);
    publisher.publish(stream).await
}

/// As [`publish_all`], but a broker that is away at first is waited for, too. Returns when the broker refuses a login
/// and the source gives up.
///
/// # Errors
/// When the source cannot write down what became of a message.
pub async fn publish_patiently<S: Source>(
    link: &Link,
    source: &mut S,
    meter: &Meter,
    stop: watch::Receiver<bool>,
) -> Result<()> {
    let mut publisher = Publisher::new(link, source, meter, stop);
    match publisher.open_again(Duration::ZERO).await {
        Some(stream) => publisher.publish(stream).await,
        None => Ok(()),
    }
}

/// Why a connection is no longer served.
enum End {
    /// The connection broke: open it again.
    Lost(anyhow::Error),
    /// The source broke: give up.
    Failed(anyhow::Error),
}

impl From<std::io::Error> for End {
    fn from(error: std::io::Error) -> Self {
        Self::Lost(error.into())
    }
}

/// A message that waits for its PUBACK, or for the end of its exchange at QoS 2.
struct Flight {
    /// `None` for a hello or farewell, which is nobody's business but the broker's.
    tag: Option<u64>,
    packet_id: u16,
    publish: Publish,
    sent_at: Instant,
    /// The broker has it, at QoS 2: it must not be sent again.
    is_received: bool,
}

struct Publisher<'a, S> {
    link: &'a Link,
    source: &'a mut S,
    meter: &'a Meter,
    stop: watch::Receiver<bool>,
    flights: VecDeque<Flight>,
    last_id: u16,
    /// Scratch space for the tags of one read.
    tags: Vec<u64>,
    is_source_done: bool,
    has_said_farewell: bool,
    /// When a stopped publisher leaves, acknowledged or not.
    leave_at: Option<Instant>,
    /// The broker still knows what it received on the connection before.
    is_session_known: bool,
    /// Unacknowledged messages at most: the broker may want fewer than the link.
    window: usize,
    /// The source wants the connection to break.
    breaks: bool,
    /// Packet ids that the broker received, to be released.
    to_release: Vec<u16>,
}

impl<'a, S: Source> Publisher<'a, S> {
    fn new(link: &'a Link, source: &'a mut S, meter: &'a Meter, stop: watch::Receiver<bool>) -> Self {
        Self {
            link,
            source,
            meter,
            stop,
            flights: VecDeque::new(),
            last_id: 0,
            tags: Vec::new(),
            is_source_done: false,
            has_said_farewell: false,
            leave_at: None,
            is_session_known: false,
            window: link.window,
            breaks: false,
            to_release: Vec::new(),
        }
    }

    async fn publish(&mut self, mut stream: Stream) -> Result<()> {
        loop {
            let lost = match self.serve(&mut stream).await {
                Err(End::Lost(error)) => error,
                Err(End::Failed(error)) => return Err(error),
                Ok(()) => break,
            };
            self.note(&lost);
            match self.open_again(RECONNECT_WAIT_MIN).await {
                Some(next) => stream = next,
                None => break,
            }
            count(&self.meter.reconnects, 1);
        }
        let open: Vec<u64> = self.flights.iter().filter_map(|flight| flight.tag).collect();
        self.source.left_open(&open).context("write down what is not answered")
    }

    fn note(&self, error: &anyhow::Error) {
        *self.meter.last_error.lock().expect("no writer panics") = Some(format!("{error:#}"));
    }

    /// Opens a connection, however often that takes; `None` when it is to stop, or the source gives up.
    async fn open_again(&mut self, mut wait: Duration) -> Option<Stream> {
        loop {
            if *self.stop.borrow() {
                return None;
            }
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                _ = self.stop.changed() => return None,
            }
            let opening = Instant::now();
            let opened = tokio::select! {
                opened = self.link.open() => opened,
                _ = self.stop.changed() => return None,
            };
            match opened {
                Ok((stream, welcome)) => {
                    self.enter(welcome, opening);
                    return Some(stream);
                }
                Err(error) => {
                    self.note(&error);
                    match error.downcast_ref::<Refused>() {
                        Some(refused) if refused.is_unavailable() => count(&self.meter.unavailable, 1),
                        Some(refused) if self.source.gives_up(*refused) => return None,
                        _ => {}
                    }
                }
            }
            wait = (wait * 2).clamp(RECONNECT_WAIT_MIN, RECONNECT_WAIT_MAX);
        }
    }

    fn enter(&mut self, welcome: Welcome, opening: Instant) {
        self.is_session_known = welcome.is_session_known;
        self.window = self.link.window.min(usize::from(welcome.receive_max));
        self.source.connected(opening.elapsed());
    }

    async fn serve(&mut self, stream: &mut Stream) -> Result<(), End> {
        let keepalive = Duration::from_secs(u64::from(self.link.login.keepalive_seconds.max(1)));
        let (mut reader, mut writer) = tokio::io::split(stream);
        let mut inbox = BytesMut::with_capacity(256);
        let mut out = Vec::new();
        let wake = self.source.wake();
        let mut written = 0;
        let mut is_flushed = true;
        let mut ping_at = Instant::now() + keepalive / 2;
        let mut ping_sent_at: Option<Instant> = None;
        let sleep = tokio::time::sleep(keepalive);
        tokio::pin!(sleep);

        self.open(&mut out);
        loop {
            let now = Instant::now();
            if ping_sent_at.is_some_and(|at| now > at + keepalive) {
                return Err(End::Lost(anyhow::anyhow!("no answer to a ping within the keepalive")));
            }
            if now >= ping_at {
                out.extend(mqtt::PINGREQ);
                ping_sent_at.get_or_insert(now);
                ping_at = now + keepalive / 2;
            }
            let wake_at = self.fill(&mut out, now).map_or(ping_at, |at| at.min(ping_at));
            if std::mem::take(&mut self.breaks) {
                return Err(End::Lost(anyhow::anyhow!("dropped on purpose")));
            }
            let is_idle = written == out.len();
            if is_idle && self.is_finished(now) {
                writer.write_all(&mqtt::DISCONNECT).await?;
                writer.flush().await?;
                return Ok(());
            }
            let deadline = tokio::time::Instant::from_std(wake_at);
            if sleep.deadline() != deadline {
                sleep.as_mut().reset(deadline);
            }
            tokio::select! {
                biased;
                got = reader.read_buf(&mut inbox) => {
                    if got? == 0 {
                        return Err(End::Lost(anyhow::anyhow!("the broker closed the connection")));
                    }
                    if self.hear(&mut inbox).map_err(End::Lost)? {
                        ping_sent_at = None;
                    }
                    self.report().map_err(End::Failed)?;
                    for packet_id in self.to_release.drain(..) {
                        mqtt::put_pubrel(&mut out, packet_id);
                    }
                }
                wrote = write_some(&mut writer, &out[written..]), if !is_idle || !is_flushed => {
                    match wrote? {
                        0 => is_flushed = true,
                        count => (written, is_flushed) = (written + count, false),
                    }
                    if written == out.len() {
                        out.clear();
                        written = 0;
                    }
                }
                () = &mut sleep => {}
                () = woken(wake.as_deref()) => {}
                changed = self.stop.changed(), if self.leave_at.is_none() => {
                    if changed.is_err() || *self.stop.borrow() {
                        self.is_source_done = true;
                        self.leave_at = Some(Instant::now() + DRAIN_WAIT_MAX);
                    }
                }
            }
        }
    }

    /// What goes out first on a connection: the hello, then everything that still lacks its PUBACK.
    fn open(&mut self, out: &mut Vec<u8>) {
        self.to_release.clear();
        self.flights.retain(|flight| flight.tag.is_some());
        let version = self.link.login.version;
        for flight in &self.flights {
            if flight.is_received && self.is_session_known {
                mqtt::put_pubrel(out, flight.packet_id);
            } else {
                // A broker that forgot the session knows of no earlier attempt, but 3.1.1 asks for the flag all the same.
                mqtt::put_publish_in(version, out, &flight.publish, flight.packet_id, true);
            }
        }
        count(&self.meter.resent, self.flights.len());
        self.has_said_farewell = false;
        if let Some(hello) = self.source.hello() {
            self.send(out, None, hello, Instant::now());
        }
    }

    /// Encodes as much as window and buffer allow; says when to look again if the source wants to wait.
    fn fill(&mut self, out: &mut Vec<u8>, now: Instant) -> Option<Instant> {
        while !self.is_source_done && self.flights.len() < self.window && out.len() < OUT_BYTES_MAX {
            match self.source.turn(now) {
                Turn::Publish(tag, publish) => self.send(out, Some(tag), publish, now),
                Turn::WaitUntil(at) => return Some(at),
                Turn::Drop => {
                    self.breaks = true;
                    return None;
                }
                Turn::Done => self.is_source_done = true,
            }
        }
        if self.is_source_done && self.flights.is_empty() && !self.has_said_farewell {
            self.has_said_farewell = true;
            if let Some(farewell) = self.source.farewell() {
                self.send(out, None, farewell, now);
            }
        }
        self.leave_at
    }

    fn send(&mut self, out: &mut Vec<u8>, tag: Option<u64>, publish: Publish, now: Instant) {
        if tag.is_some() {
            count(&self.meter.published, 1);
        }
        if publish.qos == 0 {
            mqtt::put_publish_in(self.link.login.version, out, &publish, 0, false);
            count(&self.meter.fire_and_forget, usize::from(tag.is_some()));
            return;
        }
        let packet_id = self.free_id();
        mqtt::put_publish_in(self.link.login.version, out, &publish, packet_id, false);
        self.flights.push_back(Flight { tag, packet_id, publish, sent_at: now, is_received: false });
    }

    /// The next packet id that no open message uses; the window is far smaller than the id space.
    fn free_id(&mut self) -> u16 {
        loop {
            self.last_id = self.last_id.checked_add(1).unwrap_or(1);
            let is_taken = self.flights.iter().any(|flight| flight.packet_id == self.last_id);
            if !is_taken {
                return self.last_id;
            }
        }
    }

    /// Takes every whole packet of the inbox; true when one of them answers a ping.
    fn hear(&mut self, inbox: &mut BytesMut) -> Result<bool> {
        let now = Instant::now();
        let mut has_pong = false;
        while let Some((heard, length)) = mqtt::take_packet(inbox)? {
            inbox.advance(length);
            let packet_id = match heard {
                Heard::PingResp => {
                    has_pong = true;
                    continue;
                }
                Heard::Refused(packet_id, code) => {
                    self.refuse(packet_id, code)?;
                    continue;
                }
                Heard::PubAck(packet_id) | Heard::PubRec(packet_id) | Heard::PubComp(packet_id) => packet_id,
            };
            if matches!(heard, Heard::PubRec(_)) {
                self.to_release.push(packet_id);
            }
            let Some(at) = self.flights.iter().position(|flight| flight.packet_id == packet_id) else {
                count(&self.meter.stray_acks, 1);
                continue;
            };
            let flight = &mut self.flights[at];
            let was_received = std::mem::replace(&mut flight.is_received, true);
            if let (false, Some(tag)) = (was_received, flight.tag) {
                self.meter.record(now - flight.sent_at);
                self.tags.push(tag);
            }
            if !matches!(heard, Heard::PubRec(_)) {
                self.flights.remove(at);
            }
        }
        Ok(has_pong)
    }

    fn refuse(&mut self, packet_id: u16, code: u8) -> Result<()> {
        let Some(at) = self.flights.iter().position(|flight| flight.packet_id == packet_id) else {
            count(&self.meter.stray_acks, 1);
            return Ok(());
        };
        let Some(Flight { tag: Some(tag), .. }) = self.flights.remove(at) else { return Ok(()) };
        count(&self.meter.refused, 1);
        self.source.refused(tag, code).context("write down a refusal")
    }

    fn report(&mut self) -> Result<()> {
        if self.tags.is_empty() {
            return Ok(());
        }
        count(&self.meter.acknowledged, self.tags.len());
        self.source.acknowledged(&self.tags).context("write down acknowledgements")?;
        self.tags.clear();
        Ok(())
    }

    fn is_finished(&self, now: Instant) -> bool {
        let is_drained = self.is_source_done && self.flights.is_empty() && self.has_said_farewell;
        is_drained || self.leave_at.is_some_and(|at| now >= at)
    }
}

/// Ends when the source says so; never for one that has nothing to say.
async fn woken(wake: Option<&Notify>) {
    match wake {
        Some(wake) => wake.notified().await,
        None => std::future::pending().await,
    }
}

/// Writes once, or sends on what encryption held back when there is nothing to write: then the count is 0.
async fn write_some<W: AsyncWrite + Unpin>(writer: &mut W, bytes: &[u8]) -> std::io::Result<usize> {
    if bytes.is_empty() {
        writer.flush().await?;
        return Ok(0);
    }
    match writer.write(bytes).await? {
        0 => Err(std::io::ErrorKind::WriteZero.into()),
        count => Ok(count),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use tokio::net::{TcpListener, TcpStream};

    /// Publishes one message after the other and writes down what was acknowledged.
    struct Numbers {
        next: u64,
        count: u64,
        acknowledged: Vec<u64>,
    }

    impl Source for Numbers {
        fn turn(&mut self, _: Instant) -> Turn {
            if self.next == self.count {
                return Turn::Done;
            }
            self.next += 1;
            let publish = Publish {
                topic: Arc::from("t"),
                payload: "x".into(),
                qos: 1,
                is_retained: false,
                properties: bytes::Bytes::new(),
            };
            Turn::Publish(self.next, publish)
        }

        fn acknowledged(&mut self, tags: &[u64]) -> Result<()> {
            self.acknowledged.extend(tags);
            Ok(())
        }
    }

    /// Accepts a login, then reads so many messages of eight bytes and returns their packet ids.
    async fn accept(listener: &TcpListener, count: usize) -> (TcpStream, Vec<(bool, u16)>) {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut connect = [0; 15];
        stream.read_exact(&mut connect).await.unwrap();
        stream.write_all(&[0x20, 2, 0, 0]).await.unwrap();
        let mut ids = Vec::new();
        for _ in 0..count {
            let mut packet = [0; 8];
            stream.read_exact(&mut packet).await.unwrap();
            ids.push((packet[0] & 0x08 != 0, u16::from_be_bytes([packet[5], packet[6]])));
        }
        (stream, ids)
    }

    #[tokio::test]
    async fn what_a_lost_connection_took_is_sent_again_and_acknowledged_once() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let login = Login { client_id: "d".into(), keepalive_seconds: 60, ..Login::default() };
        let broker = listener.local_addr().unwrap().to_string();
        let link = Link { broker, tls: None, login, window: 3 };
        let mut source = Numbers { next: 0, count: 4, acknowledged: Vec::new() };
        let meter = Meter::default();
        let (_stop, stopped) = watch::channel(false);
        let broker = async {
            let (mut stream, first) = accept(&listener, 3).await;
            assert_eq!(first, [(false, 1), (false, 2), (false, 3)]);
            // Out of order, and once for nobody; then the connection dies with two messages open.
            stream.write_all(&[0x40, 2, 0, 2, 0x40, 2, 0, 9]).await.unwrap();
            let mut fourth = [0; 8];
            stream.read_exact(&mut fourth).await.unwrap();
            drop(stream);
            let (mut stream, again) = accept(&listener, 3).await;
            assert_eq!(again, [(true, 1), (true, 3), (true, 4)]);
            stream.write_all(&[0x40, 2, 0, 1, 0x40, 2, 0, 3, 0x40, 2, 0, 4]).await.unwrap();
            let mut farewell = Vec::new();
            stream.read_to_end(&mut farewell).await.unwrap();
            assert_eq!(farewell, mqtt::DISCONNECT);
        };
        let (outcome, ()) = tokio::join!(publish_all(&link, &mut source, &meter, stopped), broker);
        outcome.unwrap();
        assert_eq!(source.acknowledged, [2, 1, 3, 4]);
        let counted =
            [&meter.published, &meter.acknowledged, &meter.resent, &meter.reconnects, &meter.stray_acks];
        assert_eq!(counted.map(|counter| counter.load(Ordering::Relaxed)), [4, 4, 3, 1, 1]);
    }
}
