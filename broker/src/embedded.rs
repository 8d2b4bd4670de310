//! The embedded router (rumqttd without its listener): live fan-out to subscribers at quality 0 and nothing else. An option.
//!
//! Its quirks decide the shape. Its event type cannot be named, so its sender lives in a closure. Building a link and saying
//! goodbye block, so a thread of ours does both, the *clerk* of one router; when the router hangs, its clerk hangs with it
//! and nobody else. One link per client id and never two, so every feed has a number. A dropped link stays connected, so a
//! feed says goodbye when it goes. A topic that starts with a non-ASCII character kills its thread, so topics are spelled
//! in a safe alphabet. It knows no properties, so a message travels with them in its payload. It never forgets a topic, a
//! filter or a link, so they are counted, and it is replaced after many; and its thread ends by nothing but a panic, so that
//! it is ended by exactly the topic that kills it. A router that does not answer is replaced as well.

use std::collections::HashSet;
use std::fmt::{self, Write};
use std::hash::{BuildHasher, RandomState};
use std::pin::pin;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak, mpsc};
use std::task::{Context, Waker};
use std::thread;
use std::time::Duration;

use async_trait::async_trait;
use bytes::{Buf, BufMut, Bytes, BytesMut};
use rumqttd::local::{LinkBuilder, LinkError, LinkRx, LinkTx};
use rumqttd::protocol::{Disconnect, DisconnectReasonCode, Packet};
use rumqttd::{Notification, Router, RouterConfig};
use schema::clock::Timestamp;
use tokio::sync::{oneshot, watch};
use tokio::time::{Instant, sleep, timeout};

use crate::fanout::{Fanout, Feed, Forward, RouterGone};
use crate::message::Qos;
use crate::publication::Publication;

/// Bytes of a ring segment of one filter, and how many of them the router keeps.
const SEGMENT_BYTES: usize = 1 << 20;
const SEGMENTS_PER_FILTER: usize = 4;
/// Messages the router hands to one subscriber at a time.
const OUTGOING_BATCH: u64 = 200;
/// How often the router is asked whether it is alive.
const PROBE_INTERVAL: Duration = Duration::from_secs(10);
/// How long the router may take to answer.
const ANSWER_MAX: Duration = Duration::from_secs(10);
/// Different topics, filters and links a router may see before it is replaced. Of each it keeps something for ever: about
/// 0.7 kB of a topic, 6.5 kB of a filter and 0.5 kB of a link.
const SEEN_MAX: Seen = Seen { topics: 50_000, filters: 5_000, links: 50_000 };
/// How long a router lives at least. Whoever asks for ever new filters gets none before that.
const LIFE_MIN: Duration = Duration::from_secs(1);
/// Opens every topic of a message.
const MESSAGE_ROOT: &str = "m";
/// The topic of the watchdog.
const PROBE_TOPIC: &str = "probe";
/// The topic that ends a router's thread.
const FATAL_TOPIC: &str = "\u{e9}";

/// Live fan-out through rumqttd.
pub(crate) struct Embedded {
    me: Weak<Self>,
    feeds_max: usize,
    seen_max: Seen,
    router: Mutex<Option<Running>>,
    /// Counts the routers that were given up: a feed of an earlier one ends.
    given_up: watch::Sender<u64>,
    next_number: AtomicU64,
    /// Feeds are opened one after the other, so that a dead router is replaced once.
    opening: tokio::sync::Mutex<()>,
    next_link: AtomicU64,
    subscriptions: AtomicUsize,
}

/// How much of each kind.
#[derive(Clone, Copy, Debug)]
struct Seen {
    topics: usize,
    filters: usize,
    links: usize,
}

struct Running {
    clerk: mpsc::Sender<Errand>,
    publisher: LinkTx,
    started_at: Instant,
    /// Links that are open.
    feeds: Arc<AtomicUsize>,
    /// Hashes of the topics and of the filters it has seen, and how many links.
    topics: HashSet<u64>,
    filters: HashSet<u64>,
    links: usize,
    hasher: RandomState,
}

/// What the clerk of a router does, one after the other.
enum Errand {
    /// Opens a link of this name.
    Link(String, oneshot::Sender<Result<(LinkTx, LinkRx), NoLink>>),
    /// Ends a link.
    SayGoodbye(Box<LinkTx>),
}

/// Why there is no link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum NoLink {
    /// The router's thread has ended.
    Dead,
    /// The router has no room, or did not answer as it should.
    Refused,
}

/// The feed of one subscriber.
struct RouterFeed {
    owner: Arc<Embedded>,
    /// Goes to the clerk with the feed.
    tx: Option<Box<LinkTx>>,
    rx: LinkRx,
    clerk: mpsc::Sender<Errand>,
    feeds: Arc<AtomicUsize>,
    given_up: watch::Receiver<u64>,
    /// The router paused this link and waits to be told to go on.
    must_wake: bool,
    filters: usize,
}

impl Embedded {
    /// A fan-out for so many subscribers; the router starts with the first of them.
    pub(crate) fn new(feeds_max: usize) -> Arc<Self> {
        Self::bounded(feeds_max, SEEN_MAX)
    }

    fn bounded(feeds_max: usize, seen_max: Seen) -> Arc<Self> {
        Arc::new_cyclic(|me| Self {
            me: Weak::clone(me),
            feeds_max,
            seen_max,
            router: Mutex::default(),
            given_up: watch::Sender::default(),
            next_number: AtomicU64::new(0),
            opening: tokio::sync::Mutex::default(),
            next_link: AtomicU64::new(0),
            subscriptions: AtomicUsize::new(0),
        })
    }

    /// Ends the router; the feeds open another.
    fn give_up(&self, reason: &'static str) {
        let Some(mut running) = self.lock().take() else { return };
        tracing::warn!(reason, "the router of live messages is replaced");
        // Nothing is left to do when a router that hangs does not take it.
        let _ = running.publisher.try_publish(FATAL_TOPIC, Bytes::new());
        self.given_up.send_modify(|count| *count += 1);
    }

    /// Opens a link to the router that runs, or says why there is none.
    async fn link(&self) -> Result<RouterFeed, NoLink> {
        let given_up = self.given_up.subscribe();
        let name = format!("link-{}", self.next_link.fetch_add(1, Ordering::Relaxed));
        let (tell, told) = oneshot::channel();
        let (clerk, feeds) = {
            let mut router = self.lock();
            let running = router.as_mut().ok_or(NoLink::Dead)?;
            if running.feeds.load(Ordering::Relaxed) >= self.feeds_max {
                return Err(NoLink::Refused);
            }
            running.links += 1;
            running.clerk.send(Errand::Link(name, tell)).map_err(|_| NoLink::Dead)?;
            (running.clerk.clone(), Arc::clone(&running.feeds))
        };
        let linked = timeout(ANSWER_MAX, told).await.map_err(|_| NoLink::Dead)?;
        let (tx, rx) = linked.unwrap_or(Err(NoLink::Dead))?;
        feeds.fetch_add(1, Ordering::Relaxed);
        let owner = self.me();
        Ok(RouterFeed {
            owner,
            tx: Some(Box::new(tx)),
            rx,
            clerk,
            feeds,
            given_up,
            must_wake: false,
            filters: 0,
        })
    }

    async fn start(&self) -> Result<(), RouterGone> {
        let connections_max = self.feeds_max.saturating_add(2);
        let name = format!("link-{}", self.next_link.fetch_add(1, Ordering::Relaxed));
        let (tell, told) = oneshot::channel();
        let (clerk, errands) = mpsc::channel();
        thread::Builder::new()
            .name("router-clerk".to_owned())
            .spawn(move || work(connections_max, &name, tell, &errands))
            .map_err(|_| RouterGone)?;
        let publisher = timeout(ANSWER_MAX, told).await.ok().and_then(Result::ok).ok_or(RouterGone)?;
        *self.lock() = Some(Running {
            clerk,
            publisher,
            started_at: Instant::now(),
            feeds: Arc::default(),
            topics: HashSet::new(),
            filters: HashSet::new(),
            links: 1,
            hasher: RandomState::new(),
        });
        Ok(())
    }

    /// Notes a filter that is asked for. One that is new to a router which has seen as many as it may is not taken.
    fn note_filter(&self, filter: &str) -> Result<(), RouterGone> {
        let mut router = self.lock();
        let running = router.as_mut().ok_or(RouterGone)?;
        let hash = running.hasher.hash_one(filter);
        if running.filters.contains(&hash) {
            return Ok(());
        }
        if running.filters.len() < self.seen_max.filters {
            running.filters.insert(hash);
            return Ok(());
        }
        // A new router would be as full at once when it is the filters in use that are too many.
        let in_use = self.subscriptions.load(Ordering::Relaxed);
        let is_of_use = in_use < self.seen_max.filters / 2 && running.started_at.elapsed() >= LIFE_MIN;
        drop(router);
        if is_of_use {
            self.give_up("it has seen many filters");
        }
        Err(RouterGone)
    }

    /// Why the router has to be replaced, although it lives.
    fn is_full(&self) -> Option<&'static str> {
        let router = self.lock();
        let running = router.as_ref()?;
        if running.topics.len() >= self.seen_max.topics {
            return Some("it has seen many topics");
        }
        (running.links >= self.seen_max.links).then_some("it has seen many links")
    }

    fn me(&self) -> Arc<Self> {
        self.me.upgrade().expect("whoever calls this holds it")
    }

    fn lock(&self) -> MutexGuard<'_, Option<Running>> {
        self.router.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Asks a router whether it shows what is published, over a link of its own that lasts as long as the router.
struct Watchdog {
    router: Arc<Embedded>,
    feed: Option<RouterFeed>,
}

impl Watchdog {
    /// Whether the router answers, as long as there is one.
    async fn is_answered(&mut self) -> bool {
        if self.router.lock().is_none() {
            self.feed = None;
            return true;
        }
        let answered = timeout(ANSWER_MAX, self.ask()).await;
        let is_answered = answered.is_ok_and(|answered| answered.is_ok());
        if !is_answered {
            self.feed = None;
        }
        is_answered
    }

    async fn ask(&mut self) -> Result<(), RouterGone> {
        if self.feed.as_ref().is_none_or(RouterFeed::is_over) {
            let mut feed = self.router.link().await.map_err(|_| RouterGone)?;
            // Past the count of subscriptions: the watchdog is no subscriber.
            feed.tx()?.try_subscribe(PROBE_TOPIC).map_err(|_| RouterGone)?;
            self.feed = Some(feed);
        }
        let feed = self.feed.as_mut().ok_or(RouterGone)?;
        feed.tx()?.try_publish(PROBE_TOPIC, encode(0, &probe())).map_err(|_| RouterGone)?;
        feed.next().await.map(drop)
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
        let mut watchdog = Watchdog { router: self.me(), feed: None };
        loop {
            sleep(PROBE_INTERVAL).await;
            if let Some(reason) = self.is_full() {
                self.give_up(reason);
            } else if !watchdog.is_answered().await {
                self.give_up("it does not answer");
            }
        }
    }

    async fn open(&self) -> Result<Box<dyn Feed>, RouterGone> {
        let _one_at_a_time = self.opening.lock().await;
        match self.link().await {
            Ok(feed) => return Ok(Box::new(feed)),
            // The feeds of a router that has no room go on.
            Err(NoLink::Refused) => return Err(RouterGone),
            Err(NoLink::Dead) => self.give_up("it has ended, or does not answer"),
        }
        self.start().await?;
        let feed = self.link().await.map_err(|_| RouterGone)?;
        Ok(Box::new(feed))
    }
}

impl RouterFeed {
    fn tx(&mut self) -> Result<&mut LinkTx, RouterGone> {
        self.tx.as_deref_mut().ok_or(RouterGone)
    }

    /// Whether its router was given up.
    fn is_over(&self) -> bool {
        self.given_up.has_changed().unwrap_or(true)
    }
}

#[async_trait]
impl Feed for RouterFeed {
    async fn subscribe(&mut self, filter: &str) -> Result<(), RouterGone> {
        self.owner.note_filter(filter)?;
        self.tx()?.try_subscribe(spell(filter)).map_err(|_| RouterGone)?;
        self.filters += 1;
        self.owner.subscriptions.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    async fn unsubscribe(&mut self, filter: &str) -> Result<(), RouterGone> {
        self.tx()?.try_unsubscribe(spell(filter)).map_err(|_| RouterGone)?;
        self.filters -= 1;
        self.owner.subscriptions.fetch_sub(1, Ordering::Relaxed);
        Ok(())
    }

    async fn next(&mut self) -> Result<Forward, RouterGone> {
        loop {
            let Self { rx, must_wake, given_up, .. } = self;
            let next = async {
                if *must_wake {
                    rx.wake().await?;
                    *must_wake = false;
                }
                rx.next().await
            };
            let next = tokio::select! {
                next = next => next,
                _ = given_up.changed() => return Err(RouterGone),
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
        self.owner.subscriptions.fetch_sub(self.filters, Ordering::Relaxed);
        self.feeds.fetch_sub(1, Ordering::Relaxed);
        if let Some(tx) = self.tx.take() {
            // A clerk that is gone has no router to part from.
            drop(self.clerk.send(Errand::SayGoodbye(tx)));
        }
    }
}

impl fmt::Debug for Embedded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Embedded").field("feeds_max", &self.feeds_max).finish_non_exhaustive()
    }
}

/// Starts a router, and works for it until it is given up and its last feed is gone. Everything here may block.
fn work(
    connections_max: usize,
    publisher_name: &str,
    tell: oneshot::Sender<LinkTx>,
    errands: &mpsc::Receiver<Errand>,
) {
    let config = RouterConfig {
        max_connections: connections_max,
        max_outgoing_packet_count: OUTGOING_BATCH,
        max_segment_size: SEGMENT_BYTES,
        max_segment_count: SEGMENTS_PER_FILTER,
        ..RouterConfig::default()
    };
    let sender = Router::new(0, config).spawn();
    let link = |name: &str| match LinkBuilder::new(name, sender.clone()).build() {
        Ok((tx, rx, _)) => Ok((tx, rx)),
        Err(LinkError::Send(_)) => Err(NoLink::Dead),
        Err(_) => Err(NoLink::Refused),
    };
    let Ok((publisher, _)) = link(publisher_name) else { return };
    drop(tell.send(publisher));
    for errand in errands {
        match errand {
            // Whoever asked may have stopped waiting: then the link goes as it came.
            Errand::Link(name, tell) => {
                if let Err(Ok((mut tx, _))) = tell.send(link(&name)) {
                    say_goodbye(&mut tx);
                }
            }
            Errand::SayGoodbye(mut tx) => say_goodbye(&mut tx),
        }
    }
}

/// Ends a link. Blocks while the router has no room for the word.
fn say_goodbye(tx: &mut LinkTx) {
    let goodbye =
        Packet::Disconnect(Disconnect { reason_code: DisconnectReasonCode::NormalDisconnection }, None);
    // The future is complete when it was polled once: what it waits for, it waits for by blocking.
    let _ = pin!(tx.send(goodbye)).poll(&mut Context::from_waker(Waker::noop()));
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

    fn publication(topic: &str) -> Publication {
        Publication { topic: Arc::from(topic), payload: Bytes::from_static(b"body"), ..probe() }
    }

    /// What a feed hears, if the router lives.
    async fn hears(router: &Arc<Embedded>, feed: &mut Box<dyn Feed>, topic: &str) -> Publication {
        router.publish(&publication(topic));
        timeout(ANSWER_MAX, feed.next()).await.expect("a message in time").expect("a router").publication
    }

    #[tokio::test]
    async fn a_router_that_was_given_up_is_replaced_and_its_feeds_end() {
        let router = Embedded::new(10);
        let mut watchdog = Watchdog { router: Arc::clone(&router), feed: None };
        let mut feed = router.open().await.unwrap();
        feed.subscribe("a/+").await.unwrap();
        assert!(watchdog.is_answered().await);
        router.give_up("a test");
        assert_eq!(feed.next().await, Err(RouterGone));
        assert!(watchdog.is_answered().await, "there is none");
        let mut feed = router.open().await.unwrap();
        feed.subscribe("a/+").await.unwrap();
        assert!(watchdog.is_answered().await);
        assert_eq!(hears(&router, &mut feed, "a/é").await, publication("a/é"));
    }

    #[tokio::test]
    async fn a_router_whose_thread_has_ended_is_replaced_by_the_next_feed() {
        let router = Embedded::new(10);
        let mut feed = router.open().await.unwrap();
        // Without any filter the fatal topic is compared with none, and kills nobody.
        feed.subscribe("a").await.unwrap();
        let mut watchdog = Watchdog { router: Arc::clone(&router), feed: None };
        router.lock().as_mut().unwrap().publisher.try_publish(FATAL_TOPIC, Bytes::new()).unwrap();
        assert_eq!(feed.next().await, Err(RouterGone));
        assert!(!watchdog.is_answered().await);
        let mut feed = router.open().await.unwrap();
        feed.subscribe("a").await.unwrap();
        assert_eq!(hears(&router, &mut feed, "a").await, publication("a"));
    }

    #[tokio::test]
    async fn a_full_router_takes_no_more_feeds_and_goes_on_for_those_it_has() {
        let router = Embedded::new(2);
        let mut first = router.open().await.unwrap();
        let second = router.open().await.unwrap();
        first.subscribe("a").await.unwrap();
        assert!(router.open().await.is_err());
        assert_eq!(hears(&router, &mut first, "a").await, publication("a"));
        drop(second);
        assert!(router.open().await.is_ok(), "the place is free");
        assert_eq!(*router.given_up.borrow(), 0, "it was not replaced");
    }

    #[tokio::test]
    async fn filters_and_links_are_counted_and_a_router_that_saw_many_is_replaced() {
        let seen_max = Seen { topics: 3, filters: 10, links: 5 };
        let router = Embedded::bounded(10, seen_max);
        let mut feed = router.open().await.unwrap();
        for number in 0..seen_max.filters {
            let filter = format!("a/{number}");
            feed.subscribe(&filter).await.unwrap();
            feed.unsubscribe(&filter).await.unwrap();
        }
        feed.subscribe("a/0").await.expect("it is known");
        assert_eq!(feed.subscribe("b").await, Err(RouterGone), "it is one too many for so young a router");
        assert_eq!(*router.given_up.borrow(), 0);
        router.lock().as_mut().unwrap().started_at -= LIFE_MIN;
        assert_eq!(feed.subscribe("b").await, Err(RouterGone));
        assert_eq!(*router.given_up.borrow(), 1, "another one takes its place");
        let mut feed = router.open().await.unwrap();
        feed.subscribe("b").await.unwrap();
        assert_eq!(router.is_full(), None);
        for _ in 0..seen_max.links {
            drop(router.open().await.unwrap());
        }
        assert!(router.is_full().is_some(), "it has seen many links");
        assert_eq!(hears(&router, &mut feed, "b").await, publication("b"));
    }

    #[tokio::test]
    async fn a_feed_that_goes_leaves_the_goodbye_to_the_clerk() {
        let router = Embedded::new(10);
        drop(router.open().await.unwrap());
        router.start().await.unwrap();
        let mut feed = router.link().await.unwrap();
        let (clerk, errands) = mpsc::channel();
        feed.clerk = clerk;
        drop(feed);
        // Nobody does its errands, as when it waits for a router that hangs.
        assert!(matches!(errands.recv(), Ok(Errand::SayGoodbye(_))));
    }
}
