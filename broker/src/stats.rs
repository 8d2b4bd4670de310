//! What the door and the link tell about themselves: counters to read, and the metrics that follow them.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use schema::metrics;
use schema::wire::topic::Kind;

use crate::share::{Budget, Limit, Spent};

/// Why a client or a message was turned away.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Refusal {
    /// A wrong credential, or none where one is needed.
    Credential,
    /// A publish or a subscription outside the device's scope.
    Acl,
    /// A TLS handshake that failed, took too long, or showed a certificate that is not accepted.
    Handshake,
    /// A request on a WebSocket port that does not ask for MQTT, or not in time.
    Upgrade,
    /// Too many clients of one address that are not logged in.
    Address,
    /// A protocol version other than MQTT 3.1.1 and 5, or an authentication method.
    Protocol,
    /// An empty client id that asks for a lasting session.
    ClientId,
    /// Nothing can be committed, or nobody can check the credential now.
    Unavailable,
    /// All connections are taken.
    Full,
    /// A packet that breaks the protocol.
    Malformed,
    /// A device that is not enabled any more, or whose credential is not accepted any more.
    Revoked,
    /// Its owner has its part of what all clients share.
    Quota,
    /// As many sessions outlive their connections as may.
    Sessions,
    /// A subscriber that wants a lasting session, at an engine that keeps none.
    Standby,
    /// The system did not hand the connection over, usually for want of file descriptors.
    Accept,
}

impl Refusal {
    /// Every reason.
    pub const ALL: [Self; 15] = [
        Self::Credential,
        Self::Acl,
        Self::Handshake,
        Self::Upgrade,
        Self::Address,
        Self::Protocol,
        Self::ClientId,
        Self::Unavailable,
        Self::Full,
        Self::Malformed,
        Self::Revoked,
        Self::Quota,
        Self::Sessions,
        Self::Standby,
        Self::Accept,
    ];

    /// The `reason` label of metrics.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Credential => "credential",
            Self::Acl => "acl",
            Self::Handshake => "handshake",
            Self::Upgrade => "upgrade",
            Self::Address => "address",
            Self::Protocol => "protocol",
            Self::ClientId => "client_id",
            Self::Unavailable => "unavailable",
            Self::Full => "full",
            Self::Malformed => "malformed",
            Self::Revoked => "revoked",
            Self::Quota => "quota",
            Self::Sessions => "sessions",
            Self::Standby => "standby",
            Self::Accept => "accept",
        }
    }
}

/// Why a message does not reach a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QueueDrop {
    /// So many messages wait for this client.
    Count,
    /// So many bytes wait for this client.
    Bytes,
    /// So many bytes wait for all clients together.
    TotalBytes,
    /// So many messages wait for all clients together.
    TotalMessages,
    /// So many bytes wait for all clients of its owner.
    OwnerBytes,
    /// So many messages wait for all clients of its owner.
    OwnerMessages,
    /// It waited too long, or its publisher said that it is of no use any more.
    Age,
    /// It is larger than the client said it takes.
    PacketSize,
    /// It carried no promise, and as much of its kind waits for this client as may.
    Live,
}

impl QueueDrop {
    /// Every reason.
    pub const ALL: [Self; 9] = [
        Self::Count,
        Self::Bytes,
        Self::TotalBytes,
        Self::TotalMessages,
        Self::OwnerBytes,
        Self::OwnerMessages,
        Self::Age,
        Self::PacketSize,
        Self::Live,
    ];

    /// Why a budget of all clients had no room.
    pub(crate) fn of_spent(spent: Spent) -> Self {
        Self::ALL.into_iter().find(|reason| reason.spent() == Some(spent)).expect("a budget of the queues")
    }

    /// The budget of all clients that had no room.
    pub(crate) fn spent(self) -> Option<Spent> {
        let (budget, limit) = match self {
            Self::TotalBytes => (Budget::QueuedBytes, Limit::Total),
            Self::TotalMessages => (Budget::QueuedMessages, Limit::Total),
            Self::OwnerBytes => (Budget::QueuedBytes, Limit::Share),
            Self::OwnerMessages => (Budget::QueuedMessages, Limit::Share),
            Self::Count | Self::Bytes | Self::Age | Self::PacketSize | Self::Live => return None,
        };
        Some(Spent { budget, limit })
    }

    /// The `reason` label of metrics.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Count => "count",
            Self::Bytes => "bytes",
            Self::TotalBytes => "total_bytes",
            Self::TotalMessages => "total_messages",
            Self::OwnerBytes => "owner_bytes",
            Self::OwnerMessages => "owner_messages",
            Self::Age => "age",
            Self::PacketSize => "packet_size",
            Self::Live => "live",
        }
    }
}

type Record = Box<dyn Fn(f64) + Send + Sync>;

/// Counters of the door or of the link; cheap to bump, read whenever somebody asks. The metrics of the catalog follow
/// them, provided the exporter was installed before this was made.
pub struct DoorStats {
    connections: AtomicUsize,
    unacked: AtomicUsize,
    connected: AtomicBool,
    keeps_sessions: AtomicBool,
    received: AtomicU64,
    handed_back: AtomicU64,
    panicked: AtomicU64,
    abandoned: AtomicUsize,
    refused: [AtomicU64; Refusal::ALL.len()],
    queue_dropped: [AtomicU64; QueueDrop::ALL.len()],
    spent: [AtomicU64; Budget::ALL.len()],
    handles: Handles,
}

/// Handles of the metrics, looked up once.
struct Handles {
    latency_seconds: [Record; Kind::ALL.len()],
    handed_back: [Record; Kind::ALL.len()],
    refused: [Record; Refusal::ALL.len()],
    queue_dropped: [Record; QueueDrop::ALL.len()],
    spent: [[Record; Limit::ALL.len()]; Budget::ALL.len()],
    not_retained: Record,
    connected: Record,
    keeps_sessions: Record,
    connections: Record,
    unacked: Record,
}

impl Default for DoorStats {
    fn default() -> Self {
        Self {
            connections: AtomicUsize::new(0),
            unacked: AtomicUsize::new(0),
            connected: AtomicBool::new(false),
            keeps_sessions: AtomicBool::new(false),
            received: AtomicU64::new(0),
            handed_back: AtomicU64::new(0),
            panicked: AtomicU64::new(0),
            abandoned: AtomicUsize::new(0),
            refused: Default::default(),
            queue_dropped: Default::default(),
            spent: Default::default(),
            handles: Handles::look_up(),
        }
    }
}

impl DoorStats {
    /// Clients that are logged in now.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.connections.load(Ordering::Relaxed)
    }

    /// Deliveries that were taken in and are not answered yet.
    #[must_use]
    pub fn unacked(&self) -> usize {
        self.unacked.load(Ordering::Relaxed)
    }

    /// The door is open, or the link is connected.
    #[must_use]
    pub fn is_connected(&self) -> bool {
        self.connected.load(Ordering::Relaxed)
    }

    /// Whether sessions outlive their connections here; never with an external broker.
    #[must_use]
    pub fn keeps_sessions(&self) -> bool {
        self.keeps_sessions.load(Ordering::Relaxed)
    }

    /// Messages taken in since the start.
    #[must_use]
    pub fn received(&self) -> u64 {
        self.received.load(Ordering::Relaxed)
    }

    /// Deliveries that came back undone since the start.
    #[must_use]
    pub fn handed_back(&self) -> u64 {
        self.handed_back.load(Ordering::Relaxed)
    }

    /// Connections that ended by a bug since the start.
    #[must_use]
    pub fn panicked(&self) -> u64 {
        self.panicked.load(Ordering::Relaxed)
    }

    /// Deliveries that were cut off before they were settled: by a shutdown's deadline or by a bug.
    #[must_use]
    pub fn abandoned(&self) -> usize {
        self.abandoned.load(Ordering::Relaxed)
    }

    /// How often something was turned away for this reason since the start.
    #[must_use]
    pub fn refused(&self, refusal: Refusal) -> u64 {
        self.refused[refusal as usize].load(Ordering::Relaxed)
    }

    /// Messages that did not reach a subscriber for this reason since the start.
    #[must_use]
    pub fn queue_dropped(&self, reason: QueueDrop) -> u64 {
        self.queue_dropped[reason as usize].load(Ordering::Relaxed)
    }

    /// Requests that this budget had no room for since the start.
    #[must_use]
    pub fn spent(&self, budget: Budget) -> u64 {
        self.spent[budget as usize].load(Ordering::Relaxed)
    }

    pub(crate) fn client_came(&self) {
        let before = self.connections.fetch_add(1, Ordering::Relaxed);
        (self.handles.connections)((before + 1) as f64);
    }

    pub(crate) fn client_left(&self) {
        let before = self.connections.fetch_sub(1, Ordering::Relaxed);
        (self.handles.connections)((before - 1) as f64);
    }

    pub(crate) fn set_connected(&self, connected: bool) {
        self.connected.store(connected, Ordering::Relaxed);
        (self.handles.connected)(f64::from(u8::from(connected)));
    }

    pub(crate) fn set_keeps_sessions(&self, keeps_sessions: bool) {
        self.keeps_sessions.store(keeps_sessions, Ordering::Relaxed);
        (self.handles.keeps_sessions)(f64::from(u8::from(keeps_sessions)));
    }

    pub(crate) fn opened(&self) {
        self.received.fetch_add(1, Ordering::Relaxed);
        self.unacked.fetch_add(1, Ordering::Relaxed);
    }

    /// A delivery was answered, so long after it arrived.
    pub(crate) fn answered(&self, kind: Option<Kind>, elapsed: Duration) {
        if let Some(kind) = kind {
            (self.handles.latency_seconds[kind as usize])(elapsed.as_secs_f64());
        }
    }

    /// So many deliveries left a window.
    pub(crate) fn closed(&self, count: usize) {
        let before = self.unacked.fetch_sub(count, Ordering::Relaxed);
        (self.handles.unacked)((before - count) as f64);
    }

    /// A source died over so many open deliveries.
    pub(crate) fn abandon(&self, count: usize) {
        self.abandoned.fetch_add(count, Ordering::Relaxed);
        self.closed(count);
    }

    pub(crate) fn count_handed_back(&self, kind: Option<Kind>) {
        self.handed_back.fetch_add(1, Ordering::Relaxed);
        if let Some(kind) = kind {
            (self.handles.handed_back[kind as usize])(1.0);
        }
    }

    pub(crate) fn count_panicked(&self) {
        self.panicked.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn count_queue_dropped(&self, reason: QueueDrop) {
        self.queue_dropped[reason as usize].fetch_add(1, Ordering::Relaxed);
        (self.handles.queue_dropped[reason as usize])(1.0);
        if let Some(spent) = reason.spent() {
            self.count_spent(spent);
        }
    }

    /// A budget had no room for something.
    pub(crate) fn count_spent(&self, Spent { budget, limit }: Spent) {
        self.spent[budget as usize].fetch_add(1, Ordering::Relaxed);
        (self.handles.spent[budget as usize][limit as usize])(1.0);
    }

    pub(crate) fn count_not_retained(&self) {
        (self.handles.not_retained)(1.0);
    }

    pub(crate) fn count_refused(&self, refusal: Refusal) {
        self.refused[refusal as usize].fetch_add(1, Ordering::Relaxed);
        (self.handles.refused[refusal as usize])(1.0);
    }
}

impl Handles {
    fn look_up() -> Self {
        let not_retained = metrics::mqtt_not_retained();
        let connected = metrics::mqtt_connected();
        let keeps_sessions = metrics::mqtt_keeps_sessions();
        let connections = metrics::mqtt_connections();
        let unacked = metrics::mqtt_unacked();
        Self {
            latency_seconds: Kind::ALL.map(|kind| {
                let handle = metrics::mqtt_message_latency_seconds(kind);
                Box::new(move |seconds| handle.record(seconds)) as Record
            }),
            handed_back: Kind::ALL.map(|kind| {
                let handle = metrics::ingress_handed_back(kind);
                Box::new(move |_| handle.increment(1)) as Record
            }),
            refused: Refusal::ALL.map(|refusal| {
                let handle = metrics::auth_refused(refusal.as_str());
                Box::new(move |_| handle.increment(1)) as Record
            }),
            queue_dropped: QueueDrop::ALL.map(|reason| {
                let handle = metrics::mqtt_queue_dropped(reason.as_str());
                Box::new(move |_| handle.increment(1)) as Record
            }),
            spent: Budget::ALL.map(|budget| {
                Limit::ALL.map(|limit| {
                    let handle = metrics::mqtt_budget_spent(budget.as_str(), limit.as_str());
                    Box::new(move |_| handle.increment(1)) as Record
                })
            }),
            not_retained: Box::new(move |_| not_retained.increment(1)),
            connected: Box::new(move |value| connected.set(value)),
            keeps_sessions: Box::new(move |value| keeps_sessions.set(value)),
            connections: Box::new(move |value| connections.set(value)),
            unacked: Box::new(move |value| unacked.set(value)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_and_every_reason_has_its_own_place() {
        for (index, kind) in Kind::ALL.into_iter().enumerate() {
            assert_eq!(kind as usize, index);
        }
        for (index, refusal) in Refusal::ALL.into_iter().enumerate() {
            assert_eq!(refusal as usize, index);
        }
        for (index, reason) in QueueDrop::ALL.into_iter().enumerate() {
            assert_eq!(reason as usize, index);
        }
        for (index, budget) in Budget::ALL.into_iter().enumerate() {
            assert_eq!(budget as usize, index);
        }
        for (index, limit) in Limit::ALL.into_iter().enumerate() {
            assert_eq!(limit as usize, index);
        }
    }
}
