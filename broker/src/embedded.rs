//! The embedded router (rumqttd without its listener): live fan-out to subscribers at quality 0 and nothing else.
//!
//! Its quirks decide the shape. Its event type cannot be named, so its sender lives in a closure. Building a link
//! blocks, so it happens off the runtime's threads. One link per client id and never two, so every feed has a number.
//! A dropped link stays connected, so a feed says goodbye when it goes. A topic that starts with a non-ASCII character
//! kills its thread, so topics are spelled in a safe alphabet. It knows no properties, so a message travels with them in
//! its payload. It never forgets a topic, so it is replaced after many; and its thread ends by nothing but a panic, so
//! that it is ended by exactly the topic that kills it. A router that does not answer is replaced as well.

use std::collections::HashSet;
use std::fmt::{self, Write};
use std::hash::{BuildHasher, RandomState};
use std::pin::pin;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Waker};
use std::time::Duration;

use async_trait::async_trait;
use bytes::{Buf, BufMut, Bytes, BytesMut};
use rumqttd::local::{LinkBuilder, LinkRx, LinkTx};
use rumqttd::protocol::{Disconnect, DisconnectReasonCode, Packet};
use rumqttd::{Notification, Router, RouterConfig};
use schema::clock::Timestamp;
use tokio::sync::watch;
use tokio::task::spawn_blocking;
use tokio::time::{sleep, timeout};

use crate::fanout::{Fanout, Feed, Forward, RouterGone};
use crate::message::Qos;
use crate::publication::Publication;

/// Bytes of a ring segment of one filter, and how many of them the router keeps.
const SEGMENT_BYTES: usize = 1 << 20;
const SEGMENTS_PER_FILTER: usize = 4;
/// Messages the router hands to one subscriber at a time.
const OUTGOING_BATCH: u64 = 200;
/// How often the router is asked whether it is alive, and how long it may take to answer.
const PROBE_INTERVAL: Duration = Duration::from_secs(10);
const PROBE_ANSWER_MAX: Duration = Duration::from_secs(10);
/// Different topics a router may see before it is replaced: it keeps about 0.7 kB of each for ever.
const TOPICS_SEEN_MAX: usize = 50_000;
/// Opens every topic of a message.
const MESSAGE_ROOT: &str = "m";
/// The topic of the watchdog.
const PROBE_TOPIC: &str = "probe";
/// The topic that ends a router's thread.
const FATAL_TOPIC: &str = "\u{e9}";

type Connect = Arc<dyn Fn(&str) -> Result<(LinkTx, LinkRx), RouterGone> + Send + Sync>;

/// Live fan-out through rumqttd.
pub(crate) struct Embedded {
    feeds_max: usize,
    router: Mutex<Option<Running>>,
    /// Counts the routers that were given up: a feed of an earlier one ends.
    given_up: watch::Sender<u64>,
    next_number: AtomicU64,
    /// Feeds are opened one after the other, so that a dead router is replaced once.
    opening: tokio::sync::Mutex<()>,
    next_link: AtomicU64,
    subscriptions: Arc<AtomicUsize>,
}

struct Running {
    connect: Connect,
    publisher: LinkTx,
    /// Hashes of the topics it has seen.
    topics: HashSet<u64>,
    hasher: RandomState,
}

/// The feed of one subscriber.
struct RouterFeed {
    tx: LinkTx,
    rx: LinkRx,
    given_up: watch::Receiver<u64>,
    /// The router paused this link and waits to be told to go on.
    must_wake: bool,
    filters: usize,
    subscriptions: Arc<AtomicUsize>,
}

impl Embedded {
    /// A fan-out for so many subscribers; the router starts with the first of them.
    pub(crate) fn new(feeds_max: usize) -> Arc<Self> {
        Arc::new(Self {
            feeds_max,
            router: Mutex::default(),
            given_up: watch::Sender::default(),
            next_number: AtomicU64::new(0),
            opening: tokio::sync::Mutex::default(),
            next_link: AtomicU64::new(0),
            subscriptions: Arc::default(),
        })
    }

    fn link_name(&self) -> String {
        format!("link-{}", self.next_link.fetch_add(1, Ordering::Relaxed))
    }

    fn connector(&self) -> Option<Connect> {
        self.lock().as_ref().map(|running| Arc::clone(&running.connect))
    }

    /// Ends the router; the feeds open another.
    fn give_up(&self) {
        let Some(mut running) = self.lock().take() else { return };
        // Nothing is left to do when a router that hangs does not take it.
        let _ = running.publisher.try_publish(FATAL_TOPIC, Bytes::new());
        self.given_up.send_modify(|count| *count += 1);
    }

    /// Whether the router shows what is published, as long as there is one.
    async fn is_alive(&self) -> bool {
        let given_up = self.given_up.subscribe();
        let Some(connect) = self.connector() else { return true };
        let Ok(link) = self.link(connect).await else { return false };
        let mut feed = self.feed(link, given_up);
        let answered = async {
            // Past the feed's own count: whoever only asks is no subscriber.
            feed.tx.try_subscribe(PROBE_TOPIC).map_err(|_| RouterGone)?;
            feed.tx.try_publish(PROBE_TOPIC, encode(0, &probe())).map_err(|_| RouterGone)?;
            feed.next().await
        };
        timeout(PROBE_ANSWER_MAX, answered).await.is_ok_and(|answered| answered.is_ok())
    }

    /// A feed over a link to the router; `given_up` was subscribed to before the router was looked for.
    fn feed(&self, (tx, rx): (LinkTx, LinkRx), given_up: watch::Receiver<u64>) -> RouterFeed {
        let subscriptions = Arc::clone(&self.subscriptions);
        RouterFeed { tx, rx, given_up, must_wake: false, filters: 0, subscriptions }
    }

    fn lock(&self) -> MutexGuard<'_, Option<Running>> {
        self.router.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn start(&self) -> Result<Connect, RouterGone> {
        let connections_max = self.feeds_max.saturating_add(1);
        let name = self.link_name();
        let running = blocking(move || start_router(connections_max, &name)).await?;
        let connect = Arc::clone(&running.connect);
        *self.lock() = Some(running);
        Ok(connect)
    }

    async fn link(&self, connect: Connect) -> Result<(LinkTx, LinkRx), RouterGone> {
        let name = self.link_name();
        blocking(move || connect(&name)).await
    }
}

#[async_trait]
impl Fanout for Embedded {
    fn is_wanted(&self) -> bool {
        self.subscriptions.load(Ordering::Relaxed) > 0
    }

    fn publish(&self, publication: &Publication) {
        let number = self.next_number.fetch_add(1, Ordering::Relaxed);
        let mut router = self.lock();
        let Some(running) = router.as_mut() else { return };
        running.topics.insert(running.hasher.hash_one(&publication.topic));
        let payload = encode(number, publication);
        if let Err(error) = running.publisher.try_publish(spell(&publication.topic), payload) {
            tracing::debug!(%error, "live message not shown");
            // A refused message stays in the link's own buffer, which has no limit.
            running.publisher.buffer().clear();
        }
    }

    async fn watch(&self) {
        loop {
            sleep(PROBE_INTERVAL).await;
            let is_full = self.lock().as_ref().is_some_and(|running| running.topics.len() >= TOPICS_SEEN_MAX);
            if is_full {
                tracing::info!("the router of live messages has seen many topics and is replaced");
                self.give_up();
            } else if !self.is_alive().await {
                tracing::warn!("the router of live messages does not answer and is replaced");
                self.give_up();
            }
        }
    }

    async fn open(&self) -> Result<Box<dyn Feed>, RouterGone> {
        let _one_at_a_time = self.opening.lock().await;
        let given_up = self.given_up.subscribe();
        let linked = match self.connector() {
            Some(connect) => self.link(connect).await,
            None => Err(RouterGone),
        };
        let link = match linked {
            Ok(link) => link,
            Err(RouterGone) => {
                let connect = self.start().await?;
                self.link(connect).await?
            }
        };
        Ok(Box::new(self.feed(link, given_up)))
    }
}

#[async_trait]
impl Feed for RouterFeed {
    async fn subscribe(&mut self, filter: &str) -> Result<(), RouterGone> {
        self.tx.try_subscribe(spell(filter)).map_err(|_| RouterGone)?;
        self.filters += 1;
        self.subscriptions.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    async fn unsubscribe(&mut self, filter: &str) -> Result<(), RouterGone> {
        self.tx.try_unsubscribe(spell(filter)).map_err(|_| RouterGone)?;
        self.filters -= 1;
        self.subscriptions.fetch_sub(1, Ordering::Relaxed);
        Ok(())
    }

    async fn next(&mut self) -> Result<Forward, RouterGone> {
        loop {
            if self.must_wake {
                self.rx.wake().await.map_err(|_| RouterGone)?;
                self.must_wake = false;
            }
            let next = tokio::select! {
                next = self.rx.next() => next,
                _ = self.given_up.changed() => return Err(RouterGone),
            };
            match next.map_err(|_| RouterGone)? {
                Some(Notification::Forward(forward)) => {
                    if let Some(forward) = decode(forward.publish.payload) {
                        return Ok(forward);
                    }
                }
                Some(Notification::Unschedule) => self.must_wake = true,
                Some(Notification::Disconnect(..)) => return Err(RouterGone),
                Some(
                    Notification::DeviceAck(_)
                    | Notification::ReplicaData { .. }
                    | Notification::ReplicaAcks { .. }
                    | Notification::Shadow(_),
                )
                | None => {}
            }
        }
    }
}

impl Drop for RouterFeed {
    fn drop(&mut self) {
        self.subscriptions.fetch_sub(self.filters, Ordering::Relaxed);
        say_goodbye(&mut self.tx);
    }
}

impl fmt::Debug for Embedded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Embedded").field("feeds_max", &self.feeds_max).finish_non_exhaustive()
    }
}

fn say_goodbye(tx: &mut LinkTx) {
    let goodbye =
        Packet::Disconnect(Disconnect { reason_code: DisconnectReasonCode::NormalDisconnection }, None);
    // The future never waits: it pushes into a queue, and is complete when it was polled once.
    let _ = pin!(tx.send(goodbye)).poll(&mut Context::from_waker(Waker::noop()));
}

fn start_router(connections_max: usize, publisher_name: &str) -> Result<Running, RouterGone> {
    let sender = Router::new(
        0,
        RouterConfig {
            max_connections: connections_max,
            max_outgoing_packet_count: OUTGOING_BATCH,
            max_segment_size: SEGMENT_BYTES,
            max_segment_count: SEGMENTS_PER_FILTER,
            ..RouterConfig::default()
        },
    )
    .spawn();
    let connect: Connect = Arc::new(move |name| {
        let (tx, rx, _) = LinkBuilder::new(name, sender.clone()).build().map_err(|_| RouterGone)?;
        Ok((tx, rx))
    });
    let (publisher, _) = connect(publisher_name)?;
    Ok(Running { connect, publisher, topics: HashSet::new(), hasher: RandomState::new() })
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, RouterGone> + Send + 'static,
) -> Result<T, RouterGone> {
    spawn_blocking(work).await.unwrap_or(Err(RouterGone))
}

/// A topic or filter in letters the router survives: every level is spelled in ASCII, and an empty one has a sign.
fn spell(topic: &str) -> String {
    let mut spelled = String::with_capacity(topic.len() + MESSAGE_ROOT.len() + 8);
    spelled.push_str(MESSAGE_ROOT);
    for level in topic.split('/') {
        spelled.push('/');
        if level.is_empty() {
            spelled.push('%');
        }
        for byte in level.bytes() {
            if byte.is_ascii_graphic() && byte != b'%' {
                spelled.push(char::from(byte));
            } else {
                write!(spelled, "%{byte:02x}").expect("text takes everything");
            }
        }
    }
    spelled
}

/// The message of the watchdog.
fn probe() -> Publication {
    Publication {
        topic: Arc::from(PROBE_TOPIC),
        payload: Bytes::new(),
        qos: Qos::AtMostOnce,
        retain: false,
        carried: Bytes::new(),
        expires_at: None,
        publisher: 0,
    }
}

/// A publication as the payload of the router's message.
fn encode(number: u64, publication: &Publication) -> Bytes {
    let Publication { topic, payload, qos, retain, carried, expires_at, publisher } = publication;
    let mut out = BytesMut::with_capacity(40 + topic.len() + carried.len() + payload.len());
    out.put_u64(number);
    out.put_u8(*qos as u8 | if *retain { 4 } else { 0 });
    out.put_i64(expires_at.map_or(i64::MIN, |expires_at| expires_at.timestamp_micros()));
    out.put_u64(*publisher);
    out.put_u32(u32::try_from(topic.len()).expect("a topic came in with a length of two bytes"));
    out.put_slice(topic.as_bytes());
    out.put_u32(u32::try_from(carried.len()).expect("properties came in with a length of four bytes"));
    out.put_slice(carried);
    out.put_slice(payload);
    out.freeze()
}

/// The publication of a router's message.
fn decode(mut bytes: Bytes) -> Option<Forward> {
    let number = bytes.try_get_u64().ok()?;
    let flags = bytes.try_get_u8().ok()?;
    let expires_at = bytes.try_get_i64().ok()?;
    let publisher = bytes.try_get_u64().ok()?;
    let topic_bytes = bytes.try_get_u32().ok()? as usize;
    let topic = (bytes.len() >= topic_bytes).then(|| bytes.split_to(topic_bytes))?;
    let carried_bytes = bytes.try_get_u32().ok()? as usize;
    let carried = (bytes.len() >= carried_bytes).then(|| bytes.split_to(carried_bytes))?;
    let qos = match flags & 3 {
        0 => Qos::AtMostOnce,
        1 => Qos::AtLeastOnce,
        _ => Qos::ExactlyOnce,
    };
    let publication = Publication {
        topic: Arc::from(std::str::from_utf8(&topic).ok()?),
        payload: bytes,
        qos,
        retain: flags & 4 != 0,
        carried,
        expires_at: Timestamp::from_timestamp_micros(expires_at),
        publisher,
    };
    Some(Forward { number, publication })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_comes_out_of_the_router_as_it_went_in() {
        let publication = Publication {
            topic: Arc::from("/ü/%"),
            payload: Bytes::from_static(b"body"),
            qos: Qos::ExactlyOnce,
            retain: true,
            carried: Bytes::from_static(b"carried"),
            expires_at: Timestamp::from_timestamp_micros(1_234_567),
            publisher: 7,
        };
        let forward = decode(encode(3, &publication)).unwrap();
        assert_eq!(forward, Forward { number: 3, publication });
        assert_eq!(decode(Bytes::from_static(b"short")), None);
    }

    #[test]
    fn every_topic_is_spelled_in_ascii_and_no_two_alike() {
        assert_eq!(spell("/ü/%/+/#"), "m/%/%c3%bc/%25/+/#");
        assert_eq!(spell("a//b"), "m/a/%/b");
        assert!(spell("$SYS").starts_with("m/"));
    }

    #[tokio::test]
    async fn a_router_that_was_given_up_is_replaced_and_its_feeds_end() {
        let router = Embedded::new(10);
        let mut feed = router.open().await.unwrap();
        feed.subscribe("a/+").await.unwrap();
        assert!(router.is_alive().await);
        router.give_up();
        assert_eq!(feed.next().await, Err(RouterGone));
        let mut feed = router.open().await.unwrap();
        feed.subscribe("a/+").await.unwrap();
        let publication =
            Publication { topic: Arc::from("a/é"), payload: Bytes::from_static(b"body"), ..probe() };
        router.publish(&publication);
        assert_eq!(feed.next().await.unwrap().publication, publication);
    }
}
