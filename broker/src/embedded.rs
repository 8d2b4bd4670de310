//! The embedded router (rumqttd without its listener): live fan-out to subscribers and nothing else.
//!
//! Its quirks decide the shape. Its event type cannot be named, so its sender lives in a closure. Building a link
//! blocks, so it happens off the runtime's threads. One link per client id and never two, so every feed has a number.
//! A dropped link stays connected, so a feed says goodbye when it goes. A topic that starts with a non-ASCII
//! character kills its thread, so only routable topics get here, and a dead router is replaced.

use std::fmt;
use std::pin::pin;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Waker};

use async_trait::async_trait;
use rumqttd::local::{LinkBuilder, LinkRx, LinkTx};
use rumqttd::protocol::{Disconnect, DisconnectReasonCode, Packet};
use rumqttd::{Notification, Router, RouterConfig};
use tokio::task::spawn_blocking;

use crate::delivery::Message;
use crate::fanout::{Fanout, Feed, Forward, RouterGone, is_routable};

/// Bytes of a ring segment of one filter, and how many of them the router keeps.
const SEGMENT_BYTES: usize = 1 << 20;
const SEGMENTS_PER_FILTER: usize = 4;
/// Messages the router hands to one subscriber at a time.
const OUTGOING_BATCH: u64 = 200;

type Connect = Arc<dyn Fn(&str) -> Result<(LinkTx, LinkRx), RouterGone> + Send + Sync>;

/// Live fan-out through rumqttd.
pub(crate) struct Embedded {
    feeds_max: usize,
    router: Mutex<Option<Running>>,
    /// Feeds are opened one after the other, so that a dead router is replaced once.
    opening: tokio::sync::Mutex<()>,
    next_link: AtomicU64,
    subscriptions: Arc<AtomicUsize>,
}

struct Running {
    connect: Connect,
    publisher: LinkTx,
}

/// The feed of one subscriber.
struct RouterFeed {
    tx: LinkTx,
    rx: LinkRx,
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
            opening: tokio::sync::Mutex::default(),
            next_link: AtomicU64::new(0),
            subscriptions: Arc::default(),
        })
    }

    fn link_name(&self) -> String {
        format!("link-{}", self.next_link.fetch_add(1, Ordering::Relaxed))
    }

    fn connector(&self) -> Option<Connect> {
        let router = self.router.lock().unwrap_or_else(PoisonError::into_inner);
        router.as_ref().map(|running| Arc::clone(&running.connect))
    }

    async fn start(&self) -> Result<Connect, RouterGone> {
        let connections_max = self.feeds_max.saturating_add(1);
        let name = self.link_name();
        let running = blocking(move || start_router(connections_max, &name)).await?;
        let connect = Arc::clone(&running.connect);
        *self.router.lock().unwrap_or_else(PoisonError::into_inner) = Some(running);
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

    fn publish(&self, message: &Message) {
        if !is_routable(&message.topic) {
            return;
        }
        let mut router = self.router.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(running) = router.as_mut() {
            let topic = message.topic.to_string();
            if let Err(error) = running.publisher.try_publish(topic, message.payload.clone()) {
                tracing::debug!(%error, "live message not shown");
                // A refused message stays in the link's own buffer, which has no limit.
                running.publisher.buffer().clear();
            }
        }
    }

    async fn open(&self) -> Result<Box<dyn Feed>, RouterGone> {
        let _one_at_a_time = self.opening.lock().await;
        let linked = match self.connector() {
            Some(connect) => self.link(connect).await,
            None => Err(RouterGone),
        };
        let (tx, rx) = match linked {
            Ok(link) => link,
            Err(RouterGone) => {
                let connect = self.start().await?;
                self.link(connect).await?
            }
        };
        Ok(Box::new(RouterFeed {
            tx,
            rx,
            must_wake: false,
            filters: 0,
            subscriptions: Arc::clone(&self.subscriptions),
        }))
    }
}

#[async_trait]
impl Feed for RouterFeed {
    async fn subscribe(&mut self, filter: &str) -> Result<(), RouterGone> {
        self.tx.try_subscribe(filter).map_err(|_| RouterGone)?;
        self.filters += 1;
        self.subscriptions.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    async fn unsubscribe(&mut self, filter: &str) -> Result<(), RouterGone> {
        self.tx.try_unsubscribe(filter).map_err(|_| RouterGone)?;
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
            match self.rx.next().await.map_err(|_| RouterGone)? {
                Some(Notification::Forward(forward)) => {
                    return Ok(Forward { topic: forward.publish.topic, payload: forward.publish.payload });
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
        let goodbye =
            Packet::Disconnect(Disconnect { reason_code: DisconnectReasonCode::NormalDisconnection }, None);
        // The future never waits: it pushes into a queue, and is complete when it was polled once.
        let _ = pin!(self.tx.send(goodbye)).poll(&mut Context::from_waker(Waker::noop()));
    }
}

impl fmt::Debug for Embedded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Embedded").field("subscriptions", &self.subscriptions).finish_non_exhaustive()
    }
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
    Ok(Running { connect, publisher })
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, RouterGone> + Send + 'static,
) -> Result<T, RouterGone> {
    spawn_blocking(work).await.unwrap_or(Err(RouterGone))
}
