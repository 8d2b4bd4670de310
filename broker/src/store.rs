//! What the door keeps across restarts: sessions that outlive their connections, last wills that wait, and retained
//! messages.
//!
//! Everything that changes is a [`Change`]. The door hands them over in order, many at a time, and answers its clients
//! only after the changes that belong to the answer are stored. Of several doors on one store only one keeps sessions: two
//! would number the messages of a queue each by itself.

use std::error::Error;
use std::num::NonZeroU32;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use schema::clock::Timestamp;
use uuid::Uuid;

use crate::gatekeeper::{Identity, Principal};
use crate::message::{Fingerprint, Qos};
use crate::publication::Publication;

/// The store could not be read or written.
#[derive(Debug, thiserror::Error)]
#[error("reach the store of sessions and retained messages")]
pub struct DoorStoreError {
    /// What to do about it.
    pub fault: Fault,
    /// What the store said.
    #[source]
    pub source: Box<dyn Error + Send + Sync>,
}

/// Why the store did not do what it was asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The store is away or busy: the same may succeed later.
    Away,
    /// A change is at fault: it would be refused again.
    Change,
    /// Another door keeps the sessions by now: no change of a session can be stored any more.
    Replaced,
}

/// Where sessions and retained messages last.
#[async_trait]
pub trait DoorStore: Send + Sync {
    /// Asks to be the one door that keeps sessions, and says whether it is. Asked again and again: the door that keeps
    /// them hears when it does not any more, and another one takes over when that one has gone.
    async fn keeps_sessions(&self) -> Result<bool, DoorStoreError>;

    /// Everything that is stored, of sessions and wills only what this door keeps; read once, before the door opens.
    async fn load(&self) -> Result<Stored, DoorStoreError>;

    /// Stores changes in their order, all or none of them, but for those of sessions that the store does not have any more,
    /// which it names. The same changes may come again after an error, even when they were stored.
    async fn apply(&self, changes: &[Change]) -> Result<Vec<Uuid>, DoorStoreError>;
}

/// Whose session it is.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Owner {
    /// Clients without a credential.
    Anonymous,
    /// A device.
    Device(Identity),
    /// An operator, by name.
    Operator(Arc<str>),
}

impl Owner {
    /// Who stands behind a client.
    #[must_use]
    pub fn of(principal: &Principal) -> Self {
        match principal {
            Principal::Anonymous => Self::Anonymous,
            Principal::Device(identity) => Self::Device(identity.clone()),
            Principal::Operator(operator) => Self::Operator(Arc::clone(&operator.name)),
        }
    }
}

/// A name a client gave itself, in the realm of its owner: nobody takes another's name.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Client {
    /// Who stands behind it.
    pub owner: Owner,
    /// The name.
    pub client_id: Arc<str>,
}

/// What a client asked for with one filter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subscription {
    /// The filter as it was sent, with its share name.
    pub filter: Arc<str>,
    /// The highest quality messages are sent with.
    pub qos: Qos,
    /// Not what the client published itself.
    pub no_local: bool,
    /// With the retain flag they were published with.
    pub retain_as_published: bool,
    /// The number the client wants to see with each message.
    pub id: Option<NonZeroU32>,
}

/// A message in the queue of one session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Queued {
    /// Its place in the queue; the packet id follows from it.
    pub sequence: u64,
    /// The message.
    pub publication: Arc<Publication>,
    /// At least once or exactly once.
    pub qos: Qos,
    /// The retain flag it is sent with.
    pub retain: bool,
    /// Numbers of the subscriptions it comes from.
    pub subscription_ids: Vec<NonZeroU32>,
    /// The client has it, and is only to be told to release its id (quality 2).
    pub is_received: bool,
    /// When it was queued.
    pub queued_at: Timestamp,
}

/// A message at quality 2 that was taken in and that its publisher has not released.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Received {
    /// Its packet id.
    pub packet_id: u16,
    /// What tells it from another one under the same id; `None` where an earlier program stored it.
    pub fingerprint: Option<Fingerprint>,
}

/// A session as it is stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredSession {
    /// Its key.
    pub id: Uuid,
    /// Whose it is.
    pub client: Client,
    /// Seconds it outlives its connection.
    pub expiry_seconds: u32,
    /// When its connection ended; `None` while it lasted.
    pub left_at: Option<Timestamp>,
    /// What the client subscribed to.
    pub subscriptions: Vec<Subscription>,
    /// Messages at quality 2 that were taken in and not yet released, one for each id.
    pub received: Vec<Received>,
    /// What waits for the client, in order.
    pub queue: Vec<Queued>,
}

/// A last will whose client has gone and may still come back. It outlives its session, whose end has it published.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WaitingWill {
    /// Its key.
    pub id: Uuid,
    /// Whose it is; operators have none.
    pub client: Client,
    /// The topic as the client gave it.
    pub topic: Arc<str>,
    /// The body.
    pub payload: Bytes,
    /// How it is published.
    pub qos: Qos,
    /// To be retained.
    pub retain: bool,
    /// Properties of MQTT 5, as they are encoded.
    pub carried: Bytes,
    /// Seconds after its publication in which it is of use.
    pub expiry_seconds: Option<u32>,
    /// When it is published.
    pub due_at: Timestamp,
}

/// Everything that is stored.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stored {
    /// Sessions that outlived their connections.
    pub sessions: Vec<StoredSession>,
    /// Last wills that wait.
    pub wills: Vec<WaitingWill>,
    /// Retained messages.
    pub retained: Vec<Publication>,
}

/// One thing that changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// A session began, or lasts as long as this from now on; its connection is there, or left at that time.
    Session {
        /// The session.
        id: Uuid,
        /// Whose it is.
        client: Client,
        /// Seconds it outlives its connection.
        expiry_seconds: u32,
        /// When its connection ended.
        left_at: Option<Timestamp>,
    },
    /// A session is over, with everything that belongs to it.
    Ended {
        /// The session.
        id: Uuid,
    },
    /// A subscription was made or replaced.
    Subscribed {
        /// The session.
        id: Uuid,
        /// The subscription.
        subscription: Subscription,
    },
    /// A subscription was taken back.
    Unsubscribed {
        /// The session.
        id: Uuid,
        /// Its filter.
        filter: Arc<str>,
    },
    /// A message at quality 2 was taken in, in place of one that had its packet id.
    Received {
        /// The session.
        id: Uuid,
        /// The message.
        received: Received,
    },
    /// The client released that id.
    Released {
        /// The session.
        id: Uuid,
        /// The packet id.
        packet_id: u16,
    },
    /// A message waits for the client.
    Queued {
        /// The session.
        id: Uuid,
        /// The message.
        queued: Queued,
    },
    /// The client has a message at quality 2, and is to release its id.
    Taken {
        /// The session.
        id: Uuid,
        /// The message's place.
        sequence: u64,
    },
    /// A message does not wait any more: delivered, or dropped.
    Dequeued {
        /// The session.
        id: Uuid,
        /// The message's place.
        sequence: u64,
    },
    /// A last will waits for its time.
    WillWaits(Arc<WaitingWill>),
    /// A last will does not wait any more: its client came back, or it is published.
    WillGone {
        /// The will.
        id: Uuid,
    },
    /// A message is the retained one of its topic.
    Retained(Arc<Publication>),
    /// A topic has no retained message any more.
    Unretained(Arc<str>),
}

impl Change {
    /// Whether it is of a session or a last will, and not of a retained message.
    #[must_use]
    pub fn is_of_session(&self) -> bool {
        match self {
            Self::Retained(_) | Self::Unretained(_) => false,
            Self::Session { .. }
            | Self::Ended { .. }
            | Self::Subscribed { .. }
            | Self::Unsubscribed { .. }
            | Self::Received { .. }
            | Self::Released { .. }
            | Self::Queued { .. }
            | Self::Taken { .. }
            | Self::Dequeued { .. }
            | Self::WillWaits(_)
            | Self::WillGone { .. } => true,
        }
    }

    /// Bytes it takes on its way to the store, about.
    pub(crate) fn cost_bytes(&self) -> usize {
        match self {
            Self::Queued { queued, .. } => queued.publication.cost_bytes(),
            Self::Retained(publication) => publication.cost_bytes(),
            Self::Subscribed { subscription, .. } => subscription.filter.len(),
            Self::Unsubscribed { filter, .. } => filter.len(),
            Self::Unretained(topic) => topic.len(),
            Self::WillWaits(will) => will.topic.len() + will.payload.len() + will.carried.len(),
            Self::Session { .. }
            | Self::Ended { .. }
            | Self::Received { .. }
            | Self::Released { .. }
            | Self::Taken { .. }
            | Self::Dequeued { .. }
            | Self::WillGone { .. } => 0,
        }
    }
}

/// Keeps nothing: sessions and retained messages last as long as the process. It is the only door of its store.
#[derive(Clone, Copy, Debug, Default)]
pub struct Forgetful;

#[async_trait]
impl DoorStore for Forgetful {
    async fn keeps_sessions(&self) -> Result<bool, DoorStoreError> {
        Ok(true)
    }

    async fn load(&self) -> Result<Stored, DoorStoreError> {
        Ok(Stored::default())
    }

    async fn apply(&self, _changes: &[Change]) -> Result<Vec<Uuid>, DoorStoreError> {
        Ok(Vec::new())
    }
}
