//! The link to an external broker: the engine as MQTT client, acknowledging after the commit.
//!
//! Two loops share one task. The *pump* polls the client: it connects, subscribes, and moves what arrives into a queue
//! whose memory is bounded by a credit. The *desk* opens deliveries from that queue as long as the window has room, and
//! acknowledges in order of arrival what was settled.
//!
//! The epoch guard: packet ids mean something only on the connection they arrived on, so the epoch changes with every
//! connection that is made or lost, and a delivery of another epoch is not acknowledged; the broker sends it again.

mod probe;
mod tls;

use std::error::Error;
use std::future::pending;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use rumqttc::{
    AsyncClient, ConnAck, Event, EventLoop, LastWill, MqttOptions, NetworkOptions, Outgoing, Packet, Publish,
    QoS, SubAck, SubscribeFilter, SubscribeReasonCode, TlsConfiguration, Transport,
};
use schema::clock::Clock;
use schema::wire::topic::{FILTERS, Topic};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep, sleep_until, timeout};

use crate::credits::{Cost, Purse};
use crate::delivery::{Delivery, Intake};
pub use crate::link::probe::{ProbeError, probe};
pub use crate::link::tls::LinkTls;
use crate::message::{Message, NotPublished, Qos, Verdict};
use crate::redelivery::Redelivery;
use crate::stats::DoorStats;
use crate::tls::{TlsError, advice as tls_advice};
use crate::window::{Answer, Closed, Echo, Returned, Slot, Window};

/// Wait after the first failed connection; it doubles up to the limit.
const BACKOFF_FIRST: Duration = Duration::from_millis(100);
const BACKOFF_MAX: Duration = Duration::from_secs(30);
/// Messages and bytes that may be held here; beyond, the broker is not read. A broker that limits what is in flight
/// never gets that far.
const HELD_MESSAGES_MAX: usize = 65_536;
const HELD_BYTES_MAX: usize = 64 << 20;
/// The largest packet of the protocol. A limit below would turn one large message into an endless chain of reconnects;
/// a message above `packet_bytes_max` is refused and acknowledged instead.
const PACKET_BYTES_MAX: usize = 268_435_455;
/// How long the broker may take to read the goodbye.
const PART_MAX: Duration = Duration::from_secs(2);
/// Requests to the client beside acknowledgements.
const REQUESTS_SPARE: usize = 16;

/// How to reach the broker.
#[derive(Clone)]
pub struct LinkSettings {
    /// Host name or address.
    pub host: String,
    /// TCP port.
    pub port: u16,
    /// What encrypts the link; `None` leaves it in the clear.
    pub tls: Option<LinkTls>,
    /// Fixed client id: the broker keeps the session under it.
    pub client_id: String,
    /// User and password, if the broker wants them.
    pub credentials: Option<(String, String)>,
    /// Unacknowledged messages in the engine's hands.
    pub ack_window: usize,
    /// A message with a larger payload is refused and recorded.
    pub packet_bytes_max: usize,
    /// Interval of signs of life.
    pub keepalive: Duration,
    /// What the broker publishes, retained, when it loses us: topic and body.
    pub will: Option<(String, Bytes)>,
}

/// Who the link works with.
#[derive(Clone)]
pub struct LinkParts {
    /// Takes every message.
    pub intake: Arc<dyn Intake>,
    /// Wall time.
    pub clock: Clock,
}

/// The link to an external broker.
pub struct Link {
    settings: LinkSettings,
    parts: LinkParts,
    stats: Arc<DoorStats>,
    draining: watch::Sender<bool>,
    running: watch::Sender<bool>,
    /// The client, while the link runs.
    client: Mutex<Option<AsyncClient>>,
}

impl Link {
    /// A link that connects when it is run.
    #[must_use]
    pub fn new(settings: LinkSettings, parts: LinkParts) -> Self {
        Self {
            settings,
            parts,
            stats: Arc::default(),
            draining: watch::Sender::new(false),
            running: watch::Sender::new(false),
            client: Mutex::default(),
        }
    }

    /// Publishes what the engine itself has to say, at QoS 1 and retained.
    ///
    /// # Errors
    /// While the broker is away, or takes nothing more.
    pub fn publish(&self, topic: &str, payload: Bytes) -> Result<(), NotPublished> {
        let client = self.client.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let client = client.filter(|_| self.stats.is_connected()).ok_or(NotPublished)?;
        client.try_publish(topic, QoS::AtLeastOnce, true, payload).map_err(|_| NotPublished)
    }

    /// The link's counters.
    #[must_use]
    pub fn stats(&self) -> Arc<DoorStats> {
        Arc::clone(&self.stats)
    }

    /// Keeps the link up until [`Link::shutdown`]. Dropping the future cuts it off; the broker sends again what was not
    /// acknowledged.
    pub async fn run(&self) {
        let requests_max = self.settings.ack_window + REQUESTS_SPARE;
        let (client, mut events) = AsyncClient::new(self.options(), requests_max);
        // Acknowledgements are four bytes each: they must not wait for the broker to confirm the one before.
        let mut network = NetworkOptions::new();
        network.set_tcp_nodelay(true);
        events.set_network_options(network);
        let purse =
            Purse::alone(HELD_MESSAGES_MAX, HELD_BYTES_MAX, PACKET_BYTES_MAX, Arc::clone(&self.stats));
        *self.client.lock().unwrap_or_else(PoisonError::into_inner) = Some(client.clone());
        let epoch = Arc::new(AtomicU64::new(0));
        let (held, arrived) = mpsc::unbounded_channel();
        let mut pump = Pump {
            link: self,
            client: client.clone(),
            events,
            purse: Arc::clone(&purse),
            epoch: Arc::clone(&epoch),
            held,
            is_subscribed: false,
        };
        let mut desk = Desk {
            link: self,
            client,
            arrived,
            window: Window::new(Arc::clone(&purse), None),
            purse,
            epoch,
            open: 0,
            acks: Vec::new(),
            redelivery: Redelivery::default(),
        };
        let _running = Running::start(self);
        tokio::select! {
            () = pump.run() => {}
            () = desk.run() => {}
        }
        *self.client.lock().unwrap_or_else(PoisonError::into_inner) = None;
        self.stats.abandon(desk.open);
    }

    /// Takes nothing more, waits for the deliveries in hand, acknowledges them and disconnects; the session stays at the
    /// broker. Says how many deliveries were not settled by the deadline: the caller drops [`Link::run`] then.
    pub async fn shutdown(&self, deadline: Duration) -> usize {
        self.draining.send_replace(true);
        let mut running = self.running.subscribe();
        let stopped = running.wait_for(|is_running| !is_running);
        match timeout(deadline, stopped).await {
            Ok(_) => self.stats.abandoned(),
            Err(_) => self.stats.unacked(),
        }
    }

    fn options(&self) -> MqttOptions {
        let LinkSettings { host, port, client_id, credentials, keepalive, .. } = &self.settings;
        let mut options = MqttOptions::new(client_id, host, *port);
        options
            .set_clean_session(false)
            .set_manual_acks(true)
            .set_keep_alive(*keepalive)
            .set_max_packet_size(PACKET_BYTES_MAX, PACKET_BYTES_MAX);
        if let Some((username, password)) = credentials {
            options.set_credentials(username, password);
        }
        if let Some((topic, payload)) = &self.settings.will {
            options.set_last_will(LastWill::new(topic, payload.clone(), QoS::AtLeastOnce, true));
        }
        options
    }
}

/// Polls the client.
struct Pump<'a> {
    link: &'a Link,
    client: AsyncClient,
    events: EventLoop,
    purse: Arc<Purse>,
    epoch: Arc<AtomicU64>,
    held: mpsc::UnboundedSender<Arrived>,
    /// The broker confirmed the filters in the session it has now.
    is_subscribed: bool,
}

/// A message that holds its credit and waits for the window.
struct Arrived {
    publish: Publish,
    cost: Cost,
    epoch: u64,
    received_at: Instant,
}

impl Pump<'_> {
    async fn run(&mut self) {
        let mut backoff = BACKOFF_FIRST;
        let mut is_encrypted_anew = false;
        loop {
            // Files that have changed are taken up by the next connection.
            if !std::mem::replace(&mut is_encrypted_anew, true)
                && let Err(error) = self.encrypt().await
            {
                tracing::error!(error = &error as &dyn Error, "link to the broker cannot be encrypted");
                if *self.link.draining.borrow() {
                    return;
                }
                sleep(backoff).await;
                backoff = BACKOFF_MAX.min(backoff * 2);
                is_encrypted_anew = false;
                continue;
            }
            match self.events.poll().await {
                Ok(Event::Incoming(Packet::ConnAck(connack))) => {
                    backoff = BACKOFF_FIRST;
                    self.connected(&connack);
                }
                Ok(Event::Incoming(Packet::SubAck(suback))) => self.subscribed(&suback),
                Ok(Event::Incoming(Packet::Publish(publish))) => self.hold(publish).await,
                Ok(Event::Outgoing(Outgoing::Disconnect)) => return self.part().await,
                Ok(Event::Incoming(_) | Event::Outgoing(_)) => {}
                Err(error) => {
                    self.epoch.fetch_add(1, Ordering::Relaxed);
                    self.link.stats.set_connected(false);
                    is_encrypted_anew = false;
                    let advice = advice(&error);
                    tracing::warn!(error = &error as &dyn Error, advice, "link to the broker is down");
                    if *self.link.draining.borrow() {
                        return;
                    }
                    sleep(backoff).await;
                    backoff = BACKOFF_MAX.min(backoff * 2);
                }
            }
        }
    }

    /// Has the next connection encrypted with what the files hold now.
    async fn encrypt(&mut self) -> Result<(), TlsError> {
        if let Some(tls) = &self.link.settings.tls {
            let config = TlsConfiguration::Rustls(tls.read().await?);
            self.events.mqtt_options.set_transport(Transport::tls_with_config(config));
        }
        Ok(())
    }

    /// Waits until the broker closes the connection: then it has read the last acknowledgement. Closing first could
    /// discard what it has not read yet.
    async fn part(&mut self) {
        let closed = async { while self.events.poll().await.is_ok() {} };
        if timeout(PART_MAX, closed).await.is_err() {
            tracing::warn!("the broker did not close the link; it may send the last messages again");
        }
    }

    fn connected(&mut self, connack: &ConnAck) {
        self.epoch.fetch_add(1, Ordering::Relaxed);
        self.is_subscribed &= connack.session_present;
        if self.is_subscribed {
            self.link.stats.set_connected(true);
            tracing::info!("link to the broker is up");
            return;
        }
        let filters = FILTERS.map(|filter| SubscribeFilter::new(filter.to_owned(), QoS::AtLeastOnce));
        if let Err(error) = self.client.try_subscribe_many(filters) {
            // The queue of requests was emptied with the last connection, so this is a bug of the client.
            tracing::error!(error = &error as &dyn Error, "subscription not requested");
        }
    }

    fn subscribed(&mut self, suback: &SubAck) {
        self.is_subscribed =
            suback.return_codes.iter().all(|code| matches!(code, SubscribeReasonCode::Success(_)));
        self.link.stats.set_connected(self.is_subscribed);
        if self.is_subscribed {
            tracing::info!("link to the broker is up");
        } else {
            tracing::error!("the broker refuses a subscription of the engine");
        }
    }

    async fn hold(&mut self, publish: Publish) {
        if *self.link.draining.borrow() {
            return;
        }
        // Before it waits for anything: what is asked of a device is answered also while nothing can be stored.
        self.link.parts.intake.overhear(&publish.topic, &publish.payload);
        let received_at = Instant::now();
        let epoch = self.epoch.load(Ordering::Relaxed);
        let cost = Cost::of_message(publish.topic.len() + publish.payload.len());
        if !self.purse.try_take(cost) {
            self.purse.take(cost).await;
        }
        // The desk lives as long as the pump.
        let _ = self.held.send(Arrived { publish, cost, epoch, received_at });
    }
}

/// Opens deliveries and acknowledges them.
struct Desk<'a> {
    link: &'a Link,
    client: AsyncClient,
    arrived: mpsc::UnboundedReceiver<Arrived>,
    window: Arc<Window>,
    purse: Arc<Purse>,
    epoch: Arc<AtomicU64>,
    open: usize,
    /// Acknowledgements the client had no room for yet, with their epoch.
    acks: Vec<(u16, u64)>,
    redelivery: Redelivery,
}

impl Desk<'_> {
    async fn run(&mut self) {
        let mut draining = self.link.draining.subscribe();
        loop {
            self.collect(Instant::now());
            let is_draining = *draining.borrow();
            if is_draining && self.open == 0 && self.acks.is_empty() {
                return self.leave().await;
            }
            let may_open = !is_draining && self.open < self.link.settings.ack_window;
            let due_at = self.redelivery.due_at();
            let due_at = if self.acks.is_empty() { due_at } else { Some(Instant::now() + ACK_RETRY) };
            tokio::select! {
                biased;
                () = self.window.changed() => {}
                Some(arrived) = self.arrived.recv(), if may_open => self.open(arrived),
                _ = draining.changed() => {}
                () = sleep_until(due_at.unwrap_or_else(Instant::now)), if due_at.is_some() => {}
            }
        }
    }

    fn open(&mut self, arrived: Arrived) {
        let Arrived { publish, cost, epoch, received_at } = arrived;
        let Publish { qos, retain, topic, pkid, payload, .. } = publish;
        let size_bytes = payload.len();
        let is_too_large = size_bytes > self.link.settings.packet_bytes_max;
        let qos = if qos == QoS::AtMostOnce { Qos::AtMostOnce } else { Qos::AtLeastOnce };
        let parsed = Topic::parse(&topic).ok().map(Arc::new);
        let slot = Slot {
            answer: if qos == Qos::AtMostOnce { Answer::None } else { Answer::PubAck(pkid) },
            cost,
            echo: Echo::default(),
            is_denied: false,
            kind: parsed.as_ref().map(|topic| topic.kind()),
            received_at,
            epoch,
            publisher: 0,
            _will: None,
        };
        let message = Message {
            topic: Arc::from(topic),
            parsed,
            payload: if is_too_large { Default::default() } else { payload },
            qos,
            retain,
            received_at,
            arrived_at: self.link.parts.clock.now(),
            identity: None,
            verdict: if is_too_large { Verdict::TooLarge { size_bytes } } else { Verdict::Admitted },
        };
        let turn = self.window.open(slot);
        self.open += 1;
        self.link.stats.opened();
        let delivery = Delivery::from_window(message, 0, Arc::clone(&self.window), turn);
        self.link.parts.intake.take(delivery);
    }

    fn collect(&mut self, now: Instant) {
        let (mut closed, mut returned): (Vec<Closed>, Vec<Returned>) = (Vec::new(), Vec::new());
        self.window.collect(&mut closed, &mut returned);
        self.open -= closed.len();
        self.link.stats.closed(closed.len());
        for Closed { slot, .. } in closed {
            self.purse.give_back(slot.cost);
            self.link.stats.answered(slot.kind, now - slot.received_at);
            if let Answer::PubAck(packet_id) = slot.answer {
                self.acks.push((packet_id, slot.epoch));
            }
        }
        self.acknowledge();
        for returned in &returned {
            self.link.stats.count_handed_back(returned.kind);
        }
        self.redelivery.put(now, returned.into_iter());
        self.redelivery.deliver_due(now, &self.window, &*self.link.parts.intake);
    }

    /// Passes acknowledgements to the client, in order, as many as it takes.
    fn acknowledge(&mut self) {
        let current = self.epoch.load(Ordering::Relaxed);
        self.acks.retain(|(_, epoch)| *epoch == current);
        let accepted = self.acks.iter().take_while(|(packet_id, _)| {
            let mut publish = Publish::new("", QoS::AtLeastOnce, Vec::new());
            publish.pkid = *packet_id;
            self.client.try_ack(&publish).is_ok()
        });
        let accepted = accepted.count();
        self.acks.drain(..accepted);
    }

    /// Says goodbye behind the last acknowledgement; the pump ends when it is out.
    async fn leave(&self) {
        if self.client.disconnect().await.is_ok() {
            pending().await
        }
    }
}

/// Wait before acknowledgements that found no room are tried again.
const ACK_RETRY: Duration = Duration::from_millis(5);

/// The link is run as long as this lives.
struct Running<'a>(&'a Link);

impl<'a> Running<'a> {
    fn start(link: &'a Link) -> Self {
        link.running.send_replace(true);
        Self(link)
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.0.stats.set_connected(false);
        self.0.running.send_replace(false);
    }
}
/// What a person can do when the broker's certificate keeps the link away.
fn advice(error: &(dyn Error + 'static)) -> Option<&'static str> {
    tls_advice(&error.to_string()).or_else(|| advice(error.source()?))
}
