//! Work orders through RabbitMQ, for workers on other machines.
//!
//! The rows stay the truth. An order says that a job waits, no more: whoever takes it claims the row, and an order
//! whose row is not to be claimed is of no use any more. An order that is lost costs a moment, since workers look at the
//! rows as well.

use std::collections::VecDeque;
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use lapin::Acker;
use lapin::uri::AMQPUri;
use schema::id::Uuid;
use schema::metrics;
use schema::store::inference::Job;
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;

mod connect;
pub mod link;
mod session;

/// The queue of orders. Its exchange is the default one.
const QUEUE: &str = "farmiq.inference";
/// The exchange and the queue of orders whose jobs were given up, and of messages that are no orders.
const DEAD: &str = "farmiq.inference.dead";
/// Orders that wait to be sent at most; the jobs of those on top are found by looking at the rows.
const OUTGOING_MAX: usize = 1_000;
/// Seconds between two signs of life, unless the address says otherwise.
const HEARTBEAT_SECONDS: u16 = 10;
/// The virtual host of an address that names none.
const DEFAULT_VHOST: &str = "/";
/// Bytes of the name of a virtual host; AMQP knows none that is longer.
const VHOST_BYTES_MAX: usize = 255;

/// Where RabbitMQ is. It holds a password and is never shown.
#[derive(Clone)]
pub struct RabbitUrl(AMQPUri);

impl RabbitUrl {
    /// Reads an address, such as `amqps://user:password@host/vhost`; `None` when it is none.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let mut uri: AMQPUri = text.parse().ok()?;
        let authority = text.split_once("://")?.1.split(['/', '?', '#']).next()?;
        let host = authority.rsplit('@').next().filter(|host| !host.is_empty() && !host.starts_with(':'))?;
        // What reads the address knows names and IPv4 addresses only, and takes localhost for the others.
        if let Some((address, _)) = host.strip_prefix('[').and_then(|host| host.split_once(']')) {
            address.clone_into(&mut uri.authority.host);
        }
        // Nobody means the virtual host whose name is empty.
        if uri.vhost.is_empty() {
            DEFAULT_VHOST.clone_into(&mut uri.vhost);
        }
        uri.query.heartbeat.get_or_insert(HEARTBEAT_SECONDS);
        (uri.vhost.len() <= VHOST_BYTES_MAX).then_some(Self(uri))
    }
}

impl fmt::Debug for RabbitUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for RabbitUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let AMQPUri { scheme, authority, .. } = &self.0;
        write!(f, "{scheme}://{}:{}", authority.host, authority.port)
    }
}

/// What stands in the queue for a job.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorkOrder {
    /// Tenant.
    pub tenant_id: String,
    /// The job.
    pub job_id: Uuid,
}

impl WorkOrder {
    pub(super) fn of(job: &Job) -> Self {
        Self { tenant_id: job.tenant_id.clone(), job_id: job.id }
    }
}

/// What is to be sent.
#[derive(Clone, Debug)]
pub(super) enum Outgoing {
    /// A job waits.
    Job {
        /// Which one.
        order: WorkOrder,
        /// Whether it goes before those that are not.
        is_interactive: bool,
    },
    /// A job was given up without an order at hand.
    Dead(WorkOrder),
}

/// The orders as workers and those who make jobs see them; the link carries them. Cloning shares them.
#[derive(Clone, Debug)]
pub struct Orders(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    outgoing: mpsc::Sender<Outgoing>,
    /// The other end, for the incarnation of the link that lives.
    outgoing_end: tokio::sync::Mutex<mpsc::Receiver<Outgoing>>,
    /// What no worker has taken yet; the server sends no more than the link's prefetch.
    incoming: Mutex<VecDeque<Taken>>,
    is_connected: AtomicBool,
}

impl Default for Orders {
    fn default() -> Self {
        let (outgoing, outgoing_end) = mpsc::channel(OUTGOING_MAX);
        Self(Arc::new(Shared {
            outgoing,
            outgoing_end: outgoing_end.into(),
            incoming: Mutex::default(),
            is_connected: AtomicBool::new(false),
        }))
    }
}

impl Orders {
    /// Whether the server can be reached.
    #[must_use]
    pub fn is_connected(&self) -> bool {
        self.0.is_connected.load(Ordering::Relaxed)
    }

    /// Has something sent, as long as the server can be reached; `false` when it is not. Waits for nothing.
    pub(super) fn send(&self, outgoing: Outgoing) -> bool {
        let is_sent = self.is_connected() && self.0.outgoing.try_send(outgoing).is_ok();
        if !is_sent {
            metrics::inference_orders("lost").increment(1);
        }
        is_sent
    }

    /// Takes the next order, if there is one.
    pub(super) fn take(&self) -> Option<Taken> {
        self.incoming().pop_front()
    }

    fn incoming(&self) -> MutexGuard<'_, VecDeque<Taken>> {
        // A panic while this is locked cannot be: nothing is done under the lock.
        self.0.incoming.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set_connected(&self, is_connected: bool) {
        self.0.is_connected.store(is_connected, Ordering::Relaxed);
        metrics::inference_rabbitmq_up().set(f64::from(u8::from(is_connected)));
    }
}

/// What becomes of an order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    /// It is acknowledged.
    Done,
    /// It goes to the dead ones.
    Dead,
    /// It goes back into the queue.
    Again,
}

/// An order in hand. Dropping it hands it back.
#[derive(Debug)]
pub(super) struct Taken {
    pub(super) order: WorkOrder,
    fate: Fate,
    acker: Acker,
    settle: mpsc::UnboundedSender<(Acker, Fate)>,
}

impl Taken {
    /// Its job was settled by a commit, or is not to be claimed any more.
    pub(super) fn done(mut self) {
        self.fate = Fate::Done;
    }

    /// Its job was given up.
    pub(super) fn bury(mut self) {
        self.fate = Fate::Dead;
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        // When the connection it came from is gone, the server hands it out again by itself.
        let _ = self.settle.send((self.acker.clone(), self.fate));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_checked_and_never_shows_its_password() {
        let long = format!("amqp://host/{}", "v".repeat(256));
        for wrong in
            ["", "rabbit", "http://host", "amqp://", "amqp://u:hush@:5672", "amqp://u:hush@host:port", &long]
        {
            assert!(RabbitUrl::parse(wrong).is_none(), "{wrong}");
        }
        let check = |text: &str, shown: &str, vhost: &str| {
            let url = RabbitUrl::parse(text).unwrap_or_else(|| panic!("{text}"));
            assert_eq!((url.to_string(), format!("{url:?}")), (shown.to_owned(), shown.to_owned()));
            assert_eq!(url.0.vhost, vhost);
        };
        check("amqp://host", "amqp://host:5672", "/");
        check("amqps://u:hush@host/farm", "amqps://host:5671", "farm");
        check("amqp://u:hush@10.0.0.1:1234/", "amqp://10.0.0.1:1234", "/");
        check("amqp://u:hu[s]h@[fd00::1]:1234/%2f?heartbeat=30", "amqp://fd00::1:1234", "/");
    }
}
